"""From a Loader to JAX: batches as arrays on the devices, ahead of use."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from ingest.errors import OptionError
from ingest.loading.batches import Position
from ingest.loading.columns import tuple_of
from ingest.loading.loader import Loader
from ingest.system.ahead import ahead


def batches(loader: Loader, sharding: Sharding | None = None) -> Generator[Any, None, None]:
    """The batches of an iteration of ``loader`` as arrays of JAX, on the devices ahead of use.

    An element is a named tuple (images, labels): uint8 [N, S, S, C] and int32 [N]; the columns that the loader's
    ``fields`` name follow, text as NumPy's arrays.

    They lie as ``sharding`` says, of which all columns take how it divides the first axis; by default on JAX's default
    device. Where it spans the devices of several processes, each process loads its own rows: the arrays have the rows
    of all, the same ones in any number of processes, if in another order.

    The loader's ``state_dict`` counts what was given, not what was taken ahead. Raises OptionError where batches, the
    last one of the iteration included, cannot be divided as ``sharding`` says.
    """
    sharding = _of_rows(sharding)
    share = _share(loader, sharding)
    own = loader.shard(share.process, share.processes) if share.processes > 1 else loader
    default = jax.config.jax_default_device  # of this thread: another one's may differ
    return own.hand_out(ahead(_copies(own, sharding, share, default)))


class _Share(NamedTuple):
    """Which part of each batch a process has."""

    process: int
    processes: int


def _copies(
    loader: Loader, sharding: Sharding | None, share: _Share, default: Any
) -> Generator[tuple[Any, Position], None, None]:
    for batch, after in loader.numbered():
        with jax.default_device(default):
            there = {name: _on_devices(column, sharding, share) for name, column in batch.asdict().items()}
        yield tuple_of(tuple(there))(**there), after


def _on_devices(column: np.ndarray, sharding: Sharding | None, share: _Share) -> Any:
    if column.dtype == object:
        return column
    if sharding is None or sharding.is_fully_addressable:
        # It may not copy, but refers to the column's memory then, which is the loader's again only when nobody does.
        return jax.device_put(column, sharding)
    shape = (len(column) * share.processes, *column.shape[1:])
    return jax.make_array_from_process_local_data(sharding, column, shape)


def _of_rows(sharding: Sharding | None) -> Sharding | None:
    """How ``sharding`` divides the first axis alone, which all columns have."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:1]), memory_kind=sharding.memory_kind)


def _share(loader: Loader, sharding: Sharding | None) -> _Share:
    """This process's part of each batch. Raises OptionError where ``sharding`` cannot divide the batches."""
    if sharding is None:
        return _Share(0, 1)
    options = loader.options
    if options.num_shards > 1 and not sharding.is_fully_addressable:
        raise OptionError(
            f"the loader has num_shards {options.num_shards} of its own: give that, or a sharding over processes"
        )
    own_last = len(range(options.shard_index, options.last_rows(loader.records), options.num_shards))
    for rows in filter(None, (own_last, options.rows)):
        parts = _rows_by_process(sharding, rows, options.image_size, loader.channels)
    if jax.process_index() not in parts:
        raise OptionError(f"{sharding}: none of its devices is this process's: call this where some are")
    distinct = sorted(set(parts.values()))
    is_even = all(len(part) * len(distinct) == options.rows for part in distinct)
    if not is_even or len(set().union(*distinct)) < options.rows:
        raise OptionError(f"{sharding}: processes have unequal parts of a batch, or some in common: divide it evenly")
    return _Share(distinct.index(parts[jax.process_index()]), len(distinct))


def _rows_by_process(sharding: Sharding, rows: int, size: int, channels: int) -> dict[int, tuple[int, ...]]:
    """The rows of a batch of so many that each process has."""
    shape = rows, size, size, channels
    try:
        indices = sharding.devices_indices_map(shape)
    except ValueError as error:
        raise OptionError(
            f"a batch of {rows} images cannot be divided: {error}: give a batch_size that can, and where the last "
            "batch of an iteration is smaller, no sharding, or no epochs"
        ) from error
    found: dict[int, set[int]] = {}
    for device, index in indices.items():
        found.setdefault(device.process_index, set()).update(range(*index[0].indices(rows)))
    return {process: tuple(sorted(numbers)) for process, numbers in found.items()}
