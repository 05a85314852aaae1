"""Functions that are compiled when first called, and kept on disk for the next process: the one room of numba.

They see numbers and arrays alone, do not hold the GIL, and do as C does: no check of bounds, no exceptions.
"""

from __future__ import annotations

from numba import njit

compiled = njit(cache=True, nogil=True, error_model="numpy")

inlined = njit(cache=True, nogil=True, error_model="numpy", inline="always")
"""For what is called for each symbol or pixel: a call that passes arrays costs more than its work."""
