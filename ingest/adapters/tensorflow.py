"""From a Loader to TensorFlow: for tf.estimator, and as a tf.data.Dataset, for Keras too."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import tensorflow as tf

from ingest import sampler
from ingest.errors import IngestError, OptionError
from ingest.loading.columns import COLUMNS, Layout
from ingest.loading.loader import Loader
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

    def __init__(self, loader: Loader):
        self._loader = loader
        self._shares: dict[tuple[int, int], Loader] = {}
        self.failure: IngestError | None = None

    def __call__(self, input_context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        """The dataset of (images, labels).

        With several devices, which TensorFlow tells by ``input_context``, it is this host's share, disjoint from those
        of others: a batch is divided among hosts, and a host's part among its devices, one element each.
        """
        loader, parts = self._loader, 1
        if input_context is not None:
            loader, parts = self._share(input_context)
        options = loader.options
        rows = options.rows // parts if options.num_epochs is None else None
        signature = _elements_of(_signature(options, rows, loader.channels))
        dataset = tf.data.Dataset.from_generator(lambda: self._batches(loader, parts), output_signature=signature)
        if options.num_epochs is None:
            dataset = dataset.repeat()  # which it never comes to; but it tells that there is no end
        elif (elements := _cardinality(loader, parts)) is not None:
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(elements))
        dataset = dataset.prefetch(_PREFETCHED * parts)
        tf_options = tf.data.Options()
        # There is nothing to tune, and the tuner's thread, which sleeps for up to a minute, would hold up the end of a
        # training by as long.
        tf_options.autotune.enabled = False
        return dataset.with_options(tf_options)

    def _batches(self, loader: Loader, parts: int) -> Iterator[Any]:
        # Whole batches, or a device's part of them: this is run by Python, one call each.
        try:
            for batch in loader:
                for piece in _pieces(len(batch.images), parts):
                    yield _elements_of({name: column[piece] for name, column in batch.asdict().items()})
        except IngestError as error:
            self.failure = error
            raise

    def _share(self, context: tf.distribute.InputContext) -> tuple[Loader, int]:
        """A host's share of the batches, and the number of devices that it is for."""
        hosts, host, replicas = context.num_input_pipelines, context.input_pipeline_id, context.num_replicas_in_sync
        if self._loader.options.rows % replicas:
            raise OptionError(f"batches of {self._loader.options.rows} cannot be divided by {replicas}")
        if (host, hosts) not in self._shares:
            # A copy, which counts its own iterations: one process may read the shares of several hosts in turn.
            self._shares[host, hosts] = copy(self._loader.shard(host, hosts))
        return self._shares[host, hosts], replicas // hosts


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


def _cardinality(loader: Loader, parts: int) -> int | None:
    """How many elements each iteration has, in batches of so many ``parts`` each.

    None where iterations differ: where the first one of training begins late.
    """
    options, records = loader.options, loader.records
    if options.training and options.start_batch:
        return None
    total = options.num_batches(records, options.start_batch)
    if not total:
        return 0
    # Only the very last may be smaller, and then have fewer parts.
    last = sampler.spans(records, options.batch_size, options.start_batch + total - 1, options.num_epochs)
    images = sum(span.length for span in sampler.share(last, options.shard_index, options.num_shards))
    return (total - 1) * parts + len(_pieces(images, parts))


def _pieces(images: int, parts: int) -> list[slice]:
    """A batch of so many images cut into equal parts, fewer where there are not enough images."""
    size = max(1, -(-images // parts))
    return [slice(start, start + size) for start in range(0, images, size)]


@takes(LoaderOptions)
def input_fn(shards: str | Path, options: LoaderOptions) -> InputFunction:
    """An input function for ``tf.estimator``: called, it gives a ``tf.data.Dataset`` of (images, labels).

    The options and the batches are those of ``ingest.Loader``; errors in the arguments, or in what the dataset's
    folder holds, are raised now. Images are uint8 [N, S, S, C], labels int32 [N]; N is known to the graph where all
    batches are whole. With ``fields`` the dataset is of ({"images": images, NAME: column, ...}, labels); text is
    tf.string. The dataset's cardinality is known, or infinite, but where training with ``epochs`` begins at a
    ``start_batch``, so that its first iteration is shorter than those that follow.

    What ``ingest.Loader`` says of iterations is true of all datasets that this makes, taken together. TensorFlow takes
    some batches ahead: of training without ``epochs`` that is broken off, these are not shown in the next iteration.
    """
    return InputFunction(Loader.of(shards, options))
