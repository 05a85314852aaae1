"""The cut: of a JPEG with restart markers, a JPEG of a region, without decoding anything.

The restart interval divides the MCUs of a row, so that a row of MCUs is a number of whole segments. Those that cover
the region, row by row, put after the same headers with a new height and width in SOF and their markers numbered from
zero, are again a JPEG: of the region, and a little more.

    + - - - - - - + - - - - - - + - - - - - - + - - - - - - +      a row of MCUs is four segments here
    |             |######|######|             |             |
    + - - - - - - +######|######+ - - - - - - + - - - - - - +      # the region: its segments, cut below and on the
    |             |######|######|             |             |        right where it ends
    + - - - - - - + - - - - - - + - - - - - - + - - - - - - +
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ingest.errors import RecordError
from ingest.jpeg.markers import MAX_PIXELS
from ingest.jpeg.region import Region
from ingest.record import Buffer
from ingest.system.jit import jit

_MARGIN = 2
"""Pixels around the region where chroma is subsampled: "fancy" upsampling (libjpeg's jdsample.c) makes a pixel of the
nearest chroma sample and of the next, which at the edge of an image is missing."""

_MIN_WIDTH = 5
"""Narrower images have no more than two chroma samples in a row, and libjpeg does not upsample those "fancily"."""


class JpegCrop(NamedTuple):
    """A JPEG of a region, uint8, and how many rows and columns of it come before the region."""

    encoded: np.ndarray
    top: int
    left: int


def crop_jpeg(encoded: Buffer, segments: Buffer, region: Region) -> JpegCrop:
    """The JPEG of ``region`` in the JPEG ``encoded``, whose restart segments begin at the offsets ``segments``,
    little-endian uint32. Its pixels there are those that decoding all of ``encoded`` gives.

    Raises RecordError where the offsets are not those of such a JPEG, or the region is not within it.
    """
    if len(segments) % 4:
        raise RecordError(f"its restart segments take {len(segments)} bytes, no multiple of 4")
    cut = JpegCrop(*_cut(np.frombuffer(encoded, np.uint8), np.frombuffer(segments, "<u4"), *region))
    if not len(cut.encoded):
        raise RecordError(f"its restart segments do not fit its JPEG, or {region} lies outside of it")
    return cut


@jit
def _cut(
    data: np.ndarray, offsets: np.ndarray, top: int, left: int, height: int, width: int
) -> tuple[np.ndarray, int, int]:
    nothing = np.empty(0, np.uint8)
    segments = len(offsets) - 1
    scan = np.int64(offsets[0]) if segments > 0 else 0
    if scan > len(data):
        return nothing, 0, 0
    frame, interval, h, v = _read_head(data, scan)
    if frame == 0 or interval == 0:
        return nothing, 0, 0
    image_height, image_width = _uint16(data, frame + 5), _uint16(data, frame + 7)
    mcus_a_row, mcu_rows = (image_width + 8 * h - 1) // (8 * h), (image_height + 8 * v - 1) // (8 * v)
    segments_a_row = mcus_a_row // interval
    if (
        segments_a_row * interval != mcus_a_row or segments_a_row * mcu_rows != segments
        or min(top, left) < 0 or min(height, width) < 1 or top + height > image_height or left + width > image_width
    ):  # fmt: skip
        return nothing, 0, 0
    # What must be in the picture. Chroma that is not subsampled in a direction needs no neighbours in it.
    first_x, first_y, end_x, end_y = left, top, left + width, top + height
    if h > 1:
        first_x = max(0, min(left - _MARGIN, image_width - _MIN_WIDTH))
        end_x = min(image_width, max(end_x + _MARGIN, first_x + _MIN_WIDTH))
    if v > 1:
        first_y, end_y = max(0, top - _MARGIN), min(image_height, end_y + _MARGIN)
    segment_width = 8 * h * interval
    first_column, last_column = first_x // segment_width, (end_x - 1) // segment_width
    first_row, last_row = first_y // (8 * v), (end_y - 1) // (8 * v)

    size = scan
    for row in range(first_row, last_row + 1):
        for i in range(row * segments_a_row + first_column, row * segments_a_row + last_column + 1):
            start, end = np.int64(offsets[i]), np.int64(offsets[i + 1])
            marker = 2 if i + 1 < segments else 0
            if not scan <= start < end - marker <= len(data) - marker:
                return nothing, 0, 0
            size += end - start
    out = np.empty(size + 2, np.uint8)
    _copy(data, 0, out, 0, scan)
    # A decoder must find all MCUs of the last segment in the image, if only their first column.
    origin = first_column * segment_width
    needed = min(image_width - origin, ((last_column + 1 - first_column) * interval - 1) * 8 * h + 1)
    cut_height, cut_width = end_y - first_row * 8 * v, max(end_x - origin, needed)
    if cut_height * cut_width > MAX_PIXELS:  # of a long segment, for a region of a few of its pixels
        return nothing, 0, 0
    _put_uint16(out, frame + 5, cut_height)
    _put_uint16(out, frame + 7, cut_width)
    to, number = scan, 0
    for row in range(first_row, last_row + 1):
        # All of a row at once: its segments lie one behind the other, each with the next one's marker at its end.
        first, last = row * segments_a_row + first_column, row * segments_a_row + last_column
        start, end = np.int64(offsets[first]), np.int64(offsets[last + 1])
        _copy(data, start, out, to, end - start)
        for i in range(first, min(last + 1, segments - 1)):
            out[to + np.int64(offsets[i + 1]) - start - 1] = 0xD0 + (number & 7)
            number += 1
        to += end - start
    if last_row + 1 < mcu_rows or last_column + 1 < segments_a_row:
        to -= 2  # the marker of a segment that is not there
    out[to], out[to + 1] = 0xFF, 0xD9
    return out[: to + 2], top - first_row * 8 * v, left - origin


@jit
def _copy(data: np.ndarray, start: int, out: np.ndarray, to: int, size: int) -> None:
    # With indexes that have no sign this becomes a block copy; a slice does not, nor do indexes that may be negative.
    for i in range(np.uint64(size)):
        out[np.uint64(to) + np.uint64(i)] = data[np.uint64(start) + np.uint64(i)]


@jit
def _read_head(data: np.ndarray, scan: int) -> tuple[int, int, int, int]:
    """Where SOF is, the restart interval, and MCUs' height and width in blocks; zeros where there is no such thing."""
    frame, interval, h, v = 0, 0, 1, 1
    offset = 2
    while offset + 12 <= scan:
        marker = data[offset + 1]
        if data[offset] != 0xFF:
            return 0, 0, 1, 1
        if marker == 0xC0 or marker == 0xC1:
            frame = offset
            if data[offset + 9] > 1:  # components; the scan of a single one has a block an MCU
                h, v = max(1, np.int64(data[offset + 11] >> 4)), max(1, np.int64(data[offset + 11] & 15))
        elif marker == 0xDD:
            interval = _uint16(data, offset + 4)
        offset += 2 + _uint16(data, offset + 2)
    return frame, interval, h, v


@jit
def _uint16(data: np.ndarray, offset: int) -> int:
    return np.int64(data[offset]) << 8 | np.int64(data[offset + 1])


@jit
def _put_uint16(out: np.ndarray, offset: int, value: int) -> None:
    out[offset], out[offset + 1] = value >> 8, value & 0xFF
