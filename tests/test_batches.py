"""The stream of batches: order, equality across formats and workers, failures, and what a consumer may do with them."""

from __future__ import annotations

import gc
import mmap
import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.images import FORMATS, put
from support.sources import IMAGES_NAME, LABELS_NAME, idx

import ingest
from ingest import sampler
from ingest.dataset.dataset import Dataset
from ingest.errors import ManifestError, OptionError, RecordError, WorkerError
from ingest.loading import augment, batches, transforms
from ingest.loading.batches import Batch
from ingest.loading.options import LoaderOptions, TransformOptions

SIZE = 48


def stream(folder: Path, **options: object) -> list[Batch]:
    defaults = {"batch_size": 7, "training": True, "image_size": SIZE, "epochs": 2, "workers": 0}
    found = batches.iter_batches(folder, LoaderOptions(**{**defaults, **options}))
    return [Batch({name: column.copy() for name, column in batch.asdict().items()}) for batch in found]


def content(found: list[Batch]) -> list[tuple[tuple[int, ...], bytes, bytes]]:
    return [(batch.images.shape, batch.images.tobytes(), batch.labels.tobytes()) for batch in found]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Grey images of 4 x 4 that are all of one level, which is the image's number; by format."""
    numbers = np.arange(100, dtype=np.uint8)
    pixels = np.repeat(numbers, 16).reshape(-1, 4, 4)
    folder = tmp_path_factory.mktemp("numbered")
    source = put(folder / "source", {IMAGES_NAME: idx(pixels), LABELS_NAME: idx(numbers % 10)})
    for name in FORMATS:
        ingest.build_shards(source, folder / name, format=name, shards=9, workers=0)
    return {name: folder / name for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_each_epoch_holds_each_record_once(numbered: dict[str, Path], name: str, workers: int):
    found = stream(numbered[name], image_size=4, workers=workers)
    assert [len(batch.labels) for batch in found] == [7] * 28 + [4]
    assert all(batch.images.shape[1:] == (4, 4, 1) for batch in found)
    seen = np.concatenate([batch.images[:, 0, 0, 0] for batch in found]).tolist()
    assert sorted(seen[:100]) == sorted(seen[100:]) == list(range(100))
    assert seen[:100] != seen[100:]
    assert np.concatenate([batch.labels for batch in found]).tolist() == [number % 10 for number in seen]
    dataset = Dataset(numbered[name])
    keys = [int(dataset[i].key) for epoch in (0, 1) for i in sampler.epoch_order(100, 0, epoch).tolist()]
    assert seen == keys


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_batches_are_the_same_across_formats_workers_and_runs(shards: dict[str, Path], training: bool):
    expected = content(stream(shards["tfrecord"], training=training))
    for name in FORMATS:
        for workers in (0, 1, 2, 3):
            assert content(stream(shards[name], training=training, workers=workers)) == expected


def test_another_seed_and_another_epoch_differ(shards: dict[str, Path]):
    def images(**options: object) -> bytes:
        return b"".join(batch.images.tobytes() for batch in stream(shards["lmdb"], **options))

    two = images()
    first, second = two[: len(two) // 2], two[len(two) // 2 :]
    assert first == images(epochs=1)
    assert len({first, second, images(epochs=1, seed=1)}) == 3
    # Not only the order: the same record is cropped differently in the next epoch.
    dataset = Dataset(shards["lmdb"])
    crops = np.empty((2, SIZE, SIZE, 3), np.uint8)
    for epoch in (0, 1):
        transforms.train_transform(
            dataset[5], sampler.random_draws(0, epoch, 0, 1)[0], crops[epoch], TransformOptions()
        )
    assert not np.array_equal(crops[0], crops[1])


def test_images_are_the_views_of_their_records(shards: dict[str, Path]):
    dataset = Dataset(shards["lmdb"])
    out = np.empty((SIZE, SIZE, 3), np.uint8)
    images = np.concatenate([batch.images for batch in stream(shards["lmdb"], epochs=1, workers=2)])
    for position, number in enumerate(sampler.epoch_order(36, 0, 0).tolist()):
        transforms.train_transform(dataset[number], sampler.random_draws(0, 0, position, 1)[0], out, TransformOptions())
        assert np.array_equal(images[position], out)
    images = np.concatenate([batch.images for batch in stream(shards["lmdb"], epochs=None, training=False)])
    for number in range(36):
        transforms.eval_transform(dataset[number], out)
        assert np.array_equal(images[number], out)


def test_augment_off_shows_evaluation_views_in_training_order(shards: dict[str, Path]):
    plain = np.concatenate([batch.images for batch in stream(shards["lmdb"], epochs=1, augment=False)])
    evaluated = np.concatenate([batch.images for batch in stream(shards["lmdb"], epochs=1, training=False)])
    assert np.array_equal(plain, evaluated[sampler.epoch_order(36, 0, 0)])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("training", [True, False])
def test_start_batch_gives_the_rest(shards: dict[str, Path], training: bool, workers: int):
    everything = content(stream(shards["tfrecord"], training=training))
    for start in (1, 5, 10, 11, 12):
        assert (
            content(stream(shards["tfrecord"], training=training, start_batch=start, workers=workers))
            == everything[start:]
        )


@pytest.mark.parametrize("training", [True, False])
def test_processes_have_every_batch_between_them(shards: dict[str, Path], training: bool):
    def rows(**share: object) -> list[list[tuple[bytes, int]]]:
        found = stream(shards["lmdb"], training=training, epochs=3, batch_size=30, start_batch=1, **share)
        return [[(image.tobytes(), int(label)) for image, label in zip(*batch)] for batch in found]

    whole = rows()
    assert [len(batch) for batch in whole] == [30, 30, 18]
    for count in (1, 2, 3, 5, 15):
        shares = [rows(shard_index=i, num_shards=count, workers=i if count == 3 else 0) for i in range(count)]
        assert shares == [[batch[i::count] for batch in whole] for i in range(count)]


@pytest.mark.parametrize("workers", [0, 2])
def test_without_shuffle_an_epoch_goes_from_class_to_class(shards: dict[str, Path], workers: int):
    dataset = Dataset(shards["lmdb"])
    packed = [dataset[i].label for i in range(36)]
    batches = list(stream(shards["lmdb"], training=True, shuffle=False, augment=False, epochs=2, workers=workers))
    assert packed != sorted(packed)
    assert np.concatenate([batch.labels for batch in batches]).tolist() == 2 * sorted(packed)
    images, out = np.concatenate([batch.images for batch in batches]), np.empty((SIZE, SIZE, 3), np.uint8)
    for position, number in enumerate(sorted(range(36), key=lambda i: packed[i])):
        transforms.eval_transform(dataset[number], out)
        assert np.array_equal(images[position], out)


def test_the_smallest_crop_is_an_option():
    draws = sampler.random_draws(0, 0, 0, 300).tolist()
    areas = [r.height * r.width / 1e6 for r in (augment.random_resized_crop(1000, 1000, d, 0.5) for d in draws)]
    assert 0.49 < min(areas) < 0.55
    assert max(areas) > 0.9


@pytest.mark.parametrize("workers", [0, 2])
def test_without_epochs_training_has_no_end_and_evaluation_one_pass(shards: dict[str, Path], workers: int):
    endless = batches.iter_batches(
        shards["lmdb"], LoaderOptions(batch_size=7, training=True, image_size=SIZE, workers=workers)
    )
    assert [len(next(endless).labels) for _ in range(15)] == [7] * 15
    endless.close()
    found = stream(shards["lmdb"], training=False, epochs=None, workers=workers)
    assert [len(batch.labels) for batch in found] == [7, 7, 7, 7, 7, 1]


def test_a_batch_may_be_larger_than_the_dataset(numbered: dict[str, Path]):
    found = stream(numbered["lmdb"], image_size=4, batch_size=150, workers=2)
    assert [len(batch.labels) for batch in found] == [150, 50]
    assert Counter(np.concatenate([batch.images[:, 0, 0, 0] for batch in found]).tolist()) == dict.fromkeys(
        range(100), 2
    )


def test_what_a_consumer_keeps_is_its_own(shards: dict[str, Path]):
    """Slots go round, but never under the feet of somebody who holds a batch, or a part of one."""
    expected = content(stream(shards["lmdb"], epochs=5))
    options = LoaderOptions(batch_size=7, training=True, image_size=SIZE, workers=2, epochs=5)
    everything = list(batches.iter_batches(shards["lmdb"], options))
    assert content(everything) == expected
    parts = []
    for batch in batches.iter_batches(shards["lmdb"], options):
        parts.append(batch.images[3:4])
        del batch
    assert [part.tobytes() for part in parts[:-1]] == [
        images[3 * SIZE * SIZE * 3 : 4 * SIZE * SIZE * 3] for _, images, _ in expected[:-1]
    ]


def test_batches_that_nobody_keeps_are_not_copied(shards: dict[str, Path]):
    for batch in batches.iter_batches(
        shards["lmdb"], LoaderOptions(batch_size=4, training=True, image_size=SIZE, workers=1, epochs=5)
    ):
        memory = batch.images
        while isinstance(memory, np.ndarray):
            memory = memory.base
        assert isinstance(memory, (mmap.mmap, memoryview))


def workers_of(parent: int) -> list[int]:
    """Processes whose parent is ``parent``."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_workers_end_with_the_iterator(shards: dict[str, Path]):
    before = set(workers_of(os.getpid()))
    found = batches.iter_batches(shards["lmdb"], LoaderOptions(batch_size=4, training=True, image_size=SIZE, workers=2))
    next(found)
    assert len(set(workers_of(os.getpid())) - before) == 2
    found.close()
    assert set(workers_of(os.getpid())) == before
    another = batches.iter_batches(
        shards["lmdb"], LoaderOptions(batch_size=4, training=True, image_size=SIZE, workers=2)
    )
    next(another)
    del another
    gc.collect()
    assert set(workers_of(os.getpid())) == before


def test_a_killed_worker_is_an_error_within_seconds(shards: dict[str, Path]):
    before = set(workers_of(os.getpid()))
    found = batches.iter_batches(shards["lmdb"], LoaderOptions(batch_size=4, training=True, image_size=SIZE, workers=2))
    next(found)
    os.kill(min(set(workers_of(os.getpid())) - before), signal.SIGKILL)
    start = time.monotonic()
    said = rf"^{re.escape(str(shards['lmdb']))}: (batch at position \d+ of epoch \d+: )?worker .* was killed by SIGKILL"
    with pytest.raises(WorkerError, match=said):
        for _ in range(100):
            next(found)
    assert time.monotonic() - start < 5
    assert set(workers_of(os.getpid())) == before


def damage(folder: Path, key: str) -> None:
    """Put an end marker into the middle of the image of ``key``; its shard keeps its size."""
    dataset = Dataset(folder)
    number = next(i for i in range(len(dataset)) if dataset[i].key == key)
    data = bytes(dataset[number].encoded)
    path = Path(dataset.describe_location(number).split(",")[0])
    dataset.close()
    content = path.read_bytes()
    middle = content.index(data[:500]) + len(data) // 2
    path.write_bytes(content[:middle] + b"\xff\xd9" + content[middle + 2 :])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_record_is_named_after_the_batches_before_it(
    shards: dict[str, Path], name: str, workers: int, tmp_path: Path
):
    folder = shutil.copytree(shards[name], tmp_path / "copy")
    keys = [Dataset(folder)[i].key for i in range(36)]
    damage(folder, keys[23])
    found = batches.iter_batches(folder, LoaderOptions(batch_size=5, training=False, image_size=SIZE, workers=workers))
    good = content(stream(shards[name], training=False, epochs=None, batch_size=5))
    for i in range(4):
        assert content([next(found)]) == good[i : i + 1]
    with pytest.raises(
        RecordError, match=rf"-of-00005\.{name}, record \d+, byte \d+, key '{keys[23]}': its data do not"
    ):
        next(found)


def test_a_shard_that_is_missing_or_cut_is_named(shards: dict[str, Path], tmp_path: Path):
    folder = shutil.copytree(shards["tfrecord"], tmp_path / "copy")
    shard = folder / "00002-of-00005.tfrecord"
    os.truncate(shard, 1000)
    with pytest.raises(RecordError, match=r"00002-of-00005.tfrecord: 1000 bytes, its manifest says \d+"):
        stream(folder)
    shard.unlink()
    with pytest.raises(RecordError, match=r"00002-of-00005.tfrecord: cannot be read \(No such file"):
        stream(folder)
    with pytest.raises(ManifestError):
        stream(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"image_size": 0}, {"seed": -1}, {"workers": -1}, {"epochs": 0}, {"start_batch": -1}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, int]):
    with pytest.raises(OptionError, match=next(iter(options))):
        LoaderOptions(**{"batch_size": 4, "training": True, **options})
