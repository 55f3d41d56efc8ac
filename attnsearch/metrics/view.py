"""Which part of scans is asked, as a user says it; refused here before a store is opened."""

from dataclasses import dataclass

from attnsearch.errors import MetricError
from attnsearch.metrics.inference import Over


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Which part of scans is asked, and how steps count.

    Raises:
        MetricError: the noise levels are no range.
    """

    where: str | None = None
    """Condition on samples, such as `relation in [left, right] and colour1 == red`."""
    by: str | None = None
    """Coordinate of samples, for each of whose values heads are scored anew."""
    noise: tuple[float, float] | None = None
    """Only steps with noise levels between these, ends included."""
    over: Over = "mean"
    """Score of the mean map over steps, or of the step where it is largest."""

    def __post_init__(self) -> None:
        if self.noise is not None and not self.noise[0] <= self.noise[1]:
            raise MetricError(f"noise levels are a range such as 0.6:1.0, not {self.noise}")

    def __str__(self) -> str:
        steps = "mean over steps" if self.over == "mean" else "at the peak step"
        if self.noise is not None:
            steps += f" of noise {self.noise[0]:g} to {self.noise[1]:g}"
        return ", ".join([steps, *([f"where {self.where}"] if self.where else [])])
