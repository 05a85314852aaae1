"""Entropy decoding of restart segments to coefficients, two segments in turn (ITU-T T.81, F.2.2).

Huffman decoding is a chain: where a symbol begins is known when the one before is decoded, and the processor waits. Two
segments are two chains, of which one fills the gaps of the other. The tables give a symbol's length, run and value by
one look-up, and where two symbols fit, those of both.

What these functions refuse, libjpeg-turbo may still decode, or complain of in its words; they never give other
coefficients than it does.
"""

from __future__ import annotations

import numpy as np

from ingest.jpeg.vectors import copy_32, lowest_bit
from ingest.system.jit import jit_bare, jit_inline

U = np.uint64  # an index without a sign needs no test for one below zero

BITS = 10
"""Bits that are looked up at once; most codes, with their values, are shorter."""

TABLE = 1 << BITS
"""Entries of a look-up table."""

CODES = 17 + 17 + 256
"""Numbers that say what codes are longer than ``BITS``: see build_table()."""

PADDING = 1024
"""More bytes than four blocks take, behind all data: reading stops at the end of a block."""

MAX_DC_SIZE, MAX_AC_SIZE = 11, 10
"""Bits of a coefficient of 8-bit samples (T.81, F.1.2). Larger ones are refused."""

# In an entry of a table: bits 0 to 5, the length of all that it gives; 8 to 15, how many coefficients the first symbol
# stands for, its zeros included; 16 to 23, how many the second; 24 to 29, the second's length; 32 to 47 and 48 to 63,
# their values. Or _LONG, with the code's length in bits 0 to 5, 0 if it is more than BITS, and the value's in 32 to 35.
_LENGTH, _LONG, _BYTE = U(0x3F), U(0x80), U(0xFF)

END_OF_BLOCK, _NO_CODE = 128, 64
"""Coefficients that an end of block stands for, and what is no code: so many that at the end of a sound block k, those
that are done, is 64 or from 129 to 191, and of no other block."""

# fmt: off
ZIGZAG = np.array([
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
], np.uint8)
# fmt: on

# Where a value goes after which k coefficients of the block are done. An end of block has the value 0, and goes where
# there is a zero still.
_PLACES = np.full(256, 63, np.uint8)
_PLACES[1:65] = ZIGZAG


@jit_bare
def build_table(counts: np.ndarray, symbols: np.ndarray, is_ac: bool, table: np.ndarray, codes: np.ndarray) -> bool:
    """Fill ``table``, uint64 [TABLE], of the next ``BITS`` bits, and ``codes``, int32 [CODES], for the longer codes.

    ``counts`` are the codes of each length from 1 to 16, ``symbols`` what they stand for (annex C). False where there
    are more codes than can be, or symbols that no image of 8 bits has. ``codes`` are, for each length from 0 to 16, the
    first 16 bits beyond its codes; what to add to a code of that length to have its index among the symbols; and the
    symbols.
    """
    for i in range(U(TABLE)):
        table[U(i)] = _LONG
    code, index = 0, 0
    for length in range(1, 17):
        codes[17 + length] = index - code
        if code + np.int64(counts[length - 1]) >= 1 << length:  # nor may a code be all ones
            return False
        for _ in range(np.int64(counts[length - 1])):
            symbol = np.int64(symbols[index])
            codes[34 + index] = symbol
            if symbol & 15 > MAX_AC_SIZE if is_ac else symbol > MAX_DC_SIZE:
                return False
            if length <= BITS:
                _fill(table, code << (BITS - length), length, symbol, is_ac)
            code += 1
            index += 1
        codes[length] = code << (16 - length)
        code <<= 1
    if is_ac:
        _pair(table)
    return True


@jit_bare
def coefficients_of(symbol: int, is_ac: bool) -> int:
    """How many coefficients a symbol stands for."""
    if not is_ac:
        return 1
    return (symbol >> 4) + 1 if symbol & 15 or symbol == 0xF0 else END_OF_BLOCK


@jit_bare
def _fill(table: np.ndarray, first: int, length: int, symbol: int, is_ac: bool) -> None:
    """The entries of a code of ``length`` bits, from the ``first`` on."""
    size, advance = symbol & 15, coefficients_of(symbol, is_ac) << 8
    rest, more, half = BITS - length - size, 1 << size, 1 << size >> 1
    for i in range(U(1 << (BITS - length))):
        if rest < 0:
            table[U(first) + U(i)] = U(size) << U(32) | _LONG | U(advance | length)
        else:
            bits = np.int64(i) >> rest
            value = U(bits if bits >= half else bits + 1 - more) & U(0xFFFF)  # EXTEND (F.2.2.1, figure F.12)
            table[U(first) + U(i)] = value << U(48) | value << U(32) | U(advance | (length + size))


@jit_bare
def _pair(table: np.ndarray) -> None:
    """Put a second symbol into the entries that have bits for one."""
    for i in range(U(TABLE)):
        first = table[i]
        length = first & _LENGTH
        if first & _LONG or (first >> U(8)) & _BYTE == U(END_OF_BLOCK):
            continue
        second = table[(U(i) << length) & U(TABLE - 1)]
        if second & _LONG:
            continue
        # It may be a pair by now: its own length is what its second leaves.
        second_length = (second & _LENGTH) - ((second >> U(24)) & _LENGTH)
        if length + second_length <= U(BITS):
            table[i] = (
                (length + second_length) | first & U(0xFF00) | (second & U(0xFF00)) << U(8) | second_length << U(24)
                | first & U(0xFFFF00000000) | (second & U(0xFFFF00000000)) << U(16)
            )  # fmt: skip


@jit_inline
def word64(data: np.ndarray, position: int) -> int:
    """At least 57 bits from bit ``position``, as the first of an uint64."""
    i = position >> U(3)
    word = (
        U(data[i]) << U(56) | U(data[i + U(1)]) << U(48) | U(data[i + U(2)]) << U(40) | U(data[i + U(3)]) << U(32)
        | U(data[i + U(4)]) << U(24) | U(data[i + U(5)]) << U(16) | U(data[i + U(6)]) << U(8) | U(data[i + U(7)])
    )  # fmt: skip
    return word << (position & U(7))


@jit_inline
def put64(data: np.ndarray, at: int, word: int) -> None:
    """Write the eight bytes of an uint64, the highest first."""
    data[at], data[at + U(1)] = word >> U(56), word >> U(48) & _BYTE
    data[at + U(2)], data[at + U(3)] = word >> U(40) & _BYTE, word >> U(32) & _BYTE
    data[at + U(4)], data[at + U(5)] = word >> U(24) & _BYTE, word >> U(16) & _BYTE
    data[at + U(6)], data[at + U(7)] = word >> U(8) & _BYTE, word & _BYTE


@jit_inline
def _with_value(word: int, entry: int, codes: np.ndarray, table: int, is_ac: bool) -> int:
    """What an entry would be that gives the next code of ``word`` and its value."""
    if entry & _LENGTH == U(0):
        entry = _long_code(word, codes, table, is_ac)
    length, size = entry & _LENGTH, (entry >> U(32)) & U(15)
    bits = word << length
    # EXTEND without a branch: if the first bit is 0, it is all ones' difference to the bits turned over.
    turn = U(~(np.int64(bits) >> 63))
    value = ((((bits ^ turn) >> U(1) >> (U(63) - size)) ^ turn) - turn) & U(0xFFFF)
    return value << U(48) | value << U(32) | entry & U(0xFF00) | (length + size)


@jit_bare
def _long_code(word: int, codes: np.ndarray, table: int, is_ac: bool) -> int:
    """The entry of a code of more than ``BITS`` bits; of one that there is not, a run beyond any block."""
    window, at = np.int64(word >> U(48)), np.int64(table) // TABLE * CODES
    length = BITS + 1
    while length < 17 and window >= codes[at + length]:
        length += 1
    if length > 16:
        return U(_NO_CODE << 8 | 16)
    symbol = np.int64(codes[at + 34 + ((window >> (16 - length)) + codes[at + 17 + length] & 0xFF)])
    return U(symbol & 15) << U(32) | U(coefficients_of(symbol, is_ac) << 8 | length)


@jit_bare
def unstuff(data: np.ndarray, start: int, end: int, clean: np.ndarray, to: int) -> int:
    """Copy the bytes of a segment to ``clean[to:]``, without the zero behind each byte FF; gives where they end there.

    Less than zero where a byte FF is followed by anything else, which is no data. Up to 32 bytes behind the end are
    overwritten, too.
    """
    at, stop, to = U(start), U(end), U(to)
    size = U(len(data))
    while at < stop:
        if at + U(32) <= size:
            is_ff = copy_32(data, at, clean, to)
            if is_ff == U(0):
                at, to = at + U(32), to + U(32)
                continue
            run = lowest_bit(is_ff) + U(1)  # with the byte FF itself
        else:
            clean[to] = data[at]
            run = U(1)
        at, to = at + run, to + run
        if at > stop:
            break
        if clean[to - U(1)] == 0xFF:
            if at == stop or data[at] != 0:
                return -1
            at += U(1)
    return np.int64(to - (at - stop))


@jit_bare
def decode_segments(
    clean: np.ndarray, bounds: np.ndarray, count: int, blocks: int, dc: np.ndarray, ac: np.ndarray, tables: np.ndarray,
    codes: np.ndarray, coefficients: np.ndarray, last: np.ndarray,
) -> bool:  # fmt: skip
    """Decode ``count`` segments of ``blocks`` blocks each. False where one of them is not plainly sound.

    ``bounds``, int64 [count, 2], says where each starts and ends in ``clean``, which has PADDING bytes behind them.
    ``dc`` and ``ac``, int64, hold for each block of an MCU where its tables begin in ``tables`` and, by number, in
    ``codes``. ``coefficients``, int16, must be zero, and have SPARE blocks more than all segments: blocks get values
    in natural order, of DC the difference. ``last``, uint8, gets how many AC coefficients come before the end of the
    block, 191 where it has all of them.
    """
    total, size = U(count), U(blocks) << U(6)
    following = U(2)
    a = _start(U(0), total, clean, bounds, size, dc, ac, tables, codes, coefficients)
    b = _start(U(1), total, clean, bounds, size, dc, ac, tables, codes, coefficients)
    sound = True
    while a[0] < total or b[0] < total:
        a, b = _refilled(a, clean), _refilled(b, clean)
        for _ in range(4):
            a, following, sound = _symbols(
                a, following, sound, total, clean, bounds, size, dc, ac, tables, codes, coefficients, last
            )
            b, following, sound = _symbols(
                b, following, sound, total, clean, bounds, size, dc, ac, tables, codes, coefficients, last
            )
    return sound


# A segment that is being decoded: its number, the position of the next bit, the bits from there on, how many
# coefficients of the block are done, where the block's are, where the segment's last block ends, the position where its
# bits end, the number of the block in its MCU, and where its AC table begins.
Stream = tuple[int, int, int, int, int, int, int, int, int]


@jit_inline
def _refilled(stream: Stream, clean: np.ndarray) -> Stream:
    segment, at, _, k, out, stop, end, phase, table = stream
    return segment, at, word64(clean, at), k, out, stop, end, phase, table


@jit_inline
def _start(
    segment: int, total: int, clean: np.ndarray, bounds: np.ndarray, size: int, dc: np.ndarray, ac: np.ndarray,
    tables: np.ndarray, codes: np.ndarray, coefficients: np.ndarray,
) -> Stream:  # fmt: skip
    """A stream at the start of a segment; where there is none, of one block, that goes to the spare one."""
    here = min(segment, total - U(1))
    at, end = U(bounds[here, 0]) << U(3), U(bounds[here, 1]) << U(3)
    if segment >= total:
        at = end
    out = min(segment, total) * size
    at, word, k, table = _start_block(at, out, U(0), clean, dc, ac, tables, codes, coefficients)
    stop = out + (size if segment < total else U(64))
    return segment, at, word, k, out, stop, end, U(0), table


@jit_inline
def _start_block(
    at: int, out: int, phase: int, clean: np.ndarray, dc: np.ndarray, ac: np.ndarray, tables: np.ndarray,
    codes: np.ndarray, coefficients: np.ndarray,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Decode the DC coefficient of the block at ``out``; gives position, word, coefficients and the AC table."""
    word = word64(clean, at)
    table = U(dc[phase])
    entry = tables[table + (word >> U(64 - BITS))]
    if entry & _LONG:
        entry = _with_value(word, entry, codes, table, False)
    at += entry & _LENGTH
    coefficients[out] = np.int16(entry >> U(32))
    return at, word64(clean, at), (entry >> U(8)) & _BYTE, U(ac[phase])


@jit_inline
def _symbols(
    stream: Stream, following: int, sound: bool, total: int, clean: np.ndarray, bounds: np.ndarray, size: int,
    dc: np.ndarray, ac: np.ndarray, tables: np.ndarray, codes: np.ndarray, coefficients: np.ndarray, last: np.ndarray,
) -> tuple[Stream, int, bool]:  # fmt: skip
    """Decode one or two symbols of AC coefficients, and what begins behind the last one of a block."""
    segment, at, word, k, out, stop, end, phase, table = stream
    entry = tables[table + (word >> U(64 - BITS))]
    if entry & _LONG:
        entry = _with_value(word, entry, codes, table, True)
        at += entry & _LENGTH
        word = word64(clean, at)
    else:
        at += entry & _LENGTH
        word <<= entry & _LENGTH
    first = k + ((entry >> U(8)) & _BYTE)
    k = first + ((entry >> U(16)) & _BYTE)
    coefficients[out + U(_PLACES[first])] = np.int16(entry >> U(32))
    coefficients[out + U(_PLACES[k])] = np.int16(entry >> U(48))
    if k >= U(64):
        if first >= U(64) and first != k:  # the second symbol is the next block's
            coefficients[out + U(63)] = np.int16(entry >> U(32))
            at -= (entry >> U(24)) & _LENGTH
            k = first
        last[out >> U(6)] = k - U(END_OF_BLOCK + 1) & _BYTE  # of 64 it is 191
        is_sound = at <= end and (k == U(64) or U(128) < k < U(192))
        out += U(64)
        phase = phase + U(1) if phase + U(1) < U(len(dc)) else U(0)
        if out == stop:
            is_sound &= end - at < U(8)
            sound &= is_sound or segment >= total
            segment, following = following, following + U(1)
            stream = _start(segment, total, clean, bounds, size, dc, ac, tables, codes, coefficients)
            segment, at, word, k, out, stop, end, phase, table = stream
        else:
            sound &= is_sound or segment >= total
            at = min(at, end)
            at, word, k, table = _start_block(at, out, phase, clean, dc, ac, tables, codes, coefficients)
    return (segment, at, word, k, out, stop, end, phase, table), following, sound


SPARE = 1
"""A block behind all segments, which a stream that has none left writes to until the other one has come to its end."""
