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


def find_family(transformer: nn.Module) -> Family:
    """The family whose transformer class this is, or is derived from.

    Raises:
        ConfigError: there is none; lists the classes that are supported.
    """
    names = {base.__name__ for base in type(transformer).__mro__}
    for family in FAMILIES:
        if family.transformer in names:
            return family
    supported = ", ".join(family.transformer for family in FAMILIES)
    raise ConfigError(
        f"the attention of {type(transformer).__name__} cannot be watched; supported: {supported}"
    )
