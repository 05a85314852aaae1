"""How records lie in a file. Each module here is one format; it frames opaque bytes and knows nothing of images.

To add a format, add a module with two functions:

    write(path, payloads) -> None      write a shard of any number of payloads, bytes each; OSError if that fails
    open(path) -> Shard                open one by mmap: len(), get(i) -> a buffer, close()

A shard's bytes are a function of its payloads alone. ``get`` raises RecordError where record i is damaged; who calls it
knows the file and the record, so the error says what is wrong, and at which byte.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, cast

from ingest.sample import Buffer

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
"""All formats; a shard file's suffix is its format's name."""


class Shard(Protocol):
    """A shard open for reading. Buffers that ``get`` gave are valid until ``close``."""

    def __len__(self) -> int: ...

    def get(self, i: int) -> Buffer:
        """Record ``i``, as a view of the file where the format allows."""

    def close(self) -> None:
        """Unmap the file."""


class Format(Protocol):
    """What a module here offers."""

    def write(self, path: Path, payloads: Iterable[bytes]) -> None:
        """Write a shard, whole or not at all."""

    def open(self, path: Path) -> Shard:
        """Open a shard for reading."""


def load(name: str) -> Format:
    """The module of the format ``name``, one of NAMES; its library is imported only now."""
    return cast(Format, importlib.import_module(f"{__name__}.{name}"))
