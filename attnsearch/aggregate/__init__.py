"""Reducing stored sketches to per-head statistics, block by block through Dask."""

from attnsearch.aggregate.linear import (
    basis_of,
    by_prompt,
    kept_energy,
    project,
    region_scores,
)

__all__ = ["basis_of", "by_prompt", "kept_energy", "project", "region_scores"]
