"""From the DataFlow to TensorFlow: the one room of tensorflow in this package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from ingest.stream import dataflow

_PREFETCHED = 2
"""Batches that TensorFlow keeps ready: one to use and one to come. The workers' slots hold the rest."""


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
) -> Callable[[], tf.data.Dataset]:
    """An input function for ``tf.estimator``: called, it gives a ``tf.data.Dataset`` of (images, labels).

    The arguments and the batches are those of ``ingest.dataflow``; errors in the arguments, or in what the dataset's
    folder holds, are raised now. Images are uint8 [N, S, S, C], labels int32 [N]; N is known to the graph where all
    batches are whole.
    """
    flow = dataflow(
        shards, batch_size=batch_size, image_size=image_size, training=training, seed=seed, workers=workers,
        start_batch=start_batch, epochs=epochs, augment=augment,
    )  # fmt: skip
    rows = batch_size if flow.options.passes is None else None
    signature = (
        tf.TensorSpec([rows, image_size, image_size, flow.channels], tf.uint8),
        tf.TensorSpec([rows], tf.int32),
    )

    def build() -> tf.data.Dataset:
        # Whole batches: the generator is run by Python, one call a batch.
        generator = lambda: map(tuple, flow)  # noqa: E731
        dataset = tf.data.Dataset.from_generator(generator, output_signature=signature).prefetch(_PREFETCHED)
        options = tf.data.Options()
        # There is nothing to tune, and the tuner's thread, which sleeps for up to a minute, would hold up the end of a
        # training by as long.
        options.autotune.enabled = False
        return dataset.with_options(options)

    return build
