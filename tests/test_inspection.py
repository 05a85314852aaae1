from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.images import FORMATS, image_bytes, put
from support.sources import IMAGES_NAME, LABELS, LABELS_NAME, PIXELS, idx

import ingest
from ingest import formats
from ingest.dataset import manifest
from ingest.dataset.dataset import Dataset
from ingest.dataset.manifest import Shard
from ingest.errors import ManifestError, RecordError
from ingest.tools.inspection import Inspection, inspect, text

pytestmark = pytest.mark.slow

ONE, TWO, THREE = (image_bytes("JPEG", size=size) for size in ((60, 40), (80, 50), (100, 90)))


@pytest.fixture(params=FORMATS)
def inspected(request: pytest.FixtureRequest, tmp_path: Path) -> Inspection:
    """A dataset with every flaw, beside another that shares images with it."""
    train = {
        "ant/1.JPEG": ONE, "ant/2.JPEG": ONE, "bee/3.JPEG": TWO, "cat/4.JPEG": TWO, "cat/5.JPEG": THREE,
        "cat/6.JPEG": image_bytes("JPEG", mode="L"), "cat/7.JPEG": image_bytes("PNG"),
        "cat/bad.JPEG": b"", "cat/worse.JPEG": b"text",
    }  # fmt: skip
    val = {"bee/v1.JPEG": THREE, "cat/v2.JPEG": ONE, "elk/v3.JPEG": image_bytes("JPEG", size=(70, 70))}
    put(tmp_path / "train", train)
    (tmp_path / "train" / "dog").mkdir()
    put(tmp_path / "val", val)
    for name in ("train", "val"):
        ingest.build_shards(tmp_path / name, tmp_path / f"{name} shards", format=request.param, shards=3, workers=0)
    return inspect(tmp_path / "train shards", tmp_path / "val shards", workers=2)


def test_counts(inspected: Inspection):
    assert (inspected.records, inspected.shards, inspected.quarantined, inspected.num_grayscale) == (7, 3, 2, 1)
    assert inspected.classes == {"ant": 2, "bee": 1, "cat": 4, "dog": 0}
    assert inspected.encodings == {"JPEG with restart segments": 7, "JPEG without": 0, "RAW": 0}
    assert inspected.converted == {"PNG RGB": 1}
    assert sum(inspected.reasons.values()) == 2 and "empty file" in inspected.reasons
    assert inspected.distributions["width"] == {"min": 60, "5 %": 60, "median": 60, "95 %": 100, "max": 100}
    assert inspected.distributions["images a class"]["max"] == 4


def test_duplicates_and_labels_in_doubt(inspected: Inspection):
    found = inspected.duplicates
    assert (found.groups, found.images, found.mixed) == (2, (4,), 1)
    assert [sorted(image.key for image in group.first) for group in found.first] == [
        ["bee/3.JPEG", "cat/4.JPEG"],
        ["ant/1.JPEG", "ant/2.JPEG"],
    ]
    assert found.first[0].classes == ("bee", "cat")


def test_what_two_datasets_share(inspected: Inspection):
    found = inspected.comparison
    assert found is not None and found.packed_alike
    assert (found.in_both.groups, found.in_both.images, found.in_both.mixed) == (2, (3, 2), 2)
    assert {image.key for group in found.in_both.first for image in group.first} == {
        "ant/1.JPEG", "ant/2.JPEG", "cat/5.JPEG", "bee/v1.JPEG", "cat/v2.JPEG",
    }  # fmt: skip
    assert (found.only_here, found.only_there, found.relabelled) == (("ant", "dog"), ("elk",), ("bee", "cat"))


def test_the_text_names_it_all(inspected: Inspection):
    shown = text(inspected)
    for words in (
        "records: 7, shards: 3", "quarantined: 2 (1 ", "1 empty file", "converted: 1 (1 PNG RGB)", "grey: 1 (14.3%)",
        "WARNING: classes without an image: dog", "exact duplicates: 2 groups, surplus images: 2",
        "WARNING: groups of DIFFERENT classes, whose labels are in doubt: 1", "cat/4.JPEG (cat):",
        "images in both: 2 (records here: 3, there: 2)", "WARNING: the labels DIFFER of classes: bee, cat",
        "WARNING: classes only there: elk",
    ):  # fmt: skip
        assert words in shown, shown
    assert json.loads(json.dumps(dataclasses.asdict(inspected)))["classes"]["cat"] == 4


@pytest.mark.parametrize("name", FORMATS)
def test_a_class_ordered_dataset_is_called_out(tmp_path: Path, name: str):
    put(tmp_path / "photos", {f"{number % 4}/{number}.JPEG": ONE for number in range(120)})
    ingest.build_shards(tmp_path / "photos", tmp_path / "random", format=name, workers=0)
    sound = inspect(tmp_path / "random", workers=0)
    assert [mixing.is_bad for mixing in sound.mixing.values()] == [False, False]
    assert "packed order: batches of 12 hold " in text(sound) and "NOT random" not in text(sound)

    source = Dataset(tmp_path / "random")
    numbers = sorted(range(len(source)), key=lambda number: source[number].label)
    written = formats.write(name, tmp_path / "all", map(source.payload, numbers))
    one = Shard("all", len(source), *written)
    manifest.save(dataclasses.replace(source.manifest, shards=(one,), build=None), tmp_path)
    found = inspect(tmp_path, workers=0)
    assert [(kind, mixing.is_bad) for kind, mixing in found.mixing.items()] == [
        ("packed order", True), ("training order", False),
    ]  # fmt: skip
    assert "WARNING: the packed order is NOT random, its batches hold much alike: " in text(found)
    assert "build with another --seed" in text(found)


def test_pixels_and_equal_datasets(tmp_path: Path):
    put(tmp_path / "source", {IMAGES_NAME: idx(PIXELS), LABELS_NAME: idx(LABELS)})
    for name in FORMATS:
        ingest.build_shards(tmp_path / "source", tmp_path / name, format=name, workers=0)
    result = inspect(tmp_path / "lmdb", tmp_path / "tfrecord", workers=0)
    assert (result.num_grayscale, result.encodings["RAW"], result.duplicates.groups) == (12, 12, 0)
    assert result.comparison is not None
    assert (result.comparison.in_both.groups, result.comparison.relabelled) == (12, ())
    assert "classes: the same, with the same labels" in text(result)


def test_what_is_no_dataset(tmp_path: Path, shards: dict[str, Path]):
    with pytest.raises(ManifestError, match="no such file"):
        inspect(tmp_path)
    with pytest.raises(ManifestError, match="no such file"):
        inspect(shards["lmdb"], tmp_path)
    copy = put(tmp_path / "copy", {path.name: path.read_bytes() for path in shards["lmdb"].iterdir()})
    (copy / "00002-of-00005.lmdb").write_bytes(b"")
    with pytest.raises(RecordError, match="0 bytes, its manifest says"):
        inspect(copy)
