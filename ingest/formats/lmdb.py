"""LMDB (http://www.lmdb.tech/doc): one B+tree a file. Keys are the records' numbers as eight decimal digits.

Files are written by the library. They are read without it, because it belongs to one process, trusts what it reads, and
ends that process where a page is damaged. What ``find`` needs to know of a file (lmdb.h and mdb.c, version 0.9):

    page 0 and 1   a header of 16 bytes and a snapshot each: magic, the page size, the tree's depth and root, a number
    branch page    header, uint16 places of its nodes; a node's first 6 bytes are the number of a page below
    leaf page      header, uint16 places; a node: uint32 size of the value, uint16 flags, uint16 size of the key, key,
                   value; or, where it takes pages of its own, the number of the first, whose header it follows
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb
from crc32c import crc32c

from ingest.errors import RecordError
from ingest.formats import Place

_COMMIT_BYTES = 64 * 2**20
"""Payload bytes in a transaction: what a writer holds in memory."""

_SPARE_BYTES = 2**20

_HEADER_BYTES = 16
_MAGIC = 0xBEEFC0DE
_NO_PAGE = 2**64 - 1
_BRANCH, _LEAF = 1, 2
_OWN_PAGES = 1
_NODE = struct.Struct("<IHH")
_PAGE_NUMBER = struct.Struct("<Q")


def write(path: Path, payloads: Iterable[bytes]) -> None:
    """Write a file. Raises OSError where the disk does not take it."""
    try:
        _write(path, payloads)
    except lmdb.Error as error:
        # The library calls any write that fails an input/output error.
        is_full = shutil.disk_usage(path.parent).free < _SPARE_BYTES
        raise OSError(*((errno.ENOSPC, "No space left on device") if is_full else (errno.EIO, str(error)))) from error


def find(data: memoryview) -> Iterator[Place]:
    """Where each payload lies, by the tree. Raises RecordError where it is damaged."""
    snapshot = max((_snapshot(data, at) for at in (0, mmap.PAGESIZE)), key=lambda snapshot: snapshot.number)
    number = 0
    try:
        for key, start, end in _values(data, snapshot, snapshot.root, snapshot.depth):
            if key != _key(number) or end > len(data):
                break
            yield Place(start, end - start, crc32c(data[start:end]))
            number += 1
    except struct.error as error:
        raise RecordError("a page of the tree is damaged, or the file is cut short") from error
    if number < snapshot.records:
        raise RecordError("the next record is not in the tree, or not whole: a page is damaged, or the file cut short")


class _Snapshot(NamedTuple):
    page_bytes: int
    depth: int
    records: int
    root: int
    number: int


def _snapshot(data: memoryview, at: int) -> _Snapshot:
    try:
        magic, page_bytes = struct.unpack_from("<I20xI", data, at + _HEADER_BYTES)
        depth, records, root = struct.unpack_from("<6xH24xQQ", data, at + _HEADER_BYTES + 72)
        (number,) = struct.unpack_from("<Q", data, at + _HEADER_BYTES + 128)
    except struct.error as error:
        raise RecordError("the file is cut short: it is no LMDB") from error
    if magic != _MAGIC or page_bytes != mmap.PAGESIZE:
        raise RecordError(f"byte {at}: the header is damaged, or the file is no LMDB of this machine's page size")
    return _Snapshot(page_bytes, depth, records, root, number)


def _values(data: memoryview, tree: _Snapshot, page: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """Keys, and where their values start and end, below a page."""
    if page == _NO_PAGE or depth == 0:
        return
    at = page * tree.page_bytes
    flags, lower = struct.unpack_from("<10xHH", data, at)
    for place in struct.unpack_from(f"<{max(lower - _HEADER_BYTES, 0) // 2}H", data, at + _HEADER_BYTES):
        size, node_flags, key_size = _NODE.unpack_from(data, at + place)
        if flags & _BRANCH:
            yield from _values(data, tree, size | node_flags << 32, depth - 1)
        elif flags & _LEAF:
            start = at + place + _NODE.size + key_size
            key = bytes(data[start - key_size : start])
            if node_flags & _OWN_PAGES:
                start = _PAGE_NUMBER.unpack_from(data, start)[0] * tree.page_bytes + _HEADER_BYTES
            yield key, start, start + size


def _write(path: Path, payloads: Iterable[bytes]) -> None:
    map_bytes = _SPARE_BYTES
    # No lock file: until it is renamed nobody else knows the file.
    with lmdb.open(os.fsencode(path), subdir=False, lock=False, map_size=map_bytes) as environment:
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
