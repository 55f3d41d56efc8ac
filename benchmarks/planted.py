"""Do the metrics find what was planted, and nothing where nothing was?

python benchmarks/planted.py [--plantings 200] [--output benchmarks/results/planted.json]

Three questions, each asked of many scans made by hand. Found: two heads of each kind among eighteen
that differ in nothing else from the rest; the average precision of each metric for its own kind.
False: scans with nothing planted; in how many is any head found with q, or family p, below 0.05?
Also with direction words that move maps without meaning, as in networks with random weights.
Covered: the same planted heads under other noise; how often is the value of a scan with fifty
times the prompts within the interval?
"""

import argparse
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from attnsearch.aggregation import Aggregator
from attnsearch.metrics import RankedHead, parse, rank
from attnsearch.metrics.planted import Kind, Plant, planted_scan
from attnsearch.metrics.reader import Reader
from attnsearch_kernels.machine import describe_machine

STRENGTH: Final = 1.0
"""Of what is planted: logits, twice the deviation of their noise."""
DRAWS: Final = 2_000
HEADS: Final = 24
REPLICATES: Final = 50

OWN: Final = {
    "relational": (Kind.RELATIONAL,),
    "ramp-cosine": (Kind.RELATIONAL,),
    "ramp-projection": (Kind.RELATIONAL,),
    "relation-variance": (Kind.RELATIONAL, Kind.ONE_RELATION),
    "object": (Kind.OBJECT,),
    "shape": (Kind.SHAPE, Kind.OBJECT),
    "colour": (Kind.COLOUR, Kind.OBJECT),
    "positional": (Kind.FIXED,),
}
"""The kinds that a metric should rank first."""
TESTED: Final = ("relational", "relation-variance", "object", "shape", "colour", "positional")
"""Whose null is tried on scans with nothing planted; that of ramps is the one of relational."""
COVERED: Final = (
    "relational", "relation-variance", "ramp-projection", "object", "shape", "colour",
    "object1 -> relation", "contrast(object1 -> relation)", "mass(relation)",
)  # fmt: skip


def planting(rng: np.random.Generator) -> list[Plant]:
    """Two heads of each kind, of either sign where there are two, and diffuse ones."""
    kinds = [kind for kind in Kind for _ in range(2)]
    kinds += [Kind.DIFFUSE] * (HEADS - len(kinds))
    plants = []
    for number, kind in enumerate(kinds):
        opposite = kind in (Kind.RELATIONAL, Kind.ONE_RELATION) and number % 2
        strength = STRENGTH * rng.uniform(0.8, 1.2) * (-1 if opposite else 1)
        if kind in (Kind.OBJECT, Kind.SHAPE, Kind.COLOUR):
            strength *= 2  # an object covers little of the canvas
        plants.append(
            Plant(
                kind=kind,
                strength=0.0 if kind is Kind.DIFFUSE else strength,
                angle=rng.uniform(0, 2 * np.pi),
                base=tuple(rng.normal(scale=0.3, size=8)),
            )
        )
    return [plants[place] for place in rng.permutation(HEADS)]


def average_precision(ranking: list[RankedHead], own: set[int]) -> float:
    """Mean over the own heads of the share of own heads among those down to it."""
    ranks = sorted(row.rank for row in ranking if row.head in own)
    return float(np.mean([number / place for number, place in enumerate(ranks, start=1)]))


def found(plantings: int, watch: Callable[[str], None]) -> dict[str, Any]:
    """Average precisions of every metric."""
    precisions: dict[str, list[float]] = {metric: [] for metric in OWN}
    for seed in range(plantings):
        plants = planting(np.random.default_rng([seed, 0]))
        scan = planted_scan(plants, seed)
        for metric, kinds in OWN.items():
            own = {head for head, plant in enumerate(plants) if plant.kind in kinds}
            ranking = rank({"planted": scan}, metric, draws=DRAWS)
            precisions[metric].append(average_precision(ranking, own))
        watch(f"found {seed + 1}")
    return {
        metric: {"mean": float(np.mean(each)), "smallest": min(each)}
        for metric, each in precisions.items()
    }


def false(
    plantings: int, words: float, metrics: Iterable[str], watch: Callable[[str], None]
) -> Any:
    """Shares of scans without anything planted in which something is found."""
    false_q: dict[str, list[bool]] = {metric: [] for metric in metrics}
    false_family: dict[str, list[bool]] = {metric: [] for metric in false_q}
    for seed in range(plantings):
        rng = np.random.default_rng([seed, 1])
        plants = [Plant(base=tuple(rng.normal(scale=0.3, size=8))) for _ in range(HEADS)]
        scan = planted_scan(plants, 10_000 + seed, words=words)
        for metric in false_q:
            ranking = rank({"empty": scan}, metric, draws=DRAWS)
            false_q[metric].append(any((row.q_value or 0) < 0.05 for row in ranking))
            false_family[metric].append(any((row.p_family or 0) < 0.05 for row in ranking))
        watch(f"false {seed + 1}")
    return {
        metric: {
            "q": float(np.mean(false_q[metric])),
            "family": float(np.mean(false_family[metric])),
        }
        for metric in false_q
    }


def covered(plantings: int, watch: Callable[[str], None]) -> dict[str, float]:
    """Shares of intervals, over heads and scans, that hold the value."""
    plants = planting(np.random.default_rng(2))
    many = planted_scan(plants, 1, replicates=REPLICATES)
    truth = {}
    for question in COVERED:
        read = Reader(model="planted", scan=many, aggregate=Aggregator())
        evidence = parse(question).evidence(read)
        heads = []
        for head in range(HEADS):  # one at a time: maps of 4,800 prompts against each other
            part = evidence.part(slice(None), slice(None), slice(head, head + 1))
            heads.append(part.scores((part.known / part.known.sum())[None])[0, 0, 0])
        truth[question] = np.array(heads)
        watch(f"value of {question}")
    held: dict[str, list[bool]] = {question: [] for question in COVERED}
    for seed in range(plantings):
        scan = planted_scan(plants, 20_000 + seed)
        for question in COVERED:
            for row in rank({"planted": scan}, question, draws=1):
                value = truth[question][row.head]
                held[question].append(row.ci_low <= value <= row.ci_high)
        watch(f"covered {seed + 1}")
    return {question: float(np.mean(each)) for question, each in held.items()}


def main() -> None:
    """Ask all three, write the results, print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plantings", type=int, default=200, help="scans for each question")
    default = Path(__file__).parent / "results" / "planted.json"
    parser.add_argument("--output", type=Path, default=default, help="where results are written")
    options = parser.parse_args()

    def watch(news: str) -> None:
        print(f"\r{news:60}", end="", flush=True)

    count = options.plantings
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "plantings": count,
        "heads": HEADS,
        "average_precision": found(count, watch),
        "false": false(2 * count, 0.0, TESTED, watch),
        "false_with_words": false(count, 0.5, ["relational", "ramp-cosine"], watch),
        "covered": covered(count, watch),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print("\n" + json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
