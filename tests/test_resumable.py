"""A build that is cut short goes on, and ends with the same bytes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.images import FORMATS, files_of, image_bytes, put
from support.processes import wait_for

import ingest.packing.resumable
from ingest.dataset import manifest
from ingest.errors import BadSampleError, OutputError, SourceError, WorkerError
from ingest.system import atomic

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("INGEST_KILLS", "4"))
"""Builds that are killed, of each format; `make stress` has more."""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 images in three classes, two of which cannot be packed."""
    sizes = [(240 + i % 37, 160 + i % 23) for i in range(40)]
    images = [image_bytes("JPEG", size=size, quality=60 + i) for i, size in enumerate(sizes)]
    photos = {f"{i % 3}/{i}.JPEG": images[i % 40] for i in range(600)}
    return put(tmp_path_factory.mktemp("many"), {**photos, "0/7.JPEG": b"", "2/x.JPEG": b"text"})


def build(source: Path, out: Path, name: str, *words: object) -> subprocess.Popen[str]:
    command = ["build-shards", source, out, "--format", name, "--shards", 12, "--workers", 2, *words]
    return subprocess.Popen(
        [sys.executable, "-m", "ingest", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def is_whole_or_unfinished(out: Path) -> None:
    if (out / manifest.NAME).exists():
        for shard in ingest.load_manifest(out).shards:
            assert (out / shard.name).stat().st_size == shard.size_bytes
            assert (out / f"{shard.name}.index").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_build_that_is_killed_at_any_moment_goes_on_to_the_same_bytes(many: Path, tmp_path: Path, name: str):
    start = time.monotonic()
    assert build(many, tmp_path / "whole", name).communicate()[1].count("error") == 0
    seconds = time.monotonic() - start
    whole = files_of(tmp_path / "whole")
    random = np.random.default_rng(0)
    for number in range(KILLS):
        out = tmp_path / str(number)
        for moment in random.uniform(0.2 * seconds, seconds, random.integers(1, 4)):
            process = build(many, out, name)
            time.sleep(moment)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if out.exists():
                is_whole_or_unfinished(out)
        process = build(many, out, name)
        _, complaints = process.communicate()
        assert process.returncode == 0, complaints
        assert files_of(out) == whole, number


@pytest.mark.parametrize("name", FORMATS)
def test_ctrl_c_leaves_what_can_go_on(many: Path, tmp_path: Path, name: str):
    ingest.build_shards(many, tmp_path / "whole", format=name, shards=12, workers=0)
    process = build(many, tmp_path / "out", name)
    wait_for(lambda: list((tmp_path / "out").glob("*.done")))
    process.send_signal(signal.SIGINT)
    goes_on = "the same command goes on from there"
    _, complaints = process.communicate()
    assert (process.returncode, complaints.splitlines()[-1]) == (130, "ingest build-shards: interrupted: " + goes_on)
    left = {path.suffix for path in (tmp_path / "out").iterdir()}
    assert left <= {f".{name}", ".index", ".done", ".json"} and not (tmp_path / "out" / manifest.NAME).exists()
    ingest.build_shards(many, tmp_path / "out", format=name, shards=12, workers=2)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_worker_that_is_killed_is_an_error_that_names_its_shard(many: Path, tmp_path: Path):
    process = build(many, tmp_path / "out", "tfrecord")
    wait_for(lambda: list((tmp_path / "out").glob("*.done")))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    start = time.monotonic()
    os.kill(int(children[0]), signal.SIGKILL)
    _, complaints = process.communicate()
    assert time.monotonic() - start < 5
    assert process.returncode == 1
    assert re.search(r"-of-00012\.tfrecord: (at .*: )?worker process", complaints.splitlines()[-1])
    assert "was killed by SIGKILL" in complaints.splitlines()[-1]


def test_what_is_whole_is_kept_and_what_is_not_is_written_again(photos: Path, shards: dict[str, Path], tmp_path: Path):
    for name in FORMATS:
        out = tmp_path / name
        with pytest.raises(WorkerError):
            interrupted_build(photos / "train", out, name, after=3)
        kept = sorted(path.name.removesuffix(".done") for path in out.glob("*.done"))
        assert len(kept) == 3
        (out / kept[0]).write_bytes((out / kept[0]).read_bytes()[:-1] + b"?")
        (out / f"{kept[1]}.index").unlink()
        before = (out / kept[2]).stat().st_mtime_ns
        ingest.build_shards(photos / "train", out, format=name, shards=5, workers=0)
        assert (out / kept[2]).stat().st_mtime_ns == before
        assert files_of(out) == files_of(shards[name])


def test_what_was_built_is_not_built_again(photos: Path, shards: dict[str, Path]):
    before = {path: path.stat().st_mtime_ns for path in shards["lmdb"].iterdir()}
    again = ingest.build_shards(photos / "train", shards["lmdb"], format="lmdb", shards=5)
    assert again == ingest.load_manifest(shards["lmdb"])
    assert {path: path.stat().st_mtime_ns for path in shards["lmdb"].iterdir()} == before


def test_what_a_build_cut_off_at_the_very_end_left_is_removed(photos: Path, shards: dict[str, Path], tmp_path: Path):
    put(tmp_path, {**files_of(shards["lmdb"]), "00000-of-00005.lmdb.done": b"{}", "manifest.json.0123abcd.tmp": b"{"})
    ingest.build_shards(photos / "train", tmp_path, format="lmdb", shards=5, workers=0)
    assert files_of(tmp_path) == files_of(shards["lmdb"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, r"of other options \(seed 0, now 1\)"),
        ({"format": "tfrecord"}, r"of other options \(format lmdb, now tfrecord\)"),
        ({"shards": 4}, r"of other options \(shards 5, now 4\)"),
        (
            {"encoding": "jpeg", "resize": 32},
            r"of other options \(encoding keep, now jpeg; resize None, now 32; quality None, now 90\)",
        ),
        ({"src": "val"}, r"of other options \(another source\)"),
    ],
)
@pytest.mark.parametrize("is_finished", [True, False])
def test_other_options_are_refused_and_named(
    photos: Path, shards: dict[str, Path], tmp_path: Path, options: dict[str, object], message: str, is_finished: bool
):
    put(tmp_path, files_of(shards["lmdb"]))
    if not is_finished:
        (tmp_path / manifest.NAME).unlink()
    before = files_of(tmp_path)
    wanted = {"src": "train", "format": "lmdb", "shards": 5, **options}
    what = "finished dataset" if is_finished else "unfinished build"
    with pytest.raises(OutputError, match=f"holds an? {what} {message}"):
        ingest.build_shards(photos / str(wanted.pop("src")), tmp_path, **wanted)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("name", ["source", "photo.tmp", "00001-of-00005.lmdb.old", "build.json.bak", "manifest.json~"])
def test_what_only_looks_like_ours_is_not_touched(photos: Path, tmp_path: Path, name: str):
    put(tmp_path, {name: b"precious"})
    with pytest.raises(OutputError, match="not empty"):
        ingest.build_shards(photos / "train", tmp_path, format="lmdb", workers=0)
    assert files_of(tmp_path) == {name: b"precious"}


def test_what_an_older_program_left_is_written_again(photos: Path, shards: dict[str, Path], tmp_path: Path):
    put(
        tmp_path, {"00000-of-00099.lmdb": b"old", "00001-of-00005.lmdb.0123abcd.tmp": b"half", "quarantine.tsv": b"old"}
    )
    ingest.build_shards(photos / "train", tmp_path, format="lmdb", shards=5, workers=0)
    assert files_of(tmp_path) == files_of(shards["lmdb"])


def test_a_build_that_went_on_fails_at_what_was_quarantined_before(tmp_path: Path):
    source = put(tmp_path / "source", {"a/1.JPEG": image_bytes("JPEG"), "a/2.JPEG": b""})
    with pytest.raises(WorkerError):
        interrupted_build(source, tmp_path / "out", "lmdb", after=2, shards=2)
    with pytest.raises(BadSampleError, match=r"a/2\.JPEG: empty file"):
        ingest.build_shards(source, tmp_path / "out", format="lmdb", shards=2, on_bad="fail", workers=0)


def test_images_that_were_mended_are_looked_at_again_where_none_could_be_packed(tmp_path: Path):
    source = put(tmp_path / "source", {"a/1.JPEG": b""})
    with pytest.raises(SourceError, match="none of the source's 1 files could be packed"):
        ingest.build_shards(source, tmp_path / "out", format="lmdb", workers=0)
    put(source, {"a/1.JPEG": image_bytes("JPEG")})
    assert ingest.build_shards(source, tmp_path / "out", format="lmdb", workers=0).records == 1
    assert not (tmp_path / "out" / "quarantine.tsv").exists()


def interrupted_build(source: Path, out: Path, name: str, after: int, shards: int = 5) -> None:
    """A build that ends with WorkerError once ``after`` shards have their receipts."""
    import ingest.packing.resumable

    finish, count = atomic.write, 0

    def write(path: Path, content: bytes) -> None:
        nonlocal count
        finish(path, content)
        count += path.suffix == ".done"
        if count == after:
            raise WorkerError("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest.system.atomic, "write", write)
        ingest.build_shards(source, out, format=name, shards=shards, workers=0)
