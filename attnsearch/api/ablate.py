"""What a model no longer paints when heads are switched off."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from attnsearch.ablation import Ablation, Mode, check_roles
from attnsearch.api.arguments import (
    Heads,
    HeadSets,
    found_checkpoint,
    head_set,
    head_sets,
    names_of,
    role_set,
)
from attnsearch.api.controls import RELATION, Controls, held_against
from attnsearch.axes import HeadAddress
from attnsearch.errors import ConfigError
from attnsearch.progress import progress
from attnsearch.sampling import SamplerConfig
from attnsearch.tables import Column, Table

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from attnsearch.ablation import Effect
    from attnsearch.models import Checkpoint

_OTHERS: Final = ("opposite", "binding", "shape", "colour")
"""Shares that are shown beside it."""
_NUMBERS: Final = ("before", "after", "difference", "low", "high", "p_value")

Kind = Literal["asked", "sweep", "random", "layer"]
_WHERE: Final[Mapping[Kind, str]] = {"random": "anywhere", "layer": "in these layers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AblatedSet:
    """Heads that were switched off together, and what that did."""

    heads: str
    """Such as `L0H2,L0H3`."""
    set: Kind
    """Asked for, one head of the sweep, or a control: drawn anywhere, or in the same layers."""
    beside: str
    """The heads asked for that a control belongs to; empty if it is none."""
    mode: str
    effects: "dict[str, Effect]"
    """By measure."""
    controls: dict[str, Controls] | None = None
    """Of a set asked for, by where they are drawn: `random` and `layer`; None without any."""

    @property
    def relation(self) -> "Effect":
        """What happened to the share of images with the relation asked for."""
        return self.effects[RELATION]


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationLine:
    """A line of `Ablations.summary`."""

    without: str
    """The heads, or how many control sets the line is of; `-` where no head is off."""
    after: dict[str, float]
    """Share of images by measure; the median over control sets."""
    difference: float | None = None
    """Change of the relation; the median over control sets."""
    low: float | None = None
    """End of the 95 % interval; of control sets the least change."""
    high: float | None = None
    p_value: float | None = None


class AblationSummary(Table[AblationLine]):
    """The model with all heads, then every set asked for with its controls, and the sweep."""

    @property
    def columns(self) -> Sequence[Column[AblationLine]]:
        """See `Table`."""
        return [
            Column("without", lambda row: row.without, words=True),
            Column("relation", lambda row: f"{row.after[RELATION]:.3f}"),
            Column("change", lambda row: _signed(row.difference)),
            Column("interval", lambda row: _interval(row.low, row.high)),
            Column("p", lambda row: "" if row.p_value is None else f"{row.p_value:.2g}"),
            *(Column(name, partial(_share, name)) for name in _OTHERS),
        ]


class Ablations(Table[AblatedSet]):
    """A row for every set of heads, the most harmful first."""

    whole: Mapping[str, float]
    """Shares of images with all heads, by measure."""
    stopped: KeyboardInterrupt | None
    """What ended it before all sets were painted; the rows are those that were."""

    @property
    def columns(self) -> Sequence[Column[AblatedSet]]:
        """See `Table`."""
        return [
            Column("without", lambda row: row.heads, words=True),
            Column("set", lambda row: row.set, words=True),
            Column("relation", lambda row: f"{row.relation.after:.3f}"),
            Column("change", lambda row: f"{row.relation.difference:+.3f}"),
            Column("interval", lambda row: _interval(row.relation.low, row.relation.high)),
            Column("p", lambda row: f"{row.relation.p_value:.2g}"),
            *(Column(name, partial(_after, name)) for name in _OTHERS),
        ]

    def record(self, row: AblatedSet) -> dict[str, Any]:
        """The fields of `AblatedSet`, and before them those of `Effect` for the relation."""
        fields = asdict(row)
        effect = fields["effects"][RELATION]
        first = {name: fields.pop(name) for name in ("heads", "set", "beside", "mode")}
        return first | {name: effect[name] for name in (*_NUMBERS, "images")} | fields

    def to_xarray(self) -> "xr.Dataset":
        """Every number of `Effect` along row and measure; heads, set and beside along row."""
        import xarray as xr

        measures = list(self.whole)
        numbers = {
            name: (
                ("row", "measure"),
                [[getattr(row.effects[measure], name) for measure in measures] for row in self],
            )
            for name in _NUMBERS
        }
        words = {
            name: ("row", [getattr(row, name) for row in self])
            for name in ("heads", "set", "beside", "mode")
        }
        return xr.Dataset({**words, **numbers}, coords={"measure": measures})

    def summary(self) -> AblationSummary:
        """What the command line prints: controls as one line below the heads they are held against.

        An interval is of 95 %, over prompts, and p is McNemar's; of controls they are the range
        and the permutation test of `Controls`.
        """
        lines = [AblationLine(without="-", after=dict(self.whole))]
        for row in self._main():
            lines.append(
                AblationLine(
                    without=row.heads,
                    after={name: effect.after for name, effect in row.effects.items()},
                    difference=row.relation.difference,
                    low=row.relation.low,
                    high=row.relation.high,
                    p_value=row.relation.p_value,
                )
            )
            for kind, where in _WHERE.items():
                if row.controls is not None and kind in row.controls:
                    held = row.controls[kind]
                    lines.append(
                        AblationLine(
                            without=f"  {held.sets} others {where}",
                            after=held.after,
                            difference=held.difference,
                            low=held.low,
                            high=held.high,
                            p_value=held.p_value,
                        )
                    )
        return AblationSummary(lines, self.title, self.notes)

    def figure(self) -> "Figure":
        """Change of the relation without every set, with its interval; in grey that of controls."""
        from attnsearch.report import effects

        bars = []
        for row in self._main():
            held = list((row.controls or {}).values())
            controls = [effects.Range(each.low, each.high) for each in held]
            bars.append(
                effects.Bar(
                    row.heads,
                    row.relation.difference,
                    effects.Range(row.relation.low, row.relation.high),
                    effects.Range(min(c.low for c in controls), max(c.high for c in controls))
                    if controls
                    else None,
                )
            )
        return effects.draw(bars, self.title, "change of the share of images with the relation")

    def _main(self) -> list[AblatedSet]:
        return [row for row in self if row.set in ("asked", "sweep")]


def ablate(
    model: "Checkpoint | Path | str",
    heads: HeadSets = (),
    *,
    sweep: bool = False,
    beside: int = 0,
    mode: Mode | str = Mode.MEAN,
    factor: float = 0.5,
    hide: str | Sequence[str] | None = None,
    into: Heads | None = None,
    first_step: int = 0,
    last_step: int | None = None,
    seeds: int = 2,
    steps: int = 14,
    guidance: float = 4.5,
    device: str = "auto",
) -> Ablations:
    """Paint the task's prompt grid with all heads, then without some, from the same noise.

    `model` is a checkpoint, its file, or a packaged model by name. `heads` are those that go off
    together, such as `L0H3,L0H2`, or a list of such sets; `sweep` adds every head of
    cross-attention alone, `beside` so many control sets of as many other heads, drawn anywhere,
    and as many of those of the same layers. `mode`, `factor`, `hide` (roles, for the mode `mask`),
    `into` and the steps are those of `Ablation`; `seeds` are images per prompt.

    Ctrl-C ends it: the table has the sets that were finished, and `Ablations.stopped` says so.

    Raises:
        CheckpointError: the model cannot be read.
        ConfigError: no heads are said, there are no such heads, roles or mode, an option has no
            meaning for the mode, or the model paints no images of its task.
        KeyboardInterrupt: it was stopped before any set was finished.
    """
    groups = head_sets(heads)
    if not groups and not sweep:
        raise ConfigError("say which heads: `heads`, such as L0H3, or `sweep` for each of them")
    if beside < 0:
        raise ConfigError(f"beside is a number of sets, not {beside}")
    if mode not in list(Mode):
        raise ConfigError(f"there is no mode {mode!r}; modes: {', '.join(Mode)}")
    if hide is not None and mode != Mode.MASK:
        raise ConfigError("`hide` is for the mode mask")
    hidden = role_set(hide)
    check_roles(hidden)
    asked = partial(
        Ablation,
        mode=Mode(mode),
        first_step=first_step,
        last_step=last_step,
        factor=factor,
        hide=hidden,
        into=frozenset() if into is None else head_set(into),
    )
    for group in groups:
        asked(heads=group)  # refuses what cannot be, before torch is imported
    sampler = SamplerConfig(steps=steps, guidance=guidance)
    found, name = found_checkpoint(model)
    from attnsearch.ablation import measure_effects
    from attnsearch.devices import named_device
    from attnsearch.models import checkpoint_of
    from attnsearch.task.captions import grid_captions

    checkpoint = checkpoint_of(found)
    layers, numbers = range(checkpoint.model.depth), range(checkpoint.model.heads)
    every = [HeadAddress(layer, number) for layer in layers for number in numbers]
    wanted = _wanted(every, groups, beside, sweep=sweep)
    images = len(grid_captions(checkpoint.task)) * seeds * (1 + len(wanted))
    with progress("painting", images, "images") as advance:
        effects, stopped = _until_stopped(
            measure_effects(
                checkpoint,
                [asked(heads=each.heads) for each in wanted],
                seeds=seeds,
                sampler=sampler,
                device=named_device(device),
                advance=advance,
            )
        )
    notes = [f"{effects[0][RELATION].images} images each"]
    if stopped is not None:
        notes.append(f"stopped; {len(effects)} of {len(wanted)} sets of heads were finished")
    rows = _rows(wanted, effects, str(mode))
    table = Ablations(rows, f"{name}, {mode} ablation", notes)
    table.whole = {measure: effect.before for measure, effect in effects[0].items()}
    table.stopped = stopped
    return table


@dataclass(frozen=True, slots=True)
class _Wanted:
    kind: Kind
    heads: frozenset[HeadAddress]
    beside: frozenset[HeadAddress] = frozenset()
    """The heads asked for that these are held against."""


def _wanted(
    every: Sequence[HeadAddress],
    groups: Sequence[frozenset[HeadAddress]],
    beside: int,
    *,
    sweep: bool,
) -> list[_Wanted]:
    from attnsearch.ablation import layer_sets, random_sets

    wanted = [_Wanted("asked", group) for group in groups]
    if sweep:
        alone = [frozenset({address}) for address in every]
        wanted += [_Wanted("sweep", group) for group in alone if group not in groups]
    for group in groups:
        wanted += [_Wanted("random", other, group) for other in random_sets(every, group, beside)]
        wanted += [_Wanted("layer", other, group) for other in layer_sets(every, group, beside)]
    return wanted


def _until_stopped(
    measured: "Iterator[dict[str, Effect]]",
) -> "tuple[list[dict[str, Effect]], KeyboardInterrupt | None]":
    """The effects of the sets that were finished, and what stopped it."""
    effects = []
    try:
        for effect in measured:
            effects.append(effect)
    except KeyboardInterrupt as error:
        if not effects:
            raise
        return effects, error
    return effects, None


def _rows(
    wanted: "Sequence[_Wanted]", effects: "Sequence[dict[str, Effect]]", mode: str
) -> list[AblatedSet]:
    """The sets that were finished, the most harmful first."""
    found = list(zip(wanted, effects, strict=False))
    rows = []
    for each, effect in found:
        controls: dict[str, Controls] = {}
        for kind in _WHERE if each.kind == "asked" else ():
            held = [
                other
                for control, other in found
                if control.kind == kind and control.beside == each.heads
            ]
            if held:
                controls[kind] = held_against(effect[RELATION].difference, held)
        rows.append(
            AblatedSet(
                heads=names_of(each.heads),
                set=each.kind,
                beside=names_of(each.beside),
                mode=mode,
                effects=effect,
                controls=controls or None,
            )
        )
    return sorted(rows, key=lambda row: row.relation.difference)


def _after(measure: str, row: AblatedSet) -> str:
    return f"{row.effects[measure].after:.3f}"


def _share(measure: str, row: AblationLine) -> str:
    return f"{row.after[measure]:.3f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"
