"""From the DataFlow to TensorFlow: the one room of tensorflow in this package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from ingest.errors import IngestError, OptionError
from ingest.stream import ShardFlow, dataflow
from ingest.views import AREA

_PREFETCHED = 2
"""Batches that TensorFlow keeps ready: one to use and one to come. The workers' slots hold the rest."""


class InputFunction:
    """What ``input_fn`` gives; called, it makes a ``tf.data.Dataset``.

    TensorFlow wraps errors of the loader in its own; ``failure`` is the loader's error, once there was one.
    """

    def __init__(self, flow: ShardFlow):
        self._flow = flow
        self.failure: IngestError | None = None

    def __call__(self, input_context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        """The dataset of (images, labels).

        With several devices, which TensorFlow tells by ``input_context``, it is this host's share, disjoint from those
        of others: a batch is divided among hosts, and a host's part among its devices, one element each.
        """
        flow, parts = self._flow, 1
        if input_context is not None:
            flow, parts = _share(self._flow, input_context)
        options, size = flow.options, flow.options.image_size
        rows = options.batch_size // parts if options.passes is None else None
        signature = (
            tf.TensorSpec([rows, size, size, self._flow.channels], tf.uint8),
            tf.TensorSpec([rows], tf.int32),
        )
        dataset = tf.data.Dataset.from_generator(lambda: self._batches(flow, parts), output_signature=signature)
        dataset = dataset.prefetch(_PREFETCHED * parts)
        tf_options = tf.data.Options()
        # There is nothing to tune, and the tuner's thread, which sleeps for up to a minute, would hold up the end of a
        # training by as long.
        tf_options.autotune.enabled = False
        return dataset.with_options(tf_options)

    def _batches(self, flow: ShardFlow, parts: int) -> Iterator[tuple[np.ndarray, ...]]:
        # Whole batches, or a device's part of them: this is run by Python, one call each.
        try:
            for images, labels in flow:
                size = -(-len(images) // parts)
                for start in range(0, len(images), size):
                    yield images[start : start + size], labels[start : start + size]
        except IngestError as error:
            self.failure = error
            raise


def _share(flow: ShardFlow, context: tf.distribute.InputContext) -> tuple[ShardFlow, int]:
    """A host's share of ``flow``, and the number of devices that it is for."""
    hosts, host = context.num_input_pipelines, context.input_pipeline_id
    options = flow.options
    if options.batch_size % context.num_replicas_in_sync:
        raise OptionError(f"batches of {options.batch_size} cannot be divided by {context.num_replicas_in_sync}")
    share = replace(
        options, batch_size=options.batch_size // hosts, start_batch=options.start_batch * hosts + host, every=hosts
    )
    return ShardFlow(flow.shards, share), context.num_replicas_in_sync // hosts


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
    crop: float = AREA[0],
    shuffle: bool = True,
) -> InputFunction:
    """An input function for ``tf.estimator``: called, it gives a ``tf.data.Dataset`` of (images, labels).

    The arguments and the batches are those of ``ingest.dataflow``; errors in the arguments, or in what the dataset's
    folder holds, are raised now. Images are uint8 [N, S, S, C], labels int32 [N]; N is known to the graph where all
    batches are whole.
    """
    flow = dataflow(
        shards, batch_size=batch_size, image_size=image_size, training=training, seed=seed, workers=workers,
        start_batch=start_batch, epochs=epochs, augment=augment, crop=crop, shuffle=shuffle,
    )  # fmt: skip
    return InputFunction(flow)
