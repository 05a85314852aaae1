"""Shared memory for batches, which worker processes fill and the parent hands out without a copy.

The memory has no name in any file system, so that nothing can be left behind, however its processes end.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections import deque
from typing import NamedTuple

import numpy as np

MAX_LENT_BATCHES = 4
"""Batches in their slots that a consumer may hold on to; beyond that it is given copies, and the slots go round."""


class Batch(NamedTuple):
    """Images, uint8 [N, S, S, C] in RGB or grey, and labels, int32 [N]."""

    images: np.ndarray
    labels: np.ndarray


class SharedBatchPool:
    """Shared memory for a number of batches. A batch handed out takes its slot along until nobody holds it."""

    def __init__(self, descriptor: int, shape: tuple[int, ...]):
        self._memory = mmap.mmap(descriptor, 0)
        self._shape = shape
        self._free = deque(range(len(self._memory) // slot_bytes(shape)))
        self._held: dict[int, tuple[weakref.ref[np.ndarray], int]] = {}
        self._let_go: deque[weakref.ref[np.ndarray]] = deque()

    def take(self) -> int | None:
        """A slot that nobody uses, or None."""
        while self._let_go:
            _, slot = self._held.pop(id(self._let_go.popleft()))
            self._free.append(slot)
        return self._free.popleft() if self._free else None

    def batch(self, slot: int) -> Batch:
        """The memory of a slot, for as long as the arrays live."""
        start = slot * slot_bytes(self._shape)
        size = _images_bytes(self._shape)
        # frombuffer, so that every view that a consumer takes of the images refers to this array and keeps it alive.
        images = np.frombuffer(self._memory, np.uint8, size, start)
        labels = np.frombuffer(self._memory, np.int32, self._shape[0], start + _in_pages(size))
        return Batch(images, labels)

    def lend(self, slot: int, size: int) -> Batch:
        """The first ``size`` images and labels of a filled slot, which is free again once they are gone."""
        images, labels = self.batch(slot)
        shown = images.reshape(self._shape)[:size]
        if len(self._held) - len(self._let_go) >= MAX_LENT_BATCHES:
            self._free.append(slot)
            return Batch(shown.copy(), labels[:size].copy())
        # What is called when the images are gone must not be Python code: TensorFlow lets go of them within its own
        # calls, where a Ctrl-C that interrupts Python code is lost.
        held = weakref.ref(images, self._let_go.append)
        self._held[id(held)] = held, slot
        return Batch(shown, labels[:size].copy())


def anonymous_shared_memory(size_bytes: int) -> int:
    """A descriptor of shared memory that exists only as long as somebody has it open."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("ingest-batches")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size_bytes)
    return descriptor


def slot_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of a slot for a batch of images uint8 ``shape`` and their labels."""
    return _in_pages(_images_bytes(shape)) + _in_pages(4 * shape[0])


def _images_bytes(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def _in_pages(size_bytes: int) -> int:
    # Whole pages also keep the images aligned to 64 bytes, which TensorFlow needs to take them without a copy.
    return -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
