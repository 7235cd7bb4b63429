"""`stats.estimate.Estimate` as JSON."""

from math import isnan

from qaeval.report.facts import Part
from qaeval.stats.estimate import Estimate


class Measure(Part):
    """A number with its interval, its counts and its doubts."""

    value: float | None
    """None when it does not exist; then `reason` says why."""
    low: float | None
    high: float | None
    level: float = 0.95
    method: str
    n: int
    n_clusters: int
    n_excluded: int = 0
    reason: str | None = None
    """Why value or interval is missing, or a warning about the interval."""

    @classmethod
    def of(cls, estimate: Estimate) -> "Measure":
        """Take an estimate over; its NaN becomes None."""
        return cls(
            value=_number(estimate.value),
            low=_number(estimate.low),
            high=_number(estimate.high),
            level=estimate.level,
            method=estimate.method,
            n=estimate.n,
            n_clusters=estimate.n_clusters,
            n_excluded=estimate.n_excluded,
            reason=estimate.reason,
        )

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return self.low is not None and self.high is not None


def _number(value: float) -> float | None:
    return None if isnan(value) else value
