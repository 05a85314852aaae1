"""LeNet-5: LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998), section II.B.

As it is built today: the second convolution sees all six maps, where the paper's sees chosen ones, pooling has no
weights, and the output is a softmax instead of distances to drawn digits. 61,706 parameters for ten classes of grey.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

layers = tf.layers

# For tanh: Glorot and Bengio (2010). Given always: tf.layers' own default is Keras's, which no graph's seed reaches.
_GLOROT = {"kernel_initializer": tf.initializers.glorot_uniform()}


def lenet(images: tf.Tensor, classes: int, training: bool) -> tf.Tensor:
    """Logits [N, classes] of images [N, 28, 28, C]; other sizes work, with more weights in the first dense layer."""
    del training  # the same in both
    x = tf.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]])  #                             32 x 32 x 1
    x = layers.conv2d(x, 6, 5, activation=tf.tanh, name="conv1", **_GLOROT)  #          28 x 28 x 6
    x = layers.average_pooling2d(x, 2, 2, name="pool1")  #                              14 x 14 x 6
    x = layers.conv2d(x, 16, 5, activation=tf.tanh, name="conv2", **_GLOROT)  #         10 x 10 x 16
    x = layers.average_pooling2d(x, 2, 2, name="pool2")  #                               5 x 5 x 16
    x = layers.dense(layers.flatten(x), 120, activation=tf.tanh, name="fc3", **_GLOROT)  #      120
    x = layers.dense(x, 84, activation=tf.tanh, name="fc4", **_GLOROT)  #                        84
    return layers.dense(x, classes, name="fc5", **_GLOROT)
