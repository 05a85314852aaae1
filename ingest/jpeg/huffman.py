"""A JPEG's entropy-coded data to quantised coefficients and back, bit by bit and without loss (ITU-T T.81).

    scan -> unstuff -> bits -> decode_scan -> coefficients -> to_symbols -> symbols -> encode_scan -> scan of bytes

A sequential JPEG, which most are, goes straight from bits to symbols (transcode_symbols). All of this is compiled:
there are more than 100,000 symbols in an image of 110 KB.

Coefficients are int16, 64 a block in zigzag order, component after component, each in rows of its blocks.
"""

from __future__ import annotations

import numpy as np

from ingest.jpeg.entropy import END_OF_BLOCK, coefficients_of, put64, word64
from ingest.jpeg.vectors import copy_32, lowest_bit
from ingest.system.jit import jit, jit_bare, jit_inline

# Numba adds a length to an index below zero: one without a sign saves asking for it. For the innermost loops.
U, U32 = np.uint64, np.uint32

# How decode_scan reads a block: all of it (annex F), or one of the four passes of a progressive JPEG (annex G).
SEQUENTIAL, DC_FIRST, DC_REFINE, AC_FIRST, AC_REFINE = range(5)

# What a scan turns out to be.
ODD, SOUND, STRAY = range(3)

# Columns of the array ``layout``, which has a row for each component. Strides and real sizes are in blocks: what an
# interleaved scan holds is filled up to whole MCUs, a scan of one component is not.
H, V, STRIDE, REAL_WIDTH, REAL_HEIGHT, FIRST = range(6)

_LOOKAHEAD = 10  # bits of code that are looked up in one step; nearly all codes in a photograph are shorter
_PADDING = 512  # more bytes than any block takes: reading one never leaves the array

# Where in the array of a table its parts begin.
_LIMIT, _DELTA, _SYMBOLS = 1 << _LOOKAHEAD, (1 << _LOOKAHEAD) + 17, (1 << _LOOKAHEAD) + 34
TABLE = _SYMBOLS + 256
ITEM_TABLE = 1 << _LOOKAHEAD

_BIT_LENGTH = np.array([value.bit_length() for value in range(1 << 16)], np.uint8)

_ZRL = 0xF0  # sixteen zeros; any other symbol of size zero ends a block, to libjpeg, too

# Symbols as to_symbols() gives them: the value's bits | symbol << 16 | table << 24, or a restart.
_RESTART = np.uint32(1 << 31)


@jit
def unstuff(data: np.ndarray, offset: int, most: int) -> tuple[np.ndarray, np.ndarray, int, bool]:
    """The bits of a scan that begins at byte ``offset``: without stuffing, cut at its restart markers.

    Returns the bytes, uint8; where each of at most ``most`` segments starts and ends among them, int64 [segments, 2];
    the position of the marker that ends the scan, or of the end of the data; and whether there are markers below FFC0
    before one of a restart. They mean nothing: what lies between one of them and the next marker is no data.
    """
    n = len(data)
    clean = np.zeros(n - offset + 8 * most + _PADDING, np.uint8)
    bounds = np.zeros((most, 2), np.int64)
    segment, to, stop, has_stray = 0, 0, -1, False
    while offset < n:
        if offset + 32 <= n:
            is_ff = copy_32(data, U(offset), clean, U(to))
            run = 32 if is_ff == U(0) else np.int64(lowest_bit(is_ff))
        else:
            clean[to] = data[offset]
            run = np.int64(data[offset] != 0xFF)
        offset, to = offset + run, to + run
        if offset == n or data[offset] != 0xFF:
            continue
        following = data[offset + 1] if offset + 1 < n else 0xD9
        if following == 0:
            clean[to] = 0xFF
            to += 1
            offset += 2
        elif following == 0xFF:
            if offset + 2 < n and data[offset + 2] == 0:
                break  # no fill byte, which stands before a marker; libjpeg-turbo spoils a block here: it is to decide
            offset += 1
        elif following == 0xD0 + (segment & 7) and segment + 1 < most:
            bounds[segment, 1] = to if stop < 0 else stop
            segment += 1
            to += 8
            bounds[segment, 0] = to
            stop = -1
            offset += 2
        elif following < 0xC0 and segment + 1 < most:
            stop = to if stop < 0 else stop
            has_stray = True
            offset += 2
        else:
            break
    bounds[segment, 1] = to if stop < 0 else stop
    return clean, bounds[: segment + 1], offset, has_stray


@jit
def build_decode_table(counts: np.ndarray, symbols: np.ndarray, table: np.ndarray) -> bool:
    """Fill int32 [TABLE] to decode with a Huffman table of ``counts`` codes of each length 1 to 16 (annex C).

    First, for short codes, (length with value) << 16 | length << 8 | symbol, indexed by the next ``_LOOKAHEAD`` bits,
    or 0; then, for each length 0 to 16, the first 16 bits that are beyond its codes; what to add to a code of that
    length to have its index among the symbols; and the symbols. False where there are more codes than fit in their
    lengths.
    """
    table[:] = 0
    code, index = 0, 0
    for length in range(1, 17):
        table[_DELTA + length] = index - code
        if code + counts[length - 1] >= 1 << length:  # the code of all ones must not be used (C.2)
            return False
        for _ in range(counts[length - 1]):
            if length <= _LOOKAHEAD:
                shift = _LOOKAHEAD - length
                total = length + (symbols[index] & 15)
                table[code << shift : (code + 1) << shift] = total << 16 | length << 8 | symbols[index]
            table[_SYMBOLS + index] = symbols[index]
            code += 1
            index += 1
        table[_LIMIT + length] = code << (16 - length)
        code <<= 1
    return True


@jit
def decode_scan(
    bits: np.ndarray, bounds: np.ndarray, interval: int, mode: int, band: tuple[int, int, int],
    members: np.ndarray, layout: np.ndarray, units: int, mcus_a_row: int, tables: np.ndarray, coefficients: np.ndarray,
) -> int:  # fmt: skip
    """Decode a scan of ``units`` MCUs into ``coefficients``, restarting every ``interval`` of them.

    Returns SOUND, STRAY where bytes are left behind the last MCU of a segment, or ODD where MCUs are missing.

    ``band`` is the first and last coefficient and the position of the lowest bit. ``members`` has a row for each of the
    scan's components: its row in ``layout``, and where in ``tables`` its DC and its AC table begin.
    """
    predictions = np.zeros(len(layout), np.int64)
    segment, position, end, run, outcome = -1, 0, 0, 0, SOUND
    low = band[2]
    for unit in range(units):
        if unit % interval == 0:
            segment += 1
            if segment == len(bounds):
                return ODD
            if end - position > 7:
                outcome = STRAY
            position, end, run = bounds[segment, 0] * 8, bounds[segment, 1] * 8, 0
            predictions[:] = 0
        for member in range(len(members)):
            component, dc, ac = members[member, 0], members[member, 1], members[member, 2]
            h, v, stride = layout[component, H], layout[component, V], layout[component, STRIDE]
            if len(members) == 1:
                width = layout[component, REAL_WIDTH]
                row, column, h, v = unit // width, unit % width, 1, 1
            else:
                row, column = unit // mcus_a_row * v, unit % mcus_a_row * h
            corner = layout[component, FIRST] + row * stride + column
            for y in range(v):
                for x in range(h):
                    out = (corner + y * stride + x) * 64
                    if mode <= DC_FIRST:
                        position, size = _symbol(bits, position, tables, dc)
                        if size > 15:
                            return ODD
                        position, value = _value(bits, position, size)
                        predictions[component] += value
                        value = predictions[component] << low
                        if not -32768 <= value <= 32767:
                            return ODD
                        coefficients[out] = value
                    if mode == SEQUENTIAL:
                        position = _ac(bits, position, tables, ac, coefficients, out)
                    elif mode == DC_REFINE:
                        coefficients[out] |= (_peek(bits, position) >> 24) << low
                        position += 1
                    elif mode == AC_FIRST:
                        position, run = _ac_first(bits, position, tables, ac, coefficients, out, band, run)
                    elif mode == AC_REFINE:
                        position, run = _ac_refine(bits, position, tables, ac, coefficients, out, band, run)
                    if position > end:
                        return ODD
    return STRAY if end - position > 7 else outcome


@jit_inline
def _past_end(bits: np.ndarray) -> int:
    """A position that is behind all data, and can be read all the same: where a failure leads."""
    return 8 * (len(bits) - 16)


@jit_inline
def _word(bits: np.ndarray, position: int) -> int:
    """At least 25 bits from bit ``position``, as the first of an uint32."""
    i = U(position >> 3)
    word = (
        np.uint32(bits[i]) << U32(24) | np.uint32(bits[i + U(1)]) << U32(16)
        | np.uint32(bits[i + U(2)]) << U32(8) | np.uint32(bits[i + U(3)])
    )  # fmt: skip
    return np.uint32(word << U32(position & 7))


@jit_inline
def _peek(bits: np.ndarray, position: int) -> int:
    """The 25 bits from bit ``position``."""
    return np.int64(_word(bits, position) >> U32(7))


@jit_bare
def _symbol(bits: np.ndarray, position: int, tables: np.ndarray, table: int) -> tuple[int, int]:
    """Where the next Huffman code ends, and its symbol; beyond all data where there is no such code."""
    window = _peek(bits, position)
    entry = np.int64(tables[U(table + (window >> (25 - _LOOKAHEAD)))])
    if entry:
        return position + ((entry >> 8) & 0xFF), entry & 0xFF
    window >>= 9
    for length in range(_LOOKAHEAD + 1, 17):
        if window < tables[table + _LIMIT + length]:
            index = (window >> (16 - length)) + tables[table + _DELTA + length]
            return position + length, np.int64(tables[table + _SYMBOLS + index])
    return _past_end(bits), 0


@jit_inline
def _value(bits: np.ndarray, position: int, size: int) -> tuple[int, int]:
    """Where the next ``size`` bits end, and the number they stand for (F.2.2.1, EXTEND)."""
    if size == 0:
        return position, 0
    value = _peek(bits, position) >> (25 - size)
    if value < 1 << (size - 1):
        value += 1 - (1 << size)
    return position + size, value


@jit_inline
def _symbol_and_value(bits: np.ndarray, position: int, tables: np.ndarray, table: int) -> tuple[int, int, int]:
    """Where the next Huffman code and the value behind it end, the symbol, and the value's bits."""
    word = _word(bits, position)
    entry = np.int64(tables[U(table) + U(word >> U32(32 - _LOOKAHEAD))])
    if entry:
        # A code of at most 10 bits and a value of at most 15: all of it is in the word.
        symbol, length, total = entry & 0xFF, (entry >> 8) & 0xFF, entry >> 16
        value = np.uint32(word << U32(length))
    else:
        position, symbol = _symbol(bits, position, tables, table)
        value, total = _word(bits, position), symbol & 15
    return position + total, symbol, np.int64(U(value) >> U(32 - (symbol & 15)))


@jit_inline
def _ac(bits: np.ndarray, position: int, tables: np.ndarray, table: int, coefficients: np.ndarray, out: int) -> int:
    k = 1
    while k < 64 and position < _past_end(bits):
        position, symbol, value = _symbol_and_value(bits, position, tables, table)
        size = symbol & 15
        if size == 0 and symbol != _ZRL:
            break
        k += symbol >> 4
        if size:
            if k > 63:
                position = _past_end(bits)
            else:
                coefficients[U(out + k)] = value if value >> (size - 1) else value + 1 - (1 << size)
        k += 1
    return position


@jit
def _ac_first(bits: np.ndarray, position: int, tables: np.ndarray, table: int, coefficients: np.ndarray, out: int,
              band: tuple[int, int, int], run: int) -> tuple[int, int]:  # fmt: skip
    if run:
        return position, run - 1
    k, last, low = band
    while k <= last:
        position, symbol = _symbol(bits, position, tables, table)
        if position >= _past_end(bits):
            return position, 0
        zeros, size = symbol >> 4, symbol & 15
        if size == 0 and zeros < 15:
            # This block, and the next 2**zeros - 1 and some more, have no more coefficients in this band.
            run = (1 << zeros) - 1 + (_peek(bits, position) >> (25 - zeros))
            return position + zeros, run
        k += zeros
        if size:
            if k > last:
                return _past_end(bits), 0
            position, value = _value(bits, position, size)
            coefficients[out + k] = value << low
        k += 1
    return position, 0


@jit
def _ac_refine(bits: np.ndarray, position: int, tables: np.ndarray, table: int, coefficients: np.ndarray, out: int,
               band: tuple[int, int, int], run: int) -> tuple[int, int]:  # fmt: skip
    k, last, low = band
    bit = 1 << low
    while run == 0 and k <= last:
        position, symbol = _symbol(bits, position, tables, table)
        if position >= _past_end(bits):
            return position, 0
        zeros, size, new = symbol >> 4, symbol & 15, 0
        if size == 0 and zeros < 15:
            run = (1 << zeros) + (_peek(bits, position) >> (25 - zeros))
            position += zeros
            break
        if size > 1:
            return _past_end(bits), 0
        if size:
            new = bit if _peek(bits, position) >> 24 else -bit
            position += 1
        # Over as many coefficients that are still zero; those that are not have a bit of correction each.
        while k <= last:
            if coefficients[out + k]:
                position = _correct(bits, position, coefficients, out + k, bit)
            elif zeros == 0:
                break
            else:
                zeros -= 1
            k += 1
        if new:
            if k > last:
                return _past_end(bits), 0
            coefficients[out + k] = new
        k += 1
    if run:
        run -= 1
        while k <= last:
            if coefficients[out + k]:
                position = _correct(bits, position, coefficients, out + k, bit)
            k += 1
    return position, run


@jit_inline
def _correct(bits: np.ndarray, position: int, coefficients: np.ndarray, i: int, bit: int) -> int:
    if _peek(bits, position) >> 24 and not coefficients[i] & bit:
        coefficients[i] += bit if coefficients[i] > 0 else -bit
    return position + 1


@jit
def to_symbols(
    coefficients: np.ndarray, layout: np.ndarray, mcu_rows: int, mcus_a_row: int, interval: int
) -> tuple[np.ndarray, np.ndarray]:
    """The symbols of one interleaved baseline scan that restarts every ``interval`` MCUs, and how often each occurs.

    Returns uint32 [symbols] for encode_scan(), and int64 [4, 257]: DC and AC of the first component, DC and AC of the
    others.
    """
    histogram = np.zeros(4 * 257, np.int64)
    items = np.empty(len(coefficients) // 4 + 8192, np.uint32)
    predictions = np.zeros(len(layout), np.int64)
    n = 0
    for mcu in range(mcu_rows * mcus_a_row):
        if len(items) - n < 66 * 48:
            items = np.concatenate((items, np.empty(len(items), np.uint32)))
        if mcu and mcu % interval == 0:
            items[n] = _RESTART
            n += 1
            predictions[:] = 0
        for component in range(len(layout)):
            h, v, stride = layout[component, H], layout[component, V], layout[component, STRIDE]
            corner = layout[component, FIRST] + mcu // mcus_a_row * v * stride + mcu % mcus_a_row * h
            table = 2 if component else 0
            for y in range(v):
                for x in range(h):
                    block = (corner + y * stride + x) * 64
                    dc = np.int64(coefficients[block])
                    n = _item(items, n, histogram, table, 0, dc - predictions[component])
                    predictions[component] = dc
                    zeros = 0
                    for k in range(block + 1, block + 64):
                        value = np.int64(coefficients[U(k)])
                        if value == 0:
                            zeros += 1
                            continue
                        while zeros > 15:
                            n = _item(items, n, histogram, table + 1, 15, 0)
                            zeros -= 16
                        n = _item(items, n, histogram, table + 1, zeros, value)
                        zeros = 0
                    if zeros:
                        n = _item(items, n, histogram, table + 1, 0, 0)
    return items[:n], histogram.reshape(4, 257)


@jit_bare
def build_item_table(counts: np.ndarray, symbols: np.ndarray, table: np.ndarray) -> None:
    """Fill uint64 [1 << 10] to read what AC codes and the values behind them are as items, of two codes where 10 bits
    hold both; the table is one that build_decode_table() takes.

    Bits 0 to 5 are the length of all; 8 to 15 and 16 to 23, how many coefficients each code stands for; 24 to 28 the
    second's length; 29 to 45 and 46 to 62 value | symbol << 9. 0 where the code or its value is longer.
    """
    code, index = 0, 0
    for i in range(1 << _LOOKAHEAD):
        table[U(i)] = U(0)
    for length in range(1, _LOOKAHEAD + 1):
        for _ in range(counts[length - 1]):
            symbol = np.int64(symbols[index])
            rest = _LOOKAHEAD - length - (symbol & 15)
            for i in range(1 << (_LOOKAHEAD - length) if rest >= 0 else 0):
                table[U(code << (_LOOKAHEAD - length)) + U(i)] = (
                    U(length + (symbol & 15))
                    | U(coefficients_of(symbol, True)) << U(8)
                    | U(i >> rest | symbol << 9) << U(29)
                )
            code += 1
            index += 1
        code <<= 1
    for i in range(1 << _LOOKAHEAD):
        first, length = table[U(i)], table[U(i)] & U(0x3F)
        if first == U(0) or (first >> U(8)) & U(0xFF) == U(END_OF_BLOCK):
            continue
        second = table[(U(i) << length) & U((1 << _LOOKAHEAD) - 1)]
        second_length = (second & U(0x3F)) - ((second >> U(24)) & U(0x1F))  # of its own first, if it is two by now
        if second != U(0) and length + second_length <= U(_LOOKAHEAD):
            table[U(i)] = (
                first & U(0x3FFFE000FF00) | (length + second_length) | (second & U(0xFF00)) << U(8)
                | second_length << U(24) | (second & U(0x3FFFE0000000)) << U(17)
            )  # fmt: skip


@jit
def transcode_symbols(
    bits: np.ndarray, bounds: np.ndarray, interval: int, members: np.ndarray, layout: np.ndarray, units: int,
    tables: np.ndarray, item_tables: np.ndarray, new_interval: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """What to_symbols() gives for the one scan of a sequential JPEG, straight from its bits; no symbols if it is odd.

    ``item_tables`` are those of build_item_table(), each behind the other in the order of their AC tables in
    ``tables``. ``bounds[0, 0]`` becomes -1 where bytes are left behind the last MCU of a segment: one number more to
    keep and to return would make the loop 8 % slower.
    """
    histogram = np.zeros(4 * 257 + 1, np.int64)
    # No symbol has less than a bit; of so much memory most is never touched.
    items = np.empty(8 * len(bits) + units // new_interval, np.uint32)
    n = _transcode(
        bits, bounds, interval, members, layout, units, tables, item_tables, new_interval, histogram, items,
        np.zeros((2, len(layout)), np.int64),
    )  # fmt: skip
    return items[:n], histogram[:-1].reshape(4, 257)


@jit_bare
def _transcode(
    bits: np.ndarray, bounds: np.ndarray, interval: int, members: np.ndarray, layout: np.ndarray, units: int,
    tables: np.ndarray, item_tables: np.ndarray, new_interval: int, histogram: np.ndarray, items: np.ndarray,
    predictions: np.ndarray,
) -> int:  # fmt: skip
    """Fill ``histogram``, whose last number counts nothing, and ``items``; gives how many there are, 0 if the scan is
    odd. ``predictions`` are of what is read and of what is written."""
    segment, position, end, n = -1, 0, 0, 0
    for unit in range(units):
        if unit % interval == 0:
            segment += 1
            if segment == len(bounds):
                return 0
            if end - position > 7:
                bounds[0, 0] = -1
            position, end = bounds[segment, 0] * 8, bounds[segment, 1] * 8
            predictions[0, :] = 0
        if unit and unit % new_interval == 0:
            items[n] = _RESTART
            n += 1
            predictions[1, :] = 0
        for member in range(len(members)):
            component, dc, ac = members[member, 0], members[member, 1], members[member, 2]
            table = 3 if component else 1
            for _ in range(layout[component, H] * layout[component, V]):
                position, size, value = _symbol_and_value(bits, position, tables, dc)
                if size > 15 or position > end:  # what is no code leads behind all data, which no block may begin at
                    return 0
                predictions[0, component] += value if value >= 1 << size >> 1 else value + 1 - (1 << size)
                n = _item(items, n, histogram, table - 1, 0, predictions[0, component] - predictions[1, component])
                predictions[1, component] = predictions[0, component]
                position, n, k = _ac_items(bits, position, tables, ac, item_tables, table, histogram, items, n)
                if position > end or (64 < k < END_OF_BLOCK and items[U(n - 1)] >> U32(16) & U32(15)):
                    return 0
    if end - position > 7:
        bounds[0, 0] = -1
    return n


@jit_inline
def _ac_items(
    bits: np.ndarray, position: int, tables: np.ndarray, ac: int, item_tables: np.ndarray, table: int,
    histogram: np.ndarray, items: np.ndarray, n: int,
) -> tuple[int, int, int]:  # fmt: skip
    """The items of a block's AC coefficients; gives the next position, the number of items, and of coefficients."""
    start, counts, marked = U((ac // TABLE - 4) << _LOOKAHEAD), U(257 * table), U32(table << 24)
    k = U(1)
    while k < U(64):
        word = word64(bits, U(position))
        for _ in range(4):  # of at most 10 bits each, for which the word has enough
            entry = item_tables[start + (word >> U(64 - _LOOKAHEAD))]
            if entry == U(0):
                position, symbol, value = _symbol_and_value(bits, position, tables, ac)
                items[U(n)] = U32(value | symbol << 16) | marked
                histogram[counts + U(symbol)] += 1
                n += 1
                k += U(coefficients_of(symbol, True))
                break
            word <<= entry & U(0x3F)
            position += np.int64(entry & U(0x3F))
            first, more = k + ((entry >> U(8)) & U(0xFF)), (entry >> U(16)) & U(0xFF)
            items[U(n)] = U32((entry >> U(29)) & U(0x1FF) | ((entry >> U(38)) & U(0xFF)) << U(16)) | marked
            histogram[counts + ((entry >> U(38)) & U(0xFF))] += 1
            k = first + more
            if first >= U(64):  # a second one is the next block's
                position -= np.int64((entry >> U(24)) & U(0x1F))
                n, k = n + 1, first
                break
            # Without a branch: whether there is a second one cannot be foretold.
            items[U(n + 1)] = U32((entry >> U(46)) & U(0x1FF) | ((entry >> U(55)) & U(0xFF)) << U(16)) | marked
            n += 1 + np.int64(more > U(0))
            histogram[counts + ((entry >> U(55)) & U(0xFF)) if more else U(4 * 257)] += 1
            if k >= U(64):
                break
    return position, n, np.int64(k)


@jit_inline
def _item(items: np.ndarray, n: int, histogram: np.ndarray, table: int, zeros: int, value: int) -> int:
    sign = value >> 63
    size = np.int64(_BIT_LENGTH[U(min((value ^ sign) - sign, 65535))])
    symbol = zeros << 4 | size
    items[U(n)] = (value + sign) & ((1 << size) - 1) | symbol << 16 | table << 24
    histogram[U(257 * table + (symbol if size < 16 else 256))] += 1
    return n + 1


@jit
def optimal_table(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Huffman table that codes symbols of these frequencies, int64 [257], in the fewest bits (annex K.2).

    Returns uint8 [16], the number of codes of each length, and the symbols, uint8, in their order.
    """
    frequency = histogram.copy()
    frequency[256] = 1  # its code is all ones, which no symbol may have
    sizes, other = np.zeros(257, np.int64), np.full(257, -1, np.int64)
    while True:
        first, second = _two_rarest(frequency)
        if second < 0:
            break
        frequency[first] += frequency[second]
        frequency[second] = 0
        tail = _deepen(sizes, other, first)
        other[tail] = second
        _deepen(sizes, other, second)
    lengths = np.zeros(258, np.int64)
    for size in sizes:
        lengths[size] += 1
    longest = sizes.max()
    for length in range(longest, 16, -1):
        while lengths[length] > 0:
            # Two of the longest codes become one that is a bit shorter, and the other takes half of a shorter code's.
            shorter = length - 2
            while lengths[shorter] == 0:
                shorter -= 1
            lengths[length] -= 2
            lengths[length - 1] += 1
            lengths[shorter + 1] += 2
            lengths[shorter] -= 1
    lengths[np.nonzero(lengths[:17])[0][-1]] -= 1  # the code of all ones
    symbols = np.empty(256, np.uint8)
    n = 0
    for size in range(1, longest + 1):
        for symbol in range(256):
            if sizes[symbol] == size:
                symbols[n] = symbol
                n += 1
    return lengths[1:17].astype(np.uint8), symbols[:n]


@jit
def _deepen(sizes: np.ndarray, other: np.ndarray, symbol: int) -> int:
    """Make the codes of all symbols in the chain that begins with ``symbol`` a bit longer; gives the chain's last."""
    sizes[symbol] += 1
    while other[symbol] >= 0:
        symbol = other[symbol]
        sizes[symbol] += 1
    return symbol


@jit
def _two_rarest(frequency: np.ndarray) -> tuple[int, int]:
    """The rarest symbol, of equals the greatest, and the next; -1 where there is none."""
    first, second = -1, -1
    for symbol in range(257):
        count = frequency[symbol]
        if count == 0:
            continue
        if first < 0 or count <= frequency[first]:
            first, second = symbol, first
        elif second < 0 or count <= frequency[second]:
            second = symbol
    return first, second


@jit
def encode_scan(
    items: np.ndarray, histogram: np.ndarray, counts: np.ndarray, symbols: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Code symbols, which ``histogram`` counts, with four Huffman tables, uint8 [4, 16] and [4, 256].

    Returns the scan's bytes, uint8, and where each of its restart segments begins and the last ends, uint32.
    """
    codes = np.zeros(4 * 256, np.uint64)  # code << 8 | its length
    for table in range(4):
        value, index = 0, 0
        for length in range(1, 17):
            for _ in range(counts[table, length - 1]):
                codes[256 * table + symbols[table, index]] = value << 8 | length
                value += 1
                index += 1
            value <<= 1
    total, restarts = 0, len(items)
    for table in range(4):
        for symbol in range(256):
            occurs = histogram[table, symbol]
            total += occurs * (np.int64(codes[256 * table + symbol] & U(0xFF)) + (symbol & 15))
            restarts -= occurs
    ends = np.zeros(restarts + 1, np.int64)
    clean = np.empty(total // 8 + restarts + 64, np.uint8)
    _put_codes(items, codes, clean, ends)
    # Each byte may need stuffing, each segment a marker.
    out = np.empty(2 * ends[-1] + 2 * restarts + 64, np.uint8)
    offsets = np.zeros(restarts + 2, np.uint32)
    return out[: _stuff(clean, ends, out, offsets)], offsets


@jit_bare
def _put_codes(items: np.ndarray, codes: np.ndarray, clean: np.ndarray, ends: np.ndarray) -> None:
    """Write the bits of all segments, whole bytes each, and where they end; ones fill the last byte (F.1.2.3)."""
    to, word, used, segment = U(0), U(0), U(0), 0
    for item in items:
        if item == _RESTART:
            clean[to] = np.uint8(word >> U(56)) | np.uint8(0xFF >> np.int64(used))
            to += U(used > U(0))
            ends[segment] = to
            word, used, segment = U(0), U(0), segment + 1
            continue
        index, size = U(item >> U32(16)), U(item >> U32(16) & U32(15))
        length = (codes[index] & U(0xFF)) + size
        word |= ((codes[index] >> U(8)) << size | U(item & U32(0xFFFF))) << (U(64) - used - length)
        put64(clean, to, word)
        used += length
        to += used >> U(3)
        word <<= used & U(0x38)
        used &= U(7)
    clean[to] = np.uint8(word >> U(56)) | np.uint8(0xFF >> np.int64(used))
    ends[segment] = to + U(used > U(0))


@jit_bare
def _stuff(clean: np.ndarray, ends: np.ndarray, out: np.ndarray, offsets: np.ndarray) -> int:
    """Write segments with a zero behind each byte of ones, and markers between them; gives where the last one ends."""
    at, to = U(0), U(0)
    for segment in range(len(ends)):
        end = U(ends[segment])
        while at < end:
            is_ff = copy_32(clean, at, out, to)
            run = min(end - at, U(32) if is_ff == U(0) else lowest_bit(is_ff) + U(1))
            at, to = at + run, to + run
            if clean[at - U(1)] == 0xFF:
                out[to] = 0
                to += U(1)
        if segment + 1 < len(ends):
            out[to], out[to + U(1)] = 0xFF, 0xD0 + (segment & 7)
            to += U(2)
        offsets[segment + 1] = to
    return np.int64(to)
