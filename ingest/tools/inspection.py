"""What is in a dataset: its classes, sizes and encodings, what was quarantined, and which images it holds twice.

Workers read every record once and send back a few bytes of each, among them a digest of its image; all else is counted
from those. Images are the same where their stored bytes are: two files of one photograph that were compressed
differently are two images.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ingest import sampler
from ingest.dataset import quarantine
from ingest.dataset.dataset import Dataset
from ingest.errors import RecordError
from ingest.record import RAW, Record
from ingest.system import progress, worker_pool
from ingest.system.terminal import printable
from ingest.system.worker_pool import num_workers
from ingest.tools import class_mixing
from ingest.tools.class_mixing import ClassMixing

ENCODINGS = ("JPEG with restart segments", "JPEG without", RAW)

MAX_GROUPS = 1000
"""Groups of same images that are listed; all are counted."""

MAX_IMAGES = 10
"""Images that are listed of each group and dataset."""

_FACTS = np.dtype("S16, i4, i4, i4, i4, i1, i1")
_FACTS.names = ("digest", "label", "height", "width", "size_bytes", "channels", "encoding")

_REPORTED = 100
"""Records between two messages on progress: one for each would keep the parent busy."""

_QUANTILES = {"min": 0, "5 %": 5, "median": 50, "95 %": 95, "max": 100}

# In the printed text: all classes or so many; so many names in a line; so many of the smallest, largest or first.
_SHOWN_CLASSES, _SHOWN_NAMES, _SHOWN = 50, 20, 5

_BAR = 40

_ROTATED = {
    "ignore": ", packed as they are stored: 'build-shards --exif-orientation apply' turns them",
    "apply": ", turned",
}

_PACKED = "packed order"


class Task(NamedTuple):
    """A shard to read: its name, and the numbers of its records in the dataset."""

    name: str
    records: range

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Image:
    """One of several same images; ``where`` is its shard and number."""

    key: str
    class_name: str
    where: str


@dataclass(frozen=True)
class Group:
    """Images of the same bytes: how many, their classes' names, and the first of them in each dataset."""

    count: int
    classes: tuple[str, ...]
    first: tuple[Image, ...]


@dataclass(frozen=True)
class Duplicates:
    """Groups of same images, within a dataset or across two.

    ``images`` counts those in groups, of each dataset; ``mixed`` the groups of more than one class, whose labels are in
    doubt. ``first`` lists MAX_GROUPS of the groups at most, mixed ones first.
    """

    groups: int
    images: tuple[int, ...]
    mixed: int
    first: tuple[Group, ...]


@dataclass(frozen=True)
class Comparison:
    """What a dataset shares with another, ``against``.

    ``relabelled`` are the classes of both whose labels differ. Where they are not ``packed_alike``, the same photograph
    has other bytes in each, and is not found.
    """

    against: str
    records: int
    packed_alike: bool
    in_both: Duplicates
    only_here: tuple[str, ...]
    only_there: tuple[str, ...]
    relabelled: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What is in a dataset. ``classes`` counts the images of each, in the order of labels.

    ``rotated`` counts the images whose EXIF orientation is not 1, ``exif_orientation`` is what was done with it:
    ``ignore`` or ``apply``. ``mixing`` tells how the classes are mixed in the packed order, and in that of the first
    epoch of seed 0.
    """

    folder: str
    format: str
    encoding: str
    records: int
    shards: int
    size_bytes: int
    quarantined: int
    reasons: dict[str, int]
    passed_over: dict[str, int]
    shared_folders: dict[str, str]
    converted: dict[str, int]
    classes: dict[str, int]
    distributions: dict[str, dict[str, int]]
    num_grayscale: int
    rotated: int
    exif_orientation: str
    encodings: dict[str, int]
    mixing: dict[str, ClassMixing]
    duplicates: Duplicates
    comparison: Comparison | None


def inspect(shards: str | Path, against: str | Path | None = None, workers: int | None = None) -> Inspection:
    """Read the dataset in the folder ``shards``, and compare it with the one in ``against``.

    ``workers`` is the number of processes, by default one a core, 0 for none but this. Raises ManifestError or
    RecordError where a dataset is missing or damaged.
    """
    num_workers(workers)  # what is no number of processes is refused before anything is read
    datasets = [Dataset(folder) for folder in (shards, *([] if against is None else [against]))]
    if empty := [dataset.folder for dataset in datasets if not len(dataset)]:
        raise RecordError(f"{empty[0]}: the dataset has no records: build it again", path=empty[0])
    facts = [_read_all(dataset, workers) for dataset in datasets]
    own_facts, manifest = facts[0], datasets[0].manifest
    counts = np.bincount(own_facts["label"], minlength=len(manifest.classes))
    return Inspection(
        folder=str(shards),
        format=manifest.format,
        encoding=manifest.encoding,
        records=len(own_facts),
        shards=len(manifest.shards),
        size_bytes=manifest.size_bytes,
        quarantined=manifest.quarantined,
        reasons=_reasons(quarantine.read_quarantine(datasets[0].folder)),
        passed_over=manifest.passed_over,
        shared_folders=manifest.shared_folders,
        converted=manifest.converted,
        classes=dict(zip(manifest.classes, counts.tolist(), strict=True)),
        distributions=_distributions(counts, own_facts),
        num_grayscale=int((own_facts["channels"] == 1).sum()),
        rotated=manifest.rotated,
        exif_orientation=manifest.build.exif_orientation if manifest.build else "ignore",
        encodings=dict(
            zip(ENCODINGS, np.bincount(own_facts["encoding"], minlength=len(ENCODINGS)).tolist(), strict=True)
        ),
        mixing=_mixing(own_facts["label"]),
        duplicates=_duplicates(datasets[:1], facts[:1]),
        comparison=_compare(datasets, facts) if against is not None else None,
    )


class _Reader:
    """Reads a shard; the handler of a worker process."""

    def __init__(self, folder: Path):
        self._dataset = Dataset(folder)

    def __call__(self, task: Task, report: Callable[[int], object]) -> tuple[range, np.ndarray]:
        facts = np.empty(len(task.records), _FACTS)
        for start in range(0, len(facts), _REPORTED):
            block = task.records[start : start + _REPORTED]
            facts[start : start + _REPORTED] = [self._facts_of(i) for i in block]
            report(len(block))
        self._dataset.close()  # a shard is read once
        return task.records, facts

    def _facts_of(self, i: int) -> tuple[bytes | int, ...]:
        record = self._dataset[i]
        encoding = ENCODINGS.index(RAW) if record.format == RAW else int(not record.segments)
        size_bytes = len(record.encoded)
        return _digest(record), record.label, record.height, record.width, size_bytes, record.channels, encoding


def _digest(record: Record) -> bytes:
    # With the shape: two sets of raw pixels can be the same bytes in rows of other lengths.
    shape = f"{record.height} {record.width} {record.channels} ".encode()
    digest = hashlib.blake2b(shape, digest_size=16)
    digest.update(record.encoded)
    return digest.digest()


def _read_all(dataset: Dataset, processes: int | None) -> np.ndarray:
    """The facts of all records, _FACTS [records]."""
    tasks = [Task(shard.name, records) for shard, records in zip(dataset.manifest.shards, dataset.ranges())]
    facts = np.empty(len(dataset), _FACTS)
    with progress.bar(len(dataset), f"reading {dataset.folder.name}") as bar:
        results = worker_pool.run(_Reader, (dataset.folder,), tasks, worker_pool.num_workers(processes), bar.update)
        with closing(results):
            for records, part in results:
                facts[records.start : records.stop] = part
    return facts


def _mixing(labels: np.ndarray) -> dict[str, ClassMixing]:
    return {
        _PACKED: class_mixing.mixing(labels),
        "training order": class_mixing.mixing(labels[sampler.epoch_order(len(labels), 0, 0)]),
    }


def _distributions(class_counts: np.ndarray, facts: np.ndarray) -> dict[str, dict[str, int]]:
    """The quantiles of each quantity; all are values that occur."""
    height, width = facts["height"], facts["width"]
    quantities = {
        "images a class": class_counts,
        "height": height,
        "width": width,
        "short side": np.minimum(height, width),
        "pixels": height.astype(np.int64) * width,
        "encoded bytes": facts["size_bytes"],
    }
    percentiles = [*_QUANTILES.values()]
    return {
        name: dict(zip(_QUANTILES, np.percentile(values, percentiles, method="nearest").tolist(), strict=True))
        for name, values in quantities.items()
    }


def _reasons(table: bytes) -> dict[str, int]:
    """How many files were quarantined for each reason, the most frequent first; numbers and details left out."""
    lines = table.decode("utf-8", "surrogateescape").split("\n")[1:-1]
    reasons = (re.split(r":| \(", line.partition("\t")[2], maxsplit=1)[0] for line in lines)
    return dict(Counter(re.sub(r"\b\d+\b", "N", reason) for reason in reasons).most_common())


def _duplicates(datasets: list[Dataset], facts: list[np.ndarray]) -> Duplicates:
    """The groups of same images that have one in each of ``datasets``, and two at least."""
    names = list(dict.fromkeys(name for dataset in datasets for name in dataset.manifest.classes))
    numbers = {name: number for number, name in enumerate(names)}
    tables = [np.array([numbers[name] for name in dataset.manifest.classes]) for dataset in datasets]
    classes = np.concatenate([table[part["label"]] for table, part in zip(tables, facts, strict=True)])
    digests = np.concatenate([part["digest"] for part in facts])
    ends = np.cumsum([len(part) for part in facts])

    # Stable: a group's images stay in the order of datasets and records.
    by_digest = np.argsort(digests, kind="stable")
    starts = np.flatnonzero(np.append(True, digests[by_digest[1:]] != digests[by_digest[:-1]]))
    stops = np.append(starts[1:], len(by_digest))
    is_mixed = np.minimum.reduceat(classes[by_digest], starts) < np.maximum.reduceat(classes[by_digest], starts)
    in_each = (by_digest[starts] < ends[0]) & (by_digest[stops - 1] >= ends[-1] - len(facts[-1]))
    is_group = in_each & (stops - starts > 1)
    images = by_digest[np.repeat(is_group, stops - starts)]
    groups = np.flatnonzero(is_group)
    groups = groups[np.lexsort((by_digest[starts[groups]], ~is_mixed[groups]))]

    def image(i: int) -> Image:
        which = bisect_right(ends, i)
        dataset, number = datasets[which], i - int(ends[which]) + len(facts[which])
        return Image(dataset[number].key, names[classes[i]], dataset.describe_location(number))

    def group(members: np.ndarray) -> Group:
        of_each = np.split(members, np.searchsorted(members, ends[:-1]))
        first = [image(i) for part in of_each for i in part[:MAX_IMAGES].tolist()]
        return Group(len(members), tuple(names[number] for number in np.unique(classes[members])), tuple(first))

    return Duplicates(
        groups=len(groups),
        images=tuple(np.bincount(np.searchsorted(ends, images, side="right"), minlength=len(facts)).tolist()),
        mixed=int(is_mixed[groups].sum()),
        first=tuple(group(by_digest[starts[i] : stops[i]]) for i in groups[:MAX_GROUPS]),
    )


def _compare(datasets: list[Dataset], facts: list[np.ndarray]) -> Comparison:
    own, other = (dataset.manifest for dataset in datasets)
    ours, theirs = ({name: label for label, name in enumerate(manifest.classes)} for manifest in (own, other))
    return Comparison(
        against=str(datasets[1].folder),
        records=len(datasets[1]),
        packed_alike=(own.encoding, own.resize, own.quality) == (other.encoding, other.resize, other.quality),
        in_both=_duplicates(datasets, facts),
        only_here=tuple(name for name in ours if name not in theirs),
        only_there=tuple(name for name in theirs if name not in ours),
        relabelled=tuple(name for name, label in ours.items() if theirs.get(name, label) != label),
    )


def text(result: Inspection) -> str:
    """An inspection for people to read."""
    # Names of files and classes may hold anything: it must neither break a line nor the terminal.
    return "\n".join(map(printable, _lines(result)))


def _lines(result: Inspection) -> Iterator[str]:
    yield f"{result.folder}: {result.format}, encoding {result.encoding}"
    yield f"records: {result.records:,}, shards: {result.shards:,}, bytes: {result.size_bytes:,}"
    yield _counted("quarantined", result.quarantined, result.reasons)
    yield _counted("passed over", sum(result.passed_over.values()), result.passed_over)
    yield _counted("converted", sum(result.converted.values()), result.converted)
    yield _counted("stored as", result.records, result.encodings)
    yield f"grey: {result.num_grayscale:,} ({result.num_grayscale / result.records:.1%})"
    yield f"rotated by EXIF: {result.rotated:,}" + (_ROTATED[result.exif_orientation] if result.rotated else "")
    yield ""
    yield f"{'':<14}" + "".join(f"{name:>14}" for name in _QUANTILES)
    for name, spread in result.distributions.items():
        yield f"{name:<14}" + "".join(f"{value:>14,}" for value in spread.values())
    yield ""
    yield from _histogram(result.classes)
    if shared := [f"{name} and {other}" for name, other in result.shared_folders.items()]:
        yield f"WARNING: classes that hold the same folder, by a link: {_some(shared)}"
    yield ""
    for name, mixing in result.mixing.items():
        yield from _mixed(name, mixing)
    yield ""
    groups, surplus = result.duplicates.groups, sum(result.duplicates.images) - result.duplicates.groups
    yield f"exact duplicates: {groups:,} groups, surplus images: {surplus:,}"
    yield from _groups(result.duplicates)
    if result.comparison:
        yield ""
        yield from _comparison(result.comparison)


def _histogram(classes: dict[str, int]) -> Iterator[str]:
    yield f"classes: {len(classes):,}"
    if empty := [name for name, count in classes.items() if not count]:
        yield f"WARNING: classes without an image: {_some(empty)}"
    most = max(classes.values())
    bars = [f"{'#' * -(-count * _BAR // most):<{_BAR}}{count:>11,}  {name}" for name, count in classes.items()]
    if len(bars) > _SHOWN_CLASSES:
        bars = [bars[i] for i in np.argsort([*classes.values()], kind="stable")]
        bars[_SHOWN:-_SHOWN] = [f"... {len(bars) - 2 * _SHOWN:,} between"]
    yield from bars


def _mixed(name: str, mixing: ClassMixing) -> Iterator[str]:
    holds = f"batches of {mixing.batch_size} hold {mixing.classes:,.1f} classes, random ones {mixing.random:,.1f}"
    if mixing.deviations is None:
        yield f"{name}: {holds}: whether that is random cannot be told from these classes"
        return
    yield f"{name}: {holds} ({mixing.deviations:+,.1f} standard deviations from random)"
    if mixing.is_bad:
        if name == _PACKED:
            remedy = "readers that go from front to back see them, training does not: build with another --seed"
        else:
            remedy = "give training another seed"
        yield f"WARNING: the {name} is NOT random, its batches hold much alike: {remedy}"


def _comparison(result: Comparison) -> Iterator[str]:
    own_count, other_count = result.in_both.images
    yield f"against {result.against}: {result.records:,} records"
    if not result.packed_alike:
        yield "WARNING: packed with other options, so that a photograph in both is not found: build both alike"
    yield f"images in both: {result.in_both.groups:,} (records here: {own_count:,}, there: {other_count:,})"
    yield from _groups(result.in_both)
    for side, names in (("here", result.only_here), ("there", result.only_there)):
        if names:
            yield f"WARNING: classes only {side}: {_some(names)}"
    if result.relabelled:
        yield f"WARNING: the labels DIFFER of classes: {_some(result.relabelled)}"
    if not (result.only_here or result.only_there or result.relabelled):
        yield "classes: the same, with the same labels"


def _groups(duplicates: Duplicates) -> Iterator[str]:
    if duplicates.mixed:
        yield f"WARNING: groups of DIFFERENT classes, whose labels are in doubt: {duplicates.mixed:,}"
    for group in duplicates.first[:_SHOWN]:
        yield f"  the same {group.count:,} times, of {_some(group.classes)}:"
        yield from (f"    {image.key} ({image.class_name}): {image.where}" for image in group.first)
    if duplicates.groups > _SHOWN:
        yield f"  ... {duplicates.groups - _SHOWN:,} groups more"


def _counted(heading: str, total: int, kinds: dict[str, int]) -> str:
    listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    return f"{heading}: {total:,}" + (f" ({listed})" if listed else "")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more:,} more" if more > 0 else "")
