"""A network as a table: what each layer gives, and what it costs."""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from models import NETWORKS
from models.classifier import Params, build
from models.recipes import Ablation

_BOTTLENECK, _LARGE_FILTER = 32, 5


class Layer(NamedTuple):
    """A row of a network's table.

    Name, kind, shape of the output without the batch; trainable parameters, those of them that are ``weights`` (neither
    intercepts nor of batch normalisation), and multiply-adds for one image; of a convolution, how many channels it sees
    and the side of its filters.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    weights: int
    multiply_adds: int
    inputs: int = 0
    filter_size: int = 0


def table(network: str, image_size: int, channels: int, classes: int) -> list[Layer]:
    """The layers of a network, in the order of the graph, from the graph itself."""
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.uint8, [None, image_size, image_size, channels])
        recipe = NETWORKS[network].recipe
        build(
            images,
            Params(
                network=network,
                classes=tuple(map(str, range(classes))),
                recipe=recipe,
                learning_rate=0,
                steps=1,
                steps_per_epoch=1,
                variant=Ablation(),
            ),
            training=False,
        )
        operations, variables = graph.get_operations(), tf.trainable_variables()
    sizes = {v.op.name: math.prod(v.shape.as_list()) for v in variables}
    return [_layer(operation, kind, sizes) for operation in operations if (kind := _kind(operation))]


def behind_a_bottleneck(layer: Layer, filters: int) -> tuple[int, int]:
    """The weights of a 1x1 convolution of ``filters`` in front of ``layer``, and of ``layer`` behind it.

    Lin et al., "Network in Network" (2013); Szegedy et al. (2014), section 4.
    """
    if not layer.inputs:
        raise ValueError(f"{layer.name} is no convolution")
    return layer.inputs * filters, layer.weights // layer.inputs * filters


def text(layers: list[Layer]) -> str:
    """The table for people to read, and what a bottleneck in front of large filters would save."""
    lines = [f"{'layer':<28}{'kind':<16}{'output':<18}{'parameters':>12}{'multiply-adds':>16}"]
    for layer in layers:
        shape = " x ".join(map(str, layer.output))
        lines.append(f"{layer.name:<28}{layer.kind:<16}{shape:<18}{layer.parameters:>12,}{layer.multiply_adds:>16,}")
    for layer in layers:
        if layer.inputs > _BOTTLENECK and layer.filter_size >= _LARGE_FILTER:
            small, rest = behind_a_bottleneck(layer, _BOTTLENECK)
            behind = f"behind a 1x1 layer of {_BOTTLENECK}: {small:,} + {rest:,}"
            lines.append(f"{layer.name}: {layer.weights:,} weights; {behind}")
    return "\n".join(lines)


def _layer(operation: tf.Operation, kind: str, sizes: dict[str, int]) -> Layer:
    name = _layer_name(operation, kind)
    output = tuple(operation.outputs[0].shape.as_list()[1:])
    parameters = sum(size for variable, size in sizes.items() if variable.rsplit("/", 1)[0] == name)
    weights = sizes.get(f"{name}/kernel", 0)
    # Each weight of a convolution meets every place of its output, one of a dense layer the one that there is.
    places = math.prod(output[:-1]) if kind in ("convolution", "dense") else 0
    size, _, inputs, _ = operation.inputs[1].shape.as_list() if kind == "convolution" else (0, 0, 0, 0)
    return Layer(
        name=name,
        kind=kind,
        output=output,
        parameters=parameters,
        weights=weights,
        multiply_adds=weights * places,
        inputs=inputs,
        filter_size=size,
    )


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
