"""Errors carry data: which file, which record, which key; also on their way out of another process."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.images import FORMATS, image_bytes, put
from support.sources import tar_of

import ingest
from ingest.cli import guarded
from ingest.dataset.dataset import Dataset
from ingest.dataset.manifest import load_manifest
from ingest.errors import (
    BadSampleError,
    IngestError,
    ManifestError,
    OptionError,
    OutputError,
    RecordError,
    SourceError,
    WorkerError,
    fields_of,
)
from ingest.formats import index_path
from ingest.loading.batches import iter_batches
from ingest.loading.options import LoaderOptions
from ingest.packing import resumable
from ingest.sources.base import Entries, Entry
from ingest.sources.detect import open_source
from ingest.system import paths, worker_pool
from ingest.tools.convert import convert
from models import ModelError

pytestmark = pytest.mark.slow


def tree(kind: type[IngestError]) -> Iterator[type[IngestError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


KINDS = list(tree(IngestError))


def fields(error: BaseException) -> tuple[object, object, object]:
    assert isinstance(error, IngestError)
    return error.path, error.record, error.key


def caught(call: Callable[[], object]) -> IngestError:
    with pytest.raises(IngestError) as raised:
        call()
    return raised.value


def test_the_tree_is_not_empty():
    assert len(KINDS) >= 9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_all_of_an_error_survives(kind: type[IngestError], again: Callable[[IngestError], IngestError]):
    found = again(kind("what is wrong", path=Path("shards/0"), record=7, key="a/b.JPEG"))
    assert type(found) is kind and found.exit_code == kind.exit_code
    assert (str(found), found.args) == ("what is wrong", ("what is wrong",))
    assert fields(found) == ("shards/0", 7, "a/b.JPEG")
    assert fields(again(kind("what is wrong"))) == (None, None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_exit_code_is_that_of_the_class(kind: type[IngestError], capfd: pytest.CaptureFixture[str]):
    def fail() -> None:
        raise kind("what is wrong")

    assert guarded("program", fail) == (2 if issubclass(kind, OptionError) else 1)
    assert capfd.readouterr().err == "program: error: what is wrong\n"


def test_an_error_raised_from_another_has_its_fields():
    inner = RecordError("inner", path="inner", record=0, key="")
    assert fields_of(inner) == {"path": "inner", "record": 0, "key": ""}
    assert fields(WorkerError("outer", **fields_of(inner, path="outer"))) == ("outer", 0, "")
    assert fields_of(OSError(2, "none", "file"), path="outer") == {"path": "outer"}


def damaged_copy(shards: Path, out: Path, i: int) -> Path:
    """A copy of a dataset in which a byte of the image of record ``i`` is another."""
    shutil.copytree(shards, out)
    path, place = Dataset(out).location(i)
    content = bytearray(path.read_bytes())
    content[place.offset + place.size_bytes // 2] ^= 1
    path.write_bytes(content)
    return out


DAMAGED = 10
"""Of 36 records in five shards of 7 or 8, one in the second, and not its first."""


@pytest.fixture(params=FORMATS)
def damaged(
    request: pytest.FixtureRequest, shards: dict[str, Path], tmp_path: Path
) -> tuple[Path, tuple[str, int, str]]:
    """A dataset with a damaged record, and the fields of an error about it."""
    sound = Dataset(shards[request.param])
    number, start = next((n, part.start) for n, part in enumerate(sound.ranges()) if DAMAGED in part)
    folder = damaged_copy(shards[request.param], tmp_path / "damaged", DAMAGED)
    path = folder / sound.manifest.shards[number].name
    assert number > 0 and start < DAMAGED
    return folder, (str(path), DAMAGED - start, sound[DAMAGED].key)


def test_a_damaged_record(damaged: tuple[Path, tuple[str, int, str]]):
    folder, expected = damaged
    dataset = Dataset(folder)
    for call in (lambda: dataset[DAMAGED], lambda: dataset.payload(DAMAGED)):
        error = caught(call)
        assert isinstance(error, RecordError) and fields(error) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_that_the_loader_meets(damaged: tuple[Path, tuple[str, int, str]], workers: int):
    folder, expected = damaged
    error = caught(
        lambda: list(iter_batches(folder, LoaderOptions(batch_size=4, training=False, image_size=32, workers=workers)))
    )
    assert isinstance(error, RecordError) and fields(error) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_that_is_to_be_copied(
    damaged: tuple[Path, tuple[str, int, str]], workers: int, tmp_path: Path
):
    folder, expected = damaged
    other = next(name for name in FORMATS if name != load_manifest(folder).format)
    error = caught(lambda: convert(folder, tmp_path / "out", format=other, workers=workers))
    assert isinstance(error, RecordError) and fields(error) == expected


@pytest.mark.parametrize("name", FORMATS)
def test_where_the_structure_of_a_shard_breaks(shards: dict[str, Path], tmp_path: Path, name: str):
    folder = shutil.copytree(shards[name], tmp_path / "copy")
    path, place = Dataset(folder).location(3)
    index_path(path).unlink()
    content = path.read_bytes()
    # Each LMDB record has its number for a key; a TFRecord's length is before it.
    at = content.index(b"00000003") if name == "lmdb" else place.offset - 12
    path.write_bytes(content[:at] + b"9" + content[at + 1 :])
    assert fields(caught(lambda: Dataset(folder)[0])) == (str(path), 3, None)


@pytest.mark.parametrize("how", ["missing", "short"])
def test_a_shard_that_is_not_what_the_manifest_says(shards: dict[str, Path], tmp_path: Path, how: str):
    folder = shutil.copytree(shards["tfrecord"], tmp_path / "copy")
    path = folder / load_manifest(folder).shards[2].name
    content = path.read_bytes()
    path.unlink()
    if how == "short":
        path.write_bytes(content[:-1])
    assert fields(caught(lambda: Dataset(folder))) == (str(path), None, None)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_that_ends_a_build(tmp_path: Path, name: str, workers: int):
    source = put(tmp_path / "source", {"a/1.JPEG": image_bytes("JPEG"), "a/2.JPEG": b""})

    def build() -> None:
        ingest.build_shards(source, tmp_path / "out", format=name, on_bad="fail", workers=workers)

    error = caught(build)
    assert isinstance(error, BadSampleError) and str(error) == "a/2.JPEG: empty file"
    assert fields(error) == (None, None, "a/2.JPEG")
    # What never was a file of a class is known by its place, too.
    put(source, {"a/2.JPEG": image_bytes("JPEG"), "README": b"text"})
    shutil.rmtree(tmp_path / "out")
    assert fields(caught(build)) == (str(source / "README"), None, "README")


def test_a_bad_image_of_an_unfinished_build_that_goes_on():
    receipt = resumable.ShardReceipt(
        shard=resumable.Shard("0", 1, 1, ""),
        quarantined=[("a/2.JPEG", "empty file")],
        converted={},
        has_color=True,
        has_jpeg=True,
        rotated=0,
    )
    error = caught(lambda: resumable.check_none_bad([receipt]))
    assert (str(error), error.key) == ("a/2.JPEG: empty file", "a/2.JPEG")


def test_a_member_that_is_no_image(tmp_path: Path):
    content = tar_of({"a/1.JPEG": image_bytes("JPEG"), "stray.JPEG": image_bytes("JPEG")})
    path = put(tmp_path, {"images.tar": content}) / "images.tar"
    source = open_source(path)
    (stray,) = (entry for entry in source.entries if entry.label < 0)
    error = caught(lambda: source.read(stray))
    assert isinstance(error, BadSampleError) and fields(error) == (str(path), None, "stray.JPEG")


def test_the_first_of_several_damaged_archives(tmp_path: Path):
    content = tar_of({"1.JPEG": image_bytes("JPEG"), "2.JPEG": image_bytes("JPEG")})
    folder = put(tmp_path, {"a.tar": content, "b.tar": content[:-9000], "c.tar": content[:-9000]})
    error = caught(lambda: open_source(folder))
    assert isinstance(error, SourceError) and str(error).count("damaged") == 2
    assert fields(error) == (str(folder / "b.tar"), None, None)


def test_a_key_that_two_images_have():
    error = caught(lambda: Entries([Entry("b", 0), Entry("a\udcff", 0), Entry("a\udcff", 0)]))
    assert isinstance(error, SourceError) and fields(error) == (None, None, "a\udcff")


def test_places_that_cannot_be_used(shards: dict[str, Path], tmp_path: Path):
    missing, photo = tmp_path / "missing", put(tmp_path / "source", {"a/1.JPEG": image_bytes("JPEG")})
    full = put(tmp_path / "full", {"foreign": b""})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    (tmp_path / "broken" / "build.json").write_text("{")
    for call, kind, path in (
        (lambda: open_source(missing), SourceError, missing),
        (lambda: ingest.build_shards(photo, full, format="lmdb"), OutputError, full),
        (lambda: load_manifest(missing), ManifestError, missing / "manifest.json"),
        (lambda: load_manifest(tmp_path / "broken"), ManifestError, tmp_path / "broken" / "manifest.json"),
        # Of an error that another one is made of.
        (
            lambda: ingest.build_shards(photo, tmp_path / "broken", format="lmdb"),
            OutputError,
            tmp_path / "broken" / "manifest.json",
        ),
        (lambda: paths.local("https://host/shards"), OptionError, "https://host/shards"),
        (lambda: convert(shards["lmdb"], tmp_path / "out", format="lmdb"), OptionError, shards["lmdb"]),
    ):
        error = caught(call)
        assert type(error) is kind and fields(error) == (str(path), None, None)


class Album(NamedTuple):
    """A task of several images."""

    keys: list[str]

    def key_after(self, done: int) -> str:
        return self.keys[done] if done < len(self.keys) else ""


class Mortal:
    """A handler that a key can kill, or have refuse."""

    def __call__(self, task: Album, progress: Callable[[int], object]) -> None:
        for i, key in enumerate(task.keys):
            if key == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if key == "refuse":
                raise RecordError("refused", path="shard", record=i, key=key)
            progress(1)


def test_errors_of_worker_processes():
    def run(*keys: str) -> None:
        list(worker_pool.run(Mortal, (), [Album(list(keys))], 1, lambda images: None))

    refused = caught(lambda: run("one", "refuse"))
    assert type(refused) is RecordError and fields(refused) == ("shard", 1, "refuse")
    killed = caught(lambda: run("one", "two", "die", "three"))
    assert type(killed) is WorkerError and fields(killed) == (None, None, "die")


def test_an_error_of_the_models_names_its_path():
    error = ModelError("what is wrong", path=Path("runs/1"))
    assert (str(error), error.path, ModelError("alone").path) == ("what is wrong", "runs/1", None)
    assert pickle.loads(pickle.dumps(error)).path == "runs/1"
