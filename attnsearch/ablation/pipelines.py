"""Cross-attention heads of a diffusers pipeline, switched off while its user calls it.

What the images are worth without them is for the user to say: call the pipeline once as it is and
once inside the block, with the same generators, and compare.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from torch import Tensor

from attnsearch.ablation.hooks import Part, ablated
from attnsearch.ablation.request import Ablation, Mode
from attnsearch.axes import Branch
from attnsearch.errors import ConfigError
from attnsearch.models.families import find_denoiser
from attnsearch.models.pipelines import role_tokens
from attnsearch.prompts import Prompt, parse_template, roles_of

_MODES: Final = (Mode.ZERO, Mode.SCALE, Mode.MASK)
_PHRASE: Final = frozenset({"relation"})
"""The filler of such prompts is all that their writer did not mark."""


@contextmanager
def ablated_pipeline(
    pipe: Any,
    prompts: Sequence[Prompt | str],
    ablation: Ablation,
    *,
    images_per_prompt: int = 1,
) -> Iterator[None]:
    """Switch heads off for one call of a pipeline with these prompts, inside the `with` block.

    `prompts` are of `read_prompts`, or lines in its template language (`a {shape1:square} is
    {relation:above} a {shape2:circle}`), whose roles `Mode.MASK` hides; by default `relation`. The
    pipeline is as before on leaving, also by an exception.

    Raises:
        ConfigError: there is no such head, the pipeline cannot be watched or has no cross-attention
            (Flux, SD3), the mode is none of zero, scale and mask, `into` is given, or a role to
            hide is in no prompt. In the call, it is not of so many images.
        PromptError: a line is no template.
    """
    if ablation.mode not in _MODES or ablation.into:
        raise ConfigError(
            "heads of a pipeline can be ablated by zero, scale and mask, and everywhere alike"
        )
    _, denoiser = find_denoiser(pipe)
    read = [parse_template(line) if isinstance(line, str) else line for line in prompts]
    known, hide = roles_of(read), ablation.hide or _PHRASE
    if ablation.mode is Mode.MASK and (missing := sorted(hide - set(known))):
        raise ConfigError(f"no prompt has the role {missing[0]!r}; roles: {', '.join(known)}")

    def hidden(tokens: int) -> Tensor:
        gamma = role_tokens(pipe, read, known, [tokens])[Branch.COND]
        told = [number for number, name in enumerate(known) if name in hide]
        return (gamma[:, :, told].sum(-1) > 0).repeat_interleave(images_per_prompt, 0)

    samples = len(read) * images_per_prompt
    with ablated(denoiser, [Part(ablation)], hidden=hidden, samples=samples):
        yield
