"""Text files of anyone: captions, prompts, experiments. No model is run on what passes."""

import os
from functools import cache
from pathlib import Path

import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

from attnsearch import scanning
from attnsearch.models import save_checkpoint

# diffusers turns a tensor into an array in a way NumPy is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FEW = examples(9, deep=100)
FILES = {
    "captions.txt": """red circle is above blue square
blue triangle is left of red square

circle is below triangle
""",
    "prompts.txt": """a {colour1:red} {shape1:square} {relation:above} a {shape2:circle}
# a remark
a blue circle {{left}} of a square
""",
    "prompts.jsonl": """{"text": "a red square", "roles": {"shape1": [[6, 12]], "a": ["red"]}}
{"text": "a circle", "roles": {}, "attributes": {"source": "me", "relation": "above"}}
{"text": "two words"}
""",
    "experiment.toml": """encoder = "rtep"
size = "femto"
seed = 3
min_distance = 1.5
steps = 20
snapshots = 2
guidance = 4.5
""",
}
PIECES = (
    "{", "}", "[", "]", '"', "\\", "\n", "#", ":", "=", ",", "\0", "\x1b[2J", "\u2028", "\u202e",
    "\ud800", "\ufeff", "-1", "1e999", "nan", "inf", "true", "null", "9" * 5000, "0x" + "f" * 5000,
    "2000-01-01", "\U0001f600", "a" * 200_000, "{" * 3000, "[" * 3000, "is " * 30_000,
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def models(tiny_checkpoint, tiny_pipelines, tmp_path_factory):
    """What reads captions, and what reads prompts."""
    folder = tmp_path_factory.mktemp("good")
    save_checkpoint(tiny_checkpoint, folder / "model.pt")
    tiny_pipelines.save(tiny_pipelines.pixart(), folder / "pixart")
    return folder / "model.pt", folder / "pixart"


@pytest.fixture(scope="module")
def read(lawful, place, models):
    """Gives a file to the command that reads it."""
    checkpoint, pipeline = models

    def run(path: Path):
        if path.suffix == ".toml":
            return lawful(place, "zoo", "train", path, "--out", place / "runs")
        model = checkpoint if path.stem == "captions" else pipeline
        words = ("--dry-run", "--store", place / "s.zarr", "--steps", 2, "--seeds", 1)
        return lawful(place, "scan", model, "--prompts", path, *words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnsearch.experiments.parallel._already_done", lambda *_: True)
        patch.setattr("attnsearch.scanning.estimate_seconds", lambda *_: 0.0)
        patch.setattr("attnsearch.scanning.open_subject", cache(scanning.open_subject))
        yield run


@pytest.mark.parametrize("name", FILES)
def test_files_as_they_should_be_are_read(read, place, name):
    (place / name).write_text(FILES[name])
    assert read(place / name).exit_code == 0


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@FEW
def test_damaged_bytes_of_a_text(read, place, damaged, name, data):
    (place / name).write_bytes(data.draw(damaged(FILES[name].encode())))
    read(place / name)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@FEW
def test_other_pieces_in_a_text(read, place, name, data):
    text = FILES[name]
    for _ in range(data.draw(st.integers(1, 3))):
        at, end = sorted(data.draw(st.integers(0, len(text))) for _ in range(2))
        end = data.draw(st.sampled_from([at, at + 1, end]))
        text = text[:at] + data.draw(st.sampled_from(PIECES)) + text[end:]
    (place / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    read(place / name)


KINDS = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a loop": lambda path: path.symlink_to(path),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "nothing": lambda path: None,
    "a terabyte": lambda path: (path.touch(), os.truncate(path, 2**40)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_text_is_refused_by_its_name(read, tmp_path, name, kind):
    KINDS[kind](tmp_path / name)
    result = read(tmp_path / name)
    assert result.exit_code == 2
    assert name in result.stderr


LEAST = 'encoder = "rte"\nsize = "atto"\nseed = 0'
LINES = (
    ("captions.txt", "red circle is above blue square " * 4000, "1: 128,000 characters, more than"),
    ("captions.txt", "red circle " + "is " * 30_000, "line 1: no known relation phrase"),
    ("captions.txt", "red\n\ncircle", "line 1: expected one of"),
    ("captions.txt", "circle is below triangle\n\x1b[2J", r"line 2: unknown word '\x1b[2j'"),
    ("prompts.txt", "{" * 89_999, "line 1: the brace at column"),
    ("prompts.jsonl", "[" * 90_000, "line 1: not a prompt: brackets"),
    ("prompts.jsonl", '{"text": ' + "9" * 90_000 + "}", "line 1: not a prompt: an integer"),
    ("experiment.toml", "seed = " + "9" * 9000, "an integer has thousands of digits"),
    ("experiment.toml", LEAST + "x" + "f" * 9000, "seed must fit 64 bits"),
    ("experiment.toml", "a = " + "[" * 9000, "brackets are nested too deeply"),
    ("experiment.toml", "a." * 3000 + "a = 1", "unknown key 'a'"),
    ("experiment.toml", 'size = "\x1b[2J"', "not TOML"),
    ("experiment.toml", "a = 1\n" * 20_000, "larger than 64 KiB"),
    ("experiment.toml", LEAST + "\nsteps = 1e9", "steps must be a whole number, not 1000000000.0"),
    ("experiment.toml", LEAST + "\nscan_seeds = 99999", "scan_seeds must be at most 10,000"),
    ("experiment.toml", LEAST + "\nsnapshots = 99999", "snapshots must be at most 1,000"),
    ("experiment.toml", LEAST + "\nguidance = " + "9" * 400, "guidance must be a finite number"),
    ("experiment.toml", LEAST + "\nguidance = nan", "guidance must be a finite number"),
    ("experiment.toml", LEAST + "\nnew = {a = 1}", "unknown key 'new'"),
)


@pytest.mark.parametrize(("name", "line", "culprit"), LINES, ids=range(len(LINES)))
def test_the_culprit_is_named_in_a_short_line(read, place, name, line, culprit):
    (place / name).write_text(line)
    result = read(place / name)
    assert result.exit_code == 2
    assert culprit in result.stderr
    assert len(result.stderr) < 600
