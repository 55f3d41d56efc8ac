import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attnsearch.errors import ConfigError
from attnsearch.experiments import read_experiment, training_config
from attnsearch.experiments.spec import parse_experiment
from attnsearch.task.scenes import draw_scenes

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
    for one in (experiment, replace(experiment, min_distance=1.5)):
        assert parse_experiment(one.table(), Path("record.json")) == one


def test_the_distance_of_the_objects_reaches_the_task(tmp_path):
    preset = training_config(read_experiment(written(tmp_path)))
    apart = training_config(read_experiment(written(tmp_path, {"min_distance": "2"})))
    assert preset.task.min_distance == 0.9
    assert apart.task == replace(preset.task, min_distance=2.0)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_of_the_repository_is_named_for_what_it_is(path):
    experiment = read_experiment(path)
    assert path.stem.endswith(f"-seed{experiment.seed}")
    if not path.stem.startswith("overlap-"):
        assert path.stem.startswith(f"{experiment.encoder}-{experiment.size}-")
    assert training_config(replace(experiment, steps=100)).snapshot_steps[-1:] in [(), (100,)]


@pytest.mark.parametrize("path", [p for p in EXPERIMENTS if "overlap" in p.stem], ids=str)
def test_an_overlap_experiment_has_the_rate_in_its_name(path):
    task = read_experiment(path).task_spec()
    scenes = draw_scenes(task, 20_000, torch.Generator().manual_seed(0))
    offset = (scenes.centre[:, 0] - scenes.centre[:, 1]).abs()
    boxes_meet = (offset < 2 * task.radius).all(dim=1).double().mean()
    assert round(100 * float(boxes_meet)) == int(path.stem.split("-")[1])
