"""The form in which a number leaves this package: with its interval, its counts and its warnings."""

from dataclasses import dataclass
from math import isnan, nan

MIN_CLUSTERS = 10
"""With fewer clusters no interval is given: the error of a standard error is a quarter, 1/sqrt(2(G - 1))."""
FEW_CLUSTERS = 20
"""With fewer clusters an interval carries a warning; docs/validity.md has what is covered from 20 on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number that a reader may act on."""

    value: float
    """The point estimate; NaN when it does not exist, and then `reason` says why."""
    low: float
    """Lower end of the interval; NaN when no interval can be given."""
    high: float
    """Upper end of the interval; NaN when no interval can be given."""
    level: float = 0.95
    """Confidence level of the interval, two-sided."""
    method: str
    """How the interval was made."""
    n: int
    """Items that entered."""
    n_clusters: int
    """Independent units that entered: chunks, documents, or the items themselves."""
    n_excluded: int = 0
    """Items (or clusters, for values given by cluster) that could not enter."""
    reason: str | None = None
    """Why value or interval is NaN, or a warning; None when there is nothing to add."""

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level must be between 0 and 1, got {self.level!r}")
        if isnan(self.value) and not self.reason:
            raise ValueError("an undefined value needs a reason")

    @property
    def is_defined(self) -> bool:
        """Whether there is a value."""
        return not isnan(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether both ends of the interval are known."""
        return not (isnan(self.low) or isnan(self.high))


def undefined(
    reason: str,
    *,
    value: float = nan,
    method: str = "none",
    n: int = 0,
    n_clusters: int = 0,
    n_excluded: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Return an estimate without interval (and, unless `value` is given, without value) that says why."""
    return Estimate(
        value=value,
        low=nan,
        high=nan,
        level=level,
        method=method,
        n=n,
        n_clusters=n_clusters,
        n_excluded=n_excluded,
        reason=reason,
    )


def too_few(n_clusters: int) -> str | None:
    """Return why this many clusters carry no interval, or None when they carry one."""
    if n_clusters < MIN_CLUSTERS:
        return f"{n_clusters} cluster{'' if n_clusters == 1 else 's'}: no interval is given with fewer than {MIN_CLUSTERS}"
    return None


def warning(n_clusters: int) -> str | None:
    """Return the warning that belongs to an interval from this many clusters, or None."""
    if n_clusters < FEW_CLUSTERS:
        return f"{n_clusters} clusters: an interval from fewer than {FEW_CLUSTERS} is rough"
    return None
