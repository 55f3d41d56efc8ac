"""How often a colour word is left out of a training caption, by step."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

from attnsearch.errors import ConfigError
from attnsearch.intake import quote

_FORM = "colour_dropout must be a probability, or pairs [step, probability] whose first step is 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourDropout:
    """A probability that changes at some steps of a training.

    Raises:
        ConfigError: the steps do not ascend from 0, or a value is no probability.
    """

    stages: tuple[tuple[int, float], ...]
    """Pairs of a step and the probability from that step on."""

    def __post_init__(self) -> None:
        steps = [step for step, _ in self.stages]
        if steps[:1] != [0]:
            raise ConfigError(f"{_FORM}, not {quote(self.plain())}")
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ConfigError(f"the steps of colour_dropout must ascend, not {quote(steps)}")
        for _, value in self.stages:
            if not 0 <= value <= 1:
                raise ConfigError(f"colour_dropout {quote(value)} is not a probability")

    @classmethod
    def read(cls, value: Any) -> Self:
        """From what a file says: a number, or a list of pairs.

        Raises:
            ConfigError: it says something else.
        """
        pairs = value if isinstance(value, list) else [[0, value]]
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise ConfigError(f"{_FORM}, not {quote(value)}")
        for step, number in pairs:
            if type(step) is not int or not 0 <= step < 2**63 or type(number) not in (int, float):
                raise ConfigError(f"{_FORM}, not {quote(value)}")
        checked = cls(stages=tuple((step, number) for step, number in pairs))
        return cls(stages=tuple((step, float(number)) for step, number in checked.stages))

    def plain(self) -> float | list[list[float]]:
        """What `read` reads back."""
        if len(self.stages) == 1 and self.stages[0][0] == 0:
            return self.stages[0][1]
        return [[step, value] for step, value in self.stages]

    def at(self, step: int) -> float:
        """The probability at a step."""
        return next(value for start, value in reversed(self.stages) if start <= step)

    @property
    def last(self) -> float:
        """The probability at the end, which is the task's."""
        return self.stages[-1][1]

    def check_ends_within(self, steps: int) -> None:
        """Refuse a schedule that a training of so many steps does not finish.

        Raises:
            ConfigError: its last stage never begins.
        """
        begin = self.stages[-1][0]
        if begin >= steps:
            raise ConfigError(
                f"colour_dropout changes at step {begin:,}, the training has {steps:,} steps"
            )
