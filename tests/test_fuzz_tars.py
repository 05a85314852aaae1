"""Mutated tars: opened and read, or refused, quickly and in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fuzz import SECONDS

COUNT = int(os.environ.get("INGEST_FUZZ", "2000"))
"""Mutants; `make stress` has more."""


def test_mutated_tars_are_read_or_refused():
    command = [sys.executable, str(Path(__file__).with_name("fuzz_tars.py")), "0", "0", str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["opened"] + result["refused"] == COUNT
    assert result["opened"] > COUNT // 10 and result["refused"] > COUNT // 10
    assert result["slowest"][0] < SECONDS and result["peak_bytes"] < 2**30
