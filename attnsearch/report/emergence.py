"""When a model learns relations and when its relational head appears, as one picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attnsearch.report.figures import new_figure
from attnsearch.zoo.emergence import Snapshot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVES = {
    "colour": ("colour", "#c9c9c9"),
    "shape": ("shape", "#9a9a9a"),
    "binding": ("binding", "#9ec5e8"),
    "relation_loose": ("relation", "#c0392b"),
}


def draw(models: Mapping[str, Sequence[Snapshot]]) -> "Figure":
    """One column per model: accuracies over training steps above, the best head's score below.

    The dotted curve is relation given binding; the grey line half of it, what a model gets that
    does not know which object comes first. A head's sign says which object it marks; the picture
    shows the size of the score, filled where q < 0.01.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = new_figure(2.4 + 3.4 * len(models), 5)
    axes = figure.subplots(2, len(models), sharex="col", sharey="row", squeeze=False)
    for column, (name, snapshots) in enumerate(models.items()):
        _accuracies(axes[0, column], snapshots)
        _scores(axes[1, column], snapshots)
        axes[0, column].set_title(name)
        axes[1, column].set_xlabel("training step")
    axes[0, 0].set_ylabel("share of images")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    axes[1, 0].set_ylabel("|relational score| of the best head")
    return figure


def _accuracies(axes: Any, snapshots: Sequence[Snapshot]) -> None:
    steps = [snapshot.step for snapshot in snapshots]
    for field, (label, colour) in _CURVES.items():
        # Where binding and relation coincide, the wider curve shows on both sides of the other.
        width = 4 if field == "binding" else 1.5
        values = [getattr(s, field) for s in snapshots]
        axes.plot(steps, values, color=colour, label=label, linewidth=width)
    given = [(s.step, s.relation_given_binding) for s in snapshots if s.binding]
    axes.plot(
        [step for step, _ in given],
        [share for _, share in given],
        ":",
        color="#c0392b",
        label="relation given binding",
    )
    axes.axhline(0.5, color="#dddddd", linewidth=0.8, zorder=0)
    axes.set_ylim(0, 1.03)


def _scores(axes: Any, snapshots: Sequence[Snapshot]) -> None:
    steps = [snapshot.step for snapshot in snapshots]
    axes.plot(steps, [abs(s.score) for s in snapshots], color="#2c3e50")
    sure = [s for s in snapshots if s.q_value < 0.01]
    axes.plot([s.step for s in sure], [abs(s.score) for s in sure], "o", color="#2c3e50", ms=4)
    axes.set_ylim(0, 1.03)
