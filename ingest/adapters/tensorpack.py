"""Shards as a tensorpack DataFlow: tensorpack is imported here alone.

Importing tensorpack loads TensorFlow where it is installed, so nothing that worker processes need may stand here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

with redirect_stdout(sys.stderr):  # where it says that there is no TensorFlow
    from tensorpack.dataflow import DataFlow

from ingest.loading.loader import Loader
from ingest.loading.options import LoaderOptions
from ingest.system.validation import takes


class ShardFlow(DataFlow):
    """The batches of a Loader: datapoints [images, labels], as ``dataflow`` describes them.

    A copy, such as each process of tensorpack's runners has, counts its iterations by itself, from where the original
    was.
    """

    def __init__(self, loader: Loader):
        self.loader = loader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "loader": copy(self.loader)}

    def reset_state(self) -> None:
        """Nothing: tensorpack calls this once in each process, and the next iteration goes on all the same."""

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return (list(batch) for batch in self.loader)

    def __len__(self) -> int:
        """Batches in the next iteration; where they never end, whole batches in an epoch, one at least."""
        options = self.loader.options
        return max(1, self.loader.records // options.batch_size) if options.num_epochs is None else len(self.loader)


@takes(LoaderOptions)
def dataflow(shards: str | Path, options: LoaderOptions) -> ShardFlow:
    """A tensorpack DataFlow of the dataset in the folder ``shards``.

    The options, the batches, what iterations follow each other, and the errors are those of ``ingest.Loader``. A
    datapoint is a list: [images, labels], uint8 [N, S, S, C] and int32 [N], and then the columns that ``fields`` names.
    ``ShardFlow.loader`` is the Loader, with its ``state_dict``.
    """
    return ShardFlow(Loader.of(shards, options))
