"""The columns of a batch: for each image its pixels, its label, and what else is asked for.

To add a column, add it to COLUMNS. A field of the record is a column without more ado.
"""

from __future__ import annotations

import copyreg
import math
import mmap
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ingest.errors import RecordError
from ingest.record import FIELDS, FieldInfo, Record


class Row(NamedTuple):
    """An image of a batch: its record, and the record's number in the dataset."""

    record: Record
    number: int


class Column(NamedTuple):
    """A column besides the images, [N]: its type, ``object`` for text, and its value in a row."""

    dtype: type
    value: Callable[[Row], Any]


def _of_field(field: FieldInfo) -> Column:
    def value(row: Row) -> Any:
        content = getattr(row.record, field.name)
        if content is None:
            raise RecordError(f"it has no {field.name}: it was packed by a version that did not write it")
        return content

    return Column(np.int64 if field.kind is int else object, value)


COLUMNS: dict[str, Column] = {
    **{field.name: _of_field(field) for field in FIELDS if field.kind is not bytes},
    "labels": Column(np.int32, lambda row: row.record.label),
    "number": Column(np.int64, lambda row: row.number),
}
"""All columns but the images, by name: what ``fields=`` may ask for, and the labels."""

ALWAYS = ("images", "labels")


class Batch(tuple[np.ndarray, ...]):
    """The columns of a batch, in their order: it unpacks into them, and has each by its name.

    ``images`` are uint8 [N, S, S, C] in RGB or grey, ``labels`` int32 [N].
    """

    images: np.ndarray
    labels: np.ndarray

    def __new__(cls, columns: Mapping[str, np.ndarray]) -> Batch:  # noqa: D102
        batch = super().__new__(cls, columns.values())
        batch.__dict__.update(columns)
        return batch

    def asdict(self) -> dict[str, np.ndarray]:
        """The columns by name."""
        return dict(self.__dict__)

    def __reduce__(self) -> Any:
        return Batch, (self.asdict(),)


_TUPLES: dict[tuple[str, ...], Any] = {}


def tuple_of(names: tuple[str, ...]) -> Any:
    """The class of named tuples of the columns ``names``, one for each: unlike a Batch, frameworks can take these apart
    and put them together again."""
    if names not in _TUPLES:
        kind = namedtuple("Batch", names)  # type: ignore[misc]  # the names are known now
        copyreg.pickle(kind, _reduce)  # by its names: it is no attribute of this module
        _TUPLES.setdefault(names, kind)  # another thread may have been first
    return _TUPLES[names]


def _reduce(batch: Any) -> Any:
    return _restore, (batch._fields, tuple(batch))


def _restore(names: tuple[str, ...], columns: tuple[Any, ...]) -> Any:
    return tuple_of(names)(*columns)


class Layout:
    """Which columns a batch has and how they lie in memory: each on pages of its own, text in none.

    ``shape`` is that of the images, (N, S, S, C).
    """

    def __init__(self, shape: tuple[int, ...], fields: Iterable[str] = ()):
        self.names = self.names_of(fields)
        self.shape = shape
        self._arrays: dict[str, tuple[Any, tuple[int, ...]]] = {"images": (np.uint8, shape)}
        for name in self.names[1:]:
            if COLUMNS[name].dtype is not object:
                self._arrays[name] = COLUMNS[name].dtype, shape[:1]

    @staticmethod
    def names_of(fields: Iterable[str]) -> tuple[str, ...]:
        """The columns of a batch that has these ``fields``, in their order."""
        return (*ALWAYS, *fields)

    @property
    def size_bytes(self) -> int:
        """What a batch takes, in bytes: whole pages."""
        return sum(map(self._bytes, self._arrays))

    def text(self) -> list[str]:
        """The columns that are text."""
        return [name for name in self.names if name not in self._arrays]

    def arrays(self, memory: Any, start: int = 0) -> dict[str, np.ndarray]:
        """The columns in ``memory`` from byte ``start`` on, flat."""
        arrays = {}
        for name, (dtype, shape) in self._arrays.items():
            # frombuffer, so that every view that a consumer takes refers to this array and keeps it alive.
            arrays[name] = np.frombuffer(memory, dtype, math.prod(shape), start)
            start += self._bytes(name)
        return arrays

    def empty(self) -> dict[str, np.ndarray]:
        """The same, in memory of their own."""
        return {name: np.empty(math.prod(shape), dtype) for name, (dtype, shape) in self._arrays.items()}

    def _bytes(self, name: str) -> int:
        dtype, shape = self._arrays[name]
        # Whole pages also keep the images aligned to 64 bytes, which TensorFlow needs to take them without a copy.
        return -(-math.prod(shape) * np.dtype(dtype).itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
