"""A profile as text."""

from __future__ import annotations

from collections.abc import Iterator

from ingest.profiling.advice import CONSUMER, Advice, is_doubtful, plural
from ingest.profiling.result import INTO_TENSORFLOW, Profile
from ingest.profiling.stages import BATCH, IPC
from ingest.profiling.throughput import OURS
from ingest.system.terminal import printable

STAGE_DESCRIPTIONS = {
    "disk read": "waiting for the disk",
    "read": "find the record in memory",
    "parse": "its fields",
    "crop": "choose the region",
    "decode": "its pixels",
    "resize": "and flip, into the batch",
    BATCH: "order and random numbers",
    IPC: "between processes",
}

_BAR = 30


def text(result: Profile) -> str:
    """A profile for people to read."""
    return "\n".join(map(printable, _lines(result)))


def _lines(result: Profile) -> Iterator[str]:
    yield title(result)
    yield ""
    yield from _stages(result)
    yield ""
    yield "images/s"
    for workers, rate in result.by_workers.items():
        yield f"  {plural(workers, 'worker'):<30}{rate:>10,.0f}"
    for name, rate in limits(result).items():
        yield f"  {name:<30}{rate:>10,.0f}"
    for name, rate in result.against.items():
        times = "" if name == OURS else f"   {result.against[OURS] / rate:.2f} times as fast with ours"
        yield f"  {name + ', into TensorFlow':<30}{rate:>10,.0f}{times}"
    if result.consumer:
        waits = f"it waits for images in {result.consumer.waiting:.0%} of its time"
        yield f"  {result.consumer.name:<30}{result.consumer.images_per_second:>10,.0f}   {waits}"
    yield ""
    yield from conclusion(result)
    yield from _target(result)


def title(result: Profile) -> str:
    """What was profiled, in a line."""
    size = result.image_size
    return (
        f"{result.records:,} records, {result.format}, encoding {result.encoding}, "
        f"{result.size_bytes / result.records / 1e3:,.0f} kB an image; "
        f"batches of {result.batch_size} x {size} x {size} x {result.channels}"
    )


def limits(result: Profile) -> dict[str, float]:
    """What all cores do of nothing but decoding and the resize, by name, and what they do of it by libjpeg-turbo."""
    cores = plural(result.cores, "core")
    if result.ceiling is None:
        return {f"resize alone, {cores}": result.alone}
    return {f"decode alone, {cores}": result.alone, f"libjpeg-turbo, {cores}": result.ceiling}


def _stages(result: Profile) -> Iterator[str]:
    total = sum(result.stages.values())
    yield "us of a core an image"
    for stage, cost in result.stages.items():
        bar = "#" * round(_BAR * cost / total)
        yield f"  {stage:<11}{STAGE_DESCRIPTIONS[stage]:<26}{cost:>8,.1f}  {bar}".rstrip()
    yield f"  {'in all':<36}{total:>8,.1f}  so one core can give {1e6 / total:,.0f} images/s"
    if result.feed_microseconds is not None:
        yield f"  {INTO_TENSORFLOW:<36}{result.feed_microseconds:>8,.1f}  in the process that trains"
    for name, reason in result.left_out.items():
        yield f"  {name:<36}{'':>8}  not measured: {reason}"
    if result.disk_read_microseconds is not None and result.fits_in_memory:
        yield f"  {'read from disk':<36}{result.disk_read_microseconds:>8,.1f}  in the first epoch: it fits into memory"


def conclusion(result: Profile) -> Iterator[str]:
    """What limits, and what to change."""
    yield result.verdict
    if result.advice:
        yield ""
        yield f"{'advice':<46}{'images/s':>10}{'measured' if is_tried(result) else '':>10}".rstrip()
    for change in result.advice:
        measured = "" if change.measured is None else f"{change.measured:>10,.0f}"
        yield f"  {change!s:<44}{change.predicted:>10,.0f}{measured}   {size_of(change, result)}".rstrip()
    yield next_steps(result)


def next_steps(result: Profile) -> str:
    """How to follow the advice, or why there is none; and how far to trust it."""
    ways = [_suggestion(result)]
    if result.advice and result.consumer is None:
        ways.append("Whether it is needed, --model NAME tells: how fast a network of train.py can take the images.")
    if is_doubtful(max(result.by_workers.values()), result.alone, result.advice):
        ways.append("These figures contradict each other: the machine was busy. Profile again when it is not.")
    return " ".join(ways)


def _suggestion(result: Profile) -> str:
    if any(change.packing for change in result.advice):
        return f"To pack otherwise: ingest build-shards SRC OUT --format {result.format}, with these options."
    if result.advice:
        return "No other packing promises a tenth more."
    if result.limit == CONSUMER:
        return "Nothing in the loader needs changing: its batches are there before they are asked for."
    if result.limit == IPC:
        return "Nothing that was tried promises a tenth more: try larger batches, or fewer workers."
    return "Nothing that was tried promises a tenth more: it takes more cores, or smaller images."


def size_of(advice: Advice, result: Profile) -> str:
    """What the advice does to the dataset's size, in words; none where it leaves it."""
    return "" if advice.size_bytes is None else f"{advice.size_bytes / result.size_bytes:.1f} x the bytes"


def is_tried(result: Profile) -> bool:
    """Whether the advice has been tried."""
    return any(change.measured is not None for change in result.advice)


def _target(result: Profile) -> Iterator[str]:
    if result.target is None:
        return
    yield ""
    yield f"for {result.target.images_per_second:,.0f} images/s ({result.target.whose})"
    yield f"  {'as it is':<44}{plural(result.target.cores, 'core'):>10}"
    for packing, cores in result.target.cores_by_packing.items():
        yield f"  {packing:<44}{plural(cores, 'core'):>10}"
