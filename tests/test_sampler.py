from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingest import sampler

PACKING = [8, 4, 1, 6, 3, 2, 7, 5, 9, 0]
EPOCH = [6, 4, 8, 9, 0, 2, 5, 3, 1, 7]
DRAWS = [0.37582750722768976, 0.12903780089589434]

seeds = st.integers(0, sampler.MAX_SEED)


@given(n=st.integers(1, 3000), seed=seeds, epoch=st.integers(0, 10**6))
def test_orders_are_permutations(n: int, seed: int, epoch: int):
    assert sorted(sampler.epoch_order(n, seed, epoch).tolist()) == list(range(n))
    assert sorted(sampler.packing_order(n, seed).tolist()) == list(range(n))


def test_orders_depend_on_seed_epoch_and_use():
    orders = [sampler.epoch_order(1000, s, e).tolist() for s in (0, 1) for e in (0, 1)]
    orders += [sampler.packing_order(1000, s).tolist() for s in (0, 1)]
    assert len({tuple(o) for o in orders}) == 6
    assert sampler.epoch_order(1000, 1, 1).tolist() == orders[3]


def test_orders_are_the_same_for_ever():
    """A changed order would change every dataset and every training: these were written down once."""
    assert sampler.packing_order(10, 7).tolist() == PACKING
    assert sampler.epoch_order(10, 7, 3).tolist() == EPOCH
    assert sampler.random_draws(7, 3, 5, 1)[0, :2].tolist() == DRAWS


@given(seed=seeds, epoch=st.integers(0, 1000), first=st.integers(0, 10**7), count=st.integers(1, 20))
def test_draws_belong_to_the_position(seed: int, epoch: int, first: int, count: int):
    together = sampler.random_draws(seed, epoch, first, count)
    assert together.shape == (count, sampler.DRAWS)
    assert np.array_equal(
        together, np.concatenate([sampler.random_draws(seed, epoch, first + i, 1) for i in range(count)])
    )
    assert together.min() >= 0 and together.max() < 1


def test_draws_are_uniform_and_differ():
    values = sampler.random_draws(0, 0, 0, 2000)
    assert len(np.unique(values)) == values.size
    # The mean of so many uniform numbers has a deviation of 0.29 / sqrt(88000) = 0.001.
    assert abs(values.mean() - 0.5) < 0.005
    assert not np.array_equal(values, sampler.random_draws(0, 1, 0, 2000))
    assert not np.array_equal(values, sampler.random_draws(1, 0, 0, 2000))


@given(
    n=st.integers(1, 50), batch_size=st.integers(1, 120), epochs=st.integers(1, 5), start=st.integers(0, 10)
)  # fmt: skip
def test_batches_cover_each_epoch_in_turn(n: int, batch_size: int, epochs: int, start: int):
    batches = list(sampler.batches(n, batch_size, start, epochs))
    seen = [(s.epoch, p) for batch in batches for s in batch for p in range(s.first, s.first + s.length)]
    every = [(epoch, position) for epoch in range(epochs) for position in range(n)]
    assert seen == every[start * batch_size :]
    sizes = [sum(s.length for s in batch) for batch in batches]
    assert all(size == batch_size for size in sizes[:-1])


def test_batches_without_end_go_on():
    batches = sampler.batches(10, 4, 1_000_000, None)
    assert next(batches) == [sampler.Span(400_000, 0, 4)]
    assert next(batches) == [sampler.Span(400_000, 4, 4)]
    assert next(batches) == [sampler.Span(400_000, 8, 2), sampler.Span(400_001, 0, 2)]
