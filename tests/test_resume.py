"""A training that is killed goes on as if it had not been: the same records, the same views, the same weights."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support.images import put
from support.processes import wait_until
from support.sources import idx
from support.trainings import Log, Weights, finish, read, start, weights

import ingest
from models.run_dir import find_start, load_config

pytestmark = pytest.mark.slow


class Case(NamedTuple):
    """A training, what it wrote down undisturbed, and what it ended with."""

    words: tuple[object, ...]
    batch_size: int
    steps: int
    log: Log
    weights: Weights
    history: list[dict[str, float]]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, shards: dict[str, Path]) -> dict[str, Case]:
    """LeNet on digits of which each has its own class, evaluated; an AlexNet with dropout, norm, crops and flips."""
    folder = tmp_path_factory.mktemp("whole")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8)
    source = put(
        folder / "idx", {"images-idx3-ubyte": idx(pixels), "labels-idx1-ubyte": idx(np.arange(60, dtype=np.uint8))}
    )
    ingest.build_shards(source, folder / "digits", format="tfrecord", workers=0)
    digits = ("--model", "lenet", "--data", folder / "digits", "--eval-data", folder / "digits", "--deterministic")
    colours = ("--model", "alexnet-lecture", "--data", shards["lmdb"], "--image-size", 61, "--deterministic")
    found = {}
    for name, words, batch_size, steps in (("digits", digits, 8, 24), ("colours", colours, 8, 11)):
        words = (*words, "--batch-size", batch_size, "--steps", steps, "--schedule", "cosine")
        log = folder / f"{name}.log"
        finish(start(log, *words, "--model-dir", folder / f"{name}-run"), log)
        history = json.loads((folder / f"{name}-run" / "history.json").read_text())
        found[name] = Case(
            words=words,
            batch_size=batch_size,
            steps=steps,
            log=read(log),
            weights=weights(folder / f"{name}-run"),
            history=history,
        )
    return found


def interruptions() -> list[tuple[str, int, signal.Signals, int]]:
    """Network, step after which it ends, how, and the workers that go on: as many as INGEST_RESUMES says.

    With batches of 8, an epoch of 60 digits ends with steps 8, 15 and 23, one of 36 colours with 5 and 9.
    """
    draw = random.Random(5)
    fixed = [
        ("digits", 8, signal.SIGKILL, 0),
        ("colours", 7, signal.SIGKILL, 1),
        ("digits", 11, signal.SIGINT, 2),
        ("colours", 1, signal.SIGKILL, 0),
        ("colours", 5, signal.SIGKILL, 2),
        ("digits", 1, signal.SIGKILL, 3),
        ("digits", 23, signal.SIGKILL, 1),
        ("colours", 6, signal.SIGINT, 0),
    ]
    drawn = [("digits", draw.randint(2, 22), signal.SIGKILL, draw.randint(0, 3)) for _ in range(100)]
    return (fixed + drawn)[: int(os.environ.get("INGEST_RESUMES", "2"))]


@pytest.mark.parametrize(("name", "step", "how", "workers"), interruptions())
def test_an_interrupted_training_goes_on_exactly(
    cases: dict[str, Case], tmp_path: Path, name: str, step: int, how: signal.Signals, workers: int
):
    case = cases[name]
    words, before, after = (*case.words, "--model-dir", tmp_path / "run"), tmp_path / "before", tmp_path / "after"
    first = start(before, *words, "--workers", 2)
    assert wait_until(lambda: len(read(before).losses) >= step or first.poll() is not None, 60)
    os.killpg(first.pid, how)
    assert first.wait(60) != 0 or len(read(before).losses) == case.steps
    # What a kill leaves may be a whole checkpoint that the list of checkpoints does not name yet.
    at = find_start(tmp_path / "run", load_config(tmp_path / "run")).step
    finish(start(after, *words, "--workers", workers), after)
    log, left = read(after), case.steps - at
    assert log.losses == case.log.losses[at:]
    assert log.batches[:left] == case.log.batches[at : case.steps]
    images = left * case.batch_size
    assert log.records[:images] == case.log.records[at * case.batch_size :][:images]
    assert weights(tmp_path / "run") == case.weights
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    seen = ("step", "epoch", "eval_top1", "eval_loss")
    assert [[e.get(key) for key in seen] for e in history] == [[e.get(key) for key in seen] for e in case.history]
