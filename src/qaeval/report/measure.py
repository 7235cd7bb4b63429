"""`stats.estimate.Estimate` as JSON."""

from math import isnan

from qaeval.report.facts import Part
from qaeval.stats.estimate import Estimate


class Measure(Part):
    """A number with its interval, its counts and its caveats."""

    value: float | None
    """None if it does not exist; then `reason` says why."""
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
        """Convert an estimate; its NaN becomes None."""
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

    def without_value(self, reason: str) -> "Measure":
        """Return the measure without value and interval, for a reason."""
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
