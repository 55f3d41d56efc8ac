"""The plane of heads shows as much of their differences as a plane can."""

import numpy as np

from attnsearch.clustering import signatures, standardised
from attnsearch.clustering.landscape import landscape
from attnsearch.metrics.planted import Kind, Plant, planted_scan

PLANTS = (Plant(kind=Kind.RELATIONAL, strength=2.0), *(Plant() for _ in range(7)))


def test_distances_on_the_plane_are_those_of_the_two_largest_components() -> None:
    found = signatures({"a": planted_scan(PLANTS, 0), "b": planted_scan(PLANTS, 1)})
    vectors = standardised(found)
    plane = landscape(vectors, found)
    xy = np.stack([plane["x"], plane["y"]], axis=1)
    np.testing.assert_allclose(xy.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(xy[:, 0] @ xy[:, 1], 0, atol=1e-9)
    variance = ((vectors - vectors.mean(axis=0)) ** 2).sum()
    np.testing.assert_allclose((xy**2).sum(axis=0) / variance, plane.attrs["shares"])
    assert list(plane["address"].values) == list(found["address"].values)
    order = np.arange(len(vectors))[::-1]
    again = landscape(vectors[order], found.isel(address=order))
    np.testing.assert_allclose(again["x"].values[order], plane["x"].values, atol=1e-9)
