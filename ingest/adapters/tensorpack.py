"""Shards as a tensorpack DataFlow: tensorpack is imported here alone.

Importing tensorpack loads TensorFlow, so nothing that worker processes need may stand here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tensorpack.dataflow import DataFlow

from ingest.dataset.dataset import Dataset
from ingest.loading.columns import Layout
from ingest.loading.loader import iter_batches
from ingest.loading.options import LoaderOptions
from ingest.system.validation import takes

_COUNTING = threading.Lock()
"""Held while an iteration is counted. It is not the flow's own, because a lock cannot be copied to another process."""


class ShardFlow(DataFlow):
    """The batches of a dataset: datapoints [images, labels], as ``dataflow`` describes them.

    Every iteration has worker processes of its own, which end with it. A copy, such as each process of tensorpack's
    runners has, counts its iterations by itself, from where the original was.
    """

    def __init__(self, shards: str | Path, options: LoaderOptions):
        # Opened here too, so that an unusable dataset is met before any training starts.
        dataset = Dataset(shards)
        self.shards = shards
        self.options = options
        self.records = len(dataset)
        self.channels = dataset.manifest.channels
        self.classes = dataset.manifest.classes
        self.names = Layout.names_of(options.fields)
        self._iterations = self._endless_batches = 0

    def reset_state(self) -> None:
        """Nothing: tensorpack calls this once in each process, and the next iteration goes on all the same."""

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        with _COUNTING:
            options, iteration = self._here(), self._iterations
            self._iterations += 1
        for batch in iter_batches(self.shards, options, iteration):
            self._endless_batches += options.num_epochs is None
            yield list(batch)

    def __len__(self) -> int:
        """Batches in the next iteration; where they never end, whole batches in an epoch, one at least."""
        total = self.options.num_batches(self.records, self._iterations)
        return max(1, self.records // self.options.batch_size) if total is None else total

    def _here(self) -> LoaderOptions:
        """The options; where the iterations before were broken off, which had no end, from the next batch on."""
        options = self.options
        return replace(options, start_batch=options.start_batch + self._endless_batches)


@takes(LoaderOptions)
def dataflow(shards: str | Path, options: LoaderOptions) -> ShardFlow:
    """A tensorpack DataFlow of the dataset in the folder ``shards``.

    The options are those of ``ingest.loading.options.LoaderOptions``, as keyword arguments; ``batch_size`` and
    ``training`` must be given.

    A datapoint is [images, labels]: uint8 [N, S, S, C] and int32 [N], S being ``image_size`` pixels, C 1 for a dataset
    of grey images alone and 3 (RGB) otherwise; after these come the columns that ``fields`` names. The datapoints are
    the same for any number of ``workers`` processes (by default one a core, 0 for none) and in both formats. What a
    datapoint holds is the consumer's for as long as it keeps it.

    ``training``: every epoch is a permutation of all records, drawn from (``seed``, epoch). Images are random resized
    crops, half of them flipped (``min_crop_area`` to all of the area, aspect 3/4 to 4/3), drawn from (seed, epoch,
    position), or evaluation views if ``augment`` is off. With ``shuffle`` off an epoch goes from class to class
    instead, for which all labels are read first. Batches are whole and run on across the end of an epoch; with
    ``epochs`` only the very last may be smaller, without there is no end.

    Otherwise: every record once, in packed order (``epochs`` times if given): the short side to 256/224 of the image
    size, then the centre. An image of exactly that size is shown as it is.

    ``start_batch`` skips that many batches at no cost: what follows is what would have followed them. Of ``num_shards``
    processes each has the batches whose number, divided by ``num_shards``, leaves its ``shard_index``.

    One iteration gives ``epochs`` epochs of training, and the next one those that follow: ten passes, by a loop, by
    Keras or by RepeatedData, show ten permutations and new crops. ``start_batch`` is where the first iteration begins.
    Iterations are counted as they begin, those that are broken off too; without ``epochs`` the next one begins with the
    batch after the last that was given. Evaluation is the same every time.

    Raises OptionError, ManifestError or RecordError; while iterating, RecordError, naming shard, record and key, and
    WorkerError.
    """
    return ShardFlow(shards, options)
