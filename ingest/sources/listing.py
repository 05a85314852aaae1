"""A text list of images: path, label and perhaps class name; and images whose labels lie apart."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

from ingest.errors import SourceError
from ingest.sources import ignored, list_parser
from ingest.sources.base import NO_CLASS, Entries, Entry, Source
from ingest.sources.folder import FolderReader, can_be_read, check_readable, count_beside
from ingest.sources.labels import labels_of, needs_no_label
from ingest.system import paths

_SUFFIXES = (".csv", ".tsv", ".txt", ".lst")
_SNIFF_BYTES = 4096
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1a"))
_NO_FOLDERS = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


KIND = "a list of paths and labels"


def open_source(path: Path) -> Source | None:
    """The images of the list ``path``, or of the one list in the folder ``path``; None where there is none.

    Raises SourceError where a list is not understood, or names files that are not there.
    """
    if path.is_dir():
        return _open_folder(path)
    return _read_list(path) if path.is_file() and _looks_like_text(path) else None


def open_labelled(path: Path, labels: Path) -> Source | None:
    """The images in the folder ``path``, which has no folders in it, by the labels at ``labels``; None for a file."""
    if not path.is_dir():
        return None
    all_names = paths.list_dir(path)
    names = [name for name in all_names if not _is_same(path / name, labels)]
    if any((path / name).is_dir() for name in names if not needs_no_label(name)):
        raise SourceError(
            f"{path}: labels are for images without folders, and it has folders, which are classes", path=path
        )
    classes, numbers, unused = labels_of(labels, names)
    entries = Entries(Entry(name, label) for name, label in zip(names, numbers) if label != NO_CLASS)
    beside = count_beside(path, _paths(path, entries, set(all_names) - set(names)), "hidden files")
    return _source(path, classes, entries, {**beside, **unused})


def _read_list(table: Path) -> Source:
    root = table.parent
    rows = list_parser.read(table, _files(root), labels_alone=False)
    if rows.missing:
        line, name = rows.missing[0]
        elsewhere = _elsewhere(root, rows.missing[-1][1])
        example = f"line {line} names {list_parser.short(name)}, which is not in {root}{elsewhere}"
        if len(rows.missing) == len(rows.labels):
            raise SourceError(
                f"{table}: not a source: {example}: the paths in a list are relative to its own folder", path=table
            )
        count = f"{len(rows.missing)} of {len(rows.labels)} files"
        raise SourceError(
            f"{table}: {count} are not there: {example}: fetch the files, or remove the lines", path=table
        )
    entries = Entries(Entry(name, label) for name, label in zip(rows.files or [], rows.labels))
    return _source(root, rows.classes, entries, {})


def _source(root: Path, classes: tuple[str, ...], entries: Entries, passed_over: dict[str, int]) -> Source:
    """The source of files below ``root``. Raises SourceError where some cannot be read."""
    if not paths.is_remote(root):
        check_readable(root, [entry.key for entry in entries if not can_be_read(root / entry.key)])
    return Source(classes, entries, FolderReader(root), passed_over=passed_over)


def _paths(root: Path, entries: Entries, others: set[str]) -> set[Path]:
    return {root / name for name in (*(entry.key for entry in entries), *others)}


def _open_folder(folder: Path) -> Source | None:
    """The images that the one list in a folder without folders names; the others there are passed over."""
    names = [name for name in paths.list_dir(folder) if not (name.startswith(".") or ignored.rule(name))]
    if len(names) < 2:
        return None
    if paths.is_remote(folder):
        if any((folder / name).is_dir() for name in names):
            return None
    elif folders := [name for name in names if (folder / name).is_dir()]:
        _check_no_list_beside(folder, folders, sorted({*names} - {*folders}))
        return None
    files = _files(folder)
    tables = [name for name in names if _may_be_list(folder / name) and list_parser.is_list(folder / name, files)]
    if len(tables) > 1:
        raise SourceError(
            f"{folder}: no class folders in it, and more than one list ({', '.join(tables[:3])}): "
            "give one of the lists",
            path=folder,
        )
    if not tables:
        return None
    source = _read_list(folder / tables[0])
    used = _paths(folder, source.entries, {tables[0]})
    return source._replace(passed_over=count_beside(folder, used, "files that the list does not name"))


def _check_no_list_beside(folder: Path, folders: list[str], others: list[str]) -> None:
    """Raise SourceError where a list beside folders has the labels of images there, or in the only one of them."""
    lists = [name for name in others if Path(name).suffix.lower() in _SUFFIXES and (folder / name).is_file()]
    if not lists:
        return
    images = {"": [name for name in others if name not in lists]}
    if len(folders) == 1:
        images[f"{folders[0]}/"] = within = _names_in(folder, folders[0])
        images[""] += within
    files = list_parser.Files(str(folder), lambda below: images.get(below, []))
    for name in lists:
        if list_parser.is_list_of_paths(folder / name, files):
            raise SourceError(
                f"{folder}: {name} in it has the labels of images that lie in no class folders: give {folder / name}, "
                "or a folder of the images alone with --labels",
                path=folder,
            )


def _may_be_list(path: Path) -> bool:
    """Whether a file in a folder of images is worth reading. A look into each file of a bucket would take for ever."""
    return path.suffix in _SUFFIXES if paths.is_remote(path) else path.is_file() and _looks_like_text(path)


def _looks_like_text(path: Path) -> bool:
    start = paths.read(path, 0, _SNIFF_BYTES)
    if path.suffix.lower() in _SUFFIXES or list_parser.has_mark(start):
        return True
    controls = len(start) - len(start.translate(None, _CONTROLS))
    return bool(start) and controls * 20 < len(start)


def _files(root: Path) -> list_parser.FileLookup:
    """The files that a list in the folder ``root`` may name."""
    return (
        list_parser.RemoteFiles(root)
        if paths.is_remote(root)
        else list_parser.Files(str(root), partial(_names_in, root))
    )


def _names_in(root: Path, folder: str) -> list[str]:
    """The names of the files in a folder below ``root``; none where there is no such folder."""
    try:
        with os.scandir(root / folder) as entries:
            return [entry.name for entry in entries if not entry.is_dir()]
    except OSError as error:
        if error.errno in _NO_FOLDERS:
            return []
        raise


def _elsewhere(root: Path, name: str) -> str:
    """Where the file that a list names lies, if not in the list's own folder ``root``: for a message."""
    if paths.is_remote(root):
        return ""
    try:
        nearby = [path for path in sorted(root.iterdir()) if path.is_dir()]
        folders = [folder for folder in (root.absolute().parent, Path.cwd(), *nearby) if (folder / name).is_file()]
    except OSError:  # a name that no disk takes
        return ""
    return f", but in {folders[0]}" if folders else ""


def _is_same(path: Path, other: Path) -> bool:
    if paths.is_remote(path) or paths.is_remote(other):
        return path == other
    return path.name == other.name and path.exists() and other.exists() and path.samefile(other)
