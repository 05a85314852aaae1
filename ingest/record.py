"""What travels: a Sample from a source to the packer, a Record in a shard, and the bytes between.

A record is a ``tf.train.Example`` (tensorflow/core/example/example.proto): a map from names to lists of bytes or
integers. It is written and parsed here without TensorFlow, because worker processes must not load it. The wire format
is that of protocol buffers (https://protobuf.dev/programming-guides/encoding): fields of a tag, which is the field's
number * 8 + its wire type, and a value; wire type 2 is a length and as many bytes, wire type 0 a varint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ingest.errors import RecordError
from ingest.system.jit import jit

Buffer = bytes | bytearray | memoryview

JPEG, RAW = "JPEG", "RAW"


@dataclass(frozen=True)
class Sample:
    """What a source gives for one entry.

    ``data`` is the image file's bytes, untouched, or its pixels as uint8 [H, W, C], C being 1 or 3, where the source
    has pixels and no files.
    """

    key: str
    label: int
    data: bytes | np.ndarray


class Record(NamedTuple):
    """What a shard holds of one image; the fields of the ``tf.train.Example``, in its order of names.

    ``encoded`` is a standard baseline JPEG (``format`` ``JPEG``) or uint8 [height, width, channels] (``RAW``).
    ``segments`` holds little-endian uint32 offsets into ``encoded`` of the restart segments and of the end, or nothing.
    ``label`` counts from 0. ``key`` is the sample's name in its source.
    """

    channels: int
    label: int
    synset: str
    encoded: Buffer
    key: str
    format: str
    height: int
    segments: Buffer
    width: int

    @property
    def has_segments(self) -> bool:
        """Whether regions can be cut out of its JPEG."""
        return self.format == JPEG and len(self.segments) > 0


_NAMES = (
    b"image/channels",
    b"image/class/label",
    b"image/class/synset",
    b"image/encoded",
    b"image/filename",
    b"image/format",
    b"image/height",
    b"image/segments",
    b"image/width",
)

# Wire types, and the number of the field in tf.train.Feature that holds each kind of list.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BYTES_LIST, _INT64_LIST = 1, 3

_NAME_BYTES = np.frombuffer(b"".join(_NAMES), np.uint8)
_NAME_ENDS = np.cumsum([len(name) for name in _NAMES])
_IS_NUMBER = np.array([name in ("channels", "label", "height", "width") for name in Record._fields])
_SEGMENTS = Record._fields.index("segments")
_MISSING = -(2**63)


def serialize(record: Record) -> bytes:
    """The serialized ``tf.train.Example`` of ``record``; its entries are sorted by name, so that it is unique."""
    entries = (_field(1, name + _field(2, _feature(value))) for name, value in zip(_NAME_FIELDS, record, strict=True))
    return _field(1, b"".join(entries))


def parse(payload: Buffer) -> Record:
    """The record in ``payload``. ``encoded`` and ``segments`` are views of it, not copies.

    Entries may come in any order and others are passed over; ``image/segments`` may be missing.

    Raises RecordError where ``payload`` is no ``tf.train.Example`` or lacks a field.
    """
    view = memoryview(payload)
    places = _find_fields(np.frombuffer(view, np.uint8)).tolist()
    if not places:
        raise RecordError("the payload is not a tf.train.Example of an image")
    channels, label, synset, encoded, key, kind, height, segments, width = places
    return Record(
        channels[0], label[0], _text(view, synset), view[encoded[0] : encoded[1]], _text(view, key), _text(view, kind),
        height[0], view[segments[0] : segments[1]], width[0],
    )  # fmt: skip


def try_read_key(payload: Buffer) -> str | None:
    """The key of a record that may be damaged, or None where it cannot be told."""
    try:
        return parse(payload).key
    except RecordError:
        return None


def _feature(value: int | str | Buffer) -> bytes:
    if isinstance(value, int):
        return _field(_INT64_LIST, _field(1, _varint(value)))
    # Names of files are bytes that need not be valid UTF-8: surrogateescape carries them through.
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)
    return _field(_BYTES_LIST, _field(1, data))


def _field(number: int, value: bytes) -> bytes:
    return bytes((number << 3 | _BYTES,)) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def _text(payload: memoryview, place: list[int]) -> str:
    return str(payload[place[0] : place[1]], "utf-8", "surrogateescape")


_NAME_FIELDS = tuple(_field(1, name) for name in _NAMES)


@jit
def _find_fields(payload: np.ndarray) -> np.ndarray:
    """Where each field's value starts and ends in ``payload``, or the number that it is, int64 [fields, 2].

    Nothing where ``payload`` is no ``tf.train.Example``, lacks a field other than the segments, or has one twice, which
    readers may understand in two ways.
    """
    nothing = np.empty((0, 2), np.int64)
    found = np.full((len(_NAME_ENDS), 2), _MISSING, np.int64)
    at = 0
    while at < len(payload):
        number, features, features_end, at = _field_at(payload, at, len(payload))
        if at < 0:
            return nothing
        while number == 1 and features < features_end:
            number_within, entry, entry_end, features = _field_at(payload, features, features_end)
            if features < 0 or (number_within == 1 and not _find_field(payload, entry, entry_end, found)):
                return nothing
    if found[_SEGMENTS, 0] == _MISSING:
        found[_SEGMENTS] = 0
    return found if found.min() > _MISSING else nothing


@jit
def _find_field(payload: np.ndarray, at: int, end: int, found: np.ndarray) -> bool:
    """Put the place of an entry's value into ``found``, if it is one of ours; False if it is not sound."""
    name, name_end, feature, feature_end = 0, 0, 0, 0
    while at < end:
        number, start, stop, at = _field_at(payload, at, end)
        if at < 0:
            return False
        if number == 1:
            name, name_end = start, stop
        elif number == 2:
            feature, feature_end = start, stop
    place = _index_of(payload, name, name_end)
    if place < 0:
        return True
    # One list of one value, and nothing else.
    kind, values, values_end, after = _field_at(payload, feature, feature_end)
    expected = _INT64_LIST if _IS_NUMBER[place] else _BYTES_LIST
    if after != feature_end or found[place, 0] != _MISSING or kind != expected:
        return False
    if _IS_NUMBER[place] and values < values_end and payload[values] == 1 << 3 | _VARINT:
        # A list of integers is packed into one field of bytes; other writers may use a field for each.
        value, value_end, after = values + 1, values_end, values_end
    else:
        number, value, value_end, after = _field_at(payload, values, values_end)
        if number != 1:
            return False
    if after != values_end:
        return False
    if _IS_NUMBER[place]:
        value, after = _varint_at(payload, value, value_end)
        if after != value_end:
            return False
        value_end = value
    found[place] = value, value_end
    return True


@jit
def _index_of(payload: np.ndarray, start: int, end: int) -> int:
    """Which of our names stands there, or -1."""
    first = 0
    for place in range(len(_NAME_ENDS)):
        if _NAME_ENDS[place] - first == end - start:
            i = 0
            while i < end - start and _NAME_BYTES[first + i] == payload[start + i]:
                i += 1
            if i == end - start:
                return place
        first = _NAME_ENDS[place]
    return -1


@jit
def _field_at(payload: np.ndarray, at: int, end: int) -> tuple[int, int, int, int]:
    """Number of the field of bytes at byte ``at``, where its value starts and ends, and where the next field begins.

    A field of another type, which none of ours is, has the number 0. The next field begins below zero where this is no
    field, or does not end by byte ``end``; all else lies within ``at`` and ``end``.
    """
    tag, start = _varint_at(payload, at, end)
    if start < 0:
        return 0, at, at, -1
    kind, size = tag & 7, 0
    if kind == _VARINT:
        _, stop = _varint_at(payload, start, end)
        return 0, start, start, stop
    if kind == _BYTES:
        size, start = _varint_at(payload, start, end)
    elif kind == _FIXED64:
        size = 8
    elif kind == _FIXED32:
        size = 4
    else:
        return 0, at, at, -1
    if start < 0 or not 0 <= size <= end - start:
        return 0, at, at, -1
    return tag >> 3 if kind == _BYTES else 0, start, start + size, start + size


@jit
def _varint_at(payload: np.ndarray, at: int, end: int) -> tuple[int, int]:
    """A number, and where it ends, or -1 where it does not by byte ``end``, or has more than 64 bits."""
    result = np.int64(0)
    for shift in range(0, 64, 7):
        if at >= end:
            return 0, -1
        byte = np.int64(payload[at])
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            # Of the last byte only one bit is within the 64.
            return result, at if shift < 63 or byte < 2 else -1
    return 0, -1
