"""On to another task: what --init-from takes over, what --tune changes, and what is left of it when a run goes on."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from support.images import put
from support.trainings import COLOURS, coloured, digit, extracted, one_line, train, used

import ingest

pytestmark = pytest.mark.slow

Values = dict[str, np.ndarray]


def done(*commands: tuple[object, ...]) -> None:
    """Train, all at the same time."""
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda words: train(*words, "--workers", 0), commands))
    assert [each.returncode for each in found] == [0] * len(commands), [each.stderr for each in found]


def checkpoint(folder: Path, step: int) -> Values:
    """What a checkpoint holds, by name."""
    reader = tf.train.load_checkpoint(str(folder / f"model.ckpt-{step}"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def weights(values: Values) -> Values:
    """Neither the step nor the optimiser's memory."""
    return {name: value for name, value in values.items() if name != "global_step" and "/Momentum" not in name}


def body(values: Values) -> Values:
    return {name: value for name, value in weights(values).items() if not name.startswith("head/")}


def changed(these: Values, those: Values) -> set[str]:
    """The names of what is not the same to the bit."""
    assert these.keys() == those.keys()
    return {name for name in these if these[name].tobytes() != those[name].tobytes()}


def pack(folder: Path, photos: dict[str, bytes]) -> Path:
    put(folder / "photos", photos)
    ingest.build_shards(folder / "photos", folder / "shards", format="lmdb", workers=0)
    return folder / "shards"


LENET = ("--model", "lenet", "--batch-size", 10, "--learning-rate", 0.02, "--schedule", "step", "--warm-up", 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-18 trained on three colours and LeNet on digits; from there, twice on four colours, and once on digits."""
    folder, rng = tmp_path_factory.mktemp("transfer"), np.random.default_rng(0)
    for name, colours in (("three", ["blue", "green", "red"]), ("four", ["cyan", "grey", "purple", "yellow"])):
        pack(folder / name, {f"{each}/{i}.jpg": coloured(rng, COLOURS[each]) for each in colours for i in range(8)})
    digits = pack(folder / "digits", {f"{label}/{i}.jpg": digit(rng, label) for label in range(10) for i in range(4)})
    resnet = ("--model", "resnet18", "--batch-size", 8, "--steps", 3, "--learning-rate", 0.05, "--min-crop-area", 0.5)
    done(
        (*resnet, "--data", folder / "three/shards", "--model-dir", folder / "resnet", "--image-size", 32),
        (*LENET, "--data", digits, "--model-dir", folder / "lenet", "--steps", 3),
    )
    # The image size is that of the network that training starts from.
    few = (*resnet, "--data", folder / "four/shards")
    same = (*LENET, "--data", digits, "--steps", 4, "--deterministic")
    done(
        (*few, "--model-dir", folder / "head", "--tune", "head", "--init-from", folder / "resnet"),
        (*few, "--model-dir", folder / "all", "--tune", "all", "--init-from", folder / "resnet/saved_model"),
        (*same, "--model-dir", folder / "same", "--tune", "all", "--init-from", folder / "lenet"),
    )
    return folder


@pytest.mark.parametrize("tune", ["head", "all"])
def test_training_starts_from_the_same_weights(place: Path, tune: str):
    start, source = checkpoint(place / tune, 0), checkpoint(place / "resnet", 3)
    assert changed(body(start), body(source)) == set()
    assert len(body(start)) == 100  # 20 convolutions, each with four numbers of its normalisation
    # Other classes have another head, which starts anew.
    assert [start[f"head/{part}"].shape for part in ("kernel", "bias")] == [(512, 4), (4,)]
    assert start["head/kernel"].std() == pytest.approx(0.01, rel=0.1)
    assert not start["head/bias"].any()
    # Nor is the optimiser's memory taken over.
    memory = {name: value for name, value in start.items() if "/Momentum" in name}
    assert (start["global_step"], any(value.any() for value in memory.values())) == (0, False)
    assert set(memory) == {f"{name}/Momentum" for name in trained(tune, start)}


def trained(tune: str, values: Values) -> set[str]:
    names = {name for name in weights(values) if "/moving_" not in name}
    return names if tune == "all" else {name for name in names if name.startswith("head/")}


def test_of_the_head_alone_nothing_else_changes(place: Path):
    start, end = weights(checkpoint(place / "head", 0)), weights(checkpoint(place / "head", 3))
    assert changed(start, end) == {"head/kernel", "head/bias"}
    assert changed(body(end), body(checkpoint(place / "resnet", 3))) == set()


def test_of_all_everything_changes(place: Path):
    start, end = checkpoint(place / "all", 0), checkpoint(place / "all", 3)
    assert changed(weights(start), weights(end)) == set(weights(start))


def test_what_the_head_sees_is_what_it_was(place: Path, tmp_path: Path):
    """Also where it is not written in variables: normalisation is as when evaluated."""
    found = [
        extracted(place / name, place / "four/shards", tmp_path / "features.npz")["features"].tolist()
        for name in ("resnet", "head")
    ]
    assert found[0] == found[1]


def test_the_same_classes_keep_their_head(place: Path):
    start, end, source = (
        weights(checkpoint(place / name, step)) for name, step in (("same", 0), ("same", 4), ("lenet", 3))
    )
    assert changed(start, source) == set()
    assert changed(end, source) == set(end)


def test_a_run_goes_on_by_itself(place: Path, tmp_path: Path):
    words = (*LENET, "--data", place / "digits/shards", "--deterministic")
    end = checkpoint(place / "same", 4)

    # Killed before its first step was saved, it starts from there again.
    killed = shutil.copytree(place / "same", tmp_path / "killed")
    for file in [killed / "history.json", *killed.glob("model.ckpt-4.*")]:
        file.unlink()
    tf.train.update_checkpoint_state(str(killed), "model.ckpt-0")
    anew = (*words, "--steps", 4, "--model-dir", killed, "--tune", "all", "--init-from")
    code, out, err = used(*anew, tmp_path / "gone")
    assert (code, out) == (1, "")
    assert f"{tmp_path / 'gone'}: no such checkpoint" in one_line(err)

    # Later, what it started from has no part in it: another network there, or none.
    other, none = (shutil.copytree(place / "same", tmp_path / name) for name in ("other", "none"))
    later = (*words, "--steps", 6, "--model-dir")
    done((*anew, place / "lenet"), (*later, other, "--tune", "all", "--init-from", place / "same"), (*later, none))
    assert changed(checkpoint(killed, 4), end) == set()
    assert changed(checkpoint(other, 4), end) == changed(checkpoint(none, 4), end) == set()
    assert changed(checkpoint(other, 6), checkpoint(none, 6)) == set()
    assert changed(weights(checkpoint(none, 6)), weights(end)) == set(weights(end))
