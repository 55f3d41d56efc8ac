"""Cross-attention heads of a diffusers pipeline, switched off while its user calls it.

What the images are worth without them is for the user to say: call the pipeline once as it is and
once inside the block, with the same generators, and compare.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from torch import Tensor

from attnsearch.ablation.hooks import Part, Switch, check_heads
from attnsearch.ablation.request import Ablation, Mode
from attnsearch.axes import Branch, Site
from attnsearch.errors import ConfigError
from attnsearch.models import AttentionCall
from attnsearch.models.families import ForwardPass, find_family, guidance_layout, route
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
    family = find_family(pipe.transformer)
    if family.site is not Site.CROSS:
        raise ConfigError(f"{family.transformer} has no cross-attention to ablate")
    check_heads(ablation, [layer.heads for layer in family.layers(pipe.transformer)])
    read = [parse_template(line) if isinstance(line, str) else line for line in prompts]
    known, hide = roles_of(read), ablation.hide or _PHRASE
    if ablation.mode is Mode.MASK and (missing := sorted(hide - set(known))):
        raise ConfigError(f"no prompt has the role {missing[0]!r}; roles: {', '.join(known)}")
    step = 0
    switch: Switch | None = None

    def begin(running: ForwardPass) -> None:
        nonlocal step
        step = running.step

    def attend(call: AttentionCall) -> Tensor:
        nonlocal switch
        if switch is None:
            hidden = None
            if ablation.mode is Mode.MASK:
                gamma = role_tokens(pipe, read, known, [call.key.shape[2]])[Branch.COND]
                told = [number for number, name in enumerate(known) if name in hide]
                hidden = (gamma[:, :, told].sum(-1) > 0).repeat_interleave(images_per_prompt, 0)
                hidden = hidden.to(call.query.device)
            switch = Switch([Part(ablation)], [], hidden=hidden)
        return switch.attend(call, step)

    layout = guidance_layout(len(read) * images_per_prompt)
    with route(pipe.transformer, attend, layout=layout, on_pass=begin):
        yield
