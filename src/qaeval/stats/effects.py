"""How often does one candidate beat the other: shares of wins, and the probability of superiority."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from qaeval.stats._arrays import TINY, Floats, as_values, check_level, cluster_codes, same_length
from qaeval.stats.estimate import Estimate, undefined
from qaeval.stats.intervals import clustered_rate, clustered_ratio, t_quantile


@dataclass(frozen=True, slots=True)
class WinTieLoss:
    """Shares of the pairs of items in which candidate b is better than, ties with, or is worse than a."""

    win: Estimate
    """P(b better)."""
    tie: Estimate
    """P(equal)."""
    loss: Estimate
    """P(b worse)."""
    net: Estimate
    """P(b better) - P(b worse), in [-1, 1]."""
    superiority: Estimate
    """P(b better) + P(equal)/2, in [0, 1]; 1/2 means neither is better."""


def win_tie_loss(
    score_a: ArrayLike, score_b: ArrayLike, clusters: ArrayLike, *, level: float = 0.95
) -> WinTieLoss:
    """Shares of wins of b, ties and losses over paired items, clustered.

    Args:
        score_a: Score of candidate a on each item, shape (n,), **higher is better**; only the order counts.
        score_b: Score of candidate b on the same items.
        clusters: Cluster of each item, any labels.
        level: Confidence level.

    Returns:
        Shares that add up to 1, with intervals of `clustered_rate` and `clustered_ratio`. Swapping the
        candidates swaps win and loss.
    """
    a, b = as_values(score_a, name="score_a"), as_values(score_b, name="score_b")
    same_length(score_a=a, score_b=b)
    codes, n_clusters = cluster_codes(clusters, n=len(a))
    sizes = np.bincount(codes, minlength=n_clusters)
    wins, ties, losses = (
        np.asarray(np.bincount(codes[mask], minlength=n_clusters), dtype=np.float64)
        for mask in (b > a, b == a, b < a)
    )
    return WinTieLoss(
        win=clustered_rate(wins, sizes, level=level),
        tie=clustered_rate(ties, sizes, level=level),
        loss=clustered_rate(losses, sizes, level=level),
        net=clustered_ratio(wins - losses, sizes, n=len(a), level=level),
        superiority=clustered_rate(wins + ties / 2, sizes, level=level),
    )


def probability_of_superiority(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Estimate:
    r"""P(x < y) + P(x = y)/2 of two independent samples, with Brunner and Munzel's t interval.

    Cliff's delta is 2P - 1. In [0, 1]; swapping the samples gives 1 - P. Items are taken as independent.

    Args:
        x: First sample, shape (n,), at least two values.
        y: Second sample, shape (m,), at least two values.
        level: Confidence level.

    Returns:
        The probability; its interval is NaN when the samples do not overlap (no variance to be seen).
    """
    check_level(level)
    first, second = as_values(x, name="x"), as_values(y, name="y")
    n, m = len(first), len(second)
    if min(n, m) <= 1:
        raise ValueError(f"each sample needs at least two values, got {n} and {m}")
    before = placements(first, second)
    after = placements(second, first)
    value = float(after.mean())
    part_x, part_y = float(before.var(ddof=1)) / n, float(after.var(ddof=1)) / m
    method, total = "Brunner-Munzel t", part_x + part_y
    if total <= TINY:
        reason = "the samples show no overlap: the data hold no information about the error"
        return undefined(reason, value=value, method=method, n=n + m, n_clusters=n + m, level=level)
    df = total**2 / (part_x**2 / (n - 1) + part_y**2 / (m - 1))
    half = t_quantile(level, df) * sqrt(total)
    return Estimate(
        value=value,
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        level=level,
        method=method,
        n=n + m,
        n_clusters=n + m,
    )


def placements(sample: Floats, reference: Floats) -> Floats:
    """Share of `reference` below each value of `sample`, ties counting half, shape of `sample`."""
    ordered = np.sort(reference)
    left, right = np.searchsorted(ordered, sample, "left"), np.searchsorted(ordered, sample, "right")
    return np.asarray((left + right) / (2 * len(reference)), dtype=np.float64)
