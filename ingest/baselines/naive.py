"""The naive iterator: one process, one record after the other, each decoded whole by Pillow.

It has no workers, and makes nothing ready while the network is busy.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from ingest import sampler
from ingest.baselines import from_generator
from ingest.dataset.dataset import Dataset
from ingest.jpeg import Region
from ingest.loading import augment
from ingest.loading.options import LoaderOptions
from ingest.record import RAW, Record
from ingest.sampler import Span


def dataset(shards: str | Path, options: LoaderOptions) -> tf.data.Dataset:
    """The dataset of (images, labels), in our order and from ``options.start_batch`` on.

    The crops and flips are ours, too: but for ``shuffle``, the batches differ from ours by the decoder's and the
    resize's rounding alone. ``options.workers`` has no effect.
    """
    opened = Dataset(shards)
    return from_generator.dataset_of(lambda: _batches(opened, options), options, opened.manifest.channels)


def _batches(dataset: Dataset, options: LoaderOptions) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for spans in sampler.batches(len(dataset), options.batch_size, options.start_batch, options.num_epochs):
        images, labels = zip(*(row for span in spans for row in _rows(dataset, options, span)))
        yield np.stack(images), np.array(labels, np.int32)


def _rows(dataset: Dataset, options: LoaderOptions, span: Span) -> Iterator[tuple[np.ndarray, int]]:
    uniforms = sampler.random_draws(options.seed, *span).tolist()
    for number, record_uniforms in zip(_numbers(len(dataset), options, span), uniforms):
        record = dataset[number]
        image = _decode(record).convert("L" if dataset.manifest.channels == 1 else "RGB")
        view = _view(image, options, record_uniforms)
        yield np.asarray(view).reshape(options.image_size, options.image_size, -1), record.label


def _numbers(n: int, options: LoaderOptions, span: Span) -> list[int]:
    part = slice(span.first, span.first + span.length)
    if options.training and options.shuffle:
        return sampler.epoch_order(n, options.seed, span.epoch)[part].tolist()
    return list(range(n)[part])


def _decode(record: Record) -> Image.Image:
    if record.format == RAW:
        mode = "L" if record.channels == 1 else "RGB"
        return Image.frombytes(mode, (record.width, record.height), bytes(record.encoded))
    return Image.open(io.BytesIO(record.encoded))


def _view(image: Image.Image, options: LoaderOptions, uniforms: list[float]) -> Image.Image:
    size = options.image_size
    if not options.training:
        return _resized(image, augment.eval_view(image.height, image.width, size).region, size)
    view = augment.train_view(image.height, image.width, size, uniforms, options)
    resized = _resized(image, view.region, size)
    return resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.is_flipped else resized


def _resized(image: Image.Image, region: Region, size: int) -> Image.Image:
    box = (region.left, region.top, region.left + region.width, region.top + region.height)
    # Not resize(), which averages where it shrinks: the network is to see what it sees with the other loaders.
    return image.transform((size, size), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
