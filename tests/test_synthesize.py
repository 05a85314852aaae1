from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest.errors import OptionError, OutputError
from ingest.jpeg import read_header
from ingest.tools.synthesize import FILE_BYTES, PATTERNS, SIDES, SynthOptions, picture, synthesize

pytestmark = pytest.mark.slow


def test_the_layout_is_imagenets(photos: Path):
    found = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*") if path.is_file())
    assert found == sorted(
        f"{'val' if i % 5 == 4 else 'train'}/{name}/{name}_{i:06d}.JPEG"
        for name in ("bricks", "cells", "checks")
        for i in range(15)
    )


def test_the_pictures_are_a_function_of_the_seed(photos: Path, tmp_path: Path):
    synthesize(tmp_path, SynthOptions(classes=3, images=45, workers=0))
    files = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.JPEG")}
    assert files == {path.relative_to(photos): path.read_bytes() for path in photos.rglob("*.JPEG")}
    assert picture("bricks", 1, 0) != picture("bricks", 0, 0)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_pictures_are_of_imagenets_size(pattern: str):
    for i in range(3):
        file = picture(pattern, 0, i)
        assert FILE_BYTES[0] <= len(file) <= FILE_BYTES[1]
        assert SIDES[0] <= min(Image.open(io.BytesIO(file)).size)
        assert SIDES[1] >= max(Image.open(io.BytesIO(file)).size)


def test_there_are_both_samplings_and_a_few_grey_ones():
    headers = [read_header(picture("stripes", 0, i)) for i in range(60)]
    samplings = [tuple((c.h, c.v) for c in header.components) for header in headers]
    assert 0 < sum(len(sampling) == 1 for sampling in samplings) < 10
    assert 5 < samplings.count(((2, 2), (1, 1), (1, 1))) < 30
    assert samplings.count(((1, 1), (1, 1), (1, 1))) > 25


def test_colours_tell_nothing_about_the_class():
    """The mean colours of two classes' pictures are drawn alike: their averages are near each other."""
    means = [
        np.mean(
            [np.asarray(Image.open(io.BytesIO(picture(p, 0, i))).convert("RGB")).mean((0, 1)) for i in range(20)], 0
        )
        for p in ("stripes", "dots")
    ]
    assert np.abs(means[0] - means[1]).max() < 40


@pytest.mark.parametrize("options", [{"classes": 1}, {"classes": 13}, {"images": 39}, {"seed": -1}, {"workers": -1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, int]):
    with pytest.raises(OptionError):
        SynthOptions(**options)


def test_a_folder_in_use_is_not_touched(tmp_path: Path):
    (tmp_path / "mine").write_text("hello")
    with pytest.raises(OutputError, match="not empty: give a new or empty folder"):
        synthesize(tmp_path, SynthOptions(classes=2, images=10))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
