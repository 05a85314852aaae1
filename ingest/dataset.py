"""A finished dataset, open for reading: record i of all its shards, and where it lies."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from ingest import formats, sample
from ingest.errors import IngestError, RecordError
from ingest.manifest import Manifest, Shard, load_manifest
from ingest.sample import Record

_REMEDY = "build the dataset again"


class Dataset:
    """The records of the dataset in ``folder``, numbered from 0 in packed order.

    Shards are opened when first read, and belong to the process that did. Raises ManifestError or RecordError where the
    manifest is unusable, or a shard is missing or not of the size that the manifest says.
    """

    def __init__(self, folder: str | Path):
        _allow_many_files()
        self.folder = Path(folder)
        self.manifest: Manifest = load_manifest(folder)
        if self.manifest.format not in formats.NAMES:
            raise RecordError(f"{self.folder}: shards of the unknown format {self.manifest.format!r}")
        self._ends = list(accumulate(shard.records for shard in self.manifest.shards))
        self._open: dict[int, formats.Shard] = {}
        for shard in self.manifest.shards:
            # Beyond the end of a truncated file, mapped memory kills the process that reads it.
            _check_size(self.folder / shard.name, shard)

    def __len__(self) -> int:
        return self.manifest.records

    def __getitem__(self, i: int) -> Record:
        """Record ``i``. What it holds are views of the mapped file, which last as long as this dataset does.

        Raises RecordError, naming shard and record.
        """
        number, i_in_shard = self._locate(i)
        shard = self._shard(number)
        try:
            return sample.unpack(shard.get(i_in_shard))
        except RecordError as error:
            raise RecordError(f"{self.where(i)}: {error}: {_REMEDY}") from error

    def where(self, i: int) -> str:
        """Shard, number and first byte of record ``i``, for people to read."""
        number, i_in_shard = self._locate(i)
        byte = self._shard(number).place(i_in_shard).offset
        return f"{self.folder / self.manifest.shards[number].name}, record {i_in_shard} at byte {byte}"

    def describe(self, i: int, error: Exception) -> RecordError:
        """What went wrong with record ``i`` after it was read: an error naming its shard, number and key."""
        what = str(error) if isinstance(error, IngestError) else f"{type(error).__name__}: {error}"
        return RecordError(f"{self.where(i)}, key {self[i].key!r}: {what}: {_REMEDY}")

    def close(self) -> None:
        """Unmap all shards; views of them must not be used any more."""
        for shard in self._open.values():
            shard.close()
        self._open.clear()

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
                shard = formats.open(self.manifest.format, path)
            except (RecordError, OSError) as error:
                raise RecordError(f"{path}: {error}: {_REMEDY}") from error
            if len(shard) != entry.records:
                raise RecordError(f"{path}: {len(shard)} records, its manifest says {entry.records}: {_REMEDY}")
            self._open[number] = shard
        return self._open[number]


def _check_size(path: Path, shard: Shard) -> None:
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}): {_REMEDY}") from error
    if size_bytes != shard.size_bytes:
        raise RecordError(f"{path}: {size_bytes} bytes, its manifest says {shard.size_bytes}: {_REMEDY}")


def _allow_many_files() -> None:
    """Raise the soft limit on open files: a dataset of a thousand shards has each of them open."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
