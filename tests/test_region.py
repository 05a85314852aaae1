"""The region decoder: libjpeg-turbo's pixels, stage by stage and as a whole; what it refuses; who compiles it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from support import jpeg_kinds as kinds
from support.fuzzing import COUNT, tried
from support.images import image_bytes
from test_jpeg_crop import photo, photos

from ingest import jpeg
from ingest.errors import BadSampleError, RecordError
from ingest.jpeg import Region, color, entropy, inverse_dct, reference, vectors
from ingest.jpeg.region import decoder, try_decode_region

OURS = ("444", "422", "420", "440", "Gray")


@settings(max_examples=300)
@given(data=photos, channels=st.sampled_from([1, 3]), draws=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4))
def test_pixels_are_libjpegs(data: bytes, channels: int, draws: tuple[float, ...]):
    image = jpeg.normalize(data)
    top, left = int(draws[0] * image.height), int(draws[1] * image.width)
    region = Region(top, left, 1 + int(draws[2] * (image.height - top)), 1 + int(draws[3] * (image.width - left)))
    shown = try_decode_region(image.encoded, image.segments, channels, region)
    components = jpeg.read_header(image.encoded).components
    factors = (components[0].h, components[0].v)
    is_ours = factors in ((1, 1), (2, 2), (1, 2)) or (factors == (2, 1) and image.width > 4)
    is_ours &= factors != (2, 2) or image.width > 4
    assert (shown is not None) == is_ours
    if shown is not None:
        whole = jpeg.decode(image.encoded, channels)
        assert np.array_equal(shown, whole[region.top :, region.left :][: region.height, : region.width])


@pytest.mark.parametrize("sampling", OURS)
@pytest.mark.parametrize("quality", [1, 50, 100])
def test_all_sizes_to_two_mcus(sampling: str, quality: int):
    for height in (1, 2, 7, 8, 9, 15, 16, 17, 31, 33):
        for width in (5, 6, 8, 9, 15, 16, 17, 31, 33):
            image = jpeg.normalize(photo(height, width, sampling, quality, height + width))
            shown = try_decode_region(image.encoded, image.segments, 3, Region(0, 0, height, width))
            assert shown is not None
            assert np.array_equal(shown, jpeg.decode(image.encoded, 3))


def plain_blocks(data: bytes, codes: dict[tuple[int, int], int], ac_codes: dict[tuple[int, int], int], n: int) -> list:
    """``n`` blocks of one component, coefficients in zigzag order: ITU-T T.81, F.2.2, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def symbol(table: dict[tuple[int, int], int]) -> int:
        nonlocal at
        for length in range(1, 17):
            code = (length, int(bits[at : at + length], 2))
            if code in table:
                at += length
                return table[code]
        raise ValueError("no such code")

    def value(size: int) -> int:
        nonlocal at
        number = int(bits[at : at + size], 2) if size else 0
        at += size
        return number if size == 0 or number >> (size - 1) else number + 1 - (1 << size)

    blocks = []
    for _ in range(n):
        block = [value(symbol(codes))] + [0] * 63
        k = 1
        while k < 64:
            run, size = divmod(symbol(ac_codes), 16)
            if size == 0 and run < 15:
                break
            k += run
            block[k] = value(size)
            k += 1
        blocks.append(block)
    return blocks


def codes_of(counts: list[int], symbols: list[int]) -> dict[tuple[int, int], int]:
    """Length and bits of each code (T.81, annex C)."""
    codes, code, rest = {}, 0, iter(symbols)
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            codes[length, code] = next(rest)
            code += 1
        code <<= 1
    return codes


def tables_of(data: bytes) -> dict[int, tuple[list[int], list[int]]]:
    """Counts and symbols of each table of a JPEG, by class and number."""
    tables, at = {}, 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        place = at + 4
        while data[at + 1] == 0xC4 and place < end:
            counts = list(data[place + 1 : place + 17])
            tables[data[place]] = counts, list(data[place + 17 : place + 17 + sum(counts)])
            place += 17 + sum(counts)
        at = end
    return tables


@pytest.mark.parametrize("quality", [5, 75, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_coefficients_are_the_standards(quality: int, count: int):
    image = jpeg.normalize(photo(8 * 7, 32, "Gray", quality, 3))
    offsets = np.frombuffer(image.segments, "<u4").tolist()
    tables, codes = np.empty(4 * entropy.TABLE, np.uint64), np.zeros(4 * entropy.CODES, np.int32)
    of_image = tables_of(image.encoded)
    for i, number in enumerate((0x00, 0x10)):
        counts, symbols = (np.array(part, np.uint8) for part in of_image[number])
        part = slice(i * entropy.TABLE, (i + 1) * entropy.TABLE)
        assert entropy.build_table(counts, symbols, i == 1, tables[part], codes[i * entropy.CODES :][: entropy.CODES])
    data = np.frombuffer(image.encoded, np.uint8)
    clean, bounds, to = np.zeros(len(data) + entropy.PADDING, np.uint8), np.zeros((count, 2), np.int64), 0
    for i in range(count):
        bounds[i, 0] = to
        to = bounds[i, 1] = entropy.unstuff(data, offsets[i], offsets[i + 1] - 2 * (i < 6), clean, to)
    clean[to:] = 0
    coefficients = np.zeros((4 * count + entropy.SPARE, 64), np.int16)
    last = np.zeros(4 * count + entropy.SPARE, np.uint8)
    dc, ac = np.zeros(1, np.int64), np.full(1, entropy.TABLE)
    assert entropy.decode_segments(clean, bounds, count, 4, dc, ac, tables, codes, coefficients.reshape(-1), last)
    for i in range(count):
        bits = clean[bounds[i, 0] : bounds[i, 1]].tobytes() + bytes(4)
        plain = plain_blocks(bits, codes_of(*of_image[0x00]), codes_of(*of_image[0x10]), 4)
        assert coefficients[4 * i : 4 * i + 4][:, entropy.ZIGZAG].tolist() == plain
        for block, most in zip(plain, last[4 * i :], strict=False):
            used = max((k for k in range(64) if block[k]), default=0)
            assert used <= most and (used == 63) == (most == 191)


@pytest.mark.parametrize(
    ("counts", "symbols", "is_ac"),
    [
        ([2], [1, 2], True),  # the code of all ones
        ([3], [1, 2, 3], True),  # more codes than there are
        ([1, 1], [0, 12], False),  # sizes that no image of 8 bits has
        ([1, 1], [0, 0x0B], True),
    ],
)
def test_tables_that_are_none_are_refused(counts: list[int], symbols: list[int], is_ac: bool):
    table, codes = np.empty(entropy.TABLE, np.uint64), np.zeros(entropy.CODES, np.int32)
    padded = np.array(counts + [0] * (16 - len(counts)), np.uint8)
    assert not entropy.build_table(padded, np.array(symbols, np.uint8), is_ac, table, codes)


@pytest.mark.parametrize("form", ["PORTABLE", "AVX2"])
@pytest.mark.parametrize("most", [10, 64])
def test_samples_are_those_of_the_reference(form: str, most: int):
    """Both forms of the vector code, where the processor has AVX2."""
    if form == "AVX2" and not vectors.HAS_AVX2:
        pytest.skip("this processor has no AVX2")
    transform = getattr(vectors, form)[most < 64]

    @njit
    def run(coefficients: np.ndarray, factors: np.ndarray, out: np.ndarray) -> int:
        u = np.uint64
        return transform(coefficients, u(0), u(64), factors, u(0), out, u(0), u(8), u(16))

    random = np.random.default_rng(most)
    for spread in (1, 20, 200):
        blocks = np.zeros((2, 64), np.int16)
        blocks[:, entropy.ZIGZAG[:most]] = random.normal(0, spread, (2, most))
        factors = random.integers(1, 5, 64).astype(np.int16)
        out = np.zeros((8, 16), np.uint8)
        assert run(blocks.reshape(-1), factors, out.reshape(-1)) == 0
        for i in range(2):
            expected = reference.inverse_dct((blocks[i].astype(int) * factors).reshape(8, 8))
            assert np.array_equal(out[:, 8 * i : 8 * i + 8], expected)


def test_the_reference_is_the_inverse_dct():
    """Within a level, on average without a bias, against the formula (T.81, A.3.3) in float64."""
    u = np.arange(8)
    basis = np.cos((2 * u[:, None] + 1) * u * np.pi / 16) * np.where(u == 0, 1 / np.sqrt(2), 1) / 2
    random, differences = np.random.default_rng(0), []
    for _ in range(200):
        coefficients = np.round(random.normal(0, 30, (8, 8)))
        exact = basis @ coefficients @ basis.T + 128
        differences.append(reference.inverse_dct(coefficients) - np.clip(exact, 0, 255))
    assert np.abs(differences).max() < 0.6 and abs(np.mean(differences)) < 0.01


def test_a_block_of_dc_alone_is_what_the_transform_makes_of_it():
    out = np.zeros(64, np.uint8)
    for dc in range(-1100, 1101, 3):
        coefficients = np.zeros(64, np.int16)
        coefficients[0] = dc
        factors, last = np.full(64, 1, np.int16), np.zeros(1, np.uint8)
        assert inverse_dct.inverse_dct(coefficients, 0, 1, 1, last, factors, 0, out, 0, 8, 8)
        assert np.array_equal(out.reshape(8, 8), reference.inverse_dct(coefficients.reshape(8, 8)))


def test_all_colors_are_those_of_the_reference():
    """Every Cb and Cr, with Y from end to end; rows of less than a vector, too."""
    cb, cr = (part.reshape(-1).astype(np.uint8) for part in np.mgrid[:256, :256])
    y = np.random.default_rng(0).integers(0, 256, 65536).astype(np.uint8)
    out = np.zeros(3 * 65536, np.uint8)
    color.to_rgb(y, 0, cb, 0, cr, 0, 65536, out, 0)
    expected = np.array([reference.rgb(*map(int, pixel)) for pixel in zip(y, cb, cr, strict=True)], np.uint8)
    assert np.array_equal(out.reshape(-1, 3), expected)
    for width in range(1, 40):
        out[:] = 7
        color.to_rgb(y, 5, cb, 5, cr, 5, width, out, 3)
        assert np.array_equal(out[3 : 3 + 3 * width].reshape(-1, 3), expected[5 : 5 + width])
        assert (out[3 + 3 * width :] == 7).all()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(photo(40, 40, "411", 90, 0), id="four samples of luma a row"),
        pytest.param(kinds.adobe(0, size=(40, 30), subsampling="4:4:4"), id="RGB"),
        pytest.param(image_bytes("JPEG", size=(40, 30), qtables=[[300] * 64, [400] * 64]), id="16-bit tables"),
        pytest.param(photo(30, 4, "420", 90, 0), id="two chroma samples a row"),
    ],
)
def test_other_kinds_are_libjpegs(data: bytes):
    image = jpeg.normalize(data)
    region = Region(1, 1, image.height - 2, image.width - 2)
    assert try_decode_region(image.encoded, image.segments, image.channels, region) is None
    whole = jpeg.decode(image.encoded, image.channels)
    part = jpeg.decode_region(image.encoded, image.segments, image.channels, region)
    assert np.array_equal(part, whole[1:-1, 1:-1])


@pytest.mark.parametrize(
    "region", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0), (36, 0, 5, 5), (0, 56, 5, 5), (0, 0, 5, -1)]
)
def test_a_region_outside_is_refused(region: tuple[int, ...]):
    image = jpeg.normalize(photo(40, 60, "420", 90, 0))
    assert try_decode_region(image.encoded, image.segments, 3, Region(*region)) is None


def of_one_block(dc: list[int], ac: list[int], scan: bytes, width: int = 8) -> tuple[bytes, bytes]:
    """A grey JPEG whose tables have one code of one bit each, or none, and where its segment is."""

    def segment(marker: int, payload: bytes) -> bytes:
        return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload

    head = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64)
    head += segment(0xC0, b"\x08\x00\x08" + width.to_bytes(2, "big") + b"\x01\x01\x11\x00")
    for kind, symbols in ((0, dc), (0x10, ac)):
        head += segment(0xC4, bytes((kind, len(symbols), *[0] * 15, *symbols)))
    head += segment(0xDD, (-(-width // 8)).to_bytes(2, "big")) + segment(0xDA, b"\x01\x01\x00\x00\x3f\x00")
    return head + scan + b"\xff\xd9", np.array([len(head), len(head) + len(scan)], "<u4").tobytes()


@pytest.mark.parametrize(
    ("dc", "ac", "scan"),
    [
        pytest.param([0], [0], b"\xff\0" * 4, id="neither code"),
        pytest.param([], [], b"\x12\x34\x56\x78", id="no codes at all"),
        pytest.param([0], [0], b"\x7f" + b"\xff\0" * 2, id="no AC code"),
        pytest.param([0], [0x0F], b"\xff\0" * 9, id="no DC code"),
    ],
)
def test_what_is_no_code_is_refused(dc: list[int], ac: list[int], scan: bytes):
    data, segments = of_one_block(dc, ac, scan)
    assert try_decode_region(data, segments, 1, Region(0, 0, 8, 8)) is None
    with pytest.raises(BadSampleError):
        jpeg.normalize(data)
    sound, segments = of_one_block([0], [0], b"\x3f")
    assert try_decode_region(sound, segments, 1, Region(0, 0, 8, 8)) is not None


def test_memory_that_can_be_written_to_and_odd_arguments():
    sound, segments = of_one_block([0], [0], b"\x3f")
    region = Region(0, 0, 8, 8)
    for kind in (bytes, bytearray, memoryview):
        assert try_decode_region(kind(sound), kind(segments), 1, region) is not None
    assert len(decoder._dispatcher.overloads) <= 1
    assert try_decode_region(sound, segments, 2, region) is None
    assert try_decode_region(sound, segments + b"x", 1, region) is None
    with pytest.raises(RecordError):
        jpeg.decode_region(sound, segments + b"x", 1, region)
    wide = of_one_block([0], [0], b"\x00" * 2047 + b"\x3f", width=65501)
    assert try_decode_region(*wide, 1, region) is None


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"NUMBA_DISABLE_JIT": "1"}], ids=["compiled", "not compiled"])
def test_what_is_shown_of_a_damaged_record_libjpeg_shows_too(environment: dict[str, str]):
    count = COUNT // 20 if environment else 10 * COUNT
    results = tried("fuzz_regions", count=count, **environment)
    assert sum(result["taken"] for result in results) > count // 20


FIRST_USE = """
import sys, time
from ingest import jpeg
from ingest.jpeg.region import decoder
if "wait" in sys.argv:
    print("ready", flush=True); sys.stdin.readline()
start = time.perf_counter()
before = decoder.load()
if "compile" in sys.argv:
    jpeg.compile_decoder()
print(before, decoder.load(), time.perf_counter() - start)
"""


def first_use(cache: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-c", FIRST_USE, *words], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_it_is_compiled_once_also_by_two_at_once(tmp_path: Path):
    """And never by those that only load it, such as workers."""
    out, err = first_use(tmp_path).communicate()
    assert (out.split()[:2], err) == (["False", "False"], "")
    both = [first_use(tmp_path, "wait", "compile") for _ in range(2)]
    for process in both:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        out, err = process.communicate()
        assert out.split()[:2] == ["False", "True"], err
        assert err == "compiling the decoder, once after installing: this takes 20 seconds or so\n"
    out, err = first_use(tmp_path, "compile").communicate()
    assert (out.split()[:2], err) == (["True", "True"], "")


def test_what_is_kept_on_disk_is_of_these_sources(tmp_path: Path):
    """Numba looks at the file of a function alone; the decoder holds functions of others, too."""
    package = tmp_path / "parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("from ingest.system.jit import jit\n\n\n@jit\ndef inner(x):\n    return x + 1\n")
    (package / "outer.py").write_text(
        "from ingest.system.jit import jit\nfrom parts.inner import inner\n\n\n"
        "@jit\ndef outer(x):\n    return inner(x)\n"
    )
    code = "from parts.outer import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"
    command = [sys.executable, "-c", code]
    environment: dict[str, Any] = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = f"{tmp_path}:{environment.get('PYTHONPATH', '')}"

    def said() -> str:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert [said(), said()] == ["2 0", "2 1"]
    time.sleep(0.01)
    (package / "inner.py").write_text((package / "inner.py").read_text().replace("x + 1", "x + 2"))
    assert said() == "3 0"
