"""The resize in packing: area averaging."""

from __future__ import annotations

import math

import numpy as np

from ingest.system.jit import jit


def area_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """``pixels``, uint8 [H, W, C], reduced to ``height`` x ``width`` by area averaging."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrunk = np.empty((height, width, pixels.shape[2]), np.uint8)
    _average(np.ascontiguousarray(pixels), shrunk)
    return shrunk


@jit
def _average(pixels: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` with the means of ``pixels``, uint8 [H, W, C] both, over the areas of its own, rounded."""
    rows = pixels.reshape(len(pixels), -1)
    tops, row_weights = _overlaps(len(pixels), len(out))
    lefts, column_weights = _overlaps(pixels.shape[1], out.shape[1])
    row = np.empty(rows.shape[1], np.float32)
    # Of grey the three channels are one, done three times over: as fast, and there is one loop.
    channels = np.uint64(pixels.shape[2])
    green, blue = channels // np.uint64(2), channels - np.uint64(1)
    for y in range(len(out)):
        row[:] = np.float32(0.5)
        for i in range(row_weights.shape[1]):
            weight, source = row_weights[y, i], rows[tops[y] + i]
            for j in range(len(row)):
                row[j] += weight * np.float32(source[j])
        for x in range(out.shape[1]):
            r = g = b = np.float32(0)
            offset = np.uint64(lefts[x]) * channels
            for i in range(column_weights.shape[1]):
                weight = column_weights[x, i]
                r += weight * row[offset]
                g += weight * row[offset + green]
                b += weight * row[offset + blue]
                offset += channels
            # By way of a signed number, which the processor converts to much faster.
            out[y, x, 0] = np.uint8(np.int32(r))
            out[y, x, green] = np.uint8(np.int32(g))
            out[y, x, blue] = np.uint8(np.int32(b))


@jit
def _overlaps(size: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Of ``size`` pixels cut into equal parts: the first pixel of each, and the shares, float32 [parts, pixels], that
    it and those behind it have in the part."""
    length = size / parts
    reach = min(size, math.ceil(length) + 1)
    firsts, shares = np.empty(parts, np.int64), np.empty((parts, reach), np.float32)
    for part in range(parts):
        firsts[part] = min(int(part * length), size - reach)
        for i in range(reach):
            pixel = firsts[part] + i
            shares[part, i] = max(0.0, min(pixel + 1, (part + 1) * length) - max(pixel, part * length)) / length
    return firsts, shares
