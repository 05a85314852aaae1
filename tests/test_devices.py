"""Several devices and several hosts: the same training, divided."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import wait_until
from support.trainings import finish, one_line, read, start, train

from models import devices

pytestmark = pytest.mark.slow

STEPS = 50


def words(data: Path, folder: Path, steps: int = STEPS) -> tuple[object, ...]:
    common = ("--model", "lenet", "--data", data, "--batch-size", 20, "--workers", 1, "--schedule", "step")
    return (*common, "--steps", steps, "--model-dir", folder)


@pytest.fixture(scope="module")
def alone(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of the training on one device."""
    folder = tmp_path_factory.mktemp("alone")
    finish(start(folder / "log", *words(digits, folder / "run")), folder / "log")
    return folder / "log"


def cluster(folder: Path) -> list[dict[str, str]]:
    """The environments of two hosts on loopback."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, two)]
    tasks = [{"cluster": {"worker": hosts}, "task": {"type": "worker", "index": i}} for i in range(2)]
    return [{"TF_CONFIG": json.dumps(task)} for task in tasks]


def hosts(folder: Path, environments: list[dict[str, str]], *arguments: object) -> list[subprocess.Popen[bytes]]:
    return [start(folder / f"host{i}", *arguments, **environment) for i, environment in enumerate(environments)]


def test_two_devices_train_as_one(digits: Path, alone: Path, tmp_path: Path):
    log = tmp_path / "log"
    finish(start(log, *words(digits, tmp_path / "run"), "--devices", "cpu:2"), log)
    assert read(log).losses == pytest.approx(read(alone).losses, rel=1e-4)
    assert len(read(log).losses) == STEPS
    # In 50 steps of 20 the 200 digits are seen five times, each once in each.
    seen = read(log).records[: 20 * STEPS]
    assert seen == read(alone).records[: 20 * STEPS]
    assert all(sorted(seen[i : i + 200]) == list(range(200)) for i in range(0, 1000, 200))


def test_two_hosts_train_as_one(digits: Path, alone: Path, tmp_path: Path):
    running = hosts(tmp_path, cluster(tmp_path), *words(digits, tmp_path / "run"))
    for i, host in enumerate(running):
        finish(host, tmp_path / f"host{i}")
    logs = [read(tmp_path / f"host{i}") for i in range(2)]
    assert [len(log.losses) for log in logs] == [STEPS, STEPS]
    for log in logs:
        assert log.losses == pytest.approx(read(alone).losses, rel=1e-4)
    # Of each batch of 20 each host has every other image.
    whole = read(alone).records[: 20 * STEPS]
    for i, log in enumerate(logs):
        share = [n for step in range(STEPS) for n in whole[20 * step :][:20][i::2]]
        assert log.records[: 10 * STEPS] == share


@pytest.mark.skipif("INGEST_RESUMES" not in os.environ, reason="of make stress: it takes half a minute a host")
@pytest.mark.parametrize("lost", [0, 1])
def test_a_host_that_was_killed_may_come_back(digits: Path, tmp_path: Path, lost: int):
    arguments, environments = words(digits, tmp_path / "run", steps=1200), cluster(tmp_path)
    running = hosts(tmp_path, environments, *arguments)
    log = tmp_path / f"host{lost}"
    try:
        assert wait_until(lambda: len(read(log).losses) > 100, 90)
        os.killpg(running[lost].pid, signal.SIGKILL)
        running[lost].wait()
        running[lost] = start(log, *arguments, **environments[lost])
        for i, host in enumerate(running):
            finish(host, tmp_path / f"host{i}")
    finally:
        for host in running:
            host.kill()
            host.wait()
    assert f"host {lost} is lost" in (tmp_path / f"host{1 - lost}.err").read_text()
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert history[-1]["step"] == 1200
    assert [entry["step"] for entry in history] == list(range(10, 1201, 10))


def test_wrong_devices_are_one_line(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for arguments, message in (
        (("--devices", "x"), "--devices x: give cpu:N"),
        (("--devices", "gpu:9"), "--devices gpu:9: TensorFlow finds"),
        (("--devices", "cpu:3"), "--batch-size 20: cannot be divided among 3 devices"),
    ):
        done = train(*words(digits, tmp_path / "run"), *arguments)
        assert (done.returncode in (1, 2), done.stdout) == (True, "")
        assert message in one_line(done.stderr)
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}')
    assert "TF_CONFIG: cannot be used" in one_line(train(*words(digits, tmp_path / "run")).stderr)
    assert not (tmp_path / "run").exists()


def test_a_host_starts_again_even_if_it_cannot_say_so(monkeypatch: pytest.MonkeyPatch):
    started: list[object] = []
    monkeypatch.setattr(devices.os, "execv", lambda *words: started.append(words))
    monkeypatch.setattr(devices.time, "sleep", lambda seconds: None)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        kept = os.dup(2)
        os.dup2(full.fileno(), 2)
        try:
            devices.restart("host 1 is lost")
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    assert len(started) == 1
