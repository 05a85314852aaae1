"""From the DataFlow to TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from ingest import sampler
from ingest.adapters.tensorpack import ShardFlow
from ingest.errors import IngestError, OptionError
from ingest.loading.columns import COLUMNS, Layout
from ingest.loading.options import LoaderOptions
from ingest.system.validation import takes

_PREFETCHED = 2
"""Batches that TensorFlow keeps ready: one to use and one to come. The workers' slots hold the rest."""


class InputFunction:
    """What ``input_fn`` gives; called, it makes a ``tf.data.Dataset``.

    All iterations of its datasets count as those of one: each goes on with the epochs that follow, be it of the same
    dataset, as Keras does, or of another, as an Estimator does that is trained once more.

    TensorFlow wraps errors of the loader in its own; ``failure`` is the loader's error, once there was one.
    """

    def __init__(self, flow: ShardFlow):
        self._flow = flow
        self._shares: dict[tuple[int, ...], ShardFlow] = {}
        self.failure: IngestError | None = None

    def __call__(self, input_context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        """The dataset of (images, labels).

        With several devices, which TensorFlow tells by ``input_context``, it is this host's share, disjoint from those
        of others: a batch is divided among hosts, and a host's part among its devices, one element each.
        """
        flow, parts = self._flow, 1
        if input_context is not None:
            flow, parts = self._share(input_context)
        options = flow.options
        rows = options.batch_size // parts if options.num_epochs is None else None
        signature = _elements_of(_signature(options, rows, self._flow.channels))
        dataset = tf.data.Dataset.from_generator(lambda: self._batches(flow, parts), output_signature=signature)
        if options.num_epochs is None:
            dataset = dataset.repeat()  # which it never comes to; but it tells that there is no end
        elif (elements := _cardinality(options, flow.records, parts)) is not None:
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(elements))
        dataset = dataset.prefetch(_PREFETCHED * parts)
        tf_options = tf.data.Options()
        # There is nothing to tune, and the tuner's thread, which sleeps for up to a minute, would hold up the end of a
        # training by as long.
        tf_options.autotune.enabled = False
        return dataset.with_options(tf_options)

    def _batches(self, flow: ShardFlow, parts: int) -> Iterator[Any]:
        # Whole batches, or a device's part of them: this is run by Python, one call each.
        try:
            for batch in flow:
                for piece in _pieces(len(batch[0]), parts):
                    yield _elements_of(dict(zip(flow.names, (column[piece] for column in batch))))
        except IngestError as error:
            self.failure = error
            raise

    def _share(self, context: tf.distribute.InputContext) -> tuple[ShardFlow, int]:
        """A host's share of the batches, and the number of devices that it is for."""
        hosts, host, replicas = context.num_input_pipelines, context.input_pipeline_id, context.num_replicas_in_sync
        options = self._flow.options
        if options.batch_size % replicas:
            raise OptionError(f"batches of {options.batch_size} cannot be divided by {replicas}")
        if (hosts, host, replicas) not in self._shares:
            share = replace(
                options,
                batch_size=options.batch_size // hosts,
                num_shards=options.num_shards * hosts,
                shard_index=options.shard_index * hosts + host,
            )
            self._shares[hosts, host, replicas] = ShardFlow(self._flow.shards, share)
        return self._shares[hosts, host, replicas], replicas // hosts


def _signature(options: LoaderOptions, rows: int | None, channels: int) -> dict[str, tf.TensorSpec]:
    """The columns of a dataset's elements, by name."""
    size = options.image_size
    signature = {"images": tf.TensorSpec([rows, size, size, channels], tf.uint8)}
    for name in Layout.names_of(options.fields)[1:]:
        dtype = COLUMNS[name].dtype
        signature[name] = tf.TensorSpec([rows], tf.string if dtype is object else dtype)
    return signature


def _elements_of(columns: dict[str, Any]) -> Any:
    """(images, labels), or (all other columns by name, labels), as tf.estimator and Keras have features and labels."""
    others = {name: column for name, column in columns.items() if name != "labels"}
    return others["images"] if len(others) == 1 else others, columns["labels"]


def _cardinality(options: LoaderOptions, records: int, parts: int) -> int | None:
    """How many elements each iteration has, of ``records`` records and in batches of so many ``parts`` each.

    None where iterations differ: where the first one of training begins late.
    """
    if options.first_batch(1) != options.first_batch(0):
        return None
    total = options.num_batches(records)
    if not total:
        return 0
    last = options.first_batch(0) + (total - 1) * options.num_shards
    # Only the very last may be smaller, and then have fewer parts.
    images = sum(span.length for span in sampler.spans(records, options.batch_size, last, options.num_epochs))
    return (total - 1) * parts + len(_pieces(images, parts))


def _pieces(images: int, parts: int) -> list[slice]:
    """A batch of so many images cut into equal parts, fewer where there are not enough images."""
    size = -(-images // parts)
    return [slice(start, start + size) for start in range(0, images, size)]


@takes(LoaderOptions)
def input_fn(shards: str | Path, options: LoaderOptions) -> InputFunction:
    """An input function for ``tf.estimator``: called, it gives a ``tf.data.Dataset`` of (images, labels).

    The options and the batches are those of ``ingest.dataflow``; errors in the arguments, or in what the dataset's
    folder holds, are raised now. Images are uint8 [N, S, S, C], labels int32 [N]; N is known to the graph where all
    batches are whole. With ``fields`` the dataset is of ({"images": images, NAME: column, ...}, labels); text is
    tf.string. The dataset's cardinality is known, or infinite, but where training with ``epochs`` begins at a
    ``start_batch``, so that its first iteration is shorter than those that follow.

    What ``dataflow`` says of iterations is true of all datasets that this makes, taken together. TensorFlow takes some
    batches ahead: of training without ``epochs`` that is broken off, these are not shown when it is iterated again.
    """
    return InputFunction(ShardFlow(shards, options))
