"""Estimates as data of documents."""

from math import isnan

from qaeval.report.facts import Part
from qaeval.stats.estimate import Estimate


class Measure(Part):
    """An estimate with its interval and sample sizes; `stats.estimate.Estimate` as JSON."""

    value: float | None
    """None if undefined; `reason` explains why."""
    low: float | None
    high: float | None
    level: float = 0.95
    method: str
    n: int
    n_clusters: int
    n_excluded: int = 0
    reason: str | None = None
    """Why the value or interval is missing, or a warning about the interval."""

    @classmethod
    def of(cls, estimate: Estimate) -> "Measure":
        """Convert an estimate; NaN becomes None."""
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
        """Whether the interval exists."""
        return self.low is not None and self.high is not None

    def without_value(self, reason: str) -> "Measure":
        """Return the measure without value and interval, with a reason."""
        return self.model_copy(update={"value": None, "low": None, "high": None, "reason": reason})

    def scaled(self, factor: float) -> "Measure":
        """Multiply value and ends; a negative factor swaps the ends."""
        low, high = (self.low, self.high) if factor >= 0 else (self.high, self.low)
        ends = {"value": self.value, "low": low, "high": high}
        return self.model_copy(
            update={name: None if end is None else factor * end for name, end in ends.items()}
        )


def _number(value: float) -> float | None:
    return None if isnan(value) else value
