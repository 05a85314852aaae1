"""The same batches in every framework that is installed: through each adapter, in each process, after a state."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.images import FORMATS

import ingest
from ingest.errors import OptionError

# What frameworks say of themselves: PyTorch's DataLoader of its own call, Keras of a dataset that it cannot shuffle,
# JAX and Python of a DataLoader that forks.
SAID = ("'set_vital'", "`shuffle=True`", "os.fork", "This process .* is multi-threaded")
pytestmark = [pytest.mark.filterwarnings(f"ignore:{message}") for message in SAID]

SIZE = 24
Content = list[tuple[bytes, list[int], list[int]]]


def options(**given: Any) -> dict[str, Any]:
    return {"batch_size": 12, "training": True, "image_size": SIZE, "workers": 0, "fields": ("number",), **given}


def content(batches: Iterable[tuple[Any, ...]]) -> Content:
    return [(image_bytes(images), ints(labels), ints(numbers)) for images, labels, numbers in batches]


def image_bytes(images: Any) -> bytes:
    array = np.asarray(images)
    assert array.dtype == np.uint8
    return np.ascontiguousarray(array).tobytes()


def ints(column: Any) -> list[int]:
    return np.asarray(column).tolist()


def of_loader(shards: Path, **given: Any) -> Iterable[Any]:
    return ingest.Loader(shards, **options(**given))


def of_dataflow(shards: Path, **given: Any) -> Iterable[Any]:
    pytest.importorskip("tensorpack")
    return ingest.dataflow(shards, **options(**given))


class OfTensorFlow:
    def __init__(self, shards: Path, **given: Any):
        pytest.importorskip("tensorflow")
        self._dataset = ingest.input_fn(shards, **options(**given))()

    def __iter__(self) -> Iterator[Any]:
        for features, labels in self._dataset:
            yield features["images"], labels, features["number"]


class OfTorch:
    def __init__(self, shards: Path, **given: Any):
        torch = pytest.importorskip("torch")
        import ingest.adapters.torch as adapter

        self._torch, self._batches = torch, adapter.batches(ingest.Loader(shards, **options(**given)))

    def __iter__(self) -> Iterator[Any]:
        for images, labels, numbers in self._batches:
            assert images.is_contiguous(memory_format=self._torch.channels_last)
            assert images.shape[1:] == (3, SIZE, SIZE)
            assert labels.dtype == numbers.dtype == self._torch.int64
            yield images.permute(0, 2, 3, 1), labels, numbers


class OfDataLoader(OfTorch):
    def __init__(self, shards: Path, **given: Any):
        super().__init__(shards, **given)
        self._batches = self._torch.utils.data.DataLoader(self._batches, batch_size=None)


class OfJax:
    def __init__(self, shards: Path, **given: Any):
        pytest.importorskip("jax")
        self._loader = ingest.Loader(shards, **options(**given))

    def __iter__(self) -> Iterator[Any]:
        import ingest.adapters.jax as adapter

        return adapter.batches(self._loader)


FACES: dict[str, Callable[..., Iterable[Any]]] = {
    "dataflow": of_dataflow, "input_fn": OfTensorFlow, "torch": OfTorch, "DataLoader": OfDataLoader, "jax": OfJax
}  # fmt: skip


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(("training", "name"), [(True, FORMATS[0]), (False, FORMATS[-1])])
def test_all_frameworks_have_the_same_batches(shards: dict[str, Path], face: str, name: str, training: bool):
    given = {"training": training, "epochs": 1, "workers": 2, "batch_size": 10}
    expected = of_loader(shards["lmdb"], **{**given, "workers": 0})
    found = FACES[face](shards[name], **given)
    for _ in range(2):
        assert content(found) == content(expected)


@pytest.mark.parametrize("face", FACES)
def test_ten_passes_show_ten_permutations(shards: dict[str, Path], face: str):
    found = FACES[face](shards["tfrecord"], epochs=1)
    passes = [[number for _, _, numbers in content(found) for number in numbers] for _ in range(10)]
    assert all(sorted(each) == list(range(36)) for each in passes)
    assert len({tuple(each) for each in passes}) == 10


def test_keras_three_is_shown_ten_permutations(shards: dict[str, Path]):
    keras = pytest.importorskip("keras", minversion="3")
    tensorflow = pytest.importorskip("tensorflow")
    seen: list[int] = []

    class Recorder(keras.Model):
        def train_step(self, data: Any) -> dict[str, Any]:
            seen.extend(ints(data[0]["number"]))
            return {"loss": tensorflow.constant(0.0)}

    model = Recorder()
    model.compile(run_eagerly=True)
    model.fit(ingest.input_fn(shards["lmdb"], **options(epochs=1))(), epochs=10, verbose=0)
    passes = [tuple(seen[i : i + 36]) for i in range(0, 360, 36)]
    assert len(seen) == 360
    assert len(set(passes)) == 10
    assert all(sorted(each) == list(range(36)) for each in passes)


def test_a_length_is_that_of_every_iteration(shards: dict[str, Path]):
    """Lightning asks for it once, and takes no more than that in any."""
    pytest.importorskip("torch")
    import ingest.adapters.torch as adapter

    for start in (0, 2):
        found = adapter.batches(ingest.Loader(shards["lmdb"], **options(epochs=1, start_batch=start)))
        assert (len(found), len(list(found))) == (3, 3 - start)
    resumed = adapter.batches(ingest.Loader(shards["lmdb"], **options(epochs=1)))
    resumed.load_state_dict({**resumed.state_dict(), "batch": 2})
    most = len(resumed)
    assert [len(list(islice(resumed, most))) for _ in range(3)] == [1, 3, 3]
    with pytest.raises(TypeError, match="has no end"):
        len(adapter.batches(ingest.Loader(shards["lmdb"], **options())))


def test_rows_are_shared_once(shards: dict[str, Path]):
    pytest.importorskip("torch")
    import ingest.adapters.torch as adapter

    own = ingest.Loader(shards["lmdb"], **options(epochs=1, num_shards=2))
    with pytest.raises(OptionError, match="has num_shards 2 of its own: give that, or rank and world_size"):
        adapter.batches(own, rank=0, world_size=2)
    assert [len(labels) for _, labels, _ in adapter.batches(own)] == [6, 6, 6]


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_a_batch_can_be_pickled(shards: dict[str, Path], library: str):
    pytest.importorskip(library)
    adapter = importlib.import_module(f"ingest.adapters.{library}")
    (batch, *_) = adapter.batches(ingest.Loader(shards["lmdb"], **options(epochs=1)))
    again = pickle.loads(pickle.dumps(batch))
    assert type(again) is type(batch)
    assert content([again]) == content([batch])


def test_a_dataloader_with_processes_of_its_own_is_refused(shards: dict[str, Path]):
    torch = pytest.importorskip("torch")
    import ingest.adapters.torch as adapter

    twice = torch.utils.data.DataLoader(adapter.batches(of_loader(shards["lmdb"])), batch_size=None, num_workers=2)
    with pytest.raises(OptionError, match="give DataLoader num_workers=0"):
        next(iter(twice))


@pytest.mark.parametrize("taken", [1, 3, 4])
def test_a_stateful_dataloader_goes_on(shards: dict[str, Path], taken: int):
    loading = pytest.importorskip("torchdata.stateful_dataloader")
    import ingest.adapters.torch as adapter

    def loader(workers: int) -> Any:
        given = options(epochs=1, workers=workers, batch_size=10)
        return loading.StatefulDataLoader(adapter.batches(ingest.Loader(shards["lmdb"], **given)), batch_size=None)

    def of_tensors(batches: Iterable[Any]) -> Content:
        return content((images.permute(0, 2, 3, 1), *others) for images, *others in batches)

    whole, first, second = loader(0), loader(2), loader(1)
    expected = [of_tensors(whole) for _ in range(3)]
    list(first)
    assert of_tensors(islice(first, taken)) == expected[1][:taken]
    second.load_state_dict(first.state_dict())
    assert [of_tensors(second) for _ in range(2)] == [expected[1][taken:], expected[2]]


def test_a_batch_can_be_taken_apart_and_put_together(shards: dict[str, Path]):
    """As DataLoader, Lightning and PyTorch's pinning do, and JAX with what it calls a pytree."""
    torch = pytest.importorskip("torch")
    import ingest.adapters.torch as adapter

    (batch, *_) = adapter.batches(ingest.Loader(shards["lmdb"], **options(epochs=1)))
    assert batch._fields == ("images", "labels", "number")
    converted = torch.utils.data.default_convert(batch)
    assert type(converted) is type(batch)
    assert all(a is b for a, b in zip(converted, batch))
    jax = pytest.importorskip("jax")
    from ingest.adapters import jax as on_jax

    (batch, *_) = on_jax.batches(ingest.Loader(shards["lmdb"], **options(epochs=1)))
    assert [ints(column) for column in jax.tree.leaves(batch)] == [ints(column) for column in batch]
    assert ints(jax.jit(lambda each: each.labels + 1)(batch)) == ints(batch.labels + 1)


def test_what_is_taken_ahead_does_not_count(shards: dict[str, Path]):
    pytest.importorskip("jax")
    import ingest.adapters.jax as adapter

    for epochs in (1, None):
        loader = ingest.Loader(shards["lmdb"], **options(epochs=epochs))
        expected = content(ingest.Loader(shards["lmdb"], **options(epochs=2)))
        running = adapter.batches(loader)
        assert content(islice(running, 2)) == expected[:2]
        assert loader.state_dict()["batch"] == 2
        running.close()
        again = ingest.Loader(shards["lmdb"], **options(epochs=epochs))
        again.load_state_dict(loader.state_dict())
        assert content(islice(adapter.batches(again), 1)) == expected[2:3]
        if epochs is None:
            assert content(islice(adapter.batches(loader), 1)) == expected[2:3]


def test_a_batch_of_jax_lives_as_long_as_somebody_holds_it(shards: dict[str, Path]):
    """It may be the loader's own memory: that is used again only once nobody refers to it."""
    pytest.importorskip("jax")
    import ingest.adapters.jax as adapter

    given = options(epochs=6, workers=2)
    held = list(adapter.batches(ingest.Loader(shards["lmdb"], **given)))
    assert content(held) == content(ingest.Loader(shards["lmdb"], **given))


def test_an_error_comes_in_its_turn(shards: dict[str, Path], tmp_path: Path):
    pytest.importorskip("jax")
    import ingest.adapters.jax as adapter

    (tmp_path / "copy").mkdir()
    for file in shards["tfrecord"].iterdir():
        content_of = bytearray(file.read_bytes())
        if file.name.endswith(".tfrecord"):
            content_of[len(content_of) // 2] ^= 1
        (tmp_path / "copy" / file.name).write_bytes(content_of)
    with pytest.raises(ingest.IngestError, match="ingest verify"):
        list(adapter.batches(ingest.Loader(tmp_path / "copy", **options(epochs=1))))


GLOO = """
import json, sys
import torch.distributed
import ingest
from ingest.adapters import torch as adapter
shards, rendezvous, rank, world_size, options = json.loads(sys.argv[1])
batches = adapter.batches(ingest.Loader(shards, **options))
torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
loader = ingest.Loader(shards, **options)
state = None
found = {"whole": [numbers.tolist() for _, _, numbers in adapter.batches(loader, rank=0, world_size=1)]}
found["first"] = [numbers.tolist() for _, _, numbers in batches]
for step, (_, _, numbers) in enumerate(batches):
    if step == 0:
        found["second"] = [numbers.tolist()]
        state = batches.state_dict()
again = adapter.batches(ingest.Loader(shards, **{**options, "workers": 1 - options["workers"]}))
again.load_state_dict(state)
found["second"] += [numbers.tolist() for _, _, numbers in again]
torch.distributed.destroy_process_group()
print(json.dumps(found))
"""

JAX = """
import json, sys
import jax
shards, port, rank, world_size, options = json.loads(sys.argv[1])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"127.0.0.1:{port}", world_size, rank)
import numpy as np
import ingest
from ingest.adapters import jax as adapter
from jax.sharding import Mesh, NamedSharding, PartitionSpec
rows = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
def own(batches):
    for images, labels, numbers in batches:
        assert images.shape == (options["batch_size"], 24, 24, 3), images.shape
        assert labels.sharding == rows
        yield [int(n) for shard in numbers.addressable_shards for n in shard.data]
loader = ingest.Loader(shards, **options)
here, there = jax.local_devices()
with jax.default_device(there):
    assert next(adapter.batches(ingest.Loader(shards, **options))).images.device == there
found = {"whole": [n.tolist() for _, _, n in adapter.batches(loader, jax.sharding.SingleDeviceSharding(here))]}
replicated = NamedSharding(rows.mesh, PartitionSpec())
copies = [n for _, _, n in adapter.batches(ingest.Loader(shards, **options), replicated)]
assert [[shard.data.tolist() for shard in n.addressable_shards] for n in copies] == [[n, n] for n in found["whole"]]
loader = ingest.Loader(shards, **options)
found["first"] = list(own(adapter.batches(loader, rows)))
running = own(adapter.batches(loader, rows))
found["second"] = [next(running)]
state = loader.state_dict()
again = ingest.Loader(shards, **{**options, "workers": 1 - options["workers"]})
again.load_state_dict(state)
found["second"] += own(adapter.batches(again, rows))
local = NamedSharding(Mesh(np.array(jax.local_devices()), ("data",)), PartitionSpec("data"))
loader = ingest.Loader(shards, **options, shard_index=rank, num_shards=world_size)
assert [n.tolist() for _, _, n in adapter.batches(loader, local)] == found["first"]
def refusal(loader, devices, spec=PartitionSpec("data")):
    try:
        adapter.batches(loader, NamedSharding(Mesh(np.array(devices), ("data",)), spec))
    except ingest.IngestError as error:
        return str(error)
everywhere = jax.devices()
for spec in (PartitionSpec("data"), PartitionSpec()):
    assert "of its own" in refusal(loader, everywhere, spec)
whole = ingest.Loader(shards, **options)
if rank < 2:
    assert "unequal parts" in refusal(whole, everywhere[:3])
assert rank == 0 or "none of its devices" in refusal(whole, everywhere[:2])
both = Mesh(np.array(everywhere).reshape(-1, 2), ("data", "model"))
adapter.batches(whole, NamedSharding(both, PartitionSpec("data", None, None, "model")))
print(json.dumps(found))
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_have_each_record_once_and_go_on(
    shards: dict[str, Path], tmp_path: Path, library: str, processes: int
):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"there is no {library}")
    given = options(epochs=1)
    place = str(tmp_path / "rendezvous") if library == "torch" else free_port()
    words = [
        json.dumps([str(shards["lmdb"]), place, rank, processes, {**given, "workers": rank % 2}])
        for rank in range(processes)
    ]
    code = GLOO if library == "torch" else JAX
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, word], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1], text=True
        )
        for word in words
    ]
    found = [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in running]
    assert [process.wait() for process in running] == [0] * processes
    expected = [numbers for _, _, numbers in content(of_loader(shards["lmdb"], **{**given, "epochs": 3}))]
    for each in found:
        assert each["whole"] == expected[:3]
    for name, batches in (("first", expected[:3]), ("second", expected[3:6])):
        for batch, parts in zip(batches, zip(*(each[name] for each in found))):
            assert [parts[i % processes][i // processes] for i in range(len(batch))] == batch
