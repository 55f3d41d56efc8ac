"""Watching a pipeline of diffusers while its user calls it, as in a notebook.

What the transformer attends to is caught by `models.families`; which text tokens have which role
is known to `models.pipelines`; what was seen is kept by `recording`. Here it is checked that the
pipeline is called with the prompts that the roles are of.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from attnsearch.axes import Branch
from attnsearch.capturing.recorder import Recorder, Selection, check_selected
from attnsearch.capturing.recording import CallPlan, Recording
from attnsearch.errors import ConfigError
from attnsearch.models import AttentionCall, BranchRows
from attnsearch.models.families import (
    Family,
    ForwardPass,
    TextRun,
    find_denoiser,
    guidance_layout,
    route,
)
from attnsearch.models.pipelines import (
    first_step,
    literal_text,
    noise_levels,
    role_tokens,
    run_lengths,
)
from attnsearch.prompts import Prompt, check_distinct, parse_template
from attnsearch_kernels import Backend


@contextmanager
def capture(
    pipe: Any,
    prompts: Sequence[Prompt | str],
    *,
    order: int | None = None,
    selection: Selection | None = None,
    negative_prompt: str = "",
    images_per_prompt: int = 1,
) -> Iterator[Recording]:
    """Sketch the text attention of every call of a diffusers pipeline inside the `with` block.

    `prompts` are of `read_prompts`, or lines in its template language (`a {colour1:red}
    {shape1:square}`; a line without marks has one role per word). Each call is to be of exactly
    their texts, in their order, and appends one image of each to the recording, or
    `images_per_prompt` (the call's `num_images_per_prompt`); a second call is thus a second seed.
    In the unconditional branch the tokens of the negative prompt have the role `end`. `order` is
    the number of spatial frequencies a side, by default all, up to 8. The pipeline is as before
    on leaving, also by an exception; the images are those of the pipeline up to rounding.

    What text the encoders read is compared with the prompts. Embeddings made before the block
    (`prompt_embeds`) are taken to be of them, where all text tokens are of one encoder (PixArt,
    SANA, Flux); others encode inside the block.

    Raises:
        ConfigError: on entering, the pipeline cannot be watched or has no tokenizer, or a setting
            is out of range. In a call, before any attention, it is not of the prompts, or differs
            from the call before it.
        PromptError: a line is no template, or the prompts have too many roles.
    """
    lines = [prompts] if isinstance(prompts, str) else prompts
    read = [parse_template(line) if isinstance(line, str) else line for line in lines]
    if not read:
        raise ConfigError("there are no prompts to capture")
    check_distinct(read)
    for name, value in (("images_per_prompt", images_per_prompt), ("order", order)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    family, denoiser = _watchable(pipe, selection or Selection())
    recording = Recording(read, images_per_prompt, order, pipe, denoiser)
    watch = _Watch(pipe, family, recording, selection or Selection(), negative_prompt)
    with ExitStack() as restore:
        for run in family.texts:
            encoder = getattr(pipe, run.encoder, None)
            if encoder is not None:
                hook = partial(watch.encode, run)
                handle = encoder.register_forward_pre_hook(hook, with_kwargs=True)
                restore.callback(handle.remove)
        restore.enter_context(
            route(denoiser, watch.attend, layout=watch.layout, on_pass=watch.begin)
        )
        restore.callback(denoiser.register_forward_hook(watch.end).remove)
        yield recording


def _watchable(pipe: Any, selection: Selection) -> tuple[Family, nn.Module]:
    """Family and denoiser of a pipeline that paints images and tells what its text tokens are."""
    name = type(pipe).__name__
    family, denoiser = find_denoiser(pipe)
    if not family.texts:
        raise ConfigError(f"{name} makes videos; only images are captured")
    if all(getattr(pipe, run.tokenizer, None) is None for run in family.texts):
        missing = " or ".join(run.tokenizer for run in family.texts)
        raise ConfigError(
            f"{name} has no {missing}, which tells where the words of a prompt are among the text "
            "tokens; load it with one"
        )
    layers = family.layers(denoiser)
    check_selected(selection, len(layers), min(layer.heads for layer in layers))
    return family, denoiser


class _Watch:
    """The call of the pipeline that runs, and the text that its encoders were given."""

    def __init__(
        self,
        pipe: Any,
        family: Family,
        recording: Recording,
        selection: Selection,
        negative_prompt: str,
    ) -> None:
        self._pipe = pipe
        self._family = family
        self._recording = recording
        self._selection = selection
        self._negative = self._as_read(negative_prompt)
        self._read: dict[TextRun, list[Tensor]] = {}
        self._tokens: dict[TextRun, list[int]] = {}
        self._timesteps: Tensor | None = None
        self._first_step = 0
        self._recorder: Recorder | None = None
        self._running: ForwardPass

    def encode(self, run: TextRun, encoder: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """A text encoder is given the tokens of one branch [prompt, token]."""
        del encoder
        tokens: Tensor = args[0] if args else kwargs["input_ids"]
        before = self._read.get(run, [])
        if before and run == self._family.texts[0] and before[0].tolist() == tokens.tolist():
            self._read = {}  # of a call that ended before its first step
        self._read.setdefault(run, []).append(tokens)

    def layout(self, rows: int, branch: Branch) -> BranchRows:
        """The branches of a forward pass; the first check of what the pipeline was called with."""
        if self._timesteps is not self._pipe.scheduler.timesteps:
            self._check_texts()
        samples = len(self._recording.samples)
        if rows not in (samples, 2 * samples):
            prompts = len(self._recording.prompts)
            raise ConfigError(
                f"the transformer runs {rows} rows where {prompts} prompts with "
                f"{samples // prompts} images each make {samples}, or with guidance {2 * samples}; "
                "call the pipeline with [prompt.text for prompt in prompts], and give both the "
                "same number of images per prompt"
            )
        return guidance_layout(samples)(rows, branch)

    def begin(self, running: ForwardPass) -> None:
        """A forward pass begins, maybe the first of a call."""
        scheduler = self._pipe.scheduler
        # Every call has its scheduler make new timesteps, and leaves them alone from then on.
        if self._timesteps is not scheduler.timesteps:
            steps = getattr(self._pipe, "num_timesteps", None) or len(scheduler.timesteps)
            first = first_step(scheduler)
            height, width = running.grid
            self._recording.begin(
                CallPlan(
                    grid=(height, width),
                    timestep=scheduler.timesteps[first : first + steps].float().cpu().numpy(),
                    noise_level=noise_levels(scheduler, steps),
                )
            )
            self._timesteps = scheduler.timesteps
            self._first_step = running.step
            self._recorder = None
        self._running = replace(running, step=running.step - self._first_step)

    def attend(self, call: AttentionCall) -> Tensor:
        """Sketches a call; the first of all tells how many text tokens there are."""
        if self._recorder is None:
            self._recorder = self._new_recorder(call)
        return self._recorder.attend(call._replace(step=self._running.step))

    def end(self, transformer: nn.Module, args: Any, output: Any) -> None:
        """A forward pass is over."""
        del transformer, args, output
        self._recording.finish(self._running)

    def _new_recorder(self, call: AttentionCall) -> Recorder:
        device, recording = call.query.device, self._recording
        tokens = call.text_tokens
        texts = run_lengths(type(self._pipe).__name__, self._family, self._tokens, tokens)
        gamma = role_tokens(self._pipe, recording.samples, recording.roles, texts, self._negative)
        return Recorder(
            {branch: rows.to(device) for branch, rows in gamma.items()},
            recording.basis(device),
            recording.add,
            self._selection,
            Backend.AUTO,
        )

    def _as_read(self, text: str) -> str:
        """The text as the pipeline gives it to its tokenizer."""
        return literal_text(text, lower_case=self._family.lower_case)[0]

    def _check_texts(self) -> None:
        """Compare what the encoders read since the last call with the prompts; forget it."""
        texts = [self._as_read(prompt.text) for prompt in self._recording.prompts]
        read, self._read = self._read, {}
        self._tokens = {run: given[0].tolist() for run, (given, *_) in read.items()}
        for run, (given, *negative) in read.items():
            tokenizer = getattr(self._pipe, run.tokenizer)
            if given.tolist() != _tokens(tokenizer, texts, given.shape[1]):
                raise ConfigError(
                    f"{type(self._pipe).__name__} reads other text than the prompts of the "
                    "capture; call it with [prompt.text for prompt in prompts], and have it take "
                    "them as they are (clean_caption=False, complex_human_instruction=None)"
                )
            for tokens in negative:
                (expected,) = _tokens(tokenizer, [self._negative], tokens.shape[1])
                if any(row != expected for row in tokens.tolist()):
                    raise ConfigError(
                        f"{type(self._pipe).__name__} reads another negative prompt than "
                        f"{self._negative!r}; give capture(negative_prompt=...) the same"
                    )


def _tokens(tokenizer: Any, texts: list[str], length: int) -> list[list[int]]:
    """What a pipeline's tokenizer makes of texts, cut or padded to a length."""
    rows: list[list[int]] = tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, padding_side="right"
    )["input_ids"]
    return rows
