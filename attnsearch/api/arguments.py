"""Models and sets of heads as a user names them; what is wrong is refused before torch is there."""

from collections.abc import Collection, Iterable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from attnsearch.axes import HeadAddress
from attnsearch.errors import ConfigError
from attnsearch.lookup import find_checkpoint

if TYPE_CHECKING:
    from attnsearch.models import Checkpoint

Heads = str | HeadAddress | Collection[HeadAddress]
"""Heads that go together: `L0H3,L0H2`, one address, or several."""

HeadSets = str | HeadAddress | Set[HeadAddress] | Sequence[Heads]
"""Heads that go together, or a list of such; an address in a list stands alone."""


def head_set(heads: Heads) -> frozenset[HeadAddress]:
    """The addresses of heads that go together.

    Raises:
        ConfigError: a part of a text is no head.
    """
    if isinstance(heads, HeadAddress):
        return frozenset({heads})
    if not isinstance(heads, str):
        return frozenset(heads)
    try:
        return frozenset(HeadAddress.parse(each) for each in heads.split(","))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def head_sets(heads: HeadSets) -> list[frozenset[HeadAddress]]:
    """The sets that are named, one for each item of a list.

    Raises:
        ConfigError: as of `head_set`.
    """
    if isinstance(heads, str | HeadAddress | Set):
        return [head_set(heads)]
    return [head_set(each) for each in heads]


def names_of(heads: Iterable[HeadAddress]) -> str:
    """A set of heads as it is typed, such as `L0H2,L0H3`."""
    return ",".join(map(str, sorted(heads)))


def role_set(roles: str | Iterable[str] | None) -> frozenset[str]:
    """Roles of `shape1,shape2`, or of a list of them; None is none."""
    return frozenset(roles.split(",") if isinstance(roles, str) else roles or ())


def found_checkpoint(model: "Checkpoint | Path | str") -> "tuple[Checkpoint | Path, str]":
    """A checkpoint as it is given, or the file of one that is named; and what tables call it.

    Raises:
        CheckpointError: there is no such file or packaged model.
    """
    if isinstance(model, str | Path):
        path = find_checkpoint(model)
        return path, path.name
    return model, "the model"
