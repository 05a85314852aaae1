"""Mutated tars: ``python -m support.fuzz_tars SEED FIRST COUNT`` opens and reads them, and tells how that went.

A mutant is a function of (seed, number) alone, so that one that is found can be looked at again.
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from support.fuzzing import try_all

Generator = np.random.Generator

BLOCK = 512

FIELDS = {
    "name": (0, 100), "mode": (100, 108), "uid": (108, 116), "size": (124, 136), "mtime": (136, 148),
    "checksum": (148, 156), "type": (156, 157), "link": (157, 257), "magic": (257, 265), "devices": (329, 345),
    "prefix": (345, 500), "sparse": (386, 482), "has more": (482, 483), "real size": (483, 495),
}  # fmt: skip


def header(name: str | bytes, size: bytes | int = 0, kind: bytes = b"0", **fields: bytes) -> bytes:
    """A header with a sound checksum; what no writer would write can be given, by the names of FIELDS."""
    block = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
    values = {
        "name": name.encode() if isinstance(name, str) else name,
        "size": size if isinstance(size, bytes) else b"%011o\0" % size,
        "type": kind,
        **fields,
    }
    for field, value in values.items():
        start, end = FIELDS[field]
        block[start:end] = value.ljust(end - start, b"\0")
    return signed(block)


def signed(block: bytes) -> bytes:
    """A header with its checksum."""
    return block[:148] + b"%06o\0 " % (sum(block[:148]) + sum(block[156:512]) + 256) + block[156:]


def member(name: str | bytes, data: bytes = b"data", kind: bytes = b"0", **fields: bytes) -> bytes:
    """A member with its header, padded."""
    return header(name, len(data), kind, **fields) + data + bytes(-len(data) % BLOCK)


def pax(*records: tuple[str, str], kind: bytes = b"x") -> bytes:
    """An extended header."""
    data = b""
    for key, value in records:
        rest = f" {key}={value}\n".encode()
        length = len(rest) + len(str(len(rest)))
        length += len(str(length)) - len(str(len(rest)))
        data += str(length).encode() + rest
    return member("././@PaxHeader", data, kind)


END = bytes(2 * BLOCK)


@cache
def originals() -> tuple[bytes, ...]:
    """Sound archives of every kind, in all formats."""
    image = np.random.default_rng(0).bytes(700)
    folders = {f"{name}/{i}.jpg": image for name in ("cat", "dog") for i in range(3)}
    strange = {f"cat/{'x' * 90}/{'y' * 60}.jpg": image, "dog/\u00fc.jpg": image, "README": b"", ".DS_Store": b"1"}
    samples = {
        f"{i}.{suffix}": image if suffix == "jpg" else b"%d" % (i % 2) for i in range(3) for suffix in ("jpg", "cls")
    }
    result = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        inner = {f"{name}.tar": tar_of({"1.jpg": image, "2.jpg": image}, kind) for name in ("cat", "dog")}
        result += [tar_of(files, kind) for files in (folders, {**folders, **strange}, samples, inner)]
    result += [
        tar_of(folders) + tar_of({"cat/9.jpg": image}),
        member("a/1.jpg", image) + member("a/s", image, b"S", **{"real size": b"%011o\0" % 9000}) + END,
        pax(("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "a/s"))
        + member("s", b"1\n0\n4\n")
        + END,
        pax(("size", "700"), ("path", "a/1.jpg")) + member("b/1.jpg", image) + END,
        member("a/1.jpg", image)
        + member("a/link", b"", b"2")
        + member("a/hard", b"", b"1")
        + member("a/pipe", b"", b"6")
        + END,
    ]
    return tuple(result)


def tar_of(files: dict[str, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        size = tar.offset
    return buffer.getvalue()[:size] + END  # less padding, more to mutate


def headers(data: bytes) -> list[int]:
    """Where the headers are, those of inner archives, too."""
    return [at for at in range(0, len(data) - BLOCK + 1, BLOCK) if any(data[at : at + BLOCK]) and is_signed(data, at)]


def is_signed(data: bytes, at: int) -> bool:
    block = data[at : at + BLOCK]
    return signed(block)[148:154] == block[148:154]


def spoil(data: bytearray, random: Generator) -> None:
    """Put something else into a header's field, and mostly sign it."""
    places = headers(data)
    if not places:
        return
    at = places[random.integers(len(places))]
    start, end = list(FIELDS.values())[random.integers(len(FIELDS))]
    width = end - start
    kind = bytes([random.choice(list(b"01234567LKxgXSDMNVA\0"))])
    in_binary = b"\x80" + int(random.integers(2**40)).to_bytes(11, "big")
    values = [
        b"\xff" * width, bytes(width), b"7" * width, b"\x80" + b"\xff" * (width - 1), b"\x80", in_binary, b"-1",
        b"9" * width, b" " * width, b"%o" % random.integers(5000), b"../" * width, b"/" * width, b"\xc3(", kind,
        random.bytes(width),
    ]  # fmt: skip
    value = values[random.integers(len(values))][:width]
    block = bytearray(data[at : at + BLOCK])
    block[start:end] = value.ljust(width, b"\0")
    data[at : at + BLOCK] = signed(bytes(block)) if random.random() < 0.9 else block


def flip(data: bytearray, random: Generator) -> None:
    for at in random.integers(0, len(data), random.integers(1, 9)):
        data[at] ^= 1 << random.integers(8)


def text(data: bytearray, random: Generator) -> None:
    """Change a digit or a sign of what an extended header, a map or a header says."""
    places = [i for i, byte in enumerate(data) if byte in b"0123456789=\n/"]
    for i in random.integers(0, len(places), random.integers(1, 4)) if places else ():
        data[places[i]] = random.choice(list(b"0123456789=\n-/ \0"))


def cut(data: bytearray, random: Generator) -> None:
    start, end = sorted(random.integers(0, len(data) + 1, 2).tolist())
    if random.random() < 0.5:
        start, end = start // BLOCK * BLOCK, end // BLOCK * BLOCK
    del data[slice(*[(end, None), (start, end), (0, start)][random.integers(3)])]


def splice(data: bytearray, random: Generator) -> None:
    """Put blocks of another archive, zeros or noise anywhere."""
    other = originals()[random.integers(len(originals()))]
    first = random.integers(len(other) // BLOCK) * BLOCK
    some = other[first : first + BLOCK * int(random.integers(1, 9))]
    at = random.integers(len(data) // BLOCK + 1) * BLOCK
    data[at:at] = [some, bytes(len(some)), random.bytes(len(some)), some[:100]][random.integers(4)]


def extend(data: bytearray, random: Generator) -> None:
    """Have an extended header say something of a member."""
    numbers = ["0", "1", "700", "99999999999", "-1", "1" * 5000, "1e3", "", str(2**63), "\u0663"]
    number = numbers[random.integers(len(numbers))]
    keys = [
        "size",
        "path",
        "GNU.sparse.map",
        "GNU.sparse.size",
        "GNU.sparse.realsize",
        "GNU.sparse.name",
        "hdrcharset",
        "mtime",
    ]
    keys = [keys[i] for i in random.integers(0, len(keys), random.integers(1, 4))]
    places = headers(data) or [0]
    at = places[random.integers(len(places))]
    data[at:at] = pax(*((key, number) for key in keys), kind=[b"x", b"g", b"X"][random.integers(3)])


MUTATIONS: list[Callable[[bytearray, Generator], None]] = [
    spoil,
    spoil,
    spoil,
    spoil,
    flip,
    text,
    text,
    cut,
    splice,
    extend,
]


def mutant(seed: int, number: int) -> bytes:
    """An archive that was mutated one to three times."""
    random = np.random.Generator(np.random.PCG64([seed, number]))
    data = bytearray(originals()[random.integers(len(originals()))])
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        if len(data) > BLOCK:
            MUTATIONS[random.integers(len(MUTATIONS))](data, random)
    return bytes(data)


def open_and_read(place: Path) -> bool:
    """List an archive and read all that is in it; whether that could be done. Raises nothing but what it should."""
    from ingest.errors import BadSampleError, SourceError
    from ingest.sources.detect import open_source

    try:
        source = open_source(place)
    except SourceError as error:
        assert str(error) and len(str(error)) < 5000
        return False
    for entry in source.entries:
        assert (entry.label == -1) == bool(entry.location[3]) and entry.label < len(source.classes)
        try:
            assert len(source.read(entry).data) == entry.location[2]
        except BadSampleError as error:
            assert str(error) and entry.label == -1
    return True


def main(seed: int, first: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "it.tar"
        place.write_bytes(originals()[0])
        assert open_and_read(place)

        def use(number: int) -> bool:
            place.write_bytes(mutant(seed, number))
            return open_and_read(place if number % 2 else place.parent)

        try_all(seed, range(first, first + count), use, count)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
