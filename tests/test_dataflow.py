"""The faces for tensorpack and TensorFlow: the same batches, in their types."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

import ingest
from ingest.errors import ManifestError, OptionError
from ingest.loading.batches import iter_batches
from ingest.loading.options import LoaderOptions

pytestmark = pytest.mark.slow

OPTIONS = {"batch_size": 7, "image_size": 48, "workers": 0}


def equal(found: list[list[np.ndarray]], expected: list[list[np.ndarray]]) -> bool:
    return [[array.tobytes() for array in dp] for dp in found] == [[array.tobytes() for array in dp] for dp in expected]


def test_a_datapoint_is_images_and_labels(shards: dict[str, Path]):
    flow = ingest.dataflow(shards["lmdb"], training=True, epochs=2, **OPTIONS)
    flow.reset_state()
    found = list(flow)
    assert equal(
        found,
        [
            list(batch)
            for batch in iter_batches(
                shards["lmdb"], LoaderOptions(batch_size=7, training=True, image_size=48, workers=0, epochs=2)
            )
        ],
    )
    assert type(found[0]) is list
    assert [(array.dtype, array.shape) for array in found[0]] == [(np.uint8, (7, 48, 48, 3)), (np.int32, (7,))]
    assert not equal(list(flow), found)  # a second pass goes on


def test_length(shards: dict[str, Path]):
    def length(**options: object) -> int:
        return len(ingest.dataflow(shards["lmdb"], **{**OPTIONS, **options}))

    assert length(training=True) == 5
    assert length(training=True, epochs=2) == 11
    assert length(training=True, epochs=2, start_batch=4) == 7
    assert length(training=False) == 6
    assert length(training=True, batch_size=100) == 1


def test_tensorpack_takes_it_for_its_own(shards: dict[str, Path]):
    from tensorpack.dataflow import DataFlow, MapData, RepeatedData, TestDataSpeed

    flow = ingest.dataflow(shards["tfrecord"], training=True, epochs=1, **{**OPTIONS, "workers": 1})
    assert isinstance(flow, DataFlow)
    TestDataSpeed(flow, size=6).start()
    doubled = MapData(RepeatedData(flow, 2), lambda dp: [dp[0].mean(), dp[1]])
    doubled.reset_state()
    assert len(doubled) == len(list(doubled)) == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_tensorflow_gets_the_same_batches(shards: dict[str, Path], workers: int):
    options = {**OPTIONS, "workers": workers}
    for training, epochs in ((True, 2), (False, None)):
        expected = list(ingest.dataflow(shards["lmdb"], training=training, epochs=epochs, **options))
        dataset = ingest.input_fn(shards["lmdb"], training=training, epochs=epochs, **options)()
        assert equal([list(dp) for dp in dataset.as_numpy_iterator()], expected)


def test_nothing_holds_up_the_end_of_a_training(shards: dict[str, Path]):
    """With the tuner on, closing a session waited for its thread's sleep to end, up to a minute."""
    dataset = ingest.input_fn(shards["lmdb"], training=True, **OPTIONS)()
    assert dataset.options().autotune.enabled is False


def test_the_graph_knows_the_shapes(shards: dict[str, Path]):
    endless = ingest.input_fn(shards["lmdb"], training=True, **OPTIONS)()
    assert [spec.shape.as_list() for spec in endless.element_spec] == [[7, 48, 48, 3], [7]]
    ending = ingest.input_fn(shards["lmdb"], training=False, **OPTIONS)()
    assert [spec.shape.as_list() for spec in ending.element_spec] == [[None, 48, 48, 3], [None]]


@pytest.mark.parametrize("face", [ingest.dataflow, ingest.input_fn])
def test_errors_come_before_the_first_batch(face: object, shards: dict[str, Path], tmp_path: Path):
    with pytest.raises(ManifestError):
        face(tmp_path, training=True, **OPTIONS)
    with pytest.raises(OptionError):
        face(shards["lmdb"], training=True, batch_size=0)


def test_both_faces_take_the_same_arguments():
    faces = [inspect.signature(face).parameters for face in (ingest.dataflow, ingest.input_fn)]
    assert faces[0] == faces[1]
