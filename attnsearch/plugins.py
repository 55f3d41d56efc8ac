"""What other packages add, through entry points.

A package names an object of its own in its pyproject.toml:

    [project.entry-points."attnsearch.metrics"]
    roundness = "shapes_of_maps:roundness"

Nothing is looked for before a name is asked for that attnsearch itself does not have, or a list is.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final, TypeVar

from attnsearch.errors import ConfigError

METRIC: Final = "attnsearch.metrics"
"""Entry points that name a `Metric`."""
COMMAND: Final = "attnsearch.commands"
"""Entry points that name a function, which becomes a command as Typer reads it."""

Kind = TypeVar("Kind")


@cache
def plugins(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of a group, by name."""
    return {point.name: point for point in entry_points(group=group)}


def loaded(group: str, name: str, kind: type[Kind]) -> Kind:
    """What an entry point names.

    Raises:
        KeyError: there is no such entry point.
        ConfigError: it cannot be imported, or is no `kind`.
    """
    point = plugins(group)[name]
    package = point.dist.name if point.dist else point.value
    try:
        found = point.load()
    except Exception as error:  # whatever a module of others does while it is imported
        raise ConfigError(f"{name} of {package} cannot be loaded: {error}") from error
    if not isinstance(found, kind):
        raise ConfigError(f"{name} of {package} is no {kind.__name__}: {point.value}")
    return found
