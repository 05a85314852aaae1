"""Mutated lists: understood whole, or refused in one line, quickly, in little memory."""

from __future__ import annotations

import pytest
from support.fuzz_lists import originals
from support.fuzzing import tried

pytestmark = pytest.mark.slow


def test_mutated_lists_are_read_whole_or_refused():
    for result in tried("fuzz_lists", times=2):  # as a source and as labels
        assert min(result["taken"], result["refused"]) > result["count"] // 20
    assert len(set(originals())) > 50
