"""A JPEG's marker segments (ITU-T T.81, annex B): what stands around the entropy-coded data."""

from __future__ import annotations

from typing import NamedTuple

from ingest.errors import BadSampleError
from ingest.sample import Buffer

MAX_PIXELS = 2**26
"""Larger images are refused: 67,108,864. ImageNet's largest has 61 million; of more, pixels and coefficients together
would need more than a gigabyte."""

START, END, SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
SOF0, SOF1, SOF2 = 0xC0, 0xC1, 0xC2
DHT, EOI, SOS, DQT, DRI, APP0, APP14 = 0xC4, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xEE

# C4, C8 and CC lie between the frame headers, but are DHT, JPG and DAC.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_FIRST_ARITHMETIC = 0xC9
_RESTARTS = range(0xD0, 0xD8)
_NO_PAYLOAD = {0x01, 0xD8, *_RESTARTS}

# A decoder goes through the whole image for each scan, of which a few bytes can make thousands. Encoders make ten, or
# at most one for each of a block's 64 coefficients.
_USUAL_SCANS, _MAX_SCANNED_PIXELS = 64, 64 * MAX_PIXELS


class Segment(NamedTuple):
    """A marker, its payload, and the byte behind it."""

    marker: int
    payload: bytes
    end: int


class Component(NamedTuple):
    """A colour component: its name, its sampling factors, and the number of its quantisation table."""

    name: int
    h: int
    v: int
    quantisation: int


class Header(NamedTuple):
    """What stands before a JPEG's first scan, whose data begin at byte ``scan``.

    ``frame`` is the SOF marker, ``adobe`` the payload of Adobe's segment or None; both it and JFIF's tell decoders how
    colours are coded.
    """

    frame: int
    precision: int
    height: int
    width: int
    components: tuple[Component, ...]
    has_jfif: bool
    adobe: bytes | None
    has_restarts: bool
    scan: int

    @property
    def channels(self) -> int:
        """Number of colour components."""
        return len(self.components)

    @property
    def adobe_transform(self) -> int | None:
        """Adobe's colour transform: 0 none, 1 YCbCr, 2 YCCK."""
        return self.adobe[11] if self.adobe else None


def next_segment(data: Buffer, at: int) -> Segment | None:
    """The first segment from byte ``at`` on, or None where the data end before it does."""
    while at + 2 <= len(data):
        # Decoders pass over fill bytes and stray bytes between segments, and so do we.
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):
            at += 1
            continue
        marker = data[at + 1]
        if marker == EOI:
            return Segment(EOI, b"", at + 2)
        if marker in _NO_PAYLOAD:
            at += 2
            continue
        end = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        return Segment(marker, bytes(data[at + 4 : end]), end) if end <= len(data) else None
    return None


def is_restart(data: Buffer, at: int) -> bool:
    """Whether a restart marker stands at byte ``at``."""
    return at + 2 <= len(data) and data[at] == 0xFF and data[at + 1] in _RESTARTS


def read_header(data: Buffer) -> Header:
    """The header of a JPEG. Raises BadSampleError where there is none, or the image would have too many pixels."""
    frame, has_jfif, adobe, has_restarts = None, False, None, False
    at, scan = len(START), len(data)
    while segment := next_segment(data, at):
        marker, payload, at = segment
        if marker in _FRAMES:
            frame = segment
        elif marker == DRI:
            has_restarts = any(payload)
        elif marker == APP0 and payload[:5] == b"JFIF\0":
            has_jfif = True
        elif marker == APP14 and payload[:5] == b"Adobe" and len(payload) >= 12:
            adobe = payload
        elif marker in (SOS, EOI):
            scan = at
            break
    channels = frame.payload[5] if frame and len(frame.payload) > 5 else 0
    if frame is None or not 0 < 3 * channels <= len(frame.payload) - 6:
        raise BadSampleError("a JPEG that ends before its frame header")
    body = frame.payload
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    if height * width == 0:
        raise BadSampleError(f"a JPEG of {width} x {height} pixels")
    if height * width > MAX_PIXELS:
        raise BadSampleError(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS}")
    components = tuple(
        Component(body[i], body[i + 1] >> 4, body[i + 1] & 15, body[i + 2]) for i in range(6, 6 + 3 * channels, 3)
    )
    if frame.marker < _FIRST_ARITHMETIC and len(data) < _least_bytes(height, width, components):
        raise BadSampleError(f"{width} x {height} pixels cannot be in {len(data)} bytes")
    return Header(frame.marker, body[0], height, width, components, has_jfif, adobe, has_restarts, scan)


def refuse_many_scans(data: bytes, header: Header) -> None:
    """Raise BadSampleError where a JPEG has so many scans that decoding it would take too long."""
    # In coded data no such bytes can be: what is counted too much are thumbnails, in files of a few scans.
    scans = data.count(SCAN)
    if scans > _USUAL_SCANS and scans * header.height * header.width > _MAX_SCANNED_PIXELS:
        raise BadSampleError(f"{scans} scans of {header.width} x {header.height} pixels would take too long to decode")


def write_segment(marker: int, payload: bytes) -> bytes:
    """The bytes of a segment."""
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def _least_bytes(height: int, width: int, components: tuple[Component, ...]) -> int:
    """Every block of 64 pixels of a component takes a Huffman code for its mean, of a bit or more (T.81, F.1.2.1)."""
    h, v = max(max(c.h for c in components), 1), max(max(c.v for c in components), 1)
    return sum(-(-width * c.h // (8 * h)) * -(-height * c.v // (8 * v)) for c in components) // 8
