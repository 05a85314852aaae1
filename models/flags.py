"""The flags of train.py that say how to train, and what they make of a recipe. Importing this loads no TensorFlow."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from models import NETWORKS, Network
from models.recipes import INITIALIZERS, OPTIMIZERS, PIXEL_RANGES, SCHEDULES, Ablation, TrainingRecipe

_NUMBERS = ("epochs", "optimizer", "learning_rate", "schedule", "warm_up", "weight_decay", "label_smoothing")


def by_network(value_of: Callable[[Network], object]) -> str:
    """The default of a flag, for its help: what most networks have, and those that have another value."""
    values = {name: str(value_of(network)) for name, network in NETWORKS.items()}
    ((usual, _),) = Counter(values.values()).most_common(1)
    return "; ".join([f"default: {usual}", *(f"{name} {value}" for name, value in values.items() if value != usual)])


def add_recipe(group: Any) -> None:
    """The flags for single numbers of a recipe."""
    length = group.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=float, metavar="N", help=by_network(lambda network: network.recipe.epochs))
    length.add_argument("--steps", type=int, metavar="N", help="batches to train on, instead of epochs")
    group.add_argument("--batch-size", metavar="N", help="or 'all'; the learning rate follows, unless it is given")
    group.add_argument("--optimizer", choices=OPTIMIZERS, help="default: sgd, with momentum")
    group.add_argument("--learning-rate", type=float, metavar="R", help="the highest, with the batches as they are")
    group.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help=f"how the rate falls ({by_network(lambda network: network.recipe.schedule)})",
    )
    group.add_argument("--warm-up", type=float, metavar="SHARE", help="of the training in which the rate rises")
    group.add_argument("--weight-decay", type=float, metavar="D")
    group.add_argument("--label-smoothing", type=float, metavar="SHARE", help="default: 0")
    group.add_argument("--patience", type=int, metavar="N", help="stop when top-1 has not risen for N evaluations")


def add_machine(group: Any) -> None:
    """The flags that say what computes and what loads."""
    group.add_argument(
        "--devices", metavar="KIND:N", help="gpu:2, or cpu:2 for logical ones (default: all GPUs, or the CPU)"
    )
    group.add_argument("--mixed-precision", action="store_true", help="compute in 16 bits where that is safe")
    group.add_argument("--xla", action="store_true", help="compile the network with XLA")
    group.add_argument(
        "--deterministic", action="store_true", help="the same weights, to the bit, from the same command"
    )
    group.add_argument(
        "--synthetic", action="store_true", help="how fast the device is alone: one batch, over and over"
    )


def add_variant(group: Any) -> None:
    """The flags of what can be done differently."""
    group.add_argument("--pixel-range", choices=PIXEL_RANGES, help="raw pixels, 0 to 1 or 255 (default: standard)")
    group.add_argument("--initializer", choices=INITIALIZERS, help="zeros: all weights start as zero")
    group.add_argument("--no-bias", action="store_true", help="no intercepts in any layer")
    group.add_argument("--no-shuffle", action="store_true", help="one class after the other in every epoch")


def recipe(args: argparse.Namespace) -> TrainingRecipe:
    """The network's recipe with what flags override. Raises ValueError where that makes no sense."""
    own = NETWORKS[args.model].recipe
    given = {name: getattr(args, name) for name in _NUMBERS if getattr(args, name) is not None}
    if args.batch_size not in (None, "all"):
        given["batch_size"] = batch_size(args.batch_size)
    if args.optimizer not in (None, own.optimizer) and args.learning_rate is None:
        raise ValueError(f"--optimizer {args.optimizer} needs --learning-rate R: the recipe's is for {own.optimizer}")
    try:
        return replace(own, **given)
    except ValueError as error:
        raise ValueError(f"--{error}") from error


def batch_size(text: str) -> int:
    """A number of images. Raises ValueError where it is none."""
    if not text.isdecimal() or not int(text):
        raise ValueError(f"--batch-size {text}: give 1 or more, or, in training, 'all'")
    return int(text)


def learning_rate(args: argparse.Namespace, batch_size: int) -> float:
    """The highest rate: the flag's as it is, or the recipe's in proportion to the batch."""
    return args.learning_rate if args.learning_rate is not None else NETWORKS[args.model].recipe.peak(batch_size)


def variant(args: argparse.Namespace, start: Ablation | None = None) -> Ablation:
    """What the flags say, or else what the network that training starts from has.

    Raises ValueError where its weights do not go with the flags.
    """
    given = {name: getattr(args, name) for name in ("pixel_range", "initializer") if getattr(args, name) is not None}
    if args.no_bias:
        given["bias"] = False
    result = replace(start or Ablation(), **given)
    if start and result.bias != start.bias:
        raise ValueError("--no-bias: --init-from has intercepts")
    if start and result.pixel_range != start.pixel_range:
        raise ValueError(f"--pixel-range {result.pixel_range}: --init-from was trained on {start.pixel_range}")
    return result
