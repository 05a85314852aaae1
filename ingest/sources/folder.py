"""ImageNet's layout: a folder of class folders of image files, ``SYNSET/NAME.JPEG``."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import BadSampleError, SourceError
from ingest.record import Sample
from ingest.sources import ignored
from ingest.sources.base import NO_CLASS, Entries, Entry, Source
from ingest.system import paths

MAX_PATHS = 1000
"""By how many paths a folder may be reached: links that lead to links soon multiply beyond any number."""

_MAX_LISTED = 5
"""Files that an error lists; all are counted."""


@dataclass(frozen=True)
class FolderReader:
    """Reads the files below ``root``; their keys are their paths, with slashes."""

    root: Path

    def __call__(self, entry: Entry) -> Sample:
        """Read an image file. A file that is there and cannot be opened is an error, not a bad image."""
        path = self.root / entry.key
        if entry.label == NO_CLASS:
            raise BadSampleError("not in a class folder", path=path, key=entry.key)
        return Sample(entry.key, entry.label, _read_file(path, entry.key))


def _read_file(path: Path, key: str) -> bytes:
    """The bytes of an image file. Raises BadSampleError where it is no file, SourceError where it cannot be read."""
    try:
        if not paths.is_remote(path) and not stat.S_ISREG(path.stat().st_mode):
            raise BadSampleError("not a regular file", path=path, key=key)
        return paths.read(path)
    except OSError as error:
        why = error.strerror or error
        raise SourceError(f"{path}: cannot be read ({why}): mend it, then start again", path=path, key=key) from error


KIND = "a folder of CLASS/IMAGE files"


def open_source(path: Path) -> Source | None:
    """The folder at ``path``, or None where it is a file. Raises SourceError where its layout is another.

    A file's class is the first folder of its path. Files beside the class folders, or in hidden ones, belong to no
    class: they are entries that cannot be read. Raises SourceError where files of a class cannot be opened.
    """
    if not path.is_dir():
        return None
    tree = _Bucket(path) if paths.is_remote(path) else _Walk(path)
    classes = tuple(sorted(name for name in tree.folders if _is_class(name)))
    labels = {name: label for label, name in enumerate(classes)}
    entries = Entries(Entry(key, labels.get(key.split("/")[0], NO_CLASS)) for key in tree)
    check_readable(path, tree.unreadable)
    _check_level(path, classes, entries)
    return Source(
        classes, entries, FolderReader(path), passed_over=tree.passed_over, shared_folders=tree.shared_folders
    )


def can_be_read(path: str | Path) -> bool:
    """Whether a local file is there and may be opened. It is not: on a network's file system that takes long."""
    return os.access(path, os.R_OK)


def check_readable(root: Path, names: Collection[str]) -> None:
    """Raise one SourceError for all files ``names`` below ``root``, which cannot be read, if there are any."""
    if names:
        first = ", ".join(f"{name} ({_why_unreadable(root / name)})" for name in [*names][:_MAX_LISTED])
        more = f" and {len(names) - _MAX_LISTED:,} more" if len(names) > _MAX_LISTED else ""
        count = "1 file" if len(names) == 1 else f"{len(names):,} files"
        raise SourceError(
            f"{root}: {count} cannot be read: {first}{more}: mend or remove them, then start again", path=root
        )


def count_beside(folder: Path, used: Collection[Path], rule: str) -> Counter[str]:
    """Count the files below ``folder`` that are not ``used``, by the rule for junk or else by ``rule``."""
    counts: Counter[str] = Counter()
    if paths.is_remote(folder):
        counts.update(ignored.rule(name) or rule for name in paths.list_dir(folder) if folder / name not in used)
        return counts
    with os.scandir(folder) as entries:
        for entry in entries:
            if folder / entry.name not in used:
                counts[ignored.rule(entry.name) or rule] += _count(entry)
    return +counts


class _Bucket:
    """All files below a remote folder."""

    def __init__(self, root: Path):
        self._keys = paths.list_tree(root)
        self.passed_over: Counter[str] = Counter()
        self.unreadable: list[str] = []
        self.shared_folders: dict[str, str] = {}
        self.folders = {key.split("/")[0] for key in self._keys if "/" in key}

    def __iter__(self) -> Iterator[str]:
        for key in self._keys:
            rule = next(filter(None, map(ignored.rule, key.split("/"))), None)
            if rule:
                self.passed_over[rule] += 1
            else:
                yield key


class _Walk:
    """All files below the local folder ``root``, links followed; what is not among its keys is counted on the way.

    ``unreadable`` are the files and folders of a class that cannot be opened; ``shared_folders`` maps a class to
    another one that holds the same folder, by a link.
    """

    def __init__(self, root: Path):
        self._root = os.path.join(root, "")  # noqa: PTH118  # paths of text: this is done for every folder
        self.passed_over: Counter[str] = Counter()
        self.unreadable: list[str] = []
        self.shared_folders: dict[str, str] = {}
        with os.scandir(root) as entries:
            self.folders = {entry.name for entry in entries if _is_folder(entry)}
        self._paths: Counter[tuple[int, int]] = Counter()
        self._owners: dict[tuple[int, int], str] = {}

    def __iter__(self) -> Iterator[str]:
        """The keys, in the order of their bytes, but for folders, which end with a slash there."""
        pending, above = [""], [("", (0, 0))]
        while pending:
            name = pending.pop()
            if name and not name.endswith("/"):
                yield name
                continue
            while not name.startswith(above[-1][0]):
                above.pop()
            try:
                identity = self._entered(name, [folder for _, folder in above])
                names = self._names_in(name)
            except OSError:
                # What is in no class is never opened, so that it need not be readable.
                if self._in_class(name):
                    self.unreadable.append(name)
                else:
                    yield name.removesuffix("/")
                continue
            above.append((name, identity))
            pending += sorted(names, key=os.fsencode, reverse=True)

    def _entered(self, name: str, above: list[tuple[int, int]]) -> tuple[int, int]:
        """The identity of the folder ``name``, whose parents are ``above``. Raises SourceError, OSError."""
        folder = self._root + name
        status = os.stat(folder)  # noqa: PTH116
        identity = status.st_dev, status.st_ino
        if identity in above:
            raise SourceError(f"{folder}: a link to a folder that it lies in", path=folder)
        self._paths[identity] += 1
        if self._paths[identity] > MAX_PATHS:
            raise SourceError(f"{folder}: links lead to it by more than {MAX_PATHS:,} paths: remove some", path=folder)
        if self._in_class(name):
            owner = name.split("/")[0]
            if self._owners.setdefault(identity, owner) != owner:
                self.shared_folders.setdefault(owner, self._owners[identity])
        return identity

    def _names_in(self, prefix: str) -> list[str]:
        names, in_class = [], self._in_class(prefix)
        with os.scandir(self._root + prefix) as entries:
            for entry in entries:
                name, is_folder = prefix + entry.name, _is_folder(entry)
                if rule := ignored.rule(entry.name):
                    self.passed_over[rule] += _count(entry)
                elif is_folder:
                    names.append(f"{name}/")
                elif in_class and not can_be_read(entry.path):
                    self.unreadable.append(name)
                else:
                    names.append(name)
        return names

    def _in_class(self, name: str) -> bool:
        folder, slash, _ = name.partition("/")
        return bool(slash) and _is_class(folder)


def _is_class(folder: str) -> bool:
    return not folder.startswith(".") and ignored.rule(folder) is None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or through a folder that may not be entered
        return False


def _count(entry: os.DirEntry[str]) -> int:
    """How many files this is; links count as files, not as what they lead to, and so do folders that are closed."""
    if not entry.is_dir(follow_symlinks=False):
        return 1
    closed: list[OSError] = []
    return sum(len(names) for _, _, names in os.walk(entry.path, onerror=closed.append)) + len(closed)


def _why_unreadable(path: Path) -> str:
    try:
        if path.is_symlink() and not path.exists():
            return "a broken link"
        path.stat()
    except OSError as error:
        return error.strerror or str(error)
    return "no permission"


def _check_level(root: Path, classes: Iterable[str], entries: Entries) -> None:
    classes = tuple(classes)
    depths = {entry.key.count("/") for entry in entries if entry.label != NO_CLASS}
    if entries and not depths:
        raise SourceError(
            f"{root}: no class folders in it; images belong in {root}/CLASS/IMAGE, or their labels in --labels FILE",
            path=root,
        )
    if depths and min(depths) > 1:
        raise SourceError(
            f"{root}: its folders ({', '.join(classes[:3])}) hold folders, not images: "
            f"give one of them, such as {root / classes[0]}",
            path=root,
        )
