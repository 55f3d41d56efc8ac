"""Options several commands share. What is wrong with one by itself is refused while parsing."""

from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from attnsearch.api.arguments import head_set
from attnsearch.errors import ConfigError
from attnsearch.lookup import find_checkpoint, find_model, find_store
from attnsearch.tables import DATA_SUFFIXES, check_output

if TYPE_CHECKING:
    from attnsearch.scanning import Reading


class TextEncoder(StrEnum):
    """What a PixArt checkpoint may have been trained with."""

    RTE = "rte"
    RTEP = "rtep"
    T5 = "t5"
    CLIP = "clip"


def _usual_store() -> str:
    return str(find_store())


def _store(named: str) -> str:
    return str(find_store(named))


def models(named: list[Path]) -> list[Path]:
    """The files or folders of models, some of them named as packaged ones; see `find_model`."""
    return [find_model(each) for each in named]


def _device(name: str) -> str:
    from attnsearch.devices import check_device

    check_device(name)
    return name


def _steps(steps: int) -> int:
    from attnsearch.sampling import SamplerConfig

    return SamplerConfig(steps=steps).steps


def _guidance(guidance: float) -> float:
    from attnsearch.sampling import SamplerConfig

    return SamplerConfig(guidance=guidance).guidance


def _dask(named: str) -> str:
    from attnsearch.scheduling import Scheduler

    return Scheduler.parse(named).kind


def _files(paths: list[Path] | None) -> list[Path]:
    return [check_output(path) for path in paths or ()]


def _tables(paths: list[Path] | None) -> list[Path]:
    return [check_output(path, DATA_SUFFIXES) for path in paths or ()]


Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT",
        help="A checkpoint file, or a packaged model by name.",
        callback=find_checkpoint,
    ),
]
Models = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL...",
        help="Checkpoints, PixArt .pth files, folders of diffusers pipelines, or packaged models "
        "by name.",
        callback=models,
    ),
]
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
    str,
    typer.Argument(
        metavar="STORE",
        help="A store written by scan, a folder or a URL; default: $ATTNSEARCH_STORE, or "
        "attnsearch.zarr here.",
        default_factory=_usual_store,
        show_default=False,
        callback=_store,
    ),
]
Scan = Annotated[
    str | None, typer.Option("--scan", help="Only this scan of the store; default: all of them.")
]
Device = Annotated[
    str,
    typer.Option(
        help="cpu, cuda or cuda:1; auto takes a GPU where there is one.", callback=_device
    ),
]
Steps = Annotated[int, typer.Option(help="Sampling steps per image.", callback=_steps)]
Guidance = Annotated[
    float,
    typer.Option(help="Weight of classifier-free guidance; 1 is off.", callback=_guidance),
]
Dask = Annotated[
    str,
    typer.Option(
        "--dask",
        help="Where tasks run: threads, processes, or a Dask cluster, by tcp://host:8786 or file.",
        callback=_dask,
    ),
]
Output = Annotated[
    list[Path] | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Also write all rows (.csv, .json, .parquet, .html) or a picture (.png, .svg, .pdf); "
        "may be given several times.",
        callback=_files,
    ),
]
OutputTable = Annotated[
    list[Path] | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Also write all rows (.csv, .json, .parquet, .html); may be given several times.",
        callback=_tables,
    ),
]
Within = Annotated[
    list[str] | None,
    typer.Option(metavar="FACT=VALUE", help="Only such models: encoder=rtep, name=*-seed0."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Top = Annotated[int, typer.Option(min=1, help="Rows to print.")]


def store_and_question(words: list[str], verb: str, example: str) -> tuple[str | None, str]:
    """What `[STORE] QUESTION` says: of two words the first is the store, one is the question.

    Raises:
        ConfigError: there are more words, or the one that is there is a store.
    """
    wanted = f'attnsearch {verb} [STORE] "{example}"'
    if len(words) > 2 or "-" in words:
        # Of `object1 -> relation` a shell leaves `object1 -`, and writes to a file `relation`.
        raise ConfigError(f"a question stands in quotation marks: {wanted}")
    *stores, question = words
    if stores and "->" in stores[0]:
        raise ConfigError(f"the store comes first: {wanted}")
    if not stores and _is_store(question):
        raise ConfigError(f"{question} is a store; say what is asked of it: {wanted}")
    return (stores[0] if stores else None), question


def store_and_head(words: list[str]) -> tuple[str | None, str]:
    """What `[STORE] HEAD` says.

    Raises:
        ConfigError: there are more words, or the last one is no head.
    """
    if len(words) > 2:
        raise ConfigError("name one head: attnsearch maps [STORE] MODEL:L2H8")
    *stores, head = words
    head_set(head.rpartition(":")[2])
    return (stores[0] if stores else None), head


def _is_store(word: str) -> bool:
    return word.endswith(".zarr") or "://" in word or (Path(word) / "zarr.json").is_file()


def reading_of(
    encoder: TextEncoder | None,
    source: str,
    dtype: str,
    heads: int | None,
    *,
    vae: Path | None = None,
    size: int | None = None,
    control: bool = False,
) -> "Reading":
    """What the options say of a model that its file does not.

    Raises:
        ConfigError: they contradict each other.
    """
    from attnsearch.encoders import EncoderKind
    from attnsearch.scanning import Reading

    return Reading(
        encoder=None if encoder is None else EncoderKind(encoder),
        encoder_source=source,
        encoder_dtype=dtype,
        heads=heads,
        vae=vae,
        size=size,
        control=control,
    )


def store_name(store: str) -> str:
    """The last part of a folder or URL."""
    return PurePosixPath(store).name
