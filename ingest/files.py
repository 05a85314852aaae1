"""Where a name leads: to this machine's disks, or through fsspec to a bucket or a web server. The one room of upath.

Everywhere else a place is a ``pathlib.Path``; a remote one (``s3://``, ``gs://``, ``https://``) behaves like it.
"""

from __future__ import annotations

import os
from pathlib import Path

from ingest.errors import OptionError


def place(name: str | Path) -> Path:
    """The path that ``name`` says. Raises OptionError where it is remote and what reads such places is missing."""
    if not isinstance(name, str) or "://" not in name:
        return Path(name)
    try:
        from upath import UPath

        return UPath(name)
    except (ImportError, ValueError) as error:  # the kind's own library is missing, or the kind is unknown
        raise OptionError(f"{name}: cannot be reached ({error}): pip install 'ingest-toolkit[remote]'") from error


def is_remote(path: Path) -> bool:
    """Whether ``path`` is not on this machine's disks."""
    return not isinstance(path, Path) or hasattr(path, "fs")


def read(path: Path, start: int = 0, size_bytes: int | None = None) -> bytes:
    """Bytes of a file from byte ``start`` on, ``size_bytes`` of them or all; fewer where it ends. Raises OSError."""
    if is_remote(path):
        return path.fs.cat_file(path.path, start or None, None if size_bytes is None else start + size_bytes)  # type: ignore[attr-defined]
    with path.open("rb") as file:
        file.seek(start)
        return file.read(-1 if size_bytes is None else size_bytes)


def names_below(path: Path) -> list[str]:
    """All files below a remote folder, as paths relative to it."""
    root = path.path.rstrip("/")  # type: ignore[attr-defined]
    return [name[len(root) + 1 :] for name in path.fs.find(root)]  # type: ignore[attr-defined]


def sync(path: Path) -> None:
    """Have what was written to a file, or a folder's names, on the disk itself before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
