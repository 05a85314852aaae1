"""How fast a network trains where no loader can limit it: measured by train.py, in a process of its own."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import closing
from pathlib import Path

from ingest.errors import OptionError, WorkerError, fields_of
from ingest.profiling.result import ProfileOptions
from ingest.system.worker_pool import Handler, Worker

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds this package: a checkout, or site-packages."""

_NAME = 'name = "ingest-toolkit"'


def device_rate(model: str, options: ProfileOptions, classes: int) -> float:
    """Images/s of training ``model`` on one batch that stays on the device: the upper bound of the network alone.

    Measured by ``train.py --synthetic``. Raises OptionError where there is no such network, or none for such images, or
    no train.py, and another IngestError where it fails.
    """
    words = ["--model", model, "--classes", classes, "--batch-size", options.batch_size]
    words += ["--image-size", options.image_size]
    # All cores are for this one process. What TensorFlow prints is not for the user.
    with closing(Worker(_make_trainer, find_checkout(ROOT), environment={}, is_quiet=True)) as worker:
        worker.send(list(map(str, words)))
        try:
            return worker.receive()
        except WorkerError as error:
            raise WorkerError(f"training {model}: {error}", **fields_of(error)) from error


def find_checkout(root: Path) -> Path:
    """The folder ``root`` if it is a checkout of this project. Raises OptionError where it is not.

    In site-packages a file train.py beside this package would be somebody else's.
    """
    project = root / "pyproject.toml"
    if not (project.is_file() and (root / "train.py").is_file() and _NAME in project.read_text().splitlines()):
        raise OptionError(
            "--model needs train.py, which is not in the installed package but in the project's checkout: "
            "make install there, and profile with its .venv/bin/ingest"
        )
    return root


def _make_trainer(checkout: Path) -> Handler:
    """What measures; the handler of a worker process."""
    sys.path.insert(0, str(checkout))  # for models, which train.py imports
    spec = importlib.util.spec_from_file_location("train", checkout / "train.py")
    assert spec is not None and spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    sys.modules["train"] = train
    spec.loader.exec_module(train)
    return lambda words, progress: train.device_rate(words)
