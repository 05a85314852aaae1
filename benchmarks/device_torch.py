"""PyTorch's part of accelerator.py: ResNet-50 in bfloat16 and channels_last, trained by SGD with momentum.

The network is that of He et al., "Deep Residual Learning for Image Recognition", 2015, table 1, with the stride of a
block in its 3 x 3 convolution, as most have it since.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ingest.adapters.torch import batches
from ingest.loading.loader import Loader

BLOCKS = {"resnet50": (3, 4, 6, 3), "tiny": (1,)}
"""Blocks of each stage, by the network's name; the tiny one is for machines without a GPU."""

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of ImageNet's channels, in levels: they are what most publish with their weights."""

VERSION = torch.__version__


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions, added to their input: a block of a deeper residual network."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.branch = nn.Sequential(
            *_convolution(inputs, width, 1), nn.ReLU(),
            *_convolution(width, width, 3, stride), nn.ReLU(),
            *_convolution(width, 4 * width, 1),
        )  # fmt: skip
        is_same = inputs == 4 * width and stride == 1
        self.shortcut = nn.Identity() if is_same else nn.Sequential(*_convolution(inputs, 4 * width, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, 4 * width, H / stride, W / stride]."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class Trainer:
    """A network on a device, and the step that trains it."""

    def __init__(self, network: str, classes: int, channels: int):
        self._is_gpu = torch.cuda.is_available()
        self.device = torch.device("cuda" if self._is_gpu else "cpu")
        self.card = torch.cuda.get_device_name() if self._is_gpu else "no GPU"
        torch.backends.cudnn.benchmark = True
        self._model = _network(network, classes, channels).to(self.device, memory_format=torch.channels_last)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9)
        self._mean = torch.tensor(MEAN[:channels], device=self.device).view(-1, 1, 1)
        self._deviation = torch.tensor(DEVIATION[:channels], device=self.device).view(-1, 1, 1)

    def batches(self, loader: Loader) -> Iterator[Any]:
        """The loader's batches on the device."""
        return iter(batches(loader, self.device))

    def step(self, batch: Any) -> None:
        """One step of training on ``batch``; a GPU may still be at it when this returns."""
        images, labels = batch
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self._model((images - self._mean) / self._deviation)
            loss = nn.functional.cross_entropy(logits, labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()

    def wait(self) -> None:
        """Wait until the device has done all steps."""
        if self._is_gpu:
            torch.cuda.synchronize()

    def waiting(self, stream: Iterator[Any], seconds: float) -> tuple[int, float, float]:
        """Train on ``stream``: the images, the seconds that it took, and those in which the device had nothing to do.

        On a GPU they are those from the end of one step, and at first from the start, to the beginning of the next, by
        its own clock (events in its queue): the wait for a batch and for its copy. It must have done all steps before.
        On a CPU they are those in which the next batch was waited for.
        """
        return self._by_events(stream, seconds) if self._is_gpu else self._by_clock(stream, seconds)

    def _by_events(self, stream: Iterator[Any], seconds: float) -> tuple[int, float, float]:
        gaps, images, start = [], 0, time.perf_counter()
        done = _event()
        while time.perf_counter() - start < seconds or len(gaps) < 2:
            batch = next(stream)
            begin = _event()  # after the wait for this batch's copy, which next() has put into the queue
            self.step(batch)
            gaps.append((done, begin))
            done = _event()
            images += len(batch.labels)
        self.wait()
        took = time.perf_counter() - start
        return images, took, sum(done.elapsed_time(begin) for done, begin in gaps) / 1e3

    def _by_clock(self, stream: Iterator[Any], seconds: float) -> tuple[int, float, float]:
        images, waited, steps, start = 0, 0.0, 0, time.perf_counter()
        while time.perf_counter() - start < seconds or steps < 2:
            asked = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - asked
            self.step(batch)
            images += len(batch.labels)
            steps += 1
        return images, time.perf_counter() - start, waited


def _event() -> torch.cuda.Event:
    """The moment at which the GPU has done what is in its queue now."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)]


def _network(name: str, classes: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [*_convolution(channels, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, blocks in enumerate(BLOCKS[name]):
        for block in range(blocks):
            layers.append(Bottleneck(inputs, 64 << stage, 2 if stage and not block else 1))
            inputs = 4 * (64 << stage)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
