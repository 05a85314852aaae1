"""A list of images: a CSV or TSV of path, label and perhaps class name; and images whose labels lie apart."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from ingest import files
from ingest.errors import BadSampleError, SourceError
from ingest.sample import Sample
from ingest.sources import NO_CLASS, Entries, Entry, Source, label_all
from ingest.sources.folder import read_file
from ingest.sources.labels import labels_of

_DELIMITERS = "\t,;"
_GLANCE_BYTES = 4096


@dataclass(frozen=True)
class TableReader:
    """Reads the files that a list names, below ``root``."""

    root: Path

    def __call__(self, entry: Entry) -> Sample:
        """Read an image file. A file that is there and cannot be opened is an error, not a bad image."""
        if _leads_out(entry.key):
            raise BadSampleError(f"a path that leads out of the list's folder, {self.root}")
        if entry.label == NO_CLASS:
            raise BadSampleError("its label is out of range")
        return Sample(entry.key, entry.label, read_file(self.root / entry.key))


def open_table(path: Path) -> Source | None:
    """The images of the list ``path``, or of the one list in the folder ``path``; None where there is none."""
    table = path if path.is_file() else _table_in(path)
    rows = table and _rows(table)
    if not table or not rows:
        return None
    if not (table.parent / rows[0][0]).exists():  # then it may be the columns' names
        rows = rows[1:]
        if not rows or not (_leads_out(rows[0][0]) or (table.parent / rows[0][0]).exists()):
            return None
    classes, labels = label_all([row[1].strip() for row in rows])
    classes = _named(table, classes, labels, rows)
    keys = [row[0].strip().removeprefix("./") for row in rows]
    found = (Entry(key, NO_CLASS if _leads_out(key) else label) for key, label in zip(keys, labels))
    return Source(classes, Entries(found), TableReader(table.parent))


def open_labelled(path: Path, labels: Path) -> Source | None:
    """The images in the folder ``path``, which has no folders in it, by the labels at ``labels``; None for a file."""
    if not path.is_dir():
        return None
    names = [name for name in files.names_in(path) if not name.startswith(".") and path / name != labels]
    if any((path / name).is_dir() for name in names):
        raise SourceError(f"{path}: labels are for images without folders, and it has folders, which are classes")
    classes, numbers = labels_of(labels, names)
    return Source(classes, Entries(Entry(name, label) for name, label in zip(names, numbers)), TableReader(path))


def _named(table: Path, classes: tuple[str, ...], labels: list[int], rows: list[list[str]]) -> tuple[str, ...]:
    """The classes, by the names in the third column, where there is one and the labels are numbers."""
    names: dict[int, str] = {}
    for number, (label, row) in enumerate(zip(labels, rows), 1):
        if len(row) > 2 and label != NO_CLASS and row[1].strip().isdecimal():
            name = row[2].strip()
            if names.setdefault(label, name) != name:
                raise SourceError(f"{table}: image {number}: label {label} is {names[label]!r} and {name!r}")
    return tuple(names.get(label, name) for label, name in enumerate(classes))


def _table_in(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    found = [folder / name for name in files.names_in(folder) if not name.startswith(".")]
    if any(path.is_dir() for path in found):
        return None
    tables = [path for path in found if _looks_like_text(path)]
    return tables[0] if len(tables) == 1 and len(found) > 1 else None


def _looks_like_text(path: Path) -> bool:
    if files.is_remote(path) and path.suffix not in (".csv", ".tsv", ".txt"):
        return False  # a look into each file of a bucket would take for ever
    start = files.read(path, 0, _GLANCE_BYTES)
    return b"\0" not in start and any(delimiter.encode() in start for delimiter in _DELIMITERS)


def _rows(table: Path) -> list[list[str]]:
    """The rows of a list, or nothing where it is none. Raises SourceError where some are shorter than others."""
    if not _looks_like_text(table):
        return []
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return []
    first = text.partition("\n")[0]
    delimiter = next((sign for sign in _DELIMITERS if sign in first), None)
    if delimiter is None:
        return []
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    result = []
    for row in rows:
        if len(row) == 1 or (row and not row[0].strip()):
            raise SourceError(f"{table}: line {rows.line_num}: a path and a label are needed")
        result += [row] if row else []
    return result


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")
