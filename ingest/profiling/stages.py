"""What each stage costs by itself, in microseconds of a core an image, on inputs that are already there.

An image goes through its stages one by one, and the thread's own clock is read between them: each works on what the one
before has just made, as it does in a worker, and what other programs do meanwhile is not counted.
"""

from __future__ import annotations

import mmap
import os
import time
from itertools import islice
from pathlib import Path

import numpy as np

from ingest import jpeg, sampler
from ingest.dataset.dataset import Dataset
from ingest.errors import BadSampleError, RecordError
from ingest.loading import augment, transforms
from ingest.loading.batches import plan_batches
from ingest.loading.options import LoaderOptions
from ingest.record import RAW, parse
from ingest.system import paths

OF_AN_IMAGE = ("read", "parse", "crop", "decode", "resize")
"""The stages of an image, in their order. Of shards of pixels ``read`` is fetching the crop's pixels from memory, too,
and there is nothing to decode."""

BATCH, IPC = "batch", "ipc"
"""The stages of a batch: choosing its records and their random numbers; its job and its answer, from process to
process."""

SAMPLED = 256
"""Records that are looked at: all stages at the same ones, since images differ more than stages do."""

_PLANNED = 32


def sampled(dataset: Dataset) -> list[int]:
    """The numbers of the records to look at, drawn as an epoch draws them."""
    return sampler.epoch_order(len(dataset), 0, 0)[:SAMPLED].tolist()


class Stages:
    """The stages of an image, timed on a dataset's sample; the more often, the better."""

    def __init__(self, dataset: Dataset, options: LoaderOptions):
        self._dataset = dataset
        self._numbers = sampled(dataset)
        self._uniforms = sampler.random_draws(0, 0, 0, len(self._numbers)).tolist()
        self._options = options
        size, channels = options.image_size, dataset.manifest.channels
        # A place for each, because a stream's slots are more than caches hold, too.
        self._out = np.empty((len(self._numbers), size, size, channels), np.uint8)
        self._times: list[list[np.ndarray]] = [[] for _ in self._numbers]
        self._next = 0
        transforms.single_threaded()
        # The first look at each record counts only for those that there is no time to look at again.
        self._first = [self._timed(i) for i in range(len(self._numbers))]

    def __call__(self, seconds: float) -> float:
        """Time images for so long, one after the other, one at the least; gives images/s."""
        start, passed, done = time.perf_counter(), 0.0, 0
        while not done or passed < seconds:
            self._times[self._next].append(self._timed(self._next))
            self._next = (self._next + 1) % len(self._numbers)
            done += 1
            passed = time.perf_counter() - start
        return done / passed

    @property
    def microseconds(self) -> dict[str, float]:
        """Of each stage: the median over all times of each image, and of these the mean, so that they add up."""
        medians = [np.median(times or [first], axis=0) for times, first in zip(self._times, self._first, strict=True)]
        return dict(zip(OF_AN_IMAGE, (np.mean(medians, axis=0) / 1e3).tolist(), strict=True))

    def _timed(self, i: int) -> np.ndarray:
        """Nanoseconds of each stage of image ``i``, int64 [stages]."""
        clock = np.empty(len(OF_AN_IMAGE) + 1, np.int64)
        try:
            self._time(i, clock)
        except (BadSampleError, RecordError) as error:
            raise self._dataset.describe(self._numbers[i], error) from error
        return np.diff(clock)

    def _time(self, i: int, clock: np.ndarray) -> None:
        """Make a training view of image ``i``, writing down when each stage began and the last one ended."""
        now = time.thread_time_ns
        size, channels = self._out.shape[2:]
        clock[0] = now()
        payload = self._dataset.view(self._numbers[i])
        clock[1] = now()
        record = parse(payload)
        clock[2] = now()
        view = augment.train_view(record.height, record.width, size, self._uniforms[i], self._options)
        clock[3] = now()
        pixels = transforms.decode_region(record, channels, view.region)
        clock[4] = now()
        transforms.finish(pixels, view, self._out[i])
        clock[5] = now()
        if record.format == RAW:
            # It was no decoding: all before it is later by as much, so that reading has been as much longer.
            clock[1:4] += clock[4] - clock[3]


def batch_microseconds(dataset: Dataset, options: LoaderOptions) -> float:
    """What choosing records and drawing their random numbers costs an image."""
    start = time.thread_time_ns()
    images = 0
    for rows in islice(plan_batches(dataset, options), _PLANNED):
        for span, numbers in rows:
            sampler.random_draws(options.seed, *span).tolist()
            images += len(numbers)
    return (time.thread_time_ns() - start) / 1e3 / images


def disk_read_microseconds(dataset: Dataset) -> float | None:
    """What reading a record takes that is not in memory, in microseconds of waiting; None where this cannot be told.

    The sample's pages are dropped from the system's cache first, as far as the system does that: what lies on a disk
    in memory is as fast as ever.
    """
    if paths.is_remote(dataset.folder) or not hasattr(os, "posix_fadvise"):
        return None
    taken = 0
    numbers = sampled(dataset)
    for number in numbers:
        path, location = dataset.location(number)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # The pages of a record that a map has been read through stay: this is done before any is.
            # Of a part of a page nothing is dropped.
            first = location.offset // mmap.PAGESIZE * mmap.PAGESIZE
            end = -(-(location.offset + location.size_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
            os.posix_fadvise(descriptor, first, end - first, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter_ns()
            os.pread(descriptor, location.size_bytes, location.offset)
            taken += time.perf_counter_ns() - start
        finally:
            os.close(descriptor)
    return taken / 1e3 / len(numbers)


def short_side(dataset: Dataset) -> int:
    """The median of the sample's short sides, in pixels."""
    records = (dataset[number] for number in sampled(dataset))
    return int(np.median([min(record.height, record.width) for record in records]))


def bytes_an_image(dataset: Dataset) -> float:
    """What a record takes on the disk."""
    return dataset.manifest.size_bytes / len(dataset)


class Alone:
    """Decodes and resizes the same regions over and over: all that a loader cannot do without.

    ``by_libjpeg`` decodes by libjpeg-turbo, what was cut out of the JPEGs before. The handler of a worker process; its
    tasks are seconds, its results images/s.
    """

    def __init__(self, shards: Path, options: LoaderOptions, by_libjpeg: bool):
        transforms.single_threaded()
        dataset = Dataset(shards)
        numbers = sampled(dataset)
        uniforms = sampler.random_draws(0, 0, 0, len(numbers)).tolist()
        self._channels = dataset.manifest.channels
        self._out = np.empty((options.image_size, options.image_size, self._channels), np.uint8)
        self._inputs = []
        for number, of_record in zip(numbers, uniforms, strict=True):
            record = dataset[number]
            view = augment.train_view(record.height, record.width, options.image_size, of_record, options)
            is_cut = by_libjpeg and record.has_segments
            crop = jpeg.crop_jpeg(record.encoded, record.segments, view.region) if is_cut else None
            self._inputs.append((record, crop, view))

    def __call__(self, seconds: float, report: object) -> float:
        """Images/s over ``seconds``."""
        start, done, passed = time.perf_counter(), 0, 0.0
        while passed < seconds:
            record, crop, view = self._inputs[done % len(self._inputs)]
            if crop is None:
                pixels = transforms.decode_region(record, self._channels, view.region)
            else:
                pixels = jpeg.decode_cut(crop, self._channels, view.region)
            transforms.finish(pixels, view, self._out)
            done += 1
            passed = time.perf_counter() - start
        return done / passed
