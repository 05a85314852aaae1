"""ingest: a pile of photographs becomes a training run.

    import ingest

    ingest.build_shards("train", "shards", format="tfrecord")
    for images, labels in ingest.Loader("shards", batch_size=64, training=True, epochs=1):
        ...  # uint8 [64, 224, 224, 3], int32 [64]

The names below are loaded when first used: importing ingest loads no framework, no cv2 and no lmdb. dataflow needs
tensorpack, and input_fn TensorFlow: where one is missing, a ModuleNotFoundError says what installs it. The adapters for
PyTorch and JAX are ``ingest.adapters.torch`` and ``ingest.adapters.jax``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.adapters.tensorflow import input_fn
    from ingest.adapters.tensorpack import dataflow
    from ingest.dataset.dataset import Dataset
    from ingest.dataset.manifest import Manifest, Shard, load_manifest
    from ingest.errors import IngestError
    from ingest.loading.loader import Loader
    from ingest.packing.build import build_shards

__all__ = [
    "Dataset", "IngestError", "Loader", "Manifest", "Shard", "build_shards", "dataflow", "input_fn", "load_manifest",
]  # fmt: skip

_HOMES = {
    "Dataset": "ingest.dataset.dataset",
    "IngestError": "ingest.errors",
    "Loader": "ingest.loading.loader",
    "Manifest": "ingest.dataset.manifest",
    "Shard": "ingest.dataset.manifest",
    "build_shards": "ingest.packing.build",
    "dataflow": "ingest.adapters.tensorpack",
    "input_fn": "ingest.adapters.tensorflow",
    "load_manifest": "ingest.dataset.manifest",
}


def __getattr__(name: str) -> object:
    if name == "adapters":
        return importlib.import_module("ingest.adapters")
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ingest-toolkit")
        except PackageNotFoundError as error:
            raise AttributeError("this copy of ingest is not installed, and so has no version") from error
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from ingest.system import frameworks

        if error.name is None or not frameworks.is_framework(error.name):
            raise
        raise ModuleNotFoundError(f"ingest.{name} {frameworks.needs(error.name)}", name=error.name) from error


def __dir__() -> list[str]:
    return __all__
