"""Which tests can run here: most need no framework, some need TensorFlow, and what trains needs TensorFlow 2.15."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from ingest.system.frameworks import missing


def _trains() -> bool:
    try:
        return not missing("tensorflow") and version("tensorflow").startswith("2.15.")
    except PackageNotFoundError:
        return False


TRAINS = _trains()

needs_training = pytest.mark.skipif(not TRAINS, reason="train.py needs TensorFlow 2.15")
needs_tensorflow = pytest.mark.skipif(bool(missing("tensorflow")), reason="needs TensorFlow")
needs_tensorpack = pytest.mark.skipif(bool(missing("tensorpack")), reason="needs tensorpack")

# Of models, its table of networks and its error need nothing.
_NEED_TRAINING = re.compile(
    r"^(?:import tensorflow\.compat|from support\.trainings|from models(?! import (?:NETWORKS|ModelError)$))",
    re.MULTILINE,
)
_NEED_TENSORFLOW = re.compile(r"^import tensorflow as tf$", re.MULTILINE)


def left_out(folder: Path) -> list[str]:
    """The files of tests in ``folder`` that import, at their head, what is not installed here."""
    needed = [] if TRAINS else [_NEED_TRAINING]
    needed += [_NEED_TENSORFLOW] if missing("tensorflow") else []
    texts = {path.name: path.read_text() for path in sorted(folder.glob("test_*.py"))}
    return [name for name, text in texts.items() if any(need.search(text) for need in needed)]
