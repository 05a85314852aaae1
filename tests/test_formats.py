from __future__ import annotations

from pathlib import Path

import pytest
from conftest import FORMATS

from ingest import formats
from ingest.errors import RecordError

PAYLOADS = [b"", b"a", bytes(range(256)) * 40, b"x" * 4095, b"y" * 4096, b"z" * 100_001] * 20


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def write(kind: str, path: Path, payloads: list[bytes]) -> Path:
    formats.load(kind).write(path, iter(payloads))
    return path


def read(kind: str, path: Path) -> list[bytes]:
    shard = formats.load(kind).open(path)
    content = [bytes(shard.get(i)) for i in range(len(shard))]
    shard.close()
    return content


def test_the_formats_are_the_modules_of_the_room():
    assert set(formats.NAMES) == set(FORMATS)


@pytest.mark.parametrize("payloads", [PAYLOADS, [b"one"], []], ids=["many", "one", "none"])
def test_round_trip(kind: str, tmp_path: Path, payloads: list[bytes]):
    assert read(kind, write(kind, tmp_path / "shard", payloads)) == payloads


def test_bytes_are_a_function_of_the_payloads(kind: str, tmp_path: Path):
    first = write(kind, tmp_path / "a", PAYLOADS).read_bytes()
    assert write(kind, tmp_path / "b", PAYLOADS).read_bytes() == first
    assert write(kind, tmp_path / "c", PAYLOADS[::-1]).read_bytes() != first


def test_a_shard_of_many_transactions_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ingest.formats import lmdb

    monkeypatch.setattr(lmdb, "_COMMIT_BYTES", 50_000)
    assert read("lmdb", write("lmdb", tmp_path / "shard", PAYLOADS)) == PAYLOADS


def test_a_shard_may_be_open_twice(kind: str, tmp_path: Path):
    path = write(kind, tmp_path / "shard", PAYLOADS)
    one, other = formats.load(kind).open(path), formats.load(kind).open(path)
    one.close()
    assert bytes(other.get(2)) == PAYLOADS[2]


def test_nothing_is_left_of_a_failed_write(kind: str, tmp_path: Path):
    def broken():
        yield b"first"
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError):
        formats.load(kind).write(tmp_path / "shard", broken())
    assert list(tmp_path.iterdir()) == []


def test_tensorflow_reads_our_tfrecords_and_writes_the_same_bytes(tmp_path: Path):
    import tensorflow as tf

    path = write("tfrecord", tmp_path / "shard", PAYLOADS)
    assert [payload.numpy() for payload in tf.data.TFRecordDataset(str(path))] == PAYLOADS
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    assert (tmp_path / "theirs").read_bytes() == path.read_bytes()
    assert read("tfrecord", tmp_path / "theirs") == PAYLOADS


def test_tensorpack_reads_our_lmdbs(tmp_path: Path):
    from tensorpack.dataflow import LMDBData

    path = write("lmdb", tmp_path / "shard", PAYLOADS)
    data = LMDBData(str(path), shuffle=False)
    data.reset_state()
    assert len(data) == len(PAYLOADS)
    assert [bytes(payload) for _, payload in data] == PAYLOADS


@pytest.mark.parametrize("index", [None, b"", b"short", bytes(8), bytes(16), b"\xff" * 16])
def test_offsets_are_found_again_where_the_index_is_unusable(tmp_path: Path, index: bytes | None):
    path = write("tfrecord", tmp_path / "shard", PAYLOADS)
    beside = tmp_path / "shard.index"
    kept = beside.read_bytes()
    beside.unlink() if index is None else beside.write_bytes(index)
    assert read("tfrecord", path) == PAYLOADS
    assert beside.read_bytes() == kept


def test_every_flipped_bit_of_a_tfrecord_is_noticed(tmp_path: Path):
    payloads = [b"one", b"two and three", b"four"]
    path = write("tfrecord", tmp_path / "shard", payloads)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(RecordError, match=r"byte \d+: its (length|data)"):
            read("tfrecord", path)


def test_a_tfrecord_cut_short_is_noticed(tmp_path: Path):
    path = write("tfrecord", tmp_path / "shard", [b"one", b"two"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecordError, match="record 1 at byte 19: its length is damaged, or the file is cut short"):
        read("tfrecord", path)


def test_what_is_no_lmdb_is_refused(tmp_path: Path):
    (tmp_path / "shard").write_bytes(b"no tree at all" * 1000)
    with pytest.raises(RecordError, match="cannot be opened as LMDB"):
        read("lmdb", tmp_path / "shard")
