"""Questions of the form `region -> role`: how much does this region look at those words?

The attention synopsis of arXiv 2601.06338, asked after the scan instead of before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.aggregate import MEASURE, SHARE, TOTAL, Aggregator, RegionScore
from attnsearch.axes import HEAD, LAYER, PROMPT, REGION, ROLE, STEP
from attnsearch.errors import MetricError

Floats = npt.NDArray[np.float64]
_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Template:
    """A region of the image and the roles it is asked about."""

    region: str
    roles: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The template written as `region -> role` or `region -> role+role`.

        Raises:
            MetricError: it is not of that form.
        """
        region, arrow, roles = (part.strip() for part in text.partition("->"))
        names = tuple(role.strip() for role in roles.split("+"))
        if not arrow or not all((region, *names)):
            raise MetricError(
                f"{text!r} is not a template; write for example 'object1 -> relation'"
            )
        return cls(region, names)

    def __str__(self) -> str:
        return f"{self.region} -> {'+'.join(self.roles)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateScore:
    """How strongly one head answers a template, mean over steps and over prompts."""

    rank: int
    model: str
    layer: int
    head: int
    total: float
    """m^T A w: attention summed over the region, in image tokens; grows with the object."""
    share: float
    """m^T A w / m^T 1: attention per unit of region, in [0, 1]; what the ranking goes by."""
    ci_low: float
    """Lower end of the 95 % bootstrap interval of the share over prompts."""
    ci_high: float
    peak_step: int
    """The step at which the share is largest."""
    samples: int
    """Images in which the objects were found; the others do not count."""


def ask(
    scans: Mapping[str, xr.Dataset], template: Template, aggregate: Aggregator | None = None
) -> list[TemplateScore]:
    """Every head of every scan by its answer to a template, strongest first.

    `aggregate` reads the scans; by default in threads, and nobody watches.

    Raises:
        MetricError: a scan has no such region or role, or no image of it has the region.
    """
    answers: list[TemplateScore] = []
    for model, scan in scans.items():
        answers += _answers(model, scan, template, aggregate or Aggregator())
    answers.sort(key=lambda answer: -answer.share)
    return [replace(answer, rank=position + 1) for position, answer in enumerate(answers)]


def _answers(
    model: str, scan: xr.Dataset, template: Template, aggregate: Aggregator
) -> list[TemplateScore]:
    _check(model, scan, template)
    score = RegionScore(region=template.region, roles=template.roles)
    answer = aggregate(scan, score, (PROMPT, STEP, LAYER, HEAD, MEASURE))
    # All maps of an image are readable or none is.
    readable = answer["count"].sel({MEASURE: SHARE}).to_numpy()[:, 0, 0, 0]
    found = int(readable.sum())
    if not found:
        raise MetricError(
            f"{template.region} was found in no image of {model}, so '{template}' has no region "
            "to look at"
        )
    total_by_prompt, share_by_prompt = (
        answer["mean"].sel({MEASURE: measure}).to_numpy()[readable > 0]
        for measure in (TOTAL, SHARE)
    )
    share = share_by_prompt.mean(axis=(0, 1))
    low, high = _bootstrap_mean(share_by_prompt.mean(axis=1))
    peak = share_by_prompt.mean(axis=0).argmax(axis=0)
    summed = total_by_prompt.mean(axis=(0, 1))
    return [
        TemplateScore(
            rank=0,
            model=model,
            layer=int(scan[LAYER][layer]),  # a scan may hold some layers, heads and steps only
            head=int(scan[HEAD][head]),
            total=float(summed[layer, head]),
            share=float(share[layer, head]),
            ci_low=float(low[layer, head]),
            ci_high=float(high[layer, head]),
            peak_step=int(scan[STEP][peak[layer, head]]),
            samples=found,
        )
        for layer, head in np.ndindex(share.shape)
    ]


def _check(model: str, scan: xr.Dataset, template: Template) -> None:
    if REGION not in scan.coords:
        raise MetricError(
            f"nothing looked for objects in the images of {model}, so '{template}' has no region; "
            "for pipelines a segmenter does, in Python"
        )
    for kind, names in ((REGION, (template.region,)), (ROLE, template.roles)):
        known = [str(name) for name in scan[kind].to_numpy()]
        for name in names:
            if name not in known:
                raise MetricError(f"unknown {kind} {name!r}; {model} has {', '.join(known)}")


def _bootstrap_mean(values: Floats) -> tuple[Floats, Floats]:
    """95 % percentile interval of the mean over axis 0."""
    prompts = len(values)
    generator = np.random.default_rng(0)
    weights = generator.multinomial(prompts, np.full(prompts, 1 / prompts), _RESAMPLES) / prompts
    low, high = np.quantile(np.tensordot(weights, values, axes=1), [0.025, 0.975], axis=0)
    return low, high
