"""Damage is found, located and mended, wherever it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.images import FORMATS, files_of, image_bytes, put

import ingest
from ingest import formats
from ingest.dataset import manifest
from ingest.dataset.dataset import Dataset
from ingest.errors import ManifestError, RecordError, SourceError
from ingest.packing import resumable
from ingest.record import parse, serialize
from ingest.tools.shard_check import Corruption
from ingest.tools.verify import verify

pytestmark = pytest.mark.slow

FLIPS = int(os.environ.get("INGEST_FLIPS", "40"))
CUTS = int(os.environ.get("INGEST_CUTS", "16"))
"""Bits flipped and files cut short, of each format; `make stress` has more."""


@pytest.fixture(params=FORMATS)
def copy(request: pytest.FixtureRequest, shards: dict[str, Path], tmp_path: Path) -> Path:
    """A dataset that may be damaged."""
    return shutil.copytree(shards[request.param], tmp_path / request.param)


def records_in(folder: Path, name: str) -> list[tuple[range, str]]:
    """The bytes of each record of a shard, and its key."""
    shard = formats.open(name.split(".")[-1], folder / name)
    places = [shard.location(i) for i in range(len(shard))]
    keys = [parse(shard.get(i)).key for i in range(len(shard))]
    return [(range(p.offset, p.offset + p.size_bytes), key) for p, key in zip(places, keys, strict=True)]


@pytest.mark.parametrize("decode", [False, True])
def test_a_whole_dataset_is_whole(copy: Path, decode: bool):
    before = files_of(copy)
    verdict = verify(copy, decode=decode, workers=2)
    assert (verdict.shards, verdict.records, verdict.damages, verdict.repaired) == (5, 36, (), ())
    assert verdict.size_bytes == sum(shard.size_bytes for shard in ingest.load_manifest(copy).shards)
    assert files_of(copy) == before


def test_every_flipped_bit_is_found_located_and_mended(copy: Path, photos: Path):
    whole = files_of(copy)
    shards = {name: records_in(copy, name) for name in whole if name.split(".")[-1] in FORMATS}
    random = np.random.default_rng(0)
    for number in range(FLIPS):
        name = sorted(shards)[number % len(shards)] if number % 4 else random.choice(sorted(whole))
        damaged = bytearray(whole[name])
        byte = int(random.integers(len(damaged)))
        damaged[byte] ^= 1 << random.integers(8)
        (copy / name).write_bytes(damaged)
        damages = verify(copy, workers=0).damages
        assert {damage.file for damage in damages} == {name}, (name, byte)
        in_records = [(i, span, key) for i, (span, key) in enumerate(shards.get(name, [])) if byte in span]
        for i, span, key in in_records:
            assert [(damage.record, damage.byte) for damage in damages] == [(i, span.start)]
            assert damages[0].key in (key, None) or abs(len(damages[0].key) - len(key)) == 0
        if name in shards and not in_records:
            assert damages[0].record is not None or damages[0].byte == byte
        verdict = verify(copy, repair=photos / "train", workers=0)
        assert name in verdict.repaired
        assert files_of(copy) == whole, name


def test_every_cut_is_found_and_mended(copy: Path, photos: Path):
    whole = files_of(copy)
    random = np.random.default_rng(1)
    for number in range(CUTS):
        name = sorted(whole)[number % len(whole)]
        (copy / name).write_bytes(whole[name][: random.integers(len(whole[name]))])
        assert name in {damage.file for damage in verify(copy, workers=0).damages}, name
        verify(copy, repair=photos / "train", workers=0)
        assert files_of(copy) == whole, name


def test_exactly_what_is_damaged_is_packed_again(copy: Path, photos: Path):
    whole = files_of(copy)
    first, second, third, *_ = sorted(name for name in whole if name.split(".")[-1] in FORMATS)
    (copy / first).unlink()
    (copy / second).write_bytes(b"")
    (copy / f"{third}.index").unlink()
    kept = {path.name: path.stat().st_ino for path in copy.iterdir() if path.name.split(".")[0] > second.split(".")[0]}
    verdict = verify(copy, repair=photos / "train", workers=2)
    assert {damage.file for damage in verdict.damages} == {first, second, f"{second}.index", f"{third}.index"}
    assert set(verdict.repaired) == {first, second, f"{second}.index", f"{third}.index"}
    assert files_of(copy) == whole
    assert {name: (copy / name).stat().st_ino for name in kept} == kept
    assert verify(copy, workers=0).damages == ()


@pytest.mark.parametrize("names", [["build.json"], ["manifest.json"], ["quarantine.tsv"], ["quarantine.tsv", "0"]])
def test_a_quarantine_and_options_survive_the_mending(tmp_path: Path, names: list[str]):
    photos = {f"{i % 2}/{i}.JPEG": image_bytes("JPEG", size=(60 + i, 50)) for i in range(6)}
    source = put(tmp_path / "source", {**photos, "0/bad.JPEG": b"text"})
    out = tmp_path / "out"
    ingest.build_shards(source, out, format="lmdb", shards=2, encoding="jpeg", resize=32, quality=70, seed=5, workers=0)
    whole = files_of(out)
    for name in names:
        (out / name.replace("0", "00000-of-00002.lmdb")).unlink()
    damages = verify(out, workers=0).damages
    assert {damage.file for damage in damages} == {name.replace("0", "00000-of-00002.lmdb") for name in names}
    assert names != ["manifest.json"] or str(damages[0]) == "manifest.json: missing"
    verdict = verify(out, repair=source, workers=0)
    assert files_of(out) == whole
    known = ingest.load_manifest(out)
    assert (verdict.shards, verdict.records, verdict.size_bytes) == (2, 6, known.size_bytes)


def test_a_dataset_with_labels_of_its_own_is_mended_with_them(tmp_path: Path):
    put(tmp_path / "flat", {f"{i}.JPEG": image_bytes("JPEG", size=(60 + i, 50)) for i in range(6)})
    (tmp_path / "labels").write_text("cat\ndog\n" * 3)
    out = tmp_path / "out"
    ingest.build_shards(tmp_path / "flat", out, format="lmdb", shards=2, labels=tmp_path / "labels", workers=0)
    whole = files_of(out)
    for name in ("00001-of-00002.lmdb", "manifest.json"):
        (out / name).write_bytes(b"")
        put(out, {"manifest.json.0123abcd.tmp": b"left by a repair that was killed"})
        verify(out, repair=tmp_path / "flat", labels=tmp_path / "labels", workers=0)
        assert files_of(out) == whole


def test_another_source_or_one_that_has_changed_is_refused(shards: dict[str, Path], photos: Path, tmp_path: Path):
    copy = shutil.copytree(shards["lmdb"], tmp_path / "copy")
    (copy / "00001-of-00005.lmdb").unlink()
    with pytest.raises(SourceError, match="not what the dataset was built from"):
        verify(copy, repair=photos / "val", workers=0)
    changed = shutil.copytree(photos / "train", tmp_path / "changed")
    for path in changed.rglob("*.JPEG"):
        path.write_bytes(image_bytes("JPEG"))
    with pytest.raises(SourceError, match=r"has changed: 00001-of-00005.lmdb does not come out as its manifest says"):
        verify(copy, repair=changed, workers=0)


def test_a_repair_looks_at_its_source_before_all_is_read(
    shards: dict[str, Path], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for source, message in (("nowhere", "no such file or folder"), (photos / "val", "not what the dataset was built")):
        with pytest.raises(SourceError, match=message):
            verify(shards["lmdb"], repair=tmp_path / source, workers=0)
    assert "verifying" not in capsys.readouterr().err


def test_without_manifest_and_recipe_there_is_nothing_to_check_against(copy: Path, photos: Path):
    (copy / "manifest.json").unlink()
    (copy / "build.json").unlink()
    with pytest.raises(ManifestError, match="no such file"):
        verify(copy, workers=0)
    (copy / "manifest.json").write_bytes(b"{")
    with pytest.raises(ManifestError, match=r"neither manifest.json nor build.json can be read"):
        verify(copy, repair=photos / "train", workers=0)


def test_a_build_that_was_cut_short_is_not_damaged(copy: Path, photos: Path):
    whole = files_of(copy)
    (copy / "manifest.json").unlink()
    for path in copy.glob("0000[13]-*"):
        path.unlink()
    with pytest.raises(
        ManifestError, match="an unfinished build, of 5 shards 3 are there: give the same 'ingest build-sh"
    ):
        verify(copy, workers=0)
    assert verify(copy, repair=photos / "train", workers=0).records == 36
    assert files_of(copy) == whole


def test_images_that_cannot_be_decoded_are_found_on_demand(copy: Path):
    """Sums that match prove nothing of an image that a broken program wrote."""
    known = ingest.load_manifest(copy)
    dataset = Dataset(copy)
    records = [parse(dataset.payload(i)) for i in dataset.ranges()[0]]
    wrong = [
        records[0]._replace(encoded=bytes(records[0].encoded)[:-300]),
        records[1]._replace(height=1),
        records[2]._replace(label=2 - records[2].label),
        *records[3:],
    ]
    name = known.shards[0].name
    formats.write(known.format, copy / name, map(serialize, wrong))
    from dataclasses import replace

    described = resumable.describe(copy / name, len(wrong))
    manifest.save(replace(known, shards=(described, *known.shards[1:])), copy)
    assert verify(copy, workers=0).damages == ()
    found = verify(copy, decode=True, workers=2).damages
    assert [(damage.file, damage.record, damage.key) for damage in found[:2]] == [
        (name, i, records[i].key) for i in range(2)
    ]
    assert "not decodable" in found[0].problem and "for (1, " in found[1].problem
    assert (len(found) == 3) == (records[2].label != 1)


def test_training_on_damaged_data_names_shard_record_byte_and_key(copy: Path):
    name = sorted(path.name for path in copy.iterdir() if path.suffix[1:] in FORMATS)[2]
    span, key = records_in(copy, name)[4]
    content = bytearray((copy / name).read_bytes())
    content[span.start + len(span) // 2] ^= 1
    (copy / name).write_bytes(content)
    for workers in (0, 2):
        with pytest.raises(RecordError) as error:
            list(ingest.dataflow(copy, batch_size=8, image_size=32, training=False, workers=workers))
        assert f"{name}, record 4, byte {span.start}, key {key!r}: its data do not match" in str(error.value)
        assert f"ingest verify {copy} --repair SRC" in str(error.value)


def test_a_damage_reads_well():
    assert (
        str(Corruption(file="a.lmdb", record=3, byte=17, key="n01/x.JPEG", problem="gone"))
        == "a.lmdb, record 3, byte 17, key 'n01/x.JPEG': gone"
    )
    assert str(Corruption(file="a.lmdb", problem="gone")) == "a.lmdb: gone"
