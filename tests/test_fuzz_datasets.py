"""Hostile datasets: each record, shard, index and manifest is read or refused, quickly, in little memory; and ``verify
--decode`` calls whole exactly what training and evaluation can read."""

from __future__ import annotations

import os

import pytest
from support.fuzzing import COUNT, tried

pytestmark = pytest.mark.slow

DATASETS = int(os.environ.get("INGEST_DATASETS", "40"))
"""Mutated datasets; `make stress` has more, and reads each with workers, too."""

# Mutants of which each must have some that are whole and some that are refused; of what a checksum or a structure
# without gaps covers, none is whole.
KINDS = {"records": True, "lmdb": True, "tfrecord": False, "indexes": True, "manifests": True, "runs": True}


def run(kind: str, count: int, **environment: str) -> dict[str, int]:
    """How many mutants, or datasets, were whole, and how many were refused."""
    results = tried("fuzz_datasets", kind, count=count, **environment)
    return {
        "whole": sum(result["taken"] for result in results), "refused": sum(result["refused"] for result in results)
    }  # fmt: skip


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
