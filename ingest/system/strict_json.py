"""JSON files that may come from anywhere: read within bounds, in one way only, and of the right types."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar

from ingest.system import paths

MAX_BYTES = 2**25
"""Of a file of JSON. A manifest of 99,999 shards has 18 million."""

T = TypeVar("T")

_SHA256 = re.compile("[0-9a-f]{64}")


def read_json(path: Path) -> Any:
    """The content of a file of JSON.

    Raises OSError, also where it is no regular file or has more than MAX_BYTES; ValueError or RecursionError where it
    is no JSON, or one that readers understand in two ways: a name that stands twice, or NaN.
    """
    return parse(paths.read_small(path, MAX_BYTES))


def parse(data: bytes) -> Any:
    """The content of JSON in UTF-8, without a byte order mark. Raises what read_json does."""
    return json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_reject_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return content


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def is_text(value: Any) -> bool:
    """Whether a value is text that can be written as UTF-8."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 on, of at most 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


def is_sha256(value: Any) -> bool:
    """Whether a value is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def is_file_name(value: Any) -> bool:
    """Whether a value is the name of a file within a folder, on any system, and nothing that leads out of it."""
    return (
        is_text(value) and value.isprintable() and not set(value) & set('/\\:*?"<>|') and value.strip(". ") != ""
        and len(value.encode()) <= 200
    )  # fmt: skip


def typed(kind: type[T], content: Any, fits: dict[str, Callable[[Any], bool]]) -> T:
    """A dataclass of an object's fields. ``fits`` tells by the types in its annotations whether a value is of one.

    Names that a later minor addition brings are passed over, those of an earlier one have defaults. Raises ValueError.
    """
    if not isinstance(content, dict):
        raise ValueError(f"no object where the fields of a {kind.__name__.lower()} should be")
    for field in fields(kind):  # type: ignore[arg-type]  # a dataclass
        if field.name in content:
            if not fits[str(field.type)](content[field.name]):
                raise ValueError(f"its {field.name} is {reprlib.repr(content[field.name])[:100]}")
        elif not _has_default(field):
            raise ValueError(f"it has no {field.name}")
    return kind(**{field.name: content[field.name] for field in fields(kind) if field.name in content})  # type: ignore[arg-type]


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING
