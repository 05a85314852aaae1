"""Which kind of source a path is."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

from ingest.errors import SourceError
from ingest.sources.base import Source, is_utf8, to_bytes
from ingest.system import paths

# How a dataset is known, which is no source.
_is_shard = re.compile(r"\d{5,}-of-\d{5,}\.(tfrecord|lmdb)").fullmatch


_DATASET_FILES, _DATASET_FIELDS = ("manifest.json", "build.json"), {"format", "shards", "encoding", "seed"}


_GLANCE_BYTES = 2**26


_KINDS = (
    "a folder of CLASS/IMAGE files, a tar or a folder of tars, a list of paths and labels, parquet files, "
    "or IDX files such as MNIST's"
)


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
        source = _labelled(path, paths.parse_path(labels)) if labels is not None else _known(path)
    except OSError as error:
        raise SourceError(
            f"{error.filename or path}: cannot be read ({error.strerror or error})", path=error.filename or path
        ) from error
    if source is None:
        raise SourceError(f"{path}: not a source; give {_KINDS}", path=path)
    if not source.entries:
        raise SourceError(f"{path}: no images in it; a source is {_KINDS}", path=path)
    _check_utf8_names(path, source)
    return source


def _known(path: Path) -> Source | None:
    """The source at ``path``, by what it is; a folder of classes may hold anything, so that it comes last."""
    from ingest.sources import folder, idx, listing, parquet, tar

    return (
        idx.open_idx(path)
        or parquet.open_parquet(path)
        or tar.open_tar(path, None)
        or listing.open_list(path)
        or folder.open_folder(path)
    )


def _labelled(path: Path, labels: Path) -> Source | None:
    from ingest.sources import listing, tar

    source = tar.open_tar(path, labels) or listing.open_labelled(path, labels)
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
            if path.is_file() and (content := json.loads(paths.start_of(path, _GLANCE_BYTES))):
                return isinstance(content, dict) and content.keys() >= _DATASET_FIELDS
    return False


def _check_utf8_names(path: Path, source: Source) -> None:
    """Raise SourceError where a class, or an entry of one, has a name that is not UTF-8: no record can hold it."""
    odd = [name for name in source.classes if not is_utf8(to_bytes(name))] + source.entries.not_utf8()
    if odd:
        first = to_bytes(odd[0]).decode("utf-8", "backslashreplace")
        what = "1 name is" if len(odd) == 1 else f"{len(odd):,} names are"
        raise SourceError(
            f"{path}: {what} not UTF-8, such as '{first}': rename them, for example with convmv", path=path
        )
