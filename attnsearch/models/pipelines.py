"""Pipelines of diffusers on disk: reading one, what it will run, and whose its text tokens are.

What is watched while it runs is the business of `families`; how its images are stored, of scans.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attnsearch.axes import Branch
from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.models.families import Family, find_family, forward_arguments
from attnsearch.prompts import Prompt, token_roles
from attnsearch.prompts.prompt import END, PAD

_SETTINGS: Final = {
    # What else a pipeline would do to a prompt, or to the size of the image, on its own account.
    "clean_caption": False,
    "use_resolution_binning": False,
    "complex_human_instruction": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one sampling will run, told by its first forward pass, which is not carried out."""

    branches: tuple[Branch, ...]
    grid: tuple[int, ...]
    text_tokens: int
    timestep: npt.NDArray[np.float32]
    """[step], in [0, 1000]."""
    noise_level: npt.NDArray[np.float32]
    """[step] share of noise, in [0, 1]."""


def is_pipeline(path: Path) -> bool:
    """Whether a path is a folder written by a pipeline's `save_pretrained`."""
    return (path / "model_index.json").is_file()


def load_pipeline(folder: Path, device: torch.device) -> Any:
    """Read a pipeline that can be scanned; nothing is fetched and no code of the folder is run.

    Raises:
        CheckpointError: the folder is damaged, or something of it is missing.
        ConfigError: its transformer is not one that can be watched.
    """
    from diffusers import DiffusionPipeline

    try:
        pipe: Any = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files make the readers of many parts raise almost anything
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"the pipeline in {folder} cannot be read: {reason}") from error
    transformer = getattr(pipe, "transformer", None)
    if transformer is None:
        raise ConfigError(f"{type(pipe).__name__} in {folder} has no transformer to watch")
    if not find_family(transformer).texts:
        raise ConfigError(f"{type(pipe).__name__} in {folder} makes videos; scans keep images")
    broken = [
        name for name, weight in transformer.named_parameters() if not weight.isfinite().all()
    ]
    if broken:
        raise CheckpointError(f"weight {broken[0]} in {folder} holds NaN or infinity")
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def call_settings(pipe: Any, *, steps: int, guidance: float, size: int | None) -> dict[str, Any]:
    """Keyword arguments that make a pipeline paint as a scan wants it, prompts taken literally."""
    taken = inspect.signature(type(pipe).__call__).parameters
    settings: dict[str, Any] = {name: value for name, value in _SETTINGS.items() if name in taken}
    if size is not None:
        settings |= {"height": size, "width": size}
    return settings | {"num_inference_steps": steps, "guidance_scale": guidance}


class _ReachedError(Exception):
    """Ends a sampling at its first forward pass."""


def forecast(pipe: Any, settings: Mapping[str, Any]) -> Forecast:
    """What a call with these settings will run; the text encoders run once, the transformer not.

    Raises:
        ConfigError: the pipeline refuses the settings.
    """
    transformer = pipe.transformer
    family = find_family(transformer)
    found: dict[str, Any] = {}

    def stop(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        found.update(forward_arguments(module, args, kwargs))
        raise _ReachedError

    hook = transformer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        pipe(prompt=["a"], output_type="latent", **settings)
    except _ReachedError:
        pass
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{type(pipe).__name__} refuses: {error}") from error
    finally:
        hook.remove()
    steps = settings["num_inference_steps"]
    rows = len(found["hidden_states"])
    return Forecast(
        branches=(Branch.COND,) if rows == 1 else (Branch.UNCOND, Branch.COND),
        grid=family.grid(transformer, found),
        text_tokens=sum(
            states.shape[1]
            for name, states in found.items()
            if name in ("encoder_hidden_states", "encoder_hidden_states_t5")
        ),
        timestep=pipe.scheduler.timesteps[:steps].float().cpu().numpy(),
        noise_level=noise_levels(pipe.scheduler, steps),
    )


def role_tokens(
    pipe: Any,
    prompts: Sequence[Prompt],
    roles: Sequence[str],
    text_tokens: int,
    negative_prompt: str = "",
) -> dict[Branch, Tensor]:
    """Gamma [prompt, text token, role] of both branches.

    The negative prompt is taken as the tokenizer gets it; all its tokens have the role `end`.

    Raises:
        ConfigError: a prompt is longer than the model reads, or a tokenizer does not tell where
            its tokens lie in the text.
    """
    family: Family = find_family(pipe.transformer)
    given = sum(run.length or 0 for run in family.texts)
    cond: list[list[int]] = [[] for _ in prompts]
    uncond: list[int] = []
    for run in family.texts:
        length = text_tokens - given if run.length is None else run.length
        tokenizer = getattr(pipe, run.tokenizer, None)
        if tokenizer is None:  # an encoder that was left out gives zeros
            for row in (*cond, uncond):
                row += [roles.index(PAD)] * length
            continue
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


def _roles_of_run(
    tokenizer: Any, prompt: Prompt, roles: Sequence[str], length: int, *, lower_case: bool
) -> list[int]:
    text, shift = prompt.text, 0
    if lower_case:
        lowered = text.lower()
        if len(lowered) != len(text):
            raise ConfigError(f"{text!r} changes its length in lower case; write it so")
        text = lowered.strip()
        shift = len(lowered) - len(lowered.lstrip())
    row = _tokenise(tokenizer, text, length)
    if len(row["input_ids"]) > length:
        raise ConfigError(
            f"{prompt.text!r} needs {len(row['input_ids'])} tokens, the model reads {length}"
        )
    offsets = [(start + shift, end + shift) for start, end in row["offset_mapping"]]
    return token_roles(prompt, roles, offsets, row["special_tokens_mask"], row["attention_mask"])


def _tokenise(tokenizer: Any, text: str, length: int) -> dict[str, Any]:
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"{type(tokenizer).__name__} does not tell where its tokens lie in the text; "
            "save the pipeline with a fast tokenizer"
        )
    row: dict[str, Any] = tokenizer(
        text,
        padding="max_length",
        max_length=length,
        truncation=False,
        padding_side="right",
        return_attention_mask=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    return row


def noise_levels(scheduler: Any, steps: int) -> npt.NDArray[np.float32]:
    """Share of noise s of an image (1 - s) image + s noise up to scale, by step [step]."""
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:  # a flow, whose sigma is the share
        sigmas: Tensor = scheduler.sigmas[:steps]
        return sigmas.float().cpu().numpy()
    kept = alphas[scheduler.timesteps[:steps].long().cpu()].double()
    ratio = ((1 - kept) / kept).sqrt()
    return (ratio / (1 + ratio)).float().cpu().numpy()
