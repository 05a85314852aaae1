"""What an option may be: a value of its declared type, or an OptionError that names it."""

from __future__ import annotations

import operator
import reprlib
from functools import cache
from numbers import Real
from typing import Any, get_args, get_type_hints

from ingest.errors import OptionError

_WANTED = {int: "a whole number", float: "a number", bool: "True or False", str: "a string"}

_MOST_BITS = 1024
"""Of a number: Python refuses to write down much longer ones, in an error message, too."""


def validate_types(options: Any) -> None:
    """Give each field of a frozen dataclass a value of the type that it is declared with.

    The types are int, float, bool, str and tuple[str, ...], with or without None. NumPy's scalars become Python's.
    Raises OptionError for what is of another type: a whole float is no int, and neither is True.
    """
    for name, (kind, may_be_none) in _declared(options.__class__).items():
        value = getattr(options, name)
        if value is not None or not may_be_none:
            object.__setattr__(options, name, typed(name, value, kind))


def typed(name: str, value: Any, kind: type) -> Any:
    """``value`` as a ``kind``, one of those of ``settle``. Raises OptionError where it is none."""
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise OptionError(f"{name} is a number of {value.bit_length():,} bits: give one of 64 at the most")
    is_truth = type(value).__name__ in ("bool", "bool_")  # NumPy's own has either name
    try:
        if kind is bool and is_truth:
            return bool(value)
        if kind is int and not is_truth:
            return operator.index(value)
        if kind is float and isinstance(value, Real) and not is_truth:
            return float(value)
        if kind is str and isinstance(value, str):
            return str(value)
        if kind not in _WANTED and isinstance(value, tuple | list):
            return tuple(typed(name, item, str) for item in value)
    except (TypeError, OverflowError):
        pass
    wanted = _WANTED.get(kind, "a tuple of strings")
    raise OptionError(f"{name} is {' '.join(reprlib.repr(value).split())}: give {wanted}")


@cache
def _declared(options: type) -> dict[str, tuple[type, bool]]:
    """The type of each field, and whether it may be None."""
    types = {}
    for name, hint in get_type_hints(options).items():
        kinds = get_args(hint) if type(None) in get_args(hint) else (hint,)
        types[name] = next(kind for kind in kinds if kind is not type(None)), len(kinds) > 1
    return types
