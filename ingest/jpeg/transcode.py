"""Any Huffman-coded JPEG to the baseline JPEG of the same coefficients, and so the same pixels, with restart markers.

The markers cut the coded data into segments that can be decoded alone, so that a crop needs only the segments that
cover it (see crop.py). Application data that no decoder needs, such as EXIF, is left behind, and Huffman tables are
made anew for the image: of what the markers cost, the tables save a part.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ingest.jpeg import huffman
from ingest.jpeg.markers import (
    APP0,
    APP14,
    DHT,
    DQT,
    DRI,
    END,
    EOI,
    FRAMES,
    SOF0,
    SOF1,
    SOF2,
    SOS,
    START,
    Component,
    Header,
    check_single_frame,
    next_segment,
    write_segment,
)
from ingest.jpeg.scans import Coverage, Scan, UnsupportedScanError, read_scan, require

SEGMENT_PIXELS = 32
"""Width of a segment that is aimed at. Measured on ImageNet's files: narrower ones save little more decoding."""

MIN_SEGMENT_PIXELS = 24

MAX_BYTES = 2**24
"""Larger files are not given restart markers: coding them anew takes up to 32 bytes of memory a byte."""

_MAX_BLOCKS = 10  # in an MCU (B.2.3)

_JFIF = b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"  # version 1.1, square pixels, no thumbnail

_READ_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xda\xdb\xdd]")
"""Frames, tables, scans and restart intervals."""


class Restarted(NamedTuple):
    """A baseline JPEG with restart markers: its bytes, its segments' offsets as little-endian uint32, and whether its
    source had an end marker, and stray bytes between its segments."""

    encoded: bytes
    segments: bytes
    had_end: bool
    had_stray: bool


class _Geometry(NamedTuple):
    """How an image is made of MCUs, and its components of blocks (see huffman.py for ``layout``)."""

    mcu_width: int
    mcus_a_row: int
    mcu_rows: int
    layout: np.ndarray

    @property
    def mcus(self) -> int:
        return self.mcus_a_row * self.mcu_rows

    @property
    def blocks(self) -> int:
        return self.mcus * int((self.layout[:, huffman.H] * self.layout[:, huffman.V]).sum())


def transcode(data: bytes, header: Header) -> Restarted:
    """Give a Huffman-coded JPEG of 8 bits restart markers, and the least sampling factors that say the same.

    Raises UnsupportedScanError where its coded data are not plainly a sound JPEG's, BadSampleError where it ends before
    its last scan, or decoders refuse it.
    """
    if len(data) > MAX_BYTES:
        raise UnsupportedScanError(f"over {MAX_BYTES >> 20} MiB")
    components = least_factors(header.components)
    require(sum(c.h * c.v for c in components) <= _MAX_BLOCKS)
    geometry = _geometry(header, components)
    interval = restart_interval(geometry.mcus_a_row, geometry.mcu_width)
    reader = _Reader(data, header, geometry, interval)
    try:
        reader.read()
    except (LookupError, ValueError) as error:  # a segment that is too short, or names what there is not
        raise UnsupportedScanError from error
    tables = _optimal_tables(reader.histogram)
    scan, offsets = huffman.encode_scan(reader.symbols, reader.histogram, *tables)
    head = _head(header, *reader.quantised(components), tables, interval)
    segments = (offsets + np.uint32(len(head))).astype("<u4").tobytes()
    return Restarted(b"".join((head, scan.data, END)), segments, reader.had_end, reader.had_stray)


@lru_cache
def least_factors(components: tuple[Component, ...]) -> tuple[Component, ...]:
    """The components with the least sampling factors in the same proportion: what is coded is as large by either, but
    for blocks beyond the image's edge."""
    h, v = math.gcd(*(c.h for c in components)), math.gcd(*(c.v for c in components))
    if h == v == 1:
        return components
    return tuple(c._replace(h=c.h // h, v=c.v // v) for c in components)


def find_segments(data: bytes, header: Header) -> bytes:
    """The offsets of the restart segments, as little-endian uint32, of a sound JPEG of one scan that has them."""
    coded = np.frombuffer(data, np.uint8)[header.scan :]
    # In coded data a byte FF is followed by a zero, but in markers: those of restarts, and at last that of the end.
    *restarts, end = np.flatnonzero((coded[:-1] == 0xFF) & (coded[1:] != 0))
    return (np.array([0, *(restart + 2 for restart in restarts), end]) + header.scan).astype("<u4").tobytes()


def restart_interval(mcus_a_row: int, mcu_width: int) -> int:
    """MCUs in a segment: the divisor of those in a row whose width is nearest to SEGMENT_PIXELS; all of them if none of
    its divisors gives MIN_SEGMENT_PIXELS."""
    divisors = [i for i in range(1, mcus_a_row) if mcus_a_row % i == 0 and i * mcu_width >= MIN_SEGMENT_PIXELS]
    return min([*divisors, mcus_a_row], key=lambda i: abs(i * mcu_width - SEGMENT_PIXELS))


def _geometry(header: Header, components: tuple[Component, ...]) -> _Geometry:
    h_max, v_max = max(c.h for c in components), max(c.v for c in components)
    mcus_a_row, mcu_rows = -(-header.width // (8 * h_max)), -(-header.height // (8 * v_max))
    layout, first = [], 0
    for c in components:
        width, height = -(-header.width * c.h // h_max), -(-header.height * c.v // v_max)
        layout.append((c.h, c.v, mcus_a_row * c.h, -(-width // 8), -(-height // 8), first))
        first += mcus_a_row * c.h * mcu_rows * c.v
    return _Geometry(8 * h_max, mcus_a_row, mcu_rows, np.array(layout, np.int64))


class _Reader:
    """Reads all of a JPEG's segments; its symbols, with restarts where they shall be, are the result."""

    def __init__(self, data: bytes, header: Header, geometry: _Geometry, interval: int):
        self.had_end = self.had_stray = False
        self.symbols, self.histogram = np.empty(0, np.uint32), np.zeros((4, 257), np.int64)
        self._data, self._bytes = data, np.frombuffer(data, np.uint8)
        self._header, self._new_geometry, self._new_interval = header, geometry, interval
        # The scan of a single component has one block an MCU, whatever its sampling factors say (A.2.2).
        is_least = header.channels == 1 or least_factors(header.components) == header.components
        self._geometry = geometry if is_least else _geometry(header, header.components)
        self._interval = 0
        self._tables, self._too_large = np.zeros(8 * huffman.TABLE, np.int32), set[int]()
        self._item_tables = np.zeros((4, huffman.ITEM_TABLE), np.uint64)
        self._quantisation: dict[int, bytes] = {}
        # Of each component the table that stood when its first scan began: its own from then on, to libjpeg, too.
        self._latched: dict[int, bytes] = {}
        self._coefficients: np.ndarray | None = None
        self._coverage = Coverage(header)

    def read(self) -> None:
        offset, frame = len(START), None
        while segment := next_segment(self._data, offset):
            offset = segment.end
            self.had_stray |= segment.stray > 0
            if segment.marker == EOI:
                self.had_end = True
                break
            if segment.marker == SOS:
                offset = self._read_scan(read_scan(segment.payload, self._header), offset)
            elif segment.marker == DHT:
                self._define_huffman(segment.payload)
            elif segment.marker == DQT:
                self._define_quantisation(segment.payload)
            elif segment.marker == DRI:
                require(len(segment.payload) == 2)
                self._interval = int.from_bytes(segment.payload, "big")
            elif segment.marker in FRAMES:
                check_single_frame(frame)
                frame = segment
        self._coverage.check(self.had_end)
        # A segment behind the pixels that is cut short, and that decoders read: they are to say what they make of it.
        require(self.had_end or not _READ_SEGMENT.search(self._data, offset))
        if self._coefficients is not None:
            new = self._new_geometry
            self.symbols, self.histogram = huffman.to_symbols(
                _laid_out(self._coefficients, self._geometry, new), new.layout, new.mcu_rows, new.mcus_a_row,
                self._new_interval,
            )  # fmt: skip
        # Such coefficients cannot be written, nor do they come from pixels.
        require(np.count_nonzero(self.histogram[:, 256]) == 0)

    def quantised(self, components: tuple[Component, ...]) -> tuple[dict[int, bytes], tuple[Component, ...]]:
        """The quantisation tables to write, and the components with the numbers of theirs."""
        if all(self._quantisation[c.quantisation] == self._latched[i] for i, c in enumerate(components)):
            return self._quantisation, components
        # A number that stood for two tables: each table gets its own.
        tables = [bytes((table[0] & 0xF0,)) + table[1:] for _, table in sorted(self._latched.items())]
        numbers = {table: number for number, table in enumerate(dict.fromkeys(tables))}
        return (
            {number: bytes((table[0] | number,)) + table[1:] for table, number in numbers.items()},
            tuple(c._replace(quantisation=numbers[table]) for c, table in zip(components, tables, strict=True)),
        )

    def _define_quantisation(self, payload: bytes) -> None:
        while payload:
            size = 1 + (128 if payload[0] >> 4 else 64)
            require(len(payload) >= size and payload[0] & 15 < 4)
            self._quantisation[payload[0] & 15] = payload[:size]
            payload = payload[size:]

    def _define_huffman(self, payload: bytes) -> None:
        while payload:
            counts = np.frombuffer(payload, np.uint8, 16, 1)
            size = sum(payload[1:17])
            kind, number = divmod(payload[0], 16)
            require(size <= 256 and kind < 2 and number < 4)
            table = (4 * kind + number) * huffman.TABLE
            symbols = np.frombuffer(payload, np.uint8, size, 17)
            require(huffman.build_decode_table(counts, symbols, self._tables[table : table + huffman.TABLE]))
            if kind:
                huffman.build_item_table(counts, symbols, self._item_tables[number])
            # libjpeg refuses a table of means that has sizes beyond 15, whether they occur or not.
            self._too_large.discard(table)
            if kind == 0 and max(payload[17 : 17 + size], default=0) > 15:
                self._too_large.add(table)
            payload = payload[17 + size :]

    def _read_scan(self, scan: Scan, offset: int) -> int:
        """Read a scan's coded data, which begin at byte ``offset``; gives the position behind them."""
        self._coverage.note(scan)
        geometry, members = self._geometry, scan.members
        numbers = members[:, 0].tolist()
        components = [self._header.components[number] for number in numbers]
        for number, component in zip(numbers, components, strict=True):
            self._latched.setdefault(number, self._quantisation[component.quantisation])
        require(len(members) == 1 or sum(c.h * c.v for c in components) <= _MAX_BLOCKS)
        require(
            not self._too_large or scan.first > 0 or scan.high > 0 or self._too_large.isdisjoint(members[:, 1].tolist())
        )
        row = geometry.layout[members[0, 0]]
        units = geometry.mcus if len(members) > 1 else int(row[huffman.REAL_WIDTH] * row[huffman.REAL_HEIGHT])
        interval = self._interval or units
        bits, bounds, end, has_stray = huffman.unstuff(self._bytes, offset, -(-units // interval))
        is_whole = numbers == list(range(len(geometry.layout)))
        if self._header.frame != SOF2 and is_whole and geometry is self._new_geometry:
            self.symbols, self.histogram = huffman.transcode_symbols(
                bits,
                bounds,
                interval,
                members,
                geometry.layout,
                units,
                self._tables,
                self._item_tables.reshape(-1),
                self._new_interval,
            )
            require(len(self.symbols) > 0)
            has_stray |= bool(bounds[0, 0] < 0)
        else:
            if self._coefficients is None:
                self._coefficients = np.zeros(geometry.blocks * 64, np.int16)
            mode = scan.mode if self._header.frame == SOF2 else huffman.SEQUENTIAL
            outcome = huffman.decode_scan(
                bits, bounds, interval, mode, (scan.first, scan.last, scan.low), members, geometry.layout, units,
                geometry.mcus_a_row, self._tables, self._coefficients,
            )  # fmt: skip
            require(outcome != huffman.ODD)
            has_stray |= outcome == huffman.STRAY
        self.had_stray |= has_stray
        return end


def _laid_out(coefficients: np.ndarray, old: _Geometry, new: _Geometry) -> np.ndarray:
    """The coefficients of one geometry in the order of another, of fewer blocks beyond the image's edge."""
    if old is new:
        return coefficients
    parts = []
    for before, after in zip(old.layout.tolist(), new.layout.tolist(), strict=True):
        rows, stride, first = old.mcu_rows * before[huffman.V], before[huffman.STRIDE], before[huffman.FIRST]
        blocks = coefficients[64 * first : 64 * (first + rows * stride)].reshape(rows, stride, 64)
        parts.append(blocks[: new.mcu_rows * after[huffman.V], : after[huffman.STRIDE]].ravel())
    return np.concatenate(parts)


def _optimal_tables(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts, symbols = np.zeros((4, 16), np.uint8), np.zeros((4, 256), np.uint8)
    for i in range(4):
        if np.count_nonzero(histogram[i]):
            counts[i], used = huffman.optimal_table(histogram[i])
            symbols[i, : len(used)] = used
    return counts, symbols


def _head(
    header: Header,
    quantisation: dict[int, bytes],
    components: tuple[Component, ...],
    tables: tuple[np.ndarray, np.ndarray],
    interval: int,
) -> bytes:
    frame = bytes((8, *header.height.to_bytes(2, "big"), *header.width.to_bytes(2, "big"), len(components)))
    huffman = b"".join(
        bytes(((i & 1) << 4 | i >> 1,)) + counts + symbols.tobytes()[: sum(counts)]
        for i, (counts, symbols) in enumerate(zip(map(bytes, tables[0]), tables[1])) if any(counts)
    )  # fmt: skip
    # The first component's tables are number 0, those of all others number 1.
    scan = b"".join(bytes((c.name, 0x11 if i else 0)) for i, c in enumerate(components))
    # Baseline is 8 bits of quantisation, too (B.2.4.1).
    is_baseline = all(table[0] < 16 for table in quantisation.values())
    return b"".join((
        START,
        write_segment(APP0, _JFIF) if header.has_jfif else b"",
        write_segment(APP14, header.adobe) if header.adobe else b"",
        write_segment(DQT, b"".join(quantisation.values())),
        write_segment(
            SOF0 if is_baseline else SOF1,
            frame + b"".join(bytes((c.name, c.h << 4 | c.v, c.quantisation)) for c in components),
        ),
        write_segment(DHT, huffman),
        write_segment(DRI, interval.to_bytes(2, "big")),
        write_segment(SOS, bytes((len(components),)) + scan + b"\0\x3f\0"),
    ))  # fmt: skip
