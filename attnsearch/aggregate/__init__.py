"""Reducing stored sketches to per-head statistics, block by block through Dask."""

from attnsearch.aggregate.linear import by_prompt, project, region_scores

__all__ = ["by_prompt", "project", "region_scores"]
