"""Parquet files as datasets are published today: a row an image, columns ``image{bytes, path}`` and ``label``.

Rows lie in compressed groups of hundreds, while packing wants them in random order: so their images are first copied,
in sequence, to a scratch file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ingest import files
from ingest.errors import BadSampleError, OptionError, SourceError
from ingest.sample import Sample
from ingest.sources import NO_CLASS, Entries, Entry, Source, label_all

_MAGIC = b"PAR1"
_ROWS_A_BATCH = 64
_PLACE = np.dtype([("start", "<i8"), ("size_bytes", "<i8")])


@dataclass(frozen=True)
class RowReader:
    """Reads rows of the files ``paths``; an entry is at (file, group of rows, row in it, row of all)."""

    paths: tuple[Path, ...]

    def __call__(self, entry: Entry) -> Sample:
        """The bytes of a row's image. The whole group is read for it."""
        path, group, row, _ = entry.at
        return _sample(entry, _group(self.paths[path], group)[row])


@dataclass(frozen=True)
class ScratchReader:
    """Reads images from the file that ``_stage`` wrote, where the places of all rows lie from byte ``table_at`` on."""

    scratch: Path
    table_at: int

    def __call__(self, entry: Entry) -> Sample:
        """The bytes of a row's image."""
        place = files.read(self.scratch, self.table_at + _PLACE.itemsize * entry.at[3], _PLACE.itemsize)
        start, size_bytes = np.frombuffer(place, _PLACE)[0].item()
        return _sample(entry, files.read(self.scratch, start, size_bytes) if size_bytes >= 0 else None)


def open_parquet(path: Path) -> Source | None:
    """The parquet file ``path``, or those in the folder ``path``; None where there are none."""
    paths = tuple(_files(path))
    if not paths:
        return None
    _refuse_splits(path, paths)
    keys, labels, places = [], [], []
    row = 0
    for number, file in enumerate(paths):
        with _opened(file) as table:
            for group in range(table.num_row_groups):
                columns = table.read_row_group(group, columns=["image.path", "label"])
                names = columns.column("image").combine_chunks().field("path").to_pylist()
                values = columns.column("label").to_pylist()
                keys += [name or f"{file.name}#{row + i:08d}" for i, name in enumerate(names)]
                labels += [str(-1 if value is None else value) for value in values]
                places += [(number, group, i, row + i) for i in range(len(names))]
                row += len(names)
    names = _class_names(paths[0])
    classes, numbers = label_all(labels)
    if names:
        classes, numbers = names, [label if label < len(names) else NO_CLASS for label in numbers]
    entries = Entries(Entry(*entry) for entry in zip(keys, numbers, places))
    return Source(classes, entries, RowReader(paths), lambda scratch: _stage(paths, scratch))


def _stage(paths: tuple[Path, ...], scratch: Path) -> ScratchReader:
    """Copy all images to ``scratch``; the reader of that file. Raises OSError."""
    with scratch.open("wb") as file:
        places = [(file.tell(), -1 if data is None else file.write(data)) for data in _images(paths)]
        table_at = file.tell()
        file.write(np.array(places, _PLACE).tobytes())
    return ScratchReader(scratch, table_at)


def _images(paths: tuple[Path, ...]) -> Iterator[bytes | None]:
    for path in paths:
        with _opened(path) as table:
            for batch in table.iter_batches(_ROWS_A_BATCH, columns=["image.bytes"]):
                yield from batch.column("image").field("bytes").to_pylist()


@lru_cache(maxsize=1)
def _group(path: Path, group: int) -> list[bytes | None]:
    with _opened(path) as table:
        return (
            table.read_row_group(group, columns=["image.bytes"])
            .column("image")
            .combine_chunks()
            .field("bytes")
            .to_pylist()
        )


def _sample(entry: Entry, data: bytes | None) -> Sample:
    if entry.label == NO_CLASS:
        raise BadSampleError("its label is missing or out of range")
    if data is None:
        raise BadSampleError("a row without an image")
    return Sample(entry.key, entry.label, data)


def _class_names(path: Path) -> tuple[str, ...]:
    """The names of the labels, which the library ``datasets`` keeps in a file's metadata; or nothing."""
    with _opened(path) as table:
        metadata = (table.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        return tuple(json.loads(metadata)["info"]["features"]["label"]["names"])
    except (ValueError, KeyError, TypeError):
        return ()


def _opened(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise OptionError(f"{path}: parquet needs pyarrow: pip install 'ingest-toolkit[parquet]'") from error
    try:
        table = ParquetFile(path.open("rb") if files.is_remote(path) else path)
        image = table.schema_arrow.field("image").type
        if table.schema_arrow.get_field_index("label") < 0 or {image.field(i).name for i in range(2)} != {
            "bytes",
            "path",
        }:
            raise KeyError("image")
    except ArrowException as error:
        raise SourceError(f"{path}: damaged ({error}): fetch it again") from error
    except (KeyError, IndexError, ValueError) as error:
        raise SourceError(f"{path}: it needs the columns image (a struct of bytes and path) and label") from error
    return table


def _files(path: Path) -> Iterator[Path]:
    found = [path] if path.is_file() else [path / name for name in files.names_in(path)] if path.is_dir() else []
    if files.is_remote(path) and not path.is_file():
        found = [file for file in found if file.suffix == ".parquet"]
    return (file for file in found if file.is_file() and files.read(file, 0, 4) == _MAGIC)


def _refuse_splits(path: Path, paths: tuple[Path, ...]) -> None:
    splits = sorted({file.name.split("-")[0] for file in paths})
    if len(splits) > 1 and all("-of-" in file.name for file in paths):
        raise SourceError(f"{path}: more than one split ({', '.join(splits)}): give a folder of one of them")
