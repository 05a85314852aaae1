"""tf.data, as its performance guide recommends: shards read in parallel, a shuffle buffer, a parallel map that decodes
no more of a JPEG than the crop, and prefetching, all tuned by itself (https://www.tensorflow.org/guide/data_performance).
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from ingest.dataset.dataset import Dataset
from ingest.loading import augment
from ingest.loading.options import LoaderOptions
from ingest.record import RAW

_SHUFFLED = 1024
"""Records in the shuffle buffer: several batches. Records are packed in random order, so more would only take memory,
a gigabyte for the 10,000 of TensorFlow's own ImageNet example."""

_FIELDS = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/format": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    "image/height": tf.io.FixedLenFeature([], tf.int64),
    "image/width": tf.io.FixedLenFeature([], tf.int64),
    "image/channels": tf.io.FixedLenFeature([], tf.int64),
}


def dataset(shards: str | Path, options: LoaderOptions) -> tf.data.Dataset:
    """The dataset of (images, labels) of TFRecord shards.

    In training an epoch is a permutation of all records, drawn from ``options.seed``; records mix within the shards
    that are read at once and the buffer. It begins anew whatever ``options.start_batch`` is. Crops and flips are
    TensorFlow's own random numbers. ``options.workers`` are threads, by default or with 0 as many as TensorFlow has.
    """
    opened = Dataset(shards)
    channels = opened.manifest.channels
    records = _records([str(opened.folder / shard.name) for shard in opened.manifest.shards], options)
    tf_options = tf.data.Options()
    if options.workers:
        tf_options.threading.private_threadpool_size = options.workers
    return (
        records.repeat(options.num_epochs)
        .map(lambda payload: _example(payload, options, channels), num_parallel_calls=tf.data.AUTOTUNE)
        .batch(options.batch_size, drop_remainder=options.num_epochs is None)
        .prefetch(tf.data.AUTOTUNE)
        .with_options(tf_options)
    )


def _records(paths: list[str], options: LoaderOptions) -> tf.data.Dataset:
    """The payloads of one epoch."""
    if not (options.training and options.shuffle):
        return tf.data.TFRecordDataset(paths)
    return (
        tf.data.Dataset.from_tensor_slices(paths)
        .shuffle(len(paths), options.seed)
        .interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
        .shuffle(_SHUFFLED, options.seed)
    )


def _example(payload: tf.Tensor, options: LoaderOptions, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """What a payload shows: a view, uint8 [S, S, ``channels``], and its label, int32."""
    record = tf.io.parse_single_example(payload, _FIELDS)
    is_random = options.training and options.augment
    window = _random_window(record, options) if is_random else _centre_window(record, options.image_size)
    pixels = tf.cond(
        tf.equal(record["image/format"], RAW),  # in a graph of tf.estimator, == would compare the objects
        lambda: _slice_raw(record, window, channels),
        lambda: tf.io.decode_and_crop_jpeg(record["image/encoded"], window, channels=channels),
    )
    view = tf.image.resize(tf.ensure_shape(pixels, [None, None, channels]), [options.image_size] * 2)
    if is_random:
        view = tf.image.random_flip_left_right(view)
    return tf.cast(view + 0.5, tf.uint8), tf.cast(record["image/class/label"], tf.int32)


def _random_window(record: dict[str, tf.Tensor], options: LoaderOptions) -> tf.Tensor:
    """Top, left, height and width of a random resized crop, int32 [4]; of the whole image if no try fits."""
    corner, size, _ = tf.image.sample_distorted_bounding_box(
        tf.stack([record["image/height"], record["image/width"], record["image/channels"]]),
        tf.zeros([1, 0, 4]), min_object_covered=0.0, aspect_ratio_range=augment.ASPECT,
        area_range=(options.min_crop_area, augment.AREA[1]), max_attempts=augment.TRIES,
        use_image_if_no_bounding_boxes=True,
    )  # fmt: skip
    return tf.cast(tf.concat([corner[:2], size[:2]], 0), tf.int32)


def _centre_window(record: dict[str, tf.Tensor], size: int) -> tf.Tensor:
    """The same of the square of which the evaluation view of side ``size`` is made: what augment.centre_crop says."""
    whole = tf.cast(tf.stack([record["image/height"], record["image/width"]]), tf.int32)
    short = tf.reduce_min(whole)
    side = tf.cast(tf.round(tf.cast(short, tf.float64) / augment.EVALUATION_SCALE), tf.int32)
    sides = tf.where(tf.reduce_all(tf.equal(whole, size)), whole, tf.maximum(1, [side, side]))
    return tf.concat([(whole - sides) // 2, sides], 0)


def _slice_raw(record: dict[str, tf.Tensor], window: tf.Tensor, channels: int) -> tf.Tensor:
    """The pixels of ``window`` of a record that is stored as pixels; grey becomes RGB where ``channels`` is 3."""
    shape = [record["image/height"], record["image/width"], record["image/channels"]]
    pixels = tf.reshape(tf.io.decode_raw(record["image/encoded"], tf.uint8), shape)
    top, left, height, width = tf.unstack(window)
    return tf.broadcast_to(pixels[top : top + height, left : left + width], [height, width, channels])
