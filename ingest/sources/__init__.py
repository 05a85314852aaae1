"""Where photographs come from. Each module here opens one kind of source, and knows it by what it is.

To add a kind: a module with ``open(path)``, which gives a Source, or None where ``path`` is something else; and its
name in KINDS.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from ingest.errors import SourceError
from ingest.sample import Sample

NO_CLASS = -1
"""The label of an entry that was found outside every class."""


class Entry(NamedTuple):
    """One thing found in a source: its key, unique in the source, and its label, from 0, or NO_CLASS."""

    key: str
    label: int


class Source(Protocol):
    """A list of entries and a way to read each. It is sent to worker processes, so it holds no open files."""

    classes: tuple[str, ...]
    entries: Sequence[Entry]

    def read(self, entry: Entry) -> Sample:
        """Read an entry's bytes or pixels.

        Raises BadSampleError if the entry can never be packed, SourceError if it cannot be read.
        """


def open_source(path: str | Path) -> Source:
    """List the source at ``path``. Raises SourceError where there is none, or nothing in it."""
    from ingest.sources import folder, idx

    path = Path(path)
    if not os.path.lexists(path):
        raise SourceError(f"{path}: no such file or folder")
    kinds = (idx.open_idx, folder.open_folder)
    for open_kind in kinds:
        try:
            source = open_kind(path)
        except OSError as error:
            raise SourceError(f"{error.filename or path}: cannot be read ({error.strerror})") from error
        if source is not None:
            if not source.entries:
                raise SourceError(f"{path}: no images in it; a source is a folder of CLASS/IMAGE files or IDX files")
            return source
    raise SourceError(f"{path}: not a source; give a folder of CLASS/IMAGE files, or IDX files such as MNIST's")
