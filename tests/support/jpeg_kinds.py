"""JPEGs of kinds that Pillow does not write, made by hand from some that it does."""

from __future__ import annotations

import base64
import io

from PIL import Image

from support.images import image_bytes

START, END = b"\xff\xd8", b"\xff\xd9"
SOF0, SOF2, SOF3, SOF9, DHT, SOS, DQT, DRI, APP0, APP14, COM = (
    0xC0, 0xC2, 0xC3, 0xC9, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xEE, 0xFE,
)  # fmt: skip


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def parts(data: bytes) -> list[tuple[int, bytes]]:
    """The segments of a sound JPEG between its start and its end: marker and bytes, those of SOS with the data."""
    found, at = [], 2
    while data[at + 1] != 0xD9:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == SOS:
            while data[end] != 0xFF or data[end + 1] in (0, *range(0xD0, 0xD8)):
                end += 1
        found.append((data[at + 1], data[at:end]))
        at = end
    return found


def joined(pieces: list[tuple[int, bytes]]) -> bytes:
    return b"".join([START, *(piece for _, piece in pieces), END])


def before(data: bytes, marker: int, piece: bytes, which: int = 0) -> bytes:
    """With ``piece`` put before a segment of that marker: the first, or number ``which``."""
    pieces = parts(data)
    at = [i for i, (kind, _) in enumerate(pieces) if kind == marker][which]
    return joined([*pieces[:at], (0, piece), *pieces[at:]])


def without(data: bytes, marker: int) -> bytes:
    return joined([piece for piece in parts(data) if piece[0] != marker])


def with_frame(data: bytes, marker: int | None = None, factors: tuple[int, ...] = (), names: bytes = b"") -> bytes:
    """With another marker of the frame, other sampling factors, or other names of the components, here and in SOS."""
    pieces = []
    for kind, piece in parts(data):
        changed = bytearray(piece)
        if kind in (SOF0, SOF2):
            changed[1] = marker or kind
            for i, factor in enumerate(factors):
                changed[11 + 3 * i] = factor
            for i, name in enumerate(names):
                changed[10 + 3 * i] = name
        if kind == SOS and names:
            for i in range(changed[4]):
                changed[5 + 2 * i] = names[changed[5 + 2 * i] - 1]
        pieces.append((kind, bytes(changed)))
    return joined(pieces)


def lossless(width: int, height: int, channels: int = 3, restarts: bool = False) -> bytes:
    """A lossless JPEG (SOF3) of one colour, without Huffman codes longer than a bit."""
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    frame = bytes((8, *size, channels)) + b"".join(bytes((i + 1, 0x11, 0)) for i in range(channels))
    scan = bytes((channels,)) + b"".join(bytes((i + 1, 0)) for i in range(channels)) + b"\1\0\0"
    table = segment(DHT, bytes((0, 1, *bytes(15), 0)))
    coded = bytes(-(-width * height * channels // 8))
    return START + segment(SOF3, frame) + table + segment(SOS, scan) + coded + END


def arithmetic(width: int, height: int, channels: int = 3) -> bytes:
    """An arithmetic-coded JPEG (SOF9) of whatever zeros mean."""
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    frame = bytes((8, *size, channels)) + b"".join(bytes((i + 1, 0x11, 0)) for i in range(channels))
    scan = bytes((channels,)) + b"".join(bytes((i + 1, 0)) for i in range(channels)) + b"\0\x3f\0"
    tables = segment(DQT, bytes((0, *[8] * 64)))
    return START + tables + segment(SOF9, frame) + segment(SOS, scan) + bytes(width * height // 2) + END


def adobe(transform: int, **options: object) -> bytes:
    """A JPEG of three components with no JFIF and a colour transform, known or not, in Adobe's segment."""
    plain = without(image_bytes("JPEG", **options), APP0)
    return START + segment(APP14, b"Adobe\0\x64\0\0\0\0" + bytes((transform,))) + plain[2:]


def short_jfif(**options: object) -> bytes:
    """Components named R, G and B, and a JFIF segment that is too short for decoders to see."""
    plain = without(with_frame(image_bytes("JPEG", **options), names=b"RGB"), APP0)
    return START + segment(APP0, b"JFIF\0\1\1\0\0\1") + plain[2:]


def progressive(**options: object) -> bytes:
    return image_bytes("JPEG", progressive=True, **options)


def tables_again(data: bytes) -> bytes:
    """With the quantisation tables once more before each scan but the first."""
    tables = b"".join(piece for kind, piece in parts(data) if kind == DQT)
    pieces, scans = [], 0
    for kind, piece in parts(data):
        scans += kind == SOS
        pieces += [(DQT, tables)] if kind == SOS and scans > 1 else []
        pieces.append((kind, piece))
    return joined(pieces)


def other_tables(data: bytes, which: int) -> bytes:
    """With other tables of the same numbers before scan number ``which``: they are of no component that came before."""
    tables = b"".join(segment(DQT, bytes((number, *[7] * 64))) for number in range(2))
    return before(data, SOS, tables, which)


def first_scans(data: bytes, count: int) -> bytes:
    """The first scans of a JPEG of several, and its end marker."""
    pieces, scans = [], 0
    for kind, piece in parts(data):
        scans += kind == SOS
        if scans <= count:
            pieces.append((kind, piece))
    return joined(pieces)


def unrefined() -> bytes:
    """A progressive JPEG of one block, whose coefficients from the tenth on lack their last bit: DC 5, AC 10 is 2."""
    two_codes = bytes((0, 2, *bytes(14)))
    tables = segment(DQT, bytes((0, *[16] * 64)))
    tables += segment(DHT, b"\0" + two_codes + b"\0\3") + segment(DHT, b"\x10" + two_codes + b"\0\1")
    frame = segment(SOF2, b"\x08\0\x08\0\x08\1\1\x11\0")

    def scan(first: int, last: int, bits: int, coded: int) -> bytes:
        return segment(SOS, bytes((1, 1, 0, first, last, bits))) + bytes((coded,))

    scans = scan(0, 0, 0, 0b01101_111) + scan(1, 9, 0, 0b00_111111) + scan(10, 63, 1, 0b01100_111)
    return START + tables + frame + scans + END


def ycck() -> bytes:
    data = bytearray(image_bytes("JPEG", mode="CMYK"))
    data[data.index(b"Adobe") + 11] = 2  # the colour transform: none -> YCCK
    return bytes(data)


# A gradient of 37 x 19 pixels, 4:2:0, baseline, in a scan for each component, the last first, with restart markers:
# what nobody writes and every decoder reads.
SCAN_BY_SCAN = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYV"
    "pQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAT"
    "ACUDASIAAhEBAxEB/8QAFwABAQEBAAAAAAAAAAAAAAAABAYFAf/EAB0QAAEEAwEBAAAAAAAAAAAAAAACAwRhATFRIRH/3QAEAAL/2gAIAQEAAD"
    "8AhGoVC2oVH//QmmoVC2oVH//Rz0QvNBmoVH//0gtQqFtQqP/TQ1CoUiF5o//U60hPMC2kJ5g//9XXaQnmBbSE8wf/1qxCE/NYP//EABcBAAMB"
    "AAAAAAAAAAAAAAAAAAQFBgf/xAAYEQADAQEAAAAAAAAAAAAAAAAAAQMEIf/aAAgBAxEAPwAWG0cw2n//0KFbeGbwbP/RBg2Mk+H/xAAXAQADAQ"
    "AAAAAAAAAAAAAAAAACAwQF/8QAFxEBAQEBAAAAAAAAAAAAAAAAAAIDAf/aAAgBAhEAPwAI0Uxo/9C3mjFh/9FcH8f/2Q=="
)


def scan_bomb() -> bytes:
    """A progressive JPEG whose last scan is there three thousand times."""
    file = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 3000 + data[-2:]
