"""The footer of a parquet file and the headers of its pages: what a reader will ask memory for, known before it does.

A page says how many bytes it unpacks to, up to 2 GiB, and a reader takes its word; pyarrow's own view of a footer ends
the process where that is damaged. Both are structs of parquet.thrift (https://github.com/apache/parquet-format), in
Thrift's compact protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md).
"""

from __future__ import annotations

from typing import Any, BinaryIO, NamedTuple

_LEAST_BYTES, _RATIO = 4 * 2**20, 32
"""A page may always unpack to so many bytes; to more only if it takes a part of them in the file, as images do."""

_HEADER_BYTES = (512, 2**20)
"""What is read of a header first, and if that is not all of it: it may hold a page's smallest and largest value."""

_MOST_FOOTER_BYTES = 2**25

# Fields' numbers: of FileMetaData, RowGroup, ColumnChunk, ColumnMetaData, PageHeader, and of both DataPageHeaders.
_ALL_ROWS, _GROUPS = 3, 4
_COLUMNS, _ROWS = 1, 3
_COLUMN = 3
_COLUMN_VALUES, _COLUMN_BYTES, _FIRST_PAGE, _DICTIONARY = 5, 7, 9, 11
_UNPACKED, _PACKED, _DATA_PAGE, _DATA_PAGE_2 = 2, 3, 5, 8
_PAGE_VALUES = 1

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _, _STRUCT = range(1, 13)
_MOST_NESTED = 10

_NO_SENSE = "its footer or a page's header makes no sense"


class Column(NamedTuple):
    """Where a group's pages of a column lie, from byte ``start`` on, and how many values they hold."""

    start: int
    size_bytes: int
    values: int


class Group(NamedTuple):
    """A group of rows: how many, and its columns, in the order of the schema."""

    rows: int
    columns: tuple[Column, ...]


def groups(file: BinaryIO, size_bytes: int) -> list[Group]:
    """The groups of rows of a file, by its footer. Raises ValueError where that is damaged."""
    file.seek(max(0, size_bytes - 8))
    footer_bytes = int.from_bytes(file.read(4), "little")
    if not 0 < footer_bytes <= min(size_bytes - 12, _MOST_FOOTER_BYTES):
        raise ValueError(f"a footer of {footer_bytes:,} bytes in {size_bytes:,}")
    file.seek(size_bytes - 8 - footer_bytes)
    try:
        footer = _Reader(file.read(footer_bytes)).struct()
        result = [
            Group(_number(group, _ROWS), tuple(_column(chunk[_COLUMN]) for chunk in group[_COLUMNS]))
            for group in footer[_GROUPS]
        ]
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(_NO_SENSE) from error
    if sum(group.rows for group in result) != footer.get(_ALL_ROWS):
        raise ValueError("its groups' rows do not add up")
    return result


def largest(file: BinaryIO, column: Column) -> int:
    """What the largest of a column's pages unpacks to, in bytes.

    Raises ValueError where a header is damaged, or a page would unpack to many times what is there.
    """
    result, offset, end, values = 0, column.start, column.start + column.size_bytes, column.values
    while values > 0:
        header, size_bytes = _header(file, offset, end)
        unpacked, packed = _number(header, _UNPACKED), _number(header, _PACKED)
        offset += size_bytes + packed
        if offset > end:
            raise ValueError("a page that is longer than its column")
        if unpacked > _LEAST_BYTES + _RATIO * packed:
            raise ValueError(f"a page of {packed:,} bytes that unpacks to {unpacked:,}")
        result = max(result, unpacked)
        pages = (header.get(field) for field in (_DATA_PAGE, _DATA_PAGE_2))
        values -= sum(_number(page, _PAGE_VALUES) for page in pages if page is not None)
    return result


def _column(fields: dict[int, Any]) -> Column:
    # As pyarrow finds the first page.
    start, dictionary = _number(fields, _FIRST_PAGE), fields.get(_DICTIONARY, 0)
    start = dictionary if 0 < dictionary < start else start
    return Column(start, _number(fields, _COLUMN_BYTES), _number(fields, _COLUMN_VALUES))


def _header(file: BinaryIO, start: int, end: int) -> tuple[dict[int, Any], int]:
    for size_bytes in _HEADER_BYTES:
        file.seek(start)
        reader = _Reader(file.read(max(0, min(size_bytes, end - start))))
        try:
            return reader.struct(), reader.offset
        except IndexError:
            continue
    raise ValueError("a page's header that is cut short")


def _number(fields: Any, field: int) -> int:
    value = fields.get(field) if isinstance(fields, dict) else None
    if not isinstance(value, int) or not 0 <= value < 2**62:
        raise ValueError(_NO_SENSE)
    return value


class _Reader:
    """Reads a struct; IndexError where the data end before its end, ValueError where it makes no sense."""

    def __init__(self, data: bytes):
        self._data, self.offset = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The values in a struct, by the numbers of their fields."""
        fields: dict[int, Any] = {}
        field = 0
        while byte := self._byte():
            field = field + (byte >> 4) if byte >> 4 else _signed(self._varint())
            if field in fields:
                raise ValueError(_NO_SENSE)  # which of them counts is up to the reader
            kind = byte & 15
            fields[field] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MOST_NESTED:
            raise ValueError(_NO_SENSE)
        if kind in (_I16, _I32, _I64):
            return _signed(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            byte = self._byte()
            count = byte >> 4 if byte >> 4 < 15 else self._varint()
            return [self._value(byte & 15, depth + 1) for _ in range(count)]
        if kind in (_TRUE, _FALSE, _BYTE):  # in a list, each is a byte
            return self._byte()
        if kind in (_DOUBLE, _BINARY):
            size_bytes = 8 if kind == _DOUBLE else self._varint()
            self.offset += size_bytes
            return None  # not needed
        raise ValueError(_NO_SENSE)

    def _byte(self) -> int:
        self.offset += 1
        return self._data[self.offset - 1]

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError(_NO_SENSE)


def _signed(value: int) -> int:
    """A number that was written as 2 n or, below zero, as -2 n - 1."""
    return (value >> 1) ^ -(value & 1)
