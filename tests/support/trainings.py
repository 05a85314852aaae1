"""Small trainings, in processes of their own and in this one."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import tensorflow as tf
from PIL import Image

import train as command
from ingest.jpeg import encode

ROOT = Path(__file__).parents[2]


def train(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def one_line(text: str) -> str:
    lines = [line for line in text.replace("\r", "\n").splitlines() if line and "images/s" not in line]
    assert len(lines) == 1, text
    return lines[0]


DRIVER = Path(__file__).with_name("logged_train.py")


Weights = dict[str, bytes]


class Log(NamedTuple):
    """What a training wrote down, in order."""

    records: list[int]
    batches: list[str]
    losses: list[float]


def read(path: Path) -> Log:
    lines = [line.partition(" ") for line in path.read_text().splitlines()] if path.exists() else []
    of = {kind: [rest for head, _, rest in lines if head == kind] for kind in ("records", "batch", "step")}
    return Log([int(n) for line in of["records"] for n in line.split()], of["batch"], [float(x) for x in of["step"]])


def start(log: Path, *words: object, **environment: str) -> subprocess.Popen[bytes]:
    with open(log.with_suffix(".err"), "ab") as errors:
        return subprocess.Popen(
            [sys.executable, str(DRIVER), *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "LOG": str(log), **environment},
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )


def finish(training: subprocess.Popen[bytes], log: Path) -> None:
    assert training.wait(120) == 0, log.with_suffix(".err").read_text()[-2000:]


def weights(folder: Path) -> Weights:
    """All variables of the last checkpoint, the optimiser's memory and the step among them."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder)))
    return {name: np.asarray(reader.get_tensor(name)).tobytes() for name in reader.get_variable_to_shape_map()}


def said(words: list[str]) -> tuple[int | str | None, str, str]:
    """Code, stdout and stderr of train.py, in this process: what is refused is refused before a training begins."""
    out, err = io.StringIO(), io.StringIO()
    with patch.object(sys, "argv", ["train.py", *words]), redirect_stdout(out), redirect_stderr(err):
        try:
            code = command.main()
        except SystemExit as end:
            code = end.code
    return code, out.getvalue(), err.getvalue()


COLOURS = {
    "blue": (60, 90, 200),
    "cyan": (60, 190, 200),
    "green": (70, 180, 70),
    "grey": (130, 130, 130),
    "purple": (160, 70, 180),
    "red": (200, 70, 60),
    "yellow": (200, 190, 70),
}


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


def used(*words: object) -> tuple[int, str, str]:
    """Code, stdout and stderr of train.py, in this process: what only uses a network may be called twice."""
    out, err = io.StringIO(), io.StringIO()
    with patch.object(sys, "argv", ["train.py", *map(str, words)]), redirect_stdout(out), redirect_stderr(err):
        code = command.main()
    return code, out.getvalue(), err.getvalue()


def extracted(place: Path, shards: Path, out: Path) -> dict[str, np.ndarray]:
    code, said, err = used("--features", shards, "--init-from", place, "--out", out, "--workers", 0)
    assert code == 0, err
    with np.load(out, allow_pickle=False) as file:
        found = dict(file)
    records, length = found["features"].shape
    assert re.fullmatch(rf"{records} x {length} features of \w+: {re.escape(str(out))}\n", said)
    return found
