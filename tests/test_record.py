from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.frameworks import needs_tensorflow

from ingest.errors import RecordError
from ingest.record import Record, parse, serialize

RECORD = Record(
    channels=3,
    label=999,
    synset="n02119789",
    encoded=b"\xff\xd8 pixels \xff\xd9",
    key="n02119789/a.JPEG",
    format="JPEG",
    height=500,
    segments=b"\1\0\0\0",
    width=375,
)

records = st.builds(
    Record,
    channels=st.integers(1, 3),
    label=st.integers(0, 2**40),
    synset=st.text(max_size=20),
    encoded=st.binary(max_size=400),
    key=st.text(max_size=200),
    format=st.sampled_from(["JPEG", "RAW"]),
    height=st.integers(0, 65535),
    segments=st.binary(max_size=40),
    width=st.integers(0, 65535),
)


def as_bytes(record: Record) -> Record:
    return record._replace(encoded=bytes(record.encoded), segments=bytes(record.segments))


@given(records)
def test_round_trip(record: Record):
    assert as_bytes(parse(serialize(record))) == record


def test_a_file_name_that_is_not_utf8_survives():
    record = RECORD._replace(key="n1/caf\udce9.JPEG")
    assert b"n1/caf\xe9.JPEG" in serialize(record)
    assert parse(serialize(record)).key == record.key


def test_encoded_is_a_view_of_the_payload():
    payload = bytearray(serialize(RECORD))
    encoded = parse(payload).encoded
    payload[payload.index(b"pixels")] = ord("P")
    assert bytes(encoded) == b"\xff\xd8 Pixels \xff\xd9"


@needs_tensorflow
def test_tensorflow_writes_the_same_bytes_and_reads_ours():
    import tensorflow as tf

    def feature(value: int | str | bytes) -> tf.train.Feature:
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        data = value.encode() if isinstance(value, str) else value
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))

    names = ["channels", "class/label", "class/synset", "encoded", "filename", "format", "height", "width", "segments"]
    features = {f"image/{name}": feature(value) for name, value in zip(names, RECORD, strict=True)}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    assert serialize(RECORD) == example.SerializeToString(deterministic=True)
    assert tf.train.Example.FromString(serialize(RECORD)) == example


@needs_tensorflow
def test_foreign_examples_are_read():
    import tensorflow as tf

    example = tf.train.Example.FromString(serialize(RECORD))
    example.features.feature["image/object/bbox/xmin"].float_list.value.extend([0.5, 0.25])
    example.features.feature["image/colorspace"].bytes_list.value.append(b"RGB")
    example.features.feature["nothing"].Clear()
    del example.features.feature["image/segments"]
    assert as_bytes(parse(example.SerializeToString())) == RECORD._replace(segments=b"")


@needs_tensorflow
@pytest.mark.parametrize("missing", ["image/encoded", "image/class/label", "image/height"])
def test_a_missing_field_is_an_error(missing: str):
    import tensorflow as tf

    example = tf.train.Example.FromString(serialize(RECORD))
    del example.features.feature[missing]
    with pytest.raises(RecordError, match="not a tf"):
        parse(example.SerializeToString())


@given(st.binary(max_size=200))
def test_noise_is_an_error_and_nothing_worse(noise: bytes):
    with pytest.raises(RecordError):
        parse(noise)


@given(st.integers(0, len(serialize(RECORD)) - 1))
def test_a_payload_cut_short_is_an_error(size: int):
    with pytest.raises(RecordError):
        parse(serialize(RECORD)[:size])
