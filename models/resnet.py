"""ResNet: He et al., "Deep Residual Learning for Image Recognition" (2015), table 1.

Bottleneck blocks are "v1.5": they halve the size in the 3x3 convolution, not in the 1x1 before it, as Goyal et al.
(2017) do. Sizes in the comments are for 224 x 224 x 3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import tensorflow.compat.v1 as tf

from models.layers import HE

layers = tf.layers

Block = Callable[..., tf.Tensor]


def resnet(images: tf.Tensor, training: bool, *, depth: int) -> tf.Tensor:
    """Features [N, 512 or 2048]; ``depth`` is one of DEPTHS. 25,557,032 parameters for depth 50 and 1000 classes."""
    block, blocks = DEPTHS[depth]
    x = tf.nn.relu(_conv_norm(images, 64, 7, 2, training, "conv1"))  #      112 x 112 x 64
    x = layers.max_pooling2d(_pad(x, 3), 3, 2, name="pool1")  #              56 x 56 x 64
    # Of 56, 28, 14 and 7 pixels a side.
    for stage, count in enumerate(blocks, start=1):
        for i in range(count):
            stride = 2 if i == 0 and stage > 1 else 1
            with tf.variable_scope(f"stage{stage}_block{i + 1}"):
                x = block(x, 32 << stage, stride, training)
    return tf.reduce_mean(x, [1, 2], name="pool5")  #                    512 or 2048


def _basic(x: tf.Tensor, filters: int, stride: int, training: bool) -> tf.Tensor:
    y = tf.nn.relu(_conv_norm(x, filters, 3, stride, training, "conv1"))
    y = _conv_norm(y, filters, 3, 1, training, "conv2", last=True)
    return tf.nn.relu(y + _shortcut(x, filters, stride, training))


def _bottleneck(x: tf.Tensor, filters: int, stride: int, training: bool) -> tf.Tensor:
    y = tf.nn.relu(_conv_norm(x, filters, 1, 1, training, "conv1"))
    y = tf.nn.relu(_conv_norm(y, filters, 3, stride, training, "conv2"))
    y = _conv_norm(y, 4 * filters, 1, 1, training, "conv3", last=True)
    return tf.nn.relu(y + _shortcut(x, 4 * filters, stride, training))


DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (_basic, (2, 2, 2, 2)),
    34: (_basic, (3, 4, 6, 3)),
    50: (_bottleneck, (3, 4, 6, 3)),
    101: (_bottleneck, (3, 4, 23, 3)),
    152: (_bottleneck, (3, 8, 36, 3)),
}
"""The kind of block, and how many of it in each of the four stages."""


def _shortcut(x: tf.Tensor, filters: int, stride: int, training: bool) -> tf.Tensor:
    if x.shape[3] == filters and stride == 1:
        return x
    return _conv_norm(x, filters, 1, stride, training, "shortcut")


def _conv_norm(
    x: tf.Tensor, filters: int, size: int, stride: int, training: bool, name: str, last: bool = False
) -> tf.Tensor:
    # No bias: the normalisation has one. Padded alike on all sides, which 'same' is not where the stride is 2.
    conv = partial(layers.conv2d, use_bias=False, **HE)
    x = conv(_pad(x, size), filters, size, stride, name=name)
    # A block starts as the identity: the last scale in it is zero (Goyal et al. 2017, section 5.1).
    scale = tf.initializers.zeros if last else tf.initializers.ones
    return layers.batch_normalization(
        x, momentum=0.9, epsilon=1e-5, gamma_initializer=scale(), training=training, name=f"{name}_norm"
    )


def _pad(x: tf.Tensor, size: int) -> tf.Tensor:
    return tf.pad(x, [[0, 0], [size // 2, size // 2], [size // 2, size // 2], [0, 0]]) if size > 1 else x
