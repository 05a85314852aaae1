"""The networks, and how each is trained. Importing this loads no TensorFlow; ``Network.build`` does."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Network:
    """A network and its recipe.

    ``module`` and ``function`` say where it is built; ``depth`` is that of a ResNet. ``image_size`` is its default
    input in pixels a side, ``min_image_size`` the smallest that leaves its last layer something to see.
    ``learning_rate`` is for batches of ``batch_size`` images and grows in proportion to them (Goyal et al. 2017,
    section 2.1); ``augment`` is whether it is trained on random crops and flips.
    """

    module: str
    function: str
    image_size: int
    min_image_size: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    epochs: int
    augment: bool = True
    depth: int | None = None

    @property
    def build(self) -> Callable[..., Any]:
        """Function of (images float32 [N, S, S, C], classes, training) that gives the logits, float32 [N, classes]."""
        function = getattr(importlib.import_module(f"models.{self.module}"), self.function)
        return function if self.depth is None else partial(function, depth=self.depth)


def _alexnet(function: str, min_image_size: int) -> Network:
    # Krizhevsky et al. (2012), section 5: batches of 128, weight decay 0.0005, 90 cycles, a rate of 0.01 to begin with.
    return Network("alexnet", function, 224, min_image_size, 128, 0.01, 5e-4, 90)


def _resnet(depth: int) -> Network:
    # He et al. (2015), section 3.4: batches of 256, a rate of 0.1, weight decay 0.0001; 90 epochs as in Goyal et al.
    return Network("resnet", "resnet", 224, 32, 256, 0.1, 1e-4, 90, depth=depth)


NETWORKS = {
    # LeCun et al. (1998) made 20 passes over undistorted digits, one at a time; these numbers are ours.
    "lenet": Network("lenet", "lenet", 28, 12, 64, 0.05, 5e-4, 10, augment=False),
    "alexnet": _alexnet("alexnet", 63),
    "alexnet-two-tower": _alexnet("alexnet_two_tower", 63),
    "alexnet-lecture": _alexnet("alexnet_lecture", 61),
    "resnet18": _resnet(18),
    "resnet34": _resnet(34),
    "resnet50": _resnet(50),
    "resnet101": _resnet(101),
    "resnet152": _resnet(152),
}
