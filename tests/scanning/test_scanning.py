"""A scan stores what sampling did, wherever it was interrupted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attnsearch.capturing import recorder
from attnsearch.errors import (
    CaptionError,
    CheckpointError,
    ConfigError,
    PromptError,
    StoreError,
)
from attnsearch.models import Checkpoint
from attnsearch.sampling import SamplerConfig
from attnsearch.scanning import (
    DiTSubject,
    ScanPlan,
    estimate_seconds,
    execute_plan,
    plan_scan,
    read_captions,
)
from attnsearch.scanning.cost import sketch_cost
from attnsearch.store import open_scan
from attnsearch.task.spec import GRIDS, NAMINGS
from attnsearch_kernels import SketchedAttention, dct2, sketch_attention
from attnsearch_kernels.cost import (
    DEVICES,
    CallShape,
    attention_flops,
    floor_microseconds,
    sketch_flops,
)

CPU = torch.device("cpu")


def _plan(checkpoint: Checkpoint, block: int = 5, prompts: int = 12, seeds: int = 1) -> ScanPlan:
    plan = plan_scan(
        DiTSubject(checkpoint, CPU),
        name="tiny",
        prompts=read_captions("grid", checkpoint.task)[:prompts],
        seeds=seeds,
        sampler=SamplerConfig(steps=2),
    )
    return replace(plan, layout=replace(plan.layout, block=block))


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class _StopError(Exception):
    """Stands for a kill between two blocks."""


def test_a_scan_resumed_after_a_stop_has_the_bytes_of_an_uninterrupted_one(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    plan = _plan(tiny_checkpoint)
    execute_plan(plan, DiTSubject(tiny_checkpoint, CPU), tmp_path / "whole")
    calls = []

    def stop_after_a_block(_: int) -> None:
        calls.append(None)
        if len(calls) == 2:
            raise _StopError

    with pytest.raises(_StopError):
        execute_plan(
            plan, DiTSubject(tiny_checkpoint, CPU), tmp_path / "stopped", stop_after_a_block
        )
    assert open_scan(tmp_path / "stopped").sizes["sample"] == 10
    execute_plan(plan, DiTSubject(tiny_checkpoint, CPU), tmp_path / "stopped")
    assert _files(tmp_path / "stopped") == _files(tmp_path / "whole")


def test_progress_adds_up_to_every_map_also_when_resumed(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    plan = _plan(tiny_checkpoint)
    for _ in range(2):
        told: list[int] = []
        execute_plan(plan, DiTSubject(tiny_checkpoint, CPU), tmp_path / "s", told.append)
        assert sum(told) == plan.layout.maps


def test_stored_sketches_conserve_mass(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    plan = _plan(tiny_checkpoint)
    execute_plan(plan, DiTSubject(tiny_checkpoint, CPU), tmp_path / "s")
    grid = tiny_checkpoint.model.grid
    total = open_scan(tmp_path / "s")["sketch"].astype(np.float32).sum("role")
    ones = dct2(grid, grid, plan.layout.order).sum(0).numpy()
    np.testing.assert_allclose(total, np.broadcast_to(ones, total.shape), atol=4e-3)


def test_the_digest_of_the_checkpoint_guards_the_store(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    execute_plan(_plan(tiny_checkpoint), DiTSubject(tiny_checkpoint, CPU), tmp_path / "s")
    other = replace(tiny_checkpoint, digest="another file")
    with pytest.raises(StoreError, match="checkpoint_sha256"):
        execute_plan(_plan(other), DiTSubject(other, CPU), tmp_path / "s")


def test_weights_that_are_not_finite_are_refused_before_anything_is_written(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    average = {name: tensor.clone() for name, tensor in tiny_checkpoint.average.items()}
    average["final.bias"][0] = float("nan")
    broken = replace(tiny_checkpoint, average=average)
    with pytest.raises(CheckpointError, match=r"final\.bias holds NaN"):
        execute_plan(_plan(broken), DiTSubject(broken, CPU), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_every_seed_sees_every_prompt_before_the_next_begins(tiny_checkpoint: Checkpoint) -> None:
    plan = _plan(tiny_checkpoint, prompts=3, seeds=2)
    assert plan.seeds == [0, 0, 0, 1, 1, 1]
    assert [c.text for c in plan.prompts[:3]] == [c.text for c in plan.prompts[3:]]


def test_the_plan_counts_maps_and_keeps_blocks_small(tiny_checkpoint: Checkpoint) -> None:
    plan = plan_scan(
        DiTSubject(tiny_checkpoint, CPU),
        name="x",
        prompts=read_captions("grid", tiny_checkpoint.task),
        seeds=3,
        sampler=SamplerConfig(steps=14),
    )
    assert plan.layout.maps == 96 * 3 * 14 * 2 * 2 * 2
    assert plan.layout.bytes / plan.layout.blocks < 32 * 2**20
    assert estimate_seconds(plan, DiTSubject(tiny_checkpoint, CPU)) > 0


def test_the_cost_of_a_plan_is_that_of_the_calls_it_makes(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[CallShape, int]] = []

    def noting(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        roles: torch.Tensor,
        basis: torch.Tensor,
        **settings: object,
    ) -> SketchedAttention:
        batch, heads, tokens, channels = query.shape
        shape = CallShape(
            batch=batch,
            heads=heads,
            tokens=tokens,
            keys=key.shape[2],
            channels=channels,
            roles=roles.shape[2],
            basis=basis.shape[1],
        )
        calls.append((shape, query.element_size()))
        return sketch_attention(query, key, value, roles, basis, **settings)

    monkeypatch.setattr(recorder, "sketch_attention", noting)
    plan = _plan(tiny_checkpoint)
    execute_plan(plan, DiTSubject(tiny_checkpoint, CPU), tmp_path / "s")
    cost = sketch_cost(plan, DiTSubject(tiny_checkpoint, CPU))
    assert cost.attention_flops == sum(attention_flops(shape) for shape, _ in calls)
    assert cost.sketch_flops == sum(sketch_flops(shape) for shape, _ in calls)
    assert cost.floor_seconds is None
    on_gpu = replace(plan, attributes={**plan.attributes, "device": "NVIDIA H100 80GB HBM3"})
    floors = [floor_microseconds(s, DEVICES["H100"], itemsize=size) for s, size in calls]
    expected = sum(floor.microseconds for floor in floors) / 1e6
    assert sketch_cost(on_gpu, DiTSubject(tiny_checkpoint, CPU)).floor_seconds == pytest.approx(
        expected
    )


def test_without_guidance_there_is_one_branch(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    plan = plan_scan(
        DiTSubject(tiny_checkpoint, CPU),
        name="x",
        prompts=read_captions("grid", tiny_checkpoint.task)[:2],
        seeds=1,
        sampler=SamplerConfig(steps=2, guidance=1.0),
    )
    execute_plan(plan, DiTSubject(tiny_checkpoint, CPU), tmp_path / "s")
    assert open_scan(tmp_path / "s")["branch"].to_numpy().tolist() == ["cond"]


def test_a_text_with_two_meanings_is_refused(tiny_checkpoint: Checkpoint) -> None:
    subject = DiTSubject(tiny_checkpoint, CPU)
    prompt, *_ = read_captions("grid", tiny_checkpoint.task)
    other = replace(prompt, attributes={**prompt.attributes, "relation": "below"})
    settings = {"name": "x", "seeds": 1, "sampler": SamplerConfig(steps=2)}
    assert plan_scan(subject, prompts=[prompt, prompt], **settings).layout.samples == 2
    with pytest.raises(PromptError, match="twice with other roles"):
        plan_scan(subject, prompts=[prompt, other], **settings)


@pytest.mark.parametrize("settings", [{"seeds": 0}, {"prompts": []}, {"order": 5}, {"order": 0}])
def test_a_plan_out_of_range_is_refused(
    settings: dict[str, object], tiny_checkpoint: Checkpoint
) -> None:
    given = {"prompts": read_captions("grid", tiny_checkpoint.task), "seeds": 1, **settings}
    with pytest.raises(ConfigError):
        plan_scan(DiTSubject(tiny_checkpoint, CPU), name="x", sampler=SamplerConfig(), **given)


def test_prompts_come_from_a_file_of_captions(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("red square is left of blue circle\n\nBlue triangle is above red square\n")
    captions = read_captions(str(file), tiny_checkpoint.task)
    assert [prompt.attributes["relation"] for prompt in captions] == ["left", "above"]
    file.write_text("a red square to the left of a green circle\n")
    with pytest.raises(CaptionError, match="unknown word 'a'"):
        read_captions(str(file), tiny_checkpoint.task)
    with pytest.raises(CaptionError, match="cannot read prompts"):
        read_captions(str(tmp_path / "absent.txt"), tiny_checkpoint.task)


@pytest.mark.parametrize("source", GRIDS)
def test_a_grid_of_prompts_names_the_colours_it_is_called_after(
    tiny_checkpoint: Checkpoint, source: str
) -> None:
    named = {NAMINGS[GRIDS[source]]}
    prompts = read_captions(source, tiny_checkpoint.task)
    assert {tuple(f"colour{k}" in prompt.spans for k in (1, 2)) for prompt in prompts} == named
    assert {tuple(bool(p.attributes[f"colour{k}"]) for k in (1, 2)) for p in prompts} == named
    held_out = DiTSubject(tiny_checkpoint, CPU).coordinates(prompts)["held_out"]
    assert held_out.sum() == (12 if any(*named) else 0)


def test_a_scan_of_captions_without_colours_has_no_mass_and_no_score_of_them(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    plan = plan_scan(
        DiTSubject(tiny_checkpoint, CPU),
        name="tiny",
        prompts=read_captions("grid-no-colours", tiny_checkpoint.task)[::9],
        seeds=1,
        sampler=SamplerConfig(steps=1),
    )
    execute_plan(plan, DiTSubject(tiny_checkpoint, CPU), tmp_path / "s")
    scan = open_scan(tmp_path / "s").sel(branch="cond")
    assert not scan["sketch"].sel(role=["colour1", "colour2"]).any()
    said = scan["sketch"].sel(role=["shape1", "relation", "shape2"])
    assert said.any(["layer", "head", "step", "basis"]).all()
    assert not scan["score_colour"].any()
