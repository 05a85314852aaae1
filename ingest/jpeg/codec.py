"""Image files to pixels, and pixels to JPEG, by libjpeg-turbo (simplejpeg) and Pillow."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from ingest.errors import BadSampleError
from ingest.jpeg import orientation, signatures
from ingest.jpeg.crop import JpegCrop, crop_jpeg
from ingest.jpeg.markers import MAX_PIXELS, SOF0, SOF1, SOF2, read_header
from ingest.jpeg.region import Region, decoder, try_decode_region
from ingest.record import Buffer
from ingest.system import terminal

# Not all that Pillow reads: EPS, for one, it hands to a program of the machine's.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")

# Of what Pillow decodes: it keeps an image several times over while converting it, four bytes a pixel.
_MAX_PIXELS = MAX_PIXELS // 2

# Tags of TIFF (TIFF 6.0, section 2; Adobe's DNG 1.7).
_SUBFILE, _SUB_IMAGES, _DNG_VERSION, _THUMBNAIL = 254, 330, 50706, 1

_COLORSPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}

_SCALABLE = (SOF0, SOF1, SOF2)

_STRAY_BYTES = "extraneous bytes before marker 0xd9"
"""How libjpeg-turbo's words about them end."""


def decode(data: Buffer, channels: int, min_height: int = 0, min_width: int = 0) -> np.ndarray:
    """Decode a JPEG to its end: uint8 [H, W, channels]; 1 is grey (of a colour image: its luma), 3 is RGB, 4 CMYK.

    With ``min_height`` and ``min_width``, at the smallest part of its size in eighths, at most a half, that is as large
    as those: an inverse DCT of each block's lowest frequencies alone.

    Stray bytes between the last pixel and the end marker are forgiven: some encoders leave them, and the decoder has
    all of its pixels by then; with restart markers, of which one may be what is stray, they are not. Any other
    complaint of the decoder raises BadSampleError with its words.
    """
    try:
        return decode_strictly(data, channels, min_height, min_width)
    except BadSampleError as error:
        if not str(error.__cause__).endswith(_STRAY_BYTES) or read_header(bytes(data)).has_restarts:
            raise
    return _decode(data, channels, min_height, min_width, strict=False)


def decode_strictly(data: Buffer, channels: int, min_height: int = 0, min_width: int = 0) -> np.ndarray:
    """What decode() gives; any complaint of the decoder raises BadSampleError."""
    return _decode(data, channels, min_height, min_width, strict=True)


def _decode(data: Buffer, channels: int, min_height: int, min_width: int, strict: bool) -> np.ndarray:
    smallest: dict[str, int] = {}
    # Of a lossless JPEG, which has no DCT, libjpeg writes all pixels, also into memory for an eighth of them.
    if min_height and read_header(bytes(data)).frame in _SCALABLE:
        smallest = {"min_height": min_height, "min_width": min_width, "min_factor": 2}
    try:
        return simplejpeg.decode_jpeg(data, _COLORSPACES[channels], strict=strict, **smallest)
    except ValueError as error:
        raise BadSampleError(f"not decodable to the end ({error})") from error


def decode_region(data: Buffer, segments: Buffer, channels: int, region: Region) -> np.ndarray:
    """Decode a region of a JPEG with restart ``segments``, and little more: uint8 [region.height, region.width,
    channels], equal to that part of what decode() gives. Errors are those of decode() and of crop_jpeg()."""
    pixels = try_decode_region(data, segments, channels, region)
    return decode_cut(crop_jpeg(data, segments, region), channels, region) if pixels is None else pixels


def compile_decoder() -> None:
    """Compile what decode_region() uses, unless an earlier process has; before that it is as slow as libjpeg-turbo."""
    if not decoder.load():
        terminal.print_errors("compiling the decoder, once after installing: this takes 20 seconds or so")
        decoder.compile()
    # The way of what it refuses, by a JPEG of one block.
    tiny = encode(np.zeros((8, 8, 1), np.uint8), 90, "4:4:4", interval=1)
    header = read_header(tiny)
    crop_jpeg(tiny, np.array([header.scan, len(tiny) - 2], "<u4").tobytes(), Region(0, 0, 1, 1))


def decode_cut(cut: JpegCrop, channels: int, region: Region) -> np.ndarray:
    """The pixels of ``region`` of what crop_jpeg() gave for it: uint8 [region.height, region.width, channels]."""
    pixels = decode(cut.encoded.data, channels)
    return pixels[cut.top : cut.top + region.height, cut.left : cut.left + region.width]


def encode(pixels: np.ndarray, quality: int, subsampling: str, interval: int = 0) -> bytes:
    """A baseline JPEG of uint8 [H, W, 1 or 3], with a restart marker every ``interval`` MCUs (0: none);
    ``subsampling`` is ``4:4:4`` or ``4:2:0``."""
    file = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.save(file, "JPEG", quality=quality, subsampling=subsampling, restart_marker_blocks=interval)
    return file.getvalue()


class Decoded(NamedTuple):
    """The pixels of an image file as they are stored, uint8 [H, W, 1 or 3], what it was, such as ``PNG P``, and its
    EXIF orientation."""

    values: np.ndarray
    kind: str
    orientation: int


def decode_any(data: bytes) -> Decoded:
    """The pixels of any image file that Pillow reads. Raises BadSampleError where it cannot be decoded to its end."""
    if reason := signatures.refusal(data):
        raise BadSampleError(reason)
    try:
        with warnings.catch_warnings(), _silent(data):
            warnings.simplefilter("ignore")
            _check_size(Image.open(io.BytesIO(data), formats=FORMATS))
            # Checks PNG's sums, which reading the pixels does not.
            Image.open(io.BytesIO(data), formats=FORMATS).verify()
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_not_raw(image)
            kind = f"{image.format} {image.mode}"
            return Decoded(_to_rgb_or_grey(image), kind, _orientation(image))
    except Image.DecompressionBombError as error:
        raise BadSampleError(f"many more pixels than the limit of {_MAX_PIXELS}") from error
    except Image.UnidentifiedImageError as error:
        if data.startswith(_BEGINNINGS):
            raise BadSampleError("not decodable: its header is damaged or cut off") from error
        raise BadSampleError(f"not an image of a kind that can be packed ({', '.join(FORMATS)})") from error
    except (BadSampleError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers of its many formats raise whatever the bytes drive them to
        raise BadSampleError(f"not decodable to the end ({error})") from error


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BEGINNINGS = (*_TIFF, b"\x89PNG\r\n", b"GIF8")
_STDERR = 2
_stderr_lock = threading.Lock()


@contextmanager
def _silent(data: bytes) -> Iterator[None]:
    """Keep off the terminal what libtiff, of all the decoders, prints to it by itself."""
    if not data.startswith(_TIFF):
        yield
        return
    with _stderr_lock:
        try:
            stderr = os.dup(_STDERR)
        except OSError:  # it is closed
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), _STDERR)
            yield
        finally:
            os.dup2(stderr, _STDERR)
            os.close(stderr)


def _check_not_raw(image: Image.Image) -> None:
    """Refuse cameras' raw images that are TIFFs: what Pillow would read of them is their thumbnail."""
    tags = getattr(image, "tag_v2", {})
    if _DNG_VERSION in tags or (tags.get(_SUBFILE) == _THUMBNAIL and _SUB_IMAGES in tags):
        raise BadSampleError(signatures.raw_refusal())


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image that was read; 1 of a TIFF, which Pillow turns by itself."""
    try:
        return orientation.valid(image.getexif().get(orientation.TAG))
    except Exception:  # whatever damaged EXIF drives Pillow to: the pixels are sound
        return orientation.AS_STORED


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > _MAX_PIXELS:
        raise BadSampleError(f"{image.width} x {image.height} pixels are more than the limit of {_MAX_PIXELS}")


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
