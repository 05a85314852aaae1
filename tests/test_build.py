from __future__ import annotations

import hashlib
import io
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.images import FORMATS, files_of, image_bytes, put
from support.jpeg_kinds import ycck
from support.sources import IMAGES_NAME, LABELS, LABELS_NAME, PIXELS, idx

import ingest
from ingest import jpeg
from ingest.dataset.dataset import Dataset
from ingest.errors import BadSampleError, OptionError, OutputError, SourceError, WorkerError
from ingest.packing import build
from ingest.packing.options import BuildOptions
from ingest.packing.plan import plan_shards
from ingest.record import Record, Sample
from ingest.sources.base import Entry
from ingest.sources.detect import open_source

pytestmark = pytest.mark.slow

GOOD = {
    "a/plain.JPEG": image_bytes("JPEG"),
    "a/really a PNG.JPEG": image_bytes("PNG"),
    "a/cmyk.JPEG": image_bytes("JPEG", mode="CMYK"),
    "a/ycck.JPEG": ycck(),
    "b/progressive.JPEG": image_bytes("JPEG", progressive=True),
    "b/grey.JPEG": image_bytes("JPEG", mode="L"),
    "b/16 bits.png": image_bytes("PNG", mode="I;16"),
    "b/one pixel.JPEG": image_bytes("JPEG", size=(1, 1)),
    "b/\u00fcber den Wolken \u96f2.JPEG": image_bytes("JPEG", size=(80, 50)),
}

BAD = {
    "a/cut.JPEG": image_bytes("JPEG")[:-200],
    "a/nothing.JPEG": b"",
    "b/notes.txt": b"these are my photographs",
    "b/two\tcolumns\nand lines": b"a name that would break a table",
    "README": b"not in a class",
}


def records_of(folder: Path) -> list[Record]:
    dataset = Dataset(folder)
    return [
        r._replace(encoded=bytes(r.encoded), segments=bytes(r.segments))
        for r in map(dataset.__getitem__, range(len(dataset)))
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_every_file_is_packed_once_pixel_for_pixel(photos: Path, shards: dict[str, Path], name: str):
    records = records_of(shards[name])
    source = photos / "train"
    assert len(records) == 36
    assert {record.key for record in records} == {p.relative_to(source).as_posix() for p in source.rglob("*.JPEG")}
    classes = sorted(path.name for path in source.iterdir())
    for record in records:
        synset = record.key.split("/")[0]
        assert (record.synset, record.label, record.format) == (synset, classes.index(synset), "JPEG")
        pixels = jpeg.decode(record.encoded, record.channels)
        assert pixels.shape == (record.height, record.width, record.channels)
        assert np.array_equal(pixels, jpeg.decode((source / record.key).read_bytes(), record.channels))


@pytest.mark.parametrize("name", FORMATS)
def test_the_manifest_describes_the_shards(shards: dict[str, Path], name: str):
    manifest = ingest.load_manifest(shards[name])
    assert (manifest.version, manifest.format, manifest.encoding, manifest.channels) == (1, name, "keep", 3)
    assert (manifest.records, manifest.quarantined, manifest.seed) == (36, 0, 0)
    assert manifest.classes == ("bricks", "cells", "checks")
    assert sorted(shard.records for shard in manifest.shards) == [7, 7, 7, 7, 8]
    assert [shard.name for shard in manifest.shards] == [f"0000{i}-of-00005.{name}" for i in range(5)]
    for shard in manifest.shards:
        content = (shards[name] / shard.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard.size_bytes, shard.sha256)
    names = {shard.name for shard in manifest.shards}
    assert set(files_of(shards[name])) == {"build.json", "manifest.json", *names, *(f"{name}.index" for name in names)}


def test_all_formats_hold_the_same_payloads_in_the_same_order(shards: dict[str, Path]):
    first, *others = (records_of(shards[name]) for name in FORMATS)
    assert others and all(other == first for other in others)
    assert [record.key for record in first] != sorted(record.key for record in first)


@pytest.mark.parametrize("name", FORMATS)
def test_the_output_is_the_same_for_any_number_of_workers(
    photos: Path, shards: dict[str, Path], name: str, tmp_path: Path
):
    for workers in (0, 1, 3):
        out = tmp_path / str(workers)
        ingest.build_shards(photos / "train", out, format=name, shards=5, workers=workers)
        assert files_of(out) == files_of(shards[name])


def test_another_seed_is_another_order(photos: Path, shards: dict[str, Path], tmp_path: Path):
    ingest.build_shards(photos / "train", tmp_path, format="lmdb", shards=5, seed=1, workers=0)
    keys, others = ([record.key for record in records_of(folder)] for folder in (shards["lmdb"], tmp_path))
    assert keys != others
    assert sorted(keys) == sorted(others)


@pytest.mark.parametrize("name", FORMATS)
def test_odd_files_are_packed_and_bad_ones_quarantined(tmp_path: Path, name: str):
    source = put(tmp_path / "source", {**GOOD, **BAD})
    manifest = ingest.build_shards(source, tmp_path / "out", format=name, workers=2, shards=4)
    assert (manifest.records, manifest.quarantined) == (len(GOOD), len(BAD))
    assert sum(manifest.converted.values()) == 5
    assert {key: manifest.converted[key] for key in ("JPEG CMYK", "JPEG YCCK", "JPEG progressive", "PNG RGB")} == {
        "JPEG CMYK": 1, "JPEG YCCK": 1, "JPEG progressive": 1, "PNG RGB": 1,
    }  # fmt: skip
    records = records_of(tmp_path / "out")
    assert sorted(record.key for record in records) == sorted(GOOD)
    lines = (tmp_path / "out" / "quarantine.tsv").read_text().splitlines()
    assert lines[0] == "key\treason"
    reasons = dict(line.split("\t") for line in lines[1:])
    assert sorted(reasons) == sorted(key.replace("\t", r"\t").replace("\n", r"\n") for key in BAD)
    assert reasons["a/nothing.JPEG"] == "empty file"
    assert reasons["a/cut.JPEG"].startswith("not decodable to the end")
    assert reasons["b/notes.txt"] == "not an image of a kind that can be packed (JPEG, PNG, GIF, BMP, TIFF, WEBP, PPM)"
    assert reasons["README"] == "not in a class folder"
    batches = list(ingest.dataflow(tmp_path / "out", batch_size=4, image_size=32, training=False, workers=1))
    assert sorted(label for _, labels in batches for label in labels) == sorted(record.label for record in records)


def test_a_bad_file_can_end_the_build(tmp_path: Path):
    source = put(tmp_path / "source", {"a/1.JPEG": GOOD["a/plain.JPEG"], "a/2.JPEG": b""})
    for workers in (0, 2):
        with pytest.raises(BadSampleError, match=r"a/2\.JPEG: empty file"):
            ingest.build_shards(source, tmp_path / "out", format="lmdb", on_bad="fail", workers=workers)
        assert not (tmp_path / "out" / "manifest.json").exists()


def test_where_nothing_can_be_packed_the_build_says_so(tmp_path: Path):
    source = put(tmp_path / "source", {"a/1.JPEG": b"", "a/2.JPEG": b"text"})
    with pytest.raises(SourceError, match=r"none of the source's 2 files could be packed; see .*quarantine.tsv"):
        ingest.build_shards(source, tmp_path / "out", format="tfrecord", workers=0)
    assert list(files_of(tmp_path / "out")).count("manifest.json") == 0


def test_the_source_is_only_read(tmp_path: Path):
    source = put(tmp_path / "source", {**GOOD, **BAD})
    before = {path: (path.stat(), path.read_bytes()) for path in source.rglob("*") if path.is_file()}
    ingest.build_shards(source, tmp_path / "out", format="lmdb", workers=0)
    after = {path: (path.stat(), path.read_bytes()) for path in source.rglob("*") if path.is_file()}
    assert [(path, stat.st_mtime_ns, data) for path, (stat, data) in before.items()] == [
        (path, stat.st_mtime_ns, data) for path, (stat, data) in after.items()
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_idx_is_packed_as_pixels(tmp_path: Path, name: str):
    source = put(tmp_path / "source", {IMAGES_NAME: idx(PIXELS), LABELS_NAME: idx(LABELS)})
    manifest = ingest.build_shards(source, tmp_path / "out", format=name, workers=2)
    assert (manifest.encoding, manifest.channels, manifest.records, len(manifest.classes)) == ("raw", 1, 12, 11)
    for record in records_of(tmp_path / "out"):
        i = int(record.key)
        assert (record.format, record.height, record.width, record.channels) == ("RAW", 5, 4, 1)
        assert (record.encoded, record.label, record.synset) == (PIXELS[i].tobytes(), LABELS[i], f"{LABELS[i]:02d}")


def test_pixels_can_be_stored(photos: Path, tmp_path: Path):
    manifest = ingest.build_shards(photos / "val", tmp_path, format="lmdb", encoding="raw", resize=64, workers=1)
    assert (manifest.encoding, manifest.resize, manifest.quality) == ("raw", 64, None)
    for record in records_of(tmp_path):
        assert min(record.height, record.width) == 64
        assert len(record.encoded) == record.height * record.width * record.channels
        original = Image.open(photos / "val" / record.key)
        assert abs(record.height / record.width - original.height / original.width) < 1 / 64
        original.draft("RGB", (record.width, record.height))  # an inverse DCT at half the size, or a quarter
        size = record.width, record.height
        expected = cv2.resize(np.asarray(original), size, interpolation=cv2.INTER_AREA)
        difference = np.frombuffer(record.encoded, np.uint8) - expected.ravel().astype(int)
        assert np.abs(difference).max() <= 1  # both averages are rounded


def test_images_can_be_encoded_anew(photos: Path, tmp_path: Path):
    sizes = {}
    for quality in (50, 90):
        out = tmp_path / str(quality)
        manifest = ingest.build_shards(
            photos / "val", out, format="tfrecord", encoding="jpeg", resize=96, quality=quality, workers=0
        )
        assert (manifest.encoding, manifest.resize, manifest.quality) == ("jpeg", 96, quality)
        records = records_of(out)
        sizes[quality] = sum(len(record.encoded) for record in records)
        for record in records:
            image = Image.open(io.BytesIO(record.encoded))
            assert (image.format, image.size, min(image.size)) == ("JPEG", (record.width, record.height), 96)
    assert sizes[50] < sizes[90]


def test_foreign_files_are_not_touched(photos: Path, tmp_path: Path):
    put(tmp_path, {"thesis.tex": b"my life's work"})
    with pytest.raises(OutputError, match=r"not empty \(it holds thesis.tex\)"):
        ingest.build_shards(photos / "train", tmp_path, format="lmdb")
    assert files_of(tmp_path) == {"thesis.tex": b"my life's work"}


@pytest.mark.parametrize("place", [".", "a", "new/deeper"])
def test_the_output_may_not_lie_in_the_source(tmp_path: Path, place: str):
    source = put(tmp_path / "source", {"a/1.JPEG": GOOD["a/plain.JPEG"]})
    with pytest.raises(OutputError, match="lies in the source"):
        ingest.build_shards(source, source / place, format="lmdb")


@pytest.mark.parametrize(
    "options",
    [
        {"format": "zip"},
        {"encoding": "png"},
        {"on_bad": "ignore"},
        {"shards": 0},
        {"shards": 37},
        {"workers": -1},
        {"resize": 256},
        {"resize": 0, "encoding": "raw"},
        {"quality": 101, "encoding": "jpeg"},
        {"seed": -1},
    ],
)
def test_options_that_make_no_sense_are_refused(photos: Path, tmp_path: Path, options: dict[str, object]):
    with pytest.raises(OptionError):
        ingest.build_shards(photos / "train", tmp_path / "out", **{"format": "lmdb", **options})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_an_error_of_one_line_and_the_build_goes_on(
    photos: Path, name: str, workers: int, tmp_path: Path
):
    """A limit on the size of files stands in for a full disk; LMDB calls any write that fails an input/output error."""
    words = ["build-shards", photos / "train", tmp_path / "out", "--format", name, "--workers", workers, "--shards", 2]
    command = [sys.executable, "-m", "ingest", *map(str, words)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)),
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert re.search(rf"error: .*0000\d-of-00002.{name}: cannot be written \(.*\): make room", last)
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["build.json"]
    done = subprocess.run(
        [sys.executable, "-m", "ingest", *map(str, words)], capture_output=True, text=True, check=True
    )
    assert "packed 36 of 36 files" in done.stdout
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix in (".tmp", ".done")]


def fatal(entry: Entry) -> Sample:
    if entry.key.endswith("2.JPEG"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return Sample(entry.key, entry.label, GOOD["a/plain.JPEG"])


@pytest.mark.parametrize("name", FORMATS)
def test_a_worker_that_a_file_kills_names_the_file(tmp_path: Path, name: str):
    put(tmp_path / "photos", {f"a/{i}.JPEG": b"" for i in range(5)})
    source = open_source(tmp_path / "photos")._replace(read=fatal)
    options = BuildOptions(format=name, shards=1, workers=1)
    (tmp_path / "shards").mkdir()
    with pytest.raises(WorkerError, match=rf"00000-of-00001\.{name}: at a/2\.JPEG: worker .* SIGSEGV: if that happens"):
        build.pack_shards(source, tmp_path / "shards", options, plan_shards(5, options), (), lambda images: None)
