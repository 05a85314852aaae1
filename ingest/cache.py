"""Shards of a bucket on the local disk: each is fetched whole when first needed, and kept within a limit.

Files are named by what is in them, so that datasets, runs and worker processes share them. Where the limit leaves no
room for another shard of a dataset, none of its own is thrown out, since a random order wants all of them all the time:
the rest is read from the bucket, record by record.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ingest import files, formats
from ingest.errors import OptionError, RecordError

FOLDER_VARIABLE, LIMIT_VARIABLE = "INGEST_CACHE", "INGEST_CACHE_BYTES"

_PART_SUFFIX, _LOCK_SUFFIX = ".part", ".lock"

_SHARE = 0.8
"""Of the space that is free, or used by the cache, unless LIMIT_VARIABLE says how many bytes."""


def fetch(path: Path, size_bytes: int, sha256: str, keep: frozenset[str]) -> Path | None:
    """A local copy of the remote shard ``path``, and of its index beside it; None where there is no room for them.

    ``keep`` are the sums of all shards of its dataset, which do not make room for each other. Raises RecordError where
    what was fetched is not what the manifest says, OSError where it cannot be fetched.
    """
    folder = _folder()
    copy = folder / f"{sha256}{path.suffix}"
    with _locked(folder, sha256):
        if copy.exists():
            os.utime(copy)  # when it was last wanted
            return copy
        # Its size from the start, so that those who look for room count it; under its lock nobody else writes to it.
        part = copy.with_name(copy.name + _PART_SUFFIX)
        part.unlink(missing_ok=True)
        with _locked(folder, "room"):
            if not _make_room(folder, size_bytes, keep):
                return None
            part.touch()
            os.truncate(part, size_bytes)
        if _download(path, part) != sha256:
            part.unlink()
            raise RecordError(f"{path}: its content is not what its manifest says")
        with suppress(FileNotFoundError):  # it is made again
            formats.index_path(copy).write_bytes(files.read(formats.index_path(path)))
        part.replace(copy)
    return copy


def _folder() -> Path:
    folder = Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "ingest")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{folder}: cannot be made ({error.strerror}): set {FOLDER_VARIABLE} to another") from error
    return folder


def _limit_bytes(folder: Path, used_bytes: int) -> int:
    given = os.environ.get(LIMIT_VARIABLE)
    if given is None:
        return int(_SHARE * (shutil.disk_usage(folder).free + used_bytes))
    if not given.isdecimal():
        raise OptionError(f"{LIMIT_VARIABLE} is {given!r}: give a number of bytes")
    return int(given)


def _make_room(folder: Path, size_bytes: int, keep: frozenset[str]) -> bool:
    """Whether a file of ``size_bytes`` has room, once shards of other datasets are thrown out, oldest first."""
    stats = {path: path.stat() for path in folder.iterdir() if path.suffix != _LOCK_SUFFIX}
    used_bytes = sum(stat.st_size for stat in stats.values())
    limit_bytes = _limit_bytes(folder, used_bytes)
    for path in sorted(stats, key=lambda path: stats[path].st_mtime):
        if used_bytes + size_bytes <= limit_bytes:
            break
        if path.name.split(".")[0] not in keep:
            path.unlink()
            used_bytes -= stats[path].st_size
    return used_bytes + size_bytes <= limit_bytes


def _download(path: Path, to: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source, to.open("r+b") as target:
        while block := source.read(2**22):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    with (folder / f"{name}{_LOCK_SUFFIX}").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
