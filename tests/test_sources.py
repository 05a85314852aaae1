from __future__ import annotations

import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from support.images import put
from support.sources import IMAGES_NAME, LABELS, LABELS_NAME, PIXELS, idx

from ingest.errors import BadSampleError, SourceError
from ingest.sources.base import NO_CLASS, Entry
from ingest.sources.detect import open_source

pytestmark = pytest.mark.slow


def declared(*dimensions: int) -> bytes:
    """An IDX file that ends after its header."""
    return struct.pack(f">I{len(dimensions)}I", 0x800 + len(dimensions), *dimensions)


MANY = 2**32 - 1


def test_a_folder_of_classes(tmp_path: Path):
    put(tmp_path, {"b/2.JPEG": b"two", "b/1 \u00e9.JPEG": b"one", "a/x.png": b"x", "a/deep/y": b"y"})
    (tmp_path / "empty").mkdir()
    source = open_source(tmp_path)
    assert source.classes == ("a", "b", "empty")
    assert list(source.entries) == [
        Entry("a/deep/y", 0),
        Entry("a/x.png", 0),
        Entry("b/1 \u00e9.JPEG", 1),
        Entry("b/2.JPEG", 1),
    ]
    assert [source.read(entry).data for entry in source.entries] == [b"y", b"x", b"one", b"two"]


def test_files_outside_the_classes_are_found_but_not_samples(tmp_path: Path):
    put(tmp_path, {"a/1.JPEG": b"1", "README": b"hello", ".cache/2.JPEG": b"2"})
    source = open_source(tmp_path)
    assert source.classes == ("a",)
    outside = [entry for entry in source.entries if entry.label == NO_CLASS]
    assert [entry.key for entry in outside] == [".cache/2.JPEG", "README"]
    with pytest.raises(BadSampleError, match="not in a class folder"):
        source.read(outside[0])


def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    put(tmp_path, {"real/1.JPEG": b"1", "photos/a/2.JPEG": b"2"})
    (tmp_path / "photos" / "b").symlink_to(tmp_path / "real")
    assert [entry.key for entry in open_source(tmp_path / "photos").entries] == ["a/2.JPEG", "b/1.JPEG"]
    (tmp_path / "photos" / "a" / "again").symlink_to(tmp_path / "photos")
    with pytest.raises(SourceError, match="a link to a folder that it lies in"):
        open_source(tmp_path / "photos")


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    put(tmp_path, {"a/1.JPEG": b"1"})
    os.mkfifo(tmp_path / "a" / "pipe")
    with pytest.raises(BadSampleError, match="not a regular file"):
        open_source(tmp_path).read(Entry("a/pipe", 0))


def test_a_file_that_is_gone_when_its_turn_comes_is_an_error(tmp_path: Path):
    source = open_source(put(tmp_path, {"a/1.JPEG": b"1"}))
    (tmp_path / "a" / "1.JPEG").unlink()
    with pytest.raises(SourceError, match=r"1\.JPEG: cannot be read"):
        source.read(source.entries[0])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no images in it"),
        ({"1.JPEG": b"1"}, "no class folders in it"),
        ({"train/a/1.JPEG": b"1", "val/a/2.JPEG": b"2"}, "hold folders, not images: give one of them, such as .*train"),
    ],
)
def test_a_folder_of_another_layout_is_refused(tmp_path: Path, files: dict[str, bytes], message: str):
    with pytest.raises(SourceError, match=message):
        open_source(put(tmp_path, files))


def test_no_source(tmp_path: Path):
    with pytest.raises(SourceError, match="no such file or folder"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(SourceError, match="not a source"):
        open_source(tmp_path / "text")


@pytest.mark.parametrize("given", ["", IMAGES_NAME])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx(tmp_path: Path, given: str, zipped: bool):
    # Gzipped or not shows in the content: the names stay.
    pack = gzip.compress if zipped else bytes
    put(tmp_path, {IMAGES_NAME: pack(idx(PIXELS)), LABELS_NAME: pack(idx(LABELS)), "notes.txt": b"hello"})
    source = pickle.loads(pickle.dumps(open_source(tmp_path / given)))
    assert source.classes == tuple(f"{i:02d}" for i in range(11))
    assert [entry.key for entry in source.entries] == [f"{i:02d}" for i in range(12)]
    samples = [source.read(entry) for entry in source.entries]
    assert [sample.label for sample in samples] == LABELS.tolist()
    assert np.array_equal(np.stack([sample.data for sample in samples]), PIXELS[..., None])


def test_a_gzipped_pair_may_lie_beside_its_unpacked_twin(tmp_path: Path):
    put(tmp_path, {IMAGES_NAME: idx(PIXELS), LABELS_NAME: idx(LABELS)})
    put(tmp_path, {f"{n}.gz": gzip.compress((tmp_path / n).read_bytes()) for n in (IMAGES_NAME, LABELS_NAME)})
    for name in (IMAGES_NAME, f"{IMAGES_NAME}.gz"):
        assert [entry.label for entry in open_source(tmp_path / name).entries] == LABELS.tolist()


def test_a_damaged_archive_beside_the_classes_is_only_a_file(tmp_path: Path):
    put(tmp_path, {"a/1.JPEG": b"1", "b.gz": b"\x1f\x8b\x08\x00" + bytes(6) + b"\xff\xff\xff"})
    assert [entry.key for entry in open_source(tmp_path).entries] == ["a/1.JPEG", "b.gz"]


def test_what_lies_beside_an_idx_pair_is_counted(tmp_path: Path):
    put(tmp_path, {IMAGES_NAME: idx(PIXELS), LABELS_NAME: idx(LABELS), "notes": b"", ".DS_Store": b"", "a/1.JPEG": b""})
    assert open_source(tmp_path).passed_over == {"not the IDX images or their labels": 2, ".DS_Store": 1}
    assert open_source(tmp_path / IMAGES_NAME).passed_over == {}


def test_labels_are_found_by_name_where_there_are_several(tmp_path: Path):
    put(tmp_path, {IMAGES_NAME: idx(PIXELS), LABELS_NAME: idx(LABELS), "x-labels-idx1-ubyte": idx(LABELS[::-1])})
    put(tmp_path, {"x-images-idx3-ubyte": idx(PIXELS)})
    assert [entry.label for entry in open_source(tmp_path / "x-images-idx3-ubyte").entries] == LABELS[::-1].tolist()
    with pytest.raises(SourceError, match="more than one IDX images file"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        ({IMAGES_NAME: idx(PIXELS)}, "", "0 IDX labels files beside it"),
        ({IMAGES_NAME: idx(PIXELS), LABELS_NAME: idx(LABELS[:5])}, "", "5 labels for the 12 images"),
        ({IMAGES_NAME: idx(PIXELS), LABELS_NAME: idx(LABELS)[:-1]}, "", "19 bytes, and its header asks for 20"),
        ({IMAGES_NAME: idx(PIXELS), LABELS_NAME: idx(LABELS) + b"0"}, "", "21 bytes, and its header asks for 20"),
        ({IMAGES_NAME: idx(PIXELS)[:-1], LABELS_NAME: idx(LABELS)}, "", "255 bytes, and its header asks for 256"),
        ({IMAGES_NAME: declared(MANY, 60_000, 60_000), LABELS_NAME: declared(MANY)}, "", "more than the limit"),
        ({IMAGES_NAME: declared(MANY, 6000, 6000), LABELS_NAME: declared(MANY)}, "", "header asks for 15"),
        ({IMAGES_NAME: gzip.compress(declared(MANY, 60, 60)), LABELS_NAME: declared(MANY)}, "", "that unpack to"),
        ({IMAGES_NAME: idx(PIXELS), LABELS_NAME: gzip.compress(idx(LABELS) + b"0")}, "", "more than its 12"),
        ({IMAGES_NAME: idx(PIXELS[:, :, :0]), LABELS_NAME: idx(LABELS)}, "", r"images of \(5, 0\) pixels"),
        ({IMAGES_NAME: idx(PIXELS)[:9], LABELS_NAME: idx(LABELS)}, "", "no class folders"),
        ({IMAGES_NAME: idx(PIXELS), LABELS_NAME: idx(LABELS)}, LABELS_NAME, "these are IDX labels"),
        ({IMAGES_NAME: idx(PIXELS), LABELS_NAME: gzip.compress(idx(LABELS))[:-12]}, "", "cannot be read"),
    ],
)  # fmt: skip
def test_idx_files_that_do_not_fit_are_refused(tmp_path: Path, files: dict[str, bytes], given: str, message: str):
    with pytest.raises(SourceError, match=message):
        open_source(put(tmp_path, files) / given)
