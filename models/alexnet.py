"""AlexNet, three times: in one tower, as published in 2012, and as drawn in the lecture.

Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks" (2012), section 3. Sizes in the
comments are for 224 x 224 x 3. Weights start as in He et al. (2015), only those of the last layer from the paper's
0.01: without its biases of one and its weeks of patience, that start hardly moves.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

from models.layers import HE, dropout

layers = tf.layers


def alexnet(images: tf.Tensor, training: bool) -> tf.Tensor:
    """Features [N, 4096] of the network in one tower, without response normalisation.

    62,378,344 parameters for 1000 classes.
    """
    x = _conv1(images)  #                                          55 x 55 x 96
    x = layers.max_pooling2d(x, 3, 2, name="pool1")  #             27 x 27 x 96
    x = _conv(x, 256, 5, "conv2")  #                               27 x 27 x 256
    x = layers.max_pooling2d(x, 3, 2, name="pool2")  #             13 x 13 x 256
    x = _conv(x, 384, 3, "conv3")  #                               13 x 13 x 384
    x = _conv(x, 384, 3, "conv4")  #                               13 x 13 x 384
    x = _conv(x, 256, 3, "conv5")  #                               13 x 13 x 256
    x = layers.max_pooling2d(x, 3, 2, name="pool5")  #              6 x 6 x 256
    return _dense_layers(x, training)


def alexnet_two_tower(images: tf.Tensor, training: bool, levels: float) -> tf.Tensor:
    """Features [N, 4096] of the network of 2012: 60,965,224 parameters for 1000 classes.

    Its two towers, one a GPU, meet in the third convolution; in the second, fourth and fifth each sees half the maps.
    A unit of ``images`` is ``levels`` of a pixel's 0 to 255, in which response normalisation counts.
    """
    # A variable, so that it is saved: weights that were trained with another are refused, not taken for these.
    levels = tf.get_variable("levels", [], initializer=tf.initializers.constant(levels), trainable=False)
    x = _conv1(images)  #                                          55 x 55 x 96
    x = layers.max_pooling2d(_response_norm(x, levels, "norm1"), 3, 2, name="pool1")  # 27 x 27 x 96
    x = _conv_in_towers(x, 256, 5, "conv2")  #                     27 x 27 x 256
    x = layers.max_pooling2d(_response_norm(x, levels, "norm2"), 3, 2, name="pool2")  # 13 x 13 x 256
    x = _conv(x, 384, 3, "conv3")  #                               13 x 13 x 384
    x = _conv_in_towers(x, 384, 3, "conv4")  #                     13 x 13 x 384
    x = _conv_in_towers(x, 256, 3, "conv5")  #                     13 x 13 x 256
    x = layers.max_pooling2d(x, 3, 2, name="pool5")  #              6 x 6 x 256
    return _dense_layers(x, training)


def alexnet_lecture(images: tf.Tensor, training: bool) -> tf.Tensor:
    """Features [N, 4096] of the lecture's stack, with batch normalisation throughout."""

    def conv(x: tf.Tensor, filters: int, size: int, number: int, stride: int = 1) -> tf.Tensor:
        x = layers.conv2d(x, filters, size, stride, padding="same", name=f"conv{number}", **HE)
        return tf.nn.relu(_batch_norm(x, training, f"norm{number}"))

    def dense(x: tf.Tensor, units: int, number: int) -> tf.Tensor:
        x = _batch_norm(layers.dense(x, units, name=f"fc{number}", **HE), training, f"norm{number}")
        return dropout(tf.nn.relu(x), training, f"drop{number}")

    x = conv(images, 96, 11, 1, stride=4)  #                       56 x 56 x 96
    x = layers.max_pooling2d(x, 2, 2, name="pool1")  #             28 x 28 x 96
    x = conv(x, 256, 5, 2)  #                                      28 x 28 x 256
    x = layers.max_pooling2d(x, 2, 2, name="pool2")  #             14 x 14 x 256
    x = conv(x, 512, 3, 3)  #                                      14 x 14 x 512
    x = layers.max_pooling2d(x, 2, 2, name="pool3")  #              7 x 7 x 512
    x = conv(x, 1024, 3, 4)  #                                      7 x 7 x 1024
    x = conv(x, 1024, 3, 5)  #                                      7 x 7 x 1024
    x = layers.max_pooling2d(x, 2, 2, name="pool5")  #              3 x 3 x 1024
    x = dense(layers.flatten(x), 3072, 6)  #                            3072
    return dense(x, 4096, 7)  #                                         4096


def _conv1(images: tf.Tensor) -> tf.Tensor:
    # The paper's 224 give its 55 only with padding: 2 pixels a side, and the last column is not reached.
    x = tf.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]])
    return layers.conv2d(x, 96, 11, 4, activation=tf.nn.relu, name="conv1", **HE)


def _conv(x: tf.Tensor, filters: int, size: int, name: str) -> tf.Tensor:
    return layers.conv2d(x, filters, size, padding="same", activation=tf.nn.relu, name=name, **HE)


def _conv_in_towers(x: tf.Tensor, filters: int, size: int, name: str) -> tf.Tensor:
    # Two convolutions rather than one of two groups, whose gradient TensorFlow has on GPUs only.
    halves = tf.split(x, 2, axis=3)
    return tf.concat([_conv(half, filters // 2, size, name + tower) for half, tower in zip(halves, "ab")], axis=3)


def _response_norm(x: tf.Tensor, levels: tf.Tensor, name: str) -> tf.Tensor:
    # Section 3.3: n = 5 maps, k = 2, alpha = 1e-4, beta = 0.75. These constants are for the paper's pixels, 0 to 255
    # less the mean (section 2). What comes from smaller ones is brought to their scale and back: the same as an alpha
    # of 1e-4 * levels ** 2. The layers between keep that factor, so that it is norm2's, too.
    maps = x * levels
    return tf.nn.local_response_normalization(maps, depth_radius=2, bias=2, alpha=1e-4, beta=0.75, name=name) / levels


def _batch_norm(x: tf.Tensor, training: bool, name: str) -> tf.Tensor:
    return layers.batch_normalization(x, momentum=0.9, epsilon=1e-5, training=training, name=name)


def _dense_layers(x: tf.Tensor, training: bool) -> tf.Tensor:
    x = layers.flatten(x)  #                                                         9216
    x = layers.dense(x, 4096, activation=tf.nn.relu, name="fc6", **HE)  #           4096
    x = dropout(x, training, "drop6")
    x = layers.dense(x, 4096, activation=tf.nn.relu, name="fc7", **HE)  #           4096
    return dropout(x, training, "drop7")
