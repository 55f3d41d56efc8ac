"""Scores with intervals, p-values and family-wise p-values, of evidence about many heads at once.

Intervals: 2,000 resamples of prompts within the parts of the design, one prompt less than a part
has, which makes their variance unbiased (Rao and Wu 1988); quantiles of the resampled scores,
moved to lie around the score. Where prompts drawn twice would look like evidence, a jackknife over
prompts. p-values: shares of 20,000 draws of the null, the same draws for all heads. Family-wise:
the share of draws in which any head at all is as many deviations of its own null away as this one.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from attnsearch.errors import MetricError
from attnsearch.metrics.evidence import Evidence

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Over = Literal["mean", "peak"]

DRAWS: Final = 20_000
"""Of a null."""
RESAMPLES: Final = 2_000
LEVEL: Final = 0.95
"""Of intervals."""

_TIE: Final = 1 - 1e-9
"""Draws that give the labels back give the score back, but for rounding."""
_NUMBERS_AT_ONCE: Final = 2**25
"""Of null draws, which are what takes most memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadScores:
    """Scores of the heads of one scan; arrays are [head], all layers in a row."""

    score: Floats
    ci_low: Floats
    """Lower end of the 95 % interval; with `peak`, of one that holds for all steps at once."""
    ci_high: Floats
    profile: Floats
    """[step, head] the score of every step alone."""
    prompts: int
    """How many count."""
    signed: bool
    shuffled: str | None
    """The label that the null shuffles; None: there is no null, and all below is NaN."""
    effect: Floats
    """How many standard deviations of its null a head is away from the mean of it."""
    p_value: Floats
    """Two-sided where the score has a sign, else of being as large."""
    largest: Floats
    """[draw] the largest effect, by size, of any head under the null."""


def infer(evidence: Evidence, over: Over = "mean", draws: int = DRAWS, seed: int = 0) -> HeadScores:
    """Scores of every head, over the mean of all steps or at the step where it is largest.

    Of one prompt there is a score, and nothing to say how sure it is.

    Raises:
        MetricError: no prompt counts, or the question divides by zero.
    """
    chosen = evidence.known
    if not chosen.any():
        raise MetricError("no prompt counts")
    share = (chosen / chosen.sum())[None]
    profile = evidence.scores(share)[0]
    if not np.isfinite(profile).all():
        raise MetricError("the question has no finite answer for some head: it divides by zero")
    steps, heads = profile.shape
    weights = _weights(evidence, chosen, np.random.default_rng(seed))
    parts = []
    largest = np.zeros(draws)
    shuffled = evidence.shuffled if chosen.sum() > 1 else None
    at_once = max(1, _NUMBERS_AT_ONCE // (draws * (steps if over == "peak" else 1)))
    for begin in range(0, heads, at_once):
        part = evidence.part(slice(None), slice(None), slice(begin, begin + at_once))
        if over == "mean":
            part = part.averaged()
        score, low, high = _interval(part, share, weights)
        effect = p_value = np.full_like(score, np.nan)
        if shuffled is not None:
            # The same seed for every part, so that a draw is of all heads together.
            generator = np.random.default_rng(seed + 1)
            effect, p_value = _tested(part, chosen, draws, generator, largest)
        parts.append(np.stack([score, low, high, effect, p_value]))
    score, low, high, effect, p_value = np.concatenate(parts, axis=1)
    return HeadScores(
        score=score,
        ci_low=low,
        ci_high=high,
        profile=profile,
        prompts=int(chosen.sum()),
        signed=evidence.signed,
        shuffled=shuffled,
        effect=effect,
        p_value=p_value,
        largest=largest,
    )


def family_wise(effect: Floats, largest: Floats) -> Floats:
    """p-value [head] that controls the chance of any false finding (Westfall and Young 1993).

    `largest` [draw] are the largest effects by size of all heads under the null.
    """
    ordered = np.sort(largest)
    reached = len(ordered) - np.searchsorted(ordered, np.abs(effect) * _TIE, side="left")
    adjusted = (reached + 1) / (len(ordered) + 1)
    return np.where(np.isnan(effect), np.nan, adjusted)


def _tested(
    part: Evidence, chosen: Flags, draws: int, generator: np.random.Generator, largest: Floats
) -> tuple[Floats, Floats]:
    """Effect and p-value [head]; `largest` [draw] is brought up to date."""
    observed, null = part.null(chosen, draws, generator)
    if part.signed and len(observed) > 1:
        null, observed = np.abs(null), np.abs(observed)
    steps, seen = null.max(axis=1), observed.max(axis=0)
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    # A mean that is no more than the accident of the draws would part scores that are tied.
    centre = np.where(np.abs(mean) * np.sqrt(draws) > 4 * deviation, mean, 0)
    away, seen_away = steps - centre, seen - centre
    if part.signed and len(observed) == 1:
        exceeded = (np.abs(away) >= np.abs(seen_away) * _TIE).sum(axis=0)
    else:
        exceeded = (away >= seen_away - np.abs(seen_away) * (1 - _TIE)).sum(axis=0)
    deviation = np.where(deviation > 0, deviation, np.inf)
    np.maximum(largest, np.abs(away / deviation).max(axis=1), out=largest)
    return seen_away / deviation, (exceeded + 1) / (draws + 1)


def _interval(part: Evidence, share: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Score and ends of its interval [head]; of several steps at the one where it is largest."""
    by_step = part.scores(share)[0]
    step = (np.abs(by_step) if part.signed else by_step).argmax(axis=0)
    heads = np.arange(by_step.shape[1])
    score = by_step[step, heads]
    if (share > 0).sum() == 1:
        return score, np.full(len(heads), np.nan), np.full(len(heads), np.nan)
    resampled = part.scores(weights)[:, step, heads]
    if part.repeats and len(by_step) == 1:
        moved = score - resampled.mean(axis=0)
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(resampled, [tail, 1 - tail], axis=0) + moved
        return score, low, high
    from scipy.stats import t  # slow to import, and seldom needed

    spread = resampled.std(axis=0)
    prompts = int((share > 0).sum())
    if not part.repeats:
        spread = spread * np.sqrt(prompts - 1)
    # A step that was looked for among several deserves an interval that holds for all of them.
    reach = t.ppf(1 - (1 - LEVEL) / 2 / len(by_step), prompts - 1) * spread
    return score, score - reach, score + reach


def _weights(evidence: Evidence, chosen: Flags, generator: np.random.Generator) -> Floats:
    """Weights [resample, prompt]: of a bootstrap, or with each prompt left out in turn."""
    inside = np.flatnonzero(chosen)
    if not evidence.repeats:
        weights = np.zeros((len(inside), len(chosen)))
        weights[:, inside] = (1 - np.eye(len(inside))) / (len(inside) - 1)
        return weights
    weights = np.zeros((RESAMPLES, len(chosen)))
    for stratum in np.unique(evidence.strata[inside]):
        members = inside[evidence.strata[inside] == stratum]
        drawn = max(1, len(members) - 1)
        counts = generator.multinomial(drawn, np.full(len(members), 1 / len(members)), RESAMPLES)
        weights[:, members] = counts * (len(members) / (drawn * len(inside)))
    return weights
