"""Where the loader's time goes: how fast each stage is, which one limits, and the rate of the whole.

The pipeline is grown by a stage at a time and each prefix measured in this process; a stage costs what its prefix takes
longer than the one before. Then the whole stream is measured, with workers. All are measured in turn, several times
over, and medians taken, because machines drift.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median

import numpy as np

from ingest import order, progress, views
from ingest.batches import BatchOptions, batches
from ingest.dataset import Dataset
from ingest.errors import OptionError, RecordError
from ingest.workers import count

HAND_OFF = "hand-off"

_ROUNDS = 5


@dataclass(frozen=True)
class ProfileOptions:
    """What to measure, and for how many ``seconds`` in all."""

    batch_size: int = 64
    image_size: int = 224
    workers: int | None = None
    seconds: float = 15.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds <= 86_400:
            raise OptionError(f"{self.seconds} seconds: give 0.1 to 86400")
        self.training(self.workers)

    def training(self, workers: int | None) -> BatchOptions:
        """The endless training batches that are measured."""
        return BatchOptions(self.batch_size, True, self.image_size, workers=workers)


@dataclass(frozen=True)
class Profile:
    """Rates in images/s of each prefix in one process and of the stream; microseconds that each stage adds an image.

    The microseconds are of one core: they add up to what the stream takes on the cores it has.
    """

    format: str
    encoding: str
    records: int
    batch_size: int
    image_size: int
    channels: int
    workers: int
    cores: int
    prefix_images_per_second: dict[str, float]
    stream_images_per_second: float
    stage_microseconds: dict[str, float]
    slowest: str
    verdict: str


def profile(shards: str | Path, options: ProfileOptions) -> Profile:
    """Measure the stages and the stream of the dataset in the folder ``shards``."""
    dataset = Dataset(shards)
    if not len(dataset):
        raise RecordError(f"{shards}: the dataset has no records")
    workers = count(options.workers)
    prefixes = _prefixes(dataset, options)
    with progress.bar(_ROUNDS * (len(prefixes) + 1), "measuring", "runs") as bar:
        rates = _measure({**prefixes, "stream": batches(shards, options.training(workers))}, options, bar.update)
    stream = rates.pop("stream")
    cores = min(max(workers, 1), count(None))
    microseconds = stage_microseconds(rates, stream, cores)
    slowest = max(microseconds, key=lambda stage: microseconds[stage])
    return Profile(
        format=dataset.manifest.format,
        encoding=dataset.manifest.encoding,
        records=len(dataset),
        batch_size=options.batch_size,
        image_size=options.image_size,
        channels=dataset.manifest.channels,
        workers=workers,
        cores=cores,
        prefix_images_per_second=rates,
        stream_images_per_second=stream,
        stage_microseconds=microseconds,
        slowest=slowest,
        verdict=verdict(slowest, microseconds[slowest], stream, workers, cores),
    )


def stage_microseconds(rates: dict[str, float], stream: float, cores: int) -> dict[str, float]:
    """What each stage adds to an image, in microseconds of a core, from the ``rates`` of growing prefixes.

    The last, HAND_OFF, is what the stream's cores spend beyond the longest prefix: on messages and waiting.
    """
    totals = [1e6 / rate for rate in rates.values()] + [cores * 1e6 / stream]
    costs = np.maximum(np.diff([0.0, *totals]), 0.0)
    return dict(zip([*rates, HAND_OFF], costs.tolist(), strict=True))


def verdict(slowest: str, microseconds: float, stream: float, workers: int, cores: int) -> str:
    """One line that names the slowest stage, and how near the stream is to what that stage alone allows."""
    share = stream * microseconds / (cores * 1e6)
    rate = f"{slowest}-bound: {stream:,.0f} images/s with {_plural(workers, 'worker')}"
    if slowest == HAND_OFF:
        return f"{rate}, {share:.0%} of their time in the {HAND_OFF}"
    return f"{rate}, {share:.0%} of what {_plural(cores, 'core')} can {slowest}"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _prefixes(dataset: Dataset, options: ProfileOptions) -> dict[str, Iterator[object]]:
    """An endless iterator for each stage but the stream; each step reads one image, or, the last, one batch."""
    n, channels = len(dataset), dataset.manifest.channels
    out = np.empty((options.image_size, options.image_size, channels), np.uint8)
    draws = cycle(order.draws(0, 0, 0, min(n, 1000)))
    views.single_threaded()

    def each(stage: Callable[[int], object]) -> Iterator[object]:
        return (stage(i) for i in cycle(order.epoch_order(n, 0, 0).tolist()))

    return {
        "read": each(lambda i: dataset[i]),
        "decode": each(lambda i: views.decode(dataset[i], channels)),
        "view": each(lambda i: views.training_view(dataset[i], next(draws), out)),
        "batch": batches(dataset.folder, options.training(0)),
    }


def _measure(
    stages: dict[str, Iterator[object]], options: ProfileOptions, report: Callable[[int], object]
) -> dict[str, float]:
    """Median images/s of each stage."""
    seconds = options.seconds / (_ROUNDS * len(stages))
    images = {"batch": options.batch_size, "stream": options.batch_size}
    rates: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(_ROUNDS):
        for name, steps in stages.items():
            # Not timed: whatever was made ready while another stage was measured, and a process's start.
            for _ in range(4 * count(options.workers) + 4 if name == "stream" else 1):
                next(steps)
            rates[name].append(_rate(steps, seconds) * images.get(name, 1))
            report(1)
    return {name: median(values) for name, values in rates.items()}


def _rate(steps: Iterator[object], seconds: float) -> float:
    start = time.perf_counter()
    done = 0
    while (passed := time.perf_counter() - start) < seconds or not done:
        next(steps)
        done += 1
    return done / passed
