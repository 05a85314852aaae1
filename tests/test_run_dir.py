"""A training whose folder was damaged, or that was ended where it hurts: it goes on from what is whole, or says why.

In this process, so that what happens at a bad moment can be made to happen there.
"""

from __future__ import annotations

import errno
import json
import math
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from support.images import image_bytes, put
from support.sources import idx
from support.trainings import one_line, said, train, weights

import ingest
import train as command
from models import ModelError, hooks, run_dir, training
from models.devices import Devices
from models.recipes import LENET, RESNET

pytestmark = pytest.mark.slow

STEPS_PER_EPOCH = 4


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of 80 grey images of ten classes."""
    labels = np.arange(80, dtype=np.uint8) % 10
    pixels = np.random.default_rng(0).integers(0, 256, (80, 28, 28), np.uint8)
    return put(tmp_path_factory.mktemp("digits"), {"images-idx3-ubyte": idx(pixels), "labels-idx1-ubyte": idx(labels)})


@pytest.fixture(scope="module")
def shards(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "seed0"
    ingest.build_shards(digits, folder, format="tfrecord", shards=4, workers=0)
    return folder


@pytest.fixture(scope="module")
def two_epochs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of eight steps, evaluated after the fourth and the eighth."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    code, _, err = lenet(shards, folder, "--steps", 8, "--eval-data", shards)
    assert code == 0, err
    return folder


def lenet(shards: Path, folder: Path, *words: object) -> tuple[int | str | None, str, str]:
    data = ("--model", "lenet", "--data", shards, "--model-dir", folder, "--batch-size", 20, "--workers", 0)
    return said([str(word) for word in (*data, *words)])


def history(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / run_dir.HISTORY).read_text())


def test_a_damaged_checkpoint_is_passed_over(shards: Path, two_epochs: Path, tmp_path: Path):
    whole, broken = (shutil.copytree(two_epochs, tmp_path / name) for name in ("whole", "broken"))
    data = broken / "model.ckpt-8.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.unlink()  # which the best may share
    data.write_bytes(content)
    code, out, err = lenet(shards, broken, "--steps", 12, "--eval-data", shards)
    assert code == 0, err
    assert f"{broken}/model.ckpt-8: damaged (" in err
    assert "): goes on without it" in err
    assert f"{broken} has had 4 of 12 steps" in err
    assert json.loads(out)["steps"] == 12
    lenet(shards, whole, "--steps", 12, "--eval-data", shards)
    assert [entry["step"] for entry in history(broken)] == [entry["step"] for entry in history(whole)] == [4, 8, 12]


@pytest.mark.parametrize("listing", [b"", None])
def test_checkpoints_are_found_without_a_list_of_them(
    shards: Path, two_epochs: Path, tmp_path: Path, listing: bytes | None
):
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    (folder / "checkpoint").unlink() if listing is None else (folder / "checkpoint").write_bytes(listing)
    code, out, err = lenet(shards, folder, "--steps", 9)
    assert (code, json.loads(out)["steps"]) == (0, 9)
    assert f"{folder} has had 8 of 9 steps" in err


def test_without_a_whole_checkpoint_nothing_is_begun(shards: Path, two_epochs: Path, tmp_path: Path):
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    for data in folder.glob("model.ckpt-*.data*"):
        data.unlink()
        data.write_bytes(b"")
    code, out, err = lenet(shards, folder, "--steps", 12)
    assert (code, out) == (1, "")
    assert f"{folder}/model.ckpt-8: damaged (" in one_line(err)
    assert "nor is any older one whole: give another --model-dir" in err
    for file in folder.glob("model.ckpt-*"):
        file.unlink()
    code, out, err = lenet(shards, folder, "--steps", 12)
    assert (code, out) == (1, "")
    assert f"{folder}: has the best network of a training, and no checkpoint to go on from" in one_line(err)
    shutil.rmtree(folder / "best")  # there is still TensorFlow's list of what is not there
    code, out, err = lenet(shards, folder, "--steps", 1)
    assert (code, json.loads(out)["steps"]) == (0, 1), err


def test_a_loss_that_is_no_number_is_neither_saved_nor_evaluated(shards: Path, two_epochs: Path, tmp_path: Path):
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    code, out, err = lenet(shards, folder, "--steps", 40, "--learning-rate", 1e6, "--eval-data", shards)
    assert (code, out) == (1, "")
    _, changed, rest = err.split("\n", 2)
    assert "the learning rate rises from" in changed
    assert "the loss is no number any more: give a lower --learning-rate" in one_line(rest)
    found = [weights(folder), weights(folder / "best")]
    assert all(np.isfinite(np.frombuffer(v, np.float32)).all() for w in found for k, v in w.items() if "kernel" in k)
    assert all(math.isfinite(entry["eval_loss"]) for entry in history(folder))
    code, out, err = lenet(shards, folder, "--steps", 9)
    assert (code, json.loads(out)["steps"]) == (0, 9), err


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path):
    """The loss is that of the weights before a step: it may be fine when they are not any more."""
    watch = hooks.ThroughputHook(
        folder=None, batch_size=1, summary_steps=1, show=lambda loss, top1: None, stop=lambda: False
    )
    epochs = hooks.EpochEndListener(
        folder=tmp_path, history=[], epoch_at=lambda step: step, last_step=1, watch=watch, evaluate=None, patience=None
    )
    with tf.Graph().as_default():
        step, weight = tf.train.create_global_step(), tf.get_variable("weight", initializer=1.0, trainable=False)
        both = tf.group(tf.assign_add(step, 1), tf.assign(weight, math.nan))
        with (
            pytest.raises(tf.train.NanLossDuringTrainingError),
            tf.train.MonitoredSession(hooks=[hooks.Checkpoints(tmp_path, epochs)]) as session,
        ):
            session.run(both)
    assert [file.name for file in tmp_path.glob("*.index")] == ["model.ckpt-0.index"]
    assert not (tmp_path / run_dir.HISTORY).exists()


def test_a_loss_of_evaluation_that_is_no_number_makes_no_best(two_epochs: Path, tmp_path: Path):
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    shutil.rmtree(folder / "best")
    watch = hooks.ThroughputHook(
        folder=None, batch_size=1, summary_steps=1, show=lambda loss, top1: None, stop=lambda: False
    )
    metrics = {"cross_entropy": math.nan, "top1": 0.9, "top5": 1.0}
    epochs = hooks.EpochEndListener(
        folder=folder,
        history=[],
        epoch_at=lambda step: step / 4,
        last_step=8,
        watch=watch,
        evaluate=lambda checkpoint: metrics,
        patience=None,
    )
    epochs.catch_up(8)
    assert run_dir.load_history(folder, 8) == [
        {"step": 8, "epoch": 2.0, "loss": None, "top1": None, "eval_loss": None, "eval_top1": 0.9, "eval_top5": 1.0}
    ]
    assert not (folder / "best").exists()


DAMAGED = [b"", b"[{", b"{}", b'""', b"3", b"[1]", b"[" * 100_000, b'[{"epoch": 1}]', b'[{"step": "one"}]']
DAMAGED += [b'[{"step": 4, "eval_top1": NaN}]', b'[{"step": 4, "eval_loss": "x"}]', b'[{"step": 4}, {"step": 4}]']


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_history_is_not_taken_for_none(shards: Path, two_epochs: Path, tmp_path: Path, content: bytes):
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    (folder / run_dir.HISTORY).write_bytes(content)
    code, out, err = lenet(shards, folder, "--steps", 12, "--eval-data", shards)
    assert (code, out) == (1, "")
    assert f"{folder}/{run_dir.HISTORY}: cannot be read (" in one_line(err.split("\n", 1)[1])
    (folder / run_dir.HISTORY).unlink()
    assert run_dir.load_history(folder, 8) == []


def test_an_evaluation_that_was_cut_short_is_made_up_for(shards: Path, tmp_path: Path):
    words = ("--steps", 20, "--eval-data", shards, "--learning-rate", 0, "--patience", 1)
    code, out, err = lenet(shards, tmp_path / "run", *words)
    assert (code, json.loads(out)["steps"]) == (0, 8), err  # with a rate of 0 top-1 never rises
    whole = history(tmp_path / "run")
    (tmp_path / "run" / run_dir.HISTORY).write_text(json.dumps(whole[:1]))
    code, out, err = lenet(shards, tmp_path / "run", *words)
    assert (code, json.loads(out)["steps"]) == (0, 8), err
    seen = ("step", "eval_top1", "eval_loss")
    assert [[e[key] for key in seen] for e in history(tmp_path / "run")] == [[e[key] for key in seen] for e in whole]


def test_the_best_shares_nothing_that_is_written_in_place(two_epochs: Path):
    best = next((two_epochs / "best").glob("model.ckpt-*.index"))
    assert best.stat().st_nlink == 1
    assert weights(two_epochs / "best").keys() == weights(two_epochs).keys()


def test_a_better_one_takes_the_place_of_the_best_without_a_gap(two_epochs: Path, tmp_path: Path):
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    shutil.rmtree(folder / "best")
    first, second = history(folder)
    run_dir.keep_best(folder, first)
    assert run_dir.load_best(folder) == first
    assert run_dir.find(folder).checkpoint == str(folder / "best" / "model.ckpt-4")
    found = []
    replace = Path.replace

    def watched(path: Path, target: Path) -> Path:
        placed = replace(path, target)
        found.append(run_dir.find(folder).checkpoint)
        return placed

    with patch.object(Path, "replace", watched):
        run_dir.keep_best(folder, second)
    names = [Path(checkpoint).name for checkpoint in found]
    assert names == ["model.ckpt-4", "model.ckpt-4", "model.ckpt-8", "model.ckpt-8"]
    assert run_dir.load_best(folder) == second
    names = sorted(file.name for file in (folder / "best").iterdir())
    assert names == ["checkpoint", "entry.json", *sorted(file.name for file in folder.glob("model.ckpt-8.*"))]


def test_a_damaged_best_is_judged_anew(shards: Path, two_epochs: Path, tmp_path: Path):
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    data = next((folder / "best").glob("*.data*"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.unlink()
    data.write_bytes(content)
    with pytest.raises(ModelError, match=r"best/model\.ckpt-\d: damaged \(.*give another checkpoint"):
        run_dir.find(folder)
    code, out, err = lenet(shards, folder, "--steps", 12, "--eval-data", shards)
    assert code == 0, err
    assert f"{folder}/best/model.ckpt-" in err and "): goes on without it" in err
    result = json.loads(out)
    assert (result["saved_step"], result["best_top1"]) == (12, result["eval_top1"])


def test_the_best_of_a_training_that_went_on_from_before_it_stays_the_best(
    shards: Path, two_epochs: Path, tmp_path: Path
):
    """What is said of the exported network is true of it, whatever the history knows."""
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    entry = history(folder)[-1] | {"eval_top1": 0.99}
    run_dir.keep_best(folder, entry)
    (folder / "model.ckpt-8.data-00000-of-00001").unlink()
    code, out, err = lenet(shards, folder, "--steps", 8, "--eval-data", shards, "--learning-rate", 0)
    assert code == 0, err
    result = json.loads(out)
    assert (result["saved_step"], result["best_top1"]) == (8, 0.99)
    assert [entry["step"] for entry in result["history"]] == [4, 8]
    assert f"99.00% at best; {folder}/saved_model/8 is of step 8, the best" in err
    shutil.rmtree(folder / "best")
    run_dir.keep_best(folder, history(folder)[0])
    (folder / "best" / run_dir.ENTRY).unlink()
    assert run_dir.load_best(folder) is None


def test_an_epoch_is_evaluated_later_too(shards: Path, tmp_path: Path):
    lenet(shards, tmp_path, "--steps", 8)
    before = history(tmp_path)
    assert ["eval_top1" in entry for entry in before] == [False, False]
    code, _, err = lenet(shards, tmp_path, "--steps", 9, "--eval-data", shards)
    assert code == 0, err
    after = history(tmp_path)
    assert [entry["step"] for entry in after] == [4, 8, 9]
    assert {name: after[1][name] for name in before[1]} == before[1]
    assert ["eval_top1" in entry for entry in after] == [False, True, True]


def test_other_records_are_refused_and_another_format_is_not(
    digits: Path, shards: Path, two_epochs: Path, tmp_path: Path
):
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    ingest.build_shards(digits, tmp_path / "seed1", format="tfrecord", seed=1, workers=0)
    code, out, err = lenet(tmp_path / "seed1", folder, "--steps", 9)
    assert (code, out) == (1, "")
    assert "holds a run of other options (other data): give another --model-dir" in one_line(err)
    ingest.build_shards(digits, tmp_path / "lmdb", format="lmdb", shards=2, workers=0)
    code, _, err = lenet(tmp_path / "lmdb", folder, "--steps", 9)
    assert code == 0, err


def test_a_jump_of_the_learning_rate_is_said(shards: Path, two_epochs: Path, tmp_path: Path):
    first, last = history(two_epochs)
    assert (first["learning_rate"], last["learning_rate"]) == pytest.approx((rate(3, 8), rate(7, 8)), rel=1e-4)
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    _, _, err = lenet(shards, folder, "--steps", 8)
    assert "rate rises from" not in err and "the learning rate then rises again" in err
    code, _, err = lenet(shards, folder, "--steps", 12)
    assert code == 0
    line = (
        f"train.py: {folder}: the learning rate rises from {rate(7, 8):.3g} to {rate(8, 12):.3g}, because the schedule"
    )
    assert line in err
    assert f"--init-from {folder} --tune all with a low --learning-rate in another --model-dir" in err
    assert history(folder)[-1]["learning_rate"] == pytest.approx(rate(11, 12), rel=1e-4)


def rate(done: int, steps: int) -> float:
    """Of LeNet in batches of 20, in which the warm-up is of one step at the most."""
    return LENET.rate(done, steps, LENET.peak(20))


def test_a_learning_rate_is_compared_with_that_of_the_same_step(tmp_path: Path):
    def change(
        recorded: dict[str, float], start: int, peak: float = 0.1, steps: int = 90
    ) -> tuple[float, float] | None:
        (tmp_path / "history.json").write_text(json.dumps([{"step": 30, "epoch": 3.0, **recorded}]))
        job = training.TrainingJob(
            config=None, recipe=RESNET, learning_rate=peak, steps=steps, folder=tmp_path, devices=Devices("CPU", 1)
        )
        return training.change_of_rate(job, start)

    before = {"learning_rate": float(np.float32(RESNET.rate(29, 90, 0.1)))}
    # An epoch that was cut short, and what the schedule itself makes of the rate, is no change.
    assert [change(before, start) for start in (30, 31, 60, 90)] == [None] * 4
    assert change({}, 40) is change({"learning_rate": None}, 40) is None  # of an earlier version
    assert change(before, 30, peak=0.2) == pytest.approx((0.1, 0.02))
    assert change(before, 40, steps=900) == pytest.approx((0.1, 0.1 * 41 / 50))
    assert change(before, 60, steps=45) is None  # it is through
    nearly = {"learning_rate": RESNET.rate(29, 90, 0.1) * 1.002}
    assert change(nearly, 30, steps=91) is None  # 0.1 and 0.1, as they would be written
    for damaged in ({"learning_rate": "0.1"}, {"learning_rate": []}, {"learning_rate": float("nan")}):
        with pytest.raises(ModelError, match=r"history.json: cannot be read"):
            change(damaged, 40)


def test_what_was_exported_is_said(shards: Path, two_epochs: Path, tmp_path: Path):
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    at = max(history(folder), key=lambda entry: entry["eval_top1"])["step"]
    code, _, err = lenet(shards, folder, "--steps", 9)
    assert code == 0
    assert f"saved_model/{at} is of step {at}, the best evaluated, with top-1 " in err
    code, _, err = lenet(shards, tmp_path / "new", "--steps", 2)
    assert f"{tmp_path}/new/saved_model/2 is of step 2; give --eval-data" in err
    code, out, err = lenet(shards, two_epochs, "--steps", 8, "--eval-data", shards)
    assert json.loads(out)["saved_step"] == at
    assert "has had 8 of 8 steps: for more, raise --epochs or --steps" in err
    assert f"at best; {two_epochs}/saved_model/{at} is of step {at}, the best" in err


def test_what_a_killed_export_left_goes_and_what_it_had_exported_stays(shards: Path, two_epochs: Path, tmp_path: Path):
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    [export] = (folder / "saved_model").iterdir()
    before = (export / "saved_model.pb").read_bytes()
    put(folder, {".exporting-abcd/1/saved_model.pb": b"half", "saved_model.mine/saved_model.pb": b"the user's"})
    with patch("models.serving._estimator", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        code, out, err = lenet(shards, folder, "--steps", 8)
    assert (code, out) == (1, "")
    assert f"{folder}: cannot be used (No space left on device): mend that, and the same command goes on" in err
    assert (export / "saved_model.pb").read_bytes() == before
    code, _, err = lenet(shards, folder, "--steps", 8)
    assert code == 0, err
    assert sorted(path.name for path in folder.iterdir() if "export" in path.name or "saved" in path.name) == [
        "saved_model", "saved_model.mine",
    ]  # fmt: skip


def test_a_full_disk_is_one_line_and_the_training_goes_on(shards: Path, tmp_path: Path):
    write, folder = run_dir._write, tmp_path / "run"

    def full(path: Path, content: Any) -> None:
        if path.name == run_dir.HISTORY:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    with patch("models.run_dir._write", full):
        code, out, err = lenet(shards, folder, "--steps", 8, "--eval-data", shards)
    assert (code, out) == (1, "")
    assert f"{folder}/history.json: cannot be used (No space left on device): mend that" in one_line(err)
    code, out, err = lenet(shards, folder, "--steps", 8, "--eval-data", shards)
    assert (code, [entry["step"] for entry in json.loads(out)["history"]]) == (0, [4, 8]), err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_features_that_find_no_room_are_one_line(shards: Path, two_epochs: Path):
    words = ("--features", shards, "--init-from", two_epochs, "--out", "/dev/full", "--workers", "0")
    code, out, err = said(list(map(str, words)))
    assert (code, out) == (1, "")
    assert "/dev/full: cannot be written (No space left on device): give another file" in one_line(err)


def test_a_cluster_of_one_host_is_none(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = {"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    done = train("--model", "lenet", "--data", shards, "--model-dir", tmp_path, "--steps", 2, "--batch-size", 20)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("epochs", "steps"), [("1.1", 5), ("1.25", 5), ("1.26", 6), ("2", 8), ("0.001", 1)])
def test_epochs_are_steps_rounded_up(shards: Path, tmp_path: Path, epochs: str, steps: int):
    """1.1 times 200 is a little more than 220 to a computer."""
    words = f"--model lenet --data {shards} --model-dir {tmp_path} --batch-size 20 --epochs {epochs}"
    assert command._checked(command._parser().parse_args(words.split())).steps == steps


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image_size": "28"}, "its image_size is '28'"),
        ({"classes": 3}, "'int' object is not iterable"),
        ({"model": "vgg"}, "'vgg'"),
        ({"variant": {"depth": 3}}, "unexpected keyword argument 'depth'"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
        ({"seed": None}, "its seed is None"),
    ],
)
def test_a_description_that_is_none_is_one_line(
    two_epochs: Path, tmp_path: Path, changes: dict[str, Any], problem: str
):
    content = json.loads((two_epochs / run_dir.RUN).read_text())
    put(tmp_path, {run_dir.RUN: json.dumps(content | changes).encode()})
    with pytest.raises(ModelError) as caught:
        run_dir.load_config(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/run.json: its content is none of this version's (")
    assert problem in str(caught.value)


def test_the_step_is_that_of_the_checkpoint(two_epochs: Path):
    with tf.Graph().as_default():
        assert run_dir.step_of(str(two_epochs / "model.ckpt-8")) == 8


def test_one_numbered_export_at_a_time(shards: Path, two_epochs: Path, tmp_path: Path):
    """As TensorFlow Serving has versions: of an earlier step or without a number it goes, what is the user's stays."""
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    [export] = (two_epochs / "saved_model").iterdir()
    shutil.rmtree(folder / "best")
    theirs = {"saved_model/7/saved_model.pb": b"the user's", "saved_model/models.config": b"", "saved_model/v1/x": b""}
    put(folder, theirs)
    shutil.copytree(export, folder / "saved_model/99")  # of a training that went on from before it
    code, out, err = lenet(shards, folder, "--steps", 9)
    assert code == 0, err
    assert json.loads(out)["saved_model"] == str(folder / "saved_model/9")
    assert sorted(path.name for path in (folder / "saved_model").iterdir()) == ["7", "9", "models.config", "v1"]
    assert (folder / "saved_model/7/saved_model.pb").read_bytes() == b"the user's"
    for name in ("saved_model.pb", "variables", "assets.extra/run.json"):
        assert (folder / "saved_model/9" / name).exists()
    # The same step again, and what a version before this one left.
    shutil.rmtree(folder / "saved_model")
    shutil.copytree(export, folder / "saved_model")
    for _ in range(2):
        code, _, err = lenet(shards, folder, "--steps", 9)
        assert code == 0, err
        assert [path.name for path in (folder / "saved_model").iterdir()] == ["9"]


def test_the_line_of_json_is_json_whatever_the_path_holds(shards: Path, two_epochs: Path, tmp_path: Path):
    folder = shutil.copytree(two_epochs, tmp_path / "del\x7f bell\x07 line\n é")
    code, out, err = lenet(shards, folder, "--steps", 8)
    assert code == 0, err
    assert out.count("\n") == 1 and out[:-1].isprintable()
    assert json.loads(out)["saved_model"] == str(folder / "saved_model" / str(json.loads(out)["saved_step"]))


@pytest.mark.parametrize("name", ["[1]", "a[", "back\\slash", "latin-1 \udce9"])
def test_a_path_that_tensorflow_cannot_find_is_refused_before_anything_is_begun(
    name: str, shards: Path, two_epochs: Path, tmp_path: Path
):
    folder = tmp_path / name
    code, out, err = lenet(shards, folder, "--steps", 4, "--eval-data", shards)
    assert (code, out, folder.exists()) == (1, "", False)
    assert "give it another name" in one_line(err)
    code, out, err = said(["--predict", "x.jpg", "--init-from", str(shutil.copytree(two_epochs, folder))])
    assert (code, out) == (1, "")
    assert "give it another name" in one_line(err)


@pytest.mark.parametrize("kind", ["numbered", "unnumbered"])
def test_a_training_in_the_folder_of_an_export_is_not_that_export(
    kind: str, shards: Path, two_epochs: Path, tmp_path: Path
):
    exports = shutil.copytree(two_epochs / "saved_model", tmp_path / "saved_model")
    folder = exports if kind == "numbered" else run_dir.exports(exports)[0]
    code, out, err = lenet(shards, folder, "--steps", 2)
    assert code == 0, err
    assert json.loads(out)["saved_model"] == str(folder / "saved_model" / "2")
    assert run_dir.find(folder).checkpoint == str(folder / "model.ckpt-2")


def test_what_cannot_be_read_holds_no_network(tmp_path: Path):
    with pytest.raises(ModelError, match=r"cannot be read \(File name too long\): give a --model-dir of train\.py, or"):
        run_dir.find(tmp_path / ("n" * 300))


def test_what_a_diverged_network_says_is_no_number(shards: Path, two_epochs: Path, tmp_path: Path):
    photo = put(tmp_path, {"photo.png": image_bytes("PNG", (28, 28), "L")}) / "photo.png"
    folder = shutil.copytree(two_epochs, tmp_path / "run")
    shutil.rmtree(folder / "best")
    with tf.Graph().as_default(), tf.Session() as session:
        reader = tf.train.load_checkpoint(str(folder / "model.ckpt-8"))
        for name in reader.get_variable_to_shape_map():
            value = reader.get_tensor(name)
            # All that the layers give is infinite, and so are the logits.
            tf.get_variable(name, initializer=value if name == "global_step" else np.full_like(value, 1e38))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(folder / "model.ckpt"), 8)
    code, out, err = said(["--evaluate", "--eval-data", str(shards), "--init-from", str(folder), "--workers", "0"])
    assert code == 0, err
    assert json.loads(out, parse_constant=pytest.fail)["eval_loss"] is None
    where = ("--init-from", str(folder), "--json", str(tmp_path / "found.json"))
    code, out, err = said(["--predict", str(photo), *where])
    assert (code, out) == (1, "")
    assert f"{photo}: the network's scores are no numbers" in one_line(err)
    found = json.loads((tmp_path / "found.json").read_text(), parse_constant=pytest.fail)
    assert list(found[str(photo)]) == ["error"]
