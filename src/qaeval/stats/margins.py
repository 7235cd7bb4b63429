"""Non-inferiority and equivalence of two candidates on the same chunks, from their paired differences."""

from dataclasses import dataclass
from math import nan

from numpy.typing import ArrayLike

from qaeval.stats.estimate import Estimate
from qaeval.stats.paired import Pivot, chunk_differences, paired_difference, t_pivot


@dataclass(frozen=True, kw_only=True, slots=True)
class NonInferiority:
    """Is candidate b at most `margin` worse than candidate a?"""

    difference: Estimate
    """b - a with the two-sided interval of level 1 - 2 alpha; its lower end is the one-sided bound."""
    margin: float
    """Largest loss that is accepted, positive."""
    alpha: float
    """One-sided error rate."""
    p_value: float
    """Of the hypothesis that b is worse by the margin or more; NaN without an interval."""
    p_worse: float
    """Of the hypothesis that b is not worse than a, one-sided; NaN without an interval."""

    @property
    def is_shown(self) -> bool:
        """Whether b is shown to be non-inferior: the lower bound is above -margin."""
        return self.difference.low > -self.margin

    @property
    def is_worse(self) -> bool:
        """Whether b is shown to be worse than a: the upper bound is below 0."""
        return self.difference.high < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Equivalence:
    """Do the candidates differ by less than `low` and `high` say?"""

    difference: Estimate
    """b - a with the two-sided interval of level 1 - 2 alpha."""
    low: float
    """Lower bound of what counts as equivalent."""
    high: float
    """Upper bound of what counts as equivalent."""
    t_low: float
    """t statistic against the lower bound."""
    t_high: float
    """t statistic against the upper bound."""
    p_low: float
    """P-value of the hypothesis that the difference is at most `low`."""
    p_high: float
    """P-value of the hypothesis that the difference is at least `high`."""

    @property
    def p_value(self) -> float:
        """The larger of the two p-values: both hypotheses must fall."""
        return max(self.p_low, self.p_high)

    @property
    def is_shown(self) -> bool:
        """Whether the whole interval is inside the bounds."""
        return self.low < self.difference.low and self.difference.high < self.high


def non_inferiority(
    mean_a_by_chunk: ArrayLike,
    mean_b_by_chunk: ArrayLike,
    *,
    margin: float,
    alpha: float = 0.05,
    span: float | None = 1.0,
) -> NonInferiority:
    r"""Test that candidate b is not worse than a by `margin` or more.

    H0 :math:`\Delta \le -m` against :math:`\Delta > -m` for :math:`\Delta` = b - a; shown when the one-sided
    lower bound, t on chunks, is above -m. "No significant difference" is not the same thing. Source:
    Schuirmann 1987, one of his two tests.

    Args:
        mean_a_by_chunk: Baseline's mean in each chunk, shape (G,), NaN where there is none.
        mean_b_by_chunk: Candidate's mean in the same chunks.
        margin: Largest accepted loss, positive, declared before the data are seen.
        alpha: One-sided error rate, in (0, 0.5).
        span: See `paired_difference`.

    Returns:
        Bounds, and p-values in [0, 1]; with fewer than 10 chunks they are NaN and nothing is shown.

    Raises:
        ValueError: The margin is not positive, alpha is out of range, or the means do not fit together.
    """
    if not margin > 0:
        raise ValueError(f"margin is the largest accepted loss and must be positive, got {margin!r}")
    difference, pivot = _at_alpha(mean_a_by_chunk, mean_b_by_chunk, alpha=alpha, span=span)
    known = difference.has_interval
    return NonInferiority(
        difference=difference,
        margin=margin,
        alpha=alpha,
        p_value=pivot.tails(-margin)[0] if known else nan,
        p_worse=pivot.tails(0.0)[1] if known else nan,
    )


def equivalence(
    mean_a_by_chunk: ArrayLike,
    mean_b_by_chunk: ArrayLike,
    *,
    low: float,
    high: float,
    alpha: float = 0.05,
    span: float | None = 1.0,
) -> Equivalence:
    r"""Two one-sided tests (TOST) that b - a lies between `low` and `high`.

    Equivalence is shown when the :math:`1 - 2\alpha` interval lies inside the bounds. Source: Schuirmann
    1987.

    Args:
        mean_a_by_chunk: Mean of candidate a in each chunk, shape (G,), NaN where there is none.
        mean_b_by_chunk: The same for candidate b, on the same chunks.
        low: Lower bound of what counts as equivalent, in the unit of the means.
        high: Upper bound of what counts as equivalent.
        alpha: One-sided error rate, in (0, 0.5).
        span: See `paired_difference`.

    Returns:
        Bounds, t statistics, and p-values in [0, 1]; swapping the candidates and the bounds mirrors it. With
        fewer than 10 chunks they are NaN and nothing is shown.

    Raises:
        ValueError: low is not below high, alpha is out of range, or the means do not fit together.
    """
    if not low < high:
        raise ValueError(f"low must be below high, got {low!r} and {high!r}")
    difference, pivot = _at_alpha(mean_a_by_chunk, mean_b_by_chunk, alpha=alpha, span=span)
    known = difference.has_interval
    return Equivalence(
        difference=difference,
        low=low,
        high=high,
        t_low=(pivot.centre - low) / pivot.se if known else nan,
        t_high=(pivot.centre - high) / pivot.se if known else nan,
        p_low=pivot.tails(low)[0] if known else nan,
        p_high=pivot.tails(high)[1] if known else nan,
    )


def _at_alpha(a: ArrayLike, b: ArrayLike, *, alpha: float, span: float | None) -> tuple[Estimate, Pivot]:
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be between 0 and 0.5, got {alpha!r}")
    estimate = paired_difference(a, b, level=1 - 2 * alpha, span=span)
    return estimate, t_pivot(chunk_differences(a, b)[0], span=span)
