from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ingest.dataset.manifest import BuildConfig, Manifest, Shard, load_build_config, load_manifest, save
from ingest.errors import ManifestError

MANIFEST = Manifest(
    version=1, format="lmdb", encoding="keep", resize=None, quality=None, channels=3, records=5, quarantined=1,
    converted={"PNG P": 2}, classes=("caf\u00e9", "n02119789"), seed=7,
    shards=(Shard("00000-of-00002.lmdb", 3, 100, "ab" * 32), Shard("00001-of-00002.lmdb", 2, 90, "cd" * 32)),
    build=BuildConfig(source="ef" * 32, format="lmdb", shards=2, encoding="keep", resize=None, quality=None, seed=7),
)  # fmt: skip


def unsealed(folder: Path) -> dict[str, object]:
    save(MANIFEST, folder)
    content = json.loads((folder / "manifest.json").read_text())
    del content["sha256"]
    return content


def test_round_trip(tmp_path: Path):
    save(MANIFEST, tmp_path)
    assert load_manifest(tmp_path) == MANIFEST
    save(MANIFEST.build, tmp_path)
    assert load_build_config(tmp_path) == MANIFEST.build
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build.json", "manifest.json"]


def test_names_that_a_later_program_adds_are_passed_over(tmp_path: Path):
    content = unsealed(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({**content, "comment": "from the future"}))
    assert load_manifest(tmp_path) == MANIFEST


def test_a_manifest_without_a_recipe_or_a_sum_is_read(tmp_path: Path):
    content = unsealed(tmp_path)
    del content["build"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert load_manifest(tmp_path) == dataclasses.replace(MANIFEST, build=None)


@pytest.mark.parametrize("name", ["manifest.json", "build.json"])
def test_every_flipped_bit_is_noticed(tmp_path: Path, name: str):
    save(MANIFEST, tmp_path)
    save(MANIFEST.build, tmp_path)
    whole = (tmp_path / name).read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / name).write_bytes(damaged)
        try:
            read = load_manifest(tmp_path), load_build_config(tmp_path)
        except ManifestError:
            continue
        # A bit of the sum's own name: what it is a sum of is sound.
        assert read == (MANIFEST, MANIFEST.build), damaged


@pytest.mark.parametrize("folder", ["", "nowhere", "manifest.json"])
def test_a_missing_manifest_says_what_to_do(tmp_path: Path, folder: str):
    if folder == "manifest.json":
        save(MANIFEST, tmp_path)
    with pytest.raises(ManifestError, match="no finished dataset: make one with 'ingest build-shards'"):
        load_manifest(tmp_path / folder)


def test_datasets_within_a_folder_are_pointed_to(tmp_path: Path):
    for name in ("val", "train"):
        (tmp_path / name).mkdir()
        save(MANIFEST, tmp_path / name)
    with pytest.raises(ManifestError, match=f"holds no finished dataset: give {tmp_path}/train, which does$"):
        load_manifest(tmp_path)


def test_a_build_that_was_begun_is_to_go_on(tmp_path: Path):
    save(MANIFEST.build, tmp_path)
    with pytest.raises(
        ManifestError, match="no finished dataset: give the 'ingest build-shards' command that began it"
    ):
        load_manifest(tmp_path)


def test_a_fingerprint_is_of_records_and_order(tmp_path: Path):
    def of(**changes: object) -> str:
        return dataclasses.replace(MANIFEST, build=dataclasses.replace(MANIFEST.build, **changes)).fingerprint

    alike = [of(), of(format="tfrecord"), of(shards=3)]
    others = [of(seed=8), of(source="gh"), of(encoding="raw"), of(encoding="jpeg", quality=80), of(resize=256)]
    assert len({*alike, *others}) == 1 + len(others) and len(set(alike)) == 1
    without = dataclasses.replace(MANIFEST, build=None)
    assert without.fingerprint != dataclasses.replace(without, shards=MANIFEST.shards[:1]).fingerprint


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
    (tmp_path / "manifest.json").write_text(json.dumps({**unsealed(tmp_path), **change}))
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
