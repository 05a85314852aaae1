"""The shards of a build, packed by a dask cluster of real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.images import FORMATS, files_of, image_bytes, put
from support.processes import wait_for

import ingest
from ingest.errors import BadSampleError

pytestmark = pytest.mark.slow


class Cluster:
    """A scheduler and two workers on this machine."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        file = folder / "scheduler.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file)
        wait_for(lambda: file.exists() and file.read_text().strip().endswith("}"))
        self.address = json.loads(file.read_text())["address"]
        self.workers = [self.add_worker() for _ in range(2)]

    def add_worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def close(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def _start(self, kind: str, *words: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *map(str, words)]
        folder = self._folder / str(len(self._processes))
        folder.mkdir()
        # They run elsewhere, so that a path that means something here alone would be noticed.
        with (folder / "log").open("wb") as log:
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
            self._processes.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment))
        return self._processes[-1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.mark.parametrize("name", FORMATS)
def test_a_cluster_packs_the_same_bytes(
    cluster: Cluster, photos: Path, shards: dict[str, Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    ingest.build_shards(photos / "train", "out", format=name, shards=5, scheduler=cluster.address)
    assert files_of(tmp_path / "out") == files_of(shards[name])


def test_a_bad_image_ends_the_build_there_too(cluster: Cluster, tmp_path: Path):
    source = put(tmp_path / "source", {"a/1.JPEG": image_bytes("JPEG"), "a/2.JPEG": b""})
    with pytest.raises(BadSampleError, match=r"a/2\.JPEG: empty file") as caught:
        ingest.build_shards(source, tmp_path / "out", format="lmdb", on_bad="fail", scheduler=cluster.address)
    assert caught.value.key == "a/2.JPEG"


def test_a_worker_that_is_lost_costs_its_shard_alone(cluster: Cluster, tmp_path: Path):
    photos = {f"{i % 3}/{i}.JPEG": image_bytes("JPEG", size=(500 + i, 400)) for i in range(240)}
    source = put(tmp_path / "source", photos)
    ingest.build_shards(source, tmp_path / "whole", format="tfrecord", shards=24, workers=0)
    words = ["build-shards", source, tmp_path / "out", "--format", "tfrecord", "--shards", 24]
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest", *map(str, words), "--scheduler", cluster.address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: len(list((tmp_path / "out").glob("*.done"))) >= 4)
    cluster.workers[0].send_signal(signal.SIGKILL)
    said, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints
    assert "packed 240 of 240 files" in said
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    cluster.workers[0] = cluster.add_worker()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere", "tcp://nowhere.invalid:8786"])
def test_where_no_scheduler_answers_the_error_says_so(photos: Path, tmp_path: Path, address: str):
    words = ["build-shards", photos / "train", tmp_path / "out", "--format", "lmdb", "--scheduler", address]
    command = [sys.executable, "-m", "ingest", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: no dask scheduler answers at {address} (" in done.stderr
    assert "Traceback" not in done.stderr
