"""Mutated lists: understood whole, or refused in one line, quickly, in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fuzz import SECONDS
from fuzz_lists import originals

COUNT = int(os.environ.get("INGEST_FUZZ", "2000"))
"""Mutants; `make stress` has more."""


def test_mutated_lists_are_read_whole_or_refused():
    command = [sys.executable, str(Path(__file__).with_name("fuzz_lists.py")), "0", "0", str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["accepted"] + result["refused"] == 2 * COUNT
    assert result["accepted"] > COUNT // 10 and result["refused"] > COUNT // 10
    assert result["slowest"][0] < SECONDS and result["peak_bytes"] < 2**30
    assert len(set(originals())) > 50
