"""The table of what could not be packed, and why: quarantine.tsv."""

from __future__ import annotations

from pathlib import Path

from ingest.errors import RecordError
from ingest.system import paths

QUARANTINE = "quarantine.tsv"


_MAX_TABLE_BYTES = 2**29
"""Of the file QUARANTINE: a few million lines."""


# What ends a cell or a line, and what a terminal would obey, as Python writes it.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))


_ESCAPES = str.maketrans({c: chr(c).encode("unicode_escape").decode() for c in (*_CONTROLS, ord("\\"))})


def quarantine_table(rows: list[tuple[str, str]]) -> bytes:
    """The file QUARANTINE: a line for each key and reason, below their names; nothing for no rows."""
    lines = ("\t".join(cell.translate(_ESCAPES) for cell in row) for row in [("key", "reason"), *rows] if rows)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def read_quarantine(folder: Path) -> bytes:
    """The file QUARANTINE of a dataset, or nothing where it has none. Raises RecordError where it cannot be read."""
    path = folder / QUARANTINE
    try:
        return paths.read_small(path, _MAX_TABLE_BYTES) if path.exists() else b""
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read ({error.strerror}): remove it, or build the dataset again", path=path
        ) from error


def count_quarantined(folder: Path) -> int:
    """How many entries the file QUARANTINE of a dataset names."""
    return max(0, read_quarantine(folder).count(b"\n") - 1)
