"""How a model places objects: which heads look where a relation points, and who reads them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attnsearch.api.arguments import Heads, head_set, names_of
from attnsearch.axes import HeadAddress
from attnsearch.errors import ConfigError
from attnsearch.lookup import find_model, is_pipeline
from attnsearch.progress import note
from attnsearch.sampling import SamplerConfig
from attnsearch.tables import (
    PICTURE_SUFFIXES,
    Column,
    Table,
    check_output,
    write_figure,
    write_json,
    write_whole,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attnsearch.circuits import Circuit, Link, ReadingHead, Screening, WritingHead
    from attnsearch.circuits.qk import Floats
    from attnsearch.models import Checkpoint

CIRCUIT_SUFFIXES: Final = (".json", *PICTURE_SUFFIXES)
"""Of files that hold a circuit; its tables are written in other forms, each by itself."""
_LINKS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A head as one that looks where a relation points."""

    weights: "WritingHead"
    """What its weights say."""
    explained_by_step: list[float] | None
    """Share of its true logits that positions explain, by step; None where nothing was sampled."""


class Writers(Table[Writer]):
    """All heads, by size of projection, largest first."""

    @property
    def columns(self) -> Sequence[Column[Writer]]:
        """See `Table`."""
        return [
            Column("head", lambda row: str(row.weights.address), words=True),
            Column("projection", lambda row: f"{row.weights.projection:+.2f}"),
            Column("cosine", lambda row: f"{row.weights.cosine:+.3f}"),
            Column("q", lambda row: f"{row.weights.q_value:.2g}"),
            Column("explained", lambda row: _mean(row.explained_by_step, "{:.2f}")),
            Column("tag", lambda row: f"{row.weights.tag_length:.2f}"),
            Column("agreement", lambda row: f"{row.weights.tag_agreement:.2f}"),
        ]

    def record(self, row: Writer) -> dict[str, Any]:
        """The fields of `circuits.WritingHead`, and `explained_by_step`."""
        fields = asdict(row.weights) | {"address": str(row.weights.address)}
        return fields | {"explained_by_step": row.explained_by_step}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A later head as one that reads a tag."""

    weights: "ReadingHead"
    """What its weights say."""
    tilt_by_step: list[float] | None
    """Its preference for object 1's words towards object 1's side, in logits, by step; None where
    nothing was sampled."""
    tilt_without_by_step: list[float] | None
    """The same with the heads that write the tag at their mean output."""


class Readers(Table[Reader]):
    """Heads later than all that write the tag: by change of the tilt, or by size of response."""

    @property
    def columns(self) -> Sequence[Column[Reader]]:
        """See `Table`; the tilt is shown at the first step, then its mean over steps."""
        return [
            Column("head", lambda row: str(row.weights.address), words=True),
            Column("tilt", lambda row: _first(row.tilt_by_step)),
            Column("without", lambda row: _first(row.tilt_without_by_step)),
            Column("all steps", lambda row: _mean(row.tilt_by_step, "{:+.2f}")),
            Column("without", lambda row: _mean(row.tilt_without_by_step, "{:+.2f}")),
            Column("shape", lambda row: f"{row.weights.shape:+.2f}"),
            Column("colour", lambda row: f"{row.weights.colour:+.2f}"),
            Column("q", lambda row: f"{row.weights.q_value:.2g}"),
            Column("composition", lambda row: f"{row.weights.composition:.3f}"),
            Column("writes shape", lambda row: f"{row.weights.shape_written:.2f}"),
            Column("colour", lambda row: f"{row.weights.colour_written:.2f}"),
        ]

    def record(self, row: Reader) -> dict[str, Any]:
        """The fields of `circuits.ReadingHead`, `tilt_by_step` and `tilt_without_by_step`."""
        fields = asdict(row.weights) | {"address": str(row.weights.address)}
        return fields | {
            "tilt_by_step": row.tilt_by_step,
            "tilt_without_by_step": row.tilt_without_by_step,
        }


class Links(Table["Link"]):
    """Pairs of a writing head and a later one, strongest first, by size."""

    @property
    def columns(self) -> "Sequence[Column[Link]]":
        """See `Table`."""
        return [
            Column("writer", lambda row: str(row.writer), words=True),
            Column("reader", lambda row: str(row.reader), words=True),
            Column("projection", lambda row: f"{row.projection:+.2f}"),
            Column("response", lambda row: f"{row.response:+.2f}"),
            Column("strength", lambda row: f"{row.strength:+.2f}"),
        ]

    def record(self, row: "Link") -> dict[str, Any]:
        """The fields of `circuits.Link`, and their `strength`."""
        names = {"writer": str(row.writer), "reader": str(row.reader)}
        return asdict(row) | names | {"strength": row.strength}


class FoundCircuit:
    """What `circuit` gives: three tables and a picture."""

    heads: frozenset[HeadAddress]
    """Those whose tag is read, as one."""
    writers: Writers
    readers: Readers
    links: Links

    def __init__(
        self,
        heads: frozenset[HeadAddress],
        writers: Writers,
        readers: Readers,
        links: Links,
        screening: "Screening",
    ) -> None:
        """`screening` is of the model."""
        self.heads, self.writers, self.readers, self.links = heads, writers, readers, links
        self._screening = screening

    def record(self) -> dict[str, Any]:
        """All there is to say, as plain values: of the links the 20 strongest."""
        return {
            "heads": [str(head) for head in sorted(self.heads)],
            "writers": self.writers.records(),
            "readers": self.readers.records(),
            "links": self.links[:_LINKS].records(),
        }

    def figure(self, top: int = 8) -> "Figure":
        """The QK maps of the first `top` writers, a row each, by relation.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        from attnsearch.circuits import relation_maps
        from attnsearch.report import qk_maps

        maps, _ = relation_maps(*self._screening)
        selective = maps - maps.mean(axis=2, keepdims=True)
        shown = [writer.weights.address for writer in self.writers[:top]]
        return qk_maps.draw(selective, self._screening.model.grid, shown)

    def save(self, path: Path | str, top: int = 8) -> Path:
        """Write a file in the form of its suffix, whole or not at all; returns its path.

        .json holds the `record`, .png, .svg and .pdf the `figure`.

        Raises:
            ConfigError: the suffix is another, matplotlib is missing, or the file cannot be
                written.
        """
        target = check_circuit_output(Path(path))
        if target.suffix in PICTURE_SUFFIXES:
            return write_whole(target, partial(write_figure, self.figure(top)))
        return write_whole(target, partial(write_json, self.record()))

    def __repr__(self) -> str:
        return f"{self.writers!r}\n\n{self.readers!r}"

    def _repr_html_(self) -> str:
        """Writers and readers, as a notebook shows them."""
        return self.writers._repr_html_() + self.readers._repr_html_()


def check_circuit_output(path: Path) -> Path:
    """Find out before anything is computed that a circuit cannot be written; returns its path.

    Raises:
        ConfigError: as of `tables.check_output`; it would be one table of three.
    """
    if path.suffix in (".csv", ".parquet", ".html"):
        raise ConfigError(
            f"cannot write {path}: a circuit is three tables, which {path.suffix} cannot hold; "
            f"write {path.with_suffix('.json').name}"
        )
    return check_output(path, CIRCUIT_SUFFIXES)


def circuit(
    model: "Checkpoint | Path | str",
    heads: Heads = (),
    *,
    images: int = 32,
    steps: int = 14,
    guidance: float = 4.5,
    device: str = "auto",
) -> FoundCircuit:
    """Read which heads look where a relation points, and which later heads read their tag.

    `model` is a checkpoint, its file, the folder of a PixArt pipeline, or a packaged model by name.
    `heads` are those whose tag is followed, such as `L0H3,L0H2`; by default those that lead, see
    `circuits.circuit_of`. The weights are checked against so many sampled `images`; 0 samples
    none, and pipelines are read by their weights alone.

    Raises:
        CheckpointError: the model cannot be read, or its weights cannot be read this way.
        ConfigError: there are no such heads, or a number is out of range.
        MetricError: a relation is stated by no caption.
    """
    group = head_set(heads)
    if images < 0:
        raise ConfigError(f"images is a number of images or 0, not {images}")
    sampler = SamplerConfig(steps=steps, guidance=guidance)
    named = find_model(model) if isinstance(model, str | Path) else model
    from attnsearch.circuits import circuit_of

    screening, checkpoint = _read(named)
    found = circuit_of(screening, group)
    explained, whole, without = None, None, None
    if checkpoint is not None and images:
        explained, whole, without = _measured(checkpoint, found, images, sampler, device)
    writers = [
        Writer(weights=each, explained_by_step=_by_step(explained, each.address))
        for each in found.writers
    ]
    readers = [
        Reader(
            weights=each,
            tilt_by_step=_by_step(whole, each.address),
            tilt_without_by_step=_by_step(without, each.address),
        )
        for each in found.readers
    ]
    if whole is not None:
        readers.sort(key=_change)
    name = named.name if isinstance(named, Path) else "the model"
    unread = "no layer is later than these heads, so nobody reads their tag"
    return FoundCircuit(
        found.heads,
        Writers(writers, f"who looks where a relation points in {name}"),
        Readers(
            readers,
            f"who reads the tag of {names_of(found.heads)}: tilt at the first step and over all, "
            "answer of its weights",
            [] if readers else [unread],
        ),
        Links(found.links, f"who reads whom in {name}"),
        screening,
    )


def _read(model: "Checkpoint | Path") -> "tuple[Screening, Checkpoint | None]":
    import torch

    from attnsearch.circuits import screening_of, screening_of_pipeline
    from attnsearch.models import checkpoint_of
    from attnsearch.models.pipelines import load_pipeline

    if isinstance(model, Path) and is_pipeline(model):
        return screening_of_pipeline(load_pipeline(model, torch.device("cpu"))), None
    checkpoint = checkpoint_of(model)
    return screening_of(checkpoint), checkpoint


def _measured(
    checkpoint: "Checkpoint", found: "Circuit", images: int, sampler: SamplerConfig, named: str
) -> "tuple[Floats, Floats, Floats]":
    """Shares explained by position, tilts, and tilts without the heads, [step, layer, head]."""
    from attnsearch.ablation import measure_tilts
    from attnsearch.circuits import position_share
    from attnsearch.devices import named_device

    device = named_device(named)
    note(f"sampling {images} images with and without {names_of(found.heads)}")
    explained = position_share(checkpoint, images=images, sampler=sampler, device=device)
    tilts = measure_tilts(checkpoint, found.heads, images=images, sampler=sampler, device=device)
    return explained, tilts.whole, tilts.without


def _by_step(values: "Floats | None", head: HeadAddress) -> list[float] | None:
    return None if values is None else values[:, head.layer, head.head].tolist()


def _change(row: Reader) -> float:
    """Readers whose tilt changes most at the first step come first."""
    assert row.tilt_by_step is not None
    assert row.tilt_without_by_step is not None
    return -abs(row.tilt_by_step[0] - row.tilt_without_by_step[0])


def _first(values: list[float] | None) -> str:
    return "-" if values is None else f"{values[0]:+.2f}"


def _mean(values: list[float] | None, form: str) -> str:
    return "-" if values is None else form.format(sum(values) / len(values))
