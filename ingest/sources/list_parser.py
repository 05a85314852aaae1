"""Text lists: which image has which label. The one parser of a list that is a source, and of ``--labels``.

A list is strict: what it says is understood whole, or refused with the line and what was expected there. It is text in
UTF-8, or in UTF-16 or UTF-32 with a byte order mark, of rows

    path, label               in either order: the paths are the column that names files
    path, label, class name   where labels are numbers
    number, path, label       in either order, where the numbers count the rows

or of any columns below a header that names them; or, for ``--labels``, of one label a line. A tab, a comma, a semicolon
or, between two plain columns, blanks part the fields; quotes hold a field together. Empty lines, and lines that begin
with ``#`` and name no file, say nothing.
"""

from __future__ import annotations

import codecs
import csv
import io
import posixpath
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

from ingest.errors import SourceError
from ingest.sources.base import MAX_CLASSES, NO_CLASS, label_all, label_number
from ingest.system import paths

MAX_BYTES = 2**30
"""Of a list: fourteen million rows, all of ImageNet, take half of it."""

_LINE = 2**20
"""Characters of a line: more would not be a path and a label."""

_SAMPLE = 16
"""Rows that tell what parts the fields, which columns there are, and whether the first row is a header."""

_DELIMITERS = "\t,; "

_NAME_CHARACTERS = 256
"""No file's name has so many."""

_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# What headers call their columns, in lower case, letters and digits alone. A label's best name comes first.
_PATH_WORD = re.compile("(file|image|img|photo|picture)(s|id|file|name|path)?|(rel)?paths?|fname|name|id|key")
_LABEL_WORDS = (
    "label", "labels", "labelid", "labelidx", "labelindex", "classid", "classidx", "classindex", "categoryid",
    "target", "targets", "class", "classes", "classlabel", "category", "synset", "wnid", "classname", "labelname",
    "categoryname", "name", "species", "breed",
)  # fmt: skip
_INDEX_WORDS = frozenset(("", "index", "idx", "id", "no", "nr", "row", "rowid", "number"))

_COMMA = re.compile("[+-]?[0-9]+,[0-9]+")

_LABELS = f"give whole numbers from 0 to {MAX_CLASSES - 1}, or words alone"
_UNCLEAR = "what each column is cannot be told: name them in a header, such as path, label, class name"
_EXPECTED = "give a path and a label a line, with a tab, comma, semicolon or blank between them"


class FileLookup(Protocol):
    """The files that a list may name. ``location`` says where they lie."""

    location: str

    def find(self, path: str) -> str | None:
        """The file that a row names, or None where there is no such file."""
        ...

    def is_exact(self, path: str) -> bool:
        """Whether a file has just this path."""
        ...

    def is_ambiguous(self, path: str) -> bool:
        """Whether several files have this path but for their suffixes."""
        ...

    def resolve(self, path: str) -> str | None:
        """As ``find``, for each row of a list."""
        ...


class Files:
    """Files by their paths, and by their paths without suffix, where that tells one of them.

    ``names_in`` gives the names of the files in a folder; it is asked once for each folder that a list names.
    """

    def __init__(self, location: str, names_in: Callable[[str], Iterable[str]]):
        self.location = location
        self._names_in = names_in
        self._folders: dict[str, tuple[frozenset[str], dict[str, str | None]]] = {}

    def find(self, path: str) -> str | None:
        """The file that a row names, or None where there is no such file."""
        return self._exact(path) or self._exact(path.strip()) or self._by_stem(path.strip())

    resolve = find

    def is_exact(self, path: str) -> bool:
        """Whether a file has just this path."""
        return (self._exact(path) or self._exact(path.strip())) is not None

    def is_ambiguous(self, path: str) -> bool:
        """Whether several files have this path but for their suffixes."""
        folder, name = _split(path.strip())
        return not leads_out(path) and name in self._folder(folder)[1] and self.find(path) is None

    def _exact(self, path: str) -> str | None:
        if leads_out(path):
            return None
        folder, name = _split(path)
        return folder + name if name in self._folder(folder)[0] else None

    def _by_stem(self, path: str) -> str | None:
        if leads_out(path):
            return None
        folder, name = _split(path)
        whole = self._folder(folder)[1].get(name)
        return whole and folder + whole

    def _folder(self, folder: str) -> tuple[frozenset[str], dict[str, str | None]]:
        if folder not in self._folders:
            names = frozenset(self._names_in(folder))
            stems: dict[str, str | None] = {}
            for name in names:
                stem = name.rpartition(".")[0] or name
                stems[stem] = None if stem in stems else name
            self._folders[folder] = names, stems
        return self._folders[folder]


class RemoteFiles:
    """Files in a bucket or on a web server, of which each question costs a request: only a few are looked for."""

    def __init__(self, root: Path):
        self.location = str(root)
        self._root = root
        self._asked: dict[str, bool] = {}

    def find(self, path: str) -> str | None:
        """The file that a row names, or None where there is no such file."""
        name = "".join(_split(path.strip()))
        if not name or leads_out(name) or label_number(name) is not None:
            return None
        if name not in self._asked:
            self._asked[name] = (self._root / name).is_file()
        return name if self._asked[name] else None

    def is_exact(self, path: str) -> bool:
        """Whether a file has just this path."""
        return self.find(path) is not None

    def is_ambiguous(self, path: str) -> bool:
        """Whether several files have this path but for their suffixes: only whole paths are looked for."""
        return False

    def resolve(self, path: str) -> str | None:
        """As ``find``; what was not looked for is taken to be there: else its turn to be packed says so."""
        name = "".join(_split(path.strip()))
        return None if leads_out(name) or not self._asked.get(name, True) else name


class Listing(NamedTuple):
    """What a list says: ``classes``, and for each row its ``lines`` number, label and file.

    ``files`` is None in a list of labels alone. ``missing`` are the lines and paths of rows whose files are not there;
    in ``files`` these have their paths.
    """

    classes: tuple[str, ...]
    lines: Sequence[int]
    labels: list[int]
    files: list[str] | None
    missing: list[tuple[int, str]]


def read(path: Path, files: FileLookup, *, labels_alone: bool) -> Listing:
    """Read the list at ``path``, whose files are among ``files``; it may be of ``labels_alone``, without paths.

    Raises SourceError with the line where a row is not understood.
    """
    text = _Text(path, _load(path), files)
    sample = list(islice((line for line in text.lines() if line.strip()), _SAMPLE))
    if not sample:
        raise SourceError(f"{path}: not a source: no rows in it: {_EXPECTED}", path=path)
    delimiter = _delimiter(sample, files)
    if delimiter is None:
        if not labels_alone:
            raise SourceError(
                f"{path}: not a source: its first row, {short(sample[0])}, has no label: {_EXPECTED}", path=path
            )
        return _read_labels(text)
    return _read_rows(text, delimiter)


def is_list(path: Path, files: FileLookup) -> bool:
    """Whether rows at the start of ``path`` name any of ``files``, whatever else is wrong with them."""
    cells = (cell for line in _first_lines(path) for cell in _first_cells(line))
    return any(map(files.find, cells))


def is_list_of_paths(path: Path, files: FileLookup) -> bool:
    """Whether most rows at the start of ``path`` have the whole path of one of ``files``."""
    named = [any(map(files.is_exact, _first_cells(line))) for line in _first_lines(path)]
    return 2 * sum(named) >= max(1, len(named))


def _first_lines(path: Path) -> list[str]:
    start = paths.read(path, 0, 2**16)
    lines = start.decode(_encoding(start), "replace").replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip()][:_SAMPLE]


def _first_cells(line: str) -> list[str]:
    """What a row's first fields may be; none where nothing parts it."""
    rows = [_fields(line, sign) for sign in _DELIMITERS]
    return [cell for row in rows if len(row) > 1 for cell in row[:4]]


def has_mark(start: bytes) -> bool:
    """Whether a file begins with a byte order mark: then it is text."""
    return any(start.startswith(mark) for mark, _ in _ENCODINGS)


def leads_out(path: str) -> bool:
    """Whether a path is none within a folder."""
    return path.startswith("/") or ".." in path.split("/")


@dataclass(frozen=True)
class _Text:
    """The text of the list at ``path``, and what refuses it."""

    path: Path
    data: bytes
    files: FileLookup

    def lines(self) -> Iterator[str]:
        """All lines, of whatever ends; comments are empty ones."""
        encoding = _encoding(self.data)
        text = io.TextIOWrapper(io.BytesIO(self.data), encoding, newline=None)
        try:
            for number, line in enumerate(iter(partial(text.readline, _LINE + 1), ""), 1):
                if len(line) > _LINE:
                    self.fail(number, f"more than {_LINE:,} characters: {_EXPECTED}")
                line = line.lstrip("\ufeff")  # where one list was joined to another
                if "\0" in line:
                    self.fail(number, "a NUL byte: save the list as plain text, in UTF-8")
                yield "\n" if line.lstrip().startswith("#") and self._is_comment(number, line) else line
        except UnicodeDecodeError:
            self._fail_encoding(encoding)

    def records(self, delimiter: str) -> Iterator[tuple[int, list[str]]]:
        """The number and the fields of each row that is not empty. A row is a line."""
        reader = csv.reader(self.lines(), delimiter=delimiter, skipinitialspace=True, strict=True)
        done = 0
        try:
            for fields in reader:
                if reader.line_num > done + 1:
                    self.fail(done + 1, "a quote that is not closed on this line: close it, or double it")
                done = reader.line_num
                if any(map(str.strip, fields)):
                    yield done, fields
        except csv.Error as error:
            if "field larger" in str(error):
                self.fail(done + 1, f"a field of more than {csv.field_size_limit():,} characters: {_EXPECTED}")
            self.fail(done + 1, f"a quote that is not closed, or stands within a field ({error}): close or double it")

    def fail(self, line: int, problem: str) -> NoReturn:
        """Raise SourceError."""
        raise SourceError(f"{self.path}: line {line}: {problem}", path=self.path)

    def _is_comment(self, number: int, line: str) -> bool:
        """Whether a line that begins with ``#`` says nothing. Raises SourceError where it may be a label and a file."""
        rows = [[cell.strip(' \n"') for cell in line.split(sign)] for sign in _DELIMITERS]
        if any(self.files.find(row[0]) for row in rows):
            return False
        if any(len(row) == 2 and row[0] != "#" and self.files.find(row[1]) for row in rows):
            self.fail(number, "begins with '#' as a comment does, and names a file: remove it, or quote its label")
        return True

    def _fail_encoding(self, encoding: str) -> NoReturn:
        try:
            self.data.decode(encoding)
        except UnicodeDecodeError as error:
            before = self.data[: error.start].decode(encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")
            byte, name = self.data[error.start], encoding.upper().removesuffix("-SIG")
            self.fail(before.count("\n") + 1, f"byte 0x{byte:02X} is not {name}: save the list as UTF-8")
        raise AssertionError("only what cannot be decoded is refused for it")


def _load(path: Path) -> bytes:
    if not paths.is_remote(path) and not path.is_file():
        problem = "no file with labels in it" if path.exists() else "no such file"
        raise SourceError(f"{path}: {problem}: {_EXPECTED}", path=path)
    data = paths.read(path, 0, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SourceError(f"{path}: a list of more than {MAX_BYTES:,} bytes: {_EXPECTED}", path=path)
    return data


def _encoding(data: bytes) -> str:
    return next((encoding for mark, encoding in _ENCODINGS if data.startswith(mark)), "utf-8")


def _fields(line: str, delimiter: str) -> list[str]:
    """The fields of a line by itself, without empty ones at its end; none where it is not understood."""
    try:
        return _trimmed(next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True), []))
    except csv.Error:
        return []


def _trimmed(fields: list[str]) -> list[str]:
    """Fields without empty ones at their end."""
    while fields and not fields[-1].strip():
        fields = fields[:-1]
    return fields


def _fit(cell: str, files: FileLookup) -> int:
    """How well a field names a file: 2 by its path, 1 by its path without suffix, 0 not."""
    return 2 if files.is_exact(cell) else int(files.find(cell) is not None)


def _delimiter(sample: list[str], files: FileLookup) -> str | None:
    """What parts the fields, so that most rows name files, and most have more than one field; None where none has."""

    def score(delimiter: str) -> tuple[int, int]:
        rows = [fields for fields in (_fields(line, delimiter) for line in sample) if len(fields) > 1]
        return sum(max(_fit(cell, files) for cell in row[:8]) for row in rows), len(rows)

    scores = {delimiter: score(delimiter) for delimiter in _DELIMITERS}
    best = max(_DELIMITERS, key=scores.__getitem__)  # the first of equals
    return best if scores[best][1] else None


def _read_labels(text: _Text) -> Listing:
    """A label a line."""
    lines, labels = array("q"), list[str]()
    for line, row in text.records(" "):
        fields = _trimmed(row)
        if len(fields) > 1 or any(sign in fields[0] for sign in "\t,;"):
            text.fail(line, f"more than a label, as the lines before have: {_EXPECTED}, or quote the label")
        if not lines and not labels and _normalize(fields[0]) in _LABEL_WORDS:
            continue
        lines.append(line)
        labels.append(fields[0].strip())
    _check_labels_are_not_rows(text, lines, labels)
    classes, numbers = _labelled(text, lines, labels)
    return Listing(classes=classes, lines=lines, labels=numbers, files=None, missing=[])


def _check_labels_are_not_rows(text: _Text, lines: Sequence[int], labels: list[str]) -> None:
    """Raise SourceError where labels hold the images' names: each would be a class of its own."""
    files = text.files

    def refuse(i: int) -> NoReturn:
        problem = "is an image, without a label" if files.find(labels[i]) else "holds the name of an image"
        text.fail(lines[i], f"{short(labels[i])} {problem}: {_EXPECTED}")

    named = set()
    for label in dict.fromkeys(labels):
        parts = _parts(label)
        if any(map(files.is_exact, parts)):
            refuse(labels.index(label))
        named.add(next(filter(None, map(files.find, parts)), None))
    # Without suffixes that may be chance, as where images have numbers, unless each label names another.
    if len(named) == len(labels) > 0 and None not in named:
        refuse(0)


def _parts(label: str) -> list[str]:
    """A label, and what is before, after and between the signs in it, as far as a file may be called so."""
    signs = [
        sign for sign in re.finditer(r"[\W_]", label) if min(sign.start(), len(label) - sign.end()) < _NAME_CHARACTERS
    ]
    before = [label[: sign.start()] for sign in signs if sign.start() < _NAME_CHARACTERS]
    after = [label[sign.end() :] for sign in signs if len(label) - sign.end() < _NAME_CHARACTERS]
    return [label, *filter(None, (*before, *after, *re.split(r"[^\w.-]+", label[: 4 * _NAME_CHARACTERS])))]


class _Columns(NamedTuple):
    """Where the path, the label, the class's name and the row's number stand; the latter two may be nowhere."""

    path: int
    label: int
    name: int | None
    number: int | None


class _Rows(NamedTuple):
    """The rows of a list by columns: the number of each one's line, and what is in it; ``names`` may be empty."""

    lines: array[int]
    paths: list[str]
    labels: list[str]
    names: list[str]
    numbers: list[str]


def _read_rows(text: _Text, delimiter: str) -> Listing:
    """Rows of paths, labels and perhaps more."""
    files = text.files
    (first_line, first), *others = islice(text.records(delimiter), _SAMPLE)
    rows = [_trimmed(first), *(fields for _, fields in others)]
    path = _path_column(rows, files)
    is_header = _is_header(first, files)
    may_be_header = not is_header and _may_be_header(rows, path, files)
    if is_header or may_be_header:
        rows[0] = first  # a header may leave its last column without a name
    columns = _columns(text, first_line, rows, path, is_header or may_be_header)

    table = _table(text, delimiter, columns, width=len(rows[0]), skip=int(is_header or may_be_header))
    if columns.number is not None:
        _check_row_numbers(text, table)
    named, missing = _resolved(text, table)
    _check_no_header_within(text, table, missing, first if is_header or may_be_header else [])
    _check_labels_are_not_files(text, table, is_header or may_be_header)
    if may_be_header and (0 < len(missing) < len(named) or first[columns.label].strip() in table.labels):
        text.fail(first_line, f"{short(first[path])} is no file in {files.location}, and may be a header: {_UNCLEAR}")
    classes, labels = _labelled(text, table.lines, table.labels)
    return Listing(
        classes=_with_names(text, table, classes, labels),
        lines=table.lines,
        labels=labels,
        files=named,
        missing=missing,
    )


def _path_column(rows: list[list[str]], files: FileLookup) -> int:
    """The column whose fields name files; where none does, the one that is called so, or the first that may."""
    width = len(rows[0])
    fits = [sum(_fit(row[i], files) for row in rows if i < len(row)) for i in range(width)]
    called = [i for i, cell in enumerate(rows[0]) if _PATH_WORD.fullmatch(_normalize(cell))]
    if any(fits):
        return called[0] if len(called) == 1 and fits[called[0]] else fits.index(max(fits))
    return next(iter(called), next((i for i in range(width) if not _is_numbers(rows, i)), 0))


def _is_header(first: list[str], files: FileLookup) -> bool:
    """Whether a row's words are those of a header: one for the path, and another for the label."""
    column_names = [_normalize(cell) for cell in first]
    paths = {i for i, name in enumerate(column_names) if _PATH_WORD.fullmatch(name)}
    labels = {i for i, name in enumerate(column_names) if name in _LABEL_WORDS}
    return bool(paths) and bool(labels) and len(paths | labels) > 1 and not any(map(files.is_exact, first))


def _may_be_header(rows: list[list[str]], path: int, files: FileLookup) -> bool:
    """Whether the first row names no file, and resembles none that does: then all others have to."""
    first, others = rows[0], [row for row in rows[1:] if len(row) > path]
    rest = [i for i in range(len(first)) if i != path]
    if not others or files.find(first[path]) or not _normalize(first[path]) or re.search(r"[\d./\\]", first[path]):
        return False
    if any(label_number(first[i].strip()) is not None or re.search(r"[./\\]", first[i]) for i in rest):
        return False
    if any(_is_numbers(others, i) for i in rest):  # and a word above them
        return True
    is_label = any(len(row) > i and row[i].strip() == first[i].strip() for row in others for i in rest)
    return not is_label and all(re.search(r"[\d./\\]", row[path]) for row in others)


def _columns(text: _Text, line: int, rows: list[list[str]], path: int, has_header: bool) -> _Columns:
    """Which column is what. Raises SourceError where that cannot be told."""
    rest, index = [i for i in range(len(rows[0])) if i != path], None
    if has_header:
        column_names, rows = [_normalize(cell) for cell in rows[0]], rows[1:]
        called = [i for i in rest if column_names[i] in _LABEL_WORDS]
        rest = sorted(called, key=lambda i: _LABEL_WORDS.index(column_names[i])) or [
            i for i in rest if column_names[i] not in _INDEX_WORDS and not column_names[i].startswith("unnamed")
        ]
    elif path > 0 and len(rest) == 2:
        index, *rest = rest
    elif len(rest) == 2 and _is_numbers(rows, rest[1]):
        text.fail(
            line, f"numbers in the third column, where class names belong: {_UNCLEAR}, or quote a path that has blanks"
        )
    if not rest:
        text.fail(line, f"a path and a label are needed: {_EXPECTED}")
    if len(rest) > 2 and not (has_header and called):
        text.fail(line, f"{len(rows[0])} columns: {_UNCLEAR}")
    label = next((i for i in rest if _is_numbers(rows, i)), rest[0])
    names = [i for i in rest if i != label and not _is_numbers(rows, i)] if _is_numbers(rows, label) else []
    if len(rest) == 2 and not names and not (has_header and called):
        text.fail(line, f"two columns that may be the label: {_UNCLEAR}, or quote a path or a label that has blanks")
    return _Columns(path, label, next(iter(names), None), index)


def _table(text: _Text, delimiter: str, columns: _Columns, *, width: int, skip: int) -> _Rows:
    """All rows but the first ``skip``. Raises SourceError where one has no path, no label, or more than ``width``."""
    table = _Rows(lines=array("q"), paths=[], labels=[], names=[], numbers=[])
    copies: dict[str, str] = {}  # of each label and name one
    for line, fields in islice(text.records(delimiter), skip, None):
        if len(fields) > width and len(fields := _trimmed(fields)) > width:
            text.fail(line, f"{len(fields)} fields, and the first row has {width}: quote what belongs together")
        fields += [""] * (width - len(fields))
        label = fields[columns.label].strip()
        if not label or not fields[columns.path].strip():
            text.fail(line, f"a path and a label are needed: {_EXPECTED}")
        table.lines.append(line)
        table.paths.append(fields[columns.path])
        table.labels.append(copies.setdefault(label, label))
        if columns.name is not None:
            name = fields[columns.name].strip()
            table.names.append(copies.setdefault(name, name))
        if columns.number is not None:
            table.numbers.append(fields[columns.number].strip())
    return table


def _resolved(text: _Text, table: _Rows) -> tuple[list[str], list[tuple[int, str]]]:
    """The file of each row, and the rows whose files are not there. Raises SourceError where two have the same."""
    files, named, missing = text.files, [], []
    for line, path in zip(table.lines, table.paths):
        file = files.resolve(path)
        if file is None:
            file = path.strip()
            if leads_out(file):
                text.fail(
                    line, f"{short(file)}: give a path below {files.location}, without '..' and no slash before it"
                )
            if files.is_ambiguous(file):
                text.fail(line, f"{short(file)} may be any of several files in {files.location}: give its suffix")
            missing.append((line, file))
        named.append(file)
    if len(set(named)) < len(named):
        seen: dict[str, int] = {}
        for line, file in zip(table.lines, named):
            if seen.setdefault(file, line) != line:
                text.fail(line, f"two images have the key {short(file)}, and line {seen[file]} is the first: keep one")
    return named, missing


def _check_no_header_within(text: _Text, table: _Rows, missing: list[tuple[int, str]], header: list[str]) -> None:
    """A header further down, as in lists that were joined, would be an image that is not there, and a class."""
    cells = {cell.strip() for cell in header}
    labels = dict(zip(table.lines, table.labels)) if missing else {}
    for line, path in missing:
        if {path, labels[line]} <= cells or _is_header([path, labels[line]], text.files):
            text.fail(line, f"a header, {short(path)} and {short(labels[line])}, below the first row: remove it")


def _check_labels_are_not_files(text: _Text, table: _Rows, has_header: bool) -> None:
    """Files beside images, such as masks, are no labels; and two columns that both name files may be either."""
    labels = dict.fromkeys(table.labels)
    if not all(map(text.files.find, labels)) or not labels:
        return
    line, label = table.lines[0], table.labels[0]
    if all(map(text.files.is_exact, labels)):
        text.fail(line, f"label {short(label)} names a file, too: {_EXPECTED}")
    if len(labels) == len(table.labels) > 1 and not has_header:
        text.fail(line, f"{short(table.paths[0])} and {short(label)} both name files: {_UNCLEAR}")


def _check_row_numbers(text: _Text, table: _Rows) -> None:
    """A first column before the paths can be told from a label only if it counts rows, and labels cannot."""
    numbers = {int(index) for index in table.numbers if re.fullmatch("[0-9]{1,12}", index)}
    counts = (
        len(numbers) == len(table.numbers) and min(numbers) in (0, 1) and max(numbers) - min(numbers) < len(numbers)
    )
    are_names = len(set(table.labels)) == len(table.labels) and label_number(table.labels[0]) is None
    if not counts or are_names:
        text.fail(table.lines[0], f"three columns, of which the paths are not the first: {_UNCLEAR}")


def _labelled(text: _Text, lines: Sequence[int], labels: list[str]) -> tuple[tuple[str, ...], list[int]]:
    """Classes and labels. Raises SourceError where words and numbers are mixed, or a number is no label."""
    numbers = {label: label_number(label) for label in dict.fromkeys(labels)}
    wrong = [label for label, number in numbers.items() if number == NO_CLASS or _COMMA.fullmatch(label)]
    if wrong:
        text.fail(lines[labels.index(wrong[0])], f"label {short(wrong[0])}: {_LABELS}")
    words = [label for label, number in numbers.items() if number is None]
    if 0 < len(words) < len(numbers):
        number = next(label for label, number in numbers.items() if number is not None)
        line, other = (lines[labels.index(label)] for label in (words[0], number))
        text.fail(line, f"label {short(words[0])} is a word, {short(number)} in line {other} a number: {_LABELS}")
    return label_all(labels)


def _with_names(text: _Text, table: _Rows, classes: tuple[str, ...], labels: list[int]) -> tuple[str, ...]:
    """The classes, by their names, where the list gives them."""
    if not any(table.names):
        return classes
    names: dict[int, str] = {}
    for number, (line, label, name) in enumerate(zip(table.lines, labels, table.names), 1):
        if not name:
            text.fail(line, "no class name, and other lines have one: name all classes, or none")
        if names.setdefault(label, name) != name:
            both = f"{short(names[label])} and {short(name)}"
            text.fail(line, f"image {number}: label {label} is {both}: give a class one name")
    named = tuple(names.get(label, name) for label, name in enumerate(classes))
    if len(set(named)) < len(named):
        of_name: dict[str, int] = {}
        label, first = next((i, first) for i, name in enumerate(named) if (first := of_name.setdefault(name, i)) != i)
        line = table.lines[labels.index(label if label in names else first)]
        text.fail(line, f"{short(named[label])} is the name of labels {first} and {label}: give each class its own")
    return named


def _is_numbers(rows: list[list[str]], i: int) -> bool:
    """Whether all that is in a column are numbers."""
    cells = [row[i].strip() for row in rows if i < len(row) and row[i].strip()]
    return bool(cells) and all(label_number(cell) is not None for cell in cells)


def _normalize(cell: str) -> str:
    return re.sub(r"[\W_]+", "", cell.lower())


def _split(path: str) -> tuple[str, str]:
    """The folder of a path, with a slash at its end, and the name in it."""
    if "./" in path or "//" in path:
        path = posixpath.normpath(path)
    folder, slash, name = path.rpartition("/")
    return folder + slash, name


def short(text: str) -> str:
    """A text in quotes for a message, cut where it is long."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
