"""How images are sampled, as a user says it; refused here before torch is there."""

from dataclasses import dataclass
from math import isfinite

from attnsearch.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerConfig:
    """How images are sampled.

    Raises:
        ConfigError: a value is out of range.
    """

    steps: int = 14
    """Calls of the network per image."""
    guidance: float = 4.5
    """Weight of classifier-free guidance; 1 turns it off."""

    def __post_init__(self) -> None:
        # With 1000, DPM-Solver++ visits a timestep twice and divides by the distance.
        if not 1 <= self.steps <= 999:
            raise ConfigError(f"steps must lie between 1 and 999, not {self.steps}")
        if not isfinite(self.guidance):
            raise ConfigError(f"guidance must be a finite number, not {self.guidance}")
