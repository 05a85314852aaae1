"""LMDB (http://www.lmdb.tech/doc): one B+tree a file. Keys are the records' numbers as eight decimal digits.

Files are written by the library. They are read without it, because it belongs to one process, trusts what it reads, and
ends that process where a page is damaged. What ``find`` needs to know of a file (lmdb.h and mdb.c, version 0.9):

    page 0 and 1   a header of 16 bytes and a snapshot each: magic, the page size, the tree's depth and root, a number
    branch page    header, uint16 offsets of its nodes; a node's first 6 bytes are the number of a page below
    leaf page      header, uint16 offsets; a node: uint32 size of the value, uint16 flags, uint16 size of the key, key,
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
import numpy as np
from crc32c import crc32c

from ingest.errors import RecordError
from ingest.formats import MAX_RECORDS, RecordLocation
from ingest.system.jit import jit

LOCAL_BECAUSE = "LMDB is written and read by mapping local files"

_COMMIT_BYTES = 64 * 2**20
"""Payload bytes in a transaction: what a writer holds in memory."""

_SPARE_BYTES = 2**20

_HEADER_BYTES = 16
_MAGIC = 0xBEEFC0DE
_NO_PAGE = 2**64 - 1
_BRANCH, _LEAF = 1, 2
_OWN_PAGES = 1
_NODE_BYTES, _KEY_BYTES = 8, 8

_MAX_DEPTH = 32
"""Of a tree, to the library (CURSOR_STACK)."""

_MIN_NODE_BYTES = _NODE_BYTES + _KEY_BYTES


def write(path: Path, payloads: Iterable[bytes]) -> None:
    """Write a file. Raises OSError where the disk does not take it."""
    try:
        _write(path, payloads)
    except lmdb.Error as error:
        # The library calls any write that fails an input/output error.
        is_full = shutil.disk_usage(path.parent).free < _SPARE_BYTES
        raise OSError(*((errno.ENOSPC, "No space left on device") if is_full else (errno.EIO, str(error)))) from error


def find(data: memoryview) -> Iterator[RecordLocation]:
    """Where each payload lies, by the tree. Raises RecordError where it is damaged."""
    snapshot, locations = _locations(data)
    for start, size in locations.tolist():
        yield RecordLocation(start, size, crc32c(data[start : start + size]))
    if len(locations) != snapshot.records:
        raise RecordError(
            "the next record is not in the tree, or not whole: a page is damaged, or the file cut short",
            record=min(len(locations), snapshot.records),
        )


def fits(data: memoryview, index: np.ndarray) -> bool:
    """Whether the payloads of ``index`` are those of the tree."""
    try:
        snapshot, locations = _locations(data)
    except RecordError:
        return False
    indexed = np.stack([index["offset"].astype(np.int64), index["size"].astype(np.int64)], axis=1)
    return len(locations) == snapshot.records and np.array_equal(indexed, locations)


class _Snapshot(NamedTuple):
    page_bytes: int
    depth: int
    records: int
    root: int
    number: int


def _snapshot(data: memoryview, offset: int) -> _Snapshot:
    try:
        magic, page_bytes = struct.unpack_from("<I20xI", data, offset + _HEADER_BYTES)
        depth, records, root = struct.unpack_from("<6xH24xQQ", data, offset + _HEADER_BYTES + 72)
        (number,) = struct.unpack_from("<Q", data, offset + _HEADER_BYTES + 128)
    except struct.error as error:
        raise RecordError("the file is cut short: it is no LMDB") from error
    if magic != _MAGIC or page_bytes != mmap.PAGESIZE:
        raise RecordError(f"byte {offset}: the header is damaged, or the file is no LMDB of this machine's page size")
    return _Snapshot(page_bytes=page_bytes, depth=depth, records=records, root=root, number=number)


def _locations(data: memoryview) -> tuple[_Snapshot, np.ndarray]:
    """The snapshot that holds, and where the payloads in its tree lie and their sizes, int64 [records, 2]; fewer than
    there should be where the tree is damaged, one more where it has more. Raises RecordError where there is none."""
    snapshot = max((_snapshot(data, offset) for offset in (0, mmap.PAGESIZE)), key=lambda snapshot: snapshot.number)
    if snapshot.depth > _MAX_DEPTH or snapshot.records > min(MAX_RECORDS, len(data) // _MIN_NODE_BYTES):
        raise RecordError(f"a tree of {snapshot.depth} levels and {snapshot.records} records in {len(data)} bytes")
    if snapshot.root == _NO_PAGE or snapshot.depth == 0:
        return snapshot, np.empty((0, 2), np.int64)
    root = min(snapshot.root, 2**62)
    return snapshot, _walk(np.frombuffer(data, np.uint8), snapshot.page_bytes, root, snapshot.depth, snapshot.records)


@jit
def _walk(data: np.ndarray, page_bytes: int, root: int, depth: int, records: int) -> np.ndarray:
    """Where the values below the page ``root`` begin, and their sizes, int64 [values, 2]; up to the first that is not
    sound: whose key is not its number, which ends behind the file, or whose page is no page or was met before. One more
    than ``records`` at most."""
    locations = np.empty((records + 1, 2), np.int64)
    pages = len(data) // page_bytes
    is_met = np.zeros(pages, np.bool_)
    # Of each level: its page's first byte, and which of the page's nodes is next.
    starts, nodes = np.zeros(depth, np.int64), np.zeros(depth, np.int64)
    if root >= pages:
        return locations[:0]
    starts[0], is_met[root] = root * page_bytes, True
    level, n, total = 0, 0, 0
    while level >= 0 and n <= records:
        page = starts[level]
        flags, lower = _number(data, page + 10, 2), _number(data, page + 12, 2)
        slot = _HEADER_BYTES + 2 * nodes[level]
        if slot + 2 > min(lower, page_bytes):
            level -= 1
            continue
        nodes[level] += 1
        node = _number(data, page + slot, 2)
        if node + _NODE_BYTES > page_bytes:
            break
        node += page
        if flags & _BRANCH:
            below = _number(data, node, 6)
            if level + 1 == depth or below >= pages or is_met[below]:
                break
            is_met[below] = True
            level += 1
            starts[level], nodes[level] = below * page_bytes, 0
            continue
        size, start = _number(data, node, 4), node + _NODE_BYTES + _KEY_BYTES
        if not flags & _LEAF or level + 1 < depth or start > len(data) or not _is_key(data, node, n):
            break
        if _number(data, node + 4, 2) & _OWN_PAGES:
            first = _number(data, start, 8) if start + 8 <= len(data) else -1
            if not 0 <= first < pages:
                break
            start = first * page_bytes + _HEADER_BYTES
        # All of them fit the file; or pages are shared, and reading each would take for ever.
        total += size
        if start + size > len(data) or total > len(data):
            break
        locations[n] = start, size
        n += 1
    return locations[:n]


@jit
def _is_key(data: np.ndarray, node: int, number: int) -> bool:
    """Whether a node's key is the decimal digits of ``number``."""
    if _number(data, node + 6, 2) != _KEY_BYTES:
        return False
    for i in range(node + _NODE_BYTES + _KEY_BYTES - 1, node + _NODE_BYTES - 1, -1):
        if data[i] != 48 + number % 10:
            return False
        number //= 10
    return number == 0


@jit
def _number(data: np.ndarray, offset: int, size: int) -> int:
    """A little-endian number of ``size`` bytes; of eight, one that may be below zero."""
    result = np.int64(0)
    for i in range(size):
        result |= np.int64(data[offset + i]) << (8 * i)
    return result


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
