"""Whether a record is one of its dataset, and can be shown: the one check, of the loader and of ``verify --decode``.

A record may come from anywhere. What passes is decoded within bounds, and each region of it is that part of the whole
image. Only whether the coded data themselves are sound is left to the decoder, which says so when it comes to them.
"""

from __future__ import annotations

import numpy as np

from ingest import jpeg
from ingest.dataset.manifest import Manifest
from ingest.errors import BadSampleError, RecordError, fields_of
from ingest.record import JPEG, RAW, Record
from ingest.system.jit import jit

MAX_BYTES = 2**30
"""Of an encoded image."""

MAX_KEY = 65_536
"""Characters; names in tars and tables can be longer than a file system's."""

# 'keep' packs files as JPEGs, and as pixels what comes as pixels.
_FORMATS = {"keep": (JPEG, RAW), "jpeg": (JPEG,), "raw": (RAW,)}


def check_record(record: Record, manifest: Manifest) -> None:
    """Raise RecordError, with the reason, where ``record`` is none of the dataset of ``manifest``.

    Its label and its class's name belong together; its size is within that of the greatest image that is packed; its
    pixels, or its JPEG's header, are of that size; its segments are those of its JPEG, all of them, in order.
    """
    label, classes = record.label, manifest.classes
    if not 0 <= label < len(classes):
        raise RecordError(f"its label {label} is none of the {len(classes)} classes of the manifest")
    if record.synset != classes[label]:
        raise RecordError(
            f"its label {label} is that of {classes[label]!r}, and its class's name is {record.synset[:100]!r}"
        )
    if len(record.key) > MAX_KEY:
        raise RecordError(f"a key of {len(record.key)} characters, of {MAX_KEY} at most")
    shape = record.height, record.width, record.channels
    if record.channels not in (1, 3) or record.channels > manifest.channels:
        raise RecordError(f"{record.channels} channels, in a dataset of {manifest.channels}")
    if min(shape) < 1 or record.height * record.width > jpeg.MAX_PIXELS:
        raise RecordError(f"{record.width} x {record.height} pixels: not from 1 to the limit of {jpeg.MAX_PIXELS}")
    if record.format not in _FORMATS[manifest.encoding] or len(record.encoded) > MAX_BYTES:
        content = f"{len(record.encoded)} bytes of format {record.format[:100]!r}"
        raise RecordError(f"{content}, in a dataset of encoding {manifest.encoding}")
    if record.format == RAW:
        if len(record.encoded) != record.height * record.width * record.channels or len(record.segments):
            raise RecordError(f"{len(record.encoded)} bytes for {shape} pixels")
    elif len(record.segments):
        _check_segments(record, shape)
    else:
        _check_header(record, shape)


def _check_segments(record: Record, shape: tuple[int, int, int]) -> None:
    fits = False
    if len(record.segments) % 4 == 0:
        data, offsets = np.frombuffer(record.encoded, np.uint8), np.frombuffer(record.segments, "<u4")
        *actual_shape, fits = _read_restarts(data, offsets)
        if fits:
            _check_size(tuple(actual_shape), shape)
    if not fits:
        raise RecordError("its restart segments do not fit its JPEG, whose regions are not decodable")


def _check_header(record: Record, shape: tuple[int, int, int]) -> None:
    data = bytes(record.encoded)
    try:
        if not data.startswith(jpeg.START):
            raise RecordError("not a JPEG")
        header = jpeg.read_header(data)
        jpeg.check_scan_count(data, header)
    except BadSampleError as error:
        raise RecordError(str(error), **fields_of(error)) from error
    _check_size((header.height, header.width, header.channels), shape)


def _check_size(actual_shape: tuple[int, ...], shape: tuple[int, int, int]) -> None:
    if actual_shape != shape:
        raise RecordError(f"an image of {actual_shape} pixels for {shape}")


@jit
def _read_restarts(data: np.ndarray, offsets: np.ndarray) -> tuple[int, int, int, bool]:
    """Height, width and components of a JPEG, and whether it is a baseline JPEG in one scan, with nothing before it but
    its header, whose restart segments begin at ``offsets``, uint32, behind their markers, and end at the last."""
    segments = len(offsets) - 1
    if segments < 1:
        return 0, 0, 0, False
    scan, end = np.int64(offsets[0]), np.int64(offsets[segments])
    height, width, channels, sampling, interval = _read_header(data, scan)
    # A marker behind the header is that of a segment, or of the end; in coded data a byte FF is followed by a zero.
    if height * width * channels * interval == 0 or not scan < end <= len(data) - 2:
        return 0, 0, 0, False
    if data[end] != 0xFF or data[end + 1] != 0xD9 or _count_markers(data, scan, end) != segments - 1:
        return height, width, channels, False
    mcu_width, mcu_height = 8 * (sampling >> 4), 8 * (sampling & 15)
    mcus_a_row, rows = (width + mcu_width - 1) // mcu_width, (height + mcu_height - 1) // mcu_height
    if mcus_a_row % interval or mcus_a_row // interval * rows != segments:
        return height, width, channels, False
    before = scan
    for i in range(1, segments):
        offset = np.int64(offsets[i])
        # A segment has a byte at the least.
        if not before + 2 < offset < end or data[offset - 2] != 0xFF or data[offset - 1] != 0xD0 + ((i - 1) & 7):
            return height, width, channels, False
        before = offset
    return height, width, channels, before < end


@jit
def _read_header(data: np.ndarray, scan: int) -> tuple[int, int, int, int, int]:
    """Height, width, components, sampling factors and restart interval, by segments without gaps that end with the
    header of an only scan at byte ``scan``; zeros where they are others."""
    height, width, channels, sampling, interval = 0, 0, 0, 0, 0
    offset = 2
    if scan > len(data) or scan < 4 or data[0] != 0xFF or data[1] != 0xD8:
        return 0, 0, 0, 0, 0
    while offset + 4 <= scan and data[offset] == 0xFF:
        marker, size = data[offset + 1], np.int64(data[offset + 2]) << 8 | np.int64(data[offset + 3])
        end = offset + 2 + size
        if end > scan or size < 2:
            break
        if marker == 0xC0 or marker == 0xC1:
            if size < 11 or channels:
                break
            height, width = (
                np.int64(data[offset + 5]) << 8 | data[offset + 6],
                np.int64(data[offset + 7]) << 8 | data[offset + 8],
            )
            channels, sampling = np.int64(data[offset + 9]), np.int64(data[offset + 11])
            if data[offset + 4] != 8 or size != 8 + 3 * channels:
                break
            if channels == 1:
                sampling = 0x11  # the scan of a single component has a block an MCU
            elif channels != 3 or not _is_usual(sampling) or data[offset + 14] != 0x11 or data[offset + 17] != 0x11:
                break
        elif marker == 0xDD:
            if size != 4 or interval:
                break
            interval = np.int64(data[offset + 4]) << 8 | data[offset + 5]
        elif marker == 0xDA:
            if end == scan and size == 6 + 2 * channels and data[offset + 4] == channels:
                return height, width, channels, sampling, interval
            break
        elif marker != 0xC4 and (marker < 0xDB or marker == 0xFF):  # other frames, or what has no length
            break
        offset = end
    return 0, 0, 0, 0, 0


@jit
def _is_usual(sampling: int) -> bool:
    """Whether luma has a horizontal and a vertical factor that regions can be cut by, where those of chroma are 1."""
    return (
        sampling == 0x11 or sampling == 0x12 or sampling == 0x21
        or sampling == 0x22 or sampling == 0x41 or sampling == 0x14
    )  # fmt: skip


@jit
def _count_markers(data: np.ndarray, start: int, end: int) -> int:
    """How many markers begin in ``data`` from ``start`` to ``end``."""
    # With indexes that have no sign this takes many bytes at a time, and with a short number twice as many.
    count = np.uint32(0)
    for i in range(np.uint64(start), np.uint64(end)):
        count = np.uint32(count + ((data[i] == 0xFF) & (data[np.uint64(i) + np.uint64(1)] != 0)))
    return np.int64(count)
