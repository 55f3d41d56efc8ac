"""Figures of matplotlib, which is an extra."""

from io import BytesIO
from typing import TYPE_CHECKING, Final

from attnsearch.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI: Final = 110
"""Pixels an inch."""


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

    class Shown(Figure):
        """A figure that a notebook shows, also where nothing told it to show those of pyplot."""

        def _repr_png_(self) -> bytes:
            picture = BytesIO()
            self.savefig(picture, format="png")
            return picture.getvalue()

    return Shown(figsize=(width, height), dpi=_DPI, layout="constrained")
