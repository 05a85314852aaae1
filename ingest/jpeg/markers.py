"""A JPEG's marker segments (ITU-T T.81, annex B): what stands around the entropy-coded data.

They are read just as libjpeg reads them (jdmarker.c, jdapimin.c), which decodes what is packed: where two programs find
different headers in the same bytes, one of them decodes into memory that the other has measured.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ingest.errors import BadSampleError

MAX_PIXELS = 2**26
"""Larger images are refused: 67,108,864. ImageNet's largest has 61 million; of more, pixels and coefficients together
would need more than a gigabyte."""

MAX_SIDE = 65_500
"""Of a JPEG, in pixels, to libjpeg (jmorecfg.h)."""

START, END, SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
SOF0, SOF1, SOF2 = 0xC0, 0xC1, 0xC2
DHT, EOI, SOS, DQT, DRI, APP0, APP1, APP14 = 0xC4, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xEE

# C4, C8 and CC lie between the frame headers, but are DHT, JPG and DAC.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = frozenset((SOF2, 0xCA))  # with Huffman and with arithmetic coding
_FIRST_ARITHMETIC = 0xC9
_RESTARTS = range(0xD0, 0xD8)
_NO_PAYLOAD = {0x01, *_RESTARTS}
_SOI, _DAC, _DNL, _COM, _JPEG_LS = 0xD8, 0xCC, 0xDC, 0xFE, 0xF7
_KNOWN = {*FRAMES, DHT, _DAC, SOS, DQT, _DNL, DRI, *range(0xE0, 0xF0), _COM}

# What ends coded data: FF and a byte that neither stuffs it, nor restarts, nor is a fill byte, nor means nothing.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")

_JFIF_BYTES, _ADOBE_BYTES = 14, 12
"""What libjpeg wants of either segment: it looks at shorter ones as if they were not there."""

# A decoder goes through the whole image for each scan, of which a few bytes can make thousands. Encoders make ten, or
# at most one for each of a block's 64 coefficients.
_USUAL_SCANS, _MAX_SCANNED_PIXELS = 64, 64 * MAX_PIXELS

_SCAN_BYTES = 10  # of a scan's header, at the least


class Segment(NamedTuple):
    """A marker, its payload, the byte behind it, and how many stray bytes lie before it."""

    marker: int
    payload: bytes
    end: int
    stray: int


class Component(NamedTuple):
    """A colour component: its name, its sampling factors, and the number of its quantisation table."""

    name: int
    h: int
    v: int
    quantisation: int


class Header(NamedTuple):
    """What stands before a JPEG's first scan, of ``scan_channels`` components, whose data begin at byte ``scan``.

    ``frame`` is the SOF marker, ``adobe`` the payload of Adobe's segment or None; both it and JFIF's tell decoders how
    colours are coded. ``adobe_offset`` is where that payload stands, ``exif`` the first segment of EXIF's, or nothing.
    """

    frame: int
    precision: int
    height: int
    width: int
    components: tuple[Component, ...]
    has_jfif: bool
    adobe: bytes | None
    adobe_offset: int
    exif: bytes
    has_restarts: bool
    scan_channels: int
    scan: int

    @property
    def channels(self) -> int:
        """Number of colour components."""
        return len(self.components)

    @property
    def has_many_scans(self) -> bool:
        """Whether there must be more than one scan."""
        return self.frame in PROGRESSIVE or self.scan_channels < self.channels

    @property
    def adobe_transform(self) -> int | None:
        """Adobe's colour transform: 0 none, 1 YCbCr, 2 YCCK."""
        return self.adobe[11] if self.adobe else None


def next_segment(data: bytes, offset: int) -> Segment | None:
    """The first segment from byte ``offset`` on, or None where the data end before it does.

    Stray bytes before it are passed over, as decoders do. Raises BadSampleError where the marker is one at which they
    end: another start of an image, or one that they do not know.
    """
    stray = 0
    while (start := data.find(b"\xff", offset)) >= 0 and start + 2 <= len(data):
        stray += start - offset
        offset, marker = start + 2, data[start + 1]
        if marker in _KNOWN:
            end = offset + max(2, int.from_bytes(data[offset : offset + 2], "big"))
            return Segment(marker, data[offset + 2 : end], end, stray) if end <= len(data) else None
        if marker == EOI:
            return Segment(EOI, b"", offset, stray)
        if marker == 0xFF:  # a fill byte
            offset -= 1
        elif marker == 0:
            stray += 2
        elif marker not in _NO_PAYLOAD:
            raise BadSampleError(_refusal(marker))
    return None


def _refusal(marker: int) -> str:
    if marker == _SOI:
        return "a JPEG with a second start within it"
    if marker == _JPEG_LS:
        return "a JPEG-LS image, which cannot be decoded: convert it to PNG, such as with ffmpeg"
    return f"a JPEG with a marker that decoders do not know (FF{marker:02X})"


def next_marker(data: bytes, offset: int) -> int:
    """Where the marker stands that ends the coded data from byte ``offset`` on; the end of ``data`` where none does."""
    match = _MARKER.search(data, offset)
    return match.start() if match else len(data)


def read_header(data: bytes) -> Header:
    """The header of a JPEG. Raises BadSampleError where there is none, or the image would have too many pixels."""
    frame, has_jfif, adobe, adobe_offset, exif = None, False, None, 0, b""
    has_restarts, scan_channels = False, 0
    offset, scan = len(START), len(data)
    while segment := next_segment(data, offset):
        marker, payload, offset, _ = segment
        if marker in FRAMES:
            check_single_frame(frame)
            frame = segment
        elif marker == DRI:
            has_restarts = any(payload)
        elif marker == APP0 and payload[:5] == b"JFIF\0" and len(payload) >= _JFIF_BYTES:
            has_jfif = True
        elif marker == APP14 and payload[:5] == b"Adobe" and len(payload) >= _ADOBE_BYTES:
            adobe, adobe_offset = payload, offset - len(payload)
        elif marker == APP1 and payload[:6] == b"Exif\0\0":
            exif = exif or payload
        elif marker in (SOS, EOI):
            scan, scan_channels = offset, payload[0] if payload else 0
            break
    channels = frame.payload[5] if frame and len(frame.payload) > 5 else 0
    if frame is None or not 0 < 3 * channels == len(frame.payload) - 6:
        raise BadSampleError("a JPEG that ends before its frame header")
    body = frame.payload
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    if height * width == 0:
        raise BadSampleError(f"a JPEG of {width} x {height} pixels")
    if max(height, width) > MAX_SIDE:
        raise BadSampleError(f"a JPEG of {width} x {height} pixels, where decoders end at {MAX_SIDE} a side")
    if height * width > MAX_PIXELS:
        raise BadSampleError(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS}")
    components = tuple(
        Component(body[i], body[i + 1] >> 4, body[i + 1] & 15, body[i + 2]) for i in range(6, 6 + 3 * channels, 3)
    )
    for component in components:
        if not (1 <= component.h <= 4 and 1 <= component.v <= 4):
            raise BadSampleError(f"a JPEG with sampling factors of {component.h} x {component.v}")
    if frame.marker < _FIRST_ARITHMETIC and len(data) < _least_bytes(height, width, components):
        raise BadSampleError(f"{width} x {height} pixels cannot be in {len(data)} bytes")
    return Header(
        frame=frame.marker,
        precision=body[0],
        height=height,
        width=width,
        components=components,
        has_jfif=has_jfif,
        adobe=adobe,
        adobe_offset=adobe_offset,
        exif=exif,
        has_restarts=has_restarts,
        scan_channels=scan_channels,
        scan=scan,
    )


def check_single_frame(first: object) -> None:
    """Raise BadSampleError if there was a ``first`` frame header: decoders refuse another."""
    if first:
        raise BadSampleError("a JPEG with two frame headers")


def with_known_colors(data: bytes, header: Header) -> tuple[bytes, Header]:
    """The same JPEG, where libjpeg decodes its colours but complains, with a header that says what it takes them for.

    It takes a transform that it does not know in Adobe's segment for YCbCr or YCCK (jdapimin.c,
    default_decompress_parms).
    """
    usual = {3: 1, 4: 2}.get(header.channels)
    if usual is None or header.adobe_transform in (None, 0, usual) or (header.has_jfif and header.channels == 3):
        return data, header
    offset = header.adobe_offset + 11
    data = b"".join((data[:offset], bytes((usual,)), data[offset + 1 :]))
    return data, header._replace(adobe=data[header.adobe_offset : header.adobe_offset + len(header.adobe or b"")])


def check_scan_count(data: bytes, header: Header) -> None:
    """Raise BadSampleError where a JPEG has so many scans that decoding it would take too long."""
    # In coded data no such bytes can be: what is counted too much are thumbnails, in files of a few scans. To count
    # takes 4 % of the time of packing: not where there are too few bytes for too many scans.
    most = len(data) // _SCAN_BYTES
    scans = data.count(SCAN) if most * header.height * header.width > _MAX_SCANNED_PIXELS else 0
    if scans > _USUAL_SCANS and scans * header.height * header.width > _MAX_SCANNED_PIXELS:
        raise BadSampleError(f"{scans} scans of {header.width} x {header.height} pixels would take too long to decode")


def write_segment(marker: int, payload: bytes) -> bytes:
    """The bytes of a segment."""
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def _least_bytes(height: int, width: int, components: tuple[Component, ...]) -> int:
    """Every block of 64 pixels of a component takes a Huffman code for its mean, of a bit or more (T.81, F.1.2.1)."""
    h, v = max(c.h for c in components), max(c.v for c in components)
    return sum(-(-width * c.h // (8 * h)) * -(-height * c.v // (8 * v)) for c in components) // 8
