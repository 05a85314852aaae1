"""Worker processes: results, failures, and that they never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support.processes import processes_of, wait_until

from ingest.errors import BadSampleError, OptionError, WorkerError
from ingest.system import worker_pool

pytestmark = pytest.mark.slow


class Photographs(NamedTuple):
    """A task of several images."""

    names: list[str]

    def __str__(self) -> str:
        return "album"

    def key_after(self, done: int) -> str:
        return self.names[done] if done < len(self.names) else ""


class Fragile:
    """A handler that a photograph can kill."""

    def __call__(self, task: Photographs, progress: Callable[[int], object]) -> int:
        for name in task.names:
            if name.startswith("SIG"):
                os.kill(os.getpid(), signal.Signals[name])
            if name == "break":
                raise ArithmeticError("odd")
            progress(1)
        return len(task.names)


class Worker:
    """The handler of the tests: does what the task says."""

    def __init__(self, base: int):
        self.base = base

    def __call__(self, task: object, progress: Callable[[int], object]) -> object:
        if task == "refuse":
            raise BadSampleError("no, thank you")
        if task == "break":
            return 1 / (self.base - self.base)
        if task == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "import":
            return sorted({"tensorflow", "tensorpack", "cv2"} & set(sys.modules))
        progress(2)
        progress(1)
        return self.base + task


def run(tasks: list[object], count: int, progress: Callable[[int], object] = lambda images: None) -> list[object]:
    return list(worker_pool.run(Worker, (100,), tasks, count, progress))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_all_tasks_are_done_and_progress_is_told(count: int):
    told: list[int] = []
    assert sorted(run(list(range(20)), count, told.append)) == list(range(100, 120))
    assert told.count(2) == told.count(1) == 20


def test_a_worker_holds_only_what_its_handler_needs():
    assert run(["import"], 1) == [[]]


@pytest.mark.parametrize("count", [0, 2])
def test_an_error_of_ours_comes_through_as_it_is(count: int):
    with pytest.raises(BadSampleError, match=r"^no, thank you$"):
        run([1, 2, "refuse", 3], count)


def test_any_other_error_says_where():
    with pytest.raises(WorkerError, match=r"break: ZeroDivisionError: .* \(at .*test_worker_pool\.py:\d+\)"):
        run([1, "break", 2], 2)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("SIGKILL", r"worker process \d+ was killed by SIGKILL: out of memory\? use fewer workers$"),
        ("SIGSEGV", r"worker process \d+ was killed by SIGSEGV: if that happens again, leave out what it was at$"),
        ("break", r"ArithmeticError: odd \(at "),
    ],
)
def test_a_worker_that_dies_names_the_image_that_it_was_at(name: str, problem: str):
    with pytest.raises(WorkerError, match=f"^album: at {name}: {problem}"):
        list(worker_pool.run(Fragile, (), [Photographs(["one", "two", name, "three"])], 1, lambda images: None))


def test_a_worker_that_dies_is_an_error_that_names_its_task():
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"die: worker process \d+ was killed by SIGKILL"):
        run([1, "die", 2], 2)
    assert time.monotonic() - start < 5


def test_numbers_of_workers():
    assert worker_pool.num_workers(None) >= 1
    assert worker_pool.num_workers(0) == 0
    for wrong in (-1, 1025):
        with pytest.raises(OptionError):
            worker_pool.num_workers(wrong)


STREAM = """
from ingest.loading.batches import iter_batches
from ingest.loading.options import LoaderOptions
for batch in iter_batches({shards!r}, LoaderOptions(batch_size=4, training=True, image_size=64, workers=2)):
    print("streaming", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("what", ["build-shards", "profile", "stream"])
def test_nothing_outlives_a_parent_however_it_ends(
    what: str, how: signal.Signals, photos: Path, shards: dict[str, Path], tmp_path: Path
):
    slow = tmp_path / "slow"
    (slow / "a").mkdir(parents=True)
    here = tmp_path / "here"
    here.mkdir()
    for i in range(3000):
        (slow / "a" / f"{i}.JPEG").symlink_to(next((photos / "train" / "bricks").iterdir()))
    command = {
        "build-shards": ["-m", "ingest", "build-shards", slow, tmp_path / "out", "--format", "lmdb", "--workers", "2"],
        "profile": ["-m", "ingest", "profile", shards["lmdb"], "--workers", "2", "--seconds", "12"],
        "stream": ["-c", STREAM.format(shards=str(shards["lmdb"]))],
    }[what]
    memory_before = set(Path("/dev/shm").iterdir())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    parent = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=here, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True, text=True, env={**os.environ, "TMPDIR": str(scratch)},
    )  # fmt: skip
    assert wait_until(lambda: len(processes_of(here)) >= 3, 30)
    time.sleep(0.3)
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)  # as a terminal does
    else:
        parent.send_signal(how)
    _, err = parent.communicate(timeout=10)
    assert wait_until(lambda: processes_of(here) == [], 5)
    assert set(Path("/dev/shm").iterdir()) <= memory_before
    if how != signal.SIGKILL and what != "stream":
        assert parent.returncode == 130
        assert list(scratch.iterdir()) == []
        goes_on = ": the same command goes on from there" if what == "build-shards" else ""
        assert err.splitlines()[-1] == f"ingest {what}: interrupted{goes_on}"
    if what == "build-shards":
        assert not (tmp_path / "out" / "manifest.json").exists()
        if how != signal.SIGKILL:
            assert [path for path in (tmp_path / "out").iterdir() if path.suffix == ".tmp"] == []
