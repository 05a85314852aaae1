"""A JPEG's headers, read for decoding regions: what stands before its one scan (ITU-T T.81, annex B).

Only what is plainly the header of a baseline or extended sequential JPEG of 8 bits in one scan is accepted, read as
libjpeg reads it (jdmarker.c); the rest is libjpeg-turbo's to decode or to refuse.
"""

from __future__ import annotations

import numpy as np

from ingest.jpeg.entropy import CODES, TABLE, ZIGZAG, build_table
from ingest.jpeg.markers import MAX_SIDE
from ingest.system.jit import jit_bare

# Numbers of the array ``frame``: the image's size, MCUs in a segment, components, the first one's sampling factors.
HEIGHT, WIDTH, INTERVAL, COMPONENTS, H, V = range(6)
FRAME = 6

# Columns of the array ``components``, a row for each: its name, its quantisation table, its DC and its AC table.
NAME, QUANTISATION, DC, AC = range(4)

# Table classes (B.2.4.2) are DC and AC; two tables of each, as baseline has.
_DC0, _AC0, _DC1, _AC1 = range(4)


@jit_bare
def read_header(
    data: np.ndarray, scan: int, frame: np.ndarray, components: np.ndarray, quantisation: np.ndarray,
    tables: np.ndarray, codes: np.ndarray, found: np.ndarray,
) -> bool:  # fmt: skip
    """Read the header of ``data``, whose coded data begin at byte ``scan``. False where it is of another kind.

    Fills ``frame``, int64 [FRAME], ``components``, int64 [3, 4], ``quantisation``, int16 [4 * 64], in natural order,
    and the Huffman tables, uint64 [4 * TABLE] and int32 [4 * CODES]; ``frame`` and ``found``, bool [2, 4], which tells
    the quantisation and the Huffman tables that there are, must be zero.
    """
    has_quantisation, has_table = found[0], found[1]
    has_jfif, adobe_transform = False, -1
    if not 4 < scan <= len(data) or data[0] != 0xFF or data[1] != 0xD8:
        return False
    at = 2
    while at + 4 <= scan:
        marker, end = data[at + 1], at + 2 + _uint16(data, at + 2)
        if data[at] != 0xFF or end > scan or end < at + 4:
            return False
        start = at + 4
        if marker == 0xDB:
            if not _read_quantisation(data, start, end, quantisation, has_quantisation):
                return False
        elif marker == 0xC4:
            if not _read_huffman(data, start, end, tables, codes, has_table):
                return False
        elif marker == 0xC0 or marker == 0xC1:
            if frame[COMPONENTS] or not _read_frame(data, start, end, frame, components):
                return False
        elif marker == 0xDD:
            if end - start != 2:
                return False
            frame[INTERVAL] = _uint16(data, start)
        elif marker == 0xE0:
            if end - start >= 14 and _begins(data, start, _JFIF):
                has_jfif = True
                if data[start + 5] != 1:  # of another major version libjpeg complains
                    return False
        elif marker == 0xEE:
            if end - start >= 12 and _begins(data, start, _ADOBE):
                adobe_transform = np.int64(data[start + 11])
        elif marker == 0xDA:
            return (
                end == scan and frame[INTERVAL] > 0 and _read_scan(data, start, end, frame, components, has_table)
                and _has_all(frame, components, has_quantisation)
                and _is_ycc(frame, components, has_jfif, adobe_transform)
            )  # fmt: skip
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            return False
        at = end
    return False


_JFIF, _ADOBE = np.frombuffer(b"JFIF\0", np.uint8), np.frombuffer(b"Adobe", np.uint8)
_RGB = np.frombuffer(b"RGB", np.uint8)


@jit_bare
def _uint16(data: np.ndarray, at: int) -> int:
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])


@jit_bare
def _begins(data: np.ndarray, at: int, name: np.ndarray) -> bool:
    for i in range(len(name)):  # noqa: SIM110 - numba compiles no generator
        if data[at + i] != name[i]:
            return False
    return True


@jit_bare
def _read_quantisation(data: np.ndarray, at: int, end: int, quantisation: np.ndarray, has: np.ndarray) -> bool:
    """Tables of 8 bits (B.2.4.1): with larger numbers, what products of 16 bits are is the decoder's own."""
    while at < end:
        table = np.int64(data[at])
        if table > 3 or end - at < 65:
            return False
        for i in range(64):
            quantisation[table * 64 + np.int64(ZIGZAG[i])] = data[at + 1 + i]
        has[table] = True
        at += 65
    return True


@jit_bare
def _read_huffman(data: np.ndarray, at: int, end: int, tables: np.ndarray, codes: np.ndarray, has: np.ndarray) -> bool:
    while at < end:
        kind, number = np.int64(data[at] >> 4), np.int64(data[at] & 15)
        if kind > 1 or number > 1 or end - at < 17:
            return False
        total = 0
        for i in range(16):
            total += np.int64(data[at + 1 + i])
        start, table = at + 17, 2 * number + kind
        if total > 256 or end - start < total:
            return False
        if not build_table(
            data[at + 1 : start], data[start : start + total], kind == 1, tables[table * TABLE : (table + 1) * TABLE],
            codes[table * CODES : (table + 1) * CODES],
        ):  # fmt: skip
            return False
        has[table] = True
        at = start + total
    return True


@jit_bare
def _read_frame(data: np.ndarray, at: int, end: int, frame: np.ndarray, components: np.ndarray) -> bool:
    """SOF (B.2.2): grey, or three components, of which the first may have twice the samples of the others."""
    if end - at < 6 or data[at] != 8:
        return False
    count = np.int64(data[at + 5])
    if (count != 1 and count != 3) or end - at != 6 + 3 * count:
        return False
    frame[HEIGHT], frame[WIDTH], frame[COMPONENTS] = _uint16(data, at + 1), _uint16(data, at + 3), count
    for i in range(count):
        factors = np.int64(data[at + 7 + 3 * i])
        components[i, NAME], components[i, QUANTISATION] = data[at + 6 + 3 * i], data[at + 8 + 3 * i]
        if components[i, QUANTISATION] > 3 or (i and factors != 0x11) or not (1 <= factors >> 4 <= 4 and factors & 15):
            return False
        if i == 0:
            frame[H], frame[V] = factors >> 4, factors & 15
    if count == 1:  # the scan of a single component has a block an MCU, whatever its factors (A.2.2)
        if max(frame[H], frame[V]) > 4:
            return False
        frame[H] = frame[V] = 1
    else:
        first, second, third = components[0, NAME], components[1, NAME], components[2, NAME]
        if first in (second, third) or second == third:
            return False
    return 0 < frame[HEIGHT] <= MAX_SIDE and 0 < frame[WIDTH] <= MAX_SIDE and max(frame[H], frame[V]) <= 2


@jit_bare
def _read_scan(
    data: np.ndarray, at: int, end: int, frame: np.ndarray, components: np.ndarray, has_table: np.ndarray
) -> bool:
    """SOS (B.2.3): all components in their order, all coefficients at once."""
    count = frame[COMPONENTS]
    if count == 0 or end - at != 4 + 2 * count or data[at] != count:
        return False
    for i in range(count):
        dc, ac = np.int64(data[at + 2 + 2 * i] >> 4), np.int64(data[at + 2 + 2 * i] & 15)
        if data[at + 1 + 2 * i] != components[i, NAME] or dc > 1 or ac > 1:
            return False
        components[i, DC], components[i, AC] = 2 * dc + _DC0, 2 * ac + _AC0
        if not (has_table[components[i, DC]] and has_table[components[i, AC]]):
            return False
    return data[end - 3] == 0 and data[end - 2] == 63 and data[end - 1] == 0


@jit_bare
def _has_all(frame: np.ndarray, components: np.ndarray, has_quantisation: np.ndarray) -> bool:
    for i in range(frame[COMPONENTS]):  # noqa: SIM110 - numba compiles no generator
        if not has_quantisation[components[i, QUANTISATION]]:
            return False
    return True


@jit_bare
def _is_ycc(frame: np.ndarray, components: np.ndarray, has_jfif: bool, adobe_transform: int) -> bool:
    """Whether three components are YCbCr, as libjpeg tells it (jdapimin.c, default_decompress_parms)."""
    if frame[COMPONENTS] == 1 or has_jfif:
        return True
    if adobe_transform >= 0:
        return adobe_transform == 1
    return not (components[0, NAME] == _RGB[0] and components[1, NAME] == _RGB[1] and components[2, NAME] == _RGB[2])
