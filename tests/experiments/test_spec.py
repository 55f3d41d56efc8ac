import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.experiments import read_experiment, training_config
from attnsearch.experiments.spec import parse_experiment
from attnsearch.models import Origin
from attnsearch.task.captions import token_ids, training_captions
from attnsearch.task.scenes import draw_scenes
from attnsearch.task.spec import PRESETS, PhraseSet
from attnsearch.task.wordings import wordings
from attnsearch.training import ColourDropout
from attnsearch.zoo import FOLDER

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))
GOOD = {"encoder": '"rtep"', "size": '"atto"', "seed": "1"}


def written(folder, changes=None, name="one"):
    lines = GOOD | (changes or {})
    path = folder / f"{name}.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in lines.items() if value))
    return path


def test_an_experiment_is_called_by_its_file_and_has_defaults(tmp_path):
    experiment = read_experiment(written(tmp_path, name="rtep-atto-seed1"))
    assert experiment.name == "rtep-atto-seed1"
    assert (experiment.encoder, experiment.size, experiment.seed) == ("rtep", "atto", 1)
    assert (experiment.task, experiment.steps, experiment.snapshots) == ("small", 12_000, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("surprise", "1"),
        ("name", '"two"'),
        ("encoder", '"t6"'),
        ("encoder", "1"),
        ("encoder", None),
        ("size", '"huge"'),
        ("size", None),
        ("seed", "true"),
        ("seed", "1.0"),
        ("seed", '"1"'),
        ("seed", "0x1_0000_0000_0000_0000"),
        ("seed", None),
        ("task", '"large"'),
        ("objective", '"score"'),
        ("steps", "0"),
        ("snapshots", "-1"),
        ("snapshots", "12_001"),
        ("scan_seeds", "0"),
        ("evaluation_seeds", "[1]"),
        ("sampling_steps", "1000"),
        ("guidance", "nan"),
        ("guidance", '"strong"'),
        ("min_distance", "true"),
        ("min_distance", "-0.1"),
        ("min_distance", "3.1"),
        ("min_distance", "nan"),
        ("encoder_source", '"somewhere"'),
        ("encoder_dtype", '"float16"'),
        ("phrases", '"some"'),
        ("phrases", "22"),
        ("colour_dropout", "1.5"),
        ("colour_dropout", '"half"'),
        ("colour_dropout", "[[1, 0.5]]"),
        ("colour_dropout", "[[0, 0.0], [12_000, 0.5]]"),
        ("held_out_seed", '"all"'),
        ("held_out_seed", "0.5"),
        ("from", '"no-such-model"'),
        ("from", "3"),
        ("start", '"rtep-atto-seed0"'),
        ("learning_rate_factor", "0"),
        ("learning_rate_factor", "-0.5"),
        ("learning_rate_factor", "nan"),
    ],
)
def test_a_bad_key_is_refused_in_one_line_with_file_and_key(tmp_path, key, value):
    path = written(tmp_path, {key: value})
    with pytest.raises(ConfigError) as caught:
        read_experiment(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert key in message or key.removeprefix("encoder_") in message


@pytest.mark.parametrize("content", [b"encoder = ", b"seed = 1\nseed = 2\n", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_named(tmp_path, content):
    path = tmp_path / "one.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))} is not TOML"):
        read_experiment(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"cannot read {re.escape(str(tmp_path))}"):
        read_experiment(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml"):
        read_experiment(tmp_path / "none.toml")


def test_a_name_that_no_folder_should_have_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="named in letters"):
        read_experiment(written(tmp_path, name="two words"))


def test_the_table_of_an_experiment_is_read_back(experiment):
    changed = replace(
        experiment,
        min_distance=1.5,
        phrases=PhraseSet.ALL,
        colour_dropout=ColourDropout.read([[0, 0.0], [2, 0.5]]),
        held_out_seed="none",
        start="/somewhere/model.pt",
        learning_rate_factor=0.5,
    )
    for one in (experiment, changed, replace(changed, colour_dropout=ColourDropout.read(0.5))):
        json.dumps(one.table())
        assert parse_experiment(one.table(), Path("record.json")) == one


def test_the_distance_of_the_objects_reaches_the_task(tmp_path):
    preset = training_config(read_experiment(written(tmp_path)))
    apart = training_config(read_experiment(written(tmp_path, {"min_distance": "2"})))
    assert preset.task.min_distance == 0.9
    assert apart.task == replace(preset.task, min_distance=2.0)


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("phrases", '"all"', "phrases", PhraseSet.ALL),
        ("colour_dropout", "0.5", "colour_dropout", 0.5),
        ("colour_dropout", "[[0, 0], [6000, 0.5]]", "colour_dropout", 0.5),
        ("held_out_seed", "4", "held_out_seed", 4),
        ("held_out_seed", '"none"', "held_out_seed", None),
    ],
)
def test_a_key_of_the_task_overrides_the_preset(tmp_path, key, value, field, expected):
    preset = read_experiment(written(tmp_path)).task_spec()
    assert preset == PRESETS["small"]
    changed = read_experiment(written(tmp_path, {key: value})).task_spec()
    assert getattr(changed, field) == expected
    assert replace(changed, text_length=12, **{field: getattr(preset, field)}) == preset


def test_a_schedule_reaches_the_training(tmp_path):
    path = written(tmp_path, {"colour_dropout": "[[0, 0], [6000, 0.5]]"})
    config = training_config(read_experiment(path))
    assert [config.dropout.at(step) for step in (0, 5999, 6000)] == [0, 0, 0.5]


@pytest.mark.parametrize("task", PRESETS)
@pytest.mark.parametrize("phrases", list(PhraseSet))
def test_every_wording_of_the_task_fits_its_text_length(experiment, task, phrases):
    spec = replace(experiment, task=task, phrases=phrases).task_spec()
    for captions in (training_captions(spec), *wordings(spec).values()):
        token_ids(captions, spec.text_length)


def test_both_learning_rates_have_the_factor(experiment):
    full, half = (
        training_config(replace(experiment, learning_rate_factor=factor)) for factor in (None, 0.5)
    )
    assert half.learning_rate == full.learning_rate / 2
    assert half.matrix_learning_rate == full.matrix_learning_rate / 2


def test_a_training_starts_from_a_packaged_model(tmp_path):
    path = written(tmp_path, {"from": '"rtep-atto-seed0"', "phrases": '"all"'})
    config = training_config(read_experiment(path))
    assert config.origin == Origin(
        name="rtep-atto-seed0",
        digest=sha256((FOLDER / "rtep-atto-seed0.pt").read_bytes()).hexdigest(),
    )


def test_a_file_to_start_from_is_found_from_where_the_experiment_is(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/model.pt").symlink_to(FOLDER / "rtep-atto-seed0.pt")
    (tmp_path / "files").mkdir()
    path = written(tmp_path / "files", {"from": '"../runs/model.pt"'})
    assert training_config(read_experiment(path)).start.name == "model"
    gone = written(tmp_path / "files", {"from": '"model.pt"'}, name="gone")
    with pytest.raises(CheckpointError, match=str(tmp_path / "files/model.pt")):
        training_config(read_experiment(gone))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_of_the_repository_is_named_for_what_it_is(path):
    experiment = read_experiment(path)
    assert path.stem.endswith(f"-seed{experiment.seed}")
    named = f"{experiment.encoder}-{experiment.size}-seed{experiment.seed}"
    if path.stem.startswith("dropout-"):
        assert path.stem == f"dropout-{named}"
        assert experiment.start == named
        assert experiment.task_spec().colour_dropout == 0.5
    elif not path.stem.startswith("overlap-"):
        assert path.stem == named
    assert training_config(replace(experiment, steps=100)).snapshot_steps[-1:] in [(), (100,)]


@pytest.mark.parametrize("path", [p for p in EXPERIMENTS if "overlap" in p.stem], ids=str)
def test_an_overlap_experiment_has_the_rate_in_its_name(path):
    task = read_experiment(path).task_spec()
    scenes = draw_scenes(task, 20_000, torch.Generator().manual_seed(0))
    offset = (scenes.centre[:, 0] - scenes.centre[:, 1]).abs()
    boxes_meet = (offset < 2 * task.radius).all(dim=1).double().mean()
    assert round(100 * float(boxes_meet)) == int(path.stem.split("-")[1])
