"""Which heads of different models do the same; knows nothing of torch."""

from attnsearch.clustering.behaviours import Behaviours, find_behaviours
from attnsearch.clustering.families import Family, find_families
from attnsearch.clustering.neighbours import HeadIndex
from attnsearch.clustering.signatures import signatures, standardised

__all__ = [
    "Behaviours",
    "Family",
    "HeadIndex",
    "find_behaviours",
    "find_families",
    "signatures",
    "standardised",
]
