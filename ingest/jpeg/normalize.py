"""The JPEG that is packed of an image file.

Files are known by their content, never by their name. A Huffman-coded JPEG keeps its coefficients, and so its pixels;
whatever else is an image is decoded and encoded anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ingest.errors import BadSampleError, RecordError
from ingest.jpeg.codec import decode, decode_any, decode_cut, decode_strictly, encode
from ingest.jpeg.crop import crop_jpeg
from ingest.jpeg.markers import (
    END,
    MAX_SIDE,
    SOF0,
    SOF1,
    SOF2,
    START,
    Header,
    check_scan_count,
    read_header,
    with_known_colors,
)
from ingest.jpeg.orientation import AS_STORED, read_orientation
from ingest.jpeg.region import Region
from ingest.jpeg.scans import UnsupportedScanError, check_scans
from ingest.jpeg.transcode import Restarted, find_segments, least_factors, restart_interval, transcode

CONVERSION_QUALITY = 95
"""JPEG quality of files that had to be converted: above it Pillow's documentation sees large files and no gain."""

_CODED_OTHERWISE = {0xC3: "lossless", 0xC9: "of arithmetic coding", 0xCA: "of arithmetic coding"}
"""The processes that libjpeg-turbo decodes, but those whose coefficients are kept."""

_REMEDY = "convert it to a usual JPEG or PNG"

# Luma sampling factors whose chroma (1x1) libjpeg-turbo's API calls 4:4:4, 4:4:0, 4:2:2, 4:2:0, 4:1:1 and 4:4:1.
_LUMA_SAMPLINGS = {(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (1, 4)}

_ENDLESS, _STRAY = "without end marker", "with stray bytes"

_CORNER = Region(0, 0, 1, 1)
"""Decoded of what is packed: it proves the headers, and the offsets' beginning. The rest is of the same code."""


class NormalizedJpeg(NamedTuple):
    """A baseline JPEG ready to be packed, with the offsets of its restart segments (little-endian uint32, or nothing).

    ``converted`` says what it was, such as ``PNG P``, or is None if it was a baseline JPEG. ``orientation`` is EXIF's,
    1 to 8, which is not applied.
    """

    encoded: bytes
    segments: bytes
    height: int
    width: int
    channels: int
    converted: str | None
    orientation: int = AS_STORED


class Pixels(NamedTuple):
    """Pixels of an image file, uint8 [H, W, 1 or 3], and the image's own height and width, of which they may be fewer.

    ``converted`` says what it was, such as ``PNG P``, or is None if it was a baseline JPEG. ``orientation`` is EXIF's,
    1 to 8, which is not applied.
    """

    values: np.ndarray
    height: int
    width: int
    converted: str | None
    orientation: int = AS_STORED

    @classmethod
    def of(cls, values: np.ndarray, converted: str | None = None, orientation: int = AS_STORED) -> Pixels:
        """All pixels of an image."""
        return cls(values, values.shape[0], values.shape[1], converted, orientation)


def normalize(data: bytes) -> NormalizedJpeg:
    """The baseline RGB or grey JPEG to pack for an image file, with restart markers.

    Of the same coefficients as the file, where it is a JPEG of 8 bits, Huffman-coded, in usual colours and sampling.
    One whose coded data are not plainly sound, but please the decoder, is packed as it is, without offsets. Whatever
    else is an image is decoded and encoded anew.

    Every file is decoded to its end first. Raises BadSampleError where that fails, with the reason.
    """
    header, data = _jpeg_header(data)
    converted = None
    if header and _is_huffman(header) and header.channels in (1, 3) and _is_of_usual_sampling(header):
        try:
            return _restarted(data, header)
        except UnsupportedScanError as error:
            converted = f"JPEG {error.oddity or _unusual_kind(header)}, encoded anew"
        if header.frame == SOF0:
            data, ending = _with_end(data, header)
            try:
                _decode(data, header, 0, decode_strictly)
            except BadSampleError:
                _decode(data, header, 0, decode)
                ending = ending or _STRAY
            return _prepared(data, b"", header, _name(None, ending))
    image = read_pixels(data)
    file = encode_pixels(image.values, CONVERSION_QUALITY, "4:4:4")
    return file._replace(converted=converted or image.converted, orientation=image.orientation)


def read_pixels(data: bytes, short_side: int = 0) -> Pixels:
    """The pixels of an image file.

    A JPEG is decoded at a half, a quarter or an eighth of its size if no side gets shorter than ``short_side`` by it
    (0: at its size). Raises BadSampleError where the file cannot be decoded to its end.
    """
    header, data = _jpeg_header(data)
    if not header:
        return Pixels.of(*decode_any(data))
    kind, turn = _unusual_kind(header), read_orientation(header.exif)
    if header.channels == 4 or not _is_of_usual_sampling(header):
        return Pixels.of(decode_any(_checked(data, header)).values, f"JPEG {kind}", turn)
    whole, ending = _with_end(data, header)
    try:
        pixels = _decode(whole, header, short_side, decode_strictly)
    except BadSampleError:
        data, ending = _cleaned(data, header) or (whole, ending or _STRAY)
        pixels = _decode(data, header, short_side, decode)
    return Pixels(
        values=pixels, height=header.height, width=header.width, converted=_name(kind, ending), orientation=turn
    )


def encode_pixels(pixels: np.ndarray, quality: int, subsampling: str) -> NormalizedJpeg:
    """The baseline JPEG, with restart markers, of uint8 [H, W, 1 or 3]; ``subsampling`` is ``4:4:4`` or ``4:2:0``.

    Raises BadSampleError where it would be too large for one.
    """
    height, width, channels = pixels.shape
    if max(height, width) > MAX_SIDE:
        raise BadSampleError(f"{width} x {height} pixels do not fit a JPEG, which ends at {MAX_SIDE} a side")
    mcu_width = 16 if channels == 3 and subsampling == "4:2:0" else 8
    data = encode(pixels, quality, subsampling, restart_interval(-(-width // mcu_width), mcu_width))
    header = read_header(data)
    return _prepared(data, find_segments(data, header), header, None)


def _jpeg_header(data: bytes) -> tuple[Header | None, bytes]:
    """The header of a file that is a JPEG, or None; and the file, with a header of no colours that decoders complain
    of."""
    if not data:
        raise BadSampleError("empty file")
    if not data.startswith(START):
        return None, data
    header = read_header(data)
    if not _is_huffman(header) and header.frame not in _CODED_OTHERWISE:
        raise BadSampleError(f"a JPEG of a process that decoders lack (SOF{header.frame & 15}): {_REMEDY}")
    if header.precision != 8:
        raise BadSampleError(f"a JPEG of {header.precision} bits a sample, not 8: {_REMEDY}")
    if header.channels not in (1, 3, 4):
        raise BadSampleError(f"a JPEG of {header.channels} components, not 1, 3 or 4: {_REMEDY}")
    check_scan_count(data, header)
    data, header = with_known_colors(data, header)
    return header, data


def _restarted(data: bytes, header: Header) -> NormalizedJpeg:
    """The JPEG of the same coefficients with restart markers, of which a reader can decode a region.

    Raises UnsupportedScanError where there is none, BadSampleError where the file is not whole.
    """
    file = transcode(data, header)
    try:
        decode_cut(crop_jpeg(file.encoded, file.segments, _CORNER), header.channels, _CORNER)
    except (BadSampleError, RecordError) as error:
        raise UnsupportedScanError from error
    return _prepared(file.encoded, file.segments, header, _name(_unusual_kind(header), _ending(file)))


def _decode(data: bytes, header: Header, short_side: int, decoder: Callable[..., np.ndarray]) -> np.ndarray:
    """The pixels of a JPEG that has all of its scans, by ``decoder``, which would take missing ones for grey."""
    pixels = decoder(data, header.channels, *_reduced_size(header, short_side))
    if not short_side and pixels.shape[:2] != (header.height, header.width):
        raise BadSampleError(f"{header.width} x {header.height} pixels, decoded to {pixels.shape[1]} x {len(pixels)}")
    return pixels


def _cleaned(data: bytes, header: Header) -> tuple[bytes, str | None] | None:
    """The JPEG of the same coefficients and nothing else, and what its file ends with; None where there is none."""
    if not _is_huffman(header):
        return None
    try:
        file = transcode(data, header)
    except UnsupportedScanError:
        return None
    return file.encoded, _ending(file)


def _checked(data: bytes, header: Header) -> bytes:
    """A JPEG that libjpeg-turbo's API does not read, or not as RGB, for Pillow, which is silent about most damage."""
    if _is_huffman(header):
        try:
            return transcode(data, header).encoded
        except UnsupportedScanError as error:
            if error.oddity is None and not _is_of_usual_sampling(header):
                raise BadSampleError("not decodable to the end: its coded data are damaged") from error
    if _is_of_usual_sampling(header):
        _decode(_with_end(data, header)[0], header, 0, decode)
    return data


def _prepared(encoded: bytes, segments: bytes, header: Header, converted: str | None) -> NormalizedJpeg:
    turn = read_orientation(header.exif)
    return NormalizedJpeg(
        encoded=encoded,
        segments=segments,
        height=header.height,
        width=header.width,
        channels=header.channels,
        converted=converted,
        orientation=turn,
    )


def _is_huffman(header: Header) -> bool:
    return header.frame in (SOF0, SOF1, SOF2)


def _unusual_kind(header: Header) -> str | None:
    """What a JPEG is that is no baseline JPEG of usual sampling, in a word or two, or None."""
    if header.channels == 4:
        return "YCCK" if header.adobe_transform == 2 else "CMYK"
    if not _is_of_usual_sampling(header):
        return "of unusual sampling"
    if header.frame in _CODED_OTHERWISE:
        return _CODED_OTHERWISE[header.frame]
    if header.frame == SOF2:
        return "progressive"
    return "not baseline" if header.frame == SOF1 else None


def _is_of_usual_sampling(header: Header) -> bool:
    luma, *others = [(component.h, component.v) for component in least_factors(header.components)]
    if header.channels == 4:
        return luma in _LUMA_SAMPLINGS and others == [(1, 1), (1, 1), luma]
    return not others or (luma in _LUMA_SAMPLINGS and others == [(1, 1), (1, 1)])


def _reduced_size(header: Header, short_side: int) -> tuple[int, int]:
    """Height and width of the greatest reduction that libjpeg-turbo has fast code for, or zeros for none."""
    sizes = [(-(-header.height // factor), -(-header.width // factor)) for factor in (8, 4, 2)]
    return next((size for size in sizes if 0 < short_side <= min(size)), (0, 0))


def _with_end(data: bytes, header: Header) -> tuple[bytes, str | None]:
    """The file with an end marker, and whether it lacks one.

    Coded pixels hold no markers, so an end marker that is found is one. ImageNet has files that lack it and nothing
    else; with it in place, all readers take them, and the decoder's complaints tell whether pixels are missing, too.
    """
    if header.has_many_scans:
        # Of the file as it is: with an end marker it may lack its last scans.
        check_scans(data, header)
    if data.rfind(END, header.scan) < 0:
        return data + END, _ENDLESS
    return data, None


def _ending(file: Restarted) -> str | None:
    """What is odd about the bytes around a file's coded data. What follows the pixels of one without end is no news."""
    return _ENDLESS if not file.had_end else _STRAY if file.had_stray else None


def _name(kind: str | None, ending: str | None) -> str | None:
    """What a JPEG is counted as, of its header and the bytes around its data; None if neither is odd."""
    parts = [part for part in (kind, ending) if part and not (kind and part == _ENDLESS)]
    return " ".join(["JPEG", *parts]) if parts else None
