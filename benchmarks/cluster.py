"""How long do neighbours and clusters of a thousand heads take, or of a million?

python benchmarks/cluster.py [--heads 1000 10000 100000 1000000] [--columns 64 512] [--output FILE]

Index build, query for the ten nearest, and k-means into 64 clusters, on unit vectors around 200
directions. Rivals: brute force in NumPy for neighbours, scikit-learn for both where it is done in a
while. Recall is the share of the true ten nearest that are found, of the same queries.
"""

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from attnsearch.clustering.behaviours import adjusted_rand_index
from attnsearch.clustering.neighbours import EXACT, HeadIndex, faiss_module, spherical_kmeans
from attnsearch_kernels.machine import describe_machine

RESULTS: Final = Path(__file__).resolve().parent / "results" / "cluster.json"
DIRECTIONS: Final = 200
QUERIES: Final = 200
NEAREST: Final = 10
CLUSTERS: Final = 64
MOST_BY_RIVAL: Final = 1_500_000
"""Heads times columns that scikit-learn clusters in a while."""

Vectors = npt.NDArray[np.float32]


def vectors_around(heads: int, columns: int) -> tuple[Vectors, Any]:
    """Unit vectors and the direction that each is around."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((DIRECTIONS, columns), dtype=np.float32)
    kind = rng.integers(DIRECTIONS, size=heads)
    vectors = directions[kind]
    vectors += 0.8 * rng.standard_normal((heads, columns), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, kind


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    begin = perf_counter()
    result = work()
    return perf_counter() - begin, result


def neighbours(vectors: Vectors) -> list[dict[str, Any]]:
    """Build and query, ours and the rivals'."""
    queries = vectors[:QUERIES]
    exact_seconds, exact = timed(
        lambda: np.argpartition(-(queries @ vectors.T), NEAREST, axis=1)[:, :NEAREST]
    )

    def recall(rows: Any) -> float:
        shared = [len({*one} & {*other}) for one, other in zip(rows, exact, strict=True)]
        return float(np.mean(shared)) / NEAREST

    rows = [{"way": "numpy brute force", "build_s": 0.0, "query_s": exact_seconds, "recall": 1.0}]
    build, index = timed(lambda: HeadIndex(vectors))
    query, found = timed(lambda: index.nearest(queries, NEAREST)[0])
    kind = "exact" if len(vectors) <= EXACT else "HNSW"
    rows.append(
        {"way": f"ours, {kind}", "build_s": build, "query_s": query, "recall": recall(found)}
    )
    rival = NearestNeighbors(n_neighbors=NEAREST, metric="cosine", algorithm="brute")
    build, _ = timed(lambda: rival.fit(vectors))
    query, found = timed(lambda: rival.kneighbors(queries, return_distance=False))
    rows.append(
        {"way": "scikit-learn", "build_s": build, "query_s": query, "recall": recall(found)}
    )
    return rows


def clusters(vectors: Vectors, kind: Any) -> list[dict[str, Any]]:
    """K-means, ours and scikit-learn's with the same number of restarts and of iterations."""
    seconds, label = timed(lambda: spherical_kmeans(vectors, CLUSTERS, seed=0))
    rows = [{"way": "ours", "seconds": seconds, "ari": adjusted_rand_index(label, kind)}]
    if vectors.size <= MOST_BY_RIVAL:
        rival = KMeans(CLUSTERS, n_init=5, max_iter=50, random_state=0)
        seconds, label = timed(lambda: rival.fit_predict(vectors))
        ari = adjusted_rand_index(label.astype(np.int64), kind)
        rows.append({"way": "scikit-learn", "seconds": seconds, "ari": ari})
    return rows


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6])
    parser.add_argument("--columns", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for columns in arguments.columns:
        for heads in arguments.heads:
            vectors, kind = vectors_around(heads, columns)
            row: dict[str, Any] = {"heads": heads, "columns": columns}
            row["neighbours"] = neighbours(vectors)
            row["clusters"] = clusters(vectors, kind)
            rows.append(row)
            for each in row["neighbours"]:
                print(
                    f"{heads:>9,} x {columns}  {each['way']:18} build {each['build_s']:8.3f} s  "
                    f"query {1e3 * each['query_s'] / QUERIES:8.3f} ms  recall {each['recall']:.3f}",
                    flush=True,
                )
            for each in row["clusters"]:
                print(
                    f"{heads:>9,} x {columns}  {each['way']:18} k-means {each['seconds']:8.2f} s  "
                    f"ARI {each['ari']:.2f}",
                    flush=True,
                )
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "faiss": faiss_module().__version__,
        "gpus": faiss_module().get_num_gpus(),
        "queries": QUERIES,
        "nearest": NEAREST,
        "k": CLUSTERS,
        "rows": rows,
    }
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
