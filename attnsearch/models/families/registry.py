"""The families there are, and which one serves a transformer."""

from typing import Final

from torch import nn

from attnsearch.errors import ConfigError
from attnsearch.models.families.contract import Family
from attnsearch.models.families.flux import FLUX
from attnsearch.models.families.hunyuandit import HUNYUANDIT
from attnsearch.models.families.ltx import LTX
from attnsearch.models.families.pixart import PIXART
from attnsearch.models.families.sana import SANA
from attnsearch.models.families.sd3 import SD3
from attnsearch.models.families.wan import WAN

FAMILIES: Final = (PIXART, SANA, HUNYUANDIT, SD3, FLUX, WAN, LTX)


_BY_NAME: Final = {family.transformer: family for family in FAMILIES}


def find_family(transformer: nn.Module) -> Family:
    """The family whose transformer class this is, or is derived from.

    Raises:
        ConfigError: there is none; lists the classes that are supported.
    """
    for base in type(transformer).__mro__:
        if base.__name__ in _BY_NAME:
            return _BY_NAME[base.__name__]
    return family_named(type(transformer).__name__)


def family_named(transformer: str) -> Family:
    """The family whose transformer class has this name.

    Raises:
        ConfigError: as `find_family`.
    """
    if transformer not in _BY_NAME:
        raise ConfigError(
            f"the attention of {transformer} cannot be watched; supported: {', '.join(_BY_NAME)}"
        )
    return _BY_NAME[transformer]
