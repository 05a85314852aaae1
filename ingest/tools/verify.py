"""Whether a dataset is whole, to the bit; where it is not; and what is damaged made again from the source."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ingest import formats
from ingest.dataset import manifest, quarantine
from ingest.dataset.manifest import BuildConfig, Manifest, Shard
from ingest.dataset.record_check import check_record
from ingest.errors import BadSampleError, ManifestError, RecordError, SourceError
from ingest.jpeg import Region
from ingest.loading import transforms
from ingest.packing import build, plan, resumable
from ingest.packing.build import Packer
from ingest.packing.options import BuildOptions
from ingest.packing.plan import Task
from ingest.record import Record, parse, try_read_key
from ingest.sources import Source, open_source
from ingest.system import paths, progress, worker_pool
from ingest.system.validation import typed
from ingest.system.worker_pool import num_workers

_Src = tuple[str | Path, str | Path | None]
"""A source and its labels."""


class Corruption(NamedTuple):
    """What is wrong with a file; in which record (from 0), of what key, and from which byte on, where that is known."""

    file: str
    record: int | None
    byte: int | None
    key: str | None
    problem: str

    def __str__(self) -> str:
        where = [
            self.file,
            f"record {self.record}" if self.record is not None else "",
            f"byte {self.byte}" if self.byte is not None else "",
            f"key {self.key[:1000]!r}" if self.key is not None else "",
        ]
        return f"{', '.join(filter(None, where))}: {self.problem}"


@dataclass(frozen=True)
class VerifyReport:
    """What was looked at, every damage found, the files that were made again, and the damages that are left."""

    shards: int
    records: int
    size_bytes: int
    damages: tuple[Corruption, ...]
    repaired: tuple[str, ...]
    left: tuple[Corruption, ...]


class _Shards(NamedTuple):
    """What a dataset should hold, as far as its manifest and its recipe can be read."""

    format: str
    manifest: Manifest | None
    shards: tuple[Shard, ...]

    def touched(self, names: set[str]) -> list[Shard]:
        """The shards that are one of the files ``names``, or whose index is."""
        return [shard for shard in self.shards if names & {shard.name, shard.name + formats.INDEX_SUFFIX}]


def verify(
    shards: str | Path,
    *,
    decode: bool = False,
    repair: str | Path | None = None,
    labels: str | Path | None = None,
    workers: int | None = None,
) -> VerifyReport:
    """Read every byte of the dataset in the folder ``shards``, and say what is damaged.

    The manifest and the recipe against their own sums and each other; of each shard the size, the SHA-256, the crc32c
    of each record, the index; the number of lines of the quarantine. With ``decode`` every record is checked as the
    loader does, and every image decoded to its end: where nothing is damaged then, training can read it all.

    ``repair`` is the source that the dataset was built from, with the ``labels`` that it had: what is damaged
    is packed anew from it, byte for byte as it was, and verified again. Raises SourceError where it is another source,
    or has changed; ManifestError where neither the manifest nor the recipe can be read, or the dataset is not finished.
    """
    num_workers(workers)  # what is no number of processes is refused before anything is read
    decode = typed("decode", decode, bool)
    folder = paths.parse_path(shards)
    source = None
    if repair is None:
        _check_finished(folder)
    elif recipe := _known(folder)[1]:
        source = _opened_source((repair, labels), recipe, _options(recipe, workers))  # before all is read for nothing
    damages = list(_check_head(folder))
    expected = _expected(folder)
    damages += _check_shards(folder, expected, expected.shards, decode, workers)
    repaired, left = set[str](), damages
    if repair is not None and damages:
        repaired = _repair(folder, damages, (repair, labels), source, decode, workers)
        expected = _expected(folder)  # of a manifest that was lost, only now
        again = expected.touched(repaired | {damage.file for damage in damages})
        left = [*_check_head(folder), *_check_shards(folder, expected, again, decode, workers)]
    return VerifyReport(
        shards=len(expected.shards),
        records=sum(shard.records for shard in expected.shards),
        size_bytes=sum(shard.size_bytes for shard in expected.shards),
        damages=tuple(damages),
        repaired=tuple(sorted(repaired)),
        left=tuple(left),
    )


def _check_finished(folder: Path) -> None:
    """A build that was cut short lacks what was still to come: that is no damage."""
    try:
        recipe = None if _is_there(folder / manifest.NAME) else manifest.load_build_config(folder)
    except ManifestError:
        return
    if recipe is None:
        return
    wanted = set(plan.shard_names(recipe.shards, recipe.format))
    there = wanted & set(paths.list_dir(folder))
    if there < wanted:
        raise ManifestError(
            f"{folder}: an unfinished build, of {len(wanted):,} shards {len(there):,} are there: "
            "give the same 'ingest build-shards' command again, and it goes on"
        )


def _check_head(folder: Path) -> Iterator[Corruption]:
    found = _attempt(folder, manifest.NAME, partial(manifest.load_manifest, folder))
    recipe = _attempt(folder, manifest.BUILD_NAME, partial(manifest.load_build_config, folder))
    for name, content in ((manifest.NAME, found), (manifest.BUILD_NAME, recipe)):
        if isinstance(content, Corruption):
            yield content
        elif content and not manifest.is_as_written(folder / name):
            yield Corruption(name, None, None, None, "its bytes are not those of its content")
    if isinstance(found, Manifest):
        if not found.records:
            yield Corruption(manifest.NAME, None, None, None, "the dataset has no records")
        if found.build and not isinstance(recipe, Corruption) and recipe != found.build:
            yield Corruption(manifest.BUILD_NAME, None, None, None, "missing, or not what the manifest says")
        try:
            quarantined = quarantine.count_quarantined(folder)
            problem = f"{quarantined} lines, its manifest says {found.quarantined}"
        except RecordError as error:
            quarantined, problem = -1, str(error)
        if quarantined != found.quarantined:
            yield Corruption(quarantine.QUARANTINE, None, None, None, problem)


def _attempt(
    folder: Path, name: str, read: Callable[[], Manifest | BuildConfig | None]
) -> Manifest | BuildConfig | Corruption | None:
    try:
        return read()
    except ManifestError as error:
        if not any(_is_there(folder / name) for name in (manifest.NAME, manifest.BUILD_NAME)):
            raise
        return Corruption(name, None, None, None, str(error) if _is_there(folder / name) else "missing")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # of a folder that nobody may look into, or of a name that is none
        return False


def _expected(folder: Path) -> _Shards:
    try:
        found = manifest.load_manifest(folder)
        return _Shards(found.format, found, found.shards)
    except ManifestError:
        recipe = manifest.load_build_config(folder)
    if recipe is None:
        raise ManifestError(f"{folder}: neither {manifest.NAME} nor {manifest.BUILD_NAME} can be read: build again")
    names = plan.shard_names(recipe.shards, recipe.format)
    return _Shards(recipe.format, None, tuple(Shard(name, 0, 0, "") for name in names))


def _check_shards(
    folder: Path, expected: _Shards, shards: Iterable[Shard], decode: bool, count: int | None
) -> list[Corruption]:
    shards = list(shards)
    args = (folder, expected.format, expected.manifest, decode)
    found: list[Corruption] = []
    with progress.bar(sum(shard.records for shard in shards), "verifying") as bar:
        for damages in worker_pool.run(_Checker, args, shards, worker_pool.num_workers(count), bar.update):
            found += damages
    return sorted(found, key=lambda damage: (damage.file, damage.record or 0, damage.byte or 0))


class _Checker:
    """Checks a shard; the handler of a worker process. A Shard without a sum is checked by what it says of itself."""

    def __init__(self, folder: Path, format: str, known: Manifest | None, decode: bool):
        self._folder, self._format, self._manifest, self._decode = folder, format, known, decode

    def __call__(self, shard: Shard, report: Callable[[int], object]) -> list[Corruption]:
        try:
            with self._local(shard) as path:
                damages = self._check(path, shard)
        except OSError as error:
            damages = [Corruption(shard.name, None, None, None, f"cannot be read ({error.strerror or error})")]
        report(shard.records)
        return damages

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
        damages = [self._named(path, fault) for fault in self._faults(path, shard)]
        if formats.load_index(path, path.stat().st_size) is None:
            name = formats.index_path(path).name
            damages.append(Corruption(name, None, None, None, "missing or damaged, or its shard is cut short"))
        return damages if damages or not self._decode else list(self._undecodable(path))

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
        places = formats.load(self._format).find(data)
        with tempfile.TemporaryDirectory() as scratch:
            again = Path(scratch) / path.name
            formats.write(self._format, again, (bytes(data[at : at + size]) for at, size, _ in places))
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
        return Corruption(path.name, fault.record, fault.byte, key, fault.problem)

    def _undecodable(self, path: Path) -> Iterator[Corruption]:
        shard = formats.open(self._format, path)
        for i in range(len(shard)):
            payload = shard.get(i)
            try:
                self._show(parse(payload))
            except (RecordError, BadSampleError) as error:
                yield Corruption(path.name, i, shard.location(i).offset, try_read_key(payload), str(error))

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


def _known(folder: Path) -> tuple[Manifest | None, BuildConfig | None]:
    """The manifest, if it can be read, and what the dataset was built by."""
    try:
        found = manifest.load_manifest(folder)
        return found, found.build
    except ManifestError:
        return None, manifest.load_build_config(folder)


def _repair(
    folder: Path, damages: list[Corruption], src: _Src, source: Source | None, decode: bool, count: int | None
) -> set[str]:
    """Make again what is damaged, from ``src``, opened as ``source``; the names of those that were written."""
    found, recipe = _known(folder)
    if recipe is None or source is None:
        raise ManifestError(f"{folder}: of a version that did not record how it was built: build it again")
    options = _options(recipe, count)
    damaged = {damage.file for damage in damages}
    written: set[str] = set()
    if found is None or damaged & {quarantine.QUARANTINE, manifest.NAME}:
        # Only a whole build knows all that they say.
        for name in (manifest.NAME, manifest.BUILD_NAME, quarantine.QUARANTINE):
            (folder / name).unlink(missing_ok=True)
        manifest.save(recipe, folder)
        build.build_shards(src[0], folder, labels=src[1], **asdict(options))
        return {name for name in (*damaged, manifest.NAME) if (folder / name).exists()}
    with resumable.writing(folder), resumable.exclusive_lock(folder) as lock:
        resumable.remove_leftovers(folder)
        if manifest.BUILD_NAME in damaged:
            manifest.save(recipe, folder)
            written.add(manifest.BUILD_NAME)
        checker = _Checker(folder, found.format, found, decode)
        broken = []
        for shard in _Shards(found.format, found, found.shards).touched(damaged):
            if not _is_sound(folder, shard):
                broken.append(shard)
                continue
            # Then its index is made again, if that is what is damaged.
            if formats.rewrite_index(found.format, folder / shard.name):
                written.add(shard.name + formats.INDEX_SUFFIX)
            if checker(shard, lambda images: None):
                broken.append(shard)
        if broken:
            _pack_again(folder, broken, src, source, options, lock)
            written |= damaged & {shard.name + suffix for shard in broken for suffix in ("", formats.INDEX_SUFFIX)}
    return written


def _options(recipe: BuildConfig, count: int | None) -> BuildOptions:
    quality = recipe.quality if recipe.quality is not None else 90
    return BuildOptions(
        recipe.format, recipe.shards, count, recipe.encoding, recipe.resize, quality, recipe.seed,
        exif_orientation=recipe.exif_orientation,
    )  # fmt: skip


def _is_sound(folder: Path, shard: Shard) -> bool:
    """Whether a shard itself is as its manifest says."""
    try:
        status = (folder / shard.name).stat()
        return status.st_size == shard.size_bytes and paths.sha256(folder / shard.name) == shard.sha256
    except OSError:
        return False


def _pack_again(
    folder: Path, broken: list[Shard], src: _Src, source: Source, options: BuildOptions, lock: resumable.Lock
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
                "build the dataset again"
            )


def _opened_source(src: _Src, recipe: BuildConfig, options: BuildOptions) -> Source:
    """The source, if it is what the dataset was built from. Raises SourceError."""
    source = open_source(*src)
    if len(source.entries) < recipe.shards or plan.build_config(source, options) != recipe:
        raise SourceError(f"{src[0]}: not what the dataset was built from: its keys, labels or classes differ")
    return source
