"""Packages whose names load on first use, so that importing one costs nothing.

A package lists its public names with the module each is from; type checkers read the same names
from a block under `TYPE_CHECKING`. This module imports nothing of ours.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def loader(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package; `homes` says which of its modules each name is from."""

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return load
