#!/usr/bin/env python3
"""Our loader beside others: the same images, the same task, the same minutes.

Photographs are packed three times: as published, as JPEGs with a short side of 256, and as their pixels. On each, every
loader that can read it runs in a process of its own (see contestants.py). They are measured in turn, several rounds
long, and medians compared, because machines drift. Loaders that clash with our packages bring their own Python:

    python benchmarks/loaders.py train --peer dali=~/dali/bin/python --peer ffcv=~/ffcv/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import ingest
from ingest.dataset.dataset import Dataset
from ingest.loading import transforms
from ingest.tools.synthesize import SynthOptions, synthesize

ENCODINGS: dict[str, dict[str, Any]] = {
    "as published": {"encoding": "keep"},
    "256 px JPEG": {"encoding": "jpeg", "resize": 256},
    "256 px pixels": {"encoding": "raw", "resize": 256},
}

LOADERS = {
    "as published": ["ingest", "ingest lmdb", "tf.data", "tensorpack", "dali", "ffcv", "torch", "ceiling"],
    "256 px JPEG": ["ingest", "ingest lmdb", "tf.data", "tensorpack", "dali", "ffcv", "torch", "ceiling"],
    "256 px pixels": ["ingest", "ingest lmdb", "ffcv raw", "ceiling"],
}

PEERS = ("dali", "ffcv", "torch")


def main() -> None:
    """Pack, measure, print the table, write what was asked for."""
    args = parse()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        photos = repeated(args.photos or draw(Path(scratch) / "photos"), Path(scratch) / "repeated", args.min_images)
        results = {}
        for encoding in args.encodings:
            folder = pack(photos, Path(scratch) / encoding.replace(" ", "-"), encoding)
            results[encoding] = measure(folder, loaders_of(encoding, args.peer), args)
            print_table(encoding, results[encoding])
    record = {"machine": machine(), "workers": args.workers, "rounds": args.rounds, "results": results}
    if args.json:
        args.json.write_text(json.dumps(record, indent=2) + "\n")
    if args.chart:
        draw_chart(results, args.chart)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="?", type=Path, help="a folder of CLASS/IMAGE (default: 800 drawn pictures)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: one a core")
    parser.add_argument("--seconds", type=float, default=4, help="for each loader in each round (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--encodings", nargs="+", choices=list(ENCODINGS), default=list(ENCODINGS))
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"also measure one of {', '.join(PEERS)}"
    )
    # The end of an epoch, at which some loaders start anew, is rare in real training.
    parser.add_argument("--min-images", type=int, default=3000, help="repeat fewer to so many (default: 3000)")
    parser.add_argument("--scratch", type=Path, help="where to pack (default: the system's temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements")
    parser.add_argument("--chart", type=Path, metavar="FILE.png", help="draw them (needs matplotlib)")
    args = parser.parse_args()
    args.peer = dict(peer.split("=", 1) for peer in args.peer if "=" in peer)
    if unknown := set(args.peer) - set(PEERS):
        parser.error(f"--peer {unknown.pop()}: give one of {', '.join(PEERS)}, as NAME=PYTHON")
    return args


def draw(folder: Path) -> Path:
    """A photo set, where none was given."""
    synthesize(folder, SynthOptions(images=1000))
    return folder / "train"


def repeated(photos: Path, folder: Path, min_images: int) -> Path:
    """A folder with links to ``photos``, as often as it takes to have ``min_images``."""
    files = [path for path in sorted(photos.glob("*/*")) if path.is_file()]
    for turn in range(-(-min_images // len(files))):
        for path in files:
            link = folder / path.parent.name / f"{turn}-{path.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    return folder


def pack(photos: Path, folder: Path, encoding: str) -> Path:
    """The images in both formats of ours, and, where they are JPEGs, as files for those who read files.

    The files are what is in our shards, so that all decode the same bytes; of pixels, they are JPEGs of quality 90.
    """
    for name in ("tfrecord", "lmdb"):
        ingest.build_shards(photos, folder / name, format=name, **ENCODINGS[encoding])
    for number, record in enumerate(Dataset(folder / "tfrecord")):
        path = folder / "files" / record.synset / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.encoded if record.format == "JPEG" else as_jpeg(record))
    return folder


def as_jpeg(record: Any) -> bytes:
    """A JPEG of a record of pixels."""
    from ingest import jpeg

    return jpeg.encode(transforms.decode(record, record.channels), 90, "4:2:0")


def loaders_of(encoding: str, peers: dict[str, str]) -> dict[str, str]:
    """The loaders to measure, and the Python of each."""
    pythons = {name: peers.get(name.split()[0], None if name.split()[0] in PEERS else sys.executable)
               for name in LOADERS[encoding]}  # fmt: skip
    return {name: str(Path(python).expanduser()) for name, python in pythons.items() if python}


def measure(folder: Path, loaders: dict[str, str], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """For each loader its version, its images/s in each round, and their median."""
    with ExitStack() as stack:
        running = {
            # The ceiling is that of as many processes, each of which does nothing but its own decoding.
            name: [
                stack.enter_context(contestant(name, python, folder, args.workers))
                for _ in range(args.workers if name == "ceiling" else 1)
            ]
            for name, python in loaders.items()
        }
        versions = {name: [answer(process) for process in group] for name, group in running.items()}
        rounds: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(args.rounds):
            for name, group in running.items():
                for process in group:
                    process.stdin.write(f"{args.seconds}\n")
                rounds[name].append(sum(float(answer(process)) for process in group))
                print(f"{name}: {rounds[name][-1]:,.0f} images/s", file=sys.stderr)
    return {name: {"version": versions[name][0], "images_per_second": median(rates), "rounds": rates}
            for name, rates in rounds.items()}  # fmt: skip


@contextmanager
def contestant(name: str, python: str, folder: Path, workers: int) -> Iterator[Any]:
    """A contestant's process; it and its children are ended with the block."""
    command = [python, str(Path(__file__).with_name("contestants.py")), name, str(folder), str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        # All of its group: tensorpack's processes do not end with their parent.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answer(process: Any) -> str:
    """A contestant's next line."""
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{' '.join(process.args[:3])} failed; what it printed stands above")
    return line.strip()


def print_table(encoding: str, rates: dict[str, dict[str, Any]]) -> None:
    """Images/s, and in relation to tf.data, or where it cannot read the encoding to FFCV, and to the ceiling."""
    ceiling = rates["ceiling"]["images_per_second"]
    base = next((name for name in ("tf.data", "ffcv raw") if name in rates), "ingest")
    print(f"\n{encoding:<20}{'images/s':>10}{'x ' + base:>14}{'of the ceiling':>18}")
    for name, measured in rates.items():
        rate = measured["images_per_second"]
        print(f"{name:<20}{rate:>10,.0f}{rate / rates[base]['images_per_second']:>14.2f}{rate / ceiling:>18.0%}")


def machine() -> dict[str, str | int]:
    """What it ran on."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {"cpu": names[0], "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def draw_chart(results: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """A bar for each loader, a panel for each encoding."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(results), figsize=(4.2 * len(results), 3.4), squeeze=False)
    for panel, (encoding, rates) in zip(panels[0], results.items()):
        names = sorted(rates, key=lambda name: rates[name]["images_per_second"])
        values = [rates[name]["images_per_second"] for name in names]
        colors = ["#d0d0d0" if name == "ceiling" else "#d1495b" if "ingest" in name else "#8d99ae" for name in names]
        bars = panel.barh(names, values, color=colors)
        panel.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=8)
        panel.set_title(f"{encoding}, images/s", fontsize=10)
        panel.set_xlim(0, 1.2 * max(values))
        panel.set_xticks([])
        panel.spines[["top", "right", "bottom"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
