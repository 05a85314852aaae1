"""Any Huffman-coded JPEG to the baseline JPEG of the same coefficients, and so the same pixels, with restart markers.

The markers cut the coded data into segments that can be decoded alone, so that a crop needs only the segments that
cover it (see region.py). Application data that no decoder needs, such as EXIF, is left behind, and Huffman tables are
made anew for the image: of what the markers cost, the tables save a part.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ingest.errors import BadSampleError
from ingest.jpeg import entropy
from ingest.jpeg.markers import (
    APP0,
    APP14,
    DHT,
    DQT,
    DRI,
    END,
    EOI,
    SOF0,
    SOF1,
    SOF2,
    SOS,
    START,
    Header,
    is_restart,
    next_segment,
    write_segment,
)

SEGMENT_PIXELS = 32
"""Width of a segment that is aimed at. Measured on ImageNet's files: narrower ones save little more decoding."""

MIN_SEGMENT_PIXELS = 24

MAX_PIXELS, MAX_BYTES = 2**26, 2**24
"""Larger images are not given restart markers: coding them anew takes up to 6 bytes of memory a pixel and 32 a byte."""

_JFIF = b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"  # version 1.1, square pixels, no thumbnail
_UNSEEN = -1


class OddScanError(Exception):
    """The coded data are not what a plain JPEG's are: it is for the decoder to say whether they are damaged."""


class Restarted(NamedTuple):
    """A baseline JPEG with restart markers: its bytes, its segments' offsets as little-endian uint32, and whether its
    source had an end marker."""

    encoded: bytes
    segments: bytes
    had_end: bool


class _Geometry(NamedTuple):
    """How an image is made of MCUs, and its components of blocks (see entropy.py for ``layout``)."""

    mcu_width: int
    mcus_a_row: int
    mcu_rows: int
    layout: np.ndarray

    @property
    def mcus(self) -> int:
        return self.mcus_a_row * self.mcu_rows

    @property
    def blocks(self) -> int:
        return self.mcus * int((self.layout[:, entropy.H] * self.layout[:, entropy.V]).sum())


class _Scan(NamedTuple):
    """A scan's header: for each of its components the row in the layout and the two tables, and its spectral band."""

    members: np.ndarray
    first: int
    last: int
    high: int
    low: int

    @property
    def mode(self) -> int:
        """How entropy.decode_scan is to read a progressive scan."""
        if self.first == 0:
            return entropy.DC_REFINE if self.high else entropy.DC_FIRST
        return entropy.AC_REFINE if self.high else entropy.AC_FIRST


def with_restarts(data: bytes, header: Header) -> Restarted:
    """Give a JPEG, of 8 bits and any usual sampling, restart markers.

    Raises OddScanError where its coded data are not plainly a sound JPEG's, BadSampleError where a progressive one ends
    before its last scan.
    """
    if header.height * header.width > MAX_PIXELS or len(data) > MAX_BYTES:
        raise OddScanError
    geometry = _geometry(header)
    interval = restart_interval(geometry.mcus_a_row, geometry.mcu_width)
    reader = _Reader(data, header, geometry, interval)
    try:
        reader.read()
    except (LookupError, ValueError) as error:  # a segment that is too short, or names what there is not
        raise OddScanError from error
    tables = _optimal_tables(reader.histogram)
    scan, offsets = entropy.code(reader.symbols, reader.histogram, *tables)
    head = _head(header, reader.quantisation, tables, interval)
    segments = (offsets + np.uint32(len(head))).astype("<u4").tobytes()
    return Restarted(b"".join((head, scan.data, END)), segments, reader.had_end)


def find_segments(data: bytes, header: Header) -> bytes:
    """The offsets of the restart segments, as little-endian uint32, of a sound JPEG of one scan that has them."""
    coded = np.frombuffer(data, np.uint8)[header.scan :]
    # In coded data a byte FF is followed by a zero, but in markers: those of restarts, and at last that of the end.
    *restarts, end = np.flatnonzero((coded[:-1] == 0xFF) & (coded[1:] != 0))
    return (np.array([0, *(at + 2 for at in restarts), end]) + header.scan).astype("<u4").tobytes()


def restart_interval(mcus_a_row: int, mcu_width: int) -> int:
    """MCUs in a segment: the divisor of those in a row whose width is nearest to SEGMENT_PIXELS; all of them if none of
    its divisors gives MIN_SEGMENT_PIXELS."""
    divisors = [i for i in range(1, mcus_a_row) if mcus_a_row % i == 0 and i * mcu_width >= MIN_SEGMENT_PIXELS]
    return min([*divisors, mcus_a_row], key=lambda i: abs(i * mcu_width - SEGMENT_PIXELS))


def _geometry(header: Header) -> _Geometry:
    # The scan of a single component has one block an MCU, whatever its sampling factors say (A.2.2).
    factors = [(c.h, c.v) for c in header.components] if header.channels > 1 else [(1, 1)]
    h_max, v_max = max(h for h, _ in factors), max(v for _, v in factors)
    mcus_a_row, mcu_rows = -(-header.width // (8 * h_max)), -(-header.height // (8 * v_max))
    layout, first = [], 0
    for h, v in factors:
        width, height = -(-header.width * h // h_max), -(-header.height * v // v_max)
        layout.append((h, v, mcus_a_row * h, -(-width // 8), -(-height // 8), first))
        first += mcus_a_row * h * mcu_rows * v
    return _Geometry(8 * h_max, mcus_a_row, mcu_rows, np.array(layout, np.int64))


class _Reader:
    """Reads all of a JPEG's segments; its symbols, with restarts where they shall be, are the result."""

    def __init__(self, data: bytes, header: Header, geometry: _Geometry, interval: int):
        self.quantisation: dict[int, bytes] = {}
        self.had_end = False
        self.symbols, self.histogram = np.empty(0, np.uint32), np.zeros((4, 257), np.int64)
        self._data, self._bytes = data, np.frombuffer(data, np.uint8)
        self._header, self._geometry, self._new_interval = header, geometry, interval
        self._interval = 0
        self._tables = np.zeros(8 * entropy.TABLE, np.int32)
        self._coefficients: np.ndarray | None = None
        # The position of the lowest bit that is known of each coefficient of each component.
        self._known = np.full((header.channels, 64), _UNSEEN, np.int64)

    def read(self) -> None:
        at = len(START)
        while segment := next_segment(self._data, at):
            at = segment.end
            if segment.marker == EOI:
                self.had_end = True
                break
            if segment.marker == SOS:
                at = self._read_scan(self._scan(segment.payload), at)
                # What a decoder makes of a stray one, it must say itself.
                _require(not is_restart(self._data, at))
            elif segment.marker == DHT:
                self._define_huffman(segment.payload)
            elif segment.marker == DQT:
                self._define_quantisation(segment.payload)
            elif segment.marker == DRI:
                self._interval = int.from_bytes(segment.payload[:2], "big")
        is_complete = bool((self._known == 0).all())
        if not is_complete and not self.had_end:
            raise BadSampleError("not decodable to the end: it ends before its last scan")
        _require(is_complete)
        _require(all(c.quantisation in self.quantisation for c in self._header.components))
        if self._coefficients is not None:
            self.symbols, self.histogram = entropy.symbolise(
                self._coefficients, self._geometry.layout, self._geometry.mcu_rows, self._geometry.mcus_a_row,
                self._new_interval,
            )  # fmt: skip
        # Such coefficients cannot be written, nor do they come from pixels.
        _require(not self.histogram[:, 256].any())

    def _define_quantisation(self, payload: bytes) -> None:
        # Those of a scan are those that stand before it: later ones would need copies kept.
        _require((self._known == _UNSEEN).all())
        while payload:
            size = 1 + (128 if payload[0] >> 4 else 64)
            _require(len(payload) >= size)
            self.quantisation[payload[0] & 15] = payload[:size]
            payload = payload[size:]

    def _define_huffman(self, payload: bytes) -> None:
        while payload:
            counts = np.frombuffer(payload, np.uint8, 16, 1)
            size = int(counts.sum())
            kind, number = divmod(payload[0], 16)
            _require(size <= 256 and kind < 2 and number < 4)
            table = (4 * kind + number) * entropy.TABLE
            symbols = np.frombuffer(payload, np.uint8, size, 17)
            _require(entropy.derive(counts, symbols, self._tables[table : table + entropy.TABLE]))
            payload = payload[17 + size :]

    def _scan(self, payload: bytes) -> _Scan:
        names = [component.name for component in self._header.components]
        pairs = [(payload[i], payload[i + 1]) for i in range(1, 1 + 2 * payload[0], 2)]
        _require(len({name for name, _ in pairs}) == len(pairs) > 0)
        _require(all(tables >> 4 < 4 and tables & 15 < 4 for _, tables in pairs))
        members = [
            (names.index(name), (tables >> 4) * entropy.TABLE, (4 + (tables & 15)) * entropy.TABLE)
            for name, tables in pairs
        ]
        first, last, bits = payload[1 + 2 * payload[0] : 4 + 2 * payload[0]]
        if self._header.frame != SOF2:
            first, last, bits = 0, 63, 0  # decoders do not look at what sequential scans say here
        return _Scan(np.array(members, np.int64), first, last, bits >> 4, bits & 15)

    def _read_scan(self, scan: _Scan, at: int) -> int:
        """Read a scan's coded data, which begin at byte ``at``; gives the position behind them."""
        self._note(scan)
        geometry, members = self._geometry, scan.members
        row = geometry.layout[members[0, 0]]
        units = geometry.mcus if len(members) > 1 else int(row[entropy.REAL_WIDTH] * row[entropy.REAL_HEIGHT])
        interval = self._interval or units
        bits, bounds, end = entropy.unstuff(self._bytes, at, -(-units // interval))
        if self._header.frame != SOF2 and members[:, 0].tolist() == list(range(len(geometry.layout))):
            self.symbols, self.histogram = entropy.resymbolise(
                bits, bounds, interval, members, geometry.layout, units, self._tables, self._new_interval
            )
            _require(len(self.symbols) > 0)
            return end
        if self._coefficients is None:
            self._coefficients = np.zeros(geometry.blocks * 64, np.int16)
        mode = scan.mode if self._header.frame == SOF2 else entropy.SEQUENTIAL
        is_sound = entropy.decode_scan(
            bits, bounds, interval, mode, (scan.first, scan.last, scan.low), members, geometry.layout, units,
            geometry.mcus_a_row, self._tables, self._coefficients,
        )  # fmt: skip
        _require(is_sound)
        return end

    def _note(self, scan: _Scan) -> None:
        """Keep account of which bits are known: a scan must begin with the highest, and go on where others ended."""
        _require(scan.first <= scan.last < 64 and scan.low < 14)
        _require(scan.first == 0 or len(scan.members) == 1)
        _require(self._header.frame != SOF2 or scan.first > 0 or scan.last == 0)
        before = scan.high if scan.high else _UNSEEN
        _require(scan.high == 0 or scan.low == scan.high - 1)
        for component in scan.members[:, 0]:
            band = self._known[component, scan.first : scan.last + 1]
            _require((band == before).all())
            band[:] = scan.low


def _require(condition: bool) -> None:
    if not condition:
        raise OddScanError


def _optimal_tables(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts, symbols = np.zeros((4, 16), np.uint8), np.zeros((4, 256), np.uint8)
    for i in range(4):
        if histogram[i].any():
            counts[i], used = entropy.optimal_table(histogram[i])
            symbols[i, : len(used)] = used
    return counts, symbols


def _head(
    header: Header, quantisation: dict[int, bytes], tables: tuple[np.ndarray, np.ndarray], interval: int
) -> bytes:
    components = header.components if header.channels > 1 else [header.components[0]._replace(h=1, v=1)]
    frame = bytes((8, *header.height.to_bytes(2, "big"), *header.width.to_bytes(2, "big"), len(components)))
    huffman = b"".join(
        bytes(((i & 1) << 4 | i >> 1,)) + counts.tobytes() + symbols[: counts.sum()].tobytes()
        for i, (counts, symbols) in enumerate(zip(*tables)) if counts.any()
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
