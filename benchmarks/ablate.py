"""What a sweep over all heads costs, against an evaluation, and against a loop of single ablations.

python benchmarks/ablate.py [--model NAME] [--device cuda] [--output FILE]

Images of an ablated model differ from the first step on, so a sweep paints its prompt grid once for
each head and once with all of them; it shares what can be: captions, the model, the images and
mean outputs with all heads, and batches. The loop asks for one head at a time, as a notebook would.
Both are to give the same numbers.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from attnsearch import zoo
from attnsearch.ablation import Ablation, Effect, measure_effects
from attnsearch.axes import HeadAddress
from attnsearch.devices import named_device
from attnsearch.evaluation import evaluate
from attnsearch.models import load_checkpoint
from attnsearch.sampling import SamplerConfig
from attnsearch_kernels.machine import describe_machine

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "ablate-cpu.json"


def main() -> None:
    """Time all three, compare, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="rtep-atto-seed0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    (path,) = (path for path in zoo.packaged() if path.stem == arguments.model)
    checkpoint, sampler = load_checkpoint(path), SamplerConfig()
    device = named_device(arguments.device)
    heads = [
        HeadAddress(layer, head)
        for layer in range(checkpoint.model.depth)
        for head in range(checkpoint.model.heads)
    ]
    ablations = [Ablation(heads=frozenset({head})) for head in heads]

    def effects(asked: list[Ablation]) -> list[dict[str, Effect]]:
        return [*measure_effects(checkpoint, asked, seeds=1, sampler=sampler, device=device)]

    evaluate(checkpoint, seeds=1, sampler=sampler, device=device)  # imports, and fills caches
    started = perf_counter()
    evaluate(checkpoint, seeds=1, sampler=sampler, device=device)
    evaluation = perf_counter() - started
    started = perf_counter()
    swept = effects(ablations)
    sweep = perf_counter() - started
    started = perf_counter()
    looped = [effects([ablation])[0] for ablation in ablations]
    loop = perf_counter() - started
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "device": str(device),
        "model": path.stem,
        "heads": len(heads),
        "images": swept[0]["shape"].images,
        "seconds": {"evaluation": evaluation, "sweep": sweep, "loop": loop},
        "sweep_over_evaluation": sweep / evaluation,
        "loop_over_sweep": loop / sweep,
        "largest_difference_in_images": max(
            round(abs(one[name].after - other[name].after) * one[name].images)
            for one, other in zip(swept, looped, strict=True)
            for name in one
        ),
    }
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(
        f"{results['heads']} heads, {results['images']} images each: a sweep costs "
        f"{results['sweep_over_evaluation']:.1f} evaluations, a loop {loop / evaluation:.1f}, "
        f"{results['loop_over_sweep']:.2f} sweeps; a share of images differs by at most "
        f"{results['largest_difference_in_images']} of them"
    )


if __name__ == "__main__":
    main()
