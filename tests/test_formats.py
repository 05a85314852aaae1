from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.frameworks import needs_tensorflow, needs_tensorpack
from support.images import FORMATS

from ingest import formats
from ingest.errors import RecordError
from ingest.formats import ShardFault

PAYLOADS = [b"", b"a", bytes(range(256)) * 40, b"x" * 4095, b"y" * 4096, b"z" * 100_001] * 20


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def write(kind: str, path: Path, payloads: list[bytes]) -> Path:
    formats.write(kind, path, iter(payloads))
    return path


def faults(kind: str, path: Path) -> list[ShardFault]:
    return list(formats.find_faults(kind, path))


def read(kind: str, path: Path) -> list[bytes]:
    shard = formats.open(kind, path)
    content = [bytes(shard.get(i)) for i in range(len(shard))]
    shard.close()
    return content


def test_the_formats_are_the_modules_that_write():
    folder = Path(formats.__file__).parent
    assert set(formats.NAMES) == {path.stem for path in folder.glob("*.py") if "\ndef write(path" in path.read_text()}
    assert {"lmdb", "tfrecord"} <= set(formats.NAMES)


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
    one, other = formats.open(kind, path), formats.open(kind, path)
    one.close()
    assert bytes(other.get(2)) == PAYLOADS[2]


def test_nothing_is_left_of_a_failed_write(kind: str, tmp_path: Path):
    def broken():
        yield b"first"
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError):
        formats.write(kind, tmp_path / "shard", broken())
    assert list(tmp_path.iterdir()) == []


@needs_tensorflow
def test_tensorflow_reads_our_tfrecords_and_writes_the_same_bytes(tmp_path: Path):
    import tensorflow as tf

    path = write("tfrecord", tmp_path / "shard", PAYLOADS)
    assert [payload.numpy() for payload in tf.data.TFRecordDataset(str(path))] == PAYLOADS
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    assert (tmp_path / "theirs").read_bytes() == path.read_bytes()
    assert read("tfrecord", tmp_path / "theirs") == PAYLOADS


@needs_tensorpack
def test_tensorpack_reads_our_lmdbs(tmp_path: Path):
    from tensorpack.dataflow import LMDBData

    path = write("lmdb", tmp_path / "shard", PAYLOADS)
    data = LMDBData(str(path), shuffle=False)
    data.reset_state()
    assert len(data) == len(PAYLOADS)
    assert [bytes(payload) for _, payload in data] == PAYLOADS


@pytest.mark.parametrize("index", [None, b"", b"short", bytes(8), bytes(16), b"\xff" * 20, bytes(20)])
def test_an_index_that_is_unusable_is_made_again(kind: str, tmp_path: Path, index: bytes | None):
    path = write(kind, tmp_path / "shard", PAYLOADS)
    beside = tmp_path / "shard.index"
    kept = beside.read_bytes()
    beside.unlink() if index is None else beside.write_bytes(index)
    assert formats.load_index(path, path.stat().st_size) is None
    assert faults(kind, path) == []
    assert read(kind, path) == PAYLOADS
    assert beside.read_bytes() == kept


@pytest.mark.parametrize("has_index", [True, False])
def test_every_flipped_bit_of_a_tfrecord_is_found_and_located(tmp_path: Path, has_index: bool):
    payloads = [b"one", b"two and three", b"four"]
    path = write("tfrecord", tmp_path / "shard", payloads)
    ends = [0, 19, 48, 68]
    whole = path.read_bytes()
    assert (faults("tfrecord", path), len(whole)) == ([], ends[-1])
    if not has_index:
        (tmp_path / "shard.index").unlink()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        record = next(i for i in range(3) if bit // 8 < ends[i + 1])
        found = faults("tfrecord", path)
        assert [fault.record for fault in found] == [record], bit
        assert found[0].byte in ({ends[record] + 12} if has_index else {ends[record] + 12, None})
        is_payload = ends[record] + 12 <= bit // 8 < ends[record + 1] - 4
        if is_payload and has_index:
            with pytest.raises(RecordError, match="its data do not match their checksum"):
                read("tfrecord", path)


def test_flipped_bits_of_an_lmdb_are_found(tmp_path: Path):
    path = write("lmdb", tmp_path / "shard", PAYLOADS[:6])
    whole = path.read_bytes()
    assert faults("lmdb", path) == []
    shard = formats.open("lmdb", path)
    used = {}
    for i in range(6):
        place = shard.location(i)
        used.update(dict.fromkeys(range(place.offset, place.offset + place.size_bytes), i))
    for byte in np.random.default_rng(0).integers(0, len(whole), 500).tolist():
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << byte % 8
        path.write_bytes(damaged)
        found = faults("lmdb", path)
        if byte in used:
            place = shard.location(used[byte])
            assert found == [ShardFault(used[byte], place.offset, "its data do not match their checksum")]
        # What is not used by any record may be anything: the whole file's sum tells.


@pytest.mark.parametrize("has_index", [True, False])
def test_a_shard_cut_short_is_noticed_wherever_it_is_cut(kind: str, tmp_path: Path, has_index: bool):
    path = write(kind, tmp_path / "shard", PAYLOADS[:12])
    whole = path.read_bytes()
    index = (tmp_path / "shard.index").read_bytes()
    for size in np.random.default_rng(1).integers(1, len(whole), 60).tolist():
        path.write_bytes(whole[:size])
        (tmp_path / "shard.index").write_bytes(index if has_index else b"")
        assert faults(kind, path), size
        with pytest.raises(RecordError):
            read(kind, path)


def test_what_is_no_lmdb_is_refused(tmp_path: Path):
    (tmp_path / "shard").write_bytes(b"no tree at all" * 1000)
    with pytest.raises(RecordError, match="the file is no LMDB"):
        read("lmdb", tmp_path / "shard")


def test_what_the_library_wrote_is_read_as_it_reads_it(tmp_path: Path):
    """In many transactions, whose old pages stay in the file, and in trees of one and of several levels."""
    import lmdb

    for records, transactions in ((1, 1), (3, 3), (400, 1), (400, 40), (3000, 7)):
        path = tmp_path / f"{records}-{transactions}"
        payloads = [bytes([i % 256]) * (i * 37 % 5000) for i in range(records)]
        with lmdb.open(str(path), subdir=False, lock=False, map_size=2**26) as environment:
            for part in np.array_split(np.arange(records), transactions):
                with environment.begin(write=True) as transaction:
                    for i in part.tolist():
                        transaction.put(b"%08d" % i, payloads[i])
        assert read("lmdb", path) == payloads
