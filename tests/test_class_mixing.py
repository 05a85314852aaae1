from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.sampler import packing_order
from ingest.tools.class_mixing import ClassMixing, mixing

ORDERED = np.repeat(np.arange(8), 100)


def shuffled(labels: np.ndarray, seed: int) -> np.ndarray:
    return labels[packing_order(len(labels), seed)]


def test_a_class_ordered_list_is_called_out_and_a_packed_order_is_not():
    assert mixing(ORDERED).is_bad and mixing(ORDERED).classes < 2 < 7.9 < mixing(ORDERED).random <= 8
    assert not any(mixing(shuffled(ORDERED, seed)).is_bad for seed in range(200))


@pytest.mark.parametrize("counts", [[990, 10], [300, 300, 2], [20] + [1] * 980, [5, 5] + [1] * 300])
def test_random_orders_of_uneven_classes_are_not_called_bad(counts: list[int]):
    labels = np.repeat(np.arange(len(counts)), counts)
    assert not any(mixing(shuffled(labels, seed)).is_bad for seed in range(1000))
    assert mixing(labels).is_bad


@pytest.mark.parametrize("counts", [[100] * 8, [500, 20, 3, 1, 1], [2] * 200, [1] * 50 + [30]])
def test_mean_and_variance_are_those_of_random_orders(counts: list[int]):
    labels = np.repeat(np.arange(len(counts)), counts)
    found = np.array([mixing(shuffled(labels, seed)).deviations for seed in range(2000)])
    # Of 2000, the mean is within 3 / sqrt(2000) of 0; the deviation's error depends on the tails, which are heavier.
    assert abs(found.mean()) < 0.08 and 0.85 < found.std() < 1.15
    held = [mixing(shuffled(labels, seed)).classes for seed in range(200)]
    assert np.mean(held) == pytest.approx(mixing(labels).random, rel=0.02)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=300), st.permutations(range(6)))
def test_names_of_classes_do_not_matter(labels: list[int], names: list[int]):
    one, other = mixing(np.array(labels)), mixing(np.array(names)[labels])
    assert (one.batch_size, one.classes) == (other.batch_size, other.classes)
    assert one.random == pytest.approx(other.random)
    assert (one.deviations is None) == (other.deviations is None)
    assert one.deviations is None or one.deviations == pytest.approx(other.deviations, abs=1e-6)


@pytest.mark.parametrize("labels", [[0], [0, 1], [0] * 200, range(300)])
def test_where_all_orders_are_alike_nothing_is_told(labels: list[int]):
    found = mixing(np.array(labels))
    assert found.deviations is None and not found.is_bad
    assert found.classes == pytest.approx(found.random)


def test_too_even_an_order_is_not_bad():
    found = mixing(np.tile(np.arange(8), 100))
    assert found.deviations is not None and found.deviations < -4 and not found.is_bad


def test_a_set_of_the_size_of_imagenet():
    labels = np.arange(1_281_167) % 1000
    found = mixing(shuffled(labels, 0))
    assert found == ClassMixing(64, pytest.approx(62.0, abs=0.1), pytest.approx(62.0, abs=0.1), pytest.approx(0, abs=4))
