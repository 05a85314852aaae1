"""Mutated tars: opened and read, or refused, quickly and in little memory."""

from __future__ import annotations

import pytest
from support.fuzzing import tried

pytestmark = pytest.mark.slow


def test_mutated_tars_are_read_or_refused():
    for result in tried("fuzz_tars"):
        assert min(result["taken"], result["refused"]) > result["count"] // 10
