"""A finished dataset, open for reading: record i of all its shards, and where it lies.

It may come from anywhere: the manifest is checked before anything is opened, each record before it is first shown.
"""

from __future__ import annotations

import stat
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from ingest import formats
from ingest.dataset import cache
from ingest.dataset.manifest import Manifest, Shard, load_manifest
from ingest.dataset.record_check import check_record
from ingest.errors import IngestError, RecordError, fields_of
from ingest.record import Buffer, Record, parse, try_read_key
from ingest.system import paths

_SHOWN = 1000
"""Characters of a key in an error: one that is no record's may be of any length."""


class Dataset:
    """The records of the dataset in ``folder``, numbered from 0 in packed order.

    Shards are opened when first read, and belong to the process that did. Raises ManifestError or RecordError where the
    manifest is unusable, or a shard is missing or not of the size that the manifest says.
    """

    def __init__(self, folder: str | Path):
        _allow_many_files()
        self.folder = paths.parse_path(folder)
        again = "put it there again" if paths.is_remote(self.folder) else "build the dataset again"
        self._remedy = f"mend it with 'ingest verify {self.folder} --repair SRC', or {again}"
        self.manifest: Manifest = load_manifest(folder)
        self._ends = list(accumulate(shard.records for shard in self.manifest.shards))
        self._open: dict[int, formats.Shard] = {}
        self._is_checked: dict[int, bytearray] = {}  # of each open shard, its records
        self._suspected: set[int] = set()  # shards whose copies in the cache were looked at, or fetched again
        if paths.is_remote(self.folder) and (reason := formats.load(self.manifest.format).LOCAL_BECAUSE):
            others = " or ".join(formats.remote_formats())
            raise RecordError(f"{self.folder}: {reason}: convert the dataset to {others}", path=self.folder)
        self.check_sizes()
        for number, shard in enumerate(self.manifest.shards):
            if not shard.records:
                self._shard(number)  # which no record will open: it may have some all the same

    def __len__(self) -> int:
        return self.manifest.records

    def __getitem__(self, i: int) -> Record:
        """Record ``i``. What it holds are views of the mapped file, which last as long as this dataset does.

        Raises RecordError, naming shard and record, where it is damaged or none of this dataset (record_check.py).
        """
        number, i_in_shard = self._locate(i)
        try:
            record = parse(self._payload(number, i_in_shard))
            self._check(number, i_in_shard, record)
            return record
        except RecordError as error:
            raise self.describe(i, error) from error

    def payload(self, i: int) -> bytes:
        """Record ``i`` as it lies in its shard. Raises RecordError, naming shard and record."""
        try:
            return bytes(self.view(i))
        except RecordError as error:
            raise self.describe(i, error) from error

    def view(self, i: int) -> Buffer:
        """Record ``i`` as it lies in its shard, not copied. Raises RecordError, without saying which record it is."""
        number, i_in_shard = self._locate(i)
        payload = self._payload(number, i_in_shard)
        if not self._is_checked[number][i_in_shard]:
            self._check(number, i_in_shard, parse(payload))
        return payload

    def _check(self, number: int, i_in_shard: int, record: Record) -> None:
        if not self._is_checked[number][i_in_shard]:
            check_record(record, self.manifest)
            # Once, like its checksum: what was read from the disk does not change in memory.
            self._is_checked[number][i_in_shard] = self._open[number].is_mapped

    def _payload(self, number: int, i_in_shard: int) -> Buffer:
        try:
            return self._shard(number).get(i_in_shard)
        except RecordError:
            if not self._is_another_copy(number):
                raise
            return self._shard(number).get(i_in_shard)

    def location(self, i: int) -> tuple[Path, formats.RecordLocation]:
        """The file and the place in it of record ``i``."""
        number, i_in_shard = self._locate(i)
        return self.folder / self.manifest.shards[number].name, self._shard(number).location(i_in_shard)

    def ranges(self) -> list[range]:
        """The numbers of the records of each shard."""
        return [range(end - shard.records, end) for shard, end in zip(self.manifest.shards, self._ends)]

    def describe_location(self, i: int) -> str:
        """Shard, number and first byte of record ``i``, for people to read."""
        path, location = self.location(i)
        return f"{path}, record {self._locate(i)[1]}, byte {location.offset}"

    def describe(self, i: int, error: Exception) -> RecordError:
        """What is wrong with record ``i``: an error naming its shard, number, first byte, and key if that is known."""
        number, i_in_shard = self._locate(i)
        if number not in self._open and isinstance(error, RecordError):
            return error  # of the whole shard, which it names
        try:
            key = try_read_key(self._shard(number).unchecked(i_in_shard))
        except RecordError as cut_short:  # of which all else is a consequence
            key, error = None, cut_short
        location = self.describe_location(i) + (f", key {key[:_SHOWN]!r}" if key is not None else "")
        problem = str(error) if isinstance(error, IngestError) else f"{type(error).__name__}: {error}"
        path = self.folder / self.manifest.shards[number].name
        return RecordError(f"{location}: {problem}: {self._remedy}", path=path, record=i_in_shard, key=key)

    def check_sizes(self) -> None:
        """Raise RecordError where a shard on local disks is missing, or not of the size that the manifest says.

        Beyond the end of a file that was cut short, mapped memory kills the process that reads it.
        """
        for shard in () if paths.is_remote(self.folder) else self.manifest.shards:
            self._check_size(shard)

    def close(self) -> None:
        """Unmap all shards; views of them must not be used any more."""
        for shard in self._open.values():
            shard.close()
        self._open.clear()
        self._is_checked.clear()

    def _locate(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"record {i} of {len(self)}")
        number = bisect_right(self._ends, i)
        return number, i - (self._ends[number] - self.manifest.shards[number].records)

    def _shard(self, number: int) -> formats.Shard:
        if number not in self._open:
            entry = self.manifest.shards[number]
            path = self.folder / entry.name
            try:
                shard = self._open_shard(number)
            except (RecordError, OSError) as error:
                raise RecordError(f"{path}: {error}: {self._remedy}", **fields_of(error, path=path)) from error
            if len(shard) != entry.records:
                raise RecordError(
                    f"{path}: {len(shard)} records, its manifest says {entry.records}: {self._remedy}", path=path
                )
            self._open[number], self._is_checked[number] = shard, bytearray(len(shard))
        return self._open[number]

    def _open_shard(self, number: int) -> formats.Shard:
        entry = self.manifest.shards[number]
        path = self.folder / entry.name
        if not paths.is_remote(path):
            return formats.open(self.manifest.format, path)
        sums = frozenset(shard.sha256 for shard in self.manifest.shards)
        copy = cache.fetch(path, entry.size_bytes, entry.sha256, sums, is_suspect=number in self._suspected)
        if copy is None:
            return formats.open_remote(self.manifest.format, path, entry.size_bytes, entry.records)
        try:
            return formats.open_copy(self.manifest.format, copy)
        except (RecordError, OSError):
            if number in self._suspected:
                raise
        self._suspected.add(number)
        return self._open_shard(number)

    def _is_another_copy(self, number: int) -> bool:
        """After a record that is not right: whether the next look at its shard is at another copy of it, or index."""
        if not paths.is_remote(self.folder) or number in self._suspected or number not in self._open:
            return False
        self._suspected.add(number)
        del self._open[number]  # views of it stay valid
        return True

    def _check_size(self, shard: Shard) -> None:
        path = self.folder / shard.name
        try:
            status = path.stat()
        except OSError as error:
            raise RecordError(f"{path}: cannot be read ({error.strerror}): {self._remedy}", path=path) from error
        if not stat.S_ISREG(status.st_mode):
            raise RecordError(f"{path}: not a regular file: {self._remedy}", path=path)
        if status.st_size != shard.size_bytes:
            raise RecordError(
                f"{path}: {status.st_size} bytes, its manifest says {shard.size_bytes}: {self._remedy}", path=path
            )


def _allow_many_files() -> None:
    """Raise the soft limit on open files: a dataset of a thousand shards has each of them open."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
