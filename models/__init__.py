"""The networks, and how each is trained. Importing this loads no TensorFlow; ``Network.build`` does."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from models.recipes import ALEXNET, LENET, RESNET, TrainingRecipe


class ModelError(Exception):
    """What is asked of a network, or of what a training left behind, cannot be. One line: what, where, what to do."""

    path: str | None
    """The file or the folder concerned."""

    def __init__(self, message: str, *, path: str | Path | None = None):
        super().__init__(message)
        self.path = None if path is None else str(path)


@dataclass(frozen=True)
class Network:
    """A network and its recipe.

    ``module`` and ``function`` say where it is built; ``depth`` is that of a ResNet. ``image_size`` is its default
    input in pixels a side, ``min_image_size`` the smallest that leaves its last layer something to see.
    ``needs_levels`` is whether ``build`` also takes ``levels``: how many of a pixel's levels, of 0 to 255, a unit of
    its input is.
    """

    module: str
    function: str
    image_size: int
    min_image_size: int
    recipe: TrainingRecipe
    depth: int | None = None
    needs_levels: bool = False

    @property
    def build(self) -> Callable[..., Any]:
        """Function of (images float32 [N, S, S, C], training) that gives what the last layer sees, float32 [N, F]."""
        function = getattr(importlib.import_module(f"models.{self.module}"), self.function)
        return function if self.depth is None else partial(function, depth=self.depth)


NETWORKS = {
    "lenet": Network("lenet", "lenet", 28, 12, LENET),
    "alexnet": Network("alexnet", "alexnet", 224, 63, ALEXNET),
    "alexnet-two-tower": Network("alexnet", "alexnet_two_tower", 224, 63, ALEXNET, needs_levels=True),
    "alexnet-lecture": Network("alexnet", "alexnet_lecture", 224, 61, ALEXNET),
    **{f"resnet{depth}": Network("resnet", "resnet", 224, 32, RESNET, depth) for depth in (18, 34, 50, 101, 152)},
}
