"""Packs what is damaged again, from the source, byte for byte as it was."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from ingest import formats
from ingest.dataset import manifest, quarantine
from ingest.dataset.manifest import BuildConfig, Manifest, Shard
from ingest.errors import ManifestError, SourceError
from ingest.packing import build, plan, resumable
from ingest.packing.build import Packer
from ingest.packing.options import BuildOptions
from ingest.packing.plan import Task
from ingest.sources.base import Source
from ingest.sources.detect import open_source
from ingest.system import paths, progress, worker_pool
from ingest.tools.shard_check import Corruption, ExpectedShards, ShardChecker

SourceAndLabels = tuple[str | Path, str | Path | None]
"""A source and its labels."""


def load_known(folder: Path) -> tuple[Manifest | None, BuildConfig | None]:
    """The manifest, if it can be read, and what the dataset was built by."""
    try:
        dataset_manifest = manifest.load_manifest(folder)
        return dataset_manifest, dataset_manifest.build
    except ManifestError:
        return None, manifest.load_build_config(folder)


def repair_shards(
    folder: Path,
    corruptions: list[Corruption],
    src: SourceAndLabels,
    source: Source | None,
    decode: bool,
    count: int | None,
) -> set[str]:
    """Make again what is damaged, from ``src``, opened as ``source``; the names of those that were written."""
    dataset_manifest, config = load_known(folder)
    if config is None or source is None:
        raise ManifestError(f"{folder}: of a version that did not record how it was built: build it again", path=folder)
    options = replace(build_options(config, count), labels=src[1])
    damaged = {corruption.file for corruption in corruptions}
    written: set[str] = set()
    if dataset_manifest is None or damaged & {quarantine.QUARANTINE, manifest.NAME}:
        # Only a whole build knows all that they say.
        for name in (manifest.NAME, manifest.BUILD_NAME, quarantine.QUARANTINE):
            (folder / name).unlink(missing_ok=True)
        manifest.save(config, folder)
        build.build_shards(src[0], folder, **asdict(options))
        return {name for name in (*damaged, manifest.NAME) if (folder / name).exists()}
    with resumable.writing(folder), resumable.exclusive_lock(folder) as lock:
        resumable.remove_leftovers(folder)
        if manifest.BUILD_NAME in damaged:
            manifest.save(config, folder)
            written.add(manifest.BUILD_NAME)
        checker = ShardChecker(folder, dataset_manifest.format, dataset_manifest, decode)
        expected = ExpectedShards(dataset_manifest.format, dataset_manifest, dataset_manifest.shards)
        broken = []
        for shard in expected.touched(damaged):
            if not _is_sound(folder, shard):
                broken.append(shard)
                continue
            # Then its index is made again, if that is what is damaged.
            if formats.rewrite_index(dataset_manifest.format, folder / shard.name):
                written.add(shard.name + formats.INDEX_SUFFIX)
            if checker(shard, lambda images: None):
                broken.append(shard)
        if broken:
            _pack_again(folder, broken, src, source, options, lock)
            written |= damaged & {shard.name + suffix for shard in broken for suffix in ("", formats.INDEX_SUFFIX)}
    return written


def build_options(config: BuildConfig, count: int | None) -> BuildOptions:
    """The options of the build that a dataset came from, for ``count`` workers."""
    given = {name: getattr(config, name) for name in plan.CONFIG_OPTIONS if getattr(config, name) is not None}
    return BuildOptions(**given, workers=count)


def _is_sound(folder: Path, shard: Shard) -> bool:
    """Whether a shard itself is as its manifest says."""
    try:
        status = (folder / shard.name).stat()
        return status.st_size == shard.size_bytes and paths.sha256(folder / shard.name) == shard.sha256
    except OSError:
        return False


def _pack_again(
    folder: Path, broken: list[Shard], src: SourceAndLabels, source: Source, options: BuildOptions, lock: resumable.Lock
) -> None:
    wanted = {shard.name: shard for shard in broken}
    parts = [part for part in plan.plan_shards(len(source.entries), options) if part.name in wanted]
    tasks = (Task(part.name, [source.entries[i] for i in part.entries]) for part in parts)
    args = (folder, source.read, source.classes, options)
    with progress.bar(sum(len(part.entries) for part in parts), "repairing") as bar:
        count = worker_pool.num_workers(options.workers)
        packed = resumable.all_packed(worker_pool.run(Packer, args, tasks, count, bar.update, lock))
    for part in packed:
        if part.shard != wanted[part.shard.name]:
            raise SourceError(
                f"{src[0]}: has changed: {part.shard.name} does not come out as its manifest says: "
                "build the dataset again",
                path=src[0],
            )


def open_same_source(src: SourceAndLabels, config: BuildConfig, options: BuildOptions) -> Source:
    """The source, if it is what the dataset was built from. Raises SourceError."""
    source = open_source(*src)
    if len(source.entries) < config.shards or plan.build_config(source, options) != config:
        raise SourceError(
            f"{src[0]}: not what the dataset was built from: its keys, labels or classes differ", path=src[0]
        )
    return source
