"""The JPEG that is packed of an image file.

Files are known by their content, never by their name. A Huffman-coded JPEG keeps its coefficients, and so its pixels;
whatever else is an image is decoded and encoded anew.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import numpy as np

from ingest.errors import BadSampleError
from ingest.jpeg.codec import decode, decode_any, encode
from ingest.jpeg.markers import END, SOF0, SOF1, SOF2, START, Header, read_header, refuse_many_scans
from ingest.jpeg.restarts import OddScanError, find_segments, restart_interval, with_restarts

CONVERSION_QUALITY = 95
"""JPEG quality of files that had to be converted: above it Pillow's documentation sees large files and no gain."""

_MAX_SIDE = 65_500  # of a JPEG, to libjpeg

_PROGRESSIVE = {SOF2, 0xC6, 0xCA, 0xCE}

# Luma sampling factors whose chroma (1x1) libjpeg-turbo's API calls 4:4:4, 4:4:0, 4:2:2, 4:2:0, 4:1:1 and 4:4:1.
_LUMA_SAMPLINGS = {(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (1, 4)}

_ENDLESS = "without end marker"


class Prepared(NamedTuple):
    """A baseline JPEG ready to be packed, with the offsets of its restart segments (little-endian uint32, or nothing).

    ``converted`` says what it was, such as ``PNG P``, or is None if it was a baseline JPEG.
    """

    encoded: bytes
    segments: bytes
    height: int
    width: int
    channels: int
    converted: str | None


class Pixels(NamedTuple):
    """Pixels of an image file, uint8 [H, W, 1 or 3], and the image's own height and width, of which they may be fewer.

    ``converted`` says what it was, such as ``PNG P``, or is None if it was a baseline JPEG.
    """

    values: np.ndarray
    height: int
    width: int
    converted: str | None

    @classmethod
    def of(cls, values: np.ndarray, converted: str | None = None) -> Pixels:
        """All pixels of an image."""
        return cls(values, values.shape[0], values.shape[1], converted)


def prepare(data: bytes) -> Prepared:
    """The baseline RGB or grey JPEG to pack for an image file, with restart markers.

    Of the same coefficients as the file, where it is a JPEG of 8 bits, Huffman-coded, in usual colours and sampling.
    One whose coded data are not plainly sound, but please the decoder, is packed as it is, without offsets. Whatever
    else is an image is decoded and encoded anew.

    Every file is decoded to its end first. Raises BadSampleError where that fails, with the reason.
    """
    header = _jpeg_header(data)
    if header and _keeps_coefficients(header):
        what = _what_is_odd(header)
        with suppress(OddScanError):
            encoded, segments, had_end = with_restarts(data, header)
            return _prepared(encoded, segments, header, what if had_end else what or _ENDLESS)
        if header.frame == SOF0:
            data, what = _with_end(data, header, what)
            decode(data, header.channels)
            return _prepared(data, b"", header, what)
    image = read_pixels(data)
    return encode_pixels(image.values, CONVERSION_QUALITY, "4:4:4")._replace(converted=image.converted)


def read_pixels(data: bytes, short_side: int = 0) -> Pixels:
    """The pixels of an image file.

    A JPEG is decoded at a half, a quarter or an eighth of its size if no side gets shorter than ``short_side`` by it
    (0: at its size). Raises BadSampleError where the file cannot be decoded to its end.
    """
    header = _jpeg_header(data)
    if not header:
        return Pixels.of(*decode_any(data))
    what = _what_is_odd(header)
    # Files that libjpeg-turbo's API does not read, Pillow must see as they are: it complains of missing data, not of
    # damage.
    if header.channels in (1, 3, 4) and _is_of_usual_sampling(header):
        data, what = _with_end(data, header, what)
        pixels = decode(data, header.channels, *_reduced_size(header, short_side))
        if header.channels < 4:
            return Pixels(pixels, header.height, header.width, what and f"JPEG {what}")
    return Pixels.of(decode_any(data)[0], f"JPEG {what}")


def encode_pixels(pixels: np.ndarray, quality: int, subsampling: str) -> Prepared:
    """The baseline JPEG, with restart markers, of uint8 [H, W, 1 or 3]; ``subsampling`` is ``4:4:4`` or ``4:2:0``.

    Raises BadSampleError where it would be too large for one.
    """
    height, width, channels = pixels.shape
    if max(height, width) > _MAX_SIDE:
        raise BadSampleError(f"{width} x {height} pixels do not fit a JPEG, which ends at {_MAX_SIDE} a side")
    mcu_width = 16 if channels == 3 and subsampling == "4:2:0" else 8
    data = encode(pixels, quality, subsampling, restart_interval(-(-width // mcu_width), mcu_width))
    header = read_header(data)
    return _prepared(data, find_segments(data, header), header, None)


def _jpeg_header(data: bytes) -> Header | None:
    """The header of a file that is a JPEG, or None."""
    if not data:
        raise BadSampleError("empty file")
    if not data.startswith(START):
        return None
    header = read_header(data)
    refuse_many_scans(data, header)
    return header


def _prepared(encoded: bytes, segments: bytes, header: Header, what: str | None) -> Prepared:
    return Prepared(encoded, segments, header.height, header.width, header.channels, what and f"JPEG {what}")


def _keeps_coefficients(header: Header) -> bool:
    return (
        header.channels in (1, 3) and header.precision == 8 and header.frame in (SOF0, SOF1, SOF2)
        and _is_of_usual_sampling(header)
    )  # fmt: skip


def _what_is_odd(header: Header) -> str | None:
    """What a JPEG is that is no baseline JPEG of usual sampling, in a word or two, or None."""
    if header.channels == 4:
        return "YCCK" if header.adobe_transform == 2 else "CMYK"
    if not _is_of_usual_sampling(header):
        return "of unusual sampling"
    if header.frame in _PROGRESSIVE:
        return "progressive"
    return "not baseline" if header.frame != SOF0 or header.precision != 8 else None


def _is_of_usual_sampling(header: Header) -> bool:
    luma, *chroma = [(component.h, component.v) for component in header.components]
    return header.channels == 1 or (luma in _LUMA_SAMPLINGS and chroma[:2] == [(1, 1), (1, 1)])


def _reduced_size(header: Header, short_side: int) -> tuple[int, int]:
    """Height and width of the greatest reduction that libjpeg-turbo has fast code for, or zeros for none."""
    sizes = [(-(-header.height // factor), -(-header.width // factor)) for factor in (8, 4, 2)]
    return next((size for size in sizes if 0 < short_side <= min(size)), (0, 0))


def _with_end(data: bytes, header: Header, what: str | None) -> tuple[bytes, str | None]:
    """The file with an end marker, and what is odd about it.

    Coded pixels hold no markers, so an end marker that is found is one. ImageNet has files that lack it and nothing
    else; with it in place, all readers take them, and the decoder's complaints tell whether pixels are missing, too.
    """
    if data.rfind(END, header.scan) < 0:
        return data + END, what or _ENDLESS
    return data, what
