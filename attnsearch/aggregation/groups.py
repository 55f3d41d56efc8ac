"""Which samples belong together: those that are alike in some coordinates."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from attnsearch.axes import SAMPLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """The groups of the samples of an array."""

    keys: tuple[str, ...]
    """Coordinates along samples in which those of a group are alike; empty: one group of all."""
    labels: tuple[NDArray[Any], ...]
    """For each key its different values, in order of first appearance."""
    codes: NDArray[np.intp]
    """[sample] number of its group: place in the grid of all combinations of labels, row-major."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Labels of each key."""
        return tuple(len(labels) for labels in self.labels)

    @classmethod
    def of(cls, values: xr.DataArray, keys: Sequence[str]) -> "Grouping":
        """The groups of an array's samples by some coordinates, or by the samples themselves."""
        labels, codes = [], np.zeros(values.sizes[SAMPLE], dtype=np.intp)
        for key in keys:
            if key == SAMPLE and key not in values.coords:
                labels.append(np.arange(len(codes)))
                codes = codes * len(codes) + np.arange(len(codes))
                continue
            different, numbers = _numbered(values.coords[key].to_numpy())
            labels.append(different)
            codes = codes * len(different) + numbers
        return cls(keys=tuple(keys), labels=tuple(labels), codes=codes)

    def coordinates(
        self, values: xr.DataArray
    ) -> dict[Hashable, tuple[tuple[str, ...], NDArray[Any]]]:
        """Coordinates of the groups: the keys, and with one key all that its groups agree on."""
        own: dict[Hashable, tuple[tuple[str, ...], NDArray[Any]]] = {
            key: ((key,), labels) for key, labels in zip(self.keys, self.labels, strict=True)
        }
        if len(self.keys) != 1:
            return own
        (key,) = self.keys
        _, first = np.unique(self.codes, return_index=True)
        for name, column in values.coords.items():
            if name in own or column.dims != (SAMPLE,):
                continue
            entries = column.to_numpy()
            if (entries == entries[first][self.codes]).all():
                own[name] = ((key,), entries[first])
        return own

    def spread(self, groups: NDArray[np.intp], array: NDArray[Any], fill: Any) -> NDArray[Any]:
        """Some groups [group, ...] among all combinations [*keys, ...]; `fill` for the others."""
        whole = np.full((prod(self.shape), *array.shape[1:]), fill, dtype=array.dtype)
        whole[groups] = array
        return whole.reshape((*self.shape, *array.shape[1:]))


def _numbered(column: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The different values in order of first appearance, and the number of each entry."""
    # NumPy sorts objects and strings of variable length alike, but not all of it is fast for both.
    comparable = column.astype(object) if column.dtype.kind in "OT" else column
    _, first, inverse = np.unique(comparable, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    return column[np.sort(first)], rank[inverse]
