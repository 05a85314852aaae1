"""What a build would give, and how long it would take: measured on a part of it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ingest.packing import build, plan
from ingest.packing.options import BuildOptions
from ingest.sampler import packing_order
from ingest.sources.detect import open_source
from ingest.system import paths, progress, worker_pool

_SAMPLED = 512
"""Images that are packed for it: their mean size is within a few percent of that of all."""


@dataclass(frozen=True)
class Estimate:
    """What a build would give, from a sample of the source that was packed: the shards' bytes, and seconds in all.

    ``free_bytes`` is the room where they would lie, None in a bucket.
    """

    found: int
    classes: int
    shards: int
    size_bytes: int
    seconds: float
    free_bytes: int | None


def dry_run(src: str | Path, out: str | Path, options: BuildOptions) -> Estimate:
    """Pack the first images of the plan, which are a random sample, somewhere else, and measure.

    Writes nothing to ``out``. Errors are those of ``build_shards``.
    """
    start = time.perf_counter()
    source = open_source(src, options.labels)
    n = len(source.entries)
    parts = plan.plan_shards(n, options)
    sampled = packing_order(n, options.seed)[:_SAMPLED]
    # As many parts as a whole build has for so many images, but enough to keep all workers busy to the end.
    count = min(len(sampled), max(-(-len(parts) * len(sampled) // n), 4 * worker_pool.num_workers(options.workers)))
    names = plan.shard_names(count, options.format)
    pieces = [plan.Part(*part) for part in zip(names, np.array_split(sampled, count))]
    moments: list[float] = []
    with tempfile.TemporaryDirectory() as scratch, progress.bar(len(sampled), "measuring") as bar:

        def report(images: int) -> None:
            moments.extend([time.perf_counter()] * images)
            bar.update(images)

        packed = build.pack_shards(source, Path(scratch), replace(options, scheduler=None), pieces, (), report)
    # Workers start once; from the first image on they are at full speed.
    rate = (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 else 1.0
    return Estimate(
        found=n,
        classes=len(source.classes),
        shards=len(parts),
        size_bytes=round(sum(part.shard.size_bytes for part in packed) * n / len(sampled)),
        seconds=time.perf_counter() - start + (n - len(sampled)) / rate,
        free_bytes=build.free_bytes(paths.parse_path(out)),
    )
