"""From a record to what the network sees: uint8 [S, S, C], written straight into its place in a batch. The one room
of cv2.

EXIF orientation is not applied here, as in every published ImageNet pipeline: pixels come as they are stored.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ingest import jpeg
from ingest.compiled import compiled
from ingest.errors import RecordError
from ingest.jpeg import Region
from ingest.sample import JPEG, RAW, Record

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
TRIES = 10
"""Random resized crop: share of the image's area, aspect ratio, and tries before the centre is taken. From Szegedy et
al., "Going Deeper with Convolutions" (2014), section 6, with the tries and the fallback of torchvision."""

_LOG_ASPECT = (math.log(ASPECT[0]), math.log(ASPECT[1]))

EVALUATION_SCALE = 256 / 224
"""An evaluation image's short side over the side of its centre crop: Krizhevsky et al. (2012), section 2."""


def single_threaded() -> None:
    """Keep cv2 on the calling thread: worker processes share the cores among themselves."""
    cv2.setNumThreads(1)


def training_view(record: Record, draws: list[float], out: np.ndarray, least_area: float = AREA[0]) -> None:
    """Write a random resized crop, flipped or not, into ``out``, uint8 [S, S, C], bilinearly and without antialias.

    The crop has at least the share ``least_area`` of the image's area. ``draws`` are the record's uniform numbers in
    this epoch, from order.draws. Raises RecordError or BadSampleError where the record cannot be decoded.
    """
    region = random_resized_crop(record.height, record.width, draws, least_area)
    resize_and_flip(decode_region(record, out.shape[2], region), draws, out)


def resize_and_flip(pixels: np.ndarray, draws: list[float], out: np.ndarray) -> None:
    """The last stage of a training view: ``pixels``, uint8 [H, W, 1 or C], resized into ``out``, uint8 [S, S, C]."""
    _resize(pixels, out)
    if is_flipped(draws):
        # After the resize: a negative stride in its input would make cv2 copy the whole crop.
        cv2.flip(out, 1, dst=out if out.shape[2] > 1 else out[:, :, 0])


def is_flipped(draws: list[float]) -> bool:
    """Whether a training view of these ``draws`` is flipped, as half of them are."""
    return draws[4 * TRIES] < 0.5


def evaluation_view(record: Record, out: np.ndarray) -> None:
    """Write the evaluation view into ``out``, uint8 [S, S, C], bilinearly; an image of S x S as it is.

    Equal to a resize of the short side to S * 256/224 and a centre crop, in one step: the centre square of 224/256 of
    the short side, resized to S. Raises RecordError or BadSampleError where the record cannot be decoded.
    """
    region = centre_crop(record.height, record.width, out.shape[0])
    _resize(decode_region(record, out.shape[2], region), out)


def file_view(data: bytes, size: int, channels: int) -> np.ndarray:
    """The evaluation view of an image file, uint8 [size, size, channels]: as if it had been packed.

    Raises BadSampleError where the file cannot be decoded.
    """
    image = jpeg.prepare(data)
    record = Record(image.channels, 0, "", image.encoded, "", JPEG, image.height, image.segments, image.width)
    out = np.empty((size, size, channels), np.uint8)
    evaluation_view(record, out)
    return out


def decode_region(record: Record, channels: int, region: Region) -> np.ndarray:
    """The pixels of a region of a record, uint8 [region.height, region.width, 1 or ``channels``], decoding little more.

    One channel, where ``channels`` is 3, is grey that is stored as pixels. Raises RecordError where the record's fields
    disagree, BadSampleError where its JPEG cannot be decoded.
    """
    if record.can_be_cut:
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


@compiled
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


def random_resized_crop(height: int, width: int, draws: list[float], least_area: float = AREA[0]) -> Region:
    """A region of a ``height`` x ``width`` image, of random area and aspect ratio, from uniform ``draws``, four a try.

    The aspect ratio is uniform in its logarithm, so that wide and tall are equally likely. If ten tries do not fit, the
    largest centre region within ASPECT.
    """
    for at in range(0, 4 * TRIES, 4):
        area = height * width * _between((least_area, AREA[1]), draws[at])
        aspect = math.exp(_between(_LOG_ASPECT, draws[at + 1]))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(draws[at + 2] * (height - crop_height + 1))
            left = int(draws[at + 3] * (width - crop_width + 1))
            return Region(top, left, crop_height, crop_width)
    return _centred(height, width, min(height, round(width / ASPECT[0])), min(width, round(height * ASPECT[1])))


def centre_crop(height: int, width: int, size: int) -> Region:
    """The square in the centre of which the evaluation view of side ``size`` is made."""
    if height == width == size:
        return Region(0, 0, size, size)
    side = max(1, round(min(height, width) / EVALUATION_SCALE))
    return _centred(height, width, side, side)


def shrink(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """``pixels``, uint8 [H, W, C], reduced to ``height`` x ``width`` by area averaging."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrunk = np.empty((height, width, pixels.shape[2]), np.uint8)
    _average(np.ascontiguousarray(pixels), shrunk)
    return shrunk


@compiled
def _average(pixels: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` with the means of ``pixels``, uint8 [H, W, C] both, over the areas of its own, rounded."""
    rows = pixels.reshape(len(pixels), -1)
    tops, row_weights = _overlaps(len(pixels), len(out))
    lefts, column_weights = _overlaps(pixels.shape[1], out.shape[1])
    row = np.empty(rows.shape[1], np.float32)
    # Of grey the three channels are one, done three times over: as fast, and there is one loop.
    channels = np.uint64(pixels.shape[2])
    green, blue = channels // np.uint64(2), channels - np.uint64(1)
    for y in range(len(out)):
        row[:] = np.float32(0.5)
        for i in range(row_weights.shape[1]):
            weight, source = row_weights[y, i], rows[tops[y] + i]
            for j in range(len(row)):
                row[j] += weight * np.float32(source[j])
        for x in range(out.shape[1]):
            r = g = b = np.float32(0)
            at = np.uint64(lefts[x]) * channels
            for i in range(column_weights.shape[1]):
                weight = column_weights[x, i]
                r += weight * row[at]
                g += weight * row[at + green]
                b += weight * row[at + blue]
                at += channels
            # By way of a signed number, which the processor converts to much faster.
            out[y, x, 0] = np.uint8(np.int32(r))
            out[y, x, green] = np.uint8(np.int32(g))
            out[y, x, blue] = np.uint8(np.int32(b))


@compiled
def _overlaps(size: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Of ``size`` pixels cut into equal parts: the first pixel of each, and the shares, float32 [parts, pixels], that
    it and those behind it have in the part."""
    length = size / parts
    reach = min(size, math.ceil(length) + 1)
    firsts, shares = np.empty(parts, np.int64), np.empty((parts, reach), np.float32)
    for part in range(parts):
        firsts[part] = min(int(part * length), size - reach)
        for i in range(reach):
            pixel = firsts[part] + i
            shares[part, i] = max(0.0, min(pixel + 1, (part + 1) * length) - max(pixel, part * length)) / length
    return firsts, shares


def _between(bounds: tuple[float, float], draw: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * draw


def _centred(height: int, width: int, crop_height: int, crop_width: int) -> Region:
    return Region((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


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
