"""Pipelines of diffusers on disk: reading one, what it will run, and whose its text tokens are.

What is watched while it runs is the business of `families`; how its images are stored, of scans.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from reprlib import repr as short
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attnsearch.axes import Branch
from attnsearch.errors import AttnsearchError, CheckpointError, ConfigError
from attnsearch.intake import quote
from attnsearch.lookup import PIPELINE_INDEX
from attnsearch.models.attention import AttentionCall
from attnsearch.models.families import (
    Family,
    ForwardPass,
    TextRun,
    family_of_index,
    find_denoiser,
    guidance_layout,
    route,
)
from attnsearch.models.parts import quiet, reason
from attnsearch.models.pipeline_index import load_parts, read_index
from attnsearch.prompts import Prompt, token_roles
from attnsearch.prompts.prompt import END, PAD

_SETTINGS: Final = {
    # What else a pipeline would do to a prompt, or to the size of the image, on its own account.
    "clean_caption": False,
    "use_resolution_binning": False,
    "complex_human_instruction": None,
}
_PROBE: Final = "A b"
_MAX_TOKENS: Final = 4096
"""Text tokens of one encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one sampling will run, told by its first watched attention call."""

    branches: tuple[Branch, ...]
    grid: tuple[int, ...]
    texts: tuple[int, ...]
    """Text tokens, by run of the family."""
    keys: int
    """Keys of an attention call: text tokens, in joint attention image tokens too."""
    head_channels: int
    itemsize: int
    """Bytes of a number in an attention call."""
    timestep: npt.NDArray[np.float32]
    """[step], in [0, 1000]."""
    noise_level: npt.NDArray[np.float32]
    """[step] share of noise, in [0, 1]."""


def pipeline_files(folder: Path) -> list[str]:
    """What in a pipeline's folder is the pipeline: its index, and the folders of its parts."""
    parts = [name for name in read_index(folder) if (folder / name).is_dir()]
    return [PIPELINE_INDEX, *sorted(parts)]


def load_pipeline(folder: Path, device: torch.device) -> Any:
    """Read a pipeline that can be scanned; nothing is fetched and no code of the folder is run.

    Raises:
        CheckpointError: the folder is damaged, or something of it is missing.
        ConfigError: it has no part that can be watched, it makes videos, or a package that reads
            it is not installed.
    """
    index = read_index(folder)
    if not family_of_index(index, str(folder)).texts:
        raise ConfigError(f"{index['_class_name']} in {folder} makes videos; scans keep images")
    if find_spec("transformers") is None:
        raise ConfigError('pipelines need transformers: pip install "attnsearch[diffusers]"')
    from diffusers import DiffusionPipeline

    parts = dict(load_parts(folder, index))
    try:
        with quiet():
            pipe: Any = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **parts)
    except Exception as error:  # damaged files make the readers of many parts raise almost anything
        raise CheckpointError(
            f"the pipeline in {folder} cannot be read: {reason(error)}"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def call_settings(pipe: Any, *, steps: int, guidance: float, size: int | None) -> dict[str, Any]:
    """Keyword arguments that make a pipeline paint as a scan wants it, prompts taken literally."""
    taken = inspect.signature(type(pipe).__call__).parameters
    settings: dict[str, Any] = {name: value for name, value in _SETTINGS.items() if name in taken}
    if "intermediate_timesteps" in taken and steps != 2:
        settings["intermediate_timesteps"] = None  # SANA-Sprint has one for two steps only
    if size is not None:
        settings |= {"height": size, "width": size}
    return settings | {"num_inference_steps": steps, "guidance_scale": guidance}


class _ReachedError(Exception):
    """Ends a sampling at its first watched attention call."""

    def __init__(self, call: AttentionCall) -> None:
        super().__init__()
        self.call = call


def forecast(pipe: Any, settings: Mapping[str, Any]) -> Forecast:
    """What a call with these settings will run: the text encoders and the first layer run once.

    Raises:
        ConfigError: the pipeline refuses the settings or cannot be watched, its schedule is of no
            known kind, or where its tokens lie in a prompt cannot be told.
    """
    family, denoiser = find_denoiser(pipe)
    _check_tokenizers(pipe, family)
    passes: list[ForwardPass] = []
    read: dict[TextRun, list[int]] = {}

    def stop(call: AttentionCall) -> Tensor:
        raise _ReachedError(call)

    name = type(pipe).__name__
    with ExitStack() as watching:
        for run in family.texts:
            if (encoder := getattr(pipe, run.encoder, None)) is not None:
                note = partial(_note_tokens, read, run)
                watching.callback(encoder.register_forward_pre_hook(note, with_kwargs=True).remove)
        watching.enter_context(quiet())
        watching.enter_context(
            route(denoiser, stop, layout=guidance_layout(1), on_pass=passes.append)
        )
        try:
            pipe(
                prompt=[_PROBE],
                generator=[torch.Generator()],  # and not the one the whole process shares
                output_type="latent",
                **settings,
            )
        except _ReachedError as reached:
            call = reached.call
        except AttnsearchError:
            raise
        except Exception as error:
            raise ConfigError(f"{name} cannot paint a prompt: {reason(error)}") from error
        else:
            raise ConfigError(f"{name} in this configuration attends to no text, or takes no step")
    tokens = call.text_tokens
    _check_reading(pipe, family, read)
    grid = passes[0].grid
    _check_size(pipe, settings.get("height"), grid[0])
    count = getattr(pipe, "num_timesteps", len(pipe.scheduler.timesteps))
    return Forecast(
        branches=tuple(branch for branch, _ in call.branches),
        grid=grid,
        texts=run_lengths(name, family, read, tokens),
        keys=call.key.shape[2],
        head_channels=call.query.shape[3],
        itemsize=call.query.element_size(),
        timestep=pipe.scheduler.timesteps[:count].float().cpu().numpy(),
        noise_level=noise_levels(pipe.scheduler, count),
    )


def role_tokens(
    pipe: Any,
    prompts: Sequence[Prompt],
    roles: Sequence[str],
    texts: Sequence[int],
    negative_prompt: str = "",
) -> dict[Branch, Tensor]:
    """Gamma [prompt, text token, role] of both branches.

    The negative prompt is taken as the tokenizer gets it; all its tokens have the role `end`.

    `texts` are the lengths of the runs of text tokens, as `forecast` tells them.

    Raises:
        ConfigError: a prompt is longer than the model reads.
    """
    family, _ = find_denoiser(pipe)
    cond: list[list[int]] = [[] for _ in prompts]
    uncond: list[int] = []
    without = [run for run in family.texts if getattr(pipe, run.encoder, None) is None]
    # Without any encoder the embeddings were made elsewhere, by all of them.
    left_out = without if len(without) < len(family.texts) else []
    for run, length in zip(family.texts, texts, strict=True):
        if run in left_out:  # whose embeddings are zeros
            for row in (*cond, uncond):
                row += [roles.index(PAD)] * length
            continue
        tokenizer = getattr(pipe, run.tokenizer)
        uncond += [
            roles.index(END if seen else PAD)
            for seen in _tokenise(tokenizer, negative_prompt, length)["attention_mask"][:length]
        ]
        for row, prompt in zip(cond, prompts, strict=True):
            row += _roles_of_run(tokenizer, prompt, roles, length, lower_case=family.lower_case)
    one_hot = torch.eye(len(roles))
    return {
        Branch.COND: one_hot[torch.tensor(cond)],
        Branch.UNCOND: one_hot[torch.tensor(uncond)].expand(len(prompts), -1, -1),
    }


def _check_tokenizers(pipe: Any, family: Family) -> None:
    for run in family.texts:
        tokenizer = getattr(pipe, run.tokenizer, None)
        if tokenizer is not None and not getattr(tokenizer, "is_fast", False):
            raise ConfigError(
                f"{type(tokenizer).__name__} does not tell where its tokens lie in the text; "
                "save the pipeline with a fast tokenizer"
            )
    length = getattr(pipe, "tokenizer_max_length", 1)
    if type(length) is not int or not 0 < length <= _MAX_TOKENS:
        raise ConfigError(
            f"{type(pipe).__name__} pads a prompt to {quote(length)} tokens, as its tokenizer says"
        )


def _note_tokens(
    read: dict[TextRun, list[int]], run: TextRun, encoder: Any, args: Any, kwargs: dict[str, Any]
) -> None:
    """Keep the tokens of the first prompt that an encoder reads: the conditional one."""
    del encoder
    ids: Tensor = args[0] if args else kwargs["input_ids"]
    read.setdefault(run, ids[0].tolist())


def _check_reading(pipe: Any, family: Family, read: Mapping[TextRun, list[int]]) -> None:
    """Refuse a pipeline whose encoders read the probe in other tokens than `role_tokens` sees."""
    for run, ids in read.items():
        tokenizer = getattr(pipe, run.tokenizer)
        text, _ = literal_text(_PROBE, lower_case=family.lower_case)
        row = _tokenise(tokenizer, text, len(ids))
        if row["input_ids"] != ids:
            raise ConfigError(
                f"{run.encoder} of {type(pipe).__name__} reads other tokens than {run.tokenizer} "
                "makes of a prompt, so which word a token is of cannot be told"
            )
        # transformers makes one of next to no vocabulary where it finds no files.
        marks = zip(ids, row["special_tokens_mask"], row["attention_mask"], strict=True)
        with _reading_with(tokenizer):
            unknown = tokenizer.unk_token_id
        if any(seen and not added and at == unknown for at, added, seen in marks):
            raise ConfigError(
                f"{run.tokenizer} of {type(pipe).__name__} does not know the letters of "
                f"{_PROBE!r}; its files are missing or damaged"
            )


def _check_size(pipe: Any, side: int | None, tokens: int) -> None:
    """Refuse a side that the pipeline rounded: tokens cover a whole number of latent cells."""
    cell = tokens * pipe.vae_scale_factor
    if side is not None and side < cell:
        raise ConfigError(f"{type(pipe).__name__} paints no images as small as {side} px")
    if side is not None and side % cell:
        raise ConfigError(
            f"{type(pipe).__name__} paints no images of {side} px; the next smaller size is "
            f"{side // cell * cell} px"
        )


def run_lengths(
    name: str, family: Family, read: Mapping[TextRun, list[int]], tokens: int
) -> tuple[int, ...]:
    """Text tokens by run; those no encoder read are of the one that was left out.

    `read` are the tokens of one prompt, `tokens` all that the transformer attends to.

    Raises:
        ConfigError: they do not add up; `name` is whose they are.
    """
    rest = tokens - sum(len(ids) for ids in read.values())
    absent = len(family.texts) - len(read)
    if rest < 0 or absent > 1 or (rest and not absent):
        raise ConfigError(
            f"{name} attends to {tokens} text tokens, which are not those of its encoders"
        )
    return tuple(len(read[run]) if run in read else rest for run in family.texts)


def literal_text(text: str, *, lower_case: bool) -> tuple[str, int]:
    """A prompt as the pipeline hands it to its tokenizer, and how many characters it cut off.

    Raises:
        ConfigError: its offsets would not be those of the prompt.
    """
    if not lower_case:
        return text, 0
    lowered = text.lower()
    if len(lowered) != len(text):
        raise ConfigError(f"{text!r} changes its length in lower case; write it so")
    return lowered.strip(), len(lowered) - len(lowered.lstrip())


def _roles_of_run(
    tokenizer: Any, prompt: Prompt, roles: Sequence[str], length: int, *, lower_case: bool
) -> list[int]:
    text, shift = literal_text(prompt.text, lower_case=lower_case)
    row = _tokenise(tokenizer, text, length)
    if len(row["input_ids"]) > length:
        raise ConfigError(
            f"the prompt {short(prompt.text)} needs {len(row['input_ids'])} tokens of "
            f"{type(tokenizer).__name__}, the model reads {length}"
        )
    offsets = [(start + shift, end + shift) for start, end in row["offset_mapping"]]
    masks = row["special_tokens_mask"], row["attention_mask"]
    with _reading_with(tokenizer):
        return token_roles(prompt, roles, offsets, *masks)


def _tokenise(tokenizer: Any, text: str, length: int) -> dict[str, Any]:
    with _reading_with(tokenizer):
        row: dict[str, Any] = tokenizer(
            text,
            padding="max_length",
            max_length=length,
            truncation=False,
            return_attention_mask=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
    return row


@contextmanager
def _reading_with(tokenizer: Any) -> Iterator[None]:
    """Whatever a damaged vocabulary leads to is the fault of the pipeline."""
    try:
        yield
    except AttnsearchError:
        raise
    except Exception as error:
        name = type(tokenizer).__name__
        raise ConfigError(f"{name} cannot read a prompt: {reason(error)}") from error


def first_step(scheduler: Any) -> int:
    """Where in its schedule a call begins: later than at 0 when it starts from an image."""
    return getattr(scheduler, "begin_index", None) or 0


def noise_levels(scheduler: Any, steps: int) -> npt.NDArray[np.float32]:
    """Share of noise s of an image (1 - s) image + s noise up to scale, by step [step]."""
    first = first_step(scheduler)
    timesteps: Tensor = scheduler.timesteps[first : first + steps].double().cpu()
    sigmas: Tensor | None = getattr(scheduler, "sigmas", None)
    alphas: Tensor | None = getattr(scheduler, "alphas_cumprod", None)
    name = type(scheduler).__name__
    if name == "SCMScheduler":  # whose timesteps are angles, cos image + sin noise
        noise, image = timesteps.sin(), timesteps.cos().clamp(min=0)
    elif sigmas is not None:
        noise = sigmas[first : first + steps].double().cpu()
        flows = "FlowMatch" in name or scheduler.config.get("use_flow_sigmas", False)
        image = 1 - noise if flows else torch.ones_like(noise)
    elif alphas is not None:
        kept = alphas.double().cpu()[timesteps.long()]
        noise, image = (1 - kept).sqrt(), kept.sqrt()
    else:
        raise ConfigError(f"how much noise the steps of {name} have is not known")
    return (noise / (noise + image)).float().numpy()
