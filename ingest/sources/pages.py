"""The pages of a parquet file, by their headers alone: what a reader will ask memory for, known before it does.

A page says how many bytes it unpacks to, up to 2 GiB, and a reader takes its word. Headers are structs PageHeader of
parquet.thrift (https://github.com/apache/parquet-format), in Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md).
"""

from __future__ import annotations

from typing import Any, BinaryIO

_LEAST_BYTES, _RATIO = 4 * 2**20, 32
"""A page may always unpack to so many bytes; to more only if it takes a part of them in the file, as images do."""

_HEADER_BYTES = (512, 2**20)
"""What is read of a header first, and if that is not all of it: it may hold a page's smallest and largest value."""

# Fields of PageHeader, and one of DataPageHeader and DataPageHeaderV2.
_UNPACKED, _PACKED, _DATA_PAGE, _DATA_PAGE_2 = 2, 3, 5, 8
_VALUES = 1

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 12
_MOST_NESTED = 8


def largest(file: BinaryIO, start: int, end: int, values: int) -> int:
    """What the largest page unpacks to, in bytes, of those from byte ``start`` on that hold ``values`` values.

    These are the pages that a reader of a column's chunk goes through, which ends at byte ``end``. Raises ValueError
    where a header is damaged, or a page would unpack to many times what is there.
    """
    result = 0
    while values > 0:
        header, size_bytes = _header(file, start, end)
        unpacked, packed = (_number(header, field) for field in (_UNPACKED, _PACKED))
        start += size_bytes + packed
        if start > end:
            raise ValueError("a page that is longer than its column")
        if unpacked > _LEAST_BYTES + _RATIO * packed:
            raise ValueError(f"a page of {packed:,} bytes that unpacks to {unpacked:,}")
        result = max(result, unpacked)
        pages = (header.get(field) for field in (_DATA_PAGE, _DATA_PAGE_2))
        values -= sum(_number(page, _VALUES) for page in pages if isinstance(page, dict))
    return result


def _header(file: BinaryIO, start: int, end: int) -> tuple[dict[int, Any], int]:
    for size_bytes in _HEADER_BYTES:
        file.seek(start)
        reader = _Reader(file.read(max(0, min(size_bytes, end - start))))
        try:
            return reader.struct(), reader.at
        except IndexError:
            continue
    raise ValueError("a page's header that is cut short")


def _number(fields: dict[int, Any], field: int) -> int:
    value = fields.get(field)
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError("a page's header that makes no sense")
    return value


class _Reader:
    """Reads a struct; IndexError where it ends before its end, ValueError where it holds what no page's header does."""

    def __init__(self, data: bytes):
        self._data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The numbers and structs in a struct, by the numbers of their fields."""
        if depth > _MOST_NESTED:
            raise ValueError("a page's header that makes no sense")
        fields: dict[int, Any] = {}
        field = 0
        while byte := self._byte():
            field = field + (byte >> 4) if byte >> 4 else _signed(self._varint())
            kind = byte & 15
            if kind in (_TRUE, _FALSE):
                continue
            if kind in (_I16, _I32, _I64):
                fields[field] = _signed(self._varint())
            elif kind == _STRUCT:
                fields[field] = self.struct(depth + 1)
            elif kind in (_BYTE, _DOUBLE, _BINARY):
                size_bytes = {_BYTE: 1, _DOUBLE: 8}.get(kind) or self._varint()
                self.at += size_bytes
            else:
                raise ValueError("a page's header that makes no sense")
        return fields

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a page's header that makes no sense")


def _signed(value: int) -> int:
    """A number that was written as 2 n or, below zero, as -2 n - 1."""
    return (value >> 1) ^ -(value & 1)
