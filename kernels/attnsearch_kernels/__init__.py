"""Attention that also returns a sketch of its map, without handing the map out.

The public page: the operators, what they return, which backend runs it, and the spatial basis.
Knows tensors only; roles, heads, models and stores are the business of `attnsearch`. This
package imports torch, triton, numpy and the standard library, nothing else.
"""

from attnsearch_kernels.basis import dct2, inverse_dct2
from attnsearch_kernels.contract import Backend, MapStatistics, SketchedAttention
from attnsearch_kernels.dispatch import resolve_backend, sketch_attention, sketch_given_lse

__all__ = [
    "Backend",
    "MapStatistics",
    "SketchedAttention",
    "dct2",
    "inverse_dct2",
    "resolve_backend",
    "sketch_attention",
    "sketch_given_lse",
]
