"""What every test relies on; fixtures of one package live beside its tests."""

import os

# One thread an operation: tests compute on small tensors, and run one process a core. Set before
# torch reads it, and inherited by what tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Modules are compiled once and not in each of the processes that tests start, whatever whoever
# starts the tests has set.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from budget import DEEP, SEED
from hypothesis import HealthCheck, settings
from slow_tests import LIMIT_SECONDS, REASONS, allows

sys.dont_write_bytecode = False

if TYPE_CHECKING:
    from attnsearch.models import Checkpoint

# A law holds however slow or busy the machine is, hence no deadline.
_COMMON = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
    database=None,
)
settings.register_profile("steady", _COMMON, max_examples=20, derandomize=True)
settings.register_profile("deep", _COMMON, max_examples=200)
settings.load_profile("deep" if DEEP else "steady")


def pytest_configure() -> None:
    """Make tests see the same, whoever starts them."""
    # Ctrl-C, which a job that a shell started in the background would ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The store that somebody has named for daily use.
    os.environ.pop("ATTNSEARCH_STORE", None)


def pytest_report_header() -> list[str]:
    """Say which examples are drawn."""
    return [f"deep: fresh examples of seed {SEED}"] if DEEP else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only a deep run does; skip what needs a CUDA device where there is none."""
    if not DEEP:
        left_out = [item for item in items if item.get_closest_marker("deep")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    # Files with slow tests first: two processes then end at about the same time.
    slow = {name.partition("::")[0] for name in REASONS}
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in slow)
    needing_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not needing_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name tests that are slow without being on the list, and how to repeat a deep failure.

    A slow test is told and not failed: another process may have slowed it down.
    """
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport)
    ]
    for report in reports:
        if not DEEP and report.duration > LIMIT_SECONDS and not allows(report.nodeid):
            terminalreporter.write_line(
                f"over {LIMIT_SECONDS} s and not in tests/slow_tests.py: "
                f"{report.duration:.1f} s {report.when} {report.nodeid}"
            )
    if DEEP:
        for report in terminalreporter.getreports("failed"):
            terminalreporter.write_line(
                f"to repeat: make test-deep SEED={SEED} TESTS='{report.nodeid}'"
            )


@pytest.fixture(scope="session")
def tiny_checkpoint() -> "Checkpoint":
    """A flow model of the small task with random weights everywhere: 2 layers, 2 heads, 4 x 4
    image tokens. A fresh DiT answers zero whatever it is asked; this one does not. Shared by the
    whole session: change a copy (`dataclasses.replace`), never the object itself.
    """
    import torch

    from attnsearch.encoders import EncoderKind, EncoderSpec
    from attnsearch.models import Checkpoint, DiT, DiTConfig, Objective
    from attnsearch.task.spec import PRESETS

    task = PRESETS["small"]
    config = DiTConfig(
        image_side=task.canvas,
        patch=8,
        depth=2,
        width=32,
        heads=2,
        mlp_ratio=2.0,
        text_channels=16,
        text_length=task.text_length,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = DiT(config).state_dict()
        for name, tensor in weights.items():
            if name.endswith(("cross_attention.out.weight", "final.weight")):
                torch.nn.init.xavier_uniform_(tensor)
    return Checkpoint(
        model=config,
        encoder=EncoderSpec(
            kind=EncoderKind.RTEP,
            channels=config.text_channels,
            text_length=task.text_length,
        ),
        task=task,
        objective=Objective.FLOW,
        step=0,
        weights={name: tensor.clone() for name, tensor in weights.items()},
        average={name: tensor.clone() for name, tensor in weights.items()},
        metrics=[{"step": 0, "in_distribution_shape": 0.0}],
    )


@pytest.fixture
def open_below() -> Callable[[Path], list[str]]:
    """From a folder to the paths in it that this process has open, as Linux tells."""

    def below(folder: Path) -> list[str]:
        found = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # that of the listing
                found.append(os.readlink(descriptor))
        return [path for path in found if path.startswith(str(folder))]

    return below


@pytest.fixture(scope="session")
def planted() -> "Checkpoint":
    """The model of `planted_dit`, whose relational head and object head are known."""
    from planted_dit import planted_checkpoint

    return planted_checkpoint()
