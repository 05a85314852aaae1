"""Which kind of source a path is: each module of a kind is asked in turn.

Such a module holds ``KIND``, its words in messages, and

    open_source(path)            a Source, or None where ``path`` is something else, by its content and not its name
    open_labelled(path, labels)  the same of images whose labels lie in another file; only where the kind has such

Both raise SourceError for what is of the kind and cannot be read.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, cast

from ingest import formats
from ingest.errors import SourceError
from ingest.sources.base import Source, is_utf8, to_bytes
from ingest.system import paths

_MODULES = ("idx", "parquet", "tar", "listing", "folder")
"""The kinds, in the order in which they are asked: a folder of classes may hold anything, so that it comes last."""

_is_shard = re.compile(rf"\d{{5,}}-of-\d{{5,}}\.({'|'.join(formats.NAMES)})").fullmatch
_DATASET_FILES, _DATASET_FIELDS = ("manifest.json", "build.json"), {"format", "shards", "encoding", "seed"}
_MAX_JSON_BYTES = 2**26


class _Kind(Protocol):
    KIND: str
    open_source: Callable[[Path], Source | None]
    open_labelled: Callable[[Path, Path], Source | None]


def open_source(path: str | Path, labels: str | Path | None = None) -> Source:
    """List the source at ``path``, with the ``labels`` of one that has none itself.

    Raises SourceError where there is none, or nothing in it; where it is a dataset; where files cannot be read; where
    names are not UTF-8.
    """
    path = paths.parse_path(path)
    try:
        if not path.exists() and not path.is_symlink():
            raise SourceError(f"{path}: no such file or folder", path=path)
        _check_not_dataset(path)
        source = _labelled(path, paths.parse_path(labels)) if labels is not None else _detect(path)
    except OSError as error:
        raise SourceError(
            f"{error.filename or path}: cannot be read ({error.strerror or error})", path=error.filename or path
        ) from error
    if source is None:
        raise SourceError(f"{path}: not a source; give {kinds()}", path=path)
    if not source.entries:
        raise SourceError(f"{path}: no images in it; a source is {kinds()}", path=path)
    _check_utf8_names(path, source)
    return source


def kinds() -> str:
    """What a source can be, in words."""
    *most, last = [kind.KIND for kind in reversed(_load())]
    return f"{', '.join(most)}, or {last}"


def _load() -> list[_Kind]:
    return [cast(_Kind, importlib.import_module(f"{__package__}.{name}")) for name in _MODULES]


def _detect(path: Path) -> Source | None:
    return next((source for kind in _load() if (source := kind.open_source(path))), None)


def _labelled(path: Path, labels: Path) -> Source:
    able = [kind for kind in _load() if hasattr(kind, "open_labelled")]
    source = next((source for kind in able if (source := kind.open_labelled(path, labels))), None)
    if source is None:
        raise SourceError(f"{path}: labels are for a tar or a folder of images without class folders", path=path)
    return source


def _check_not_dataset(path: Path) -> None:
    """Raise SourceError where ``path`` is a dataset, a shard, or a folder that holds datasets."""
    if (folder := _shards_at(path)) is not None:
        raise SourceError(
            f"{path}: these are shards already, not photographs: train from {folder}, look into it with "
            "'ingest inspect', or write it in the other format with 'ingest convert'",
            path=path,
        )


def _shards_at(path: Path) -> Path | None:
    """The folder of the dataset, finished or not, that ``path`` is, belongs to or holds; None where there is none."""
    if _is_shard(path.name) and path.is_file():
        return path.parent
    if not path.is_dir():
        return None
    if paths.is_remote(path):  # to look around there is slow
        return path if _is_dataset(path) else None
    if _is_dataset(path) or any(map(_is_shard, paths.list_dir(path))):
        return path
    within = sorted(file.parent for file in path.glob(f"*/{_DATASET_FILES[0]}"))
    return next(filter(_is_dataset, within), None)


def _is_dataset(folder: Path) -> bool:
    """Whether there is a manifest or a recipe; photographs may lie beside other files of these names."""
    for path in (folder / name for name in _DATASET_FILES):
        with suppress(ValueError, RecursionError):
            if path.is_file() and (content := json.loads(paths.start_of(path, _MAX_JSON_BYTES))):
                return isinstance(content, dict) and content.keys() >= _DATASET_FIELDS
    return False


def _check_utf8_names(path: Path, source: Source) -> None:
    """Raise SourceError where a class, or an entry of one, has a name that is not UTF-8: no record can hold it."""
    odd = [name for name in source.classes if not is_utf8(to_bytes(name))] + source.entries.not_utf8()
    if odd:
        first = to_bytes(odd[0]).decode("utf-8", "backslashreplace")
        count = "1 name is" if len(odd) == 1 else f"{len(odd):,} names are"
        raise SourceError(
            f"{path}: {count} not UTF-8, such as '{first}': rename them, for example with convmv", path=path
        )
