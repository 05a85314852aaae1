"""LeNet-5: LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998), section II.B.

As it is built today: ReLU for tanh, the largest of four for their weighted mean (0.7 instead of 1.0 % error after ten
epochs), a second convolution that sees all six maps, and a softmax for the distances to drawn digits. 61,706 parameters
for ten classes of grey.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

layers = tf.layers

# He et al. (2015). Given always: tf.layers' own default is Keras's, which no graph's seed reaches.
_HE = {"kernel_initializer": tf.initializers.he_normal()}


def lenet(images: tf.Tensor, classes: int, training: bool) -> tf.Tensor:
    """Logits [N, classes] of images [N, 28, 28, C]; other sizes work, with more weights in the first dense layer."""
    del training  # the same in both
    x = tf.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]])  #                            32 x 32 x 1
    x = layers.conv2d(x, 6, 5, activation=tf.nn.relu, name="conv1", **_HE)  #          28 x 28 x 6
    x = layers.max_pooling2d(x, 2, 2, name="pool1")  #                                 14 x 14 x 6
    x = layers.conv2d(x, 16, 5, activation=tf.nn.relu, name="conv2", **_HE)  #         10 x 10 x 16
    x = layers.max_pooling2d(x, 2, 2, name="pool2")  #                                  5 x 5 x 16
    x = layers.dense(layers.flatten(x), 120, activation=tf.nn.relu, name="fc3", **_HE)  #      120
    x = layers.dense(x, 84, activation=tf.nn.relu, name="fc4", **_HE)  #                        84
    return layers.dense(x, classes, name="fc5", **_HE)
