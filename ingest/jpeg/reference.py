"""What the decoder's vector code does, in plain Python.

It is tested against this, and this runs in its place where numba is told not to compile (NUMBA_DISABLE_JIT=1): an index
out of bounds is an error there.
"""

from __future__ import annotations

import numpy as np

_ONE, _PASS1_BITS = 13, 2


def inverse_dct(coefficients: np.ndarray) -> np.ndarray:
    """The samples, uint8 [8, 8], of dequantised coefficients, int [8, 8], vertical frequencies first (T.81, A.3.3).

    By the integers of libjpeg's jidctint.c, after Loeffler, Ligtenberg and Moschytz (ICASSP 1989).
    """
    columns = _one_dimension(coefficients.astype(np.int64), _ONE - _PASS1_BITS)
    rows = _one_dimension(columns.T, _ONE + _PASS1_BITS + 3).T
    return np.clip(rows + 128, 0, 255).astype(np.uint8)


def _one_dimension(x: np.ndarray, shift: int) -> np.ndarray:
    """The inverse DCT of columns, as multiples of 2**-shift."""
    z = (x[2] + x[6]) * 4433
    even = [(x[0] + x[4] << _ONE), (x[0] - x[4] << _ONE)]
    t2, t3 = z - x[6] * 15137, z + x[2] * 6270
    even = [even[0] + t3, even[1] + t2, even[1] - t2, even[0] - t3]
    z1, z2, z3, z4 = x[7] + x[1], x[5] + x[3], x[7] + x[3], x[5] + x[1]
    z5 = (z3 + z4) * 9633
    z1, z2, z3, z4 = z1 * -7373, z2 * -20995, z5 - z3 * 16069, z5 - z4 * 3196
    odd = [x[1] * 12299 + z1 + z4, x[3] * 25172 + z2 + z3, x[5] * 16819 + z2 + z4, x[7] * 2446 + z1 + z3]
    sums = [a + b for a, b in zip(even, odd, strict=True)]
    differences = [a - b for a, b in zip(even, odd, strict=True)]
    return np.array([*sums, *reversed(differences)]) + (1 << (shift - 1)) >> shift


def inverse_dct_pair(
    coefficients: np.ndarray, first: int, second: int, quantisation: np.ndarray, table: int, out: np.ndarray,
    first_to: int, second_to: int, stride: int,
) -> int:  # fmt: skip
    """Put the samples of two blocks where they belong in ``out``, [rows * stride]. Gives 0 if no number in their first
    rows is so large that decoders differ."""
    factors = quantisation[int(table) : int(table) + 64].astype(np.int64)
    for block, to in ((first, first_to), (second, second_to)):
        samples = inverse_dct((coefficients[int(block) : int(block) + 64] * factors).reshape(8, 8))
        for y in range(8):
            for x in range(8):
                out[int(to) + y * int(stride) + x] = samples[y, x]
    rows = (coefficients[int(block) : int(block) + 8] * factors[:8] for block in (first, second))
    return np.uint64(max(np.abs(row).max() for row in rows) > 8191)  # type: ignore[return-value]


def rgb(y: int, cb: int, cr: int) -> tuple[int, ...]:
    """RGB of a pixel of YCbCr (ITU-T T.871, section 7), by the numbers of 16 bits of libjpeg's jdcolor.c."""
    cb, cr = cb - 128, cr - 128
    red, blue = y + (91881 * cr + 32768 >> 16), y + (116130 * cb + 32768 >> 16)
    green = y + (-22554 * cb - 46802 * cr + 32768 >> 16)
    return tuple(min(max(value, 0), 255) for value in (red, green, blue))


def rgb_16(
    luma: np.ndarray, y: int, blue: np.ndarray, b: int, red: np.ndarray, r: int, out: np.ndarray, to: int
) -> None:
    """RGB of 16 pixels to ``out[to:]``."""
    for i in range(16):
        color = rgb(int(luma[int(y) + i]), int(blue[int(b) + i]), int(red[int(r) + i]))
        out[int(to) + 3 * i : int(to) + 3 * i + 3] = color


def copy_32(data: np.ndarray, at: int, out: np.ndarray, to: int) -> int:
    """Copy 32 bytes; gives a bit for each that is FF, the first one's the lowest."""
    part = data[int(at) : int(at) + 32]
    out[int(to) : int(to) + 32] = part
    return np.uint64(sum(1 << i for i in range(32) if part[i] == 0xFF))  # type: ignore[return-value]


def lowest_bit(bits: int) -> int:
    """The number of zeros below the lowest bit that is set."""
    return np.uint64((int(bits) & -int(bits)).bit_length() - 1)  # type: ignore[return-value]
