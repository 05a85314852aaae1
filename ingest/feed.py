"""From the DataFlow to TensorFlow: the one room of tensorflow in this package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from ingest.errors import IngestError
from ingest.stream import ShardFlow, dataflow

_PREFETCHED = 2
"""Batches that TensorFlow keeps ready: one to use and one to come. The workers' slots hold the rest."""


class InputFunction:
    """What ``input_fn`` gives; called, it makes a ``tf.data.Dataset``.

    TensorFlow wraps errors of the loader in its own; ``failure`` is the loader's error, once there was one.
    """

    def __init__(self, flow: ShardFlow):
        self._flow = flow
        self.failure: IngestError | None = None

    def __call__(self) -> tf.data.Dataset:
        """The dataset of (images, labels)."""
        options, size = self._flow.options, self._flow.options.image_size
        rows = options.batch_size if options.passes is None else None
        signature = (
            tf.TensorSpec([rows, size, size, self._flow.channels], tf.uint8),
            tf.TensorSpec([rows], tf.int32),
        )
        dataset = tf.data.Dataset.from_generator(self._batches, output_signature=signature).prefetch(_PREFETCHED)
        tf_options = tf.data.Options()
        # There is nothing to tune, and the tuner's thread, which sleeps for up to a minute, would hold up the end of a
        # training by as long.
        tf_options.autotune.enabled = False
        return dataset.with_options(tf_options)

    def _batches(self) -> Iterator[tuple[np.ndarray, ...]]:
        # Whole batches: this is run by Python, one call a batch.
        try:
            yield from map(tuple, self._flow)
        except IngestError as error:
            self.failure = error
            raise


def input_fn(
    shards: str | Path,
    *,
    batch_size: int,
    image_size: int = 224,
    training: bool,
    seed: int = 0,
    workers: int | None = None,
    start_batch: int = 0,
    epochs: int | None = None,
    augment: bool = True,
) -> InputFunction:
    """An input function for ``tf.estimator``: called, it gives a ``tf.data.Dataset`` of (images, labels).

    The arguments and the batches are those of ``ingest.dataflow``; errors in the arguments, or in what the dataset's
    folder holds, are raised now. Images are uint8 [N, S, S, C], labels int32 [N]; N is known to the graph where all
    batches are whole.
    """
    flow = dataflow(
        shards, batch_size=batch_size, image_size=image_size, training=training, seed=seed, workers=workers,
        start_batch=start_batch, epochs=epochs, augment=augment,
    )  # fmt: skip
    return InputFunction(flow)
