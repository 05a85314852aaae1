"""A dataset in another format: the same payloads in the same shards and order, and what a build in it would give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ingest import formats
from ingest.dataset import manifest, quarantine
from ingest.dataset.dataset import Dataset
from ingest.dataset.manifest import Manifest, Shard
from ingest.errors import ManifestError, OptionError, OutputError
from ingest.packing import resumable
from ingest.packing.resumable import ResumableWriter, ShardReceipt
from ingest.system import paths, progress, worker_pool
from ingest.system.validation import typed
from ingest.system.worker_pool import num_workers


class _Task(NamedTuple):
    """A shard to write, and the numbers of its records in the dataset that it is copied from."""

    name: str
    records: range

    def __str__(self) -> str:
        return self.name

    @property
    def images(self) -> int:
        """How many records."""
        return len(self.records)


class _Copier:
    """Copies shards; the handler of a worker process."""

    def __init__(self, folder: Path, source: Path, format: str):
        self._folder, self._dataset, self._format = folder, Dataset(source), format

    def __call__(self, task: _Task, report: Callable[[int], object]) -> ShardReceipt:
        path = self._folder / task.name
        written = formats.write(self._format, path, map(self._dataset.payload, task.records))
        report(task.images)
        return ShardReceipt(
            shard=Shard(task.name, task.images, *written),
            quarantined=[],
            converted={},
            has_color=False,
            has_jpeg=False,
            rotated=0,
        )


def convert(shards: str | Path, out: str | Path, *, format: str, workers: int | None = None) -> Manifest:
    """Write the dataset in the folder ``shards`` to the folder ``out`` in another ``format``, byte for byte as a build
    of its source in that format would.

    A conversion that was cut short goes on when it is called again. ``workers`` is the number of processes, by default
    one a core. Raises OptionError, ManifestError, RecordError or OutputError.
    """
    if typed("format", format, str) not in formats.NAMES:
        raise OptionError(f"format {format!r}: give one of {', '.join(formats.NAMES)}")
    processes = num_workers(workers)
    source, folder = Dataset(shards), paths.parse_path(out)
    source_manifest = source.manifest
    if source_manifest.format == format:
        raise OptionError(f"{shards}: is in the format {format} already", path=shards)
    if source_manifest.build is None:
        raise ManifestError(f"{shards}: of a version that did not record how it was built: build it again", path=shards)
    build = replace(source_manifest.build, format=format)
    if folder.absolute() == source.folder.absolute():
        raise OutputError(f"{out}: is what shall be converted: give another folder", path=out)
    resumable.make_folder(folder)
    # Until it is whole the folder is not what a build would go on with: its receipts say nothing of the quarantine.
    unfinished = replace(build, source=f"conversion of {build.source}")
    if _is_finished(folder, build):
        manifest.save(build, folder)
    with resumable.exclusive_output(folder, build if _is_finished(folder, build) else unfinished) as lock:
        if not (folder / manifest.NAME).exists():
            result = replace(
                source_manifest, format=format, shards=_copy(source, folder, format, processes, lock), build=build
            )
            resumable.finish(folder, result, quarantine.read_quarantine(source.folder))
            manifest.save(build, folder)
        resumable.remove_leftovers(folder)
        return manifest.load_manifest(folder)


def _is_finished(folder: Path, build: manifest.BuildConfig) -> bool:
    return (folder / manifest.NAME).exists() and manifest.load_manifest(folder).build == build


def _copy(source: Dataset, folder: Path, format: str, processes: int, lock: resumable.Lock) -> tuple[Shard, ...]:
    tasks = [
        _Task(f"{Path(shard.name).stem}.{format}", records)
        for shard, records in zip(source.manifest.shards, source.ranges())
    ]
    with progress.bar(len(source), f"converting to {format}") as bar:
        args = (folder, _Copier, source.folder, format)
        copied = resumable.all_packed(worker_pool.run(ResumableWriter, args, tasks, processes, bar.update, lock))
    return tuple(part.shard for part in copied)
