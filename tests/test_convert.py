"""A conversion gives what a build in the other format would have given."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from support.images import FORMATS, files_of, image_bytes, put

import ingest
from ingest import formats
from ingest.errors import OptionError, OutputError, RecordError, WorkerError
from ingest.tools.convert import convert

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("workers", [0, 2])
def test_conversion_and_build_are_the_same_bytes(shards: dict[str, Path], tmp_path: Path, name: str, workers: int):
    for other in set(FORMATS) - {name}:
        convert(shards[name], tmp_path / other, format=other, workers=workers)
        assert files_of(tmp_path / other) == files_of(shards[other])
        convert(tmp_path / other, tmp_path / f"{other} back", format=name, workers=workers)
        assert files_of(tmp_path / f"{other} back") == files_of(shards[name])


def test_the_quarantine_comes_along(tmp_path: Path):
    source = put(tmp_path / "source", {"a/1.JPEG": image_bytes("JPEG"), "a/2.JPEG": b"", "b/3.png": image_bytes("PNG")})
    for name in FORMATS:
        ingest.build_shards(source, tmp_path / name, format=name, workers=0)
    convert(tmp_path / "lmdb", tmp_path / "out", format="tfrecord", workers=0)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "tfrecord")


def test_a_conversion_that_was_cut_short_goes_on(photos: Path, shards: dict[str, Path], tmp_path: Path):
    out, copied = tmp_path / "out", []
    write = formats.write

    def fail(name: str, path: Path, payloads: Iterable[bytes]) -> object:
        copied.append(path.name)
        if len(copied) == 3:
            raise WorkerError("enough")
        return write(name, path, payloads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "write", fail)
        with pytest.raises(WorkerError):
            convert(shards["lmdb"], out, format="tfrecord", workers=0)
    # Its receipts know of no quarantine: a build must not go on with them.
    with pytest.raises(OutputError, match=r"holds an unfinished build of other options \(another source"):
        ingest.build_shards(photos / "train", out, format="tfrecord", shards=5)
    kept = {path.name: path.stat().st_ino for path in out.glob("0000[01]*.tfrecord")}
    assert len(kept) == 2
    for _ in range(2):
        convert(shards["lmdb"], out, format="tfrecord", workers=0)
        assert files_of(out) == files_of(shards["tfrecord"])
        assert {name: (out / name).stat().st_ino for name in kept} == kept


def test_what_cannot_be_converted(shards: dict[str, Path], tmp_path: Path):
    with pytest.raises(OptionError, match="is in the format lmdb already"):
        convert(shards["lmdb"], tmp_path / "out", format="lmdb")
    with pytest.raises(OptionError, match="give one of lmdb, tfrecord"):
        convert(shards["lmdb"], tmp_path / "out", format="zip")
    with pytest.raises(OutputError, match="is what shall be converted"):
        convert(shards["lmdb"], shards["lmdb"], format="tfrecord")
    copy = put(tmp_path / "copy", files_of(shards["lmdb"]))
    content = bytearray((copy / "00002-of-00005.lmdb").read_bytes())
    content[-5000] ^= 4
    (copy / "00002-of-00005.lmdb").write_bytes(content)
    with pytest.raises(RecordError, match=r"00002-of-00005.lmdb, record \d, byte \d+, key .*: its data do not match"):
        convert(copy, tmp_path / "out", format="tfrecord", workers=2)
    assert not (tmp_path / "out" / "manifest.json").exists()
