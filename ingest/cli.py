"""The command line: ``ingest build-shards`` and its sisters.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 an error of ours, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from ingest.errors import IngestError, OptionError, OutputError
from ingest.system import paths, terminal
from ingest.system.terminal import print_errors, print_results

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and whose help keeps its examples' line breaks."""

    def __init__(self, **options: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """End with 2 and one line on stderr."""
        print_errors(f"{self.prog}: error: {message} (see {self.prog} --help)")
        sys.exit(2)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End, after a help or a version."""
        sys.exit(_ended(self.prog, status))

    def _print_message(self, message: str, file: Any = None) -> None:
        print_results(*message.rstrip("\n").split("\n"))


def guarded(name: str, command: Callable[[], None]) -> int:
    """Run ``command``; the exit code, and for an error one line on stderr instead of a traceback."""
    # What ends a program without asking, a scheduler or a shutdown, shall find it as tidy as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    terminal.forget_failure()
    terminal.open_descriptors()
    try:
        command()
    except KeyboardInterrupt as interrupt:
        print_errors(": ".join([name, "interrupted", *map(str, interrupt.args)]))
        return _ended(name, _INTERRUPTED)
    except MemoryError:
        print_errors(f"{name}: error: not enough memory: use smaller batches or images, or fewer workers")
        return _ended(name, 1)
    except IngestError as error:
        print_errors(f"{name}: error: {' '.join(str(error).split())}")
        return _ended(name, error.exit_code)
    except Exception:
        # An error of ours: all of it is wanted, and nothing in it for the terminal to obey.
        print_errors(*traceback.format_exc().splitlines())
        return _ended(name, 1)
    return _ended(name, 0)


def _ended(name: str, code: int) -> int:
    """The exit code of a program that would end with ``code``: results that could not be written are an error."""
    failure = terminal.failed()
    if failure is None or code:
        return code
    if not isinstance(failure, BrokenPipeError):  # the reader of our output, such as head, has had enough
        print_errors(f"{name}: error: stdout: cannot be written ({failure.strerror}): all else is done")
    return 1


def path_or_url(name: str) -> Path:
    """The type of an argument that names a place to read or write: a path, or a URL."""
    try:
        return paths.parse_path(name)
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def local(name: str) -> Path:
    """The type of an argument that names a place on this machine's disks."""
    try:
        return paths.local(name)
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def writable(name: str) -> Path:
    """The type of an argument that names a file to write; where there is no place for it, that shows at once."""
    path = local(name)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{name}: a folder, or in a folder that does not exist")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{name}: no permission to write it")
    return path


def _picture(name: str) -> Path:
    if Path(name).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{name}: give a FILE.png")
    return writable(name)


def save_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write ``result`` for machines, where ``--json FILE`` was given."""
    if path is not None:
        save(path, f"{json.dumps(result, indent=1)}\n".encode())


def save(path: Path, content: bytes | memoryview) -> None:
    """Write a file that was asked for. Raises OutputError."""
    try:
        # Not by a rename: the file may be a link or a device.
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}): give another file") from error


def main(argv: Sequence[str] | None = None) -> int:
    """The ``ingest`` command; returns its exit code."""
    args = _parser().parse_args(argv)
    return guarded(f"ingest {args.command}", lambda: args.run(args))


def _parser() -> Parser:
    parser = Parser(
        prog="ingest",
        description="From a pile of photographs to a training run.",
        epilog="example:\n"
        "  ingest synth photos\n"
        "  ingest build-shards photos/train shards/train --format tfrecord\n"
        "  ingest profile shards/train",
    )
    parser.add_argument("--version", action="version", version=f"ingest {version('ingest-toolkit')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_synth(commands)
    _add_build_shards(commands)
    _add_verify(commands)
    _add_convert(commands)
    _add_inspect(commands)
    _add_profile(commands)
    return parser


def _add_synth(commands: Any) -> None:
    parser = commands.add_parser(
        "synth",
        help="draw a photo set that a network can learn",
        description="Draw a photo set in ImageNet's layout, OUT/train/CLASS/NAME.JPEG and OUT/val/...; no download.",
        epilog="example:\n  ingest synth photos --images 2000",
    )
    parser.add_argument("out", metavar="OUT", type=local, help="a new or empty folder")
    parser.add_argument("--classes", type=int, default=8, metavar="N", help="2 to 12 (default: 8)")
    parser.add_argument(
        "--images", type=int, default=2000, metavar="N", help="every fifth for validation (default: 2000)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other pictures (default: 0)")
    parser.set_defaults(run=_synth)


def _add_build_shards(commands: Any) -> None:
    parser = commands.add_parser(
        "build-shards",
        help="pack photographs into shards",
        description="Pack the images of SRC into shards in OUT, in random order. SRC is only ever read.",
        epilog="examples:\n"
        "  ingest build-shards ILSVRC2012/train shards/train --format tfrecord\n"
        "  ingest build-shards mnist/train-images-idx3-ubyte.gz shards/mnist --format lmdb",
    )
    parser.add_argument(
        "src", metavar="SRC", type=path_or_url, help="a folder of CLASS/IMAGE files, tars, a list, parquet, IDX"
    )
    parser.add_argument("out", metavar="OUT", type=path_or_url, help="a new or empty folder")
    parser.add_argument("--format", choices=("tfrecord", "lmdb"), required=True)
    parser.add_argument("--shards", type=int, metavar="N", help="default: one for every 1250 images, 8 to 1024")
    _add_workers(parser)
    parser.add_argument(
        "--encoding",
        choices=("keep", "jpeg", "raw"),
        default="keep",
        help="keep JPEGs' pixels exactly (default), encode all anew as JPEG, or store raw pixels",
    )
    parser.add_argument("--resize", type=int, metavar="SHORT_SIDE", help="in pixels; larger images are reduced to it")
    parser.add_argument("--quality", type=int, metavar="Q", help="of encoding jpeg, 1 to 100 (default: 90)")
    parser.add_argument(
        "--exif-orientation",
        choices=("ignore", "apply"),
        default="ignore",
        help="pack pixels as they are stored (default), or turn images as their EXIF says, which encodes those anew",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the packed order (default: 0)")
    parser.add_argument(
        "--on-bad",
        choices=("quarantine", "fail"),
        default="quarantine",
        help="list what cannot be packed in OUT/quarantine.tsv (default), or stop at the first",
    )
    parser.add_argument("--labels", metavar="FILE", type=path_or_url, help="for images without: a list, or the devkit")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="have a dask cluster pack, such as tcp://node1:8786")
    parser.add_argument("--dry-run", action="store_true", help="measure a sample, say what would come, write nothing")
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the summary to FILE, too")
    parser.set_defaults(run=_build_shards)


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify",
        help="check a dataset to the bit, and mend it",
        description="Read every byte of SHARDS and name what is damaged: file, record, byte, key; then end with 1.",
        epilog="examples:\n"
        "  ingest verify shards/train --decode\n"
        "  ingest verify shards/train --repair ILSVRC2012/train",
    )
    parser.add_argument("shards", metavar="SHARDS", type=path_or_url, help="what build-shards wrote")
    parser.add_argument("--decode", action="store_true", help="decode every image, too")
    parser.add_argument("--repair", metavar="SRC", type=path_or_url, help="pack what is damaged again, from the source")
    parser.add_argument("--labels", metavar="FILE", type=path_or_url, help="of a source whose images lie without")
    _add_workers(parser)
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the result to FILE, too")
    parser.set_defaults(run=_verify)


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="write a dataset in another format",
        description="Copy the records of SHARDS, untouched and in their order, to shards of another format in OUT.",
        epilog="example:\n  ingest convert shards/train shards/train-lmdb --format lmdb",
    )
    parser.add_argument("shards", metavar="SHARDS", type=path_or_url, help="what build-shards wrote")
    parser.add_argument("out", metavar="OUT", type=path_or_url, help="a new or empty folder")
    parser.add_argument("--format", choices=("tfrecord", "lmdb"), required=True)
    _add_workers(parser)
    parser.set_defaults(run=_convert)


def _add_inspect(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect",
        help="look into shards: classes, sizes, duplicates",
        description="Read all of SHARDS, and say what is in it: classes, sizes, encodings, images that it holds twice.",
        epilog="examples:\n"
        "  ingest inspect shards/train --sheet sheet.png\n"
        "  ingest inspect shards/train --against shards/val --json report.json",
    )
    parser.add_argument("shards", metavar="SHARDS", type=path_or_url, help="what build-shards wrote")
    parser.add_argument(
        "--against",
        type=path_or_url,
        metavar="SHARDS",
        help="another dataset: what is in both, and do their labels agree",
    )
    parser.add_argument(
        "--sheet", type=_picture, metavar="FILE.png", help="draw images beside their training views, with the crops"
    )
    _add_workers(parser)
    parser.add_argument("--json", type=writable, metavar="FILE", help="write all that was found to FILE, too")
    parser.set_defaults(run=_inspect)


def _add_profile(commands: Any) -> None:
    parser = commands.add_parser(
        "profile",
        help="measure the loader, stage by stage, and say what to change",
        description="Measure how fast training batches of SHARDS are made, stage by stage, say what limits that, and "
        "what to change.",
        epilog="examples:\n"
        "  ingest profile shards/train --html profile.html\n"
        "  ingest profile shards/train --workers 1 --apply\n"
        "  ingest profile shards/train --against naive,tf.data,tensorpack\n"
        "  ingest profile shards/train --model resnet50 --batch-size 256 --target a100",
    )
    parser.add_argument("shards", metavar="SHARDS", type=path_or_url, help="what build-shards wrote")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images a batch (default: 64)")
    parser.add_argument("--image-size", type=int, default=224, metavar="N", help="pixels a side (default: 224)")
    _add_workers(parser)
    parser.add_argument(
        "--seconds", type=float, default=15, metavar="S", help="time to measure, besides starting (default: 15)"
    )
    parser.add_argument(
        "--against", type=_names, default=(), metavar="NAME,...", help="other loaders: naive, tf.data, tensorpack"
    )
    parser.add_argument("--model", metavar="NAME", help="of train.py, as the consumer: how fast is the device alone")
    parser.add_argument("--step-ms", type=float, metavar="MS", help="a consumer that takes so long for a batch")
    parser.add_argument(
        "--target", metavar="RATE", help="images/s, or v100, a100 and the like: how many cores would it take"
    )
    parser.add_argument("--apply", action="store_true", help="try what is advised, on a sample in a temporary folder")
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the figures to FILE, too")
    parser.add_argument("--html", type=writable, metavar="FILE", help="write a page with charts to FILE, too")
    parser.set_defaults(run=_profile)


def _add_workers(parser: Parser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core; 0: none but this)")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _synth(args: argparse.Namespace) -> None:
    from ingest.tools.synthesize import SynthOptions, synthesize

    counts = synthesize(args.out, SynthOptions(args.classes, args.images, args.seed))
    print_results(
        f"drew {counts['train']} pictures into {args.out / 'train'} and {counts['val']} into {args.out / 'val'}"
    )


def _build_shards(args: argparse.Namespace) -> None:
    from ingest.dataset import quarantine
    from ingest.dataset.manifest import NAME as MANIFEST
    from ingest.packing import build
    from ingest.packing.dry_run import dry_run
    from ingest.packing.options import BuildOptions

    if args.quality is not None and args.encoding != "jpeg":
        raise OptionError(f"--quality is of the encoding jpeg, and the encoding is {args.encoding}")
    names = (
        "format",
        "shards",
        "workers",
        "encoding",
        "resize",
        "quality",
        "seed",
        "on_bad",
        "scheduler",
        "exif_orientation",
    )
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.dry_run:
        estimate = dry_run(args.src, args.out, BuildOptions(**options), args.labels)
        result = asdict(estimate)
        print_results(*_lines(_ESTIMATE, **result, format=args.format))
        if estimate.free_bytes is not None and estimate.size_bytes > estimate.free_bytes:
            raise OutputError(f"{args.out}: too small: {estimate.free_bytes:,} bytes are free: make room there")
    else:
        start = time.perf_counter()
        was_there = (args.out / MANIFEST).exists()
        try:
            manifest = build.build_shards(args.src, args.out, labels=args.labels, **options)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on from there") from None
        result = _summary(manifest, time.perf_counter() - start)
        print_results(*_lines(_NOTHING_TO_DO if was_there else _SUMMARY, **result, out=args.out))
        for rule, count in manifest.passed_over.items():
            print_results(f"passed over: {count:,} {rule}")
        for name, other in manifest.shared_folders.items():
            print_results(
                f"classes {other!r} and {name!r} hold the same folder, by a link: its images are packed once for each"
            )
        if manifest.rotated:
            print_results(_TURNED[args.exif_orientation].format(**result))
        if manifest.quarantined:
            print_results(f"what was quarantined, and why: {args.out / quarantine.QUARANTINE}")
    save_json(args.json, result)


_ESTIMATE = """\
would pack {found:,} images of {classes:,} classes, if all of them can be
into {shards:,} {format} shards, {size_bytes:,} bytes, in {seconds:,.1f} s"""

_NOTHING_TO_DO = """\
nothing to do: {records:,} of {found:,} files ({quarantined:,} quarantined, {passed_over_files:,} passed over)
lie in {shards:,} {format} shards, {size_bytes:,} bytes: {out}"""

_TURNED = {
    "ignore": "lying on a side, upside down or mirrored, by their EXIF: {rotated:,} images, packed as they are stored: "
    "--exif-orientation apply turns them",
    "apply": "turned as their EXIF says: {rotated:,} images",
}

_SUMMARY = """\
packed {records:,} of {found:,} files ({converted_files:,} converted, {quarantined:,} quarantined, \
{passed_over_files:,} passed over)
into {shards:,} {format} shards of {classes:,} classes, {size_bytes:,} bytes, in {seconds:.1f} s, \
{images_per_second:,.0f} images/s: {out}"""


def _lines(template: str, **values: Any) -> list[str]:
    """A text's lines; what a value holds does not make another."""
    return [line.format(**values) for line in template.split("\n")]


def _summary(manifest: Any, seconds: float) -> dict[str, Any]:
    passed_over = sum(manifest.passed_over.values())
    found = manifest.records + manifest.quarantined + passed_over
    return {
        "format": manifest.format,
        "encoding": manifest.encoding,
        "found": found,
        "records": manifest.records,
        "quarantined": manifest.quarantined,
        "passed_over_files": passed_over,
        "passed_over": manifest.passed_over,
        "rotated": manifest.rotated,
        "shared_folders": manifest.shared_folders,
        "converted_files": sum(manifest.converted.values()),
        "converted": manifest.converted,
        "classes": len(manifest.classes),
        "shards": len(manifest.shards),
        "size_bytes": manifest.size_bytes,
        "seconds": seconds,
        "images_per_second": (found - passed_over) / seconds,
    }


def _verify(args: argparse.Namespace) -> None:
    from ingest.errors import RecordError
    from ingest.tools.verify import verify

    verdict = verify(args.shards, decode=args.decode, repair=args.repair, labels=args.labels, workers=args.workers)
    damages = {name: [damage._asdict() for damage in getattr(verdict, name)] for name in ("damages", "left")}
    save_json(args.json, {**asdict(verdict), **damages})
    for damage in verdict.damages:
        print_results(str(damage))
    for name in verdict.repaired:
        print_results(f"repaired {name}")
    files = len({damage.file for damage in verdict.left})
    if files:
        are, them = ("file is", "it") if files == 1 else ("files are", "them")
        remedy = f"mend {them} with 'ingest verify {args.shards} --repair SRC'" if not args.repair else "build it again"
        raise RecordError(f"{args.shards}: {files:,} {are} damaged: {remedy}")
    print_results(
        f"whole: {verdict.records:,} records in {verdict.shards:,} shards, {verdict.size_bytes:,} bytes: {args.shards}"
    )


def _convert(args: argparse.Namespace) -> None:
    from ingest.tools.convert import convert

    manifest = convert(args.shards, args.out, format=args.format, workers=args.workers)
    print_results(
        f"converted {manifest.records:,} records to {manifest.format}, {manifest.size_bytes:,} bytes: {args.out}"
    )


def _profile(args: argparse.Namespace) -> None:
    from ingest.profiling import ProfileOptions, html_report, text_report
    from ingest.profiling.profile import profile

    options = ProfileOptions(
        args.batch_size, args.image_size, args.workers, args.seconds, args.against, args.model, args.step_ms,
        args.target, args.apply,
    )  # fmt: skip
    result = profile(args.shards, options)
    print_results(*text_report.text(result).split("\n"))
    save_json(args.json, asdict(result))
    if args.html:
        save(args.html, html_report.render(result).encode("utf-8", "replace"))
        print_results("", f"page: {args.html}")


def _inspect(args: argparse.Namespace) -> None:
    from ingest.tools import inspection

    result = inspection.inspect(args.shards, args.against, args.workers)
    print_results(*inspection.text(result).split("\n"))
    if args.sheet:
        from ingest.tools import contact_sheet

        contact_sheet.save(args.shards, args.sheet)
        print_results("", f"contact sheet: {args.sheet}")
    save_json(args.json, asdict(result))
