"""Does the ranking of the demonstration model hold with other prompts, and with other noise?

python benchmarks/stability.py [--metrics relational ...] [--output FILE]

Scores of all heads from one half of the pairs of objects against the other, and from one half of
the seeds against the other: Spearman's rank correlation over heads, for twenty random splits.
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
    """The scan by random halves of its object pairs, each with every relation, and of its seeds."""
    rng = np.random.default_rng(split)
    columns = [maps[name].to_numpy().astype(object).astype(str) for name in OBJECTS]
    pairs = np.array([" ".join(words) for words in zip(*columns, strict=True)])
    halved = {}
    for what, labels in {"prompts": pairs, "seeds": maps["seed"].to_numpy()}.items():
        different = rng.permutation(np.unique(labels))
        halved[what] = _split(maps, np.isin(labels, different[: len(different) // 2]))
    return halved


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
            found: dict[str, list[float]] = {"prompts": [], "seeds": []}
            for split in range(SPLITS):
                for what, (one, other) in halves(maps, split).items():
                    both = scores(one, metric), scores(other, metric)
                    found[what].append(float(spearmanr(*both).statistic))
            rows += [
                {
                    "metric": metric,
                    "halves_of": what,
                    "median": float(np.median(each)),
                    "smallest": min(each),
                }
                for what, each in found.items()
            ]
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
    for row in rows:
        print(
            f"{row['metric']:20} halves of {row['halves_of']:8} "
            f"median {row['median']:+.3f} smallest {row['smallest']:+.3f}"
        )


if __name__ == "__main__":
    main()
