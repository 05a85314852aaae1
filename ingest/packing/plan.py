"""Which images go into which shard: a pure function of their number, the options and the seed."""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

import numpy as np

from ingest.dataset.manifest import BuildConfig
from ingest.errors import OptionError
from ingest.packing.options import BuildOptions
from ingest.sampler import packing_order
from ingest.sources.base import Entry, Source

RECORDS_A_SHARD = 1250
"""Of about 110 KB each: ImageNet's 1,281,167 training images make 1024 shards, its 50,000 validation images 40."""


MIN_SHARDS, MAX_SHARDS = 8, 1024

CONFIG_OPTIONS = tuple(field.name for field in fields(BuildConfig) if field.name != "source")
"""The options that decide which bytes are written."""


class Part(NamedTuple):
    """A shard of the plan: its file's name, and the positions in the source of its entries, int64 [N]."""

    name: str
    entries: np.ndarray


class Task(NamedTuple):
    """A shard to write: its file's name and its entries, in their order."""

    name: str
    entries: list[Entry]

    def __str__(self) -> str:
        return self.name

    @property
    def images(self) -> int:
        """How many entries."""
        return len(self.entries)

    def key_after(self, done: int) -> str:
        """The entry that comes after so many."""
        return self.entries[done].key if done < len(self.entries) else ""


def build_config(source: Source, options: BuildOptions) -> BuildConfig:
    """What makes two builds the same."""
    of_options = {name: getattr(options, name) for name in CONFIG_OPTIONS}
    of_options["shards"] = len(plan_shards(len(source.entries), options))
    if options.encoding != "jpeg":
        of_options["quality"] = None
    return BuildConfig(source=source.entries.fingerprint(source.classes), **of_options)


def plan_shards(n: int, options: BuildOptions) -> list[Part]:
    """The shards to write of ``n`` entries: a seeded permutation, cut into parts of equal count (give or take one)."""
    shards = options.shards or min(n, max(MIN_SHARDS, min(MAX_SHARDS, -(-n // RECORDS_A_SHARD))))
    if shards > n:
        raise OptionError(f"{shards} shards for {n} images: give at most one an image")
    parts = np.array_split(packing_order(n, options.seed), shards)
    return [Part(name, part) for name, part in zip(shard_names(shards, options.format), parts)]


def shard_names(shards: int, format: str) -> list[str]:
    """The files' names of a number of shards."""
    return [f"{i:05d}-of-{shards:05d}.{format}" for i in range(shards)]
