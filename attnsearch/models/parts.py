"""Reading one model of diffusers or transformers from a folder: whole, finite, known by digest.

Which folder, and what is done with the model, is the business of `pipelines` and `vae`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from attnsearch.errors import CheckpointError


def load_part(folder: Path, library: str, class_name: str) -> Any:
    """The model in a folder written by `save_pretrained`, in float32; nothing is fetched.

    Raises:
        CheckpointError: there is none, its files are damaged, or a weight is missing, which the
            libraries would make up at random, or not finite.
    """
    try:
        with quiet():
            model, found = getattr(import_module(library), class_name).from_pretrained(
                folder,
                local_files_only=True,
                output_loading_info=True,
                # Left to themselves the libraries disagree on what half precision becomes.
                torch_dtype=torch.float32,
            )
    except Exception as error:  # damaged files make the readers raise almost anything
        raise CheckpointError(f"the model in {folder} cannot be read: {reason(error)}") from error
    # Of BERT the pooler is not used.
    if absent := sorted(key for key in found["missing_keys"] if not key.startswith("pooler.")):
        raise CheckpointError(f"the model in {folder} lacks the weight {absent[0]}")
    for key, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise CheckpointError(f"weight {key} in {folder} holds NaN or infinity")
    return model


def digest_of(folder: Path, parts: Sequence[str] = ("",)) -> str:
    """SHA-256 over the names and bytes of the files in a folder, or in some `parts` of it.

    Hidden files are left out: caches and the like (`.cache`, `.git`), which change while the
    model does not.
    """
    digest = hashlib.sha256()
    found = [
        path
        for part in parts
        for path in ((folder / part).rglob("*") if (folder / part).is_dir() else [folder / part])
    ]
    for path in sorted(found):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            digest.update(f"{name}\n".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and remarks of both libraries; what matters of them is raised."""
    installed = [name for name in ("diffusers", "transformers") if find_spec(name)]
    logs = [import_module(f"{name}.utils.logging") for name in installed]
    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, verbosity, bar in before:
            log.set_verbosity(verbosity)
            if bar:
                log.enable_progress_bar()


def reason(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or repr(error)).splitlines()[0]
