"""Parquet files as others write them, well and badly: each row is its label's, or refused, or quarantined."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.images import FORMATS, image_bytes, put

import ingest
from ingest.dataset.dataset import Dataset
from ingest.errors import BadSampleError, SourceError
from ingest.sources.base import NO_CLASS, Source
from ingest.sources.detect import open_source

pytestmark = pytest.mark.slow

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
JPEG = image_bytes("JPEG", size=(16, 16))


def table_of(
    labels: Sequence[Any] | pa.Array, paths: Sequence[str | None] | None = None, names: object = None
) -> pa.Table:
    """A table of a row a label; the image of row i is JPEG and the byte i."""
    rows = [{"bytes": JPEG + bytes([i % 256]), "path": paths[i] if paths else None} for i in range(len(labels))]
    table = pa.table({"image": pa.array(rows, IMAGE), "label": labels})
    info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(info)} if names is not None else None)


def put_table(path: Path, table: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def named(source: Source) -> dict[str, str | None]:
    return {key: None if label == NO_CLASS else source.classes[label] for key, label, _ in source.entries}


@pytest.mark.parametrize(
    "second",
    [["dog", "cat"], ["cat", "dog", "cow"], ["cat"], None],
    ids=["another order", "more", "fewer", "none"],
)
def test_files_whose_class_names_differ_are_refused(tmp_path: Path, second: list[str] | None):
    put_table(tmp_path / "a.parquet", table_of([0, 1], names=["cat", "dog"]))
    put_table(tmp_path / "b.parquet", table_of([0, 0], names=second))
    with pytest.raises(
        SourceError, match=r"a\.parquet and b\.parquet: their classes' names differ \(label \d is .* and .*\): give"
    ):
        open_source(tmp_path)


def test_files_whose_labels_are_of_two_kinds_are_refused(tmp_path: Path):
    put_table(tmp_path / "a.parquet", table_of([0, 1]))
    put_table(tmp_path / "b.parquet", table_of(["0", "cat"]))
    with pytest.raises(SourceError, match=r"a\.parquet and b\.parquet: labels are numbers in one, words in the other"):
        open_source(tmp_path)
    put_table(tmp_path / "b.parquet", table_of([1.0, None]))
    put_table(tmp_path / "c.parquet", table_of(pa.nulls(1)))
    assert [*named(open_source(tmp_path)).values()] == ["0", "1", "1", None, None]


@pytest.mark.parametrize("name", FORMATS)
def test_paths_that_name_several_rows_are_no_keys(tmp_path: Path, name: str):
    put_table(tmp_path / "in" / "a.parquet", table_of([0, 1, 0], ["x.jpg", "same.jpg", None]), row_group_size=2)
    put_table(tmp_path / "in" / "b.parquet", table_of([1, 1, 1], ["same.jpg", "y/\u96f2.jpg", ""]))
    expected = {
        "x.jpg": "0", "a.parquet#00000001": "1", "a.parquet#00000002": "0",
        "b.parquet#00000003": "1", "y/\u96f2.jpg": "1", "b.parquet#00000005": "1",
    }  # fmt: skip
    assert named(open_source(tmp_path / "in")) == expected
    ingest.build_shards(tmp_path / "in", tmp_path / "out", format=name, workers=0)
    records = [Dataset(tmp_path / "out")[i] for i in range(6)]
    assert {record.key: record.synset for record in records} == expected


def test_a_path_that_looks_like_a_number_makes_all_rows_numbered(tmp_path: Path):
    put_table(tmp_path / "a", table_of([0, 1], ["a#00000001", None]))
    assert [*named(open_source(tmp_path / "a"))] == ["a#00000000", "a#00000001"]


def test_paths_that_are_no_text_are_no_keys(tmp_path: Path):
    odd = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff\xfe", b"x" * 5000], pa.binary()).buffers())
    image = pa.StructArray.from_arrays([pa.array([JPEG, JPEG]), odd], ["bytes", "path"])
    put_table(tmp_path / "a", pa.table({"image": image, "label": [0, 0]}))
    assert [*named(open_source(tmp_path / "a"))] == ["a#00000000", "a#00000001"]


MISSING = "its label is missing or out of range"


@pytest.mark.parametrize(
    ("labels", "names", "classes"),
    [
        ([0, None, 1], None, ["0", None, "1"]),
        ([0, -1, 2], None, ["0", None, "2"]),
        ([0.0, 2.0, float("nan"), None], None, ["0", "2", None, None]),
        ([0, 2, 1, -1, 2**40], ["cat", "dog"], ["cat", None, "dog", None, None]),
        ([1.0, 0.0], ["cat", "dog"], ["dog", "cat"]),
        ([0, 1], [10, 9], ["10", "9"]),
        (["b", None, "", "a", " "], None, ["b", None, None, "a", None]),
        (["dog", "cow", "cat"], ["cat", "dog"], ["dog", None, "cat"]),
        ([True, False], None, ["True", "False"]),
        ([0, 10_000_000], None, ["0", None]),
        (pa.array(["b", "a", None, "b"]).dictionary_encode(), None, ["b", "a", None, "b"]),
        (pa.array([3, 1], pa.uint8()), None, ["3", "1"]),
        (pa.array([1, 0], pa.float32()), None, ["1", "0"]),
    ],
)
def test_labels_of_every_kind(tmp_path: Path, labels: list[Any], names: object, classes: list[str | None]):
    place = put_table(tmp_path / "a", table_of(labels, names=names))
    source = open_source(place)
    assert [*named(source).values()] == classes
    for entry, name in zip(source.entries, classes):
        if name is None:
            with pytest.raises(BadSampleError, match=MISSING):
                source.read(entry)
    manifest = ingest.build_shards(place, tmp_path / "out", format="lmdb", workers=0)
    assert (manifest.records, manifest.quarantined) == (len(labels) - classes.count(None), classes.count(None))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (table_of([0, 0.5]), r"the label 0\.5: labels are whole numbers or words"),
        (table_of([0, float("inf")]), "the label inf"),
        (table_of([[0], [1]]), r"its labels are of the type list<.*>: write numbers or words"),
        (table_of(["x" * 2000]), "a label of 2,000 characters"),
        (table_of([0], names=[None]), "the names of its classes are no list of words"),
        (table_of([0], names=[["cat"]]), "the names of its classes are no list of words"),
        (table_of([0], names=[True, False]), "the names of its classes are no list of words"),
        (table_of([0], names={"cat": 0}), "the names of its classes are no list of words"),
        (table_of([0], names="cat"), "the names of its classes are no list of words"),
        (table_of([0], names=["cat", "cat"]), "two of its classes have one name"),
        (table_of([0], names=["cat", ""]), "two of its classes have one name"),
        (table_of([0], names=["\ud800"]), "1 name is not UTF-8"),
        (pa.table({"img": [b"1"], "label": [0]}), r"and has img \(binary\), label \(int64\): write it anew"),
        (pa.table({"image": [b"1"], "label": [0]}), r"it needs the columns image .*, and has image \(binary\)"),
        (pa.table({"jpg": [b"1"], "cls": [0]}), r"and has jpg \(binary\), cls \(int64\)"),
        (pa.table({"image": [{"bytes": 1, "path": "x"}], "label": [0]}), "it needs the columns image"),
        (pa.table({"image": [{"bytes": b"1"}], "label": [0]}), "it needs the columns image"),
        (table_of([0]).drop_columns(["label"]), "it needs the columns image"),
        (table_of([0]).append_column("label", [[1]]), "it needs the columns image"),
        (table_of([]), "no images in it"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused(tmp_path: Path, table: pa.Table, message: str):
    with pytest.raises(SourceError, match=message):
        open_source(put_table(tmp_path / "a", table))


def test_names_that_make_no_sense_are_as_good_as_none(tmp_path: Path):
    table = table_of([1]).replace_schema_metadata({"huggingface": b'{"info": {"features": []}}'})
    assert [*named(open_source(put_table(tmp_path / "a", table))).values()] == ["1"]
    table = table_of([1]).replace_schema_metadata({"huggingface": b"[" * 100_000})
    assert [*named(open_source(put_table(tmp_path / "a", table))).values()] == ["1"]


def test_empty_files_and_groups_are_no_fault(tmp_path: Path):
    put_table(tmp_path / "a.parquet", table_of(pa.array([], pa.int64())))
    with pq.ParquetWriter(tmp_path / "b.parquet", table_of([0]).schema) as writer:
        for labels in ([0], [], [1]):
            writer.write_table(table_of(pa.array(labels, pa.int64())), row_group_size=max(1, len(labels)))
    source = open_source(tmp_path)
    assert [*named(source).values()] == ["0", "1"]
    assert source.stage
    staged = source.stage(tmp_path / "scratch")
    for read in (source.read, staged):
        assert [read(entry).data for entry in source.entries] == [JPEG + b"\0"] * 2


def test_what_lies_beside_is_counted(tmp_path: Path):
    put_table(tmp_path / "a.parquet", table_of([0]))
    put(tmp_path, {"README.md": b"", ".cache/x/y": b"", "._a.parquet": b"", "cat/1.JPEG": JPEG})
    assert open_source(tmp_path).passed_over == {"not parquet": 3, "._*": 1}
    assert open_source(tmp_path / "a.parquet").passed_over == {}


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"<html>"])
def test_a_file_that_is_called_parquet_and_is_none_is_refused(tmp_path: Path, content: bytes):
    place = put_table(tmp_path / "a" / "0.parquet", table_of([0])).parent
    put(place, {"._0.parquet": b"1"})
    assert open_source(place).passed_over == {"._*": 1}
    put(place, {"1.parquet": content, "2.PARQUET": content})
    with pytest.raises(SourceError, match=r"1\.parquet: no parquet, though it is called so, and 1 more like it: fetch"):
        open_source(place)


def test_a_file_that_has_changed_is_no_longer_the_source(tmp_path: Path):
    source = open_source(put_table(tmp_path / "a", table_of([0, 1, 1])))
    put_table(tmp_path / "a", table_of([0]))
    assert source.stage
    with pytest.raises(SourceError, match="has changed"):
        source.stage(tmp_path / "scratch")
    with pytest.raises(SourceError, match="has changed"):
        source.read(source.entries[2])


def varint(number: int) -> bytes:
    result = b""
    while number > 127:
        result, number = result + bytes([number & 127 | 128]), number >> 7
    return result + bytes([number])


def nested(levels: int) -> bytes:
    """A file of a column within so many columns: a footer of Thrift's compact protocol."""
    element = b"\x35\x02\x18\x01a\x15"  # optional; the name "a"; how many are within
    schema = element + b"\x02\0" + (element + b"\x02\0") * levels + b"\x15\x02\x25\x02\x18\x01x\0"
    footer = b"\x15\x02\x19\xfc" + varint(levels + 2) + schema + b"\x16\0\x19\x0c\0"
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def many_rows() -> bytes:
    """A file of 10 million rows in 2 KB."""
    rows = 10_000_000
    labels = pa.array([0], pa.int8()).take(pa.nulls(rows, pa.int8()).fill_null(0))
    table = pa.table({"image": pa.nulls(rows, IMAGE), "label": labels})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=rows)
    return file.getvalue()


def large_page() -> bytes:
    """A file of one image of 64 MB in 10 KB."""
    image = pa.array([{"bytes": bytes(2**26), "path": ""}], IMAGE)
    file = io.BytesIO()
    pq.write_table(pa.table({"image": image, "label": [0]}), file, compression="zstd", use_dictionary=False)
    return file.getvalue()


def repeated() -> bytes:
    """A file of an image of 4 MB, 10,000 times; in the file it is there once, and small."""
    image = pa.array([{"bytes": bytes(4 * 10**6), "path": ""}], IMAGE).field("bytes")
    images = pa.DictionaryArray.from_arrays(pa.nulls(10_000, pa.int32()).fill_null(0), image)
    columns = pa.StructArray.from_arrays([images, pa.nulls(10_000, pa.string())], ["bytes", "path"])
    file = io.BytesIO()
    table = pa.table({"image": columns, "label": pa.nulls(10_000, pa.int8()).fill_null(0)})
    pq.write_table(table, file, compression="zstd", store_schema=False, dictionary_pagesize_limit=2**24)
    return file.getvalue()


MEASURE = """
import sys, time
from pathlib import Path
from support.fuzzing import peak_bytes
from ingest.errors import SourceError
from ingest.sources.detect import open_source
import pyarrow.parquet
start = time.perf_counter()
try:
    source = open_source(sys.argv[1])
    source.read(source.entries[len(source.entries) - 1])
    source.stage(Path(sys.argv[1]).with_name("scratch"))
    print("read")
except SourceError as error:
    print(error)
print(time.perf_counter() - start, peak_bytes())
"""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nested(50_000), "damaged (Couldn't deserialize thrift"),
        (many_rows, "10,000,000 rows in "),
        (large_page, "that unpacks to 67,108,8"),
        (repeated, "its images take over 100 times its own bytes"),
    ],
    ids=["nested", "rows", "page", "repeated"],
)
def test_a_file_that_wants_much_memory_is_refused(tmp_path: Path, make: Any, message: str):
    data = make()
    assert len(data) < 600_000
    place = put(tmp_path, {"bomb": data}) / "bomb"
    here = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}"}
    command = [sys.executable, "-c", MEASURE, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=here)
    said, figures = done.stdout.splitlines()
    seconds, peak_bytes = map(float, figures.split())
    assert message in said
    assert seconds < 10 and peak_bytes < 500 * 10**6


LABELS = st.one_of(
    st.lists(st.sampled_from([0, 1, 2, 3, -1, None]), min_size=1, max_size=8),
    st.lists(st.sampled_from([0.0, 1.0, 2.0, float("nan"), None]), min_size=1, max_size=8),
    st.lists(st.sampled_from(["cat", "dog", "", None]), min_size=1, max_size=8),
)


@settings(max_examples=20)
@given(
    labels=LABELS,
    paths=st.lists(st.sampled_from(["x.jpg", "y.jpg", "a/z.jpg", "", None]), min_size=8, max_size=8),
    images=st.lists(st.sampled_from([JPEG, b"text", b"", None]), min_size=8, max_size=8),
    names=st.sampled_from([None, ["cat", "dog", "cow"]]),
    group=st.integers(1, 4),
    cut=st.integers(0, 8),
    options=st.sampled_from([{}, {"compression": "zstd", "data_page_version": "2.0"}, {"use_dictionary": False}]),
    name=st.sampled_from(FORMATS),
)
def test_every_row_is_packed_under_its_label_or_quarantined(
    labels: list[Any], paths: list[str | None], images: list[bytes | None], names: list[str] | None, group: int,
    cut: int, options: dict[str, Any], name: str, tmp_path_factory: pytest.TempPathFactory,
):  # fmt: skip
    root = tmp_path_factory.mktemp("rows")
    # A row that is sound in any case: where there is none, there is nothing to pack.
    labels, n = (
        [*labels, "cat" if any(isinstance(label, str) for label in labels) or labels == [""] else 0],
        len(labels),
    )
    kind = pa.string() if isinstance(labels[-1], str) else pa.float64()
    rows = [{"bytes": data, "path": path} for data, path in [*[*zip(images, paths)][:n], (JPEG, "last")]]
    whole = table_of(pa.array(labels, kind), names=names).set_column(0, "image", pa.array(rows, IMAGE))
    put(root / "in", {"notes.txt": b""})
    for i, part in enumerate((whole.slice(0, cut), whole.slice(cut))):
        put_table(root / "in" / f"{i}.parquet", part, row_group_size=group, **options)
    manifest = ingest.build_shards(root / "in", root / "out", format=name, workers=0)
    assert manifest.records + manifest.quarantined == len(labels)
    assert manifest.passed_over == {"not parquet": 1}

    def class_of(label: Any) -> str | None:
        if label is None or label != label or label in ("", -1):
            return None
        if isinstance(label, str):
            return label
        return (names[int(label)] if label < len(names) else None) if names else str(int(label))

    good = [class_of(label) for label, row in zip(labels, rows) if row["bytes"] == JPEG]
    dataset = Dataset(root / "out")
    assert sorted(dataset[i].synset for i in range(len(dataset))) == sorted(filter(None, good))
    assert len({dataset[i].key for i in range(len(dataset))}) == manifest.records
