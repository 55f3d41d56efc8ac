"""Which heads of different models do the same; knows nothing of torch."""

from attnsearch.clustering.families import Families, Family, find_families
from attnsearch.clustering.signatures import signatures, standardised

__all__ = ["Families", "Family", "find_families", "signatures", "standardised"]
