"""What a family declares about its transformer, and what a forward pass tells before it runs.

Descriptions only: how calls are caught is in `sdpa` and `routing`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from attnsearch.axes import Branch, Site
from attnsearch.errors import ConfigError
from attnsearch.models.attention import BranchRows


class TextPlace(StrEnum):
    """Where the text tokens are among the keys of an attention call."""

    APART = "apart"
    """All keys are text: cross attention."""
    FIRST = "first"
    """One joint sequence, text tokens before image tokens."""
    LAST = "last"
    """One joint sequence, text tokens after image tokens."""


class DiffusersAttention(Protocol):
    """What all attention modules of diffusers have in common."""

    heads: int
    processor: Callable[..., Any]

    def set_processor(self, processor: Any) -> None:
        """Has the module compute its attention by `processor` from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One watched attention module."""

    index: int
    """Zero-based depth among the watched modules."""
    site: Site
    heads: int
    attention: DiffusersAttention


@dataclass(frozen=True, slots=True)
class TextRun:
    """A run of text tokens: which attributes of a pipeline write and embed it."""

    tokenizer: str
    encoder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How the text attention of one diffusers transformer class is found and read."""

    name: str
    transformer: str
    """Name of the transformer class; subclasses are served too."""
    text: TextPlace
    processors: tuple[str, ...]
    """Names of processor classes that make exactly one scaled_dot_product_attention call."""
    attention: Callable[[Any], Sequence[DiffusersAttention]]
    """From the transformer to the attention modules that read text, in the order they run."""
    grid: Callable[[Any, Mapping[str, Any]], tuple[int, ...]]
    """From the transformer and the arguments of its forward pass to the grid of image tokens."""

    texts: tuple[TextRun, ...]
    """The text tokens in order; empty where pipelines paint no still images."""
    lower_case: bool = False
    """Whether the pipeline tokenises prompts in lower case and without outer blanks."""

    @property
    def site(self) -> Site:
        """Cross where the keys are text alone, joint where image tokens are among them."""
        return Site.CROSS if self.text is TextPlace.APART else Site.JOINT

    def layers(self, transformer: Any) -> tuple[Layer, ...]:
        """The watched layers of a transformer of this family."""
        return tuple(
            Layer(index=index, site=self.site, heads=attention.heads, attention=attention)
            for index, attention in enumerate(self.attention(transformer))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPass:
    """One call of the transformer, announced before its first attention call."""

    step: int
    """Zero-based; a second pass for the other branch of guidance belongs to the same step."""
    branches: BranchRows
    grid: tuple[int, ...]
    """Image tokens as (height, width), of a video as (frame, height, width); row-major."""


BranchLayout = Callable[[int, Branch], BranchRows]
"""From the rows of a forward pass, and the branch the pipeline says it is for, to their branches.

The second matters where guidance takes two passes (Flux, Wan): `Branch.UNCOND` inside
`transformer.cache_context("uncond")`, else `Branch.COND`.
"""


def guidance_layout(samples: int) -> BranchLayout:
    """The layout of every diffusers pipeline: uncond rows before cond rows, or one branch a pass.

    The layout raises `ConfigError` for any other number of rows than `samples`, prompts times
    images per prompt, or twice as many.
    """

    def layout(rows: int, branch: Branch) -> BranchRows:
        if rows == samples:
            return ((branch, slice(0, samples)),)
        if rows == 2 * samples:
            return (
                (Branch.UNCOND, slice(0, samples)),
                (Branch.COND, slice(samples, rows)),
            )
        raise ConfigError(
            f"the transformer runs {rows} rows for {samples} samples; one row a sample and branch "
            "is understood, perturbed attention guidance (three) is not"
        )

    return layout


def latent_grid(transformer: Any, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """Sides of the latent `hidden_states` [row, channel, side, ...] over those of a patch."""
    sides: tuple[int, ...] = tuple(arguments["hidden_states"].shape[2:])
    patch = transformer.config.patch_size
    patches = (patch,) * len(sides) if isinstance(patch, int) else patch
    return tuple(side // patch for side, patch in zip(sides, patches, strict=True))
