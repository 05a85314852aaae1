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
from dataclasses import MISSING, asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from ingest.errors import IngestError, OptionError, OutputError
from ingest.system import paths, terminal
from ingest.system.terminal import print_errors, print_results
from ingest.system.validation import declared
from ingest.system.worker_pool import HELP

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and whose help keeps its examples' line breaks.

    ``add_arguments`` adds what it parses when that is first needed: what a command imports for its flags, no other
    command waits for.
    """

    def __init__(self, add_arguments: Callable[[Parser], None] | None = None, **options: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)
        self._add_arguments = add_arguments

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse, with all arguments added."""
        if self._add_arguments:
            add_arguments, self._add_arguments = self._add_arguments, None
            add_arguments(self)
        return super().parse_known_args(*args, **kwargs)

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
    commands.add_parser(
        "synth",
        help="draw a photo set that a network can learn",
        description="Draw a photo set in ImageNet's layout, OUT/train/CLASS/NAME.JPEG and OUT/val/...; no download.",
        epilog="example:\n  ingest synth photos --images 2000",
        add_arguments=_synth_arguments,
    )


def _synth_arguments(parser: Parser) -> None:
    from ingest.tools.synthesize import SynthOptions

    parser.add_argument("out", metavar="OUT", type=local, help="a new or empty folder")
    add_options(parser, SynthOptions)
    parser.set_defaults(run=_synth)


def _add_build_shards(commands: Any) -> None:
    commands.add_parser(
        "build-shards",
        help="pack photographs into shards",
        description="Pack the images of SRC into shards in OUT, in random order. SRC is only ever read.",
        epilog="examples:\n"
        "  ingest build-shards ILSVRC2012/train shards/train --format tfrecord\n"
        "  ingest build-shards mnist/train-images-idx3-ubyte.gz shards/mnist --format lmdb",
        add_arguments=_build_shards_arguments,
    )


def _build_shards_arguments(parser: Parser) -> None:
    from ingest.packing.options import BuildOptions
    from ingest.sources.detect import kinds

    parser.add_argument("src", metavar="SRC", type=path_or_url, help=kinds())
    parser.add_argument("out", metavar="OUT", type=path_or_url, help="a new or empty folder")
    add_options(parser, BuildOptions)
    parser.add_argument("--dry-run", action="store_true", help="measure a sample, say what would come, write nothing")
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the summary to FILE, too")
    parser.set_defaults(run=_build_shards)


def _add_verify(commands: Any) -> None:
    commands.add_parser(
        "verify",
        help="check a dataset to the bit, and mend it",
        description="Read every byte of SHARDS and name what is damaged: file, record, byte, key; then end with 1.",
        epilog="examples:\n"
        "  ingest verify shards/train --decode\n"
        "  ingest verify shards/train --repair ILSVRC2012/train",
        add_arguments=_verify_arguments,
    )


def _verify_arguments(parser: Parser) -> None:
    parser.add_argument("shards", metavar="SHARDS", type=path_or_url, help="what build-shards wrote")
    parser.add_argument("--decode", action="store_true", help="decode every image, too")
    parser.add_argument("--repair", metavar="SRC", type=path_or_url, help="pack what is damaged again, from the source")
    parser.add_argument(
        "--labels", metavar="FILE", type=path_or_url, help="with --repair: of a source whose images lie without"
    )
    _add_workers(parser)
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the result to FILE, too")
    parser.set_defaults(run=_verify)


def _add_convert(commands: Any) -> None:
    commands.add_parser(
        "convert",
        help="write a dataset in another format",
        description="Copy the records of SHARDS, untouched and in their order, to shards of another format in OUT.",
        epilog="example:\n  ingest convert shards/train shards/train-lmdb --format lmdb",
        add_arguments=_convert_arguments,
    )


def _convert_arguments(parser: Parser) -> None:
    from ingest import formats

    parser.add_argument("shards", metavar="SHARDS", type=path_or_url, help="what build-shards wrote")
    parser.add_argument("out", metavar="OUT", type=path_or_url, help="a new or empty folder")
    parser.add_argument("--format", choices=formats.NAMES, required=True)
    _add_workers(parser)
    parser.set_defaults(run=_convert)


def _add_inspect(commands: Any) -> None:
    commands.add_parser(
        "inspect",
        help="look into shards: classes, sizes, duplicates",
        description="Read all of SHARDS, and say what is in it: classes, sizes, encodings, images that it holds twice.",
        epilog="examples:\n"
        "  ingest inspect shards/train --sheet sheet.png\n"
        "  ingest inspect shards/train --compare-to shards/val --json report.json",
        add_arguments=_inspect_arguments,
    )


def _inspect_arguments(parser: Parser) -> None:
    from ingest.loading.options import TransformOptions

    parser.add_argument("shards", metavar="SHARDS", type=path_or_url, help="what build-shards wrote")
    parser.add_argument(
        "--compare-to",
        type=path_or_url,
        metavar="SHARDS",
        help="another dataset: what is in both, and do their labels agree",
    )
    parser.add_argument(
        "--sheet", type=_picture, metavar="FILE.png", help="draw images beside their training views, with the crops"
    )
    add_options(parser.add_argument_group("what training shows, on the sheet"), TransformOptions)
    _add_workers(parser)
    parser.add_argument("--json", type=writable, metavar="FILE", help="write all that was found to FILE, too")
    parser.set_defaults(run=_inspect)


def _add_profile(commands: Any) -> None:
    commands.add_parser(
        "profile",
        help="measure the loader, stage by stage, and say what to change",
        description="Measure how fast training batches of SHARDS are made, stage by stage, say what limits that, and "
        "what to change.",
        epilog="examples:\n"
        "  ingest profile shards/train --html profile.html\n"
        "  ingest profile shards/train --workers 1 --apply\n"
        "  ingest profile shards/train --against naive,tf.data,tensorpack\n"
        "  ingest profile shards/train --model resnet50 --batch-size 256 --target a100",
        add_arguments=_profile_arguments,
    )


def _profile_arguments(parser: Parser) -> None:
    from ingest.loading.options import TransformOptions
    from ingest.profiling import ProfileOptions

    parser.add_argument("shards", metavar="SHARDS", type=path_or_url, help="what build-shards wrote")
    add_options(parser, ProfileOptions, besides=TransformOptions)
    add_options(parser.add_argument_group("what training shows"), TransformOptions)
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the figures to FILE, too")
    parser.add_argument("--html", type=writable, metavar="FILE", help="write a page with charts to FILE, too")
    parser.set_defaults(run=_profile)


def _add_workers(parser: Parser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help=HELP)


def add_options(parser: Any, options: type, besides: type | None = None) -> None:
    """Add a flag for each field of a class of ``options`` that has a help text; not for those of ``besides``, too."""
    excluded = declared(besides) if besides else {}
    for field in fields(options):
        kind, _, option = declared(options)[field.name]
        if not option.help or field.name in excluded:
            continue
        keywords: dict[str, Any] = {"dest": field.name, "default": None, "help": option.help.replace("%", "%%")}
        if kind is bool:
            keywords |= {"action": "store_const", "const": not field.default}
        else:
            keywords |= {"type": _PARSERS.get(kind, _names), "required": field.default is MISSING}
            keywords |= {"choices": option.choices} if option.choices else {"metavar": option.metavar or "N"}
        parser.add_argument(flag_of(options, field.name), **keywords)


def flag_of(options: type, name: str) -> str:
    """The flag of an option. That of a truth value turns its default around: ``--apply``, ``--no-augment``."""
    is_on = getattr(options, name, None) is True
    return declared(options)[name].option.flag or ("--no-" if is_on else "--") + name.replace("_", "-")


def given(args: argparse.Namespace, options: type) -> dict[str, Any]:
    """The options of a class that were given as flags, by name."""
    values = {name: getattr(args, name, None) for name in declared(options)}
    return {name: value for name, value in values.items() if value is not None}


def given_transforms(args: argparse.Namespace, augment: bool = True) -> dict[str, Any]:
    """The options of what training shows that were given as flags.

    ``augment`` is whether images are cropped at random by default. Raises OptionError for a flag that does nothing,
    because they are not.
    """
    from ingest.loading.options import TransformOptions

    options = given(args, TransformOptions)
    TransformOptions(**options)
    idle = [flag_of(TransformOptions, name) for name in options if name != "augment"]
    if idle and not options.get("augment", augment):
        raise OptionError(f"{idle[0]} does nothing where whole images are shown: leave it out")
    return options


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


_PARSERS: dict[type, Callable[[str], Any]] = {int: int, float: float, str: str, Path: path_or_url}


def _synth(args: argparse.Namespace) -> None:
    from ingest.tools.synthesize import SynthOptions, synthesize

    counts = synthesize(args.out, SynthOptions(**given(args, SynthOptions)))
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
        raise OptionError(f"--quality is of the encoding jpeg, and the encoding is {args.encoding or 'keep'}")
    if args.scheduler and (args.workers is not None or args.dry_run):
        raise OptionError(
            f"--{'dry-run' if args.dry_run else 'workers'} does not go with --scheduler: the cluster packs"
        )
    options = BuildOptions(**given(args, BuildOptions))
    if args.dry_run:
        estimate = dry_run(args.src, args.out, options)
        result = asdict(estimate)
        print_results(*_lines(_ESTIMATE, **result, format=args.format))
        if estimate.free_bytes is not None and estimate.size_bytes > estimate.free_bytes:
            raise OutputError(f"{args.out}: too small: {estimate.free_bytes:,} bytes are free: make room there")
    else:
        start = time.perf_counter()
        was_there = (args.out / MANIFEST).exists()
        try:
            manifest = build.build_shards(args.src, args.out, **asdict(options))
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
            print_results(_TURNED[options.exif_orientation].format(**result))
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
    total = manifest.records + manifest.quarantined + passed_over
    return {
        "format": manifest.format,
        "encoding": manifest.encoding,
        "found": total,
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
        "images_per_second": (total - passed_over) / seconds,
    }


def _verify(args: argparse.Namespace) -> None:
    from ingest.errors import RecordError
    from ingest.tools.verify import verify

    if args.labels and not args.repair:
        raise OptionError("--labels is of the source to repair from: give --repair SRC, too")
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

    options = ProfileOptions(**{**given(args, ProfileOptions), **given_transforms(args)})
    result = profile(args.shards, options)
    print_results(*text_report.text(result).split("\n"))
    save_json(args.json, asdict(result))
    if args.html:
        save(args.html, html_report.render(result).encode("utf-8", "replace"))
        print_results("", f"page: {args.html}")


def _inspect(args: argparse.Namespace) -> None:
    from ingest.loading.options import TransformOptions
    from ingest.tools import inspection

    transforms = TransformOptions(**given_transforms(args))
    if not args.sheet and (idle := given(args, TransformOptions)):
        flag = flag_of(TransformOptions, next(iter(idle)))
        raise OptionError(f"{flag} says how the sheet is drawn: give --sheet FILE.png, too")
    result = inspection.inspect(args.shards, args.compare_to, args.workers)
    print_results(*inspection.text(result).split("\n"))
    if args.sheet:
        from ingest.tools import contact_sheet

        contact_sheet.save(args.shards, args.sheet, transforms)
        print_results("", f"contact sheet: {args.sheet}")
    save_json(args.json, asdict(result))
