"""Hostile datasets: each record, shard, index and manifest is read or refused, quickly, in little memory; and ``verify
--decode`` calls whole exactly what training and evaluation can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import SECONDS

COUNT = int(os.environ.get("INGEST_FUZZ", "2000"))
"""Mutants of each kind; `make stress` has more."""

DATASETS = int(os.environ.get("INGEST_DATASETS", "40"))
"""Mutated datasets; `make stress` has more, and reads each with workers, too."""

# Mutants of which each must have some that are whole and some that are refused; of what a checksum or a structure
# without gaps covers, none is whole.
KINDS = {"records": True, "lmdb": True, "tfrecord": False, "indexes": True, "manifests": True, "runs": True}

GIBI = 2**30


def run(kind: str, count: int, **environment: str) -> dict[str, int]:
    """Read mutants in two processes; how many were whole, and how many were refused."""
    halves = [(0, count // 2), (count // 2, count - count // 2)]
    command = [sys.executable, str(Path(__file__).with_name("fuzz_datasets.py")), kind, "0"]
    children = [
        subprocess.Popen(
            [*command, *map(str, half)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )
        for half in halves
    ]  # fmt: skip
    results = []
    for child, (_, part) in zip(children, halves, strict=True):
        said, complaints = child.communicate()
        assert child.returncode == 0, complaints
        result = json.loads(said)
        assert result["whole"] + result["refused"] == part
        assert result["peak_bytes"] < GIBI
        results.append(result)
    assert environment or max(result["slowest"][0] for result in results) < SECONDS
    return {name: sum(result[name] for result in results) for name in ("whole", "refused")}


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_are_read_or_refused(kind: str):
    result = run(kind, COUNT)
    assert result["refused"] > COUNT // 100 and (result["whole"] > COUNT // 100) == KINDS[kind]


@pytest.mark.parametrize("kind", ["records", "lmdb"])
def test_without_compilation_no_index_is_out_of_bounds(kind: str):
    """Compiled, what is read beyond an array's end is read; as Python, it is an error."""
    run(kind, COUNT // 20, NUMBA_DISABLE_JIT="1")


def test_verify_calls_whole_what_can_be_read():
    every = 10 if DATASETS < 500 else 1
    result = run(f"datasets/{every}", DATASETS)
    assert min(result.values()) > DATASETS // 10
