"""TFRecord, TensorFlow's own format (tensorflow/core/lib/io/record_writer.h): of each record

    uint64  length               little-endian
    uint32  masked crc32c of length
    byte    data[length]
    uint32  masked crc32c of data

one after the other. Where a record begins is known only from those before it, so the offsets, found once, are kept
beside the shard in ``NAME.index``: uint64, little-endian, one for each record and one for the end.
"""

from __future__ import annotations

import builtins
import mmap
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from crc32c import crc32c

from ingest import atomic
from ingest.errors import RecordError
from ingest.sample import Buffer

INDEX_SUFFIX = ".index"

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_OFFSET = np.dtype("<u8")


def write(path: Path, payloads: Iterable[bytes]) -> None:
    """Write a shard and its index, each whole or not at all."""
    offsets = [0]
    with atomic.replacing(path) as temporary, builtins.open(temporary, "wb") as file:
        for payload in payloads:
            header = struct.pack("<Q", len(payload))
            file.write(_HEADER.pack(len(payload), _masked_crc(header)))
            file.write(payload)
            file.write(_FOOTER.pack(_masked_crc(payload)))
            offsets.append(file.tell())
    atomic.write(_index_path(path), np.array(offsets, _OFFSET).tobytes())


def open(path: Path) -> TFRecordShard:
    """Open a shard. Raises RecordError where its records do not follow one another to its end."""
    return TFRecordShard(path)


class TFRecordShard:
    """A TFRecord file in memory-mapped pages."""

    def __init__(self, path: Path):
        with builtins.open(path, "rb") as file:
            empty = path.stat().st_size == 0
            self._map = None if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._data = memoryview(self._map or b"")
        self._offsets = _load_offsets(path, self._data)
        self._is_checked = bytearray(len(self))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def get(self, i: int) -> Buffer:
        """Record ``i`` as a view of the file. Raises RecordError where one of its two sums is wrong.

        They are checked when the record is first asked for: what was read from the disk does not change in memory.
        """
        start, end = self._offsets[i] + _HEADER.size, self._offsets[i + 1] - _FOOTER.size
        payload = self._data[start:end]
        if not self._is_checked[i]:
            _check(self._data, start, end)
            self._is_checked[i] = True
        return payload

    def close(self) -> None:
        """Unmap the file; views that are still held keep it mapped."""
        self._data = memoryview(b"")
        self._map = None


def _check(data: memoryview, start: int, end: int) -> None:
    if _length_at(data, start - _HEADER.size) != end - start:
        raise RecordError(f"byte {start - _HEADER.size}: its length is damaged")
    if _FOOTER.unpack_from(data, end)[0] != _masked_crc(data[start:end]):
        raise RecordError(f"byte {start - _HEADER.size}: its data do not match their checksum")


def _masked_crc(data: Buffer) -> int:
    # Masked, because data may hold sums themselves (tensorflow/core/lib/hash/crc32c.h).
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _length_at(data: memoryview, at: int) -> int | None:
    """The length of the record that begins at byte ``at``, or None where there is no sound header."""
    if at + _HEADER.size > len(data):
        return None
    length, crc = _HEADER.unpack_from(data, at)
    return length if crc == _masked_crc(data[at : at + 8]) else None


def _index_path(path: Path) -> Path:
    return path.with_name(path.name + INDEX_SUFFIX)


def _load_offsets(path: Path, data: memoryview) -> list[int]:
    offsets = _read_offsets(_index_path(path), len(data))
    if offsets is None:
        offsets = _find_offsets(data)
        # A dataset that cannot be written to is read all the same.
        with suppress(OSError):
            atomic.write(_index_path(path), np.array(offsets, _OFFSET).tobytes())
    return offsets


def _read_offsets(path: Path, size_bytes: int) -> list[int] | None:
    """The offsets kept in ``path``, or None where they are missing or cannot belong to a shard of this size."""
    try:
        offsets = np.fromfile(path, _OFFSET)
    except OSError:
        return None
    # Compared as they are: the difference of unsigned numbers would wrap around.
    ascending = bool((offsets[1:] > offsets[:-1]).all())
    fits = path.stat().st_size == offsets.nbytes and len(offsets) and offsets[0] == 0 and offsets[-1] == size_bytes
    return offsets.tolist() if fits and ascending else None


def _find_offsets(data: memoryview) -> list[int]:
    offsets = [0]
    while offsets[-1] < len(data):
        at = offsets[-1]
        length = _length_at(data, at)
        end = at + _HEADER.size + (length or 0) + _FOOTER.size
        if length is None or end > len(data):
            number = len(offsets) - 1
            raise RecordError(f"record {number} at byte {at}: its length is damaged, or the file is cut short")
        offsets.append(end)
    return offsets
