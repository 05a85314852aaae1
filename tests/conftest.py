"""What the tests share: real JPEGs drawn once, and datasets built of them once, in both formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from support import frameworks
from support.images import FORMATS, put
from support.sources import idx

import ingest
from ingest import jpeg
from ingest.tools.synthesize import SynthOptions, synthesize

# The first example of a property may be what has its function compiled.
settings.register_profile("ingest", deadline=None)
settings.load_profile("ingest")

# All tests see the decoder that users have; its own tests look at what there is without it.
jpeg.compile_decoder()

collect_ignore = frameworks.left_out(Path(__file__).parent)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if collect_ignore:
        terminalreporter.write_line(f"left out, for lack of TensorFlow 2.15: {', '.join(collect_ignore)}")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo set of three classes: ``train`` holds 36 JPEGs, ``val`` 9."""
    folder = tmp_path_factory.mktemp("photos")
    synthesize(folder, SynthOptions(classes=3, images=45, workers=2))
    return folder


@pytest.fixture(scope="session")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The training photos in five shards, by format."""
    folders = {name: tmp_path_factory.mktemp("shards") / name for name in FORMATS}
    for name, folder in folders.items():
        ingest.build_shards(photos / "train", folder, format=name, shards=5, workers=2)
    return folders


@pytest.fixture(scope="session")
def val_shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("val")
    ingest.build_shards(photos / "val", folder, format="lmdb", workers=0)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes that are easy to tell apart: a bright square in one of ten places of a grey image."""
    folder = tmp_path_factory.mktemp("digits")
    labels = np.arange(200, dtype=np.uint8) % 10
    pixels = np.random.default_rng(0).integers(0, 60, (200, 28, 28), np.uint8)
    for image, label in zip(pixels, labels):
        image[6 * (label // 4) + 4 :, 6 * (label % 4) + 3 :][:6, :6] = 255
    put(folder / "idx", {"images-idx3-ubyte": idx(pixels), "labels-idx1-ubyte": idx(labels)})
    ingest.build_shards(folder / "idx", folder / "shards", format="tfrecord", workers=0)
    return folder / "shards"
