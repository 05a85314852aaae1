"""A dataset is foreign bytes: what is not as it should be is refused in a line, by the loader and by verify alike."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c
from support.fuzz_datasets import field, rebuilt, resealed
from support.images import FORMATS, image_bytes, put

import ingest
from ingest import formats, jpeg
from ingest.dataset import manifest
from ingest.dataset.dataset import Dataset
from ingest.errors import IngestError, ManifestError, RecordError, WorkerError
from ingest.loading.batches import _collect, iter_batches
from ingest.loading.options import LoaderOptions, TransformOptions
from ingest.record import Record, _field_at, _varint, parse, serialize
from ingest.tools import contact_sheet, inspection
from ingest.tools.convert import convert
from ingest.tools.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Six photographs of two classes, one of them grey, in two shards; by format, and as pixels."""
    root = tmp_path_factory.mktemp("small")
    photos = {f"{i % 2}/{i}.jpg": image_bytes("JPEG", (90 + i, 70), "L" if i == 0 else "RGB") for i in range(6)}
    put(root / "photos", photos)
    folders = {name: root / name for name in FORMATS}
    for name in FORMATS:
        ingest.build_shards(root / "photos", folders[name], format=name, shards=2, workers=0)
    ingest.build_shards(root / "photos", root / "raw", format="tfrecord", shards=2, encoding="raw", workers=0)
    return {**folders, "raw": root / "raw", "photos": root / "photos"}


def show(folder: Path) -> list[np.ndarray]:
    """All that training and evaluation show."""
    options = [
        LoaderOptions(batch_size=4, training=training, image_size=32, workers=0, epochs=1) for training in (True, False)
    ]
    return [labels for each in options for _, labels in iter_batches(folder, each)]


def records(folder: Path) -> list[Record]:
    dataset = Dataset(folder)
    return [parse(dataset.payload(i)) for i in range(len(dataset))]


def refused(folder: Path, says: str, record: int | None = 1) -> None:
    """The loader refuses it, verify calls it damaged, everything else says it in a line."""
    for run in (lambda: show(folder), lambda: inspection.inspect(folder, workers=0)):
        with pytest.raises(IngestError, match=re.escape(says)) as caught:
            run()
        assert "\n" not in str(caught.value)
    with pytest.raises(IngestError):
        convert(folder, folder.parent / "converted", format="lmdb", workers=0) if folder.name != "lmdb" else show(
            folder
        )
    with pytest.raises(IngestError):
        contact_sheet.draw(Dataset(folder), TransformOptions())
    damages = verify(folder, decode=True, workers=0).damages
    assert [damage.record for damage in damages] == [record]
    assert says in str(damages[0])


SEGMENTED = {
    "a label beyond the classes": ({"label": 2}, "its label 2 is none of the 2 classes"),
    "a label that 32 bits cut to 1": ({"label": 2**32 + 1}, "its label 4294967297 is none of the 2 classes"),
    "a label below zero": ({"label": -1}, "its label -1 is none"),
    "another class's name": ({"synset": "7"}, "and its class's name is '7'"),
    "no channels": ({"channels": 0}, "0 channels"),
    "two channels": ({"channels": 2}, "2 channels"),
    "a height below zero": ({"height": -70}, "not from 1 to the limit"),
    "many pixels": ({"height": 2**31, "width": 2**33}, "not from 1 to the limit"),
    "another height": ({"height": 69}, "for (69, "),
    "grey": ({"channels": 1}, "for (70, "),
    "another format": ({"format": "PNG"}, "of format 'PNG'"),
    "pixels": ({"format": "RAW"}, "bytes for (70, "),
    "a long key": ({"key": "x" * 70_000}, "a key of 70000 characters"),
    "segments of three bytes": ({"segments": b"abc"}, "its restart segments do not fit its JPEG"),
    "one segment": ({"segments": bytes(4)}, "its restart segments do not fit its JPEG"),
    "no JPEG": ({"encoded": b"text", "segments": b""}, "not a JPEG"),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("what", SEGMENTED)
def test_a_record_that_is_none_of_the_dataset_is_refused(small: dict[str, Path], tmp_path: Path, name: str, what: str):
    changes, says = SEGMENTED[what]
    folder = rebuilt(small[name], tmp_path / name, lambda i, record: changed(record, changes) if i == 1 else None)
    refused(folder, says)


def changed(record: Record, changes: dict[str, Any]) -> bytes:
    # A varint below zero is that of the number that is 2**64 greater.
    return serialize(
        record._replace(**{name: value % 2**64 if isinstance(value, int) else value for name, value in changes.items()})
    )


def without_first(payload: bytes, name: bytes) -> bytes:
    """An Example without the first of its entries of that name."""
    view, entries, at = payload, [], 0
    while at < len(view):
        _, start, stop, at = (int(x) for x in _field_at(np.frombuffer(view, np.uint8), at, len(view)))
        while start < stop:
            _, first, last, start = (int(x) for x in _field_at(np.frombuffer(view, np.uint8), start, stop))
            entries.append(view[first:last])
    entries.remove(next(entry for entry in entries if name in entry[: len(name) + 2]))
    return field(1, b"".join(field(1, entry) for entry in entries))


def test_segments_that_show_another_image_are_refused(small: dict[str, Path], tmp_path: Path):
    """Of all that is a JPEG with restart markers of some kind."""
    record = records(small["tfrecord"])[1]
    offsets = np.frombuffer(record.segments, "<u4")
    data = bytes(record.encoded)

    def of(offsets: np.ndarray, encoded: bytes = data) -> dict[str, bytes]:
        return {"segments": offsets.astype("<u4").tobytes(), "encoded": encoded}

    wrong = {
        "swapped": of(np.concatenate(([offsets[1], offsets[0]], offsets[2:]))),
        "repeated": of(np.concatenate(([offsets[0], offsets[0]], offsets[2:]))),
        "one less": of(np.delete(offsets, 1)),
        "one more": of(np.insert(offsets, 1, offsets[0] + 5)),
        "shifted": of(offsets + np.arange(len(offsets)) % 2),
        "beyond": of(np.append(offsets[:-1], 2**32 - 1)),
        "before": of(np.append(offsets[:-1], 4)),
        "markers out of turn": of(offsets, data.replace(b"\xff\xd1", b"\xff\xd2", 1)),
        "a stray marker": of(offsets, data[: offsets[0] + 4] + b"\xff\xd0" + data[offsets[0] + 6 :]),
        "another frame": of(offsets + 19, data[:2] + data[data.index(b"\xff\xc0") :][:19] + data[2:]),
        "progressive": of(offsets, data.replace(b"\xff\xc0", b"\xff\xc2", 1)),
        "other sampling": of(offsets, data.replace(b"\x01\x22\x00", b"\x01\x44\x00", 1)),
    }
    for what, changes in wrong.items():
        folder = rebuilt(
            small["tfrecord"], tmp_path / what,
            lambda i, record, changes=changes: serialize(record._replace(**changes)) if i == 1 else None,
        )  # fmt: skip
        refused(folder, "its restart segments do not fit its JPEG")


def test_records_of_others_without_segments_are_shown(small: dict[str, Path], tmp_path: Path):
    folder = rebuilt(
        small["tfrecord"], tmp_path / "foreign", lambda i, record: serialize(record._replace(segments=b""))
    )
    assert verify(folder, decode=True, workers=0).damages == ()
    assert len(show(folder)) == 4


def test_a_bomb_among_the_records_is_refused(small: dict[str, Path], tmp_path: Path):
    from support.jpeg_kinds import scan_bomb

    bomb = {"encoded": scan_bomb(), "segments": b"", "height": 3000, "width": 3000}
    folder = rebuilt(
        small["tfrecord"], tmp_path / "bomb", lambda i, r: serialize(r._replace(**bomb)) if i == 1 else None
    )
    refused(folder, "would take too long to decode")


@pytest.mark.parametrize("size", [(2**62, 4), (2**32, 2**32), (-2, -3), (0, 5), (1, 70 * 91 * 3), (70, 90)])
def test_pixels_of_another_size_are_refused(small: dict[str, Path], tmp_path: Path, size: tuple[int, int]):
    changes = {"height": size[0], "width": size[1]}
    folder = rebuilt(small["raw"], tmp_path / "raw", lambda i, r: changed(r, changes) if i == 1 else None)
    refused(folder, "bytes for (" if min(size) > 0 and size[0] * size[1] < 2**26 else "not from 1 to the limit")


@pytest.mark.parametrize("name", FORMATS)
def test_a_manifest_that_says_other_things_than_the_shards_is_refused(
    small: dict[str, Path], tmp_path: Path, name: str
):
    def of(change: Callable[[manifest.Manifest], manifest.Manifest]) -> Path:
        folder = rebuilt(small[name], tmp_path / str(len(list(tmp_path.iterdir()))), lambda i, record: None)
        resealed(folder, lambda content: asdict(change(manifest.load_manifest(folder))))
        return folder

    known = manifest.load_manifest(small[name])
    first, second = known.shards
    for change in (
        lambda m: replace(m, channels=1),
        lambda m: replace(m, encoding="raw"),
        lambda m: replace(m, classes=m.classes[:1]),
        lambda m: replace(m, classes=m.classes[::-1]),
        lambda m: replace(m, records=7, shards=(replace(first, records=4), second)),
        lambda m: replace(m, records=5, shards=(replace(first, records=2), second)),
        lambda m: replace(m, records=3, shards=(replace(first, records=0), second)),
        lambda m: replace(m, format=FORMATS[name == FORMATS[0]]),
        lambda m: replace(m, shards=(replace(first, size_bytes=first.size_bytes - 1), second)),
    ):
        folder = of(change)
        with pytest.raises(IngestError) as caught:
            show(folder)
        assert "\n" not in str(caught.value)
        assert verify(folder, decode=True, workers=0).damages


BAD_MANIFESTS = {
    "a truth for a number": {"records": True},
    "a fraction": {"records": 6.0},
    "below zero": {"quarantined": -1},
    "a huge number": {"seed": 2**64},
    "many shards": {"shards": [{"name": "a", "records": 0, "size_bytes": 0, "sha256": ""}] * 100_000},
    "a million million records": {
        "records": 10**12,
        "shards": [{"name": "a", "records": 10**12, "size_bytes": 1000, "sha256": "0" * 64}],
    },
    "a thousand million and one records": {
        "records": 10**9 + 1,
        "shards": [{"name": f"{i}", "records": 10**8, "size_bytes": 2**62, "sha256": "0" * 64} for i in range(10)]
        + [{"name": "last", "records": 1, "size_bytes": 100, "sha256": "0" * 64}],
    },
    "a shard of more records than keys have digits": {
        "records": 10**8 + 1,
        "shards": [{"name": "a", "records": 10**8 + 1, "size_bytes": 2**62, "sha256": "0" * 64}],
    },
    "shards of no list": {"shards": {"name": "a"}},
    "no shard": {"shards": [7]},
    "an unknown format": {"format": "parquet"},
    "a module for a format": {"format": "lmdb.x"},
    "an unknown encoding": {"encoding": "png"},
    "a short side of nothing": {"resize": 0},
    "a quality of 101": {"quality": 101},
    "classes of one name": {"classes": ["0", "0"]},
    "classes of numbers": {"classes": [0, 1]},
    "a lone surrogate": {"classes": ["0", "\ud800"]},
    "counts of no numbers": {"converted": {"PNG P": "many"}},
    "a build of no fields": {"build": 7},
    "a build of many shards": {"build": {"shards": 10**12}},
}

BAD_NAMES = [
    "..", ".", "", "a/b", "/etc/passwd", "a\\b", "C:a", "a\0b", "a\x1b[2Jb", "a\nb", "x" * 300, "\ud800",
    "manifest.json", "build.json", 7, None,
]  # fmt: skip

BAD_SUMS = ["", "../../victim", "A" * 64, "0" * 63, "0" * 64 + "\n", 0, None]


def test_a_bad_manifest_is_refused_before_anything_is_opened(small: dict[str, Path], tmp_path: Path):
    folder = rebuilt(small["tfrecord"], tmp_path / "copy", lambda i, record: None)
    whole = json.loads((folder / "manifest.json").read_bytes())
    for path in folder.glob("*.tfrecord*"):
        path.unlink()

    def is_refused(content: dict[str, Any]) -> None:
        resealed(folder, lambda _: content)
        with pytest.raises(ManifestError, match="damaged") as caught:
            ingest.load_manifest(folder)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500

    for changes in BAD_MANIFESTS.values():
        build = (
            {**whole["build"], **changes["build"]} if isinstance(changes.get("build"), dict) else changes.get("build")
        )
        is_refused({**whole, **changes, **({"build": build} if "build" in changes else {})})
    first, second = whole["shards"]
    for name in BAD_NAMES:
        is_refused({**whole, "shards": [{**first, "name": name}, second]})
    for name in (second["name"], second["name"] + ".index"):
        is_refused({**whole, "shards": [{**first, "name": name}, second]})
    for digits in BAD_SUMS:
        is_refused({**whole, "shards": [{**first, "sha256": digits}, second]})


@pytest.mark.parametrize(
    "content",
    [
        b'{"version": 1, "version": 1}',
        b'{"version": NaN}',
        b'{"records": 1e999}',
        b"[" * 10**6,
        b"1" * 10**6,
        b"\xff",
        b"\xef\xbb\xbf{}",
    ],
)
def test_json_that_can_be_read_in_two_ways_is_refused(tmp_path: Path, content: bytes):
    for name in ("manifest.json", "build.json"):
        (tmp_path / name).write_bytes(content)
    for load in (ingest.load_manifest, manifest.load_build_config):
        with pytest.raises(ManifestError):
            load(tmp_path)


def test_a_folder_that_cannot_be_looked_into_is_one_line(tmp_path: Path):
    for show_it in (ingest.load_manifest, verify, inspection.inspect):
        with pytest.raises(ManifestError, match=r"cannot be read .*too long"):
            show_it(tmp_path / ("x" * 5000))


BAD_RECEIPTS: list[dict[str, Any]] = [
    {"rotated": "x"}, {"rotated": -1}, {"rotated": 10**30}, {"rotated": True}, {"converted": [1]},
    {"converted": {"a": "b"}}, {"quarantined": [[1, 2]]}, {"quarantined": [["a\ud800", "b"]]}, {"quarantined": 7},
    {"has_color": None}, {"shard": {"records": 3.0}}, {"shard": {"size_bytes": True}}, {"shard": None},
]  # fmt: skip


@pytest.mark.parametrize("changes", BAD_RECEIPTS)
def test_a_shard_whose_receipt_is_none_is_packed_again(small: dict[str, Path], tmp_path: Path, changes: dict[str, Any]):
    folder = shutil.copytree(small["tfrecord"], tmp_path / "unfinished")
    whole = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").unlink()
    for shard in json.loads(whole)["shards"]:
        receipt = {
            "quarantined": [], "converted": {}, "has_color": True, "has_jpeg": True, "rotated": 0, **changes,
            "shard": {**shard, **changes["shard"]} if changes.get("shard") else changes.get("shard", shard),
        }  # fmt: skip
        (folder / f"{shard['name']}.done").write_text(json.dumps(receipt))
    ingest.build_shards(small["photos"], folder, format="tfrecord", shards=2, workers=0)
    assert (folder / "manifest.json").read_bytes() == whole


@pytest.mark.parametrize("name", ["manifest.json", "build.json"])
def test_a_huge_manifest_is_refused_by_its_size(tmp_path: Path, name: str):
    with (tmp_path / name).open("wb") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(ManifestError, match="of more than"):
        (ingest.load_manifest if name == "manifest.json" else manifest.load_build_config)(tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_pipes_and_folders_are_no_files(small: dict[str, Path], tmp_path: Path, name: str):
    shard = manifest.load_manifest(small[name]).shards[0].name
    for i, (file, make) in enumerate(
        (file, make)
        for file in ("manifest.json", "build.json", "quarantine.tsv", shard, f"{shard}.index")
        for make in (os.mkfifo, os.mkdir)
    ):
        folder = rebuilt(small[name], tmp_path / str(i), lambda i, record: None)
        (folder / file).unlink(missing_ok=True)
        make(folder / file)
        if file in ("manifest.json", shard):
            with pytest.raises(IngestError, match="file"):
                show(folder)
        elif file == f"{shard}.index" and make is os.mkdir:
            assert show(folder)  # an index is made again, or done without
        assert {damage.file for damage in verify(folder, decode=True, workers=0).damages} >= {file}


def test_a_manifest_of_an_older_version_is_whole(small: dict[str, Path], tmp_path: Path):
    folder = rebuilt(small["lmdb"], tmp_path / "old", lambda i, record: None)

    def older(content: dict[str, Any]) -> dict[str, Any]:
        build = {name: value for name, value in content["build"].items() if name != "exif_orientation"}
        return {name: value for name, value in content.items() if name not in ("passed_over", "rotated")} | {
            "build": build
        }

    fingerprint = manifest.load_manifest(folder).fingerprint
    resealed(folder, older)
    build = older(json.loads((folder / "manifest.json").read_bytes()))["build"]
    (folder / "build.json").write_bytes(manifest._text({**build, "sha256": manifest._sum(build)}))
    assert verify(folder, decode=True, workers=0).damages == ()
    assert manifest.load_manifest(folder).fingerprint == fingerprint


def test_an_index_of_another_shard_is_not_taken(small: dict[str, Path], tmp_path: Path):
    for name in FORMATS:
        folder = rebuilt(small[name], tmp_path / name, lambda i, record: None)
        before = show(folder)
        for path in folder.glob("*.index"):
            whole = path.read_bytes()
            index = np.frombuffer(whole[:-4], formats.index._INDEX)
            for foreign in (index[[0, 0, 2]], index[::-1], index[:2], np.append(index, index[:1])):
                content = foreign.tobytes()
                path.write_bytes(content + crc32c(content).to_bytes(4, "little"))
                damaged = {damage.file for damage in verify(folder, workers=0).damages}
                assert damaged and damaged <= {path.name, path.stem}
                assert all(np.array_equal(*pair) for pair in zip(before, show(folder), strict=True))
                assert path.read_bytes() == whole


@pytest.mark.parametrize(("offset", "size"), [(2**64 - 10, 100), (2**63, 10), (0, 2**32 - 1), (10**12, 1)])
def test_an_index_beyond_its_file_is_not_taken(small: dict[str, Path], tmp_path: Path, offset: int, size: int):
    folder = rebuilt(small["tfrecord"], tmp_path / "copy", lambda i, record: None)
    path = next(folder.glob("*.index"))
    index = np.frombuffer(path.read_bytes()[:-4], formats.index._INDEX).copy()
    index[1] = offset, size, 0
    path.write_bytes(index.tobytes() + crc32c(index.tobytes()).to_bytes(4, "little"))
    assert formats.load_index(path.with_suffix(""), path.with_suffix("").stat().st_size) is None
    assert len(show(folder)) == 4


@pytest.mark.parametrize("name", FORMATS)
def test_a_shard_of_many_bytes_asks_for_no_memory(small: dict[str, Path], tmp_path: Path, name: str):
    """A file with a hole of 10 TB takes no space on the disk; its index is small."""
    folder = rebuilt(small[name], tmp_path / "copy", lambda i, record: None)
    path = folder / manifest.load_manifest(folder).shards[0].name
    if name == "lmdb":  # a tree of many records
        with path.open("r+b") as file:
            for at in (0, 4096):
                file.seek(at + 120)
                file.write((5 * 10**11).to_bytes(8, "little"))
    try:
        os.truncate(path, 10**13)
    except OSError:
        pytest.skip("no such file on this file system")
    assert formats.load_index(path, 10**13) is not None
    with pytest.raises(RecordError):
        formats.open(name, path)


def test_pages_that_lead_to_themselves_end(tmp_path: Path):
    """A tree whose root is below itself, one that is too deep, values that share their pages."""
    path = tmp_path / "shard"
    formats.write("lmdb", path, [bytes([i % 256]) * (i * 37 % 5000) for i in range(600)])
    (tmp_path / "shard.index").unlink()
    whole = path.read_bytes()
    from ingest.formats import lmdb

    tree = max((lmdb._snapshot(memoryview(whole), at) for at in (0, 4096)), key=lambda tree: tree.number)
    root, meta = tree.root * 4096, 4096 * (tree.number % 2)
    for place, value, size in (
        (root + int.from_bytes(whole[root + 16 : root + 18], "little"), tree.root, 4),
        (meta + 94, 65535, 2),  # depth
        (meta + 94, tree.depth + 1, 2),
        (meta + 120, 2**60, 8),  # records
        (meta + 128, 2**60, 8),  # root
        (meta + 128, 2**64 - 2, 8),
    ):
        damaged = bytearray(whole)
        damaged[place : place + size] = value.to_bytes(size, "little")
        path.write_bytes(damaged)
        with pytest.raises(RecordError):
            formats.open("lmdb", path)
        assert list(formats.find_faults("lmdb", path))


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**32, 10**6])
def test_a_length_beyond_the_file_is_refused(tmp_path: Path, length: int):
    from ingest.formats import tfrecord

    head = length.to_bytes(8, "little")
    (tmp_path / "shard").write_bytes(head + tfrecord._masked(crc32c(head)).to_bytes(4, "little") + bytes(100))
    with pytest.raises(RecordError, match="cut short"):
        formats.open("tfrecord", tmp_path / "shard")


# Each is a feature: of a wrong type, of none, of more than one value.
WRONG_FEATURES = [
    b"\x08\x05", b"\x18\x05", b"\x1a\x02\x08\x05\x08\x06", b"\x0a\x03\x0a\x01a", b"\x1a\x00", b"", b"\x1d\0\0\0\0",
    b"\x1a\x03\x0a\x01\x05\x1a\x03\x0a\x01\x05", b"\x1a\x04\x0a\x02\x05\x06", b"\x1b\x1c",
    b"\x1a\x0d\x0a\x0b" + b"\xff" * 10 + b"\x01", b"\x1a\x0c\x0a\x0a" + b"\xff" * 9 + b"\x7f",
]  # fmt: skip


def test_fields_of_the_wrong_type_are_errors():
    record = Record(
        channels=3, label=1, synset="n1", encoded=b"\xff\xd8", key="key", format="JPEG", height=5, segments=b"", width=6
    )
    name = b"image/class/label"
    bare = without_first(serialize(record), name)
    assert parse(bare + entry(name, b"\x1a\x03\x0a\x01\x05")).label == 5
    assert parse(bare + entry(name, b"\x1a\x02\x08\x05")).label == 5
    whole = bare + entry(name, b"\x1a\x03\x0a\x01\x05")
    wrong = [bare + entry(name, feature) for feature in WRONG_FEATURES]
    # Names and features that are numbers, below zero too; groups; the same field twice.
    for number in (0, 1, 5, 2**63, 2**64 - 15, 2**64 - 17, 2**64 - 2**31):
        wrong.append(bare + field(1, field(1, b"\x08" + varint(number) + field(2, b"\x1a\x03\x0a\x01\x05"))))
        wrong.append(bare + field(1, field(1, field(1, name) + b"\x10" + varint(number))))
        wrong.append(bare + b"\x08" + varint(number))
    wrong += [whole + b"\x0b", whole + b"\x0f", whole + entry(name, b"\x1a\x03\x0a\x01\x05"), whole + b"\x0a\xff"]
    for payload in wrong:
        with pytest.raises(RecordError):
            parse(payload)
    # What readers pass over.
    for other in (b"\x10\x05", b"\x11" + bytes(8), b"\x15" + bytes(4), b"\x12\x01a", entry(b"other", b"\x08\x05")):
        assert parse(whole + other).label == 5


def entry(name: bytes, feature: bytes) -> bytes:
    return field(1, field(1, field(1, name) + field(2, feature)))


def varint(value: int) -> bytes:
    return _varint(value)


CUT = """
import sys
from pathlib import Path
import ingest
from ingest.loading.batches import iter_batches
from ingest.loading.options import LoaderOptions, TransformOptions
folder, workers = Path(sys.argv[1]), int(sys.argv[2])
stream = iter_batches(folder, LoaderOptions(batch_size=4, training=True, image_size=32, workers=workers))
next(stream)
for path in folder.glob("0*"):
    if path.suffix != ".index":
        with path.open("r+b") as file:
            file.truncate(100)
try:
    for _ in range(100):
        next(stream)
except ingest.IngestError as error:
    print(error)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_cut_short_while_it_is_read_is_an_error_that_says_so(
    small: dict[str, Path], tmp_path: Path, workers: int
):
    folder = rebuilt(small["tfrecord"], tmp_path / "copy", lambda i, record: None)
    command = [sys.executable, "-c", CUT, str(folder), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "100 bytes" in done.stdout and str(folder) in done.stdout and "ingest verify" in done.stdout


def test_a_worker_that_dies_names_the_dataset_and_the_shard_that_was_cut_short(small: dict[str, Path], tmp_path: Path):
    class Dead:
        def receive(self) -> None:
            raise WorkerError("worker process 7 was killed by SIGBUS")

    folder = rebuilt(small["lmdb"], tmp_path / "copy", lambda i, record: None)
    dataset = Dataset(folder)
    with pytest.raises(WorkerError, match=f"{folder}: worker process 7 was killed by SIGBUS"):
        _collect(dataset, Dead(), deque())
    name = dataset.manifest.shards[1].name
    os.truncate(folder / name, 4096)
    with pytest.raises(RecordError, match=f"{name}: 4096 bytes, its manifest says"):
        _collect(dataset, Dead(), deque())


def test_only_what_was_written_and_is_whole_is_called_repaired(small: dict[str, Path], tmp_path: Path):
    folder = rebuilt(small["lmdb"], tmp_path / "copy", lambda i, record: None)
    first = ingest.load_manifest(folder).shards[0].name
    (folder / first).write_bytes(b"")
    verdict = verify(folder, decode=True, repair=small["photos"], workers=0)
    assert set(verdict.repaired) == {first, f"{first}.index"} and verdict.left == ()
    # What is in it is wrong, and its manifest says that it should be: the source does not give it.
    folder = rebuilt(
        small["lmdb"],
        tmp_path / "other",
        lambda i, record: serialize(record._replace(label=9)) if i == 1 else None,
    )
    with pytest.raises(IngestError, match=f"has changed: {first} does not come out as its manifest says"):
        verify(folder, decode=True, repair=small["photos"], workers=0)


def test_regions_of_what_passes_are_parts_of_the_whole(small: dict[str, Path]):
    from ingest.dataset.record_check import check_record

    known = ingest.load_manifest(small["tfrecord"])
    for record in records(small["tfrecord"]):
        check_record(record, known)
        assert record.has_segments
        whole = jpeg.decode(record.encoded, 3)
        part = jpeg.decode_region(record.encoded, record.segments, 3, jpeg.Region(9, 11, 33, 40))
        assert np.array_equal(part, whole[9:42, 11:51])
