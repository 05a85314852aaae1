"""One iteration gives ``epochs`` epochs, and the next one goes on: by a loop, Keras, tensorpack, an Estimator."""

from __future__ import annotations

import copy
import pickle
from itertools import chain, islice
from pathlib import Path

import pytest
import tensorflow as tf
from support.images import FORMATS

import ingest
from ingest.dataset.dataset import Dataset
from ingest.sampler import epoch_order

pytestmark = pytest.mark.slow

# An epoch of 36 records is 4 whole batches, or 4 and a half.
WHOLE, BROKEN = 9, 8


def options(**others: object) -> dict[str, object]:
    return {"batch_size": WHOLE, "image_size": 32, "training": True, "workers": 0, **others}


def content(datapoints: object) -> list[list[bytes]]:
    return [[bytes(array) for array in datapoint] for datapoint in datapoints]


def of_dataset(dataset: tf.data.Dataset) -> list[list[bytes]]:
    return content(dataset.as_numpy_iterator())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("format", FORMATS)
def test_three_iterations_are_three_epochs(shards: dict[str, Path], format: str, workers: int):
    at_once = content(ingest.dataflow(shards[format], **options(epochs=3)))
    flow = ingest.dataflow(shards[format], **options(epochs=1, workers=workers))
    make = ingest.input_fn(shards[format], **options(epochs=1, workers=workers))
    same = make()
    again = [content(flow) for _ in range(3)]
    assert list(chain(*again)) == at_once
    assert [of_dataset(same), of_dataset(same), of_dataset(same)] == again
    assert again[0] != again[1] != again[2] != again[0]


@pytest.mark.parametrize("format", FORMATS)
def test_an_iteration_has_its_epochs_exactly(shards: dict[str, Path], format: str):
    """Batches run on across the end of an epoch, but not of an iteration."""
    dataset = Dataset(shards[format])
    flow = ingest.dataflow(shards[format], **options(epochs=2, batch_size=BROKEN, seed=3))
    for iteration in range(3):
        numbers = chain(*[epoch_order(36, 3, 2 * iteration + epoch) for epoch in range(2)])
        found = list(flow)
        assert [label for _, labels in found for label in labels] == [dataset[int(number)].label for number in numbers]
        assert [len(labels) for _, labels in found] == [8] * len(flow) == [8] * 9
    flow = ingest.dataflow(shards[format], **options(epochs=1, batch_size=BROKEN))
    assert [[len(labels) for _, labels in flow] for _ in range(2)] == [[8, 8, 8, 8, 4]] * 2


def test_the_start_is_that_of_the_first_iteration(shards: dict[str, Path]):
    whole = ingest.dataflow(shards["lmdb"], **options(epochs=1))
    first, second = content(whole), content(whole)
    late = ingest.dataflow(shards["lmdb"], **options(epochs=1, start_batch=3))
    assert len(late) == 1
    assert content(late) == first[3:]
    assert len(late) == 4
    assert content(late) == second
    dataset = ingest.input_fn(shards["lmdb"], **options(epochs=1, start_batch=3))()
    assert [of_dataset(dataset), of_dataset(dataset)] == [first[3:], second]
    beyond = ingest.dataflow(shards["lmdb"], **options(epochs=1, start_batch=9))
    assert [content(beyond), content(beyond)] == [[], second]


def test_without_end_the_next_iteration_begins_where_the_last_was_broken_off(shards: dict[str, Path]):
    expected = content(islice(ingest.dataflow(shards["lmdb"], **options(start_batch=2)), 12))
    flow = ingest.dataflow(shards["lmdb"], **options(start_batch=2))
    assert list(chain(*[content(islice(flow, count)) for count in (5, 1, 6)])) == expected
    dataset = ingest.input_fn(shards["lmdb"], **options())()
    assert of_dataset(dataset.take(3)) != of_dataset(dataset.take(3))


def test_an_iteration_that_is_broken_off_counts(shards: dict[str, Path]):
    at_once = content(ingest.dataflow(shards["tfrecord"], **options(epochs=2)))
    flow = ingest.dataflow(shards["tfrecord"], **options(epochs=1))
    assert content(islice(flow, 2)) + content(flow) == at_once[:2] + at_once[4:]


def test_two_iterations_at_a_time_have_epochs_of_their_own(shards: dict[str, Path]):
    at_once = content(ingest.dataflow(shards["tfrecord"], **options(epochs=2)))
    flow = ingest.dataflow(shards["tfrecord"], **options(epochs=1))
    pairs = list(zip(flow, flow))
    assert content(one for one, _ in pairs) + content(other for _, other in pairs) == at_once


@pytest.mark.parametrize("others", [{}, {"start_batch": 2}, {"epochs": 2}, {"batch_size": BROKEN}])
def test_evaluation_is_the_same_every_time(shards: dict[str, Path], others: dict[str, int]):
    flow = ingest.dataflow(shards["lmdb"], **options(training=False, **others))
    dataset = ingest.input_fn(shards["lmdb"], **options(training=False, **others))()
    first = content(flow)
    assert [content(flow), of_dataset(dataset), of_dataset(dataset)] == [first] * 3
    assert len(flow) == dataset.cardinality() == len(first) > 0


def test_class_by_class_the_crops_are_new(shards: dict[str, Path]):
    flow = ingest.dataflow(shards["lmdb"], **options(epochs=1, shuffle=False))
    first, second = content(flow), content(flow)
    assert [labels for _, labels in first] == [labels for _, labels in second]
    assert all(one != other for (one, _), (other, _) in zip(first, second, strict=True))


def test_tensorpack_repeats_it(shards: dict[str, Path]):
    from tensorpack.dataflow import RepeatedData

    at_once = content(ingest.dataflow(shards["tfrecord"], **options(epochs=3)))
    repeated = RepeatedData(ingest.dataflow(shards["tfrecord"], **options(epochs=1)), 3)
    repeated.reset_state()
    assert content(repeated) == at_once
    assert len(repeated) == 12
    flow = ingest.dataflow(shards["tfrecord"], **options(epochs=1))
    found = []
    for _ in range(3):  # as some do before each epoch
        flow.reset_state()
        found += content(flow)
    assert found == at_once


def test_a_copy_goes_on_by_itself(shards: dict[str, Path]):
    flow = ingest.dataflow(shards["lmdb"], **options(epochs=1))
    list(flow)
    copies = [copy.copy(flow), copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))]
    second = content(flow)
    assert [content(each) for each in copies] == [second] * 3


@pytest.mark.parametrize("workers", [0, 2])
def test_keras_is_shown_new_epochs(shards: dict[str, Path], workers: int):
    seen: list[bytes] = []

    class Recorder(tf.keras.Model):
        def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
            seen.append(bytes(data[0].numpy()))
            return {"loss": tf.constant(0.0)}

    model = Recorder()
    model.compile(run_eagerly=True)
    dataset = ingest.input_fn(shards["tfrecord"], **options(epochs=1, workers=workers))()
    model.fit(dataset, epochs=3, verbose=0)
    assert seen == [images for images, _ in content(ingest.dataflow(shards["tfrecord"], **options(epochs=3)))]


def test_an_input_function_goes_on_with_its_next_dataset(shards: dict[str, Path]):
    """An Estimator that is trained once more asks for another one; so does each of several hosts."""
    at_once = content(ingest.dataflow(shards["tfrecord"], **options(epochs=2)))
    make = ingest.input_fn(shards["tfrecord"], **options(epochs=1))
    assert of_dataset(make()) + of_dataset(make()) == at_once
    # Of each batch of 12 images two hosts have every other one.
    for host in range(2):
        share = ingest.dataflow(shards["tfrecord"], **options(epochs=2, batch_size=12, shard_index=host, num_shards=2))
        make = ingest.input_fn(shards["tfrecord"], **options(epochs=1, batch_size=12))
        context = tf.distribute.InputContext(2, host, 2)
        assert of_dataset(make(context)) + of_dataset(make(context)) == content(share)


@pytest.mark.parametrize("epochs", [1, None])
def test_the_shares_of_several_hosts_may_be_read_in_turn(shards: dict[str, Path], epochs: int | None):
    make = ingest.input_fn(shards["lmdb"], **options(epochs=epochs, batch_size=12))
    shares = [of_dataset(make(tf.distribute.InputContext(2, host, 2)).take(3)) for host in range(2)]
    for host, share in enumerate(shares):
        own = ingest.dataflow(shards["lmdb"], **options(batch_size=12, shard_index=host, num_shards=2))
        assert share == content(islice(own, 3))


@pytest.mark.parametrize("hosts", [1, 2, 3])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(("training", "epochs"), [(True, 1), (True, 5), (False, None), (False, 2)])
def test_the_cardinality_is_known(
    shards: dict[str, Path], hosts: int, devices: int, training: bool, epochs: int | None
):
    given = options(training=training, epochs=epochs, batch_size=12 if hosts == 3 else 20)
    for host in range(hosts):
        replicas = hosts * devices
        dataset = ingest.input_fn(shards["lmdb"], **given)(tf.distribute.InputContext(hosts, host, replicas))
        assert [int(dataset.cardinality())] * 2 == [len(of_dataset(dataset)) for _ in range(2)]


def test_where_the_cardinality_is_not_a_number(shards: dict[str, Path]):
    def cardinality(**others: object) -> int:
        return int(ingest.input_fn(shards["lmdb"], **options(**others))().cardinality())

    assert cardinality() == cardinality(start_batch=3) == tf.data.INFINITE_CARDINALITY
    # Its first iteration is shorter than those that follow.
    assert cardinality(epochs=2, start_batch=3) == tf.data.UNKNOWN_CARDINALITY
    assert cardinality(epochs=2) == len(ingest.dataflow(shards["lmdb"], **options(epochs=2))) == 8
    assert cardinality(epochs=1, training=False, start_batch=9) == 0
