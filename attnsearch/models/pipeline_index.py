"""The index of a pipeline's folder: which parts it names, and reading those that are models.

An index comes with the folder, from anyone. Parts are plain names of folders within, and their
classes those of diffusers and transformers, so that nothing is imported because an index says so.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from attnsearch.errors import CheckpointError
from attnsearch.intake import one_line, quote, read_json
from attnsearch.intake.folders import check_folder
from attnsearch.lookup import PIPELINE_INDEX
from attnsearch.models.parts import is_model, load_part

_LIBRARIES: Final = ("diffusers", "transformers", "stable_diffusion")
"""The last is where in diffusers the safety checker is."""
_MODELS: Final = ("transformer", "text_encoder", "vae")
"""How the names of a pipeline's parts begin that are models, whatever their class is."""
_CODE: Final = "None.py"
"""Where diffusers looks for a custom pipeline when none is named."""
_NAME: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def read_index(folder: Path) -> dict[str, Any]:
    """The parts of a pipeline by name, as [library, class], among its settings.

    Raises:
        CheckpointError: it is damaged, names no pipeline, or a part that is not in the folder or
            not of the libraries; or there is code that a version of diffusers would run.
    """
    path = folder / PIPELINE_INDEX
    if (folder / _CODE).exists():
        raise CheckpointError(f"{folder / _CODE} is code; nothing in a pipeline's folder is run")
    try:
        index = read_json(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(f"the pipeline in {folder} cannot be read: {reason}") from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise CheckpointError(f"{path} names no pipeline class of diffusers")
    for name, entry in index.items():
        if not _NAME.fullmatch(name):
            raise CheckpointError(f"{path} names the part {quote(name)}, which is no plain name")
        if isinstance(entry, list) and not name.startswith("_"):
            _check_entry(path, name, entry)
    return index


def load_parts(folder: Path, index: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The models of a pipeline by name; None for a part that was left out when it was saved.

    The reader of SD3 wants to be told of that too.

    Raises:
        CheckpointError: a part is missing, damaged, or not safe to read.
    """
    for name, entry in index.items():
        match entry:
            case [None, None]:
                yield name, None
            case [str(), str()] if not (folder / name).is_dir():
                raise CheckpointError(f"{folder / name} is missing")  # else the folder is read
            case [str(library), str(kind)]:
                check_folder(folder / name)
                if name.startswith(_MODELS) or is_model(library, kind):
                    yield name, load_part(folder / name, library, kind)


def _check_entry(path: Path, name: str, entry: list[Any]) -> None:
    if entry == [None, None]:
        return
    if len(entry) != 2 or not all(isinstance(each, str) for each in entry):
        raise CheckpointError(f"{path} names no class for the part {name}")
    library, kind = entry
    if library not in _LIBRARIES or not _NAME.fullmatch(kind):
        raise CheckpointError(
            f"{path} names the class {one_line(f'{library}.{kind}', 100)} for the part {name}; "
            "attnsearch reads those of diffusers and transformers"
        )
