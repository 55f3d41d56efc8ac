"""Help and refusals must not wait for the libraries that do the work."""

import json
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from attnsearch.cli import app
from attnsearch.lookup import EXAMPLE_MODEL

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch", "diffusers", "transformers", "zarr", "xarray", "dask", "distributed", "pandas",
    "scipy", "skimage", "matplotlib", "numpy",
)  # fmt: skip
QUESTIONS = ("numpy",)
"""What reading a question or a view of steps takes."""

PROBE = """
import json, os, sys
import rich.markdown, rich.table, typer.rich_utils  # what printing help takes, once for all
from attnsearch.cli import main

heavy, commands = json.load(sys.stdin)
for words in commands:
    # A fork each: what one command imports is not there for the next.
    end, begin = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(begin, 1)
        os.dup2(begin, 2)
        sys.argv = ["attnsearch", *words]
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        print(json.dumps([status, [name for name in heavy if name in sys.modules]]), flush=True)
        os._exit(0)
    os.close(begin)
    with os.fdopen(end, encoding="utf-8") as output:
        *said, report = output.read().splitlines()
    os.waitpid(child, 0)
    print(json.dumps([*json.loads(report), " ".join(said)]), flush=True)
"""

Seen = tuple[int, list[str], str]
"""Exit code, heavy libraries that were imported, what was printed."""

MODEL = EXAMPLE_MODEL

REFUSALS: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {
    "train": [
        ("--out run --encoder t5", "the t5 encoder needs a source", ()),
        ("--out run --encoder-source x", "takes no source", ()),
        ("--out run --from nosuch", "no such file or packaged model: nosuch", ()),
        ("--out run --colour-dropout often", "--colour-dropout must be", ()),
        ("--out begun", "already holds a run; pass --resume", ()),
        ("--out run --device 'my gpu'", "is no device", ()),
    ],
    "evaluate": [
        ("nosuch", "no such file or packaged model: nosuch", ()),
        (f"{MODEL} --wordings -o x.png", "x.png would show the prompt grid as trained", ()),
        (f"{MODEL} -o no/x.png", "there is no folder no", ()),
        (f"{MODEL} -o x.txt", "x.txt must end in .csv, .json", ()),
        (f"{MODEL} --steps 1000", "steps must lie between 1 and 999", ()),
        (f"{MODEL} --guidance nan", "guidance must be a finite number", ()),
    ],
    "scan": [
        ("nosuch", "no such file or packaged model: nosuch", ()),
        (f"{MODEL[:-1]}", f"did you mean {MODEL}", ()),
        (f"{MODEL} {MODEL}", "several models would be scanned as", ()),
        (f"{MODEL} --name 'a b'", "cannot be the name of a scan", ()),
        (f"{MODEL} --heads 4", "is read with --encoder", ()),
        (f"{MODEL} --encoder t5", "the t5 encoder needs a source", ()),
        (f"{MODEL} --size 64", "--size is for pipelines", ()),
        (f"{MODEL} --vae no", "no such folder: no", ()),
        (f"{MODEL} --prompts no.txt", "cannot read prompts from no.txt", ()),
        (f"{MODEL} --store no/x.zarr", "there is no folder no", ()),
        (f"{MODEL} --store file", "is a file, not an attnsearch store", ()),
        (f"{MODEL} --dask nowhere", "no scheduler is called 'nowhere'", ()),
        ("folder", "neither a checkpoint file nor a pipeline's folder", ()),
    ],
    "rank": [
        ("", "no store is named", QUESTIONS),
        ("x.zarr", "x.zarr does not exist", QUESTIONS),
        (MODEL, "is a packaged model and no store", QUESTIONS),
        ("folder --metric spatial", "unknown metric 'spatial'", QUESTIONS),
        ("folder --over all", "--over is mean or peak", ()),
        ("folder --noise high", "--noise is a range", ()),
        ("folder --noise 1:0", "--noise is a range such as", ()),
        ("folder -o x.txt", "must end in .csv, .json", ()),
        ("folder -o no/x.png", "there is no folder no", ()),
        ("folder --dask nowhere", "no scheduler is called 'nowhere'", ()),
        ("--metric qk-relational", "reads models, name some", QUESTIONS),
        ("nosuch --metric qk-relational", "no such file or packaged model", QUESTIONS),
        (f"{MODEL} --metric qk-relational --map", "--map need a store", QUESTIONS),
        ("folder --metric qk-relational", "is a folder without", QUESTIONS),
    ],
    "ask": [
        ("'object1 -> relation'", "no store is named", QUESTIONS),
        ("x.zarr 'object1 -> relation'", "x.zarr does not exist", QUESTIONS),
        ("'object1 -> relation' x.zarr", "the store comes first", ()),
        ("x.zarr", "x.zarr is a store; say what is asked of it", ()),
        ("x.zarr object1 relation", "a question stands in quotation marks", ()),
        ("object1 -", "a question stands in quotation marks", ()),
        ("'object1 ->'", "expected a role", QUESTIONS),
    ],
    "maps": [
        ("L0H0", "no store is named", ()),
        ("x.zarr L0H0", "x.zarr does not exist", ()),
        ("first", "'first' is not a head address", ()),
        ("folder L0H0 -o x.txt", "must end in .csv, .json", ()),
    ],
    "cluster": [
        ("", "no store is named", ()),
        ("x.zarr", "x.zarr does not exist", ()),
        ("folder --behaviours many", "--behaviours is a number or auto", ()),
    ],
    "similar": [
        ("", "no store is named", ()),
        ("folder", "say either --to", ()),
    ],
    "circuit": [
        ("nosuch", "no such file or packaged model: nosuch", ()),
        (f"{MODEL} --head first", "'first' is not a head address", ()),
        (f"{MODEL} -o file", "file must end in .json, .png, .svg or .pdf", ()),
        (f"{MODEL} -o x.csv", "a circuit is three tables", ()),
    ],
    "ablate": [
        (MODEL, "say which heads", ()),
        (f"{MODEL} --head first", "'first' is not a head address", ()),
        (f"{MODEL} --head L0H0 --hide shape1", "--hide is for --mode mask", ()),
        (f"{MODEL} --head L0H0 --mode mask --hide verb", "there is no role 'verb'", ()),
        (f"{MODEL} --head L1H0 --into L0H0", "does not come after", ()),
        (f"{MODEL} --head L1H0 --first-step 2 --last-step 1", "is before the first", ()),
        (f"{MODEL} --head L1H0 -o no/x.png", "there is no folder no", ()),
    ],
    "steer": [
        (MODEL, "say what is steered by", ()),
        (f"{MODEL} --head L0H0 --to beside", "there is no relation 'beside'", ()),
        (f"{MODEL} --head L0H0 --strength 2", "the tag of a prompt is whole", ()),
        (f"{MODEL} --role verb", "there is no role 'verb'", ()),
        (f"{MODEL} --role relation -o x.png", "x.png must end in .csv", ()),
    ],
    "aggregate": [
        ("entropy", "no store is named", ()),
        ("x.zarr entropy", "x.zarr does not exist", ()),
        ("x.zarr", "x.zarr is a store; say what is asked of it", ()),
        ("folder entropy --quantiles 2", "quantiles are numbers from 0 to 1", ()),
        ("folder entropy -o no/x.parquet", "there is no folder no", ()),
    ],
    "verify": [
        ("", "no store is named", ()),
        ("x.zarr", "x.zarr does not exist", ()),
        ("folder -o x.png", "x.png must end in .csv", ()),
    ],
    "publish": [("--to y.zarr", "no store is named", ())],
    "store": [("merge", "No such command 'merge'", ())],
    "store remove": [
        ("scan", "no store is named", ()),
        ("x.zarr scan", "x.zarr does not exist", ()),
        ("x.zarr scan more", "usage: attnsearch store remove [STORE] SCAN", ()),
    ],
    "store rename": [
        ("scan new", "no store is named", ()),
        ("scan", "usage: attnsearch store rename [STORE] SCAN NEW", ()),
    ],
    "info": [("", "no store is named", ()), ("nosuch", "no such file or packaged model", ())],
    "zoo": [("--folder no", "no such folder: no", ())],
    "zoo train": [("no.toml --out runs", "cannot read no.toml", ())],
    "zoo publish": [("no --to zoo", "no is no folder of a finished run", ())],
    "zoo emergence": [
        ("nosuch", "no such file or packaged model: nosuch", ()),
        (f"{MODEL} -o no/x.png", "there is no folder no", ()),
    ],
}
"""Of every verb what it refuses, the line it does that with, and what it may have imported."""


def verbs() -> set[str]:
    program: Any = typer.main.get_command(app)
    found = set()
    for name, command in program.commands.items():
        found |= {name, *(f"{name} {inner}" for inner in getattr(command, "commands", {}))}
    return found


def probe(commands: list[list[str]], folder: Path) -> list[Seen]:
    """What commands do, in one process, for starting one takes longer than what it is to show."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps([HEAVY, commands]),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels"))), "COLUMNS": "200"},
    )
    return [tuple(json.loads(line)) for line in result.stdout.splitlines()]


@cache
def all_seen(folder: Path) -> dict[tuple[str, ...], Seen]:
    """What every command that is looked at does."""
    (folder / "folder").mkdir()
    (folder / "file").touch()
    (folder / "begun").mkdir()
    (folder / "begun" / "checkpoint.pt").touch()
    commands = [["--version"], ["--help"]]
    commands += [[*verb.split(), "--help"] for verb in sorted(verbs())]
    commands += [[*verb.split(), "-h"] for verb in ("", "rank", "zoo train")]
    commands += [
        [*verb.split(), *shlex.split(words)]
        for verb, refusals in REFUSALS.items()
        for words, *_ in refusals
    ]
    seen = probe(commands, folder)
    return {tuple(words): each for words, each in zip(commands, seen, strict=True)}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Seen]:
    return all_seen(tmp_path_factory.mktemp("light"))


def test_help_and_version_answer_without_any_heavy_library(
    seen: dict[tuple[str, ...], Seen],
) -> None:
    asked = {words: each for words, each in seen.items() if words[-1] == "--help"}
    assert len(asked) == len(verbs()) + 1
    for words, (status, loaded, said) in asked.items():
        assert (status, loaded) == (0, []), words
        assert "Usage" in said
    assert seen["--version",][:2] == (0, [])


def test_the_short_and_the_long_form_of_help_are_the_same(
    seen: dict[tuple[str, ...], Seen],
) -> None:
    for words, each in seen.items():
        if words[-1] == "-h":
            assert each == seen[(*words[:-1], "--help")]


def test_every_verb_is_listed_with_what_it_refuses() -> None:
    assert verbs() == REFUSALS.keys()


@pytest.mark.parametrize(
    ("verb", "words", "line", "allowed"),
    [(verb, *refusal) for verb, refusals in REFUSALS.items() for refusal in refusals],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_refused_before_the_work_is_imported(
    seen: dict[tuple[str, ...], Seen],
    verb: str,
    words: str,
    line: str,
    allowed: tuple[str, ...],
) -> None:
    status, loaded, said = seen[(*verb.split(), *shlex.split(words))]
    assert status == 2
    assert line in said
    assert "Traceback" not in said
    assert set(loaded) <= set(allowed)
