"""benchmarks/accelerator.py, small: with each framework that is installed, and with none."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.tools.synthesize import picture

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
ENCODINGS = ["as published", "256 px JPEG", "256 px pixels"]
SMALL = ("--network", "tiny", "--images", "40", "--image-size", "32", "--batch-size", "4", "--minutes", "0.2")


@pytest.mark.parametrize("framework", ["torch", "jax", "none"])
def test_all_is_measured(tmp_path: Path, framework: str):
    if framework != "none" and importlib.util.find_spec(framework) is None:
        pytest.skip(f"there is no {framework}")
    words = ["benchmarks/accelerator.py", *SMALL, "--workers", "2", "--framework", framework]
    words += ["--json", str(tmp_path / "result.json"), "--scratch", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert 40 <= result["records"] < 50
    assert list(result["alone"]) == ENCODINGS
    assert all(list(rates) == ["1", "2"] for rates in result["alone"].values())
    assert all(is_rate(rate) for rates in result["alone"].values() for rate in rates.values())
    assert result["framework"] == framework
    assert result["cores"] > 0
    assert {"Python", "ingest", "numpy", "numba"} <= set(result["versions"])
    assert all(result["versions"].values())
    assert result["commit"] is None or len(result["commit"]) == 40
    assert f"; {result['cpu']}, {result['cores']} cores; " in done.stdout
    if framework == "none":
        assert (result["card"], result["resident"], result["fed"]) == (None, None, {})
        assert "nothing was trained: " in done.stdout
        return
    assert framework in result["versions"]
    assert done.stdout.startswith(f"{result['card']}; ")
    assert is_rate(result["resident"])
    assert list(result["fed"]) == ENCODINGS
    assert all(is_rate(run) and 0 <= run["waiting"] <= 1 for run in result["fed"].values())


def is_rate(measured: dict[str, Any]) -> bool:
    rounds = measured["rounds"]
    return min(rounds) <= measured["images_per_second"] <= max(rounds) and min(rounds) > 0


@pytest.mark.parametrize("classes", [("",), ("a", "b")])
def test_some_of_a_folder_are_taken(tmp_path: Path, classes: tuple[str, ...]):
    photo = picture("dots", 0, 0)
    for name in classes:
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        for number in range(60 // len(classes)):
            (tmp_path / "photos" / name / f"{number}.jpg").write_bytes(photo)
    words = [sys.executable, "benchmarks/accelerator.py", str(tmp_path / "photos"), *SMALL, "--images", "40"]
    words += ["--workers", "1", "--framework", "none", "--json", str(tmp_path / "result.json")]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    assert json.loads((tmp_path / "result.json").read_text())["records"] == 40


@pytest.mark.parametrize("moment", ["drawing", "the loader alone"])
def test_ctrl_c_leaves_nothing(tmp_path: Path, moment: str):
    words = [sys.executable, "benchmarks/accelerator.py", *SMALL, "--workers", "2", "--framework", "none"]
    words += ["--scratch", str(tmp_path), "--minutes", "2"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        said = ""
        while moment not in said:
            said += process.stderr.read(1) or pytest.fail(said)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        said += process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--workers", "-1"), "-1 workers: give 0 (all in this process) to 1024"),
        (("--image-size", "0"), "image_size is 0: give 1 to 10000"),
        (("--json", "nowhere/result.json"), "--json nowhere/result.json: no such folder: give another"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(words: tuple[str, str], problem: str):
    command = [sys.executable, "benchmarks/accelerator.py", "--framework", "none", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "drawing" not in done.stderr
    assert done.stderr.endswith(f"accelerator.py: error: {problem}\n")


def test_no_photographs_are_a_line(tmp_path: Path):
    words = [sys.executable, "benchmarks/accelerator.py", str(tmp_path / "nowhere"), "--framework", "none"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"accelerator.py: error: {tmp_path / 'nowhere'}: ")
    assert done.stderr.count("\n") == 1
