"""Reading one model of diffusers or transformers from a folder: whole, finite, known by digest.

Which folder, and what is done with the model, is the business of `pipelines` and `vae`. A model
whose configuration describes far more than its files hold is refused before memory is taken for
it, as far as its weights and buffers tell; what its class makes beside them is not foreseen.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from attnsearch.errors import CheckpointError
from attnsearch.intake import one_line
from attnsearch.intake.folders import check_folder
from attnsearch.intake.sizes import TooLargeError, within_weights

_LIBRARIES: Final = ("diffusers", "transformers")


def load_part(folder: Path, library: str, class_name: str) -> Any:
    """The model in a folder written by `save_pretrained`, in float32; nothing is fetched.

    Raises:
        CheckpointError: there is none, its files are damaged or unsafe, or a weight is missing,
            which the libraries would make up at random, or not finite.
    """
    check_folder(folder)
    try:
        if not is_model(library, class_name):
            raise ValueError(f"{library} has no model {one_line(class_name, 100)}")
        kind = _find_class(library, class_name)
        with quiet(), within_weights(folder):
            _outline(kind, folder)
            model, found = kind.from_pretrained(
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


def is_model(library: str, class_name: str) -> bool:
    """Whether a class of diffusers or transformers is one of models."""
    kind = _find_class(library, class_name)
    return isinstance(kind, type) and issubclass(kind, nn.Module)


def _find_class(library: str, class_name: str) -> Any:
    within = library if library in _LIBRARIES else f"diffusers.pipelines.{library}"
    try:
        return getattr(import_module(within), class_name, None)
    except Exception:  # a class may ask for packages that are not there
        return None


def _outline(kind: Any, folder: Path) -> None:
    """Make a model without its memory, for `within_weights` to see how large it is."""
    try:
        with torch.device("meta"):
            if hasattr(kind, "load_config"):  # of diffusers
                kind.from_config(kind.load_config(folder, local_files_only=True))
            else:
                kind(kind.config_class.from_pretrained(folder, local_files_only=True))
    except TooLargeError:
        raise
    except Exception:  # the reader itself, which comes next, says it better
        return


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
    with ExitStack() as restore:
        for log in logs:
            restore.callback(log.set_verbosity, log.get_verbosity())
            if log.is_progress_bar_enabled():
                restore.callback(log.enable_progress_bar)
            log.set_verbosity(log.CRITICAL)  # they log what they also raise
            log.disable_progress_bar()
        yield


def reason(error: Exception) -> str:
    """The first line of what an error says."""
    return one_line((str(error).strip() or repr(error)).splitlines()[0], 300)
