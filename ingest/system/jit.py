"""Functions that are compiled when first called, and kept on disk for the next process, by numba.

They see numbers and arrays alone, do not hold the GIL, and do as C does: no check of bounds, no exceptions.

They are kept beside the source or below the home folder. Where neither can be written, as in many containers, it is a
folder of this user's own among the temporary files; where there is none, each process compiles for itself.
"""

from __future__ import annotations

import inspect
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
from numba.core.caching import NullCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.sigutils import normalize_signature

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


def jit_bare(function: F) -> F:
    """Compile ``function``, which makes no arrays and returns none, without counting who holds those it is given: where
    it calls others for each symbol or block, counting takes most of the time."""
    return _njit(function, _nrt=False)


def jit_bare_inline(function: F) -> F:
    """The same, and let LLVM put it where it is called."""
    return _njit(function, _nrt=False, forceinline=True)


class Precompiled:
    """A compiled function of one ``signature``, written with numba's types, which a call never compiles: ``load`` tells
    whether it can be called."""

    def __init__(self, function: Callable[..., object], signature: str):
        self._dispatcher: Any = _njit(function)
        self._arguments, _ = normalize_signature(signature)
        self._is_loaded = bool(numba.config.DISABLE_JIT)

    def __call__(self, *arguments: object) -> Any:
        """Call it; it must be loaded."""
        return self._dispatcher(*arguments)

    def load(self) -> bool:
        """Whether it is compiled, in this process or on disk."""
        if not self._is_loaded:
            with global_compiler_lock:  # numba's reading is not for several threads at once
                found = self._dispatcher._cache.load_overload(self._arguments, self._dispatcher.targetctx)
                if found and not self._is_loaded:
                    self._dispatcher.add_overload(found)
                    self._is_loaded = True
        return self._is_loaded

    def compile(self) -> bool:
        """Compile it and keep it on disk, unless ``load`` finds it; whether it can be called. Where it cannot be kept
        nothing is compiled, since each process would have to."""
        if not self.load() and not isinstance(self._dispatcher._cache, NullCache):
            with suppress(OSError):  # of keeping it: this process has it all the same
                self._dispatcher.compile(self._arguments)
            self._is_loaded = bool(self._dispatcher.overloads)
        return self._is_loaded


def _njit(function: F, **options: Any) -> F:
    make = partial(njit, nogil=True, error_model="numpy", **options)
    with suppress(RuntimeError):  # there is no folder for it that can be written
        return _stamped(make(cache=True)(function), function)
    if folder := _temporary_folder():
        os.environ[_VARIABLE] = numba.config.CACHE_DIR = folder
        with suppress(RuntimeError):
            return _stamped(make(cache=True)(function), function)
    return make()(function)


def _stamped(compiled: Any, function: Callable[..., object]) -> Any:
    """Let what is on disk of ``function`` count until a source of its package changes: it holds the functions that it
    calls, and numba looks at its own file alone."""
    files = [(file.name, file.stat()) for file in sorted(Path(inspect.getfile(function)).parent.glob("*.py"))]
    stamp = [(name, status.st_mtime_ns, status.st_size) for name, status in files]
    if not numba.config.DISABLE_JIT:
        compiled._cache._cache_file._source_stamp = stamp
    return compiled


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
