"""What a family declares about its models, and what a forward pass tells before it runs.

A family is the only way a model is read: our own DiT is one, each denoiser class of diffusers
another. Descriptions only: how calls are led elsewhere is in `routing`, how they are caught inside
an attention module in `processors` (diffusers) and `dit` (ours).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from attnsearch.axes import Branch, Site
from attnsearch.errors import ConfigError
from attnsearch.models.attention import AttendFunction, AttentionCall, BranchRows, TokenPlaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One watched attention module."""

    index: int
    """Zero-based depth among the watched modules."""
    site: Site
    heads: int
    channels: int
    """Width of a head."""
    attention: Any
    """The module, of the class that the family's hook knows."""


@dataclass(frozen=True, slots=True)
class TextRun:
    """A run of text tokens: which attributes of a pipeline write and embed it."""

    tokenizer: str
    encoder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardInputs:
    """What the arguments of one forward pass say of it."""

    rows: int
    """Rows of the batch."""
    grid: tuple[int, ...]
    """Image tokens as (height, width), of a video as (frame, height, width); row-major."""
    text_tokens: int
    """Text tokens of a row."""
    branches: BranchRows | None = None
    """The rows of each branch of guidance, where the arguments name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPass:
    """One call of the model, announced before its first attention call."""

    step: int
    """Zero-based; a second pass for the other branch of guidance belongs to the same step."""
    branches: BranchRows
    grid: tuple[int, ...]
    """As in `ForwardInputs`."""
    text_tokens: int
    """As in `ForwardInputs`."""


class Places(NamedTuple):
    """Where image and text are in one attention call."""

    image: TokenPlaces
    """Image tokens among the queries."""
    text: TokenPlaces | None
    """Text tokens among the keys; None where all keys are text."""
    grid: tuple[int, ...]
    """The image tokens of this layer; those of the pass, unless layers differ in resolution."""


class Hook(Protocol):
    """How the softmax attention inside a module is computed elsewhere."""

    def check(self, layer: Layer, model: str) -> None:
        """Refuse a module that cannot be watched; `model` is the name of its model's class.

        Raises:
            ConfigError: naming layer and model.
        """

    def installed(
        self, layer: Layer, model: str, attend: AttendFunction
    ) -> AbstractContextManager[None]:
        """Have `attend` compute the attention of a module inside the `with` block.

        It gets a call without branches, step, grid and places of text.
        """


class Projections(NamedTuple):
    """The linear maps of one cross-attention layer, biases included."""

    query: nn.Module
    """From the residual stream [..., width] to the queries of all heads [..., head * channel]."""
    key: nn.Module
    """From projected words [..., width] to keys, likewise."""
    value: nn.Module
    scale: float
    """Factor on the logits, 1 / sqrt(channels per head)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReading:
    """What weights alone tell of cross-attention that reads the raw residual stream.

    A fixed position code is added to the stream and nothing normalises, modulates or rotates the
    queries, so `W_Q pos(p)` is an additive part of every logit.
    """

    grid: tuple[int, int]
    """Image tokens, height and width, at the size the model was trained at."""
    position: Tensor
    """The code pos(p), [token, width], row-major."""
    project_caption: Callable[[Tensor], Tensor]
    """From token embeddings [..., channel] to what keys and values are made of, [..., width]."""
    projections: Callable[[Any], Projections]
    """From a watched attention module to its linear maps."""


def inner_channels(attention: Any) -> int:
    """Width of a head of an attention module of diffusers."""
    return int(attention.inner_dim) // int(attention.heads)


def own_output(model: Any, layer: Layer) -> Tensor:
    """W_O of an attention module of diffusers that has one of its own."""
    del model
    weight: Tensor = layer.attention.to_out[0].weight
    return weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How the text attention of one class of models is found and read."""

    name: str
    model: str
    """Name of the model's class; subclasses are served too."""
    part: str = "transformer"
    """Attribute of a pipeline that is the model; empty where no pipeline has it."""
    site: Site
    """Cross where the keys are text alone, joint where image tokens are among them."""

    attention: Callable[[Any], Sequence[Any]]
    """From the model to the attention modules that read text, in the order they run."""
    hook: Hook
    """How their attention is computed elsewhere."""
    channels: Callable[[Any], int] = inner_channels
    """From an attention module to the width of a head."""
    output: Callable[[Any, Layer], Tensor] = own_output
    """From the model and a layer to its output projection W_O [width, head * channel]."""

    read: Callable[[Any, Mapping[str, Any]], ForwardInputs]
    """From the model and the arguments of its forward pass, by name, to what they say of it."""
    places: Callable[[Layer, AttentionCall, ForwardPass], Places]
    """Where image and text are in a call as its module makes it."""

    stream: Callable[[Any], StreamReading] | None = None
    """From the model to what its weights alone tell; None where they do not."""

    texts: tuple[TextRun, ...] = ()
    """The text tokens in order; empty where no pipeline paints still images."""
    lower_case: bool = False
    """Whether the pipeline tokenises prompts in lower case and without outer blanks."""

    def layers(self, model: Any) -> tuple[Layer, ...]:
        """The watched layers of a model of this family."""
        return tuple(
            Layer(
                index=index,
                site=self.site,
                heads=attention.heads,
                channels=self.channels(attention),
                attention=attention,
            )
            for index, attention in enumerate(self.attention(model))
        )


BranchLayout = Callable[[int, Branch], BranchRows]
"""From the rows of a forward pass, and the branch the pipeline says it is for, to their branches.

The second matters where guidance takes two passes (Flux, Wan): `Branch.UNCOND` inside
`transformer.cache_context("uncond")`, else `Branch.COND`.
"""


def one_branch(rows: int, branch: Branch) -> BranchRows:
    """The layout of a pass whose rows all belong to one branch."""
    return ((branch, slice(0, rows)),)


def guidance_layout(samples: int) -> BranchLayout:
    """The layout of every diffusers pipeline: uncond rows before cond rows, or one branch a pass.

    The layout raises `ConfigError` for any other number of rows than `samples`, prompts times
    images per prompt, or twice as many.
    """

    def layout(rows: int, branch: Branch) -> BranchRows:
        if rows == samples:
            return one_branch(rows, branch)
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


def latent_inputs(transformer: Any, arguments: Mapping[str, Any]) -> ForwardInputs:
    """Of a latent `hidden_states` [row, channel, side, ...] and text `encoder_hidden_states`.

    The grid is the sides of the latent over those of a patch.
    """
    latent: Tensor = arguments["hidden_states"]
    sides: tuple[int, ...] = tuple(latent.shape[2:])
    patch = transformer.config.patch_size
    patches = (patch,) * len(sides) if isinstance(patch, int) else patch
    return ForwardInputs(
        rows=len(latent),
        grid=tuple(side // patch for side, patch in zip(sides, patches, strict=True)),
        text_tokens=arguments["encoder_hidden_states"].shape[1],
    )


def text_apart(layer: Layer, call: AttentionCall, running: ForwardPass) -> Places:
    """All queries are image tokens, all keys text: cross-attention."""
    del layer
    return Places(slice(0, call.query.shape[2]), None, running.grid)


def text_first(layer: Layer, call: AttentionCall, running: ForwardPass) -> Places:
    """One joint sequence, text tokens before image tokens."""
    del layer
    tokens = running.text_tokens
    return Places(slice(tokens, call.query.shape[2]), slice(0, tokens), running.grid)


def text_last(layer: Layer, call: AttentionCall, running: ForwardPass) -> Places:
    """One joint sequence, text tokens after image tokens."""
    del layer
    first = call.query.shape[2] - running.text_tokens
    return Places(slice(0, first), slice(first, call.query.shape[2]), running.grid)
