"""From batches that Python makes to TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from ingest.loading.options import LoaderOptions


def dataset_of(
    batches: Callable[[], Iterable[Sequence[np.ndarray]]], options: LoaderOptions, channels: int
) -> tf.data.Dataset:
    """The dataset of what ``batches()`` gives: images, uint8 [N, S, S, ``channels``], and labels, int32 [N].

    N is known to the graph where all batches are whole. Nothing is made ready ahead.
    """
    rows, size = options.batch_size if options.num_epochs is None else None, options.image_size
    signature = (tf.TensorSpec([rows, size, size, channels], tf.uint8), tf.TensorSpec([rows], tf.int32))
    dataset = tf.data.Dataset.from_generator(lambda: map(tuple, batches()), output_signature=signature)
    tf_options = tf.data.Options()
    # There is nothing to tune, and the tuner's sleeping thread would hold up the end of a training.
    tf_options.autotune.enabled = False
    return dataset.with_options(tf_options)
