"""Upsampling of chroma and conversion to RGB, row by row, in integers as libjpeg does it (jdsample.c, jdcolor.c).

The loops are such that LLVM makes vector code of them: indexes without a sign, and numbers of the width that suffices.
"""

from __future__ import annotations

import numpy as np

from ingest.jpeg.vectors import rgb_16
from ingest.system.jit import jit_bare, jit_bare_inline

U, U16 = np.uint64, np.uint16


@jit_bare_inline
def _whole(count: int) -> int:
    """``count`` in whole vectors: what is left over would be done one by one. Arrays have room for it."""
    return U(count + 63) & U(0xFFFFFFC0)


@jit_bare
def blend_rows(samples: np.ndarray, near: int, far: int, count: int, out: np.ndarray, to: int) -> None:
    """``out[to:]``, uint16, of ``count`` samples from ``near`` on, which count three times, and ``far`` on."""
    near, far, to = U(near), U(far), U(to)
    for i in range(_whole(count)):
        out[to + U(i)] = U16(U16(3) * U16(samples[near + U(i)])) + U16(samples[far + U(i)])


@jit_bare
def copy_row(samples: np.ndarray, start: int, count: int, out: np.ndarray, to: int) -> None:
    """``out[to:]``, uint16, of ``count`` samples from ``start`` on."""
    start, to = U(start), U(to)
    for i in range(_whole(count)):
        out[to + U(i)] = samples[start + U(i)]


@jit_bare
def widen_row(row: np.ndarray, count: int, even: int, odd: int, shift: int, out: np.ndarray, to: int) -> None:
    """``out[to:]``, uint8, twice ``count`` samples: each of ``row[1:]`` counts three times, and its neighbour on that
    side once; to the sum ``even`` or ``odd`` is added, so that not all are rounded up."""
    even, odd, shift, to = U16(even), U16(odd), U16(shift), U(to)
    for i in range(_whole(count)):
        triple = U16(U16(3) * row[U(i) + U(1)])
        out[to + U(2) * U(i)] = U16(triple + row[i] + even) >> shift
        out[to + U(2) * U(i) + U(1)] = U16(triple + row[U(i) + U(2)] + odd) >> shift


@jit_bare
def narrow_row(row: np.ndarray, count: int, bias: int, out: np.ndarray, to: int) -> None:
    """``out[to:]``, uint8, a quarter of ``count`` of ``row[1:]``, rounded by ``bias``."""
    bias, to = U16(bias), U(to)
    for i in range(_whole(count)):
        out[to + U(i)] = U16(row[U(i) + U(1)] + bias) >> U16(2)


@jit_bare
def grey_row(samples: np.ndarray, start: int, count: int, channels: int, out: np.ndarray, to: int) -> None:
    """``count`` samples to ``out[to:]``, each of them ``channels`` times."""
    start, to = U(start), U(to)
    if channels == 1:
        for i in range(U(count)):
            out[to + U(i)] = samples[start + U(i)]
        return
    for i in range(U(count)):
        value, at = samples[start + U(i)], to + U(3) * U(i)
        out[at] = out[at + U(1)] = out[at + U(2)] = value


@jit_bare
def to_rgb(
    luma: np.ndarray, y: int, blue: np.ndarray, b: int, red: np.ndarray, r: int, count: int, out: np.ndarray, to: int
) -> None:
    """RGB of ``count`` pixels of YCbCr (ITU-T T.871, section 7) to ``out[to:]``, by libjpeg's numbers of 16 bits."""
    y, b, r, to, count = U(y), U(b), U(r), U(to), U(count)
    if count < U(16):
        for i in range(count):
            _to_rgb(luma[y + U(i)], blue[b + U(i)], red[r + U(i)], out, to + U(3) * U(i))
        return
    i, last = U(0), count - U(16)
    while i < last:
        rgb_16(luma, y + U(i), blue, b + U(i), red, r + U(i), out, to + U(3) * U(i))
        i += U(16)
    rgb_16(luma, y + last, blue, b + last, red, r + last, out, to + U(3) * last)


@jit_bare
def _to_rgb(y: int, cb: int, cr: int, out: np.ndarray, to: int) -> None:
    y, cb, cr = np.int64(y), np.int64(cb) - 128, np.int64(cr) - 128
    # 1.402 Cr, -0.344 Cb - 0.714 Cr, 1.772 Cb; 0.5 to round
    out[to] = _clamp(y + (91881 * cr + 32768 >> 16))
    out[to + U(1)] = _clamp(y + (-22554 * cb - 46802 * cr + 32768 >> 16))
    out[to + U(2)] = _clamp(y + (116130 * cb + 32768 >> 16))


@jit_bare
def _clamp(value: int) -> int:
    return np.uint8(min(max(value, 0), 255))
