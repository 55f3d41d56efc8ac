"""The scan that benchmarks measure: a checkpoint's prompt grid under a few seeds."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch

from attnsearch.models import Checkpoint, load_checkpoint
from attnsearch.sampling import SamplerConfig
from attnsearch.scanning import DiTSubject, ScanPlan, execute_plan, plan_scan, read_captions
from attnsearch.task.captions import Caption, parse

ZOO_CHECKPOINT = Path(__file__).parents[1] / "attnsearch" / "zoo" / "rtep-femto-seed0.pt"
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What every variant of a benchmark samples."""

    checkpoint: Checkpoint
    plan: ScanPlan

    @classmethod
    def load(cls, path: Path, *, seeds: int, steps: int) -> Self:
        """Every prompt of the checkpoint's grid under seeds 0 to `seeds` - 1."""
        checkpoint = load_checkpoint(path)
        return cls(
            checkpoint=checkpoint,
            plan=plan_scan(
                DiTSubject(checkpoint, CPU),
                name="benchmark",
                prompts=read_captions("grid", checkpoint.task),
                seeds=seeds,
                sampler=SamplerConfig(steps=steps),
            ),
        )

    @property
    def captions(self) -> list[Caption]:
        """[sample]."""
        return [parse(prompt.text) for prompt in self.plan.prompts]

    def subject(self) -> DiTSubject:
        """What is scanned."""
        return DiTSubject(self.checkpoint, CPU)

    def scan(self, folder: Path) -> None:
        """Scan it into a new store in a folder."""
        execute_plan(self.plan, self.subject(), folder / "benchmark.zarr")

    def warm_up(self) -> "Workload":
        """A small part of it, of one block: what is imported or set up on first use."""
        plan = self.plan
        return Workload(
            checkpoint=self.checkpoint,
            plan=plan_scan(
                DiTSubject(self.checkpoint, CPU),
                name=plan.name,
                prompts=plan.prompts[:2],
                seeds=1,
                sampler=SamplerConfig(steps=2, guidance=plan.sampler.guidance),
            ),
        )

    def describe(self) -> dict[str, Any]:
        """What was run, for the results file."""
        layout = self.plan.layout
        return {
            "checkpoint_sha256": self.checkpoint.digest,
            "training_step": self.checkpoint.step,
            "samples": layout.samples,
            "steps": layout.steps,
            "branches": len(layout.branches),
            "layers": layout.layers,
            "heads": layout.heads,
            "maps": layout.maps,
            "samples_per_block": layout.block,
            "guidance": self.plan.sampler.guidance,
        }


def versions() -> dict[str, str]:
    """The packages that set the speed of a scan."""
    packages = ("attnsearch", "torch", "numpy", "zarr", "diffusers", "scipy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
