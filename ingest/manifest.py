"""``manifest.json``: what a dataset holds. It is written last, so that its presence means that the dataset is whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ingest import atomic
from ingest.errors import ManifestError

NAME = "manifest.json"
VERSION = 1


@dataclass(frozen=True)
class Shard:
    """One file of records: its name within the dataset's folder, and what proves that it is whole."""

    name: str
    records: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a dataset holds, and where.

    ``encoding`` is ``keep``, ``jpeg`` or ``raw``; ``channels`` is 1 if every image is grey, else 3; ``classes`` are the
    names whose positions are the labels; ``converted`` counts the files that were converted, by what they were;
    ``records + quarantined`` is the number of files found. ``resize`` (pixels, short side) and ``quality`` (JPEG) are
    None where the encoding has none.
    """

    version: int
    format: str
    encoding: str
    resize: int | None
    quality: int | None
    channels: int
    records: int
    quarantined: int
    converted: dict[str, int]
    classes: tuple[str, ...]
    seed: int
    shards: tuple[Shard, ...]


def load_manifest(shards: str | Path) -> Manifest:
    """Read the manifest of the dataset in the folder ``shards``.

    Raises ManifestError where it is missing, damaged, or of another version.
    """
    path = Path(shards) / NAME
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ManifestError(
            f"{path}: no such file, so {shards} holds no finished dataset: make one with 'ingest build-shards'"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}): build the dataset again") from error
    if isinstance(content, dict) and content.get("version") not in (None, VERSION):
        raise ManifestError(
            f"{path}: of version {content['version']!r}, and this program reads version {VERSION}: update it"
        )
    try:
        return _checked(content)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ManifestError(f"{path}: damaged ({error}): build the dataset again") from error


def save(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest`` to its place in ``folder``, whole or not at all."""
    text = json.dumps(asdict(manifest), indent=1, ensure_ascii=True)
    atomic.write(folder / NAME, text.encode() + b"\n")


def _checked(content: Any) -> Manifest:
    shards = tuple(_typed(Shard, entry) for entry in content["shards"])
    manifest = _typed(Manifest, {**content, "shards": shards, "classes": tuple(content["classes"])})
    if sum(shard.records for shard in shards) != manifest.records:
        raise ValueError(f"its shards' records do not add up to {manifest.records}")
    if manifest.channels not in (1, 3):
        raise ValueError(f"{manifest.channels} channels")
    if len({shard.name for shard in shards}) < len(shards) or min([0, *(shard.records for shard in shards)]) < 0:
        raise ValueError("two shards of one name, or a shard of fewer than no records")
    for shard in shards:
        # A name with a folder in it could point a reader anywhere.
        if Path(shard.name).name != shard.name:
            raise ValueError(f"{shard.name!r} is no name of a shard")
    return manifest


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "str": (str,),
    "int | None": (int, type(None)),
    "dict[str, int]": (dict,),
    "tuple[str, ...]": (tuple,),
    "tuple[Shard, ...]": (tuple,),
}


def _typed(kind: Any, entry: dict[str, Any]) -> Any:
    for field in fields(kind):
        if not isinstance(entry[field.name], _TYPES[str(field.type)]):
            raise ValueError(f"{field.name} is {entry[field.name]!r}")
    # Names that a later minor addition brings are passed over; a change of meaning changes the version.
    return kind(**{field.name: entry[field.name] for field in fields(kind)})
