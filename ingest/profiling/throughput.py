"""Images/s of whole streams: each is measured in turn, several times over, and the median taken, as machines drift."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ingest import baselines
from ingest.baselines import OURS
from ingest.loading import loader as loading
from ingest.loading.batches import iter_batches
from ingest.loading.columns import Batch, Layout
from ingest.loading.options import LoaderOptions
from ingest.loading.shared_memory import MAX_LENT_BATCHES
from ingest.profiling.stages import Alone
from ingest.system.worker_pool import Worker, num_workers

_ROUNDS = 3
_ROUND_SECONDS = 0.2
"""Of each measurement, at the least, for there to be more than one round."""

_LEAST_BATCHES = 2
"""In each measurement, however short it is asked to be."""

_QUEUED = 2
"""Batches that a worker still has to fill when nobody asks for more."""

FRAMEWORKS = ("tensorflow",)
"""What Loader and Feed need of their own."""

Measure = Callable[[float], float]
"""Measures for so many seconds, and gives images/s."""


def rounds(measures: int, seconds: float) -> int:
    """How many times so many measurements are taken in turn, in ``seconds`` together."""
    return max(1, min(_ROUNDS, int(seconds / (_ROUND_SECONDS * max(1, measures)))))


def medians(measures: dict[Any, Measure], seconds: float, report: Callable[[int], object]) -> dict[Any, float]:
    """The median images/s of each, of its measurements in all ``rounds``; ``report`` is called after each.

    All take ``seconds`` together, or a little longer where they are too few for any result.
    """
    turns = rounds(len(measures), seconds)
    rates: dict[Any, list[float]] = {name: [] for name in measures}
    for _ in range(turns):
        for name, measure in measures.items():
            rates[name].append(measure(seconds / (turns * len(measures))))
            report(1)
    return {name: median(values) for name, values in rates.items()}


def stream(
    stack: ExitStack,
    shards: str | Path,
    options: LoaderOptions,
    make: Callable[[str | Path, LoaderOptions], Generator[Batch, None, None]] = iter_batches,
) -> Measure:
    """Measures the stream with ``options``; its workers are started now, and end with ``stack``."""
    steps = stack.enter_context(closing(make(shards, options)))
    workers = num_workers(options.workers)
    left = _QUEUED * workers
    _rate(steps, 0, options.batch_size, max(1, workers))  # the first batch of each

    def measure(seconds: float) -> float:
        # What was made ready while others were measured is not counted.
        _rate(steps, 0, options.batch_size, left)
        rate = _rate(steps, seconds, options.batch_size, max(_LEAST_BATCHES, workers), left)
        # Its workers go on until they have done what they were told, which would slow down who comes next.
        time.sleep(left * options.batch_size / rate)
        return rate

    return measure


def in_a_process(stack: ExitStack, make_handler: Callable[..., Any], *args: Any) -> Measure:
    """Measures by the handler ``make_handler(*args)``, whose task is seconds, in a process that ends with ``stack``."""
    worker = stack.enter_context(closing(Worker(make_handler, *args)))
    _ask(worker, 0.01)  # it is made with its first task

    return lambda seconds: _ask(worker, seconds)


def alone(
    stack: ExitStack, shards: Path, options: LoaderOptions, processes: int, *, by_libjpeg: bool = False
) -> Measure:
    """Measures what so many processes at once can decode and resize, all together."""
    workers = [stack.enter_context(closing(Worker(Alone, shards, options, by_libjpeg))) for _ in range(processes)]

    def measure(seconds: float) -> float:
        for worker in workers:
            worker.send(seconds)
        return sum(worker.receive() for worker in workers)

    measure(0.01)
    return measure


def waiting(shards: str | Path, options: LoaderOptions, step_seconds: float, steps: int) -> float:
    """The share of its time that a consumer waits for images which takes ``step_seconds`` for each batch."""
    with closing(iter_batches(shards, options)) as stream:
        # Until all workers have started, a consumer waits for them.
        _rate(stream, 0, options.batch_size, 2 * num_workers(options.workers) + MAX_LENT_BATCHES)
        start, waited = time.perf_counter(), 0.0
        for _ in range(steps):
            asked = time.perf_counter()
            next(stream)
            waited += time.perf_counter() - asked
            time.sleep(step_seconds)
        return waited / (time.perf_counter() - start)


class Loader:
    """A loader of ``ingest.baselines``, or OURS, as TensorFlow sees it; the handler of a worker process.

    It has as many cores as ``options.workers``: what one takes for a worker may be several threads.
    """

    def __init__(self, name: str, shards: Path, options: LoaderOptions):
        _without_devices()
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: max(1, num_workers(options.workers))])
        self._size = options.batch_size
        if name == OURS:
            from ingest.adapters.tensorflow import InputFunction

            self._steps = iter(InputFunction(loading.Loader.of(shards, options))())
        else:
            self._steps = iter(baselines.input_fn(name, shards, options)())

    def __call__(self, seconds: float, report: object) -> float:
        """Images/s over two fifths of the ``seconds``, once what was made ready meanwhile is used up, for which it has
        the first three: how much that is, only the loader knows."""
        _rate(self._steps, 0.6 * seconds, self._size)
        return _rate(self._steps, 0.4 * seconds, self._size)


class Feed:
    """TensorFlow taking one batch over and over, which is there already; the handler of a worker process."""

    def __init__(self, shards: Path, options: LoaderOptions):
        _without_devices()
        from ingest.adapters.tensorflow import InputFunction

        self._size = options.batch_size
        self._steps = iter(InputFunction(_Ready.of(shards, options))())

    def __call__(self, seconds: float, report: object) -> float:
        """Images/s over ``seconds``."""
        return _rate(self._steps, seconds, self._size)


class _Ready(loading.Loader):
    """Gives one batch over and over, which is there already."""

    def __iter__(self) -> Iterator[Batch]:
        size = self.options.image_size
        layout = Layout((self.options.batch_size, size, size, self.channels))
        columns = {name: np.zeros_like(array) for name, array in layout.empty().items()}
        columns["images"] = columns["images"].reshape(layout.shape)
        while True:
            yield Batch(columns)


def _without_devices() -> None:
    # Loaders are measured up to the device; TensorFlow would take all memory of a GPU that somebody may be using.
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}


def _ask(worker: Worker, seconds: float) -> float:
    worker.send(seconds)
    return worker.receive()


def _rate(steps: Iterator[object], seconds: float, images: int, at_least: int = _LEAST_BATCHES, left: int = 0) -> float:
    """Images/s of ``steps``, each of ``images`` images, over ``seconds`` and so many steps at the least.

    In the ``seconds`` there is time for as many steps as are ``left``, which are not taken.
    """
    start = time.perf_counter()
    done, passed = 0, 0.0
    while done < at_least or passed * (1 + left / max(1, done)) < seconds:
        next(steps)
        done += 1
        passed = time.perf_counter() - start
    return done * images / passed if passed else 0.0
