"""Every error that this package raises on purpose.

    IngestError
    |-- OptionError       an argument that makes no sense; the command line ends with 2
    |-- SourceError       the photographs cannot be found or read
    |-- BadSampleError    one sample cannot be packed: the build quarantines it
    |-- OutputError       the place to write to cannot be used
    |-- ManifestError     manifest.json is missing, damaged or of another version
    |-- RecordError       a shard, or a record in it, is missing or damaged
    |-- RemoteError       a bucket or a web server does not answer, or refuses to
    `-- WorkerError       a worker process died or broke

Each is built from one string, so that it survives the way from a worker process to its parent.
The string says what is wrong, where, and what to do.
"""


class IngestError(Exception):
    """Base of all errors of this package; ``except ingest.IngestError`` catches them all."""


class OptionError(IngestError, ValueError):
    """An argument or option that makes no sense, alone or with the others."""


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
