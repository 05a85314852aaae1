#!/usr/bin/env python3
"""Train a network on shards, evaluate it, use it: the one place where ingest and models meet."""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import os
import platform
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

try:
    from ingest.system import paths, progress
except ModuleNotFoundError as missing:
    sys.exit(f"train.py: error: {sys.executable} has no {missing.name}: make install, then source .venv/bin/activate")
from ingest.baselines import BASELINES, OURS
from ingest.cli import (
    Parser,
    add_options,
    flag_of,
    given_transforms,
    guarded,
    local,
    path_or_url,
    save,
    save_json,
    writable,
)
from ingest.dataset.manifest import BUILD_NAME, NAME, load_manifest
from ingest.errors import IngestError, OptionError
from ingest.loading.options import TransformOptions
from ingest.system.terminal import print_errors, print_results
from ingest.system.validation import declared
from models import NETWORKS, ModelError, Network, flags

if TYPE_CHECKING:
    from models.devices import Devices
    from models.run_dir import RunConfig, Trained
    from models.training import Outcome, TrainingJob

T = TypeVar("T")

_SYNTHETIC_STEPS, _SYNTHETIC_SECONDS = 10_000, 10.0
_EVALUATION_BATCH = 256
_ADVICE_SECONDS = 5.0

# Beyond these a graph alone would take all memory; batches have no larger images either.
_MOST_CLASSES, _MOST_PIXELS = 1_000_000, 10_000

_MOST_BYTES = 2**30  # of a file of an image

_TENSORFLOWS = ("tensorflow", "tensorflow-cpu")  # as packages


def main() -> int:
    """The command; returns its exit code."""
    args = _parser().parse_args()
    _set_up_tensorflow(args)
    return guarded("train.py", lambda: _run(args))


def device_rate(words: Sequence[str]) -> float:
    """The images/s that ``--synthetic`` with the arguments ``words`` measures. Raises IngestError, OptionError."""
    parser = _parser()
    parser.exit_on_error = False
    try:
        args = parser.parse_args(["--synthetic", *words])
    except argparse.ArgumentError as error:
        raise OptionError(str(error)) from error
    _set_up_tensorflow(args)
    _check_tensorflow()
    return _of_models(lambda: _synthetic(args)["images_per_second"])


def _set_up_tensorflow(args: argparse.Namespace) -> None:
    """Set what TensorFlow reads when it is imported."""
    # TensorFlow greets with a page of hints; whoever wants them sets this to 0.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow by itself uses oneDNN only on CPUs with AVX-512 or the like; with AVX2 it trains twice as fast, too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="tensorflow")
    if args.xla:
        os.environ["TF_XLA_FLAGS"] = f"{os.environ.get('TF_XLA_FLAGS', '')} --tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"


def _check_tensorflow() -> None:
    """Raise IngestError unless TensorFlow 2.15 is installed: found out without the seconds that importing it takes."""
    versions = []
    for name in _TENSORFLOWS:
        with suppress(PackageNotFoundError):
            versions.append(version(name))
    if not any(found.startswith("2.15.") for found in versions):
        here = f"TensorFlow {versions[0]}" if versions else "no TensorFlow"
        raise IngestError(
            f"training needs TensorFlow 2.15, the last with tf.estimator, on Python 3.10 or 3.11: this is Python "
            f"{platform.python_version()} with {here}: make install in the checkout, then .venv/bin/python train.py"
        )


def _run(args: argparse.Namespace) -> None:
    _check_tensorflow()
    _of_models(lambda: _command(args)(args))


def _of_models(use: Callable[[], T]) -> T:
    """What ``use`` gives; the models' errors become those of ingest."""
    try:
        return use()
    except ModelError as error:
        raise IngestError(str(error), path=error.path) from error


class _Use(NamedTuple):
    """What train.py can do besides training: the flags that go with it, and why no other does."""

    run: Callable[[argparse.Namespace], None]
    flags: frozenset[str]
    why: str


def _command(args: argparse.Namespace) -> Callable[[argparse.Namespace], None]:
    """What ``args`` asks for. Raises OptionError where flags do not go together."""
    asked = [name for name in _USES if getattr(args, name)]
    if len(asked) > 1:
        raise OptionError(f"{' and '.join(map(_flag_of, asked))}: give one at a time")
    if args.out and not args.features:
        raise OptionError("--out goes with --features")
    if asked and asked[0] in ("predict", "features", "evaluate"):
        _check_trained(asked[0], args)
    elif args.model is None:
        raise OptionError(f"give --model NAME: {', '.join(NETWORKS)}")
    if args.classes is not None and not asked:
        raise OptionError("--classes goes with --summary and --synthetic; in training the data say how many there are")
    return _USES[asked[0]].run if asked else _train


def _check_trained(use: str, args: argparse.Namespace) -> None:
    if args.init_from is None:
        raise OptionError(f"{_flag_of(use)} needs --init-from CHECKPOINT|SAVEDMODEL: the network to use")
    if use == "evaluate" and args.eval_data is None:
        raise OptionError("--evaluate needs --eval-data SHARDS")
    _check_flags(use, args)
    if use == "features" and args.out is None:
        raise OptionError("--features needs --out FILE.npz")


def _check_flags(use: str, args: argparse.Namespace) -> None:
    """Raise OptionError for a flag that does nothing in a use."""
    for name in _given(args):
        if name not in {*_USES[use].flags, use, "json"}:
            raise OptionError(f"{_flag_of(name)} does not go with {_flag_of(use)}: {_USES[use].why}")


def _given(args: argparse.Namespace) -> list[str]:
    """The flags that were given; 0 is given, too."""
    parser = _parser()
    return [name for name, value in vars(args).items() if value != parser.get_default(name)]


def _flag_of(name: str) -> str:
    is_transform = name in declared(TransformOptions)
    return flag_of(TransformOptions, name) if is_transform else f"--{name.replace('_', '-')}"


def _parser() -> Parser:
    parser = Parser(
        prog="train.py",
        description="Train a network on shards and evaluate it. Started again with the same --model-dir, it goes on.",
        epilog="examples:\n"
        "  python train.py --model alexnet --data shards/train --eval-data shards/val --model-dir runs/alexnet\n"
        "  python train.py --model resnet18 --data few --model-dir runs/few --init-from runs/resnet18 --tune head\n"
        "  python train.py --predict cat.jpg dog.jpg --init-from runs/resnet18\n"
        "  python train.py --model resnet50 --summary",
    )
    parser.add_argument("--model", choices=NETWORKS, metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--data", type=path_or_url, metavar="SHARDS", help="what to train on")
    parser.add_argument("--eval-data", type=path_or_url, metavar="SHARDS", help="what to evaluate on, after each epoch")
    parser.add_argument("--model-dir", type=local, metavar="DIR", help="for checkpoints and TensorBoard's files")
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="N",
        help=f"pixels a side ({flags.by_network(lambda network: network.image_size)})",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of order, crops and weights (default: 0)")
    parser.add_argument("--workers", type=int, metavar="N", help="loader processes (default: one a core)")
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the result to FILE, too")
    flags.add_recipe(parser.add_argument_group("the recipe", "Defaults are those of the network's paper."))
    add_options(parser.add_argument_group("what training shows"), TransformOptions)
    machine = parser.add_argument_group("the machine")
    flags.add_machine(machine)
    machine.add_argument(
        "--loader", choices=(OURS, *BASELINES), default=OURS, help=f"how to load, to compare (default: {OURS})"
    )
    _add_uses(parser.add_argument_group("a trained network"))
    flags.add_variant(parser.add_argument_group("what if"))
    parser.add_argument("--summary", action="store_true", help="print the network's layers and what they cost, and end")
    parser.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help=f"with --summary, --synthetic ({flags.by_network(lambda network: network.classes)})",
    )
    return parser


def _add_uses(group: Any) -> None:
    group.add_argument(
        "--init-from", type=local, metavar="CHECKPOINT|SAVEDMODEL", help="or the --model-dir of a training"
    )
    group.add_argument("--tune", choices=("head", "all"), help="with --init-from: train the last layer alone, or all")
    group.add_argument("--evaluate", action="store_true", help="evaluate --init-from on --eval-data, and end")
    group.add_argument("--predict", nargs="+", type=local, metavar="IMAGE", help="the five most likely classes of each")
    group.add_argument(
        "--features", type=path_or_url, metavar="SHARDS", help="what the last layer sees of each record ..."
    )
    group.add_argument("--out", type=writable, metavar="FILE.npz", help="... with keys and labels, to this file")


def _summarize(args: argparse.Namespace) -> None:
    _check_flags("summary", args)
    from models.summary import table, text

    size, channels, classes = _shape(args)
    layers = table(args.model, size, channels, classes)
    total = sum(layer.parameters for layer in layers)
    operations = sum(layer.multiply_adds for layer in layers)
    print_results(*text(layers).split("\n"))
    costs = f"{total:,} trainable parameters, {operations:,} multiply-adds"
    print_results(f"{args.model}, {size} x {size}, {classes} classes: {costs}")
    rows = [layer._asdict() for layer in layers]
    save_json(
        args.json,
        {"model": args.model, "image_size": size, "layers": rows, "parameters": total, "multiply_adds": operations},
    )


def _shape(args: argparse.Namespace) -> tuple[int, int, int]:
    """Image size, channels and classes, where no data say them."""
    network = NETWORKS[args.model]
    classes = _positive("--classes", args.classes if args.classes is not None else network.classes)
    if classes > _MOST_CLASSES:
        raise OptionError(f"--classes {classes}: give {_MOST_CLASSES:,} at the most")
    return _image_size(args, network), network.channels, classes


def _train(args: argparse.Namespace) -> None:
    job = _checked(args)
    import tensorflow.compat.v1 as tf

    from models import run_dir, training

    resume_point = run_dir.find_start(job.folder, job.config)
    start = resume_point.step
    # Every input is made before the first step, so that what is wrong with it shows now and not after hours.
    inputs = _training_inputs(args, job, start)
    evaluation = args.eval_data and _evaluation_inputs(args.eval_data, job.config, args.workers)
    for checkpoint, fault in resume_point.damaged.items():
        print_errors(f"train.py: {checkpoint}: {fault}: goes on without it")
    if start:
        more = "" if start < job.steps else ": for more, raise --epochs or --steps; the learning rate then rises again"
        print_errors(f"train.py: {job.folder} has had {start} of {job.steps} steps{more}")
    if change := training.change_of_rate(job, start):
        print_errors(f"train.py: {job.folder}: {_changed(*change, job.folder)}")
    size = job.config.batch_size
    with (
        _interruptible() as interrupt,
        progress.bar(
            job.steps * size, f"training {args.model}", initial=start * size, hidden=not job.devices.is_chief
        ) as bar,
    ):

        def show(loss: float, top1: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}, top-1 {top1:.2f}", refresh=False)
            bar.update(size)

        try:
            outcome = training.train(job, resume_point, inputs, evaluation, show, interrupt.is_set)
        except tf.train.NanLossDuringTrainingError as error:
            why = (
                "the loss is no number any more: give a lower --learning-rate, or a longer --warm-up; "
                "the same --model-dir goes on from the last checkpoint before"
            )
            save_json(args.json, {"model": args.model, "diverged": True, "error": why})
            raise IngestError(why) from error
        except tf.errors.OpError as error:
            raise _explained(error, inputs, evaluation) from error
        except OSError as error:
            path = error.filename or job.folder
            raise IngestError(
                f"{path}: cannot be used ({error.strerror}): mend that, and the same command goes on"
            ) from error
    if interrupt.is_set() and outcome.saved_model is None:
        raise KeyboardInterrupt(f"saved at step {outcome.step}; the same command goes on from there")
    if job.devices.is_chief:
        _report(args, job, outcome)


def _changed(was: float, now: float, folder: Path) -> str:
    """One line: how the learning rate goes on, where a training is given another schedule, and what to do."""
    return (
        f"the learning rate {'rises' if now > was else 'falls'} from {was:.3g} to {now:.3g}, because the schedule is "
        "not that of the steps before (--epochs, --steps, --learning-rate, ...): give the flags of before to go on as "
        f"before, or, for more of a finished training, --init-from {folder} --tune all with a low --learning-rate in "
        "another --model-dir"
    )


def _checked(args: argparse.Namespace) -> TrainingJob:
    """The training that ``args`` asks for. Raises where it cannot succeed, before anything slow is begun."""
    needed = {"--data SHARDS": args.data, "--model-dir DIR": args.model_dir}
    if missing := [flag for flag, value in needed.items() if value is None]:
        others = ", or --summary, or --synthetic" if len(missing) == len(needed) else ""
        raise OptionError(f"give {' and '.join(missing)}{others}")
    if args.patience is not None and _positive("--patience", args.patience) and args.eval_data is None:
        raise OptionError("--patience needs --eval-data SHARDS: it counts evaluations")
    if (args.init_from is None) != (args.tune is None):
        raise OptionError("give --init-from CHECKPOINT|SAVEDMODEL and --tune head|all together")
    if args.no_shuffle and args.loader != OURS:
        raise OptionError(f"--no-shuffle: one class after the other is not in --loader {args.loader}")
    if any((args.model_dir / name).exists() for name in (NAME, BUILD_NAME)):
        raise OptionError(f"--model-dir {args.model_dir}: it holds a dataset: give a folder of its own")
    size = _image_size(args, NETWORKS[args.model])
    recipe = _flag(lambda: flags.recipe(args))
    _transforms(args)
    manifest = load_manifest(args.data)
    if not manifest.records:
        raise IngestError(f"{args.data}: the dataset has no records")
    if args.eval_data:
        _check_same_kind(args.data, manifest.classes, manifest.channels, args.eval_data)
    batch_size = manifest.records if args.batch_size == "all" else recipe.batch_size
    # To the millionth of a step: 1.1 times 200 is a little more than 220.
    steps = args.steps if args.steps is not None else math.ceil(round(recipe.epochs * manifest.records / batch_size, 6))
    from models import run_dir, training

    trained = run_dir.find(args.init_from) if args.init_from else None
    if trained:
        size = trained.config.size_for(args.model, args.image_size, manifest.channels)
    variant = _flag(lambda: flags.variant(args, trained.config.variant if trained else None))
    config = run_dir.RunConfig(
        model=args.model,
        image_size=size,
        channels=manifest.channels,
        classes=manifest.classes,
        data=manifest.fingerprint,
        records=manifest.records,
        batch_size=batch_size,
        seed=args.seed or 0,
        tune=args.tune or "all",
        optimizer=recipe.optimizer,
        mixed_precision=args.mixed_precision,
        variant=variant,
    )
    return training.TrainingJob(
        config=config,
        recipe=recipe,
        learning_rate=flags.learning_rate(args, batch_size),
        steps=_positive("--steps", steps),
        folder=args.model_dir,
        devices=_devices(args, batch_size),
        init_from=trained,
        patience=args.patience,
        deterministic=args.deterministic,
    )


def _flag(read: Callable[[], T]) -> T:
    """What ``read`` makes of flags; where they make no sense, that is an error of usage."""
    try:
        return read()
    except ValueError as error:
        raise OptionError(str(error)) from error


def _devices(args: argparse.Namespace, batch_size: int) -> Devices:
    from models import devices

    try:
        # How fast a device is alone has to do with no other host.
        result = devices.find(args.devices, None if args.synthetic else os.environ.get("TF_CONFIG"))
    except ModelError as error:
        raise OptionError(str(error)) from error
    if batch_size % result.replicas:
        raise OptionError(f"--batch-size {batch_size}: cannot be divided among {result.replicas} devices")
    if args.loader != OURS and result.replicas > 1:
        way = "give --devices cpu:1 or gpu:1" if result.hosts == 1 else "unset TF_CONFIG"
        raise OptionError(f"--loader {args.loader} feeds one device: {way}")
    return result


def _check_same_kind(data: Path, classes: tuple[str, ...], channels: int, other: Path) -> None:
    manifest = load_manifest(other)
    if manifest.classes != classes:
        raise IngestError(
            f"{other}: its classes are not those of {data}, so its labels mean other things "
            f"(only here: {_some(manifest.classes, classes)}; only there: {_some(classes, manifest.classes)}): "
            "build both from folders of the same classes"
        )
    if manifest.channels != channels:
        raise IngestError(f"{other}: {manifest.channels} channels, and {data} has {channels}")


def _some(classes: tuple[str, ...], others: tuple[str, ...]) -> str:
    """A few of the ``classes`` that are not among the ``others``."""
    return ", ".join(sorted(set(classes) - set(others))[:3]) or "none"


def _training_inputs(args: argparse.Namespace, job: TrainingJob, start: int) -> Any:
    config = job.config
    options: dict[str, Any] = {
        "batch_size": config.batch_size, "training": True, "image_size": config.image_size, "seed": config.seed,
        "workers": args.workers, "start_batch": start, "shuffle": not args.no_shuffle, **_transforms(args),
    }  # fmt: skip
    if args.loader == OURS:
        import ingest

        return ingest.input_fn(args.data, **options)
    from ingest import baselines
    from ingest.loading.options import LoaderOptions

    return baselines.input_fn(args.loader, args.data, LoaderOptions(**options))


def _transforms(args: argparse.Namespace) -> dict[str, Any]:
    """What training shows of an image: the network's own options, and those that flags override."""
    own = NETWORKS[args.model].recipe.transforms
    return {**own, **given_transforms(args, augment=own.get("augment", True))}


def _evaluation_inputs(shards: Path, config: RunConfig, workers: int | None, batch_size: int | None = None) -> Any:
    import ingest

    # Not more than fit while training: whole sets as one batch are a matter of training alone.
    size = batch_size or min(config.batch_size, _EVALUATION_BATCH)
    return ingest.input_fn(shards, batch_size=size, image_size=config.image_size, training=False, workers=workers)


def _explained(error: Exception, *inputs: Any) -> IngestError:
    """The loader's own error, if it was one, or else TensorFlow's in one line."""
    failures = [failure for source in inputs if (failure := getattr(source, "failure", None))]
    # Before what it says there may be a heading, and where in the graph it was.
    headings = ("Restoring from checkpoint failed", "Graph execution error", "Detected at", "File ", "Node: ")
    lines = [line for line in map(str.strip, str(error).splitlines()) if line and not line.startswith(headings)]
    problem = (lines or [type(error).__name__])[0]
    if "No space left" in problem:
        problem += ": make room, and the same command goes on"
    elif "not found in checkpoint" in problem:
        problem += (
            ": the weights are of another network, or of an earlier version of it: train anew in another --model-dir"
        )
    return (failures or [IngestError(f"TensorFlow failed: {problem}")])[0]


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Within, the first Ctrl-C or SIGTERM only sets the event, so that the step can end and be saved; a second ends."""
    event = threading.Event()

    def on_signal(*_: object) -> None:
        event.set()
        for number in before:
            signal.signal(number, signal.default_int_handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, on_signal)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(args: argparse.Namespace, job: TrainingJob, outcome: Outcome) -> None:
    from models import training

    last = outcome.history[-1] if outcome.history else {}
    result = {
        "model": args.model,
        "diverged": False,
        "steps": outcome.step,
        "epochs": round(job.epoch_at(outcome.step), 3),
        "images_per_second": _rounded(outcome.images_per_second, 1),
        "data_wait_share": _rounded(outcome.data_wait_share, 4),
        "eval_top1": _rounded(last.get("eval_top1"), 5),
        "eval_top5": _rounded(last.get("eval_top5"), 5),
        "eval_loss": _rounded(last.get("eval_loss"), 5),
        "best_top1": _rounded((outcome.best or {}).get("eval_top1"), 5),
        "saved_model": str(outcome.saved_model),
        "saved_step": outcome.saved_step,
        "history": outcome.history,
    }
    if outcome.data_wait_share is not None:
        print_errors(f"train.py: {training.bottleneck_message(outcome.data_wait_share, outcome.seconds)}")
    print_errors(f"train.py: {_exported(outcome, last.get('eval_top1'), result['best_top1'])}")
    _give(args, result)
    if training.is_starved(outcome) and args.loader == OURS:
        _advise(args, job)


def _give(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """The result for machines: a line of JSON on stdout, and --json FILE."""
    # The one character that JSON may hold and no terminal should: print_results would write it as JSON does not.
    print_results(json.dumps(result).replace("\x7f", "\\u007f"))
    save_json(args.json, result)


def _exported(outcome: Outcome, last: float | None, best: float | None) -> str:
    """One line: how good the network is, and what of it was exported."""
    export = f"{outcome.saved_model} is of step {outcome.saved_step}"
    if best is None:
        return f"{export}; give --eval-data to know how good it is, and to keep the best"
    if last is None:
        return f"{export}, the best evaluated, with top-1 {best:.2%}; give --eval-data to have later ones judged"
    return f"top-1 {last:.2%} at the end, {best:.2%} at best; {export}, the best"


def _advise(args: argparse.Namespace, job: TrainingJob) -> None:
    """Say what in the loader to change."""
    from ingest.profiling import ProfileOptions, text_report
    from ingest.profiling.profile import profile

    config = job.config
    size = min(config.batch_size, _EVALUATION_BATCH)
    try:
        options = ProfileOptions(
            batch_size=size, image_size=config.image_size, workers=args.workers, seconds=_ADVICE_SECONDS,
            **_transforms(args),
        )  # fmt: skip
        result = profile(args.data, options)
    except IngestError as error:
        # The training succeeded, whatever becomes of this.
        print_errors(f"train.py: what to change cannot be told: {error}")
        return
    for line in text_report.conclusion(result):
        print_errors(f"  {line}")


def _measure_device(args: argparse.Namespace) -> None:
    _give(args, _synthetic(args))


def _synthetic(args: argparse.Namespace) -> dict[str, Any]:
    """How fast the device trains on one batch, and what."""
    size, channels, classes = _shape(args)
    recipe = _flag(lambda: flags.recipe(args))
    if args.batch_size == "all":
        raise OptionError("--batch-size all: give a number with --synthetic")
    _check_flags("synthetic", args)
    from models import run_dir, training

    steps = _positive("--steps", args.steps if args.steps is not None else _SYNTHETIC_STEPS)
    # All of it is one epoch, so that pictures are written once, and not timed.
    config = run_dir.RunConfig(
        model=args.model,
        image_size=size,
        channels=channels,
        classes=tuple(map(str, range(classes))),
        data="",
        records=steps * recipe.batch_size,
        batch_size=recipe.batch_size,
        seed=args.seed or 0,
        tune="all",
        optimizer=recipe.optimizer,
        mixed_precision=args.mixed_precision,
        variant=flags.variant(args),
    )
    devices = _devices(args, recipe.batch_size)
    rate = flags.learning_rate(args, recipe.batch_size)
    job = training.TrainingJob(
        config=config, recipe=recipe, learning_rate=rate, steps=steps, folder=Path(), devices=devices
    )
    result = {"model": args.model, "batch_size": recipe.batch_size, "image_size": size}
    seconds = math.inf if args.steps else _SYNTHETIC_SECONDS
    result["images_per_second"] = round(_using(lambda: training.measure(job, seconds)), 1)
    return result


def _evaluate(args: argparse.Namespace) -> None:
    from models import serving

    trained = _trained(args)
    config = trained.config
    _check_same_kind(args.init_from, config.classes, config.channels, args.eval_data)
    size = None if args.batch_size is None else _flag(lambda: flags.batch_size(args.batch_size))
    inputs = _evaluation_inputs(args.eval_data, config, args.workers, size)
    metrics = _using(lambda: serving.evaluate(trained, inputs), inputs)
    result = {"model": config.model, "records": load_manifest(args.eval_data).records}
    named = {"eval_top1": "top1", "eval_top5": "top5", "eval_loss": "cross_entropy"}
    result |= {ours: _rounded(float(metrics[name]), 5) for ours, name in named.items()}
    _give(args, result)


def _predict(args: argparse.Namespace) -> None:
    trained = _trained(args)
    images, bad = {}, {}
    for path in args.predict:
        try:
            images[path] = _image(path, trained.config)
        except IngestError as error:
            bad[path] = str(error)
    answers = dict(zip(images, _answers(trained, list(images.values())), strict=True))
    for path, scores in answers.items():
        if not all(map(math.isfinite, scores.values())):
            bad[path] = f"{path}: the network's scores are no numbers: give one whose training has not diverged"
    for path in args.predict:
        if path not in bad:
            print_results(str(path), *(f"  {score:>7.2%}  {name}" for name, score in answers[path].items()))
    save_json(args.json, {str(path): {"error": bad[path]} if path in bad else answers[path] for path in args.predict})
    if bad:
        raise IngestError("; ".join(bad.values()))


def _answers(trained: Trained, images: list[Any]) -> list[dict[str, float]]:
    """The likeliest classes of each image, uint8 [S, S, C], and their scores."""
    if not images:
        return []
    import numpy as np

    from models import serving

    inputs = serving.images_fn(np.stack(images), _EVALUATION_BATCH)
    return [
        {name.decode(): round(float(score), 5) for name, score in zip(classes, scores, strict=True)}
        for batch in _using(lambda: list(serving.predictions(trained, inputs)))
        for classes, scores in zip(batch["classes"], batch["scores"], strict=True)
    ]


def _image(path: Path, config: RunConfig) -> Any:
    from ingest.loading.transforms import preprocess_file

    try:
        return preprocess_file(paths.read_small(path, _MOST_BYTES), config.image_size, config.channels)
    except OSError as error:
        raise IngestError(f"{path}: cannot be read ({error.strerror}): give image files") from error
    except IngestError as error:
        raise IngestError(f"{path}: no image that can be decoded ({error})") from error


def _extract(args: argparse.Namespace) -> None:
    import numpy as np

    from ingest.dataset.dataset import Dataset
    from models import serving

    trained = _trained(args)
    dataset = Dataset(args.features)
    if dataset.manifest.channels != trained.config.channels:
        raise IngestError(f"{args.features}: {dataset.manifest.channels} channels, and {args.init_from} is of others")
    inputs = _evaluation_inputs(args.features, trained.config, args.workers)
    parts = []
    with progress.bar(len(dataset), "extracting features") as bar:

        def collect() -> None:
            for batch in serving.predictions(trained, inputs):
                parts.append(batch["features"])
                bar.update(len(parts[-1]))

        _using(collect, inputs)
    features = np.concatenate(parts)
    records = [dataset[i] for i in range(len(dataset))]
    keys, labels = np.array([record.key for record in records]), np.array([r.label for r in records], np.int32)
    content = io.BytesIO()  # because a ZIP file that finds no room complains once more when it is forgotten
    np.savez(content, features=features, labels=labels, keys=keys, classes=np.array(dataset.manifest.classes))
    save(args.out, content.getbuffer())
    print_results(f"{len(features):,} x {features.shape[1]:,} features of {trained.config.model}: {args.out}")
    save_json(args.json, {"records": len(features), "features": features.shape[1]})


def _trained(args: argparse.Namespace) -> Trained:
    from models import run_dir

    trained = run_dir.find(args.init_from)
    if args.model not in (None, trained.config.model):
        raise OptionError(f"{args.init_from}: is of {trained.config.model}, and --model is {args.model}")
    return trained


def _using(use: Callable[[], Any], *inputs: Any) -> Any:
    """What ``use`` gives; TensorFlow's errors become ours."""
    import tensorflow.compat.v1 as tf

    try:
        return use()
    except tf.errors.OpError as error:
        raise _explained(error, *inputs) from error


def _rounded(value: float | None, digits: int) -> float | None:
    """None also where it is no number, for which JSON has no word."""
    return None if value is None or not math.isfinite(value) else round(value, digits)


def _image_size(args: argparse.Namespace, network: Network) -> int:
    size = args.image_size if args.image_size is not None else network.image_size
    if size < network.min_image_size:
        raise OptionError(f"--image-size {size}: too small for {args.model}: give at least {network.min_image_size}")
    if size > _MOST_PIXELS:
        raise OptionError(f"--image-size {size}: give {_MOST_PIXELS:,} at the most")
    return size


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise OptionError(f"{name} {value}: give 1 or more")
    return value


_OF_NETWORK = frozenset({"model", "image_size", "classes"})
_OF_STEPS = frozenset(
    {"steps", "batch_size", "optimizer", "learning_rate", "schedule", "warm_up", "weight_decay", "label_smoothing",
     "pixel_range", "initializer", "no_bias", "devices", "mixed_precision", "xla", "seed"}
)  # fmt: skip
_TRAINED = frozenset({"init_from", "model", "xla"})
_WHY_TRAINED = "the network is trained"

_USES = {
    "predict": _Use(_predict, _TRAINED, _WHY_TRAINED),
    "features": _Use(_extract, _TRAINED | {"out", "workers"}, _WHY_TRAINED),
    "evaluate": _Use(_evaluate, _TRAINED | {"eval_data", "batch_size", "workers"}, _WHY_TRAINED),
    "summary": _Use(_summarize, _OF_NETWORK, "nothing is trained"),
    "synthetic": _Use(_measure_device, _OF_NETWORK | _OF_STEPS, "it is one batch"),
}
"""What train.py can do besides training, by flag. A flag that would do nothing in a use is refused."""


if __name__ == "__main__":
    sys.exit(main())
