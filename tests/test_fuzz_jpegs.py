"""Hostile and broken images: packed or quarantined, quickly, in little memory; what is packed can be shown."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from support.fuzz_jpegs import ENCODINGS
from support.fuzzing import COUNT, tried
from support.jpeg_kinds import scan_bomb

pytestmark = pytest.mark.slow

UNCOMPILED = COUNT // 20
"""Those of them that are tried again without compilation, which takes a hundred times as long."""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_mutated_jpegs_are_packed_and_shown_or_quarantined(encoding: str):
    for result in tried("fuzz_jpegs", encoding):
        assert min(result["taken"], result["refused"]) > result["count"] // 10


def test_no_index_is_out_of_bounds_where_nothing_is_compiled():
    results = tried("fuzz_jpegs", "keep", count=UNCOMPILED, NUMBA_DISABLE_JIT="1")
    assert sum(result["taken"] for result in results) > UNCOMPILED // 10


def png_of_nothing(side: int) -> bytes:
    """A PNG of one bit a pixel, which deflate makes a thousandth of its size of."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    squeeze = zlib.compressobj(9)
    rows = b"".join([*(squeeze.compress(bytes(1 + side // 8)) for _ in range(side)), squeeze.flush()])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def oversized() -> bytes:
    """A JPEG of 64 x 64 pixels that says it has 8191 x 8191."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG")
    return file.getvalue().replace(bytes((0, 64, 0, 64)), bytes((0x1F, 0xFF, 0x1F, 0xFF)), 1)


MEASURE = """
import sys, time
from pathlib import Path
from support.fuzzing import peak_bytes
from ingest import jpeg
from ingest.errors import BadSampleError
jpeg.normalize(Path(sys.argv[2]).read_bytes())
data = Path(sys.argv[1]).read_bytes()
start = time.perf_counter()
try:
    jpeg.normalize(data)
    print("packed")
except BadSampleError as error:
    print(error)
print(time.perf_counter() - start, peak_bytes())
"""


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (png_of_nothing(60_000), "many more pixels than the limit of 33554432"),
        (png_of_nothing(6_000), "6000 x 6000 pixels are more than the limit of 33554432"),
        (scan_bomb(), "3010 scans of 3000 x 3000 pixels would take too long to decode"),
        (oversized(), "8191 x 8191 pixels cannot be in 691 bytes"),
    ],
    ids=["huge PNG", "large PNG", "scans", "declared"],
)
def test_a_bomb_is_quarantined_in_little_time_and_memory(tmp_path: Path, bomb: bytes, reason: str):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", progressive=True)
    (tmp_path / "bomb").write_bytes(bomb)
    (tmp_path / "harmless").write_bytes(file.getvalue())
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "bomb"), str(tmp_path / "harmless")]
    here = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}"}
    said, figures = subprocess.run(command, capture_output=True, text=True, check=True, env=here).stdout.splitlines()
    seconds, peak_bytes = map(float, figures.split())
    assert said == reason
    assert seconds < 1 and peak_bytes < 500 * 10**6
