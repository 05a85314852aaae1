from __future__ import annotations

import io
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
import simplejpeg
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.images import image_bytes

from ingest import jpeg
from ingest.errors import BadSampleError, RecordError
from ingest.jpeg import Region
from ingest.jpeg.transcode import restart_interval

SAMPLINGS = ("444", "422", "420", "440", "411", "Gray")


def photo(height: int, width: int, sampling: str, quality: int, seed: int, progressive: bool = False) -> bytes:
    """A JPEG of smooth areas, edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 3 + y, y * 2 - x, (x // 9 + y // 7) % 2 * 200], axis=2) + rng.integers(
        0, 60, (height, width, 1)
    )
    pixels = pixels.astype(np.uint8)
    if progressive:
        file = io.BytesIO()
        subsampling = {"444": 0, "422": 1}.get(sampling, 2)
        image = Image.fromarray(pixels[:, :, 0] if sampling == "Gray" else pixels)
        image.save(file, "JPEG", quality=quality, progressive=True, subsampling=subsampling)
        return file.getvalue()
    if sampling == "Gray":
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels[:, :, :1]), quality, "GRAY", "Gray")
    return simplejpeg.encode_jpeg(pixels, quality, "RGB", sampling)


photos = st.builds(
    photo,
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    sampling=st.sampled_from(SAMPLINGS),
    quality=st.integers(1, 100),
    seed=st.integers(0, 1000),
    progressive=st.booleans(),
)


@settings(max_examples=200)
@given(data=photos)
def test_coding_anew_loses_nothing(data: bytes):
    prepared = jpeg.normalize(data)
    pixels = jpeg.decode(data, prepared.channels)
    assert np.array_equal(jpeg.decode(prepared.encoded, prepared.channels), pixels)
    # Other decoders open it, too.
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(prepared.encoded))), np.asarray(Image.open(io.BytesIO(data)))
    )


@settings(max_examples=300)
@example(data=photo(8, 5, "420", 1, 0), draws=(0.5, 0.0, 0.0, 0.0))  # two chroma samples a row are a case of its own
@given(data=photos, draws=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4))
def test_a_region_is_the_same_part_of_the_whole(data: bytes, draws: tuple[float, ...]):
    prepared = jpeg.normalize(data)
    top, left = int(draws[0] * prepared.height), int(draws[1] * prepared.width)
    height, width = 1 + int(draws[2] * (prepared.height - top)), 1 + int(draws[3] * (prepared.width - left))
    whole = jpeg.decode(prepared.encoded, prepared.channels)
    part = jpeg.decode_region(prepared.encoded, prepared.segments, prepared.channels, Region(top, left, height, width))
    assert np.array_equal(part, whole[top : top + height, left : left + width])


@given(data=photos)
def test_segments_lie_between_restart_markers(data: bytes):
    encoded, segments, *_ = jpeg.normalize(data)
    offsets = np.frombuffer(segments, "<u4").tolist()
    assert encoded[offsets[-1] :] == b"\xff\xd9"
    for number, (start, end) in enumerate(pairwise(offsets)):
        is_last = number == len(offsets) - 2
        assert start < end
        assert is_last or encoded[end - 2 : end] == bytes((0xFF, 0xD0 + number % 8))
        content = encoded[start : end if is_last else end - 2]
        assert b"\xff" not in content.replace(b"\xff\x00", b"")


@given(mcus=st.integers(1, 8192), mcu_width=st.sampled_from([8, 16, 32]))
def test_segments_divide_a_row(mcus: int, mcu_width: int):
    interval = restart_interval(mcus, mcu_width)
    assert mcus % interval == 0
    width = interval * mcu_width
    assert width >= 24 or interval == mcus
    divisors = [i for i in range(1, mcus + 1) if mcus % i == 0 and i * mcu_width >= 24]
    assert all(abs(width - 32) <= abs(i * mcu_width - 32) for i in divisors)


def test_a_cut_is_a_jpeg_of_little_more_than_the_region():
    prepared = jpeg.normalize(photo(480, 640, "420", 90, 0))
    cut = jpeg.crop_jpeg(prepared.encoded, prepared.segments, Region(100, 200, 150, 120))
    image = Image.open(io.BytesIO(cut.encoded.tobytes()))
    assert image.size[1] == cut.top + 150 + 2 and cut.top < 16 + 2
    assert cut.left + 120 + 2 <= image.size[0] < 120 + 2 * 32 + 4
    assert len(cut.encoded) < 0.2 * len(prepared.encoded)


@pytest.mark.parametrize(
    "region", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0), (36, 0, 5, 5), (0, 56, 5, 5)]
)
def test_regions_outside_the_image_are_refused(region: tuple[int, ...]):
    prepared = jpeg.normalize(image_bytes("JPEG"))
    with pytest.raises(RecordError, match="outside"):
        jpeg.crop_jpeg(prepared.encoded, prepared.segments, Region(*region))


@settings(max_examples=300)
@given(data=photos, where=st.floats(0, 1, exclude_max=True), what=st.binary(min_size=1, max_size=4), cut=st.booleans())
def test_damage_is_an_error_or_pixels_and_nothing_worse(data: bytes, where: float, what: bytes, cut: bool):
    at = int(where * len(data))
    damaged = data[:at] + what + (b"" if cut else data[at + len(what) :])
    try:
        prepared = jpeg.normalize(damaged)
    except BadSampleError:
        return
    jpeg.decode(prepared.encoded, prepared.channels)
    assume(prepared.segments)
    region = Region(prepared.height // 2, prepared.width // 3, 1, 1)
    jpeg.decode_region(prepared.encoded, prepared.segments, prepared.channels, region)


@settings(max_examples=300)
@given(where=st.floats(0, 1, exclude_max=True), what=st.binary(min_size=1, max_size=4), in_segments=st.booleans())
def test_damage_in_a_record_is_an_error_or_pixels(where: float, what: bytes, in_segments: bool):
    encoded, segments, *_ = jpeg.normalize(photo(90, 120, "420", 80, 1))
    target = bytearray(segments if in_segments else encoded)
    at = int(where * len(target))
    target[at : at + len(what)] = what
    encoded, segments = (encoded, bytes(target)) if in_segments else (bytes(target), segments)
    with suppress(RecordError, BadSampleError):
        jpeg.decode_region(encoded, segments[: len(segments) // 4 * 4], 3, Region(30, 40, 50, 60))


@pytest.mark.parametrize(
    ("shape", "subsampling"), [((90, 170, 3), "4:2:0"), ((90, 170, 3), "4:4:4"), ((7, 5, 1), "4:4:4")]
)
def test_segments_of_an_encoded_image_are_those_that_coding_anew_finds(shape: tuple[int, ...], subsampling: str):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    prepared = jpeg.encode_pixels(pixels, 90, subsampling)
    again = jpeg.normalize(prepared.encoded)
    assert len(again.segments) == len(prepared.segments)
    for packed in (prepared, again):
        starts = np.frombuffer(packed.segments, "<u4")
        assert all(packed.encoded[at - 2] == 0xFF for at in starts[1:-1])
        assert packed.encoded[starts[-1] :] == b"\xff\xd9"
        region = jpeg.Region(0, 0, 3, 4)
        whole = jpeg.decode(packed.encoded, shape[2])
        assert np.array_equal(jpeg.decode_region(packed.encoded, packed.segments, shape[2], region), whole[:3, :4])
