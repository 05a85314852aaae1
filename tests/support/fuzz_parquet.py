"""Mutated parquet files: ``python -m support.fuzz_parquet SEED FIRST COUNT`` opens and reads them.

A mutant is a function of (seed, number) alone, so that one that is found can be looked at again.
"""

from __future__ import annotations

import faulthandler
import io
import json
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from support.fuzzing import try_all

Generator = np.random.Generator

ROWS = 24

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@cache
def originals() -> tuple[bytes, ...]:
    """Sound files of every kind, of a few thousand bytes."""
    random = np.random.default_rng(0)
    rows = [{"bytes": random.bytes(40), "path": f"a/{i}.jpg"} if i % 7 else None for i in range(ROWS)]
    info = {"info": {"features": {"label": {"names": ["cat", "dog", "cow"], "_type": "ClassLabel"}}}}
    labels = [
        pa.array([i % 3 for i in range(ROWS)]),
        pa.array([None, *(["a", "b"][i % 2] for i in range(ROWS - 1))]),
        pa.array([float(i % 3) for i in range(ROWS)]),
    ]
    kinds: list[dict[str, Any]] = [
        {},
        {"compression": "none", "use_dictionary": False},
        {"compression": "zstd", "data_page_version": "2.0"},
        {"compression": "gzip", "use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
        {"compression": "brotli", "store_schema": False, "data_page_size": 100, "write_batch_size": 4},
        {"compression": "lz4", "write_page_checksum": True, "write_page_index": True},
    ]
    result = []
    for label in labels:
        for options in kinds:
            if options.get("column_encoding"):
                columns = {"image.bytes": "DELTA_BYTE_ARRAY", "image.path": "DELTA_LENGTH_BYTE_ARRAY"}
                options = {**options, "column_encoding": columns}
            table = pa.table({"more": list(range(ROWS)), "image": pa.array(rows, IMAGE), "label": label})
            if pa.types.is_integer(label.type):
                table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
            file = io.BytesIO()
            pq.write_table(table, file, row_group_size=10, **options)
            result.append(file.getvalue())
    return tuple(result)


def footer_of(data: bytes | bytearray) -> tuple[int, int]:
    """Where the footer of a sound file starts and ends."""
    end = len(data) - 8
    return end - int.from_bytes(data[end : end + 4], "little"), end


def place_in(data: bytearray, random: Generator) -> int:
    """A byte: of the footer, twice in three."""
    first, last = footer_of(data) if random.integers(3) else (4, footer_of(data)[0])
    return int(random.integers(first, last))


def flip(data: bytearray, random: Generator) -> None:
    for _ in range(random.integers(1, 9)):
        data[place_in(data, random)] ^= 1 << random.integers(8)


def put(data: bytearray, random: Generator) -> None:
    for _ in range(random.integers(1, 5)):
        data[place_in(data, random)] = random.choice([0, 1, 2, 0x7F, 0x80, 0xFF, random.integers(256)])


def enlarge(data: bytearray, random: Generator) -> None:
    """Put a large number in the place of a byte, and mend the footer's length, where it lies there."""
    number = int(random.choice([1000, 2**20, 2**31 - 2, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1])) * 2
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    start, end = footer_of(data)
    at = place_in(data, random)
    data[at : at + 1] = [*digits, number]
    if at >= start:
        data[-8:-4] = (end - start + len(digits)).to_bytes(4, "little")


def cut(data: bytearray, random: Generator) -> None:
    """Remove or repeat a part, and mend the footer's length."""
    start, _ = footer_of(data)
    at, length = place_in(data, random), int(random.integers(1, 60))
    data[at : at + length] = bytes(data[at : at + length]) * int(random.choice([0, 2, 30]))
    if at >= start:
        data[-8:-4] = max(0, len(data) - 8 - start).to_bytes(4, "little") if len(data) > start + 8 else b"\0\0\0\0"


def splice(data: bytearray, random: Generator) -> None:
    """The footer of one file behind the pages of another."""
    other = originals()[random.integers(len(originals()))]
    data[footer_of(data)[0] :] = other[footer_of(other)[0] :]


def truncate(data: bytearray, random: Generator) -> None:
    del data[random.integers(len(data)) :]
    data += b"PAR1" if random.integers(2) else b""


MUTATIONS: list[Callable[[bytearray, Generator], None]] = [
    flip, flip, flip, put, put, put, enlarge, enlarge, enlarge, enlarge, cut, splice, truncate,
]  # fmt: skip


def mutant(seed: int, number: int) -> bytes:
    """A file that was mutated once, or, one in four, twice."""
    random = np.random.Generator(np.random.PCG64([seed, number]))
    data = bytearray(originals()[random.integers(len(originals()))])
    for _ in range(random.choice([1, 1, 1, 2])):
        if len(data) > 12 and 4 < footer_of(data)[0] < footer_of(data)[1]:
            MUTATIONS[random.integers(len(MUTATIONS))](data, random)
    return b"PAR1" + bytes(data[4:])


def open_and_read(place: Path) -> bool:
    """What a build does with a file; whether it is a source. The only errors allowed are ours."""
    from ingest.errors import BadSampleError, SourceError
    from ingest.sources.base import NO_CLASS
    from ingest.sources.detect import open_source

    def read(reader: Callable[..., Any], entry: Any) -> bytes | None:
        try:
            return reader(entry).data
        except BadSampleError as error:
            assert str(error)
            return None

    try:
        source = open_source(place)
        assert source.stage
        staged = source.stage(place.with_name("scratch"))
        entries = source.entries[::5]
        assert [read(source.read, entry) for entry in entries] == [read(staged, entry) for entry in entries]
    except SourceError as error:
        assert str(place) in str(error) and "\n" not in str(error)
        return False
    assert all(entry.label == NO_CLASS or 0 <= entry.label < len(source.classes) for entry in source.entries)
    assert len({entry.key for entry in source.entries}) == len(source.entries)
    return True


def main(seed: int, first: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "mutant.parquet"
        place.write_bytes(originals()[0])
        assert open_and_read(place)  # all modules are loaded now

        def use(number: int) -> bool:
            place.write_bytes(mutant(seed, number))
            return open_and_read(place)

        try_all(seed, range(first, first + count), use, count)


if __name__ == "__main__":
    faulthandler.enable()
    main(*map(int, sys.argv[1:]))
