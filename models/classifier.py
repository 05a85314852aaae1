"""One model function for all networks, for ``tf.estimator``."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import tensorflow.compat.v1 as tf

from models import NETWORKS
from models.layers import variables
from models.recipes import TENTHS, Ablation, TrainingRecipe

# Mean and deviation of ImageNet's training pixels, on the scale of 0 to 255, in RGB (as in torchvision).
_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_DEVIATION = (58.395, 57.12, 57.375)

# LeCun et al. (1998), section II.B: background -0.1 and ink 1.175 make a digit's mean about 0 and its variance about 1.
_BACKGROUND, _INK = -0.1, 1.175

PROGRESS = "ingest/progress"
"""Collection of one tensor, float32 [3]: loss and top-1 of the step, over all devices and hosts; its learning rate."""

ARRIVED = "ingest/arrived"
"""Collection of one tensor, float64: when the step's images were there, in seconds since 1970."""

_PICTURES = "ingest/pictures"  # collection of summaries, which are large, and so written once an epoch

HEAD = "head"
"""Name of the last layer, which is all that depends on the number of classes."""

_TOP = 5
_GRID = 16


@dataclass(frozen=True)
class Params:
    """What ``model_fn`` needs to know.

    ``classes`` are the names of the labels; ``learning_rate`` is the peak; ``steps`` is the length of the whole
    training, ``steps_per_epoch`` that of an epoch, rounded up; ``tune`` is ``all``, or ``head`` for the last layer
    alone, the others as they are when evaluated; ``half_precision`` has a GPU compute in float16, with a loss that is
    scaled to fit.
    """

    network: str
    classes: tuple[str, ...]
    recipe: TrainingRecipe
    learning_rate: float
    steps: int
    steps_per_epoch: int
    variant: Ablation
    tune: str = "all"
    half_precision: bool = False


def model_fn(
    features: tf.Tensor | dict[str, tf.Tensor],
    labels: tf.Tensor | None,
    mode: str,
    params: Params,
    config: tf.estimator.RunConfig | None = None,
) -> tf.estimator.EstimatorSpec:
    """The EstimatorSpec for images uint8 [N, S, S, C] and labels int32 [N].

    ``features`` are the images, or a dict of ``images`` and other columns, which no network here looks at.

    Loss: mean cross-entropy, and in training half the squared weights times the weight decay. Evaluation gives
    ``top1``, ``top5`` and ``cross_entropy``; of equal logits the one with the lower label comes first, as in
    prediction, and an image with a logit that is no number is no hit. Prediction gives the ``labels`` int32,
    ``classes`` and ``scores`` float32 of the most likely five, [N, 5] each, and the ``features`` before the last layer,
    float32 [N, F].
    """
    training = mode == tf.estimator.ModeKeys.TRAIN
    images = features["images"] if isinstance(features, dict) else features
    logits, before = build(images, params, training)
    if mode == tf.estimator.ModeKeys.PREDICT:
        return _prediction(logits, before, params)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if not training:
        values = {"top1": _hits(logits, labels, 1), "top5": _hits(logits, labels, _TOP), "cross_entropy": losses}
        metrics = {name: tf.metrics.mean(value) for name, value in values.items()}
        return tf.estimator.EstimatorSpec(mode, loss=tf.reduce_mean(losses), eval_metric_ops=metrics)
    return _training(images, labels, logits, params, config and config.model_dir)


def _hits(logits: tf.Tensor, labels: tf.Tensor, count: int) -> tf.Tensor:
    """1 where a label is among the ``count`` most likely, else 0, float32 [N]."""
    # Not in_top_k: it counts all that are equal, so that a network that says the same of all classes is always right.
    _, likely = tf.nn.top_k(logits, min(count, logits.shape[1]))
    is_hit = tf.reduce_any(tf.equal(likely, labels[:, tf.newaxis]), axis=1)
    return tf.cast(tf.logical_and(is_hit, tf.reduce_all(tf.math.is_finite(logits), axis=1)), tf.float32)


def build(images: tf.Tensor, params: Params, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Logits, float32 [N, classes], and what the last layer sees, float32 [N, F], of images uint8 [N, S, S, C].

    They become floats only here, on the device.
    """
    is_frozen = params.tune == "head"
    with warnings.catch_warnings(), variables(params.variant):
        # tf.layers is deprecated in favour of Keras, which has no place in an Estimator's graph.
        warnings.filterwarnings("ignore", message="`tf.layers", category=UserWarning)
        pixels, network = _scaled(images, params.variant.pixel_range), NETWORKS[params.network]
        options = {"levels": _levels(images, params.variant.pixel_range)} if network.needs_levels else {}
        features = network.build(pixels, training and not is_frozen, **options)
        # Krizhevsky et al. (2012), section 5; Goyal et al. (2017), section 5.1.
        start = tf.initializers.random_normal(stddev=0.01)
        return tf.layers.dense(features, len(params.classes), kernel_initializer=start, name=HEAD), features


def _training(
    images: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor, params: Params, folder: str | None
) -> tf.estimator.EstimatorSpec:
    smoothing = params.recipe.label_smoothing
    loss = tf.losses.softmax_cross_entropy(tf.one_hot(labels, len(params.classes)), logits, label_smoothing=smoothing)
    trained = [v for v in tf.trainable_variables() if params.tune == "all" or v.op.name.startswith(f"{HEAD}/")]
    decay = params.recipe.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in _kernels(trained)])
    step = tf.train.get_or_create_global_step()
    rate = _learning_rate(step, params)
    top1 = tf.reduce_mean(_hits(logits, labels, 1))
    _report(images, loss, top1, rate)
    # Batch normalisation's running means belong to the step.
    with tf.control_dependencies(
        [_optimizer(rate, params).minimize(loss + decay, var_list=trained), *tf.get_collection(tf.GraphKeys.UPDATE_OPS)]
    ):
        # Counted here, because a scaled loss may leave a step out: its batch was shown all the same.
        train_op = tf.group(tf.assign_add(step, 1))
    # None where another device or host writes summaries.
    pictures = tf.summary.merge_all(_PICTURES) if folder else None
    every = params.steps_per_epoch
    hooks = [tf.train.SummarySaverHook(every, output_dir=folder, summary_op=pictures)] if pictures is not None else []
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.TRAIN, loss=loss + decay, train_op=train_op, training_chief_hooks=hooks
    )


def _kernels(variables: list[Any]) -> list[Any]:
    # The second of several devices calls its copies kernel/replica_1.
    return [v for v in variables if "/kernel" in v.op.name]


def _report(images: tf.Tensor, loss: tf.Tensor, top1: tf.Tensor, rate: tf.Tensor) -> None:
    """What the hooks and TensorBoard are to know of a step."""
    progress = tf.stack([loss, top1, rate])
    # Not by all_reduce, for which sessions of several devices wait for ever.
    tf.add_to_collection(PROGRESS, tf.distribute.get_replica_context().merge_call(_mean, [progress]))
    with tf.control_dependencies([images]), tf.device("CPU"):
        # TensorFlow's own timestamp is refused where operations are to be deterministic.
        tf.add_to_collection(ARRIVED, tf.numpy_function(time.time, [], tf.float64))
    tf.summary.scalar("learning_rate", rate)
    tf.summary.scalar("cross_entropy", loss)
    tf.summary.scalar("top1", top1)
    if images.shape[0]:
        tf.summary.image("inputs", _grid(images[:_GRID]), collections=[_PICTURES])
    kernel = _kernels(tf.trainable_variables())[0]
    if kernel.shape.rank == 4 and kernel.shape[2] in (1, 3):  # of a convolution over pixels
        filters = tf.transpose(kernel, [3, 0, 1, 2])
        low, high = tf.reduce_min(filters), tf.reduce_max(filters)
        framed = tf.pad((filters - low) / tf.maximum(high - low, 1e-12), [[0, 0], [0, 1], [0, 1], [0, 0]])
        tf.summary.image("first_layer", _grid(framed), collections=[_PICTURES])


def _mean(strategy: Any, values: Any) -> tf.Tensor:
    return strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None)


def _grid(images: tf.Tensor) -> tf.Tensor:
    """Images [N, H, W, C] side by side in one, [1, rows * H, columns * W, C]."""
    count, height, width, channels = images.shape.as_list()
    rows = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    grid = tf.reshape(images, [rows, count // rows, height, width, channels])
    return tf.reshape(tf.transpose(grid, [0, 2, 1, 3, 4]), [1, rows * height, count // rows * width, channels])


def _prediction(logits: tf.Tensor, features: tf.Tensor, params: Params) -> tf.estimator.EstimatorSpec:
    scores, labels = tf.nn.top_k(tf.nn.softmax(logits), min(_TOP, len(params.classes)))
    top = {"labels": labels, "classes": tf.gather(tf.constant(params.classes), labels), "scores": scores}
    outputs = {"serving_default": top, "features": {"features": features}}
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.PREDICT,
        predictions={**top, "features": features},
        export_outputs={name: tf.estimator.export.PredictOutput(output) for name, output in outputs.items()},
    )


def _scaled(images: tf.Tensor, pixel_range: str) -> tf.Tensor:
    images = tf.cast(images, tf.float32)
    if pixel_range != "standard":
        return images * (float(pixel_range) / 255)
    if images.shape[3] == 1:
        return images * ((_INK - _BACKGROUND) / 255) + _BACKGROUND
    return (images - tf.constant(_IMAGENET_MEAN)) / tf.constant(_IMAGENET_DEVIATION)


def _levels(images: tf.Tensor, pixel_range: str) -> float:
    """How many of a pixel's levels, of 0 to 255, a unit of ``_scaled`` is."""
    if pixel_range != "standard":
        return 255 / float(pixel_range)
    return 255 / (_INK - _BACKGROUND) if images.shape[3] == 1 else sum(_IMAGENET_DEVIATION) / 3


def _learning_rate(step: tf.Tensor, params: Params) -> tf.Tensor:
    done = tf.cast(step, tf.float32)
    share = tf.minimum(1.0, done / params.steps)
    if params.recipe.schedule == "cosine":
        fall = 0.5 * (1 + tf.cos(math.pi * share))
    else:
        fall = tf.pow(0.1, tf.reduce_sum(tf.cast(share >= tf.constant(TENTHS), tf.float32)))
    warm_up = max(1, round(params.recipe.warm_up * params.steps))
    return params.learning_rate * tf.minimum((done + 1) / warm_up, 1.0) * fall


def _optimizer(rate: tf.Tensor, params: Params) -> Any:
    recipe = params.recipe
    if recipe.optimizer == "adam":
        optimizer = tf.train.AdamOptimizer(rate, beta1=recipe.momentum)
    else:
        optimizer = tf.train.MomentumOptimizer(rate, recipe.momentum)
    if params.half_precision:
        # Not enable_mixed_precision_graph_rewrite, which switches evaluations of the same process over, too: what
        # rewrites the graph is an option of the training's sessions alone (devices.session_config).
        return tf.train.experimental.MixedPrecisionLossScaleOptimizer(optimizer, "dynamic")
    return optimizer
