"""train.py as it is typed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.images import put
from support.processes import processes_of, wait_until
from support.trainings import ROOT, one_line, train

pytestmark = pytest.mark.slow


def test_a_network_learns_is_evaluated_and_goes_on(digits: Path, tmp_path: Path):
    words = ("--model", "lenet", "--data", digits, "--eval-data", digits, "--model-dir", tmp_path / "run")
    words += ("--batch-size", 20, "--workers", 1, "--json", tmp_path / "result.json")
    first = train(*words, "--epochs", 8)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert {name: result[name] for name in ("model", "steps", "epochs")} == {
        "model": "lenet",
        "steps": 80,
        "epochs": 8.0,
    }
    assert result["eval_top1"] > 0.9
    assert result["eval_top5"] >= result["eval_top1"]
    assert result["images_per_second"] > 0
    assert any("tfevents" in path.name for path in (tmp_path / "run").iterdir())
    again = train(*words, "--epochs", 8)
    assert again.returncode == 0
    assert "has had 80 of 80 steps" in again.stderr
    assert json.loads(again.stdout)["eval_top1"] == result["eval_top1"]
    longer = train(*words, "--steps", 85)
    assert longer.returncode == 0
    assert "1600/1700" in longer.stderr.replace(" ", "")  # the bar goes on from where the first run ended
    other = train(*words, "--epochs", 8, "--image-size", 32)
    assert other.returncode == 1
    assert "holds a run of other options (image_size 28, now 32): give another --model-dir" in one_line(other.stderr)


def test_a_network_of_colours_trains(shards: dict[str, Path], val_shards: Path, tmp_path: Path):
    words = ("--data", shards["lmdb"], "--eval-data", val_shards, "--model-dir", tmp_path, "--image-size", 64)
    done = train("--model", "alexnet-two-tower", "--steps", 2, "--batch-size", 4, "--workers", 2, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2


def test_a_damaged_record_ends_the_training_with_one_line(digits: Path, tmp_path: Path):
    folder = shutil.copytree(digits, tmp_path / "copy")
    for shard in folder.glob("*.tfrecord"):
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    for words in (("--data", folder), ("--data", digits, "--eval-data", folder)):
        done = train("--model", "lenet", "--model-dir", tmp_path / words[-1].name / "run", "--steps", 20, *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.search(
            r"-of-00008.tfrecord, record \d+, byte \d+, key '\d+': its data do not match", one_line(done.stderr)
        )


def test_summary(tmp_path: Path):
    done = train("--model", "resnet18", "--summary", "--classes", 10, "--image-size", 64, "--json", tmp_path / "s")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["conv1", "convolution", "32", "x", "32", "x", "64", "9,408", "9,633,792"]
    assert lines[-1].startswith("resnet18, 64 x 64, 10 classes: 11,181,642 trainable parameters, ")
    assert json.loads((tmp_path / "s").read_text())["parameters"] == 11_181_642


def test_wrong_use_is_one_line(digits: Path, shards: dict[str, Path], val_shards: Path, tmp_path: Path):
    lenet = ("--model", "lenet", "--model-dir", tmp_path / "run")
    broken = put(tmp_path / "broken", {"manifest.json": b"{"})
    for status, words, message in (
        (2, ("--model", "vgg", "--data", digits), "invalid choice: 'vgg'"),
        (2, lenet, "give --data SHARDS"),
        (2, ("--model", "alexnet", "--summary", "--image-size", 62), "too small for alexnet: give at least 63"),
        (2, (*lenet, "--data", digits, "--image-size", 8), "too small for lenet"),
        (2, (*lenet, "--data", digits, "--steps", 0), "--steps 0: give 1 or more"),
        (2, (*lenet, "--data", digits, "--epochs", "nan"), "--epochs nan"),
        (2, (*lenet, "--data", digits, "--batch-size", -1), "--batch-size -1"),
        (2, (*lenet, "--data", digits, "--epochs", 1, "--steps", 1), "not allowed with"),
        (2, (*lenet, "--data", digits, "--classes", 5), "--classes goes with --summary"),
        (2, (*lenet, "--data", digits, "--workers", -1), "-1 workers"),
        (1, (*lenet, "--data", tmp_path / "nowhere"), "holds no finished dataset"),
        (1, (*lenet, "--data", broken), "cannot be read"),
        (1, ("--model", "lenet", "--data", digits, "--model-dir", broken / "manifest.json"), "cannot be used"),
        (1, (*lenet, "--data", digits, "--eval-data", val_shards), "its classes are not those of"),
    ):  # fmt: skip
        done = train(*words)
        assert (done.returncode, done.stdout) == (status, ""), (words, done.stderr)
        assert message in one_line(done.stderr)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_a_training_however_it_ends(digits: Path, tmp_path: Path, how: signal.Signals):
    here = tmp_path / "here"
    here.mkdir()
    words = ("--model", "lenet", "--data", digits, "--model-dir", tmp_path / "run", "--steps", 10**6, "--workers", 2)
    with open(tmp_path / "log", "w+") as log:
        command = [sys.executable, str(ROOT / "train.py"), *map(str, words)]
        parent = subprocess.Popen(command, cwd=here, stderr=log, stdout=log, start_new_session=True)
        assert wait_until(lambda: len(processes_of(here)) >= 3, 60)
        time.sleep(1)
        parent.send_signal(how) if how == signal.SIGTERM else os.killpg(parent.pid, how)
        parent.wait(timeout=10)
        assert wait_until(lambda: processes_of(here) == [], 5)
        if how != signal.SIGKILL:
            log.seek(0)
            assert parent.returncode == 130
            assert re.search(
                r"train.py: interrupted: saved at step \d+; the same command goes on from there$", log.read().strip()
            )
            again = train(*words[:-4], "--steps", 1)
            assert re.search(r"has had \d+ of 1 steps", again.stderr)


def test_help_is_quick_and_has_an_example():
    done = train("--help")
    assert done.returncode == 0
    assert "  python train.py --model alexnet --data" in done.stdout
    code = (
        "import sys, train; sys.argv[1:] = ['--help']\ntry: train.main()\nfinally: print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_training_that_starved_is_told_what_to_change(photos: Path, shards: dict[str, Path], tmp_path: Path):
    # What counts as long and as starved is brought down, so that a training of seconds is both.
    code = (
        "import sys, train\nfrom models import training\n"
        "training._TELLING_SECONDS, train._ADVICE_SECONDS = 0.01, 0.5\n"
        "training._STARVED = 0.0\nsys.exit(train.main())"
    )
    words = ("--model", "lenet", "--data", shards["lmdb"], "--model-dir", tmp_path, "--batch-size", 8)
    words += ("--workers", 1, "--steps", 60)
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.replace("\r", "\n").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("train.py: the loader is the limit"))
    assert any("-bound: " in line and "with 1 worker," in line for line in lines[at:]), done.stderr
    assert any("--encoding raw --resize 32" in line for line in lines[at:]), done.stderr
    assert json.loads(done.stdout)["steps"] == 60


def test_a_datasets_folder_is_no_model_dir(digits: Path):
    done = train("--model", "lenet", "--data", digits, "--model-dir", digits)
    assert done.returncode == 2 and "it holds a dataset: give a folder of its own" in one_line(done.stderr)
    assert not (digits / "run.json").exists()
