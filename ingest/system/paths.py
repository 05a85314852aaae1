"""Where a name leads: to this machine's disks, or to a bucket or a web server.

Everywhere else a place is a ``pathlib.Path``; a remote one (``s3://``, ``gs://``, ``https://``) behaves like it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import reprlib
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from ingest.errors import OptionError, RecordError


def parse_path(name: str | Path) -> Path:
    """The path that ``name`` says; ``~`` at its start is the home folder.

    Raises OptionError where it is no path, or remote and what reads such places is missing.
    """
    if not isinstance(name, str) and hasattr(name, "fs"):
        from ingest.system.remote import RemotePath

        return name if isinstance(name, RemotePath) else cast(Path, RemotePath.of(name))
    text = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(text, str):
        raise OptionError(f"{reprlib.repr(name)} is no path: give a string or a pathlib.Path")
    if not text:
        raise OptionError("an empty path, as of a variable that is not set: give a path, or . for this folder")
    if "://" not in text:
        return _local(text)
    try:
        from ingest.system.remote import RemotePath

        return cast(Path, RemotePath.of(text))
    except OptionError:
        raise
    except (ImportError, ValueError) as error:  # the kind's own library is missing, or the kind is unknown
        raise OptionError(
            f"{name}: cannot be reached ({error}): pip install 'ingest-toolkit[remote]'", path=name
        ) from error


def local(name: str | Path) -> Path:
    """The path on this machine's disks that ``name`` says, by ``parse_path``. Raises OptionError for a remote one."""
    if is_remote(path := parse_path(name)):
        raise OptionError(f"{name}: remote: give a path on this machine's disks", path=name)
    return path


def _local(name: str | Path) -> Path:
    path = Path(name)
    if str(path).startswith("~"):
        # Of "./~" pathlib makes "~": what is meant to lie here must not be taken for home when it is looked at again.
        return Path(os.path.expanduser(path)) if str(name).startswith("~") else path.absolute()  # noqa: PTH111
    return path


def is_remote(path: Path) -> bool:
    """Whether ``path`` is not on this machine's disks."""
    return hasattr(path, "fs")


def read(path: Path, start: int = 0, size_bytes: int | None = None) -> bytes:
    """Bytes of a file from byte ``start`` on, ``size_bytes`` of them or all; fewer where it ends.

    Raises OSError, or RemoteError.
    """
    if is_remote(path):
        return path.read(start, size_bytes)  # type: ignore[attr-defined]
    with path.open("rb") as file:
        file.seek(start)
        return file.read(-1 if size_bytes is None else size_bytes)


def start_of(path: Path, size_bytes: int) -> bytes:
    """The first bytes of a file, or nothing where it cannot be read: to see what it is, not to read it."""
    try:
        return read(path, 0, size_bytes)
    except OSError:
        return b""


def open_regular(path: Path) -> BinaryIO:
    """A file of this machine's disks, open for reading. Raises OSError, also where ``path`` is a folder, a pipe or a
    device, which could keep its reader waiting for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")


def read_small(path: Path, max_bytes: int) -> bytes:
    """All bytes of a file that has no more than ``max_bytes``. Raises OSError."""
    if is_remote(path):
        content: bytes | None = read(path, 0, max_bytes + 1)
    else:
        with open_regular(path) as file:
            # Not up to the limit, which may be beyond this machine's memory: that is asked for before anything is read.
            size_bytes = os.fstat(file.fileno()).st_size
            content = file.read(size_bytes + 1) if size_bytes <= max_bytes else None
    if content is None or len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"of more than {max_bytes:,} bytes", str(path))
    return content


def list_tree(path: Path) -> list[str]:
    """All files below a remote folder, as paths relative to it."""
    return path.names_below()  # type: ignore[attr-defined]


def list_dir(folder: Path) -> list[str]:
    """The names in a folder, sorted; a remote one holds nothing until it holds a file."""
    if not is_remote(folder):
        return sorted(path.name for path in folder.iterdir())
    folder.forget_listings()  # type: ignore[attr-defined]
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def blocks(path: Path, size_bytes: int) -> Iterator[bytes]:
    """The first ``size_bytes`` of a remote file, or all where it ends before, block by block."""
    return path.blocks(0, size_bytes)  # type: ignore[attr-defined]


def pauses() -> list[float]:
    """Seconds to wait between the tries of what is remote, one fewer than those."""

    from ingest.system import remote

    return remote.pauses()


def upload(local: Path, path: Path) -> None:
    """Put a file in its remote place, whole or not at all: so buckets have it."""
    path.put(str(local))  # type: ignore[attr-defined]


class RemoteFile:
    """A remote file as a sequence of bytes of which only what is asked for is fetched."""

    def __init__(self, path: Path, size_bytes: int):
        self._path, self._size_bytes = path, size_bytes

    def __len__(self) -> int:
        return self._size_bytes

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size_bytes)
        try:
            return read(self._path, start, stop - start) if start < stop else b""
        except FileNotFoundError as error:
            raise RecordError("it is not there any more", path=self._path) from error


@contextmanager
def local_copy(path: Path, max_bytes: int | None = None) -> Iterator[Path]:
    """A file on this machine's disks: ``path`` itself, or while this lasts a copy of it, of its first ``max_bytes``."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        with copy.open("wb") as file:
            file.writelines(path.blocks(0, max_bytes))  # type: ignore[attr-defined]
        yield copy


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") if is_remote(path) else open_regular(path) as file:
        for block in iter(partial(file.read, 2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Have what was written to a file, or a folder's names, on the disk itself before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
