"""What the documents take for granted that a reader has, made small: a few drawn pictures under ImageNet's names."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import scipy.io

import ingest
from ingest.tools.synthesize import SynthOptions, synthesize
from support.images import image_bytes, put
from support.sources import as_parquet, as_tar_of_tars, parquet_of, tar_of

ROOT = Path(__file__).parents[2]


def make(folder: Path, with_training: bool) -> None:
    """Make all of it below ``folder``; a finished training only if asked for, since that needs TensorFlow 2.15."""
    synthesize(folder / "photos", SynthOptions(classes=3, images=120, workers=2))
    for split in ("train", "val"):
        shutil.copytree(folder / "photos" / split, folder / "ILSVRC2012" / split)
        for name in ("shards", "few"):
            ingest.build_shards(folder / "photos" / split, folder / name / split, format="tfrecord", workers=2)
    train, val = (_files(folder / "photos" / split) for split in ("train", "val"))
    as_tar_of_tars(train, folder)
    _validation(val, folder)
    names = sorted({key.split("/")[0] for key in train})
    as_parquet(train, folder / "hf/train/data")
    put(folder / "hf/val/data", {"validation-00000-of-00001.parquet": parquet_of(val, names)})
    put(folder / "mnist", {**_mnist("train", 100), **_mnist("t10k", 20)})
    put(folder, {"cat.jpg": image_bytes("JPEG", (300, 200)), "dog.png": image_bytes("PNG", (300, 200))})
    if with_training:
        _train(folder)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.JPEG"))}


def _validation(photos: dict[str, bytes], folder: Path) -> None:
    """The validation archive and the devkit, whose numbers are not in the order of the synsets."""
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(photos) + 1)]
    synsets = sorted({key.split("/")[0] for key in photos})[::-1]
    fields = ("ILSVRC2012_ID", "WNID", "num_children")
    rows = np.zeros((len(synsets), 1), [(name, object) for name in fields])
    for number, (row, synset) in enumerate(zip(rows, synsets), 1):
        row[0] = (number, synset, 0)
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": rows})
    truth = "".join(f"{synsets.index(key.split('/')[0]) + 1}\n" for key in photos).encode()
    data = "ILSVRC2012_devkit_t12/data"
    kit = {f"{data}/meta.mat": meta.getvalue(), f"{data}/ILSVRC2012_validation_ground_truth.txt": truth}
    put(folder, {"ILSVRC2012_img_val.tar": tar_of(dict(zip(names, photos.values())))})
    put(folder, {"ILSVRC2012_devkit_t12.tar.gz": gzip.compress(tar_of(kit))})


def _mnist(name: str, count: int) -> dict[str, bytes]:
    rng = np.random.default_rng(count)
    images = struct.pack(">I3I", 0x803, count, 28, 28) + rng.integers(0, 256, (count, 28, 28), np.uint8).tobytes()
    labels = struct.pack(">II", 0x801, count) + rng.integers(0, 10, count, np.uint8).tobytes()
    files = {f"{name}-images-idx3-ubyte.gz": images, f"{name}-labels-idx1-ubyte.gz": labels}
    return {key: gzip.compress(data) for key, data in files.items()}


def _train(folder: Path) -> None:
    """A finished training, with a best checkpoint and a SavedModel."""
    options = ["--model", "resnet18", "--image-size", "32", "--batch-size", "16", "--epochs", "1"]
    places = ["--data", "shards/train", "--eval-data", "shards/val", "--model-dir", "runs/resnet18"]
    subprocess.run(
        [sys.executable, ROOT / "train.py", *options, *places], cwd=folder, capture_output=True, check=True
    )  # fmt: skip
