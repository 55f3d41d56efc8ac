"""The environments of `models.py`: who lives where, how they are made, and how they are asked.

A worker is a process that runs `_models_worker.py` under an environment's interpreter; requests
and answers are lines of JSON.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import mkstemp
from typing import Any, Final, Self

WORKER: Final = Path(__file__).with_name("_models_worker.py")
OWN: Final = "own"


class WorkerError(Exception):
    """Why something was not run, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A set of packages, and the variants that run under it."""

    name: str
    """Also that of its folder and, but for our own, of the peer's distribution."""
    version: str | None
    """Of the peer; None for our own."""
    variants: tuple[str, ...]
    """Plain sampling first."""

    def interpreter(self, peers: Path | None) -> Path:
        """The Python of the environment.

        Raises:
            WorkerError: it has not been made.
        """
        if self.version is None:
            return Path(sys.executable)
        if peers is None:
            raise WorkerError("no folder of peers was given (--peers)")
        path = peers.absolute() / self.name / "bin" / "python"
        if not path.exists():
            raise WorkerError(f"its environment is missing; --setup makes it in {peers.name}")
        return path

    def pip_commands(self) -> list[list[str]]:
        """Arguments of pip that fill the environment, with our own torch and diffusers."""
        torch = f"torch=={version('torch').partition('+')[0]}"
        shared = [f"{name}=={version(name)}" for name in ("diffusers", "transformers")]
        return [
            ["install", torch],
            # Torch once more, lest anything replace it.
            ["install", f"{self.name}=={self.version}", *shared, "accelerate", torch],
            # Some peers ask for torchvision, of which PyPI has a build for GPUs that does not load
            # beside a torch for CPUs, and then transformers does not load either.
            ["uninstall", "--yes", "torchvision"],
        ]


ENVIRONMENTS: Final = (
    Environment(
        name=OWN,
        version=None,
        variants=("plain", "keep every map", "attnsearch in memory", "attnsearch scan"),
    ),
    Environment(
        name="attention-map-diffusers",
        version="1.0.0",
        variants=(
            "plain",
            "attention-map-diffusers exact",
            "attention-map-diffusers fast",
            "attention-map-diffusers defaults",
        ),
    ),
    Environment(name="nnsight", version="0.8.1", variants=("plain", "nnsight")),
)


def set_up(peers: Path) -> None:
    """Make the environments of the peers, or bring them up to date."""
    for environment in ENVIRONMENTS[1:]:
        folder = peers.absolute() / environment.name
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        for arguments in environment.pip_commands():
            print("pip", *arguments, flush=True)
            subprocess.run([folder / "bin" / "python", "-m", "pip", "-q", *arguments], check=True)


class WorkerProcess:
    """A worker, and what it is asked."""

    def __init__(self, interpreter: Path, folder: Path) -> None:
        """`folder` holds the work."""
        variables = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        log, name = mkstemp(dir=folder, suffix=".log")
        self._log = Path(name)
        self._process = subprocess.Popen(
            [interpreter, WORKER, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | variables,
        )
        os.close(log)

    def ask(self, request: str, **arguments: Any) -> Any:
        """The answer of the method `request` of the worker.

        Raises:
            WorkerError: it failed, or the worker died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"ask": request, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead, and says why below
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words())
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply["answer"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _last_words(self) -> str:
        self._process.wait()
        lines = self._log.read_text(encoding="utf-8").strip().splitlines()
        return lines[-1] if lines else f"the worker died with {self._process.returncode}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
