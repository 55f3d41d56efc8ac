"""Folders of `save_pretrained`, looked at before diffusers and transformers read them.

Both read weights as data alone and take no code from a folder that is not trusted; they do believe
sizes and names. Checked here: every file is a regular one and of a size for its kind; weights
are in safetensors, or pickles that pass `claims`; names of weight files stay in the folder; no
number of a configuration is absurd by itself. How large a model the configuration as a whole makes
is the business of `sizes`. Not checked is what is in a vocabulary: its readers take memory in
proportion to the file. Nor are folders in the cache of the hub.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from attnsearch.errors import CheckpointError
from attnsearch.intake.claims import inspect_torch_file
from attnsearch.intake.files import open_regular, read_json
from attnsearch.intake.values import one_line, quote

MAX_TEXT: Final = 64 * 2**20
"""Bytes of a vocabulary; the largest have half of it."""
MAX_TABLE: Final = 16 * 2**20
"""Bytes of a configuration, or of a table that says which weight is in which file."""

_LIMITS: Final = {
    "extra_ids": 10_000,  # tokens that T5's tokenizer makes
    "num_train_timesteps": 100_000,  # entries of a scheduler's tables
    "sample_size": 4_096,  # side of a latent image
    "model_max_length": 10**40,  # tokenizers without a limit say 10^30
}
_MOST: Final = 10**8
"""Of every other whole number: the largest is the base of some rotary positions."""

_TEXTS: Final = (".json", ".txt", ".model", ".jinja")
_PICKLE: Final = re.compile(r"(diffusion_)?pytorch_model.*\.bin|adapter_model\.bin")
_PREFERRED: Final = {"diffusion_pytorch": "diffusion_pytorch_model", "pytorch": "model"}
"""What the weights are called in safetensors, by how pickles of them are; read instead of them."""
_PLAIN: Final = re.compile(r"[\w.-]+")


def check_folder(folder: Path) -> None:
    """Refuse a folder of one model, tokenizer or scheduler that is not safe to read.

    Raises:
        CheckpointError: naming the file.
    """
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            continue
        try:
            _check_file(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CheckpointError(f"{path} cannot be used: {one_line(reason, 300)}") from error


def _check_file(path: Path) -> None:
    name = path.name
    if name.endswith(".index.json"):
        _check_index(read_json(path, MAX_TABLE))
    elif name.endswith("config.json"):
        _check_numbers(read_json(path, MAX_TABLE))
    else:
        with open_regular(path) as file:
            if path.suffix in _TEXTS and os.fstat(file.fileno()).st_size > MAX_TEXT:
                raise ValueError(f"it is larger than {MAX_TEXT // 2**20} MiB")
            if _PICKLE.fullmatch(name) and not _is_superseded(path):
                inspect_torch_file(file)


def _check_index(index: Any) -> None:
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict):
        raise ValueError("it is no table of weight files")
    for name in files.values():
        plain = isinstance(name, str) and _PLAIN.fullmatch(name)
        if not plain or not (name.endswith(".safetensors") or _PICKLE.fullmatch(name)):
            raise ValueError(f"{quote(name)} is no name of a weight file in this folder")


def _check_numbers(config: Any) -> None:
    if not isinstance(config, dict):
        raise ValueError("it is no table")
    for key, number in _numbers("", config):
        most = _LIMITS.get(key, _MOST)
        if abs(number) > most:
            raise ValueError(f"{one_line(key, 100)} is {quote(number)}, more than {most:,}")


def _numbers(key: str, value: Any) -> Iterator[tuple[str, int]]:
    """Every whole number of a configuration, with the key it is under."""
    if isinstance(value, dict):
        for inner, each in value.items():
            yield from _numbers(inner, each)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(key, each)
    elif isinstance(value, int):
        yield key, value


def _is_superseded(pickle: Path) -> bool:
    """Whether both libraries would read safetensors in the place of a pickle."""
    stem = next((safe for start, safe in _PREFERRED.items() if pickle.name.startswith(start)), "")
    names = (f"{stem}.safetensors", f"{stem}.safetensors.index.json")
    return any((pickle.parent / name).is_file() for name in names)
