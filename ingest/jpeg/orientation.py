"""EXIF's orientation of an image: how the camera was held, and so how its pixels are to be turned (CIPA DC-008, 4.6.4).

The number says where the first row and column of the pixels belong: 1 as they are, 3 upside down, 6 and 8 on a side;
2, 4, 5 and 7 are the same, mirrored.
"""

from __future__ import annotations

import numpy as np

AS_STORED = 1
TAG = 0x0112

_PREFIX = len(b"Exif\0\0")
_SHORT, _LONG = 3, 4


def read_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in the payload of a JPEG's EXIF segment; 1 where it is not there, or damaged."""
    tiff = memoryview(exif)[_PREFIX:]
    if tiff[:4] not in (b"II*\0", b"MM\0*"):
        return AS_STORED
    is_little = tiff[:1] == b"I"

    def number(offset: int, size: int) -> int:
        return int.from_bytes(tiff[offset : offset + size], "little" if is_little else "big")

    directory = number(4, 4)
    # A segment of 64 KiB ends before its entries can be many, whatever their number is said to be.
    for offset in range(directory + 2, min(directory + 2 + 12 * number(directory, 2), len(tiff) - 11), 12):
        kind = number(offset + 2, 2)
        if number(offset, 2) == TAG and kind in (_SHORT, _LONG):
            return valid(number(offset + 8, 2 if kind == _SHORT else 4))
    return AS_STORED


def valid(orientation: object) -> int:
    """``orientation`` if it is one, else 1."""
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else AS_STORED


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """``pixels``, uint8 [H, W, C], as they are to be seen: [H, W, C], or [W, H, C] for orientations 5 to 8."""
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)
