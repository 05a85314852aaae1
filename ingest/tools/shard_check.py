"""What is damaged in a dataset: each shard to the bit, and the files beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ingest import formats, jpeg
from ingest.dataset import manifest, quarantine
from ingest.dataset.manifest import BuildConfig, Manifest, Shard
from ingest.dataset.record_check import check_record
from ingest.errors import BadSampleError, ManifestError, RecordError
from ingest.jpeg import Region
from ingest.loading import transforms
from ingest.packing import plan
from ingest.record import Record, parse, try_read_key
from ingest.system import paths, progress, worker_pool


class Corruption(NamedTuple):
    """What is wrong with a file; in which record (from 0), of what key, and from which byte on, where that is known."""

    file: str
    problem: str
    record: int | None = None
    byte: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        location = [
            self.file,
            f"record {self.record}" if self.record is not None else "",
            f"byte {self.byte}" if self.byte is not None else "",
            f"key {self.key[:1000]!r}" if self.key is not None else "",
        ]
        return f"{', '.join(filter(None, location))}: {self.problem}"


class ExpectedShards(NamedTuple):
    """What a dataset should hold, as far as its manifest and its build configuration can be read."""

    format: str
    manifest: Manifest | None
    shards: tuple[Shard, ...]

    def touched(self, names: set[str]) -> list[Shard]:
        """The shards that are one of the files ``names``, or whose index is."""
        return [shard for shard in self.shards if names & {shard.name, shard.name + formats.INDEX_SUFFIX}]


def check_head(folder: Path) -> Iterator[Corruption]:
    """What is wrong with the files beside the shards: manifest, build configuration, quarantine."""
    dataset_manifest = _attempt(folder, manifest.NAME, partial(manifest.load_manifest, folder))
    config = _attempt(folder, manifest.BUILD_NAME, partial(manifest.load_build_config, folder))
    for name, content in ((manifest.NAME, dataset_manifest), (manifest.BUILD_NAME, config)):
        if isinstance(content, Corruption):
            yield content
        elif content and not manifest.is_as_written(folder / name):
            yield Corruption(file=name, problem="its bytes are not those of its content")
    if isinstance(dataset_manifest, Manifest):
        if not dataset_manifest.records:
            yield Corruption(file=manifest.NAME, problem="the dataset has no records")
        if dataset_manifest.build and not isinstance(config, Corruption) and config != dataset_manifest.build:
            yield Corruption(file=manifest.BUILD_NAME, problem="missing, or not what the manifest says")
        try:
            quarantined = quarantine.count_quarantined(folder)
            problem = f"{quarantined} lines, its manifest says {dataset_manifest.quarantined}"
        except RecordError as error:
            quarantined, problem = -1, str(error)
        if quarantined != dataset_manifest.quarantined:
            yield Corruption(file=quarantine.QUARANTINE, problem=problem)


def _attempt(
    folder: Path, name: str, read: Callable[[], Manifest | BuildConfig | None]
) -> Manifest | BuildConfig | Corruption | None:
    try:
        return read()
    except ManifestError as error:
        if not any(exists(folder / name) for name in (manifest.NAME, manifest.BUILD_NAME)):
            raise
        return Corruption(file=name, problem=str(error) if exists(folder / name) else "missing")


def exists(path: Path) -> bool:
    """Whether there is such a file, as far as that can be told."""
    try:
        return path.exists()
    except OSError:  # of a folder that nobody may look into, or of a name that is none
        return False


def expected_shards(folder: Path) -> ExpectedShards:
    """What the dataset should hold. Raises ManifestError where neither file that says so can be read."""
    try:
        dataset_manifest = manifest.load_manifest(folder)
        return ExpectedShards(dataset_manifest.format, dataset_manifest, dataset_manifest.shards)
    except ManifestError:
        config = manifest.load_build_config(folder)
    if config is None:
        raise ManifestError(
            f"{folder}: neither {manifest.NAME} nor {manifest.BUILD_NAME} can be read: build again", path=folder
        )
    names = plan.shard_names(config.shards, config.format)
    return ExpectedShards(config.format, None, tuple(Shard(name, 0, 0, "") for name in names))


def check_shards(
    folder: Path, expected: ExpectedShards, shards: Iterable[Shard], decode: bool, count: int | None
) -> list[Corruption]:
    """What is wrong with ``shards``, sorted by file, record and byte; read by ``count`` worker processes."""
    shards = list(shards)
    args = (folder, expected.format, expected.manifest, decode)
    if decode and expected.manifest and expected.manifest.encoding != "raw":
        jpeg.compile_decoder()
    corruptions: list[Corruption] = []
    with progress.bar(sum(shard.records for shard in shards), "verifying") as bar:
        for result in worker_pool.run(ShardChecker, args, shards, worker_pool.num_workers(count), bar.update):
            corruptions += result
    return sorted(corruptions, key=lambda corruption: (corruption.file, corruption.record or 0, corruption.byte or 0))


class ShardChecker:
    """Checks a shard; the handler of a worker process. A Shard without a sum is checked by what it says of itself."""

    def __init__(self, folder: Path, format: str, manifest: Manifest | None, decode: bool):
        self._folder, self._format, self._manifest, self._decode = folder, format, manifest, decode

    def __call__(self, shard: Shard, report: Callable[[int], object]) -> list[Corruption]:
        """What is wrong with ``shard``, and with its index."""
        try:
            with self._local(shard) as path:
                corruptions = self._check(path, shard)
        except OSError as error:
            corruptions = [Corruption(file=shard.name, problem=f"cannot be read ({error.strerror or error})")]
        report(shard.records)
        return corruptions

    @contextmanager
    def _local(self, shard: Shard) -> Iterator[Path]:
        path = self._folder / shard.name
        # Of what is not as long as it should be, a byte more is enough to say so.
        with paths.local_copy(path, shard.size_bytes + 1 if shard.sha256 else None) as local:
            if local != path:
                with suppress(FileNotFoundError):
                    # An index is no longer than its shard, but for its checksum.
                    index = paths.read(formats.index_path(path), 0, local.stat().st_size + 5)
                    formats.index_path(local).write_bytes(index)
            yield local

    def _check(self, path: Path, shard: Shard) -> list[Corruption]:
        corruptions = [self._named(path, fault) for fault in self._faults(path, shard)]
        if formats.load_index(path, path.stat().st_size) is None:
            name = formats.index_path(path).name
            corruptions.append(Corruption(file=name, problem="missing or damaged, or its shard is cut short"))
        return corruptions if corruptions or not self._decode else list(self._undecodable(path))

    def _faults(self, path: Path, shard: Shard) -> list[formats.ShardFault]:
        faults = list(formats.find_faults(self._format, path))
        if not shard.sha256:  # there is no manifest that says more
            return faults
        size_bytes = path.stat().st_size
        if size_bytes != shard.size_bytes:
            problem = f"{size_bytes} bytes, its manifest says {shard.size_bytes}"
            faults.append(formats.ShardFault(None, min(size_bytes, shard.size_bytes), problem))
        elif not faults and paths.sha256(path) != shard.sha256:
            faults.append(self._between_records(path))
        index = formats.load_index(path, size_bytes)
        if not faults and index is not None and len(index) != shard.records:
            faults.append(formats.ShardFault(None, None, f"{len(index)} records, its manifest says {shard.records}"))
        return faults

    def _between_records(self, path: Path) -> formats.ShardFault:
        """Where a file differs from one of the same records: a shard's bytes are a function of them."""
        data = formats.mapped(path)
        locations = formats.load(self._format).find(data)
        with tempfile.TemporaryDirectory() as scratch:
            again = Path(scratch) / path.name
            formats.write(self._format, again, (bytes(data[offset : offset + size]) for offset, size, _ in locations))
            one, other = (np.frombuffer(content, np.uint8) for content in (data, formats.mapped(again)))
            common = min(len(one), len(other))
            differing = np.flatnonzero(one[:common] != other[:common])
        byte = int(differing[0]) if len(differing) else common
        return formats.ShardFault(None, byte, "its bytes are not those of its records")

    def _named(self, path: Path, fault: formats.ShardFault) -> Corruption:
        key = None
        index = formats.load_index(path, path.stat().st_size)
        if fault.record is not None and index is not None and fault.record < len(index):
            offset, size_bytes, _ = index[fault.record].item()
            key = try_read_key(formats.mapped(path)[offset : offset + size_bytes])
        return Corruption(file=path.name, record=fault.record, byte=fault.byte, key=key, problem=fault.problem)

    def _undecodable(self, path: Path) -> Iterator[Corruption]:
        shard = formats.open(self._format, path)
        for i in range(len(shard)):
            payload = shard.get(i)
            try:
                self._show(parse(payload))
            except (RecordError, BadSampleError) as error:
                yield Corruption(
                    file=path.name,
                    record=i,
                    byte=shard.location(i).offset,
                    key=try_read_key(payload),
                    problem=str(error),
                )

    def _show(self, record: Record) -> None:
        """Decode all of a record, in the way in which the loader decodes a part of it."""
        if self._manifest is None:  # all records are packed again in any case
            return
        check_record(record, self._manifest)
        whole = Region(0, 0, record.height, record.width)
        pixels = transforms.decode_region(record, self._manifest.channels, whole)
        # By other ways than ours to the same pixels: with restart segments, what was put together of them.
        if record.has_segments and not np.array_equal(pixels, transforms.decode(record, self._manifest.channels)):
            raise RecordError("its restart segments show another image than the whole JPEG")
