"""A thread that makes the next thing: in order, as far ahead as it may, gone with whoever asked."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Generator

import pytest
from support.processes import wait_until

from ingest.system.ahead import ahead


def numbers(made: list[int], count: int = 10, error: Exception | None = None) -> Generator[int, None, None]:
    try:
        for number in range(count):
            made.append(number)
            yield number
        if error:
            raise error
    finally:
        made.append(-1)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_items_come_in_order(count: int):
    assert list(ahead(numbers([]), count)) == list(range(10))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_so_many_are_made_before_they_are_asked_for(count: int):
    made: list[int] = []
    items = ahead(numbers(made), count)
    assert next(items) == 0
    # One was given, some are ready, and one waits for its place.
    assert wait_until(lambda: len(made) == count + 2, 10)
    assert not wait_until(lambda: len(made) > count + 2, 0.3)


def test_an_error_comes_after_the_items_before_it():
    items = ahead(numbers([], 3, ValueError("no more")), 5)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_the_thread_ends_with_the_iterator():
    before, made = threading.active_count(), []
    items = ahead(numbers(made, 1000), 2)
    next(items)
    items.close()
    assert threading.active_count() == before
    assert made[-1] == -1  # and what it took from is closed, too


def test_the_thread_ends_before_python_does():
    code = (
        "from ingest.system.ahead import ahead\n"
        "def count():\n    try:\n        yield from range(100)\n    finally:\n        print('closed')\n"
        "items = ahead(count())\nprint(next(items))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\nclosed\n", "")


def test_an_iterator_may_be_collected_by_its_own_thread():
    class Holder:
        """Part of a cycle, which only the collector frees."""

    dropped, closed = threading.Event(), threading.Event()

    def items() -> Generator[int, None, None]:
        try:
            yield 0
            dropped.wait(30)
            gc.collect()
            yield from range(1, 1000)
        finally:
            closed.set()

    gc.disable()
    try:
        holder = Holder()
        holder.itself, holder.items = holder, ahead(items())  # type: ignore[attr-defined]
        next(holder.items)  # type: ignore[attr-defined]
        del holder
        dropped.set()
        assert closed.wait(10)
    finally:
        gc.enable()


@pytest.mark.parametrize("held", ["items = ahead(count(), 2)", "items = [ahead(count(), 2)][0]; other = items"])
def test_python_ends_while_an_iterator_is_held(held: str):
    code = (
        "from ingest.system.ahead import ahead\n"
        "def count():\n    n = 0\n    while True:\n        yield n\n        n += 1\n"
        f"{held}\nprint(next(items))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
