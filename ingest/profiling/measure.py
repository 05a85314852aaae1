"""All that is measured, in turn and in the same minute; and the proof of what is advised."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ingest import jpeg
from ingest.dataset.dataset import Dataset
from ingest.loading import batches
from ingest.loading.augment import EVALUATION_SCALE
from ingest.profiling import advice, stages, throughput
from ingest.profiling.advice import Advice
from ingest.profiling.repack import Packing, repack
from ingest.profiling.result import ProfileOptions
from ingest.profiling.stages import Stages
from ingest.profiling.throughput import Measure
from ingest.system import frameworks, progress
from ingest.system.worker_pool import num_workers

_TRIED = 1024
"""Images that are packed anew to prove advice: some batches for each worker, and seconds of packing."""

_IN_MEMORY = 0.8
"""Share of the memory that a dataset may take for the system to keep it there."""

# What Linux allows a container, by the second and the first version of control groups.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Measured:
    """Images/s, and microseconds of a core an image, as in Profile.

    ``costs`` are microseconds of an image in all, and ``bytes_an_image`` what it takes on the disk, for each packing
    of ``packings``, in its words; "" is the present one. ``share`` is the stream's of what as many processes can decode
    and resize. ``feed`` is None where TensorFlow is missing.
    """

    stages: dict[str, float]
    disk_read: float | None
    feed: float | None
    by_workers: dict[int, float]
    alone: float
    ceiling: float | None
    share: float
    against: dict[str, float]
    costs: dict[str, float]
    bytes_an_image: dict[str, float]
    packings: dict[str, Packing]


def run_measurements(dataset: Dataset, options: ProfileOptions, scratch: Path) -> Measured:
    """Measure a dataset, and samples of it that are packed otherwise, in the folder ``scratch``."""
    shards, training, workers, cores = dataset.folder, options.training, num_workers(options.workers), num_workers(None)
    disk_read = stages.disk_read_microseconds(dataset)  # before anything has been read
    counts = advice.worker_counts(workers, cores)
    with ExitStack() as stack:
        bar = stack.enter_context(progress.bar(None, "starting", "measurements"))
        jpeg.compile_decoder()
        tried = packings(dataset, options.image_size)
        samples = {"": dataset} | {
            name: Dataset(repack(dataset, scratch / f"{packing.encoding} sample", packing, stages.SAMPLED, 0))
            for name, packing in tried.items()
        }
        timed = {packing: Stages(sample, training(0)) for packing, sample in samples.items()}
        measures: dict[Any, Measure] = {("stages", packing): stage_timer for packing, stage_timer in timed.items()}
        measures |= {
            ("alone", number): throughput.alone(stack, shards, training(0), number)
            for number in {cores, advice.busy_cores(workers, cores)}
        }
        if dataset.manifest.encoding != "raw":
            measures["ceiling"] = throughput.alone(stack, shards, training(0), cores, by_libjpeg=True)
        measures["ipc"] = throughput.stream(stack, shards, training(1), batches.iter_unfilled_batches)
        measures |= {number: throughput.stream(stack, shards, training(number)) for number in counts}
        if not frameworks.missing(*throughput.FRAMEWORKS):
            measures["feed"] = throughput.in_a_process(stack, throughput.Feed, shards, training(0))
        bar.reset(throughput.rounds(len(measures), options.seconds) * len(measures))
        bar.set_description("measuring")
        rates = throughput.medians(measures, options.seconds, bar.update)
    bytes_an_image = {packing: stages.bytes_an_image(sample) for packing, sample in samples.items()}
    of_a_batch = {
        stages.BATCH: stages.batch_microseconds(dataset, training(0)),
        stages.IPC: 1e6 / rates["ipc"],
    }
    of_each = {
        packing: stage_timer.microseconds | of_a_batch | _waiting(disk_read, dataset, bytes_an_image, packing)
        for packing, stage_timer in timed.items()
    }
    return Measured(
        stages=of_each[""],
        disk_read=disk_read,
        feed=1e6 / rates["feed"] if "feed" in rates else None,
        by_workers={number: rates[number] for number in counts},
        alone=rates["alone", cores],
        ceiling=rates.get("ceiling"),
        share=rates[workers] / rates["alone", advice.busy_cores(workers, cores)],
        against=_against(shards, options) if options.against else {},
        costs={packing: sum(costs.values()) for packing, costs in of_each.items()},
        bytes_an_image=bytes_an_image,
        packings=tried,
    )


def _against(shards: Path, options: ProfileOptions) -> dict[str, float]:
    """Images/s of other loaders, and of ours beside them, all as TensorFlow sees them."""
    with ExitStack() as stack:
        names = (throughput.OURS, *options.against)
        bar = stack.enter_context(progress.bar(None, "starting others", "measurements"))
        measures: dict[Any, Measure] = {
            name: throughput.in_a_process(
                stack, throughput.Loader, name, shards, options.training(num_workers(options.workers))
            )
            for name in names
        }
        bar.reset(throughput.rounds(len(measures), options.seconds) * len(measures))
        bar.set_description("measuring others")
        return throughput.medians(measures, options.seconds, bar.update)


def measure_advice(
    dataset: Dataset, options: ProfileOptions, advised: tuple[Advice, ...], changes: dict[str, Packing], scratch: Path
) -> tuple[Advice, ...]:
    """The same advice, with what it gave: each is tried, on a sample packed anew in ``scratch`` where it says so.

    ``changes`` are the packings that it may speak of, by their names.
    """
    with ExitStack() as stack:
        bar = stack.enter_context(progress.bar(None, "applying", "measurements"))
        places = {
            name: repack(dataset, scratch / packing.encoding, packing, _TRIED, num_workers(None))
            for name, packing in changes.items() if any(change.packing == name for change in advised)
        }  # fmt: skip
        measures: dict[Any, Measure] = {
            change: throughput.stream(
                stack, places[change.packing] if change.packing else dataset.folder,
                options.training(change.workers or options.workers),
            )
            for change in advised
        }  # fmt: skip
        bar.reset(throughput.rounds(len(measures), options.seconds) * len(measures))
        rate = throughput.medians(measures, options.seconds, bar.update)
    return tuple(replace(change, measured=rate[change]) for change in advised)


def packings(dataset: Dataset, image_size: int) -> dict[str, Packing]:
    """Other ways to pack that may be faster, by their words: no larger than an evaluation view needs, and as pixels."""
    side, enough = stages.short_side(dataset), math.ceil(image_size * EVALUATION_SCALE)
    is_raw = dataset.manifest.encoding == "raw"
    ways = [] if side <= enough else [Packing("raw" if is_raw else "jpeg", enough)]
    if not is_raw:
        ways.append(Packing("raw", enough))
    return {str(packing): packing for packing in ways}


def _waiting(
    disk_read: float | None, dataset: Dataset, bytes_an_image: dict[str, float], packing: str
) -> dict[str, float]:
    """The stage of waiting for the disk, of a dataset packed like that: none where it fits into memory."""
    if disk_read is None or fits_in_memory(bytes_an_image[packing] * len(dataset)):
        return {}
    return {advice.DISK_READ: disk_read * bytes_an_image[packing] / bytes_an_image[""]}


def fits_in_memory(size_bytes: float) -> bool:
    """Whether the system can keep a dataset of that size in memory, so that only its first epoch waits for a disk."""
    return size_bytes <= _IN_MEMORY * memory_bytes()


def memory_bytes() -> int:
    """The memory of this machine, or of the container that this runs in."""
    texts = [path.read_text().strip() for path in _LIMITS if path.exists()]
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *(int(t) for t in texts if t.isdecimal())])
