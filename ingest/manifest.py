"""``manifest.json``: what a dataset holds. It is written last, so that its presence means that the dataset is whole.

Beside it lies ``build.json``, the recipe: written first, so that an unfinished build can go on, and kept, so that each
of the two can be made again if the other is damaged.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ingest import atomic, files
from ingest.errors import ManifestError

NAME = "manifest.json"
RECIPE_NAME = "build.json"
VERSION = 1

_REMEDY = "mend it with 'ingest verify SHARDS --repair SRC', or build the dataset again"


@dataclass(frozen=True)
class Shard:
    """One file of records: its name within the dataset's folder, and what proves that it is whole."""

    name: str
    records: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Recipe:
    """What a dataset was made of, and how: from the same recipe come the same bytes.

    ``source`` is the SHA-256 of the source's keys, labels and classes; the others are options of ``build_shards``,
    None where the encoding has no use for them. ``exif_orientation`` is ``ignore`` or ``apply``.
    """

    source: str
    format: str
    shards: int
    encoding: str
    resize: int | None
    quality: int | None
    seed: int
    exif_orientation: str = "ignore"


@dataclass(frozen=True)
class Manifest:
    """What a dataset holds, and where.

    ``encoding`` is ``keep``, ``jpeg`` or ``raw``; ``channels`` is 1 if every image is grey, else 3; ``classes`` are the
    names whose positions are the labels; ``converted`` counts the files that were converted, by what they were;
    ``records + quarantined`` and the sum of ``passed_over``, which counts by rule, is the number of files found.
    ``rotated`` counts the images whose EXIF orientation is not 1. ``shared_folders`` maps a class to another that holds
    the same folder, by a link, so that its images are there for both. ``resize`` (pixels, short side) and ``quality``
    (JPEG) are None where the encoding has none. ``build`` is None in datasets of versions that did not record it.
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
    build: Recipe | None = None
    passed_over: dict[str, int] = field(default_factory=dict)
    rotated: int = 0
    shared_folders: dict[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """What all shards take, without their indexes."""
        return sum(shard.size_bytes for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides which records there are, how they are coded, and their order.

        The same in both formats and in any number of shards; also for other pictures under the same keys and labels.
        """
        if self.build is None:
            return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()
        return _sum(asdict(replace(self.build, format="", shards=0)))


def load_manifest(shards: str | Path) -> Manifest:
    """Read the manifest of the dataset in the folder ``shards``.

    Raises ManifestError where it is missing, damaged, or of another version.
    """
    path = files.place(shards) / NAME
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ManifestError(
            f"{path}: no such file, so {shards} holds no finished dataset: {_instead(path.parent)}"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}): {_REMEDY}") from error
    if isinstance(content, dict) and content.get("version") not in (None, VERSION):
        raise ManifestError(
            f"{path}: of version {content['version']!r}, and this program reads version {VERSION}: update it"
        )
    try:
        return _checked(_unsealed(content))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ManifestError(f"{path}: damaged ({error}): {_REMEDY}") from error


def _instead(folder: Path) -> str:
    """What to do where a folder is no dataset."""
    if not files.is_remote(folder):  # to look around there is slow
        if (folder / RECIPE_NAME).exists():
            return "give the 'ingest build-shards' command that began it again, and it goes on"
        if within := sorted(folder.glob(f"*/{NAME}")):
            return f"give {within[0].parent}, which does"
    return "make one with 'ingest build-shards'"


def load_recipe(folder: Path) -> Recipe | None:
    """The recipe of the dataset, or of the unfinished build, in ``folder``; None where there is none.

    Raises ManifestError where it is damaged.
    """
    path = folder / RECIPE_NAME
    try:
        return _typed(Recipe, _unsealed(json.loads(path.read_bytes())))
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError, KeyError, RecursionError) as error:
        raise ManifestError(f"{path}: damaged ({error}): {_REMEDY}") from error


def save(content: Manifest | Recipe, folder: Path) -> None:
    """Write a manifest, or a recipe, to its place in ``folder``, whole or not at all."""
    atomic.write(folder / (NAME if isinstance(content, Manifest) else RECIPE_NAME), rendered(content))


def rendered(content: Manifest | Recipe) -> bytes:
    """The file of a manifest or a recipe. Its last field is the SHA-256 of the file without that field."""
    plain = asdict(content)
    return _text({**plain, "sha256": _sum(plain)})


def _text(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=True).encode() + b"\n"


def _sum(content: dict[str, Any]) -> str:
    return hashlib.sha256(_text(content)).hexdigest()


def _unsealed(content: Any) -> dict[str, Any]:
    """What a file holds besides its sum, which it matches, if it has one. Raises ValueError."""
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    plain = {name: value for name, value in content.items() if name != "sha256"}
    if content.get("sha256", _sum(plain)) != _sum(plain):
        raise ValueError("its content does not match its checksum")
    return plain


def _checked(content: Any) -> Manifest:
    shards = tuple(_typed(Shard, entry) for entry in content["shards"])
    build = content.get("build") and _typed(Recipe, content["build"])
    manifest = _typed(Manifest, {**content, "shards": shards, "classes": tuple(content["classes"]), "build": build})
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
    "dict[str, str]": (dict,),
    "tuple[str, ...]": (tuple,),
    "tuple[Shard, ...]": (tuple,),
    "Recipe | None": (Recipe, type(None)),
}


def _typed(kind: Any, entry: dict[str, Any]) -> Any:
    # Names that a later minor addition brings are passed over, those of an earlier one have defaults; a change of
    # meaning changes the version.
    known = {each.name: entry[each.name] for each in fields(kind) if each.name in entry or not _has_default(each)}
    for each in fields(kind):
        if each.name in known and not isinstance(known[each.name], _TYPES[str(each.type)]):
            raise ValueError(f"{each.name} is {known[each.name]!r}")
    return kind(**known)


def _has_default(each: Field[Any]) -> bool:
    return each.default is not MISSING or each.default_factory is not MISSING
