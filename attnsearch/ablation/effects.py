"""What it does to the images when heads are switched off: a paired design.

Every ablation paints the same prompts from the same noise as the whole model, so what differs is
the heads' doing.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attnsearch import encoders
from attnsearch.ablation.hooks import Ablation, MeanOutputs, ablated, mean_outputs
from attnsearch.axes import ROLES
from attnsearch.evaluation import MEASURES, Evaluation, Within, evaluate
from attnsearch.models import Checkpoint, DiT
from attnsearch.sampling import SamplerConfig
from attnsearch.task.captions import Caption

_DRAWS: Final = 2000
_PHRASE: Final = [ROLES.index("relation"), ROLES.index("filler")]
"""Roles of the whole relation phrase, not of its direction words alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an ablation did to one share of images."""

    measure: str
    """One of `evaluation.MEASURES`."""
    before: float
    after: float
    difference: float
    """After less before."""
    low: float
    high: float
    """95 % interval of the difference, a bootstrap over prompts."""
    p_value: float
    """McNemar's exact test: chance of so uneven a change, if both ways are as likely."""
    images: int


def measure_effects(
    checkpoint: Checkpoint,
    ablations: Sequence[Ablation],
    *,
    seeds: int,
    sampler: SamplerConfig,
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Effect]]:
    """The effects of every ablation, keyed by measure, in order.

    Paints the task's whole prompt grid once with all heads, and once for every ablation; `advance`
    is told the number of images finished after each batch. Mean outputs are of the images painted
    with all heads.

    Raises:
        ConfigError: an ablation asks for what the model has not, or as of `evaluate`.
    """
    means: MeanOutputs = {}
    counts: dict[tuple[int, int], int] = {}
    text = encoders.build(checkpoint.encoder)

    def paint(within: Within) -> Evaluation:
        return evaluate(
            checkpoint, seeds=seeds, sampler=sampler, device=device, advance=advance, within=within
        )

    def whole(model: DiT, _: Sequence[Caption]) -> AbstractContextManager[None]:
        return mean_outputs(model, means, counts)

    def without(ablation: Ablation) -> Within:
        def within(model: DiT, captions: Sequence[Caption]) -> AbstractContextManager[None]:
            hidden = phrase_tokens(text.encode(captions).roles).to(device)
            return ablated(model, ablation, means=means, hidden=hidden)

        return within

    before = paint(whole).outcomes
    return [effects_of(before, paint(without(each)).outcomes, seeds) for each in ablations]


def phrase_tokens(roles: Tensor) -> Tensor:
    """[sample, token] bool, the tokens of the relation phrase, from Gamma [sample, token, role]."""
    return roles[..., _PHRASE].sum(-1) > 0


def effects_of(
    before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], seeds: int
) -> dict[str, Effect]:
    """Effects from outcomes [sample, measure] of the same prompts and noise.

    Samples of a prompt follow each other, `seeds` of them.
    """
    from scipy.stats import binomtest  # slow to import

    change = (after.astype(float) - before).reshape(-1, seeds, len(MEASURES)).mean(axis=1)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(change), np.full(len(change), 1 / len(change)), size=_DRAWS)
    low, high = np.quantile(drawn @ change / len(change), [0.025, 0.975], axis=0)
    found = {}
    for number, measure in enumerate(MEASURES):
        lost = int((before[:, number] & ~after[:, number]).sum())
        won = int((~before[:, number] & after[:, number]).sum())
        found[measure] = Effect(
            measure=measure,
            before=float(before[:, number].mean()),
            after=float(after[:, number].mean()),
            difference=float(change[:, number].mean()),
            low=float(low[number]),
            high=float(high[number]),
            p_value=float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0,
            images=len(before),
        )
    return found
