"""ingest: a pile of photographs becomes a training run.

    import ingest

    ingest.build_shards("train", "shards", format="tfrecord")
    for images, labels in ingest.dataflow("shards", batch_size=64, training=True, epochs=1):
        ...  # uint8 [64, 224, 224, 3], int32 [64]

The names below are loaded when first used: importing ingest loads no TensorFlow, tensorpack, cv2 or lmdb.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.build import build_shards
    from ingest.errors import IngestError
    from ingest.feed import input_fn
    from ingest.manifest import Manifest, Shard, load_manifest
    from ingest.stream import dataflow

__all__ = ["IngestError", "Manifest", "Shard", "build_shards", "dataflow", "input_fn", "load_manifest"]

_HOMES = {
    "IngestError": "errors",
    "Manifest": "manifest",
    "Shard": "manifest",
    "build_shards": "build",
    "dataflow": "stream",
    "input_fn": "feed",
    "load_manifest": "manifest",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"ingest.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
