"""Relational selectivity: does the map of the relation words move to where they point?

For prompt p let a_i be the attention of image token i to the relation tokens, r_i its position
in [-1, 1]^2 (x right, y down) and u_p the unit vector of the asked relation, from object 2 to
object 1. The dipole of the map is D_p = sum_i a_i r_i, and

    score = mean_p <D_p - mean D, u_p> / kappa(u_p),    kappa(u) = 1/2 sum_i |<r_i, u>|,

averaged over steps, unconditional branch left out. It has no unit. +1: all image tokens on the
asked side of the centre attend to nothing but the relation words, all others not at all; -1: the
same with sides swapped, as in a head that marks object 2. It is 0 for a head that is uniform, or
has a spatial bias that does not depend on the relation (its D is subtracted), or attends to other
words alike everywhere. Dipoles after the template T = d . (X, Y) of arXiv 2601.06338.

The null. A head may well treat every relation word differently and yet know nothing of space: a
network with random weights does. So what is drawn at random under the null is what the words
mean. D is regressed on the presence of each direction word; every word's coefficient, the way the
map moves when the word is there, is turned by an independent uniform angle; and the p-value is
the share of 20,000 such draws whose part of the score is at least as large in size. Phrases share
words ("left of", "to the upper left of"), which is why labels of phrases may not be shuffled as
if they were independent: that would call random networks significant.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.aggregate import FUNCTIONAL, Aggregator, Functional, basis_of
from attnsearch.axes import HEAD, LAYER, PROMPT, RELATION_DIRECTIONS, STEP
from attnsearch.errors import MetricError

Floats = npt.NDArray[np.float64]

DRAWS = 20_000
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class HeadScores:
    """One metric over the heads of one model; arrays are [layer, head]."""

    score: Floats
    ci_low: Floats
    """Lower end of the 95 % bootstrap interval over prompts."""
    ci_high: Floats
    p_value: Floats
    """Two-sided, from the metric's own null."""
    peak_step: npt.NDArray[np.int64]
    """The step at which the score of a head is largest in size."""


def relational(scan: xr.Dataset, aggregate: Aggregator | None = None, seed: int = 0) -> HeadScores:
    """Relational selectivity of every head of a scan; formula and null above.

    Raises:
        MetricError: the scan's prompts do not state relations of more than one kind.
    """
    dipole, values, target = _dipoles(scan, aggregate or Aggregator())
    relations = dipole["relation"].to_numpy()
    score_by_step = _covariance(values, target)
    mean_dipole = values.mean(axis=1)
    phrases = [str(phrase).split() for phrase in dipole["relation_words"].to_numpy()]
    words = sorted({word for phrase in phrases for word in phrase})
    presence = np.array([[float(word in phrase) for word in words] for phrase in phrases])
    generator = np.random.default_rng(seed)
    low, high = _bootstrap(mean_dipole, target, relations, generator)
    return HeadScores(
        score=score_by_step.mean(axis=0),
        ci_low=low,
        ci_high=high,
        p_value=random_meaning_p(mean_dipole, target, presence, generator),
        peak_step=np.abs(score_by_step).argmax(axis=0),
    )


def relational_by_step(scan: xr.Dataset, aggregate: Aggregator | None = None) -> Floats:
    """The score of every head at every step, [step, layer, head]; its mean is the score.

    Raises:
        MetricError: the scan's prompts do not state relations of more than one kind.
    """
    _, values, target = _dipoles(scan, aggregate or Aggregator())
    return _covariance(values, target)


def token_positions(grid: tuple[int, int]) -> Floats:
    """Positions r [token, xy] of the image tokens in [-1, 1], row-major."""
    height, width = grid
    y, x = np.meshgrid(
        (2 * np.arange(height) + 1 - height) / height,
        (2 * np.arange(width) + 1 - width) / width,
        indexing="ij",
    )
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def random_meaning_p(
    values: Floats, target: Floats, words: Floats, generator: np.random.Generator
) -> Floats:
    """Two-sided p-value [layer, head] against direction words of random meaning.

    `values` [prompt, layer, head, xy] are dipoles, `target` [prompt, xy] where they should point,
    `words` [prompt, word] how much of each word is in the prompt.
    """
    design = words - words.mean(axis=0)
    flat = (values - values.mean(axis=0)).reshape(len(values), -1)
    inverse = np.linalg.pinv(design)
    coefficient = (inverse @ flat).reshape(design.shape[1], -1, 2)
    pull = design.T @ target / len(values)
    # Turning a coefficient by an angle mixes its dot and cross product with the pull.
    dot = np.einsum("whc,wc->wh", coefficient, pull)
    cross = coefficient[:, :, 0] * pull[:, None, 1] - coefficient[:, :, 1] * pull[:, None, 0]
    angle = generator.uniform(0, 2 * np.pi, (DRAWS, design.shape[1]))
    # Words that always come one or the other are known only up to a constant, which makes their
    # coefficients too short; without this the null would be too narrow.
    leverage = np.diag(inverse @ design)
    length = np.where(leverage > 1e-9, leverage, 1) ** -0.5
    null = np.abs(
        np.cos(angle) @ (dot * length[:, None]) + np.sin(angle) @ (cross * length[:, None])
    )
    exceeded = (null >= np.abs(dot.sum(axis=0))).sum(axis=0)
    return ((exceeded + 1) / (DRAWS + 1)).reshape(values.shape[1:-1])


def _dipoles(scan: xr.Dataset, aggregate: Aggregator) -> tuple[xr.DataArray, Floats, Floats]:
    """D with the prompts' coordinates; its values [prompt, step, layer, head, xy]; the targets."""
    _check(scan)
    ramps = Functional(coefficients=_ramps(scan), roles=("relation",))
    dipole = aggregate(scan, ramps, (PROMPT, STEP, LAYER, HEAD, FUNCTIONAL))["mean"]
    relations = dipole["relation"].to_numpy().astype(object)
    dipole = dipole.isel({PROMPT: relations != ""})
    targets = _targets(relations[relations != ""], scan.attrs["grid"])
    return dipole, dipole.to_numpy(), targets


def _check(scan: xr.Dataset) -> None:
    """Refuse a scan whose prompts state no relations, or unknown ones."""
    stated = scan.coords.get("relation")
    if stated is None or "relation" not in scan["role"].to_numpy():
        raise MetricError(
            "the relational metric needs prompts that mark their relation words, "
            "for example {relation:above}"
        )
    texts = [str(relation) for relation in stated.to_numpy()]
    relations = {*texts} - {""}
    if unknown := sorted(relations - RELATION_DIRECTIONS.keys()):
        raise MetricError(
            f"the relational metric knows no direction for the relation {unknown[0]!r}; "
            f"known: {', '.join(RELATION_DIRECTIONS)}"
        )
    if len(relations) < 2:
        raise MetricError("the relational metric needs prompts with at least two relations")


def _ramps(scan: xr.Dataset) -> npt.NDArray[np.float32]:
    """Coefficients [basis, xy] of the two position ramps."""
    return (basis_of(scan) @ token_positions(scan.attrs["grid"])).astype(np.float32)


def _targets(relations: npt.NDArray[np.object_], grid: tuple[int, int]) -> Floats:
    """u_p / kappa(u_p), [prompt, xy]."""
    direction = np.array([RELATION_DIRECTIONS[str(name)] for name in relations])
    kappa = 0.5 * np.abs(token_positions(grid) @ direction.T).sum(axis=0)
    return direction / kappa[:, None]


def _covariance(values: Floats, target: Floats) -> Floats:
    """mean_p <D_p - mean D, target_p> over axis 0; values [prompt, ..., xy]."""
    centred = values - values.mean(axis=0)
    return np.einsum("p...c,pc->...", centred, target) / len(values)


def _bootstrap(
    values: Floats,
    target: Floats,
    relations: npt.NDArray[np.object_],
    generator: np.random.Generator,
) -> tuple[Floats, Floats]:
    """95 % percentile interval of the score over resampled prompts, [layer, head] each.

    Prompts are drawn within their relation: how many ask for which is design, not chance.
    """
    prompts = len(values)
    weights = np.zeros((RESAMPLES, prompts))
    for relation in np.unique(relations):
        members = np.flatnonzero(relations == relation)
        share = np.full(len(members), 1 / len(members))
        weights[:, members] = generator.multinomial(len(members), share, RESAMPLES) / prompts
    flat = values.reshape(prompts, -1, 2)
    joint = np.einsum("bp,phc,pc->bh", weights, flat, target, optimize=True)
    means = np.einsum("bp,phc->bhc", weights, flat, optimize=True)
    scores = joint - np.einsum("bhc,bc->bh", means, weights @ target)
    low, high = np.quantile(scores, [0.025, 0.975], axis=0)
    return low.reshape(values.shape[1:-1]), high.reshape(values.shape[1:-1])
