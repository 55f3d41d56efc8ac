"""`attnsearch zoo`: list models, train them from experiment files, look back, publish."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnsearch.cli import options
from attnsearch.cli.console import fail, print_json, print_table, show
from attnsearch.errors import ConfigError
from attnsearch.progress import note
from attnsearch.zoo import FOLDER, Summary, packaged, summarise

if TYPE_CHECKING:
    from attnsearch.experiments import News

zoo = typer.Typer()


@zoo.callback(invoke_without_command=True)
def list_models(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Option(help="Models published here; default: those packaged.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the models that come with attnsearch, or train and publish more.

    Without a command: every packaged model with its encoder, size, seed, share of images with the
    asked relation (trained on and held out), and best relational head. `--json` adds the path.

    An experiment is a TOML file; its name is the model's. It says at least

        encoder = "rtep"
        size = "femto"
        seed = 0

    and may set `task`, `objective`, `steps`, `min_distance` (of the objects, in radii), `phrases`
    ("short" or "all" wordings of a relation), `colour_dropout` (how often a colour word is left
    out: 0.5, or by step [[0, 0.0], [6000, 0.5]]), `held_out_seed` (a number, or "none"), `from`
    (the model to start with: a packaged one's name, or a file from where the TOML is),
    `learning_rate_factor`,
    `snapshots` (checkpoints to follow the training by), `evaluation_seeds`, `scan_seeds`,
    `encoder_source`, `encoder_dtype`, `sampling_steps`, `guidance`. `train` makes a folder of
    results from each file, `publish` a small checkpoint and its records from each folder.

    Example: attnsearch zoo

    Example: attnsearch zoo train experiments/rtep-*.toml --out runs --jobs 2

    Example: attnsearch zoo publish runs/rtep-* --to attnsearch/zoo
    """
    if context.invoked_subcommand is not None:
        return
    where = folder or FOLDER
    if not where.is_dir():
        raise ConfigError(f"no such folder: {where}")
    models = [summarise(path) for path in packaged(where)]
    if as_json:
        print_json([asdict(model) for model in models])
        return
    print_table(
        [
            "name", "encoder", "size", "seed", "parameters", "relation", "held out", "head",
            "score", "q",
        ],
        [_row(model) for model in models],
        title=f"models in {where}",
        words=["name", "encoder", "size", "head"],
    )  # fmt: skip


def _files(paths: list[Path]) -> list[Path]:
    for path in paths:
        if not os.path.lexists(path):
            raise ConfigError(f"cannot read {path}: there is no such file")
    return paths


def _folders(paths: list[Path]) -> list[Path]:
    for path in paths:
        if not path.is_dir():
            raise ConfigError(f"{path} is no folder of a finished run")
    return paths


@zoo.command()
def train(
    experiments: Annotated[
        list[Path],
        typer.Argument(metavar="EXPERIMENT.toml", help="Experiment files.", callback=_files),
    ],
    out: Annotated[Path, typer.Option(help="Each experiment gets a folder of its name in here.")],
    jobs: Annotated[
        int, typer.Option(min=1, help="Experiments at a time; cores and GPUs are shared out.")
    ] = 1,
    device: options.Device = "auto",
) -> None:
    """Train, evaluate, scan and rank every experiment of a list.

    What is finished is skipped, what was stopped goes on: run the same command again. An experiment
    that fails does not stop the others. Ctrl-C saves all of them first.

    A folder of results holds model.pt, log.jsonl, evaluation.json, maps.zarr, ranking.json and, for
    an experiment with snapshots, emergence.json: accuracies and every head's score along training.

    Example: attnsearch zoo train experiments/*.toml --out runs --jobs 2
    """
    from attnsearch.devices import named_device
    from attnsearch.experiments import run_all

    with _board([path.stem for path in experiments]) as report:
        failures = run_all(
            experiments,
            out,
            jobs=jobs,
            device=named_device(device),
            report=report,
        )
    for name, reason in failures.items():
        fail(f"{name} failed: {reason}")
    if failures:
        raise typer.Exit(2)


@zoo.command()
def publish(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Finished folders of `zoo train`.", callback=_folders),
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder to publish in; made if need be.")],
) -> None:
    """Write slim checkpoints of finished runs, with log, configuration, evaluation and ranking.

    A slim checkpoint has the averaged weights in half precision: all that evaluating and scanning
    need, about a quarter of the size. Maps and training state stay in the run's folder.

    Example: attnsearch zoo publish runs/rtep-femto-seed1 --to attnsearch/zoo
    """
    from attnsearch import experiments

    for run in runs:
        note(f"published: {experiments.publish(run, to)}")


@zoo.command()
def emergence(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="Published checkpoints, folders of `zoo train`, or packaged models by name.",
            callback=options.models,
        ),
    ],
    output: options.Output = None,
    as_json: options.Json = False,
) -> None:
    """When a model learned relations, and when its relational head appeared.

    One row per snapshot of its training: shares of images with the asked shapes, colours, binding
    and relation, in combinations trained on; and the head with the largest relational score.

    A picture written with -o has a column per model: accuracies above, the head's score below.

    Example: attnsearch zoo emergence rtep-atto-seed0 -o emergence.png
    """
    from attnsearch.api.emergence import emergence as followed

    show(followed(models), output=output or (), as_json=as_json)


def _row(model: Summary) -> list[str]:
    def cell(value: Any, form: str = "") -> str:
        return "-" if value is None else format(value, form)

    return [
        model.name,
        cell(model.encoder),
        cell(model.size),
        cell(model.seed),
        cell(model.parameters, ","),
        cell(model.relation_loose, ".3f"),
        cell(model.relation_loose_held_out, ".3f"),
        cell(model.head),
        cell(model.score, "+.3f"),
        cell(model.q_value, ".2g"),
    ]


@contextmanager
def _board(names: list[str]) -> Iterator[Callable[[str, "News"], None]]:
    """One bar per experiment on stderr; in a file, a line per stage. Yields who takes the news."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    board = Progress(
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[stage]}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    stages = dict.fromkeys(names, "")
    with board:
        rows = {name: board.add_task(name, total=1, stage="waits", text="") for name in names}

        def report(name: str, news: "News") -> None:
            if news.stage != stages[name]:
                stages[name] = news.stage
                board.reset(rows[name])  # the time left is of a stage
                if not console.is_terminal:
                    note(f"{name}: {news.stage}{', ' * bool(news.text)}{news.text}")
            board.update(
                rows[name],
                stage=news.stage,
                completed=news.done,
                total=news.total,
                text=news.text,
            )

        yield report
