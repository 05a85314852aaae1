"""Which frameworks are installed, told without importing them, and what installs the others."""

from __future__ import annotations

from importlib.util import find_spec

_PACKAGES = {"tensorflow": "tensorflow", "tensorpack": "'ingest-toolkit[tensorpack]'"}
"""What pip installs, by the module that it is for."""


def missing(*modules: str) -> tuple[str, ...]:
    """Those of the ``modules`` that cannot be imported here."""
    return tuple(module for module in modules if not _is_there(module))


def needs(*modules: str) -> str:
    """``needs tensorflow: pip install tensorflow``, of one or more modules that are missing."""
    return f"needs {' and '.join(modules)}: pip install {' '.join(_PACKAGES[module] for module in modules)}"


def is_framework(module: str | None) -> bool:
    """Whether a module is one that ``needs`` knows."""
    return module in _PACKAGES


def _is_there(module: str) -> bool:
    # A folder of that name in the current folder is found, too, but has no origin.
    spec = find_spec(module)
    return spec is not None and spec.origin is not None
