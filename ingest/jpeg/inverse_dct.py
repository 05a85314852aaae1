"""The inverse DCT of the blocks of a row (ITU-T T.81, A.3.3; libjpeg's jidctint.c, to the bit)."""

from __future__ import annotations

import numpy as np

from ingest.jpeg.vectors import inverse_dct_pair, inverse_dct_pair_of_few
from ingest.system.jit import jit_bare, jit_bare_inline

U = np.uint64

_FEW = 9
"""AC coefficients: the first ones in zigzag order lie in the first four rows and columns."""


@jit_bare_inline
def inverse_dct(
    coefficients: np.ndarray, block: int, count: int, step: int, last: np.ndarray, quantisation: np.ndarray, table: int,
    samples: np.ndarray, to: int, width: int, stride: int,
) -> bool:  # fmt: skip
    """Transform ``count`` blocks, each ``step`` behind the one before, into ``samples`` that are ``width`` apart. False
    where coefficients are beyond what any image has, and decoders differ.

    ``last`` says how many AC coefficients of each block may not be zero (see entropy.py).
    """
    block, step, at, width, stride, table = U(block), U(step), U(to), U(width), U(stride), U(table)
    end = block + U(count) * step
    overflow = U(0)
    while block < end:
        other = block + step if block + step < end else block
        gap = width if other > block else U(0)
        most = max(last[block], last[other])
        if most == 0:
            _fill_block(coefficients[block << U(6)], quantisation[table], samples, at, stride)
            _fill_block(coefficients[other << U(6)], quantisation[table], samples, at + gap, stride)
        elif most <= _FEW:
            overflow |= inverse_dct_pair_of_few(
                coefficients, block << U(6), other << U(6), quantisation, table, samples, at, at + gap, stride
            )
        else:
            overflow |= inverse_dct_pair(
                coefficients, block << U(6), other << U(6), quantisation, table, samples, at, at + gap, stride
            )
        block, at = other + step, at + gap + width
    return overflow == U(0)


@jit_bare
def _fill_block(dc: int, factor: int, samples: np.ndarray, at: int, stride: int) -> None:
    """The samples of a block that has DC alone: what both passes of the transform make of it."""
    value = np.uint8(min(max((np.int64(dc) * np.int64(factor) + 4 >> 3) + 128, 0), 255))
    for _ in range(8):
        for i in range(U(8)):
            samples[at + U(i)] = value
        at += stride
