"""How long does it take to rank a hundred heads, or a hundred thousand, with ten thousand draws?

python benchmarks/rank.py [--heads 100 1000 10000 100000] [--output FILE]

Scores, intervals, p-values and family-wise p-values of heads whose numbers are in memory already:
dipoles of 96 prompts, differences of 96 prompts, and maps of 96 prompts with 63 coefficients. The
rival does the same draws for one head after the other, in NumPy, and is measured on as many heads
as it can do in a while; its time grows with the number of heads.
"""

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np

from attnsearch.axes import RELATION_DIRECTIONS
from attnsearch.metrics.evidence import Directed, Evidence, Mean
from attnsearch.metrics.inference import infer
from attnsearch.metrics.variance import Explained
from attnsearch.task.captions import grid_captions
from attnsearch.task.spec import PRESETS
from attnsearch_kernels.machine import describe_machine

DRAWS: Final = 10_000
ALONE: Final = 4
"""Heads that the rival does."""
MOST: Final = {"relational": 100_000, "difference": 100_000, "variance": 10_000}
"""Heads whose numbers fit into memory."""

CAPTIONS: Final = grid_captions(PRESETS["small"])
PROMPTS: Final = len(CAPTIONS)


def evidence(kind: str, heads: int) -> Evidence:
    """Random numbers about some heads."""
    rng = np.random.default_rng(0)
    known = np.ones(PROMPTS, dtype=bool)
    names = sorted({caption.relation for caption in CAPTIONS})
    relation = np.array([names.index(caption.relation) for caption in CAPTIONS])
    if kind == "difference":
        values = rng.normal(size=(PROMPTS, 1, heads))
        return Mean(values=values, known=known, strata=np.zeros(PROMPTS, int), shuffled="sign")
    if kind == "relational":
        words = sorted({word for caption in CAPTIONS for word in caption.direction_words})
        return Directed(
            values=rng.normal(size=(PROMPTS, 1, heads, 2)),
            known=known,
            strata=relation,
            target=np.array([RELATION_DIRECTIONS[caption.relation] for caption in CAPTIONS]),
            words=np.array(
                [[float(word in c.direction_words) for word in words] for c in CAPTIONS]
            ),
            shuffled="meaning",
        )
    return Explained(
        values=rng.normal(size=(PROMPTS, 1, heads, 63)),
        known=known,
        strata=relation,
        signed=False,
        repeats=False,
        shuffled="relation",
        label=relation,
        others=np.array([[caption.pair] for caption in CAPTIONS]),
    )


def one_by_one(everything: Evidence, heads: int) -> None:
    """The same, head after head: what a loop over heads in a notebook does."""
    for head in range(heads):
        infer(everything.part(slice(None), slice(None), slice(head, head + 1)), draws=DRAWS)


def seconds(work: Callable[[], object]) -> float:
    """Of doing it once."""
    begin = perf_counter()
    work()
    return perf_counter() - begin


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--heads", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000])
    default = Path(__file__).parent / "results" / "rank-cpu.json"
    parser.add_argument("--output", type=Path, default=default, help="where results are written")
    options = parser.parse_args()
    rows = []
    for kind, most in MOST.items():
        for heads in options.heads:
            if heads > most:
                continue
            found = evidence(kind, heads)
            together = seconds(partial(infer, found, draws=DRAWS))
            alone = seconds(partial(one_by_one, found, ALONE)) / ALONE * heads
            rows.append(
                {
                    "kind": kind,
                    "heads": heads,
                    "seconds": together,
                    "loop_seconds": alone,
                    "loop_heads_measured": ALONE,
                    "ratio": alone / together,
                }
            )
            print(
                f"{kind:12} {heads:8,} heads {together:8.2f} s, one by one {alone:10.1f} s, "
                f"{alone / together:7.1f} times",
                flush=True,
            )
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "draws": DRAWS,
        "prompts": PROMPTS,
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
