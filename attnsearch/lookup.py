"""What a user names without a path, or does not name at all: packaged models, the store, a scan.

The one place of these rules, for the command line and for Python. Nothing heavy is imported here,
so that a name that is wrong is refused at once.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final
from zlib import crc32

from attnsearch import zoo
from attnsearch.errors import CheckpointError, StoreError
from attnsearch.intake import quote
from attnsearch.progress import note

STORE_VARIABLE: Final = "ATTNSEARCH_STORE"
"""Environment variable that names the store where none is named."""
USUAL_STORE: Final = "attnsearch.zarr"
"""The store where none is named otherwise, in the working directory."""
EXAMPLE_MODEL: Final = zoo.demonstration().stem

PIPELINE_INDEX: Final = "model_index.json"
"""The file that makes a folder one of a diffusers pipeline."""

_LONGEST_NAME: Final = 120
"""Characters of the name of a scan, which leaves room for `-control`."""
_CONTROL: Final = "-control"
_SCAN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NEAR: Final = 0.75
"""Share of letters in common from which a name may have been meant."""
_GENERIC: Final = ("model", "checkpoint")
"""Stems of the files of a run, which are called after the run's folder."""


def find_store(named: Path | str | None = None, *, make: bool = False) -> Path | str:
    """The store that is named, or that of `ATTNSEARCH_STORE`, or `attnsearch.zarr` here.

    Which one it is, is said on stderr unless it was named. It has to be there, unless it may be
    made.

    Raises:
        StoreError: no store is named and none is here, or the one that is named is not there, or
            cannot be made there.
    """
    if named is not None:
        if make:
            _check_new(str(named))
        elif not _is_there(named):
            raise StoreError(_no_store(str(named)))
        return named
    if told := os.environ.get(STORE_VARIABLE):
        if make:
            _check_new(told)
        elif not _is_there(told):
            raise StoreError(f"{STORE_VARIABLE} names {told}, which does not exist")
        note(f"store: {told} (from {STORE_VARIABLE})")
        return told
    if make:
        _check_new(USUAL_STORE)
    elif not _is_there(USUAL_STORE):
        raise StoreError(
            f"no store is named, and there is no {USUAL_STORE} here; `attnsearch scan MODEL` makes "
            f"one, of your own model or of a packaged one such as {EXAMPLE_MODEL}"
        )
    note(f"store: {USUAL_STORE} (in the working directory)")
    return USUAL_STORE


def find_model(named: Path | str) -> Path:
    """The file or folder of a model: what lies at that path, or the packaged model of that name.

    Raises:
        CheckpointError: there is neither; the message says which names are alike.
    """
    path = Path(named)
    if os.path.lexists(path):
        return path
    packaged = {each.stem: each for each in zoo.packaged()}
    if (name := str(named)) in packaged:
        return packaged[name]
    if path.name != name:
        raise CheckpointError(f"no such file: {named}{_alike(path.name, _names_in(path.parent))}")
    alike = _alike(name, [*packaged, *_names_in(Path())])
    raise CheckpointError(
        f"no such file or packaged model: {named}"
        f"{alike or '; `attnsearch zoo` lists the packaged models'}"
    )


def find_checkpoint(named: Path | str) -> Path:
    """The file of a checkpoint; as `find_model`, for what a folder does not serve.

    Raises:
        CheckpointError: there is none, or it is a folder.
    """
    path = find_model(named)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a checkpoint{model_inside(path)}")
    return path


def is_pipeline(path: Path) -> bool:
    """Whether a path is a folder written by a pipeline's `save_pretrained`."""
    return (path / PIPELINE_INDEX).is_file()


def scan_name(model: Path | str, *, control: bool = False) -> str:
    """The name that the scan of a model has by default.

    That of its file, or of its folder for a pipeline and for the files of a run; what cannot be in
    the name of a scan is left out, or a hyphen stands for it.
    """
    path = Path(model)
    plain = _plain_name(_own_name(path))
    return f"{plain}{_CONTROL}" if control else plain


def name_scan(model: Path | str, *, control: bool = False) -> str:
    """The `scan_name` of a model; says so on stderr where it is not the model's own."""
    path = Path(model)
    name = scan_name(path, control=control)
    if _plain_name(own := _own_name(path)) != own:
        note(f"{path.name} is scanned as {name}; --name gives it another name")
    return name


def model_inside(folder: Path) -> str:
    """What may have been meant by the folder of a run; nothing where it is none."""
    inside = folder / "model.pt"
    return f"; did you mean {inside}?" if inside.is_file() else ""


def check_scan_name(name: str) -> None:
    """Refuse a name that no scan can have.

    Raises:
        StoreError: it is empty, long or has odd characters.
    """
    if not _SCAN_NAME.fullmatch(name):
        raise StoreError(
            f"{quote(name)} cannot be the name of a scan; give it a --name of up to 128 letters of "
            "a to z, digits, '-', '_' and '.', of which the first is no '-' or '.'"
        )


def _own_name(path: Path) -> str:
    if path.is_dir():
        return path.resolve().name
    return path.resolve().parent.name if path.stem in _GENERIC else path.stem


def _plain_name(own: str) -> str:
    if _SCAN_NAME.fullmatch(own) and len(own) <= _LONGEST_NAME:
        return own
    letters = unicodedata.normalize("NFKD", own).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", letters).strip("-.")[:_LONGEST_NAME].rstrip("-.")
    # Of a name in other letters nothing may be left, and what is called differs all the same.
    return plain or f"model-{crc32(own.encode(errors='surrogateescape')):08x}"


def _is_there(store: Path | str) -> bool:
    """Whether there may be a store; of what is no folder here, others know more."""
    return "://" in str(store) or os.path.lexists(store)


def _check_new(store: str) -> None:
    """Refuse a place where no store can be; whether one is there already, others find out."""
    path = Path(store)
    if "://" in store:
        return
    if path.is_file():
        raise StoreError(f"{store} is a file, not an attnsearch store")
    if not path.parent.is_dir():
        raise StoreError(f"cannot write {store}: there is no folder {path.parent}")


def _no_store(named: str) -> str:
    path = Path(named)
    if named in {each.stem for each in zoo.packaged()}:
        return (
            f"{named} is a packaged model and no store; `attnsearch scan {named}` makes a store "
            "of its maps"
        )
    folders = [each.name for each in _listed(path.parent) if each.is_dir()]
    return f"{named} does not exist{_alike(path.name, folders)}"


def _alike(name: str, known: Iterable[str]) -> str:
    """A question after the names that are nearest to this one; nothing where none is near."""
    nearness = {each: SequenceMatcher(None, name, each).ratio() for each in known}
    best = max(nearness.values(), default=0.0)
    found = sorted(each for each, near in nearness.items() if near == best)[:3]
    return f"; did you mean {' or '.join(found)}?" if best >= _NEAR else ""


def _names_in(folder: Path) -> list[str]:
    return [each.name for each in _listed(folder)]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
