"""What an image file's bytes say, and the JPEG that is packed of them: the one room of simplejpeg and Pillow.

Files are known by their content, never by their name. A JPEG is walked marker by marker up to its first scan
(ITU-T T.81, annex B); whatever is not a plain baseline JPEG of one or three components is converted to one.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import ExifTags, Image

from ingest.errors import BadSampleError
from ingest.sample import Buffer

MAX_PIXELS = 178_956_970
"""Larger images are refused as decompression bombs: 2**29 // 3, twice Pillow's MAX_IMAGE_PIXELS, where it refuses."""

CONVERSION_QUALITY = 95
"""JPEG quality of files that had to be converted: above it Pillow's documentation sees large files and no gain."""

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SOS, _DRI, _APP1, _APP14 = 0xDA, 0xDD, 0xE1, 0xEE
_SOF0 = 0xC0
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
# C4, C8 and CC lie between the frame headers, but are DHT, JPG and DAC.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NO_PAYLOAD = {0x01, *range(0xD0, 0xDA)}

# Luma sampling factors whose chroma (1x1) libjpeg-turbo's API calls 4:4:4, 4:4:0, 4:2:2, 4:2:0, 4:1:1 and 4:4:1.
_LUMA_SAMPLINGS = {(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (1, 4)}

# Not all that Pillow reads: EPS, for one, it hands to a program of the machine's.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")

_ENDLESS = "without end marker"

_COLORSPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}


class Header(NamedTuple):
    """What stands before a JPEG's first scan, which begins at byte ``scan``.

    ``frame`` is the SOF marker, ``adobe`` the colour transform or None.
    """

    frame: int
    precision: int
    height: int
    width: int
    samplings: tuple[tuple[int, int], ...]
    adobe: int | None
    exif: bytes | None
    has_restarts: bool
    scan: int

    @property
    def channels(self) -> int:
        """Number of colour components."""
        return len(self.samplings)


class Prepared(NamedTuple):
    """A baseline JPEG ready to be packed. ``converted`` says what it was, such as ``PNG P``, or is None if kept."""

    encoded: bytes
    height: int
    width: int
    channels: int
    converted: str | None


def prepare(data: bytes) -> Prepared:
    """The baseline RGB or grey JPEG to pack for an image file; the file itself, byte for byte, where it is one.

    A baseline JPEG that lacks its end marker is given one.

    Every file is decoded to its end first. Raises BadSampleError where that fails, with the reason.
    """
    if not data:
        raise BadSampleError("empty file")
    if data[:2] != _START:
        return _convert(data)
    header = read_header(data)
    what = _what_is_odd(header)
    # Coded pixels hold no markers, so an end marker that is found is one. ImageNet has files that lack it and nothing
    # else; with it in place, all readers take them, and the decoder's complaints tell whether pixels are missing, too.
    # Files that simplejpeg does not read Pillow must see as they are: it complains of missing data, not of damage.
    if _is_known_to_turbojpeg(header):
        if data.find(_END, header.scan) < 0:
            data, what = data + _END, what or _ENDLESS
        decode(data, header.channels)
    if what in (None, _ENDLESS):
        return Prepared(data, header.height, header.width, header.channels, what and f"JPEG {what}")
    return _convert(data)._replace(converted=f"JPEG {what}")


def read_header(data: Buffer) -> Header:
    """The header of a JPEG. Raises BadSampleError where there is none, or the image would have too many pixels."""
    frame, adobe, exif, has_restarts, scan = None, None, None, False, len(data)
    for marker, at, payload in _segments(memoryview(data)):
        if marker == _SOS:
            scan = at
        elif marker in _FRAMES:
            frame = (marker, bytes(payload))
        elif marker == _DRI:
            has_restarts = any(payload)
        elif marker == _APP14 and payload[:5] == b"Adobe" and len(payload) >= 12:
            adobe = payload[11]
        elif marker == _APP1 and payload[:6] == b"Exif\0\0":
            exif = bytes(payload)
    if frame is None or len(frame[1]) < 6 or len(frame[1]) < 6 + 3 * frame[1][5]:
        raise BadSampleError("a JPEG that ends before its frame header")
    marker, body = frame
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    if height * width == 0:
        raise BadSampleError(f"a JPEG of {width} x {height} pixels")
    if height * width > MAX_PIXELS:
        raise BadSampleError(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS}")
    samplings = tuple((body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15) for i in range(body[5]))
    return Header(marker, body[0], height, width, samplings, adobe, exif, has_restarts, scan)


def decode(data: Buffer, channels: int) -> np.ndarray:
    """Decode a JPEG to its end: uint8 [H, W, channels]; 1 is grey (of a colour image: its luma), 3 is RGB, 4 CMYK.

    Stray bytes between the last pixel and the end marker are forgiven: some encoders leave them, and the decoder has
    all of its pixels by then; with restart markers, of which one may be what is stray, they are not. Any other
    complaint of the decoder raises BadSampleError with its words.
    """
    try:
        return simplejpeg.decode_jpeg(data, _COLORSPACES[channels])
    except ValueError as error:
        complaint = str(error)
    if complaint.endswith("extraneous bytes before marker 0xd9") and not read_header(data).has_restarts:
        return simplejpeg.decode_jpeg(data, _COLORSPACES[channels], strict=False)
    raise BadSampleError(f"not decodable to the end: {complaint}")


def encode(pixels: np.ndarray, quality: int, subsampling: str) -> bytes:
    """A baseline JPEG of uint8 [H, W, 1 or 3]; ``subsampling`` is ``4:4:4`` or ``4:2:0``."""
    file = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def _segments(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Marker, position and payload of each segment up to the header of the first scan, or to where the data end."""
    at = 2
    while at + 4 <= len(data):
        # Decoders pass over fill bytes and stray bytes between segments, and so do we.
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):
            at += 1
            continue
        marker = data[at + 1]
        if marker in _NO_PAYLOAD:
            at += 2
            continue
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at, data[at + 4 : at + 2 + size]
        if marker == _SOS:
            return
        at += 2 + max(size, 2)


def _what_is_odd(header: Header) -> str | None:
    """Why a JPEG cannot be packed as it is, in a word or two, or None."""
    if header.channels == 4:
        return "YCCK" if header.adobe == 2 else "CMYK"
    if header.frame in _PROGRESSIVE:
        return "progressive"
    if header.frame != _SOF0 or header.precision != 8:
        return "not baseline"
    if not _is_known_to_turbojpeg(header):
        return "of unusual sampling"
    if header.exif is not None and not _is_sound(header.exif):
        return "of damaged EXIF"
    return None


def _is_known_to_turbojpeg(header: Header) -> bool:
    if header.channels == 1:
        return True
    luma, *chroma = header.samplings
    return header.channels in (3, 4) and luma in _LUMA_SAMPLINGS and chroma[:2] == [(1, 1), (1, 1)]


def _is_sound(exif: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            parsed = Image.Exif()
            parsed.load(exif)
            # Reading every value is what meets the damage: loading alone reads the directory.
            dict(parsed)
            dict(parsed.get_ifd(ExifTags.IFD.Exif))
        except Exception:  # Pillow raises struct, syntax, key and other errors here
            return False
    return True


def _convert(data: bytes) -> Prepared:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Checks PNG's sums, which reading the pixels does not.
            Image.open(io.BytesIO(data), formats=_FORMATS).verify()
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            what = f"{image.format} {image.mode}"
            pixels = _to_rgb_or_grey(image)
    except Image.UnidentifiedImageError as error:
        raise BadSampleError(f"not an image of a kind that can be packed ({', '.join(_FORMATS)})") from error
    except (BadSampleError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers of its many formats raise whatever the bytes drive them to
        raise BadSampleError(f"not decodable to the end: {error}") from error
    height, width, channels = pixels.shape
    if max(height, width) > 65_500:
        raise BadSampleError(f"{width} x {height} pixels do not fit a JPEG, which ends at 65500 a side")
    return Prepared(encode(pixels, CONVERSION_QUALITY, "4:4:4"), height, width, channels, what)


def _to_rgb_or_grey(image: Image.Image) -> np.ndarray:
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_wide_grey(np.asarray(image))
    if image.mode in ("1", "L", "LA", "La"):
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode in ("P", "PA"):
        # Straight to RGB, a palette's transparent entries would be taken for a colour.
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _from_wide_grey(pixels: np.ndarray) -> np.ndarray:
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 65_535) or pixels.dtype.kind == "f":
        raise BadSampleError(f"grey levels from {low} to {high} ({pixels.dtype}); 8 and 16 bits can be packed")
    # 65535 / 255 = 257: white stays white.
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)[:, :, None]
