from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.images import FORMATS, image_bytes, put
from support.sources import IMAGES_NAME, LABELS, LABELS_NAME, PIXELS, idx

import ingest
from ingest.cli import main
from ingest.dataset.dataset import Dataset
from ingest.errors import OutputError, RecordError
from ingest.loading import transforms
from ingest.loading.batches import iter_batches
from ingest.loading.options import LoaderOptions, TransformOptions
from ingest.tools import contact_sheet

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", FORMATS)
def test_the_views_are_those_of_training(shards: dict[str, Path], name: str):
    dataset = Dataset(shards[name])
    n, orders = len(dataset), contact_sheet.epoch_orders(dataset)
    options = LoaderOptions(batch_size=n, training=True, image_size=48, workers=0, epochs=contact_sheet.EPOCHS)
    epochs = [{image.tobytes() for image in batch.images} for batch in iter_batches(shards[name], options)]
    for number in range(n):
        found = contact_sheet.views_of(dataset, number, orders, 48, TransformOptions())
        assert [view.pixels.tobytes() in epoch for view, epoch in zip(found, epochs, strict=True)] == [True] * 3


def test_regions_and_flips_are_those_of_the_views(shards: dict[str, Path]):
    dataset = Dataset(shards["lmdb"])
    flips, orders = set(), contact_sheet.epoch_orders(dataset)
    for number in range(0, len(dataset), 5):
        record = dataset[number]
        for pixels, view in contact_sheet.views_of(dataset, number, orders, 48, TransformOptions()):
            out = np.empty((48, 48, 3), np.uint8)
            transforms.finish(transforms.decode_region(record, 3, view.region), view, out)
            assert np.array_equal(out, pixels)
            flips.add(view.is_flipped)
    assert flips == {True, False}


def test_the_sheet(shards: dict[str, Path], tmp_path: Path):
    contact_sheet.save(shards["tfrecord"], tmp_path / "sheet.png", TransformOptions())
    drawn = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert drawn.shape == (contact_sheet.IMAGES * 300, 1072, 3)
    colours = {tuple(pixel) for pixel in drawn.reshape(-1, 3)[::7].tolist()}
    assert {(0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9), (0xCC, 0x79, 0xA7)} <= colours


def test_sheets_of_grey_of_pixels_and_of_odd_names(tmp_path: Path):
    put(tmp_path / "digits", {IMAGES_NAME: idx(PIXELS), LABELS_NAME: idx(LABELS)})
    put(tmp_path / "photos", {f"\u1f400 cat\n{'x' * 90}/{i}.JPEG": image_bytes("JPEG", mode="L") for i in range(2)})
    for source, encoding in (("digits", "keep"), ("photos", "keep"), ("photos", "raw")):
        out = tmp_path / f"{source} {encoding}"
        ingest.build_shards(tmp_path / source, out, format="lmdb", workers=0, encoding=encoding)
        assert contact_sheet.draw(Dataset(out), TransformOptions()).width == 1072


def test_what_cannot_be_drawn_or_written(shards: dict[str, Path], tmp_path: Path):
    for name in ("sheet.what", "no folder/sheet.png"):
        with pytest.raises(OutputError, match="give a FILE"):
            contact_sheet.save(shards["lmdb"], tmp_path / name, TransformOptions())
    copy = shutil.copytree(shards["tfrecord"], tmp_path / "copy")
    path = copy / "00000-of-00005.tfrecord"
    path.write_bytes(path.read_bytes().replace(b"\xff\xda", b"\x00\x00"))
    with pytest.raises(RecordError, match=r"00000-of-00005\.tfrecord, record 0"):
        contact_sheet.save(copy, tmp_path / "sheet.png", TransformOptions())


def test_a_place_that_cannot_be_written_shows_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # as it is for who is not root
    for words, problem in (
        (("inspect", "nowhere", "--sheet", f"{tmp_path}/sheet.jpg"), "sheet.jpg: give a FILE.png"),
        (("inspect", "nowhere", "--sheet", f"{tmp_path}/sheet.png"), "sheet.png: no permission to write it"),
        (("profile", "nowhere", "--html", f"{tmp_path}/page.html"), "page.html: no permission to write it"),
        (("profile", "nowhere", "--json", f"{tmp_path}/p.json"), "p.json: no permission to write it"),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2
        assert f"argument {words[2]}: {tmp_path}/{problem} (see ingest" in capsys.readouterr().err
