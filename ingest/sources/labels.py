"""Labels that lie apart from their images: the ILSVRC devkit's, or a list's."""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ingest.errors import OptionError, SourceError
from ingest.sources import ignored, list_parser
from ingest.sources.base import NO_CLASS, label_all
from ingest.system import paths

_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"

_MAX_DEVKIT_BYTES = 2**28
"""Of each of its files; the published ones have 0.2 and 0.6 million."""

NOT_THERE = "images that have a label and are not there"


class Labels(NamedTuple):
    """Classes, the label of each image, and by rule what the labels name beside these images."""

    classes: tuple[str, ...]
    numbers: list[int]
    passed_over: Mapping[str, int]


def labels_of(path: Path, names: list[str]) -> Labels:
    """Classes, and the label of each of the images ``names``, by the file of labels at ``path``.

    That is the devkit (its archive, its folder, or the ground truth in it), whose labels become those of the sorted
    synsets, as a training folder's are; a list with a label a line, for the images in the order of their names; or a
    list of paths and labels, as list_parser.py reads it, which may name other images, too: its classes are those of all
    its rows. A name that ``needs_no_label`` has NO_CLASS without one. Raises SourceError where they do not fit.
    """
    try:
        devkit = _find_devkit(path)
        return _of_devkit(path, *devkit, names) if devkit else _of_list(path, names)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})", path=path) from error
    except (EOFError, zlib.error, tarfile.TarError) as error:
        raise SourceError(
            f"{path}: compressed, and not the devkit: give the devkit, or a list as plain text", path=path
        ) from error


def needs_no_label(name: str) -> bool:
    """Whether a file among images is hidden, or one of those that systems leave: an image only if a list says so."""
    return name.startswith(".") or ignored.rule(name) is not None


def _of_list(path: Path, names: list[str]) -> Labels:
    rows = list_parser.read(path, _files(names), labels_alone=True)
    if rows.files is None:
        return _in_order(path, names, rows.classes, rows.labels)
    of_name = dict(zip(rows.files, rows.labels))
    without = [name for name in names if name not in of_name and not needs_no_label(name)]
    if without:
        line, other = rows.missing[0] if rows.missing else (0, "")
        example = f"; line {line} names {list_parser.short(other)}, which is not there" if rows.missing else ""
        raise SourceError(
            f"{path}: no label for {len(without)} of {len(names)} images, such as {without[0]}{example}: "
            "each image needs a line, PATH LABEL",
            path=path,
        )
    passed_over = {NOT_THERE: len(rows.missing)} if rows.missing else {}
    return Labels(rows.classes, [of_name.get(name, NO_CLASS) for name in names], passed_over)


def _in_order(path: Path, names: list[str], classes: tuple[str, ...], labels: list[int]) -> Labels:
    images = sorted(name for name in names if not needs_no_label(name))
    if len(labels) != len(images):
        raise SourceError(
            f"{path}: {len(labels)} labels for {len(images)} images: a label a line, or lines PATH LABEL, are needed",
            path=path,
        )
    if pair := _against_numbers(images):
        raise SourceError(
            f"{path}: a label a line is for images in the order of their names, where {pair[0]} is before {pair[1]}: "
            "give lines PATH LABEL",
            path=path,
        )
    of_name = dict(zip(images, labels))
    return Labels(classes, [of_name.get(name, NO_CLASS) for name in names], {})


def _against_numbers(names: list[str]) -> tuple[str, str] | None:
    """Two of the sorted ``names`` that differ in a number alone, and stand in the order of text, not of numbers."""
    if len({len(name) for name in names}) < 2:  # as published sets have it
        return None
    last: dict[tuple[str, str], tuple[int, str]] = {}
    for name in names:
        for number in re.finditer("[0-9]+", name):
            around = name[: number.start()], name[number.end() :]
            value, before = last.get(around, (0, ""))
            if value > int(number[0]):
                return before, name
            last[around] = int(number[0]), name
    return None


def _files(names: list[str]) -> list_parser.Files:
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, slash, last = name.rpartition("/")
        folders.setdefault(folder + slash, []).append(last)
    return list_parser.Files("the images' folder", lambda folder: folders.get(folder, []))


def _of_devkit(path: Path, truth: bytes, meta: bytes, names: list[str]) -> Labels:
    numbers = truth.split()
    if not all(number.isdigit() and len(number) < 10 for number in numbers):
        raise SourceError(f"{path}: {_TRUTH}: more than a number a line: fetch the devkit again", path=path)
    synsets = _synsets(path, meta)
    unknown = [int(number) for number in numbers if int(number) not in synsets]
    if unknown:
        raise SourceError(f"{path}: {_TRUTH}: {unknown[0]} is no class of {_META}: fetch the devkit again", path=path)
    return _in_order(path, names, *label_all([synsets[int(number)] for number in numbers]))


def _find_devkit(path: Path) -> tuple[bytes, bytes] | None:
    """Ground truth and meta.mat of the devkit at ``path``, or None where it is no devkit."""
    if path.is_dir():
        files = {file.name: file for file in path.rglob("*") if file.name in (_TRUTH, _META)}
        if len(files) < 2:
            raise SourceError(f"{path}: no devkit: it lacks {_TRUTH} or {_META}", path=path)
        return files[_TRUTH].read_bytes(), files[_META].read_bytes()
    if path.name == _TRUTH and path.with_name(_META).exists():
        return path.read_bytes(), path.with_name(_META).read_bytes()
    if not path.is_file() or paths.read(path, 0, 2) != b"\x1f\x8b":
        return None
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
        parts = {Path(info.name).name: info for info in archive if info.isreg()}
        if not {_TRUTH, _META} <= parts.keys():
            raise SourceError(f"{path}: no devkit: it lacks {_TRUTH} or {_META}", path=path)
        return _member(path, archive, parts[_TRUTH]), _member(path, archive, parts[_META])


def _member(path: Path, archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    if info.size > _MAX_DEVKIT_BYTES:
        raise SourceError(f"{path}: no devkit: {info.name!r} has {info.size:,} bytes: fetch it again", path=path)
    file = archive.extractfile(info)
    return file.read() if file else b""


def _synsets(path: Path, meta: bytes) -> dict[int, str]:
    """The WordNet ids of the devkit's numbers; those above the classes proper are their parents."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise OptionError("the devkit's meta.mat needs scipy: pip install 'ingest-toolkit[devkit]'") from error
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if int(row["num_children"]) == 0}
    except Exception as error:  # scipy's reader of damaged files raises whatever it stumbles over
        raise SourceError(f"{path}: {_META} cannot be read ({error}): fetch the devkit again", path=path) from error
