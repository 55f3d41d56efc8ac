"""Scans of several models, their blocks spread over workers.

A task is some blocks of one scan. A worker carries it out as if it were alone: it opens the model,
plans the scan, claims each block in the store and writes it. So the client sends no weights and
receives no maps, and what a worker that dies had not finished, another one does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Final

from dask.delayed import Delayed, delayed

from attnsearch.devices import named_device
from attnsearch.sampling import SamplerConfig
from attnsearch.scanning.entry import GRID, open_subject, prompts_of
from attnsearch.scanning.execute import execute_plan
from attnsearch.scanning.plan import ScanPlan, plan_scan
from attnsearch.scanning.reading import Reading
from attnsearch.scanning.subject import Subject
from attnsearch.scheduling import Advance, Runner
from attnsearch.store import Place

_TOGETHER: Final = 4
"""Blocks of a task: one is sampled while the one before it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRequest:
    """One scan, as any process can carry it out that sees the same files."""

    model: Path
    """A checkpoint, or the folder of a pipeline."""
    name: str
    prompts: str
    seeds: int
    sampler: SamplerConfig
    order: int | None
    batch: int | None
    reading: Reading
    device: str
    """As `named_device` knows it; found out where the scan is carried out."""

    def open(self) -> tuple[Subject, ScanPlan]:
        """The model, and what is to be done with it.

        Raises:
            AttnsearchError: the model or the prompts are not usable.
        """
        subject = open_subject(self.model, named_device(self.device), self.reading)
        plan = plan_scan(
            subject,
            name=self.name,
            prompts=prompts_of(subject, self.prompts),
            seeds=self.seeds,
            sampler=self.sampler,
            order=self.order,
            batch=self.batch,
        )
        return subject, plan

    def anywhere(self) -> "ScanRequest":
        """The same for processes with other working folders."""
        vae = self.reading.vae
        return replace(
            self,
            model=self.model.absolute(),
            prompts=self.prompts if self.prompts == GRID else str(Path(self.prompts).absolute()),
            reading=replace(self.reading, vae=None if vae is None else vae.absolute()),
        )


def scan_tasks(request: ScanRequest, plan: ScanPlan, store: Place) -> list[Delayed]:
    """The tasks of a scan, some blocks each. `plan` is that of the request; the store is there."""
    place = store if isinstance(store, str) and "://" in store else Path(store).absolute()
    carry_out = delayed(_carry_out, pure=False)
    return [
        carry_out(request.anywhere(), place, range(plan.layout.blocks)[begin : begin + _TOGETHER])
        for begin in range(0, plan.layout.blocks, _TOGETHER)
    ]


def run_tasks(tasks: Sequence[Delayed], runner: Runner, advance: Advance) -> None:
    """Carry out the tasks of scans; `advance` is told of each.

    Raises:
        AttnsearchError: a task raised it. What others finished is kept.
    """
    runner.run(tasks, delayed(len)(list(tasks)), advance)


_one_at_a_time: Final = Lock()
_opened: Final[list[tuple[ScanRequest, Subject, ScanPlan]]] = []
"""The model that this process had last, which its next task most likely is for too."""


def _carry_out(request: ScanRequest, store: Place, blocks: range) -> None:
    with _one_at_a_time:  # a device has no memory for two
        if not _opened or _opened[0][0] != request:
            _opened.clear()  # first, for the same reason
            _opened.append((request, *request.open()))
        _, subject, plan = _opened[0]
        execute_plan(plan, subject, store, blocks=blocks)
