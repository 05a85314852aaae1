"""What the tests share: real JPEGs drawn once, and datasets built of them once, in both formats."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

import ingest
from ingest.synth import SynthOptions, synthesize

# The first example of a property may be what has its function compiled.
settings.register_profile("ingest", deadline=None)
settings.load_profile("ingest")

FORMATS = ("tfrecord", "lmdb")


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


def image_bytes(kind: str, size: tuple[int, int] = (60, 40), mode: str = "RGB", **options: object) -> bytes:
    """A file of Pillow's format ``kind`` with smooth, not uniform, content; ``size`` is (width, height)."""
    y, x = np.mgrid[: size[1], : size[0]]
    channels = np.stack([x * 255 // size[0], y * 255 // size[1], (x + y) % 256], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(channels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def put(folder: Path, files: dict[str, bytes]) -> Path:
    """Write ``files`` below ``folder``."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
