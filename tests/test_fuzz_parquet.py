"""Hostile and broken parquet files: a source, or refused in a line; quickly, and in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fuzz import SECONDS
from fuzz_parquet import originals

from ingest.sources import open_source

COUNT = int(os.environ.get("INGEST_FUZZ", "2000"))
"""Mutants; `make stress` has more."""


def test_mutated_parquet_files_are_read_or_refused():
    halves = [(0, COUNT // 2), (COUNT // 2, COUNT - COUNT // 2)]
    command = [sys.executable, str(Path(__file__).with_name("fuzz_parquet.py")), "0"]
    children = [
        subprocess.Popen([*command, *map(str, half)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for half in halves
    ]
    for child, (_, count) in zip(children, halves, strict=True):
        said, complaints = child.communicate()
        assert child.returncode == 0, complaints
        result = json.loads(said)
        assert result["opened"] + result["refused"] == count
        assert result["opened"] > count // 20 and result["refused"] > count // 5
        assert result["slowest"][0] < SECONDS and result["peak_bytes"] < 2**30


def test_what_is_mutated_is_sound(tmp_path: Path):
    for i, data in enumerate(originals()):
        (tmp_path / str(i)).write_bytes(data)
        assert len(open_source(tmp_path / str(i)).entries) == 24
