"""Every error that this package raises on purpose.

    IngestError
    |-- OptionError       an argument that makes no sense
    |-- SourceError       the photographs cannot be found or read
    |-- BadSampleError    one sample cannot be packed: the build quarantines it
    |-- OutputError       the place to write to cannot be used
    |-- ManifestError     manifest.json is missing, damaged or of another version
    |-- RecordError       a shard, or a record in it, is missing or damaged
    |-- RemoteError       a bucket or a web server does not answer, or refuses to
    `-- WorkerError       a worker process died or broke

The message says what is wrong, where, and what to do. Code reads the fields instead. All of an error survives pickling.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar


class IngestError(Exception):
    """Base of all errors of this package; ``except ingest.IngestError`` catches them all."""

    exit_code: ClassVar[int] = 1
    """What the command line ends with after this error."""

    path: str | None
    """The file or the folder concerned, or a URL; the first one where there are several."""

    record: int | None
    """The number of the record in its shard, from 0."""

    key: str | None
    """The key of the sample or of the record."""

    def __init__(
        self, message: str, *, path: str | Path | None = None, record: int | None = None, key: str | None = None
    ):
        super().__init__(message)
        self.path, self.record, self.key = None if path is None else str(path), record, key


class OptionError(IngestError, ValueError):
    """An argument or option that makes no sense, alone or with the others."""

    exit_code = 2


class SourceError(IngestError):
    """The photographs cannot be found, listed or read."""


class BadSampleError(IngestError):
    """One sample cannot be packed: it is empty, truncated, not an image, or outside any class."""


class OutputError(IngestError):
    """The place to write to cannot be used: occupied, inside the source, or not writable."""


class ManifestError(IngestError):
    """A dataset's ``manifest.json`` is missing, damaged, or of a version that we do not read."""


class RecordError(IngestError):
    """A shard, or a record in it, is missing or damaged."""


class RemoteError(IngestError):
    """A bucket or a web server does not answer, time after time, or refuses what it is asked for."""


class WorkerError(IngestError):
    """A worker process was killed, or failed in a way that no other error describes."""


def fields_of(error: Exception, **known: Any) -> dict[str, Any]:
    """The fields of ``error``, with those ``known`` in their place: for an error that is raised from it.

    An error of another package has no fields.
    """
    inner = {name: getattr(error, name) for name in ("path", "record", "key")} if isinstance(error, IngestError) else {}
    return {**inner, **known}
