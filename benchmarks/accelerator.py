#!/usr/bin/env python3
"""Whether the loader keeps a GPU busy: one command for a machine with a GPU and many cores.

Three things are measured, in three encodings (as published; short side 256 as JPEG; short side 256 as pixels):

    alone      the loader with 1, 2, 4, ... workers, and nobody that uses its batches
    resident   ResNet-50 in bfloat16, trained on one batch that stays on the device: no loader can be faster
    fed        the same training from the loader, with a worker a core: images/s, and how long the device waited

The framework is PyTorch where that is installed, else JAX; where neither is, the loader alone is measured. Rates are
medians of up to three rounds. How the wait is measured, ``Trainer.waiting`` says in device_torch.py and device_jax.py.

    python benchmarks/accelerator.py --json accelerator.json
    python benchmarks/accelerator.py ILSVRC2012/val --minutes 8
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # a checkout is enough, also for a Python that leaves them out

import ingest  # noqa: E402
from ingest.loading.options import LoaderOptions  # noqa: E402
from ingest.profiling import throughput  # noqa: E402
from ingest.profiling.profile import processor  # noqa: E402
from ingest.system import frameworks  # noqa: E402
from ingest.system.worker_pool import num_workers  # noqa: E402
from ingest.tools.synthesize import SynthOptions, synthesize  # noqa: E402

ENCODINGS: dict[str, dict[str, Any]] = {
    "as published": {"encoding": "keep"},
    "256 px JPEG": {"encoding": "jpeg", "resize": 256},
    "256 px pixels": {"encoding": "raw", "resize": 256},
}

FRAMEWORKS = ("torch", "jax")

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""How the names of images end, of which some are taken from a folder."""

_WARM_UP_STEPS = 3
_MOST_SECONDS = 15.0
"""Of one measurement: longer ones tell no more."""


def main() -> int:
    """Pack, measure, print; returns the exit code."""
    args = _arguments()
    try:
        result = measure(args)
    except KeyboardInterrupt:
        return 130
    except ingest.IngestError as error:
        print(f"accelerator.py: error: {error}", file=sys.stderr)
        return error.exit_code
    print(text(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("photos", nargs="?", metavar="PHOTOS", help="a folder of images or classes (default: drawn)")
    parser.add_argument("--images", type=int, default=2000, metavar="N", help="at most, or to draw (default: 2000)")
    parser.add_argument("--framework", choices=(*FRAMEWORKS, "none"), help="default: the first that is installed")
    parser.add_argument("--network", choices=("resnet50", "tiny"), default="resnet50", help="default: resnet50")
    parser.add_argument("--image-size", type=int, default=224, metavar="N", help="pixels a side (default: 224)")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="default: 256")
    parser.add_argument("--workers", type=int, default=num_workers(None), metavar="N", help="at most (default: cores)")
    parser.add_argument("--minutes", type=float, default=8, metavar="N", help="for all of it, about (default: 8)")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="for pictures and shards (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE, too")
    args = parser.parse_args()
    there = [name for name in FRAMEWORKS if not frameworks.missing(name)]
    args.framework = args.framework or next(iter(there), "none")
    if args.framework not in (*there, "none"):
        parser.error(f"--framework {args.framework}: not installed: install it, or give another")
    if args.json and not args.json.parent.is_dir():
        parser.error(f"--json {args.json}: no such folder: give another")  # before all is measured for nothing
    return args


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, and on what."""
    end = time.monotonic() + 60 * args.minutes
    _check(args)
    # The modules lie beside this one.
    module = None if args.framework == "none" else importlib.import_module(f"device_{args.framework}")
    counts = [1 << power for power in range(args.workers.bit_length()) if 1 << power < args.workers] + [args.workers]
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        shards = _pack(args, Path(scratch))
        manifest = ingest.load_manifest(shards["as published"])
        trainer = module.Trainer(args.network, len(manifest.classes), manifest.channels) if module else None
        measurements = len(ENCODINGS) * (len(counts) + (trainer is not None)) + (trainer is not None)
        left = _Budget(end, measurements)
        alone = {name: _alone(name, folder, args, counts, left) for name, folder in shards.items()}
        resident = _resident(trainer, shards["as published"], args, left) if trainer else None
        fed = {name: _fed(trainer, name, folder, args, left) for name, folder in shards.items()} if trainer else {}
    return {
        **_machine(args.framework, module, trainer),
        "network": args.network if trainer else None,
        "image_size": args.image_size,
        "batch_size": args.batch_size,
        "pictures": args.photos or "drawn",
        "records": manifest.records,
        "alone": alone,
        "resident": resident,
        "fed": fed,
    }


def _check(args: argparse.Namespace) -> None:
    """Raise OptionError where something could not be measured, before anything is drawn."""
    _options(args, args.workers)
    SynthOptions(images=args.images)


class _Budget:
    """The seconds that are left, shared out among the measurements that are still to come."""

    def __init__(self, end: float, measurements: int):
        self._end, self._measurements = end, measurements

    def seconds(self, said: str) -> float:
        """For the next measurement, which is ``said`` on stderr."""
        # Half of it, for starting workers and for what is compiled.
        seconds = min(_MOST_SECONDS, max(0.2, (self._end - time.monotonic()) / self._measurements / 2))
        self._measurements = max(1, self._measurements - 1)
        print(f"{said}: {seconds:.1f} s", file=sys.stderr)
        return seconds


def _pack(args: argparse.Namespace, scratch: Path) -> dict[str, Path]:
    """Shards in each encoding."""
    photos = _draw(scratch / "photos", args.images) if args.photos is None else _some(args, scratch / "photos")
    for number, encoding in enumerate(ENCODINGS.values()):
        ingest.build_shards(photos, scratch / str(number), format="tfrecord", **encoding)
    return {name: scratch / str(number) for number, name in enumerate(ENCODINGS)}


def _draw(folder: Path, images: int) -> Path:
    """A folder of about so many pictures: every fifth that is drawn is for validation, and left out."""
    synthesize(folder, SynthOptions(images=-(-images * 5 // 4)))
    return folder / "train"


def _some(args: argparse.Namespace, folder: Path) -> str | Path:
    """A folder of links to as many of the photographs as are wanted, from all over; another source is taken whole."""
    there = Path(args.photos).resolve()
    files = _images(there, "*/*") or _images(there, "*")
    if not files:
        return args.photos
    count = min(args.images, len(files))
    for file in (files[i * len(files) // count] for i in range(count)):
        link = folder / file.parent.name / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
    return folder


def _images(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.suffix.lower() in IMAGES)


def _options(args: argparse.Namespace, workers: int) -> LoaderOptions:
    return LoaderOptions(batch_size=args.batch_size, training=True, image_size=args.image_size, workers=workers)


def _alone(
    name: str, shards: Path, args: argparse.Namespace, counts: list[int], left: _Budget
) -> dict[str, dict[str, Any]]:
    """The rates of the loader, by workers."""
    rates = {}
    for workers in counts:
        with ExitStack() as stack:
            run = throughput.stream(stack, shards, _options(args, workers))
            rates[str(workers)] = _rounds(run, left.seconds(f"{name}: the loader alone, {workers} workers"))
    return rates


def _resident(trainer: Any, shards: Path, args: argparse.Namespace, left: _Budget) -> dict[str, Any]:
    """The rates of training on one batch that stays on the device."""
    with closing(trainer.batches(ingest.Loader.of(shards, _options(args, 1)))) as stream:
        batch = next(stream)
    for _ in range(_WARM_UP_STEPS):
        trainer.step(batch)
    trainer.wait()

    def run(seconds: float) -> float:
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds or steps < 2:
            trainer.step(batch)
            steps += 1
            if steps % 10 == 0:
                trainer.wait()  # or the host would put more into the queue than the seconds allow
        trainer.wait()
        return steps * args.batch_size / (time.perf_counter() - start)

    return _rounds(run, left.seconds("training on one batch"))


def _fed(trainer: Any, name: str, shards: Path, args: argparse.Namespace, left: _Budget) -> dict[str, Any]:
    """The rates of training from the loader, and the share of the time in which the device waited for images."""
    took, waited = [], []
    with closing(trainer.batches(ingest.Loader.of(shards, _options(args, args.workers)))) as stream:
        for batch in islice(stream, 2 * args.workers):  # until all workers have begun
            trainer.step(batch)
        trainer.wait()

        def run(seconds: float) -> float:
            images, *times = trainer.waiting(stream, seconds)
            took.append(times[0])
            waited.append(times[1])
            return images / times[0]

        rates = _rounds(run, left.seconds(f"{name}: training from the loader"))
    return {**rates, "waiting": min(1.0, max(0.0, sum(waited) / sum(took)))}


def _rounds(run: Callable[[float], float], seconds: float) -> dict[str, Any]:
    """What ``run``, which measures images/s for so many seconds, finds in a few rounds, and the median of that."""
    count = throughput.rounds(1, seconds)
    rates = [run(seconds / count) for _ in range(count)]
    return {"images_per_second": median(rates), "rounds": rates}


def _machine(framework: str, module: Any, trainer: Any) -> dict[str, Any]:
    names = ("numpy", "numba", "opencv-python-headless", "simplejpeg", *FRAMEWORKS)
    versions = {name: found for name in names if (found := _version(name))}
    own = {framework: module.VERSION} if module else {}  # which says for which CUDA it was built
    return {
        "card": trainer.card if trainer else None,
        "cpu": processor(),
        "cores": num_workers(None),
        "framework": framework,
        "versions": {"Python": platform.python_version(), "ingest": _checkout_version(), **versions, **own},
        "commit": _commit(),
    }


def _checkout_version() -> str | None:
    # Another one may be installed.
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return found[1] if found else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def text(result: dict[str, Any]) -> str:
    """The result for people to read."""
    of = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [f"{result['card'] or 'no framework'}; {result['cpu']}, {result['cores']} cores; {of}"]
    lines += [f"{result['records']:,} pictures ({result['pictures']}), commit {result['commit'] or 'unknown'}", ""]
    counts = list(next(iter(result["alone"].values())))
    lines.append(f"{'the loader alone, images/s':<28}" + "".join(f"{f'{count} workers':>12}" for count in counts))
    for name, rates in result["alone"].items():
        lines.append(f"  {name:<26}" + "".join(f"{rate['images_per_second']:>12,.0f}" for rate in rates.values()))
    return "\n".join([*lines, "", *(_training(result) if result["resident"] else [_nothing(result)])])


def _training(result: dict[str, Any]) -> list[str]:
    most = result["resident"]["images_per_second"]
    size = f"batches of {result['batch_size']}, {result['image_size']} px"
    lines = [f"{result['network']} in bfloat16, {result['framework']}, {size}"]
    lines.append(f"  {'one batch on the device':<26}{most:>12,.0f} images/s")
    for name, run in result["fed"].items():
        rate = f"{run['images_per_second']:>12,.0f} images/s, {run['images_per_second'] / most:.0%} of that"
        lines.append(f"  {name:<26}{rate}; the device waited {run['waiting']:.1%} of the time")
    return lines


def _nothing(result: dict[str, Any]) -> str:
    is_there = any(name in result["versions"] for name in FRAMEWORKS)
    return f"nothing was trained: {'--framework none' if is_there else 'neither PyTorch nor JAX is installed'}"


if __name__ == "__main__":
    sys.exit(main())
