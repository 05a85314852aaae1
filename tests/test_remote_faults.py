"""A server that does not do as it should: asked again, then one line; and the same run succeeds when it does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import web
from support.web import Web, serving
from upath import UPath

import ingest
from ingest.dataset.dataset import Dataset
from ingest.errors import IngestError, OptionError, RecordError, RemoteError
from ingest.system import paths
from ingest.tools.verify import verify

pytestmark = pytest.mark.slow

FAULTS = {
    web.hang: "no answer, or next to none, within 0.6 s, 6 times",
    web.fail: "HTTP 503 Service Unavailable, 6 times",
    web.cut: r"cannot be used \(.*\), 6 times",
    web.trickle: "no answer, or next to none, within 0.6 s, 6 times",
}


@pytest.fixture
def served(shards: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("INGEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("INGEST_TIMEOUT", "0.6")
    with serving(shards["tfrecord"]) as server:
        yield server


def keys(place: str) -> list[str]:
    dataset = Dataset(place)
    return [dataset[i].key for i in range(len(dataset))]


def in_shards(fault: object, times: int) -> object:
    """The fault for so many requests for shards."""
    left = [times]

    def faulty(request: object, body: bytes) -> bool:
        if request.command != "GET" or not request.path.endswith(".tfrecord") or not left[0]:
            return False
        left[0] -= 1
        return fault(request, body)

    return faulty


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_web_server_is_read_with_ranges_or_without(served: Web, shards: dict[str, Path], knows_ranges: bool):
    served.knows_ranges = knows_ranges
    assert keys(served.url) == keys(shards["tfrecord"])
    assert all(
        count == 1 for path, count in served.asked.items() if path.startswith("GET") and path.endswith(".tfrecord")
    )
    name = ingest.load_manifest(served.url).shards[0].name
    content = (shards["tfrecord"] / name).read_bytes()
    place = paths.parse_path(f"{served.url}/{name}")
    assert paths.read(place) == content
    assert paths.read(place, 100, 1000) == content[100:1100]
    assert paths.read(place, len(content) - 10, 1000) == content[-10:]
    with place.open("rb") as file:
        file.seek(-50, 2)
        assert file.read() == content[-50:]
    with paths.local_copy(place) as copy:
        assert copy.read_bytes() == content


@pytest.mark.parametrize("fault", [*FAULTS, web.change])
def test_what_fails_twice_is_asked_for_again(served: Web, shards: dict[str, Path], fault: object):
    served.fault = in_shards(fault, 2)
    assert keys(served.url) == keys(shards["tfrecord"])


@pytest.mark.parametrize("fault", FAULTS)
def test_what_always_fails_is_one_line_until_the_server_does(served: Web, shards: dict[str, Path], fault: object):
    served.fault = in_shards(fault, 1000)
    with pytest.raises(RemoteError, match=rf"^{served.url}/00000-of-00005.tfrecord: {FAULTS[fault]}: start again"):
        keys(served.url)
    assert served.asked["GET /00000-of-00005.tfrecord"] == 6
    served.fault = in_shards(fault, 0)
    assert keys(served.url) == keys(shards["tfrecord"])


@pytest.mark.parametrize(("workers", "limit"), [("0", "0"), ("1", "1000000000")])
def test_parent_and_workers_say_the_same(served: Web, workers: str, limit: str):
    """Of a dataset that the cache has no space for, too."""
    served.fault = in_shards(web.fail, 1000)
    environment = {**os.environ, "INGEST_CACHE_BYTES": limit}
    command = [sys.executable, "-m", "ingest", "inspect", served.url, "--workers", workers]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert error.startswith(f"ingest inspect: error: {served.url}/0000"), done.stderr
    assert ": HTTP 503 Service Unavailable, 6 times" in error
    assert "Traceback" not in done.stderr
    assert "build" not in done.stderr


def test_a_refusal_and_a_missing_file_are_not_asked_for_again(served: Web, shards: dict[str, Path]):
    served.fault = web.refuse
    with pytest.raises(RemoteError, match=f"{served.url}/manifest.json: HTTP 403 Forbidden: give credentials"):
        Dataset(served.url)
    assert served.asked["GET /manifest.json"] == 1
    served.fault = in_shards(web.fail, 0)
    with pytest.raises(IngestError, match="no such file, so"):
        Dataset(f"{served.url}/nowhere")
    served.root = shards["lmdb"]
    assert not paths.parse_path(f"{served.url}/00000-of-00005.tfrecord").exists()
    assert paths.parse_path(f"{served.url}/manifest.json").exists()


def test_existence_is_not_denied_by_a_server_that_fails(served: Web):
    """Of a folder of images: a failing server must not be taken for a place without a manifest or without images."""
    served.fault = web.fail
    with pytest.raises(RemoteError, match="HTTP 503"):
        ingest.load_manifest(served.url)
    with pytest.raises(RemoteError, match="HTTP 503"):
        ingest.build_shards(f"{served.url}/list.csv", "unused", format="tfrecord")


def test_a_server_that_is_not_there_is_one_line(served: Web):
    with pytest.raises(RemoteError, match=r"^http://127.0.0.1:9/manifest.json: cannot be used \(.*\), 6 times: start"):
        Dataset("http://127.0.0.1:9")


def test_another_content_is_named(served: Web, shards: dict[str, Path], tmp_path: Path):
    def longer(request: object, body: bytes) -> bool:
        request.answer(body + b"more")
        return True

    def other(request: object, body: bytes) -> bool:
        request.answer(bytes(len(body)))
        return True

    served.fault = in_shards(other, 1000)
    with pytest.raises(RecordError, match=r"00000-of-00005.tfrecord: its content is not what its manifest says"):
        keys(served.url)
    assert served.asked["GET /00000-of-00005.tfrecord"] == 2
    served.fault = in_shards(longer, 0)
    served.root = tmp_path
    for path in shards["tfrecord"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes() + (b"more" if path.suffix == ".tfrecord" else b""))
    with pytest.raises(RecordError, match=r"00000-of-00005.tfrecord: [\d,]+ bytes, its manifest says [\d,]+: "):
        keys(served.url)


@pytest.mark.parametrize("given", ["soon", "0", "-1", "inf", "nan"])
def test_a_time_limit_that_is_none_is_refused(served: Web, given: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INGEST_TIMEOUT", given)
    with pytest.raises(OptionError, match=f"INGEST_TIMEOUT is '{given}': give a number of seconds"):
        Dataset(served.url)


def test_a_bucket_that_fails_is_asked_again_then_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of S3, whose library has retries and errors of its own."""
    monkeypatch.setenv("INGEST_TIMEOUT", "2")
    with serving(tmp_path) as server:
        # Options of its own: the library would keep this server for others.
        place = paths.parse_path(UPath("s3://faulty/data", endpoint_url=server.url, key="test", secret="test"))
        server.fault = web.fail
        with pytest.raises(RemoteError, match=rf"^{place}/manifest.json: HTTP 503 Service Unavailable, 6 times: "):
            ingest.load_manifest(place)
        assert sum(server.asked.values()) == 6
        server.fault = web.refuse
        with pytest.raises(RemoteError, match=rf"^{place}/x: HTTP 403 Forbidden: give credentials"):
            paths.read(place / "x")
        assert sum(server.asked.values()) == 7
        server.fault = lambda request, body: False
        with pytest.raises(IngestError, match="no such file"):
            ingest.load_manifest(place)
    with pytest.raises(RemoteError, match=rf"^{place}/x: cannot be used \(Could not connect.*\), 6 times: "):
        paths.read(place / "x")


@pytest.mark.parametrize("what", ["00000-of-00005.tfrecord", "00000-of-00005.tfrecord.index"])
def test_verify_takes_no_more_than_the_manifest_says(served: Web, what: str):
    """Of a server that never ends, whatever it is asked for."""
    sent = [0]

    def endless(request: object, body: bytes) -> bool:
        if request.command != "GET" or request.path != f"/{what}":
            return False
        request.send_response(200)
        request.end_headers()
        while sent[0] < 2**28:
            request.wfile.write(bytes(2**20))
            sent[0] += 2**20
        return True

    served.fault = endless
    damages = verify(served.url, workers=0).damages
    assert {damage.file.removesuffix(".index") for damage in damages} == {"00000-of-00005.tfrecord"}
    assert sent[0] < 2**26
