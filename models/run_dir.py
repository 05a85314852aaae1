"""What a training leaves in its folder, and how it is found again.

DIR/run.json                what was trained: RunConfig
DIR/checkpoint, model.*     TensorFlow's checkpoints, the last of them
DIR/history.json            an entry an epoch: what training and evaluation gave
DIR/best/                   the checkpoint with the highest top-1, under the same names; entry.json, its history's entry
DIR/saved_model/STEP/       the SavedModel of the best, of that step, with run.json in assets.extra
"""

from __future__ import annotations

import errno
import json
import os
import re
import reprlib
import shutil
import stat
import sys
from collections.abc import Container
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import tensorflow.compat.v1 as tf

from models import NETWORKS, ModelError
from models.recipes import INITIALIZERS, OPTIMIZERS, PIXEL_RANGES, Ablation

RUN = "run.json"
HISTORY = "history.json"
BEST = "best"
ENTRY = "entry.json"
SAVED_MODEL = "saved_model"

Entry = dict[str, Any]
"""``step``, ``epoch``, the means of ``loss`` and ``top1`` since the entry before, the step's ``learning_rate`` (if
known), and with evaluation data ``eval_loss`` (None if it is no number), ``eval_top1`` and ``eval_top5``."""

_MAX_BYTES = 2**25
"""Of a file of JSON: a million classes, or as many epochs as nobody trains."""

_CHECKPOINT = re.compile(r"model\.ckpt-(\d+)\.index")


@dataclass(frozen=True)
class RunConfig:
    """What was trained on what: all that it takes to use the network, and to know whether a training can go on.

    ``data`` is the fingerprint of the training data, ``mixed_precision`` whether that was asked for.
    """

    model: str
    image_size: int
    channels: int
    classes: tuple[str, ...]
    data: str
    records: int
    batch_size: int
    seed: int
    tune: str
    optimizer: str
    mixed_precision: bool
    variant: Ablation

    def differences(self, other: RunConfig) -> list[str]:
        """The fields that differ, each with its value here and there, if that can be told in a word or two."""
        pairs = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        return [
            f"{name} {one}, now {another}" if isinstance(one, str | int) and name != "data" else f"other {name}"
            for name, (one, another) in pairs.items()
            if one != another
        ]

    def size_for(self, model: str, image_size: int | None, channels: int) -> int:
        """The image size of a training of ``model`` that starts from this network; its own, unless one is given.

        Raises ModelError if its weights do not fit.
        """
        if self.model != model:
            raise ModelError(f"--init-from is of {self.model}, and --model is {model}")
        if self.channels != channels:
            raise ModelError(f"--init-from is of images with {self.channels} channels, and the data have {channels}")
        # A ResNet ends with a mean over all places; the others have a weight for each.
        if image_size not in (None, self.image_size) and not NETWORKS[model].is_resizable:
            raise ModelError(f"--image-size {image_size}: --init-from has weights for {self.image_size}")
        return image_size or self.image_size


class Trained(NamedTuple):
    """A trained network: the prefix of its checkpoint, and what it is."""

    checkpoint: str
    config: RunConfig


def save_config(folder: Path, config: RunConfig) -> None:
    """Write run.json."""
    _write(folder / RUN, asdict(config))


def load_config(folder: Path) -> RunConfig:
    """What was trained in ``folder``. Raises ModelError where that is not to be found."""
    path = folder / RUN
    try:
        return _parse_config(_read(path))
    except OSError as error:
        raise ModelError(
            f"{folder}: its checkpoints are none of ours: it has no {RUN} ({error.strerror}): give a --model-dir of "
            "train.py, or what it exported",
            path=folder,
        ) from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{path}: its content is none of this version's ({error}): put back the file that train.py wrote, "
            "or train anew in another --model-dir",
            path=path,
        ) from error


def _parse_config(content: Any) -> RunConfig:
    """The config of a file's content. Raises ValueError, LookupError or TypeError where it is none."""
    config = RunConfig(**{**content, "classes": _texts(content["classes"]), "variant": Ablation(**content["variant"])})
    for part in (config, config.variant):
        for name, kind in get_type_hints(type(part)).items():
            value = getattr(part, name)
            # Not isinstance: a truth value would be a number.
            if type(value) is not getattr(kind, "__origin__", kind) or not _is_possible(name, value):
                raise ValueError(f"its {name} is {reprlib.repr(value)[:100]}")
    return config


def _texts(content: Any) -> tuple[str, ...]:
    texts = tuple(content)
    if not isinstance(content, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("its classes are no list of names")
    "".join(texts).encode()  # a lone surrogate is a ValueError
    return texts


_CHOICES: dict[str, Container[Any]] = {
    "model": NETWORKS,
    "channels": (1, 3),
    "optimizer": OPTIMIZERS,
    "pixel_range": PIXEL_RANGES,
    "initializer": INITIALIZERS,
}

_RANGES = {
    "image_size": (1, 10_000),
    "records": (1, 2**63),
    "batch_size": (1, 1_000_000),
    "seed": (0, 2**64 - 1),
}


def _is_possible(name: str, value: Any) -> bool:
    low, high = _RANGES.get(name, (0, 0))
    return (name not in _RANGES or low <= value <= high) and (name not in _CHOICES or value in _CHOICES[name])


class ResumePoint(NamedTuple):
    """Where a training goes on: the step, 0 for its beginning; and each checkpoint that cannot be used, with its fault.

    Those are newer ones, or the best.
    """

    step: int
    damaged: dict[str, str]


def find_start(folder: Path, config: RunConfig) -> ResumePoint:
    """The newest checkpoint in ``folder`` that is whole.

    Raises ModelError if it is of a training that ``config`` cannot go on from, or if none is whole.
    """
    _check_name(folder)
    try:
        steps, best = _saved_steps(folder), _saved_steps(folder / BEST)
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be read ({error.strerror}): give another --model-dir", path=folder
        ) from error
    if not steps:
        if best:
            raise ModelError(
                f"{folder}: has the best network of a training, and no checkpoint to go on from: "
                "give another --model-dir",
                path=folder,
            )
        return ResumePoint(0, {})
    if differing := load_config(folder).differences(config):
        raise ModelError(
            f"{folder}: holds a run of other options ({'; '.join(differing)}): give another --model-dir, "
            "or the options of that run",
            path=folder,
        )
    damaged: dict[str, str] = {}
    if best and (fault := _fault(_prefix(folder / BEST, best[0]))):
        damaged[_prefix(folder / BEST, best[0])] = fault
    for step in steps:
        if (fault := _fault(_prefix(folder, step))) is None:
            return ResumePoint(step, damaged)
        damaged[_prefix(folder, step)] = fault
    newest = _prefix(folder, steps[0])
    raise ModelError(f"{newest}: {damaged[newest]}; nor is any older one whole: give another --model-dir", path=newest)


def resume_from(folder: Path, resume_point: ResumePoint) -> None:
    """Make the checkpoint of ``resume_point`` TensorFlow's newest, and remove those that cannot be used."""
    for prefix in resume_point.damaged:
        # What has no index is no checkpoint: it goes first.
        for file in sorted(Path(prefix).parent.glob(f"{Path(prefix).name}.*"), key=_is_no_index):
            file.unlink()
    names = [f"model.ckpt-{step}" for step in reversed(_saved_steps(folder))]
    if names:
        # By their names alone, as training does in its own folder: the folder may be moved.
        tf.train.update_checkpoint_state(str(folder.absolute()), names[-1], names)
    else:
        (folder / "checkpoint").unlink(missing_ok=True)


def load_history(folder: Path, steps: int) -> list[Entry]:
    """The entries up to ``steps``: what a crash made later than the last checkpoint will come again.

    Raises ModelError where there is a history that cannot be read.
    """
    path = folder / HISTORY
    try:
        content = _read(path)
        if not isinstance(content, list):
            raise ValueError("it is no list")
        entries = [_entry(item) for item in content]
        if sorted({entry["step"] for entry in entries}) != [entry["step"] for entry in entries]:
            raise ValueError("its steps do not rise")
        return [entry for entry in entries if entry["step"] <= steps]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read ({error}): remove it to go on without it", path=path) from error


def save_history(folder: Path, entries: list[Entry]) -> None:
    """Write history.json."""
    _write(folder / HISTORY, entries)


def load_best(folder: Path) -> Entry | None:
    """The history's entry of the checkpoint in ``best``; None where there is none, or it cannot be told."""
    steps = _saved_steps(folder / BEST)
    try:
        entry = _entry(_read(folder / BEST / ENTRY))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return entry if steps[:1] == [entry["step"]] and "eval_top1" in entry else None


def keep_best(folder: Path, entry: Entry) -> None:
    """Make the checkpoint of ``entry``'s step the one in ``best``.

    At any moment a whole one is there, if one was, and it was not of this very step.
    """
    best, name = folder / BEST, f"model.ckpt-{entry['step']}"
    best.mkdir(exist_ok=True)
    # Of an earlier try, or of a training that then went on from before.
    (best / f"{name}.index").unlink(missing_ok=True)
    files = sorted(folder.glob(f"{name}.*"), key=_is_no_index, reverse=True)
    for file in files:
        # What has an index counts as a checkpoint: it comes last. TensorFlow writes it in place: it is never shared.
        _link_or_copy(file, best / file.name, may_link=file.suffix != ".index")
    tf.train.update_checkpoint_state(str(best.absolute()), name)
    _write(best / ENTRY, entry)
    kept = {"checkpoint", ENTRY, *(file.name for file in files)}
    for file in sorted(best.iterdir(), key=_is_no_index):
        if file.name not in kept:
            file.unlink()


def find(path: Path) -> Trained:
    """The network that ``path`` holds: a training's folder (of which the best), a checkpoint, or a SavedModel of ours
    or a folder of such (of which the highest number).

    Raises ModelError where there is none, or it is damaged.
    """
    _check_name(path)
    try:
        return _find_checkpoint(path)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}): give a --model-dir of train.py, or what it exported",
            path=path,
        ) from error


def _find_checkpoint(path: Path) -> Trained:
    for folder in (path / BEST, path):
        if steps := _saved_steps(folder):
            return _checked(_prefix(folder, steps[0]), path.parent if path.name == BEST else path)
    # Only then: a training whose folder was an export, or holds one, is not that one.
    for export in (path, *exports(path)):
        if (export / "saved_model.pb").exists():
            return _checked(str(export / "variables" / "variables"), export / "assets.extra")
    if path.is_dir():
        raise ModelError(
            f"{path}: neither a SavedModel nor a folder of checkpoints: give a --model-dir of train.py", path=path
        )
    if not path.with_name(f"{path.name}.index").exists():
        raise ModelError(f"{path}: no such checkpoint: give a --model-dir of train.py, or what it exported", path=path)
    return _checked(str(path), path.parent.parent if path.parent.name == BEST else path.parent)


def exports(folder: Path) -> list[Path]:
    """The numbered folders in ``folder``, the highest number first: a SavedModel each, as TensorFlow Serving has it."""
    numbered = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return sorted(numbered, key=lambda path: int(path.name), reverse=True)


def step_of(checkpoint: str) -> int:
    """The step after which a whole checkpoint was saved."""
    return int(tf.train.load_variable(checkpoint, "global_step"))


def _check_name(path: Path) -> None:
    """Raise ModelError where TensorFlow would not find a checkpoint again: it takes paths for UTF-8, and patterns."""
    if any(c in "[\\" or "\ud800" <= c <= "\udfff" for c in str(path)):
        raise ModelError(
            f"{path}: TensorFlow takes no path with [, \\ or what is no UTF-8: give it another name", path=path
        )


def _checked(checkpoint: str, folder: Path) -> Trained:
    config = load_config(folder)
    if fault := _fault(checkpoint):
        raise ModelError(f"{checkpoint}: {fault}: give another checkpoint, or an export", path=checkpoint)
    return Trained(checkpoint, config)


def _saved_steps(folder: Path) -> list[int]:
    """The steps of which there is a checkpoint, the newest first. TensorFlow's own list may be older, or damaged."""
    matches = [_CHECKPOINT.fullmatch(file.name) for file in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def _prefix(folder: Path, step: int) -> str:
    return str(folder / f"model.ckpt-{step}")


def _fault(checkpoint: str) -> str | None:
    """Why a checkpoint cannot be used; None if it has a step, and all of it matches its checksums."""
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        for name in {"global_step", *reader.get_variable_to_shape_map()}:
            reader.get_tensor(name)
    except Exception as error:  # TensorFlow raises many kinds for the many ways in which a checkpoint can be damaged
        return f"damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return None


def _is_no_index(file: Path) -> bool:
    return file.suffix != ".index"


def _entry(content: Any) -> Entry:
    """An entry as it was written. Raises ValueError, LookupError or TypeError."""
    if type(content["step"]) is not int or not 0 <= content["step"] < 2**63:
        raise ValueError(f"a step is {reprlib.repr(content['step'])[:100]}")
    numeric = ("epoch", "loss", "top1", "learning_rate")
    numbers = [content[name] for name in content if name in numeric or name.startswith("eval_")]
    if not all(value is None or _is_finite(value) for value in numbers):
        raise ValueError("a number is none")
    if any(content.get(name, 0) is None for name in ("eval_top1", "eval_top5")):
        raise ValueError("a rate is none")
    return dict(content)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _link_or_copy(file: Path, target: Path, may_link: bool) -> None:
    """Put ``file`` also at ``target``, whole or not at all."""
    unfinished = target.with_name(f"{target.name}.tmp")
    unfinished.unlink(missing_ok=True)
    try:
        (os.link if may_link else shutil.copyfile)(file, unfinished)
    except OSError:
        if not may_link:
            raise
        shutil.copyfile(file, unfinished)  # a file system without hard links
    with open(unfinished, "rb") as written:
        os.fsync(written.fileno())
    unfinished.replace(target)


def _read(path: Path) -> Any:
    """The content of a file of JSON.

    Raises OSError, also where it is no regular file or a large one; ValueError or RecursionError where it is no JSON,
    or one with a name twice or NaN.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would keep its reader waiting
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise OSError(errno.EINVAL, f"no regular file of at most {_MAX_BYTES:,} bytes", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return json.loads(file.read(), object_pairs_hook=_object, parse_constant=_reject_constant)
    finally:
        os.close(descriptor)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return content


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _write(path: Path, content: Any) -> None:
    unfinished = path.with_name(f"{path.name}.tmp")
    with open(unfinished, "w") as file:
        file.write(json.dumps(content, indent=1))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
