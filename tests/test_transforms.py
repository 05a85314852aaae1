from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ingest import jpeg, sampler
from ingest.errors import RecordError
from ingest.loading import augment, transforms
from ingest.loading.options import TransformOptions
from ingest.packing.area_resize import area_resize
from ingest.record import Record

sides = st.integers(1, 2000)


def raw(pixels: np.ndarray) -> Record:
    height, width, channels = pixels.shape
    return Record(
        channels=channels,
        label=0,
        synset="",
        encoded=pixels.tobytes(),
        key="key",
        format="RAW",
        height=height,
        segments=b"",
        width=width,
    )


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards: a pixel's colour tells where it was."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), 0 * x], axis=2).astype(np.uint8)


@given(height=sides, width=sides, seed=st.integers(0, 1000))
def test_crops_lie_in_the_image_and_in_their_bounds(height: int, width: int, seed: int):
    box = augment.random_resized_crop(height, width, sampler.random_draws(seed, 0, 0, 1)[0].tolist())
    assert box.height >= 1 and box.width >= 1
    assert 0 <= box.top <= height - box.height and 0 <= box.left <= width - box.width
    # Rounding to whole pixels moves a side by half a pixel at most.
    assert (box.width - 0.5) / (box.height + 0.5) <= 4 / 3 or box.height == 1
    assert (box.width + 0.5) / (box.height - 0.5) >= 3 / 4 or box.width == 1


def test_crops_are_drawn_as_published():
    boxes = [augment.random_resized_crop(375, 500, row.tolist()) for row in sampler.random_draws(0, 0, 0, 4000)]
    share = np.array([box.height * box.width for box in boxes]) / (375 * 500)
    aspect = np.log([box.width / box.height for box in boxes])
    assert share.min() == pytest.approx(0.08, abs=0.005) and share.max() > 0.9
    # Uniform in area up to where large crops do not fit any more, and symmetric in the logarithm of the aspect.
    assert np.histogram(share, 4, (0.08, 0.6))[0] == pytest.approx(np.full(4, np.sum(share < 0.6) / 4), rel=0.15)
    assert np.abs(aspect).max() <= np.log(4 / 3) + 0.02
    assert abs(np.mean([box.left / max(1, 500 - box.width) for box in boxes]) - 0.5) < 0.03


@pytest.mark.parametrize(("height", "width"), [(100, 1000), (1000, 100)])
def test_where_no_try_fits_the_centre_is_taken(height: int, width: int):
    draws = [1 - 2**-53, 0.5] * 20 + [0.0] * 4  # the whole area as a square, ten times
    box = augment.random_resized_crop(height, width, draws)
    assert (box.height, box.width) == ((100, 133) if height == 100 else (133, 100))
    assert abs((height - box.height) / 2 - box.top) <= 0.5 and abs((width - box.width) / 2 - box.left) <= 0.5


@given(height=sides, width=sides, size=st.integers(1, 300))
def test_the_evaluation_crop_is_the_central_square(height: int, width: int, size: int):
    box = augment.centre_crop(height, width, size)
    if height == width == size:
        assert box == (0, 0, size, size)
        return
    assert box.height == box.width == max(1, round(min(height, width) * 224 / 256))
    assert abs(2 * box.top + box.height - height) <= 1 and abs(2 * box.left + box.width - width) <= 1


def test_evaluation_is_resize_then_centre_crop():
    pixels = gradient(300, 400)
    out = np.empty((224, 224, 3), np.uint8)
    transforms.eval_transform(raw(pixels), out)
    resized = Image.fromarray(pixels).resize((341, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((58, 16, 58 + 224, 16 + 224)), int)
    assert np.abs(out - expected).max() <= 2


def test_an_image_of_the_size_asked_for_is_shown_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    out = np.empty((28, 28, 1), np.uint8)
    transforms.eval_transform(raw(pixels), out)
    assert np.array_equal(out, pixels)


def test_training_shows_the_crop_and_its_mirror_image():
    pixels = gradient(200, 300)
    draws = sampler.random_draws(3, 0, 0, 1)[0].tolist()
    box = augment.random_resized_crop(200, 300, draws)
    out = {flip: np.empty((64, 64, 3), np.uint8) for flip in (0.0, 0.5)}
    for flip, view in out.items():
        draws[40] = flip
        transforms.train_transform(raw(pixels), draws, view, TransformOptions())
    assert np.array_equal(out[0.0], out[0.5][:, ::-1])
    corners = pixels[box.top, box.left], pixels[box.top + box.height - 1, box.left + box.width - 1]
    assert np.abs(out[0.5][0, 0].astype(int) - corners[0]).max() <= 3
    assert np.abs(out[0.5][-1, -1].astype(int) - corners[1]).max() <= 3


@pytest.mark.parametrize("channels", [1, 3])
def test_raw_and_jpeg_records_show_the_same(channels: int):
    smooth = gradient(90, 120)[:, :, :channels]
    encoded = jpeg.encode(smooth, 100, "4:4:4")
    record = raw(smooth)._replace(encoded=encoded, format="JPEG")
    views_of = [np.empty((32, 32, channels), np.uint8) for _ in range(2)]
    for out, one in zip(views_of, (raw(smooth), record)):
        transforms.train_transform(one, sampler.random_draws(0, 0, 0, 1)[0].tolist(), out, TransformOptions())
    assert np.abs(views_of[0].astype(int) - views_of[1]).max() <= 3


def test_grey_is_repeated_in_a_dataset_of_colours():
    pixels = gradient(40, 40)[:, :, :1]
    assert np.array_equal(transforms.decode(raw(pixels), 3), np.repeat(pixels, 3, axis=2))


@pytest.mark.parametrize("change", [{"height": 41}, {"format": "PNG"}, {"encoded": b""}])
def test_a_record_whose_fields_disagree_is_refused(change: dict[str, object]):
    with pytest.raises(RecordError):
        transforms.decode(raw(gradient(40, 40))._replace(**change), 3)


@given(height=st.integers(1, 80), width=st.integers(1, 80), factor=st.integers(1, 5), channels=st.sampled_from([1, 3]))
def test_shrink_averages(height: int, width: int, factor: int, channels: int):
    pixels = gradient(height, width)[:, :, :channels]
    large = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    assert np.array_equal(area_resize(large, height, width), pixels)


@pytest.mark.parametrize("size", [(37, 50), (61, 83), (1, 1), (20, 83)])
@pytest.mark.parametrize("channels", [1, 3])
def test_shrinking_averages_areas(size: tuple[int, int], channels: int):
    pixels = np.random.default_rng(1).integers(0, 256, (61, 83, channels), np.uint8)
    height, width = size
    # Every pixel as often as it has parts, then whole blocks: exact for any ratio.
    fine = pixels.repeat(height, 0).repeat(width, 1).reshape(height, 61, width, 83, channels)
    assert np.abs(area_resize(pixels, height, width) - fine.mean((1, 3))).max() <= 0.501
