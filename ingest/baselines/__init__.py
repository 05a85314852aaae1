"""The ways in which people usually load such shards, as other feeds of the same training, to be compared with ours.

naive.py       Python's own loop with Pillow
tf_data.py     tf.data, as its performance guide recommends
tensorpack.py  tensorpack, as its tutorial recommends

Each has ``dataset(shards, options)``, which gives a ``tf.data.Dataset`` of (images, labels), and does with the options
what such a loader can. Without ``shuffle`` all of them train in packed order, and none takes a share of the batches, so
``every`` has no effect; what the seed, the first batch and the workers mean to each is said there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.dataset.dataset import Dataset
from ingest.errors import OptionError, RecordError
from ingest.loading.options import BatchOptions

if TYPE_CHECKING:
    import tensorflow as tf

BASELINES = ("naive", "tf.data", "tensorpack")


def input_fn(name: str, shards: str | Path, options: BatchOptions) -> Callable[[], tf.data.Dataset]:
    """An input function of the loader ``name``, one of NAMES: called, it gives a dataset of (images, labels).

    Images are uint8 [N, S, S, C], labels int32 [N]. Training is without end where ``options.epochs`` is None, in whole
    batches; evaluation gives every record once, in packed order. Raises OptionError where the loader cannot read such
    shards, ManifestError or RecordError where there are none, or no records; the library is loaded now, too.
    """
    check(name, Dataset(shards))
    module = importlib.import_module(f"{__name__}.{name.replace('.', '_')}")
    return partial(module.dataset, shards, options)


def check(name: str, dataset: Dataset) -> None:
    """Raise OptionError unless there is a loader ``name`` that can read ``dataset``, RecordError where it is empty."""
    if name not in BASELINES:
        raise OptionError(f"{name!r} is no loader: give one of {', '.join(BASELINES)}")
    if not len(dataset):
        raise RecordError(f"{dataset.folder}: the dataset has no records", path=dataset.folder)
    if name == "tf.data" and dataset.manifest.format != "tfrecord":
        raise OptionError(
            f"{dataset.folder}: tf.data reads tfrecord, and these shards are {dataset.manifest.format}: "
            f"make others of them with 'ingest convert {dataset.folder} OUT --format tfrecord'",
            path=dataset.folder,
        )
