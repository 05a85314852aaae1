"""Shards of a bucket on the local disk: each is fetched whole when first needed, and kept within a limit.

Files are named by the SHA-256 of what is in them, so that datasets, runs and worker processes share them. Where the
limit leaves no space for another shard of a dataset, none of its own is thrown out, since a random order wants all of
them all the time: the rest is read from the bucket, record by record. Shards of other datasets make space, but only
once the new one has arrived and is what its manifest says: what is not what it claims costs others nothing.

    SHA256.tfrecord           a shard; its index, which is made from it, beside it
    SHA256.tfrecord.part      a shard on its way, as long as it will be
    SHA256.lock, room.lock    locked while a shard is fetched, and while space is counted; empty

Nothing else in the folder is touched.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ingest import formats
from ingest.errors import OptionError, OutputError, RecordError
from ingest.system import paths

FOLDER_VARIABLE, LIMIT_VARIABLE = "INGEST_CACHE", "INGEST_CACHE_BYTES"

_SHARD_SUFFIX, _PART_SUFFIX, _LOCK_SUFFIX = ".tfrecord", ".part", ".lock"
_SUM = re.compile(r"[0-9a-f]{64}")
_OWN = re.compile(rf"({_SUM.pattern}){re.escape(_SHARD_SUFFIX)}({_PART_SUFFIX}|{formats.INDEX_SUFFIX})?")

_SHARE = 0.8
"""Of the space that is free, or used by the cache, unless LIMIT_VARIABLE says how many bytes."""


def fetch(path: Path, size_bytes: int, sha256: str, keep: frozenset[str], is_suspect: bool = False) -> Path | None:
    """A local copy of the remote shard ``path``; None where the limit leaves no space for it.

    ``keep`` are the sums of all shards of its dataset, which do not make space for each other. A copy that is there is
    taken if its size is right, or, where it ``is_suspect``, if its sum is; else the shard is fetched again. Raises
    RecordError where what is fetched is not what the manifest says, FileNotFoundError or RemoteError where it cannot be
    fetched, OutputError where it cannot be kept.
    """
    folder = _folder()
    name = _name(sha256)
    copy = folder / f"{name}{_SHARD_SUFFIX}"
    with _locked(folder, name):
        if _is_whole(copy, size_bytes) and not (is_suspect and paths.sha256(copy) != sha256):
            if is_suspect:
                _remove(formats.index_path(copy))
            with _writing(folder):
                os.utime(copy)  # when it was last wanted
            return copy
        part = copy.with_name(copy.name + _PART_SUFFIX)
        for damaged in (copy, formats.index_path(copy), part):
            _remove(damaged)
        kept = frozenset(map(_name, keep))
        if not _reserve(part, size_bytes, kept):
            return None
        try:
            _download(path, part, size_bytes, sha256)
            with _writing(folder):
                _make_space(folder, kept)
                part.replace(copy)
        finally:
            _remove(part)
    return copy


def _name(sha256: str) -> str:
    """A file name for a sum; one that is none, as a manifest may hold, has no say in it."""
    return sha256 if _SUM.fullmatch(sha256) else hashlib.sha256(sha256.encode("utf-8", "surrogatepass")).hexdigest()


def _folder() -> Path:
    given = os.environ.get(FOLDER_VARIABLE) or "~/.cache/ingest"
    if "://" in given:
        raise OptionError(f"{FOLDER_VARIABLE} is {given!r}: give a folder on this machine's disks")
    folder = paths.parse_path(given).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"{folder}: cannot be made ({error.strerror}): set {FOLDER_VARIABLE} to another", path=folder
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OptionError(f"{folder}: cannot be written to: set {FOLDER_VARIABLE} to another folder", path=folder)
    return folder


def _limit_bytes(folder: Path, used_bytes: int) -> int:
    given = os.environ.get(LIMIT_VARIABLE)
    if given is None:
        return int(_SHARE * (shutil.disk_usage(folder).free + used_bytes))
    if not given.isdecimal():
        raise OptionError(f"{LIMIT_VARIABLE} is {given!r}: give a number of bytes")
    return int(given)


def _contents(folder: Path) -> dict[str, dict[Path, os.stat_result]]:
    """The cache's own files, by the name of their shard."""
    groups: dict[str, dict[Path, os.stat_result]] = defaultdict(dict)
    with os.scandir(folder) as entries:
        for entry in entries:
            if (match := _OWN.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False):
                groups[match[1]][Path(entry.path)] = entry.stat(follow_symlinks=False)
    return groups


def _size_bytes(group: dict[Path, os.stat_result]) -> int:
    return sum(stat.st_size for stat in group.values())


def _fixed(folder: Path, contents: dict[str, dict[Path, os.stat_result]], keep: frozenset[str]) -> set[str]:
    """The names that make no space: those to ``keep``, and those that other processes are fetching."""
    parts = (name for name, group in contents.items() if any(path.suffix == _PART_SUFFIX for path in group))
    return {*keep, *(name for name in parts if name in keep or _is_locked(folder, name))}


def _reserve(part: Path, size_bytes: int, keep: frozenset[str]) -> bool:
    """Make the file ``part``, as long as it will be, if it has space once all others have made theirs."""
    folder = part.parent
    with _writing(folder), _locked(folder, "room"):
        contents = _contents(folder)
        fixed = _fixed(folder, contents, keep)
        fixed_bytes = sum(_size_bytes(group) for name, group in contents.items() if name in fixed)
        if fixed_bytes + size_bytes > _limit_bytes(folder, _on_disk(contents)):
            return False
        with part.open("xb") as file:
            file.truncate(size_bytes)
    return True


def _make_space(folder: Path, keep: frozenset[str]) -> None:
    """Throw out shards of other datasets, those first that were not wanted for longest, until the limit is kept."""
    with _locked(folder, "room"):
        contents = _contents(folder)
        fixed = _fixed(folder, contents, keep)
        limit_bytes = _limit_bytes(folder, _on_disk(contents))
        used_bytes = sum(map(_size_bytes, contents.values()))
        for name, group in sorted(contents.items(), key=lambda item: max(stat.st_mtime for stat in item[1].values())):
            if used_bytes <= limit_bytes:
                return
            if name not in fixed:
                for path in group:
                    path.unlink(missing_ok=True)
                used_bytes -= _size_bytes(group)


def _on_disk(contents: dict[str, dict[Path, os.stat_result]]) -> int:
    """What files take by now: a part takes no more than has arrived."""
    return sum(stat.st_blocks * 512 for group in contents.values() for stat in group.values())


def _is_whole(copy: Path, size_bytes: int) -> bool:
    """Whether there is a regular file of that size."""
    try:
        status = copy.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size_bytes


def _remove(path: Path) -> None:
    """Have nothing at ``path``, whatever was there."""
    with _writing(path.parent):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _download(path: Path, part: Path, size_bytes: int, sha256: str) -> None:
    """Fill ``part``. What arrives otherwise than the manifest says is fetched again, unless it is so twice running."""
    last = None
    for pause in (*paths.pauses(), None):
        actual_bytes = path.stat().st_size
        if actual_bytes in (size_bytes, None):
            with _writing(part.parent), part.open("r+b") as file:
                actual = _copied(path, file, size_bytes)
            if actual == sha256:
                return
            problem = "its content is not what its manifest says"
        else:
            actual, problem = str(actual_bytes), f"{actual_bytes:,} bytes, its manifest says {size_bytes:,}"
        if actual == last or pause is None:
            raise RecordError(problem, path=path)
        last = actual
        time.sleep(pause)


def _copied(path: Path, file: BinaryIO, size_bytes: int) -> str:
    """The sum of what was copied."""
    digest = hashlib.sha256()
    for block in paths.blocks(path, size_bytes):
        digest.update(block)
        file.write(block)
    return digest.hexdigest()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Within, an error of the operating system is one of the cache."""
    try:
        yield
    except FileNotFoundError:
        raise  # of the remote shard
    except OSError as error:
        why = error.strerror or error
        raise OutputError(
            f"{error.filename or folder}: the cache cannot be used ({why}): "
            f"make room there, or set {FOLDER_VARIABLE} to another folder",
            path=error.filename or folder,
        ) from error


def _open_lock(folder: Path, name: str) -> int:
    # A lock is only ever locked: nothing is written to it, nor to where a link in its place leads.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with _writing(folder):
        return os.open(folder / f"{name}{_LOCK_SUFFIX}", flags, 0o666)


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    descriptor = _open_lock(folder, name)
    try:
        with _writing(folder):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_locked(folder: Path, name: str) -> bool:
    descriptor = _open_lock(folder, name)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
