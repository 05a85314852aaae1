"""Files of well-known kinds that cannot be packed, by what they begin with: for a reason that says what to do."""

from __future__ import annotations

_IMAGE = "convert it to JPEG or PNG"
_RAW = "develop it to JPEG, such as with darktable or dcraw"
_VIDEO = "extract its frames, such as with ffmpeg"

_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\x0a", "a JPEG XL image", f"{_IMAGE}, such as with djxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image", f"{_IMAGE}, such as with djxl"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image", f"{_IMAGE}, such as with opj_decompress"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image", f"{_IMAGE}, such as with opj_decompress"),
    (b"II\xbc\x01", "a JPEG XR image", _IMAGE),
    (b"8BPS", "a Photoshop document", _IMAGE),
    (b"%PDF-", "a PDF document", f"{_IMAGE}, such as with pdftoppm"),
    (b"II*\0\x10\0\0\0CR", "a camera's raw image (CR2)", _RAW),
    (b"IIRO", "a camera's raw image (ORF)", _RAW),
    (b"IIRS", "a camera's raw image (ORF)", _RAW),
    (b"MMOR", "a camera's raw image (ORF)", _RAW),
    (b"IIU\0", "a camera's raw image (RW2)", _RAW),
    (b"FUJIFILMCCD-RAW", "a camera's raw image (RAF)", _RAW),
    (b"FOVb", "a camera's raw image (X3F)", _RAW),
    (b"\0MRM", "a camera's raw image (MRW)", _RAW),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", _VIDEO),
    (b"\0\0\x01\xba", "a video (MPEG)", _VIDEO),
    (b"\0\0\x01\xb3", "a video (MPEG)", _VIDEO),
    (b"FLV\x01", "a video (Flash)", _VIDEO),
    (b"\x76\x2f\x31\x01", "an OpenEXR image", _IMAGE),
    (b"\0\0\1\0", "an icon", _IMAGE),
    (bytes(128) + b"DICM", "a DICOM file", f"{_IMAGE}, such as with dcm2img"),
    (b"PK\3\4", "a zip archive", "unpack it"),
    (b"\x1f\x8b\x08", "compressed by gzip", "unpack it, such as with gunzip"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch that with git lfs pull"),
)

# Of ISO/IEC 14496-12's files, whose bytes 4 to 8 are "ftyp", by the brands that follow.
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2", b"miaf")
_AVIF = (b"avif", b"avis")

_TEXT_BYTES = 4096
"""Where a text that begins with a declaration or comments must have come to its first element."""


def refusal(data: bytes) -> str | None:
    """Why a file of a well-known kind is not packed, and what to do; None where it is of no such kind."""
    kind, remedy = next(
        ((kind, remedy) for beginning, kind, remedy in _BEGINNINGS if data.startswith(beginning)),
        _container(data) or _text(data) or ("", ""),
    )
    return raw_refusal(kind) if remedy == _RAW else f"{kind}, which cannot be decoded: {remedy}" if kind else None


def raw_refusal(kind: str = "a camera's raw image") -> str:
    """Why a camera's raw image is not packed."""
    return f"{kind}, which cannot be decoded: {_RAW}"


def _container(data: bytes) -> tuple[str, str] | None:
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "a video (AVI)", _VIDEO
    if data[4:8] in (b"moov", b"mdat", b"wide", b"pnot"):
        return "a video (QuickTime)", _VIDEO
    if data[4:8] != b"ftyp":
        return None
    end = min(len(data), int.from_bytes(data[:4], "big"), _TEXT_BYTES)
    # The major brand, then, behind its version, those that it is compatible with.
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, end, 4))]
    if any(brand in _AVIF for brand in brands):
        return "an AVIF image", f"{_IMAGE}, such as with avifdec"
    if any(brand in _HEIC for brand in brands):
        return "a HEIC image", f"{_IMAGE}, such as with heif-convert"
    if brands[0] == b"crx ":
        return "a camera's raw image (CR3)", _RAW
    return "a video (MP4 or QuickTime)", _VIDEO


def _text(data: bytes) -> tuple[str, str] | None:
    beginning = data[:_TEXT_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not beginning.startswith(b"<"):
        return None
    if b"<svg" in beginning:
        return "an SVG drawing", f"{_IMAGE}, such as with rsvg-convert"
    if beginning.startswith((b"<!doctype html", b"<html")):
        return "a web page", "download the image itself"
    return None
