"""One model function for all networks, for ``tf.estimator``; and what a network is made of, as a table."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from models import NETWORKS

# Mean and deviation of ImageNet's training pixels, on the scale of 0 to 255, in RGB (as in torchvision).
_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_DEVIATION = (58.395, 57.12, 57.375)

# LeCun et al. (1998), section II.B: background -0.1 and ink 1.175 make a digit's mean about 0 and its variance about 1.
_BACKGROUND, _INK = -0.1, 1.175

_MOMENTUM = 0.9
_WARM_UP = 0.05  # share of the steps over which the rate grows to its full size


class Params(NamedTuple):
    """What ``model_fn`` needs to know; ``steps`` is the length of the whole training, ``learning_rate`` its peak."""

    network: str
    classes: int
    steps: int
    learning_rate: float
    weight_decay: float


class Layer(NamedTuple):
    """A row of a network's table: name, kind, shape of the output without the batch, trainable parameters."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int


def model_fn(features: tf.Tensor, labels: tf.Tensor, mode: str, params: Params) -> tf.estimator.EstimatorSpec:
    """The EstimatorSpec for images uint8 [N, S, S, C] and labels int32 [N].

    Loss: mean cross-entropy, and in training half the squared weights times ``weight_decay``, without biases and batch
    normalisation. Optimiser: SGD with momentum 0.9; the rate grows linearly, then falls to zero along half a cosine.
    """
    logits = build_logits(features, params.network, params.classes, mode == tf.estimator.ModeKeys.TRAIN)
    loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
    top5 = tf.cast(tf.nn.in_top_k(logits, labels, min(5, params.classes)), tf.float32)
    predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
    if mode == tf.estimator.ModeKeys.EVAL:
        metrics = {"top1": tf.metrics.accuracy(labels, predicted), "top5": tf.metrics.mean(top5)}
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=metrics)
    step = tf.train.get_or_create_global_step()
    rate = _learning_rate(step, params)
    tf.summary.scalar("learning_rate", rate)
    tf.summary.scalar("top1", tf.reduce_mean(tf.cast(tf.equal(predicted, labels), tf.float32)))
    total = loss + params.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in _kernels()])
    step_op = tf.train.MomentumOptimizer(rate, _MOMENTUM).minimize(total, step)
    # Batch normalisation's running means belong to the step.
    train_op = tf.group(step_op, *tf.get_collection(tf.GraphKeys.UPDATE_OPS))
    return tf.estimator.EstimatorSpec(mode, loss=total, train_op=train_op)


def build_logits(images: tf.Tensor, network: str, classes: int, training: bool) -> tf.Tensor:
    """Logits, float32 [N, classes], of images uint8 [N, S, S, C], which become floats only here, on the device."""
    with warnings.catch_warnings():
        # tf.layers is deprecated in favour of Keras, which has no place in an Estimator's graph.
        warnings.filterwarnings("ignore", message="`tf.layers", category=UserWarning)
        return NETWORKS[network].build(_normalized(images), classes, training)


def table(network: str, image_size: int, channels: int, classes: int) -> list[Layer]:
    """The layers of a network, in the order of the graph, from the graph itself."""
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.uint8, [None, image_size, image_size, channels])
        build_logits(images, network, classes, training=False)
        operations, variables = graph.get_operations(), tf.trainable_variables()
    layers = []
    for operation in operations:
        if kind := _kind(operation):
            name = _layer_name(operation, kind)
            parameters = sum(math.prod(v.shape.as_list()) for v in variables if v.name.rsplit("/", 1)[0] == name)
            layers.append(Layer(name, kind, tuple(operation.outputs[0].shape.as_list()[1:]), parameters))
    return layers


def _normalized(images: tf.Tensor) -> tf.Tensor:
    images = tf.cast(images, tf.float32)
    if images.shape[3] == 1:
        return images * ((_INK - _BACKGROUND) / 255) + _BACKGROUND
    return (images - tf.constant(_IMAGENET_MEAN)) / tf.constant(_IMAGENET_DEVIATION)


def _learning_rate(step: tf.Tensor, params: Params) -> tf.Tensor:
    warm_up = max(1, round(_WARM_UP * params.steps))
    done = tf.cast(step, tf.float32)
    cosine = 0.5 * (1 + tf.cos(math.pi * tf.minimum(1.0, done / params.steps)))
    return params.learning_rate * tf.minimum((done + 1) / warm_up, 1.0) * cosine


def _kernels() -> list[Any]:
    return [variable for variable in tf.trainable_variables() if variable.op.name.endswith("kernel")]


_KINDS = {
    "Conv2D": "convolution",
    "MatMul": "dense",
    "MaxPool": "max pool",
    "AvgPool": "average pool",
    "Mean": "global pool",
    "LRN": "response norm",
    "FusedBatchNormV3": "batch norm",
}

# Of vectors batch norm is no operation of its own; this is the last of those that it is made of.
_VECTOR_NORM = "/batchnorm/add_1"


def _kind(operation: tf.Operation) -> str | None:
    return "batch norm" if operation.name.endswith(_VECTOR_NORM) else _KINDS.get(operation.type)


def _layer_name(operation: tf.Operation, kind: str) -> str:
    # Most layers are a scope of operations; these are one operation.
    if kind in ("global pool", "response norm"):
        return operation.name
    return operation.name.removesuffix(_VECTOR_NORM).rsplit("/", 0 if operation.name.endswith(_VECTOR_NORM) else 1)[0]
