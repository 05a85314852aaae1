"""Shared memory for batches, which worker processes fill and the parent lends without a copy.

The memory has no name in any file system, so that nothing can be left behind, however its processes end.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections import deque
from collections.abc import Mapping

import numpy as np

from ingest.loading.columns import Batch, Layout

MAX_LENT_BATCHES = 4
"""Batches in their slots that a consumer may hold on to; beyond that it is given copies, and the slots go round."""


class SharedBatchPool:
    """Shared memory for a number of batches. A batch that is lent takes its slot along until nobody holds it."""

    def __init__(self, descriptor: int, layout: Layout):
        self._memory = mmap.mmap(descriptor, 0)
        self._layout = layout
        self._free = deque(range(len(self._memory) // layout.size_bytes))
        self._held: dict[int, tuple[weakref.ref[np.ndarray], int]] = {}
        self._let_go: deque[weakref.ref[np.ndarray]] = deque()

    def take(self) -> int | None:
        """A slot that nobody uses, or None."""
        while self._let_go:
            _, slot = self._held.pop(id(self._let_go.popleft()))
            self._free.append(slot)
        return self._free.popleft() if self._free else None

    def arrays(self, slot: int) -> dict[str, np.ndarray]:
        """The columns in the memory of a slot, flat, for as long as the arrays live."""
        return self._layout.arrays(self._memory, slot * self._layout.size_bytes)

    def lend(self, slot: int, size: int, text: Mapping[str, np.ndarray]) -> Batch:
        """The first ``size`` rows of a filled slot, which is free again once its images are gone; with ``text``."""
        arrays = self.arrays(slot)
        images = arrays["images"].reshape(self._layout.shape)[:size]
        is_copied = len(self._held) - len(self._let_go) >= MAX_LENT_BATCHES
        columns = {**text, **{name: array[:size].copy() for name, array in arrays.items() if name != "images"}}
        columns["images"] = images.copy() if is_copied else images
        if is_copied:
            self._free.append(slot)
        else:
            # What is called when the images are gone must not be Python code: TensorFlow lets go of them within its
            # own calls, where a Ctrl-C that interrupts Python code is lost.
            held = weakref.ref(arrays["images"], self._let_go.append)
            self._held[id(held)] = held, slot
        return Batch({name: columns[name] for name in self._layout.names})


def anonymous_shared_memory(size_bytes: int) -> int:
    """A descriptor of shared memory that exists only as long as somebody has it open."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("ingest-batches")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size_bytes)
    return descriptor
