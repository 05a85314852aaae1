"""Mutated datasets: ``python -m support.fuzz_datasets KIND SEED FIRST COUNT`` reads them, and tells how that went.

A mutant is a function of (kind, seed, number) alone, so that one that is found can be looked at again. Checksums are
made to fit what was mutated: it is the content that is to be refused.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

import ingest
from ingest import formats
from ingest.dataset import manifest
from ingest.dataset.dataset import Dataset
from ingest.dataset.record_check import check_record
from ingest.errors import BadSampleError, IngestError, RecordError
from ingest.loading import transforms
from ingest.loading.batches import iter_batches
from ingest.loading.options import LoaderOptions, TransformOptions
from ingest.record import Record, _field, _varint, parse, serialize
from ingest.system import paths
from support.fuzz_jpegs import cut, fill, flip
from support.fuzzing import SECONDS, try_all
from support.images import FORMATS, image_bytes, put

Generator = np.random.Generator

EDGES = (0, 1, 2, 3, 7, 8, 15, 16, 48, 64, 127, 128, 255, 4096, 65535, 2**26, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**62,
         2**63 - 1, 2**63, 2**64 - 15, 2**64 - 1)  # fmt: skip

field = _field


def resealed(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the fields of a dataset's manifest, and make its checksum fit."""
    content = json.loads((folder / manifest.NAME).read_bytes())
    content = change({name: value for name, value in content.items() if name != "sha256"})
    plain = {name: value for name, value in content.items() if name != "sha256"}
    (folder / manifest.NAME).write_bytes(manifest._text({**plain, "sha256": manifest._sum(plain)}))


def rebuilt(source: Path, folder: Path, change: Callable[[int, Record], bytes | None]) -> Path:
    """A copy of a dataset with the payloads that ``change`` gives for its records, where it gives one."""
    shutil.copytree(source, folder)
    dataset = Dataset(source)
    known, shards = dataset.manifest, []
    for shard, numbers in zip(known.shards, dataset.ranges(), strict=True):
        changed = [change(i, parse(dataset.payload(i))) for i in numbers]
        if any(payload is not None for payload in changed):
            payloads = [dataset.payload(i) if new is None else new for i, new in zip(numbers, changed, strict=True)]
            written = formats.write(known.format, folder / shard.name, payloads)
            shard = replace(shard, size_bytes=written.size_bytes, sha256=written.sha256)
        shards.append(shard)
    if tuple(shards) != known.shards:
        manifest.save(replace(known, shards=tuple(shards)), folder)
    dataset.close()
    return folder


@cache
def originals() -> dict[str, Path]:
    """Datasets of both formats, of JPEGs and of pixels, of eight small photographs in two shards."""
    root = Path(tempfile.mkdtemp())
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("RGB", {}), ("RGB", {"subsampling": "4:4:4"}), ("L", {}), ("RGB", {"progressive": True}),
    ]  # fmt: skip
    photos = {
        f"{i % 2}/{i}.jpg": image_bytes("JPEG", (80 - 8 * (i // 4), 60 - 6 * (i // 4)), mode, **options)
        for i, (mode, options) in enumerate(2 * kinds)
    }
    put(root / "photos", photos)
    for name in FORMATS:
        ingest.build_shards(root / "photos", root / name, format=name, shards=2, workers=0)
    ingest.build_shards(
        root / "photos", root / "raw", format="tfrecord", shards=2, workers=0, encoding="raw", resize=24
    )
    return {name: root / name for name in (*FORMATS, "raw")}


@cache
def payloads(kind: str) -> tuple[bytes, ...]:
    """All records of one of the originals."""
    dataset = Dataset(originals()[kind])
    return tuple(dataset.payload(i) for i in range(len(dataset)))


def choice(random: Generator, of: Any) -> Any:
    return of[random.integers(len(of))]


def edge(random: Generator) -> int:
    return int(choice(random, EDGES)) if random.integers(4) else int(random.integers(2**63))


# Records


def mutated_fields(record: Record, random: Generator) -> Record:
    """A record of other fields, one or two, or with parts of another record."""
    for _ in range(random.integers(1, 3)):
        name = choice(random, Record._fields)
        value = getattr(record, name)
        other = parse(choice(random, payloads(choice(random, ("tfrecord", "raw")))))
        if isinstance(value, int):
            value = choice(random, (edge(random), value + 1, max(value - 1, 0), getattr(other, name)))
        elif isinstance(value, str):
            value = choice(random, (getattr(other, name), "", "JPEG", "RAW", value + "\0", "\udce9"))
        elif name == "segments":
            value = choice(random, (mutated_offsets, mutated_bytes))(bytes(value), random)
        else:
            value = choice(random, (mutated_bytes(bytes(value), random), bytes(other.encoded)))
        record = record._replace(**{name: value})
    return record


def mutated_offsets(segments: bytes, random: Generator) -> bytes:
    offsets = np.frombuffer(segments[: len(segments) // 4 * 4], "<u4").astype(np.int64)
    if len(offsets) == 0:
        return b"\0\0\0\0\1\0\0\0"
    at = random.integers(len(offsets))
    kind = random.integers(5)
    if kind == 0:
        offsets[at] = edge(random) % 2**32
    elif kind == 1:
        offsets[at] += random.integers(-3, 4)
    elif kind == 2:
        offsets = np.delete(offsets, at)
    elif kind == 3:
        offsets = np.insert(offsets, at, offsets[at] + random.integers(-2, 3))
    else:
        offsets = random.permutation(offsets)
    return (offsets % 2**32).astype("<u4").tobytes()


def mutated_bytes(data: bytes, random: Generator) -> bytes:
    mutant = bytearray(data or b"\0")
    choice(random, (flip, flip, cut, fill, tag, repeat))(mutant, random)
    return bytes(mutant)


def tag(data: bytearray, random: Generator) -> None:
    """Another tag, another length or a large number somewhere."""
    at = random.integers(min(len(data), 400))
    if random.integers(2):
        data[at] = choice(random, [number << 3 | kind for number in (0, 1, 2, 3, 15) for kind in range(8)])
    else:
        data[at : at + random.integers(3)] = _varint(edge(random) % 2**64)


def repeat(data: bytearray, random: Generator) -> None:
    start, end = sorted(random.integers(0, len(data) + 1, 2).tolist())
    at = random.integers(len(data) + 1)
    data[at:at] = data[start:end]


def mutated_payload(payload: bytes, random: Generator) -> bytes:
    if random.integers(2):
        return mutated_bytes(payload, random)
    return serialize(mutated_fields(parse(payload), random))


def read_record(random: Generator) -> bool:
    """Read a mutated record as the loader does; whether it could be shown."""
    kind = choice(random, ("tfrecord", "raw"))
    known = manifest.load_manifest(originals()[kind])
    try:
        record = parse(mutated_payload(choice(random, payloads(kind)), random))
        check_record(record, known)
        for draws in random.random((2, 44)).tolist():
            transforms.train_transform(record, draws, np.empty((32, 32, known.channels), np.uint8), TransformOptions())
        transforms.eval_transform(record, np.empty((32, 32, known.channels), np.uint8))
        whole = transforms.decode(record, known.channels)
    except (RecordError, BadSampleError):
        return False
    region = transforms.Region(0, 0, record.height, record.width)
    assert np.array_equal(whole, np.broadcast_to(transforms.decode_region(record, known.channels, region), whole.shape))
    return True


# Shards and indexes


def read_shard(random: Generator, format: str, index: bool) -> bool:
    """Open a shard that was mutated, or whose index was; whether all of its records are there, and nothing else."""
    source = originals()[format]
    name = choice(random, manifest.load_manifest(source).shards).name
    path = source.parent / f"mutant.{format}"
    data, beside = bytearray((source / name).read_bytes()), formats.index_path(path)
    wanted = open_all(format, source / name)
    beside.unlink(missing_ok=True)
    if index:
        rows = bytearray((source / f"{name}.index").read_bytes()[:-4])
        mutate_numbers(rows, random, 0, len(rows))
        beside.write_bytes(bytes(rows) + crc32c(bytes(rows)).to_bytes(4, "little"))
    elif format == "lmdb":
        mutate_pages(data, random)
    else:
        mutate_framing(data, random)
    path.write_bytes(data)
    try:
        list(formats.find_faults(format, path))
        found = open_all(format, path)
    except RecordError:
        return False
    assert not index or found == wanted
    return found == wanted


def open_all(format: str, path: Path) -> list[bytes]:
    shard = formats.open(format, path)
    return [bytes(shard.get(i)) for i in range(len(shard))]


def mutate_numbers(data: bytearray, random: Generator, start: int, end: int) -> None:
    """Other little-endian numbers, of two to eight bytes, or other bytes."""
    for _ in range(random.integers(1, 4)):
        if len(data) < 9 or random.integers(5) == 0:
            choice(random, (flip, cut, repeat))(data, random) if len(data) > 4 else None
            continue
        size = int(choice(random, (2, 2, 4, 6, 8)))
        at = start + int(random.integers(max(1, (min(end, len(data)) - start) // 2))) * 2
        data[at : at + size] = (edge(random) % 2 ** (8 * size)).to_bytes(size, "little")


def mutate_pages(data: bytearray, random: Generator) -> None:
    """Other numbers where an LMDB's snapshots, heads of pages and nodes are; small ones, too, which are pages."""
    pages = len(data) // 4096
    for _ in range(random.integers(1, 4)):
        page = int(random.integers(pages)) * 4096
        near = page + int(random.integers(80)) * 2 if random.integers(2) else page + 4096 - int(random.integers(1, 600))
        size = int(choice(random, (2, 4, 6, 8)))
        value = int(random.integers(pages)) if random.integers(2) else edge(random)
        data[near : near + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    if random.integers(4) == 0:
        mutate_numbers(data, random, 0, 8192)


def mutate_framing(data: bytearray, random: Generator) -> None:
    """Another length of a record with the checksum that fits it, or anything."""
    from ingest.formats import tfrecord

    places = [place.offset - 12 for place in tfrecord.find(memoryview(bytes(data)))]
    if random.integers(2):
        at = choice(random, places)
        head = (edge(random) if random.integers(2) else int(random.integers(4000))).to_bytes(8, "little")
        data[at : at + 12] = head + tfrecord._masked(crc32c(head)).to_bytes(4, "little")
    else:
        mutate_numbers(data, random, 0, len(data))


# Manifests and their like

VALUES = (None, True, False, -1, 0.5, 1e300, 2**63, 10**30, "", "x" * 400, "..", "a/b", "\0", "\ud800", [], {}, [[]],
          [None], {"a": 1}, [1, "a"], {"": {}}, "NaN", "0" * 64)  # fmt: skip


def mutated_json(content: Any, random: Generator) -> Any:
    """Content with another value, a name or an element less, or one more, somewhere."""
    if isinstance(content, dict) and content and random.integers(6):
        name = choice(random, sorted(content))
        return {**content, name: mutated_json(content[name], random)}
    if isinstance(content, list) and content and random.integers(4):
        at = random.integers(len(content))
        return [*content[:at], mutated_json(content[at], random), *content[at + 1 :]]
    if isinstance(content, dict) and content and random.integers(2):
        return {name: content[name] for name in sorted(content)[1:]}
    if isinstance(content, list) and random.integers(2):
        return content + content
    return edge(random) if random.integers(3) == 0 else choice(random, VALUES)


def read_manifest(random: Generator) -> bool:
    """Load a mutated manifest and its recipe, and all that it leads to; whether that was all right."""
    folder = originals().setdefault("mutant", originals()["tfrecord"].parent / "mutant")
    if not folder.exists():
        shutil.copytree(originals()["tfrecord"], folder)
        shutil.copy(folder / "build.json", folder / "build")
    whole = (originals()["tfrecord"] / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(whole)
    (folder / "build.json").write_bytes((folder / "build").read_bytes())
    if random.integers(4) == 0:
        name = choice(random, ("manifest.json", "build.json"))
        (folder / name).write_bytes(mutated_bytes((folder / name).read_bytes(), random))
    else:
        resealed(folder, lambda content: dict(as_object(mutated_json(content, random))))
        recipe = json.loads((folder / "build").read_bytes())
        del recipe["sha256"]
        plain = as_object(mutated_json(recipe, random))
        (folder / "build.json").write_bytes(manifest._text({**plain, "sha256": manifest._sum(plain)}))
    with suppress(IngestError):
        manifest.load_build_config(folder)
    try:
        dataset = Dataset(folder)
        found = tuple(dataset.payload(i) for i in range(len(dataset)))
    except IngestError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return False
    assert sorted(path.name for path in folder.parent.glob("*.tmp")) == []
    return found == payloads("tfrecord")


RUN = {
    "model": "lenet", "image_size": 28, "channels": 1, "classes": ["a", "b"], "data": "0" * 64, "records": 9,
    "batch_size": 3, "seed": 0, "tune": "all", "optimizer": "sgd", "mixed_precision": False,
    "variant": {"pixel_range": "standard", "initializer": "own", "bias": True},
}  # fmt: skip

HISTORY = [
    {"step": 3, "epoch": 1.0, "loss": 0.7, "top1": 0.5, "eval_loss": None, "eval_top1": 0.5, "eval_top5": 1.0},
    {"step": 6, "epoch": 2.0, "loss": None, "top1": None},
]


def read_run(random: Generator) -> bool:
    """Load what a training left, mutated; whether it could be."""
    from models import ModelError, run_dir

    folder = originals()["tfrecord"].parent
    whole = {run_dir.RUN: RUN, run_dir.HISTORY: HISTORY}
    mutant = choice(random, sorted(whole))
    for name, content in whole.items():
        data = json.dumps(mutated_json(content, random) if name == mutant else content).encode()
        (folder / name).write_bytes(data if name != mutant or random.integers(4) else mutated_bytes(data, random))
    try:
        what = run_dir.load_config(folder)
        run_dir.load_history(folder, 10)
    except ModelError as error:
        assert str(error)
        return False
    assert what.differences(what) == []
    return True


def as_object(content: Any) -> dict[str, Any]:
    return content if isinstance(content, dict) else {"version": content}


READERS: dict[str, Callable[[Generator], bool]] = {
    "records": read_record,
    "lmdb": lambda random: read_shard(random, "lmdb", index=False),
    "tfrecord": lambda random: read_shard(random, "tfrecord", index=False),
    "indexes": lambda random: read_shard(random, choice(random, FORMATS), index=True),
    "manifests": read_manifest,
    "runs": read_run,
}


# Whole datasets


def mutated_dataset(folder: Path, random: Generator) -> Path:
    """A dataset with other records, other shards or another manifest, whose checksums fit; in one of three of them
    there is nothing that a reader could mind."""
    source = originals()[choice(random, ("tfrecord", "lmdb", "raw"))]
    known = manifest.load_manifest(source)
    kind = random.integers(6)
    if kind < 3:
        which = set(random.integers(0, known.records, random.integers(1, 3)).tolist())

        def change(i: int, record: Record) -> bytes | None:
            if i not in which:
                return None
            return harmless(record, random) if random.integers(2) else mutated_payload(serialize(record), random)

        return rebuilt(source, folder, change)
    shutil.copytree(source, folder)
    if kind == 3:
        resealed(folder, lambda content: as_object(mutated_json(content, random)))
    elif kind == 4:
        shard = choice(random, known.shards)
        path = folder / shard.name
        data = bytearray(path.read_bytes())
        mutate_pages(data, random) if known.format == "lmdb" else mutate_framing(data, random)
        path.write_bytes(data)
        formats.index_path(path).unlink()
        try:
            records = len(open_all(known.format, path))
        except RecordError:
            records = shard.records
        fits = int(records * manifest.MIN_RECORD_BYTES <= len(data))
        described = replace(shard, records=fits * records, size_bytes=len(data), sha256=paths.sha256(path))
        shards = tuple(described if each == shard else each for each in known.shards)
        manifest.save(replace(known, shards=shards, records=sum(each.records for each in shards)), folder)
    else:
        manifest.save(replace(known, shards=known.shards[::-1], seed=int(random.integers(100))), folder)
    return folder


def harmless(record: Record, random: Generator) -> bytes:
    """Another record that is whole: one without segments, of another key, or of the other class."""
    kind = random.integers(3)
    if kind == 0:
        return serialize(record._replace(segments=b""))
    if kind == 1:
        return serialize(record._replace(key="another"))
    return serialize(record._replace(label=1 - record.label, synset=str(1 - record.label)))


def streams(folder: Path, workers: int) -> list[list[np.ndarray]]:
    """All batches of an epoch of training, of whole images, and of evaluation. Raises IngestError."""
    return [
        [
            array.copy()
            for batch in iter_batches(
                folder,
                LoaderOptions(
                    batch_size=3, training=training, image_size=32, workers=workers, epochs=1, min_crop_area=1.0
                ),
            )
            for array in batch
        ]
        for training in (True, False)
    ]


def judge(random: Generator, with_workers: bool) -> bool:
    """Whether a mutated dataset is whole: by verify, and by the loader, which must agree."""
    from ingest.tools.verify import verify

    folder = originals()["tfrecord"].parent / "dataset"
    shutil.rmtree(folder, ignore_errors=True)
    mutated_dataset(folder, random)
    try:
        damages = verify(folder, decode=True, workers=0).damages
    except IngestError as error:
        damages = (error,)
    # What the loader makes again, or does not read, is damaged all the same; a manifest may say more than it reads.
    ours = ("build.json", "quarantine.tsv", ".index")
    shown = []
    for workers in (0, 2) if with_workers else (0, 0):
        try:
            shown.append(streams(folder, workers))
        except IngestError as error:
            assert "\n" not in str(error)
            shown.append(None)
    is_whole = all(str(getattr(damage, "file", "")).endswith(ours) for damage in damages)
    assert [stream is not None for stream in shown] == [is_whole] * 2, (damages, [stream is None for stream in shown])
    if is_whole:
        for one, other in zip(*shown, strict=True):
            assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))
    return is_whole


def main(kind: str, seed: int, first: int, count: int) -> None:
    """Read so many mutants of a kind, or judge datasets, every ``kind``'s number of them with workers, too."""
    transforms.single_threaded()
    name, _, every = kind.partition("/")

    def use(number: int) -> bool:
        random = np.random.Generator(np.random.PCG64([seed, number, *name.encode()]))
        return READERS[name](random) if name in READERS else judge(random, number % int(every) == 0)

    use(first)  # for all that has to be compiled
    try_all(seed, range(first, first + count), use, count, seconds=6 * SECONDS)
    shutil.rmtree(originals()["tfrecord"].parent)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
