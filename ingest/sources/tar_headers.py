"""The headers of a tar: ustar, GNU's long names, pax. Strict, since an archive is foreign bytes.

A size is believed only as far as the archive goes, no header is read that is larger than a header may be, and every
block is a header, a member's content or padding: anything else is an error that names the byte. What follows an end
marker is read, too: archives may be joined end to end.

The formats: POSIX's page on ``pax``, and "Basic Tar Format" in GNU tar's manual.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ingest.errors import SourceError

BLOCK_BYTES = 512

_LONGEST_HEADER_BYTES = 2**20
"""Of a long name or a pax header, which may hold extended attributes of 64 KiB each."""

_LONGEST_NAME = 4095
"""Linux has no longer paths."""

_LONGEST_PADDING_BYTES = 2**24
"""Zeros after an archive. tar pads to 10 KiB; far more are a file that got its full size before its content."""

COMPRESSED = (b"\x1f\x8b", b"BZ", b"\xfd7")
"""The first bytes of what gzip, bzip2 and xz wrote."""

SOUND, FOLDER, LINK, NO_FILE, OUTSIDE, NO_NAME = range(6)
FAULTS = {
    LINK: "a link, not a regular file",
    NO_FILE: "a device, a pipe or a sparse file, not a regular file",
    OUTSIDE: "a name that leads out of the archive",
    NO_NAME: "a name that no file can have",
}
"""What is wrong with a member. A FOLDER is a member, but no file."""

# Types of members. What is none of them is skipped by its size, as POSIX wants it.
_REGULAR, _LINKS, _FOLDERS, _SPARSE, _WITHOUT_CONTENT = b"0\0" + b"7", b"12", b"5D", b"S", b"123456"
_LONG_NAME, _LONG_LINK, _PAX_FOR_ALL, _EXTENDED = b"L", b"K", b"g", b"LKxXg"

_OCTAL = re.compile(rb" *([0-7]*) *(?:\0.*)?", re.DOTALL)
_DECIMAL = re.compile(rb"[0-9]{1,18}")
_DOT_SLASHES = re.compile(r"(?:\./)+")
_PAX_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=]+)=")


class Member(NamedTuple):
    """A member of the archive with the number ``archive``: where its content lies, and what is wrong with it."""

    name: str
    archive: int
    offset: int
    size_bytes: int
    fault: int
    is_tar: bool


def members(file: IO[bytes], path: Path, archive: int, start: int, size_bytes: int | None = None) -> Iterator[Member]:
    """All members of the archive at bytes ``start`` to ``start + size_bytes``, or to the end, of ``file``.

    Raises SourceError, which names ``path``, where it is cut short or is not an archive throughout.
    """
    end = file.seek(0, 2) if size_bytes is None else start + size_bytes
    offset, has_end = start, False
    for_all: dict[str, bytes] = {}
    for_next: dict[str, bytes] = {}
    while offset < end:
        block = part(file, offset, min(2 * BLOCK_BYTES, end - offset))
        header = block[:BLOCK_BYTES]
        if not any(header) and not for_next:
            has_end |= len(header) == BLOCK_BYTES
            offset = _after_zeros(file, path, offset, end)
        elif not is_header(header):
            raise _damaged(path, f"no header at byte {offset}{', which follows its end' if has_end else ''}")
        elif header[156:157] in _EXTENDED:
            fields, offset = _extended(file, path, header, offset, end)
            (for_all if header[156:157] == _PAX_FOR_ALL else for_next).update(fields)
            has_end = False
        else:
            member, offset = _member(file, path, archive, block, offset, end, {**for_all, **for_next})
            for_next, has_end = {}, False
            yield member
    if for_next or not has_end:
        raise _damaged(path, f"there is no end marker before byte {end}")


def is_header(block: bytes) -> bool:
    """Whether a block is the header of a member: it has a checksum of its own."""
    if len(block) != BLOCK_BYTES:
        return False
    checksum = _OCTAL.fullmatch(block[148:156])
    if not checksum or not checksum[1]:
        return False
    unsigned = sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")
    excess = unsigned - int(checksum[1], 8)
    # Some old tars took bytes for signed numbers.
    return not excess or excess == 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def is_compressed(start: bytes) -> bool:
    """Whether a file that begins with ``start``, a MiB at most, is a compressed tar. Unpacks no more than one block."""
    try:
        if start.startswith(b"\x1f\x8b"):
            return is_header(zlib.decompressobj(wbits=31).decompress(start, BLOCK_BYTES))
        if start.startswith(b"BZh"):
            return is_header(bz2.BZ2Decompressor().decompress(start, BLOCK_BYTES))
        if start.startswith(b"\xfd7zXZ\0"):
            return is_header(lzma.LZMADecompressor(memlimit=2**28).decompress(start, BLOCK_BYTES))
    except (zlib.error, OSError, lzma.LZMAError, EOFError):
        pass
    return False


def part(file: IO[bytes], start: int, size_bytes: int) -> bytes:
    """Bytes of an open file; fewer where it ends."""
    file.seek(start)
    return file.read(size_bytes)


def _member(
    file: IO[bytes], path: Path, archive: int, block: bytes, header_offset: int, end: int, fields: dict[str, bytes]
) -> tuple[Member, int]:
    """The member whose header is at byte ``header_offset``, and where the next one's is."""
    kind, offset = block[156:157], header_offset + BLOCK_BYTES
    size = _size(block, fields)
    if size is None:
        raise _damaged(path, f"the member at byte {header_offset} has no size")
    if kind == _SPARSE:
        offset = _after_map(file, path, block, offset, end)
    content_bytes = 0 if kind in _WITHOUT_CONTENT else size
    if offset + content_bytes > end:
        raise _damaged(path, f"the member at byte {header_offset} has {content_bytes} bytes, and {end - offset} follow")
    name = _name(block, fields)
    fault = _fault(kind, name, size, is_sparse="sparse" in fields)
    is_tar = content_bytes >= BLOCK_BYTES and is_header(block[BLOCK_BYTES:])
    return Member(
        name=name, archive=archive, offset=offset, size_bytes=content_bytes, fault=fault, is_tar=is_tar
    ), offset + _padded(content_bytes)


def _size(header: bytes, fields: dict[str, bytes]) -> int | None:
    given = fields.get("size")
    if given:
        return int(given) if _DECIMAL.fullmatch(given) else None
    return _number(header[124:136])


def _name(header: bytes, fields: dict[str, bytes]) -> str:
    name = fields.get("GNU.sparse.name") or fields.get("path") or fields.get("long name") or _ustar_name(header)
    text = _text(name).decode("utf-8", "surrogateescape")
    match = _DOT_SLASHES.match(text)
    return text[match.end() :] if match else text


def _ustar_name(header: bytes) -> bytes:
    name = _text(header[:100])
    # GNU's headers, which say "ustar  ", have times where those of POSIX have the start of a long path.
    prefix = _text(header[345:500]) if header[257:262] == b"ustar" and header[262:263] != b" " else b""
    return prefix + b"/" + name if prefix else name


def _fault(kind: bytes, name: str, size_bytes: int, is_sparse: bool) -> int:
    if kind in _FOLDERS or (kind == b"\0" and name.endswith("/") and not size_bytes):  # the latter from before POSIX
        return FOLDER
    if kind in _LINKS:
        return LINK
    if kind not in _REGULAR or is_sparse:
        return NO_FILE
    parts = name.split("/")
    if (not parts[0] and len(parts) > 1) or ".." in parts:
        return OUTSIDE
    if parts[-1] in ("", ".") or len(name) > _LONGEST_NAME:
        return NO_NAME
    return SOUND


def _extended(file: IO[bytes], path: Path, header: bytes, offset: int, end: int) -> tuple[dict[str, bytes], int]:
    """What a header says of the members after it, as far as it matters here, and where the next header is."""
    size = _number(header[124:136])
    if size is None or size > min(_LONGEST_HEADER_BYTES, end - offset - BLOCK_BYTES):
        raise _damaged(path, f"the extended header at byte {offset} is too long")
    data, kind = part(file, offset + BLOCK_BYTES, size), header[156:157]
    after = offset + BLOCK_BYTES + _padded(size)
    if kind == _LONG_LINK:
        return {}, after
    if kind == _LONG_NAME:
        return {"long name": _text(data)}, after
    fields = _pax_fields(data)
    if fields is None:
        raise _damaged(path, f"the extended header at byte {offset} is no list of fields")
    return fields, after


def _pax_fields(data: bytes) -> dict[str, bytes] | None:
    """Name, size and whether it is sparse, from records of ``LENGTH KEY=VALUE\\n``; None where it is something else."""
    fields, offset = {}, 0
    data = data.rstrip(b"\0")
    while offset < len(data):
        record = _PAX_RECORD.match(data, offset)
        end = offset + int(record[1]) if record else 0
        if not record or not record.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            return None
        key = record[2]
        if key in (b"path", b"size", b"GNU.sparse.name"):
            fields[key.decode()] = data[record.end() : end - 1]
        if key.startswith(b"GNU.sparse."):
            fields["sparse"] = b""
        offset = end
    return fields


def _after_map(file: IO[bytes], path: Path, header: bytes, offset: int, end: int) -> int:
    """Where the content of a sparse file begins: behind the blocks of its map."""
    has_more = header[482]
    while has_more:
        block = part(file, offset, min(BLOCK_BYTES, end - offset))
        if len(block) < BLOCK_BYTES:
            raise _damaged(path, f"it ends within a sparse file's map, at byte {end}")
        has_more, offset = block[504], offset + BLOCK_BYTES
    return offset


def _after_zeros(file: IO[bytes], path: Path, start: int, end: int) -> int:
    """The first block from ``start`` on that has more than zeros in it, or ``end``."""
    offset = start
    while offset < end:
        data = part(file, offset, min(2**16, end - offset))
        rest = data.lstrip(b"\0")
        if rest or not data:
            return offset + (len(data) - len(rest)) // BLOCK_BYTES * BLOCK_BYTES if data else end
        offset += len(data)
        if offset - start > _LONGEST_PADDING_BYTES:
            raise _damaged(path, f"zeros from byte {start} on")
    return end


def _number(field: bytes) -> int | None:
    """A number in a header: octal digits or, with the first bit set, binary. None where it is neither, or negative."""
    if field[0] >= 0xC0:
        return None
    if field[0] >= 0x80:
        return int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
    digits = _OCTAL.fullmatch(field)
    return int(digits[1] or b"0", 8) if digits else None


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError(f"{path}: damaged, or cut short ({why}): fetch it again", path=path)
