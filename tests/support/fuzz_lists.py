"""Mutated lists: ``python -m support.fuzz_lists SEED FIRST COUNT`` opens them, as sources and as labels, and tells how.

A mutant is a function of (seed, number) alone, so that one that is found can be looked at again.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from support.fuzzing import SECONDS, try_all

Generator = np.random.Generator

NAMES = [*(f"IMG_{i:04d}.jpg" for i in range(8)), "my cat.jpg", "a,b.png", "c;d.png", "7.jpg"]
LABELS = [3, 10, 2, 0, 10, 1, 2, 0, 3, 1, 2, 7]
WORDS = ["dog", "cat", "polar bear", "ant", "cat", "b,c", "emu", "ant", "dog", "bee", "\u00e4", "emu"]

TOKENS = [
    b",", b";", b"\t", b" ", b'"', b'""', b"\n", b"\r", b"\r\n", b"#", b"\0", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf",
    b"\xe4", b"\x85", b"\xe2\x80\xa8", b"../", b"/", b"./", b"-1", b"0.0", b"1e9", b"7,0", b"9" * 400, b"nan", b"label",
    b"path", b",,,", b"IMG_0003.jpg", b"IMG_0003", b"x" * 140_000,
]  # fmt: skip


@cache
def originals() -> tuple[bytes, ...]:
    """Sound lists of the same images in every dialect."""
    result = []
    for delimiter in "\t,;":
        quoted = [f'"{name}"' for name in NAMES]
        for labels in (LABELS, [f"{n}.0" for n in LABELS], [f'"{word}"' for word in WORDS]):
            rows = [delimiter.join(map(str, row)) for row in zip(quoted, labels)]
            swapped = [delimiter.join(map(str, row)) for row in zip(labels, quoted)]
            counted = [delimiter.join(map(str, row)) for row in zip(range(12), quoted, labels)]
            result += ["\n".join(rows), "\r\n".join(["path" + delimiter + "label", *rows]), "\r".join(swapped)]
            result += [
                "\n".join([delimiter.join(("", "file", "class")), *counted]),
                "# a comment\n\n" + "\n".join(rows),
            ]
        named = [delimiter.join(map(str, row)) for row in zip(quoted, LABELS, (f"c{n}" for n in LABELS))]
        result.append("\n".join(named))
    result += ["\n".join(map(str, LABELS)), "label\r\n" + "\r\n".join(map(str, LABELS)), '"a b"\n' * 12]
    marked = [
        ("\ufeff" + text).encode(encoding) for text in result[::5] for encoding in ("utf-8", "utf-16-le", "utf-16-be")
    ]
    return (*(text.encode() for text in result), *marked)


def flip(data: bytearray, random: Generator) -> None:
    for at in random.integers(0, len(data), random.integers(1, 5)):
        data[at] ^= 1 << random.integers(8)


def cut(data: bytearray, random: Generator) -> None:
    start, end = sorted(random.integers(0, len(data) + 1, 2).tolist())
    del data[slice(*[(end, None), (0, start), (start, min(end, start + 9))][random.integers(3)])]


def insert(data: bytearray, random: Generator) -> None:
    for _ in range(random.integers(1, 4)):
        at = int(random.integers(len(data) + 1))
        data[at:at] = TOKENS[random.integers(len(TOKENS))]


def replace(data: bytearray, random: Generator) -> None:
    """Another delimiter, line end or quote, in some places or in all."""
    signs = [b",", b";", b"\t", b" ", b"\n", b"\r", b'"', b"0", b".jpg", b""]
    old, new = signs[random.integers(9)], signs[random.integers(10)]
    data[:] = data.replace(old, new, [1, 2, -1][random.integers(3)])


_MOST_BYTES = 2**24
"""Of lines that a mutation adds: this process holds copies, and must stay within the memory that it may have."""


def shuffle(data: bytearray, random: Generator) -> None:
    """Repeat, remove or move lines."""
    lines = bytes(data).split(b"\n")
    i, j = random.integers(0, len(lines), 2)
    kind = random.integers(3)
    if kind == 0:
        times = min(int(random.choice([1, 2, 30, 5_000])), 1 + _MOST_BYTES // (1 + len(lines[i])))
        lines[j:j] = [lines[i]] * times
    elif kind == 1:
        del lines[i]
    else:
        lines.insert(j, lines.pop(i))
    data[:] = b"\n".join(lines)


def splice(data: bytearray, random: Generator) -> None:
    other = originals()[random.integers(len(originals()))]
    start, end = sorted(random.integers(0, len(other) + 1, 2).tolist())
    at = int(random.integers(len(data) + 1))
    data[at:at] = other[start:end]


MUTATIONS: list[Callable[[bytearray, Generator], None]] = [flip, cut, insert, insert, replace, shuffle, shuffle, splice]


def mutant(seed: int, number: int) -> bytes:
    """A list that was mutated once or twice."""
    random = np.random.Generator(np.random.PCG64([seed, number]))
    data = bytearray(originals()[random.integers(len(originals()))])
    for _ in range(random.integers(1, 3)):
        MUTATIONS[random.integers(len(MUTATIONS))](data, random) if data else None
    return bytes(data)


def rows_of(data: bytes) -> list[str]:
    """The lines of a list that say something; the first may be a header."""
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
    text = data.decode(next((encoding for mark, encoding in marks.items() if data.startswith(mark)), "utf-8"))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line for line in lines if re.sub(r'[\s,;"]', "", line) and not is_comment(line)]


def is_comment(line: str) -> bool:
    """Whether a line begins with a #, and not with an image's name."""
    line = line.lstrip("\ufeff")  # of a list that another was joined to
    return line.lstrip().startswith("#") and not any(line.split(sign)[0].strip() in NAMES for sign in "\t,; ")


def names(line: str) -> bool:
    """Whether a line has a field that is the name of an image."""
    return any(part.strip(' "') in NAMES for sign in "\t,; " for part in [line, *line.split(sign)])


def opened(data: bytes, folder: Path) -> int:
    """How many of the two ways to open a list took it. The only error allowed is an IngestError of one line."""
    from ingest.errors import IngestError
    from ingest.sources.base import NO_CLASS
    from ingest.sources.detect import open_source

    table, labels, taken = folder / "with" / "list.csv", folder / "labels.csv", 0
    table.write_bytes(data)
    labels.write_bytes(data)
    for place, apart in ((table, None), (folder / "without", labels)):
        try:
            source = open_source(place, apart)
        except IngestError as error:
            assert re.fullmatch(r"[^\n\r\0]{1,600}", str(error)), str(error)
            continue
        rows = rows_of(data)
        counted = len(source.entries) + sum(source.passed_over.values())
        assert counted == len(rows) or (counted == len(rows) - 1 and not names(rows[0])), (counted, rows[:20])
        assert all(0 <= entry.label < len(source.classes) != NO_CLASS for entry in source.entries)
        assert "" not in source.classes and all(name.strip() for name in source.classes)
        taken += 1
    return taken


def main(seed: int, first: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for place in ("with", "without"):
            (Path(scratch) / place).mkdir()
            for name in NAMES:
                (Path(scratch) / place / name).write_bytes(b"1")
        opened(originals()[0], Path(scratch))

        def use(number: int) -> int:
            return opened(mutant(seed, number), Path(scratch))

        # By the processor's time, and with more of the clock's: the machine may do other things, too.
        numbers = range(first, first + count)
        try_all(seed, numbers, use, 2 * count, seconds=10 * SECONDS, clock=time.process_time)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
