"""Options several commands share."""

from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from attnsearch.axes import HeadAddress
from attnsearch.errors import ConfigError

Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint file.")]


class TextEncoder(StrEnum):
    """What a PixArt checkpoint may have been trained with."""

    RTE = "rte"
    RTEP = "rtep"
    T5 = "t5"
    CLIP = "clip"


Encoder = Annotated[
    TextEncoder | None, typer.Option("--encoder", help="Text encoder of a PixArt .pth.")
]
EncoderSource = Annotated[str, typer.Option(help="Folder or hub name of its T5 or CLIP encoder.")]
EncoderDtype = Annotated[
    str, typer.Option(help="What T5 and CLIP compute in: float32 or bfloat16.")
]
Heads = Annotated[
    int | None, typer.Option("--heads", min=1, help="Heads of a PixArt .pth of unusual width.")
]
Store = Annotated[
    str, typer.Argument(metavar="STORE", help="A store written by scan: a folder or a URL.")
]
Scan = Annotated[
    str | None, typer.Option("--scan", help="Only this scan of the store; default: all of them.")
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda or cuda:1; auto takes a GPU where there is one.")
]
Steps = Annotated[int, typer.Option(help="Sampling steps per image.")]
Guidance = Annotated[float, typer.Option(help="Weight of classifier-free guidance; 1 is off.")]
Scheduler = Annotated[
    str,
    typer.Option(
        help="Where tasks run: threads, processes, or a Dask cluster, by tcp://host:8786 or file."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Top = Annotated[int, typer.Option(min=1, help="Rows to print.")]


def head_group(text: str) -> frozenset[HeadAddress]:
    """The heads of `L0H3,L0H2`.

    Raises:
        ConfigError: a part is no head.
    """
    try:
        return frozenset(HeadAddress.parse(each) for each in text.split(","))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def store_name(store: str) -> str:
    """The last part of a folder or URL."""
    return PurePosixPath(store).name


def beside(store: str) -> Path | None:
    """The folder beside a store where what was worked out of it is kept; None beside a URL."""
    return None if "://" in store else Path(store).with_name(f"{store_name(store)}.signatures")
