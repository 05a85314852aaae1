"""From a record to what the network sees: uint8 [S, S, C], written straight into its place in a batch.

EXIF orientation is not applied here, as in every published ImageNet pipeline: pixels come as they are stored.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ingest import jpeg
from ingest.errors import RecordError
from ingest.jpeg import Region
from ingest.loading import augment
from ingest.loading.augment import View
from ingest.loading.options import TransformOptions
from ingest.record import JPEG, RAW, Record
from ingest.system.jit import jit


def single_threaded() -> None:
    """Keep cv2 on the calling thread: worker processes share the cores among themselves."""
    cv2.setNumThreads(1)


def train_transform(record: Record, uniforms: list[float], out: np.ndarray, options: TransformOptions) -> None:
    """Write what training shows into ``out``, uint8 [S, S, C], resized bilinearly and without antialias.

    ``uniforms`` are the record's random numbers in this epoch, from ``sampler.random_draws``. Raises RecordError or
    BadSampleError where the record cannot be decoded.
    """
    render(record, augment.train_view(record.height, record.width, out.shape[0], uniforms, options), out)


def eval_transform(record: Record, out: np.ndarray) -> None:
    """Write what evaluation shows into ``out``, uint8 [S, S, C], bilinearly; an image of S x S as it is.

    Equal to a resize of the short side to S * 256/224 and a centre crop, in one step: the centre square of 224/256 of
    the short side, resized to S. Raises RecordError or BadSampleError where the record cannot be decoded.
    """
    render(record, augment.eval_view(record.height, record.width, out.shape[0]), out)


def render(record: Record, view: View, out: np.ndarray) -> None:
    """Write a view of a record into ``out``, uint8 [S, S, C]."""
    finish(decode_region(record, out.shape[2], view.region), view, out)


def finish(pixels: np.ndarray, view: View, out: np.ndarray) -> None:
    """What follows decoding: the pixels of a view's region, uint8 [H, W, 1 or C], resized and flipped into ``out``."""
    _resize(pixels, out)
    if view.is_flipped:
        # After the resize: a negative stride in its input would make cv2 copy the whole crop.
        cv2.flip(out, 1, dst=out if out.shape[2] > 1 else out[:, :, 0])


def preprocess_file(data: bytes, size: int, channels: int) -> np.ndarray:
    """The evaluation view of an image file, uint8 [size, size, channels]: as if it had been packed.

    Raises BadSampleError where the file cannot be decoded.
    """
    image = jpeg.normalize(data)
    record = Record(
        channels=image.channels, label=0, synset="", encoded=image.encoded, key="", format=JPEG, height=image.height,
        width=image.width, segments=image.segments,
    )  # fmt: skip
    out = np.empty((size, size, channels), np.uint8)
    eval_transform(record, out)
    return out


def decode_region(record: Record, channels: int, region: Region) -> np.ndarray:
    """The pixels of a region of a record, uint8 [region.height, region.width, 1 or ``channels``], decoding little more.

    One channel, where ``channels`` is 3, is grey that is stored as pixels. Raises RecordError where the record's fields
    disagree, BadSampleError where its JPEG cannot be decoded.
    """
    if record.has_segments:
        return jpeg.decode_region(record.encoded, record.segments, channels, region)
    pixels = _all_pixels(record, channels)
    if pixels.shape[:2] != (record.height, record.width) or pixels.shape[2] not in (1, channels):
        shape = record.height, record.width, channels
        raise RecordError(f"its pixels are {pixels.shape}, where its fields and the dataset say {shape}")
    part = pixels[region.top : region.top + region.height, region.left : region.left + region.width]
    if record.format == RAW:
        _fetch(part)
    return part


def decode(record: Record, channels: int) -> np.ndarray:
    """All pixels of a record, uint8 [H, W, channels]; grey becomes RGB by repetition where ``channels`` is 3.

    Errors are those of decode_region.
    """
    pixels = _all_pixels(record, channels)
    return pixels if pixels.shape[2] == channels else np.repeat(pixels, channels, axis=2)


def _all_pixels(record: Record, channels: int) -> np.ndarray:
    if record.format == JPEG:
        return jpeg.decode(record.encoded, channels)
    shape = record.height, record.width, record.channels
    if record.format != RAW or len(record.encoded) != math.prod(shape):
        raise RecordError(f"{len(record.encoded)} bytes of format {record.format!r} are no image of {shape}")
    return np.frombuffer(record.encoded, np.uint8).reshape(shape)


@jit
def _fetch(pixels: np.ndarray) -> int:
    """Read a byte of every cache line of ``pixels``, uint8 [H, W, C], mapped memory; gives their sum.

    It asks the memory for all lines at once, where a resize asks for a few and waits: with it, mapped pixels are
    resized in two thirds of the time.
    """
    total = 0
    height, width, channels = pixels.shape
    for y in range(height):
        for x in range(0, width, max(1, 64 // channels)):
            total += pixels[y, x, 0]
        total += pixels[y, width - 1, channels - 1]
    return total


def _resize(pixels: np.ndarray, out: np.ndarray) -> None:
    """Write ``pixels`` into ``out``, resized; grey into all of its channels."""
    if pixels.size == 0:
        raise RecordError("its region is empty")
    size = out.shape[1], out.shape[0]
    if pixels.shape[2] == out.shape[2] > 1:
        _resize_to(size, pixels, out)
        return
    # cv2 knows an image of one channel as [H, W] only, and would give a new array instead of writing to ``dst``.
    grey = _resize_to(size, pixels[:, :, 0], None)
    if out.shape[2] == 1:
        out[:, :, 0] = grey
    else:
        cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB, dst=out)


def _resize_to(size: tuple[int, int], pixels: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """``pixels`` resized bilinearly.

    By Intel's library where cv2 has it: a quarter faster, and rounded correctly, while cv2's own code is up to 0.8
    levels off. "Not exact" means that the two differ. The setting is the calling thread's, which may be the user's.
    """
    before = cv2.ipp.useIPP_NotExact()
    cv2.ipp.setUseIPP_NotExact(True)
    try:
        return cv2.resize(pixels, size, dst=out, interpolation=cv2.INTER_LINEAR)
    finally:
        cv2.ipp.setUseIPP_NotExact(before)
