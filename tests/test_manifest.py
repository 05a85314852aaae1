from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ingest.errors import ManifestError
from ingest.manifest import Manifest, Shard, load_manifest, save

MANIFEST = Manifest(
    version=1, format="lmdb", encoding="keep", resize=None, quality=None, channels=3, records=5, quarantined=1,
    converted={"PNG P": 2}, classes=("caf\u00e9", "n02119789"), seed=7,
    shards=(Shard("00000-of-00002.lmdb", 3, 100, "ab"), Shard("00001-of-00002.lmdb", 2, 90, "cd")),
)  # fmt: skip


def test_round_trip(tmp_path: Path):
    save(MANIFEST, tmp_path)
    assert load_manifest(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_names_that_a_later_program_adds_are_passed_over(tmp_path: Path):
    save(MANIFEST, tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**content, "comment": "from the future"}))
    assert load_manifest(tmp_path) == MANIFEST


@pytest.mark.parametrize("folder", ["", "nowhere", "manifest.json"])
def test_a_missing_manifest_says_what_to_do(tmp_path: Path, folder: str):
    if folder == "manifest.json":
        save(MANIFEST, tmp_path)
    with pytest.raises(ManifestError, match="no finished dataset: make one with 'ingest build-shards'"):
        load_manifest(tmp_path / folder)


@pytest.mark.parametrize(
    "change",
    [
        {"version": None},
        {"records": 6},
        {"records": "5"},
        {"shards": [{"name": "../../etc/passwd", "records": 5, "size_bytes": 1, "sha256": ""}]},
        {"shards": [{"name": "a"}]},
        {"classes": None},
        {"channels": 2},
        {"shards": [{"name": "a", "records": n, "size_bytes": 1, "sha256": ""} for n in (6, -1)]},
        {"shards": [{"name": "a", "records": n, "size_bytes": 1, "sha256": ""} for n in (2, 3)]},
        {"seed": None},
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, change: dict[str, object]):
    save(MANIFEST, tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(ManifestError, match="damaged"):
        load_manifest(tmp_path)


def test_another_version_is_not_called_damaged(tmp_path: Path):
    save(dataclasses.replace(MANIFEST, version=2), tmp_path)
    with pytest.raises(ManifestError, match="of version 2, and this program reads version 1: update it"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"version": 1}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ManifestError, match="build the dataset again"):
        load_manifest(tmp_path)
