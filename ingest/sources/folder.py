"""ImageNet's layout: a folder of class folders of image files, ``SYNSET/NAME.JPEG``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest import files
from ingest.errors import BadSampleError, SourceError
from ingest.sample import Sample
from ingest.sources import NO_CLASS, Entries, Entry, Source


@dataclass(frozen=True)
class FolderReader:
    """Reads the files below ``root``; their keys are their paths, with slashes."""

    root: Path

    def __call__(self, entry: Entry) -> Sample:
        """Read an image file. A file that is there and cannot be opened is an error, not a bad image."""
        if entry.label == NO_CLASS:
            raise BadSampleError("not in a class folder")
        return Sample(entry.key, entry.label, read_file(self.root / entry.key))


def read_file(path: Path) -> bytes:
    """The bytes of an image file. Raises BadSampleError where it is no file, SourceError where it cannot be read."""
    try:
        if not files.is_remote(path) and not stat.S_ISREG(path.stat().st_mode):
            raise BadSampleError("not a regular file")
        return files.read(path)
    except OSError as error:
        why = error.strerror or error
        raise SourceError(f"{path}: cannot be read ({why}): mend it, then start again") from error


def open_folder(path: Path) -> Source | None:
    """The folder at ``path``, or None where it is a file. Raises SourceError where its layout is another.

    A file's class is the first folder of its path. Files beside the class folders, or in hidden ones, belong to no
    class: they are entries that cannot be read.
    """
    if not path.is_dir():
        return None
    if files.is_remote(path):
        keys: Iterable[str] = files.names_below(path)
        classes = sorted({key.split("/")[0] for key in keys if "/" in key and not key.startswith(".")})
    else:
        with os.scandir(path) as found:
            classes = sorted(entry.name for entry in found if entry.is_dir() and not entry.name.startswith("."))
        keys = _files(path, "", ())
    labels = {name: label for label, name in enumerate(classes)}
    entries = Entries(Entry(key, labels.get(key.split("/")[0], NO_CLASS)) for key in keys)
    _refuse_wrong_level(path, classes, entries)
    return Source(tuple(classes), entries, FolderReader(path))


def _refuse_wrong_level(root: Path, classes: list[str], entries: Entries) -> None:
    depths = {entry.key.count("/") for entry in entries if entry.label != NO_CLASS}
    if entries and not depths:
        raise SourceError(f"{root}: no class folders in it; images belong in {root}/CLASS/IMAGE")
    if depths and min(depths) > 1:
        raise SourceError(
            f"{root}: its folders ({', '.join(classes[:3])}) hold folders, not images: "
            f"give one of them, such as {root / classes[0]}"
        )


def _files(root: Path, prefix: str, above: tuple[os.stat_result, ...]) -> Iterator[str]:
    """Keys of all files below ``root / prefix``, in the order of their bytes.

    Links to folders are followed, unless they lead back ``above``.
    """
    folder = root / prefix
    here = folder.stat()
    if any(os.path.samestat(here, other) for other in above):
        raise SourceError(f"{folder}: a link to a folder that it lies in")
    with os.scandir(folder) as found:
        names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in found]
    for name in sorted(names, key=os.fsencode):
        if name.endswith("/"):
            yield from _files(root, prefix + name, (*above, here))
        else:
            yield prefix + name
