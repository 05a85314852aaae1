"""Hostile and broken parquet files: a source, or refused in a line; quickly, and in little memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fuzz_parquet import originals
from support.fuzzing import tried

from ingest.sources.detect import open_source

pytestmark = pytest.mark.slow


def test_mutated_parquet_files_are_read_or_refused():
    for result in tried("fuzz_parquet"):
        assert result["taken"] > result["count"] // 20 and result["refused"] > result["count"] // 5


def test_what_is_mutated_is_sound(tmp_path: Path):
    for i, data in enumerate(originals()):
        (tmp_path / str(i)).write_bytes(data)
        assert len(open_source(tmp_path / str(i)).entries) == 24
