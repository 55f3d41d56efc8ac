"""Neighbours by FAISS are those by definition, also in a fork and beside torch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attnsearch.clustering import HeadIndex, neighbours
from attnsearch.clustering.neighbours import spherical_kmeans
from attnsearch.clustering.signatures import unit_rows
from attnsearch.errors import ConfigError

RNG = np.random.default_rng(0)
VECTORS = unit_rows(RNG.standard_normal((2000, 24)))


def brute_force(vectors: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-(queries @ vectors.T), axis=1)[:, :count]


def test_the_nearest_are_those_of_the_largest_product() -> None:
    rows, cosines = HeadIndex(VECTORS).nearest(VECTORS[:50], 10)
    np.testing.assert_array_equal(rows, brute_force(VECTORS, VECTORS[:50], 10))
    np.testing.assert_allclose(cosines[:, 0], 1, atol=1e-6)
    assert (np.diff(cosines, axis=1) <= 0).all()


def test_a_graph_finds_nearly_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "EXACT", 1000)
    rows, _ = HeadIndex(VECTORS).nearest(VECTORS, 10)
    exact = brute_force(VECTORS, VECTORS, 10)
    found = [len({*one} & {*other}) for one, other in zip(rows, exact, strict=True)]
    assert np.mean(found) >= 9.5


def test_a_graph_is_kept_and_only_taken_for_its_own_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "EXACT", 1000)
    expected = HeadIndex(VECTORS, tmp_path / "kept").nearest(VECTORS[:50], 10)[0]
    (kept,) = (tmp_path / "kept").iterdir()
    written = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(
        HeadIndex(VECTORS, tmp_path / "kept").nearest(VECTORS[:50], 10)[0], expected
    )
    assert kept.stat().st_mtime_ns == written
    others = HeadIndex(-VECTORS, tmp_path / "kept").nearest(-VECTORS[:50], 1)[0]
    np.testing.assert_array_equal(others[:, 0], np.arange(50))
    (kept,) = (tmp_path / "kept").iterdir()  # the older one is gone
    kept.write_bytes(b"IHNf cut off")
    again = HeadIndex(-VECTORS, tmp_path / "kept").nearest(-VECTORS[:50], 1)[0]
    np.testing.assert_array_equal(again, others)


def test_no_more_come_back_than_there_are() -> None:
    rows, cosines = HeadIndex(VECTORS[:3]).nearest(VECTORS[:1], 20)
    assert rows.shape == cosines.shape == (1, 3)


def test_kmeans_takes_every_point_and_repeats_itself() -> None:
    centres = unit_rows(RNG.standard_normal((5, 24)))
    kinds = np.repeat(np.arange(5), 400)
    vectors = unit_rows(centres[kinds] + 0.1 * RNG.standard_normal((2000, 24)))
    label = spherical_kmeans(vectors, 5, seed=3)
    np.testing.assert_array_equal(label, spherical_kmeans(vectors, 5, seed=3))
    assert all(len(np.unique(label[kinds == kind])) == 1 for kind in range(5))
    assert len(np.unique(label)) == 5


def test_without_faiss_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r'pip install "attnsearch\[cpu\]"'):
        HeadIndex(VECTORS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.parametrize("torch", ["", "before", pytest.param("after", marks=pytest.mark.deep)])
def test_a_fork_of_a_process_that_used_threads_can_search(torch: str) -> None:
    """In a process of its own: a fork that waits forever must not take the tests with it."""
    script = f"""
import os, signal
import numpy as np
{"import torch" if torch == "before" else ""}
from attnsearch.clustering.neighbours import HeadIndex, faiss_module, spherical_kmeans
faiss = faiss_module()
{"import torch" if torch == "after" else ""}
faiss.omp_set_num_threads(2)
vectors = np.random.default_rng(0).standard_normal((4000, 32))
index = HeadIndex(vectors)
expected = index.nearest(vectors[:500], 5)[0]
spherical_kmeans(vectors, 4, 0)
if {bool(torch)}:
    torch.ones(500, 500) @ torch.ones(500, 500)
child = os.fork()
if child == 0:
    signal.alarm(900)
    same = (index.nearest(vectors[:500], 5)[0] == expected).all()
    spherical_kmeans(vectors, 4, 0)
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
