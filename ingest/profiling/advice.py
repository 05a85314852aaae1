"""From measurements to a verdict and to advice: pure functions, and a table of what devices take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ingest.errors import OptionError
from ingest.profiling.stages import BATCH, IPC

MAX_WAIT_SHARE = 0.1
"""Share of its time that a consumer waits for images from which on the loader is the limit."""

MIN_SPEEDUP = 1.1
"""What a change must promise, as a multiple of the rate: less is within what a machine drifts."""

MAX_RATIO = 1.25
"""How many times two figures may differ that should be alike, on a machine that has nothing else to do."""

CONSUMER = "consumer"
"""The limit where who takes the batches does not wait for them."""

DISK_READ, UNACCOUNTED = "disk read", "unaccounted"

LIMITS = {
    "disk": (DISK_READ,),
    "decode": ("decode",),
    "resize": ("resize",),
    "Python": ("read", "parse", "crop", BATCH),
    IPC: (IPC, UNACCOUNTED),
}
"""The stages that make each kind of limit. ``unaccounted`` is what a stream takes beyond its stages: waiting for its
parent, for memory, for other programs."""

TARGETS = {
    "v100-fp32": (412, "ResNet-50, float32 and XLA, on a V100 16 GB"),
    "v100": (1270, "ResNet-50, mixed precision and XLA, on a V100 16 GB"),
    "a100-tf32": (909, "ResNet-50, TF32 and XLA, on an A100 40 GB"),
    "a100": (2375, "ResNet-50, mixed precision and XLA, on an A100 40 GB"),
}
"""Images/s at 224 pixels that one GPU trains on, and what was measured: NVIDIA's own figures for TensorFlow, in
DeepLearningExamples, TensorFlow/Classification/ConvNets/resnet50v1.5/README.md, "Training performance results"."""


@dataclass(frozen=True)
class Target:
    """A rate that is wanted, in images/s, and whose it is; ``cores`` is how many it takes with the shards as they are.

    ``cores_by_packing`` is how many it would take if they were packed otherwise.
    """

    images_per_second: float
    whose: str
    cores: int
    cores_by_packing: dict[str, int]


@dataclass(frozen=True)
class Advice:
    """A change, what it is predicted to give in images/s, and, once it has been tried, what it gave.

    ``workers``, and ``packing`` in the words of ``build-shards``, are what to set; None is as it is. ``size_bytes`` is
    what the dataset would then take on the disk.
    """

    workers: int | None
    packing: str | None
    predicted: float
    size_bytes: int | None = None
    measured: float | None = None

    def __str__(self) -> str:
        workers = None if self.workers is None else f"--workers {self.workers}"
        return " and ".join(change for change in (workers, self.packing) if change)


def wanted(text: str) -> tuple[float, str]:
    """Images/s, and whose they are, of ``--target``: a number or a name of TARGETS. Raises OptionError."""
    if text.lower() in TARGETS:
        return TARGETS[text.lower()]
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise OptionError(f"target {text!r}: give images/s, or one of {', '.join(TARGETS)}")
    return rate, "asked for"


def slowdown(stages: dict[str, float], together: float, cores: int, decodes: bool) -> float:
    """How many times longer stages take when all ``cores`` are busy, which share memory, and maybe more.

    By what decoding and the resize take on one core, and what all cores do of nothing else ``together``, in images/s.
    """
    alone = stages["decode" if decodes else "read"] + stages["resize"]
    return max(1.0, cores * 1e6 / together / alone)


def cost_by_bottleneck(stages: dict[str, float], stream: float, processes: int, slowed: float) -> dict[str, float]:
    """Of each kind of limit, what it takes of an image's time, in microseconds of a core.

    ``stages`` are microseconds of a core, and ``slowed`` times as many where all are busy; ``stream`` the images/s that
    so many ``processes``, a core each, give.
    """
    costs = {stage: slowed * cost for stage, cost in stages.items()}
    costs[UNACCOUNTED] = max(0.0, processes * 1e6 / stream - sum(costs.values()))
    return {limit: sum(costs.get(stage, 0.0) for stage in parts) for limit, parts in LIMITS.items()}


def busy_cores(workers: int, cores: int) -> int:
    """How many cores so many workers keep busy; none of them is this process alone."""
    return min(max(workers, 1), cores)


def verdict(limit: str, stream: float, workers: int, share: float, cores: int, decodes: bool) -> str:
    """One line: what limits a stream of ``stream`` images/s, and how near it is to what its cores can at the most.

    ``share`` is that of what they can decode and resize, or, if not ``decodes``, resize alone; it is measured, and so
    may come out above 1.
    """
    busy = busy_cores(workers, cores)
    whose = "this CPU" if busy == cores else plural(busy, "core")
    rate = f"{limit}-bound: {stream:,.0f} images/s with {plural(workers, 'worker')}"
    part = f"{share:.0%} of what" if share <= 1 else "all that"
    return f"{rate}, {part} {whose} can {'decode' if decodes else 'resize'}"


def is_doubtful(best: float, alone: float, changes: tuple[Advice, ...]) -> bool:
    """Whether figures contradict each other: the ``best`` stream what decoding ``alone`` gives, or what was tried what
    was predicted."""
    pairs = [(change.predicted, change.measured) for change in changes if change.measured]
    return best > MAX_RATIO * alone or any(max(pair) > MAX_RATIO * min(pair) for pair in pairs)


def consumer_verdict(name: str, taken: float, stream: float) -> str:
    """One line: the consumer is the limit, by how much."""
    if stream < taken:
        return f"consumer-bound: {name} takes {taken:,.0f} images/s, nearly all that the loader gives ({stream:,.0f})"
    return f"consumer-bound: {name} takes {taken:,.0f} images/s, the loader gives {stream / taken:,.1f} times that"


def advise(
    by_workers: dict[int, float], workers: int, costs: dict[str, float], bytes_an_image: dict[str, float], records: int
) -> tuple[Advice, ...]:
    """What to change, the best for each kind of change, where it promises enough.

    ``by_workers`` are images/s measured with so many workers, ``workers`` among them; ``costs`` microseconds of a core
    an image of each packing, "" being the present one, and ``bytes_an_image`` what each takes on the disk. Another
    packing is predicted to change the rate as it changes the cost.
    """
    now = by_workers[workers]
    best = max(by_workers, key=lambda number: by_workers[number])
    more = best if by_workers[best] >= MIN_SPEEDUP * now else None
    changes = [] if more is None else [Advice(more, None, by_workers[more])]
    for packing, cost in costs.items():
        gain = costs[""] / cost
        if not packing or gain < MIN_SPEEDUP:
            continue
        size_bytes = round(bytes_an_image[packing] * records)
        changes.append(Advice(None, packing, now * gain, size_bytes))
        if more is not None:
            changes.append(Advice(more, packing, by_workers[more] * gain, size_bytes))
    return tuple(changes)


def target(text: str, by_workers: dict[int, float], costs: dict[str, float], cores: int) -> Target:
    """The cores that ``text``, a rate or a device, takes: at what one gives where all are busy."""
    rate, whose = wanted(text)
    a_core = by_workers[cores] / cores
    needed = {packing: math.ceil(rate / (a_core * costs[""] / cost)) for packing, cost in costs.items()}
    return Target(rate, whose, needed.pop(""), needed)


def worker_counts(workers: int, cores: int) -> list[int]:
    """The numbers of workers to measure: one, two, four and so on, one a core, and ``workers``."""
    doubled = [1 << power for power in range(cores.bit_length()) if 1 << power < cores]
    return sorted({*doubled, cores, workers})


def plural(number: int, noun: str) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
