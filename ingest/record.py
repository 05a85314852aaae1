"""What travels: a Sample from a source to the packer, a Record in a shard, and the bytes between.

A record is a ``tf.train.Example`` (tensorflow/core/example/example.proto): a map from names to lists of bytes or
integers. It is written and parsed here without TensorFlow, because worker processes must not load it. The wire format
is that of protocol buffers (https://protobuf.dev/programming-guides/encoding): fields of a tag, which is the field's
number * 8 + its wire type, and a value; wire type 2 is a length and as many bytes, wire type 0 a varint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

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


@dataclass(frozen=True)
class Field:
    """How a field of a record lies on disk: under which ``key`` of the Example.

    ``of`` gives its value of a sample, for a field that does not come of the image's encoding.
    """

    key: str
    of: Callable[[Sample], Any] | None = None


class Record(NamedTuple):
    """What a shard holds of one image: the one table of the fields, from which their bytes derive.

    To add a field, add it here, with its key on disk, its type (int, str or Buffer, with or without None), what it is
    ``of`` a sample, and a default, which records have that were written without it; None is not written. It is then
    packed, and comes with the batches that ask for it (``fields=``).

    ``encoded`` is a standard baseline JPEG (``format`` ``JPEG``) or uint8 [height, width, channels] (``RAW``).
    ``segments`` holds little-endian uint32 offsets into ``encoded`` of the restart segments and of the end, or nothing.
    ``label`` counts from 0. ``key`` is the sample's name in its source.
    """

    channels: Annotated[int, Field("image/channels")]
    label: Annotated[int, Field("image/class/label", of=lambda sample: sample.label)]
    synset: Annotated[str, Field("image/class/synset")]
    encoded: Annotated[Buffer, Field("image/encoded")]
    key: Annotated[str, Field("image/filename", of=lambda sample: sample.key)]
    format: Annotated[str, Field("image/format")]
    height: Annotated[int, Field("image/height")]
    width: Annotated[int, Field("image/width")]
    segments: Annotated[Buffer, Field("image/segments")] = b""

    @property
    def has_segments(self) -> bool:
        """Whether regions can be cut out of its JPEG."""
        return self.format == JPEG and len(self.segments) > 0


class FieldInfo(NamedTuple):
    """A field of a record as the code reads it: its name, its key on disk, and its type, int, str or bytes."""

    name: str
    key: bytes
    kind: type
    is_optional: bool
    of: Callable[[Sample], Any] | None


def _field_info(name: str, hint: Any) -> FieldInfo:
    types, field = get_args(hint)
    kinds = {int, str} & ({types} | set(get_args(types)))
    kind = kinds.pop() if kinds else bytes
    return FieldInfo(
        name=name, key=field.key.encode(), kind=kind, is_optional=name in Record._field_defaults, of=field.of
    )


FIELDS = tuple(_field_info(*item) for item in get_type_hints(Record, globals(), include_extras=True).items())
"""The fields of a record, in the order of Record's."""


def fields_from(sample: Sample) -> dict[str, Any]:
    """The fields of a sample's record that do not come of the image's encoding, by name."""
    return {field.name: field.of(sample) for field in FIELDS if field.of}


# Wire types, and the number of the field in tf.train.Feature that holds each kind of list.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BYTES_LIST, _INT64_LIST = 1, 3

_KEY_BYTES = np.frombuffer(b"".join(field.key for field in FIELDS), np.uint8)
_KEY_ENDS = np.cumsum([len(field.key) for field in FIELDS])
_IS_NUMBER = np.array([field.kind is int for field in FIELDS])
_IS_OPTIONAL = np.array([field.is_optional for field in FIELDS])
_MISSING = -1

_BY_KEY = sorted(range(len(FIELDS)), key=lambda i: FIELDS[i].key)
_TEXTS = [i for i, field in enumerate(FIELDS) if field.kind is str]
_BUFFERS = [i for i, field in enumerate(FIELDS) if field.kind is bytes]
_DEFAULTS = [(i, Record._field_defaults[field.name]) for i, field in enumerate(FIELDS) if field.is_optional]


def serialize(record: Record) -> bytes:
    """The serialized ``tf.train.Example`` of ``record``; its entries are sorted by key, so that it is unique."""
    present = ((FIELDS[i].key, record[i]) for i in _BY_KEY if record[i] is not None)
    entries = (_field(1, _field(1, key) + _field(2, _feature(value))) for key, value in present)
    return _field(1, b"".join(entries))


def parse(payload: Buffer) -> Record:
    """The record in ``payload``. Buffers in it, such as ``encoded``, are views of ``payload``, not copies.

    Entries may come in any order and others are passed over; fields that have a default may be missing.

    Raises RecordError where ``payload`` is no ``tf.train.Example`` or lacks a field.
    """
    view = memoryview(payload)
    extents = _find_fields(np.frombuffer(view, np.uint8))
    if not len(extents):
        raise RecordError("the payload is not a tf.train.Example of an image")
    values, ends = extents.T.tolist()
    # Without a function for each value: this is done for every image of a stream.
    for i in _TEXTS:
        values[i] = str(view[values[i] : ends[i]], "utf-8", "surrogateescape")
    for i in _BUFFERS:
        values[i] = view[values[i] : ends[i]]
    for i, default in _DEFAULTS:
        if ends[i] == _MISSING:
            values[i] = default
    return Record._make(values)


def try_read_key(payload: Buffer) -> str | None:
    """The key of a record that may be damaged, or None where it cannot be told."""
    try:
        return parse(payload).key
    except RecordError:
        return None


def _feature(value: int | str | Buffer) -> bytes:
    if isinstance(value, int):
        return _field(_INT64_LIST, _field(1, _varint(value % 2**64)))
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


@jit
def _find_fields(payload: np.ndarray) -> np.ndarray:
    """Where the value of each field starts and ends in ``payload``, int64 [fields, 2].

    Of a number it is the number itself, and 0. A field that may be missing, and is, has -1 for its end. Nothing where
    ``payload`` is no ``tf.train.Example``, lacks another field, or has one twice, which readers may understand in two
    ways.
    """
    nothing = np.empty((0, 2), np.int64)
    extents = np.full((len(_KEY_ENDS), 2), _MISSING, np.int64)
    offset = 0
    while offset < len(payload):
        number, features, features_end, offset = _field_at(payload, offset, len(payload))
        if offset < 0:
            return nothing
        while number == 1 and features < features_end:
            number_within, entry, entry_end, features = _field_at(payload, features, features_end)
            if features < 0 or (number_within == 1 and not _find_field(payload, entry, entry_end, extents)):
                return nothing
    for i in range(len(extents)):
        if extents[i, 1] == _MISSING and not _IS_OPTIONAL[i]:
            return nothing
    return extents


@jit
def _find_field(payload: np.ndarray, offset: int, end: int, extents: np.ndarray) -> bool:
    """Put where an entry's value lies into ``extents``, if it is a field of ours; False if it is not sound."""
    key, key_end, feature, feature_end = 0, 0, 0, 0
    while offset < end:
        number, start, stop, offset = _field_at(payload, offset, end)
        if offset < 0:
            return False
        if number == 1:
            key, key_end = start, stop
        elif number == 2:
            feature, feature_end = start, stop
    field = _index_of(payload, key, key_end)
    if field < 0:
        return True
    # One list of one value, and nothing else.
    kind, values, values_end, after = _field_at(payload, feature, feature_end)
    expected = _INT64_LIST if _IS_NUMBER[field] else _BYTES_LIST
    if after != feature_end or extents[field, 1] != _MISSING or kind != expected:
        return False
    if _IS_NUMBER[field] and values < values_end and payload[values] == 1 << 3 | _VARINT:
        # A list of integers is packed into one field of bytes; other writers may use a field for each.
        value, value_end, after = values + 1, values_end, values_end
    else:
        number, value, value_end, after = _field_at(payload, values, values_end)
        if number != 1:
            return False
    if after != values_end:
        return False
    if _IS_NUMBER[field]:
        value, after = _varint_at(payload, value, value_end)
        if after != value_end:
            return False
        value_end = 0
    extents[field] = value, value_end
    return True


@jit
def _index_of(payload: np.ndarray, start: int, end: int) -> int:
    """Which of our keys stands there, or -1."""
    first = 0
    for field in range(len(_KEY_ENDS)):
        if _KEY_ENDS[field] - first == end - start:
            i = 0
            while i < end - start and _KEY_BYTES[first + i] == payload[start + i]:
                i += 1
            if i == end - start:
                return field
        first = _KEY_ENDS[field]
    return -1


@jit
def _field_at(payload: np.ndarray, offset: int, end: int) -> tuple[int, int, int, int]:
    """Number of the field of bytes at ``offset``, where its value starts and ends, and where the next field begins.

    A field of another type, which none of ours is, has the number 0. The next field begins below zero where this is no
    field, or does not end by byte ``end``; all else lies within ``offset`` and ``end``.
    """
    tag, start = _varint_at(payload, offset, end)
    if start < 0:
        return 0, offset, offset, -1
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
        return 0, offset, offset, -1
    if start < 0 or not 0 <= size <= end - start:
        return 0, offset, offset, -1
    return tag >> 3 if kind == _BYTES else 0, start, start + size, start + size


@jit
def _varint_at(payload: np.ndarray, offset: int, end: int) -> tuple[int, int]:
    """A number, and where it ends, or -1 where it does not by byte ``end``, or has more than 64 bits."""
    result = np.int64(0)
    for shift in range(0, 64, 7):
        if offset >= end:
            return 0, -1
        byte = np.int64(payload[offset])
        offset += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            # Of the last byte only one bit is within the 64.
            return result, offset if shift < 63 or byte < 2 else -1
    return 0, -1
