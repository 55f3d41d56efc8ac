"""A whole training run in one folder: checkpoint, log, and the published model.

    checkpoint.pt   latest state, for resuming
    model.pt        the finished model, without its training state
    log.jsonl       one line per logged step: step, loss, steps per second; evaluations too
    snapshots/      the model on the way, as it would be published: step-000500.pt, ...

Ctrl-C, SIGTERM and `--resume` lose nothing: the state is saved on the way out.
"""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, Final

import torch

from attnsearch.errors import CheckpointError, DivergenceError
from attnsearch.intake import read_regular
from attnsearch.models import Checkpoint, load_checkpoint, save_checkpoint
from attnsearch.training.config import TrainingConfig
from attnsearch.training.folder import LATEST, check_unused
from attnsearch.training.trainer import Trainer

_LOG_EVERY: Final = 50
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MAX_LOG: Final = 64 * 2**20
"""Bytes; of some 40 million steps."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands."""

    step: int
    loss: float
    """Mean over the steps since the last report."""
    steps_per_second: float


Evaluate = Callable[[Checkpoint], dict[str, float]]
"""From the run so far to named accuracies in [0, 1]."""


def train(
    config: TrainingConfig,
    folder: Path,
    device: torch.device,
    *,
    resume: bool,
    evaluate: Evaluate,
    report: Callable[[Progress], None],
) -> Checkpoint:
    """Train to `config.steps`, or on from where the folder's checkpoint stands.

    Raises:
        CheckpointError: the folder holds a run and `resume` is off, or it holds another run.
        DivergenceError: the weights left the finite numbers; the state saved last is kept.
        KeyboardInterrupt: the user stopped the run; its state is saved.
    """
    check_unused(folder, resume=resume)
    latest = folder / LATEST
    if latest.exists():
        trainer = Trainer.resume(config, load_checkpoint(latest), device)
    else:
        trainer = Trainer(config, device)
    with _Log(folder / "log.jsonl", trainer.step) as log, _saved_on_exit(trainer, latest):
        # What the state that was resumed from was due for and may have been stopped before.
        _milestones(trainer, folder, evaluate, log)
        for progress in _steps(trainer):
            log.write(
                step=progress.step,
                loss=round(progress.loss, 5),
                steps_per_second=round(progress.steps_per_second, 2),
            )
            report(progress)
            _milestones(trainer, folder, evaluate, log)
            if trainer.step % config.save_every == 0:
                save_checkpoint(trainer.checkpoint(), latest)
    published = replace(trainer.checkpoint(), training_state=None)
    save_checkpoint(published, folder / "model.pt")
    return published


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the run in a folder keeps its snapshot of a step."""
    return folder / "snapshots" / f"step-{step:06d}.pt"


def _milestones(trainer: Trainer, folder: Path, evaluate: Evaluate, log: "_Log") -> None:
    """The evaluation and the snapshot that are due at this step, unless they were made."""
    config, step = trainer.config, trainer.step
    due = step > 0 and (step % config.evaluate_every == 0 or step >= config.steps)
    if due and not (trainer.metrics and trainer.metrics[-1].get("step") == step):
        metrics = evaluate(trainer.checkpoint())
        trainer.metrics.append({"step": step, **metrics})
        log.write(step=step, **metrics)
    snapshot = snapshot_path(folder, step)
    if step in config.snapshot_steps and not snapshot.exists():
        save_checkpoint(trainer.checkpoint().slim(), snapshot)


def _steps(trainer: Trainer) -> Iterator[Progress]:
    """Take steps to the end; yields at least every `_LOG_EVERY` steps and when one is due."""
    config = trainer.config
    losses: list[float] = []
    begin = monotonic()
    while trainer.step < config.steps:
        with _interrupts_put_off():
            losses.append(trainer.take_step())
        due = (_LOG_EVERY, config.evaluate_every, config.save_every)
        if (
            trainer.step == config.steps
            or trainer.step in config.snapshot_steps
            or any(trainer.step % every == 0 for every in due)
        ):
            seconds = max(monotonic() - begin, 1e-9)
            yield Progress(trainer.step, sum(losses) / len(losses), len(losses) / seconds)
            losses.clear()
            begin = monotonic()


@contextmanager
def _saved_on_exit(trainer: Trainer, path: Path) -> Iterator[None]:
    try:
        yield
    except DivergenceError:  # no state to go on from; the last one saved is
        raise
    except BaseException:
        save_checkpoint(trainer.checkpoint(), path)
        raise
    save_checkpoint(trainer.checkpoint(), path)


@contextmanager
def _interrupts_put_off() -> Iterator[None]:
    """Being asked to stop takes effect at the end of the block: no step is saved half taken."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set a handler
        return
    asked: list[int] = []
    with ExitStack() as restore:
        for number in _STOPPING:
            handler = signal.getsignal(number)
            # One set outside Python cannot be put back; what is ignored stays so.
            if handler is not None and handler is not signal.SIG_IGN:
                restore.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, _: asked.append(number))
        yield
    for each in asked:
        signal.raise_signal(each)


def _kept_lines(path: Path, step: int) -> list[bytes]:
    """The lines of a log up to a step; a crash may have cut off the last one.

    Raises:
        CheckpointError: the file cannot be read, or a line before the last is of no step.
    """
    try:
        lines = read_regular(path, _MAX_LOG).splitlines()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    kept = []
    for number, line in enumerate(lines, start=1):
        try:
            about = json.loads(line)["step"]
        except (ValueError, TypeError, LookupError, RecursionError):
            about = None
        if type(about) is int:
            kept += [line] if about <= step else []
        elif number < len(lines):  # somebody else's file, which is not ours to shorten
            raise CheckpointError(f"{path}, line {number} is not of a training; move the file away")
    return kept


class _Log:
    """A JSONL file; a resumed run drops the lines past the step it resumes from."""

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = _kept_lines(path, step) if path.exists() else []
        path.write_bytes(b"".join(line + b"\n" for line in kept))
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, **fields: Any) -> None:
        self._file.write(json.dumps(fields) + "\n")
