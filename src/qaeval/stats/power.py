"""How many chunks a comparison needs, and how small a difference a run could have seen.

Everything follows from the standard deviation of the paired difference between chunks, which a pilot run
gives: more items in a chunk lower it only as far as its items are independent.

The formulas are the usual normal ones, in closed form. The exact sign-flip test reaches less than they plan on few
chunks; `qaeval.stats.planning` simulates it.
"""

from math import ceil, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from qaeval.stats._arrays import TINY, TWO, as_values, cluster_codes


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

    With ``sides=1`` it is the non-inferiority margin that two equal candidates can be shown to keep.

    Args:
        sd: Standard deviation of the paired difference between chunks.
        n_chunks: Chunks, at least 2.
        alpha: Error rate of the test.
        power: Probability to find the difference.
        sides: 2 for a difference, 1 for non-inferiority.
    """
    _check_sd(sd)
    if n_chunks < TWO:
        raise ValueError(f"at least 2 chunks are needed, got {n_chunks!r}")
    return _quantiles(alpha, power, sides) * sd / sqrt(n_chunks)


def chunks_needed(
    sd: float, difference: float, *, alpha: float = 0.05, power: float = 0.8, sides: int = 2
) -> int:
    r"""Chunks needed to find a true `difference`, :math:`\lceil ((z_{1-\alpha/s} + z_{power})\, sd / \Delta)^2 \rceil`.

    For non-inferiority use ``sides=1`` and the margin plus the true difference. Arguments as in
    `detectable_difference`; the sign of the difference does not matter.
    """
    _check_sd(sd)
    if difference == 0:
        raise ValueError("no number of chunks finds a difference of 0")
    return ceil((_quantiles(alpha, power, sides) * sd / difference) ** 2 - TINY)


def reached_power(
    sd: float, n_chunks: int, difference: float, *, alpha: float = 0.05, sides: int = 2
) -> float:
    r"""Probability that the test finds a true `difference`, :math:`\Phi(|\Delta| \sqrt G / sd - z_{1-\alpha/s})`.

    In (0, 1); the inverse of `chunks_needed`. The other tail of a two-sided test is left out.
    """
    _check_sd(sd)
    if not 0 < alpha < 1 or sides not in {1, 2}:
        raise ValueError(f"alpha must be in (0, 1) and sides 1 or 2, got {alpha!r} and {sides!r}")
    return float(special.ndtr(abs(difference) * sqrt(n_chunks) / sd - special.ndtri(1 - alpha / sides)))


def design_effect(size: float, icc: float, *, cv: float = 0.0) -> float:
    r"""Variance of a mean over clusters relative to independent items, :math:`1 + ((1 + cv^2)\bar k - 1)\rho`.

    Args:
        size: Mean number of items in a cluster.
        icc: Intraclass correlation of the items.
        cv: Coefficient of variation of the cluster sizes, 0 for equal sizes.
    """
    if size < 1 or not -1 <= icc <= 1 or cv < 0:
        raise ValueError(f"need size >= 1, icc in [-1, 1], cv >= 0, got {size!r}, {icc!r}, {cv!r}")
    return 1 + ((1 + cv * cv) * size - 1) * icc


def icc1(values: ArrayLike, clusters: ArrayLike) -> float:
    r"""Intraclass correlation ICC(1) of items within clusters, by one-way analysis of variance.

    :math:`(MSB - MSW)/(MSB + (k_0 - 1) MSW)` with :math:`k_0 = (n - \sum n_g^2/n)/(G - 1)`, which is the size of
    the clusters when they are equal. At most 1, and above :math:`-1/(k_0 - 1)`; NaN with one cluster, when every
    cluster has one item, or when all values are the same. Source: Shrout and Fleiss 1979.

    Args:
        values: One number for each item, shape (n,).
        clusters: Cluster of each item, any labels.
    """
    x = as_values(values, name="values")
    codes, n_clusters = cluster_codes(clusters, n=len(x))
    n = len(x)
    if n_clusters < TWO or n == n_clusters:
        return nan
    sizes = np.bincount(codes).astype(np.float64)
    means = np.bincount(codes, weights=x) / sizes
    between = float((sizes * (means - x.mean()) ** 2).sum()) / (n_clusters - 1)
    within = float(((x - means[codes]) ** 2).sum()) / (n - n_clusters)
    k0 = (n - float((sizes**2).sum()) / n) / (n_clusters - 1)
    total = between + (k0 - 1) * within
    return (between - within) / total if total > TINY else nan
