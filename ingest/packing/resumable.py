"""A dataset's folder while it is written: by one program at a time, a shard at a time, and the manifest last.

    build.json            the build configuration, first
    SHARD, SHARD.index    each under a temporary name, flushed to the disk, renamed
    SHARD.done            its receipt, when both are in place: what the manifest will say of it
    quarantine.tsv        when all shards are done
    manifest.json         last; then the receipts are removed

Wherever this is cut short, the same build configuration goes on from what is whole, and ends with the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from ingest import formats
from ingest.dataset import manifest
from ingest.dataset.manifest import BuildConfig, Manifest, Shard
from ingest.dataset.quarantine import QUARANTINE, quarantine_table
from ingest.errors import BadSampleError, ManifestError, OutputError, fields_of
from ingest.system import atomic, paths, strict_json

RECEIPT_SUFFIX = ".done"
SCRATCH = f"source{atomic.TEMPORARY_SUFFIX}"


# Every name that a build may write.
_OURS = re.compile(
    rf"(\d{{5,}}-of-\d{{5,}}\.({'|'.join(formats.NAMES)})({formats.INDEX_SUFFIX}|{RECEIPT_SUFFIX})?"
    rf"|{QUARANTINE}|{manifest.NAME}|{manifest.BUILD_NAME})(\.[0-9a-f]{{8}}{atomic.TEMPORARY_SUFFIX})?"
    rf"|{re.escape(SCRATCH)}"
)

_PATIENCE_SECONDS = 5
"""How long the workers of a program that was killed may take to notice, and to let go of the folder."""


Lock = tuple[int, ...]
"""Descriptors that are held as long as a folder is claimed."""


@dataclass(frozen=True)
class ShardReceipt:
    """A shard that was written, and what became of the entries that are not in it as they were.

    ``rotated`` counts its images whose EXIF orientation is not 1.
    """

    shard: Shard
    quarantined: list[tuple[str, str]]
    converted: dict[str, int]
    has_color: bool
    has_jpeg: bool
    rotated: int


class ShardTask(Protocol):
    """What a worker is told to make."""

    @property
    def name(self) -> str:
        """Of the shard's file."""

    @property
    def images(self) -> int:
        """How many it is made of."""


class ResumableWriter:
    """Makes a shard, unless it is there; the handler of a worker process.

    ``make_handler(folder, *args)`` gives what writes a shard and its index to the folder; its result is Packed.
    """

    def __init__(self, folder: Path, make_handler: Callable[..., Any], *args: Any):
        self._folder, self._make = folder, make_handler(folder, *args)

    def __call__(self, task: ShardTask, report: Callable[[int], object]) -> ShardReceipt:
        """The receipt of a task's shard, which is in its place now."""
        path = self._folder / task.name
        if receipt := _sound_receipt(path):
            report(task.images)
            return receipt
        with writing(path):
            packed: ShardReceipt = self._make(task, report)
            atomic.write(_receipt_path(path), json.dumps(asdict(packed)).encode())
        return packed


@contextmanager
def exclusive_output(folder: Path, config: BuildConfig) -> Iterator[Lock]:
    """Within, ``folder`` is this program's, to fill it by ``config``; gives the lock, for worker processes to share.

    Raises OutputError where another program is writing to it, where it holds something foreign, or a dataset or an
    unfinished build of another build configuration. What is left of an unfinished build by this one stays.
    """
    with writing(folder), exclusive_lock(folder) as lock:
        _check_no_foreign_files(folder)
        _check_same_build(folder, config)
        if not (folder / manifest.BUILD_NAME).exists():
            if not (folder / manifest.NAME).exists():
                _remove(folder, _is_ours)  # of a time before build configurations, or cut off before the first
            manifest.save(config, folder)
        try:
            yield lock
        finally:
            _remove(folder, _is_temporary)


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[Lock]:
    """Within, no other program writes to ``folder``. Buckets have no locks: there that is up to who calls.

    The lock is the kernel's: it leaves nothing, and ends with the last process that holds its descriptor, so that
    workers that are left of a program that was killed cannot get in the way of the next.
    """
    if paths.is_remote(folder):
        yield ()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield (descriptor,)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within, an error of the operating system is one of writing ``path``: an OutputError."""
    try:
        yield
    except OSError as error:
        # LMDB calls any write that fails an input/output error.
        why = error.strerror or error
        raise OutputError(
            f"{path}: cannot be written ({why}): make room, then start again: it will go on", path=path
        ) from error


def make_folder(folder: Path) -> None:
    """Make the folder to write to. Raises OutputError."""
    if paths.is_remote(folder):
        return  # in a bucket the files' names make it
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        raise OutputError(f"{folder}: cannot be made ({error}): give another folder", path=folder) from error


def finish(folder: Path, result: Manifest, quarantine: bytes) -> None:
    """Write what comes last: the quarantine's table, the manifest; then no receipt is needed any more."""
    if quarantine:
        atomic.write(folder / QUARANTINE, quarantine)
    if result.records:
        manifest.save(result, folder)
        remove_leftovers(folder)
    else:
        # The next try shall look at the source again.
        _remove(folder, lambda name: _is_ours(name) and name != QUARANTINE)


def remove_leftovers(folder: Path) -> None:
    """Remove what a finished dataset has no use for."""
    _remove(folder, lambda name: _is_temporary(name) or (_is_ours(name) and name.endswith(RECEIPT_SUFFIX)))


def all_packed(results: Generator[ShardReceipt, None, None]) -> list[ShardReceipt]:
    """All results, in the order of their shards. No worker writes any more once this has ended, however it ends."""
    with closing(results):
        return sorted(results, key=lambda packed: packed.shard.name)


def describe(path: Path, records: int) -> Shard:
    """What the manifest says of a shard that is there."""
    return Shard(path.name, records, path.stat().st_size, paths.sha256(path))


def total(counters: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sum of counters, sorted by name."""
    result: Counter[str] = Counter()
    for counter in counters:
        result.update(counter)
    return dict(sorted(result.items()))


def check_none_bad(packed: list[ShardReceipt]) -> None:
    """Raise BadSampleError for the first entry that was quarantined, if there is one."""
    for key, reason in (row for part in packed for row in part.quarantined):
        raise BadSampleError(f"{key}: {reason}", key=key)


def _sound_receipt(path: Path) -> ShardReceipt | None:
    """The receipt of a shard that is there, whole and as it was written; or None."""
    try:
        content = strict_json.read_json(_receipt_path(path))
        shard = strict_json.typed(Shard, content["shard"], manifest.FITS)
        rows = [(key, reason) for key, reason in content["quarantined"]]
        receipt = strict_json.typed(ShardReceipt, {**content, "shard": shard, "quarantined": rows}, _FITS)
        quarantine_table(rows)  # what cannot be written is a ValueError
        index = formats.load_index(path, shard.size_bytes)
        is_sound = index is not None and len(index) == shard.records and path.stat().st_size == shard.size_bytes
        # A bucket checks what it is sent itself; to read it all back would cost more than to pack it again.
        is_sound = is_sound and (paths.is_remote(path) or paths.sha256(path) == shard.sha256)
        return receipt if is_sound and receipt.rotated <= shard.records else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


# By the annotations of the fields of Packed.
_FITS: dict[str, Callable[[Any], bool]] = {
    **manifest.FITS,
    "Shard": lambda value: isinstance(value, Shard),
    "list[tuple[str, str]]": lambda rows: all(isinstance(cell, str) for row in rows for cell in row),
    "bool": lambda value: isinstance(value, bool),
}


def _receipt_path(path: Path) -> Path:
    return path.with_name(path.name + RECEIPT_SUFFIX)


def _lock(descriptor: int, folder: Path) -> None:
    start = time.monotonic()
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return None  # a file system that has no locks
            if time.monotonic() > start + _PATIENCE_SECONDS:
                raise OutputError(
                    f"{folder}: another build is writing to it: wait for it, or give another folder", path=folder
                ) from error
            time.sleep(0.05)


def _check_no_foreign_files(folder: Path) -> None:
    for name in paths.list_dir(folder):
        if not _is_ours(name) or not (folder / name).is_file():
            raise OutputError(f"{folder}: not empty (it holds {name}): give a new or empty folder", path=folder)


def _check_same_build(folder: Path, config: BuildConfig) -> None:
    """Raise OutputError where the folder holds a dataset, or part of one, by another build configuration."""
    has_dataset = (folder / manifest.NAME).exists()
    try:
        present = manifest.load_manifest(folder).build if has_dataset else manifest.load_build_config(folder)
    except ManifestError as error:
        raise OutputError(str(error), **fields_of(error)) from error
    if present == config or (present is None and not has_dataset):
        return
    holds = "holds a finished dataset" if has_dataset else "holds an unfinished build"
    if present is None:
        raise OutputError(f"{folder}: {holds}: remove it first, or give another folder", path=folder)
    differing = "; ".join(
        "another source" if name == "source" else f"{name} {getattr(present, name)}, now {getattr(config, name)}"
        for name in (field.name for field in fields(BuildConfig))
        if getattr(present, name) != getattr(config, name)
    )
    raise OutputError(
        f"{folder}: {holds} of other options ({differing}): remove it first, or give another folder", path=folder
    )


def _is_ours(name: str) -> bool:
    return bool(_OURS.fullmatch(name))


def _is_temporary(name: str) -> bool:
    return _is_ours(name) and name.endswith(atomic.TEMPORARY_SUFFIX)


def _remove(folder: Path, which: Callable[[str], bool]) -> None:
    for name in filter(which, paths.list_dir(folder)):
        with suppress(FileNotFoundError):
            (folder / name).unlink()
