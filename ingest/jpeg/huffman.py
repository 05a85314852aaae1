"""A JPEG's entropy-coded data to quantised coefficients and back, bit by bit and without loss (ITU-T T.81).

    scan -> unstuff -> bits -> decode_scan -> coefficients -> to_symbols -> symbols -> encode_scan -> scan of bytes

A sequential JPEG, which most are, goes straight from bits to symbols (transcode_symbols). All of this is compiled:
there are more than 100,000 symbols in an image of 110 KB.

Coefficients are int16, 64 a block in zigzag order, component after component, each in rows of its blocks.
"""

from __future__ import annotations

import numpy as np

from ingest.system.jit import jit, jit_inline

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
        byte = data[offset]
        if byte != 0xFF:
            clean[to] = byte
            to += 1
            offset += 1
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


@jit
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


@jit
def transcode_symbols(
    bits: np.ndarray, bounds: np.ndarray, interval: int, members: np.ndarray, layout: np.ndarray, units: int,
    tables: np.ndarray, new_interval: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """What to_symbols() gives for the one scan of a sequential JPEG, straight from its bits; no symbols if it is odd.

    ``bounds[0, 0]`` becomes -1 where bytes are left behind the last MCU of a segment: one number more to keep and to
    return would make the loop 8 % slower.
    """
    histogram = np.zeros(4 * 257, np.int64)
    # No symbol has less than a bit; of so much memory most is never touched.
    items = np.empty(8 * len(bits) + units // new_interval, np.uint32)
    read, written = np.zeros(len(layout), np.int64), np.zeros(len(layout), np.int64)
    segment, position, end, n = -1, 0, 0, 0
    for unit in range(units):
        if unit % interval == 0:
            segment += 1
            if segment == len(bounds):
                return items[:0], histogram.reshape(4, 257)
            if end - position > 7:
                bounds[0, 0] = -1
            position, end = bounds[segment, 0] * 8, bounds[segment, 1] * 8
            read[:] = 0
        if unit and unit % new_interval == 0:
            items[n] = _RESTART
            n += 1
            written[:] = 0
        for member in range(len(members)):
            component, dc, ac = members[member, 0], members[member, 1], members[member, 2]
            table = 3 if component else 1
            for _ in range(layout[component, H] * layout[component, V]):
                position, size = _symbol(bits, position, tables, dc)
                if size > 15:
                    return items[:0], histogram.reshape(4, 257)
                position, value = _value(bits, position, size)
                read[component] += value
                n = _item(items, n, histogram, table - 1, 0, read[component] - written[component])
                written[component] = read[component]
                k = 1
                while k < 64 and position <= end:
                    position, symbol, value = _symbol_and_value(bits, position, tables, ac)
                    items[U(n)] = value | symbol << 16 | table << 24
                    histogram[U(257 * table + symbol)] += 1
                    n += 1
                    size = symbol & 15
                    k = k + (symbol >> 4) + 1 if size or symbol == _ZRL else 64
                if position > end or (k > 64 and size):
                    return items[:0], histogram.reshape(4, 257)
    if end - position > 7:
        bounds[0, 0] = -1
    return items[:n], histogram.reshape(4, 257)


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
    codes, lengths = np.zeros(4 * 256, np.int64), np.zeros(4 * 256, np.int64)
    for table in range(4):
        value, index = 0, 0
        for length in range(1, 17):
            for _ in range(counts[table, length - 1]):
                codes[256 * table + symbols[table, index]] = value
                lengths[256 * table + symbols[table, index]] = length
                value += 1
                index += 1
            value <<= 1
    total, restarts = 0, len(items)
    for table in range(4):
        for symbol in range(256):
            occurs = histogram[table, symbol]
            total += occurs * (lengths[256 * table + symbol] + (symbol & 15))
            restarts -= occurs
    # Each byte may need stuffing, each segment a marker and bits to fill its last byte.
    out = np.empty(total // 4 + 5 * restarts + 16, np.uint8)
    offsets = np.zeros(restarts + 2, np.uint32)
    to, accumulator, waiting, segment = 0, 0, 0, 0
    for item in items:
        if item == _RESTART:
            to = _flush(out, to, accumulator, waiting)
            accumulator, waiting = 0, 0
            out[to], out[to + 1] = 0xFF, 0xD0 + (segment & 7)
            to += 2
            segment += 1
            offsets[segment] = to
            continue
        index, size = np.int64(item >> 16), np.int64(item >> 16 & 15)
        length = np.int64(lengths[U(index)])
        accumulator = accumulator << (length + size) | codes[U(index)] << size | np.int64(item & 0xFFFF)
        waiting += length + size
        if waiting >= 32:
            waiting -= 32
            to = _put(out, to, accumulator >> waiting)
            accumulator &= (1 << waiting) - 1
    to = _flush(out, to, accumulator, waiting)
    offsets[segment + 1] = to
    return out[:to], offsets


@jit_inline
def _put(out: np.ndarray, to: int, word: int) -> int:
    """Write 32 bits, with a zero behind each byte of ones."""
    zeros = ~word
    if (zeros - 0x01010101) & ~zeros & 0x80808080 == 0:  # none of the bytes is all ones
        out[U(to)], out[U(to + 1)] = word >> 24 & 0xFF, word >> 16 & 0xFF
        out[U(to + 2)], out[U(to + 3)] = word >> 8 & 0xFF, word & 0xFF
        return to + 4
    return _put_stuffed(out, to, word)


@jit
def _put_stuffed(out: np.ndarray, to: int, word: int) -> int:
    for shift in (24, 16, 8, 0):
        byte = word >> shift & 0xFF
        out[to] = byte
        to += 1
        if byte == 0xFF:
            out[to] = 0
            to += 1
    return to


@jit
def _flush(out: np.ndarray, to: int, accumulator: int, waiting: int) -> int:
    """Write what waits, and fill its last byte with ones."""
    while waiting > 0:
        byte = (accumulator << 8 | 0xFF) >> waiting & 0xFF
        out[to] = byte
        to += 1
        waiting -= 8
        if byte == 0xFF:
            out[to] = 0
            to += 1
    return to
