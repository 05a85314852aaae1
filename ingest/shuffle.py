"""How well an order of records mixes their classes: how far its batches are from random draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BATCH_SIZE = 64
"""Records of the batches that are looked at; fewer where there would not be ten of them."""

FAR = 4.0
"""Standard deviations from which on an order is called bad: one random order in thirty thousand is."""


@dataclass(frozen=True)
class Mixing:
    """How an order mixes classes, in batches of ``batch_size``.

    ``classes`` is how many a batch holds, on the mean, and ``random`` how many a random one would. ``deviations`` is
    how far the classes' counts in all batches are from those of a random order, in standard deviations, above zero
    where batches are too much alike in themselves; None where all orders are alike, as where no class has two records.
    """

    batch_size: int
    classes: float
    random: float
    deviations: float | None

    @property
    def is_bad(self) -> bool:
        """Whether a random order would be mixed better."""
        return self.deviations is not None and self.deviations > FAR


def mixing(labels: np.ndarray) -> Mixing:
    """How the order mixes in which records have the ``labels``, int [n], n being 1 at the least.

    Batches and classes make a table of counts, whose margins every order shares. Of it, Pearson's chi-square is taken,
    whose mean and variance over all orders are known exactly: Haldane, "The mean and variance of chi-square, when used
    as a test of homogeneity, when expectations are small" (Biometrika 31, 1940).
    """
    n = len(labels)
    size = max(1, min(BATCH_SIZE, n // 10))
    _, classes, of_class = np.unique(labels, return_inverse=True, return_counts=True)
    batches = np.arange(n) // size
    of_batch = np.bincount(batches)
    cells, counts = np.unique(batches * len(of_class) + classes, return_counts=True)
    rows, columns = np.divmod(cells, len(of_class))
    chi_square = n * (np.sum(counts**2 / (of_batch[rows] * of_class[columns])) - 1)
    mean, variance = _moments(n, of_batch, of_class)
    whole = n // size
    return Mixing(
        batch_size=size,
        classes=np.count_nonzero(rows < whole) / whole,
        random=_random_classes(n, size, of_class),
        deviations=float((chi_square - mean) / math.sqrt(variance)) if variance > 1e-9 * n else None,
    )


def _moments(n: int, rows: np.ndarray, columns: np.ndarray) -> tuple[float, float]:
    """Mean and variance of chi-square over all tables of these margins."""
    if n < 4:
        return 0.0, 0.0
    (v1, w1), (v2, w2) = (_parts(n, margin) for margin in (rows, columns))
    mean = n * (len(rows) - 1) * (len(columns) - 1) / (n - 1)
    return mean, 2 * n / (n - 3) * (v1 - w1) * (v2 - w2) + n**2 / (n - 1) * w1 * w2


def _parts(n: int, margin: np.ndarray) -> tuple[float, float]:
    kinds = len(margin)
    return (kinds - 1) * (n - kinds) / (n - 1), (np.sum(n / margin) - kinds**2) / (n - 2)


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
