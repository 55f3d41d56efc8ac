"""What goes wrong while sampling costs what it must and nothing else."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attnsearch.capturing import SketchRecord
from attnsearch.errors import ConfigError, StoreError
from attnsearch.models import Checkpoint
from attnsearch.sampling import SamplerConfig
from attnsearch.scanning import DiTSubject, ScanPlan, execute_plan, plan_scan, read_captions
from attnsearch.scanning.memory import is_out_of_memory
from attnsearch.scanning.painting import Painter
from attnsearch.scanning.subject import Pixels, Samples, Watch
from attnsearch.store import open_scan, verify

CPU = torch.device("cpu")


def plan_of(subject: DiTSubject, block: int = 8, prompts: int = 20) -> ScanPlan:
    plan = plan_scan(
        subject,
        name="tiny",
        prompts=read_captions("grid", subject.checkpoint.task)[:prompts],
        seeds=1,
        sampler=SamplerConfig(steps=2),
    )
    return replace(plan, layout=replace(plan.layout, block=block))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class SmallSubject(DiTSubject):
    """On a device that has memory for so many samples at once."""

    def __init__(self, checkpoint: Checkpoint, most: int, error: Exception) -> None:
        super().__init__(checkpoint, CPU)
        self.most = most
        self.error = error
        self.painted: list[int] = []

    def paint(self, samples: Samples, sampler: SamplerConfig, watch: Watch | None) -> Pixels:
        self.painted.append(len(samples.seeds))
        if len(samples.seeds) > self.most:
            raise self.error
        return super().paint(samples, sampler, watch)


def not_enough() -> RuntimeError:
    """What torch says when the CPU's memory is used up."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    return caught.value


OUT_OF_MEMORY = [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), not_enough()]


def test_what_torch_says_of_memory_is_known_and_nothing_else() -> None:
    assert all(is_out_of_memory(error) for error in OUT_OF_MEMORY)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("allocate"))


class SteadySubject(SmallSubject):
    """Whose samples are painted one by one, so that no bit depends on the size of a batch."""

    def paint(self, samples: Samples, sampler: SamplerConfig, watch: Watch | None) -> Pixels:
        if len(samples.seeds) > self.most:
            raise self.error
        assert watch is not None
        records: dict[tuple[object, ...], list[SketchRecord]] = {}

        def gather(record: SketchRecord) -> None:
            records.setdefault((record.step, record.branch, record.layer), []).append(record)

        images = [
            DiTSubject.paint(self, Samples([prompt], [seed]), sampler, watch._replace(sink=gather))
            for prompt, seed in zip(samples.prompts, samples.seeds, strict=True)
        ]
        for parts in records.values():
            joined = {
                name: torch.cat([getattr(part, name) for part in parts])
                for name in ("sketch", "energy", "entropy", "peak")
            }
            watch.sink(replace(parts[0], **joined))
        return np.concatenate(images)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_memory_that_is_short_in_the_middle_of_a_scan_changes_no_byte(
    tiny_checkpoint: Checkpoint, tmp_path: Path, error: Exception
) -> None:
    roomy = SteadySubject(tiny_checkpoint, 99, error)
    plan = plan_of(roomy, block=4)
    execute_plan(plan, roomy, tmp_path / "roomy")
    small = SteadySubject(tiny_checkpoint, 99, error)
    told: list[str] = []

    def shrink(_: int) -> None:
        small.most = 1

    execute_plan(plan, small, tmp_path / "small", shrink, news=told.append)
    assert files_of(tmp_path / "small") == files_of(tmp_path / "roomy")
    assert told == ["no memory for 2 samples at once; painting 1"]


class UnsteadySubject(SmallSubject):
    """Whose samples depend on what is painted with them."""

    def paint(self, samples: Samples, sampler: SamplerConfig, watch: Watch | None) -> Pixels:
        return super().paint(samples, sampler, watch) / len(samples.seeds)


def test_samples_that_depend_on_their_company_are_not_painted_in_parts(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    roomy = UnsteadySubject(tiny_checkpoint, 99, MemoryError())
    plan = plan_of(roomy)
    execute_plan(plan, roomy, tmp_path / "roomy")
    small = UnsteadySubject(tiny_checkpoint, 99, MemoryError())

    def shrink(_: int) -> None:
        small.most = 2

    with pytest.raises(ConfigError, match=r"may be others; .* --batch [42] under"):
        execute_plan(plan, small, tmp_path / "small", shrink)
    assert 8 <= open_scan(tmp_path / "small").sizes["sample"] < 20
    execute_plan(plan, roomy, tmp_path / "small")
    assert files_of(tmp_path / "small") == files_of(tmp_path / "roomy")


def test_without_memory_for_the_first_block_a_smaller_batch_is_named(
    tiny_checkpoint: Checkpoint,
) -> None:
    small = SmallSubject(tiny_checkpoint, 4, MemoryError())
    with pytest.raises(ConfigError, match=r"8 samples at once.*--batch 4 under another"):
        Painter(plan_of(small), small, print).paint(slice(0, 8))


def test_without_memory_for_one_sample_that_is_said(tiny_checkpoint: Checkpoint) -> None:
    none = SmallSubject(tiny_checkpoint, 0, MemoryError())
    with pytest.raises(ConfigError, match="no memory for one sample"):
        Painter(plan_of(none), none, print).paint(slice(0, 1))


@pytest.mark.parametrize("batch", [2, 4, 5, 16])
def test_samples_do_not_depend_on_their_company(tiny_checkpoint: Checkpoint, batch: int) -> None:
    subject = DiTSubject(tiny_checkpoint, CPU)
    painter = Painter(plan_of(subject, block=20), subject, print)
    whole = painter.paint(slice(0, 20))
    parts = [painter.paint(slice(s, min(s + batch, 20))) for s in range(0, 20, batch)]
    for name, values in whole.items():
        together = np.concatenate([part[name] for part in parts])
        tolerance = 1 if name == "thumbnail" else 2e-3  # of 256; of numbers of order one
        np.testing.assert_allclose(
            together.astype(float), values.astype(float), rtol=0, atol=tolerance, err_msg=name
        )


class BrokenSubject(DiTSubject):
    """Some of whose samples end in a number that is none, from some point on."""

    def __init__(self, checkpoint: Checkpoint, broken: dict[int, str], value: float) -> None:
        super().__init__(checkpoint, CPU)
        self.broken = broken
        self.value = value
        self.first = 0

    def paint(self, samples: Samples, sampler: SamplerConfig, watch: Watch | None) -> Pixels:
        assert watch is not None
        rows = [self.texts.index(prompt.text) for prompt in samples.prompts]
        hurt = {at: self.broken[row] for at, row in enumerate(rows) if row in self.broken}

        def sink(record):
            for at, field in hurt.items():
                if field != "pixels":
                    getattr(record, field)[at].flatten()[0] = self.value
                    getattr(record, field)[at] = self.value
            watch.sink(record)

        pixels = super().paint(samples, sampler, watch._replace(sink=sink))
        for at, field in hurt.items():
            if field == "pixels":
                pixels[at, 0, 0, 0] = self.value
        return pixels

    @property
    def texts(self) -> list[str]:
        return [prompt.text for prompt in read_captions("grid", self.checkpoint.task)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_samples_that_are_not_finite_are_flagged_and_the_others_are_as_they_were(
    tiny_checkpoint: Checkpoint, tmp_path: Path, value: float
) -> None:
    sound = DiTSubject(tiny_checkpoint, CPU)
    plan = plan_of(sound)
    execute_plan(plan, sound, tmp_path / "sound")
    hurt = {1: "sketch", 4: "entropy", 9: "energy", 12: "peak", 19: "pixels"}
    execute_plan(plan, BrokenSubject(tiny_checkpoint, hurt, value), tmp_path / "hurt")
    (check,) = verify(tmp_path / "hurt")
    assert check.findings == ()
    assert check.flagged == len(hurt)
    scan, whole = open_scan(tmp_path / "hurt"), open_scan(tmp_path / "sound")
    kept = [row for row in range(20) if row not in hurt]
    assert scan["sample"].values.tolist() == kept
    assert scan.attrs["flagged_samples"] == len(hurt)
    for name in scan.data_vars:
        np.testing.assert_array_equal(scan[name].values, whole[name].values[kept], err_msg=name)


def test_where_no_sample_is_finite_that_is_said(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    hurt = dict.fromkeys(range(20), "sketch")
    broken = BrokenSubject(tiny_checkpoint, hurt, float("nan"))
    execute_plan(plan_of(broken), broken, tmp_path / "s")
    with pytest.raises(StoreError, match=r"none of the 20 samples .* is finite"):
        open_scan(tmp_path / "s")


# Children are forked from a process with threads, which they do not use.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_given_the_same_scan_share_it(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    plan = plan_of(DiTSubject(tiny_checkpoint, CPU), block=2)
    execute_plan(plan, DiTSubject(tiny_checkpoint, CPU), tmp_path / "alone")

    def work(number: int) -> None:
        torch.set_num_threads(1)
        painted = []
        subject = DiTSubject(tiny_checkpoint, CPU)
        paint = subject.paint
        subject.paint = lambda *a: (painted.append(len(a[0].seeds)), paint(*a))[1]  # type: ignore[method-assign]
        maps: list[int] = []
        execute_plan(plan, subject, tmp_path / "shared", maps.append)
        assert sum(maps) == plan.layout.maps
        (tmp_path / f"painted{number}").write_text(str(sum(painted)))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    processes = [
        multiprocessing.get_context("fork").Process(target=work, args=(n,)) for n in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    torch.set_num_threads(threads)
    assert files_of(tmp_path / "shared") == files_of(tmp_path / "alone")
    assert sum(int((tmp_path / f"painted{number}").read_text()) for number in (0, 1)) == 20
    assert not os.path.exists(tmp_path / "shared" / ".writing")
