"""What the networks share: a start and a dropout that depend on seeds alone, and the variants of all of them."""

from __future__ import annotations

import zlib
from contextlib import AbstractContextManager
from typing import Any

import tensorflow.compat.v1 as tf

from models.recipes import Ablation

HE = {"kernel_initializer": tf.initializers.he_normal()}
"""He et al., "Delving Deep into Rectifiers" (2015). Given always: tf.layers' own default knows no seed."""


def dropout(x: tf.Tensor, training: bool, name: str) -> tf.Tensor:
    """``x`` with half of it set to zero in training, the other half doubled (Krizhevsky et al. 2012, section 4.2).

    Which half is a function of the graph's seed, the global step, the device and ``name``: no state of a random
    generator is lost when a training is interrupted.
    """
    if not training:
        return x
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    seed = (tf.get_default_graph().seed or 0) ^ zlib.crc32(name.encode())
    with tf.name_scope(name):
        counter = tf.cast(tf.train.get_or_create_global_step(), tf.int32) * 1024 + tf.cast(replica, tf.int32)
        return tf.nn.experimental.stateless_dropout(x, 0.5, seed=tf.stack([seed % 2**31, counter]))


def variables(variant: Ablation) -> AbstractContextManager[Any]:
    """A scope whose variables start from the graph's seed and their names alone, as ``variant`` says.

    Without that, a weight's start would depend on how many operations the graph had before it, and so on the number of
    devices.
    """
    return tf.variable_scope(tf.get_variable_scope(), custom_getter=_getter(variant))


def _getter(variant: Ablation) -> Any:
    def get(getter: Any, name: str, *args: Any, **options: Any) -> Any:
        initializer = options["initializer"]
        if "seed" in initializer.get_config():
            seed = zlib.crc32(name.encode()) % 2**31
            initializer = type(initializer).from_config({**initializer.get_config(), "seed": seed})
        if variant.initializer == "zeros" and name.endswith("/kernel"):
            initializer = tf.initializers.zeros()
        if not variant.bias and name.endswith(("/bias", "/beta")):
            # As good as none: it is zero, and stays so.
            options["trainable"] = False
        return getter(name, *args, **{**options, "initializer": initializer})

    return get
