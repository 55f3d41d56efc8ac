"""`attnsearch circuit`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from attnsearch.axes import HeadAddress
from attnsearch.cli import options
from attnsearch.cli.console import print_json, print_table
from attnsearch.errors import ConfigError
from attnsearch.lookup import find_model, is_pipeline
from attnsearch.progress import note

if TYPE_CHECKING:
    from attnsearch.ablation import Tilts
    from attnsearch.circuits import Circuit, Screening
    from attnsearch.models import Checkpoint

_LINKS: Final = 20
_READER_COLUMNS: Final = (
    "head", "tilt", "without", "all steps", "without", "shape", "colour", "q", "composition",
    "writes shape", "colour",
)  # fmt: skip


def circuit(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT",
            help="A checkpoint, a folder of a PixArt pipeline, or a packaged model by name.",
            callback=find_model,
        ),
    ],
    head: Annotated[
        str | None,
        typer.Option(metavar="L0H3[,L0H2]", help="Whose tag is followed; default: who leads."),
    ] = None,
    images: Annotated[
        int, typer.Option(min=0, help="Images to check the weights against; 0 for none.")
    ] = 32,
    steps: options.Steps = 14,
    guidance: options.Guidance = 4.5,
    top: options.Top = 8,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for circuit.json and qk.png.")
    ] = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """How a model places objects: which heads look where a relation points, and who reads them.

    From weights: the logits of every head between positions and relation words (projection on a
    ramp along the relation; positive: it looks where object 1 is to go), the tag it writes there,
    and how far that tag makes later heads prefer object 1's words. From a few sampled images: which
    share of the true logits positions explain, and the tilt of later heads, their preference for
    object 1's words towards object 1's side, with and without the heads that lead. A weight-space
    picture is as good as these agree.

    Example: attnsearch circuit rtep-femto-seed0

    Example: attnsearch circuit model.pt --head L2H8 -o circuit
    """
    group = frozenset() if head is None else options.head_group(head)
    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file, not a folder")
    from attnsearch.circuits import circuit_of

    screening, checkpoint = _read(model)
    found = circuit_of(screening, group)
    explained, tilts = None, None
    if checkpoint is not None and images:
        explained, tilts = _measure(checkpoint, found, images, steps, guidance, device)
    table = _table(found, explained, tilts)
    if output is not None:
        _write(output, table, screening, found, top)
    if as_json:
        print_json(table)
    else:
        _print(table, options.store_name(str(model)), top)


def _read(path: Path) -> "tuple[Screening, Checkpoint | None]":
    import torch

    from attnsearch.circuits import screening_of, screening_of_pipeline
    from attnsearch.models import load_checkpoint
    from attnsearch.models.pipelines import load_pipeline

    if is_pipeline(path):
        return screening_of_pipeline(load_pipeline(path, torch.device("cpu"))), None
    checkpoint = load_checkpoint(path)
    return screening_of(checkpoint), checkpoint


def _measure(
    checkpoint: "Checkpoint", found: "Circuit", images: int, steps: int, guidance: float, named: str
) -> "tuple[Any, Tilts]":
    from attnsearch.ablation import measure_tilts
    from attnsearch.circuits import position_share
    from attnsearch.devices import named_device
    from attnsearch.sampling import SamplerConfig

    sampler, device = SamplerConfig(steps=steps, guidance=guidance), named_device(named)
    note(f"sampling {images} images with and without {_names(found.heads)}")
    explained = position_share(checkpoint, images=images, sampler=sampler, device=device)
    return explained, measure_tilts(
        checkpoint, found.heads, images=images, sampler=sampler, device=device
    )


def _table(found: "Circuit", explained: Any, tilts: "Tilts | None") -> dict[str, Any]:
    """All there is to say, as plain values."""
    writers, readers = [], []
    for writer in found.writers:
        at = (writer.address.layer, writer.address.head)
        share = None if explained is None else explained[:, *at].tolist()
        writers.append(
            asdict(writer) | {"address": str(writer.address), "explained_by_step": share}
        )
    for reader in found.readers:
        at = (reader.address.layer, reader.address.head)
        row = asdict(reader) | {"address": str(reader.address)}
        row["tilt_by_step"] = None if tilts is None else tilts.whole[:, *at].tolist()
        row["tilt_without_by_step"] = None if tilts is None else tilts.without[:, *at].tolist()
        readers.append(row)
    if tilts is not None:
        readers.sort(key=lambda row: -abs(row["tilt_by_step"][0] - row["tilt_without_by_step"][0]))
    return {
        "heads": [str(head) for head in sorted(found.heads)],
        "writers": writers,
        "readers": readers,
        "links": [
            asdict(link)
            | {
                "writer": str(link.writer),
                "reader": str(link.reader),
                "strength": link.strength,
            }
            for link in found.links[:_LINKS]
        ],
    }


def _print(table: dict[str, Any], name: str, top: int) -> None:
    print_table(
        ["head", "projection", "cosine", "q", "explained", "tag", "agreement"],
        [
            [
                row["address"],
                f"{row['projection']:+.2f}",
                f"{row['cosine']:+.3f}",
                f"{row['q_value']:.2g}",
                _mean(row["explained_by_step"], "{:.2f}"),
                f"{row['tag_length']:.2f}",
                f"{row['tag_agreement']:.2f}",
            ]
            for row in table["writers"][:top]
        ],
        title=f"who looks where a relation points in {name}",
        words=["head"],
    )
    if not table["readers"]:
        note("no layer is later than these heads, so nobody reads their tag")
        return
    together = ",".join(table["heads"])
    typer.echo()
    print_table(
        _READER_COLUMNS,
        [
            [
                row["address"],
                _first(row["tilt_by_step"]),
                _first(row["tilt_without_by_step"]),
                _mean(row["tilt_by_step"], "{:+.2f}"),
                _mean(row["tilt_without_by_step"], "{:+.2f}"),
                f"{row['shape']:+.2f}",
                f"{row['colour']:+.2f}",
                f"{row['q_value']:.2g}",
                f"{row['composition']:.3f}",
                f"{row['shape_written']:.2f}",
                f"{row['colour_written']:.2f}",
            ]
            for row in table["readers"][:top]
        ],
        title=f"who reads the tag of {together}: tilt at the first step and over all, answer of "
        "its weights",
        words=["head"],
    )


def _first(values: list[float] | None) -> str:
    return "-" if values is None else f"{values[0]:+.2f}"


def _mean(values: list[float] | None, form: str) -> str:
    return "-" if values is None else form.format(sum(values) / len(values))


def _names(group: frozenset[HeadAddress]) -> str:
    return ",".join(str(head) for head in sorted(group))


def _write(
    folder: Path, table: dict[str, Any], screening: "Screening", found: "Circuit", top: int
) -> None:
    from attnsearch.circuits import relation_maps
    from attnsearch.report import qk_maps

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "circuit.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    maps, _ = relation_maps(*screening)
    shown = [writer.address for writer in found.writers[:top]]
    selective = maps - maps.mean(axis=2, keepdims=True)
    qk_maps.write(folder / "qk.png", selective, screening.model.grid, shown)
    note(f"written: {folder / 'circuit.json'}, {folder / 'qk.png'}")
