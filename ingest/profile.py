"""Where the loader's time goes: how fast each stage is, which one limits, and the rate of the whole.

The pipeline is grown by a stage at a time and each prefix measured in this process; a stage costs what its prefix takes
longer than the one before. They are measured in turn, several times over, and medians taken, because machines drift.
Then the whole stream is measured, with workers: last, because its workers are busy on their own for a while after.
"""

from __future__ import annotations

import json
import subprocess
import sys
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
from ingest.errors import IngestError, OptionError, RecordError
from ingest.workers import count

HAND_OFF = "hand-off"

_ROUNDS = 5

_IMAGES = 256
"""Records that the prefixes are measured on: all on the same, since images differ more than stages do, and warm."""

_MIN_IMAGES = 64
"""Images in each measurement at the least, however short it is asked to be."""


@dataclass(frozen=True)
class ProfileOptions:
    """What to measure, and for how many ``seconds`` in all, warming up and ``model`` not counted.

    ``model`` is a network of train.py, whose training on one batch that stays on the device is measured, too.
    """

    batch_size: int = 64
    image_size: int = 224
    workers: int | None = None
    seconds: float = 15.0
    model: str | None = None

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds <= 86_400:
            raise OptionError(f"{self.seconds} seconds: give 0.1 to 86400")
        self.training(self.workers)

    @property
    def seconds_a_run(self) -> float:
        """Length of one measurement: of four prefixes and the stream, in each round."""
        return self.seconds / (5 * _ROUNDS)

    def training(self, workers: int | None) -> BatchOptions:
        """The endless training batches that are measured."""
        return BatchOptions(self.batch_size, True, self.image_size, workers=workers)


@dataclass(frozen=True)
class Profile:
    """Rates in images/s of each prefix in one process and of the stream; microseconds that each stage adds an image.

    The microseconds are of one core: they add up to what the stream takes on the cores it has. The device's rate is of
    training ``model`` alone; None without one.
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
    model: str | None = None
    device_images_per_second: float | None = None


def profile(shards: str | Path, options: ProfileOptions) -> Profile:
    """Measure the stages and the stream of the dataset in the folder ``shards``."""
    dataset = Dataset(shards)
    if not len(dataset):
        raise RecordError(f"{shards}: the dataset has no records")
    workers = count(options.workers)
    # First: it is what a wrong name ends.
    device = device_rate(options.model, options, len(dataset.manifest.classes)) if options.model else None
    prefixes = _prefixes(dataset, options)
    with progress.bar(_ROUNDS * (len(prefixes) + 1), "measuring", "runs") as bar:
        rates = _measure(prefixes, options, bar.update)
        stream = _measure_stream(batches(shards, options.training(workers)), options, bar.update)
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
        model=options.model,
        device_images_per_second=device,
    )


def device_rate(model: str, options: ProfileOptions, classes: int) -> float:
    """Images/s of training ``model`` on one batch that stays on the device: the upper bound of the network alone.

    Measured by ``train.py --synthetic``, in a process of its own. Raises IngestError where that fails.
    """
    words = ["--model", model, "--synthetic", "--classes", classes, "--batch-size", options.batch_size]
    command = [sys.executable, "-m", "train", *map(str, words), "--image-size", str(options.image_size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise IngestError((done.stderr.splitlines() or ["train.py ended without a word"])[-1].split("error: ", 1)[-1])
    return json.loads(done.stdout)["images_per_second"]


def comparison(stream: float, device: float) -> str:
    """One line: which of loader and device limits a training, and by how much."""
    if stream < device:
        return f"the loader is the limit: it gives {stream:,.0f} images/s, the device alone takes {device:,.0f}"
    return (
        f"the device is the limit: it takes {device:,.0f} images/s, the loader gives {stream / device:,.1f} times that"
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
    """An endless iterator for each stage but the stream; each step handles one image."""
    channels, size = dataset.manifest.channels, options.image_size
    records = order.epoch_order(len(dataset), 0, 0)[:_IMAGES].tolist()
    draws = order.draws(0, 0, 0, len(records)).tolist()
    batch = np.empty((options.batch_size, size, size, channels), np.uint8)
    labels = np.empty(options.batch_size, np.int32)
    views.single_threaded()

    def fill(position: int, i: int) -> None:
        record = dataset[i]
        views.training_view(record, draws[position], batch[position % options.batch_size])
        labels[position % options.batch_size] = record.label

    def decode(position: int, i: int) -> None:
        record = dataset[i]
        views.decode_region(record, channels, views.random_resized_crop(record.height, record.width, draws[position]))

    def each(stage: Callable[[int, int], object]) -> Iterator[object]:
        return (stage(position, i) for position, i in cycle(enumerate(records)))

    return {
        "read": each(lambda _, i: dataset[i]),
        "decode": each(decode),
        "view": each(lambda position, i: views.training_view(dataset[i], draws[position], batch[0])),
        "batch": each(fill),
    }


def _measure(
    stages: dict[str, Iterator[object]], options: ProfileOptions, report: Callable[[int], object]
) -> dict[str, float]:
    """Median images/s of each stage."""
    for steps in stages.values():
        _rate(steps, 0, 1, _IMAGES)  # the first look at each record is not counted
    rates: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(_ROUNDS):
        for name, steps in stages.items():
            rates[name].append(_rate(steps, options.seconds_a_run, 1, _MIN_IMAGES))
            report(1)
    return {name: median(values) for name, values in rates.items()}


def _measure_stream(stream: Iterator[object], options: ProfileOptions, report: Callable[[int], object]) -> float:
    """Median images/s of the stream, once its workers have started and what they made ready meanwhile is used up."""
    size = options.batch_size
    _rate(stream, 0, size, 8 * size * (count(options.workers) + 1))
    rates = []
    for _ in range(_ROUNDS):
        rates.append(_rate(stream, options.seconds_a_run, size, _MIN_IMAGES))
        report(1)
    return median(rates)


def _rate(steps: Iterator[object], seconds: float, images: int, at_least: int) -> float:
    """Images/s of ``steps``, each of ``images`` images, over ``seconds`` and ``at_least`` so many images."""
    start = time.perf_counter()
    done = 0
    while (passed := time.perf_counter() - start) < seconds or done < at_least:
        next(steps)
        done += images
    return done / passed
