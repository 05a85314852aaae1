"""What is written to stdout and stderr: line by line, with nothing in a line that a terminal would obey.

Names of files, classes and keys may hold anything. An output that cannot be written to ends no work: results go on to
their files, and ``failed`` tells in the end.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

_failure: OSError | None = None


def forget_failure() -> None:
    """Forget that writing failed, in what was done before by this process."""
    global _failure
    _failure = None


def open_descriptors() -> None:
    """See that the descriptors 0 to 2 are open.

    Where one is not, the next file to be opened would be taken for it: what a library prints to its stderr would end up
    in a shard, and what workers share would be closed in them.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


def printable(text: str) -> str:
    r"""``text`` on one line: what has no shape, such as a line break or an escape, as ``\n`` or ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def print_results(*lines: str) -> None:
    """Write results to stdout, each string as a line."""
    global _failure
    _failure = _written(sys.stdout, lines) or _failure


def print_errors(*lines: str) -> None:
    """Write errors and remarks to stderr, each string as a line."""
    _written(sys.stderr, lines)


def failed() -> OSError | None:
    """Why stdout could not be written to, if it could not: BrokenPipeError where its reader, such as head, has gone."""
    print_results()  # what others have left in its buffer
    return _failure


class Stderr:
    """sys.stderr for what shows progress: where it is missing, full or closed, nothing is shown."""

    def write(self, text: str) -> int:
        """Write ``text`` if that is possible."""
        _written(sys.stderr, (), text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: all is flushed when it is written."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()

    def fileno(self) -> int:
        """Its descriptor. Raises OSError or ValueError where there is none."""
        if sys.stderr is None:
            raise OSError("there is no stderr")
        return sys.stderr.fileno()

    @property
    def encoding(self) -> str:
        """Its encoding."""
        return _encoding(sys.stderr)


def _written(stream: TextIO | None, lines: tuple[str, ...], text: str = "") -> OSError | None:
    """Write and flush, if there is a stream; the error, if there was one."""
    if stream is None or stream.closed:
        return None
    text += "".join(f"{printable(line)}\n" for line in lines)
    encoding = _encoding(stream)
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        # What is still in its buffer must not fail once more when Python ends.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return error
    return None


def _encoding(stream: TextIO | None) -> str:
    return getattr(stream, "encoding", None) or "utf-8"
