"""What all fuzzers share: mutants are tried one by one in processes of their own, which must neither die nor be slow
nor take much memory."""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

SECONDS = 10
"""What a mutant may take at most."""

PEAK_BYTES = 2**30

TESTS = str(Path(__file__).parents[1])

COUNT = int(os.environ.get("INGEST_FUZZ", "2000"))
"""Mutants of each kind; `make stress` has more."""


def try_all(
    seed: int, numbers: Iterable[int], use: Callable[[int], int], most: int, *,
    seconds: float = SECONDS, clock: Callable[[], float] = time.perf_counter,
) -> None:  # fmt: skip
    """Call ``use`` with the number of each mutant, which gives how often it was taken, of ``most`` in all, and print
    what came of it. A mutant that takes longer than ``seconds`` ends the process."""
    taken, slowest = 0, (0.0, -1)
    for number in numbers:
        faulthandler.dump_traceback_later(seconds, exit=True)
        start = clock()
        try:
            taken += use(number)
        except BaseException:
            print(f"mutant {number} of seed {seed}", file=sys.stderr)
            raise
        slowest = max(slowest, (clock() - start, number))
    faulthandler.cancel_dump_traceback_later()
    figures = {"taken": taken, "refused": most - taken, "slowest": slowest, "peak_bytes": peak_bytes()}
    print(json.dumps(figures))


def peak_bytes() -> int:
    """The most memory that this process has had. Not getrusage, which begins with what the parent had."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def tried(script: str, *kind: str, count: int = COUNT, times: int = 1, **environment: str) -> list[dict[str, int]]:
    """Have two processes of ``script`` try so many mutants of seed 0, each of which may be taken ``times`` times.

    Gives, of each process, how many were ``taken`` and ``refused``, and ``count``, their sum. What is slow is an error,
    unless an environment is given for it.
    """
    halves = [(0, count // 2), (count // 2, count - count // 2)]
    command = [sys.executable, "-m", f"support.{script}", *kind, "0"]
    children = [
        subprocess.Popen(
            [*command, *map(str, half)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": TESTS, **environment},
        )
        for half in halves
    ]  # fmt: skip
    results = []
    for child, (_, part) in zip(children, halves, strict=True):
        said, complaints = child.communicate()
        assert child.returncode == 0, complaints
        result = json.loads(said)
        assert result["taken"] + result["refused"] == times * part
        assert result["peak_bytes"] < PEAK_BYTES
        assert environment or result["slowest"][0] < SECONDS
        results.append({"taken": result["taken"], "refused": result["refused"], "count": times * part})
    return results
