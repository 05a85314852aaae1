"""Functions that are compiled when first called, and kept on disk for the next process: the one room of numba.

They see numbers and arrays alone, do not hold the GIL, and do as C does: no check of bounds, no exceptions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile ``function``."""
    return njit(cache=True, nogil=True, error_model="numpy")(function)


def inlined(function: F) -> F:
    """Compile ``function`` as a part of those that call it: for what is called for each symbol, where handing over an
    array costs more than the work."""
    return njit(cache=True, nogil=True, error_model="numpy", inline="always")(function)
