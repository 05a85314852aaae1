"""The same photographs in every layout that they are published in."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from support.images import files_of, image_bytes, put
from support.sources import as_parquet, as_tar_of_tars, by_class, parquet_of, tar_of

import ingest
from ingest.dataset import manifest
from ingest.errors import BadSampleError, SourceError
from ingest.sources.base import NO_CLASS, Entry, Source
from ingest.sources.detect import open_source

pytestmark = pytest.mark.slow


def as_folder(photos: dict[str, bytes], root: Path) -> Path:
    return put(root, photos)


def as_folder_of_tars(photos: dict[str, bytes], root: Path) -> Path:
    return put(root, {f"{name}.tar": tar_of(files) for name, files in by_class(photos).items()})


def as_tar(photos: dict[str, bytes], root: Path) -> Path:
    return put(root, {"all": tar_of({f"./{key}": data for key, data in photos.items()})}) / "all"


def as_webdataset(photos: dict[str, bytes], root: Path) -> Path:
    parts: list[dict[str, bytes]] = [{}, {}, {}]
    for i, (key, data) in enumerate(photos.items()):
        stem = key.removesuffix(".JPEG")
        members = {f"{stem}.cls": key.split("/")[0].encode(), key: data, f"{stem}.json": b"{}"}
        parts[i % 3].update(members)
    return put(root, {f"{i:03d}.tar": tar_of(part) for i, part in enumerate(parts)})


def as_csv(photos: dict[str, bytes], root: Path) -> Path:
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label"), *((key, key.split("/")[0]) for key in photos)])
    return put(root, {**photos, "list.csv": text.getvalue().encode()}) / "list.csv"


def as_tsv_with_names(photos: dict[str, bytes], root: Path) -> Path:
    classes = sorted(by_class(photos))
    rows = [f"{key}\t{classes.index(key.split('/')[0])}\t{key.split('/')[0]}" for key in photos]
    return put(root, {**photos, "list.txt": ("\ufeff" + "\r\n".join(rows)).encode()}) / "list.txt"


LAYOUTS = [
    as_folder, as_tar_of_tars, as_folder_of_tars, as_tar, as_webdataset, as_csv, as_tsv_with_names, as_parquet,
]  # fmt: skip


@pytest.fixture(scope="module")
def originals(photos: Path) -> dict[str, bytes]:
    root = photos / "train"
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.JPEG"))}
    return {**found, "cells/not an image.JPEG": b"text"}


def everything(source: Source) -> list[tuple[str, int, str, bytes]]:
    read = pickle.loads(pickle.dumps(source.read))
    return [(entry.key, entry.label, source.classes[entry.label], read(entry).data) for entry in source.entries]


def reason(source: Source, key: str) -> str:
    entry = next(entry for entry in source.entries if entry.key == key)
    assert entry.label == NO_CLASS
    with pytest.raises(BadSampleError) as error:
        source.read(entry)
    return str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_photographs_are_the_same_samples(
    originals: dict[str, bytes], tmp_path: Path, layout: Callable[[dict[str, bytes], Path], Path]
):
    classes = sorted(by_class(originals))
    source = open_source(layout(originals, tmp_path))
    assert source.classes == tuple(classes)
    assert everything(source) == [
        (key, classes.index(key.split("/")[0]), key.split("/")[0], originals[key]) for key in sorted(originals)
    ]
    if source.stage:
        staged = pickle.loads(pickle.dumps(source.stage(tmp_path / "scratch")))
        assert everything(source._replace(read=staged)) == everything(source)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_and_the_same_shards(
    originals: dict[str, bytes], tmp_path: Path, layout: Callable[[dict[str, bytes], Path], Path]
):
    before = {}
    for name, kind in (("folder", as_folder), ("other", layout)):
        place = kind(originals, tmp_path / name)
        before = files_of(place) if place.is_dir() and name == "other" else {}
        ingest.build_shards(place, tmp_path / f"{name} shards", format="tfrecord", shards=4, workers=2)
    other, folder = (tmp_path / f"{name} shards" for name in ("other", "folder"))
    # What is passed over, such as a WebDataset's .cls, is the source's.
    manifests = [replace(ingest.load_manifest(place), passed_over={}) for place in (other, folder)]
    assert manifests[0] == manifests[1]
    assert {**files_of(other), manifest.NAME: b""} == {**files_of(folder), manifest.NAME: b""}
    assert before == {} or files_of(place) == before


def test_the_official_validation_archive_with_the_devkit(originals: dict[str, bytes], tmp_path: Path):
    """The devkit's numbers are not in the order of the synsets, and its last are no classes."""
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 7)]
    images = dict(zip(names, originals.values()))
    ids = [("n03", 1, 0), ("n01", 2, 0), ("n02", 3, 0), ("n00", 4, 3)]
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height"]
    synsets = np.zeros((len(ids), 1), [(name, object) for name in fields])
    for row, (wnid, number, children) in zip(synsets, ids):
        row[0] = (number, wnid, "words", "gloss", children, np.arange(children), 0)
    matrix = io.BytesIO()
    scipy.io.savemat(matrix, {"synsets": synsets})
    truth = "ILSVRC2012_validation_ground_truth.txt"
    devkit = {f"d/data/{truth}": b"3\n1\n2\n1\n3\n2\n", "d/data/meta.mat": matrix.getvalue(), "d/readme.txt": b"hello"}
    put(tmp_path, {"val.tar": tar_of(images), **{f"flat/{name}": data for name, data in images.items()}, **devkit})
    (tmp_path / "devkit.tgz").write_bytes(gzip.compress(tar_of(devkit)))
    (tmp_path / "pairs").write_text(
        "".join(f"{n} {w}\n" for n, w in zip(names, ["n02", "n03", "n01", "n03", "n02", "n01"]))
    )
    (tmp_path / "words").write_text("n02\nn03\nn01\nn03\nn02\nn01\n")
    for place in ("val.tar", "flat"):
        for labels in ("devkit.tgz", "d", f"d/data/{truth}", "pairs", "words"):
            source = open_source(tmp_path / place, tmp_path / labels)
            assert source.classes == ("n01", "n02", "n03")
            expected = zip(names, [1, 2, 0, 2, 1, 0], images.values())
            assert everything(source) == [(name, i, source.classes[i], data) for name, i, data in expected]
        with pytest.raises(SourceError, match=r"--labels|no class folders"):
            open_source(tmp_path / place)
    (tmp_path / "words").write_text("n02\n")
    with pytest.raises(SourceError, match="1 labels for 6 images"):
        open_source(tmp_path / "val.tar", tmp_path / "words")
    (tmp_path / "pairs").write_text("".join(f"other{n} 1\n" for n in names))
    with pytest.raises(SourceError, match="no label for 6 of 6 images, such as ILSVRC"):
        open_source(tmp_path / "val.tar", tmp_path / "pairs")
    with pytest.raises(SourceError, match="no devkit"):
        open_source(tmp_path / "val.tar", tmp_path / "flat")


def test_labels_are_not_for_what_has_its_own(originals: dict[str, bytes], tmp_path: Path):
    (tmp_path / "labels").write_text("a\n")
    with pytest.raises(SourceError, match="images without folders, and it has folders, which are classes"):
        open_source(as_folder(originals, tmp_path / "a"), tmp_path / "labels")


def hostile_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a/good.JPEG", "/etc/cron.d/evil", "a/../../evil", "stray"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"data"))
        for name, kind in (
            ("a/symlink", tarfile.SYMTYPE), ("a/link", tarfile.LNKTYPE), ("a/device", tarfile.BLKTYPE),
            ("a/pipe", tarfile.FIFOTYPE), ("a/terminal", tarfile.CHRTYPE), ("a/folder", tarfile.DIRTYPE),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    return buffer.getvalue()


def test_a_hostile_archive_is_only_read(tmp_path: Path):
    place = put(tmp_path, {"hostile": hostile_tar()}) / "hostile"
    source = open_source(place)
    assert source.classes == ("a",)
    assert {entry.key: entry.label for entry in source.entries if entry.label != NO_CLASS} == {"a/good.JPEG": 0}
    assert {entry.key: reason(source, entry.key) for entry in source.entries if entry.label == NO_CLASS} == {
        "/etc/cron.d/evil": "a name that leads out of the archive",
        "a/../../evil": "a name that leads out of the archive",
        "stray": "not in a class folder",
        "a/symlink": "a link, not a regular file",
        "a/link": "a link, not a regular file",
        "a/device": "a device, a pipe or a sparse file, not a regular file",
        "a/pipe": "a device, a pipe or a sparse file, not a regular file",
        "a/terminal": "a device, a pipe or a sparse file, not a regular file",
    }
    put(tmp_path, {"inner": tar_of({"n01.tar": hostile_tar(), "n02.tar": tar_of({"x": b"1"}), "notes": b"hi"})})
    source = open_source(tmp_path / "inner")
    assert [entry.key for entry in source.entries if entry.label != NO_CLASS] == [
        "n01/a/good.JPEG", "n01/stray", "n02/x",
    ]  # fmt: skip
    assert reason(source, "n01//etc/cron.d/evil") == "a name that leads out of the archive"
    with pytest.raises(SourceError, match="none of the source's"):
        ingest.build_shards(place, tmp_path / "out", format="lmdb", workers=0)
    assert {path.name for path in tmp_path.iterdir()} == {"hostile", "inner", "out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"quarantine.tsv"}


def test_long_and_strange_names_come_through(tmp_path: Path):
    names = [f"a/{'x' * 200}.JPEG", "a/\u96f2 \u00fc.JPEG", "b/" + "deep/" * 30 + "y"]
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "tar", "w", format=kind) as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 1
                tar.addfile(info, io.BytesIO(b"1"))
        assert [entry.key for entry in open_source(tmp_path / "tar").entries] == sorted(names, key=str.encode)


def test_archives_that_are_cut_short_or_compressed_are_refused(originals: dict[str, bytes], tmp_path: Path):
    whole = as_tar(originals, tmp_path).read_bytes()
    for size in (len(whole) // 2, len(whole) // 2 + 300, 1024 + 512):
        (tmp_path / "all").write_bytes(whole[:size])
        with pytest.raises(SourceError, match=r"all: damaged, or cut short"):
            open_source(tmp_path / "all")
    nested = tar_of({"n01.tar": tar_of(by_class(originals)["cells"])[:-20_000], "n02.tar": tar_of({"x": b"1"})})
    (tmp_path / "all").write_bytes(nested)
    with pytest.raises(SourceError, match=r"all: damaged, or cut short"):
        open_source(tmp_path / "all")
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        (tmp_path / "all").write_bytes(compress(whole))
        with pytest.raises(SourceError, match="compressed, and cannot be read at random: make a plain tar of it first"):
            open_source(tmp_path / "all")


def test_samples_of_webdataset_that_lack_a_part_are_not_lost(tmp_path: Path):
    members = {
        "a.jpg": b"1", "a.cls": b"1\n", "b.seg.png": b"-", "b.JPG": b"2", "b.cls": b" 0 ", "c.jpg": b"3", "d.cls": b"0",
        "e.jpg": b"5", "e.cls": b"-1", "f.jpg": b"6", "f.png": b"7", "f.cls": b"0",
    }  # fmt: skip
    source = open_source(put(tmp_path, {"x.tar": tar_of(members), "x.txt": b"notes"}))
    assert source.classes == ("0", "1")
    good = {entry.key: (entry.label, source.read(entry).data) for entry in source.entries if entry.label != NO_CLASS}
    assert good == {"a.jpg": (1, b"1"), "b.JPG": (0, b"2")}
    several = "its key has several images, or several .cls: give each image a key and a .cls of its own"
    assert {entry.key: reason(source, entry.key) for entry in source.entries if entry.label == NO_CLASS} == {
        "c.jpg": "no .cls beside it says its class, or one out of range",
        "d.cls": "a .cls without an image beside it",
        "e.jpg": "no .cls beside it says its class, or one out of range",
        "f.jpg": several,
        "f.png": several,
        "x.txt": "not a tar, as the others are",
    }
    assert source.passed_over == {"WebDataset .cls": 4, "WebDataset .seg.png": 1}


def test_two_images_of_one_key_are_refused(tmp_path: Path):
    for number in (0, 1):
        put(tmp_path, {f"{number}.tar": tar_of({"a/x.jpg": b"1"})})
    with pytest.raises(SourceError, match="two images have the key"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.JPEG,1\nb.JPEG\n", "line 2: a path and a label are needed"),
        ("a.JPEG,1\n,2\n", "line 2: a path and a label are needed"),
        ("a.JPEG,0,cat\nb.JPEG,0,dog\n", "image 2: label 0 is 'cat' and 'dog'"),
        ("a.JPEG,1\na.JPEG,2\n", "two images have the key 'a.JPEG'"),
        ("nothing,1\nelse,2\n", "not a source"),
    ],
)
def test_lists_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str):
    put(tmp_path, {"a.JPEG": b"1", "b.JPEG": b"2", "list.csv": text.encode()})
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "list.csv")


def test_a_flat_folder_with_a_list_in_it(tmp_path: Path):
    put(tmp_path / "flat", {"a.JPEG": b"1", "b.JPEG": b"2", "list": b"file;class\n./a.JPEG;7\nb.JPEG;3\n"})
    source = open_source(tmp_path / "flat")
    assert source.classes == tuple("01234567")
    assert list(source.entries) == [Entry("a.JPEG", 7), Entry("b.JPEG", 3)]
    put(tmp_path, {"secret": b"mine"})
    for line in ("../secret;3", "/etc/passwd;3", "c.JPEG;-1"):
        put(tmp_path / "flat", {"list": f"file;class\na.JPEG;7\n{line}\n".encode(), "c.JPEG": b"3"})
        with pytest.raises(SourceError, match="list: line 3: "):
            open_source(tmp_path / "flat")


def test_parquet_of_every_kind(originals: dict[str, bytes], tmp_path: Path):
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": b"1", "path": None}, {"bytes": None, "path": None}, {"bytes": b"3", "path": None}]
    table = pa.table({"label": [0, 1, None], "image": pa.array(rows, image), "more": [1.5, 2.5, 3.5]})
    pq.write_table(table, tmp_path / "a")
    source = open_source(tmp_path / "a")
    assert [(entry.key, entry.label) for entry in source.entries] == [
        ("a#00000000", 0), ("a#00000001", 1), ("a#00000002", NO_CLASS),
    ]  # fmt: skip
    assert source.stage
    for read in (source.read, source.stage(tmp_path / "scratch")):
        assert read(source.entries[0]).data == b"1"
        with pytest.raises(BadSampleError, match="a row without an image"):
            read(source.entries[1])
        with pytest.raises(BadSampleError, match="its label is missing or out of range"):
            read(source.entries[2])
    for columns in ({"label": [1]}, {"image": pa.array(rows, image)}, {"image": [b"1"], "label": [1]}):
        pq.write_table(pa.table(columns), tmp_path / "b")
        with pytest.raises(SourceError, match="it needs the columns image"):
            open_source(tmp_path / "b")
    (tmp_path / "c").write_bytes((tmp_path / "a").read_bytes()[:-10])
    with pytest.raises(SourceError, match="c: damaged"):
        open_source(tmp_path / "c")
    put(tmp_path / "d", {f"{name}-00000-of-00001.parquet": parquet_of(originals, None) for name in ("train", "test")})
    with pytest.raises(SourceError, match=r"more than one split \(test, train\): give a folder of one of them"):
        open_source(tmp_path / "d")


def test_a_staged_source_leaves_no_copy(originals: dict[str, bytes], tmp_path: Path):
    place = as_parquet({key: data for key, data in originals.items() if "cells" in key}, tmp_path / "parquet")
    put(place, {"image.png": image_bytes("PNG")})
    ingest.build_shards(place, tmp_path / "out", format="lmdb", shards=2, workers=2)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".lmdb", ".index", ".json", ".tsv"}
