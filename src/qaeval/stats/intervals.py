"""Intervals of rates, means and ratios, for independent items and for items that come in clusters."""

from collections.abc import Callable
from math import log, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from qaeval.stats._arrays import TINY, Floats, as_values, check_level, cluster_codes, same_length
from qaeval.stats.estimate import Estimate, too_few, undefined, warning

_NODE_STEP = 0.1
_NODES = (np.arange(40) + 0.5) * _NODE_STEP
"""Midpoints of the integral, up to sinh(4) = 27 standard deviations; four times as many change no eighth digit."""
_NEAR_SADDLEPOINT = 1e-3
"""In standard deviations; the integral is the same along any path near it."""
_MAX_STEPS = 200
"""Bisections that separate any two doubles; Newton's steps take about six."""
_NO_PROBABILITY = 1e-300
_PRECISION = 1e-9
"""Of a bound, on the logit scale."""


def z_quantile(level: float) -> float:
    """Return the normal quantile of a two-sided interval, 1.96 for 0.95."""
    check_level(level)
    return float(special.ndtri(0.5 + level / 2))


def t_quantile(level: float, df: float) -> float:
    """Return Student's quantile of a two-sided interval, 2.09 for 0.95 on 19 degrees of freedom."""
    check_level(level)
    return float(special.stdtrit(df, 0.5 + level / 2))


def wilson_bounds(p: float, n: float, z: float) -> tuple[float, float]:
    r"""Return Wilson's score bounds for a rate `p` seen on `n` units, which need not be whole.

    :math:`\{p + z^2/2n \pm z\sqrt{p(1-p)/n + z^2/4n^2}\} / (1 + z^2/n)`; inside [0, 1], and equal to 0 or 1
    at p = 0 or 1.
    """
    centre = p + z * z / (2 * n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return (0.0 if p == 0 else max(0.0, low)), (1.0 if p == 1 else min(1.0, high))


def wilson(k: float, n: float, *, level: float = 0.95) -> Estimate:
    """Wilson's score interval of a rate, `k` successes of `n` independent items.

    For items in clusters use `clustered_rate`. Sources: Wilson 1927; Newcombe 1998, method 3.

    Args:
        k: Successes, 0 to n; whole numbers, or sums of weights.
        n: Items, above 0.
        level: Confidence level.

    Returns:
        A rate in [0, 1]; swapping successes and failures mirrors it. Always defined.

    Raises:
        ValueError: n is 0, or k is outside [0, n].
    """
    _check_count(k, n)
    low, high = wilson_bounds(k / n, n, z_quantile(level))
    return _rate(k, n, low, high, level=level, method="Wilson")


def clopper_pearson(k: float, n: float, *, level: float = 0.95) -> Estimate:
    """Clopper and Pearson's exact interval of a rate of independent items.

    Quantiles of Beta(k, n - k + 1) and Beta(k + 1, n - k); it covers at least `level`. Source: Clopper and
    Pearson 1934.

    Args:
        k: Successes, 0 to n; whole numbers, or sums of weights.
        n: Items, above 0.
        level: Confidence level.

    Returns:
        A rate in [0, 1]; swapping successes and failures mirrors it. Always defined.

    Raises:
        ValueError: n is 0, or k is outside [0, n].
    """
    _check_count(k, n)
    check_level(level)
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return _rate(k, n, low, high, level=level, method="Clopper-Pearson")


def clustered_rate(
    successes: ArrayLike,
    totals: ArrayLike,
    *,
    method: Literal["gaffke", "logit", "wilson"] = "gaffke",
    level: float = 0.95,
) -> Estimate:
    r"""Rate of successes over items that come in clusters.

    The value is :math:`p = \sum s_g / \sum t_g`. ``"gaffke"`` adds one cluster of :math:`\sum t_g^2 / \sum
    t_g` items (the mean size where all are equal) without a success for the lower end, and one of successes
    alone for the upper one, and takes the quantiles of :math:`\sum E_g s_g / \sum E_g t_g` with independent
    standard exponential weights :math:`E_g`. With clusters of one item it is Clopper-Pearson, with clusters
    that succeed or fail whole Clopper-Pearson on the clusters. It is monotone: neither end rises when a
    success becomes a failure. Sources: Gaffke 2005; Learned-Miller and Thomas 2020 (arXiv 1905.06208), who
    find no distribution of the clusters' rates for which it covers less than `level`.

    The others are for comparison, and not monotone, as they rest on the clustered variance (CR1) :math:`v =
    \frac{G}{G-1}\sum_g (s_g - p t_g)^2 / (\sum t_g)^2`: ``"logit"`` gives :math:`\operatorname{logit} p \pm
    t_{G-1} \sqrt v / p(1-p)`, mapped back; ``"wilson"`` gives Wilson's interval with the effective sample size
    :math:`p(1-p)/v` and *t* in place of *z*. When all or none succeed, both are Clopper-Pearson on the
    clusters; when all clusters have the same rate, *v* is the binomial variance. ``benchmarks/validity.py``
    finds them to cover in 90 %, and their 5 % bounds to err in up to 11 %, where rare failures come in whole
    clusters.

    Args:
        successes: Successes of each cluster, shape (G,), between 0 and the total; fractions are allowed, so
            that repeated judgements of an item can be averaged first.
        totals: Items of each cluster, shape (G,). Clusters without items do not count.
        method: How the interval is made.
        level: Confidence level.

    Returns:
        A rate in [0, 1]; swapping successes and failures mirrors it. NaN when no cluster has an item; the
        interval is NaN with fewer than 10 clusters, and carries a warning with fewer than 20.

    Raises:
        ValueError: A total is negative or smaller than its successes, or the lengths differ.
    """
    check_level(level)
    s, t = as_values(successes, name="successes"), as_values(totals, name="totals")
    same_length(successes=s, totals=t)
    if (t < 0).any() or (s < 0).any() or (s > t + TINY).any():
        raise ValueError("each cluster needs 0 <= successes <= total")
    s, t = s[t > 0], t[t > 0]
    s = np.minimum(s, t)
    n, n_clusters = round(float(t.sum())), len(t)
    if n_clusters == 0:
        return undefined("no cluster has an item that counts", level=level, method="clustered rate")
    p = float(s.sum() / t.sum())
    if reason := too_few(n_clusters):
        return undefined(reason, value=p, method="clustered rate", n=n, n_clusters=n_clusters, level=level)
    if method == "gaffke":
        # clusters alike are counted: a million have few kinds, and complex numbers sort faster than rows
        kinds, counts = np.unique(s + 1j * t, return_counts=True)
        tail, weights = (1 - level) / 2, counts.astype(np.float64)
        low = gaffke_bound(kinds.real, kinds.imag, weights, tail)
        high = 1 - gaffke_bound(kinds.imag - kinds.real, kinds.imag, weights, tail)
        name = "Gaffke's bounds over clusters"
    else:
        low, high, name = _clustered_bounds(s, t, p, method=method, level=level)
    return Estimate(
        value=p,
        low=low,
        high=high,
        level=level,
        method=name,
        n=n,
        n_clusters=n_clusters,
        reason=warning(n_clusters),
    )


def gaffke_bound(successes: Floats, totals: Floats, counts: Floats, tail: float) -> float:
    """Return the lower bound of a rate over clusters that errs with probability `tail`; see `clustered_rate`.

    It falls, or stays, when a success becomes a failure: the weighted rate does, whatever the weights.

    Args:
        successes: Successes of each kind of cluster.
        totals: Items of each kind of cluster.
        counts: Clusters of each kind.
        tail: Error probability, in (0, 0.5).
    """
    total = float(counts @ totals)
    rate = float(counts @ successes) / total
    if rate == 0:
        return 0.0
    s, t = np.append(successes, 0.0), np.append(totals, float(counts @ totals**2) / total)
    weights = np.append(counts, 1.0)
    quantile = float(special.ndtri(tail))

    def excess(logit: float) -> float:
        # normal quantiles against logits are nearly a line
        probability = positive_probability(float(special.expit(logit)) * t - s, weights)
        return float(special.ndtri(min(max(probability, _NO_PROBABILITY), 1 - TINY))) - quantile

    centre = float(special.logit(min(rate, 1 - TINY)))
    # no lower than with one success in all, where the bound is about the tail's share of the rate
    farthest, lowest = log(tail * rate / 20), float(special.ndtri(_NO_PROBABILITY)) - quantile
    return float(special.expit(_increasing_root(excess, farthest, centre, at_low=lowest)))


def _increasing_root(function: Callable[[float], float], low: float, high: float, *, at_low: float) -> float:
    """Return the root in [low, high], or `high` where the function is not yet positive there (Illinois method)."""
    at_high, previous, side = function(high), high, 0
    if at_high <= 0:
        return high
    for _ in range(_MAX_STEPS):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        if abs(middle - previous) <= _PRECISION:
            break
        value, previous = function(middle), middle
        if value > 0:
            high, at_high = middle, value
            # an end that stays twice is pulled in, or the other one alone would creep towards the root
            at_low *= 0.5 if side > 0 else 1.0
        else:
            low, at_low = middle, value
            at_high *= 0.5 if side < 0 else 1.0
        side = 1 if value > 0 else -1
    return middle


def positive_probability(coefficients: Floats, shapes: Floats) -> float:
    r"""Return :math:`P(\sum_j c_j \Gamma_j > 0)` for independent gamma variables with these shapes.

    The exact inversion of the Laplace transform, along the parabola that follows the path of steepest descent
    through the saddlepoint, where the integrand hardly oscillates: eight digits, in tails too. The sum of the
    shapes must be at least 10. Source: Daniels 1954.
    """
    c = coefficients
    lowest, highest = float(c.min()), float(c.max())
    if highest <= 0 or lowest >= 0:
        return float(highest > 0)
    point = _saddlepoint(c, shapes, 1 / lowest, 1 / highest)
    # not through 0, where the integrand has a pole; 0.4 standard deviations are always before its next ones
    clearance = 0.4 / sqrt(float(shapes @ c**2))
    if abs(point) < clearance:
        point = clearance if point >= 0 else -clearance
    tilted = c / (1 - c * point)
    second, third = float(shapes @ tilted**2), 2 * float(shapes @ tilted**3)
    y, dy = np.sinh(_NODES) / sqrt(second), np.cosh(_NODES) / sqrt(second)
    bend = third / (6 * second)
    path = point + 1j * y + bend * y**2
    transform = np.exp(-(shapes @ np.log(1 - np.multiply.outer(c, path)))) / path
    area = float((transform * (1j + 2 * bend * y) * dy).imag.sum()) * _NODE_STEP / np.pi
    return min(1.0, max(0.0, area if point > 0 else 1 + area))


def _saddlepoint(c: Floats, shapes: Floats, low: float, high: float) -> float:
    """Return the root of the cumulant function's derivative, which increases in (low, high), by guarded Newton steps."""
    point, low, high = 0.0, low * (1 - TINY), high * (1 - TINY)
    for _ in range(_MAX_STEPS):
        tilted = c / (1 - c * point)
        slope, curvature = float(shapes @ tilted), float(shapes @ tilted**2)
        low, high = (low, point) if slope > 0 else (point, high)
        step = point - slope / curvature
        previous, point = point, step if low < step < high else (low + high) / 2
        if abs(point - previous) * sqrt(curvature) < _NEAR_SADDLEPOINT:
            break
    return point


def _clustered_bounds(
    s: Floats, t: Floats, p: float, *, method: str, level: float
) -> tuple[float, float, str]:
    n_clusters = len(t)
    if p in {0.0, 1.0}:
        # no spread between clusters: they are the units, because the items of one may all fail together
        exact = clopper_pearson(n_clusters * p, n_clusters, level=level)
        return exact.low, exact.high, "Clopper-Pearson on clusters"
    binomial = p * (1 - p) / float(t.sum())
    # clusters that are all alike show a variance of 0, which no sample proves: the binomial one instead
    variance = (_cr1(s - p * t) / float(t.sum())) ** 2 or binomial
    quantile = t_quantile(level, n_clusters - 1)
    if method == "wilson":
        low, high = wilson_bounds(p, p * (1 - p) / variance, quantile)
        return low, high, "clustered Wilson, effective n, t"
    half = quantile * sqrt(variance) / (p * (1 - p))
    centre = float(special.logit(p))
    return float(special.expit(centre - half)), float(special.expit(centre + half)), "clustered logit, CR1 t"


def t_interval(
    value: float, se: float, *, n: int, n_clusters: int, level: float, method: str, n_excluded: int = 0
) -> Estimate:
    """Value plus and minus Student's quantile (G - 1 degrees of freedom) times `se`.

    The interval is NaN with fewer than 10 clusters, and when `se` is 0 or NaN (the data show no spread, so
    they cannot say how large the error is).
    """
    reason = too_few(n_clusters)
    if reason is None and not se > 0:
        reason = "all clusters show the same value: the data hold no information about the error"
    if reason is not None:
        return undefined(
            reason,
            value=value,
            method=method,
            n=n,
            n_clusters=n_clusters,
            n_excluded=n_excluded,
            level=level,
        )
    half = t_quantile(level, n_clusters - 1) * se
    return Estimate(
        value=value,
        low=value - half,
        high=value + half,
        level=level,
        method=method,
        n=n,
        n_clusters=n_clusters,
        n_excluded=n_excluded,
        reason=warning(n_clusters),
    )


def clustered_ratio(
    numerators: ArrayLike, denominators: ArrayLike, *, n: int | None = None, level: float = 0.95
) -> Estimate:
    r"""Ratio of two sums over clusters, :math:`r = \sum y_g / \sum x_g`, with a clustered t interval.

    Linearised variance (CR1): :math:`\frac{G}{G-1} \sum_g (y_g - r x_g)^2 / (\sum x_g)^2`, t on G - 1 degrees
    of freedom. For rates of successes prefer `clustered_rate`, which stays inside [0, 1]. Source: Cochran
    1977, section 6.3.

    Args:
        numerators: Sum of the numerator in each cluster, shape (G,).
        denominators: Sum of the denominator in each cluster, shape (G,); their total must be positive.
        n: Number of items to report; default: the number of clusters.
        level: Confidence level.

    Returns:
        The ratio, in the unit of numerator per denominator. The interval is NaN with fewer than 10 clusters
        or without any spread.

    Raises:
        ValueError: The denominators have no positive sum, or the lengths differ.
    """
    check_level(level)
    y, x = as_values(numerators, name="numerators"), as_values(denominators, name="denominators")
    same_length(numerators=y, denominators=x)
    total, n_clusters = float(x.sum()), len(x)
    if not total > 0:
        raise ValueError(f"the denominators must have a positive sum, got {total!r}")
    ratio = float(y.sum()) / total
    residuals = y - ratio * x
    se = _cr1(residuals) / total
    return t_interval(
        ratio,
        se,
        n=n_clusters if n is None else n,
        n_clusters=n_clusters,
        level=level,
        method="clustered ratio, CR1 t",
    )


def clustered_mean(
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    weight: Literal["item", "cluster"] = "item",
    level: float = 0.95,
) -> Estimate:
    r"""Mean over items that come in clusters, with Student's interval from the clustered variance.

    :math:`SE = \frac1n\sqrt{\frac{G}{G-1}\sum_g (\sum_i (x_{gi} - \bar x))^2}` (CR1), t on G - 1 degrees of
    freedom. Source: Miller 2024 (arXiv 2411.00640), with the factor G/(G-1).

    Args:
        values: One number for each item, shape (n,).
        clusters: The cluster of each item, shape (n,), any labels.
        weight: ``"item"`` counts every item once, ``"cluster"`` every cluster once (mean of cluster means).
        level: Confidence level.

    Returns:
        The mean, in the unit of the values. The interval is NaN with fewer than 10 clusters or without any
        spread.

    Raises:
        ValueError: A value is not finite, or the lengths differ.
    """
    x = as_values(values, name="values")
    codes, n_clusters = cluster_codes(clusters, n=len(x))
    sums = np.asarray(np.bincount(codes, weights=x, minlength=n_clusters), dtype=np.float64)
    sizes = np.bincount(codes, minlength=n_clusters).astype(np.float64)
    if weight == "cluster":
        sums = sums / sizes
        sizes = np.ones(n_clusters)
    mean = float(sums.sum() / sizes.sum())
    se = _cr1(sums - mean * sizes) / float(sizes.sum())
    return t_interval(
        mean,
        se,
        n=len(x),
        n_clusters=n_clusters,
        level=level,
        method=f"mean by {weight}, CR1 t",
    )


def _cr1(residuals: Floats) -> float:
    """Return the root of G/(G-1) times the sum of squares; 0 below rounding errors, NaN for G = 1.

    Without the factor (CR0, as in Miller 2024) the error of a few clusters comes out too small.
    """
    n_clusters = len(residuals)
    if n_clusters < 2:
        return float("nan")
    root = sqrt(n_clusters / (n_clusters - 1) * float((residuals**2).sum()))
    return root if root > TINY * n_clusters else 0.0


def _check_count(k: float, n: float) -> None:
    if not n > 0:
        raise ValueError(f"a rate needs at least one item, got n={n!r}")
    if not 0 <= k <= n:
        raise ValueError(f"the successes must be between 0 and n={n!r}, got k={k!r}")


def _rate(k: float, n: float, low: float, high: float, *, level: float, method: str) -> Estimate:
    return Estimate(
        value=k / n, low=low, high=high, level=level, method=method, n=round(n), n_clusters=round(n)
    )
