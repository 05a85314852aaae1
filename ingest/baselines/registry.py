"""The baselines by name, and what each can do.

Each has a module with ``dataset(shards, options)``, which gives a ``tf.data.Dataset`` of (images, labels), and does
with the options what such a loader can. What the seed, the first batch and the workers mean to each is said there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ingest.dataset.dataset import Dataset
from ingest.errors import OptionError, RecordError
from ingest.loading.options import LoaderOptions
from ingest.system import frameworks

if TYPE_CHECKING:
    import tensorflow as tf


class Baseline(NamedTuple):
    """A way to load: its module, the options that it honours besides COMMON, the formats that it reads, or all, and the
    frameworks that it is made of."""

    module: str
    honours: frozenset[str]
    formats: frozenset[str] | None = None
    frameworks: tuple[str, ...] = ("tensorflow",)


COMMON = frozenset({"batch_size", "training", "image_size", "seed", "workers", "start_batch", "epochs", "shuffle"})
"""Options that every baseline takes. One that is neither here nor among those it honours is refused."""

_CROP_AND_FLIP = frozenset({"augment", "min_crop_area"})

OURS = "ingest"
"""The name of this package's own loader beside these."""

BASELINES = {
    "naive": Baseline("naive", _CROP_AND_FLIP),
    "tf.data": Baseline("tf_data", _CROP_AND_FLIP, frozenset({"tfrecord"})),
    "tensorpack": Baseline("tensorpack", _CROP_AND_FLIP, frameworks=("tensorflow", "tensorpack")),
}


def input_fn(name: str, shards: str | Path, options: LoaderOptions) -> Callable[[], tf.data.Dataset]:
    """An input function of the loader ``name``, one of BASELINES: called, it gives a dataset of (images, labels).

    Images are uint8 [N, S, S, C], labels int32 [N]. Training is without end where ``options.epochs`` is None, in whole
    batches; evaluation gives every record once, in packed order. Raises OptionError where the loader cannot read such
    shards, or does not know an option; ManifestError or RecordError where there are none, or no records. The library is
    loaded now, too.
    """
    check(name, Dataset(shards), options)
    module = importlib.import_module(f"{__package__}.{BASELINES[name].module}")
    return partial(module.dataset, shards, options)


def check(name: str, dataset: Dataset, options: LoaderOptions) -> None:
    """Raise OptionError unless there is a loader ``name`` that can read ``dataset`` and honours ``options``.

    Also where its frameworks are not installed. Raises RecordError where the dataset is empty.
    """
    if name not in BASELINES:
        raise OptionError(f"{name!r} is no loader: give one of {', '.join(BASELINES)}")
    if not len(dataset):
        raise RecordError(f"{dataset.folder}: the dataset has no records", path=dataset.folder)
    baseline, format = BASELINES[name], dataset.manifest.format
    if baseline.formats and format not in baseline.formats:
        wanted = sorted(baseline.formats)[0]
        raise OptionError(
            f"{dataset.folder}: {name} reads {', '.join(sorted(baseline.formats))}, and these shards are {format}: "
            f"make others of them with 'ingest convert {dataset.folder} OUT --format {wanted}'",
            path=dataset.folder,
        )
    for field in fields(options):
        is_default = getattr(options, field.name) == field.default
        if not is_default and field.name not in COMMON | baseline.honours:
            raise OptionError(f"{field.name}: the loader {name} does not know it: leave it out, or load with ingest")
    if absent := frameworks.missing(*baseline.frameworks):
        raise OptionError(f"the loader {name} {frameworks.needs(*absent)}")
