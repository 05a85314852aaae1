"""Mutated records: ``python -m support.fuzz_regions SEED FIRST COUNT`` decodes regions of them.

What our decoder shows of a mutant, libjpeg-turbo shows, too, and without a complaint. With NUMBA_DISABLE_JIT=1 an index
out of bounds is an error (see fuzz_jpegs.py).
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np

from ingest import jpeg
from ingest.errors import BadSampleError, RecordError
from ingest.jpeg import Region
from ingest.jpeg.region import try_decode_region
from support.fuzz_jpegs import IS_COMPILED, check_bounds, fill, flip, lengthen, mark, resize, shuffle, splice
from support.fuzz_jpegs import originals as files
from support.fuzzing import SECONDS, try_all

Generator = np.random.Generator


@cache
def originals() -> tuple[jpeg.NormalizedJpeg, ...]:
    """What is packed of sound JPEGs."""
    packed = []
    for file in files():
        try:
            image = jpeg.normalize(file)
        except BadSampleError:
            continue
        if image.segments:
            packed.append(image)
    return tuple(packed)


def damage_tables(data: bytearray, random: Generator) -> None:
    """Change bytes of a table: of Huffman codes, or of quantisation."""
    starts = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] in (0xC4, 0xDB)]
    at = starts[random.integers(len(starts))] + 4
    for _ in range(random.integers(1, 4)):
        data[min(at + random.integers(40), len(data) - 1)] = random.choice(
            [0, 1, 2, 11, 15, 0xF0, random.integers(256)]
        )


def damage_codes(data: bytearray, random: Generator) -> None:
    """Change a bit or a byte of what is coded, or take one away."""
    at = random.integers(len(data) * 2 // 3, len(data))
    kind = random.integers(3)
    if kind == 0:
        data[at] ^= 1 << random.integers(8)
    elif kind == 1:
        data[at] = random.choice([0, 0xFF, 0xD9, random.integers(256)])
    else:
        del data[at]


MUTATIONS = [damage_codes, damage_codes, damage_codes, damage_tables, damage_tables, flip, flip, fill, lengthen, mark,
             resize, shuffle, splice]  # fmt: skip


def moved(segments: bytes, random: Generator) -> bytes:
    """Some offsets changed, one in four times."""
    if random.integers(4):
        return segments
    offsets = np.frombuffer(segments, "<u4").copy()
    for i in random.integers(0, len(offsets), random.integers(1, 4)):
        offsets[i] = random.choice([0, 1, 2**31, 2**32 - 1, offsets[i] + 1, offsets[i] - 1, offsets[i - 1]])
    if random.integers(4) == 0:
        offsets = offsets[: random.integers(len(offsets) + 1)]
    return offsets.tobytes()


def use(seed: int, number: int) -> int:
    """Decode regions of a mutant; how many our decoder has shown."""
    random = np.random.Generator(np.random.PCG64([seed, number]))
    image = originals()[random.integers(len(originals()))]
    data = bytearray(image.encoded)
    MUTATIONS[random.integers(len(MUTATIONS))](data, random)
    mutant, segments = bytes(data), moved(image.segments, random)
    shown = 0
    for whole in (True, False):
        top, left = (0, 0) if whole else (int(random.integers(image.height)), int(random.integers(image.width)))
        height, width = image.height - top, image.width - left
        if not whole:
            height, width = int(random.integers(1, height + 1)), int(random.integers(1, width + 1))
        region = Region(top, left, height, width)
        for channels in {image.channels, 3}:
            pixels = try_decode_region(mutant, segments, channels, region)
            if pixels is None:
                continue
            shown += 1
            try:
                theirs = jpeg.decode_cut(jpeg.crop_jpeg(mutant, segments, region), channels, region)
            except (BadSampleError, RecordError) as error:
                raise AssertionError(f"shown, where libjpeg-turbo says {error}") from error
            assert np.array_equal(pixels, theirs) or not IS_COMPILED, region  # else numbers do not overflow
    return shown > 0


def main(seed: int, first: int, count: int) -> None:
    if not IS_COMPILED:
        check_bounds()
        np.seterr(over="ignore")
    jpeg.compile_decoder()
    ours = [try_decode_region(each.encoded, each.segments, 3, Region(0, 0, 1, 1)) is not None for each in originals()]
    assert sum(ours) > 0.8 * len(ours), "most kinds are our decoder's"
    seconds = SECONDS if IS_COMPILED else 30 * SECONDS
    try_all(seed, range(first, first + count), lambda number: use(seed, number), count, seconds=seconds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
