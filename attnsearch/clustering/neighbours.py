"""Nearest heads by inner product, and k-means: what FAISS does for us, with its defaults put right.

FAISS is an extra, imported on first use. Its k-means starts at random points and silently leaves
points out; here it starts as k-means++, several times, and takes all of them.
"""

import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from attnsearch.cleanup import placed
from attnsearch.clustering.signatures import Floats
from attnsearch.errors import ConfigError

EXACT: Final = 100_000
"""Vectors up to which every one is looked at; a graph is searched above."""
_LINKS: Final = 32
_BUILD_EFFORT: Final = 80
_SEARCH_EFFORT: Final = 128
_RESTARTS: Final = 5
_ITERATIONS: Final = 50
_FEW_QUERIES: Final = 20
_BLOCK: Final = 16_384
"""Vectors that are multiplied at a time."""
_READIED: Final = "_attnsearch_is_ready_for_forks"

Integers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.floating[Any]]


class HeadIndex:
    """Finds the vectors with the largest inner products with others.

    Exact up to `EXACT` vectors, in the memory of a GPU where FAISS has one; above, a hierarchical
    navigable small world graph (HNSW; Malkov and Yashunin 2016, arXiv 1603.09320).

    A graph takes minutes to build; in the folder `saved` it is kept for the next time.

    Raises:
        ConfigError: FAISS is not installed.
    """

    def __init__(self, vectors: Vectors, saved: Path | None = None) -> None:
        faiss = faiss_module()
        rows = _rows(vectors)
        if len(rows) > EXACT:
            self._index: Any = _graph(rows, saved)
            self._index.hnsw.efSearch = _SEARCH_EFFORT
            return
        self._index = faiss.IndexFlatIP(rows.shape[1])
        if faiss.get_num_gpus():
            self._index = faiss.index_cpu_to_all_gpus(self._index)
        self._index.add(rows)

    def nearest(self, queries: Vectors, count: int) -> tuple[Integers, Floats]:
        """Rows of the index and inner products, [query, place], largest first.

        There are fewer places than `count` where the index has fewer vectors.
        """
        count = min(count, self._index.ntotal)
        products, rows = self._index.search(_rows(queries), count)
        return rows, products.astype(np.float64)


def _graph(rows: npt.NDArray[np.float32], saved: Path | None) -> Any:
    """The graph of some vectors, from the folder if it holds one of exactly these."""
    faiss = faiss_module()
    path = saved and saved / f"{blake2b(rows.data, digest_size=16).hexdigest()}.hnsw"
    if path is not None and path.exists():
        with suppress(RuntimeError):  # damaged: it can be had again
            return faiss.read_index(str(path))
    index = faiss.IndexHNSWFlat(rows.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _BUILD_EFFORT
    index.add(rows)
    if path is not None:
        with suppress(OSError, RuntimeError):  # where nothing may be written, nothing is kept
            path.parent.mkdir(exist_ok=True)
            with placed(path, path.with_suffix(f".{os.getpid()}")) as partial:
                faiss.write_index(index, str(partial))
                for old in path.parent.glob("*.hnsw"):
                    old.unlink()
    return index


def spherical_kmeans(vectors: Vectors, clusters: int, seed: int) -> Integers:
    """The cluster of every row by direction, [row]; rows are of unit length.

    Raises:
        ConfigError: FAISS is not installed.
    """
    faiss = faiss_module()
    rows = _rows(vectors)
    kmeans = faiss.Kmeans(
        rows.shape[1],
        clusters,
        niter=_ITERATIONS,
        nredo=_RESTARTS,
        seed=seed,
        spherical=True,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
        gpu=bool(faiss.get_num_gpus()),
    )
    kmeans.train(rows)
    return np.asarray(kmeans.index.search(rows, 1)[1][:, 0], dtype=np.int64)


def faiss_module() -> ModuleType:
    """FAISS, ready to be used in forks too.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            'this needs FAISS: pip install "attnsearch[cpu]" (or "attnsearch[gpu]")'
        ) from error
    if not getattr(faiss, _READIED, False):
        # OpenMP's threads do not come along into a fork, which would wait for them forever.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))
        # Left alone, FAISS multiplies matrices for very many queries only, and in small blocks:
        # several times as slow for the hundreds of queries that are usual here.
        faiss.cvar.distance_compute_blas_threshold = _FEW_QUERIES
        faiss.cvar.distance_compute_blas_database_bs = _BLOCK
        setattr(faiss, _READIED, True)
    return faiss


def _rows(vectors: Vectors) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(vectors, dtype=np.float32)
