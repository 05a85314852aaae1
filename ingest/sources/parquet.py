"""Parquet files as datasets are published today: a row an image, columns ``image{bytes, path}`` and ``label``.

Rows lie in compressed groups of hundreds, while packing wants them in random order: so their images are first copied,
in sequence, to a scratch file.

A file is not trusted: what it would take to read it is looked at first, in its footer and in the headers of its pages.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ingest.errors import BadSampleError, OptionError, SourceError
from ingest.record import Sample
from ingest.sources import ignored, parquet_pages
from ingest.sources.base import MAX_CLASSES, NO_CLASS, Entries, Entry, Source, label_all, numbered
from ingest.sources.folder import count_beside
from ingest.system import paths

_MAGIC = b"PAR1"
_LOCATION = np.dtype([("start", "<i8"), ("size_bytes", "<i8")])

_LEAST_ROWS, _ROW_BYTES = 2**14, 16
"""A file may always have so many rows; more only if each takes so many bytes of it, and the smallest image does."""

_LEAST_IMAGES_BYTES, _IMAGES_RATIO = 2**28, 100
"""All images of a file may always take so many bytes; more only up to so many times the file's own."""

_BATCH_ROWS, _BATCH_BYTES = 64, 2**26
"""Rows that are read at once, at most; fewer where a page is large, since each row may be all of it."""

_MAX_CONTAINER_SIZE = 10_000
"""Columns, groups of rows and the like in a footer: with 50,000 levels of columns, pyarrow's stack overflows."""

_KEY_BYTES, _LABEL_CHARACTERS = 4096, 1000

_NEEDS = "it needs the columns image (a struct of bytes and path) and label"


@dataclass(frozen=True)
class RowReader:
    """Reads rows of the files ``paths``; an entry's location is (file, group of rows, row in it, row of all)."""

    paths: tuple[Path, ...]

    def __call__(self, entry: Entry) -> Sample:
        """The bytes of a row's image. Half of its group is read for it, on average."""
        number, group, row, _ = entry.location
        path = self.paths[number]
        with _opened(path) as table:
            if group < len(table.groups):
                for data in islice(_images(table, [group]), row, None):
                    return _sample(entry, data)
        raise SourceError(f"{path}: has changed: start again", path=path)


@dataclass(frozen=True)
class ScratchReader:
    """Reads images from the file that ``_stage`` wrote; the locations of all rows lie from byte ``table_offset`` on."""

    scratch: Path
    table_offset: int

    def __call__(self, entry: Entry) -> Sample:
        """The bytes of a row's image."""
        location = paths.read(
            self.scratch, self.table_offset + _LOCATION.itemsize * entry.location[3], _LOCATION.itemsize
        )
        start, size_bytes = np.frombuffer(location, _LOCATION)[0].item()
        return _sample(entry, paths.read(self.scratch, start, size_bytes) if size_bytes >= 0 else None)


KIND = "parquet files"


def open_source(path: Path) -> Source | None:
    """The parquet file ``path``, or those in the folder ``path``; None where there are none.

    Labels are numbers or words, of one kind in all files; the names of numbers, where a file has them, are the same in
    all files. Raises SourceError where they are not, or a file is damaged or wants much more memory than it takes.
    """
    files = tuple(_files(path))
    if not files:
        return None
    _check_not_damaged(path, files)
    _check_one_split(path, files)
    schemas: list[_Schema] = []
    rows: list[_Row] = []
    groups: list[tuple[int, int, int]] = []
    for number, file in enumerate(files):
        with _opened(file) as table:
            schemas.append(_schema(table))
            for group in range(len(table.groups)):
                before = len(rows)
                rows += _rows(table, group)
                groups.append((number, group, len(rows) - before))
    _check_same_schema(files, schemas)
    names, has_words = schemas[0].names, any(schema.has_words for schema in schemas)
    classes, labels = _labelled([row.label for row in rows], names, has_words)
    locations = [(number, group, i) for number, group, count in groups for i in range(count)]
    keys = _keys([row.name for row in rows], [files[number].name for number, *_ in locations])
    entries = Entries(
        Entry(key, label, (*location, i)) for i, (key, label, location) in enumerate(zip(keys, labels, locations))
    )
    beside = count_beside(path, files, "not parquet") if path not in files else {}
    return Source(
        classes=classes,
        entries=entries,
        read=RowReader(files),
        stage=lambda scratch: _stage(files, len(rows), scratch),
        passed_over=beside,
    )


class _Table(NamedTuple):
    """A file that is open twice: for pyarrow, and for the headers of its pages."""

    path: Path
    parquet: Any
    file: BinaryIO
    groups: list[parquet_pages.Group]


class _Schema(NamedTuple):
    """What the labels of a file are: numbers, with or without names, or words; None where it says neither."""

    names: tuple[str, ...]
    has_words: bool | None


class _Row(NamedTuple):
    """A row's name, or nothing, and its label, if it has one."""

    name: str
    label: int | str | None


@contextmanager
def _opened(path: Path) -> Iterator[_Table]:
    """Within, the file at ``path`` is open, and whatever is wrong with it a SourceError."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise OptionError(f"{path}: parquet needs pyarrow: pip install 'ingest-toolkit[parquet]'", path=path) from error
    try:
        with path.open("rb") as file:
            groups = _groups(path, file)
            source = path.open("rb") if paths.is_remote(path) else path
            with ParquetFile(source, buffer_size=2**20, thrift_container_size_limit=_MAX_CONTAINER_SIZE) as parquet:
                yield _Table(path, parquet, file, groups)
    except OSError as error:
        if error.errno is None:  # pyarrow's own
            raise SourceError(f"{path}: damaged ({_line(error)}): fetch it again", path=path) from error
        raise SourceError(f"{path}: cannot be read ({error.strerror}): mend it, then start again", path=path) from error
    except (ArrowException, ValueError, KeyError, IndexError, RecursionError) as error:
        raise SourceError(f"{path}: damaged ({_line(error)}): fetch it again", path=path) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _groups(path: Path, file: BinaryIO) -> list[parquet_pages.Group]:
    size_bytes = path.stat().st_size
    groups = parquet_pages.groups(file, size_bytes)
    rows = sum(group.rows for group in groups)
    if rows > max(_LEAST_ROWS, size_bytes // _ROW_BYTES):
        raise ValueError(f"{rows:,} rows in {size_bytes:,} bytes, which no images can be")
    return groups


def _schema(table: _Table) -> _Schema:
    """What a file's labels are. Raises SourceError where its columns are others."""
    import pyarrow as pa

    schema = table.parquet.schema_arrow
    columns = dict(zip(schema.names, schema.types))
    image, label = columns.get("image", pa.null()), columns.get("label")
    fields = {field.name: field.type for field in image} if pa.types.is_struct(image) else {}
    if len(columns) < len(schema.names) or not (
        _is_bytes(fields.get("bytes")) and _is_text(fields.get("path")) and label
    ):
        has = ", ".join(f"{name} ({str(kind)[:60]})" for name, kind in [*zip(schema.names, schema.types)][:10])
        raise SourceError(f"{table.path}: {_NEEDS}, and has {has or 'none'}: write it anew with these", path=table.path)
    kind = label.value_type if pa.types.is_dictionary(label) else label
    if not (
        _is_text(kind) or any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))
    ):
        raise SourceError(
            f"{table.path}: its labels are of the type {str(label)[:60]}: write numbers or words", path=table.path
        )
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return _Schema(_class_names(table.path, schema.metadata or {}), None if pa.types.is_null(kind) else not is_number)


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return kind is not None and (types.is_binary(kind) or types.is_large_binary(kind) or types.is_null(kind))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return kind is not None and (types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind))


def _class_names(path: Path, metadata: dict[bytes, bytes]) -> tuple[str, ...]:
    """The names of the labels, which the library ``datasets`` keeps in a file's metadata; or nothing."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    if names is None:
        return ()
    if not isinstance(names, list) or not all(type(name) in (str, int) for name in names):
        raise SourceError(f"{path}: the names of its classes are no list of words: write it anew with such", path=path)
    # Whole numbers have one spelling.
    class_names = tuple(map(str, names))
    if len(set(class_names)) < len(class_names) or "" in class_names or len(class_names) > MAX_CLASSES:
        raise SourceError(f"{path}: two of its classes have one name, or one has none, or they are too many", path=path)
    return class_names


def _check_same_schema(files: Sequence[Path], schemas: Sequence[_Schema]) -> None:
    """Raise SourceError where a number does not mean the same in all files."""
    for path, schema in zip(files, schemas):
        if schema.names != schemas[0].names:
            pairs = enumerate(zip((*schemas[0].names, None), (*schema.names, None)))
            label, (name, other_name) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
            raise SourceError(
                f"{files[0]} and {path.name}: their classes' names differ "
                f"(label {label} is {name!r} and {other_name!r}): give files of one set",
                path=files[0],
            )
    kinds = {schema.has_words: path for path, schema in zip(files, schemas) if schema.has_words is not None}
    if len(kinds) > 1:
        raise SourceError(
            f"{kinds[False]} and {kinds[True].name}: labels are numbers in one, words in the other", path=kinds[False]
        )


def _rows(table: _Table, group: int) -> Iterator[_Row]:
    import pyarrow as pa

    for batch in _batches(table, group, ["image.path", "label"]):
        names = batch.column("image").field("path").cast(pa.large_binary()).to_pylist()
        for name, label in zip(names, batch.column("label").to_pylist()):
            yield _Row(_text(name or b""), _label(table.path, label))


def _text(name: bytes) -> str:
    """A name as text; nothing where it is none, or no name."""
    try:
        return name.decode() if len(name) <= _KEY_BYTES else ""
    except UnicodeDecodeError:
        return ""


def _label(path: Path, value: float | str | None) -> int | str | None:
    """A label: a whole number or a word. Raises SourceError where it is neither."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if not value.is_integer():
            raise SourceError(f"{path}: the label {value}: labels are whole numbers or words", path=path)
        return int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    word = str(value)
    if len(word) > _LABEL_CHARACTERS:
        raise SourceError(f"{path}: a label of {len(word):,} characters: labels are whole numbers or words", path=path)
    return word if word.strip() else None


def _labelled(
    values: list[int | str | None], names: tuple[str, ...], has_words: bool
) -> tuple[tuple[str, ...], list[int]]:
    """Classes, and the label of each row; NO_CLASS where it is missing or out of range."""
    if names:
        label_of = {name if has_words else label: label for label, name in enumerate(names)}
        return names, [NO_CLASS if value is None else label_of.get(value, NO_CLASS) for value in values]
    if has_words:
        words = [str(value) for value in values if value is not None]
        classes, labels = label_all(words)
        of_word = dict(zip(words, labels))
        return classes, [NO_CLASS if value is None else of_word[str(value)] for value in values]
    numbers = [v if isinstance(v, int) and 0 <= v < MAX_CLASSES else NO_CLASS for v in values]
    count = max(numbers, default=NO_CLASS) + 1
    return tuple(numbered(i, count) for i in range(count)), numbers


def _keys(names: list[str], file_names: list[str]) -> list[str]:
    """A key for each row: its name, or file and number where it has none, or others have the same."""
    counts = Counter(names)
    keys = [
        name if name and counts[name] == 1 else f"{file}#{i:08d}"
        for i, (name, file) in enumerate(zip(names, file_names))
    ]
    if len(set(keys)) < len(keys):  # a row is named as another is numbered
        return [f"{file}#{i:08d}" for i, file in enumerate(file_names)]
    return keys


def _stage(files: tuple[Path, ...], rows: int, scratch: Path) -> ScratchReader:
    """Copy all images to ``scratch``; the reader of that file. Raises OSError."""
    with scratch.open("wb") as file:
        locations = [(file.tell(), -1 if data is None else file.write(data)) for data in _all_images(files)]
        table_offset = file.tell()
        file.write(np.array(locations, _LOCATION).tobytes())
    if len(locations) != rows:
        raise SourceError(f"{files[0].parent}: has changed: start again", path=files[0].parent)
    return ScratchReader(scratch, table_offset)


def _all_images(files: tuple[Path, ...]) -> Iterator[bytes | None]:
    for path in files:
        # A bucket's file is read as a whole, so that it is better fetched at once.
        with paths.local_copy(path) as local, _opened(local) as table:
            yield from _images(table, range(len(table.groups)))


def _images(table: _Table, groups: Iterable[int]) -> Iterator[bytes | None]:
    """The images of groups of rows. Raises ValueError where they take many times what the file does."""
    left = _LEAST_IMAGES_BYTES + _IMAGES_RATIO * table.path.stat().st_size
    for group in groups:
        for batch in _batches(table, group, ["image.bytes"]):
            for data in batch.column("image").field("bytes").to_pylist():
                left -= len(data or b"")
                if left < 0:
                    raise ValueError(f"its images take over {_IMAGES_RATIO} times its own bytes")
                yield data


def _batches(table: _Table, group: int, columns: list[str]) -> Iterator[Any]:
    """The rows of a group, some at a time, of the leaves ``columns``. Raises ValueError where they want much memory."""
    left, parts = table.groups[group]
    leaves = [table.parquet.schema.column(i).path for i in range(len(table.parquet.schema))]
    if len(leaves) != len(parts):
        raise ValueError("a group of other columns than the file's")
    largest = max(parquet_pages.largest(table.file, part) for leaf, part in zip(leaves, parts) if leaf in columns)
    rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, largest)))
    for batch in table.parquet.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
        left -= len(batch)
        yield batch
    if left:
        raise ValueError("a group of other than its rows")


def _sample(entry: Entry, data: bytes | None) -> Sample:
    if entry.label == NO_CLASS:
        raise BadSampleError("its label is missing or out of range", key=entry.key)
    if data is None:
        raise BadSampleError("a row without an image", key=entry.key)
    return Sample(entry.key, entry.label, data)


def _files(path: Path) -> Iterator[Path]:
    candidates = [path] if path.is_file() else [path / name for name in paths.list_dir(path)] if path.is_dir() else []
    if paths.is_remote(path) and not path.is_file():
        candidates = [file for file in candidates if file.suffix == ".parquet"]
    return (file for file in candidates if file.is_file() and paths.start_of(file, 4) == _MAGIC)


def _check_not_damaged(path: Path, files: tuple[Path, ...]) -> None:
    """Raise SourceError where a file beside these is called parquet and is none, as one is that was not fetched."""
    beside = [path / name for name in paths.list_dir(path)] if path not in files else []
    damaged = [file for file in beside if file.suffix.lower() == ".parquet" and file not in files and file.is_file()]
    if wrong := [file for file in damaged if not ignored.rule(file.name)]:
        more = f", and {len(wrong) - 1:,} more like it" if len(wrong) > 1 else ""
        raise SourceError(
            f"{wrong[0]}: no parquet, though it is called so{more}: fetch it again, or remove it", path=wrong[0]
        )


def _check_one_split(path: Path, files: tuple[Path, ...]) -> None:
    splits = sorted({file.name.split("-")[0] for file in files})
    if len(splits) > 1 and all("-of-" in file.name for file in files):
        raise SourceError(f"{path}: more than one split ({', '.join(splits)}): give a folder of one of them", path=path)
