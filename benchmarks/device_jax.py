"""JAX's part of accelerator.py: ResNet-50 in bfloat16, trained by SGD with momentum, as pure functions.

The network is that of device_torch.py. Weights are float32, and bfloat16 where they are used. Each batch is normalised
by its own mean and deviation, as in training.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ingest.adapters.jax import batches
from ingest.loading.loader import Loader

BLOCKS = {"resnet50": (3, 4, 6, 3), "tiny": (1,)}
"""Blocks of each stage, by the network's name; the tiny one is for machines without a GPU."""

VERSION = jax.__version__

Weights = dict[str, jax.Array]


class Trainer:
    """A network on the default device, and the step that trains it."""

    def __init__(self, network: str, classes: int, channels: int):
        device = jax.devices()[0]
        self.card = "no GPU" if device.platform == "cpu" else device.device_kind
        self._blocks = BLOCKS[network]
        self._weights = _start(self._blocks, classes, channels)
        self._momentum = jax.tree.map(jnp.zeros_like, self._weights)

    def batches(self, loader: Loader) -> Iterator[Any]:
        """The loader's batches on the device."""
        return batches(loader)

    def step(self, batch: Any) -> None:
        """One step of training on ``batch``; the device may still be at it when this returns."""
        self._weights, self._momentum = _update(self._weights, self._momentum, *batch, self._blocks)

    def wait(self) -> None:
        """Wait until the device has done all steps."""
        jax.block_until_ready(self._weights)

    def waiting(self, stream: Iterator[Any], seconds: float) -> tuple[int, float, float]:
        """Train on ``stream``: the images, the seconds that it took, and those in which the device had nothing to do.

        A step is awaited before the next batch is asked for: what passes until that is on the device is the wait. The
        images/s are a little lower for it than those of a host that runs ahead of the device.
        """
        images, waited, steps, start = 0, 0.0, 0, time.perf_counter()
        while time.perf_counter() - start < seconds or steps < 2:
            asked = time.perf_counter()
            batch = jax.block_until_ready(next(stream))
            waited += time.perf_counter() - asked
            self.step(batch)
            self.wait()
            images += len(batch[1])
            steps += 1
        return images, time.perf_counter() - start, waited


@partial(jax.jit, static_argnames="blocks", donate_argnums=(0, 1))
def _update(
    weights: Weights, momentum: Weights, images: jax.Array, labels: jax.Array, blocks: tuple[int, ...]
) -> tuple[Weights, Weights]:
    gradient = jax.grad(_loss)(weights, images, labels, blocks)
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradient)
    return jax.tree.map(lambda w, m: w - 0.01 * m, weights, momentum), momentum


def _loss(weights: Weights, images: jax.Array, labels: jax.Array, blocks: tuple[int, ...]) -> jax.Array:
    logits = _logits(weights, images, blocks)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def _logits(weights: Weights, images: jax.Array, blocks: tuple[int, ...]) -> jax.Array:
    x = (images.astype(jnp.bfloat16) - 120) / 60
    x = jax.nn.relu(_convolution(weights, "first", x, 2))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for stage, block in _positions(blocks):
        name, stride = f"{stage}.{block}", 2 if stage and not block else 1
        branch = jax.nn.relu(_convolution(weights, f"{name}.a", x, 1))
        branch = jax.nn.relu(_convolution(weights, f"{name}.b", branch, stride))
        branch = _convolution(weights, f"{name}.c", branch, 1)
        shortcut = x if block else _convolution(weights, f"{name}.shortcut", x, stride)
        x = jax.nn.relu(branch + shortcut)
    return x.mean((1, 2), dtype=jnp.float32) @ weights["last"]


def _convolution(weights: Weights, name: str, x: jax.Array, stride: int) -> jax.Array:
    """[N, H, W, C] to [N, H / stride, W / stride, D], and the batch's normalisation."""
    kernel = weights[name].astype(jnp.bfloat16)
    x = lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    mean = x.mean((0, 1, 2), dtype=jnp.float32)
    variance = jnp.square(x.astype(jnp.float32) - mean).mean((0, 1, 2))
    scale = weights[f"{name}.scale"] * lax.rsqrt(variance + 1e-5)
    return ((x - mean) * scale + weights[f"{name}.offset"]).astype(jnp.bfloat16)


def _positions(blocks: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(stage, block) for stage, count in enumerate(blocks) for block in range(count)]


def _start(blocks: tuple[int, ...], classes: int, channels: int) -> Weights:
    """Weights to begin with: He et al.'s, of "Delving Deep into Rectifiers", 2015."""
    shapes: dict[str, tuple[int, ...]] = {"first": (7, 7, channels, 64)}
    inputs = 64
    for stage, block in _positions(blocks):
        name, width = f"{stage}.{block}", 64 << stage
        if not block:
            shapes[f"{name}.shortcut"] = (1, 1, inputs, 4 * width)
        shapes[f"{name}.a"] = (1, 1, inputs, width)
        shapes[f"{name}.b"] = (3, 3, width, width)
        shapes[f"{name}.c"] = (1, 1, width, 4 * width)
        inputs = 4 * width
    keys = dict(zip(shapes, jax.random.split(jax.random.key(0), len(shapes))))
    weights = {name: jax.nn.initializers.he_normal()(keys[name], shape) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        weights |= {f"{name}.scale": jnp.ones(shape[-1]), f"{name}.offset": jnp.zeros(shape[-1])}
    return weights | {"last": jnp.zeros((inputs, classes))}
