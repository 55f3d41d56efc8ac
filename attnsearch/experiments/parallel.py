"""Several experiments at once, each in a process of its own.

The processes share nothing but the disk: every one has its folder, its share of the cores and,
where there are several, its GPU. Each sends news through a pipe; if whoever reads it dies, the
next piece of news ends the process, and training saves on the way out.
"""

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType

import torch

from attnsearch.cleanup import on_error
from attnsearch.errors import AttnsearchError, ConfigError
from attnsearch.experiments.execute import News, is_finished, run_experiment
from attnsearch.experiments.spec import Experiment, read_experiment

_THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True, slots=True)
class _Failure:
    """The last thing a process says when it cannot finish."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Job:
    experiment: Experiment
    process: SpawnProcess
    device: torch.device


def run_all(
    paths: Sequence[Path],
    out: Path,
    *,
    jobs: int,
    device: torch.device,
    threads: int | None = None,
    report: Callable[[str, News], None] = lambda *_: None,
) -> dict[str, str]:
    """Run the experiments of some files, each in the folder of its name under `out`.

    At most `jobs` run at a time, with `threads` each (default: the cores divided by the jobs), and
    on `cuda` the GPUs are dealt to them in turn. What is finished is skipped. `report` is told the
    experiment's name with its news; the stage of one that is finished is `done`. Returns why the
    experiments that failed did, by name.

    Raises:
        ConfigError: a file is not an experiment, or two have the same name; nothing is run.
        KeyboardInterrupt: the user stopped; the processes have saved and ended.
    """
    waiting = deque(_distinct([read_experiment(path) for path in paths]))
    jobs = max(1, min(jobs, len(waiting)))
    threads = threads or max(1, _cores() // jobs)
    devices = _dealt(device, jobs)
    running: dict[connection.Connection, _Job] = {}
    failures: dict[str, str] = {}
    with ExitStack() as at_last:
        at_last.callback(_stop, running)
        while waiting or running:
            while waiting and len(running) < jobs:
                experiment = waiting.popleft()
                if _already_done(experiment, out, failures):
                    report(experiment.name, News("done", 1, 1, "was finished before"))
                elif experiment.name not in failures:
                    _start(experiment, out, devices.popleft(), threads, running)
            # Waiting for nobody would never end.
            for line in connection.wait(list(running)) if running else ():
                assert isinstance(line, connection.Connection)
                if not _listen(line, running[line], failures, report):
                    devices.append(running.pop(line).device)
                    line.close()
    return failures


def _distinct(experiments: list[Experiment]) -> list[Experiment]:
    names = [experiment.name for experiment in experiments]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two of the experiments are called {name}; rename one file")
    return experiments


def _cores() -> int:
    """Cores this process may use, which may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _dealt(device: torch.device, jobs: int) -> deque[torch.device]:
    """A device for each job."""
    if device.type != "cuda" or device.index is not None:
        return deque([device] * jobs)
    count = torch.cuda.device_count()
    return deque(torch.device("cuda", job % count) for job in range(jobs))


def _already_done(experiment: Experiment, out: Path, failures: dict[str, str]) -> bool:
    try:
        return is_finished(experiment, out / experiment.name)
    except AttnsearchError as error:
        failures[experiment.name] = str(error)
        return False


def _start(
    experiment: Experiment,
    out: Path,
    device: torch.device,
    threads: int,
    running: dict[connection.Connection, _Job],
) -> None:
    context = multiprocessing.get_context("spawn")
    news, line = context.Pipe(duplex=False)
    process = context.Process(
        target=_work,
        args=(experiment, out / experiment.name, str(device), threads, line),
        name=experiment.name,
    )
    # Here the line is closed, so that the process's end is the last one, and its death is heard.
    with line, _interrupts_held(), _environment(_THREADS, str(threads)):
        with on_error(news.close):
            process.start()
        running[news] = _Job(experiment, process, device)


def _listen(
    line: connection.Connection,
    job: _Job,
    failures: dict[str, str],
    report: Callable[[str, News], None],
) -> bool:
    """Take one piece of news; False when the process has ended."""
    name = job.experiment.name
    try:
        message = line.recv()
    except EOFError:
        job.process.join()
        if job.process.exitcode == 0:
            report(name, News("done", 1, 1))
        else:
            failures.setdefault(name, f"its process ended with exit code {job.process.exitcode}")
        return False
    if isinstance(message, _Failure):
        failures[name] = message.reason
    else:
        report(name, message)
    return True


def _stop(running: Mapping[connection.Connection, _Job]) -> None:
    """Ask every process to stop as Ctrl-C would, and wait until all have."""
    with ExitStack() as steps:  # the last first, so that all are asked before any is waited for
        for line, job in running.items():
            steps.callback(line.close)
            steps.callback(job.process.join)
        for job in running.values():
            steps.callback(_ask_to_stop, job.process)


def _ask_to_stop(process: SpawnProcess) -> None:
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGINT)


def _work(
    experiment: Experiment, folder: Path, device: str, threads: int, line: connection.Connection
) -> None:
    """What a process does; exit code 0 only if the experiment is finished."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt_once)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        torch.set_num_threads(threads)
        run_experiment(experiment, folder, torch.device(device), line.send)
    except KeyboardInterrupt as error:
        raise SystemExit(130) from error
    except BrokenPipeError as error:  # nobody is left to tell
        raise SystemExit(1) from error
    except AttnsearchError as error:
        line.send(_Failure(str(error)))
        raise SystemExit(2) from error
    except OSError as error:
        line.send(_Failure(f"{error.filename or folder}: {error.strerror or error}"))
        raise SystemExit(2) from error
    except Exception as error:
        traceback.print_exc()  # a defect of ours
        line.send(_Failure(f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    # A terminal's Ctrl-C, and a scheduler's SIGTERM, reach every process, and then the one that
    # started them passes it on; the second must not break off the saving that the first has begun.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes started within inherit that Ctrl-C waits, until they are ready for it."""
    resource_tracker.ensure_running()  # starting it would end the holding
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
