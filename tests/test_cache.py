"""The cache of remote shards: what a foreign dataset cannot do to it, or by it to anything else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c
from support.images import files_of
from support.web import Web, serving

import ingest
from ingest import formats
from ingest.dataset import cache, manifest
from ingest.dataset.dataset import Dataset
from ingest.errors import IngestError, OptionError, OutputError, RecordError

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("INGEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("INGEST_TIMEOUT", "2")
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def served(shards: dict[str, Path], tmp_path: Path, folder: Path) -> Iterator[Web]:
    """A copy of the dataset, on a web server."""
    shutil.copytree(shards["tfrecord"], tmp_path / "root")
    with serving(tmp_path / "root") as server:
        yield server


def keys(place: str | Path) -> list[str]:
    dataset = Dataset(place)
    return [dataset[i].key for i in range(len(dataset))]


def sums(root: Path) -> list[str]:
    return [shard.sha256 for shard in ingest.load_manifest(root).shards]


def asked(web: Web) -> int:
    return sum(count for path, count in web.asked.items() if path.startswith("GET") and path.endswith(".tfrecord"))


def resealed(root: Path, **changes: Any) -> None:
    """The manifest with changes in all its shards, as one who means harm would write it: its own sum is right."""
    content = json.loads((root / manifest.NAME).read_text())
    content.pop("sha256")
    for shard in content["shards"]:
        shard.update({name: value(shard) if callable(value) else value for name, value in changes.items()})
    sealed = {**content, "sha256": manifest._sum(content)}
    (root / manifest.NAME).write_bytes(manifest._text(sealed))


def index_of(path: Path) -> np.ndarray:
    found = formats.load_index(path, path.stat().st_size)
    assert found is not None
    return found


def write_index(path: Path, index: np.ndarray) -> None:
    formats.index_path(path).write_bytes(
        formats.index.encode_index(formats.RecordLocation(*row) for row in index.tolist())
    )


DAMAGES = ["longer", "cut", "flipped", "zeroed", "folder", "link", "empty"]


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    if kind in ("folder", "link"):
        path.rename(path.with_name("elsewhere"))
        path.mkdir() if kind == "folder" else path.symlink_to(path.with_name("elsewhere"))
    else:
        path.write_bytes(
            {
                "longer": content + b"x",
                "cut": content[:-1],
                "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
                "zeroed": bytes(len(content)),
                "empty": b"",
            }[kind]
        )


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_copy_is_fetched_again(served: Web, shards: dict[str, Path], folder: Path, kind: str):
    expected = keys(shards["tfrecord"])
    assert keys(served.url) == expected
    copy = folder / f"{sums(served.root)[2]}.tfrecord"
    damage(copy, kind)
    assert keys(served.url) == expected
    assert asked(served) == 6  # that one alone
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == copy.stem
    assert not copy.is_symlink()
    assert keys(served.url) == expected
    assert asked(served) == 6


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_copy_and_index_are_no_matter_to_training(
    served: Web, shards: dict[str, Path], folder: Path, workers: int
):
    options = {"batch_size": 12, "image_size": 32, "training": True, "epochs": 1}
    local = [images.copy() for images, _ in ingest.dataflow(shards["tfrecord"], workers=0, **options)]
    keys(served.url)
    copy = folder / f"{sums(served.root)[0]}.tfrecord"
    damage(copy, "zeroed")
    formats.index_path(copy).unlink()
    remote = [images.copy() for images, _ in ingest.dataflow(served.url, workers=workers, **options)]
    assert np.array_equal(np.concatenate(local), np.concatenate(remote))


def test_a_copy_that_is_cut_short_while_it_is_read_is_fetched_again(served: Web, shards: dict[str, Path], folder: Path):
    dataset = Dataset(served.url)
    expected = keys(shards["tfrecord"])
    for i in (0, 1):  # of one shard, of which nothing but the first was read
        assert dataset[i].key == expected[i]
        for copy in folder.glob("*.tfrecord"):
            os.truncate(copy, 100) if i == 0 else None
    for copy in folder.glob("*.tfrecord"):
        os.truncate(copy, 100)
    for i in (0, 2):
        with pytest.raises(RecordError, match="was cut short while it was read, to 100 bytes"):
            dataset[i]
    assert keys(served.url) == expected


def test_a_remote_record_is_checked_whenever_it_is_read(served: Web, monkeypatch: pytest.MonkeyPatch):
    """What was fetched before says nothing of what is fetched now; and a shard may be gone."""
    monkeypatch.setenv("INGEST_CACHE_BYTES", "0")
    dataset = Dataset(served.url)
    dataset[0]
    monkeypatch.setattr(
        "ingest.dataset.dataset.check_record", lambda record, known: (_ for _ in ()).throw(RecordError("another"))
    )
    with pytest.raises(RecordError, match=r"record 0, .*: another"):
        dataset[0]
    (served.root / dataset.manifest.shards[0].name).unlink()
    for i in (0, 1):
        with pytest.raises(RecordError, match=rf"record {i}, .*: it is not there any more"):
            dataset[i]


@pytest.mark.parametrize("kind", ["all the first", "shuffled", "short", "garbage", "missing"])
@pytest.mark.parametrize("where", ["remote", "copy"])
def test_an_index_is_made_from_the_shard(
    served: Web, shards: dict[str, Path], folder: Path, kind: str, where: str, monkeypatch: pytest.MonkeyPatch
):
    """Neither what lies beside a remote shard, nor what another dataset or version has left beside a copy, is taken."""
    keys(served.url)
    places = {"remote": served.root, "copy": folder}
    for path in places[where].glob("*.tfrecord"):
        index = index_of(path)
        if kind == "all the first":
            write_index(path, index[[0] * len(index)])
        elif kind == "shuffled":
            write_index(path, index[::-1])
        elif kind == "short":
            write_index(path, index[:-1])
        elif kind == "garbage":
            formats.index_path(path).write_bytes(b"garbage")
        else:
            formats.index_path(path).unlink()
    for path in [*folder.iterdir()] if where == "remote" else []:
        path.unlink()
    assert keys(served.url) == keys(shards["tfrecord"])
    if where == "remote":  # without space for a copy only that index says where records are: it is that of the shard
        shutil.rmtree(folder)
        monkeypatch.setenv("INGEST_CACHE_BYTES", "0")
        with pytest.raises(RecordError, match=r"its index 00000-of-00005.tfrecord.index is (damaged|missing)"):
            keys(served.url)


def test_a_remote_record_that_is_not_where_the_index_says_is_refused(
    served: Web, shards: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    """A chain of places that fits the file, though not its records, with sums that fit the places."""
    monkeypatch.setenv("INGEST_CACHE_BYTES", "0")
    path = served.root / ingest.load_manifest(served.root).shards[0].name
    index, data = index_of(path).copy(), path.read_bytes()
    index["size"][0] -= 100
    index["offset"][1] -= 100
    index["size"][1] += 100
    for i in (0, 1):
        offset, size, _ = index[i].tolist()
        index["crc"][i] = crc32c(data[offset : offset + size])
    write_index(path, index)
    with pytest.raises(RecordError, match=r"00000-of-00005.tfrecord, record 0, .*do not match their checksum"):
        keys(served.url)


def test_a_shard_that_can_never_fit_makes_nobody_go(
    served: Web, folder: Path, shards: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    keys(served.url)
    limit = 1000 + sum(path.stat().st_size for path in folder.iterdir())
    monkeypatch.setenv("INGEST_CACHE_BYTES", str(limit))
    before = files_of(folder)
    hostile = shutil.copytree(served.root, tmp_path / "hostile")
    for size in (limit + 1, 2**62):
        resealed(hostile, size_bytes=size, sha256=lambda shard: hashlib.sha256(shard["name"].encode()).hexdigest())
        with serving(hostile) as other, pytest.raises(IngestError):
            keys(other.url)
        after = files_of(folder)
        assert {name: after[name] for name in before} == before


def test_nobody_goes_for_what_is_not_what_it_claims(
    served: Web, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its size would fit, were the others thrown out; its content is another than its sum says."""
    keys(served.url)
    monkeypatch.setenv("INGEST_CACHE_BYTES", str(1000 + sum(path.stat().st_size for path in folder.iterdir())))
    before = files_of(folder)
    hostile = shutil.copytree(served.root, tmp_path / "hostile")
    resealed(hostile, sha256=lambda shard: hashlib.sha256(shard["name"].encode()).hexdigest())
    with serving(hostile) as other, pytest.raises(RecordError, match="its content is not what its manifest says"):
        keys(other.url)
    after = files_of(folder)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.endswith(".part")]


def test_files_of_others_in_the_folder_are_left_alone(
    served: Web, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    others = dict.fromkeys(("notes.txt", "a.part", "b.tfrecord", "c.lock", "0" * 64, "d/e.tfrecord"), bytes(100_000))
    for name, content in others.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        os.utime(folder / name, (0, 0))
    shard = ingest.load_manifest(served.root).shards[0]
    for name in ("e" * 64, "f" * 64):  # of a dataset that is not wanted any more, and of a fetch that was cut short
        old = folder / f"{name}.tfrecord{'.part' if name[0] == 'f' else ''}"
        old.write_bytes(b"x" * shard.size_bytes)
        os.utime(old, (0, 0))
    monkeypatch.setenv("INGEST_CACHE_BYTES", str(5 * shard.size_bytes))
    keys(served.url)
    assert {name: (folder / name).read_bytes() for name in others} == others
    assert not (folder / f"{'e' * 64}.tfrecord").exists()
    assert not (folder / f"{'f' * 64}.tfrecord.part").exists()


def test_what_another_process_is_fetching_is_not_thrown_out(served: Web, folder: Path, monkeypatch: pytest.MonkeyPatch):
    shard = ingest.load_manifest(served.root).shards[0]
    part = folder / f"{'e' * 64}.tfrecord.part"
    part.write_bytes(b"x" * shard.size_bytes)
    monkeypatch.setenv("INGEST_CACHE_BYTES", str(int(1.5 * shard.size_bytes)))
    sums = frozenset({shard.sha256})
    fetched = Dataset(served.url).folder / shard.name
    with cache._locked(folder, "e" * 64):
        assert cache.fetch(fetched, shard.size_bytes, shard.sha256, sums) is None
        assert part.exists()
    assert cache.fetch(fetched, shard.size_bytes, shard.sha256, sums) is not None
    assert not part.exists()


def test_locks_are_neither_emptied_nor_followed(served: Web, folder: Path, tmp_path: Path):
    name = sums(served.root)[0]
    (folder / f"{name}.lock").write_bytes(b"kept")
    keys(served.url)
    assert (folder / f"{name}.lock").read_bytes() == b"kept"
    (folder / f"{name}.lock").unlink()
    (folder / f"{name}.lock").symlink_to(tmp_path / "made")
    with pytest.raises(OutputError, match=f"{name}.lock: the cache cannot be used"):
        keys(served.url)
    assert not (tmp_path / "made").exists()


HOSTILE_SUMS = [
    "{victim}", "../victim/x", "..", ".", "", "/", "room", "x\0y", "a/b", "~", "\n", "0" * 63, "0" * 65, "G" * 64,
    "A" * 64, "\udcff", "x" * 300, "{victim}\n", "con", "\x1b[2J",
]  # fmt: skip


def test_hostile_urls_change_nothing_outside_the_cache_nor_of_others_in_it(
    served: Web, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("x.lock", "x.part", "x.tfrecord.part", "x.tfrecord", "x.tfrecord.index", "x"):
        (victim / name).write_bytes(b"precious")
    keys(served.url)
    before, own = files_of(victim), files_of(folder)
    for number, text in enumerate(HOSTILE_SUMS):
        hostile = shutil.copytree(served.root, tmp_path / f"hostile-{number}")
        text = text.format(victim=victim / "x")
        resealed(hostile, sha256=text)
        outside = set(tmp_path.rglob("*")) - set(folder.rglob("*"))
        with serving(hostile) as other, suppress(IngestError):
            keys(other.url)
        # The cache alone, where the manifest's own check would stop the sum.
        shard = ingest.load_manifest(served.root).shards[0]
        with serving(hostile) as other, suppress(IngestError):
            remote = Dataset(served.url).folder / shard.name
            cache.fetch(remote, shard.size_bytes, text, frozenset({text}))
        assert set(tmp_path.rglob("*")) - set(folder.rglob("*")) == outside
        assert files_of(victim) == before
        after = files_of(folder)
        assert {name: after[name] for name in own} == own
        assert not [name for name in after if name.endswith(".part")]
    assert keys(served.url) == keys(served.root)


@pytest.mark.parametrize("given", ["file", "s3://bucket/x", "file/below"])
def test_a_place_that_cannot_be_the_cache_is_refused(
    served: Web, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("INGEST_CACHE", given if "://" in given else str(tmp_path / given))
    with pytest.raises(OptionError, match="INGEST_CACHE"):
        keys(served.url)
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("given", ["relative", "~/in-home"])
def test_a_cache_below_home_or_here(served: Web, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INGEST_CACHE", given)
    keys(served.url)
    assert len(list((tmp_path / given.removeprefix("~/")).glob("*.tfrecord"))) == 5


def test_what_was_wanted_last_stays_longest(served: Web, folder: Path, monkeypatch: pytest.MonkeyPatch):
    shard = ingest.load_manifest(served.root).shards[0]
    for age, name in enumerate("cde"):
        old = folder / f"{name * 64}.tfrecord"
        old.write_bytes(b"x" * shard.size_bytes)
        os.utime(old, (time.time() - 100 * age,) * 2)
    monkeypatch.setenv("INGEST_CACHE_BYTES", str(3 * shard.size_bytes))
    remote = Dataset(served.url).folder / shard.name
    assert cache.fetch(remote, shard.size_bytes, shard.sha256, frozenset({shard.sha256}))
    assert sorted(path.name[0] for path in folder.glob("*.tfrecord")) == sorted([shard.sha256[0], "c", "d"])
