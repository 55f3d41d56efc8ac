"""Figures of matplotlib, which is an extra."""

from typing import TYPE_CHECKING

from attnsearch.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "this picture needs matplotlib: pip install attnsearch[report]"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")
