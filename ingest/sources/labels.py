"""Labels that lie apart from their images: the ILSVRC devkit's, or a list's."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

from ingest.errors import OptionError, SourceError
from ingest.sources import label_all

_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def labels_of(path: Path, names: list[str]) -> tuple[tuple[str, ...], list[int]]:
    """Classes, and the label of each of the images ``names``, by the file of labels at ``path``.

    That is the devkit (its archive, its folder, or the ground truth in it), whose labels become those of the sorted
    synsets, as a training folder's are; a list with a label a line, for the images in the order of their names; or one
    of lines ``NAME LABEL``. Raises SourceError where they do not fit.
    """
    try:
        devkit = _find_devkit(path)
        text = devkit[0] if devkit else path.read_bytes()
        rows = [re.split(r"[\t, ]+", line.strip(), maxsplit=1) for line in text.decode().splitlines() if line.strip()]
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, tarfile.TarError) as error:
        raise SourceError(
            f"{path}: no labels: give the devkit, or a text of a label a line, or of NAME LABEL"
        ) from error
    if len(rows) != len(names):
        raise SourceError(f"{path}: {len(rows)} labels for {len(names)} images")
    if devkit:
        synsets = _synsets(devkit[1])
        return _in_order(names, [[synsets.get(int(row[0]), row[0])] for row in rows], path)
    return _by_name(names, rows, path) if any(len(row) > 1 for row in rows) else _in_order(names, rows, path)


def _in_order(names: list[str], rows: list[list[str]], path: Path) -> tuple[tuple[str, ...], list[int]]:
    classes, labels = label_all([row[0] for row in rows])
    of_name = dict(zip(sorted(names), labels))
    return classes, [of_name[name] for name in names]


def _by_name(names: list[str], rows: list[list[str]], path: Path) -> tuple[tuple[str, ...], list[int]]:
    classes, labels = label_all([row[-1].strip() for row in rows])
    of_name = {row[0]: label for row, label in zip(rows, labels)}
    missing = [name for name in names if name not in of_name]
    if missing:
        raise SourceError(f"{path}: no label for {len(missing)} of {len(names)} images, such as {missing[0]}")
    return classes, [of_name[name] for name in names]


def _find_devkit(path: Path) -> tuple[bytes, bytes] | None:
    """Ground truth and meta.mat of the devkit at ``path``, or None where it is no devkit."""
    if path.is_dir():
        found = {file.name: file for file in path.rglob("*") if file.name in (_TRUTH, _META)}
        if len(found) < 2:
            raise SourceError(f"{path}: no devkit: it lacks {_TRUTH} or {_META}")
        return found[_TRUTH].read_bytes(), found[_META].read_bytes()
    if path.with_name(_META).exists() and path.name == _TRUTH:
        return path.read_bytes(), path.with_name(_META).read_bytes()
    data = path.read_bytes()
    if not data.startswith(b"\x1f\x8b"):
        return None
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        parts = {Path(info.name).name: archive.extractfile(info) for info in archive if info.isreg()}
        contents = [file.read() for file in (parts.get(_TRUTH), parts.get(_META)) if file]
    if len(contents) < 2:
        raise SourceError(f"{path}: no devkit: it lacks {_TRUTH} or {_META}")
    return contents[0], contents[1]


def _synsets(meta: bytes) -> dict[int, str]:
    """The WordNet ids of the devkit's numbers; those above the classes proper are their parents."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise OptionError("the devkit's meta.mat needs scipy: pip install 'ingest-toolkit[devkit]'") from error
    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if int(row["num_children"]) == 0}
