"""A region of a JPEG with restart segments to pixels, and nothing outside of it.

    headers.py -> entropy.py -> inverse_dct.py -> color.py
    tables        coefficients   samples           RGB

Restart segments that cover the region are decoded, a few rows of them at a time, so that their coefficients stay in the
processor's cache; the samples of the region's MCUs are kept until all are there.

    + - - - - - - + - - - - - - + - - - - - - + - - - - - - +      a row of MCUs is four segments here
    |             |######|######|             |             |
    + - - - - - - +######|######+ - - - - - - + - - - - - - +      # the region, and the segments that are decoded
    |             |######|######|             |             |
    + - - - - - - + - - - - - - + - - - - - - + - - - - - - +
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ingest.jpeg.color import blend_rows, copy_row, grey_row, narrow_row, to_rgb, widen_row
from ingest.jpeg.entropy import CODES, PADDING, SPARE, TABLE, decode_segments, unstuff
from ingest.jpeg.headers import (
    AC,
    COMPONENTS,
    DC,
    FRAME,
    HEIGHT,
    INTERVAL,
    QUANTISATION,
    WIDTH,
    H,
    V,
    read_header,
)  # fmt: skip
from ingest.jpeg.inverse_dct import inverse_dct
from ingest.record import Buffer
from ingest.system.jit import Precompiled, jit_bare

U = np.uint64

_BLOCKS_AT_ONCE, _SEGMENTS_AT_ONCE = 480, 4
"""About how many blocks are decoded in one go: their coefficients take 60 KB, which caches hold. And how many segments
at the least: of fewer, a stream waits more often alone."""

_MAX_DC = 8191
"""Of a DC coefficient times its quantisation, eight times what white has: larger ones may overflow 16 bits later."""

_ROW_PADDING = 64
"""Samples behind those of a row that loops may read."""

_MIN_WIDTH = 5
"""Of narrower images libjpeg repeats chroma samples, which are two in a row at most, instead of interpolating them
(jdsample.c)."""

# The numbers of a plan: the first row and column of MCUs that are needed, and how many; the same of segments in a row.
_ROW, _COLUMN, _ROWS, _COLUMNS, _SEGMENT, _SEGMENTS, _SEGMENTS_A_ROW = range(7)

# Columns of the array ``blocks``, which has a row for each block of an MCU: its component; where its tables begin;
# where the first block's samples go, or -1 if nowhere; how far those of the next MCU are, of the next row of MCUs, and
# of the next row of samples.
_COMPONENT, _DC_TABLE, _AC_TABLE, _FACTORS, _FIRST, _STEP, _ROW_STEP, _STRIDE = range(8)


class Region(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def try_decode_region(data: Buffer, segments: Buffer, channels: int, region: Region) -> np.ndarray | None:
    """Decode ``region`` of the JPEG ``data``, whose restart segments begin at the offsets ``segments``, little-endian
    uint32, the last of which is the end: uint8 [region.height, region.width, channels], 1 (of a colour image: its luma)
    or 3, RGB. They are libjpeg-turbo's pixels, to the bit.

    None where the decoder is not compiled, the JPEG is of another kind, or it is not plainly sound in all segments that
    cover the region: decode it by libjpeg-turbo then, which may tell what is wrong with it.
    """
    _, _, height, width = region
    if not decoder.load() or min(height, width) < 1 or channels not in (1, 3):
        return None
    pixels = np.empty(height * width * channels, np.uint8)
    # Of memory that can be written to, numba would compile another one.
    encoded, offsets = (np.frombuffer(memoryview(part).toreadonly(), np.uint8) for part in (data, segments))
    done = decoder(encoded, offsets, *region, channels, pixels)
    return pixels.reshape(height, width, channels) if done else None


def _decode_region(
    data: np.ndarray, segments: np.ndarray, top: int, left: int, height: int, width: int, channels: int, out: np.ndarray
) -> bool:
    """Write a region into ``out``, uint8 [height * width * channels]. False where try_decode_region() gives None."""
    offsets = np.empty(len(segments) // 4, np.int64)
    for i in range(len(offsets)):
        offsets[i] = _uint32(segments, 4 * i)
    frame, components, plan = np.zeros(FRAME, np.int64), np.zeros((3, 4), np.int64), np.zeros(7, np.int64)
    quantisation, codes = np.zeros(4 * 64, np.int16), np.zeros(4 * CODES, np.int32)
    tables, found = np.empty(4 * TABLE, np.uint64), np.zeros((2, 4), np.bool_)
    if (
        len(offsets) < 2 or len(segments) % 4
        or not read_header(data, offsets[0], frame, components, quantisation, tables, codes, found)
        or not _plan(frame, len(offsets) - 1, top, left, height, width, plan)
    ):  # fmt: skip
        return False
    blocks = np.zeros((frame[H] * frame[V] + frame[COMPONENTS] - 1, 8), np.int64)
    samples = np.empty(_plan_blocks(frame, components, plan, channels, blocks), np.uint8)
    in_a_row = plan[_SEGMENTS] * frame[INTERVAL] * len(blocks)
    rows_at_once = max(-(-_SEGMENTS_AT_ONCE // plan[_SEGMENTS]), _BLOCKS_AT_ONCE // in_a_row)
    most = rows_at_once * plan[_SEGMENTS]
    clean, bounds = np.empty(len(data) + PADDING, np.uint8), np.empty((most, 2), np.int64)
    predictions = np.empty(3, np.int64)
    room = most * frame[INTERVAL] * len(blocks) + SPARE
    coefficients, last = np.empty(64 * room, np.int16), np.empty(room, np.uint8)
    for row in range(0, plan[_ROWS], rows_at_once):
        rows = min(rows_at_once, plan[_ROWS] - row)
        if not _unstuff_rows(data, offsets, plan, row, rows, clean, bounds) or not _decode_rows(
            frame, plan, row, rows, blocks, clean, bounds, tables, codes, quantisation, predictions, coefficients, last,
            samples,
        ):  # fmt: skip
            return False
    row, chroma = np.empty(width + 4 + _ROW_PADDING, np.uint16), np.empty(2 * (width + 4 + 2 * _ROW_PADDING), np.uint8)
    _show(samples, frame, plan, blocks, top, left, height, width, channels, row, chroma, out)
    return True


@jit_bare
def _uint32(data: np.ndarray, at: int) -> int:
    at = U(at)
    return (
        np.int64(data[at]) | np.int64(data[at + U(1)]) << 8 | np.int64(data[at + U(2)]) << 16
        | np.int64(data[at + U(3)]) << 24
    )  # fmt: skip


decoder = Precompiled(
    _decode_region,
    "boolean(Array(uint8, 1, 'C', readonly=True), Array(uint8, 1, 'C', readonly=True), "
    "int64, int64, int64, int64, int64, Array(uint8, 1, 'C'))",
)


@jit_bare
def _plan(frame: np.ndarray, segments: int, top: int, left: int, height: int, width: int, plan: np.ndarray) -> bool:
    """Which MCUs and segments of the image a region needs. False where the segments do not fit the image."""
    h, v, interval = frame[H], frame[V], frame[INTERVAL]
    mcus_a_row, mcu_rows = -(-frame[WIDTH] // (8 * h)), -(-frame[HEIGHT] // (8 * v))
    segments_a_row = mcus_a_row // interval
    if (
        segments_a_row * interval != mcus_a_row or segments_a_row * mcu_rows != segments
        or min(top, left) < 0 or min(height, width) < 1 or top + height > frame[HEIGHT] or left + width > frame[WIDTH]
        or (h > 1 and frame[WIDTH] < _MIN_WIDTH)
    ):  # fmt: skip
        return False
    # Where chroma is subsampled, a pixel is made of the nearest sample and the next, which may be in another MCU.
    margin_x, margin_y = 2 * (h - 1), 2 * (v - 1)
    plan[_ROW], plan[_COLUMN] = max(0, top - margin_y) // (8 * v), max(0, left - margin_x) // (8 * h)
    plan[_ROWS] = (min(frame[HEIGHT], top + height + margin_y) - 1) // (8 * v) + 1 - plan[_ROW]
    plan[_COLUMNS] = (min(frame[WIDTH], left + width + margin_x) - 1) // (8 * h) + 1 - plan[_COLUMN]
    plan[_SEGMENT] = plan[_COLUMN] // interval
    plan[_SEGMENTS] = (plan[_COLUMN] + plan[_COLUMNS] - 1) // interval + 1 - plan[_SEGMENT]
    plan[_SEGMENTS_A_ROW] = segments_a_row
    return True


@jit_bare
def _plan_blocks(frame: np.ndarray, components: np.ndarray, plan: np.ndarray, channels: int, blocks: np.ndarray) -> int:
    """Fill ``blocks``; gives how many samples there are. They lie component after component, in rows."""
    h, v, size = frame[H], frame[V], 0
    shown = frame[COMPONENTS] if channels == 3 else 1  # of a colour image, grey is its luma
    for i in range(len(blocks)):
        c = max(0, i - h * v + 1)
        x, y, across, down = (0, 0, 1, 1) if c else (i % h, i // h, h, v)
        stride = 8 * across * plan[_COLUMNS]
        blocks[i, _COMPONENT], blocks[i, _FACTORS] = c, 64 * components[c, QUANTISATION]
        blocks[i, _DC_TABLE], blocks[i, _AC_TABLE] = TABLE * components[c, DC], TABLE * components[c, AC]
        blocks[i, _FIRST] = size + 8 * y * stride + 8 * x if c < shown else -1
        blocks[i, _STEP], blocks[i, _ROW_STEP], blocks[i, _STRIDE] = 8 * across, 8 * down * stride, stride
        if x == across - 1 and y == down - 1 and c < shown:
            size += 8 * down * stride * plan[_ROWS] + _ROW_PADDING
    return size


@jit_bare
def _unstuff_rows(
    data: np.ndarray, offsets: np.ndarray, plan: np.ndarray, row: int, rows: int, clean: np.ndarray, bounds: np.ndarray
) -> bool:
    """Put the bits of the segments of some rows into ``clean``, and where they are into ``bounds``. False where they do
    not lie within the data, with a marker behind each but the image's last."""
    n, to = 0, 0
    for r in range(plan[_ROW] + row, plan[_ROW] + row + rows):
        first = r * plan[_SEGMENTS_A_ROW] + plan[_SEGMENT]
        for i in range(first, first + plan[_SEGMENTS]):
            is_last = i + 2 == len(offsets)
            start, end = offsets[i], offsets[i + 1] - (0 if is_last else 2)
            if not offsets[0] <= start < end <= len(data) or to + end - start > len(data):
                return False
            if not is_last and (end == len(data) or data[end] != 0xFF):
                return False
            bounds[n, 0] = to
            to = unstuff(data, start, end, clean, to)
            if to < 0:
                return False
            bounds[n, 1] = to
            n += 1
    for i in range(U(PADDING)):
        clean[U(to) + U(i)] = 0
    return True


@jit_bare
def _decode_rows(
    frame: np.ndarray, plan: np.ndarray, row: int, rows: int, blocks: np.ndarray, clean: np.ndarray, bounds: np.ndarray,
    tables: np.ndarray, codes: np.ndarray, quantisation: np.ndarray, predictions: np.ndarray, coefficients: np.ndarray,
    last: np.ndarray, samples: np.ndarray,
) -> bool:  # fmt: skip
    """Decode the segments of some rows to samples. False where they are not sound."""
    count, interval, in_mcu = rows * plan[_SEGMENTS], frame[INTERVAL], len(blocks)
    in_segment = interval * in_mcu
    for i in range(U(64 * (count * in_segment + SPARE))):
        coefficients[i] = 0
    dc, ac = blocks[:, _DC_TABLE], blocks[:, _AC_TABLE]
    if not decode_segments(clean, bounds, count, in_segment, dc, ac, tables, codes, coefficients, last):
        return False
    for n in range(count):
        first = n * in_segment
        if not _sum_dc(coefficients, first, interval, blocks, quantisation, predictions):
            return False
        # The MCUs of the segment that are needed.
        mcu = (plan[_SEGMENT] + n % plan[_SEGMENTS]) * interval
        start = max(mcu, plan[_COLUMN])
        mcus = min(mcu + interval, plan[_COLUMN] + plan[_COLUMNS]) - start
        for i in range(in_mcu):
            if blocks[i, _FIRST] < 0:
                continue
            to = (
                blocks[i, _FIRST] + (row + n // plan[_SEGMENTS]) * blocks[i, _ROW_STEP]
                + (start - plan[_COLUMN]) * blocks[i, _STEP]
            )  # fmt: skip
            if not inverse_dct(
                coefficients, first + (start - mcu) * in_mcu + i, mcus, in_mcu, last, quantisation, blocks[i, _FACTORS],
                samples, to, blocks[i, _STEP], blocks[i, _STRIDE],
            ):  # fmt: skip
                return False
    return True


@jit_bare
def _sum_dc(
    coefficients: np.ndarray, first: int, mcus: int, blocks: np.ndarray, quantisation: np.ndarray,
    predictions: np.ndarray,
) -> bool:  # fmt: skip
    """Put DC coefficients where their differences are (F.2.2.1). False where one is far beyond what a pixel can be."""
    predictions[0] = predictions[1] = predictions[2] = 0
    at, sound = U(first) << U(6), True
    for _ in range(mcus):
        for i in range(U(len(blocks))):
            component = blocks[i, _COMPONENT]
            value = predictions[component] + np.int64(coefficients[at])
            sound &= -_MAX_DC <= value * np.int64(quantisation[blocks[i, _FACTORS]]) <= _MAX_DC
            coefficients[at] = value
            predictions[component] = value
            at += U(64)
    return sound


@jit_bare
def _show(
    samples: np.ndarray, frame: np.ndarray, plan: np.ndarray, blocks: np.ndarray, top: int, left: int, height: int,
    width: int, channels: int, row: np.ndarray, chroma: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """The pixels of a region of its samples. ``row`` and ``chroma`` are scratch space."""
    h, v, stride = frame[H], frame[V], blocks[0, _STRIDE]
    luma = (top - 8 * v * plan[_ROW]) * stride + left - 8 * h * plan[_COLUMN]
    if channels == 1 or frame[COMPONENTS] == 1:
        for y in range(height):
            grey_row(samples, luma + y * stride, width, channels, out, y * width * channels)
        return
    blue, red = blocks[h * v, _FIRST], blocks[h * v + 1, _FIRST]
    if h == v == 1:
        for y in range(height):
            at = luma + y * stride
            to_rgb(samples, at, samples, blue + at, samples, red + at, width, out, 3 * y * width)
        return
    first = left // h
    count, half = (left + width - 1) // h + 1 - first, len(chroma) // 2
    for y in range(height):
        _upsample(samples, frame, plan, blue, top + y, first, count, row, chroma, 0)
        _upsample(samples, frame, plan, red, top + y, first, count, row, chroma, half)
        at = left - h * first
        to_rgb(samples, luma + y * stride, chroma, at, chroma, half + at, width, out, 3 * y * width)


@jit_bare
def _upsample(
    samples: np.ndarray, frame: np.ndarray, plan: np.ndarray, base: int, y: int, first: int, count: int,
    row: np.ndarray, chroma: np.ndarray, to: int,
) -> None:  # fmt: skip
    """Interpolate ``count`` chroma samples for the image's row ``y`` between the two nearest in each direction that has
    fewer of them, 3 to 1; at the image's edge, with the nearest itself."""
    h, v = frame[H], frame[V]
    width, height = -(-frame[WIDTH] // h), -(-frame[HEIGHT] // v)
    before, behind = min(1, first), min(1, width - first - count)
    stride = 8 * plan[_COLUMNS]
    start = base + first - before - 8 * plan[_COLUMN]
    near = y // v
    at = start + (near - 8 * plan[_ROW]) * stride
    # Samples go to row[1:], their neighbours to both sides of them.
    if v == 2:
        far = min(max(near + (1 if y % 2 else -1), 0), height - 1)
        blend_rows(samples, at, start + (far - 8 * plan[_ROW]) * stride, before + count + behind, row, 1 - before)
    else:
        copy_row(samples, at, before + count + behind, row, 1 - before)
    if not before:
        row[0] = row[1]
    if not behind:
        row[count + 1] = row[count]
    if h == 1:
        narrow_row(row, count, 1 + y % 2, chroma, to)
    elif v == 1:
        widen_row(row, count, 1, 2, 2, chroma, to)
    else:
        widen_row(row, count, 8, 7, 4, chroma, to)
