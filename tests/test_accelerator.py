"""benchmarks/accelerator.py, small: with each framework that is installed, and with none."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
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
    encodings = ["as published", "256 px JPEG", "256 px pixels"]
    assert {name: list(rates) for name, rates in result["alone"].items()} == {name: ["1", "2"] for name in encodings}
    assert all(rate > 0 for rates in result["alone"].values() for rate in rates.values())
    assert result["framework"] == framework
    assert result["cpu"] in done.stdout
    if framework == "none":
        assert (result["card"], result["resident"], result["fed"]) == (None, None, {})
        assert "nothing was trained" in done.stdout
        return
    assert framework in result["versions"]
    assert result["card"] in done.stdout
    assert result["resident"] > 0
    assert list(result["fed"]) == encodings
    assert all(run["images_per_second"] > 0 and 0 <= run["waiting"] <= 1 for run in result["fed"].values())


def test_no_photographs_are_a_line(tmp_path: Path):
    words = [sys.executable, "benchmarks/accelerator.py", str(tmp_path / "nowhere"), "--framework", "none"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"accelerator.py: error: {tmp_path / 'nowhere'}: ")
    assert done.stderr.count("\n") == 1
