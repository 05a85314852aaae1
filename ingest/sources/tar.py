"""Tars, read in place: where each image lies is found once, and its bytes are read from there. Nothing is unpacked.

a tar of tars            ILSVRC2012_img_train.tar: a tar of images for each class, named after it
a folder of such tars
CLASS/IMAGE files        in one tar, or in a folder of tars
WebDataset               KEY.jpg and KEY.cls, in one tar or in a folder of tars
images without folders   ILSVRC2012_img_val.tar, with labels
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ingest import files
from ingest.errors import BadSampleError, SourceError
from ingest.sample import Sample
from ingest.sources import NO_CLASS, Entries, Entry, Source, label_all
from ingest.sources.labels import labels_of

_BLOCK_BYTES = 512
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")

# What is wrong with an entry; its number is the last of the entry's `at`.
_SOUND, _LINK, _DEVICE, _OUTSIDE, _NO_FOLDER, _NO_LABEL, _NO_IMAGE, _NO_TAR = range(8)
_FAULTS = {
    _LINK: "a link, not a regular file",
    _DEVICE: "a device, a pipe or a sparse file, not a regular file",
    _OUTSIDE: "a name that leads out of the archive",
    _NO_FOLDER: "not in a class folder",
    _NO_LABEL: "no .cls beside it says its class, or one out of range",
    _NO_IMAGE: "a .cls without an image beside it",
    _NO_TAR: "not a tar, as the others are",
}

# WebDataset's decoders go by these, too.
_IMAGE_SUFFIXES = {"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"}


@dataclass(frozen=True)
class TarReader:
    """Reads members of the archives ``paths``; an entry is at (number of the archive, byte, size, fault)."""

    paths: tuple[Path, ...]

    def __call__(self, entry: Entry) -> Sample:
        """The bytes of a member."""
        archive, offset, size_bytes, fault = entry.at
        if fault:
            raise BadSampleError(_FAULTS[fault])
        return Sample(entry.key, entry.label, _read(self.paths[archive], offset, size_bytes))


class _Member(NamedTuple):
    """A file in an archive: where its bytes lie, and what is wrong with it."""

    name: str
    at: tuple[int, int, int, int]


def open_tar(path: Path, labels: Path | None) -> Source | None:
    """The tar, or folder of tars, at ``path``; None where it is something else.

    Raises SourceError where an archive is cut short or compressed, or its images have no classes.
    """
    if path.is_file():
        _refuse_compressed(path)
        return _open_archives((path,), [], labels) if _is_tar(path, 0) else None
    found = [] if labels else _files_alone_in(path)
    archives = tuple(file for file in found if _is_tar(file, 0))
    return _open_archives(archives, [file.name for file in found if file not in archives], labels) if archives else None


def _open_archives(paths: tuple[Path, ...], others: list[str], labels: Path | None) -> Source:
    strays = [_Member(name, (0, 0, 0, _NO_TAR)) for name in others]
    reader = TarReader(paths)
    if len(paths) == 1:
        outer = list(_members(paths[0], 0))
        sound = [member for member in outer if not member.at[3]]
        if sound and _is_tar(paths[0], sound[0].at[1]):
            return _source(
                _by_class_tar(paths[0], outer), sorted(_stem(member.name) for member in sound), strays, reader
            )
        members: Iterable[_Member] = outer
    else:
        members = _all_members(paths)
        names = {member.name for member in _members(paths[0], 0)}
        if not any("/" in name or name.endswith(".cls") for name in names):
            stems = [_stem(path.name) for path in paths]
            inner = (m._replace(name=f"{stems[m.at[0]]}/{m.name}") for m in members)
            return _source(inner, sorted(stems), strays, reader)
    return _of_members(list(members), strays, reader, labels)


def _of_members(members: list[_Member], strays: list[_Member], reader: TarReader, labels: Path | None) -> Source:
    if any(member.name.endswith(".cls") for member in members):
        return _of_webdataset(members, strays, reader)
    folders = {member.name.split("/")[0] for member in members if "/" in member.name and not member.at[3]}
    if folders:
        if all(member.name.count("/") > 1 for member in members if "/" in member.name):
            raise SourceError(
                f"{reader.paths[0]}: its folders ({', '.join(sorted(folders)[:3])}) hold folders, not images: "
                "pack an archive of CLASS/IMAGE files"
            )
        return _source(members, sorted(name for name in folders if not name.startswith(".")), strays, reader)
    if labels is None:
        raise SourceError(f"{reader.paths[0]}: its images have no classes: give them with --labels FILE")
    sound = [member for member in members if not member.at[3]]
    classes, numbers, passed_over = labels_of(labels, [member.name for member in sound])
    entries = [_entry(member, label) for member, label in zip(sound, numbers)]
    entries += [_entry(member, NO_CLASS) for member in [*members, *strays] if member.at[3]]
    return Source(classes, Entries(entries), reader, passed_over=passed_over)


def _source(members: Iterable[_Member], classes: list[str], strays: list[_Member], reader: TarReader) -> Source:
    """The source of members that lie in the folder of their class."""
    labels = {name: label for label, name in enumerate(classes)}
    entries = (_entry(member, labels.get(member.name.split("/")[0], NO_CLASS)) for member in members)
    return Source(tuple(classes), Entries([*entries, *(_entry(stray, NO_CLASS) for stray in strays)]), reader)


def _entry(member: _Member, label: int) -> Entry:
    *place, fault = member.at
    if label == NO_CLASS and not fault:
        fault = _NO_FOLDER
    return Entry(member.name, NO_CLASS if fault else label, (*place, fault))


def _of_webdataset(members: list[_Member], strays: list[_Member], reader: TarReader) -> Source:
    """Members whose names are equal up to the first dot are a sample: an image, its .cls, and what we pass over."""
    images: dict[tuple[int, str], _Member] = {}
    texts: dict[tuple[int, str], _Member] = {}
    odd = [member for member in members if member.at[3]]
    for member in members:
        folder, slash, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        key = member.at[0], f"{folder}{slash}{stem}"
        if member.at[3]:
            continue
        if suffix == "cls":
            texts[key] = member
        elif suffix.lower() in _IMAGE_SUFFIXES:
            if key in images:
                odd.append(images[key]._replace(at=(*images[key].at[:3], _NO_LABEL)))
            images[key] = member
    labelled = [key for key in images if key in texts]
    words = [_read(reader.paths[key[0]], *texts[key].at[1:3]).decode("utf-8", "replace").strip() for key in labelled]
    classes, numbers = label_all(words)
    entries = [_entry(images[key], label) for key, label in zip(labelled, numbers)]
    entries = [entry if entry.label >= 0 else entry._replace(at=(*entry.at[:3], _NO_LABEL)) for entry in entries]
    odd += [member._replace(at=(*member.at[:3], _NO_LABEL)) for key, member in images.items() if key not in texts]
    odd += [member._replace(at=(*member.at[:3], _NO_IMAGE)) for key, member in texts.items() if key not in images]
    return Source(classes, Entries([*entries, *(_entry(member, NO_CLASS) for member in [*odd, *strays])]), reader)


def _by_class_tar(path: Path, outer: list[_Member]) -> Iterator[_Member]:
    """The images of the tars in a tar, each below its tar's name."""
    with path.open("rb") as file:
        for member in outer:
            _, offset, size_bytes, fault = member.at
            if fault or not _is_tar_header(_part(file, offset, _BLOCK_BYTES)):
                yield member._replace(at=(0, offset, size_bytes, fault or _NO_TAR))
                continue
            section = _Section(file, offset, size_bytes)
            for inner in _members_of(section, path, 0, offset):
                yield inner._replace(name=f"{_stem(member.name)}/{inner.name}")


def _all_members(paths: tuple[Path, ...]) -> Iterator[_Member]:
    for number, path in enumerate(paths):
        yield from _members(path, number)


def _members(path: Path, number: int) -> Iterator[_Member]:
    with path.open("rb") as file:
        yield from _members_of(file, path, number, 0)


def _members_of(file: Any, path: Path, number: int, start: int) -> Iterator[_Member]:
    """All members but folders of the archive ``file``, which begins at byte ``start`` of ``path``."""
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            while info := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                if not info.isdir():
                    name = info.name.removeprefix("./")
                    yield _Member(name, (number, start + info.offset_data, info.size, _fault(info, name)))
            if len(_part(file, tar.offset, _BLOCK_BYTES)) < _BLOCK_BYTES:
                raise tarfile.ReadError("there is no end marker")
    except tarfile.TarError as error:
        raise SourceError(f"{path}: damaged, or cut short ({error}): fetch it again") from error


def _fault(info: tarfile.TarInfo, name: str) -> int:
    if info.issym() or info.islnk():
        return _LINK
    if not info.isreg() or info.issparse():
        return _DEVICE
    return _OUTSIDE if name.startswith("/") or ".." in name.split("/") else _SOUND


class _Section:
    """A part of a file, as a file."""

    def __init__(self, file: Any, start: int, size_bytes: int):
        self._file, self._start, self._size_bytes, self._at = file, start, size_bytes, 0

    def seek(self, at: int) -> int:
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def read(self, size_bytes: int = -1) -> bytes:
        left = max(0, self._size_bytes - self._at)
        data = _part(self._file, self._start + self._at, left if size_bytes < 0 else min(size_bytes, left))
        self._at += len(data)
        return data


def _part(file: Any, start: int, size_bytes: int) -> bytes:
    file.seek(start)
    return file.read(size_bytes)


def _read(path: Path, offset: int, size_bytes: int) -> bytes:
    try:
        data = files.read(path, offset, size_bytes)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error}): mend it, then start again") from error
    if len(data) < size_bytes:
        raise SourceError(f"{path}: cut short: it ends before byte {offset + size_bytes}: fetch it again")
    return data


def _is_tar(path: Path, offset: int) -> bool:
    return _is_tar_header(files.read(path, offset, _BLOCK_BYTES))


def _is_tar_header(block: bytes) -> bool:
    """Whether a block is the header of a member: it has a checksum of its own."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _refuse_compressed(path: Path) -> None:
    if not files.read(path, 0, 6).startswith(_COMPRESSED):
        return
    with path.open("rb") as file, suppress(EOFError):
        if tarfile.is_tarfile(file):
            raise SourceError(f"{path}: compressed, and cannot be read at random: make a plain tar of it first")


def _files_alone_in(folder: Path) -> list[Path]:
    """The files of a folder that has no folders in it, or nothing."""
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [] if any(path.is_dir() for path in found) else found


def _stem(name: str) -> str:
    return name.rsplit("/")[-1].removesuffix(".tar")
