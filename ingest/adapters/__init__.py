"""Batches for the frameworks, a module for each, which alone imports its framework.

tensorpack.py  a DataFlow
tensorflow.py  an input function for tf.estimator: a tf.data.Dataset, for Keras too
torch.py       tensors, on the device ahead of use: an IterableDataset
jax.py         arrays, on one device or over a sharding, ahead of use
"""

from __future__ import annotations

import importlib
from types import ModuleType

_MODULES = ("jax", "tensorflow", "tensorpack", "torch")


def __getattr__(name: str) -> ModuleType:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return list(_MODULES)
