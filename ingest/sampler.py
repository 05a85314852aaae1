"""Which record comes when, and its random numbers: pure functions of a seed. No shuffle state exists anywhere.

All randomness is Philox4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011), whose key is
(seed, epoch) and whose counter is the position: the numbers that belong to a record in an epoch are found without
drawing those before it. Only raw 64-bit output is used, which NumPy promises not to change between releases.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

DRAWS = 44
"""Random numbers a record has in an epoch: ten tries of four for the crop and one for the flip, and three to fill the
last counter step, which gives four."""

MAX_SEED = 2**64 - 1

# The counter's highest word keeps the three uses of one seed apart.
_PACKING, _EPOCH, _DRAWS = 0, 1, 2


class Span(NamedTuple):
    """So many positions of one epoch, each ``step`` after the one before."""

    epoch: int
    first: int
    length: int
    step: int = 1

    @property
    def positions(self) -> range:
        """The positions themselves."""
        return range(self.first, self.first + self.length * self.step, self.step)


def packing_order(n: int, seed: int) -> np.ndarray:
    """The order in which a source's ``n`` samples are packed: a permutation of ``range(n)``, int64 [n]."""
    return _permutation(n, seed, 0, _PACKING)


@lru_cache(maxsize=2)  # an epoch and, across its end, the next: 8 bytes a record each
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch of training sees ``n`` records: a permutation of ``range(n)``, int64 [n]."""
    order = _permutation(n, seed, epoch, _EPOCH)
    order.flags.writeable = False  # it is shared by all who ask for it
    return order


def random_draws(seed: int, epoch: int, first: int, count: int, step: int = 1) -> np.ndarray:
    """Random numbers of ``count`` positions of an epoch: ``first``, ``first + step``, and so on; of ``*span``.

    Returns float64 [count, DRAWS], uniform in [0, 1). A row depends on (seed, epoch, position) alone.
    """
    raw = _raw(_philox(seed, epoch, first * DRAWS // 4, _DRAWS), count, step)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _raw(philox: np.random.Philox, count: int, step: int) -> np.ndarray:
    if step == 1:
        return philox.random_raw(count * DRAWS).reshape(count, DRAWS)
    raw = np.empty((count, DRAWS), np.uint64)
    for row in raw:
        row[:] = philox.random_raw(DRAWS)
        philox.advance((step - 1) * DRAWS // 4)  # the counter, whose every step gives four numbers
    return raw


def spans(n: int, batch_size: int, step: int, epochs: int | None) -> list[Span]:
    """The positions of batch ``step``, split where an epoch of ``n`` records ends; empty past the last epoch.

    Batches run on across the end of an epoch: batch ``step`` begins at position ``step * batch_size`` of the whole
    sequence. Only the last batch of a finite number of epochs may hold fewer than ``batch_size``.
    """
    position = step * batch_size
    end = position + batch_size
    if epochs is not None:
        end = min(end, epochs * n)
    result = []
    while position < end:
        epoch, first = divmod(position, n)
        length = min(end - position, n - first)
        result.append(Span(epoch, first, length))
        position += length
    return result


def batches(n: int, batch_size: int, start: int, epochs: int | None) -> Iterator[list[Span]]:
    """The spans of batch ``start``, of the next one, and so on; endless if ``epochs`` is None."""
    step = start
    while batch := spans(n, batch_size, step, epochs):
        yield batch
        step += 1


def share(batch: list[Span], index: int, count: int) -> list[Span]:
    """The rows ``index``, ``index + count``, ... of a batch: of ``count`` processes, each has its own."""
    result, row = [], 0  # the row of the batch that a span begins with
    for span in batch:
        rows = span.positions[(index - row) % count :: count]
        if rows:
            result.append(Span(span.epoch, rows[0], len(rows), rows.step))
        row += span.length
    return result


def _permutation(n: int, seed: int, epoch: int, use: int) -> np.ndarray:
    # Sorting raw numbers rather than Generator.permutation, whose algorithm NumPy may change.
    return np.argsort(_philox(seed, epoch, 0, use).random_raw(n), kind="stable")


def _philox(seed: int, epoch: int, counter: int, use: int) -> np.random.Philox:
    return np.random.Philox(
        counter=np.array([counter, 0, 0, use], dtype=np.uint64), key=np.array([seed, epoch], dtype=np.uint64)
    )
