"""From noise to images; asking for one loads nothing heavy."""

from typing import TYPE_CHECKING, Final

from attnsearch.lazy import loader

if TYPE_CHECKING:
    from attnsearch.sampling.config import SamplerConfig as SamplerConfig
    from attnsearch.sampling.loop import Schedule as Schedule
    from attnsearch.sampling.loop import noise_of_seeds as noise_of_seeds
    from attnsearch.sampling.loop import sample as sample
    from attnsearch.sampling.loop import schedule as schedule
    from attnsearch.sampling.loop import to_pixels as to_pixels

_HOMES: Final = {
    "SamplerConfig": "config",
    "Schedule": "loop",
    "noise_of_seeds": "loop",
    "sample": "loop",
    "schedule": "loop",
    "to_pixels": "loop",
}

__all__ = sorted(_HOMES)
__getattr__ = loader(__name__, _HOMES)
