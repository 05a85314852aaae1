"""How well an order of records mixes their classes: how far its batches are from random draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

BATCH_SIZE = 64
"""Records of the batches that are looked at; fewer where there would not be ten of them."""

MAX_Z_SCORE = 10.0
"""Standard deviations from which on an order is called bad. Far, since pairs are not normally distributed: where ten of
ten thousand records are of another class than the rest, one random order in fifty is eight off."""


@dataclass(frozen=True)
class ClassMixing:
    """How an order mixes classes, in batches of ``batch_size``.

    ``classes`` is how many a batch holds, on the mean, and ``random`` how many a random one would. ``deviations`` is
    how far the number of pairs of one class in one batch is from that of a random order, in standard deviations, above
    zero where batches are too much alike in themselves; None where that cannot be told, since less than one such pair
    is to be expected, or all pairs are.
    """

    batch_size: int
    classes: float
    random: float
    deviations: float | None

    @property
    def is_bad(self) -> bool:
        """Whether a random order would be mixed better."""
        return self.deviations is not None and self.deviations > MAX_Z_SCORE


def mixing(labels: np.ndarray) -> ClassMixing:
    """How the order mixes in which records have the ``labels``, int [n], n being 1 at the least.

    Compared with all orders of these records, of which mean and variance are known exactly.
    """
    n = len(labels)
    size = max(1, min(BATCH_SIZE, n // 10))
    _, classes, of_class = np.unique(labels, return_inverse=True, return_counts=True)
    batches = np.arange(n) // size
    cells, together = np.unique(batches * len(of_class) + classes, return_counts=True)
    mean, variance = _moments(n, _Pairs.of(np.bincount(batches)), _Pairs.of(of_class))
    whole = n // size
    return ClassMixing(
        batch_size=size,
        classes=np.count_nonzero(cells // len(of_class) < whole) / whole,
        random=_random_classes(n, size, of_class),
        deviations=float(_Pairs.of(together).all - mean) / math.sqrt(variance) if mean >= 1 and variance > 0 else None,
    )


class _Pairs(NamedTuple):
    """Of records in groups: the pairs within a group, and of these pairs, the pairs that share a record."""

    all: int
    joined: int

    @classmethod
    def of(cls, sizes: np.ndarray) -> _Pairs:
        """Of groups of these ``sizes``."""
        # As Python's numbers, which have no end: the variance is a small difference of large ones.
        kinds = zip(*(values.tolist() for values in np.unique(sizes, return_counts=True)), strict=True)
        counts = [(many * size * (size - 1) // 2, many * size * (size - 1) * (size - 2) // 2) for size, many in kinds]
        return cls(sum(pairs for pairs, _ in counts), sum(joined for _, joined in counts))

    @property
    def apart(self) -> int:
        """The pairs of pairs that share no record."""
        return self.all * (self.all - 1) // 2 - self.joined


def _moments(n: int, batches: _Pairs, classes: _Pairs) -> tuple[Fraction, Fraction]:
    """Mean and variance, over all orders of ``n`` records, of the pairs that are of one batch and of one class.

    An order takes each pair of places to each pair of records equally often, and so does it with joined and with
    separate pairs of pairs.
    """
    everything = _Pairs.of(np.array([n]))

    def together(one: int, other: int, of: int) -> Fraction:
        return Fraction(one * other, of) if of else Fraction(0)

    mean = together(batches.all, classes.all, everything.all)
    squares = 2 * together(batches.joined, classes.joined, everything.joined)
    squares += 2 * together(batches.apart, classes.apart, everything.apart)
    return mean, mean + squares - mean**2


def _random_classes(n: int, size: int, of_class: np.ndarray) -> float:
    """How many classes ``size`` records hold that are drawn at random, on the mean."""
    frequent, kinds = np.unique(of_class, return_counts=True)
    return float(sum(many * (1 - _share_without(n, size, count)) for count, many in zip(frequent.tolist(), kinds)))


def _share_without(n: int, size: int, count: int) -> float:
    """The share of all draws of ``size`` from ``n`` that hold none of ``count``."""
    if count > n - size:
        return 0.0
    log = math.lgamma
    return math.exp(log(n - count + 1) + log(n - size + 1) - log(n - count - size + 1) - log(n + 1))
