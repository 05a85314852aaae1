"""What operating systems and tools leave in folders and archives of images: passed over, and counted by rule."""

from __future__ import annotations

_NAMES = frozenset(
    (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", "lost+found", "@eaDir", ".ipynb_checkpoints")
)  # fmt: skip
_APPLE_DOUBLE = "._"


def rule(name: str) -> str | None:
    """The rule by which the file or folder of this base name is passed over, such as ``.DS_Store``; None: it is not."""
    if name in _NAMES:
        return name
    return "._*" if name.startswith(_APPLE_DOUBLE) else None
