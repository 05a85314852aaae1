"""How each network is trained: one recipe a network, each number with its source. Importing this loads no TensorFlow.

LeCun 1998        LeCun et al., "Gradient-Based Learning Applied to Document Recognition"
Krizhevsky 2012   Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks"
Szegedy 2014      Szegedy et al., "Going Deeper with Convolutions"
He 2015           He et al., "Deep Residual Learning for Image Recognition"
Goyal 2017        Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour"
Loshchilov 2017   Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts"
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("step", "cosine")

TENTHS = (30 / 90, 60 / 90, 80 / 90)
"""Parts of a training after which the schedule ``step`` divides the rate by ten: Goyal 2017, section 5.1."""


@dataclass(frozen=True)
class TrainingRecipe:
    """How a network is trained. Raises ValueError where a number makes no sense.

    ``optimizer`` is ``sgd``, with ``momentum``, or ``adam``, whose first moment decays by it. ``learning_rate`` is the
    highest, of batches of ``batch_size`` images; other batches have it in proportion (Goyal 2017, section 2.1: k times
    the batch, k times the rate). It falls by ``schedule``: ``step`` divides it by ten after 30, 60 and 80 of 90 parts
    of the training (Goyal 2017, section 5.1), ``cosine`` lets it fall to zero (Loshchilov 2017, equation 5). Of that,
    over the first ``warm_up``, a share of the training, a part is taken that grows linearly to all of it (Goyal 2017,
    section 2.2).
    ``weight_decay`` is of half the squared weights, without biases and batch normalisation (Goyal 2017, section 5.1);
    ``label_smoothing`` is the share of a label that is spread over all classes. ``transforms`` are options of what
    training shows of an image, by name, where they are not the loader's own.
    """

    batch_size: int
    epochs: float
    learning_rate: float
    weight_decay: float
    schedule: str
    warm_up: float
    optimizer: str = "sgd"
    momentum: float = 0.9  # Krizhevsky 2012, section 5; He 2015, section 3.4
    label_smoothing: float = 0.0
    transforms: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("batch_size", 1, 1_000_000),
            ("epochs", 1e-6, 1_000_000),
            ("learning_rate", 0, 1_000_000),
            ("weight_decay", 0, 1_000_000),
            ("warm_up", 0, 1),
            ("momentum", 0, 0.9999),
            ("label_smoothing", 0, 0.99),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name.replace('_', '-')} {getattr(self, name)}: give {low:,} to {high:,}")
        for name, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)}: give one of {', '.join(choices)}")

    def peak(self, batch_size: int) -> float:
        """The highest learning rate with batches of ``batch_size``."""
        return self.learning_rate * batch_size / self.batch_size

    def rate(self, done: int, steps: int, peak: float) -> float:
        """The learning rate of the step after ``done`` of ``steps``: what the graph computes (classifier), as a number.

        ``peak`` is the highest.
        """
        share = min(1.0, done / steps)
        fall = 0.1 ** sum(share >= part for part in TENTHS)
        if self.schedule == "cosine":
            fall = 0.5 * (1 + math.cos(math.pi * share))
        return peak * min((done + 1) / max(1, round(self.warm_up * steps)), 1.0) * fall


# LeCun 1998 took 20 passes, a digit at a time, at rates from 0.0005 down, scaled by second derivatives; for batches and
# ReLUs these numbers are ours, found on a tenth of the training digits. Digits are neither cropped nor mirrored there.
LENET = TrainingRecipe(
    batch_size=64,
    epochs=10,
    learning_rate=0.05,
    weight_decay=5e-4,
    schedule="cosine",
    warm_up=0.05,
    transforms={"augment": False},
)

# Krizhevsky 2012, section 5: batches of 128, weight decay 0.0005, about 90 passes, a rate of 0.01 that is divided by
# ten three times. When, was decided by hand there; here it is as in Goyal 2017. No warm-up.
ALEXNET = TrainingRecipe(batch_size=128, epochs=90, learning_rate=0.01, weight_decay=5e-4, schedule="step", warm_up=0)

# He 2015, section 3.4: batches of 256, a rate of 0.1, weight decay 0.0001. Goyal 2017, sections 2.2 and 5.1: 90 passes,
# five of which warm up.
RESNET = TrainingRecipe(
    batch_size=256, epochs=90, learning_rate=0.1, weight_decay=1e-4, schedule="step", warm_up=5 / 90
)


@dataclass(frozen=True)
class Ablation:
    """What can be changed in any network to see what happens: the lecture's questions.

    ``pixel_range``: ``standard`` for mean 0 and deviation 1, or 1 or 255 for raw pixels from 0 to that.
    ``initializer``: the network's ``own``, or ``zeros`` for all weights. ``bias``: with intercepts or without.
    """

    pixel_range: str = "standard"
    initializer: str = "own"
    bias: bool = True


PIXEL_RANGES = ("standard", "1", "255")
INITIALIZERS = ("own", "zeros")
