"""Other loaders of the same shards: the same task as ours, each in its own way."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from support.images import image_bytes, put
from support.processes import wait_until
from support.sources import idx

import ingest
from ingest.baselines import BASELINES, input_fn
from ingest.dataset import manifest
from ingest.dataset.dataset import Dataset
from ingest.errors import ManifestError, OptionError, RecordError
from ingest.loading.options import LoaderOptions

pytestmark = pytest.mark.slow

TRAINING = LoaderOptions(batch_size=7, training=True, image_size=48, workers=2)
EVALUATION = LoaderOptions(batch_size=7, training=False, image_size=48, workers=2)

READABLE = [
    (name, format) for name in BASELINES for format in ("tfrecord", "lmdb") if (name, format) != ("tf.data", "lmdb")
]

Batches = list[tuple[np.ndarray, np.ndarray]]


def loaded(name: str, shards: Path, options: LoaderOptions, batches: int | None = None) -> Batches:
    """The first ``batches``, or all."""
    return list(islice(input_fn(name, shards, options)().as_numpy_iterator(), batches))


def ours(shards: Path, options: LoaderOptions) -> Batches:
    kept = {name: value for name, value in vars(options).items() if name not in ("workers", "every")}
    return [(images, labels) for images, labels in ingest.dataflow(shards, workers=0, **kept)]


def joined(batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*batches)
    return np.concatenate(images), np.concatenate(labels)


def assert_same(found: Batches, expected: Batches, levels: float) -> None:
    """The same batches, but for so many grey levels in the mean of an image."""
    assert [images.shape for images, _ in found] == [images.shape for images, _ in expected]
    (images, labels), (expected_images, expected_labels) = joined(found), joined(expected)
    assert labels.tolist() == expected_labels.tolist()
    assert np.abs(images.astype(int) - expected_images).mean((1, 2, 3)).max() <= levels


def packed_labels(shards: Path) -> list[int]:
    dataset = Dataset(shards)
    return [dataset[i].label for i in range(len(dataset))]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images of 28 x 28, stored as pixels."""
    folder = tmp_path_factory.mktemp("digits")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    files = {"images-idx3-ubyte": idx(pixels), "labels-idx1-ubyte": idx(np.arange(40, dtype=np.uint8) % 10)}
    ingest.build_shards(put(folder / "idx", files), folder / "shards", format="tfrecord", workers=0)
    return folder / "shards"


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured images, wide and tall, and a grey one, stored as pixels."""
    folder = tmp_path_factory.mktemp("pixels")
    files = {f"c/{i}.png": image_bytes("PNG", (90 + 20 * i, 120)) for i in range(5)}
    put(folder / "photos", {**files, "d/grey.png": image_bytes("PNG", (80, 70), "L")})
    ingest.build_shards(folder / "photos", folder / "shards", format="tfrecord", workers=0, encoding="raw")
    return folder / "shards"


@pytest.mark.parametrize(("name", "format"), READABLE)
def test_evaluation_is_ours(name: str, format: str, shards: dict[str, Path]):
    found = loaded(name, shards[format], EVALUATION)
    assert [(images.dtype, images.shape, labels.dtype) for images, labels in found[::5]] == [
        (np.uint8, (7, 48, 48, 3), np.int32),
        (np.uint8, (1, 48, 48, 3), np.int32),
    ]
    assert joined(found)[1].tolist() == packed_labels(shards[format])
    assert_same(found, ours(shards[format], EVALUATION), levels=2)


@pytest.mark.parametrize("name", BASELINES)
def test_pixels_and_grey(name: str, digits: Path, pixels: Path):
    for folder, size in ((digits, 28), (digits, 20), (pixels, 48)):
        options = replace(EVALUATION, image_size=size)
        assert_same(loaded(name, folder, options), ours(folder, options), levels=1)
        crops, labels = joined(loaded(name, folder, replace(TRAINING, image_size=size), batches=3))
        assert crops.shape == (21, size, size, 1 if folder == digits else 3)
        assert set(labels) <= set(packed_labels(folder))
    assert Dataset(pixels).manifest.channels == 3
    assert {Dataset(pixels)[i].channels for i in range(6)} == {1, 3}


@pytest.mark.parametrize(("name", "format"), READABLE)
def test_training_is_endless_in_whole_batches(name: str, format: str, shards: dict[str, Path]):
    dataset = input_fn(name, shards[format], TRAINING)()
    assert [spec.shape.as_list() for spec in dataset.element_spec] == [[7, 48, 48, 3], [7]]
    found = list(islice(dataset.as_numpy_iterator(), 12))
    assert {(images.dtype, images.shape, labels.dtype) for images, labels in found} == {
        (np.dtype(np.uint8), (7, 48, 48, 3), np.dtype(np.int32))
    }
    images, labels = joined(found)
    assert set(labels) == {0, 1, 2}
    assert images.std((1, 2, 3)).min() > 1
    assert len({image.tobytes() for image in images}) == len(images)  # no crop comes twice


def test_naive_crops_are_ours(shards: dict[str, Path]):
    options = replace(TRAINING, epochs=2, start_batch=2, min_crop_area=0.3, seed=5)
    assert_same(loaded("naive", shards["lmdb"], options), ours(shards["lmdb"], options), levels=2)


@pytest.mark.parametrize("name", BASELINES)
def test_an_epoch_is_every_record_once(name: str, shards: dict[str, Path]):
    """With one process: several of tensorpack's have orders of their own."""
    options = replace(TRAINING, epochs=2, augment=False, workers=1)
    images, labels = joined(loaded(name, shards["tfrecord"], options))
    assert [images[:36].tobytes() != images[36:].tobytes(), len(labels)] == [True, 72]
    once = Counter(image.tobytes() for image in joined(loaded(name, shards["tfrecord"], EVALUATION))[0])
    assert (
        Counter(image.tobytes() for image in images[:36]) == Counter(image.tobytes() for image in images[36:]) == once
    )


@pytest.mark.parametrize("name", ["naive", "tf.data"])
def test_the_order_is_drawn_from_the_seed(name: str, shards: dict[str, Path]):
    def labels(seed: int) -> list[int]:
        return joined(loaded(name, shards["tfrecord"], replace(TRAINING, seed=seed), batches=8))[1].tolist()

    assert labels(2**64 - 1) == labels(2**64 - 1) != labels(2)


@pytest.mark.parametrize("name", BASELINES)
def test_without_shuffle_training_is_in_packed_order(name: str, shards: dict[str, Path]):
    options = replace(TRAINING, epochs=1, augment=False, shuffle=False, workers=0)
    assert_same(loaded(name, shards["tfrecord"], options), ours(shards["tfrecord"], EVALUATION), levels=2)


@pytest.mark.parametrize("name", BASELINES)
def test_the_crop_is_of_the_size_that_was_asked_for(name: str, digits: Path):
    options = replace(TRAINING, epochs=1, image_size=28, shuffle=False, workers=0)
    whole = joined(ours(digits, replace(EVALUATION, image_size=28)))[0]
    either = joined(loaded(name, digits, replace(options, min_crop_area=1)))[0]
    flipped = [(view == image[:, ::-1]).all() for view, image in zip(either, whole)]
    assert all((view == image).all() or flip for view, image, flip in zip(either, whole, flipped))
    assert 5 < sum(flipped) < 35
    crops = joined(loaded(name, digits, options))[0]
    assert sum((crop == image).all() for crop, image in zip(crops, whole)) < 5


@pytest.mark.parametrize("name", BASELINES)
def test_it_feeds_an_estimator(name: str, shards: dict[str, Path]):
    """It calls input functions in a graph of its own, where some of TensorFlow's Python means other things."""
    with tf.Graph().as_default():
        iterator = tf.compat.v1.data.make_initializable_iterator(input_fn(name, shards["tfrecord"], TRAINING)())
        following = iterator.get_next()
        with tf.compat.v1.Session() as session:
            session.run(iterator.initializer)
            images, labels = session.run(following)
    assert (images.shape, images.dtype, labels.dtype) == ((7, 48, 48, 3), np.uint8, np.int32)


def test_tensorpack_leaves_neither_processes_nor_words(shards: dict[str, Path], capfd: pytest.CaptureFixture[str]):
    before = set(multiprocessing.active_children())
    dataset = input_fn("tensorpack", shards["lmdb"], TRAINING)()
    for _ in range(2):  # the second time starts processes of its own
        batches = dataset.as_numpy_iterator()
        next(batches)
        assert len(set(multiprocessing.active_children()) - before) == 2
        del batches
        assert wait_until(lambda: set(multiprocessing.active_children()) <= before, 5)
    assert capfd.readouterr().out == ""


def test_tensorpack_processes_end_with_their_parent(shards: dict[str, Path]):
    code = (
        "import multiprocessing, os; from ingest.baselines import input_fn;"
        "from ingest.loading.options import LoaderOptions;"
        f"dataset = input_fn('tensorpack', {str(shards['lmdb'])!r}, "
        "LoaderOptions(batch_size=7, training=True, image_size=48, workers=2))();"
        "print(*[child.pid for child in multiprocessing.active_children()]);"
        "next(iter(dataset)); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    children = done.stdout.split()
    assert len(children) == 2
    assert wait_until(lambda: not any(Path("/proc", child).exists() for child in children), 5)


@pytest.mark.parametrize("options", [TRAINING, EVALUATION])
@pytest.mark.parametrize("name", ["naive", "tensorpack"])
def test_a_damaged_record_is_named(name: str, options: LoaderOptions, shards: dict[str, Path], tmp_path: Path):
    folder = shutil.copytree(shards["tfrecord"], tmp_path / "copy")
    for shard in folder.glob("*.tfrecord"):
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    with pytest.raises(tf.errors.UnknownError) as caught:
        loaded(name, folder, options, batches=36)
    assert "RecordError" in (line := str(caught.value).splitlines()[0])
    assert "its data do not match their checksum: mend it with 'ingest verify" in line


def test_errors_come_before_the_first_batch(shards: dict[str, Path], tmp_path: Path):
    def fails(kind: type[Exception], name: str, folder: Path, says: str) -> None:
        with pytest.raises(kind, match=says) as caught:
            input_fn(name, folder, TRAINING)
        assert "\n" not in str(caught.value)

    fails(OptionError, "tf.data", shards["lmdb"], "'ingest convert .* OUT --format tfrecord'")
    fails(OptionError, "dali", shards["lmdb"], "'dali' is no loader: give one of naive, tf.data, tensorpack")
    fails(ManifestError, "naive", tmp_path, "holds no finished dataset")
    manifest.save(replace(manifest.load_manifest(shards["lmdb"]), records=0, shards=()), tmp_path)
    fails(RecordError, "tensorpack", tmp_path, "the dataset has no records")


def test_importing_loads_no_library(shards: dict[str, Path]):
    code = "import sys, ingest.baselines; print([m for m in ('tensorflow', 'tensorpack') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
