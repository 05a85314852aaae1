from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image
from support.images import image_bytes
from support.jpeg_kinds import SCAN_BY_SCAN, ycck

from ingest import jpeg
from ingest.errors import BadSampleError


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def with_app1(data: bytes, payload: bytes) -> bytes:
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:]


BASELINE = image_bytes("JPEG", quality=90)


KEPT = {
    "4:2:0": image_bytes("JPEG", subsampling="4:2:0"),
    "4:2:2": image_bytes("JPEG", subsampling="4:2:2"),
    "4:4:4": image_bytes("JPEG", subsampling="4:4:4"),
    "grey": image_bytes("JPEG", mode="L"),
    "one pixel": image_bytes("JPEG", size=(1, 1)),
    "restart markers": image_bytes("JPEG", restart_marker_blocks=2),
    "EXIF": image_bytes("JPEG", exif=Image.Exif()),
    "damaged EXIF": with_app1(BASELINE, b"Exif\0\0II*\0\xff\xff\xff\x00"),
    "a scan for each component": SCAN_BY_SCAN,
    "bytes after the end": BASELINE + b"appended by a camera",
}

CONVERTED = {
    "PNG RGB": image_bytes("PNG"),
    "PNG P": image_bytes("PNG", mode="P"),
    "PNG RGBA": image_bytes("PNG", mode="RGBA"),
    "PNG 1": image_bytes("PNG", mode="1"),
    "GIF P": image_bytes("GIF", mode="P"),
    "BMP RGB": image_bytes("BMP"),
    "WEBP RGB": image_bytes("WEBP"),
    "JPEG CMYK": image_bytes("JPEG", mode="CMYK"),
    "JPEG YCCK": ycck(),
    "JPEG progressive": image_bytes("JPEG", progressive=True),
}

BAD = {
    "empty file": b"",
    "not an image": b"hello, I am a text file\n" * 20,
    "not decodable to the end": BASELINE[: len(BASELINE) * 2 // 3],
    "ends before its frame header": BASELINE[:30],
    "more than the limit": BASELINE.replace(struct.pack(">HH", 40, 60), struct.pack(">HH", 60000, 60000)),
    "a program of the machine's|not an image": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "0 pixels|x 0": BASELINE.replace(struct.pack(">HH", 40, 60), struct.pack(">HH", 0, 60)),
}


@pytest.mark.parametrize("what", [*KEPT, "JPEG progressive"])
def test_jpegs_keep_their_pixels(what: str):
    data = {**KEPT, **CONVERTED}[what]
    prepared = jpeg.normalize(data)
    assert prepared.converted == (what if what in CONVERTED else None)
    pixels = jpeg.decode(prepared.encoded, prepared.channels)
    assert pixels.shape == (prepared.height, prepared.width, prepared.channels)
    assert np.array_equal(pixels, jpeg.decode(data, prepared.channels))
    assert not jpeg.read_header(prepared.encoded).frame & 2  # not progressive
    assert prepared.segments


@pytest.mark.parametrize("what", CONVERTED)
def test_other_files_become_baseline_jpegs(what: str):
    prepared = jpeg.normalize(CONVERTED[what])
    assert prepared.converted == what
    again = jpeg.normalize(prepared.encoded)
    assert again.converted is None
    channels = prepared.channels
    assert np.array_equal(jpeg.decode(again.encoded, channels), jpeg.decode(prepared.encoded, channels))
    expected = np.asarray(Image.open(io.BytesIO(CONVERTED[what])).convert("RGB"), int)
    difference = np.abs(jpeg.decode(prepared.encoded, 3) - expected)
    # Black and white alone dither into edges, which JPEG is bad at; anything else is smooth.
    assert difference.mean() < (12 if what == "PNG 1" else 4)


def test_application_data_is_left_behind_but_for_what_tells_the_colours():
    exif, adobe_rgb = Image.Exif(), image_bytes("JPEG", keep_rgb=True)
    exif[0x010F] = "A camera's maker"
    data = image_bytes("JPEG", exif=exif, icc_profile=b"profile" * 40, comment=b"a comment", dpi=(72, 72))
    encoded = jpeg.normalize(data).encoded
    assert not any(part in encoded for part in (b"Exif", b"camera", b"profile", b"comment"))
    assert b"JFIF" in encoded
    assert np.array_equal(pillow(jpeg.normalize(adobe_rgb).encoded), pillow(adobe_rgb))


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_decoded_is_refused_with_a_reason(what: str):
    with pytest.raises(BadSampleError, match=what):
        jpeg.normalize(BAD[what])


@pytest.mark.parametrize("tail", [b"", bytes(100)])
def test_a_missing_end_marker_is_put_where_it_belongs(tail: bytes):
    prepared = jpeg.normalize(BASELINE[:-2] + tail)
    assert prepared.encoded == jpeg.normalize(BASELINE).encoded
    assert prepared.converted == "JPEG without end marker"
    assert np.array_equal(pillow(prepared.encoded), pillow(BASELINE))


def test_a_lost_restart_marker_is_no_stray_byte():
    data = image_bytes("JPEG", size=(256, 256), restart_marker_rows=4)
    last = max(data.rfind(bytes((0xFF, 0xD0 + i))) for i in range(8))
    with pytest.raises(BadSampleError, match="not decodable to the end"):
        jpeg.normalize(data[:last] + b"\x00" + data[last + 1 :])


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncation_is_noticed_where_the_sampling_is_unusual(part: float):
    data = bytearray(image_bytes("JPEG", size=(200, 200), subsampling="4:4:4"))
    frame = data.index(b"\xff\xc0")
    for component in range(3):
        data[frame + 11 + 3 * component] = 0x21  # twice as many samples across, of all three
    with pytest.raises(BadSampleError):
        jpeg.normalize(bytes(data[: int(len(data) * part)]))


def test_a_damaged_png_is_noticed():
    data = bytearray(image_bytes("PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(BadSampleError, match="not decodable to the end"):
        jpeg.normalize(bytes(data))


def test_every_truncation_of_the_scan_is_noticed():
    start = BASELINE.index(b"\xff\xda") + 14
    for size in range(start, len(BASELINE) - 4, 7):
        with pytest.raises(BadSampleError):
            jpeg.normalize(BASELINE[:size])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_files_that_would_be_converted_are_noticed(kind: str):
    data = image_bytes(kind, size=(200, 200), **({"progressive": True} if kind == "JPEG" else {}))
    with pytest.raises(BadSampleError, match="not decodable to the end"):
        jpeg.normalize(data[: len(data) // 2])


def test_sixteen_bits_of_grey_keep_their_range():
    levels = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    prepared = jpeg.normalize(file.getvalue())
    assert prepared.channels == 1
    assert prepared.converted.startswith("PNG I")
    difference = np.abs(jpeg.decode(prepared.encoded, 1)[:, :, 0].astype(int) - levels // 257)
    assert difference.max() <= 4


def test_floating_point_pixels_are_refused():
    file = io.BytesIO()
    Image.fromarray(np.ones((8, 8), np.float32)).save(file, "TIFF")
    with pytest.raises(BadSampleError, match="float32"):
        jpeg.normalize(file.getvalue())


def test_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # lay on the right side
    data = image_bytes("JPEG", exif=exif)
    assert jpeg.normalize(data)[2:5] == (40, 60, 3)


def test_grey_becomes_three_equal_channels_where_three_are_asked_for():
    pixels = jpeg.decode(KEPT["grey"], 3)
    assert pixels.shape == (40, 60, 3)
    assert np.array_equal(pixels, np.repeat(jpeg.decode(KEPT["grey"], 1), 3, axis=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_encode_writes_a_baseline_jpeg(channels: int):
    pixels = pillow(BASELINE)[:, :, :channels]
    data = jpeg.encode(pixels, 95, "4:4:4")
    assert jpeg.normalize(data).converted is None
    assert np.abs(jpeg.decode(data, channels).astype(int) - pixels).mean() < 3
