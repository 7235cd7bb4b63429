"""How many chunks a comparison needs, and how small a difference a run could have seen.

Everything follows from the standard deviation of the paired difference between chunks, which a pilot run
gives: more items in a chunk lower it only as far as its items are independent.

The formulas are the usual normal ones, in closed form. The exact sign-flip test reaches less than they plan
on few chunks; `qaeval.stats.planning` simulates it.
"""

from math import ceil, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from qaeval.stats._arrays import TINY, as_values, cluster_codes


def _quantiles(alpha: float, power: float, sides: int) -> float:
    if not 0 < alpha < 1 or not 0 < power < 1:
        raise ValueError(f"alpha and power must be between 0 and 1, got {alpha!r} and {power!r}")
    if sides not in {1, 2}:
        raise ValueError(f"a test has 1 or 2 sides, got {sides!r}")
    return float(special.ndtri(1 - alpha / sides) + special.ndtri(power))


def _check_sd(sd: float) -> None:
    if not sd > 0:
        raise ValueError(f"sd must be positive, got {sd!r}")


def detectable_difference(
    sd: float, n_chunks: int, *, alpha: float = 0.05, power: float = 0.8, sides: int = 2
) -> float:
    r"""Smallest true difference found with this power, :math:`(z_{1-\alpha/s} + z_{power})\, sd / \sqrt G`.

    With ``sides=1`` it is the non-inferiority margin that two equal candidates can be shown to keep. Source:
    Miller 2024 (arXiv 2411.00640).

    Args:
        sd: Standard deviation of the paired difference between chunks, positive.
        n_chunks: Chunks, at least 2.
        alpha: Error rate of the test, in (0, 1).
        power: Probability to find the difference, in (0, 1).
        sides: 2 for a difference, 1 for non-inferiority.

    Returns:
        A difference in the unit of `sd`, at least 0. Always defined.

    Raises:
        ValueError: An argument is out of range.
    """
    _check_sd(sd)
    if n_chunks < 2:
        raise ValueError(f"at least 2 chunks are needed, got {n_chunks!r}")
    return _quantiles(alpha, power, sides) * sd / sqrt(n_chunks)


def chunks_needed(
    sd: float, difference: float, *, alpha: float = 0.05, power: float = 0.8, sides: int = 2
) -> int:
    r"""Chunks needed to find a true difference with this power.

    :math:`\lceil ((z_{1-\alpha/s} + z_{power})\, sd / \Delta)^2 \rceil`. For non-inferiority use ``sides=1``
    and the margin plus the true difference. Source: Miller 2024 (arXiv 2411.00640).

    Args:
        sd: Standard deviation of the paired difference between chunks, positive.
        difference: True difference in the same unit, not 0; its sign does not matter.
        alpha: Error rate of the test, in (0, 1).
        power: Probability to find the difference, in (0, 1).
        sides: 2 for a difference, 1 for non-inferiority.

    Returns:
        A whole number, at least 1. Always defined.

    Raises:
        ValueError: An argument is out of range.
    """
    _check_sd(sd)
    if difference == 0:
        raise ValueError("no number of chunks finds a difference of 0")
    # what rounding adds to a whole number of chunks must not cost one more
    return ceil((_quantiles(alpha, power, sides) * sd / difference) ** 2 - TINY)


def reached_power(
    sd: float, n_chunks: int, difference: float, *, alpha: float = 0.05, sides: int = 2
) -> float:
    r"""Probability that the test finds a true difference.

    :math:`\Phi(|\Delta| \sqrt G / sd - z_{1-\alpha/s})`, the inverse of `chunks_needed`. The other tail of a
    two-sided test is left out: it would count a difference of the wrong sign. Source: Miller 2024 (arXiv
    2411.00640).

    Args:
        sd: Standard deviation of the paired difference between chunks, positive.
        n_chunks: Chunks.
        difference: True difference in the same unit; its sign does not matter.
        alpha: Error rate of the test, in (0, 1).
        sides: 2 for a difference, 1 for non-inferiority.

    Returns:
        A probability in (0, 1). Always defined.

    Raises:
        ValueError: An argument is out of range.
    """
    _check_sd(sd)
    if not 0 < alpha < 1 or sides not in {1, 2}:
        raise ValueError(f"alpha must be in (0, 1) and sides 1 or 2, got {alpha!r} and {sides!r}")
    return float(special.ndtr(abs(difference) * sqrt(n_chunks) / sd - special.ndtri(1 - alpha / sides)))


def design_effect(size: float, icc: float, *, cv: float = 0.0) -> float:
    r"""Variance of a mean over clusters relative to independent items.

    :math:`1 + ((1 + cv^2)\bar k - 1)\rho`. Source: Kish 1965; for unequal sizes Eldridge, Ashby and Kerry
    2006.

    Args:
        size: Mean number of items in a cluster, at least 1.
        icc: Intraclass correlation of the items, in [-1, 1].
        cv: Coefficient of variation of the cluster sizes, 0 for equal sizes.

    Returns:
        A factor, at least 1 for icc in [0, 1]. Always defined.

    Raises:
        ValueError: An argument is out of range.
    """
    if size < 1 or not -1 <= icc <= 1 or cv < 0:
        raise ValueError(f"need size >= 1, icc in [-1, 1], cv >= 0, got {size!r}, {icc!r}, {cv!r}")
    return 1 + ((1 + cv * cv) * size - 1) * icc


def icc1(values: ArrayLike, clusters: ArrayLike) -> float:
    r"""Intraclass correlation ICC(1) of items within clusters, by one-way analysis of variance.

    :math:`(MSB - MSW)/(MSB + (k_0 - 1) MSW)` with :math:`k_0 = (n - \sum n_g^2/n)/(G - 1)`, which is the size
    of the clusters when they are equal. Source: Shrout and Fleiss 1979.

    Args:
        values: One number for each item, shape (n,).
        clusters: Cluster of each item, shape (n,), any labels.

    Returns:
        At most 1, and at least :math:`-1/(k_0 - 1)`. NaN with one cluster, when every cluster has one item,
        or when all values are the same.

    Raises:
        ValueError: A value is not finite, or the lengths differ.
    """
    x = as_values(values, name="values")
    codes, n_clusters = cluster_codes(clusters, n=len(x))
    n = len(x)
    if n_clusters < 2 or n == n_clusters:
        return nan
    sizes = np.bincount(codes).astype(np.float64)
    means = np.bincount(codes, weights=x) / sizes
    between = float((sizes * (means - x.mean()) ** 2).sum()) / (n_clusters - 1)
    within = float(((x - means[codes]) ** 2).sum()) / (n - n_clusters)
    k0 = (n - float((sizes**2).sum()) / n) / (n_clusters - 1)
    total = between + (k0 - 1) * within
    return (between - within) / total if total > TINY else nan
