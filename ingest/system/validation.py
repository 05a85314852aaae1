"""Options as frozen dataclasses: each is written once, with its type, its default, its bounds and its help.

    @dataclass(frozen=True, kw_only=True)
    class CropOptions:
        min_area: Annotated[float, Option(low=0.001, high=1, help="of the image's area, at least")] = 0.08

        def __post_init__(self) -> None:
            validate(self)

From this come the check of a value, the keyword arguments of functions (``takes``), and the flags of commands.
"""

from __future__ import annotations

import inspect
import operator
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from numbers import Real
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from ingest.errors import OptionError

A = TypeVar("A")
B = TypeVar("B")
Options = TypeVar("Options")
Result = TypeVar("Result")
P = ParamSpec("P")

_WANTED = {int: "a whole number", float: "a number", bool: "True or False", str: "a string", Path: "a path"}

_MAX_BITS = 1024
"""Of a number: Python refuses to write down much longer ones, in an error message, too."""


@dataclass(frozen=True)
class Option:
    """What is known of an option besides its type and its default; stands in its annotation.

    ``low`` and ``high`` bound a number, both included; ``choices`` are the values of a string. ``help`` is for a flag:
    without it an option has none. ``flag`` is the flag's name where it is not the option's; ``metavar`` stands for the
    value in the help.
    """

    low: float | None = None
    high: float | None = None
    choices: Sequence[str] | None = None
    help: str = ""
    flag: str = ""
    metavar: str | None = None


class Declared(NamedTuple):
    """How an option is declared: its type, whether it may be None, and what else is known of it."""

    kind: type
    may_be_none: bool
    option: Option


@cache
def declared(options: type) -> Mapping[str, Declared]:
    """The declarations of a dataclass of options, by name, in their order.

    A type is int, float, bool, str, Path (for ``str | Path``) or tuple[str, ...].
    """
    return {name: _declared(hint) for name, hint in get_type_hints(options, include_extras=True).items()}


def _declared(hint: Any) -> Declared:
    hint, option = get_args(hint) if get_origin(hint) is Annotated else (hint, Option())
    kinds = [hint] if get_origin(hint) is tuple else list(get_args(hint)) or [hint]
    kind = Path if Path in kinds else next(kind for kind in kinds if kind is not type(None))
    return Declared(kind, type(None) in kinds, option)


def validate(options: Any) -> None:
    """Give each field of a frozen dataclass a value of its declared type, within its bounds or among its choices.

    NumPy's scalars become Python's. Raises OptionError, which names the field and says what to give: a float is no int,
    be it whole, and neither is True.
    """
    for name, (kind, may_be_none, option) in declared(options.__class__).items():
        value = getattr(options, name)
        if value is None and may_be_none:
            continue
        value = typed(name, value, kind)
        object.__setattr__(options, name, value)
        _check(name, value, option)


def _check(name: str, value: Any, option: Option) -> None:
    low, high = option.low, option.high
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise OptionError(f"{name} is {value}: give {low} to {high}")
    if option.choices is not None and value not in option.choices:
        raise OptionError(f"{name} {value!r}: give one of {', '.join(option.choices)}")


def typed(name: str, value: Any, kind: type) -> Any:
    """``value`` as a ``kind``, one of those of ``declared``. Raises OptionError where it is none."""
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
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
        if kind is Path and (isinstance(value, str | Path) or hasattr(value, "fs")):  # or a remote one
            return value
        if kind not in _WANTED and isinstance(value, tuple | list):
            return tuple(typed(name, part, str) for part in value)
    except (TypeError, OverflowError):
        pass
    wanted = _WANTED.get(kind, "a tuple of strings")
    raise OptionError(f"{name} is {' '.join(reprlib.repr(value).split())}: give {wanted}")


class takes(Generic[P, Options]):  # noqa: N801  # a decorator
    """Have a function, whose last argument is options of a class, take the class's fields as keyword arguments."""

    def __init__(self, kind: Callable[P, Options]):
        self._kind = kind

    @overload
    def __call__(self, function: Callable[[A, Options], Result]) -> Callable[Concatenate[A, P], Result]: ...
    @overload
    def __call__(self, function: Callable[[A, B, Options], Result]) -> Callable[Concatenate[A, B, P], Result]: ...
    def __call__(self, function: Callable[..., Result]) -> Callable[..., Result]:
        """The function that takes them."""
        *own, _ = inspect.signature(function).parameters.values()
        types = get_type_hints(self._kind)
        options = [
            parameter.replace(annotation=types[parameter.name])
            for parameter in inspect.signature(self._kind).parameters.values()
        ]
        signature = inspect.Signature([*own, *options])

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Result:
            name = function.__qualname__.removesuffix(".__init__")
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                # A misspelt option, rather than that the right one is missing.
                unknown = [
                    f"got an unexpected keyword argument {key!r}" for key in kwargs if key not in signature.parameters
                ]
                raise TypeError(f"{name}() {unknown[0] if unknown else error}") from None
            first = [given.pop(parameter.name) for parameter in own]
            return function(*first, self._kind(**given))  # type: ignore[call-arg]

        call.__signature__ = signature  # type: ignore[attr-defined]
        return call
