"""Photographs become shards: a pure plan, worker processes that carry it out, and a manifest when all is whole.

What is written is a function of the source's content, the options and the seed: never of the number of workers, the
clock or the machine.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ingest import formats, jpeg
from ingest.dataset import manifest, quarantine
from ingest.dataset.manifest import Manifest, Shard
from ingest.errors import BadSampleError, IngestError, OutputError, SourceError, fields_of
from ingest.loading import transforms
from ingest.packing import resumable
from ingest.packing.area_resize import area_resize
from ingest.packing.options import BuildOptions
from ingest.packing.plan import Part, Task, build_config, plan_shards
from ingest.packing.resumable import Lock, ResumableWriter, ShardReceipt
from ingest.record import JPEG, RAW, Record, Sample, fields_from, serialize
from ingest.sampler import packing_order
from ingest.sources.base import Entry, Source
from ingest.sources.detect import open_source
from ingest.system import dask_pool, paths, progress, worker_pool
from ingest.system.validation import takes

_SAMPLE_SIZE, _SAFETY_FACTOR = 64, 0.8
"""Images that a build looks at before it starts, and how much of what they tell is certain."""


@takes(BuildOptions)
def build_shards(src: str | Path, out: str | Path, options: BuildOptions) -> Manifest:
    """Pack the images of ``src`` into shards in the folder ``out``, in a random order drawn from ``seed``.

    ``src`` is any of the kinds of ``ingest.sources``. It may be remote, as ``out`` may (``s3://``, ``gs://``,
    ``https://``). The options are those of ``ingest.packing.options.BuildOptions``, as keyword arguments; ``format``
    must be given.

    Images whose EXIF says that they lie on a side, upside down or mirrored are counted. What cannot be decoded is
    listed in ``quarantine.tsv`` (key, reason), or raises BadSampleError if ``on_bad`` is ``fail``. ``manifest.json``,
    the value returned, is written last. A build that was cut short goes on when it is called again for the same source
    and options; where it has been finished, there is nothing to do.

    Raises OptionError, SourceError, OutputError, or WorkerError if a worker process dies.
    """
    source = open_source(src, options.labels)
    parts = plan_shards(len(source.entries), options)
    folder = _output_folder(out, src, options)
    with resumable.exclusive_output(folder, build_config(source, options)) as lock:
        if (folder / manifest.NAME).exists():
            resumable.remove_leftovers(folder)
            return manifest.load_manifest(folder)
        check_free_space(source, folder, options)
        with _in_random_order(source, folder) as staged:
            packed = _pack_all(staged, folder, options, parts, lock)
        if options.on_bad == "fail":
            resumable.check_none_bad(packed)
        return _finish(source, folder, options, packed)


@contextmanager
def _in_random_order(source: Source, folder: Path) -> Iterator[Source]:
    """The source, with a reader that is fast in any order; a copy of its images that this takes lies in ``folder``."""
    if source.stage is None:
        yield source
        return
    with tempfile.TemporaryDirectory() as local:
        scratch = (Path(local) if paths.is_remote(folder) else folder) / resumable.SCRATCH
        try:
            yield source._replace(read=source.stage(scratch))
        finally:
            scratch.unlink(missing_ok=True)


class Made(NamedTuple):
    """The record of a sample, what kind of file was converted for it, or None, and whether its EXIF orientation is not
    that of its pixels as they are stored."""

    record: Record
    converted: str | None
    is_rotated: bool


def make_record(sample: Sample, synset: str, options: BuildOptions) -> Made:
    """The record to pack for a sample. Raises BadSampleError where the sample cannot be decoded."""
    encoded, segments, kind, shape, converted, is_rotated = _encode(sample.data, options)
    height, width, channels = shape
    record = Record(
        channels=channels, synset=synset, encoded=encoded, format=kind, height=height, width=width, segments=segments,
        **fields_from(sample),
    )  # fmt: skip
    return Made(record, converted, is_rotated)


class _Encoded(NamedTuple):
    """What is packed of an image; ``shape`` is its height, width and channels."""

    encoded: bytes
    segments: bytes
    format: str
    shape: tuple[int, ...]
    converted: str | None
    is_rotated: bool


def _encode(data: bytes | np.ndarray, options: BuildOptions) -> _Encoded:
    if isinstance(data, np.ndarray):
        # To keep pixels that were never a file's is to pack them as they are.
        return _of_pixels(jpeg.Pixels.of(data), options, is_raw=options.encoding != "jpeg")
    if options.encoding != "keep":
        return _of_pixels(jpeg.read_pixels(data, options.resize or 0), options, is_raw=options.encoding == "raw")
    file = jpeg.normalize(data)
    if file.orientation == jpeg.AS_STORED or options.exif_orientation == "ignore":
        return _of_jpeg(file, file.converted, file.orientation)
    return _of_pixels(jpeg.read_pixels(data), options, is_raw=False)


def _of_pixels(image: jpeg.Pixels, options: BuildOptions, is_raw: bool) -> _Encoded:
    """What is packed of an image by its pixels."""
    pixels, converted, is_rotated = image.values, image.converted, image.orientation != jpeg.AS_STORED
    if options.resize:
        pixels = area_resize(pixels, *_size(image, options.resize))
    if is_rotated and options.exif_orientation == "apply":
        pixels, converted = jpeg.turned(pixels, image.orientation), f"{converted or 'JPEG'} rotated by EXIF"
    if is_raw:
        return _Encoded(
            encoded=pixels.tobytes(),
            segments=b"",
            format=RAW,
            shape=pixels.shape,
            converted=converted,
            is_rotated=is_rotated,
        )
    how = (options.quality, "4:2:0") if options.encoding == "jpeg" else (jpeg.CONVERSION_QUALITY, "4:4:4")
    return _of_jpeg(jpeg.encode_pixels(pixels, *how), converted, image.orientation)


def _size(image: jpeg.Pixels, short_side: int) -> tuple[int, int]:
    """Height and width of an image whose short side is reduced to ``short_side``."""
    scale = min(1, short_side / min(image.height, image.width))
    return max(1, round(image.height * scale)), max(1, round(image.width * scale))


def _of_jpeg(file: jpeg.NormalizedJpeg, converted: str | None, orientation: int) -> _Encoded:
    shape = file.height, file.width, file.channels
    return _Encoded(
        encoded=file.encoded,
        segments=file.segments,
        format=JPEG,
        shape=shape,
        converted=converted,
        is_rotated=orientation != jpeg.AS_STORED,
    )


@dataclass
class _Tally:
    """What a shard's entries turned out to be; ``seen`` are numbers of channels and kinds of encoding."""

    quarantined: list[tuple[str, str]] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)
    seen: set[int | str] = field(default_factory=set)
    rotated: int = 0


class Packer:
    """Writes shards to a folder; the handler of a worker process."""

    def __init__(self, folder: Path, read: Callable[[Entry], Sample], classes: tuple[str, ...], options: BuildOptions):
        self._folder, self._read, self._classes, self._options = folder, read, classes, options
        transforms.single_threaded()

    def __call__(self, task: Task, report: Callable[[int], object]) -> ShardReceipt:
        """Write the shard of a task, and its index."""
        path = self._folder / task.name
        packed = _Tally()
        written = formats.write(self._options.format, path, self._payloads(task.entries, report, packed))
        shard = Shard(task.name, len(task.entries) - len(packed.quarantined), *written)
        has_color, has_jpeg = 3 in packed.seen, JPEG in packed.seen
        return ShardReceipt(
            shard=shard,
            quarantined=packed.quarantined,
            converted=dict(packed.converted),
            has_color=has_color,
            has_jpeg=has_jpeg,
            rotated=packed.rotated,
        )

    def size_bytes(self, entry: Entry) -> int:
        """Of an entry's record; 0 where there is none, for whatever reason: that will show in its turn."""
        try:
            return len(serialize(self._make(entry).record))
        except IngestError:
            return 0

    def _payloads(self, entries: Iterable[Entry], report: Callable[[int], object], packed: _Tally) -> Iterator[bytes]:
        for entry in entries:
            try:
                record, converted_from, is_rotated = self._make(entry)
            except BadSampleError as error:
                if self._options.on_bad == "fail":
                    raise BadSampleError(f"{entry.key}: {error}", **fields_of(error, key=entry.key)) from error
                packed.quarantined.append((entry.key, str(error)))
            else:
                packed.converted.update([converted_from] if converted_from else [])
                packed.seen.update((record.channels, record.format))
                packed.rotated += is_rotated
                yield serialize(record)
            report(1)

    def _make(self, entry: Entry) -> Made:
        return make_record(self._read(entry), self._classes[entry.label], self._options)


def _pack_all(source: Source, folder: Path, options: BuildOptions, parts: list[Part], lock: Lock) -> list[ShardReceipt]:
    with progress.bar(len(source.entries), f"packing {options.format}") as bar:
        return pack_shards(source, folder, options, parts, lock, bar.update)


def pack_shards(
    source: Source, folder: Path, options: BuildOptions, parts: list[Part], lock: Lock, report: Callable[[int], object]
) -> list[ShardReceipt]:
    """Write the shards of a plan, or keep those that are there; ``report`` is called with numbers of images done."""
    # Made one by one, as they are handed out: all entries at once would fill the memory.
    tasks = (Task(part.name, [source.entries[i] for i in part.entries]) for part in parts)
    args = (folder, Packer, source.read, source.classes, options)
    if options.scheduler:
        return resumable.all_packed(dask_pool.run_on_dask(options.scheduler, ResumableWriter, args, tasks, report))
    _compile()
    count = min(worker_pool.num_workers(options.workers), len(parts))
    return resumable.all_packed(worker_pool.run(ResumableWriter, args, tasks, count, report, lock))


def _compile() -> None:
    """Do for nothing what a worker does: what that has compiled is kept on disk, and need not be compiled in each."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    jpeg.normalize(jpeg.encode_pixels(pixels, quality=90, subsampling="4:2:0").encoded)
    area_resize(pixels, 4, 4)


def _finish(source: Source, folder: Path, options: BuildOptions, packed: list[ShardReceipt]) -> Manifest:
    quarantined = [row for part in packed for row in part.quarantined]
    result = _summary(source, options, packed, len(quarantined))
    resumable.finish(folder, result, quarantine.quarantine_table(quarantined))
    if not result.records:
        table = folder / quarantine.QUARANTINE
        raise SourceError(f"none of the source's {len(quarantined)} files could be packed; see {table}", path=table)
    return result


def _summary(source: Source, options: BuildOptions, packed: list[ShardReceipt], quarantined: int) -> Manifest:
    # Pixels from a source that has no files are packed as pixels, also where 'keep' was asked for.
    encoding = options.encoding if any(part.has_jpeg for part in packed) else "raw"
    return Manifest(
        version=manifest.VERSION,
        format=options.format,
        encoding=encoding,
        resize=options.resize,
        quality=options.quality if encoding == "jpeg" else None,
        channels=3 if any(part.has_color for part in packed) else 1,
        records=sum(part.shard.records for part in packed),
        quarantined=quarantined,
        converted=resumable.total(part.converted for part in packed),
        classes=source.classes,
        seed=options.seed,
        shards=tuple(part.shard for part in packed),
        build=build_config(source, options),
        passed_over=dict(sorted(source.passed_over.items())),
        shared_folders=dict(sorted(source.shared_folders.items())),
        rotated=sum(part.rotated for part in packed),
    )


def _output_folder(out: str | Path, src: str | Path, options: BuildOptions) -> Path:
    """The folder to write to, made. Raises OutputError where it is inside the source, or cannot be made."""
    folder, source = paths.parse_path(out), paths.parse_path(src)
    if paths.is_remote(folder):
        if reason := formats.load(options.format).LOCAL_BECAUSE:
            raise OutputError(f"{out}: {reason}: choose the format {' or '.join(formats.remote_formats())}", path=out)
        if paths.is_remote(source) and f"{folder}/".startswith(f"{source}/"):
            raise OutputError(f"{out}: lies in the source, which is only ever read: give another folder", path=out)
        return folder
    try:
        is_inside = not paths.is_remote(source) and folder.resolve().is_relative_to(source.resolve())
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        raise OutputError(f"{out}: cannot be made ({error}): give another folder", path=out) from error
    if is_inside:
        raise OutputError(f"{out}: lies in the source, which is only ever read: give another folder", path=out)
    resumable.make_folder(folder)
    # Workers of a cluster have folders of their own to start from.
    return folder.absolute() if options.scheduler else folder


def check_free_space(source: Source, folder: Path, options: BuildOptions) -> None:
    """Raise OutputError where what is to be packed will not fit, by the size of a few images: now, not hours later."""
    room_bytes = free_bytes(folder)
    if room_bytes is None:
        return
    packer = Packer(folder, source.read, source.classes, options)
    entries = [source.entries[i] for i in packing_order(len(source.entries), options.seed)[:_SAMPLE_SIZE]]
    sizes = [size for size in map(packer.size_bytes, entries) if size]
    needed_bytes = sum(sizes) / max(1, len(entries)) * len(source.entries)
    there_bytes = sum((folder / name).stat().st_size for name in paths.list_dir(folder))
    if needed_bytes * _SAFETY_FACTOR > room_bytes + there_bytes:
        raise OutputError(
            f"{folder}: too small: some {needed_bytes:,.0f} bytes are to be written, and {room_bytes:,} are free: "
            "make room, or give another folder",
            path=folder,
        )


def free_bytes(folder: Path) -> int | None:
    """Free space where ``folder`` lies or will lie, in bytes; None in a bucket, which has no end."""
    if paths.is_remote(folder):
        return None
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free
