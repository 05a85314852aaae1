"""LMDB (http://www.lmdb.tech/doc): one B+tree a file. Keys are the records' numbers as eight decimal digits."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb

from ingest import atomic
from ingest.errors import RecordError
from ingest.sample import Buffer

_COMMIT_BYTES = 64 * 2**20
"""Payload bytes in a transaction: what a writer holds in memory."""

_SPARE_BYTES = 2**20


def write(path: Path, payloads: Iterable[bytes]) -> None:
    """Write a shard, whole or not at all. Raises OSError where the disk does not take it."""
    with atomic.replacing(path) as temporary:
        try:
            _write(temporary, payloads)
        except lmdb.Error as error:
            raise OSError(errno.EIO, str(error)) from error


def _write(path: Path, payloads: Iterable[bytes]) -> None:
    map_bytes = _SPARE_BYTES
    # No lock file: until it is renamed nobody else knows the file.
    with lmdb.open(str(path), subdir=False, lock=False, map_size=map_bytes) as environment:
        number = 0
        for batch in _batches(payloads):
            # The size of the map is written to the file, so it must be a function of the payloads, too. A payload takes
            # whole pages of its own, and a share of a page of the tree.
            map_bytes += sum(len(payload) + 2 * mmap.PAGESIZE for payload in batch)
            environment.set_mapsize(map_bytes)
            with environment.begin(write=True) as transaction:
                for payload in batch:
                    transaction.put(_key(number), payload, append=True)
                    number += 1


def open(path: Path) -> LMDBShard:
    """Open a shard. Raises RecordError where the file is no LMDB."""
    return LMDBShard(path)


class LMDBShard:
    """An LMDB file in memory-mapped pages. It belongs to the process that opened it."""

    def __init__(self, path: Path):
        self._environment = _environment(path)
        # One snapshot for good: finished shards do not change.
        self._transaction = self._environment.begin(buffers=True)

    def __len__(self) -> int:
        return self._environment.stat()["entries"]

    def get(self, i: int) -> Buffer:
        """Record ``i`` as a view of the file. Raises RecordError where it is not to be found."""
        try:
            payload = self._transaction.get(_key(i))
        except lmdb.Error as error:
            raise RecordError(str(error)) from error
        if payload is None:
            raise RecordError(f"no key {_key(i).decode()}")
        return payload

    def close(self) -> None:
        """Unmap the file; views of it must not be used any more."""
        self._transaction.abort()
        del self._environment


_environments: WeakValueDictionary[tuple[int, str], lmdb.Environment] = WeakValueDictionary()


def _environment(path: Path) -> lmdb.Environment:
    """The process's environment of the file ``path``: LMDB allows but one, which is closed when nobody uses it."""
    key = os.getpid(), os.path.realpath(path)
    environment = _environments.get(key)
    if environment is None:
        try:
            environment = lmdb.open(key[1], subdir=False, readonly=True, lock=False)
        except lmdb.Error as error:
            raise RecordError(f"cannot be opened as LMDB ({error})") from error
        _environments[key] = environment
    return environment


def _key(number: int) -> bytes:
    return b"%08d" % number


def _batches(payloads: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size_bytes = 0
    for payload in payloads:
        batch.append(payload)
        size_bytes += len(payload)
        if size_bytes >= _COMMIT_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
