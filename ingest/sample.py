"""What travels: a Sample from a source to the packer, a Record in a shard, and the bytes between.

A record is a ``tf.train.Example`` (tensorflow/core/example/example.proto): a map from names to lists of bytes or
integers. It is written and parsed here without TensorFlow, because worker processes must not load it. The wire format
is that of protocol buffers (https://protobuf.dev/programming-guides/encoding): fields of a tag, which is the field's
number * 8 + its wire type, and a value; wire type 2 is a length and as many bytes, wire type 0 a varint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import index
from typing import Any, NamedTuple

import numpy as np

from ingest.errors import RecordError

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
_VARINT, _BYTES = 0, 2
_BYTES_LIST, _INT64_LIST = 1, 3


def pack(record: Record) -> bytes:
    """The serialized ``tf.train.Example`` of ``record``; its entries are sorted by name, so that it is unique."""
    entries = (
        _field(1, _field(1, name) + _field(2, _feature(value))) for name, value in zip(_NAMES, record, strict=True)
    )
    return _field(1, b"".join(entries))


def unpack(payload: Buffer) -> Record:
    """The record in ``payload``. ``encoded`` and ``segments`` are views of it, not copies.

    Entries may come in any order and others are passed over; ``image/segments`` may be missing.

    Raises RecordError where ``payload`` is no ``tf.train.Example`` or lacks a field.
    """
    try:
        features: dict[bytes, Any] = {b"image/segments": b"", **dict(_features(memoryview(payload)))}
        channels, label, synset, encoded, key, kind, height, segments, width = (features[name] for name in _NAMES)
        # index() and memoryview() refuse a value of the other kind.
        return Record(
            index(channels), index(label), _text(synset), memoryview(encoded), _text(key), _text(kind),
            index(height), memoryview(segments), index(width),
        )  # fmt: skip
    except (LookupError, TypeError, ValueError) as error:
        raise RecordError("the payload is not a tf.train.Example of an image") from error


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


def _text(value: Buffer) -> str:
    return str(value, "utf-8", "surrogateescape")


def _features(example: memoryview) -> Iterator[tuple[bytes, Any]]:
    for _, features in _fields(example):
        for _, entry in _fields(features):
            parts = dict(_fields(entry))
            name = bytes(parts[1])
            if name in _NAMES:
                yield from ((name, value) for value in _first_value(parts[2]))


def _first_value(feature: memoryview) -> Iterator[Any]:
    for kind, values in _fields(feature):
        for _, value in _fields(values):
            # A list of integers is packed into one field of bytes; other writers may use a field for each.
            yield _read_varint(value, 0)[0] if kind == _INT64_LIST and not isinstance(value, int) else value
            return


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """The number and value of each field: an int for wire type 0, a view for wire type 2."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        size, after = _read_varint(message, at)
        if tag & 7 == _VARINT:
            yield tag >> 3, size
            at = after
        elif tag & 7 == _BYTES and after + size <= len(message):
            yield tag >> 3, message[after : after + size]
            at = after + size
        else:
            raise ValueError("not a field of a tf.train.Example, or one that is cut short")


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 64, 7):
        byte = message[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
    raise ValueError("a number is longer than 64 bits")
