"""How fast a network trains where no loader can limit it: measured by train.py, in a process of its own."""

from __future__ import annotations

import importlib
from contextlib import closing

from ingest.errors import WorkerError, fields_of
from ingest.profiling.result import ProfileOptions
from ingest.system.worker_pool import Handler, Worker


def device_rate(model: str, options: ProfileOptions, classes: int) -> float:
    """Images/s of training ``model`` on one batch that stays on the device: the upper bound of the network alone.

    Measured by ``train.py --synthetic``. Raises OptionError where there is no such network, or none for such images,
    and another IngestError where it fails.
    """
    words = ["--model", model, "--classes", classes, "--batch-size", options.batch_size]
    words += ["--image-size", options.image_size]
    # All cores are for this one process. What TensorFlow prints is not for the user.
    with closing(Worker(_make_trainer, environment={}, is_quiet=True)) as worker:
        worker.send(list(map(str, words)))
        try:
            return worker.receive()
        except WorkerError as error:
            raise WorkerError(f"training {model}: {error}", **fields_of(error)) from error


def _make_trainer() -> Handler:
    """What measures; the handler of a worker process, which imports train.py by the paths of its parent."""
    train = importlib.import_module("train")  # which imports this package, not the other way round
    return lambda words, progress: train.device_rate(words)
