"""MNIST's IDX files: images and labels, gzipped or not.

The format (LeCun, "The MNIST database of handwritten digits"): two zero bytes, a type (8 is uint8), the number of
dimensions, each dimension as a big-endian uint32, then the data.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from ingest.errors import SourceError
from ingest.record import Sample
from ingest.sources.base import Entries, Entry, Source, label_all, numbered
from ingest.sources.folder import count_beside
from ingest.system import paths

_MAX_PIXELS = 2**26
"""Of an image: as of a JPEG."""

_LEAST_BYTES, _LEAST_LABELS, _RATIO = 2**26, 2**20, 100
"""A gzipped file may always unpack to so many bytes or labels; to more only up to so many times its own bytes."""

_UINT8 = b"\0\0\x08"
_GZIP = b"\x1f\x8b"
_LABELS, _GREY, _COLOUR = 1, 3, 4
_MAX_REMOTE_FILES = 32


class _Idx(NamedTuple):
    path: Path
    shape: tuple[int, ...]


class IdxReader:
    """Reads the images of an IDX file; an entry's key is its number. A process reads the file once."""

    def __init__(self, images: _Idx):
        self._images = images

    def __call__(self, entry: Entry) -> Sample:
        """The pixels of an image, uint8 [H, W, 1 or 3]."""
        return Sample(entry.key, entry.label, self._pixels[int(entry.key)])

    @cached_property
    def _pixels(self) -> np.ndarray:
        pixels = _read(self._images)
        return pixels if pixels.ndim == _COLOUR else pixels[..., None]

    def __getstate__(self) -> dict[str, object]:
        # A worker process reads the pixels itself rather than have them sent.
        return {name: value for name, value in vars(self).items() if name != "_pixels"}


KIND = "IDX files such as MNIST's"


def open_source(path: Path) -> Source | None:
    """The pair whose images file is ``path``, or the one pair in the folder ``path``; None where there is no IDX file.

    Classes are the numbers 0 to the largest label, keys the images' numbers. Raises SourceError where images and labels
    do not fit, or are cut short, or a folder holds several pairs.
    """
    if path.is_file():
        images = _read_header(path)
        return images and _pair(images, _labels_of(images))
    pictures = [idx for idx in _all_in(path) if len(idx.shape) != _LABELS] if path.is_dir() else []
    if not pictures:
        return None
    if len(pictures) > 1:
        names = ", ".join(idx.path.name for idx in pictures)
        raise SourceError(f"{path}: more than one IDX images file ({names}): give the one to pack", path=path)
    labels = _labels_of(pictures[0])
    beside = count_beside(path, (pictures[0].path, labels.path), "not the IDX images or their labels")
    return _pair(pictures[0], labels)._replace(passed_over=beside)


def _pair(images: _Idx, labels: _Idx) -> Source:
    _check_size(images)
    classes, values = label_all([str(label) for label in _read(labels)])
    entries = Entries(Entry(numbered(i, len(values)), label) for i, label in enumerate(values))
    return Source(classes, entries, IdxReader(images))


def _labels_of(images: _Idx) -> _Idx:
    if len(images.shape) == _LABELS:
        raise SourceError(f"{images.path}: these are IDX labels; give the images file beside it", path=images.path)
    if len(images.shape) == _COLOUR and images.shape[3] not in (1, 3):
        raise SourceError(f"{images.path}: {images.shape[3]} channels; 1 and 3 can be packed", path=images.path)
    if 0 in images.shape[1:]:
        raise SourceError(f"{images.path}: images of {images.shape[1:]} pixels", path=images.path)
    if math.prod(images.shape[1:3]) > _MAX_PIXELS:
        raise SourceError(
            f"{images.path}: images of {images.shape[1:]} pixels, more than the limit of {_MAX_PIXELS}",
            path=images.path,
        )
    labels = [idx for idx in _all_in(images.path.parent) if len(idx.shape) == _LABELS]
    name = images.path.name.replace("images", "labels").replace("idx3", "idx1")
    same_name = [idx for idx in labels if idx.path.name == name]
    fitting = same_name or [idx for idx in labels if _stem(idx.path.name) == _stem(name)] or labels
    if len(fitting) != 1:
        raise SourceError(
            f"{images.path}: {len(fitting)} IDX labels files beside it; it needs one, named {name}", path=images.path
        )
    if fitting[0].shape[0] != images.shape[0]:
        raise SourceError(
            f"{fitting[0].path}: {fitting[0].shape[0]} labels for the {images.shape[0]} images of {images.path.name}",
            path=fitting[0].path,
        )
    return fitting[0]


def _all_in(folder: Path) -> list[_Idx]:
    files = sorted(folder.iterdir())
    # A look into each file of a bucket would take for ever, and IDX files come in fours.
    if paths.is_remote(folder) and len(files) > _MAX_REMOTE_FILES:
        return []
    return [idx for path in files if path.is_file() and (idx := _read_header(path))]


def _read_header(path: Path) -> _Idx | None:
    """Path and shape of an IDX file of bytes, or None where ``path`` is something else."""
    try:
        with _open(path) as file:
            if file.read(3) != _UINT8:
                return None
            dimensions = file.read(1)[0]
            if dimensions not in (_LABELS, _GREY, _COLOUR):
                return None
            return _Idx(path, struct.unpack(f">{dimensions}I", file.read(4 * dimensions)))
    except (OSError, EOFError, IndexError, struct.error, zlib.error):
        return None


def _check_size(idx: _Idx) -> None:
    """Raise SourceError where a file cannot hold what its header says: before memory is asked for."""
    size_bytes = idx.path.stat().st_size
    needed_bytes = 4 + 4 * len(idx.shape) + math.prod(idx.shape)
    if paths.start_of(idx.path, 2) == _GZIP:
        least = _LEAST_LABELS if len(idx.shape) == _LABELS else _LEAST_BYTES
        if needed_bytes > max(least, _RATIO * size_bytes):
            raise SourceError(
                f"{idx.path}: {size_bytes:,} bytes that unpack to {needed_bytes:,}: unpack it yourself", path=idx.path
            )
    elif needed_bytes != size_bytes:
        raise SourceError(
            f"{idx.path}: {size_bytes:,} bytes, and its header asks for {needed_bytes:,}: fetch it again", path=idx.path
        )


def _read(idx: _Idx) -> np.ndarray:
    _check_size(idx)
    try:
        with _open(idx.path) as file:
            file.seek(4 + 4 * len(idx.shape))
            size_bytes = math.prod(idx.shape)
            data = file.read(size_bytes)
            has_more = bool(file.read(1))
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{idx.path}: cannot be read ({error}): fetch it again", path=idx.path) from error
    if len(data) != size_bytes or has_more:
        amount = "more than" if has_more else f"{len(data)} of"
        raise SourceError(
            f"{idx.path}: {amount} its {size_bytes} bytes of data are there: fetch it again", path=idx.path
        )
    return np.frombuffer(data, np.uint8).reshape(idx.shape)


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
        file.seek(0)
        if not zipped:
            yield file
            return
        with gzip.open(file) as unzipped:
            yield cast(BinaryIO, unzipped)


def _stem(name: str) -> str:
    return name.removesuffix(".gz")
