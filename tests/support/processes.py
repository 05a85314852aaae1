"""Waiting for other processes, and finding them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def processes_of(marker: Path) -> list[str]:
    """Command lines of all processes that were started from ``marker``'s folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cwd").readlink() == marker.resolve():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def wait_for(condition: object, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
