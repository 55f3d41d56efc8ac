"""What becomes of scans of pipelines: resumed, in memory, on what schedule, and asked."""

import gc
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import attnsearch
from attnsearch.aggregation import basis_of
from attnsearch.cli import app
from attnsearch.errors import ConfigError
from attnsearch.models.pipelines import call_settings, forecast, load_pipeline, noise_levels
from attnsearch.prompts import read_prompts
from attnsearch.sampling import SamplerConfig
from attnsearch.scanning import PipelineSubject, Reading, execute_plan, plan_scan

# diffusers turns a tensor into an array in a way NumPy is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = torch.device("cpu")
SIZE = 64


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def scan(folder, store, prompts, *words):
    common = ("--size", SIZE, "--steps", 2, "--seeds", 1, "--device", "cpu")
    return run("scan", folder, "--store", store, "--prompts", prompts, *common, *words)


def refused(result):
    """The one line a refused command prints."""
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("attnsearch: ")
    return line


def files(folder: Path):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class StopError(Exception):
    """Stands for a kill between two blocks."""


def test_a_resumed_scan_has_the_bytes_of_an_uninterrupted_one(pipeline_folder, prompts, tmp_path):
    def scan_into(store, advance=lambda _: None):
        subject = PipelineSubject(pipeline_folder("hunyuandit"), torch.device("cpu"), size=SIZE)
        plan = plan_scan(
            subject, name="tiny", prompts=read_prompts(prompts), seeds=2,
            sampler=SamplerConfig(steps=2), batch=1,
        )  # fmt: skip
        execute_plan(plan, subject, store, advance)

    told = []

    def stop(maps):
        told.append(maps)
        if len(told) == 3:
            raise StopError

    with pytest.raises(StopError):
        scan_into(tmp_path / "stopped", stop)
    assert 0 < attnsearch.open_scan(tmp_path / "stopped").sizes["sample"] < 4
    scan_into(tmp_path / "stopped")
    scan_into(tmp_path / "whole")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_without_guidance_there_is_one_branch(pipeline_folder, prompts, tmp_path):
    result = scan(pipeline_folder("pixart"), tmp_path / "s", prompts, "--guidance", 1)
    assert result.exit_code == 0, result.output
    assert attnsearch.open_scan(tmp_path / "s")["branch"].to_numpy().tolist() == ["cond"]


def live_bytes():
    """Bytes of all tensors that came since the collector was frozen."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


@pytest.fixture
def only_new_objects():
    """The collector forgets what is there, of which there is a lot."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.deep  # asks the garbage collector what is alive
@pytest.mark.usefixtures("only_new_objects")
@pytest.mark.parametrize("name", ["pixart", "flux"])
def test_memory_holds_what_the_layout_says_and_no_more_with_every_step(
    name, pipeline_folder, prompts, tmp_path
):
    """Tensors alive at the beginning of every pass, beside the block that is being gathered."""
    subject = PipelineSubject(pipeline_folder(name), CPU, size=SIZE)
    seen = []
    steady, gathered = {}, {}
    for steps in (4, 7):
        plan = plan_scan(
            subject, name=f"{steps}", prompts=read_prompts(prompts), seeds=1,
            sampler=SamplerConfig(steps=steps),
        )  # fmt: skip
        seen.clear()
        with watching(subject, seen):
            execute_plan(plan, subject, tmp_path / "s")
        assert len(seen) == steps
        steady[steps] = set(seen[2:])  # a solver of second order keeps the step before
        held = ("sketch", "energy", "entropy", "peak")
        gathered[steps] = sum(spec.bytes for spec in plan.layout.arrays() if spec.name in held)
    assert all(len(each) == 1 for each in steady.values())
    grown = steady[7].pop() - steady[4].pop()
    schedule = 3 * 64  # the scheduler's own numbers
    assert abs(grown - (gathered[7] - gathered[4])) <= schedule


@contextmanager
def watching(subject, seen):
    """Notes the bytes alive at the beginning of every forward pass."""
    transformer = subject._pipe.transformer
    hook = transformer.register_forward_pre_hook(lambda *_: seen.append(live_bytes()))
    yield
    hook.remove()


@pytest.fixture(scope="module")
def store(pipeline_folder, prompts, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    assert scan(pipeline_folder("pixart"), path, prompts).exit_code == 0
    return path


def test_heads_are_ranked_by_the_relations_that_prompts_mark(store):
    result = run("rank", store, "--metric", "relational", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert {(row["layer"], row["head"]) for row in rows} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert all(-1 <= row["score"] <= 1 and row["score"] for row in rows)


def test_pixart_is_ranked_by_its_weights_and_others_say_why_not(pipeline_folder):
    screen = ("--metric", "qk-relational", "--json")
    rows = json.loads(run("rank", pipeline_folder("pixart"), *screen).stdout)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert all(row["energy"] > 0 and abs(row["cosine"]) <= 1 for row in rows)
    line = refused(run("rank", pipeline_folder("flux"), *screen))
    assert "FluxTransformer2DModel" in line
    told = refused(run("rank", pipeline_folder("pixart"), *screen, "--encoder", "rte"))
    assert "brings its own text encoder" in told
    assert "scan it" in line


def test_the_circuit_of_pixart_is_read_without_sampling(pipeline_folder, tmp_path):
    picture = tmp_path / "qk.png"
    result = run("circuit", pipeline_folder("pixart"), "--json", "-o", picture)
    table = json.loads(result.stdout)
    assert {row["address"] for row in table["writers"]} == {"L0H0", "L0H1", "L1H0", "L1H1"}
    assert table["writers"][0]["explained_by_step"] is None
    assert all(row["tilt_by_step"] is None for row in table["readers"])
    assert picture.exists()
    assert run("circuit", pipeline_folder("pixart")).exit_code == 0
    assert "FluxTransformer2DModel" in refused(run("circuit", pipeline_folder("flux")))


def test_prompts_without_a_relation_are_left_out_of_the_ranking(pipeline_folder, tmp_path):
    prompts = tmp_path / "prompts.txt"
    marked = ["a {shape1:square} {relation:above} it", "a {shape1:square} {relation:below} it"]
    rankings = []
    for name, lines in (("marked", marked), ("mixed", [*marked, "a {shape1:cat}"])):
        prompts.write_text("\n".join(lines))
        assert scan(pipeline_folder("pixart"), tmp_path / name, prompts).exit_code == 0
        rankings.append(json.loads(run("rank", tmp_path / name, "--json").stdout))
    scores = [[row["score"] for row in ranking] for ranking in rankings]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_saved_in_half_precision_are_scanned(dtype, pipeline_folder, prompts, tmp_path):
    from diffusers import DiffusionPipeline

    folder = tmp_path / "half"
    pipe = DiffusionPipeline.from_pretrained(pipeline_folder("pixart"), dtype=dtype)
    pipe.save_pretrained(folder)
    assert scan(folder, tmp_path / "s", prompts).exit_code == 0
    assert np.isfinite(attnsearch.open_scan(tmp_path / "s")["entropy"]).all()


def test_what_lies_beside_the_model_is_no_part_of_it(pipeline_folder, prompts, tmp_path):
    folder = tmp_path / "pixart"
    shutil.copytree(pipeline_folder("pixart"), folder)
    assert scan(folder, folder / "maps.zarr", prompts).exit_code == 0
    (folder / "notes.txt").write_text("a second look")
    assert scan(folder, folder / "maps.zarr", prompts).exit_code == 0


def test_what_a_pipeline_runs_into_is_one_line_and_does_not_hide_other_scans(
    pipeline_folder, prompts, tmp_path
):
    store = tmp_path / "s"
    assert scan(pipeline_folder("pixart"), store, prompts).exit_code == 0
    # To PixArt a single step means a distilled model, which this is not.
    broken = run(
        "scan", pipeline_folder("pixart"), "--store", store, "--prompts", prompts, "--name", "one",
        "--size", SIZE, "--steps", 1, "--seeds", 1, "--device", "cpu",
    )  # fmt: skip
    assert broken.exit_code == 2
    *_, line = broken.stderr.strip().splitlines()
    assert line.startswith("attnsearch: PixArtAlphaPipeline cannot paint")
    assert run("rank", store).exit_code == 0


def test_a_call_that_starts_from_an_image_has_the_noise_it_starts_with(pipeline_folder):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    whole = noise_levels(scheduler, 4)
    scheduler.set_begin_index(2)
    np.testing.assert_array_equal(noise_levels(scheduler, 2), whole[2:])


def test_prompts_that_mark_no_relation_are_not_ranked(pipeline_folder, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red square\na blue circle\n")
    assert scan(pipeline_folder("pixart"), tmp_path / "s", prompts).exit_code == 0
    roles = attnsearch.open_scan(tmp_path / "s")["role"].to_numpy().tolist()
    assert roles == ["a", "red", "square", "blue", "circle", "filler", "end", "pad"]
    assert "mark their relation words" in refused(run("rank", tmp_path / "s"))


def test_the_grid_of_the_task_is_what_a_pipeline_paints_by_default(pipeline_folder, tmp_path):
    result = run(
        "scan", pipeline_folder("flux"), "--store", tmp_path / "s", "--size", SIZE, "--steps", 1,
        "--seeds", 1, "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert attnsearch.open_scan(tmp_path / "s").sizes["sample"] == 96
    assert run("rank", tmp_path / "s", "--json").exit_code == 0


def left_and_right(image, prompt):
    """Object 1 on the left in images of squares, nothing in the others."""
    height, width, _ = image.shape
    left = np.arange(width) < width // 2
    if "square" not in prompt.text.split()[0:3]:
        return {}
    return {"object1": np.tile(left, (height, 1)), "object2": np.tile(~left, (height, 1))}


def test_regions_are_those_a_segmenter_finds(pipeline_folder, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(
        "a {shape1:square} {relation:above} it\na {shape1:circle} {relation:below} it\n"
    )
    reading = Reading(segmenter=left_and_right, regions=("object1", "object2"), size=SIZE)
    settings = {"prompts": str(prompts), "seeds": 1, "sampler": SamplerConfig(steps=2)}
    attnsearch.scan(pipeline_folder("pixart"), tmp_path / "s", reading=reading, **settings)
    scan = attnsearch.open_scan(tmp_path / "s")
    height, width = scan.attrs["grid"]
    weights = scan["region_coefficients"].to_numpy() @ basis_of(scan)
    assert np.isnan(weights[1]).all()
    left = np.tile(np.arange(width) < width // 2, (height, 1)).ravel()
    np.testing.assert_allclose(weights[0], [left, ~left], atol=1e-5)
    (row, *_) = json.loads(run("ask", tmp_path / "s", "object1 -> relation", "--json").stdout)
    assert row["prompts"] == 1
    other = Reading(segmenter=left_and_right, regions=("object1",), size=SIZE)
    with pytest.raises(
        ConfigError, match="'object2' was found, which is none of the regions object1"
    ):
        attnsearch.scan(pipeline_folder("pixart"), tmp_path / "t", reading=other, **settings)
    with pytest.raises(ConfigError, match="go together"):
        PipelineSubject(pipeline_folder("pixart"), CPU, regions=("object1",))


def test_asking_about_regions_says_that_there_are_none(store):
    line = refused(run("ask", store, "object1 -> relation"))
    assert "nothing looked for objects in the images of pixart" in line


def test_hidden_files_do_not_make_another_model(pipeline_folder, store, prompts):
    folder = pipeline_folder("pixart")
    before = files(store)
    hidden = folder / ".cache" / "huggingface"
    hidden.mkdir(parents=True)
    (hidden / "lock").write_text("now")
    (folder / ".gitattributes").write_text("now")
    assert scan(folder, store, prompts).exit_code == 0
    assert files(store) == before


def test_a_dry_run_says_what_a_scan_would_take(pipeline_folder, prompts, tmp_path):
    result = scan(pipeline_folder("sd3"), tmp_path / "s", prompts, "--dry-run")
    facts = json.loads(result.stdout)
    assert facts["maps"] == 2 * 2 * 2 * 2 * 2
    keys, channels = 16 + 77 + 256, 8
    assert facts["attention_flops"] == facts["maps"] * 4 * 16 * keys * channels
    assert not (tmp_path / "s").exists()


SCHEDULERS = {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "no signal": (
        "DDIMScheduler",
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ),
    "dpm": ("DPMSolverMultistepScheduler", {}),
    "karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "flow dpm": (
        "DPMSolverMultistepScheduler",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    ),
    "euler": ("EulerDiscreteScheduler", {}),
    "flow euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_noise_levels_are_those_at_which_the_scheduler_adds_noise(name, pipeline_folder):
    import diffusers

    kind, settings = SCHEDULERS[name]
    scheduler = getattr(diffusers, kind)(**settings)
    pipe = load_pipeline(pipeline_folder("sd3" if "FlowMatch" in kind else "pixart"), CPU)
    pipe.scheduler = scheduler.from_config(scheduler.config)
    expected = forecast(pipe, call_settings(pipe, steps=4, guidance=4.5, size=SIZE))
    scheduler.set_timesteps(4)
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    for step, timestep in enumerate(scheduler.timesteps[:, None]):
        if "FlowMatch" in kind:
            image = scheduler.scale_noise(one, timestep, zero)
            noise = scheduler.scale_noise(zero, timestep, one)
        else:
            image = scheduler.add_noise(one, zero, timestep)
            noise = scheduler.add_noise(zero, one, timestep)
        share = (noise / (noise + image)).item()
        assert expected.noise_level[step] == pytest.approx(share, abs=2e-6)
        assert expected.timestep[step] == pytest.approx(timestep.item())


def test_a_scheduler_that_calls_more_often_than_it_steps_is_refused(pipeline_folder):
    from diffusers import HeunDiscreteScheduler

    subject = PipelineSubject(pipeline_folder("pixart"), CPU, size=SIZE)
    subject._pipe.scheduler = HeunDiscreteScheduler()
    with pytest.raises(ConfigError, match="HeunDiscreteScheduler takes 5 steps where 3 were"):
        subject.schedule(SamplerConfig(steps=3))


def test_planning_leaves_the_random_numbers_of_the_process_alone(pipeline_folder):
    subject = PipelineSubject(pipeline_folder("pixart"), CPU, size=SIZE)
    before = torch.get_rng_state()
    assert subject.anatomy.layers == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_info_describes_a_pipeline(pipeline_folder):
    result = run("info", pipeline_folder("flux"), "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    pipe = load_pipeline(pipeline_folder("flux"), CPU)
    assert facts["parameters"] == sum(weight.numel() for weight in pipe.transformer.parameters())
    del facts["parameters"]
    assert facts == {
        "kind": "pipeline",
        "pipeline": "FluxPipeline",
        "family": "Flux",
        "transformer": "FluxTransformer2DModel",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "attention": "joint",
        "layers": 2,
        "heads": 2,
        "channels of a head": 8,
        "grid": [64, 64],
        "text tokens": 512,
    }
    assert "FluxPipeline" in run("info", pipeline_folder("flux")).stdout


def test_a_processor_that_cannot_be_watched_is_refused_before_sampling(pipeline_folder):
    class OwnProcessor:
        def __call__(self, attention, hidden_states, *others, **settings):
            return hidden_states

    subject = PipelineSubject(pipeline_folder("sd3"), CPU, size=SIZE)
    subject._pipe.transformer.transformer_blocks[1].attn.set_processor(OwnProcessor())
    with pytest.raises(ConfigError, match=r"layer 1 of SD3Transformer2DModel has .* OwnProcessor"):
        _ = subject.anatomy


def test_a_pipeline_that_rewrites_prompts_is_refused(pipeline_folder, monkeypatch):
    pipe = load_pipeline(pipeline_folder("pixart"), CPU)
    cleaned = type(pipe)._text_preprocessing
    monkeypatch.setattr(
        pipe,
        "_text_preprocessing",
        lambda text, **how: ["re " + t for t in cleaned(pipe, text, **how)],
    )
    with pytest.raises(ConfigError, match="text_encoder of PixArtAlphaPipeline reads other tokens"):
        forecast(pipe, call_settings(pipe, steps=2, guidance=4.5, size=SIZE))


def test_a_missing_package_is_named_with_the_extra_that_brings_it(pipeline_folder, monkeypatch):
    from attnsearch.models import pipelines

    monkeypatch.setattr(pipelines, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"attnsearch\[diffusers\]"):
        load_pipeline(pipeline_folder("pixart"), CPU)
