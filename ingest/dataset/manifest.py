"""``manifest.json``: what a dataset holds. It is written last, so that its presence means that the dataset is whole.

Beside it lies ``build.json``, the build configuration: written first, so that an unfinished build can go on, and kept,
so that each of the two can be made again if the other is damaged.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ingest import formats
from ingest.errors import ManifestError
from ingest.system import atomic, paths, strict_json
from ingest.system.strict_json import is_count, is_text

NAME = "manifest.json"
BUILD_NAME = "build.json"
VERSION = 1

ENCODINGS = ("keep", "jpeg", "raw")
ORIENTATIONS = ("ignore", "apply")

MAX_SHORT_SIDE = 65_500
"""In pixels: a JPEG has no longer one."""

MAX_SHARDS, MAX_CLASSES, MAX_RECORDS = 99_999, 1_000_000, 10**9

MIN_RECORD_BYTES = 16
"""In a shard; in both formats what is around a record takes that alone."""

_REMEDY = "mend it with 'ingest verify SHARDS --repair SRC', or build the dataset again"


@dataclass(frozen=True)
class Shard:
    """One file of records: its name within the dataset's folder, and what proves that it is whole."""

    name: str
    records: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class BuildConfig:
    """What a dataset was made of, and how: from the same build configuration come the same bytes.

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
    build: BuildConfig | None = None
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
        decisive = asdict(replace(self.build, format="", shards=0))
        if self.build.exif_orientation == "ignore":  # what there was before it could be chosen
            del decisive["exif_orientation"]
        return _sum(decisive)


def load_manifest(shards: str | Path) -> Manifest:
    """Read the manifest of the dataset in the folder ``shards``.

    Raises ManifestError where it is missing, damaged, or of another version.
    """
    path = paths.parse_path(shards) / NAME
    try:
        content = strict_json.read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ManifestError(
            f"{path}: no such file, so {shards} holds no finished dataset: {_instead(path.parent)}", path=path
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}): {_REMEDY}", path=path) from error
    if isinstance(content, dict) and content.get("version") not in (None, VERSION):
        version = reprlib.repr(content["version"])
        raise ManifestError(
            f"{path}: of version {version}, and this program reads version {VERSION}: update it", path=path
        )
    try:
        return _checked(_unsealed(content))
    except ValueError as error:
        raise ManifestError(f"{path}: damaged ({error}): {_REMEDY}", path=path) from error


def _instead(folder: Path) -> str:
    """What to do where a folder is no dataset."""
    if not paths.is_remote(folder):  # to look around there is slow
        if (folder / BUILD_NAME).exists():
            return "give the 'ingest build-shards' command that began it again, and it goes on"
        if within := sorted(folder.glob(f"*/{NAME}")):
            return f"give {within[0].parent}, which does"
    return "make one with 'ingest build-shards'"


def load_build_config(folder: Path) -> BuildConfig | None:
    """The build configuration of the dataset, or of the unfinished build, in ``folder``; None where there is none.

    Raises ManifestError where it is damaged.
    """
    path = folder / BUILD_NAME
    try:
        return _build_config(_unsealed(strict_json.read_json(path)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: damaged ({error}): {_REMEDY}", path=path) from error


def save(content: Manifest | BuildConfig, folder: Path) -> None:
    """Write a manifest, or a build configuration, to its place in ``folder``, whole or not at all."""
    atomic.write(folder / (NAME if isinstance(content, Manifest) else BUILD_NAME), rendered(content))


def rendered(content: Manifest | BuildConfig) -> bytes:
    """The file of a manifest or a build configuration. Its last field is the SHA-256 of the file without that field."""
    plain = asdict(content)
    return _text({**plain, "sha256": _sum(plain)})


def is_as_written(path: Path) -> bool:
    """Whether the bytes of a manifest or a build configuration are those that were written of its fields.

    Those of a version without a checksum may be any.
    """
    content = strict_json.read_json(path)
    if "sha256" not in content and path.name == NAME and "build" not in content:
        return True
    plain = {name: value for name, value in content.items() if name != "sha256"}
    return paths.read_small(path, strict_json.MAX_BYTES) == _text({**plain, "sha256": _sum(plain)})


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


def _checked(content: dict[str, Any]) -> Manifest:
    """The manifest of a file's fields. Raises ValueError where it is none that a build may have written."""
    shards = content.get("shards")
    if isinstance(shards, list) and len(shards) <= MAX_SHARDS:
        content = {**content, "shards": tuple(strict_json.typed(Shard, entry, FITS) for entry in shards)}
    if content.get("build") is not None:
        content = {**content, "build": _build_config(content["build"])}
    if isinstance(content.get("classes"), list):
        content = {**content, "classes": tuple(content["classes"])}
    result = strict_json.typed(Manifest, content, FITS)
    _require(result.version == VERSION, f"version {result.version}")
    _check_packing(result)
    _require(result.channels in (1, 3), f"{result.channels} channels")
    _require(len(result.classes) <= MAX_CLASSES, f"{len(result.classes)} classes, more than {MAX_CLASSES}")
    _require(len(set(result.classes)) == len(result.classes), "two classes of one name")
    records = sum(shard.records for shard in result.shards)
    _require(records == result.records, f"its shards' records do not add up to {result.records}")
    _require(records <= MAX_RECORDS, f"{records} records, more than {MAX_RECORDS}")
    # With their indexes, which are written beside them.
    names = [name for shard in result.shards for name in (shard.name, shard.name + formats.INDEX_SUFFIX)]
    _require(len({*names, NAME, BUILD_NAME}) == len(names) + 2, "two files of one name")
    for shard in result.shards:
        _require(strict_json.is_file_name(shard.name), f"{shard.name!r} is no name of a shard")
        _require(strict_json.is_sha256(shard.sha256), f"{shard.sha256!r} is no SHA-256")
        is_possible = shard.records * MIN_RECORD_BYTES <= shard.size_bytes < 2**63
        _require(
            is_possible and shard.records <= formats.MAX_RECORDS, f"{shard.records} records in {shard.size_bytes} bytes"
        )
    return result


def _build_config(content: Any) -> BuildConfig:
    result = strict_json.typed(BuildConfig, content, FITS)
    _check_packing(result)
    _require(1 <= result.shards <= MAX_SHARDS, f"{result.shards} shards")
    _require(result.exif_orientation in ORIENTATIONS, f"its exif_orientation is {result.exif_orientation!r}")
    return result


def _check_packing(content: Manifest | BuildConfig) -> None:
    _require(content.format in formats.NAMES, f"its format is {content.format!r}")
    _require(content.encoding in ENCODINGS, f"its encoding is {content.encoding!r}")
    _require(content.resize is None or 1 <= content.resize <= MAX_SHORT_SIDE, f"its resize is {content.resize}")
    _require(content.quality is None or 1 <= content.quality <= 100, f"its quality is {content.quality}")


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _is_tuple_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(map(fits, value))


# By the annotations of the fields above.
FITS: dict[str, Callable[[Any], bool]] = {
    "int": is_count,
    "str": is_text,
    "int | None": lambda value: value is None or is_count(value),
    "dict[str, int]": lambda value: (
        isinstance(value, dict) and all(map(is_text, value)) and all(map(is_count, value.values()))
    ),
    "dict[str, str]": lambda value: isinstance(value, dict) and all(map(is_text, (*value, *value.values()))),
    "tuple[str, ...]": _is_tuple_of(is_text),
    "tuple[Shard, ...]": _is_tuple_of(lambda value: isinstance(value, Shard)),
    "BuildConfig | None": lambda value: value is None or isinstance(value, BuildConfig),
}
