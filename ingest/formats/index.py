"""A shard's index: where each record lies in the shard's file, and its checksum."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from crc32c import crc32c

from ingest.errors import RecordError
from ingest.system import paths

INDEX_SUFFIX = ".index"


MAX_RECORDS = 10**8
"""Of a shard: LMDB's keys have eight digits."""


_INDEX = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc", "<u4")])


_SEAL = struct.Struct("<I")


class RecordLocation(NamedTuple):
    """Where a payload lies in its file, in bytes, and its crc32c."""

    offset: int
    size_bytes: int
    crc: int


def load_index(path: Path, size_bytes: int) -> np.ndarray | None:
    """The index of the shard ``path``, or None where it is missing, damaged, or of a file longer than this one."""
    # In both formats a record takes as much in its shard as in the index, without its payload.
    max_bytes = min(size_bytes + _SEAL.size, index_bytes(MAX_RECORDS))
    try:
        index = decode_index(paths.read_small(index_path(path), max_bytes))
    except OSError:
        return None
    if index is None:
        return None
    offset, size = index["offset"], index["size"]
    # Not their sum, which may be beyond 64 bits.
    is_within = (offset <= size_bytes) & (size <= size_bytes - np.minimum(offset, size_bytes))
    return index if is_within.all() else None


def index_path(path: Path) -> Path:
    """The index beside a shard."""
    return path.with_name(path.name + INDEX_SUFFIX)


def index_bytes(records: int) -> int:
    """The size of the index of so many records."""
    return records * _INDEX.itemsize + _SEAL.size


def encode_index(locations: Iterator[RecordLocation]) -> bytes:
    """The content of the index of records at ``locations``. Raises RecordError where one is too large for it."""
    content = np.fromiter(map(_indexable, locations), _INDEX).tobytes()
    return content + _SEAL.pack(crc32c(content))


def _indexable(location: RecordLocation) -> RecordLocation:
    if location.size_bytes >= 2**32:
        raise RecordError(
            f"byte {location.offset}: a record of {location.size_bytes} bytes, more than an index can say"
        )
    return location


def decode_index(content: bytes) -> np.ndarray | None:
    """The rows of an index, (offset, size, crc) each, or None where its content does not match its checksum."""
    rows, seal = content[: -_SEAL.size], content[-_SEAL.size :]
    if len(rows) % _INDEX.itemsize or seal != _SEAL.pack(crc32c(rows)):
        return None
    return np.frombuffer(rows, _INDEX)
