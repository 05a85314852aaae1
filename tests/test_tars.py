"""Tars: every member is packed, quarantined or passed over, and what cannot be believed is refused."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fuzz_tars import BLOCK, END, header, member, pax, tar_of
from support.images import FORMATS, image_bytes, put

import ingest
from ingest.errors import BadSampleError, SourceError
from ingest.sources.base import NO_CLASS, Source
from ingest.sources.detect import open_source

pytestmark = pytest.mark.slow

LINK = "a link, not a regular file"
NO_FILE = "a device, a pipe or a sparse file, not a regular file"
OUTSIDE = "a name that leads out of the archive"
NO_NAME = "a name that no file can have"
NO_FOLDER = "not in a class folder"
NO_CLS = "no .cls beside it says its class, or one out of range"
SEVERAL = "its key has several images, or several .cls: give each image a key and a .cls of its own"


def opened(folder: Path, files: dict[str, bytes]) -> Source:
    """The source of the one file that is given, or of a folder of several."""
    put(folder, files)
    return open_source(folder / next(iter(files)) if len(files) == 1 else folder)


def good(source: Source) -> dict[str, tuple[str, bytes]]:
    """Class and bytes of what can be packed."""
    labelled = [entry for entry in source.entries if entry.label != NO_CLASS]
    return {entry.key: (source.classes[entry.label], source.read(entry).data) for entry in labelled}


def bad(source: Source) -> dict[str, str]:
    """The reasons of what will be quarantined."""
    reasons = {}
    for entry in source.entries:
        if entry.label == NO_CLASS:
            with pytest.raises(BadSampleError) as error:
                source.read(entry)
            reasons[entry.key] = str(error.value)
    return reasons


def refused(folder: Path, files: dict[str, bytes]) -> str:
    start = time.perf_counter()
    with pytest.raises(SourceError) as error:
        opened(folder, files)
    assert time.perf_counter() - start < 10
    return str(error.value)


def padded(data: bytes) -> bytes:
    """An archive as tar writes it: in records of 10 KiB."""
    return data + bytes(-len(data) % 10240)


def test_archives_that_were_joined_are_read_to_their_end(tmp_path: Path):
    first, second = padded(tar_of({"a/1": b"1", "README": b"-"})), padded(tar_of({"b/2": b"2", "README": b"-"}))
    source = opened(tmp_path / "a", {"x.tar": first + second + bytes(BLOCK)})
    assert good(source) == {"a/1": ("a", b"1"), "b/2": ("b", b"2")}
    assert bad(source) == {"README": NO_FOLDER, f"README (x.tar, byte {len(first) + 3 * BLOCK})": NO_FOLDER}
    inner = {"a.tar": tar_of({"1": b"1"}) + tar_of({"2": b"2"}), "b.tar": tar_of({"3": b"3"})}
    expected = {"a/1": ("a", b"1"), "a/2": ("a", b"2"), "b/3": ("b", b"3")}
    assert good(opened(tmp_path / "b", {"x.tar": tar_of(inner)})) == expected
    assert good(opened(tmp_path / "c", inner)) == expected
    # As after tar --concatenate: no end between them.
    assert good(opened(tmp_path / "d", {"x": member("a/1", b"1") + tar_of({"b/2": b"2"})})) == {
        "a/1": ("a", b"1"), "b/2": ("b", b"2"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rest", "place"),
    [(b"x", 0), (b"text" * 500, 0), (bytes(BLOCK + 100) + b"x", BLOCK), (member("b/2") + b"x", 2 * BLOCK)],
)
def test_what_follows_the_end_and_is_no_archive_is_refused(tmp_path: Path, rest: bytes, place: int):
    whole = padded(tar_of({"a/1": b"1"}))
    message = refused(tmp_path, {"x.tar": whole + rest})
    assert message.startswith(f"{tmp_path / 'x.tar'}: damaged, or cut short (no header at byte {len(whole) + place}")
    inner = tar_of({"a.tar": whole + rest, "b.tar": tar_of({"1": b"1"})})
    assert f"no header at byte {len(whole) + place + BLOCK}" in refused(tmp_path, {"x.tar": inner})


def test_zeros_are_padding_but_not_without_end(tmp_path: Path):
    whole = tar_of({"a/1": b"1"})
    for zeros in (1, BLOCK, 2**20 + 7):
        assert good(opened(tmp_path, {"x.tar": whole + bytes(zeros)})) == {"a/1": ("a", b"1")}
    os.truncate(tmp_path / "x.tar", 2**40)  # as a download that got its full size first; it takes no space
    start = time.perf_counter()
    with pytest.raises(SourceError, match=rf"zeros from byte {2 * BLOCK} on\): fetch it again"):
        open_source(tmp_path / "x.tar")
    assert time.perf_counter() - start < 10


def test_an_archive_that_is_cut_anywhere_is_refused_or_whole(tmp_path: Path):
    whole = tar_of({"a/1": b"1" * 700, "a/2": b"2"})
    for size in range(1, len(whole) - BLOCK, 100):
        assert "x.tar: damaged, or cut short" in refused(tmp_path, {"x.tar": whole[:size]})
    for size in range(len(whole) - BLOCK, len(whole), 100):
        assert len(good(opened(tmp_path, {"x.tar": whole[:size]}))) == 2


def test_a_class_without_images_is_a_class(tmp_path: Path):
    nothing = padded(END)
    tars = {"a.tar": nothing, "b.tar": tar_of({"1": b"1"}), "c.tar": nothing, "d.tar": tar_of({"2": b"2"})}
    expected = {"b/1": ("b", b"1"), "d/2": ("d", b"2")}
    for number, inner in enumerate((tars, {**tars, "c.tar": b""}, {**tars, "c.tar": END + b"\0"})):
        source = opened(tmp_path / str(number), {"x.tar": tar_of({**inner, "README": b"-", ".e.tar": b"-"})})
        assert source.classes == ("a", "b", "c", "d")
        assert good(source) == expected
        assert bad(source) == {"README": "not a tar, as the others are", ".e.tar": "hidden, and so in no class"}
    source = opened(tmp_path / "folder", {**tars, "README": b"-"})
    assert (source.classes, good(source)) == (("a", "b", "c", "d"), expected)
    assert bad(source) == {"README": "not a tar, as the others are"}


def test_a_class_is_called_as_its_tar_in_any_case(tmp_path: Path):
    inner = {"a.tar": tar_of({"1": b"1"}), "B.TAR": tar_of({"1": b"2"})}
    expected = {"a/1": ("a", b"1"), "B/1": ("B", b"2")}
    assert good(opened(tmp_path / "one", {"x.tar": tar_of(inner)})) == expected
    assert good(opened(tmp_path / "folder", inner)) == expected


def test_a_class_tar_that_is_none_is_refused(tmp_path: Path):
    tars = {"a.tar": tar_of({"1": b"1"}), "b.tar": tar_of({"1": b"1"}), "c.tar": b"<html>404</html>"}
    assert "c.tar: damaged, or cut short (no header at byte 0)" in refused(tmp_path / "a", tars)
    assert "(in 'c.tar')" in refused(tmp_path / "b", {"x.tar": tar_of(tars)})
    assert "c.tar: damaged, or cut short" in refused(tmp_path / "c", {**tars, "c.tar": b""})
    assert "single.tar: damaged" in refused(tmp_path / "d", {"single.tar": b"<html>404</html>"})
    assert "no images in it" in refused(tmp_path / "e", {"single.tar": padded(END)})


def test_empty_folders_are_classes_as_on_a_disk(tmp_path: Path):
    put(tmp_path / "folder", {"b/1.jpg": b"1", "d/.DS_Store": b"-"})
    (tmp_path / "folder" / "a").mkdir()
    (tmp_path / "folder" / "c" / "within").mkdir(parents=True)
    (tmp_path / "folder" / "e").mkdir()
    (tmp_path / "folder" / "e" / "link").symlink_to("nowhere")
    (tmp_path / "folder" / ".git").mkdir()
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "folder", arcname=".")
    source = open_source(tmp_path / "x.tar")
    assert source.classes == ("a", "b", "c", "d", "e")
    assert (good(source), bad(source)) == ({"b/1.jpg": ("b", b"1")}, {"e/link": LINK})
    assert source.passed_over == {".DS_Store": 1}


SIZES = {
    "negative": b"-0000000001\0", "negative in binary": b"\xff" * 12, "-2^63": b"\xff" * 4 + b"\x80" + bytes(7),
    "enormous": b"77777777777\0", "enormous in binary": b"\x80" + b"\xff" * 11, "2^63": b"\x80\0\0\0\x80" + bytes(7),
    "beyond the end": b"%011o\0" % 5000, "no digits": b"12x45678901\0", "nines": b"99999999999\0",
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_size_that_cannot_be_is_refused(tmp_path: Path, size: bytes):
    for number, kind in enumerate((b"0", b"7", b"L", b"x", b"g", b"S", b"Z")):
        data = member("a/1") + header("a/2", size, kind) + bytes(BLOCK) + END
        assert "x.tar: damaged, or cut short" in refused(tmp_path / f"{number}a", {"x.tar": data})
        assert "x.tar: damaged, or cut short" in refused(tmp_path / f"{number}b", {"x.tar": data[2 * BLOCK :]})
        inner = tar_of({"n1.tar": tar_of({"1": b"1"}), "n2.tar": data})
        assert "x.tar: damaged, or cut short" in refused(tmp_path / f"{number}c", {"x.tar": inner})


@pytest.mark.parametrize("value", ["-1", "99999999999", "9" * 5000, "1e3", "0x10", "\u0663", "4096", str(2**63)])
def test_a_size_of_pax_that_cannot_be_is_refused(tmp_path: Path, value: str):
    for number, kind in enumerate((b"x", b"g", b"X")):
        data = pax(("size", value), kind=kind) + member("a/1") + END
        assert "x.tar: damaged, or cut short" in refused(tmp_path / str(number), {"x.tar": data})


def test_sizes_in_binary_and_of_pax_are_right(tmp_path: Path):
    in_binary = header("a/1", b"\x80".ljust(11, b"\0") + b"\4") + b"data".ljust(BLOCK, b"\0")
    too_small = pax(("size", "600")) + header("a/2", 4) + b"x" * 600 + bytes(424)
    for_all = pax(("size", "3"), kind=b"g") + header("a/3", 700) + b"one".ljust(BLOCK, b"\0")
    overridden = pax(("size", "5")) + header("a/4", 0) + b"three".ljust(BLOCK, b"\0")
    emptied = pax(("size", "")) + header("a/5", 4) + b"data".ljust(BLOCK, b"\0")
    source = opened(tmp_path, {"x.tar": in_binary + too_small + for_all + overridden + emptied + END})
    expected = {"a/1": b"data", "a/2": b"x" * 600, "a/3": b"one", "a/4": b"three", "a/5": b"data"}
    assert good(source) == {name: ("a", data) for name, data in expected.items()}


def test_sparse_files_are_quarantined_whatever_their_maps_say(tmp_path: Path):
    huge = {"real size": b"77777777777\0", "sparse": b"77777777777\0" * 8}
    more = b"7" * 504 + b"\1" + bytes(7)
    members = {
        "a/old": member("a/old", b"data", b"S", **huge),
        "a/more": header("a/more", 4, b"S", **{"has more": b"\1"}) + more + bytes(BLOCK) + b"data".ljust(BLOCK, b"\0"),
        "a/0.0": pax(("GNU.sparse.size", "9" * 18), ("GNU.sparse.numblocks", "x")) + member("a/0.0"),
        "a/0.1": pax(("GNU.sparse.map", "1,2,x")) + member("a/0.1"),
        "a/1.0": pax(("GNU.sparse.major", "1"), ("GNU.sparse.name", "a/1.0")) + member("s", b"9" * 600),
    }  # fmt: skip
    source = opened(tmp_path, {"x.tar": member("a/1") + b"".join(members.values()) + END})
    assert good(source) == {"a/1": ("a", b"data")}
    assert bad(source) == dict.fromkeys(members, NO_FILE)
    endless = header("a/more", 4, b"S", **{"has more": b"\1"}) + more * 1000
    assert "ends within a sparse file's map" in refused(tmp_path, {"x.tar": endless})


def test_extended_headers_without_bound_are_refused(tmp_path: Path):
    for number, kind in enumerate((b"x", b"g", b"L", b"K")):
        place = put(tmp_path, {f"{number}.tar": member("a/1") + header("long", 2**30, kind)}) / f"{number}.tar"
        os.truncate(place, 2**31)
        start = time.perf_counter()
        with pytest.raises(SourceError, match=f"the extended header at byte {2 * BLOCK} is too long"):
            open_source(place)
        assert time.perf_counter() - start < 10
    chain = pax(("path", "a/1")) * 3000 + member("x") + END
    assert good(opened(tmp_path, {"chain.tar": chain})) == {"a/1": ("a", b"data")}
    assert "no header at byte" in refused(tmp_path, {"chain.tar": pax(("path", "a/1")) + END})
    for number, text in enumerate(
        (b"99 path=a/1\n", b"12 path=a/1\n9", b"0 path=a/1\n", b"-1 a=b\n", b"x", b"6 a=bc", b"5 =b\n")
    ):
        message = refused(tmp_path, {f"pax{number}.tar": member("x", text, b"x") + member("a/1") + END})
        assert "the extended header at byte 0 is no list of fields" in message


def test_members_that_are_no_files_of_a_class(tmp_path: Path):
    kinds = {b"1": LINK, b"2": LINK, **dict.fromkeys((b"3", b"4", b"6", b"V", b"M", b"!"), NO_FILE)}
    names = {
        "/etc/passwd": OUTSIDE, "../a/1": OUTSIDE, "a/../../b": OUTSIDE, "a/..": OUTSIDE, "a/": NO_NAME, "a/.": NO_NAME,
        "top": NO_FOLDER, ".hidden/1": NO_FOLDER, f"a/{'x' * 5000}": NO_NAME,
    }  # fmt: skip
    members = [
        *(member(name) for name in ("a/ok", "./a/ok too", "././a/ok, too")),
        pax(("path", "a/ok2\0no")) + member("b/1"),
        *(member(f"a/{kind.decode()}", b"data" if kind in b"VM!" else b"", kind) for kind in kinds),
        *(pax(("path", name)) + member("b/1") for name in names),
        header("a/folder/", kind=b"5"),
        header("a/before POSIX/", kind=b"\0"),
        member("a/dump", b"Yfile\0", b"D"),
    ]
    source = opened(tmp_path, {"x.tar": b"".join(members) + END})
    assert set(good(source)) == {"a/ok", "a/ok too", "a/ok, too", "a/ok2"}
    assert bad(source) == {**{f"a/{kind.decode()}": reason for kind, reason in kinds.items()}, **names}


def test_an_image_of_more_bytes_than_any_has_is_quarantined(tmp_path: Path):
    place = tmp_path / "x.tar"
    size = 2**29 + 1
    with place.open("wb") as file:  # it takes no space
        file.write(header("a/large", size))
        file.seek(BLOCK + -(-size // BLOCK) * BLOCK)
        file.write(member("a/1") + END)
    source = open_source(place)
    assert (good(source), bad(source)) == (
        {"a/1": ("a", b"data")},
        {"a/large": "more than 536,870,912 bytes, which no image has"},
    )


def test_old_headers_and_signed_checksums(tmp_path: Path):
    v7 = header("a/1", 4, magic=bytes(8), prefix=b"x") + b"data".ljust(BLOCK, b"\0")
    times = header("a/2", 4, magic=b"ustar  \0", prefix=b"12345670123\0") + b"data".ljust(BLOCK, b"\0")
    plain = header("a/\u00fc", 4)
    excess = 256 * sum(byte > 127 for byte in plain[:148] + plain[156:])
    checksum = int(plain[148:154], 8) - excess
    old = plain[:148] + b"%06o\0 " % checksum + plain[156:] + b"data".ljust(BLOCK, b"\0")
    source = opened(tmp_path, {"x": v7 + times + old + member("2", prefix=b"b/deep") + END})
    assert set(good(source)) == {"a/1", "a/2", "a/\u00fc", "b/deep/2"}


JUNK = {
    ".DS_Store": ".DS_Store", "a/.DS_Store": ".DS_Store", "a/._1.jpg": "._*", "__MACOSX/a/._1.jpg": "__MACOSX",
    "a/Thumbs.db": "Thumbs.db", "desktop.ini": "desktop.ini", "lost+found/1": "lost+found", "@eaDir/1/2": "@eaDir",
    "a/.ipynb_checkpoints/1.jpg": ".ipynb_checkpoints", "._b.tar": "._*",
}  # fmt: skip


def test_what_systems_leave_is_passed_over_by_rule(tmp_path: Path):
    rules = dict(Counter(JUNK.values()))
    junk = dict.fromkeys(JUNK, b"-")
    source = opened(tmp_path / "a", {"x.tar": tar_of({**junk, "a/1.jpg": b"1"})})
    assert (source.classes, good(source), bad(source)) == (("a",), {"a/1.jpg": ("a", b"1")}, {})
    assert source.passed_over == rules
    tars = {"a.tar": tar_of({"1.jpg": b"1", **junk}), "b.tar": tar_of({"2.jpg": b"2"})}
    beside = {name: rule for name, rule in JUNK.items() if not name.startswith("a/")}
    for name, outside, files in (
        ("b", JUNK, {"x.tar": tar_of({**junk, **tars})}),
        ("c", beside, {**dict.fromkeys(beside, b"-"), **tars}),
    ):
        source = opened(tmp_path / name, files)
        assert (source.classes, bad(source)) == (("a", "b"), {}), name
        assert source.passed_over == Counter(outside.values()) + Counter(JUNK.values())
    samples = {"1.jpg": b"1", "1.cls": b"0", **junk}
    assert opened(tmp_path / "d", {"x.tar": tar_of(samples)}).passed_over == {**rules, "WebDataset .cls": 1}


def test_what_is_hidden_beside_tars_is_not_lost(tmp_path: Path):
    put(
        tmp_path,
        {
            ".git/config": b"-",
            ".x.tar": tar_of({"1": b"1"}),
            "a.tar": tar_of({"1": b"1"}),
            "b.tar": tar_of({"1": b"1"}),
        },
    )
    os.mkfifo(tmp_path / "pipe.tar")
    source = open_source(tmp_path)
    assert source.classes == ("a", "b")
    hidden = "hidden, and so in no class"
    assert bad(source) == {".git/config": hidden, ".x.tar": hidden, "pipe.tar": NO_FILE}


def test_names_of_webdataset(tmp_path: Path):
    """Each member: the class it is packed with, why it is quarantined, or the rule by which it is passed over."""
    expected: dict[str, tuple[bytes, str]] = {
        "img_1.5x.jpg": (b"1", "cat"), "img_1.5x.cls": (b"cat", ".cls"),
        "img_2.5x.jpg": (b"2", "dog"), "img_2.cls": (b"dog", ".cls"),
        "a.b/c.d/3.4.5.JPG": (b"3", "dog"), "a.b/c.d/3.4.5.CLS": (b"dog", ".cls"),
        "k.left.jpg": (b"4", SEVERAL), "k.right.jpg": (b"4", SEVERAL), "k.cls": (b"cat", ".cls"),
        "m.jpg": (b"5", SEVERAL), "m.png": (b"5", SEVERAL), "m.cls": (b"cat", ".cls"),
        "n.jpg": (b"6", "cat"), "n.seg.png": (b"6", ".seg.png"), "n.cls": (b" cat\n", ".cls"),
        "n.JSON": (b"{}", ".json"),
        "o.jpg": (b"7", SEVERAL), "o.cls": (b"cat", ".cls"), "o.CLS": (b"dog", ".cls"),
        "p.1.jpg": (b"8", "cat"), "p.1.cls": (b"cat", ".cls"), "p.2.jpg": (b"8", NO_CLS),
        "q.jpg": (b"9", NO_CLS), "q.cls": (b"", ".cls"),
        "r.jpg": (b"9", NO_CLS), "r.cls": (b"cat\ndog", ".cls"),
        "s.jpg": (b"9", NO_CLS), "s.cls": (b"\xff", ".cls"),
        "t.jpg": (b"9", NO_CLS), "t.cls": (b"x" * 2000, ".cls"),
        "u.jpg": (b"9", NO_CLS), "u.cls": (b"\x1b[31m", ".cls"),
        "v.txt": (b"alone", ".txt"), "w.cls": (b"cat", "a .cls without an image beside it"),
        "x.heic": (b"10", "cat"), "x.cls": (b"\xef\xbb\xbfcat", ".cls"),
        "README": (b"-", "not named KEY.SUFFIX, as a WebDataset's members are"),
        "a/.jpg": (b"-", "not named KEY.SUFFIX, as a WebDataset's members are"),
        "y.": (b"-", "other"), "y.a\nb": (b"-", "other"), f"y.{'z' * 30}": (b"-", "other"),
    }  # fmt: skip
    source = opened(tmp_path, {"x.tar": tar_of({name: data for name, (data, _) in expected.items()})})
    assert source.classes == ("cat", "dog")
    assert good(source) == {name: (what, data) for name, (data, what) in expected.items() if what in source.classes}
    assert bad(source) == {name: what for name, (_, what) in expected.items() if " " in what}
    rules = Counter(what for _, what in expected.values() if what.startswith(".") or what == "other")
    assert source.passed_over == {
        "WebDataset, other fields" if rule == "other" else f"WebDataset {rule}": count for rule, count in rules.items()
    }


def test_fields_of_endless_kinds_are_counted_together(tmp_path: Path):
    fields = {f"1.f{i}": b"-" for i in range(500)}
    source = opened(tmp_path, {"x.tar": tar_of({"1.jpg": b"1", "1.cls": b"0", **fields})})
    assert sum(source.passed_over.values()) == 501 and len(source.passed_over) < 30


def test_keys_that_start_again_in_each_shard(tmp_path: Path):
    shards = {f"s-{i}.tar": tar_of({"0.jpg": b"%d" % i, "0.cls": b"%d" % i, "README": b"-"}) for i in range(3)}
    source = opened(tmp_path / "a", {**shards, "notes": b"-"})
    assert good(source) == {f"s-{i}/0.jpg": (str(i), b"%d" % i) for i in range(3)}
    assert set(bad(source)) == {*(f"s-{i}/README" for i in range(3)), "notes"}
    # Names that are unique stay as they are.
    shards = {f"s-{i}.tar": tar_of({f"{i}.jpg": b"%d" % i, f"{i}.cls": b"0", "README": b"-"}) for i in range(2)}
    source = opened(tmp_path / "b", shards)
    assert set(good(source)) == {"0.jpg", "1.jpg"}
    assert set(bad(source)) == {"README", f"README (s-1.tar, byte {5 * BLOCK})"}
    source = opened(tmp_path / "c", {"x": tar_of({"0.jpg": b"0", "0.cls": b"0"}) * 2})  # joined: which is whose?
    assert bad(source) == {"0.jpg": SEVERAL, f"0.jpg (x, byte {7 * BLOCK})": SEVERAL}


def test_a_sample_lies_in_one_shard(tmp_path: Path):
    source = opened(
        tmp_path, {"0.tar": tar_of({"a.jpg": b"1", "b.cls": b"0"}), "1.tar": tar_of({"b.jpg": b"1", "a.cls": b"0"})}
    )
    assert good(source) == {}
    assert set(bad(source)) == {"a.jpg", "b.jpg", "a.cls", "b.cls"}


def test_archives_of_several_kinds_are_refused(tmp_path: Path):
    flat, deep = tar_of({"1": b"1"}), tar_of({"n1/2": b"2", "README": b"-"})
    samples = tar_of({**{f"{i}.jpg": b"1" for i in range(20)}, **{f"{i}.cls": b"0" for i in range(20)}})
    assert "deep.tar holds CLASS/IMAGE files, and flat.tar images" in refused(
        tmp_path / "a", {"flat.tar": flat, "deep.tar": deep}
    )
    assert "it holds '0.cls', as a WebDataset does" in refused(
        tmp_path / "b", {"flat.tar": flat, "samples.tar": samples}
    )
    assert "it holds '0.cls', as a WebDataset does" in refused(
        tmp_path / "c", {"x.tar": tar_of({"0.tar": samples, "1.tar": samples})}
    )
    assert "archives of archives" in refused(tmp_path / "d", {f"{i}.tar": tar_of({"n.tar": flat}) for i in range(2)})
    assert "hold folders, not images" in refused(
        tmp_path / "e", {"x.tar": tar_of({"train.tar": deep[:1024] + END, "val.tar": deep[:1024] + END})}
    )
    assert "hold folders, not images" in refused(tmp_path / "f", {"x.tar": tar_of({"train/a/1": b"1"})})
    twice = {"train/a.tar": flat, "val/a.tar": flat}
    assert "1 classes have several archives each, such as 'a'" in refused(tmp_path / "g", {"x.tar": tar_of(twice)})


def test_all_images_before_all_cls(tmp_path: Path):
    samples = tar_of({**{f"{i}.jpg": b"1" for i in range(20)}, **{f"{i}.cls": b"0" for i in range(20)}})
    assert len(good(opened(tmp_path, {"0.tar": samples, "1.tar": samples}))) == 40


def test_labels_are_for_images_without_classes(tmp_path: Path):
    put(tmp_path, {"labels": b"0\n1\n"})
    for name, data in (
        ("folders", tar_of({"val/1.jpg": b"1", "val/2.jpg": b"2"})),
        ("samples", tar_of({"1.jpg": b"1", "1.cls": b"1"})),
        ("tars", tar_of({"a.tar": tar_of({"1": b"1"}), "b.tar": tar_of({"2": b"2"})})),
    ):  # fmt: skip
        with pytest.raises(SourceError, match="labels are for images without folders"):
            open_source(put(tmp_path, {name: data}) / name, tmp_path / "labels")
    flat = put(tmp_path, {"flat": tar_of({"1.jpg": b"1", ".DS_Store": b"-", "2.jpg": b"2"})}) / "flat"
    source = open_source(flat, tmp_path / "labels")
    assert (good(source), source.passed_over) == ({"1.jpg": ("0", b"1"), "2.jpg": ("1", b"2")}, {".DS_Store": 1})
    (tmp_path / "labels").write_text("1.jpg,0\n2.jpg,1\n3.jpg,1\n")
    put(tmp_path, {"flat": tar_of({"1.jpg": b"1", ".hidden": b"-", "2.jpg": b"2"})})
    source = open_source(flat, tmp_path / "labels")
    assert good(source) == {"1.jpg": ("0", b"1"), "2.jpg": ("1", b"2")}
    assert bad(source) == {".hidden": "its label is missing or out of range"}
    assert source.passed_over == {"images that have a label and are not there": 1}


def test_compressed_archives_are_refused_wherever_they_are(tmp_path: Path):
    tar = tar_of({"1": b"1"})
    for number, compress in enumerate((gzip.compress, bz2.compress, lzma.compress)):
        for name in ("b", "b.tar"):
            files = {"a.tar": tar, name: compress(tar)}
            assert f"{name}: compressed, and cannot be read at random" in refused(tmp_path / f"{number}{name}", files)
    assert "b.tar.zst: compressed" in refused(tmp_path / "zst", {"a.tar": tar, "b.tar.zst": b"\x28\xb5\x2f\xfd"})
    inner = {"a.tar.gz": gzip.compress(tar), "b.tar.gz": gzip.compress(tar)}
    assert "such as 'a.tar.gz', are compressed" in refused(tmp_path / "inner", {"x.tar": tar_of(inner)})
    bomb = gzip.compress(header("long", 2**30, b"x") + bytes(2**27))
    assert "bomb: compressed" in refused(tmp_path, {"bomb": bomb})
    put(
        tmp_path / "sums",
        {"a.tar": tar, "b.tar": tar_of({"2": b"2"}), "a.tar.md5": b"-", "thumbs.gz": gzip.compress(b"text")},
    )
    assert set(bad(open_source(tmp_path / "sums"))) == {"a.tar.md5", "thumbs.gz"}


def test_all_archives_that_cannot_be_read_are_in_one_error(tmp_path: Path):
    tar = tar_of({"1": b"1" * 600})
    put(tmp_path / "a", {**{f"{i}.tar": tar[:-1500] for i in range(5)}, "sound.tar": tar})
    with pytest.raises(SourceError, match=r"0\.tar: damaged.*; .*1\.tar.*; .*2\.tar: damaged.*; and 2 more archives"):
        open_source(tmp_path / "a")
    inner = {**{f"{i}.tar": tar[:-1500] for i in range(2)}, "sound.tar": tar}
    assert "(in '0.tar'); " in refused(tmp_path, {"x.tar": tar_of(inner)})
    put(tmp_path / "b", {"a.tar": tar})
    (tmp_path / "b" / "b.tar").symlink_to("nowhere")
    (tmp_path / "b" / "c.tar").symlink_to("c.tar")
    with pytest.raises(
        SourceError, match=r"b\.tar: cannot be read \(No such file.*c\.tar: cannot be read \(Too many levels"
    ):
        open_source(tmp_path / "b")


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from ingest.errors import SourceError
from ingest.sources import tar
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    tar.open_source(Path(sys.argv[1]))
except (OSError, SourceError) as error:
    print(error)
"""


def test_archives_without_permission_are_in_one_error():
    tar = tar_of({"1": b"1"})
    with tempfile.TemporaryDirectory() as name:  # pytest's folders are closed to others
        folder = put(Path(name), {"a.tar": tar, "b.tar": tar, "c.tar": tar})
        folder.chmod(0o755)
        for closed in ("b.tar", "c.tar"):
            (folder / closed).chmod(0)
        said = []
        for place in (folder, folder / "b.tar"):
            done = subprocess.run([sys.executable, "-c", UNPRIVILEGED, str(place)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            said.append(done.stdout)
    denied = [f"{folder / closed}: cannot be read (Permission denied)" for closed in ("b.tar", "c.tar")]
    assert said[0].startswith(denied[0]) and denied[1] in said[0]
    assert "Permission denied" in said[1]


def test_an_archive_that_became_shorter_is_an_error(tmp_path: Path):
    source = opened(tmp_path, {"x.tar": tar_of({"a/1": b"1" * 600})})
    os.truncate(tmp_path / "x.tar", 700)
    with pytest.raises(SourceError, match="cut short: it ends before byte 1112"):
        source.read(source.entries[0])


@pytest.mark.parametrize("format", FORMATS)
def test_the_summary_counts_every_member(tmp_path: Path, format: str):
    jpeg = image_bytes("JPEG")
    shard = {
        "0.jpg": jpeg,
        "0.cls": b"cat",
        "0.json": b"{}",
        "1.jpg": b"text",
        "1.cls": b"dog",
        "README": b"-",
        ".DS_Store": b"-",
    }
    put(tmp_path / "tars", {f"{i}.tar": tar_of(shard) for i in range(2)})
    command = [sys.executable, "-m", "ingest", "build-shards", str(tmp_path / "tars"), str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--format", format, "--workers", "0", "--json", str(tmp_path / "json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "packed 2 of 14 files (0 converted, 4 quarantined, 8 passed over)" in done.stdout
    assert json.loads((tmp_path / "json").read_text())["passed_over"] == {
        ".DS_Store": 2, "WebDataset .cls": 4, "WebDataset .json": 2,
    }  # fmt: skip
    keys = [line.split("\t")[0] for line in (tmp_path / "out" / "quarantine.tsv").read_text().splitlines()]
    assert set(keys) >= {"0/1.jpg", "1/1.jpg", "0/README", "1/README"}


@pytest.mark.parametrize("format", FORMATS)
def test_junk_fails_nothing(tmp_path: Path, format: str):
    files = {"a/1.jpg": image_bytes("JPEG"), **dict.fromkeys(JUNK, b"-")}
    place = put(tmp_path, {"x.tar": tar_of(files)}) / "x.tar"
    manifest = ingest.build_shards(place, tmp_path / "out", format=format, workers=0, on_bad="fail")
    assert (manifest.records, manifest.classes, manifest.quarantined) == (1, ("a",), 0)
    assert sum(manifest.passed_over.values()) == len(JUNK)


CLASSES = ("ant", "bee", "cow")

Piece = tuple[str, str, bool]
"""A member to be: what it is, the class that it is to have, and whether an archive ends before it."""


def pieces(kinds: list[str]) -> st.SearchStrategy[list[list[Piece]]]:
    """Archives of random members, the first of each an image."""
    rest = st.lists(st.tuples(st.sampled_from(kinds), st.sampled_from(CLASSES), st.booleans()), max_size=8)
    first = st.tuples(st.just(kinds[0]), st.sampled_from(CLASSES), st.just(False))
    return st.lists(st.tuples(first, rest).map(lambda both: [both[0], *both[1]]), min_size=1, max_size=3)


def in_folders(kind: str, name: str, content: bytes) -> bytes:
    """A member of an archive of CLASS/IMAGE files, or of a class."""
    folder = name.rpartition("/")[0]
    return {
        "image": lambda: pax(("path", name)) + member("long", content),
        "deep": lambda: member(f"{folder}/within/{content.decode()}".removeprefix("/"), content),
        "link": lambda: header(f"{name}.link", kind=b"2"),
        "pipe": lambda: header(f"{name}.pipe", kind=b"6"),
        "sparse": lambda: member(f"{name}.sparse", content, b"S"),
        "outside": lambda: member(f"../{name}", content),
        "junk": lambda: member(f"{folder}/.DS_Store".removeprefix("/"), content),
        "folder": lambda: header(f"{name}.folder/", kind=b"5"),
    }[kind]()


IN_FOLDERS = ["image", "deep", "link", "pipe", "sparse", "outside", "junk", "folder"]


def files_in(archives: list[list[Piece]]) -> int:
    return sum(kind != "folder" for archive in archives for kind, _, _ in archive)


def check(source: Source, expected: dict[bytes, str], found: int) -> None:
    assert {data: label for label, data in good(source).values()} == expected
    assert len(source.entries) + sum(source.passed_over.values()) == found
    assert len(bad(source)) == len(source.entries) - len(expected)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(archives=pieces(IN_FOLDERS), has_classes=st.booleans())
def test_random_archives_of_folders(
    tmp_path_factory: pytest.TempPathFactory, archives: list[list[Piece]], has_classes: bool
):
    """CLASS/IMAGE files in one archive or several, or a folder of the classes' archives."""
    files, expected = {}, {}
    for number, archive in enumerate(archives):
        data = b""
        for i, (kind, folder, is_end) in enumerate(archive):
            content = b"%d-%d" % (number, i)
            name = f"{content.decode()}.jpg" if has_classes else f"{folder}/{content.decode()}.jpg"
            data += END * is_end + in_folders(kind, name, content)
            if kind in ("image", "deep"):
                expected[content] = f"{number}" if has_classes else folder
        files[f"{number}.tar"] = data + END
    place = tmp_path_factory.mktemp("tars")
    if has_classes:
        files["empty.tar"] = END
        files["strays"] = b"-"
        # An archive in whose first members folders prevail is none of a class.
        prevail = [[kind == "deep" for kind, _, _ in archive if kind in ("image", "deep")] for archive in archives]
        if any(2 * sum(some[:8]) >= len(some[:8]) for some in (prevail[0] * 8, *prevail)):
            return
    source = opened(place, files)
    check(source, expected, files_in(archives) + has_classes)
    if has_classes:
        assert source.classes == (*map(str, range(len(archives))), "empty")
        source = opened(place, {"all": tar_of(files)})
        check(source, expected, files_in(archives) + 1)
        assert source.classes == (*map(str, range(len(archives))), "empty")


IN_SAMPLES = [
    "sample", "upper", "dotted", "by first dot", "masked", "two views", "two kinds", "two .cls", "no .cls",
    "no image", "empty .cls", "field", "link", "junk", "stray", "folder",
]  # fmt: skip


def sample_of(kind: str, key: str, word: str, content: bytes) -> tuple[dict[str, bytes], bool]:
    """The members of a WebDataset's sample, and whether its image can be packed."""
    name = word.encode()
    return {
        "sample": ({f"{key}.jpg": content, f"{key}.cls": name, f"{key}.json": b"{}"}, True),
        "upper": ({f"{key}.CLS": name, f"{key}.JPEG": content}, True),
        "dotted": ({f"{key}.5x.cls": name, f"{key}.5x.png": content, f"{key}.json": b"{}"}, True),
        "by first dot": ({f"{key}.5x.jpg": content, f"{key}.cls": name}, True),
        "masked": ({f"{key}.jpg": content, f"{key}.seg.png": b"-", f"{key}.cls": name}, True),
        "two views": ({f"{key}.left.jpg": content, f"{key}.right.jpg": content, f"{key}.cls": name}, False),
        "two kinds": ({f"{key}.jpg": content, f"{key}.png": content, f"{key}.cls": name}, False),
        "two .cls": ({f"{key}.jpg": content, f"{key}.cls": name, f"{key}.CLS": name}, False),
        "no .cls": ({f"{key}.jpg": content}, False),
        "no image": ({f"{key}.cls": name}, False),
        "empty .cls": ({f"{key}.jpg": content, f"{key}.cls": b"\n"}, False),
        "field": ({f"{key}.npy": content}, False),
        "junk": ({"__MACOSX/._1.jpg": b"-", f"{key}/Thumbs.db": b"-"}, False),
        "stray": ({f"README-{key}": b"-"}, False),
    }[kind]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(archives=pieces(IN_SAMPLES))
def test_random_webdatasets(tmp_path_factory: pytest.TempPathFactory, archives: list[list[Piece]]):
    files, expected, found = {}, {}, 0
    for number, archive in enumerate(archives):
        data = b""
        for i, (kind, word, is_end) in enumerate(archive):
            data += END * is_end
            if kind in ("link", "folder"):
                data += header(f"{i}.jpg", kind=b"1" if kind == "link" else b"5")
                found += kind == "link"
                continue
            content = b"%d-%d" % (number, i)
            members, can_be_packed = sample_of(kind, f"{i:03d}", word, content)
            data += b"".join(member(name, some) for name, some in members.items())
            found += len(members)
            expected.update({content: word} if can_be_packed else {})
        files[f"{number}.tar"] = data + END
    source = opened(tmp_path_factory.mktemp("samples"), files)
    check(source, expected, found)
    assert source.classes == tuple(sorted(set(expected.values())))


def test_a_webdataset_whose_labels_are_numbers_and_words_is_refused(tmp_path: Path):
    data = tar_of({"a.jpg": b"1", "a.cls": b"7", "b.jpg": b"2", "b.cls": b"dog"})
    with pytest.raises(SourceError, match=r"'b.jpg' is a word \('dog'\), that of 'a.jpg' a number \('7'\)"):
        open_source(put(tmp_path, {"x.tar": data}) / "x.tar")
