"""JPEGs of every kind, as libjpeg takes them: kept without loss, converted under a name, or refused with a reason."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps
from support import jpeg_kinds as kinds
from support.images import FORMATS, image_bytes, put
from support.jpeg_kinds import SCAN_BY_SCAN

import ingest
from ingest import jpeg
from ingest.cli import main
from ingest.dataset.dataset import Dataset
from ingest.errors import BadSampleError
from ingest.jpeg import Region
from ingest.tools.verify import verify

SIZE = (90, 50)
PLAIN = image_bytes("JPEG", size=SIZE, subsampling="4:2:0")
WITH_RESTARTS = image_bytes("JPEG", size=SIZE, subsampling="4:2:0", restart_marker_blocks=2)
PROGRESSIVE = kinds.progressive(size=SIZE)
GREY = image_bytes("JPEG", size=SIZE, mode="L")
STRAY = b"stray\0"


def sampled(subsampling: str) -> bytes:
    pixels = np.asarray(Image.open(io.BytesIO(image_bytes("PNG", size=SIZE))))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 90, "RGB", subsampling)


def at_restart(number: int, piece: bytes) -> bytes:
    """With ``piece`` before a restart marker."""
    at = [
        i for i in range(len(WITH_RESTARTS)) if WITH_RESTARTS[i] == 0xFF and WITH_RESTARTS[i + 1] in range(0xD0, 0xD8)
    ]
    return WITH_RESTARTS[: at[number]] + piece + WITH_RESTARTS[at[number] :]


# What is kept, and what it is counted as.
KEPT: dict[str, tuple[bytes, str | None]] = {
    **{f"sampling {name}": (sampled(name), None) for name in ("444", "422", "420", "440", "411")},
    **{f"restarts {n}": (image_bytes("JPEG", size=SIZE, restart_marker_blocks=n), None) for n in (1, 2, 3, 7, 500)},
    "restarts, rows": (image_bytes("JPEG", size=SIZE, restart_marker_rows=1), None),
    "grey": (GREY, None),
    "grey, twice as many samples": (kinds.with_frame(GREY, factors=(0x22,)), None),
    "RGB": (image_bytes("JPEG", size=SIZE, keep_rgb=True), None),
    "named R, G, B": (kinds.short_jfif(size=SIZE), None),
    "optimised": (image_bytes("JPEG", size=SIZE, optimize=True), None),
    "Adobe's transform 0": (kinds.adobe(0, size=SIZE), None),
    "Adobe's transform 1": (kinds.adobe(1, size=SIZE), None),
    "16-bit tables": (image_bytes("JPEG", size=SIZE, qtables=[[300] * 64, [400] * 64]), "JPEG not baseline"),
    "ICC over several segments": (image_bytes("JPEG", size=SIZE, icc_profile=bytes(150_000)), None),
    "trailing bytes": (PLAIN + b"appended", None),
    "MPO": (PLAIN + PLAIN, None),
    "a restart marker at the end": (PLAIN[:-2] + b"\xff\xd3" + kinds.END, None),
    "progressive": (PROGRESSIVE, "JPEG progressive"),
    "progressive, grey": (kinds.progressive(size=SIZE, mode="L"), "JPEG progressive"),
    "progressive, 4:4:4": (kinds.progressive(size=SIZE, subsampling="4:4:4"), "JPEG progressive"),
    "progressive, restarts": (kinds.progressive(size=SIZE, restart_marker_blocks=3), "JPEG progressive"),
    "tables again": (kinds.tables_again(PROGRESSIVE), "JPEG progressive"),
    **{f"other tables, {n}": (kinds.other_tables(PROGRESSIVE, n), "JPEG progressive") for n in (1, 2, 3, 5)},
}  # fmt: skip


def libjpeg(data: bytes, channels: int, strict: bool = True) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY", strict=strict)


def check_kept(prepared: jpeg.NormalizedJpeg, pixels: np.ndarray) -> None:
    """What was prepared shows just these pixels, as a whole and region by region."""
    assert (prepared.height, prepared.width, prepared.channels) == pixels.shape
    assert np.array_equal(jpeg.decode(prepared.encoded, prepared.channels), pixels)
    height, width = -(-prepared.height // 3), -(-prepared.width // 3)
    for top, left in itertools.product((0, height, prepared.height - height), (0, width, prepared.width - width)):
        part = jpeg.decode_region(
            prepared.encoded, prepared.segments, prepared.channels, Region(top, left, height, width)
        )
        assert np.array_equal(part, pixels[top : top + height, left : left + width])


@pytest.mark.parametrize("what", KEPT)
def test_every_usual_kind_is_kept_without_loss(what: str):
    data, counted = KEPT[what]
    prepared = jpeg.normalize(data)
    assert prepared.converted == counted
    check_kept(prepared, libjpeg(data, prepared.channels))
    assert np.array_equal(jpeg.read_pixels(data).values, jpeg.decode(prepared.encoded, prepared.channels))


@pytest.mark.parametrize("transform", [2, 3, 255])
def test_a_transform_that_adobe_never_gave_three_components_is_ycbcr(transform: int):
    data = kinds.adobe(transform, size=SIZE)
    prepared = jpeg.normalize(data)
    check_kept(prepared, libjpeg(kinds.adobe(1, size=SIZE), 3))
    assert prepared.converted is None
    assert jpeg.read_pixels(data, 10).values.shape == (13, 23, 3)


@pytest.mark.parametrize("name", FORMATS)
def test_a_dataset_of_odd_colours_is_whole(tmp_path: Path, name: str):
    odd = {f"a/{transform}.jpg": kinds.adobe(transform, size=SIZE) for transform in (0, 1, 2, 3, 255)}
    put(tmp_path / "photos", {**odd, "a/short.jpg": kinds.short_jfif(size=SIZE)})
    manifest = ingest.build_shards(tmp_path / "photos", tmp_path / "shards", format=name, shards=1, workers=0)
    assert (manifest.records, manifest.quarantined, manifest.converted) == (6, 0, {})
    assert not verify(tmp_path / "shards", decode=True, workers=0).damages


STRAYS = {
    **{f"before {marker:02X}": kinds.before(PLAIN, marker, STRAY) for marker in (kinds.DQT, kinds.SOF0, kinds.DHT)},
    "before the scan": kinds.before(PLAIN, kinds.SOS, STRAY),
    "before the end": PLAIN[:-2] + STRAY + kinds.END,
    "before the end, with restarts": WITH_RESTARTS[:-2] + STRAY + kinds.END,
    **{f"before restart {n}": at_restart(n, STRAY) for n in (0, 3, -1)},
    "before a restart, as a marker of nothing": at_restart(2, b"ab\xff\x05cd"),
    **{f"before scan {n}": kinds.before(PROGRESSIVE, kinds.SOS, STRAY, n) for n in (0, 1, 4, 9)},
    "before the end of a progressive one": PROGRESSIVE[:-2] + STRAY + kinds.END,
}


@pytest.mark.parametrize("where", STRAYS)
def test_stray_bytes_lose_nothing_and_are_counted(where: str):
    data = STRAYS[where]
    is_progressive = b"\xff\xc2" in data
    prepared = jpeg.normalize(data)
    assert prepared.converted == ("JPEG progressive with stray bytes" if is_progressive else "JPEG with stray bytes")
    pixels = libjpeg(PROGRESSIVE if is_progressive else WITH_RESTARTS if "restart" in where else PLAIN, 3)
    check_kept(prepared, pixels)
    assert np.array_equal(jpeg.read_pixels(data).values, pixels)
    assert jpeg.read_pixels(data, 10).values.shape == (13, 23, 3)


MISSING = {
    "the last MCUs": PLAIN[:-60] + kinds.END,
    "the last MCUs, behind stray bytes": kinds.before(PLAIN, kinds.SOS, STRAY)[:-60] + kinds.END,
    "a restart marker": at_restart(-1, b"")[: WITH_RESTARTS.rindex(b"\xff\xd1")] + PLAIN[-2:],
    "every scan": kinds.first_scans(PROGRESSIVE, 0),
    "the last scan, and the end": kinds.first_scans(PROGRESSIVE, 9)[:-2],
    "the last scans, and the end": kinds.first_scans(PROGRESSIVE, 4)[:-2],
}


def without_chroma() -> bytes:
    """Two of three components are in no scan."""
    pieces, scans = [], 0
    for kind, piece in kinds.parts(PROGRESSIVE):
        scans += kind == kinds.SOS
        if kind == kinds.SOS and scans == 1:
            piece = kinds.segment(kinds.SOS, bytes((1, 1, 0, 0, 0, 1))) + piece[14:]
        if scans <= 1:
            pieces.append((kind, piece))
    return kinds.joined(pieces)


@pytest.mark.parametrize("what", [*MISSING, "two components"])
@pytest.mark.parametrize("read", [jpeg.normalize, jpeg.read_pixels])
def test_a_missing_mcu_is_refused(what: str, read):
    data = MISSING[what] if what in MISSING else without_chroma()
    with pytest.raises(BadSampleError, match="not decodable to the end"):
        read(data)


def with_frame_again(data: bytes) -> bytes:
    frame = next(piece for kind, piece in kinds.parts(data) if kind == kinds.SOF0)
    return kinds.before(data, kinds.SOS, frame)


def out_of_order() -> bytes:
    pieces = [
        (kind, piece[:5] + piece[7:9] + piece[5:7] + piece[9:] if kind == kinds.SOS else piece)
        for kind, piece in kinds.parts(image_bytes("JPEG", size=SIZE, subsampling="4:4:4"))
    ]
    return kinds.joined(pieces)


def with_width(width: int) -> bytes:
    """Of which all MCUs are there: it is libjpeg that cannot count its pixels."""
    data = bytearray(image_bytes("JPEG", size=(65_500, 8), mode="L"))
    at = data.index(b"\xff\xc0") + 7
    data[at : at + 2] = width.to_bytes(2, "big")
    return bytes(data)


REFUSED = {
    "two frame headers": with_frame_again(PLAIN),
    "a second start": kinds.START + PLAIN,
    "a second start |at the end": PLAIN[:-2] + kinds.START + kinds.END,
    "two frame headers| at the end": PLAIN[:-2] + with_frame_again(PLAIN)[2:],
    "not decodable|out of order": out_of_order(),
    "do not know": kinds.before(PLAIN, kinds.DQT, b"\xff\x05\0\4ab"),
    "sampling factors": kinds.with_frame(GREY, factors=(0x05,)),
    "12 bits a sample": PLAIN.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
    "of a process that decoders lack": kinds.with_frame(PLAIN, marker=0xC5),
    "65501 x 8 pixels": with_width(65_501),
}


@pytest.mark.parametrize("reason", REFUSED)
@pytest.mark.parametrize("read", [jpeg.normalize, jpeg.read_pixels])
def test_what_libjpeg_refuses_is_refused(reason: str, read):
    with pytest.raises(ValueError):
        libjpeg(REFUSED[reason], 3)
    with pytest.raises(BadSampleError, match=reason):
        read(REFUSED[reason])


@pytest.mark.parametrize("count", [2, 5])
def test_other_numbers_of_components_are_named(count: int):
    frame = b"\x08\0\x08\0\x08" + bytes((count,)) + b"".join(bytes((i, 0x11, 0)) for i in range(count))
    with pytest.raises(BadSampleError, match=f"a JPEG of {count} components, not 1, 3 or 4: convert"):
        jpeg.normalize(kinds.START + kinds.segment(kinds.SOF0, frame) + bytes(100) + kinds.END)


def test_what_is_encoded_anew_has_another_name_than_what_is_kept():
    names = {jpeg.normalize(data).converted for data in (kinds.lossless(*SIZE), kinds.arithmetic(*SIZE))}
    assert names == {"JPEG lossless", "JPEG of arithmetic coding with stray bytes"}
    assert jpeg.normalize(kinds.with_frame(PLAIN, marker=0xC1)).converted == "JPEG not baseline"


def test_stray_bytes_have_the_same_name_where_nothing_can_be_coded_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ingest.jpeg.transcode.MAX_BYTES", 1)
    data = PLAIN[:-2] + bytes(50) + kinds.END
    assert jpeg.normalize(data).converted == jpeg.read_pixels(data).converted == "JPEG with stray bytes"


@pytest.mark.parametrize("scans", range(1, 10))
def test_a_progressive_jpeg_without_its_last_scans_shows_what_libjpeg_shows_under_a_name_of_its_own(scans: int):
    data = kinds.first_scans(PROGRESSIVE, scans)
    prepared = jpeg.normalize(data)
    assert prepared.converted == "JPEG progressive without its last scans, encoded anew"
    assert np.array_equal(jpeg.read_pixels(data).values, libjpeg(data, 3))


def test_high_frequencies_that_are_not_refined_are_kept_as_they_are():
    data = kinds.unrefined()
    prepared = jpeg.normalize(data)
    assert prepared.converted == "JPEG progressive"
    assert len(np.unique(libjpeg(data, 1))) == 2
    assert np.array_equal(jpeg.decode(prepared.encoded, 1), libjpeg(data, 1))


@pytest.mark.parametrize("factors", [(0x42, 0x21, 0x21), (0x24, 0x12, 0x12), (0x44, 0x22, 0x22)])
def test_factors_that_have_a_common_divisor_are_kept(factors: tuple[int, ...]):
    # A scan of one component holds the same blocks, whatever its factors.
    prepared = jpeg.normalize(kinds.with_frame(SCAN_BY_SCAN, factors=factors))
    assert prepared.converted is None
    check_kept(prepared, libjpeg(SCAN_BY_SCAN, 3))


def test_a_large_jpeg_is_kept_or_counted_by_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ingest.jpeg.transcode.MAX_BYTES", 100)
    assert jpeg.normalize(PROGRESSIVE).converted == "JPEG over 0 MiB, encoded anew"
    baseline = jpeg.normalize(PLAIN)
    assert (baseline.encoded, baseline.segments, baseline.converted) == (PLAIN, b"", None)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("is_progressive", [False, True])
def test_cmyk_of_any_sampling_is_converted(subsampling: int, is_progressive: bool):
    data = image_bytes("JPEG", size=SIZE, mode="CMYK", subsampling=subsampling, progressive=is_progressive)
    prepared = jpeg.normalize(data)
    assert prepared.converted == "JPEG CMYK"
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(jpeg.read_pixels(data).values, expected)
    if not is_progressive:  # of which so few bytes may be a whole scan
        with pytest.raises(BadSampleError, match="not decodable"):
            jpeg.normalize(data[:-12] + kinds.END)


@pytest.mark.parametrize("size", [(64, 64), (640, 480), (33, 1000)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_lossless_jpeg_is_decoded_at_its_size(size: tuple[int, int], channels: int):
    data = kinds.lossless(*size, channels)
    assert jpeg.read_pixels(data, 8).values.shape == (size[1], size[0], channels)
    assert jpeg.decode(data, channels, 8, 8).shape == (size[1], size[0], channels)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_a_lossless_jpeg_is_resized_in_memory_of_its_own(tmp_path: Path, encoding: str):
    put(tmp_path / "photos", {f"a/{i}.jpg": kinds.lossless(700 + i, 500) for i in range(4)})
    manifest = ingest.build_shards(
        tmp_path / "photos", tmp_path / "shards", format="tfrecord", encoding=encoding, resize=32, shards=2, workers=1
    )
    assert (manifest.records, manifest.converted) == (4, {"JPEG lossless": 4})


FOREIGN = {
    "a HEIC image.*heif-convert": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50),
    "a HEIC image, which": b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf" + bytes(50),
    "an AVIF image.*avifdec": b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(50),
    "a JPEG-LS image": kinds.START + kinds.segment(0xF7, bytes(9)) + kinds.END,
    "a JPEG XL image.*djxl": b"\xff\x0a" + bytes(40),
    "a JPEG XL image": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40),
    "a JPEG 2000 image": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
    "a JPEG 2000 image, which": b"\xff\x4f\xff\x51" + bytes(40),
    "a Photoshop document": b"8BPS\0\1" + bytes(40),
    "a PDF document": b"%PDF-1.7\n" + bytes(40),
    "an SVG drawing": b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg xmlns='x'/>",
    "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
    "a camera's raw image .CR2.": b"II*\0\x10\0\0\0CR\2\0" + bytes(40),
    "a camera's raw image .CR3.": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40),
    "a video .MP4": b"\0\0\0\x18ftypisom\0\0\0\1isommp42" + bytes(40),
    "a video .Matroska": b"\x1a\x45\xdf\xa3" + bytes(40),
    "a video .QuickTime": b"\0\0\0\x08wide\0\0\0\0mdat" + bytes(40),
    "a pointer of Git LFS.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "compressed.*gzip": b"\x1f\x8b\x08" + bytes(40),
    "a zip archive": b"PK\3\4" + bytes(40),
    "an icon": b"\0\0\1\0\1\0" + bytes(40),
    "a DICOM file": bytes(128) + b"DICM" + bytes(40),
    "an OpenEXR image": b"\x76\x2f\x31\x01" + bytes(40),
    "not an image": b"whatever this may be",
    "its header is damaged": image_bytes("GIF", mode="L")[:9],
}


@pytest.mark.parametrize("reason", FOREIGN)
def test_files_of_other_kinds_are_named(reason: str):
    with pytest.raises(BadSampleError, match=reason):
        jpeg.normalize(FOREIGN[reason])


def test_a_raw_image_in_a_tiff_is_not_its_thumbnail():
    file = io.BytesIO()
    Image.new("RGB", (16, 12)).save(file, "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    with pytest.raises(BadSampleError, match="a camera's raw image"):
        jpeg.normalize(file.getvalue())


def test_a_decoders_own_words_stand_in_brackets_and_nowhere_else(tmp_path: Path):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(
        file, "TIFF", compression="tiff_lzw"
    )
    damaged = bytearray(file.getvalue())
    damaged[40:3000] = bytes(2960)
    put(tmp_path / "photos", {"a/cut.jpg": PLAIN[:-60] + kinds.END, "a/lzw.tif": bytes(damaged), "a/good.jpg": PLAIN})
    command = [sys.executable, "-m", "ingest", "build-shards", "photos", "shards", "--format", "tfrecord"]
    here = {**os.environ, "PYTHONPATH": str(Path(ingest.__file__).parent.parent)}
    done = subprocess.run([*command, "--workers", "0"], cwd=tmp_path, env=here, capture_output=True, text=True)
    assert done.returncode == 0 and "packed 1 of 3 files" in done.stdout
    lines = [line for line in done.stderr.replace("\r", "\n").split("\n") if line and "packing" not in line]
    assert lines == []
    reasons = [line.split("\t")[1] for line in (tmp_path / "shards/quarantine.tsv").read_text().splitlines()[1:]]
    assert len(reasons) == 2
    assert all(reason.startswith("not decodable to the end (") and reason.endswith(")") for reason in reasons)


def held(orientation: int, kind: str = "JPEG", order: bytes = b"MM", **options: object) -> bytes:
    """An image with an EXIF orientation."""
    exif = Image.Exif()
    exif.endian = "<" if order == b"II" else ">"
    exif[0x010F] = "a maker"
    exif[0x0112] = orientation
    return image_bytes(kind, size=SIZE, exif=exif.tobytes(), **options)


@pytest.mark.parametrize("order", [b"II", b"MM"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_read_and_applied_as_pillow_does(orientation: int, order: bytes):
    data = held(orientation, order=order)
    image = jpeg.read_pixels(data)
    assert image.orientation == jpeg.normalize(data).orientation == orientation
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(jpeg.turned(image.values, orientation), expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_orientation_of_other_kinds_is_read_too(kind: str):
    assert jpeg.normalize(held(6, kind)).orientation == 6
    assert jpeg.normalize(held(1, kind)).orientation == 1


@pytest.mark.parametrize(
    "tiff",
    [
        b"", b"II", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"XX*\0\x08\0\0\0\1\0",
        b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0\0\0",  # orientation 9
        b"II*\0\x08\0\0\0\1\0\x12\1\2\0\1\0\0\0\6\0\0\0",  # a text
        b"II*\0\x08\0\0\0\xff\xff" + bytes(60_000),
    ],
)  # fmt: skip
def test_damaged_exif_is_no_orientation(tiff: bytes):
    data = PLAIN[:2] + kinds.segment(0xE1, b"Exif\0\0" + tiff) + PLAIN[2:]
    prepared = jpeg.normalize(data)
    assert (prepared.orientation, prepared.converted) == (1, None)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("encoding", ["keep", "jpeg", "raw"])
@pytest.mark.parametrize("choice", ["ignore", "apply"])
def test_rotated_images_are_counted_and_turned_if_asked_for(tmp_path: Path, name: str, encoding: str, choice: str):
    files = {f"a/{i}.jpg": held(i) for i in range(1, 9)}
    put(tmp_path / "photos", {**files, "a/plain.jpg": PLAIN, "a/six.png": held(6, "PNG")})
    shards = tmp_path / "shards"
    options = {"format": name, "encoding": encoding, "shards": 2, "workers": 0, "exif_orientation": choice}
    manifest = ingest.build_shards(tmp_path / "photos", shards, **options)
    assert (manifest.records, manifest.rotated, manifest.build.exif_orientation) == (10, 8, choice)
    rotated = {name: count for name, count in manifest.converted.items() if name.endswith("rotated by EXIF")}
    expected = {"JPEG rotated by EXIF": 7, "PNG RGB rotated by EXIF": 1} if choice == "apply" else {}
    assert rotated == expected
    dataset = Dataset(shards)
    shapes = {dataset[i].key: (dataset[i].width, dataset[i].height) for i in range(len(dataset))}
    for i in range(1, 9):
        assert shapes[f"a/{i}.jpg"] == (SIZE[::-1] if choice == "apply" and i >= 5 else SIZE)
    # Mended, it is the same to the byte.
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    shard = next(shards.glob(f"00000*.{name}"))
    shard.write_bytes(shard.read_bytes()[:-9])
    verify(shards, repair=tmp_path / "photos", workers=0)
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == before


def test_the_summary_and_inspect_say_what_lies_on_its_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    put(tmp_path / "photos", {"a/on its side.jpg": held(6), "a/plain.jpg": PLAIN})

    def said(*args: str) -> str:
        assert main([arg.replace("@", f"{tmp_path}/") for arg in args]) == 0
        return capsys.readouterr().out

    build = ("build-shards", "@photos", "--format", "lmdb", "--workers", "0")
    assert "1 images, packed as they are stored: --exif-orientation apply turns them" in said(*build, "@shards")
    assert "rotated by EXIF: 1, packed as they are stored: " in said("inspect", "@shards", "--workers", "0")
    assert "turned as their EXIF says: 1 images" in said(*build, "@turned", "--exif-orientation", "apply")
    assert "rotated by EXIF: 1, turned" in said("inspect", "@turned", "--workers", "0")


def test_what_is_no_fill_byte_is_left_to_the_decoder():
    """A second FF before a stuffed one: of some, libjpeg-turbo's fast decoder makes another block than its slow one."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 160), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=95)
    data = file.getvalue()
    places = [i for i in range(jpeg.read_header(data).scan, len(data)) if data[i : i + 2] == b"\xff\x00"]
    assert len(places) > 20
    for at in places:
        odd = data[:at] + b"\xff" + data[at:]
        assert np.array_equal(jpeg.decode(jpeg.normalize(odd).encoded, 1), libjpeg(odd, 1, strict=False)), at


@pytest.mark.parametrize("data", [PLAIN, PROGRESSIVE], ids=["baseline", "progressive"])
def test_a_segment_that_is_cut_short_behind_the_pixels_is_for_the_decoder_to_judge(data: bytes):
    with pytest.raises(BadSampleError, match="not decodable to the end"):
        jpeg.normalize(data[:-2] + b"\xff\xdd\x00\x09\x00")
    prepared = jpeg.normalize(data[:-2] + b"\xff\xfe\x00\x09a")  # a comment, which decoders pass over
    check_kept(prepared, libjpeg(data, 3))
