"""tensorpack, as its tutorial recommends: its augmentors over cv2, and processes that send over ZMQ what they made
(https://tensorpack.readthedocs.io/tutorial/efficient-dataflow.html).

Its LMDBData is not used: it reserves two terabytes of addresses for a file, and a process has room for some sixty.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorpack.dataflow import (
    AugmentImageComponent,
    BatchData,
    DataFlow,
    MultiProcessRunnerZMQ,
    ProxyDataFlow,
    RepeatedData,
    RNGDataFlow,
    imgaug,
)
from tensorpack.utils import logger

from ingest.baselines import from_generator
from ingest.dataset.dataset import Dataset
from ingest.errors import IngestError
from ingest.loading import augment, transforms
from ingest.loading.options import LoaderOptions
from ingest.system.worker_pool import num_workers

_PREFETCHED = 2
"""Batches that TensorFlow keeps ready: one to use and one to come."""


def dataset(shards: str | Path, options: LoaderOptions) -> tf.data.Dataset:
    """The dataset of (images, labels), by ``options.workers`` processes in training.

    They are forked now, and end with the iteration. Each goes through all records in an order of its own, and what they
    send is taken as it comes: with more than one, what is counted as an epoch has some records twice and others not at
    all. Orders and crops are drawn from the time, not from ``options.seed``, and begin anew whatever
    ``options.start_batch`` is. Evaluation is done in this process, which keeps to the order.
    """
    # It logs to stdout, which is for results; of errors it says no more than it raises.
    logger.setLevel(logging.CRITICAL)
    opened = Dataset(shards)
    ready = [_started(opened, options)]

    def batches() -> Iterator[list[np.ndarray]]:
        # Processes are to be forked before there is a session; only who iterates again forks later.
        yield from ready.pop() if ready else _started(opened, options)

    return from_generator.dataset_of(batches, options, opened.manifest.channels).prefetch(_PREFETCHED)


def _started(dataset: Dataset, options: LoaderOptions) -> DataFlow:
    flow = _flow(dataset, options)
    flow.reset_state()
    return flow


def _flow(dataset: Dataset, options: LoaderOptions) -> DataFlow:
    flow = _Records(dataset, options.training and options.shuffle)
    flow = AugmentImageComponent(flow, _augmentors(options), copy=False)
    workers = num_workers(options.workers) if options.training else 0
    if workers:
        flow = _Runner(flow, workers)
    is_endless = options.num_epochs is None
    return BatchData(RepeatedData(flow, -1 if is_endless else options.num_epochs), options.batch_size, not is_endless)


def _augmentors(options: LoaderOptions) -> list[imgaug.ImageAugmentor]:
    size = options.image_size
    if not (options.training and options.augment):
        return [_CentreCrop(size), imgaug.Resize(size)]
    area = (options.min_crop_area, augment.AREA[1])
    return [imgaug.GoogleNetRandomCropAndResize(area, augment.ASPECT, size), imgaug.Flip(horiz=True)]


class _Records(RNGDataFlow):
    """Datapoints [image, label]: uint8 [H, W, C], decoded whole, and int. A pass has every record once."""

    def __init__(self, dataset: Dataset, is_shuffled: bool):
        self._dataset, self._is_shuffled = dataset, is_shuffled

    def reset_state(self) -> None:
        """Called once in the process that iterates."""
        super().reset_state()
        transforms.single_threaded()

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[list[Any]]:
        n = len(self)
        for number in (self.rng.permutation(n) if self._is_shuffled else np.arange(n)).tolist():
            record = self._dataset[number]
            yield [transforms.decode(record, self._dataset.manifest.channels), record.label]


class _CentreCrop(imgaug.ImageAugmentor):
    """Crops to the square of which the evaluation view of side ``size`` is made."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def get_transform(self, img: np.ndarray) -> Any:
        """The crop of an image, uint8 [H, W, C]."""
        region = augment.centre_crop(img.shape[0], img.shape[1], self.size)
        return imgaug.CropTransform(region.top, region.left, region.height, region.width)


class _Runner(MultiProcessRunnerZMQ):
    """Worker processes, which end when nobody holds this any more."""

    def __init__(self, flow: DataFlow, workers: int):
        super().__init__(_Worker(flow), workers)

    def __iter__(self) -> Iterator[list[Any]]:
        for datapoint in super().__iter__():
            if isinstance(datapoint[0], IngestError):
                raise datapoint[0]
            yield datapoint

    def __del__(self) -> None:
        # It takes its leave on stdout, which is for results.
        with redirect_stdout(None):
            super().__del__()


class _Worker(ProxyDataFlow):
    """What a worker process runs: it ends with its parent, and sends errors of ours as they are.

    By itself tensorpack would send a traceback, and leave the processes of a parent that was killed waiting for ever.
    """

    def __init__(self, flow: DataFlow):
        super().__init__(flow)
        self._parent = os.getpid()

    def reset_state(self) -> None:
        """Called once in the worker process."""
        super().reset_state()
        threading.Thread(target=_end_with, args=(self._parent,), daemon=True).start()

    def __iter__(self) -> Iterator[list[Any]]:
        try:
            yield from self.ds
        except IngestError as error:
            yield [error]


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
