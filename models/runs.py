"""What a training leaves in its folder, and how it is found again.

DIR/run.json                what was trained: Description
DIR/checkpoint, model.*     TensorFlow's checkpoints, the last of them
DIR/history.json            an entry an epoch: what training and evaluation gave
DIR/best/                   the checkpoint with the highest top-1, under the same names
DIR/saved_model/            the SavedModel of the best, with run.json in assets.extra
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from models import NETWORKS, ModelError
from models.recipes import Variant

RUN = "run.json"
HISTORY = "history.json"
BEST = "best"
SAVED_MODEL = "saved_model"

Entry = dict[str, Any]
"""``step``, ``epoch``, the means of ``loss`` and ``top1`` since the entry before, and with evaluation data
``eval_loss``, ``eval_top1`` and ``eval_top5``."""


@dataclass(frozen=True)
class Description:
    """What was trained on what: all that it takes to use the network, and to know whether a training can go on."""

    model: str
    image_size: int
    channels: int
    classes: tuple[str, ...]
    records: int
    batch_size: int
    seed: int
    tune: str
    variant: Variant

    def differences(self, other: Description) -> list[str]:
        """The names of the fields that differ."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]

    def size_for(self, model: str, image_size: int | None, channels: int) -> int:
        """The image size of a training of ``model`` that starts from this network; its own, unless one is given.

        Raises ModelError if its weights do not fit.
        """
        if self.model != model:
            raise ModelError(f"--init-from is of {self.model}, and --model is {model}")
        if self.channels != channels:
            raise ModelError(f"--init-from is of images with {self.channels} channels, and the data have {channels}")
        # A ResNet ends with a mean over all places; the others have a weight for each.
        if image_size not in (None, self.image_size) and NETWORKS[model].depth is None:
            raise ModelError(f"--image-size {image_size}: --init-from has weights for {self.image_size}")
        return image_size or self.image_size


class Trained(NamedTuple):
    """A trained network: the prefix of its checkpoint, and what it is."""

    checkpoint: str
    description: Description


def save_description(folder: Path, description: Description) -> None:
    """Write run.json."""
    _write(folder / RUN, asdict(description))


def load_description(folder: Path) -> Description:
    """What was trained in ``folder``. Raises ModelError where that is not to be found."""
    try:
        content = json.loads((folder / RUN).read_bytes())
        content["classes"] = tuple(content["classes"])
        content["variant"] = Variant(**content["variant"])
        description = Description(**content)
        NETWORKS[description.model]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{folder}: its checkpoints are none of ours: it has no {RUN} that can be read") from error
    return description


def steps_done(folder: Path, description: Description) -> int:
    """The step of the newest checkpoint in ``folder``, 0 if there is none.

    Raises ModelError if it is of a training that ``description`` cannot go on from.
    """
    checkpoint = tf.train.latest_checkpoint(str(folder))
    if checkpoint is None:
        return 0
    if differing := load_description(folder).differences(description):
        raise ModelError(
            f"{folder}: holds a run of another {', '.join(differing)}: give another --model-dir, "
            "or the options of that run"
        )
    return _step_of(checkpoint)


def load_history(folder: Path, steps: int) -> list[Entry]:
    """The entries up to ``steps``: what a crash made later than the last checkpoint will come again."""
    try:
        entries = json.loads((folder / HISTORY).read_bytes())
        return [entry for entry in entries if entry["step"] <= steps]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def save_history(folder: Path, entries: list[Entry]) -> None:
    """Write history.json."""
    _write(folder / HISTORY, entries)


def keep_best(folder: Path, checkpoint: str) -> None:
    """Make ``checkpoint`` the one in ``best``. At any moment a whole one is there, once there was one."""
    best = folder / BEST
    best.mkdir(exist_ok=True)
    files = list(folder.glob(f"{Path(checkpoint).name}.*"))
    for file in files:
        (best / file.name).unlink(missing_ok=True)
        try:
            os.link(file, best / file.name)
        except OSError:  # a file system without hard links
            shutil.copyfile(file, best / file.name)
    # By its name alone, as training does in its own folder: the folder may be moved.
    tf.train.update_checkpoint_state(str(best.absolute()), Path(checkpoint).name)
    kept = {"checkpoint", *(file.name for file in files)}
    for file in best.iterdir():
        if file.name not in kept:
            file.unlink()


def find(place: Path) -> Trained:
    """The network that ``place`` holds: a training's folder (of which the best), a checkpoint, or a SavedModel of ours.

    Raises ModelError where there is none.
    """
    if (place / "saved_model.pb").exists():
        return _checked(str(place / "variables" / "variables"), place / "assets.extra")
    if place.is_dir():
        checkpoint = tf.train.latest_checkpoint(str(place / BEST)) or tf.train.latest_checkpoint(str(place))
        if checkpoint is None:
            raise ModelError(
                f"{place}: neither a SavedModel nor a folder of checkpoints: give a --model-dir of train.py"
            )
        return _checked(checkpoint, place.parent if place.name == BEST else place)
    if not place.with_name(f"{place.name}.index").exists():
        raise ModelError(f"{place}: no such checkpoint: give a --model-dir of train.py, or what it exported")
    return _checked(str(place), place.parent.parent if place.parent.name == BEST else place.parent)


def _checked(checkpoint: str, folder: Path) -> Trained:
    _step_of(checkpoint)
    return Trained(checkpoint, load_description(folder))


def _step_of(checkpoint: str) -> int:
    try:
        return int(tf.train.load_variable(checkpoint, "global_step"))
    except Exception as error:  # TensorFlow raises many kinds for the many ways in which a checkpoint can be damaged
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{checkpoint}: damaged ({what}): remove it to go on from an earlier one") from error


def _write(path: Path, content: Any) -> None:
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_text(json.dumps(content, indent=1))
    unfinished.replace(path)
