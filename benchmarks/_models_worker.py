"""One environment's process for `models.py`: answers requests, a line of JSON each, on stdin.

Run as `python _models_worker.py FOLDER`, where the folder holds the work. Beside torch, diffusers
and the peer of its environment it imports nothing until a variant of attnsearch is asked for.
"""

import gc
import json
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, Final

import torch
from _memory import peak_growth
from _models_pipeline import REFERENCE, ExactProcessor, Size, Sums, Work, top_heads
from _models_variants import (
    Defaults,
    EveryMap,
    Exact,
    Fast,
    Nnsight,
    Variant,
    processors,
)

WARM_UP_STEPS: Final = 2
ANSWERS: Final = 3


def build(name: str, work: Work) -> Variant:
    """The variant of a name."""
    if name.startswith("attnsearch"):
        from _models_own import InMemory, Scan

        return {"attnsearch in memory": InMemory, "attnsearch scan": Scan}[name](work)
    return {
        "plain": Variant,
        "keep every map": EveryMap,
        "attention-map-diffusers exact": Exact,
        "attention-map-diffusers fast": Fast,
        "attention-map-diffusers defaults": Defaults,
        "nnsight": Nnsight,
    }[name](work)


class Worker:
    """What a request is answered from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._variants: dict[str, Variant] = {}

    @cached_property
    def _work(self) -> Work:
        return Work.load(self._folder)

    def make(self, **size: int) -> None:
        """Make the work; for the environment that has attnsearch."""
        from _models_own import make_work

        make_work(self._folder, Size(**size))

    def warm_up(self, variant: str) -> None:
        """Build a variant and sample a little with it."""
        self._variants[variant] = build(variant, self._work)
        with TemporaryDirectory() as folder:
            self._variants[variant].sample(WARM_UP_STEPS, Path(folder))

    def time(self, variant: str, steps: int) -> float:
        """Processor seconds of one sampling."""
        gc.collect()
        with TemporaryDirectory() as folder:
            begin = process_time()
            self._variants[variant].sample(steps, Path(folder))
            return process_time() - begin

    def reference(self) -> None:
        """Write what plain sampling gives, and sums over its maps in float64."""
        sums = Sums(self._work)
        with processors(self._work, lambda: ExactProcessor(sums.add)):
            latents = self._work.paint(self._work.size.steps)
        stored = {"latents": latents, "masses": sums.masses(), "scores": sums.scores()}
        torch.save(stored, self._work.folder / REFERENCE)

    def memory(self, variant: str, steps: int) -> dict[str, int]:
        """Bytes of one sampling; for a process that has done nothing but warm up."""
        with TemporaryDirectory() as folder:
            return self._sample_measured(variant, steps, Path(folder))[0]

    def inspect(self, variant: str) -> dict[str, Any]:
        """Bytes in memory and on disk, how long a question takes, and how exact it all is.

        For a process that has done nothing but warm up.
        """
        one = self._variants[variant]
        reference = torch.load(self._work.folder / REFERENCE)
        plain, exact = reference["latents"], reference["masses"]
        with TemporaryDirectory() as name:
            folder = Path(name)
            found, latents = self._sample_measured(variant, self._work.size.steps, folder)
            writing = _seconds(partial(one.write, folder)) if one.writes else None
            files = [path for path in folder.rglob("*") if path.is_file()]
            masses = one.masses(folder)
            return {
                **found,
                "write_seconds": writing,
                "disk_bytes": sum(path.stat().st_size for path in files) if files else None,
                "files": len(files) or None,
                "largest_mass_error": None if masses is None else _largest(masses, exact),
                "largest_output_difference": _largest(latents, plain) / float(plain.std()),
                **_answers(one, folder, top_heads(reference["scores"])),
            }

    def _sample_measured(
        self, variant: str, steps: int, folder: Path
    ) -> tuple[dict[str, int], torch.Tensor]:
        one = self._variants[variant]
        latents: list[torch.Tensor] = []
        gc.collect()
        growth = peak_growth(lambda: latents.append(one.sample(steps, folder)))
        return {"peak_memory_growth_bytes": growth, "held_bytes": one.held_bytes()}, latents[0]


def _answers(variant: Variant, folder: Path, best: list[str]) -> dict[str, Any]:
    if variant.no_answer:
        return {"no_answer": variant.no_answer}
    score, rank = partial(variant.scores, folder), partial(variant.ranking, folder)
    return {
        "score_seconds": sorted(_seconds(score) for _ in range(ANSWERS))[ANSWERS // 2],
        "answer_seconds": sorted(_seconds(rank) for _ in range(ANSWERS))[ANSWERS // 2],
        "top_in_common": len(set(best) & set(rank())),
    }


def _seconds(work: Callable[[], object]) -> float:
    begin = process_time()
    work()
    return process_time() - begin


def _largest(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).abs().max())


def main() -> None:
    """Answer until there are no more requests."""
    # Transformers looks for a package of this name, and would find the script beside this one.
    sys.modules["kernels"] = None  # type: ignore[assignment]  # Python's own way to say: not there
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    worker = Worker(Path(sys.argv[1]))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    for line in sys.stdin:
        request = json.loads(line)
        with redirect_stdout(sys.stderr):
            try:
                answer = {"answer": getattr(worker, request.pop("ask"))(**request)}
            except Exception as error:  # the peer's, on whatever it cannot do
                first_line = str(error).strip().partition("\n")[0]
                answer = {"error": f"{type(error).__name__}: {first_line}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
