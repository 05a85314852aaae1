#!/usr/bin/env python3
"""Our loader beside tf.data: the same files, the same task, the same minute.

The task is the training view of ImageNet: random resized crop to 224, bilinear without antialias, flip, uint8, batches
of 64. The loaders are measured in turn, several times over, and medians compared, because machines drift.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

import ingest
from ingest.batches import BatchOptions, batches
from ingest.synth import SynthOptions, synthesize
from ingest.views import AREA, ASPECT, TRIES

BATCH, SIZE = 64, 224
ROUNDS = 5


def main() -> None:
    """Build shards of the photographs, measure each loader on them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "photos", nargs="?", type=Path, help="a folder of CLASS/IMAGE files (default: 800 drawn pictures)"
    )
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: one a core")
    parser.add_argument("--seconds", type=float, default=4, help="for each loader in each of 5 rounds (default: 4)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = args.photos or draw(Path(folder) / "photos")
        shards = {name: Path(folder) / name for name in ("tfrecord", "lmdb")}
        for name, out in shards.items():
            ingest.build_shards(photos, out, format=name)
        rates = measure(
            {
                "ingest, tfrecord": ours(shards["tfrecord"], args.workers),
                "ingest, lmdb": ours(shards["lmdb"], args.workers),
                "tf.data": tf_data(shards["tfrecord"], args.workers),
            },
            args.seconds,
        )
    print(f"{args.workers} workers on {len(os.sched_getaffinity(0))} cores, batches of {BATCH} x {SIZE} x {SIZE} x 3")
    print(f"{'loader':<20}{'images/s':>10}{'x tf.data':>12}")
    for name, rate in rates.items():
        print(f"{name:<20}{rate:>10,.0f}{rate / rates['tf.data']:>12.2f}")


def draw(folder: Path) -> Path:
    """A photo set, where none was given."""
    synthesize(folder, SynthOptions(images=1000))
    return folder / "train"


def measure(loaders: dict[str, Iterator[Any]], seconds: float) -> dict[str, float]:
    """Median images/s of each loader."""
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(ROUNDS):
        for name, loader in loaders.items():
            # Not timed: what was made ready in the meantime, and the start of workers.
            for _ in range(20):
                next(loader)
            start, done = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                next(loader)
                done += BATCH
            rates[name].append(done / (time.perf_counter() - start))
            print(f"{name}: {rates[name][-1]:,.0f} images/s", file=sys.stderr)
    return {name: median(values) for name, values in rates.items()}


def ours(shards: Path, workers: int) -> Iterator[Any]:
    """Endless training batches of ours."""
    return batches(shards, BatchOptions(BATCH, training=True, image_size=SIZE, workers=workers))


def tf_data(shards: Path, workers: int) -> Iterator[Any]:
    """The same by tf.data as its guide recommends: parallel map of a fused decode and crop, AUTOTUNE, prefetch."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    dataset = (
        tf.data.Dataset.list_files(str(shards / "*.tfrecord"), seed=0)
        .interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
        .repeat()
        .shuffle(256, seed=0)
        .map(training_view, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(BATCH, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
    return iter(dataset.with_options(options))


def training_view(payload: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Image uint8 [SIZE, SIZE, 3] and label of a record."""
    record = tf.io.parse_single_example(
        payload,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    encoded = record["image/encoded"]
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(encoded),
        tf.zeros([1, 0, 4]),
        area_range=AREA,
        aspect_ratio_range=ASPECT,
        max_attempts=TRIES,
        use_image_if_no_bounding_boxes=True,
    )
    crop = tf.io.decode_and_crop_jpeg(encoded, tf.concat([begin[:2], size[:2]], 0), channels=3)
    image = tf.image.random_flip_left_right(tf.image.resize(crop, [SIZE, SIZE]))
    return tf.cast(image + 0.5, tf.uint8), tf.cast(record["image/class/label"], tf.int32)


if __name__ == "__main__":
    main()
