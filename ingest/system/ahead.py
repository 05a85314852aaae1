"""Doing the next thing while the last one is used."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Generator
from contextlib import closing
from queue import Empty, Full, Queue
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.1
"""How soon the thread that waits for somebody to take an item sees that nobody will."""

_AHEAD = 2
"""Items before they are asked for: on a device, the next one and one that is being copied."""


class _End(NamedTuple):
    """The last of what a thread gives: the error that it ended with, if any."""

    error: BaseException | None


def ahead(items: Generator[T, None, None], count: int = _AHEAD) -> Generator[T, None, None]:
    """The ``items``, made by a thread, which has up to ``count`` of them ready before they are asked for.

    Raises what making them raises, after those before it. The thread ends with this iterator, or with Python.
    """
    ready: Queue[T | _End] = Queue(count)
    stopped = threading.Event()
    thread = threading.Thread(target=_make, args=(items, ready, stopped), daemon=True)

    def end() -> None:
        stopped.set()
        # This thread itself may be what collects an iterator that nobody holds, even while it has the queue's lock.
        if thread.ident is not None and thread is not threading.current_thread():
            _empty(ready)
            thread.join()

    # A thread that is left when Python ends is ended wherever it is: C++ code that it is in aborts the process.
    atexit.register(end)
    try:
        thread.start()
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error:
            raise item.error
    finally:
        end()
        atexit.unregister(end)


def _make(items: Generator[T, None, None], ready: Queue[T | _End], stopped: threading.Event) -> None:
    end = _End(None)
    try:
        with closing(items):
            for item in items:
                if not _put(ready, item, stopped):
                    return
    except BaseException as error:  # it is raised where the items are taken
        end = _End(error)
    _put(ready, end, stopped)


def _put(ready: Queue[T | _End], item: T | _End, stopped: threading.Event) -> bool:
    """Whether the item was put there, which is so unless nobody will take it."""
    while not stopped.is_set():
        try:
            ready.put(item, timeout=_LOOK_SECONDS)
            return True
        except Full:
            continue
    return False


def _empty(ready: Queue[T | _End]) -> None:
    while True:
        try:
            ready.get_nowait()
        except Empty:
            return
