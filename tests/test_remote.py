"""A bucket in the place of a disk: a real S3 server on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from support.images import files_of, image_bytes, put

import ingest
from ingest import cli
from ingest.dataset import cache
from ingest.dataset.dataset import Dataset
from ingest.errors import OptionError, OutputError, RecordError
from ingest.system import paths
from ingest.tools.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, and an empty cache."""
    name = f"b{abs(hash(tmp_path))}"
    for variable, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "INGEST_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(variable, value)
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


def upload(folder: Path, to: str) -> None:
    bucket, _, prefix = to.removeprefix("s3://").partition("/")
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(folder).as_posix()}".lstrip("/")
            boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


def content(place: str) -> dict[str, bytes]:
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    found = client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    objects = {entry["Key"]: client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read() for entry in found}
    return {key.removeprefix(prefix).lstrip("/"): data for key, data in objects.items()}


def batches(shards: object, workers: int) -> list[tuple[np.ndarray, np.ndarray]]:
    flow = ingest.dataflow(shards, batch_size=8, image_size=64, training=True, epochs=2, workers=workers)
    return [(images.copy(), labels.copy()) for images, labels in flow]


def assert_same(one: list[tuple[np.ndarray, np.ndarray]], other: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert len(one) == len(other) > 0
    assert all(np.array_equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True))


def test_from_a_bucket_to_a_bucket_to_batches(bucket: str, photos: Path, shards: dict[str, Path], tmp_path: Path):
    upload(photos / "train", f"{bucket}/photos/train")
    made = ingest.build_shards(
        f"{bucket}/photos/train", f"{bucket}/shards/train", format="tfrecord", shards=5, workers=2
    )
    assert made == ingest.load_manifest(shards["tfrecord"])
    assert content(f"{bucket}/shards/train") == files_of(shards["tfrecord"])
    assert verify(f"{bucket}/shards/train", decode=True, workers=2).damages == ()
    local = batches(shards["tfrecord"], 2)
    assert_same(batches(f"{bucket}/shards/train", 2), local)
    copies = [path for path in (tmp_path / "cache").iterdir() if path.suffix == ".tfrecord"]
    assert sorted(path.stem for path in copies) == sorted(shard.sha256 for shard in made.shards)
    for key in content(f"{bucket}/shards/train"):  # what is in the cache is not fetched again
        if not key.endswith(".json"):
            boto3.client("s3").delete_object(Bucket=bucket.removeprefix("s3://"), Key=f"shards/train/{key}")
    assert_same(batches(f"{bucket}/shards/train", 0), local)


@pytest.mark.parametrize("kept", [0, 2])
def test_what_the_cache_has_no_room_for_is_read_from_the_bucket(
    bucket: str, shards: dict[str, Path], tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
):
    shard_bytes = max(shard.size_bytes for shard in ingest.load_manifest(shards["tfrecord"]).shards)
    monkeypatch.setenv("INGEST_CACHE_BYTES", str(kept * (shard_bytes + 1000)))
    upload(shards["tfrecord"], bucket)
    assert_same(batches(bucket, 2), batches(shards["tfrecord"], 0))
    copies = [path.stat().st_size for path in (tmp_path / "cache").iterdir() if path.suffix == ".tfrecord"]
    assert sum(copies) <= kept * (shard_bytes + 1000)
    assert kept <= len(copies) < 5


def test_older_datasets_make_room_for_newer(
    bucket: str, shards: dict[str, Path], val_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    upload(shards["tfrecord"], f"{bucket}/a")
    sizes = [shard.size_bytes for shard in ingest.load_manifest(shards["tfrecord"]).shards]
    other = put(tmp_path / "other", {f"{i % 2}/{i}.JPEG": image_bytes("JPEG", size=(400, 300)) for i in range(8)})
    ingest.build_shards(other, f"{bucket}/b", format="tfrecord", shards=2, workers=0)
    monkeypatch.setenv("INGEST_CACHE_BYTES", str(sum(sizes) + 1000))
    for name in "ab":
        dataset = Dataset(f"{bucket}/{name}")
        assert [dataset[i].key for i in range(len(dataset))]
        there = {path.stem for path in (tmp_path / "cache").iterdir() if path.suffix == ".tfrecord"}
        assert there >= {shard.sha256 for shard in dataset.manifest.shards}
    assert len(there) < 7


def test_an_unfinished_build_in_a_bucket_goes_on(bucket: str, photos: Path, shards: dict[str, Path]):
    upload(shards["tfrecord"], f"{bucket}/out")
    name = bucket.removeprefix("s3://")
    boto3.client("s3").delete_object(Bucket=name, Key="out/manifest.json")
    boto3.client("s3").delete_object(Bucket=name, Key="out/00003-of-00005.tfrecord")
    with pytest.raises(OutputError, match="unfinished build of other options"):
        ingest.build_shards(photos / "train", f"{bucket}/out", format="tfrecord", shards=4, workers=0)
    ingest.build_shards(photos / "train", f"{bucket}/out", format="tfrecord", shards=5, workers=0)
    assert content(f"{bucket}/out") == files_of(shards["tfrecord"])
    ingest.build_shards(photos / "train", f"{bucket}/out", format="tfrecord", shards=5, workers=0)


def test_what_arrives_damaged_is_noticed(bucket: str, shards: dict[str, Path]):
    upload(shards["tfrecord"], bucket)
    name = "00002-of-00005.tfrecord"
    damaged = bytearray(content(bucket)[name])
    damaged[-100] ^= 1
    boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key=name, Body=bytes(damaged))
    with pytest.raises(RecordError, match=f"{name}: its content is not what its manifest says"):
        batches(bucket, 0)
    assert [damage.file for damage in verify(bucket, workers=0).damages] == [name]


def test_what_cannot_be_remote(bucket: str, photos: Path, shards: dict[str, Path]):
    with pytest.raises(OutputError, match="LMDB is written and read by mapping local files: choose"):
        ingest.build_shards(photos / "train", f"{bucket}/out", format="lmdb")
    upload(shards["lmdb"], bucket)
    with pytest.raises(RecordError, match="LMDB is written and read by mapping local files: convert"):
        Dataset(bucket)
    with pytest.raises(OptionError, match=r"cannot be reached .*pip install 'ingest-toolkit\[remote\]'"):
        paths.parse_path("nowhere://bucket")


def test_a_limit_that_is_no_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INGEST_CACHE", str(tmp_path))
    monkeypatch.setenv("INGEST_CACHE_BYTES", "lots")
    with pytest.raises(OptionError, match="INGEST_CACHE_BYTES is 'lots': give a number of bytes"):
        cache.fetch(tmp_path / "shard", 10, "ab", frozenset())


def test_missing_credentials_are_one_line(bucket: str, tmp_path: Path):
    """In a process of its own: credentials are looked for once."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    words = ["build-shards", f"{bucket}/x", str(tmp_path / "out"), "--format", "tfrecord"]
    command = [sys.executable, "-m", "ingest", *words]
    environment = {**without, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {bucket}/x: cannot be used (Unable to locate credentials): check" in done.stderr
    assert done.stderr.count("\n") == 1


def test_labels_may_be_remote_for_builds_and_repairs(tmp_path: Path):
    source = put(tmp_path / "flat", {f"{i}.JPEG": image_bytes("JPEG") for i in range(4)})
    put(tmp_path, {"labels.csv": b"0.JPEG,cat\n1.JPEG,dog\n2.JPEG,cat\n3.JPEG,dog\n"})
    labels = ["--labels", f"file://{tmp_path / 'labels.csv'}", "--workers", "0"]
    out = tmp_path / "out"
    assert cli.main(["build-shards", str(source), str(out), "--format", "tfrecord", *labels]) == 0
    whole = files_of(out)
    (out / "manifest.json").unlink()
    assert cli.main(["verify", str(out), "--repair", str(source), *labels]) == 0
    assert files_of(out) == whole
