"""From a Loader to PyTorch: ready batches as tensors, on the device ahead of use."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.utils.data import IterableDataset, get_worker_info

from ingest.errors import OptionError
from ingest.loading.batches import Position
from ingest.loading.columns import Batch, tuple_of
from ingest.loading.loader import Loader
from ingest.system.ahead import ahead


class TorchBatches(IterableDataset[Any]):
    """What ``batches`` gives: an IterableDataset whose elements are whole batches.

    ``state_dict`` and ``load_state_dict`` are those of the Loader; batches that are only taken ahead do not count.
    """

    def __init__(self, loader: Loader, device: torch.device, rank: int | None, world_size: int | None):
        self._whole, self._device = loader, device
        self._given = rank, world_size

    @property
    def loader(self) -> Loader:
        """The Loader of this process's rows."""
        place = self._place()
        return self._whole if place == (0, 1) else self._whole.shard(*place)

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is not None:
            raise OptionError(
                "each worker process of a DataLoader would give all batches: give DataLoader num_workers=0; the "
                "loader has processes of its own, as many as its option workers says"
            )
        if self._device.type == "cpu":
            return (_tensors(batch) for batch in self.loader)
        if self._device.type == "cuda":
            return _from_stream(self.loader, _gpu(self._device))
        loader = self.loader
        copied = ((_to(self._device, _tensors(batch)), after) for batch, after in loader.numbered())
        return loader.hand_out(ahead(copied))

    def __len__(self) -> int:
        """Batches in a whole iteration, also where the next one begins late. Raises TypeError where they never end.

        Lightning asks once, and takes no more than that in any iteration.
        """
        options = self._whole.options
        total = options.num_batches(self._whole.records, first_batch=0)
        return len(self._whole) if total is None else total

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch comes from: see ``Loader.state_dict``."""
        return self._whole.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next iteration begin where ``state`` says: see ``Loader.load_state_dict``."""
        self._whole.load_state_dict(state)

    def _place(self) -> tuple[int, int]:
        """This process's rank and the number of processes, which may be known only once training begins."""
        rank, world_size = self._given
        if rank is not None and world_size is not None:
            return rank, world_size
        is_one_of_several = distributed.is_available() and distributed.is_initialized()
        if not is_one_of_several or self._whole.options.num_shards > 1:
            return 0, 1
        return distributed.get_rank(), distributed.get_world_size()


def batches(
    loader: Loader,
    device: torch.device | str | int | None = None,
    *,
    rank: int | None = None,
    world_size: int | None = None,
) -> TorchBatches:
    """The batches of ``loader`` as PyTorch's tensors: an IterableDataset of ready batches, to be iterated as it is.

    An element is a named tuple (images, labels): images are uint8 [N, C, S, S] in the memory format channels_last,
    labels int64 [N], as losses want them; the columns that the loader's ``fields`` name follow, text as lists of str.

    On the CPU (``device`` None) images lie in the memory that the loader filled, without a copy. For a GPU they are
    pinned, and copied on a stream of their own, ahead of use.

    ``rank`` and ``world_size`` say which rows of each batch are this process's. By default they are those of
    torch.distributed where that is initialised when an iteration begins, unless the loader has ``num_shards`` of its
    own; 0 and 1 give the whole batches to a process that is one of several.

    It goes into ``DataLoader(..., batch_size=None, num_workers=0)``, torchdata's StatefulDataLoader and Lightning. The
    loader's ``state_dict`` counts what was given, not what was taken ahead. Raises OptionError.
    """
    if (rank is None) != (world_size is None):
        raise OptionError("give rank and world_size together, or neither")
    if rank is not None and world_size is not None:
        if loader.options.num_shards > 1:
            raise OptionError(
                f"the loader has num_shards {loader.options.num_shards} of its own: give that, or rank and world_size"
            )
        loader.shard(rank, world_size)  # which checks them
    return TorchBatches(loader, torch.device("cpu" if device is None else device), rank, world_size)


def _tensors(batch: Batch) -> Any:
    """The columns as tensors in the same memory, images as [N, C, H, W]."""
    columns = batch.asdict()
    return tuple_of(tuple(columns))(*(_tensor(name, column) for name, column in columns.items()))


def _tensor(name: str, column: np.ndarray) -> Any:
    if column.dtype == object:
        return column.tolist()
    if name == "images":
        return torch.from_numpy(column).permute(0, 3, 1, 2)
    return torch.from_numpy(column.astype(np.int64, copy=False))


def _gpu(device: torch.device) -> torch.device:
    """The same, by its number: which one is current is a matter of each thread."""
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream for copies: one for all iterations, because memory that was used on one is kept for it."""
    return torch.cuda.Stream(device)


def _from_stream(loader: Loader, device: torch.device) -> Generator[Any, None, None]:
    """The loader's batches, copied to a GPU on a stream of their own, which the current stream waits for."""
    for batch, copied in loader.hand_out(ahead(_copies(loader, device, _stream(device)))):
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for tensor in batch:
            if isinstance(tensor, torch.Tensor):
                tensor.record_stream(current)  # its memory was allocated for the other stream
        yield batch


def _copies(
    loader: Loader, device: torch.device, stream: torch.cuda.Stream
) -> Generator[tuple[tuple[Any, torch.cuda.Event], Position], None, None]:
    """The loader's batches on the GPU, each with the event after which they are there; made in a thread of its own."""
    torch.cuda.set_device(device)  # this thread's: or it would begin to use the first GPU, too
    for batch, after in loader.numbered():
        with torch.cuda.stream(stream):
            there, copied = _to(device, _tensors(batch)), stream.record_event()
        yield (there, copied), after


def _to(device: torch.device, batch: Any) -> Any:
    return batch._make(_moved(device, column) for column in batch)


def _moved(device: torch.device, column: Any) -> Any:
    if not isinstance(column, torch.Tensor):
        return column
    if device.type == "cuda":
        return column.pin_memory().to(device, non_blocking=True)
    return column.to(device)
