"""A trained network in use: by train.py, and without us, as a SavedModel."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
import tensorflow as tf
from conftest import put
from PIL import Image
from test_train import ROOT, one_line, train

import ingest
import train as command
from ingest.dataset import Dataset
from ingest.jpeg import encode
from ingest.views import file_view
from models import runs, serving

COLOURS = {
    "blue": (60, 90, 200),
    "cyan": (60, 190, 200),
    "green": (70, 180, 70),
    "grey": (130, 130, 130),
    "purple": (160, 70, 180),
    "red": (200, 70, 60),
    "yellow": (200, 190, 70),
}


class Run(NamedTuple):
    """A training: its folder and history; the shards, and the JPEG files of them by key."""

    folder: Path
    history: list[dict[str, Any]]
    shards: Path
    files: dict[str, Path]

    @property
    def best(self) -> dict[str, Any]:
        return max(self.history, key=lambda entry: entry["eval_top1"])

    @property
    def classes(self) -> list[str]:
        return sorted({key.split("/")[0] for key in self.files})


def patches(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth, and different from place to place: float [H, W, 1] from -60 to 60."""
    coarse = Image.fromarray(rng.uniform(-60, 60, (5, 5)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))[:, :, None]


def coloured(rng: np.random.Generator, colour: tuple[int, ...]) -> bytes:
    height, width = rng.integers(40, 130, 2)
    pixels = colour + patches(rng, height, width) + rng.normal(0, 8, (height, width, 3))
    return encode(np.clip(pixels, 0, 255).astype(np.uint8), 92, "4:2:0" if rng.random() < 0.5 else "4:4:4")


def digit(rng: np.random.Generator, label: int) -> bytes:
    """A bright square in one of ten places; every third is larger than the network sees it."""
    pixels = rng.integers(0, 60, (28, 28), np.uint8)
    pixels[6 * (label // 4) + 4 :, 6 * (label % 4) + 3 :][:6, :6] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).resize((28, 28) if rng.random() < 2 / 3 else (75, 63)).save(file, "JPEG", quality=92)
    return file.getvalue()


def trained(folder: Path, photos: dict[str, bytes], *words: object) -> Run:
    put(folder / "photos", photos)
    ingest.build_shards(folder / "photos", folder / "shards", format="tfrecord", workers=0)
    data = ("--data", folder / "shards", "--eval-data", folder / "shards", "--model-dir", folder / "run")
    done = train(*data, "--workers", 1, *words)
    assert done.returncode == 0, done.stderr
    history = json.loads((folder / "run" / "history.json").read_text())
    assert json.loads(done.stdout)["history"] == history
    return Run(folder / "run", history, folder / "shards", {key: folder / "photos" / key for key in photos})


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """ResNet-18 at 32 pixels, and seven classes of coloured photos of all sizes."""
    rng = np.random.default_rng(0)
    photos = {f"{name}/{i}.jpg": coloured(rng, colour) for name, colour in COLOURS.items() for i in range(16)}
    words = ("--model", "resnet18", "--image-size", 32, "--batch-size", 8, "--epochs", 2, "--crop", 0.5)
    words += ("--optimizer", "adam", "--learning-rate", 0.001, "--schedule", "cosine")
    return trained(tmp_path_factory.mktemp("colours"), photos, *words)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """LeNet, and ten classes of grey photos."""
    rng = np.random.default_rng(0)
    photos = {f"class {label}/{i}.jpg": digit(rng, label) for label in range(10) for i in range(20)}
    words = ("--model", "lenet", "--batch-size", 20, "--epochs", 6)
    return trained(tmp_path_factory.mktemp("digits"), photos, *words)


@pytest.fixture(scope="module", params=["colours", "digits"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(request.param)


# To import ours fails in there, as it would where nothing of this project is installed.
WITHOUT_US = """
import sys
sys.modules.update(dict.fromkeys(("ingest", "models", "train")))
import json
import numpy as np
import tensorflow as tf

for folder, paths in json.load(open(sys.argv[1])).items():
    model = tf.saved_model.load(folder)
    files = [open(path, "rb").read() for path in paths]
    ask, features = model.signatures["serving_default"], model.signatures["features"]
    answers = {name: value.numpy() for name, value in ask(image_bytes=tf.constant(files)).items()}
    refusals = []
    for bad in ([b"a text, and no JPEG"], [b""], [files[0][: len(files[0]) // 2]], [*files[:3], b"text"], [files[0][2:]]):
        for signature in (ask, features):
            try:
                signature(image_bytes=tf.constant(bad))
                refusals.append("none")
            except tf.errors.InvalidArgumentError:
                refusals.append("InvalidArgumentError")
    again = {f"again_{name}": value.numpy() for name, value in ask(image_bytes=tf.constant(files)).items()}
    none = {f"none_{name}": value.numpy() for name, value in ask(image_bytes=tf.constant([], tf.string)).items()}
    seen = features(image_bytes=tf.constant(files))
    np.savez(f"{folder}.npz", refusals=refusals, signatures=sorted(model.signatures), outputs=sorted(seen),
        features=seen["features"].numpy(), **answers, **again, **none)
"""


@pytest.fixture(scope="module")
def answers(colours: Run, digits: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Any]:
    """What the SavedModels say of all files, asked by a process that knows TensorFlow alone; by the run's folder."""
    place = tmp_path_factory.mktemp("without")
    wanted = {}
    for run in (colours, digits):
        # Elsewhere, and under another name: nothing in it may point back.
        shutil.copytree(run.folder / "saved_model", place / run.folder.parent.name)
        wanted[str(place / run.folder.parent.name)] = [str(path) for path in run.files.values()]
    put(place, {"wanted": json.dumps(wanted).encode()})
    words = [sys.executable, "-c", WITHOUT_US, str(place / "wanted")]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {run.folder: np.load(place / f"{run.folder.parent.name}.npz") for run in (colours, digits)}


def used(*words: object) -> tuple[int, str, str]:
    """Code, stdout and stderr of train.py, in this process: what only uses a network may be called twice."""
    out, err = io.StringIO(), io.StringIO()
    with patch.object(sys, "argv", ["train.py", *map(str, words)]), redirect_stdout(out), redirect_stderr(err):
        code = command.main()
    return code, out.getvalue(), err.getvalue()


def evaluated(place: Path, shards: Path) -> dict[str, Any]:
    code, out, err = used("--evaluate", "--eval-data", shards, "--init-from", place, "--workers", 0)
    assert code == 0, err
    return json.loads(out)


def extracted(place: Path, shards: Path, out: Path) -> dict[str, np.ndarray]:
    code, said, err = used("--features", shards, "--init-from", place, "--out", out, "--workers", 0)
    assert code == 0, err
    with np.load(out, allow_pickle=False) as file:
        found = dict(file)
    records, length = found["features"].shape
    assert re.fullmatch(rf"{records} x {length} features of \w+: {re.escape(str(out))}\n", said)
    return found


def predicted(*words: object) -> dict[str, dict[str, float]]:
    """The classes and shares that --predict prints of each file."""
    code, out, err = used("--predict", *words)
    assert code == 0, err
    found: dict[str, dict[str, float]] = {}
    for line in out.splitlines():
        if not line.startswith("  "):
            found[line] = shares = {}
        else:
            share, name = re.fullmatch(r" +(\d+\.\d\d)%  (.+)", line).groups()
            shares[name] = float(share) / 100
    return found


def test_the_network_has_learnt_something(run: Run):
    """Else what follows would be of networks that say the same of everything."""
    assert run.best["eval_top1"] > 0.6


def test_a_saved_model_answers_without_us(run: Run, answers: dict[Path, Any]):
    found, count = answers[run.folder], len(run.files)
    assert found["signatures"].tolist() == ["features", "serving_default"]
    assert found["outputs"].tolist() == ["features"]
    assert {name: (found[name].dtype.kind, found[name].shape) for name in ("labels", "classes", "scores")} == {
        "labels": ("i", (count, 5)),
        "classes": ("O", (count, 5)),
        "scores": ("f", (count, 5)),
    }
