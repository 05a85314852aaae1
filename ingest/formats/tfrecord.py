"""TFRecord, TensorFlow's own format (tensorflow/core/lib/io/record_writer.h): of each record

    uint64  length               little-endian
    uint32  masked crc32c of length
    byte    data[length]
    uint32  masked crc32c of data

one after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path

import numpy as np
from crc32c import crc32c

from ingest.errors import RecordError
from ingest.formats import RecordLocation
from ingest.record import Buffer

LOCAL_BECAUSE = None

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8

_HEADER_BYTES = _LENGTH.size + _CRC.size
"""Bytes of a record before its payload."""


def write(path: Path, payloads: Iterable[bytes]) -> None:
    """Write a file of records."""
    with path.open("wb") as file:
        for payload in payloads:
            length = _LENGTH.pack(len(payload))
            file.write(length + _CRC.pack(_masked(crc32c(length))))
            file.write(payload)
            file.write(_CRC.pack(_masked(crc32c(payload))))


def find(data: memoryview) -> Iterator[RecordLocation]:
    """Where each payload lies. Raises RecordError where the records do not follow one another to the end."""
    offset, record = 0, 0
    while offset < len(data):
        start = offset + _HEADER_BYTES
        length = data[offset : offset + _LENGTH.size]
        if start > len(data) or _CRC.unpack_from(data, offset + _LENGTH.size)[0] != _masked(crc32c(length)):
            raise RecordError(f"byte {offset}: its length is damaged, or the file is cut short", record=record)
        end = start + _LENGTH.unpack(length)[0]
        if end + _CRC.size > len(data):
            raise RecordError(f"byte {offset}: the file is cut short: it ends before the record does", record=record)
        yield RecordLocation(start, end - start, _unmasked(_CRC.unpack_from(data, end)[0]))
        offset, record = end + _CRC.size, record + 1


def fits(data: Sized, index: np.ndarray) -> bool:
    """Whether the payloads of ``index`` lie as records do, from the file's first byte to its last."""
    starts = index["offset"].astype(np.int64) - _HEADER_BYTES
    ends = index["offset"].astype(np.int64) + index["size"] + _CRC.size
    return bool(np.array_equal(np.append(starts, len(data)), np.append(0, ends)))


def frame(location: RecordLocation) -> slice:
    """The bytes of a record of which ``location`` says where the payload is."""
    start = max(0, location.offset - _HEADER_BYTES)
    return slice(start, location.offset + location.size_bytes + _CRC.size)


def framed(data: Buffer, location: RecordLocation) -> Buffer | None:
    """The payload in the bytes of a record, or None where they are none whose payload is at ``location``."""
    length = _LENGTH.pack(location.size_bytes)
    header = length + _CRC.pack(_masked(crc32c(length)))
    if len(data) != _HEADER_BYTES + location.size_bytes + _CRC.size or data[:_HEADER_BYTES] != header:
        return None
    return data[_HEADER_BYTES : -_CRC.size] if data[-_CRC.size :] == _CRC.pack(_masked(location.crc)) else None


def _masked(crc: int) -> int:
    # Masked, because data may hold sums themselves (tensorflow/core/lib/hash/crc32c.h).
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _unmasked(masked: int) -> int:
    rotated = (masked - _MASK_DELTA) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF
