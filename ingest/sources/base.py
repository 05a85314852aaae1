"""What every source gives: classes, entries with keys and labels, and how to read one."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from ingest.errors import SourceError
from ingest.record import Sample

NO_CLASS = -1
"""The label of an entry that cannot be packed, such as one found outside every class; reading it says why."""


MAX_CLASSES = 1_000_000
"""Larger numbers are no labels but a mistake, and would be as many names."""


_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")


class Entry(NamedTuple):
    """One thing found in a source.

    ``key`` is its name, unique in the source; ``label`` counts from 0, or is NO_CLASS; ``location`` are numbers that
    tell the source's reader where it lies, equally many for all entries.
    """

    key: str
    label: int
    location: tuple[int, ...] = ()


class Entries(Sequence[Entry]):
    """The entries of a source, sorted by the bytes of their keys; each takes little more memory than its key.

    Sorted, so that the same images give the same shards, whatever kind of source they lie in. Raises SourceError where
    two have the same key.
    """

    def __init__(self, entries: Iterable[Entry]):
        keys, ends, labels, locations = bytearray(), array("q", [0]), array("i"), array("q")
        is_sorted, last = True, None
        for entry in entries:
            key = to_bytes(entry.key)
            is_sorted &= last is None or last < key
            last = key
            keys += key
            ends.append(len(keys))
            labels.append(entry.label)
            locations.extend(entry.location)
        self._keys, self._ends = bytes(keys), np.array(ends, np.int64)
        self._labels = np.array(labels, np.int32)
        self._locations = np.array(locations, np.int64).reshape(len(labels), -1 if locations else 0)
        if not is_sorted:
            self._sort()

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, i: int) -> Entry: ...
    @overload
    def __getitem__(self, i: slice) -> list[Entry]: ...
    def __getitem__(self, i: int | slice) -> Entry | list[Entry]:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        i = range(len(self))[i]
        key = str(self._keys[self._ends[i] : self._ends[i + 1]], "utf-8", "surrogateescape")
        return Entry(key, int(self._labels[i]), tuple(self._locations[i].tolist()))

    def _sort(self) -> None:
        keys = [self._keys[start:end] for start, end in pairwise(self._ends.tolist())]
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
        keys.sort()
        _check_unique_keys(keys)
        self._keys, self._ends = b"".join(keys), np.cumsum([0, *map(len, keys)], dtype=np.int64)
        self._labels, self._locations = self._labels[order], self._locations[order]

    def not_utf8(self) -> list[str]:
        """The keys that are not UTF-8, of entries that have a class."""
        if self._keys.isascii():  # nearly always
            return []
        ends = self._ends.tolist()
        return [
            self[i].key
            for i, (start, end) in enumerate(pairwise(ends))
            if self._labels[i] != NO_CLASS and not is_utf8(self._keys[start:end])
        ]

    def fingerprint(self, classes: tuple[str, ...]) -> str:
        """SHA-256 of all keys, labels and classes: what makes two listings the same source."""
        digest = hashlib.sha256()
        for part in (self._keys, self._ends.tobytes(), self._labels.tobytes(), *map(to_bytes, classes)):
            digest.update(len(part).to_bytes(8, "little") + part)
        return digest.hexdigest()


class Source(NamedTuple):
    """Named classes, entries labelled with their positions, and ``read``, which gives an entry's sample.

    ``read`` is sent to worker processes, so it is picklable and holds neither open files nor the entries. It raises
    BadSampleError if the entry can never be packed, SourceError if it cannot be read.

    A source that is slow to read in random order has ``stage``: it copies all of its images to the file that it is
    given, and gives what reads them there. It raises OSError where that has no room.

    ``passed_over`` counts the files that are no entries, by the rule that says so, such as ``.DS_Store``: every file
    found is an entry or counted here. ``shared_folders`` maps a class to another that holds the same folder, too.
    """

    classes: tuple[str, ...]
    entries: Entries
    read: Callable[[Entry], Sample]
    stage: Callable[[Path], Callable[[Entry], Sample]] | None = None
    passed_over: Mapping[str, int] = {}
    shared_folders: Mapping[str, str] = {}


def is_utf8(name: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def label_all(values: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """Classes, and the label of each of ``values``, as lists and label files give them.

    Where all are numbers, they are the labels, and their classes numbers of equal width, as many as the largest asks
    for; those that are no label become NO_CLASS. Else they are words, the classes, in sorted order. An empty value is
    neither: it becomes NO_CLASS.
    """
    numbers = {value: label_number(value) if value else NO_CLASS for value in set(values)}
    if any(number is None for number in numbers.values()):
        classes = tuple(sorted(filter(None, numbers), key=to_bytes))
        labels = {"": NO_CLASS, **{name: label for label, name in enumerate(classes)}}
        return classes, [labels[value] for value in values]
    count = max((number for number in numbers.values() if number is not None), default=-1) + 1
    return tuple(numbered(i, count) for i in range(count)), [numbers[value] or 0 for value in values]


def label_number(text: str) -> int | None:
    """The label that a number says, such as ``7``, ``007``, ``7.0`` or ``7e0``; None where ``text`` is a word.

    NO_CLASS for a number that is no label: a fraction, one below 0, or MAX_CLASSES and above.
    """
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return int(value) if 0 <= value < MAX_CLASSES and value.is_integer() else NO_CLASS


def numbered(i: int, count: int) -> str:
    """The name of number ``i`` of ``count``: all are of the same width, so that they sort as numbers do."""
    return f"{i:0{len(str(max(count - 1, 0)))}d}"


def _check_unique_keys(keys: list[bytes]) -> None:
    for first, second in pairwise(keys):
        if first == second:
            name = str(first, "utf-8", "backslashreplace")
            raise SourceError(
                f"two images have the key {name!r}: a key must name one image; rename or remove one",
                key=str(first, "utf-8", "surrogateescape"),
            )


def to_bytes(text: str) -> bytes:
    """A name as bytes: those that it had in the file system, where it comes from there."""
    # Names of files have surrogates for bytes that are not UTF-8; other texts may hold any.
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
