"""A trained network in use: evaluated, asked for its predictions and features, exported."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow import image  # whose resize, unlike that of v1, has pixels with centres

from models import NETWORKS
from models.classifier import Params, model_fn
from models.devices import session_config, without_cluster
from models.run_dir import RUN, SAVED_MODEL, RunConfig, Trained, exports, save_config, step_of

SHOWN_PART = 224 / 256
"""Side of the centre square that is shown, as a share of an image's short side: Krizhevsky et al. (2012), section 2."""

_EXPORTING = ".exporting-"
"""Begins the names of folders in which an export is made."""


def params_of(config: RunConfig) -> Params:
    """What the model function needs to know of a network that is not trained any more."""
    recipe = NETWORKS[config.model].recipe
    return Params(
        network=config.model,
        classes=config.classes,
        recipe=recipe,
        learning_rate=0,
        steps=1,
        steps_per_epoch=1,
        variant=config.variant,
    )


def evaluate(
    trained: Trained, input_fn: Callable[[], tf.data.Dataset], folder: Path | None = None,
    sessions: tf.ConfigProto | None = None,
) -> dict[str, float]:  # fmt: skip
    """``top1``, ``top5`` and ``cross_entropy`` over a dataset; for TensorBoard also in ``folder``/eval, if given."""
    with tempfile.TemporaryDirectory() as scratch:
        estimator = _estimator(trained.config, folder or Path(scratch), sessions)
        return estimator.evaluate(input_fn, checkpoint_path=trained.checkpoint)


def predictions(trained: Trained, input_fn: Callable[[], tf.data.Dataset]) -> Iterator[dict[str, Any]]:
    """For each batch of a dataset, what ``model_fn`` predicts: ``labels``, ``classes``, ``scores`` and ``features``."""
    with tempfile.TemporaryDirectory() as scratch:
        estimator = _estimator(trained.config, Path(scratch))
        yield from estimator.predict(input_fn, checkpoint_path=trained.checkpoint, yield_single_examples=False)


def export(trained: Trained, folder: Path, sessions: tf.ConfigProto | None = None) -> Path:
    """Write a SavedModel to ``folder``/saved_model/STEP, in place of an earlier one, of whatever step.

    Gives its folder. The number is for TensorFlow Serving, to which ``folder``/saved_model is a model, and STEP its
    version.

    Its default signature takes ``image_bytes``, JPEG files as strings [N], and gives ``labels``, ``classes`` and
    ``scores`` [N, 5] of the most likely five; its signature ``features`` gives what the last layer sees.
    """
    config = trained.config

    def receive() -> tf.estimator.export.TensorServingInputReceiver:
        encoded = tf.placeholder(tf.string, [None], name="image_bytes")
        images = tf.map_fn(lambda one: view(one, config.image_size, config.channels), encoded, tf.uint8)
        return tf.estimator.export.TensorServingInputReceiver(images, {"image_bytes": encoded})

    model, killed = folder / SAVED_MODEL, list(folder.glob(f"{_EXPORTING}*"))
    target = model / str(step_of(trained.checkpoint))
    with tempfile.TemporaryDirectory(dir=folder, prefix=_EXPORTING) as scratch:
        save_config(Path(scratch), config)
        exported = _estimator(config, Path(scratch), sessions).export_saved_model(
            scratch, receive, assets_extra={RUN: str(Path(scratch) / RUN)}, checkpoint_path=trained.checkpoint
        )
        if (model / "saved_model.pb").exists():  # of a version that gave no numbers
            model.rename(Path(scratch) / "unnumbered")
        model.mkdir(exist_ok=True)
        if target.exists():
            target.rename(Path(scratch) / "earlier")
        Path(exported.decode()).rename(target)
        for other in exports(model):
            # Who serves the model sees one that goes only when it sees the new one. What is not ours stays.
            if other != target and (other / "assets.extra" / RUN).exists():
                other.rename(Path(scratch) / f"of-step-{other.name}")
    # Only now: one that was killed between the two may have the earlier export.
    for left in killed:
        shutil.rmtree(left, ignore_errors=True)
    return target


def view(encoded: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """What is shown of a JPEG file, a string: its centre, uint8 [size, size, channels]; an image of that size as it is.

    The same as evaluation sees, but for the rounding of the resize.
    """
    pixels = tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE")
    height, width = tf.unstack(tf.shape(pixels)[:2])
    short = tf.cast(tf.minimum(height, width), tf.float32)
    is_exact = tf.logical_and(tf.equal(height, size), tf.equal(width, size))
    side = tf.where(is_exact, size, tf.maximum(1, tf.cast(tf.round(short * SHOWN_PART), tf.int32)))
    crop = tf.image.crop_to_bounding_box(pixels, (height - side) // 2, (width - side) // 2, side, side)
    resized = image.resize(crop, [size, size], "bilinear")
    return tf.ensure_shape(tf.cast(tf.round(resized), tf.uint8), [size, size, channels])


def images_fn(images: np.ndarray, batch_size: int) -> Callable[[], tf.data.Dataset]:
    """An input function of images, uint8 [N, S, S, C], for ``predictions``."""
    return lambda: tf.data.Dataset.from_tensor_slices(images).batch(batch_size)


def _estimator(run_config: RunConfig, folder: Path, sessions: tf.ConfigProto | None = None) -> tf.estimator.Estimator:
    with without_cluster():
        tf_config = tf.estimator.RunConfig(session_config=sessions or session_config())
        return tf.estimator.Estimator(model_fn, str(folder), tf_config, params_of(run_config))
