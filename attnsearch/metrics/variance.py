"""What a label explains of maps, beyond what other labels do."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from attnsearch.errors import MetricError
from attnsearch.metrics.evidence import DRAWS_AT_ONCE, Flags, Floats, Measured, Null, weighted


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained(Measured):
    """The share of the variance of maps [prompt, step, head, basis] that a label explains.

    Beyond other labels: partial eta squared, SSR / (SSR + SSE), made unbiased for the chance share
    (epsilon squared, Kelley 1935): 1 - (1 - eta^2) m / (m - k), with k degrees of freedom of the
    label and m of everything but the other labels. The null permutes the label among prompts that
    are alike in the others, or among all where no two are.
    """

    label: npt.NDArray[np.intp]
    """[prompt]"""
    others: npt.NDArray[np.intp]
    """[prompt, label]"""

    def part(self, prompts: Any, steps: Any, heads: Any) -> Self:
        """See `Evidence`."""
        less = Measured.part(self, prompts, steps, heads)
        return replace(less, label=self.label[prompts], others=self.others[prompts])

    def scores(self, weights: Floats) -> Floats:
        """See `Evidence`; prompts are in or out, all with the same weight."""
        fits = [self._fit(row > 0, self.label) for row in weights]
        gram = self._gram()
        explained = weighted(np.stack([fit.explained for fit in fits]), gram)
        whole = weighted(np.stack([fit.whole for fit in fits]), gram)
        correction = np.array([fit.correction for fit in fits])[:, None, None]
        return _unbiased(explained, whole, correction)

    def null(self, chosen: Flags, draws: int, generator: np.random.Generator) -> Null:
        """See `Evidence`."""
        fit = self._fit(chosen, self.label)
        gram = self._gram()
        whole = weighted(fit.whole[None], gram)
        observed = _unbiased(weighted(fit.explained[None], gram), whole, fit.correction)[0]
        alike = _alike(self.others, chosen)
        null = np.empty((draws, *observed.shape))
        # Both matrices are symmetric; and draws need no more digits than this.
        across, columns = np.triu_indices(len(chosen))
        half = across * len(chosen) + columns
        packed = gram[half].astype(np.float32)
        packed[across != columns] *= 2
        for begin in range(0, draws, 8 * DRAWS_AT_ONCE):
            rows = slice(begin, min(begin + 8 * DRAWS_AT_ONCE, draws))
            labels = np.tile(self.label, (rows.stop - rows.start, 1))
            for members in alike:
                labels[:, members] = generator.permuted(labels[:, members], axis=1)
            projectors = self._projectors(chosen, labels)[:, half].astype(np.float32)
            null[rows] = _unbiased(weighted(projectors, packed), whole, fit.correction)
        return observed, null

    def _gram(self) -> Floats:
        """Products of the maps of every two prompts, [prompt * prompt, step, head]."""
        maps = np.ascontiguousarray(np.moveaxis(self.values, 0, 2))
        products = maps @ maps.swapaxes(-1, -2)
        flat = products.reshape(*products.shape[:2], -1)
        return np.ascontiguousarray(np.moveaxis(flat, -1, 0))

    def _fit(self, chosen: Flags, label: npt.NDArray[np.intp]) -> "_Fit":
        nuisance = _orthonormal(_one_hot(self.others[chosen]))
        projector = self._projectors(chosen, label[None])[0]
        inside = np.flatnonzero(chosen)
        whole = np.zeros((len(chosen), len(chosen)))
        whole[np.ix_(inside, inside)] = np.eye(len(inside)) - nuisance @ nuisance.T
        freedom = len(inside) - nuisance.shape[1]
        of_label = round(np.trace(projector.reshape(len(chosen), -1)))
        if not 0 < of_label < freedom:
            raise MetricError(
                f"{len(inside)} prompts are too few to tell what {self.shuffled} explains "
                "beyond the rest of the prompt"
            )
        return _Fit(
            explained=projector, whole=whole.ravel(), correction=freedom / (freedom - of_label)
        )

    def _projectors(self, chosen: Flags, labels: npt.NDArray[np.intp]) -> Floats:
        """On what labels [draw, prompt] say beyond the others, [draw, prompt * prompt]."""
        inside = np.flatnonzero(chosen)
        nuisance = _orthonormal(_one_hot(self.others[chosen]))
        levels = np.unique(self.label[chosen])
        design = (labels[:, inside, None] == levels).astype(np.float64)
        design -= nuisance @ (nuisance.T @ design)
        # Levels sum to what the others hold already; of their Gram matrix a rank is missing.
        small = np.linalg.pinv(design.transpose(0, 2, 1) @ design, rcond=1e-8, hermitian=True)
        projectors = design @ small @ design.transpose(0, 2, 1)
        whole = np.zeros((len(labels), len(chosen), len(chosen)))
        whole[:, inside[:, None], inside] = projectors
        return whole.reshape(len(labels), -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    explained: Floats
    whole: Floats
    correction: float


def _unbiased(explained: Floats, whole: Floats, correction: Any) -> Floats:
    share = explained / np.where(whole > 0, whole, 1)
    return np.where(whole > 0, 1 - (1 - share) * correction, 0)


def _one_hot(labels: npt.NDArray[np.intp]) -> Floats:
    """A constant, and a column for every level of every label [prompt, label]."""
    columns = [np.ones((len(labels), 1))]
    columns += [(each[:, None] == np.unique(each)).astype(np.float64) for each in labels.T]
    return np.concatenate(columns, axis=1)


def _orthonormal(design: Floats) -> Floats:
    """An orthonormal basis of the columns."""
    left, size, _ = np.linalg.svd(design, full_matrices=False)
    return left[:, size > 1e-9 * size[0]]


def _alike(others: npt.NDArray[np.intp], chosen: Flags) -> list[npt.NDArray[np.intp]]:
    """The chosen prompts, together with those they are alike with, or all of them."""
    _, group = np.unique(others, axis=0, return_inverse=True)
    group = group.reshape(-1)
    inside = np.flatnonzero(chosen)
    alike = [inside[group[inside] == each] for each in np.unique(group[inside])]
    return alike if max(map(len, alike)) > 1 else [inside]
