"""The columns of a batch: each is there where it is asked for, by its name and in its order, in every face."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.frameworks import needs_training
from support.images import FORMATS

import ingest
from ingest.dataset.dataset import Dataset
from ingest.errors import OptionError, RecordError
from ingest.loading.batches import iter_batches, iter_unfilled_batches
from ingest.loading.columns import ALWAYS, COLUMNS, Batch, Layout, Row
from ingest.loading.options import LoaderOptions
from ingest.record import FIELDS
from ingest.sampler import epoch_order

FIELD_NAMES = [name for name in COLUMNS if name not in ALWAYS]

# What a column besides the record's own fields holds of record i of a dataset.
EXPECTED: dict[str, Callable[[Dataset, int], Any]] = {
    "labels": lambda dataset, i: dataset[i].label,
    "number": lambda dataset, i: i,
}


def options(**others: Any) -> LoaderOptions:
    return LoaderOptions(**{"batch_size": 7, "training": True, "image_size": 24, "workers": 0, "epochs": 1, **others})


def expected(dataset: Dataset, name: str, i: int) -> Any:
    return EXPECTED[name](dataset, i) if name in EXPECTED else getattr(dataset[i], name)


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_has_an_expected_value(name: str):
    assert name in EXPECTED or name in {field.name for field in FIELDS}, f"add {name} to EXPECTED"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("training", [True, False])
def test_columns_are_those_of_their_records(shards: dict[str, Path], format: str, workers: int, training: bool):
    dataset = Dataset(shards[format])
    order = epoch_order(len(dataset), 0, 0).tolist() if training else list(range(len(dataset)))
    asked = options(training=training, workers=workers, fields=FIELD_NAMES)
    batches = list(iter_batches(shards[format], asked))
    assert {tuple(batch.asdict()) for batch in batches} == {("images", "labels", *FIELD_NAMES)}
    for name in ("labels", *FIELD_NAMES):
        column = np.concatenate([getattr(batch, name) for batch in batches])
        assert column.tolist() == [expected(dataset, name, i) for i in order], name
        assert column.dtype == COLUMNS[name].dtype
    plain = list(iter_batches(shards[format], options(training=training, workers=workers)))
    for batch, (images, labels) in zip(batches, plain, strict=True):
        assert np.array_equal(batch.images, images) and np.array_equal(batch.labels, labels)


@pytest.mark.parametrize("names", [["number", "key"], ["key", "number"], ["width"], []])
def test_columns_come_in_the_order_in_which_they_are_asked_for(shards: dict[str, Path], names: list[str]):
    (first, *_) = iter_batches(shards["lmdb"], options(fields=names, workers=1))
    assert list(first.asdict()) == ["images", "labels", *names]
    assert len(first) == 2 + len(names)
    for column, name in zip(first, first.asdict(), strict=True):
        assert column is getattr(first, name)
    (datapoint, *_) = ingest.dataflow(
        shards["lmdb"], batch_size=7, training=True, image_size=24, workers=0, epochs=1, fields=names
    )
    assert [column.tolist() for column in datapoint] == [column.tolist() for column in first]


@pytest.mark.parametrize("fields", ["key", ("labels",), ("images",), ("encoded",), ("nothing",), ("key", "key"), (3,)])
def test_what_is_no_column_is_refused(fields: object):
    with pytest.raises(OptionError, match=r"fields.*: give "):
        options(fields=fields)


def test_a_field_that_a_record_was_packed_without_is_an_error_that_says_what_to_do(shards: dict[str, Path]):
    record = Dataset(shards["lmdb"])[0]._replace(synset=None)
    with pytest.raises(RecordError, match=r"it has no synset: it was packed by a version"):
        COLUMNS["synset"].value(Row(record, 0))


def test_a_batch_survives_pickling_and_copies_of_its_columns(shards: dict[str, Path]):
    (batch, *_) = iter_batches(shards["lmdb"], options(fields=["key"]))
    again = pickle.loads(pickle.dumps(batch))
    assert isinstance(again, Batch) and list(again.asdict()) == ["images", "labels", "key"]
    assert all(np.array_equal(one, other) for one, other in zip(batch, again, strict=True))


def test_columns_do_not_lie_on_each_other():
    layout = Layout((3, 5, 5, 1), ["width", "key", "number"])
    memory = bytearray(layout.size_bytes)
    arrays = layout.arrays(memory)
    assert layout.text() == ["key"] and list(arrays) == ["images", "labels", "width", "number"]
    for i, array in enumerate(arrays.values(), 1):
        array[:] = i
    assert [set(array.tolist()) for array in arrays.values()] == [{1}, {2}, {3}, {4}]


def test_unfilled_batches_have_all_columns(shards: dict[str, Path]):
    (batch, *_) = iter_unfilled_batches(shards["lmdb"], options(fields=["key", "width"], workers=1))
    assert [len(column) for column in batch] == [7, 7, 7, 7] and set(batch.key) == {""}  # type: ignore[attr-defined]


@needs_training
def test_columns_reach_a_model_function(shards: dict[str, Path], tmp_path: Path):
    """By an Estimator, which gives it the features; the networks of train.py take the images among them."""
    import tensorflow.compat.v1 as tf

    from models.classifier import Params, model_fn
    from models.recipes import LENET, Ablation

    seen: list[dict[str, Any]] = []

    def network(features: Any, labels: Any, mode: str) -> Any:
        seen.append({name: (tensor.dtype, tensor.shape.as_list()) for name, tensor in features.items()})
        return model_fn(
            features,
            labels,
            mode,
            Params(
                network="lenet",
                classes=("a", "b", "c"),
                recipe=LENET,
                learning_rate=0.01,
                steps=2,
                steps_per_epoch=1,
                variant=Ablation(),
            ),
        )

    inputs = ingest.input_fn(
        shards["lmdb"], batch_size=4, training=True, image_size=28, workers=0, fields=("key", "width")
    )
    estimator = tf.estimator.Estimator(network, str(tmp_path), tf.estimator.RunConfig(tf_random_seed=0))
    estimator.train(inputs, steps=2)
    assert seen == [
        {"images": (tf.uint8, [4, 28, 28, 3]), "key": (tf.string, [4]), "width": (tf.int64, [4])},
    ]
