"""The networks, and how each is trained. Importing this loads no TensorFlow; ``Network.build`` does."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network, what it can do, and its recipe.

    ``module`` and ``function`` say where it is built, with ``arguments`` of its own. ``image_size`` is its default
    input in pixels a side, ``min_image_size`` the smallest that leaves its last layer something to see; weights of a
    network that ``is_resizable`` fit images of any size. ``channels`` and ``classes`` are those of the data that it was
    published for: its summary's, where no data say them. ``needs_levels`` is whether ``build`` also takes ``levels``:
    how many of a pixel's levels, of 0 to 255, a unit of its input is.
    """

    module: str
    function: str
    recipe: TrainingRecipe
    image_size: int = 224
    min_image_size: int
    channels: int = 3
    classes: int = 1000
    is_resizable: bool = False
    needs_levels: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def build(self) -> Callable[..., Any]:
        """Function of (images float32 [N, S, S, C], training) that gives what the last layer sees, float32 [N, F]."""
        function = getattr(importlib.import_module(f"models.{self.module}"), self.function)
        return partial(function, **self.arguments) if self.arguments else function


def _resnet(depth: int) -> Network:
    return Network(
        module="resnet", function="resnet", recipe=RESNET, min_image_size=32, is_resizable=True,
        arguments={"depth": depth},
    )  # fmt: skip


NETWORKS = {
    "lenet": Network(
        module="lenet", function="lenet", recipe=LENET, image_size=28, min_image_size=12, channels=1, classes=10
    ),
    "alexnet": Network(module="alexnet", function="alexnet", recipe=ALEXNET, min_image_size=63),
    "alexnet-two-tower": Network(
        module="alexnet", function="alexnet_two_tower", recipe=ALEXNET, min_image_size=63, needs_levels=True
    ),
    "alexnet-lecture": Network(module="alexnet", function="alexnet_lecture", recipe=ALEXNET, min_image_size=61),
    **{f"resnet{depth}": _resnet(depth) for depth in (18, 34, 50, 101, 152)},
}
