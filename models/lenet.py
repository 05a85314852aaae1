"""LeNet-5: LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998), section II.B.

As it is built today: ReLU for tanh, the largest of four for their weighted mean (0.7 instead of 1.0 % error after ten
epochs), a second convolution that sees all six maps, and a softmax for the distances to drawn digits. 61,706 parameters
for ten classes of grey.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

from models.layers import HE

layers = tf.layers


def lenet(images: tf.Tensor, training: bool) -> tf.Tensor:
    """Features [N, 84] of images [N, 28, 28, C]; other sizes work, with more weights in the first dense layer."""
    del training  # the same in both
    x = tf.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]])  #                            32 x 32 x 1
    x = layers.conv2d(x, 6, 5, activation=tf.nn.relu, name="conv1", **HE)  #          28 x 28 x 6
    x = layers.max_pooling2d(x, 2, 2, name="pool1")  #                                 14 x 14 x 6
    x = layers.conv2d(x, 16, 5, activation=tf.nn.relu, name="conv2", **HE)  #         10 x 10 x 16
    x = layers.max_pooling2d(x, 2, 2, name="pool2")  #                                  5 x 5 x 16
    x = layers.dense(layers.flatten(x), 120, activation=tf.nn.relu, name="fc3", **HE)  #      120
    return layers.dense(x, 84, activation=tf.nn.relu, name="fc4", **HE)  #                      84
