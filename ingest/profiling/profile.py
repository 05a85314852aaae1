"""A dataset's profile: measured, concluded, advised."""

from __future__ import annotations

import platform
import tempfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ingest import baselines
from ingest.dataset.dataset import Dataset
from ingest.errors import OptionError, RecordError
from ingest.profiling import advice, measure, throughput
from ingest.profiling.advice import CONSUMER
from ingest.profiling.device import device_rate
from ingest.profiling.measure import Measured
from ingest.profiling.result import INTO_TENSORFLOW, Consumer, Profile, ProfileOptions
from ingest.system import frameworks
from ingest.system.worker_pool import num_workers

_FEWEST_STEPS, _STEPS = 3, 30
"""That an artificial consumer takes, fewer where they are long."""


_LIBRARIES = ("ingest-toolkit", "numpy", "simplejpeg", "opencv-python-headless", "numba", "tensorflow")


def profile(shards: str | Path, options: ProfileOptions) -> Profile:
    """Measure the dataset in the folder ``shards``. Raises OptionError, ManifestError, RecordError or WorkerError."""
    dataset = Dataset(shards)
    if not len(dataset):
        raise RecordError(f"{shards}: the dataset has no records", path=shards)
    manifest, workers, cores = dataset.manifest, num_workers(options.workers), num_workers(None)
    for name in options.against:
        baselines.check(name, dataset, options.training(options.workers))
    absent = frameworks.missing(*throughput.FRAMEWORKS)
    if options.against and absent:
        raise OptionError(f"to compare with other loaders {frameworks.needs(*absent)}")
    # First: it is what a wrong name ends.
    device = device_rate(options.model, options, len(manifest.classes)) if options.model is not None else None
    with tempfile.TemporaryDirectory() as scratch:
        measured = measure.run_measurements(dataset, options, Path(scratch))
        stream = measured.by_workers[workers]
        consumer = _consumer(dataset, options, device, stream)
        limit, verdict = _conclude(measured, workers, cores, manifest.encoding != "raw", consumer)
        changes = (
            advice.advise(measured.by_workers, workers, measured.costs, measured.bytes_an_image, len(dataset))
            if limit != CONSUMER else ()
        )  # fmt: skip
        if options.apply:
            changes = measure.measure_advice(dataset, options, changes, measured.packings, Path(scratch))
    return Profile(
        shards=str(shards), format=manifest.format, encoding=manifest.encoding, records=len(dataset),
        size_bytes=manifest.size_bytes, batch_size=options.batch_size, image_size=options.image_size,
        channels=manifest.channels, workers=workers, cores=cores, stages=measured.stages,
        disk_read_microseconds=measured.disk_read, fits_in_memory=measure.fits_in_memory(manifest.size_bytes),
        feed_microseconds=measured.feed, by_workers=measured.by_workers, alone=measured.alone, ceiling=measured.ceiling,
        against=measured.against, left_out={INTO_TENSORFLOW: frameworks.needs(*absent)} if absent else {},
        consumer=consumer, limit=limit, verdict=verdict, advice=changes,
        target=advice.target(options.target, measured.by_workers, measured.costs, cores) if options.target else None,
        machine=_machine(cores), transforms=options.transform_options,
    )  # fmt: skip


def _consumer(dataset: Dataset, options: ProfileOptions, device: float | None, stream: float) -> Consumer | None:
    if device is not None:
        return Consumer(f"training {options.model}", device, max(0.0, 1 - stream / device))
    if options.step_milliseconds is None:
        return None
    seconds = options.step_milliseconds / 1e3
    steps = max(_FEWEST_STEPS, min(_STEPS, round(options.seconds / seconds)))
    waiting = throughput.waiting(dataset.folder, options.training(options.workers), seconds, steps)
    return Consumer(f"a step of {options.step_milliseconds:g} ms", options.batch_size / seconds, waiting)


def _conclude(
    measured: Measured, workers: int, cores: int, decodes: bool, consumer: Consumer | None
) -> tuple[str, str]:
    """What limits, and a line that says so."""
    stream = measured.by_workers[workers]
    if consumer and consumer.waiting < advice.MAX_WAIT_SHARE:
        return CONSUMER, advice.consumer_verdict(consumer.name, consumer.images_per_second, stream)
    slowed = advice.slowdown(measured.stages, measured.alone, cores, decodes)
    costs = advice.cost_by_bottleneck(measured.stages, stream, advice.busy_cores(workers, cores), slowed)
    limit = max(costs, key=lambda kind: costs[kind])
    return limit, advice.verdict(limit, stream, workers, measured.share, cores, decodes)


def _machine(cores: int) -> dict[str, str]:
    return {
        "processor": processor(),
        "cores": str(cores),
        "memory": f"{measure.memory_bytes() / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    } | _versions()


def _versions() -> dict[str, str]:
    """Of the libraries that are installed."""
    versions = {}
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[library] = version(library)
    return versions


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
