"""Folders as they are on real disks: what systems leave in them, links, files that are closed, names of any bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.images import FORMATS, image_bytes, put

import ingest
from ingest.dataset.dataset import Dataset
from ingest.errors import SourceError
from ingest.sources import folder, ignored
from ingest.sources.base import NO_CLASS
from ingest.sources.detect import open_source
from ingest.tools.inspection import inspect, text

pytestmark = pytest.mark.slow

JPEG = image_bytes("JPEG", size=(16, 16))

JUNK = {
    "a/.DS_Store": ".DS_Store",
    "a/thumbs.db": "Thumbs.db",
    "Desktop.ini": "desktop.ini",
    "a/._1.JPEG": "._*",
    "__MACOSX/a/1.JPEG": "__MACOSX",
    "__MACOSX/a/._2.JPEG": "__MACOSX",
    "lost+found/#12": "lost+found",
    "a/@eaDir/1.JPEG/thumb.jpg": "@eaDir",
    "a/.ipynb_checkpoints/1-checkpoint.JPEG": ".ipynb_checkpoints",
}


def ran(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ingest", *map(str, words)], capture_output=True, text=True)


@pytest.mark.parametrize("name", FORMATS)
def test_what_systems_leave_is_passed_over_and_counted(tmp_path: Path, name: str):
    source = put(tmp_path / "source", {"a/1.JPEG": JPEG, "b/2.JPEG": JPEG, **dict.fromkeys(JUNK, JPEG)})
    out = tmp_path / "out"
    manifest = ingest.build_shards(source, out, format=name, workers=0, on_bad="fail")
    assert manifest.classes == ("a", "b")
    assert (manifest.records, manifest.quarantined, manifest.passed_over) == (2, 0, dict(Counter(JUNK.values())))
    done = ran("build-shards", source, out, "--format", name)
    assert "2 of 11 files (0 quarantined, 9 passed over)" in done.stdout
    assert "passed over: 2 __MACOSX\n" in done.stdout
    assert "passed over: 9 (1 .DS_Store, 1 ._*, 1 .ipynb_checkpoints, 1 @eaDir, " in text(inspect(out, workers=0))


def test_a_folder_of_nothing_else_holds_no_images(tmp_path: Path):
    with pytest.raises(SourceError, match="no images in it"):
        open_source(put(tmp_path, {"lost+found/1.JPEG": JPEG, ".DS_Store": b""}))


def test_links_that_bear_such_a_name_are_not_followed(tmp_path: Path):
    source = put(tmp_path, {"source/a/1.JPEG": JPEG, "elsewhere/1": b"", "elsewhere/2": b""}) / "source"
    (source / "lost+found").symlink_to(tmp_path / "elsewhere")
    (source / "a" / "._gone").symlink_to("nowhere")
    opened = open_source(source)
    assert (len(opened.entries), opened.passed_over) == (1, {"lost+found": 1, "._*": 1})


def test_other_hidden_names_are_no_junk(tmp_path: Path):
    source = open_source(put(tmp_path, {"a/.hidden.JPEG": JPEG, ".git/config": b"", "a/.b/1.JPEG": JPEG}))
    assert {entry.key: entry.label for entry in source.entries} == {
        ".git/config": NO_CLASS, "a/.b/1.JPEG": 0, "a/.hidden.JPEG": 0,
    }  # fmt: skip
    assert ignored.rule("DS_Store") is None and ignored.rule("my ._x") is None


@pytest.mark.parametrize("where", ["b", "b/more"])
def test_classes_that_hold_the_same_folder_are_called_out(tmp_path: Path, where: str):
    source = put(tmp_path / "source", {"a/1.JPEG": JPEG, "c/3.JPEG": JPEG})
    if "/" in where:
        put(source, {"b/2.JPEG": JPEG})
    (source / where).symlink_to(source / "a")
    manifest = ingest.build_shards(source, tmp_path / "out", format="lmdb", workers=0)
    assert manifest.shared_folders == {"b": "a"}
    done = ran("build-shards", source, tmp_path / "out", "--format", "lmdb")
    assert "classes 'a' and 'b' hold the same folder, by a link" in done.stdout
    assert "WARNING: classes that hold the same folder, by a link: b and a" in text(
        inspect(tmp_path / "out", workers=0)
    )


def test_a_link_to_a_folder_elsewhere_is_none_to_call_out(tmp_path: Path):
    put(tmp_path, {"real/1.JPEG": JPEG, "source/a/2.JPEG": JPEG})
    (tmp_path / "source" / "b").symlink_to(tmp_path / "real")
    (tmp_path / "source" / "b" / "3.JPEG").symlink_to("1.JPEG")
    source = open_source(tmp_path / "source")
    assert (len(source.entries), source.shared_folders) == (3, {})


def test_links_that_multiply_end_in_an_error(tmp_path: Path):
    put(tmp_path, {"source/a/1.JPEG": JPEG, "27/1.JPEG": JPEG})
    for i in range(27):
        for name in ("left", "right"):
            (tmp_path / str(i)).mkdir(exist_ok=True)
            (tmp_path / str(i) / name).symlink_to(tmp_path / str(i + 1))
    (tmp_path / "source" / "a" / "links").symlink_to(tmp_path / "0")
    start = time.perf_counter()
    with pytest.raises(SourceError, match="links lead to it by more than 1,000 paths"):
        open_source(tmp_path / "source")
    assert time.perf_counter() - start < 5


def test_folders_may_be_deeper_than_calls_of_python(tmp_path: Path):
    deep = str(put(tmp_path / "source", {"a/0.JPEG": JPEG}) / "a")
    for _ in range(1100):
        deep += "/d"
        os.mkdir(deep)  # noqa: PTH102  # pathlib is slower by far at this depth
    try:
        Path(deep, "1.JPEG").write_bytes(JPEG)
        assert len(open_source(tmp_path / "source").entries) == 2
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "source"], check=True)  # Python's own way calls itself


def test_files_that_cannot_be_read_are_found_before_packing_all_of_them(tmp_path: Path):
    source = put(tmp_path / "source", {"a/1.JPEG": JPEG})
    for i in range(7):
        (source / "a" / f"gone {i}.JPEG").symlink_to("nowhere")
    (source / "a" / "round").symlink_to("round")
    (source / "outside").symlink_to("nowhere")
    done = ran("build-shards", source, tmp_path / "out", "--format", "lmdb")
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert len(done.stderr.splitlines()) == 1
    assert "source: 8 files cannot be read: " in done.stderr
    assert "(a broken link)" in done.stderr and "and 3 more: mend or remove them, then start again" in done.stderr
    for name in [f"gone {i}.JPEG" for i in range(7)]:
        (source / "a" / name).unlink()
    with pytest.raises(SourceError, match=r"1 file cannot be read: a/round \(a broken link\): mend"):
        open_source(source)
    (source / "a" / "round").unlink()
    # What is in no class is quarantined without being opened.
    assert ingest.build_shards(source, tmp_path / "out", format="lmdb", workers=0).quarantined == 1


AS_NOBODY = """
import os, sys
from ingest.sources.detect import open_source
from ingest.errors import SourceError
open_source(sys.argv[1])  # so that all modules are there
os.setgid(65534), os.setuid(65534)
try:
    open_source(sys.argv[2])
except SourceError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_files_without_permission_are_found_before_packing():
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        source = put(Path(place, "source"), {"a/1": JPEG, "a/2": JPEG, "b/deep/3": JPEG, "b/4": JPEG})
        put(source, {"lost+found/5": b"", ".Trash/6": b""})
        put(Path(place, "other"), {"a/1": JPEG})
        for name in ("a/2", "b/deep", "lost+found", ".Trash"):
            (source / name).chmod(0)
        command = [sys.executable, "-c", AS_NOBODY, str(Path(place, "other")), str(source)]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout == (
        f"{source}: 2 files cannot be read: a/2 (no permission), b/deep/ (no permission): "
        "mend or remove them, then start again\n"
    )


def test_the_files_of_a_list_are_looked_at_before_packing(tmp_path: Path):
    put(tmp_path, {"1.JPEG": JPEG, "2.JPEG": JPEG, "list.csv": b"path,label\n1.JPEG,0\nx.JPEG,1\n2.JPEG,1\n"})
    (tmp_path / "x.JPEG").symlink_to("nowhere")
    with pytest.raises(SourceError, match=r"1 file cannot be read: x\.JPEG|x\.JPEG"):
        open_source(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([b"a/1.JPEG", b"a/\xff.JPEG"], r"1 name is not UTF-8, such as 'a/\\xff.JPEG'"),
        ([b"a/1.JPEG", b"caf\xe9/1.JPEG", b"caf\xe9/2.JPEG"], r"3 names are not UTF-8, such as 'caf\\xe9'"),
        ([b"a/\xc3.JPEG", b"a/\xc3\xa9.JPEG"], r"1 name is not UTF-8, such as 'a/\\xc3.JPEG'"),
        ([b"a/\xed\xa0\x80.JPEG"], "1 name is not UTF-8"),
    ],
)
def test_names_that_are_not_utf8_are_refused_before_packing(tmp_path: Path, names: list[bytes], message: str):
    for name in names:
        path = tmp_path / "source" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    with pytest.raises(SourceError, match=message):
        ingest.build_shards(tmp_path / "source", tmp_path / "out", format="tfrecord")
    assert not (tmp_path / "out").exists()


def test_an_empty_class_may_not_have_such_a_name_either(tmp_path: Path):
    put(tmp_path, {"a/1.JPEG": JPEG})
    (tmp_path / os.fsdecode(b"\xff")).mkdir()
    with pytest.raises(SourceError, match="1 name is not UTF-8"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_shards_are_no_photographs(shards: dict[str, Path], tmp_path: Path, name: str):
    inside = shards[name] / f"00000-of-00005.{name}"
    unfinished = put(tmp_path / "unfinished", {"build.json": (shards[name] / "build.json").read_bytes()})
    copied = put(tmp_path / "copied", {inside.name: b"", "manifest.json": b"damaged"})
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "train").symlink_to(shards[name])
    for place in (shards[name], inside, unfinished, copied, tmp_path / "both"):
        with pytest.raises(SourceError, match=r"these are shards already, .*: train from .*, or .* 'ingest convert'"):
            ingest.build_shards(place, tmp_path / "out", format="lmdb")


def test_photographs_may_lie_beside_other_files_of_a_manifests_name(tmp_path: Path):
    foreign = {"a/1.JPEG": JPEG, "a/manifest.json": b"{}", "manifest.json": b'{"name": "my app"}', "build.json": b"[]"}
    assert len(open_source(put(tmp_path, foreign)).entries) == 4


NAMES = st.sampled_from(["1.JPEG", "2", "\u00fc.png", ".hidden", "._1", ".DS_Store", "Thumbs.db", "x\ny"])
FOLDERS = st.sampled_from(["", "a", "b", "\u96f2", ".git", "a/deep", "__MACOSX", "b/@eaDir", "c/lost+found"])
CONTENTS = st.sampled_from([JPEG, image_bytes("PNG", size=(9, 5)), b"", b"text"])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tree=st.dictionaries(st.tuples(FOLDERS, NAMES), CONTENTS, min_size=1, max_size=14),
    name=st.sampled_from(FORMATS),
)
def test_every_file_is_packed_or_quarantined_or_passed_over(
    tree: dict[tuple[str, str], bytes], name: str, tmp_path_factory: pytest.TempPathFactory
):
    root = tmp_path_factory.mktemp("tree")
    put(
        root / "source",
        {"zebra/1.JPEG": JPEG, **{f"{where}/{file}".strip("/"): data for (where, file), data in tree.items()}},
    )
    found = [path.relative_to(root / "source") for path in (root / "source").rglob("*") if path.is_file()]
    manifest = ingest.build_shards(root / "source", root / "out", format=name, workers=0)
    assert manifest.records + manifest.quarantined + sum(manifest.passed_over.values()) == len(found)
    is_junk = {path.as_posix(): any(map(ignored.rule, path.parts)) for path in found}
    assert sum(manifest.passed_over.values()) == sum(is_junk.values())
    dataset = Dataset(root / "out")
    records = [dataset[i] for i in range(len(dataset))]
    assert {record.key for record in records} == {
        key
        for key, passed_over in is_junk.items()
        if "/" in key and key[0] != "." and not passed_over and len((root / "source" / key).read_bytes()) > 4
    }
    for record in records:
        assert record.synset == record.key.split("/")[0] == manifest.classes[record.label]


def test_a_count_beside_stops_at_links(tmp_path: Path):
    put(tmp_path, {"d/used": b"", "d/x": b"", "d/sub/y": b"", "d/._z": b"", "other/1": b""})
    (tmp_path / "d" / "link").symlink_to(tmp_path / "other")
    assert folder.count_beside(tmp_path / "d", {tmp_path / "d" / "used"}, "else") == {"else": 3, "._*": 1}
