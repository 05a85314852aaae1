"""Text lists, as a source and as --labels: each is read right, or refused with its line before anything is packed."""

from __future__ import annotations

import csv
import gzip
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.images import FORMATS, files_of, image_bytes, put
from support.sources import tar_of

import ingest
from ingest.cli import main
from ingest.dataset.dataset import Dataset
from ingest.errors import SourceError
from ingest.sources.base import NO_CLASS, Source, label_all
from ingest.sources.detect import open_source

pytestmark = pytest.mark.slow

NAMES = [f"IMG_{i:04d}.jpg" for i in range(10)]
SPACED = [f"my cat {i}.jpg" for i in range(10)]
LABELS = [3, 10, 2, 0, 10, 1, 2, 0, 3, 1]
WORDS = ["dog", "cat", "emu", "ant", "cat", "bee", "emu", "ant", "dog", "bee"]


def rows(*columns: Sequence[object], by: str = ",", end: str = "\n") -> str:
    """The text of columns."""
    return "".join(by.join(map(str, row)) + end for row in zip(*columns, strict=True))


def sources(folder: Path, text: str | bytes, names: Sequence[str] = NAMES) -> tuple[Source, Source]:
    """What a text gives as a list beside its images, and as the labels of the same images."""
    data = text.encode() if isinstance(text, str) else text
    images = {name: name.encode() for name in names}
    put(folder / "with", {**images, "list.csv": data})
    put(folder / "without", images)
    put(folder, {"labels.csv": data})
    return open_source(folder / "with" / "list.csv"), open_source(folder / "without", folder / "labels.csv")


def said(source: Source) -> dict[str, str]:
    """The class of each key; each key's bytes are its name here."""
    assert all(source.read(entry).data == entry.key.encode() for entry in source.entries)
    assert all(entry.label != NO_CLASS for entry in source.entries)
    return {entry.key: source.classes[entry.label] for entry in source.entries}


NAMED = [f"c{label:02d}" for label in LABELS]
NUMBERED = {name: f"{label:02d}" for name, label in zip(NAMES, LABELS)}
WORDED = dict(zip(NAMES, WORDS))

RIGHT: dict[str, tuple[str | bytes, dict[str, str]]] = {
    "comma": (rows(NAMES, LABELS), NUMBERED),
    "semicolon": (rows(NAMES, LABELS, by=";"), NUMBERED),
    "tab": (rows(NAMES, LABELS, by="\t"), NUMBERED),
    "blank": (rows(NAMES, LABELS, by=" "), NUMBERED),
    "blanks, aligned": (rows(NAMES, [f"{n:6d}  " for n in LABELS], by="   "), NUMBERED),
    "blanks around": (rows([f" {n} " for n in NAMES], LABELS, by=" , "), NUMBERED),
    "words": (rows(NAMES, WORDS), WORDED),
    "words with a blank": (rows(NAMES, [f"a {w}" for w in WORDS]), {n: f"a {w}" for n, w in WORDED.items()}),
    "quoted": (rows([f'"{n}"' for n in NAMES], [f'"{w}"' for w in WORDS]), WORDED),
    "quoted, a comma within": (rows(NAMES, [f'"{w}, a"' for w in WORDS]), {n: f"{w}, a" for n, w in WORDED.items()}),
    "quoted, after blanks": (rows(NAMES, [f'"{w}"' for w in WORDS], by=", "), WORDED),
    "a quote within": (rows(NAMES, ['5" ' + w for w in WORDS]), {n: f'5" {w}' for n, w in WORDED.items()}),
    "CRLF": (rows(NAMES, LABELS, end="\r\n"), NUMBERED),
    "CR": (rows(NAMES, LABELS, end="\r"), NUMBERED),
    "CRCRLF": (rows(NAMES, LABELS, end="\r\r\n"), NUMBERED),
    "no end": (rows(NAMES, LABELS).rstrip("\n"), NUMBERED),
    "byte order mark": ("\ufeff" + rows(NAMES, LABELS), NUMBERED),
    "byte order mark and quotes": ("\ufeff" + rows([f'"{n}"' for n in NAMES], LABELS), NUMBERED),
    "UTF-16, little endian": (("\ufeff" + rows(NAMES, LABELS)).encode("utf-16-le"), NUMBERED),
    "UTF-16, big endian": (("\ufeff" + rows(NAMES, WORDS, end="\r\n")).encode("utf-16-be"), WORDED),
    "UTF-32": (("\ufeff" + rows(NAMES, LABELS)).encode("utf-32-le"), NUMBERED),
    "header": ("path,label\n" + rows(NAMES, LABELS), NUMBERED),
    "header in capitals": ("File Name;CLASS\n" + rows(NAMES, WORDS, by=";"), WORDED),
    "header, words that nobody knows": ("Bild,Tier\n" + rows(NAMES, WORDS), WORDED),
    "header, words that nobody knows, numbers": ("Bild,Tier\n" + rows(NAMES, LABELS), NUMBERED),
    "header of a label that nobody knows": ("image,tier\n" + rows(NAMES, WORDS), WORDED),
    "header, other columns": ("w,path,h,class,at\n" + rows(range(10), NAMES, range(10), WORDS, range(10)), WORDED),
    "header, label first": ("label,file\n" + rows(LABELS, NAMES), NUMBERED),
    "header, numbers and names": ("file,class,class_id\n" + rows(NAMES, NAMED, LABELS), dict(zip(NAMES, NAMED))),
    "header after a blank line": ("\n  \npath,label\n" + rows(NAMES, LABELS), NUMBERED),
    "label first": (rows(WORDS, NAMES), WORDED),
    "label first, numbers": (rows(LABELS, NAMES, by=" "), NUMBERED),
    "pandas": (",file,label\n" + rows(range(10), NAMES, LABELS), NUMBERED),
    "pandas, twice": ("Unnamed: 0,file,kind\n" + rows(range(10), NAMES, WORDS), WORDED),
    "pandas, without header": (rows(range(10), NAMES, WORDS), WORDED),
    "MXNet": (rows([7, 2, 1, 0, 4, 3, 5, 6, 9, 8], [f"{n}.000000" for n in LABELS], NAMES, by="\t"), NUMBERED),
    "points": (rows(NAMES, [f"{n}.0" for n in LABELS]), NUMBERED),
    "as numpy writes numbers": (rows(NAMES, [f"{n:.18e}" for n in LABELS], by=" "), NUMBERED),
    "leading zeros": (rows(NAMES, [f"{n:03d}" for n in LABELS]), NUMBERED),
    "class names": (rows(NAMES, LABELS, NAMED), dict(zip(NAMES, NAMED))),
    "empty last column": (rows(NAMES, LABELS, [""] * 10), NUMBERED),
    "empty last rows": (rows(NAMES, LABELS) + ",,\n , \n\n", NUMBERED),
    "comments": ("# ours\n#,\n" + rows(NAMES, LABELS) + "# IMG_0000.jpg,5\n", NUMBERED),
    "joined, with two byte order marks": (
        "\ufeff" + rows(WORDS[:4], NAMES[:4]) + "\ufeff" + rows(WORDS[4:], NAMES[4:]), WORDED,
    ),
    "without suffix": (rows([n[:-4] for n in NAMES], WORDS), WORDED),
    "without suffix, a header": ("id,breed\n" + rows([n[:-4] for n in NAMES], WORDS), WORDED),
    "here": (rows([f"./{n}" for n in NAMES], LABELS), NUMBERED),
}  # fmt: skip


@pytest.mark.parametrize("kind", RIGHT)
def test_lists_that_are_read(tmp_path: Path, kind: str):
    text, expected = RIGHT[kind]
    for source in sources(tmp_path, text):
        assert said(source) == expected
        classes = LABELS if expected["IMG_0000.jpg"].endswith("03") else [sorted(set(WORDS)).index(w) for w in WORDS]
        assert [entry.label for entry in source.entries] == classes
        assert source.passed_over == {}


@pytest.mark.parametrize("by", [",", "\t", ";"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_names_with_blanks(tmp_path: Path, by: str, quote: str):
    for source in sources(tmp_path, rows([f"{quote}{name}{quote}" for name in SPACED], WORDS, by=by), SPACED):
        assert said(source) == dict(zip(SPACED, WORDS))


@pytest.mark.parametrize(
    "names",
    [
        [f"{i}.jpg" for i in range(10)],  # as labels are, but for the suffix
        [f"a,{i}.jpg" for i in range(10)],
        [f"a;{i}.jpg" for i in range(10)],
        [f"#{i}.jpg" for i in range(10)],
        [f"{i}" for i in range(10, 20)],
        [f"img_{i}.5x.jpg" for i in range(10)],
        [f"\u00fc {i}\u2028.jpg" for i in range(10)],
        [f'{i}".jpg' for i in range(10)],
        ["label", "image", "path", "class", *(f"{i}" for i in range(6))],
    ],
)
def test_names_of_every_kind(tmp_path: Path, names: list[str]):
    file = io.StringIO()
    csv.writer(file, delimiter="\t").writerows(zip(names, WORDS))
    for source in sources(tmp_path, file.getvalue(), names):
        assert said(source) == dict(zip(names, WORDS))


def lines_but(i: int, line: str, by: str = ",") -> str:
    """A good list, but for line ``i``, from 1."""
    lines = rows(NAMES, LABELS, by=by).splitlines()
    lines[i - 1] = line
    return "\n".join(lines)


EXPECTED = "give a path and a label a line"

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "unbalanced quote": (lines_but(3, '"IMG_0002.jpg,2'), r"line 3: a quote that is not closed"),
    "two unbalanced quotes": (
        lines_but(3, '"IMG_0002.jpg,2').replace("IMG_0005.jpg,1", 'IMG_0005.jpg,1"'),
        "line 3: a quote that is not closed",
    ),
    "unbalanced quote, the first line": (lines_but(1, '"IMG_0000.jpg,3'), "line 1: a quote that is not closed"),
    "a quote that ends early": (lines_but(4, '"IMG"_0003.jpg,0'), "line 4: a quote that"),
    "empty label": (lines_but(5, "IMG_0004.jpg,"), f"line 5: a path and a label are needed: {EXPECTED}"),
    "empty label, quoted": (lines_but(5, 'IMG_0004.jpg,"  "'), f"line 5: a path and a label are needed: {EXPECTED}"),
    "no label": (lines_but(5, "IMG_0004.jpg"), f"line 5: a path and a label are needed: {EXPECTED}"),
    "no path": (lines_but(5, ",10"), f"line 5: a path and a label are needed: {EXPECTED}"),
    "three fields": (lines_but(20 // 4, "IMG_0004.jpg,10,cat"), "line 5: 3 fields, and the first row has 2"),
    "another delimiter": (lines_but(5, "IMG_0004.jpg;10"), "line 5: a path and a label are needed"),
    "one class name missing": (
        rows(NAMES, LABELS, [*(f"c{n}" for n in LABELS[:9]), ""]), "line 10: no class name, and other lines have one",
    ),
    "two names of a class": (rows(NAMES, LABELS, "abcdebcdag"), "line 5: image 5: label 10 is 'b' and 'e'"),
    "long field": (lines_but(2, f"IMG_0001.jpg,{'x' * 200_000}"), "line 2: a field of more than 131,072 characters"),
    "long field, quoted": (lines_but(2, f'IMG_0001.jpg,"{"x" * 200_000}"'), "line 2: a field of more than 131,072"),
    "absolute path": (rows([f"/data/{n}" for n in NAMES], LABELS), "line 1: '/data/IMG_0000.jpg': give a path below"),
    "absolute path within": (lines_but(2, "{folder}/IMG_0001.jpg,10"), "line 2: .*: give a path below"),
    "path that leads out": (lines_but(7, "../without/IMG_0006.jpg,2"), "line 7: .*: give a path below"),
    "path that leads in and out": (lines_but(7, "a/../IMG_0006.jpg,2"), "line 7: .*: give a path below"),
    "twice, the same": (rows(NAMES, LABELS) + "IMG_0003.jpg,0\n", "line 11: two images have .*, and line 4"),
    "twice, other labels": (lines_but(9, "./IMG_0000.jpg,7"), "line 9: two images have .*, and line 1"),
    "twice, without suffix": (rows(NAMES, LABELS) + "IMG_0003,0\n", "line 11: two images have .*, and line 4"),
    "NUL": (lines_but(6, "IMG_0005.jpg\0,1"), "line 6: a NUL byte"),
    "UTF-16 without a mark": (rows(NAMES, LABELS).encode("utf-16-le"), "line 1: a NUL byte: save .* UTF-8"),
    "latin-1": (lines_but(8, "IMG_0007.jpg,\xe4").encode("latin-1"), "line 8: byte 0xE4 is not UTF-8: save"),
    "latin-1, CR": (lines_but(8, "x,\xe4").replace("\n", "\r").encode("latin-1"), "line 8: byte 0xE4 is not UTF-8"),
    "half of UTF-16": (("\ufeff" + rows(NAMES, LABELS)).encode("utf-16-le") + b"\0\xd8", "line 11: byte 0x00 is not"),
    "a word among numbers": (lines_but(6, "IMG_0005.jpg,1O"), "line 6: label '1O' is a word, '3' in line 1 a number"),
    "a number among words": (rows(NAMES, ["a", "b", "7", *"cdefghi"]), "line 1: label 'a' is a word, '7' in line 3"),
    "fraction": (rows(NAMES, [f"{n}.5" for n in LABELS]), "line 1: label '3.5': give whole numbers from 0"),
    "comma in a number": (rows(NAMES, [f"{n},0" for n in LABELS], by=";"), "line 1: label '3,0': give whole numbers"),
    "negative": (lines_but(3, "IMG_0002.jpg,-1"), "line 3: label '-1': give whole numbers from 0 to 999999"),
    "huge": (lines_but(3, "IMG_0002.jpg,1000000"), "line 3: label '1000000': give whole numbers"),
    "huger": (lines_but(3, f"IMG_0002.jpg,{'9' * 10_000}"), "line 3: label '999.*': give whole numbers"),
    "hugest": (lines_but(3, "IMG_0002.jpg,1e999"), "line 3: label '1e999': give whole numbers"),
    "labels after a #": (rows([f"#{w}" for w in WORDS], NAMES), "line 1: begins with '#' as a comment does, and names"),
    "one label after a #": (rows(["# a", *WORDS[1:]], [n[:-4] for n in NAMES], by=";"), "line 1: begins with '#'"),
    "labels that are files": (rows(NAMES[:5], NAMES[5:]), "line 1: label 'IMG_0005.jpg' names a file, too"),
    "labels that may be files": (
        rows([n[:-4] for n in reversed(NAMES)], [n[:-4] for n in NAMES]), "line 1: .* both name files: what each",
    ),
    "words of two columns": (rows(NAMES, WORDS, WORDS), "line 1: two columns that may be the label"),
    "blanks in labels and between": (rows(NAMES, ["a b"] * 10, by=" "), "line 1: two columns .*, or quote a path or a"),
    "a sign between blanks": (rows(NAMES, WORDS, by=" | "), "line 1: two columns that may be the label"),
    "header of two labels": ("path,fine,coarse\n" + rows(NAMES, LABELS, LABELS), "line 1: two columns that may be"),
    "one name of two classes": (
        rows(NAMES, LABELS, [f"c{n % 10}" for n in LABELS]), "line 2: 'c0' is the name of labels 0 and 10",
    ),
    "a name as an unnamed class": (
        rows(NAMES, LABELS, ["04" if n == 2 else f"c{n}" for n in LABELS]),
        "line 3: '04' is the name of labels 2 and 4",
    ),
    "four columns": (rows(NAMES, LABELS, WORDS, WORDS), "line 1: 4 columns: what each column is cannot be told"),
    "three columns, numbers last": (rows(NAMES, WORDS, LABELS), "line 1: numbers in the third column"),
    "label, path, class name": (rows(LABELS, NAMES, WORDS), "line 1: three columns, of which the paths"),
    "numbers that may be labels": (rows(range(10), NAMES, "abcdefghij"), "line 1: three columns"),
    "header without a label": ("index,path\n" + rows(range(10), NAMES), "line 1: a path and a label are needed"),
    "header of too many": ("path,size,kind,place\n" + rows(NAMES, WORDS, WORDS, WORDS), "line 1: 4 columns"),
    "header further down": (rows(NAMES, WORDS) + "path,label\n", "line 11: a header, 'path' and 'label', below"),
    "header twice": ("x,y\n" + rows(NAMES, WORDS) + "x,y\n", "line 12: two images have the key 'x'"),
    "names alone": ("\n".join(NAMES), "line 1: 'IMG_0000.jpg' is an image, without a label|has no label"),
    "names alone, without suffix": ("\n".join(n[:-4] for n in NAMES), "line 1: 'IMG_0000' is an image|has no label"),
    "nothing": ("", "no rows in it: give a path and a label"),
    "comments alone": ("# nothing\n\n", "no rows in it: give a path and a label"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_lists_that_are_refused(tmp_path: Path, kind: str):
    text, message = REFUSED[kind]
    text = text.replace("{folder}", str(tmp_path / "with")) if isinstance(text, str) else text
    data = text.encode() if isinstance(text, str) else text
    images = dict.fromkeys(NAMES, b"1")
    put(
        tmp_path,
        {"labels.csv": data, **{f"with/{name}": image for name, image in images.items()}, "with/list.csv": data},
    )
    put(tmp_path / "without", images)
    for place, labels in ((tmp_path / "with/list.csv", None), (tmp_path / "without", tmp_path / "labels.csv")):
        with pytest.raises(SourceError, match=message) as error:
            open_source(place, labels)
        assert str(error.value).startswith(str(labels or place)) and "\n" not in str(error.value)
        assert len(str(error.value)) < 500


def test_a_list_without_header_whose_first_file_is_missing(tmp_path: Path):
    """It is no header, whatever its labels are, and nothing of it is lost."""
    for number, (names, labels) in enumerate(
        [(NAMES, LABELS), (NAMES, WORDS), ([n[:-4] for n in NAMES], WORDS), (NAMES, ["first", *WORDS[1:]])]
    ):
        folder, text = tmp_path / str(number), rows(names, labels)
        with pytest.raises(
            SourceError, match=f"list.csv: 1 of 10 files are not there: line 1 names '{names[0]}', which"
        ):
            sources(folder, text, NAMES[1:])
        source = open_source(folder / "without", put(folder, {"labels.csv": text.encode()}) / "labels.csv")
        assert [entry.key for entry in source.entries] == NAMES[1:]
        assert source.passed_over == {"images that have a label and are not there": 1}
        assert len(source.classes) == (11 if labels is LABELS else len(set(labels)))


def test_a_first_row_that_may_be_a_header_or_not_is_refused(tmp_path: Path):
    text = "Bild,Tier\n" + rows(NAMES, WORDS)
    for place, names in (("a", NAMES[:-1]), ("b", [*NAMES[:3], *NAMES[4:]])):
        with pytest.raises(SourceError, match=r"list.csv: .*line (1|10|11)"):
            sources(tmp_path / place, text, names)
        put(tmp_path / place, {"labels.csv": text.encode()})
        with pytest.raises(SourceError, match=r"labels.csv: line 1"):
            open_source(tmp_path / place / "without", tmp_path / place / "labels.csv")


def test_lists_name_more_or_less_than_there_is(tmp_path: Path):
    more = rows([*NAMES, "gone.jpg", "away.jpg"], [*LABELS, 11, 0])
    with pytest.raises(SourceError, match=r"2 of 12 files are not there: line 11 names 'gone.jpg'"):
        sources(tmp_path, more)
    put(tmp_path, {"labels.csv": more.encode()})
    source = open_source(tmp_path / "without", tmp_path / "labels.csv")
    assert said(source) == NUMBERED and len(source.classes) == 12
    assert source.passed_over == {"images that have a label and are not there": 2}
    put(tmp_path, {"labels.csv": rows(NAMES[:8], LABELS[:8]).encode()})
    with pytest.raises(SourceError, match=r"labels.csv: no label for 2 of 10 images, such as IMG_0008.jpg"):
        open_source(tmp_path / "without", tmp_path / "labels.csv")


def test_a_list_says_where_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path, {**{f"photos/cats/{name}": b"1" for name in NAMES}, "sub/list.txt": b"", "list.txt": b""})
    beside = rows([f"cats/{n}" for n in NAMES], LABELS).encode()
    put(tmp_path, {"list.txt": beside, "sub/list.txt": rows([f"photos/cats/{n}" for n in NAMES], LABELS).encode()})
    with pytest.raises(
        SourceError, match=r"not a source: line 1 names 'cats/IMG_0000.jpg'.* but in .*photos: the paths"
    ):
        open_source(tmp_path / "list.txt")
    with pytest.raises(SourceError, match=rf"not a source: line 1 names .* but in {tmp_path}: the paths in a list are"):
        open_source(tmp_path / "sub/list.txt")
    put(tmp_path, {"photos/list.txt": beside})
    assert len(open_source(tmp_path / "photos/list.txt").entries) == 10


def test_what_is_no_list_is_no_source(tmp_path: Path):
    for name, content in {
        "a.txt": b"hello",
        "notes": b"hello, world\nand all\n",
        "b.csv": b"\x89PNG\r\n\x1a\n\0\0",
    }.items():
        with pytest.raises(SourceError, match=r"not a source: |line \d: a NUL byte|line 1: byte"):
            open_source(put(tmp_path, {name: content}) / name)
    with pytest.raises(SourceError, match=r"x.jpg: not a source; give a folder"):
        open_source(put(tmp_path, {"x.jpg": image_bytes("JPEG")}) / "x.jpg")


def test_a_file_without_suffix_that_several_may_be(tmp_path: Path):
    names = ["a.jpg", "a.png", "b.jpg"]
    for name, line in {"a": 2, "a.jpg": 0}.items():
        text = rows(["b.jpg", name, "a.png"], "xyz")
        if line:
            with pytest.raises(SourceError, match="line 2: 'a' may be any of several files"):
                sources(tmp_path, text, names)
            with pytest.raises(SourceError, match="line 2: 'a' may be any of several files"):
                open_source(tmp_path / "without", put(tmp_path, {"labels.csv": text.encode()}) / "labels.csv")
        else:
            for source in sources(tmp_path, text, names):
                assert said(source) == {"a.jpg": "y", "a.png": "z", "b.jpg": "x"}


def test_a_folder_with_its_list_counts_what_the_list_does_not_name(tmp_path: Path):
    text = ("\ufeff" + rows(NAMES[:8], WORDS[:8])).encode("utf-16-le")
    put(tmp_path / "a", {**{name: name.encode() for name in NAMES}, "list": text})
    source = open_source(tmp_path / "a")
    assert said(source) == dict(zip(NAMES[:8], WORDS[:8]))
    assert source.passed_over == {"files that the list does not name": 2}
    put(tmp_path / "a", {"README.txt": b"These are photos, of animals.\n"})
    assert open_source(tmp_path / "a").passed_over == {"files that the list does not name": 3}
    put(tmp_path / "a", {"more.csv": rows(NAMES, WORDS).encode()})
    with pytest.raises(SourceError, match=r"more than one list \(list, more.csv\): give one of the lists"):
        open_source(tmp_path / "a")


def test_a_list_beside_folders_that_are_no_classes_is_called_out(tmp_path: Path):
    for place, files in {
        "within": {"images/1.jpg": "", "images/2.jpg": "", "labels.csv": "images/1.jpg,cat\nimages/2.jpg,dog\n"},
        "relative": {"images/1.jpg": "", "images/2.jpg": "", "labels.csv": "path,label\n1.jpg,cat\n2.jpg,dog\n"},
        "beside": {
            "1.jpg": "",
            "2.jpg": "",
            "old/3.jpg": "",
            "older/4.jpg": "",
            "labels.csv": "1.jpg,cat\n2.jpg,dog\n",
        },
    }.items():
        put(tmp_path / place, {name: text.encode() for name, text in files.items()})
        with pytest.raises(
            SourceError, match=f"{place}: labels.csv in it has the labels of images that lie in no class"
        ):
            open_source(tmp_path / place)
    classes = {"cat/1.jpg": b"1", "dog/2.jpg": b"2", "labels.csv": b"cat/1.jpg,cat\ndog/2.jpg,dog\n"}
    assert open_source(put(tmp_path / "classes", classes)).classes == ("cat", "dog")
    alone = {"cat/1.jpg": b"1", "README.txt": b"A cat.\n\nLook at 1.jpg first.\nAnd at README.txt.\n"}
    assert open_source(put(tmp_path / "alone", alone)).classes == ("cat",)


def test_labels_may_lie_in_the_folder_of_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put(
        tmp_path,
        {**{name: name.encode() for name in NAMES}, "labels.csv": rows(NAMES, WORDS).encode(), ".hidden": b"1"},
    )
    monkeypatch.chdir(tmp_path)
    for place, labels in ((tmp_path, "labels.csv"), (".", tmp_path / "labels.csv"), (".", "./labels.csv")):
        source = open_source(place, labels)
        assert said(source) == WORDED and source.passed_over == {"hidden files": 1}


def test_a_label_a_line(tmp_path: Path):
    put(tmp_path / "photos", {name: name.encode() for name in reversed(NAMES)})

    def labelled(text: str | bytes) -> Source:
        put(tmp_path, {"labels": text.encode() if isinstance(text, str) else text})
        return open_source(tmp_path / "photos", tmp_path / "labels")

    good = (
        "\n".join(map(str, LABELS)),
        "\ufeff" + "\r".join(map(str, LABELS)),
        "label\n\n" + "\n".join(f"{n}.0" for n in LABELS),
    )
    assert [said(labelled(text)) for text in good] == [NUMBERED] * 3
    assert said(labelled(rows(WORDS, end="\r\n"))) == WORDED
    assert said(labelled(rows([f'"a {word}"' for word in WORDS]))) == {
        name: f"a {word}" for name, word in WORDED.items()
    }
    for text, message in {
        rows(LABELS[1:]): "9 labels for 10 images",
        rows([*LABELS, 1]): "11 labels for 10 images",
        rows([*WORDS[:9], "a bee"]): "line 1: a path and a label are needed",
        rows([*WORDS, *WORDS, "a bee"]): "line 21: more than a label",
        rows([*LABELS[:9], "x"]): "line 10: label 'x' is a word",
        rows([*LABELS[:9], -1]): "line 10: label '-1'",
        rows([*WORDS[:9], '"bee']): "line 10: a quote that is not closed",
        rows([*WORDS[:9], "IMG_0009.jpg"]): "line 10: 'IMG_0009.jpg' is an image, without a label",
        **{
            rows(NAMES, WORDS, by=by): "line 1: 'IMG_0000.jpg.*' holds the name of an image: give a path and a label"
            for by in ("|", ":", "=", "::", "->", "_")
        },
        rows(WORDS, NAMES, by="|"): "line 1: 'dog|IMG_0000.jpg' holds the name of an image",
        rows(range(10), NAMES, WORDS, by="|"): "line 1: '0|IMG_0000.jpg|dog' holds the name of an image",
        rows([n[:-4] for n in NAMES], WORDS, by="|"): "line 1: 'IMG_0000|dog' holds the name of an image",
        rows(range(10), LABELS): "no label for 10 of 10 images, such as IMG_0000.jpg; line 1 names '0'",
        ",label\n" + rows(range(10), LABELS): "line 1: a path and a label are needed|no label for 10 of 10",
    }.items():
        with pytest.raises(SourceError, match=message):
            labelled(text)
    with pytest.raises(
        SourceError, match="labels: compressed, and not the devkit: give the devkit, or a list as plain"
    ):
        labelled(gzip.compress(good[0].encode()))
    with pytest.raises(SourceError, match="labels: compressed, and not the devkit"):
        labelled(gzip.compress(tar_of({"a": os.urandom(20_000)}))[:9_000])
    with pytest.raises(SourceError, match=r"no such file|no file with labels in it|cannot be read"):
        open_source(tmp_path / "photos", "/dev/null")
    with pytest.raises(SourceError, match="nowhere: no such file"):
        open_source(tmp_path / "photos", tmp_path / "nowhere")


def test_a_list_may_name_what_systems_leave(tmp_path: Path):
    """What a list names is an image, whatever its name; a label a line is for others."""
    names = ["._x.jpg", ".h.jpg", "Thumbs.db", "a.jpg"]
    for source in sources(tmp_path, rows(names, WORDS[:4]), names):
        assert said(source) == dict(zip(names, WORDS)) and source.passed_over == {}
    put(tmp_path, {"labels.csv": b"a.jpg cat\n", "without/__MACOSX/._a.jpg": b"1"})
    for text in (b"a.jpg cat\n", b"cat\n"):
        put(tmp_path, {"labels.csv": text})
        source = open_source(tmp_path / "without", tmp_path / "labels.csv")
        assert said(source) == {"a.jpg": "cat"}
        assert source.passed_over == {"._*": 1, "__MACOSX": 1, "Thumbs.db": 1, "hidden files": 1}


def test_a_label_a_line_for_names_whose_order_is_not_clear(tmp_path: Path):
    for names, pair in {
        ("1.jpg", "2.jpg", "10.jpg"): "10.jpg is before 2.jpg",
        ("a_9_x.jpg", "a_10_x.jpg", "b.jpg"): "a_10_x.jpg is before a_9_x.jpg",
    }.items():
        folder = put(tmp_path / pair, dict.fromkeys(names, b"1"))
        put(tmp_path, {"labels": b"0\n1\n2\n"})
        with pytest.raises(SourceError, match=f"labels: a label a line .*{pair}: give lines PATH LABEL"):
            open_source(folder, tmp_path / "labels")
        put(tmp_path, {"labels": "".join(f"{name} {i}\n" for i, name in enumerate(names)).encode()})
        assert len(open_source(folder, tmp_path / "labels").entries) == 3


def test_labels_may_be_numbers_as_images_have_them(tmp_path: Path):
    folder = put(tmp_path / "photos", {f"{i}.jpg": f"{i}.jpg".encode() for i in range(1, 6)})
    put(tmp_path, {"labels": b"2\n1\n2\n3\n3\n"})
    assert said(open_source(folder, tmp_path / "labels")) == dict(zip([f"{i}.jpg" for i in range(1, 6)], "21233"))


def test_a_devkit_that_is_damaged_is_refused(tmp_path: Path):
    put(tmp_path / "photos", {name: name.encode() for name in NAMES})
    truth = "ILSVRC2012_validation_ground_truth.txt"
    for content, message in {b"1\n2\nx\n": "more than a number a line", b"1\n2\n": "meta.mat cannot be read"}.items():
        put(tmp_path / "kit", {truth: content, "meta.mat": b"MATLAB 5.0" + bytes(200)})
        with pytest.raises(SourceError, match=message):
            open_source(tmp_path / "photos", tmp_path / "kit" / truth)


def test_a_list_may_lie_in_a_bucket():
    fsspec = pytest.importorskip("fsspec")
    root = "memory://photos-of-lists"
    text = "number,path,label\n" + rows(range(10), NAMES, WORDS)
    with fsspec.open(f"{root}/list.csv", "w") as file:
        file.write(text)
    for name in NAMES:
        with fsspec.open(f"{root}/{name}", "wb") as file:
            file.write(name.encode())
    assert said(open_source(f"{root}/list.csv")) == WORDED
    with fsspec.open(f"{root}/list.csv", "w") as file:
        file.write(rows([f"x{name}" for name in NAMES], WORDS))
    with pytest.raises(SourceError, match=r"not a source: line 1 names 'xIMG_0000.jpg'"):
        open_source(f"{root}/list.csv")


def test_classes_are_never_empty_or_made_of_numbers_that_are_none():
    assert label_all(["1.0", "0", "", "-1", "2e0"]) == (("0", "1", "2"), [1, 0, NO_CLASS, NO_CLASS, 2])
    assert label_all(["b", "", "a"]) == (("a", "b"), [1, NO_CLASS, 0])
    assert label_all([]) == ((), []) and label_all([""]) == ((), [NO_CLASS])


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_packed_is_what_the_list_says(tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str]):
    images = {name: image_bytes("JPEG", (16 + i, 16)) for i, name in enumerate(SPACED)}
    put(tmp_path / "photos", images)
    put(tmp_path, {"labels.csv": rows([*SPACED, "gone.jpg"], [f"{n}.0" for n in [*LABELS, 1]], by=";").encode()})
    words = ["build-shards", tmp_path / "photos", tmp_path / "out", "--labels", tmp_path / "labels.csv"]
    assert main([*map(str, words), "--format", format, "--workers", "0"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("packed 10 of 11 files (0 converted, 0 quarantined, 1 passed over)\n")
    assert "passed over: 1 images that have a label and are not there\n" in said
    dataset = Dataset(tmp_path / "out")
    assert {dataset[i].key: dataset[i].label for i in range(10)} == dict(zip(SPACED, LABELS))
    assert dataset.manifest.classes == tuple(f"{i:02d}" for i in range(11))


@pytest.mark.parametrize(
    "line", ['"my cat 3.jpg;1', "../my cat 3.jpg;1", "my cat 33.jpg;1", "my cat 3.jpg;", "my cat 3.jpg;x"]
)
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_refused_is_refused_before_anything_is_packed(
    tmp_path: Path, format: str, line: str, capsys: pytest.CaptureFixture[str]
):
    lines = rows(SPACED, LABELS, by=";").splitlines()
    put(tmp_path / "photos", {name: image_bytes("JPEG", (16, 16)) for name in SPACED})
    put(tmp_path / "photos", {"list.csv": "\n".join([*lines[:3], line, *lines[4:]]).encode()})
    for labels in ([], ["--labels", str(tmp_path / "photos/list.csv")]):
        source = tmp_path / "photos" / ("" if labels else "list.csv")
        words = ["build-shards", str(source), str(tmp_path / "out"), "--format", format, *labels]
        assert main(words) == 1
        said = capsys.readouterr()
        assert "list.csv: " in said.err and "line 4" in said.err and said.err.count("\n") == 1 and said.out == ""
        assert not (tmp_path / "out").exists()


# Names and labels of every kind that a list can hold; a blank at an end or a quote in front needs quotes of its own.
NAME = st.text(st.sampled_from("abcXYZ019 _-.#'\"()\u00e4\u96f2"), min_size=1, max_size=8).map(
    lambda text: text + "x.jpg"
)
WORD = st.text(st.sampled_from("abcz -,;'\"\u00e4\u96f2"), min_size=1, max_size=6).filter(lambda text: text.strip())


@st.composite
def lists(draw: st.DrawFn) -> tuple[bytes, dict[str, str], list[str], bool]:
    """A well-formed list in any dialect, what it says, its classes, and whether its labels are numbers."""
    names = draw(st.lists(NAME.map(str.strip), min_size=2, max_size=20, unique_by=lambda name: name.lower()))
    numbers = draw(st.booleans())
    labels: list[str]
    if numbers:
        values = draw(st.lists(st.integers(0, 120), min_size=len(names), max_size=len(names)))
        form = draw(st.sampled_from(["{}", "{}.0", "{:04d}", "{:.6f}", "+{}"]))
        labels, classes = [form.format(value) for value in values], [f"{i}" for i in range(max(values) + 1)]
        classes = [name.zfill(len(classes[-1])) for name in classes]
        said = {name: classes[value] for name, value in zip(names, values)}
    else:
        kinds = draw(st.lists(WORD.map(str.strip), min_size=2, max_size=4, unique=True))
        labels = draw(st.lists(st.sampled_from(kinds), min_size=len(names), max_size=len(names)))
        said, classes = dict(zip(names, labels)), sorted(set(labels), key=str.encode)
    columns = {"path": names, "label": labels}
    if numbers and draw(st.booleans()):
        columns["name"] = [f"c{said[name]}" for name in names]
        classes = [f"c{name}" if f"c{name}" in columns["name"] else name for name in classes]
        said = dict(zip(names, columns["name"]))
    header = draw(st.sampled_from([None, ("path", "label", "name"), ("File Name", "CLASS_ID", "class-name")]))
    if header:
        columns |= {"": [str(i) for i in range(len(names))]} if draw(st.booleans()) else {}
        order = draw(st.permutations(list(columns)))
        called = dict(zip(("path", "label", "name", ""), (*header, "")))
    else:
        order = list(columns)
        order.reverse() if len(order) == 2 and draw(st.booleans()) else None
    end, delimiter = (
        draw(st.sampled_from(["\n", "\r\n", "\r"])),
        draw(st.sampled_from("\t,;" + " " * (len(order) == 2))),
    )
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    if header:
        writer.writerow([called[column] for column in order])
    for row in zip(*(columns[column] for column in order)):
        text.write(draw(st.sampled_from(["", "", "", end, f"# a comment, {end}"])))
        writer.writerow(row)
    mark = draw(st.sampled_from([("", "utf-8"), ("\ufeff", "utf-8"), ("\ufeff", "utf-16-le"), ("\ufeff", "utf-16-be")]))
    return (mark[0] + text.getvalue()).encode(mark[1]), said, classes, numbers


@settings(max_examples=100)
@given(lists())
def test_lists_in_every_dialect_are_equal_as_a_source_and_as_labels(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[bytes, dict[str, str], list[str], bool]
):
    data, expected, classes, _ = made
    folder = tmp_path_factory.mktemp("list")
    one, other = sources(folder, data, list(expected))
    for source in (one, other):
        assert said(source) == dict(sorted(expected.items(), key=lambda row: row[0].encode()))
        assert source.classes == tuple(classes) and source.passed_over == {}
    assert one.entries.fingerprint(one.classes) == other.entries.fingerprint(other.classes)
    shutil.rmtree(folder)


@settings(max_examples=4, phases=[Phase.explicit, Phase.generate])  # a build is slow: none to shrink with
@given(lists(), st.sampled_from(FORMATS))
def test_and_give_equal_data_sets(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[bytes, dict[str, str], list[str], bool], format: str
):
    data, expected, classes, _ = made
    folder = tmp_path_factory.mktemp("list")
    put(folder / "photos", {name: image_bytes("JPEG", (8 + i, 8)) for i, name in enumerate(expected)})
    put(folder, {"labels": data})
    ingest.build_shards(folder / "photos", folder / "a", format=format, workers=0, labels=folder / "labels")
    put(folder / "photos", {"list.csv": data})
    ingest.build_shards(folder / "photos" / "list.csv", folder / "b", format=format, workers=0)
    assert files_of(folder / "a") == files_of(folder / "b")
    dataset = Dataset(folder / "a")
    records = [dataset[i] for i in range(len(dataset))]
    assert {record.key: classes[record.label] for record in records} == expected
    assert all(record.width == 8 + list(expected).index(record.key) for record in records)


def test_a_line_that_never_ends_is_refused(tmp_path: Path):
    put(tmp_path, {"a.jpg": b"1", "list.csv": b"a.jpg,0\n" + b"b" * 2**21 + b",1\n"})
    with pytest.raises(SourceError, match=r"list\.csv: line 2: more than 1,048,576 characters"):
        open_source(tmp_path / "list.csv")
