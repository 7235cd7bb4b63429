"""Agreement of a judge with a reference, from letters by item and with intervals by cluster.

Letters are codes in ``range(n_levels)``, 0 the best. Where the two raters have roles, `a` is the reference
(a person) and `b` the judge; tables have the reference in rows.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from qaeval.stats._arrays import Floats, Ints, as_codes, check_level, cluster_codes, same_length
from qaeval.stats.coefficients import Weights, expected_agreement, kappa
from qaeval.stats.estimate import MIN_CLUSTERS, Estimate, too_few, undefined, warning
from qaeval.stats.intervals import clopper_pearson, clustered_rate, clustered_ratio
from qaeval.stats.resampling import cluster_bootstrap, jackknife


def confusion_matrix(a: ArrayLike, b: ArrayLike, n_levels: int) -> Ints:
    """Counts of letter pairs, shape (K, K): entry [i, j] counts the items with a = i and b = j.

    Swapping the raters transposes it; the sum is the number of items.
    """
    x, y = as_codes(a, n_levels=n_levels, name="a"), as_codes(b, n_levels=n_levels, name="b")
    same_length(a=x, b=y)
    counts = np.bincount(x * n_levels + y, minlength=n_levels**2)
    return counts.reshape(n_levels, n_levels).astype(np.int64)


def cluster_tables(a: ArrayLike, b: ArrayLike, clusters: ArrayLike, *, n_levels: int) -> Ints:
    """Confusion matrix of each cluster, shape (G, K, K); they add up to `confusion_matrix`."""
    x, y = as_codes(a, n_levels=n_levels, name="a"), as_codes(b, n_levels=n_levels, name="b")
    same_length(a=x, b=y)
    codes, n_clusters = cluster_codes(clusters, n=len(x))
    cells = (codes * n_levels + x) * n_levels + y
    counts = np.bincount(cells, minlength=n_clusters * n_levels**2)
    return counts.reshape(n_clusters, n_levels, n_levels).astype(np.int64)


def cohen_kappa(a: ArrayLike, b: ArrayLike, *, n_levels: int, weights: Weights = None) -> float:
    r"""Cohen's kappa of two raters over the same items.

    :math:`\kappa = (p_o - p_e)/(1 - p_e)` with chance agreement :math:`p_e` from each rater's own marginals;
    weighted, near misses count as partial agreement. Weights always span the whole scale, used or not.

    Args:
        a: Letter of each item by one rater, shape (n,), codes in ``range(n_levels)``. Symmetric in a and b.
        b: The same by the other rater.
        n_levels: Number of letters on the scale, used or not.
        weights: None, ``"linear"`` or ``"quadratic"``. Never compare coefficients of different weights.

    Returns:
        A number in [-1, 1]; NaN when both raters used one and the same letter throughout (:math:`p_e = 1`).
    """
    return float(kappa(confusion_matrix(a, b, n_levels), weights=weights))


def majority_baseline(reference: ArrayLike, *, n_levels: int) -> float:
    """Agreement of a judge that always gives the reference's most frequent letter, in [1/K, 1]."""
    codes = as_codes(reference, n_levels=n_levels, name="reference")
    return float(np.bincount(codes, minlength=n_levels).max() / len(codes))


def agreement_rate(
    a: ArrayLike, b: ArrayLike, clusters: ArrayLike, *, n_levels: int, level: float = 0.95
) -> Estimate:
    """Observed agreement with the interval of `clustered_rate`."""
    tables = cluster_tables(a, b, clusters, n_levels=n_levels)
    return clustered_rate(np.trace(tables, axis1=1, axis2=2), tables.sum(axis=(1, 2)), level=level)


def kappa_interval(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike,
    *,
    n_levels: int,
    weights: Weights = None,
    method: Literal["jackknife", "bca", "percentile"] = "jackknife",
    rng: np.random.Generator | None = None,
    n_resamples: int = 9999,
    level: float = 0.95,
) -> Estimate:
    """Cohen's kappa with an interval by clusters.

    Args:
        a: Letters of one rater, shape (n,), codes in ``range(n_levels)``.
        b: Letters of the other rater.
        clusters: Cluster of each item, shape (n,), any labels.
        n_levels: Number of letters on the scale.
        weights: None, ``"linear"`` or ``"quadratic"``.
        method: Delete-one-cluster jackknife on Fisher's scale with Student's t, or a cluster bootstrap, which
            needs `rng`. ``benchmarks/validity.py`` finds the jackknife at 94 to 99 % wherever it carries no
            warning; from 20 clusters, or fewer than 10 that hold a rarer letter, it is rough.
        rng: Source of the bootstrap's resamples.
        n_resamples: Resamples of the bootstrap.
        level: Confidence level.

    Returns:
        The estimate, its interval inside [-1, 1]. With perfect agreement, where no resampling shows any
        error, the lower end is kappa at the Clopper-Pearson bound of the share of clusters in full agreement.
        The value is NaN when both raters used one letter; the interval is NaN with fewer than 10 clusters.
    """
    check_level(level)
    tables = cluster_tables(a, b, clusters, n_levels=n_levels)
    n = int(tables.sum())
    total = tables.sum(axis=0)
    if np.trace(total) == n and np.count_nonzero(total) > 1:
        return _warned(_perfect(total, len(tables), weights=weights, level=level), tables)

    def statistic(totals: Floats) -> Floats:
        return kappa(totals, weights=weights)

    if method == "jackknife":
        return _warned(jackknife(statistic, tables, n=n, scale="fisher", level=level), tables)
    if rng is None:
        raise ValueError("a bootstrap interval needs rng, for example numpy.random.default_rng(seed)")
    return cluster_bootstrap(
        statistic, tables, rng=rng, n=n, method=method, n_resamples=n_resamples, level=level
    )


def kappa_difference(
    reference: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    clusters: ArrayLike,
    *,
    n_levels: int,
    weights: Weights = None,
    level: float = 0.95,
) -> Estimate:
    """Kappa of the second judge minus kappa of the first, both with one reference on the same items.

    Cluster jackknife of the difference itself, Student's t: what both judges get wrong together cancels, so
    it sees more than two intervals side by side. In [-2, 2]; swapping the judges changes the sign. NaN when
    either kappa is; its interval is NaN when the judges give the same letters.
    """
    tables = np.stack(
        [cluster_tables(reference, judge, clusters, n_levels=n_levels) for judge in (first, second)], axis=1
    )

    def statistic(totals: Floats) -> Floats:
        both = kappa(totals, weights=weights)
        return np.asarray(both[..., 1] - both[..., 0], dtype=np.float64)

    return jackknife(statistic, tables, n=int(tables[:, 0].sum()), level=level)


def _warned(estimate: Estimate, tables: Ints) -> Estimate:
    """Add the warning that belongs to a kappa from few clusters with any letter but the most frequent one."""
    off = tables.copy()
    most = int((tables.sum(axis=(0, 1)) + tables.sum(axis=(0, 2))).argmax())
    off[:, most, most] = 0
    informative = int((off.sum(axis=(1, 2)) > 0).sum())
    if not estimate.has_interval or estimate.reason or informative >= MIN_CLUSTERS:
        return estimate
    return replace(
        estimate,
        reason=f"only {informative} clusters hold any letter but the most frequent: the interval is rough",
    )


def _perfect(total: Ints, n_clusters: int, *, weights: Weights, level: float) -> Estimate:
    n, method = int(total.sum()), "perfect agreement, Clopper-Pearson on clusters"
    if reason := too_few(n_clusters):
        return undefined(reason, value=1.0, method=method, n=n, n_clusters=n_clusters, level=level)
    share = clopper_pearson(n_clusters, n_clusters, level=level).low
    expected = float(expected_agreement(total, weights=weights))
    return Estimate(
        value=1.0,
        low=max(-1.0, (share - expected) / (1 - expected)),
        high=1.0,
        level=level,
        method=method,
        n=n,
        n_clusters=n_clusters,
        reason=warning(n_clusters),
    )


@dataclass(frozen=True, slots=True)
class LetterAccuracy:
    """How well the judge finds one letter of the reference."""

    letter: int
    """Code of the letter."""
    precision: Estimate
    """P(reference gave the letter | judge gave it); NaN when the judge never gave it."""
    recall: Estimate
    """P(judge gave the letter | reference gave it); NaN when the reference never gave it."""


def letter_accuracy(
    a: ArrayLike, b: ArrayLike, clusters: ArrayLike, *, n_levels: int, level: float = 0.95
) -> tuple[LetterAccuracy, ...]:
    """Precision and recall of the judge `b` for each letter of the reference `a`, clustered.

    Both are in [0, 1]; swapping the raters swaps them. The interval is that of `clustered_rate` over the
    clusters that have such an item.
    """
    tables = cluster_tables(a, b, clusters, n_levels=n_levels)
    hits = np.diagonal(tables, axis1=1, axis2=2)
    return tuple(
        LetterAccuracy(
            letter=letter,
            precision=clustered_rate(hits[:, letter], tables[:, :, letter].sum(axis=1), level=level),
            recall=clustered_rate(hits[:, letter], tables[:, letter, :].sum(axis=1), level=level),
        )
        for letter in range(n_levels)
    )


def leniency(
    a: ArrayLike, b: ArrayLike, clusters: ArrayLike, *, n_levels: int, level: float = 0.95
) -> Estimate:
    """P(judge gives a better letter) minus P(judge gives a worse letter) than the reference, in [-1, 1].

    `a` is the reference, `b` the judge, code 0 the best letter. Positive means a lenient judge. Swapping the
    raters changes the sign. Interval: clustered ratio, Student's t.
    """
    tables = cluster_tables(a, b, clusters, n_levels=n_levels)
    sign = np.sign(np.subtract.outer(np.arange(n_levels), np.arange(n_levels)))
    net = (tables * sign).sum(axis=(1, 2))
    sizes = tables.sum(axis=(1, 2))
    return clustered_ratio(net, sizes, n=int(sizes.sum()), level=level)
