"""Jackknife and bootstrap over clusters, for any statistic of summed counts.

A statistic here is a function of *totals*: it takes an array of shape (B, ...) and returns B values, NaN
where it does not exist. The clusters are given by their contributions to the totals, shape (G, ...): the
confusion table of each cluster, for example, whose sum is the confusion table of the whole. Clusters with
the same contribution are interchangeable, so both methods work on the distinct contributions and how often
each occurs; that is exact, and it is what makes a million letters quick.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from qaeval.stats._arrays import TINY, Floats, Ints, check_level
from qaeval.stats.estimate import MIN_CLUSTERS, Estimate, too_few, undefined, warning

Statistic = Callable[[Floats], Floats]
"""Totals of shape (B, ...) to B values; NaN where the statistic does not exist."""

MAX_UNDEFINED = 0.01
"""Largest share of resamples without a value that still gives an interval.

Each end of a 95 % interval is a tail of 2.5 %, and resamples without a value are likely to be extreme ones.
"""
_BATCH_CELLS = 4_000_000
"""Resampled weights held at once, 32 MB."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """The distinct contributions of clusters, and how many clusters make each."""

    cells: Floats
    """Distinct contributions, shape (T, ...)."""
    multiplicity: Ints
    """Clusters with each contribution, shape (T,)."""

    @classmethod
    def of(cls, contributions: ArrayLike) -> "Clusters":
        """Gather the contributions of all clusters, shape (G, ...) with G at least 1."""
        rows = np.asarray(contributions, dtype=np.float64)
        if rows.ndim == 0 or rows.shape[0] == 0:
            raise ValueError("there are no clusters to resample")
        if not np.isfinite(rows).all():
            raise ValueError("the contributions of the clusters must be finite")
        flat = rows.reshape(len(rows), -1)
        first, counts = _distinct_rows(flat)
        return cls(cells=rows[first], multiplicity=counts)

    @property
    def n_clusters(self) -> int:
        """Number of clusters, G."""
        return int(self.multiplicity.sum())

    @property
    def total(self) -> Floats:
        """Sum over all clusters, the shape of one contribution."""
        return np.tensordot(self.multiplicity.astype(np.float64), self.cells, axes=1)


def _distinct_rows(flat: Floats) -> tuple[Ints, Ints]:
    """Return the position of the first of each kind of row, and the number of rows of that kind."""
    order = np.lexsort(flat.T[::-1])
    ordered = flat[order]
    new = np.ones(len(flat), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    return order[starts].astype(np.int64), np.diff(np.append(starts, len(flat))).astype(np.int64)


def resampled_totals(clusters: Clusters, *, rng: np.random.Generator, n_resamples: int) -> Iterator[Floats]:
    """Yield the totals of `n_resamples` bootstrap samples of clusters, in batches of shape (b, ...)."""
    probabilities = clusters.multiplicity / clusters.n_clusters
    cells = clusters.cells.reshape(len(clusters.cells), -1)
    batch = max(1, min(n_resamples, _BATCH_CELLS // len(cells)))
    for start in range(0, n_resamples, batch):
        size = min(batch, n_resamples - start)
        weights = rng.multinomial(clusters.n_clusters, probabilities, size=size)
        yield (weights.astype(np.float64) @ cells).reshape(size, *clusters.cells.shape[1:])


def left_out_values(statistic: Statistic, clusters: Clusters) -> Floats:
    """Return the statistic without one cluster of each distinct kind, shape (T,)."""
    return np.asarray(statistic(clusters.total - clusters.cells), dtype=np.float64)


def jackknife_se(statistic: Statistic, clusters: Clusters) -> float:
    r"""Delete-one-cluster jackknife standard error.

    :math:`\sqrt{\frac{G-1}{G}\sum_g (\theta_{(-g)} - \bar\theta)^2}`. NaN with one cluster, and when the
    statistic does not exist without some cluster.
    """
    return _jackknife_error(statistic, clusters)[0]


def _jackknife_error(statistic: Statistic, clusters: Clusters) -> tuple[float, float]:
    r"""Return the standard error, and the degrees of freedom with which it is known; see `jackknife`."""
    n_clusters, times = clusters.n_clusters, clusters.multiplicity
    if n_clusters < 2:
        return nan, nan
    values = left_out_values(statistic, clusters)
    squares = (values - float(np.average(values, weights=times))) ** 2
    spread = float(times @ squares)
    if not np.isfinite(spread):
        return nan, nan
    excess = float(times @ squares**2) - spread**2 / n_clusters
    most = n_clusters - 1
    df = most if excess <= 2 * spread**2 / most else 2 * spread**2 / excess
    return sqrt((n_clusters - 1) / n_clusters * spread), df


def jackknife(
    statistic: Statistic,
    contributions: ArrayLike,
    *,
    n: int,
    scale: Literal["identity", "fisher"] = "identity",
    level: float = 0.95,
) -> Estimate:
    r"""Statistic of all clusters with a delete-one-cluster jackknife interval and Student's t.

    With :math:`u_g` the squared deviations of the left-out values, t has :math:`2 (\sum u_g)^2 / (\sum u_g^2 -
    (\sum u_g)^2 / G)` degrees of freedom (Satterthwaite 1946), at most G - 1: few, where few clusters decide.
    On Fisher's scale, for coefficients in [-1, 1], the interval is :math:`\tanh\{\operatorname{artanh} \theta
    \pm t\, SE / (1 - \theta^2)\}`, which stays inside the range. Source: Efron and Tibshirani 1993, chapter 11.

    Args:
        statistic: Function of totals of shape (B, ...) to B values, NaN where it does not exist.
        contributions: What each cluster adds to the totals, shape (G, ...), such as `cluster_tables`.
        n: Number of items to report.
        scale: Scale on which the interval is symmetric; a value at or beyond -1 or 1 falls back to identity.
        level: Confidence level.

    Returns:
        The statistic in its own range. The value is NaN where it does not exist; the interval is NaN with
        fewer than 10 clusters, when leaving out some cluster makes it undefined, and when no cluster matters.

    Raises:
        ValueError: There are no clusters, or a contribution is not finite.
    """
    check_level(level)
    clusters = Clusters.of(contributions)
    n_clusters = clusters.n_clusters
    value = float(statistic(clusters.total[np.newaxis])[0])
    se, df = _jackknife_error(statistic, clusters)
    is_fisher = scale == "fisher" and abs(value) < 1 - TINY
    method = "cluster jackknife, Fisher z, t" if is_fisher else "cluster jackknife, t"
    reason = _why_no_interval(value, se, n_clusters)
    if reason is not None:
        return undefined(reason, value=value, method=method, n=n, n_clusters=n_clusters, level=level)
    half = float(special.stdtrit(df, 0.5 + level / 2)) * se
    ends = (value - half, value + half)
    if is_fisher:
        centre, reach = np.arctanh(value), half / (1 - value**2)
        ends = (float(np.tanh(centre - reach)), float(np.tanh(centre + reach)))
    return Estimate(
        value=value,
        low=ends[0],
        high=ends[1],
        level=level,
        method=method,
        n=n,
        n_clusters=n_clusters,
        reason=warning(n_clusters),
    )


def _why_no_interval(value: float, se: float, n_clusters: int) -> str | None:
    if np.isnan(value):
        return "the statistic does not exist for these data"
    if reason := too_few(n_clusters):
        return reason
    if np.isnan(se):
        return "the statistic does not exist without one of the clusters"
    if se <= TINY:
        return "no cluster changes the statistic: the data hold no information about the error"
    return None


def cluster_bootstrap(
    statistic: Statistic,
    contributions: ArrayLike,
    *,
    rng: np.random.Generator,
    n: int,
    method: Literal["bca", "percentile"] = "bca",
    n_resamples: int = 9999,
    level: float = 0.95,
) -> Estimate:
    r"""Statistic of all clusters with a bootstrap interval from resampled clusters.

    ``"percentile"`` takes the quantiles of the resampled values. ``"bca"`` corrects them for bias and skew:
    :math:`z_0 = \Phi^{-1}((\#\{t^* < t\} + \frac12\#\{t^* = t\})/B)`, :math:`a = \sum u^3 / 6(\sum
    u^2)^{3/2}` with :math:`u_g = \bar\theta_{(\cdot)} - \theta_{(-g)}`, quantiles at :math:`\Phi(z_0 + (z_0 +
    z)/(1 - a(z_0 + z)))`. Source: Efron and Tibshirani 1993, chapter 14.

    Args:
        statistic: Function of totals of shape (B, ...) to B values, NaN where it does not exist.
        contributions: What each cluster adds to the totals, shape (G, ...), such as `cluster_tables`.
        rng: Source of the resamples; the same seed gives the same interval.
        n: Number of items to report.
        method: Kind of interval.
        n_resamples: Number of resamples B.
        level: Confidence level.

    Returns:
        The statistic in its own range. The value is NaN where it does not exist; the interval is NaN with
        fewer than 10 clusters, when more than 1 % of the resamples have no value, and when all of them have
        the same one.

    Raises:
        ValueError: There are no clusters, a contribution is not finite, or the method is unknown.
    """
    (estimate,) = cluster_bootstrap_all(
        {"": statistic}, contributions, rng=rng, n=n, method=method, n_resamples=n_resamples, level=level
    ).values()
    return estimate


def cluster_bootstrap_all(
    statistics: Mapping[str, Statistic],
    contributions: ArrayLike,
    *,
    rng: np.random.Generator,
    n: int,
    method: Literal["bca", "percentile"] = "bca",
    n_resamples: int = 9999,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Several statistics with bootstrap intervals from the same resampled clusters.

    Source: Efron and Tibshirani 1993, as `cluster_bootstrap` for each.

    Args:
        statistics: Functions by name; each from totals of shape (B, ...) to B values.
        contributions: What each cluster adds to the totals, shape (G, ...), such as `cluster_tables`.
        rng: Source of the resamples; the same seed gives the same intervals.
        n: Number of items to report.
        method: Kind of interval.
        n_resamples: Number of resamples.
        level: Confidence level.

    Returns:
        One estimate for each name, in its own range. NaN as in `cluster_bootstrap`.

    Raises:
        ValueError: There are no clusters, a contribution is not finite, or the method is unknown.
    """
    check_level(level)
    if method not in {"bca", "percentile"}:
        raise ValueError(f"method must be 'bca' or 'percentile', got {method!r}")
    clusters = Clusters.of(contributions)
    draws: dict[str, list[Floats]] = {name: [] for name in statistics}
    if clusters.n_clusters >= MIN_CLUSTERS:
        for totals in resampled_totals(clusters, rng=rng, n_resamples=n_resamples):
            for name, statistic in statistics.items():
                draws[name].append(np.asarray(statistic(totals), dtype=np.float64))
    return {
        name: _bootstrap_estimate(statistic, clusters, draws[name], n=n, method=method, level=level)
        for name, statistic in statistics.items()
    }


def _bootstrap_estimate(
    statistic: Statistic, clusters: Clusters, draws: list[Floats], *, n: int, method: str, level: float
) -> Estimate:
    n_clusters, name = clusters.n_clusters, f"cluster bootstrap, {method}"
    value = float(statistic(clusters.total[np.newaxis])[0])
    reason = _why_no_interval(value, 1.0, n_clusters)
    low = high = nan
    if reason is None:
        low, high, reason = _quantiles(
            np.concatenate(draws), value, statistic, clusters, bca=method == "bca", level=level
        )
    if reason is not None:
        return undefined(reason, value=value, method=name, n=n, n_clusters=n_clusters, level=level)
    return Estimate(
        value=value,
        low=low,
        high=high,
        level=level,
        method=name,
        n=n,
        n_clusters=n_clusters,
        reason=warning(n_clusters),
    )


def _quantiles(
    draws: Floats, value: float, statistic: Statistic, clusters: Clusters, *, bca: bool, level: float
) -> tuple[float, float, str | None]:
    """Return the ends of the bootstrap interval, or the reason why there is none."""
    defined = draws[~np.isnan(draws)]
    lost = len(draws) - len(defined)
    if lost > MAX_UNDEFINED * len(draws):
        return nan, nan, f"{lost} of {len(draws)} resamples have no value"
    if np.ptp(defined) <= TINY:
        return nan, nan, "all resamples have the same value: the data hold no information about the error"
    tails = np.array([0.5 - level / 2, 0.5 + level / 2])
    if bca:
        tails = bca_tails(defined, value, left_out_values(statistic, clusters), clusters, tails)
        if np.isnan(tails).any():
            return nan, nan, "the BCa interval does not exist: the resamples lie on one side of the value"
    low, high = np.quantile(defined, tails)
    return float(low), float(high), None


def acceleration(left_out: Floats, multiplicity: Ints) -> float:
    r"""Return BCa's acceleration :math:`\sum u^3 / 6 (\sum u^2)^{3/2}`; 0 when nothing varies."""
    u = np.average(left_out, weights=multiplicity) - left_out
    squares = float((multiplicity * u**2).sum())
    return float((multiplicity * u**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0


def bca_tails(draws: Floats, value: float, left_out: Floats, clusters: Clusters, tails: Floats) -> Floats:
    """Return the corrected tail probabilities of a BCa interval; NaN when all draws are on one side."""
    below = (np.sum(draws < value) + 0.5 * np.sum(draws == value)) / len(draws)
    if not 0 < below < 1:
        return np.full(2, nan)
    z0, a = special.ndtri(below), acceleration(left_out, clusters.multiplicity)
    shifted = z0 + special.ndtri(tails)
    return np.asarray(special.ndtr(z0 + shifted / (1 - a * shifted)), dtype=np.float64)
