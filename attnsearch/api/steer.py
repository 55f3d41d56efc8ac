"""Whether objects go where some heads, or some words, are made to say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from attnsearch.ablation import check_relation, check_roles, check_strength
from attnsearch.api.arguments import Heads, found_checkpoint, head_set, names_of, role_set
from attnsearch.errors import ConfigError
from attnsearch.progress import progress
from attnsearch.sampling import SamplerConfig
from attnsearch.tables import Column, Table

if TYPE_CHECKING:
    from attnsearch.models import Checkpoint

_NAMES: Final = {"target": "the target relation", "asked": "the relation asked for"}
_TAGS: Final = ("prompt", "images", "weights")
_LENDERS: Final = ("colours", "shapes", "order")


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeredShare:
    """A share of images before and after, with Wilson 95 % intervals, all in [0, 1]."""

    measure: str
    """`target` (the relation steered to), `asked` (that of the caption), `binding`, `shape` or
    `colour`."""
    before: float
    before_low: float
    before_high: float
    after: float
    after_low: float
    after_high: float
    images: int
    """Images scored, before and after each."""


class SteeredShares(Table[SteeredShare]):
    """Shares of images by what they show."""

    @property
    def columns(self) -> Sequence[Column[SteeredShare]]:
        """See `Table`."""
        return [
            Column("images with", lambda row: _NAMES.get(row.measure, row.measure), words=True),
            Column("before", lambda row: f"{row.before:.3f}"),
            Column("after", lambda row: f"{row.after:.3f}"),
            Column("95 % interval", lambda row: f"{row.after_low:.3f} to {row.after_high:.3f}"),
            Column("images", lambda row: str(row.images)),
        ]


def steer(
    model: "Checkpoint | Path | str",
    heads: Heads | None = None,
    *,
    roles: str | Sequence[str] | None = None,
    to: str | None = None,
    strength: float = 1.0,
    tag: Literal["prompt", "images", "weights"] = "prompt",
    lender: Literal["colours", "shapes", "order"] = "colours",
    seeds: int = 2,
    steps: int = 14,
    guidance: float = 4.5,
    device: str = "auto",
) -> SteeredShares:
    """Paint the prompt grid as asked, then with heads or words that say another relation.

    `model` is a checkpoint, its file, or a packaged model by name. Either `heads` have the tag of
    another relation (`tag` and `lender` say where it is taken from, see `ablation.steering`), or
    the vectors of words of some `roles` are moved to it. `to` is the relation; by default the
    opposite of what each prompt asks for. Prompts that ask for it themselves are left out.

    Raises:
        CheckpointError: the model cannot be read.
        ConfigError: both or neither of `heads` and `roles` are given; there are no such heads,
            roles, relation, tag or lender; the tag of a prompt is given a strength; or the model
            paints no images of its task.
    """
    if (heads is None) == (roles is None):
        raise ConfigError("say what is steered by: `heads`, such as L0H3, or `roles`")
    if tag not in _TAGS:
        raise ConfigError(f"there is no tag {tag!r}; tags: {', '.join(_TAGS)}")
    if lender not in _LENDERS:
        raise ConfigError(f"there is no lender {lender!r}; lenders: {', '.join(_LENDERS)}")
    group = frozenset() if heads is None else head_set(heads)
    words = role_set(roles)
    check_roles(words)
    check_relation(to)
    if group:
        check_strength(tag, strength)
    sampler = SamplerConfig(steps=steps, guidance=guidance)
    found, name = found_checkpoint(model)
    from attnsearch.ablation import Lender, Tag, steer_by_tag, steer_by_text
    from attnsearch.devices import named_device
    from attnsearch.models import checkpoint_of
    from attnsearch.task.captions import grid_captions

    checkpoint = checkpoint_of(found)
    prompts = grid_captions(checkpoint.task)
    steered = sum(to is None or prompt.relation != to for prompt in prompts)
    with progress("painting", 2 * steered * seeds, "images") as advance:
        if group:
            shares = steer_by_tag(
                checkpoint,
                group,
                tag=Tag(tag),
                lender=Lender(lender),
                to=to,
                strength=strength,
                seeds=seeds,
                sampler=sampler,
                device=named_device(device),
                advance=advance,
            )
        else:
            shares = steer_by_text(
                checkpoint,
                words,
                to=to,
                strength=strength,
                seeds=seeds,
                sampler=sampler,
                device=named_device(device),
                advance=advance,
            )
    rows = [
        SteeredShare(
            measure=measure,
            before=before.value,
            before_low=before.low,
            before_high=before.high,
            after=after.value,
            after_low=after.low,
            after_high=after.high,
            images=after.count,
        )
        for measure, after in shares.after.items()
        for before in [shares.before[measure]]
    ]
    by = names_of(group) or ",".join(sorted(words))
    title = f"{name}, {by} to {to or 'the opposite'}, strength {strength:g}"
    return SteeredShares(rows, title)
