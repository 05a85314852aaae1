"""Photographs become shards: a pure plan, worker processes that carry it out, and a manifest when all is whole.

What is written is a function of the source's content, the options and the seed: never of the number of workers, the
clock or the machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ingest import atomic, formats, jpeg, manifest, progress, sample, views, workers
from ingest.errors import BadSampleError, OptionError, OutputError, SourceError
from ingest.manifest import Manifest, Shard
from ingest.order import MAX_SEED, packing_order
from ingest.sample import JPEG, RAW, Record, Sample
from ingest.sources import Entry, Source, open_source

QUARANTINE = "quarantine.tsv"

ENCODINGS = ("keep", "jpeg", "raw")

RECORDS_A_SHARD = 1250
"""Of about 110 KB each: ImageNet's 1,281,167 training images make 1024 shards, its 50,000 validation images 40."""

MIN_SHARDS, MAX_SHARDS = 8, 1024

# Every name that a build may write.
_OURS = re.compile(rf"(\d{{5}}-of-\d{{5}}\.({'|'.join(formats.NAMES)})(\.index)?|{QUARANTINE}|{manifest.NAME})(\.tmp)?")


@dataclass(frozen=True)
class BuildOptions:
    """How to pack. ``resize`` is a short side in pixels, ``quality`` that of ``encoding="jpeg"``, 1 to 100."""

    format: str
    shards: int | None = None
    workers: int | None = None
    encoding: str = "keep"
    resize: int | None = None
    quality: int = 90
    seed: int = 0
    on_bad: str = "quarantine"

    def __post_init__(self) -> None:
        _require(self.format in formats.NAMES, f"format {self.format!r}: give one of {', '.join(formats.NAMES)}")
        _require(self.encoding in ENCODINGS, f"encoding {self.encoding!r}: give one of {', '.join(ENCODINGS)}")
        _require(self.on_bad in ("quarantine", "fail"), f"on_bad {self.on_bad!r}: give quarantine or fail")
        _require(self.shards is None or 1 <= self.shards <= 99_999, f"{self.shards} shards: give 1 to 99999")
        _require(self.resize is None or 1 <= self.resize <= 65_500, f"resize {self.resize}: give 1 to 65500 pixels")
        _require(1 <= self.quality <= 100, f"quality {self.quality}: give 1 to 100")
        _require(0 <= self.seed <= MAX_SEED, f"seed {self.seed}: give 0 to {MAX_SEED}")
        _require(
            self.resize is None or self.encoding != "keep",
            "resize changes pixels, and the encoding 'keep' keeps them: choose the encoding jpeg or raw",
        )
        workers.count(self.workers)


class Part(NamedTuple):
    """A shard of the plan: its file's name, and the positions in the source of its entries, int64 [N]."""

    name: str
    entries: np.ndarray


class Task(NamedTuple):
    """A shard to write: its file's name and its entries, in their order."""

    name: str
    entries: list[Entry]

    def __str__(self) -> str:
        return self.name


class Packed(NamedTuple):
    """A shard that was written, and what became of the entries that are not in it as they were."""

    shard: Shard
    quarantined: list[tuple[str, str]]
    converted: Counter[str]
    has_color: bool
    has_jpeg: bool


def build_shards(
    src: str | Path,
    out: str | Path,
    *,
    format: str,
    shards: int | None = None,
    workers: int | None = None,
    encoding: str = "keep",
    resize: int | None = None,
    quality: int = 90,
    seed: int = 0,
    on_bad: str = "quarantine",
) -> Manifest:
    """Pack the images of ``src`` into shards in the folder ``out``, in a random order drawn from ``seed``.

    ``src`` is a folder of CLASS/IMAGE files, or IDX files such as MNIST's. ``format`` is ``tfrecord`` or ``lmdb``.
    ``shards`` is their number, by default one for every 1250 images, 8 to 1024. ``workers`` is the number of processes,
    by default one a core, 0 for none but this.

    ``encoding`` is ``keep`` for the JPEGs' own coefficients (what is no JPEG is converted to one), ``jpeg`` to encode
    anew at ``quality``, or ``raw`` for pixels; the latter two after area-resizing the short side to ``resize``
    pixels, where it is larger.

    What cannot be decoded is listed in ``quarantine.tsv`` (key, reason), or raises BadSampleError if ``on_bad`` is
    ``fail``. Raises OptionError, SourceError or OutputError. ``manifest.json``, the value returned, is written last.
    """
    options = BuildOptions(format, shards, workers, encoding, resize, quality, seed, on_bad)
    source = open_source(src)
    parts = plan(len(source.entries), options)
    folder = Path(out)
    _make_folder(folder, Path(src))
    with _writing(folder), _locked(folder):
        _clear(folder)
        return _build(source, folder, options, parts)


def _build(source: Source, folder: Path, options: BuildOptions, parts: list[Part]) -> Manifest:
    try:
        packed = _pack_all(source, folder, options, parts)
    finally:
        _remove(folder, temporary_only=True)
    quarantined = [line for part in packed for line in part.quarantined]
    result = _summary(source, options, packed, len(quarantined))
    if quarantined:
        atomic.write(folder / QUARANTINE, _table(quarantined))
    if not result.records:
        raise SourceError(f"none of the source's {len(quarantined)} files could be packed; see {folder / QUARANTINE}")
    manifest.save(result, folder)
    return result


def plan(n: int, options: BuildOptions) -> list[Part]:
    """The shards to write of ``n`` entries: a seeded permutation, cut into parts of equal count (give or take one)."""
    shards = options.shards or min(n, max(MIN_SHARDS, min(MAX_SHARDS, -(-n // RECORDS_A_SHARD))))
    _require(shards <= n, f"{shards} shards for {n} images: give at most one an image")
    parts = np.array_split(packing_order(n, options.seed), shards)
    return [Part(f"{i:05d}-of-{shards:05d}.{options.format}", part) for i, part in enumerate(parts)]


def make_record(sample: Sample, synset: str, options: BuildOptions) -> tuple[Record, str | None]:
    """The record to pack for a sample, and what kind of file was converted for it, or None.

    Raises BadSampleError where the sample cannot be decoded.
    """
    encoded, segments, kind, shape, converted = _encode(sample.data, options)
    height, width, channels = shape
    record = Record(
        channels=channels, label=sample.label, synset=synset, encoded=encoded, key=sample.key, format=kind,
        height=height, segments=segments, width=width,
    )  # fmt: skip
    return record, converted


class _Encoded(NamedTuple):
    """What is packed of an image; ``shape`` is its height, width and channels."""

    encoded: bytes
    segments: bytes
    format: str
    shape: tuple[int, ...]
    converted: str | None


def _encode(data: bytes | np.ndarray, options: BuildOptions) -> _Encoded:
    if isinstance(data, bytes) and options.encoding == "keep":
        return _of_jpeg(jpeg.prepare(data))
    image = jpeg.read_pixels(data, options.resize or 0) if isinstance(data, bytes) else jpeg.Pixels.of(data)
    pixels = views.shrink(image.values, *_size(image, options.resize)) if options.resize else image.values
    if options.encoding == "jpeg":
        return _of_jpeg(jpeg.encode_pixels(pixels, options.quality, "4:2:0"))._replace(converted=image.converted)
    return _Encoded(pixels.tobytes(), b"", RAW, pixels.shape, image.converted)


def _size(image: jpeg.Pixels, short_side: int) -> tuple[int, int]:
    """Height and width of an image whose short side is reduced to ``short_side``."""
    scale = min(1, short_side / min(image.height, image.width))
    return max(1, round(image.height * scale)), max(1, round(image.width * scale))


def _of_jpeg(file: jpeg.Prepared) -> _Encoded:
    return _Encoded(file.encoded, file.segments, JPEG, (file.height, file.width, file.channels), file.converted)


class _Packer:
    """Writes a shard; the handler of a worker process."""

    def __init__(self, read: Callable[[Entry], Sample], classes: tuple[str, ...], folder: Path, options: BuildOptions):
        self._read, self._classes, self._folder, self._options = read, classes, folder, options
        self._format = formats.load(options.format)
        views.single_threaded()

    def __call__(self, task: Task, report: Callable[[int], object]) -> Packed:
        quarantined: list[tuple[str, str]] = []
        converted: Counter[str] = Counter()
        seen: set[int | str] = set()
        path = self._folder / task.name
        with _writing(path):
            self._format.write(path, self._payloads(task.entries, report, quarantined, converted, seen))
            shard = Shard(task.name, len(task.entries) - len(quarantined), path.stat().st_size, _sha256(path))
        return Packed(shard, quarantined, converted, 3 in seen, JPEG in seen)

    def _payloads(
        self,
        entries: Iterable[Entry],
        report: Callable[[int], object],
        quarantined: list[tuple[str, str]],
        converted: Counter[str],
        seen: set[int | str],
    ) -> Iterator[bytes]:
        for entry in entries:
            try:
                record, what = self._make(entry)
            except BadSampleError as error:
                if self._options.on_bad == "fail":
                    raise BadSampleError(f"{entry.key}: {error}") from error
                quarantined.append((entry.key, str(error)))
            else:
                converted.update([what] if what else [])
                seen.update((record.channels, record.format))
                yield sample.pack(record)
            report(1)

    def _make(self, entry: Entry) -> tuple[Record, str | None]:
        return make_record(self._read(entry), self._classes[entry.label], self._options)


def _pack_all(source: Source, folder: Path, options: BuildOptions, parts: list[Part]) -> list[Packed]:
    # Made one by one, as they are handed out: all entries at once would fill the memory.
    tasks = (Task(part.name, [source.entries[i] for i in part.entries]) for part in parts)
    make_packer = (_Packer, (source.read, source.classes, folder, options))
    with progress.bar(len(source.entries), f"packing {options.format}") as bar:
        _compile()
        results = workers.run(*make_packer, tasks, workers.count(options.workers), bar.update)
        # Closed also where an interrupt is raised here and not in there: no worker may write once this has ended.
        with closing(results):
            return sorted(results, key=lambda packed: packed.shard.name)


def _compile() -> None:
    """Do for nothing what a worker does: what that has compiled is kept on disk, and need not be compiled in each."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    jpeg.prepare(jpeg.encode_pixels(pixels, quality=90, subsampling="4:2:0").encoded)
    views.shrink(pixels, 4, 4)


def _summary(source: Source, options: BuildOptions, packed: list[Packed], quarantined: int) -> Manifest:
    converted = sum((part.converted for part in packed), Counter[str]())
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
        converted=dict(sorted(converted.items())),
        classes=source.classes,
        seed=options.seed,
        shards=tuple(part.shard for part in packed),
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}): make room, then start again") from error


def _make_folder(out: Path, src: Path) -> None:
    """Make the folder to write to. Raises OutputError where it is inside the source, or cannot be made."""
    try:
        if out.resolve().is_relative_to(src.resolve()):
            raise OutputError(f"{out}: lies in the source, which is only ever read: give another folder")
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        raise OutputError(f"{out}: cannot be made ({error}): give another folder") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Within, no other build writes to ``folder``. The lock is the kernel's: it leaves nothing, however this ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"{folder}: another build is writing to it: wait for it, or give another folder") from error


def _clear(folder: Path) -> None:
    """Remove what an unfinished build left. Raises OutputError where the folder holds anything else."""
    paths = sorted(folder.iterdir())
    if any(path.name == manifest.NAME for path in paths):
        raise OutputError(f"{folder}: already holds a finished dataset: remove it first, or give another folder")
    if foreign := [path.name for path in paths if not (_OURS.fullmatch(path.name) and path.is_file())]:
        raise OutputError(f"{folder}: not empty (it holds {foreign[0]}): give a new or empty folder")
    _remove(folder)


def _remove(folder: Path, temporary_only: bool = False) -> None:
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and (not temporary_only or path.suffix == atomic.TEMPORARY_SUFFIX):
            path.unlink()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(partial(file.read, 2**20), b""):
            digest.update(block)
    return digest.hexdigest()


_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def _table(rows: list[tuple[str, str]]) -> bytes:
    lines = ("\t".join(cell.translate(_ESCAPES) for cell in row) for row in [("key", "reason"), *rows])
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise OptionError(message)
