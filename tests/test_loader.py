"""Loader: iteration after iteration, where the next one begins, and from wherever it is used."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.images import FORMATS

import ingest
from ingest.errors import OptionError
from ingest.loading.options import LoaderOptions

ROOT = Path(__file__).parents[1]
SIZE = 24
Content = list[tuple[bytes, bytes]]


def loader(shards: Path, **options: Any) -> ingest.Loader:
    defaults = {"batch_size": 10, "training": True, "image_size": SIZE, "workers": 0}
    return ingest.Loader(shards, **{**defaults, **options})


def content(batches: Any) -> Content:
    return [(batch.images.tobytes(), batch.labels.tobytes()) for batch in batches]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("workers", [0, 2])
def test_each_iteration_goes_on_with_the_next_epochs(shards: dict[str, Path], name: str, workers: int):
    one_by_one = loader(shards[name], epochs=1, workers=workers)
    passes = [content(one_by_one) for _ in range(3)]
    starts = [content(loader(shards[name], epochs=1, start_batch=0)) for _ in range(2)]
    assert starts[0] == starts[1] == passes[0]
    assert len({images for each in passes for images, _ in each}) == 12
    # In one iteration batches run on across the ends of epochs: the images are the same ones, in the same order.
    at_once = loader(shards[name], epochs=3)
    rows = 3 * SIZE * SIZE
    assert b"".join(images for images, _ in content(at_once)) == b"".join(
        images for each in passes for images, _ in each
    )
    assert [len(images) // rows for images, _ in passes[0]] == [10, 10, 10, 6]


@pytest.mark.parametrize("epochs", [1, 2, None])
@pytest.mark.parametrize("training", [True, False])
def test_a_state_goes_on_wherever_it_was_taken(shards: dict[str, Path], training: bool, epochs: int | None):
    options = {"training": training, "epochs": epochs}
    undisturbed = loader(shards["lmdb"], **options)
    iterations = [content(islice(undisturbed, 9)) for _ in range(3)]
    for iteration in range(3):
        end = len(iterations[iteration])
        for taken in sorted({0, 1, 3, end - 1, end}):
            has_workers = taken == 3 and iteration < 2
            first = loader(shards["lmdb"], workers=2 if has_workers and iteration == 0 else 0, **options)
            for _ in range(iteration):
                list(islice(first, 9))
            given = content(islice(first, taken)) if taken else []
            assert given == iterations[iteration][:taken]
            state = json.loads(json.dumps(first.state_dict()))
            again = loader(shards["lmdb"], workers=1 if has_workers else 0, **options)
            again.load_state_dict(state)
            if taken or iteration == 0 or epochs is None:
                assert again.state_dict() == state
            rest = content(islice(again, 9 - taken))
            assert rest == iterations[iteration][taken:], (iteration, taken)


def test_a_finished_iteration_is_over(shards: dict[str, Path]):
    first, second = loader(shards["lmdb"], epochs=1), loader(shards["lmdb"], epochs=1)
    list(first)
    second.load_state_dict(first.state_dict())
    assert content(second) == content(first)
    assert len(loader(shards["lmdb"], epochs=1)) == 4


def test_the_length_is_that_of_the_next_iteration(shards: dict[str, Path]):
    late = loader(shards["lmdb"], epochs=2, start_batch=3)
    assert [len(late), len(list(late)), len(late), len(list(late))] == [5, 5, 8, 8]
    with pytest.raises(TypeError, match="has no end"):
        len(loader(shards["lmdb"]))
    evaluation = loader(shards["lmdb"], training=False, start_batch=3)
    assert [len(list(evaluation)) for _ in range(2)] == [len(evaluation)] * 2 == [1, 1]


def test_a_state_is_the_same_in_all_processes(shards: dict[str, Path]):
    options, states = {"epochs": 2, "batch_size": 12}, set()
    for count in (1, 2, 3):
        for index in range(count):
            share = loader(shards["lmdb"], shard_index=index, num_shards=count, **options)
            list(islice(share, 2))
            states.add(json.dumps(share.state_dict()))
    assert len(states) == 1
    whole = content(islice(loader(shards["lmdb"], **options), 2, None))
    (state,) = map(json.loads, states)
    shares = [loader(shards["lmdb"], shard_index=index, num_shards=2, **options) for index in range(2)]
    for share in shares:
        share.load_state_dict(state)
    row = 3 * SIZE * SIZE
    for (images, _), parts in zip(whole, zip(*map(content, shares))):
        rows = [part[i : i + row] for part, _ in parts for i in range(0, len(part), row)]
        assert sorted(rows) == sorted(images[i : i + row] for i in range(0, len(images), row))


@pytest.mark.parametrize(
    "change",
    [
        {"batch": -1}, {"batch": 2**60}, {"batch": 1.0}, {"batch": "1"}, {"batch": None}, {"epoch": 1}, {"epoch": -2},
        {"dataset": "0" * 64}, {"batch_size": 11}, {"seed": 1}, {"training": False}, {"training": 1},
        {"shuffle": False}, {"epochs": 4}, {"epochs": None},
    ],
)  # fmt: skip
def test_a_state_of_something_else_is_refused(shards: dict[str, Path], change: dict[str, Any]):
    here = loader(shards["lmdb"], epochs=2)
    state = here.state_dict()
    with pytest.raises(OptionError, match=next(iter(change))):
        here.load_state_dict({**state, **change})
    with pytest.raises(OptionError, match=next(iter(change))):
        here.load_state_dict({name: value for name, value in state.items() if name not in change})
    assert here.state_dict() == state


@pytest.mark.parametrize("state", [None, 3, [], "x", np.zeros(3), {"dataset": np.zeros(3)}])
def test_what_is_no_state_is_refused(shards: dict[str, Path], state: Any):
    with pytest.raises(OptionError, match=r"^(the state is|dataset is)"):
        loader(shards["lmdb"]).load_state_dict(state)


def test_numpys_numbers_are_a_state_too(shards: dict[str, Path]):
    first, second = loader(shards["lmdb"]), loader(shards["lmdb"])
    list(islice(first, 2))
    state = first.state_dict()
    second.load_state_dict({name: np.int64(value) if type(value) is int else value for name, value in state.items()})
    assert json.dumps(second.state_dict()) == json.dumps(state)


def test_what_processes_cannot_share_is_refused(shards: dict[str, Path]):
    with pytest.raises(OptionError, match="batch_size is 10: give a multiple of num_shards, 3"):
        loader(shards["lmdb"], num_shards=3)
    # 36 records leave a last batch of 2.
    few = {"batch_size": 34, "num_shards": 17, "epochs": 1}
    with pytest.raises(
        OptionError, match=r"36 records in batches of 34 .* last batch of 2, too few for num_shards, 17"
    ):
        loader(shards["lmdb"], **few)
    shares = [content(loader(shards["lmdb"], **few, shard_index=i, training=False)) for i in range(17)]
    assert [len(labels) // 4 for share in shares for _, labels in share] == [2, 1, 2, 1, *[2, 0] * 15]
    loader(shards["lmdb"], batch_size=34, num_shards=17)


def test_a_loader_of_options(shards: dict[str, Path]):
    options = LoaderOptions(batch_size=10, training=True, image_size=SIZE, workers=0, fields=("key",), epochs=1)
    made, given = ingest.Loader.of(shards["lmdb"], options), loader(shards["lmdb"], fields=("key",), epochs=1)
    assert made.options == given.options == options
    assert content(made) == content(given)
    assert given.names == ("images", "labels", "key")
    assert (given.records, given.channels, len(given.classes)) == (36, 3, 3)
    assert repr(given) == (
        f"<Loader({str(shards['lmdb'])!r}, batch_size=10, training=True, image_size=24, workers=0, epochs=1, "
        "fields=('key',)): 36 records>"
    )
    with pytest.raises(TypeError, match=r"^Loader\(\) missing a required argument: 'training'"):
        ingest.Loader(shards["lmdb"], batch_size=4)
    with pytest.raises(TypeError, match=r"^Loader\(\) got an unexpected keyword argument 'trainig'"):
        ingest.Loader(shards["lmdb"], batch_size=4, trainig=True)


def test_copies_go_on_by_themselves(shards: dict[str, Path]):
    first = loader(shards["lmdb"], epochs=1)
    list(first)
    copies = [pickle.loads(pickle.dumps(first)) for _ in range(2)]
    second = content(first)
    assert [content(each) for each in copies] == [second, second]


def test_threads_have_an_iteration_each(shards: dict[str, Path]):
    shared, found = loader(shards["lmdb"], epochs=1, workers=1), []
    threads = [threading.Thread(target=lambda: found.append(content(shared))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    alone = loader(shards["lmdb"], epochs=1)
    assert sorted(found) == sorted(content(alone) for _ in range(3))


DAEMON = """
import multiprocessing, sys
import ingest

def first_batch(loader, connection):
    images, labels = next(iter(loader))
    connection.send((images.shape, labels.tolist()))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    here, there = context.Pipe()
    loader = ingest.Loader(sys.argv[2], batch_size=10, training=True, image_size=24, workers=2)
    child = context.Process(target=first_batch, args=(loader, there), daemon=True)
    child.start()
    print(here.poll(60) and here.recv())
    child.join(60)
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_daemonic_child_has_workers_too(shards: dict[str, Path], tmp_path: Path, method: str):
    (tmp_path / "script.py").write_text(DAEMON)
    words = [sys.executable, str(tmp_path / "script.py"), method, str(shards["lmdb"])]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    (first,) = islice(loader(shards["lmdb"]), 1)
    assert (done.returncode, done.stdout) == (0, f"{((10, SIZE, SIZE, 3), first.labels.tolist())}\n"), done.stderr


def test_a_notebook_has_workers_too(shards: dict[str, Path]):
    """As there, the code is of no file and its first path is the current folder."""
    cells = (
        f"import ingest\nfor images, labels in ingest.Loader({str(shards['lmdb'])!r}, batch_size=36, training=False, "
        "workers=2):\n    print(images.shape, labels.sum())\n"
    )
    done = subprocess.run([sys.executable, "-"], input=cells, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("(36, 224, 224, 3) "), done.stderr
