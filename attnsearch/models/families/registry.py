"""The families there are, which one serves a model, and where a pipeline has it."""

from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from attnsearch.errors import ConfigError
from attnsearch.models.families.contract import Family
from attnsearch.models.families.dit import DIT
from attnsearch.models.families.flux import FLUX
from attnsearch.models.families.hunyuandit import HUNYUANDIT
from attnsearch.models.families.ltx import LTX
from attnsearch.models.families.pixart import PIXART
from attnsearch.models.families.sana import SANA
from attnsearch.models.families.sd3 import SD3
from attnsearch.models.families.wan import WAN

FAMILIES: Final = (DIT, PIXART, SANA, HUNYUANDIT, SD3, FLUX, WAN, LTX)

_BY_NAME: Final = {family.model: family for family in FAMILIES}
_PARTS: Final = tuple(dict.fromkeys(family.part for family in FAMILIES if family.part))


def find_family(model: nn.Module) -> Family:
    """The family whose class this is, or is derived from.

    Raises:
        ConfigError: there is none; lists the classes that are supported.
    """
    for base in type(model).__mro__:
        if base.__name__ in _BY_NAME:
            return _BY_NAME[base.__name__]
    return _family_named(type(model).__name__)


def find_denoiser(pipe: Any) -> tuple[Family, nn.Module]:
    """The part of a pipeline that is watched, and its family.

    Raises:
        ConfigError: the pipeline has none, or no family serves it.
    """
    for part in _PARTS:
        model = getattr(pipe, part, None)
        if model is not None:
            return find_family(model), model
    raise ConfigError(f"{type(pipe).__name__} has no {_either()} to watch")


def family_of_index(index: Mapping[str, Any], place: str) -> Family:
    """The family of the pipeline whose index this is; `place` says where it lies.

    Raises:
        ConfigError: as of `find_denoiser`.
    """
    for part in _PARTS:
        if isinstance(index.get(part), list):
            return _family_named(str(index[part][-1]))
    raise ConfigError(f"{index['_class_name']} in {place} has no {_either()} to watch")


def _family_named(model: str) -> Family:
    if model not in _BY_NAME:
        # Our own DiT is in no pipeline, and who has one does not get here.
        known = ", ".join(family.model for family in FAMILIES if family.part)
        raise ConfigError(f"the attention of {model} cannot be watched; supported: {known}")
    return _BY_NAME[model]


def _either() -> str:
    return " or ".join(_PARTS)
