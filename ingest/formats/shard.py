"""A shard of any format: written whole, read at random, checked."""

from __future__ import annotations

import importlib
import mmap
import pkgutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import numpy as np
from crc32c import crc32c

from ingest.errors import RecordError
from ingest.formats.index import (
    RecordLocation,
    decode_index,
    encode_index,
    index_bytes,
    index_path,
    load_index,
)
from ingest.record import Buffer
from ingest.system import atomic, paths

_COMMON = ("index", "shard")

NAMES = tuple(
    sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name not in _COMMON)
)
"""All formats: every other module beside this one. A shard file's suffix is its format's name."""


_WRONG_SUM = "its data do not match their checksum"


class Written(NamedTuple):
    """Size and SHA-256 of a shard that was written."""

    size_bytes: int
    sha256: str


class ShardFault(NamedTuple):
    """Something wrong in a shard: in which record and from which byte of the file on, where that is known."""

    record: int | None
    byte: int | None
    problem: str


class Format(Protocol):
    """What a module of a format holds. A file's bytes are a function of its payloads alone.

    ``write(path, payloads)`` writes a file of any number of payloads, bytes each; OSError if that fails.

    ``find(data)`` gives the location of each payload in a file's bytes, in order, by what the format itself says;
    RecordError, which says what is wrong and at which byte, where it is damaged.

    ``fits(data, index)`` tells whether an index has the locations that the format itself says, as far as that can be
    told without reading the payloads.

    ``LOCAL_BECAUSE`` says why its files can be on local disks alone. Where it is None they may be remote: then
    ``frame(location)`` gives the slice of the file that holds a payload with what the format writes around it, and
    ``framed(frame, location)`` the payload in it, or None where the frame is not sound.
    """

    LOCAL_BECAUSE: str | None
    write: Callable[[Path, Iterable[bytes]], None]
    find: Callable[[memoryview], Iterator[RecordLocation]]
    fits: Callable[[memoryview | paths.RemoteFile, np.ndarray], bool]
    frame: Callable[[RecordLocation], slice]
    framed: Callable[[Buffer, RecordLocation], Buffer | None]


class Shard:
    """A shard open for reading: mapped into memory, or remote. Buffers that ``get`` gave are valid until ``close``."""

    def __init__(self, data: memoryview | paths.RemoteFile, index: np.ndarray):
        self._data, self._index = data, index
        self.is_mapped = isinstance(data, memoryview)
        self._map = data.obj if isinstance(data, memoryview) and isinstance(data.obj, mmap.mmap) else None
        self._is_checked = bytearray(len(index))

    def __len__(self) -> int:
        return len(self._index)

    def get(self, i: int) -> Buffer:
        """Record ``i`` as a view of the file. Raises RecordError where it does not match its checksum.

        That is checked when the record is first asked for: what was read from the disk does not change in memory.
        """
        payload = self.unchecked(i)
        if not self._is_checked[i]:
            if crc32c(payload) != self.location(i).crc:
                raise RecordError(_WRONG_SUM, record=i)
            self._is_checked[i] = True
        return payload

    def unchecked(self, i: int) -> Buffer:
        """Record ``i`` as it is. Raises RecordError where its file has been cut short since it was opened."""
        offset, size_bytes, _ = self.location(i)
        return self._bytes(slice(offset, offset + size_bytes))

    def location(self, i: int) -> RecordLocation:
        """Where record ``i`` lies."""
        return RecordLocation(*self._index[i].item())

    def close(self) -> None:
        """Let go of the file; it is unmapped when nobody holds a view of it any more."""
        self._data, self._map = memoryview(b""), None

    def _bytes(self, part: slice) -> Buffer:
        # Beyond the end of its file, mapped memory kills the process that reads it.
        if self._map is not None and self._map.size() < len(self._data):
            raise RecordError(f"the file was cut short while it was read, to {self._map.size()} bytes")
        return self._data[part]


class _Fetched(Shard):
    """A shard of a remote dataset: no index is trusted; a record counts if the format's own frame around it says so."""

    def __init__(self, kind: Format, data: memoryview | paths.RemoteFile, index: np.ndarray):
        super().__init__(data, index)
        self._kind = kind

    def get(self, i: int) -> Buffer:
        """Record ``i``. A remote one is checked whenever it is read, and read again where it is not right."""
        return self.unchecked(i) if self._is_checked[i] else self._framed(i)

    def _framed(self, i: int) -> Buffer:
        location, last = self.location(i), None
        for pause in (None,) if self.is_mapped else (*paths.pauses(), None):
            frame = self._bytes(self._kind.frame(location))
            payload = self._kind.framed(frame, location)
            if payload is not None and crc32c(payload) == location.crc:
                self._is_checked[i] = self.is_mapped
                return payload
            if pause is None or frame == last:
                break
            last = frame
            time.sleep(pause)
        raise RecordError(_WRONG_SUM, record=i)


def load(name: str) -> Format:
    """The module of the format ``name``, one of NAMES; its library is imported only now."""
    return cast(Format, importlib.import_module(f"{__package__}.{name}"))


def remote_formats() -> list[str]:
    """The formats whose shards can be remote."""
    return [name for name in NAMES if load(name).LOCAL_BECAUSE is None]


def write(name: str, path: Path, payloads: Iterable[bytes]) -> Written:
    """Write a shard and its index in the format ``name``, each whole or not at all. Raises OSError."""
    kind = load(name)
    with atomic.replacing(path) as temporary:
        kind.write(temporary, payloads)
        index = encode_index(kind.find(mapped(temporary)))
        written = Written(temporary.stat().st_size, paths.sha256(temporary))
    atomic.write(index_path(path), index)
    return written


def open(name: str, path: Path) -> Shard:
    """Open a shard of the format ``name``. An index that is missing, damaged or another file's is made again.

    Raises OSError, or RecordError where there is no index and the file's own structure is damaged.
    """
    return Shard(*_opened(name, path))


def open_copy(name: str, path: Path) -> Shard:
    """Open the local copy of a remote shard. Raises what ``open`` does."""
    return _Fetched(load(name), *_opened(name, path))


def _opened(name: str, path: Path) -> tuple[memoryview, np.ndarray]:
    data = mapped(path)
    index = load_index(path, len(data))
    if index is None or not load(name).fits(data, index):
        content = encode_index(load(name).find(data))
        # A dataset that cannot be written to is read all the same.
        with suppress(OSError):
            atomic.write(index_path(path), content)
        index = decode_index(content)
    return data, cast(np.ndarray, index)


def open_remote(name: str, path: Path, size_bytes: int, records: int) -> Shard:
    """Open a remote shard; each record is fetched when it is read. Raises RecordError for its index, RemoteError."""
    try:
        content = paths.read(index_path(path), 0, index_bytes(records) + 1)
    except FileNotFoundError as error:
        raise RecordError(f"its index {index_path(path).name} is missing", path=index_path(path)) from error
    index = decode_index(content) if len(content) == index_bytes(records) else None
    data = paths.RemoteFile(path, size_bytes)
    if index is None or not load(name).fits(data, index):
        raise RecordError(f"its index {index_path(path).name} is damaged, or of another shard", path=index_path(path))
    return _Fetched(load(name), data, index)


def find_faults(name: str, path: Path) -> Iterator[ShardFault]:
    """Everything wrong in a shard that its checksums, its own structure and its index tell. Raises OSError.

    An index that cannot be read is none of these faults: ``load_index`` tells.
    """
    data = mapped(path)
    index = load_index(path, len(data))
    indexed = [RecordLocation(*row) for row in index.tolist()] if index is not None else []
    record = 0
    try:
        for location in load(name).find(data):
            expected = location if index is None else indexed[record] if record < len(indexed) else None
            # A format without checksums says of damaged data what they are now.
            if not _is_sound(data, location) or (
                expected and location[:2] == expected[:2] and not _is_sound(data, expected)
            ):
                yield ShardFault(record, location.offset, _WRONG_SUM)
            elif location != expected:
                yield ShardFault(record, location.offset, "its place or checksum is not what the index says")
            record += 1
    except RecordError as error:
        yield ShardFault(record, indexed[record].offset if record < len(indexed) else None, str(error))
        # Behind a break in the structure only the index knows where records lie.
        for i in range(record + 1, len(indexed)):
            if not _is_sound(data, indexed[i]):
                yield ShardFault(i, indexed[i].offset, _WRONG_SUM)
        return
    if record < len(indexed):
        yield ShardFault(record, indexed[record].offset, f"the index has {len(indexed)} records, the shard {record}")


def _is_sound(data: memoryview, location: RecordLocation) -> bool:
    return crc32c(data[location.offset : location.offset + location.size_bytes]) == location.crc


def rewrite_index(name: str, path: Path) -> bool:
    """Make the index of a sound shard again; whether it was another before."""
    content = encode_index(load(name).find(mapped(path)))
    with suppress(OSError):
        if paths.read_small(index_path(path), len(content)) == content:
            return False
    atomic.write(index_path(path), content)
    return True


def mapped(path: Path) -> memoryview:
    """The bytes of a regular file, mapped into memory. Raises OSError."""
    with paths.open_regular(path) as file:
        # Nothing cannot be mapped.
        is_empty = file.seek(0, 2) == 0
        return memoryview(b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
