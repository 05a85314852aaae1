"""Files and folders that systems leave beside photographs: they are passed over, and counted by rule."""

from __future__ import annotations

_NAMES = (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", "lost+found", "@eaDir", ".ipynb_checkpoints")
# Windows writes some of them in other cases.
_RULES = {name.lower(): name for name in _NAMES}
_APPLE_DOUBLE = "._"


def rule(name: str) -> str | None:
    """The rule by which a file or folder of this base name is passed over, or None: it is to be looked at."""
    if name.startswith(_APPLE_DOUBLE):
        return f"{_APPLE_DOUBLE}*"
    return _RULES.get(name.lower())
