"""Mutated JPEGs: ``python -m support.fuzz_jpegs ENCODING SEED FIRST COUNT`` packs and shows them.

A mutant is a function of (seed, number) alone, so that one that is found can be looked at again. With
NUMBA_DISABLE_JIT=1 what is else compiled runs as Python, on the smallest of the originals: an index out of bounds is an
error there, also one below zero, which NumPy would count from the end.
"""

from __future__ import annotations

import inspect
import io
import os
import sys
from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg
from PIL import Image

from ingest.loading import transforms
from ingest.loading.options import TransformOptions
from ingest.record import parse, serialize
from support import jpeg_kinds as kinds
from support.fuzzing import SECONDS, try_all

if TYPE_CHECKING:
    from ingest.record import Record

Generator = np.random.Generator

IS_COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"

ENCODINGS: dict[str, dict[str, object]] = {
    "keep": {},
    "jpeg": {"encoding": "jpeg", "resize": 20},
    "raw": {"encoding": "raw", "resize": 12},
}


@cache
def originals() -> tuple[bytes, ...]:
    """Sound JPEGs of every kind, small enough that thousands of mutants take a minute."""
    y, x = np.mgrid[:96, :160]
    noise = np.random.default_rng(0).integers(0, 60, (96, 160, 3))
    pixels = (np.stack([x, y * 2, (x * y) // 40 % 200], axis=2) + noise).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    kinds_of_pillow: list[tuple[str, dict[str, object]]] = [
        ("RGB", {"subsampling": "4:2:0"}),
        ("RGB", {"subsampling": "4:4:4", "quality": 95}),
        ("RGB", {"subsampling": "4:2:2", "optimize": True}),
        ("RGB", {"subsampling": "4:2:0", "restart_marker_blocks": 3}),
        ("RGB", {"subsampling": "4:4:4", "restart_marker_rows": 1}),
        ("RGB", {"progressive": True}),
        ("RGB", {"progressive": True, "subsampling": "4:4:4", "restart_marker_blocks": 5}),
        ("RGB", {"comment": b"x" * 300, "exif": b"Exif\0\0" + bytes(100)}),
        ("L", {}),
        ("L", {"progressive": True, "quality": 30}),
        ("CMYK", {}),
    ]
    result = []
    for mode, options in kinds_of_pillow:
        for size in SIZES:
            file = io.BytesIO()
            image.resize(size).convert(mode).save(file, "JPEG", **options)
            result.append(file.getvalue())
    for size in SIZES:
        whole = kinds.progressive(size=size)
        result += [
            kinds.lossless(*size), kinds.lossless(*size, 1), kinds.arithmetic(*size),
            *(kinds.adobe(transform, size=size, subsampling="4:4:4") for transform in (0, 2, 255)),
            kinds.short_jfif(size=size), kinds.tables_again(whole), kinds.other_tables(whole, 1),
            kinds.first_scans(whole, 4), kinds.first_scans(whole, 9),
            kinds.with_frame(kinds.image_bytes("JPEG", size=size, subsampling="4:2:2"), factors=(0x42, 0x22, 0x22)),
            kinds.image_bytes("JPEG", size=size, mode="CMYK", subsampling="4:2:0"),
            kinds.image_bytes("JPEG", size=size, mode="CMYK", subsampling="4:2:2", progressive=True),
            kinds.image_bytes("JPEG", size=size, qtables=[[300] * 64, [400] * 64]),
        ]  # fmt: skip
    return tuple(result)


SIZES = ((160, 96), (33, 17), (8, 8)) if IS_COMPILED else ((33, 17), (8, 8))


def segments(data: bytes) -> list[tuple[int, int]]:
    """Where the marker segments of a sound JPEG start and end, the last with the coded data behind it."""
    places, at = [(0, 2)], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        places.append((at, end))
        at = end
    return [*places, (at, len(data) - 2), (len(data) - 2, len(data))]


def flip(data: bytearray, random: Generator) -> None:
    first, last = [(0, len(data)), (0, min(len(data), 700)), (len(data) // 2, len(data))][random.integers(3)]
    for at in random.integers(first, last, random.integers(1, 17)):
        data[at] ^= 1 << random.integers(8)


def cut(data: bytearray, random: Generator) -> None:
    start, end = sorted(random.integers(0, len(data) + 1, 2).tolist())
    del data[slice(*[(end, None), (0, start), (start, end), (len(data) - 2, None)][random.integers(4)])]


def splice(data: bytearray, random: Generator) -> None:
    other = originals()[random.integers(len(originals()))]
    start, end = segments(other)[random.integers(len(segments(other)))]
    at = random.integers(2, len(data))
    data[at:at] = other[start:end]


def shuffle(data: bytearray, random: Generator) -> None:
    """Repeat, remove or move a segment."""
    parts = [bytes(data[start:end]) for start, end in segments(bytes(data))]
    i, j = random.integers(0, len(parts), 2)
    kind = random.integers(3)
    if kind == 0:
        parts[j:j] = [parts[i]] * int(random.integers(1, 40))
    elif kind == 1:
        del parts[i]
    else:
        parts.insert(j, parts.pop(i))
    data[:] = b"".join(parts)


def lengthen(data: bytearray, random: Generator) -> None:
    """Give a segment another length."""
    places = segments(bytes(data))[1:-1]
    at = places[random.integers(len(places))][0]
    data[at + 2 : at + 4] = int(random.choice([0, 1, 2, 3, 7, 255, 65535, random.integers(65536)])).to_bytes(2, "big")


def resize(data: bytearray, random: Generator) -> None:
    """Declare another size, other samplings or other components."""
    for at, _ in segments(bytes(data)):
        if data[at + 1] in (0xC0, 0xC1, 0xC2, 0xC3, 0xC9):
            kind = random.integers(4)
            if kind < 2:
                for place in (at + 5, at + 7):
                    side = random.choice([0, 1, 9, 97, 1000, 8192, 20000, 65500, 65535, random.integers(65536)])
                    data[place : place + 2] = int(side).to_bytes(2, "big")
            elif kind == 2:
                data[at + 11 + 3 * random.integers(data[at + 9])] = random.integers(256)
            else:
                kinds_of_frame = [0, 1, 2, 3, 4, 8, 12, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 255]
                data[at + random.choice([1, 4, 9])] = random.choice(kinds_of_frame)
            return


def fill(data: bytearray, random: Generator) -> None:
    start = random.integers(len(data))
    length = int(random.integers(1, 200))
    data[start : start + length] = bytes([random.choice([0, 255, random.integers(256)])]) * length


def mark(data: bytearray, random: Generator) -> None:
    """Put markers anywhere: restarts, ends, starts."""
    for at in random.integers(2, len(data), random.integers(1, 6)):
        data[at:at] = bytes((0xFF, random.choice([0xD0, 0xD3, 0xD7, 0xD8, 0xD9, 0xDA, 0xDD, 0xC4, 0xFF, 0x00])))


def grow(data: bytearray, random: Generator) -> None:
    data += random.bytes(random.integers(1, 3000))


def stray(data: bytearray, random: Generator) -> None:
    """Put bytes that are nothing between two segments."""
    places = segments(bytes(data))[1:]
    at = places[random.integers(len(places))][0]
    data[at:at] = random.bytes(random.integers(1, 9))


MUTATIONS: list[Callable[[bytearray, Generator], None]] = [
    flip, flip, flip, cut, cut, splice, shuffle, lengthen, resize, resize, fill, mark, stray, grow,
]  # fmt: skip


def mutant(seed: int, number: int) -> bytes:
    """A JPEG that was mutated once, or, one in four, up to three times."""
    random = np.random.Generator(np.random.PCG64([seed, number]))
    data = bytearray(originals()[random.integers(len(originals()))])
    # The first may rely on the file's structure; those after it may not.
    MUTATIONS[random.integers(len(MUTATIONS))](data, random)
    for _ in range(random.choice([0, 0, 0, 1, 2])):
        random.choice([flip, cut, fill, mark, grow])(data, random) if len(data) > 4 else None
    return bytes(data)


def pack_and_show(data: bytes, number: int, encoding: str) -> bool:
    """What a build and a training do with a file; whether it was packed. The only error allowed is BadSampleError."""
    from ingest.errors import BadSampleError
    from ingest.packing.build import make_record
    from ingest.packing.options import BuildOptions
    from ingest.record import Sample

    options = BuildOptions(format="tfrecord", **ENCODINGS[encoding])
    try:
        made = make_record(Sample("key", 0, data), "class", options)
    except BadSampleError as error:
        assert str(error)
        return False
    record = parse(serialize(made.record))
    for draws in np.random.default_rng(number).random((3, 44)).tolist():
        transforms.train_transform(record, draws, np.empty((64, 64, 3), np.uint8), TransformOptions())
    transforms.eval_transform(record, np.empty((64, 64, 3), np.uint8))
    if record.format == "JPEG":
        check_pixels(data, record, encoding == "keep" and (made.converted or "") in LOSSLESS)
    return True


LOSSLESS = {
    "", "JPEG progressive", "JPEG with stray bytes", "JPEG progressive with stray bytes", "JPEG without end marker",
    "JPEG not baseline", "JPEG not baseline with stray bytes",
}  # fmt: skip
"""What files are counted as whose pixels are kept."""


def check_pixels(data: bytes, record: Record, is_kept: bool) -> None:
    """A whole decode gives what the record says, a region is a part of it, and what is kept is what the file shows."""
    from ingest import jpeg

    whole = jpeg.decode(record.encoded, record.channels)
    assert whole.shape == (record.height, record.width, record.channels)
    if len(record.segments):
        region = jpeg.Region(record.height // 3, record.width // 3, -(-record.height // 3), -(-record.width // 3))
        part = whole[region.top : region.top + region.height, region.left : region.left + region.width]
        assert np.array_equal(jpeg.decode_region(record.encoded, record.segments, record.channels, region), part)
    if is_kept:
        shown = shown_by_libjpeg(data, record.channels)
        assert shown is None or np.array_equal(shown, whole)


def shown_by_libjpeg(data: bytes, channels: int) -> np.ndarray | None:
    """What libjpeg-turbo makes of a file, whatever it complains of; None where it gives up."""
    try:
        return simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY", strict=False)
    except ValueError:
        return None


def check_bounds() -> None:
    """Have an index below zero be an error in what would else be compiled: there it reads memory that is not ours."""
    from ingest.jpeg import color, crop, entropy, headers, huffman, inverse_dct, reference, region

    for module in (huffman, crop, entropy, headers, inverse_dct, color, reference, region):
        for name, function in list(vars(module).items()):
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                setattr(module, name, bounded(function))


def bounded(function: Callable[..., object]) -> Callable[..., object]:
    @wraps(function)
    def call(*args: object) -> object:
        return function(*(arg.view(Bounded) if type(arg) is np.ndarray else arg for arg in args))

    return call


class Bounded(np.ndarray):
    """An array that takes no index below zero. A signed and an unsigned number add up to a float, to NumPy."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(bounded_index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(bounded_index(index), value)


def bounded_index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(bounded_index(one) for one in index)
    if isinstance(index, np.floating):
        index = int(index)
    if isinstance(index, (int, np.integer)) and index < 0:
        raise IndexError(f"index {index}")
    return index


def main(encoding: str, seed: int, first: int, count: int) -> None:

    transforms.single_threaded()
    if not IS_COMPILED:
        check_bounds()
        np.seterr(over="ignore")
    for original in originals()[:: len(SIZES)]:  # compiled now, so that no mutant has to wait for it
        pack_and_show(original, 0, encoding)

    def use(number: int) -> bool:
        return pack_and_show(mutant(seed, number), number, encoding)

    seconds = SECONDS if IS_COMPILED else 30 * SECONDS
    try_all(seed, range(first, first + count), use, count, seconds=seconds)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
