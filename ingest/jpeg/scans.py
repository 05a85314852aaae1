"""The scans of a Huffman-coded JPEG: what each of them codes, and whether they are all there (T.81, annex G).

A progressive JPEG may end after any of its scans. libjpeg then shows what has come, and smooths it if some of the
lowest frequencies are not known to their last bit (jdcoefct.c, smoothing_ok): then its pixels are not those of its
coefficients.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ingest.errors import BadSampleError
from ingest.jpeg import huffman
from ingest.jpeg.markers import EOI, PROGRESSIVE, SOS, START, Header, next_marker, next_segment

_UNSEEN = -1

_SMOOTHED = 10
"""Coefficients of a block that libjpeg estimates where it does not know them to their last bit."""


class UnsupportedScanError(Exception):
    """The coded data are not what a plain JPEG's are: it is for the decoder to say whether they are damaged."""

    def __init__(self, oddity: str | None = None):
        super().__init__(oddity)
        self.oddity = oddity
        """What is odd, if it can be named."""


class Scan(NamedTuple):
    """A scan's header: for each of its components its number and its two tables, int64 [components, 3], where those
    begin among the tables; and the scan's spectral band."""

    members: np.ndarray
    first: int
    last: int
    high: int
    low: int

    @property
    def mode(self) -> int:
        """How huffman.decode_scan is to read a progressive scan."""
        if self.first == 0:
            return huffman.DC_REFINE if self.high else huffman.DC_FIRST
        return huffman.AC_REFINE if self.high else huffman.AC_FIRST


def read_scan(payload: bytes, header: Header) -> Scan:
    """The scan that a segment SOS of this payload begins.

    Raises UnsupportedScanError where it is none that libjpeg takes.
    """
    require(len(payload) > 4 and len(payload) == 4 + 2 * payload[0])
    names = [component.name for component in header.components]
    members: list[tuple[int, int, int]] = []
    for i in range(payload[0]):
        name, tables = payload[1 + 2 * i : 3 + 2 * i]
        # libjpeg looks for the i-th of a scan's components from the frame's i-th on, so their order is the frame's.
        require(name in names[i:] and tables >> 4 < 4 and tables & 15 < 4)
        component = names.index(name, i)
        require(all(component != other for other, _, _ in members))
        members.append((component, (tables >> 4) * huffman.TABLE, (4 + (tables & 15)) * huffman.TABLE))
    first, last, bits = payload[-3:]
    if header.frame not in PROGRESSIVE:
        first, last, bits = 0, 63, 0  # what sequential scans say here has no meaning
    return Scan(members=np.array(members, np.int64), first=first, last=last, high=bits >> 4, low=bits & 15)


class Coverage:
    """Which bits of which coefficients a JPEG's scans have given."""

    def __init__(self, header: Header):
        self._is_progressive = header.frame in PROGRESSIVE
        # The position of the lowest bit that is known of each coefficient of each component.
        self._coef_bits = [[_UNSEEN] * 64 for _ in range(header.channels)]

    def note(self, scan: Scan) -> None:
        """Take account of a scan: it must go on where others ended. Raises UnsupportedScanError."""
        require(scan.first <= scan.last < 64 and scan.low < 14)
        require(scan.first == 0 or len(scan.members) == 1)
        require(not self._is_progressive or scan.first > 0 or scan.last == 0)
        require(scan.high == 0 or scan.low == scan.high - 1)
        # A first scan may come again while it leaves no bits to refine: libjpeg takes the later one's.
        before = {scan.high} if scan.high else {_UNSEEN, 0} if self._is_progressive else {_UNSEEN}
        band = slice(scan.first, scan.last + 1)
        for component in scan.members[:, 0].tolist():
            require(before.issuperset(self._coef_bits[component][band]))
            require(scan.first == 0 or self.has(component))
            self._coef_bits[component][band] = [scan.low] * (band.stop - band.start)

    def has(self, component: int) -> bool:
        """Whether anything is known of a component."""
        return self._coef_bits[component][0] != _UNSEEN

    def check(self, had_end: bool) -> None:
        """Raise BadSampleError where a scan is missing, UnsupportedScanError where libjpeg smooths what there is."""
        if not any(map(any, self._coef_bits)):
            return
        if not had_end or not all(map(self.has, range(len(self._coef_bits)))):
            raise BadSampleError("not decodable to the end: it ends before its last scan")
        require(self._is_progressive)
        if any(any(bits[1:_SMOOTHED]) for bits in self._coef_bits):
            raise UnsupportedScanError("progressive without its last scans")


def check_scans(data: bytes, header: Header) -> None:
    """Raise BadSampleError where a JPEG of several scans lacks some of them, by their headers alone.

    One that is odd passes: that is for the decoder to judge.
    """
    coverage, offset = Coverage(header), len(START)
    try:
        while segment := next_segment(data, offset):
            offset = segment.end
            if segment.marker == EOI:
                break
            if segment.marker == SOS:
                coverage.note(read_scan(segment.payload, header))
                offset = next_marker(data, offset)
        coverage.check(had_end=segment is not None)
    except UnsupportedScanError:
        return


def require(condition: bool) -> None:
    """Raise UnsupportedScanError if a condition does not hold."""
    if not condition:
        raise UnsupportedScanError
