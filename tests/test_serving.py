"""A trained network in use: by train.py, and without us, as a SavedModel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.images import put
from support.trainings import COLOURS, coloured, digit, extracted, one_line, patches, train, used

import ingest
from ingest.dataset.dataset import Dataset
from ingest.jpeg import encode
from ingest.loading.transforms import preprocess_file
from models import run_dir, serving

pytestmark = pytest.mark.slow


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
    def export(self) -> Path:
        return self.folder / "saved_model" / str(self.best["step"])

    @property
    def classes(self) -> list[str]:
        return sorted({key.split("/")[0] for key in self.files})


def trained(folder: Path, photos: dict[str, bytes], *words: object) -> Run:
    put(folder / "photos", photos)
    ingest.build_shards(folder / "photos", folder / "shards", format="tfrecord", workers=0)
    data = ("--data", folder / "shards", "--eval-data", folder / "shards", "--model-dir", folder / "run")
    done = train(*data, "--workers", 0, *words)
    assert done.returncode == 0, done.stderr
    history = json.loads((folder / "run" / "history.json").read_text())
    run = Run(folder / "run", history, folder / "shards", {key: folder / "photos" / key for key in photos})
    result = json.loads(done.stdout)
    assert (result["history"], result["diverged"]) == (history, False)
    assert (result["saved_model"], result["saved_step"]) == (str(run.export), run.best["step"])
    return run


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    rng = np.random.default_rng(0)
    colours = {f"{name}/{i}.jpg": coloured(rng, colour) for name, colour in COLOURS.items() for i in range(16)}
    digits = {f"class {label}/{i}.jpg": digit(rng, label) for label in range(10) for i in range(20)}
    resnet = ("--model", "resnet18", "--image-size", 32, "--batch-size", 8, "--epochs", 1, "--min-crop-area", 0.5)
    resnet += ("--optimizer", "adam", "--learning-rate", 0.001, "--schedule", "cosine")
    lenet = ("--model", "lenet", "--batch-size", 20, "--epochs", 5)
    with ThreadPoolExecutor() as pool:
        trainings = [
            pool.submit(trained, tmp_path_factory.mktemp("colours"), colours, *resnet),
            pool.submit(trained, tmp_path_factory.mktemp("digits"), digits, *lenet),
        ]
        return [training.result() for training in trainings]


@pytest.fixture(scope="module")
def colours(both: list[Run]) -> Run:
    """ResNet-18 at 32 pixels, and seven classes of coloured photos of all sizes."""
    return both[0]


@pytest.fixture(scope="module")
def digits(both: list[Run]) -> Run:
    """LeNet, and ten classes of grey photos."""
    return both[1]


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
    answers["classes"] = np.char.decode(answers["classes"].astype("S"))
    refusals = []
    cut, headless = files[0][: len(files[0]) // 2], files[0][2:]
    for bad in ([b"a text, and no JPEG"], [b""], [cut], [headless], [*files[:3], b"text"]):
        for signature in (ask, features):
            try:
                signature(image_bytes=tf.constant(bad))
                refusals.append("none")
            except tf.errors.InvalidArgumentError:
                refusals.append("InvalidArgumentError")
    again = {f"again_{name}": ask(image_bytes=tf.constant(files))[name].numpy() for name in ("labels", "scores")}
    seen = features(image_bytes=tf.constant(files))
    np.savez(f"{folder}.npz", refusals=refusals, signatures=sorted(model.signatures), outputs=sorted(seen),
        features=seen["features"].numpy(), **answers, **again)
"""


@pytest.fixture(scope="module")
def answers(colours: Run, digits: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Any]:
    """What the SavedModels say of all files, asked by a process that knows TensorFlow alone; by the run's folder."""
    place = tmp_path_factory.mktemp("without")
    wanted = {}
    for run in (colours, digits):
        # Elsewhere, and under another name: nothing in it may point back.
        shutil.copytree(run.export, place / run.folder.parent.name)
        wanted[str(place / run.folder.parent.name)] = [str(path) for path in run.files.values()]
    put(place, {"wanted": json.dumps(wanted).encode()})
    words = [sys.executable, "-c", WITHOUT_US, str(place / "wanted")]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {run.folder: np.load(place / f"{run.folder.parent.name}.npz") for run in (colours, digits)}


def evaluated(place: Path, shards: Path) -> dict[str, Any]:
    code, out, err = used("--evaluate", "--eval-data", shards, "--init-from", place, "--workers", 0)
    assert code == 0, err
    return json.loads(out)


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
    assert run.best["eval_top1"] > 0.7


def test_a_saved_model_answers_without_us(run: Run, answers: dict[Path, Any]):
    found, count = answers[run.folder], len(run.files)
    assert found["signatures"].tolist() == ["features", "serving_default"]
    assert found["outputs"].tolist() == ["features"]
    assert {name: (found[name].dtype, found[name].shape) for name in ("labels", "scores")} == {
        "labels": (np.int32, (count, 5)),
        "scores": (np.float32, (count, 5)),
    }
    names = [[run.classes[label] for label in labels] for labels in found["labels"]]
    assert found["classes"].tolist() == names
    assert {len(set(each)) for each in names} == {5}
    assert (np.diff(found["scores"]) <= 0).all()
    assert found["scores"].sum(axis=1).max() <= 1.0001


def test_a_saved_model_is_right_as_often_as_evaluation_says(run: Run, answers: dict[Path, Any]):
    right = np.array([key.split("/")[0] for key in run.files]) == answers[run.folder]["classes"][:, 0]
    said = evaluated(run.folder, run.shards)
    assert said["records"] == len(right)
    assert right.mean() == pytest.approx(said["eval_top1"], abs=2 / len(right))


def test_what_is_no_jpeg_is_refused_and_the_model_lives(run: Run, answers: dict[Path, Any]):
    found = answers[run.folder]
    # Five kinds of nonsense, each to both signatures.
    assert found["refusals"].tolist() == ["InvalidArgumentError"] * 10
    for name in ("labels", "scores"):
        assert found[f"again_{name}"].tolist() == found[name].tolist()


def test_evaluation_gives_what_history_says_of_the_best(run: Run):
    for place, entry in (
        (run.folder, run.best),
        (run.folder / f"model.ckpt-{run.history[-1]['step']}", run.history[-1]),
    ):
        said = evaluated(place, run.shards)
        names = ("eval_top1", "eval_top5", "eval_loss")
        assert [said[name] for name in names] == pytest.approx([entry[name] for name in names], abs=1e-4), place
        assert said["model"] == json.loads((run.folder / "run.json").read_text())["model"]


def test_predictions_are_those_of_the_saved_model(run: Run, answers: dict[Path, Any]):
    some = dict(list(zip(run.files, answers[run.folder]["classes"].tolist(), strict=True))[::3])
    found = predicted(*(run.files[key] for key in some), "--init-from", run.folder)
    assert list(found) == [str(run.files[key]) for key in some]
    assert {len(shares) for shares in found.values()} == {5}
    assert set().union(*found.values()) <= set(run.classes)
    assert all(list(shares.values()) == sorted(shares.values(), reverse=True) for shares in found.values())
    same = np.array([next(iter(shares)) for shares in found.values()]) == [names[0] for names in some.values()]
    assert np.mean(same) > 0.95


def test_a_prediction_is_of_any_kind_of_image_and_saved_for_machines(colours: Run, tmp_path: Path):
    names = ("same.png", "same.bmp", "same.tiff", "grey.png")
    with Image.open(colours.files["red/0.jpg"]) as photo:
        for name in names:
            photo.convert("L" if name == "grey.png" else "RGB").save(tmp_path / name)
    paths = [colours.files["red/0.jpg"], *(tmp_path / name for name in names)]
    found = predicted(*paths, "--init-from", colours.export, "--json", tmp_path / "found.json")
    assert list(found) == [str(path) for path in paths]
    first, png, bmp, tiff, grey = found.values()
    # They are coded anew, as when they are packed, and so differ a little from the JPEG, but not among themselves.
    assert png == bmp == tiff == pytest.approx(first, abs=0.02)
    assert grey["grey"] > first["grey"]
    saved = json.loads((tmp_path / "found.json").read_text())
    assert {path: list(shares) for path, shares in saved.items()} == {path: list(each) for path, each in found.items()}
    assert [*saved[str(paths[0])].values()] == pytest.approx([*first.values()], abs=1e-4)


def test_the_good_are_answered_and_the_bad_are_named(digits: Run, tmp_path: Path):
    good, other, *_ = digits.files.values()
    put(tmp_path, {"text.jpg": b"a text", "empty.jpg": b"", "cut.jpg": good.read_bytes()[:300]})
    os.mkfifo(tmp_path / "pipe.jpg")
    with (tmp_path / "large.jpg").open("wb") as large:
        large.truncate(2**40)
    bad = {
        tmp_path / "pipe.jpg": "cannot be read (not a regular file)",
        tmp_path / "large.jpg": "cannot be read (of more than 1,073,741,824 bytes)",
        tmp_path / "text.jpg": "no image that can be decoded",
        tmp_path / "empty.jpg": "no image that can be decoded",
        tmp_path / "cut.jpg": "no image that can be decoded",
        tmp_path / "nowhere.jpg": "cannot be read (No such file or directory)",
        tmp_path: "cannot be read (not a regular file)",
        good / "below.jpg": "cannot be read (Not a directory)",
    }
    where = ("--init-from", digits.folder, "--json", tmp_path / "found.json")
    alone = used("--predict", good, other, *where)
    expected = json.loads((tmp_path / "found.json").read_text())
    assert (alone[0], list(expected)) == (0, [str(good), str(other)])
    first, *others = bad
    code, out, err = used("--predict", first, good, *others, other, *where)
    assert (code, out) == (1, alone[1])
    assert [f"{path}: {message}" in one_line(err) for path, message in bad.items()] == [True] * len(bad)
    assert one_line(err).startswith(f"train.py: error: {first}: cannot be read (")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found.keys() == {str(good), str(other), *map(str, bad)}
    assert {path: found[path] for path in expected} == expected
    assert [found[str(path)]["error"].startswith(f"{path}: {message}") for path, message in bad.items()] == [True] * 8
    for path, message in bad.items():
        code, out, err = used("--predict", path, path, *where)
        assert (code, out) == (1, "")
        assert one_line(err).startswith(f"train.py: error: {path}: {message}")
        assert err.count(f"{path}: ") == 1
        assert list(json.loads((tmp_path / "found.json").read_text())) == [str(path)]
    code, out, err = used("--predict", good, good, *where)
    assert (code, out.splitlines().count(str(good)), err) == (0, 2, "")


def test_features_are_those_of_the_saved_model(run: Run, answers: dict[Path, Any], tmp_path: Path):
    found = extracted(run.folder, run.shards, tmp_path / "features.npz")
    dataset = Dataset(run.shards)
    records = [dataset[i] for i in range(len(dataset))]
    length = {"resnet18": 512, "lenet": 84}[json.loads((run.folder / "run.json").read_text())["model"]]
    assert {name: (value.dtype.kind, value.shape) for name, value in found.items()} == {
        "features": ("f", (len(records), length)),
        "labels": ("i", (len(records),)),
        "keys": ("U", (len(records),)),
        "classes": ("U", (len(run.classes),)),
    }
    assert (found["features"].dtype, found["labels"].dtype) == (np.float32, np.int32)
    assert found["keys"].tolist() == [record.key for record in records]
    assert found["labels"].tolist() == [record.label for record in records]
    assert found["classes"].tolist() == run.classes
    theirs = dict(zip(run.files, answers[run.folder]["features"], strict=True))
    assert set(theirs) == set(found["keys"].tolist())
    differences = found["features"] - np.stack([theirs[key] for key in found["keys"].tolist()])
    # A resize differs by a grey level here and there, photos by much more.
    assert np.abs(differences).mean() < 0.02 * found["features"].std(axis=0).mean()
    for key, difference in zip(found["keys"].tolist(), differences, strict=True):
        with Image.open(run.files[key]) as photo:
            # What is of the network's size is shown as it is.
            assert photo.size != (28, 28) or np.abs(difference).max() < 1e-3


def test_a_network_is_found_in_all_that_a_training_leaves(digits: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    best = digits.folder / "best"
    monkeypatch.chdir(digits.folder.parent)
    places = (
        digits.folder,
        best,
        best / f"model.ckpt-{digits.best['step']}",
        digits.folder / "saved_model",
        digits.export,
        shutil.copytree(digits.export, tmp_path / "unnumbered" / "saved_model"),
        Path("run"),
    )
    found = [extracted(place, digits.shards, tmp_path / "features.npz")["features"] for place in places]
    assert [features.tolist() == found[0].tolist() for features in found] == [True] * len(places)
    last = digits.folder / f"model.ckpt-{digits.history[-1]['step']}"
    assert digits.history[-1]["step"] > digits.best["step"]
    assert extracted(last, digits.shards, tmp_path / "features.npz")["features"].tolist() != found[0].tolist()


def test_a_folder_that_was_moved_has_its_best(digits: Run, tmp_path: Path):
    shutil.copytree(digits.folder, tmp_path / "moved", copy_function=os.link)
    checkpoint = tmp_path / "moved" / "best" / f"model.ckpt-{digits.best['step']}"
    assert run_dir.find(tmp_path / "moved").checkpoint == str(checkpoint)
    assert run_dir.find(tmp_path / "moved" / "best").checkpoint == str(checkpoint)


def test_an_exported_view_is_that_of_evaluation():
    rng = np.random.default_rng(1)
    for height, width in ((32, 32), (33, 32), (32, 90), (5, 7), (1, 1), (36, 37), (300, 211), (64, 64), (129, 640)):
        pixels = 128 + patches(rng, height, width) * [1, -1, 0.5] + rng.normal(0, 5, (height, width, 3))
        for channels in (3, 1):
            data = encode(np.clip(pixels[:, :, :channels], 0, 255).astype(np.uint8), 90, "4:2:0")
            ours, theirs = preprocess_file(data, 32, channels), serving.view(tf.constant(data), 32, channels).numpy()
            assert (theirs.shape, theirs.dtype) == ((32, 32, channels), np.uint8)
            difference = np.abs(theirs.astype(int) - ours)
            assert difference.max() <= (0 if height == width == 32 else 1), (height, width, channels)
