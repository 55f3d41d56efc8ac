"""Does the ranking of the demonstration model hold with other prompts, and with other noise?

python benchmarks/stability.py [--metrics relational ...] [--output FILE]

Scores of all heads from one half of the prompts of every relation against the other, from one half
of the pairs of objects, which the other half never saw, and from one half of the seeds: correlation
over heads, of ranks and of scores, and whether the first head is the same; twenty random splits.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from attnsearch.metrics import rank
from attnsearch.scanning import scan
from attnsearch.store import open_scan
from attnsearch.zoo import demonstration
from attnsearch_kernels.machine import describe_machine

METRICS: Final = ("relational", "relation-variance", "object", "shape", "colour", "positional")
OBJECTS: Final = ("colour1", "shape1", "colour2", "shape2")
SEEDS: Final = 8
SPLITS: Final = 20


def halves(maps: xr.Dataset, split: int) -> dict[str, tuple[xr.Dataset, xr.Dataset]]:
    """The scan by random halves: of the prompts of every relation, of object pairs, of seeds."""
    rng = np.random.default_rng(split)
    relation, prompt, *objects = (
        maps[name].to_numpy().astype(object).astype(str)
        for name in ("relation", "prompt", *OBJECTS)
    )
    pairs = np.array([" ".join(words) for words in zip(*objects, strict=True)])
    halved = {}
    for what, labels in {"object pairs": pairs, "seeds": maps["seed"].to_numpy()}.items():
        halved[what] = _split(maps, np.isin(labels, _half(rng, labels)))
    prompts = [
        text for each in np.unique(relation) for text in _half(rng, prompt[relation == each])
    ]
    halved["prompts"] = _split(maps, np.isin(prompt, prompts))
    return halved


def _half(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    different = rng.permutation(np.unique(labels))
    return different[: len(different) // 2]


def _split(maps: xr.Dataset, chosen: np.ndarray) -> tuple[xr.Dataset, xr.Dataset]:
    return (
        maps.isel(sample=np.flatnonzero(chosen)),
        maps.isel(sample=np.flatnonzero(~chosen)),
    )


def scores(maps: xr.Dataset, metric: str) -> np.ndarray:
    """The score of every head, in order of layer and head."""
    rows = rank({"demo": maps}, metric, draws=1)
    return np.array([row.score for row in sorted(rows, key=lambda row: (row.layer, row.head))])


def main() -> None:
    """Scan, score the halves, write the results, print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--metrics", nargs="+", default=METRICS, help="metrics or questions")
    default = Path(__file__).parent / "results" / "stability.json"
    parser.add_argument("--output", type=Path, default=default, help="where results are written")
    options = parser.parse_args()
    rows = []
    with TemporaryDirectory() as folder:
        scan(demonstration(), Path(folder) / "s.zarr", seeds=SEEDS)
        maps = open_scan(Path(folder) / "s.zarr").load()
        for metric in options.metrics:
            found: dict[str, list[tuple[float, float, bool]]] = {}
            for split in range(SPLITS):
                for what, (one, other) in halves(maps, split).items():
                    left, right = scores(one, metric), scores(other, metric)
                    found.setdefault(what, []).append(
                        (
                            float(spearmanr(left, right).statistic),
                            float(np.corrcoef(left, right)[0, 1]),
                            bool(abs(left).argmax() == abs(right).argmax()),
                        )
                    )
            for what, each in found.items():
                spearman, pearson, same = zip(*each, strict=True)
                rows.append(
                    {
                        "metric": metric,
                        "halves_of": what,
                        "spearman": float(np.median(spearman)),
                        "smallest_spearman": min(spearman),
                        "pearson": float(np.median(pearson)),
                        "same_first_head": float(np.mean(same)),
                    }
                )
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "checkpoint": demonstration().name,
        "seeds": SEEDS,
        "splits": SPLITS,
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print("metric               halves of      Spearman  smallest  Pearson  same first head")
    for row in rows:
        print(
            f"{row['metric']:20} {row['halves_of']:14} {row['spearman']:8.2f}  "
            f"{row['smallest_spearman']:8.2f}  {row['pearson']:7.3f}  {row['same_first_head']:.0%}"
        )


if __name__ == "__main__":
    main()
