"""ImageNet's layout: a folder of class folders of image files, ``SYNSET/NAME.JPEG``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingest.errors import BadSampleError, SourceError
from ingest.sample import Sample
from ingest.sources import NO_CLASS, Entry


class Folder:
    """The files below ``root``. A file's class is the first folder of its path, its key the path, with slashes.

    Files beside the class folders, or in hidden ones, belong to no class: they are entries that cannot be read.
    """

    def __init__(self, root: Path, classes: tuple[str, ...], keys: list[str]):
        self.root = root
        self.classes = classes
        labels = {name: label for label, name in enumerate(classes)}
        self.entries: Sequence[Entry] = [Entry(key, labels.get(key.split("/")[0], NO_CLASS)) for key in keys]

    def read(self, entry: Entry) -> Sample:
        """Read an image file. A file that is there and cannot be opened is an error, not a bad image."""
        if entry.label == NO_CLASS:
            raise BadSampleError("not in a class folder")
        path = self.root / entry.key
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise BadSampleError("not a regular file")
            return Sample(entry.key, entry.label, path.read_bytes())
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror}): mend it, then start again") from error


def open_folder(path: Path) -> Folder | None:
    """The folder at ``path``, or None where it is a file. Raises SourceError where its layout is another."""
    if not path.is_dir():
        return None
    with os.scandir(path) as found:
        classes = sorted(entry.name for entry in found if entry.is_dir() and not entry.name.startswith("."))
    source = Folder(path, tuple(classes), sorted(_files(path, "", ()), key=os.fsencode))
    _refuse_wrong_level(source)
    return source


def _refuse_wrong_level(source: Folder) -> None:
    depths = {entry.key.count("/") for entry in source.entries if entry.label != NO_CLASS}
    if source.entries and not depths:
        raise SourceError(f"{source.root}: no class folders in it; images belong in {source.root}/CLASS/IMAGE")
    if depths and min(depths) > 1:
        raise SourceError(
            f"{source.root}: its folders ({', '.join(source.classes[:3])}) hold folders, not images: "
            f"give one of them, such as {source.root / source.classes[0]}"
        )


def _files(root: Path, prefix: str, above: tuple[os.stat_result, ...]) -> Iterator[str]:
    """Keys of all files below ``root / prefix``; links to folders are followed, unless they lead back ``above``."""
    folder = root / prefix
    here = folder.stat()
    if any(os.path.samestat(here, other) for other in above):
        raise SourceError(f"{folder}: a link to a folder that it lies in")
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir():
                yield from _files(root, f"{prefix}{entry.name}/", (*above, here))
            else:
                yield prefix + entry.name
