"""Functions that are compiled when first called, and kept on disk for the next process, by numba.

They see numbers and arrays alone, do not hold the GIL, and do as C does: no check of bounds, no exceptions.

They are kept beside the source or below the home folder. Where neither can be written, as in many containers, it is a
folder of this user's own among the temporary files; where there is none, each process compiles for itself.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import njit

F = TypeVar("F", bound=Callable[..., object])

_VARIABLE = "NUMBA_CACHE_DIR"
"""numba's own; worker processes inherit it."""


def jit(function: F) -> F:
    """Compile ``function``."""
    return _njit(function)


def jit_inline(function: F) -> F:
    """Compile ``function`` as a part of those that call it: for what is called for each symbol, where handing over an
    array costs more than the work."""
    return _njit(function, inline="always")


def _njit(function: F, **options: Any) -> F:
    make = partial(njit, nogil=True, error_model="numpy", **options)
    with suppress(RuntimeError):  # there is no folder for it that can be written
        return make(cache=True)(function)
    if folder := _temporary_folder():
        os.environ[_VARIABLE] = numba.config.CACHE_DIR = folder
        with suppress(RuntimeError):
            return make(cache=True)(function)
    return make()(function)


def _temporary_folder() -> str | None:
    """A folder for compiled functions that nobody else can write to, or None: they are executed unseen."""
    try:
        folder = Path(tempfile.gettempdir()) / f"ingest-numba-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        above, status = folder.parent.stat(), folder.lstat()
    except OSError:
        return None
    # Who may write to the folder above could put another in its place, unless only owners may rename (the sticky bit).
    is_safe_above = above.st_uid in (0, os.geteuid()) and (not above.st_mode & 0o022 or above.st_mode & stat.S_ISVTX)
    is_private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return str(folder) if is_safe_above and is_private else None
