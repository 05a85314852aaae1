#!/usr/bin/env python3
"""Train a network on shards, and evaluate it: the one place where ingest and models meet."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest import atomic
from ingest.cli import Parser, guarded, place, save_json, writable
from ingest.errors import IngestError, OptionError, OutputError
from ingest.manifest import Manifest, load_manifest
from models import NETWORKS, Network

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

_KEPT_CHECKPOINTS = 2
_RUN_FILE = "run.json"
_MAX_EPOCHS = 1_000_000


@dataclass(frozen=True)
class Run:
    """A training that has been checked and can start."""

    name: str
    network: Network
    data: Path
    eval_data: Path | None
    model_dir: Path
    manifest: Manifest
    image_size: int
    batch_size: int
    steps: int
    seed: int
    workers: int | None

    @property
    def identity(self) -> dict[str, Any]:
        """What a later training in the same folder must share, to go on from this one."""
        return {
            "model": self.name,
            "image_size": self.image_size,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "records": self.manifest.records,
            "channels": self.manifest.channels,
            "classes": list(self.manifest.classes),
        }

    @property
    def params(self) -> Any:
        """What the model function is told."""
        from models.classifier import Params

        # Linear scaling: Goyal et al. (2017), section 2.1.
        rate = self.network.learning_rate * self.batch_size / self.network.batch_size
        return Params(self.name, len(self.manifest.classes), self.steps, rate, self.network.weight_decay)


def main() -> int:
    """The command; returns its exit code."""
    args = _parser().parse_args()
    # TensorFlow greets with a page of hints; whoever wants them sets this to 0.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return guarded("train.py", lambda: _summarize(args) if args.summary else _train(args))


def _parser() -> Parser:
    parser = Parser(
        prog="train.py",
        description="Train a network on shards and evaluate it. Started again with the same --model-dir, it goes on.",
        epilog="examples:\n"
        "  python train.py --model alexnet --data shards/train --eval-data shards/val --model-dir runs/alexnet\n"
        "  python train.py --model resnet50 --summary",
    )
    parser.add_argument("--model", required=True, choices=NETWORKS, metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--summary", action="store_true", help="print the network's layers, and end")
    parser.add_argument("--classes", type=int, metavar="N", help="with --summary (default: 1000; lenet 10)")
    parser.add_argument("--data", type=place, metavar="SHARDS", help="what to train on")
    parser.add_argument("--eval-data", type=place, metavar="SHARDS", help="what to evaluate on, after training")
    parser.add_argument("--model-dir", type=Path, metavar="DIR", help="for checkpoints and TensorBoard's files")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=float, metavar="N", help="default: the paper's, 90; lenet 10")
    length.add_argument("--steps", type=int, metavar="N", help="batches to train on, instead of epochs")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: the paper's; the learning rate follows")
    parser.add_argument("--image-size", type=int, metavar="N", help="pixels a side (default: 224; lenet 28)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of order, crops and weights (default: 0)")
    parser.add_argument("--workers", type=int, metavar="N", help="loader processes (default: one a core)")
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the result to FILE, too")
    return parser


def _summarize(args: argparse.Namespace) -> None:
    network = NETWORKS[args.model]
    is_lenet = args.model == "lenet"
    classes = _positive("--classes", args.classes if args.classes is not None else (10 if is_lenet else 1000))
    size = _image_size(args, network)
    from models.classifier import table

    layers = table(args.model, size, 1 if is_lenet else 3, classes)
    total = sum(layer.parameters for layer in layers)
    print(f"{'layer':<28}{'kind':<16}{'output':<18}{'parameters':>12}")
    for layer in layers:
        shape = " x ".join(map(str, layer.output))
        print(f"{layer.name:<28}{layer.kind:<16}{shape:<18}{layer.parameters:>12,}")
    print(f"{args.model}, {size} x {size}, {classes} classes: {total:,} trainable parameters")
    rows = [layer._asdict() for layer in layers]
    save_json(args.json, {"model": args.model, "image_size": size, "layers": rows, "parameters": total})


def _train(args: argparse.Namespace) -> None:
    run = _checked(args)
    import tensorflow.compat.v1 as tf

    import ingest
    from models.classifier import model_fn

    tf.logging.set_verbosity(tf.logging.ERROR)
    common = {"batch_size": run.batch_size, "image_size": run.image_size, "seed": run.seed, "workers": run.workers}
    start = _steps_done(run)
    # Every input is made before the first step, so that what is wrong with it shows now and not after hours.
    training = ingest.input_fn(run.data, training=True, start_batch=start, augment=run.network.augment, **common)
    evaluation = run.eval_data and ingest.input_fn(run.eval_data, training=False, **common)
    _prepare_model_dir(run)
    estimator = tf.estimator.Estimator(
        model_fn,
        str(run.model_dir),
        tf.estimator.RunConfig(tf_random_seed=run.seed % 2**31, keep_checkpoint_max=_KEPT_CHECKPOINTS),
        run.params,
    )
    if start:
        print(f"train.py: {run.model_dir} has had {start} of {run.steps} steps", file=sys.stderr)
    try:
        rate = _fit(estimator, training, run, start) if start < run.steps else None
        metrics = estimator.evaluate(evaluation) if evaluation else {}
    except (tf.errors.OpError, tf.train.NanLossDuringTrainingError) as error:
        failures = [inputs.failure for inputs in (training, evaluation) if inputs and inputs.failure]
        raise (failures or [IngestError(f"TensorFlow failed: {str(error).splitlines()[0]}")])[0] from error
    steps = max(start, run.steps)
    result = {
        "model": run.name,
        "steps": steps,
        "epochs": round(steps * run.batch_size / run.manifest.records, 3),
        "images_per_second": rate and round(rate, 1),
        "eval_top1": _metric(metrics, "top1"),
        "eval_top5": _metric(metrics, "top5"),
    }
    print(json.dumps(result))
    save_json(args.json, result)


def _checked(args: argparse.Namespace) -> Run:
    """The run that ``args`` asks for. Raises where it cannot succeed, before anything slow is loaded or begun."""
    if args.data is None or args.model_dir is None:
        raise OptionError("give --data SHARDS and --model-dir DIR, or --summary")
    if args.classes is not None:
        raise OptionError("--classes goes with --summary; in training the data say how many there are")
    network = NETWORKS[args.model]
    size = _image_size(args, network)
    batch_size = _positive("--batch-size", args.batch_size if args.batch_size is not None else network.batch_size)
    manifest = load_manifest(args.data)
    if args.eval_data:
        _check_same_kind(manifest, load_manifest(args.eval_data), args)
    epochs = args.epochs if args.epochs is not None else network.epochs
    if not 0 < epochs <= _MAX_EPOCHS:
        raise OptionError(f"--epochs {epochs}: give more than 0 and at most {_MAX_EPOCHS:,}")
    steps = args.steps if args.steps is not None else math.ceil(epochs * manifest.records / batch_size)
    return Run(
        args.model, network, args.data, args.eval_data, args.model_dir, manifest, size, batch_size,
        _positive("--steps", steps), args.seed, args.workers,
    )  # fmt: skip


def _check_same_kind(manifest: Manifest, other: Manifest, args: argparse.Namespace) -> None:
    if manifest.classes != other.classes:
        raise IngestError(
            f"{args.eval_data}: its classes are not those of {args.data}, so its labels mean other things "
            f"(only here: {_some(other, manifest)}; only there: {_some(manifest, other)}): "
            "build both from folders of the same classes"
        )
    if manifest.channels != other.channels:
        raise IngestError(f"{args.eval_data}: {other.channels} channels, and {args.data} has {manifest.channels}")


def _some(manifest: Manifest, other: Manifest) -> str:
    """A few of the classes that ``manifest`` has and ``other`` has not."""
    return ", ".join(sorted(set(manifest.classes) - set(other.classes))[:3]) or "none"


def _steps_done(run: Run) -> int:
    """The step of the newest checkpoint in the run's folder, 0 if there is none.

    Raises if it is of a run that this one cannot go on from: the position in the data is the step times the batch size,
    and the order is drawn from the seed.
    """
    import tensorflow.compat.v1 as tf

    checkpoint = tf.train.latest_checkpoint(str(run.model_dir))
    if checkpoint is None:
        return 0
    try:
        earlier = json.loads((run.model_dir / _RUN_FILE).read_bytes())
        differing = [name for name, value in run.identity.items() if earlier[name] != value]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OutputError(f"{run.model_dir}: its checkpoints are none of ours: give another --model-dir") from error
    if differing:
        raise OutputError(
            f"{run.model_dir}: holds a run of another {', '.join(differing)}: give another --model-dir, or the options "
            "of that run"
        )
    try:
        return int(tf.train.load_variable(checkpoint, "global_step"))
    except Exception as error:  # TensorFlow raises many kinds for the many ways in which a checkpoint can be damaged
        raise OutputError(f"{checkpoint}: damaged ({error}): remove it to go on from an earlier one") from error


def _prepare_model_dir(run: Run) -> None:
    try:
        run.model_dir.mkdir(parents=True, exist_ok=True)
        atomic.write(run.model_dir / _RUN_FILE, json.dumps(run.identity, indent=1).encode())
    except OSError as error:
        raise OutputError(f"{run.model_dir}: cannot be used ({error.strerror}): give another --model-dir") from error


@contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Within, the first Ctrl-C only sets the event, so that the step can end and be saved; a second one interrupts."""
    event = threading.Event()

    def on_interrupt(*_: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _fit(estimator: tf.estimator.Estimator, training: Any, run: Run, start: int) -> float | None:
    """Train to the run's last step, showing progress; images/s after the first step, or None if there was but one."""
    import tensorflow.compat.v1 as tf

    from ingest.progress import bar

    class Watch(tf.train.SessionRunHook):
        """Moves the bar at each step; times from the end of the first, which starts workers and compiles."""

        def begin(self) -> None:
            self.first = self.last = None
            self.steps = 0
            self.loss = tf.losses.get_losses()[0]

        def before_run(self, context: Any) -> Any:
            return tf.train.SessionRunArgs(self.loss)

        def after_run(self, context: Any, values: Any) -> None:
            self.last = time.perf_counter()
            self.first = self.first or self.last
            self.steps += 1
            if interrupt.is_set():
                context.request_stop()
            shown.set_postfix_str(f"loss {values.results:.3f}", refresh=False)
            shown.update(run.batch_size)

    watch = Watch()
    done = start * run.batch_size
    with (
        bar(run.steps * run.batch_size, f"training {run.name}", initial=done) as shown,
        _deferred_interrupt() as interrupt,
    ):
        estimator.train(training, hooks=[watch], max_steps=run.steps)
    if interrupt.is_set():
        raise KeyboardInterrupt(f"saved at step {start + watch.steps}; the same command goes on from there")
    timed = (run.steps - start - 1) * run.batch_size
    return timed / (watch.last - watch.first) if timed else None


def _metric(metrics: dict[str, Any], name: str) -> float | None:
    return round(float(metrics[name]), 5) if name in metrics else None


def _image_size(args: argparse.Namespace, network: Network) -> int:
    size = args.image_size if args.image_size is not None else network.image_size
    if size < network.min_image_size:
        raise OptionError(f"--image-size {size}: too small for {args.model}: give at least {network.min_image_size}")
    return size


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise OptionError(f"{name} {value}: give 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
