"""Agreement of a judge with a reference, from letters by item and with intervals by cluster.

Letters are codes in ``range(n_levels)``, 0 the best. Where the two raters have roles, `a` is the reference
(a person) and `b` the judge; tables have the reference in rows.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from qaeval.stats._arrays import Floats, Ints, as_codes, as_values, check_level, cluster_codes, same_length
from qaeval.stats.coefficients import Weights, expected_agreement, kappa
from qaeval.stats.estimate import MIN_CLUSTERS, Estimate
from qaeval.stats.intervals import clustered_rate, clustered_ratio
from qaeval.stats.paired import paired_difference
from qaeval.stats.resampling import cluster_bootstrap, jackknife


def confusion_matrix(a: ArrayLike, b: ArrayLike, n_levels: int) -> Ints:
    """Count the pairs of letters.

    Args:
        a: Letter of each item by the reference, shape (n,), codes in ``range(n_levels)``.
        b: The same by the judge.
        n_levels: Number of letters on the scale, used or not.

    Returns:
        Shape (K, K), at least 0: entry [i, j] counts the items with a = i and b = j, the sum is n. Swapping
        the raters transposes it. Always defined.

    Raises:
        ValueError: A letter is no code of the scale, the lengths differ, or there are no items.
    """
    x, y = as_codes(a, n_levels=n_levels, name="a"), as_codes(b, n_levels=n_levels, name="b")
    same_length(a=x, b=y)
    counts = np.bincount(x * n_levels + y, minlength=n_levels**2)
    return counts.reshape(n_levels, n_levels).astype(np.int64)


def cluster_tables(
    a: ArrayLike, b: ArrayLike, clusters: ArrayLike, *, n_levels: int, inclusion: ArrayLike | None = None
) -> Ints | Floats:
    """Count the pairs of letters in each cluster, for intervals of any statistic of a table by `jackknife`.

    Items that were drawn with unequal probabilities are weighted by the inverse of their probability (Horvitz and Thompson 1952),
    scaled so that the counts still add up to the number of items: statistics of the tables then estimate those of all items.

    Args:
        a: Letter of each item by the reference, shape (n,), codes in ``range(n_levels)``.
        b: The same by the judge.
        clusters: Cluster of each item, shape (n,), any labels.
        n_levels: Number of letters on the scale, used or not.
        inclusion: Probability in (0, 1] with which each item was drawn, shape (n,), or numbers proportional to it; None: all alike.

    Returns:
        Counts, at least 0, shape (G, K, K), in the sorted order of the cluster labels; without `inclusion` the tables add up to
        `confusion_matrix`. Always defined.

    Raises:
        ValueError: A letter is no code of the scale, the lengths differ, there are no items, or `inclusion` is not positive.
    """
    x, y = as_codes(a, n_levels=n_levels, name="a"), as_codes(b, n_levels=n_levels, name="b")
    same_length(a=x, b=y)
    codes, n_clusters = cluster_codes(clusters, n=len(x))
    cells = (codes * n_levels + x) * n_levels + y
    shape = (n_clusters, n_levels, n_levels)
    if inclusion is None:
        return np.bincount(cells, minlength=n_clusters * n_levels**2).reshape(shape).astype(np.int64)
    drawn = as_values(inclusion, name="inclusion")
    same_length(a=x, inclusion=drawn)
    if not (drawn > 0).all():
        raise ValueError("inclusion must hold the probability, above 0, with which each item was drawn")
    weights = 1 / drawn
    weights *= len(x) / weights.sum()
    return np.bincount(cells, weights=weights, minlength=n_clusters * n_levels**2).reshape(shape)


def cohen_kappa(a: ArrayLike, b: ArrayLike, *, n_levels: int, weights: Weights = None) -> float:
    r"""Cohen's kappa of two raters over the same items.

    :math:`\kappa = (p_o - p_e)/(1 - p_e)` with chance agreement :math:`p_e` from each rater's own marginals;
    weighted, near misses count as partial agreement. Weights always span the whole scale, used or not. Never
    compare kappas of different weights. Sources: Cohen 1960, 1968.

    Args:
        a: Letter of each item by one rater, shape (n,), codes in ``range(n_levels)``.
        b: The same by the other rater.
        n_levels: Number of letters on the scale, used or not.
        weights: None, ``"linear"`` or ``"quadratic"``.

    Returns:
        A number in [-1, 1], symmetric in the raters; NaN when both used one and the same letter throughout
        (:math:`p_e = 1`).

    Raises:
        ValueError: A letter is no code of the scale, the lengths differ, or there are no items.
    """
    return float(kappa(confusion_matrix(a, b, n_levels), weights=weights))


def majority_baseline(reference: ArrayLike, *, n_levels: int) -> float:
    r"""Agreement of a judge that always gives the reference's most frequent letter, :math:`\max_i r_i / n`.

    Args:
        reference: Letter of each item by the reference, shape (n,), codes in ``range(n_levels)``.
        n_levels: Number of letters on the scale, used or not.

    Returns:
        A share in [1/K, 1]. Always defined.

    Raises:
        ValueError: A letter is no code of the scale, or there are no items.
    """
    codes = as_codes(reference, n_levels=n_levels, name="reference")
    return float(np.bincount(codes, minlength=n_levels).max() / len(codes))


def lift_over_majority(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike,
    *,
    n_levels: int,
    inclusion: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    r"""Agreement of the judge minus that of always giving the reference's most frequent letter.

    Both are right or wrong on the same items, so the difference is paired by cluster: `paired_difference` of
    the values :math:`d + (y_g - d t_g) / \bar t`, with :math:`y_g` the items on which the judge alone is right
    less those on which the constant letter alone is, :math:`t_g` the items and :math:`d = \sum y_g / \sum
    t_g` (Cochran 1977, section 6.3). The letter is the one that fits these items best, so the difference is
    if anything too small.

    Args:
        a: Letter of each item by the reference, shape (n,), codes in ``range(n_levels)``.
        b: The same by the judge.
        clusters: Cluster of each item, shape (n,), any labels.
        n_levels: Number of letters on the scale, used or not.
        inclusion: As in `cluster_tables`.
        level: Confidence level.

    Returns:
        A difference in [-1, 1], 0 for a judge that always gives the letter. The interval is NaN with fewer than
        10 clusters.

    Raises:
        ValueError: A letter is no code of the scale, the lengths differ, or there are no items.
    """
    tables = cluster_tables(a, b, clusters, n_levels=n_levels, inclusion=inclusion)
    commonest = int(tables.sum(axis=(0, 2)).argmax())
    net = np.trace(tables, axis1=1, axis2=2) - tables[:, commonest, :].sum(axis=1)
    sizes = tables.sum(axis=(1, 2))
    difference = float(net.sum() / sizes.sum())
    values = difference + (net - difference * sizes) / sizes.mean()
    span = max(1.0, float(np.abs(values).max()))
    estimate = paired_difference(np.zeros_like(values), values, level=level, span=span)
    estimate = replace(estimate, value=difference, n=round(float(sizes.sum())))
    if not estimate.has_interval:
        return estimate
    return replace(estimate, low=max(-1.0, estimate.low), high=min(1.0, estimate.high))


def agreement_rate(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike,
    *,
    n_levels: int,
    inclusion: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    r"""Share of items with the same letter from both raters, with the interval of `clustered_rate`.

    Args:
        a: Letter of each item by one rater, shape (n,), codes in ``range(n_levels)``.
        b: The same by the other rater.
        clusters: Cluster of each item, shape (n,), any labels.
        n_levels: Number of letters on the scale, used or not.
        inclusion: As in `cluster_tables`.
        level: Confidence level.

    Returns:
        A share in [0, 1], :math:`\sum n_{ii} / n`, symmetric in the raters. The interval is NaN with fewer
        than 10 clusters.

    Raises:
        ValueError: A letter is no code of the scale, the lengths differ, or there are no items.
    """
    tables = cluster_tables(a, b, clusters, n_levels=n_levels, inclusion=inclusion)
    return clustered_rate(np.trace(tables, axis1=1, axis2=2), tables.sum(axis=(1, 2)), level=level)


def kappa_interval(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike,
    *,
    n_levels: int,
    weights: Weights = None,
    inclusion: ArrayLike | None = None,
    method: Literal["jackknife", "bca", "percentile"] = "jackknife",
    rng: np.random.Generator | None = None,
    n_resamples: int = 9999,
    level: float = 0.95,
) -> Estimate:
    """Cohen's kappa with an interval by clusters.

    By default a delete-one-cluster jackknife on Fisher's scale with Student's t; docs/validity.md says how
    often it covers where it carries no warning. With perfect agreement, where no resampling shows any error,
    the lower end is unweighted kappa at the lower bound of the agreement rate, whatever the weights: without a
    disagreement nothing says that those to come are nearer or farther than chance makes them. Sources: Cohen
    1960, 1968; Efron and Tibshirani 1993.

    Args:
        a: Letter of each item by one rater, shape (n,), codes in ``range(n_levels)``.
        b: The same by the other rater.
        clusters: Cluster of each item, shape (n,), any labels.
        n_levels: Number of letters on the scale, used or not.
        weights: None, ``"linear"`` or ``"quadratic"``. Never compare kappas of different weights.
        inclusion: As in `cluster_tables`.
        method: ``"jackknife"``, or a cluster bootstrap, which needs `rng`.
        rng: Source of the bootstrap's resamples.
        n_resamples: Resamples of the bootstrap.
        level: Confidence level.

    Returns:
        Kappa and its interval in [-1, 1], symmetric in the raters. The value is NaN when both raters used one
        and the same letter, the interval with fewer than 10 clusters. `reason` warns with fewer than 20
        clusters, and with fewer than 10 in which one of the raters gave any letter but the one that this
        rater gave most often.

    Raises:
        ValueError: A letter is no code of the scale, the lengths differ, there are no items, or `rng` is
            missing.
    """
    check_level(level)
    tables = cluster_tables(a, b, clusters, n_levels=n_levels, inclusion=inclusion)
    n = round(float(tables.sum()))
    total = tables.sum(axis=0)
    n_cells = np.count_nonzero(total)
    if np.count_nonzero(np.diagonal(total)) == n_cells > 1:
        return _warned(_perfect(tables, level=level), tables)

    def statistic(totals: Floats) -> Floats:
        return kappa(totals, weights=weights)

    if method == "jackknife":
        return _warned(jackknife(statistic, tables, n=n, scale="fisher", level=level), tables)
    if rng is None:
        raise ValueError("a bootstrap interval needs rng, for example numpy.random.default_rng(seed)")
    interval = cluster_bootstrap(
        statistic, tables, rng=rng, n=n, method=method, n_resamples=n_resamples, level=level
    )
    return _warned(interval, tables)


def kappa_difference(
    reference: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    clusters: ArrayLike,
    *,
    n_levels: int,
    weights: Weights = None,
    inclusion: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """Kappa of the second judge minus kappa of the first, both against one reference on the same items.

    Cluster jackknife of the difference itself, Student's t: what both judges get wrong together cancels, so
    it finds more than two intervals side by side. Source: Efron and Tibshirani 1993, chapter 11.

    Args:
        reference: Letter of each item by the reference, shape (n,), codes in ``range(n_levels)``.
        first: The same by the first judge.
        second: The same by the second judge.
        clusters: Cluster of each item, shape (n,), any labels.
        n_levels: Number of letters on the scale, used or not.
        weights: None, ``"linear"`` or ``"quadratic"``.
        inclusion: As in `cluster_tables`.
        level: Confidence level.

    Returns:
        A difference in [-2, 2]; swapping the judges changes its sign. NaN when either kappa is; the interval
        is NaN with fewer than 10 clusters, and when no cluster changes the difference.

    Raises:
        ValueError: A letter is no code of the scale, the lengths differ, or there are no items.
    """
    tables = np.stack(
        [
            cluster_tables(reference, judge, clusters, n_levels=n_levels, inclusion=inclusion)
            for judge in (first, second)
        ],
        axis=1,
    )

    def statistic(totals: Floats) -> Floats:
        both = kappa(totals, weights=weights)
        return np.asarray(both[..., 1] - both[..., 0], dtype=np.float64)

    return jackknife(statistic, tables, n=round(float(tables[:, 0].sum())), level=level)


def _warned(estimate: Estimate, tables: Ints | Floats) -> Estimate:
    """Add the warning that belongs to a kappa of a rater with few clusters off this rater's most frequent letter."""
    informative = min(_clusters_off_commonest(tables.sum(axis=axis)) for axis in (1, 2))
    if not estimate.has_interval or estimate.reason or informative >= MIN_CLUSTERS:
        return estimate
    reason = f"one rater gave a letter other than its most frequent in only {informative} clusters: the interval is rough"
    return replace(estimate, reason=reason)


def _clusters_off_commonest(letters: Ints | Floats) -> int:
    """Count the clusters with a letter other than the commonest; letters by cluster, shape (G, K)."""
    return int((np.delete(letters, letters.sum(axis=0).argmax(), axis=1).sum(axis=1) > 0).sum())


def _perfect(tables: Ints | Floats, *, level: float) -> Estimate:
    sizes = tables.sum(axis=(1, 2))
    agreement = clustered_rate(sizes, sizes, level=level)
    agreement = replace(agreement, method="perfect agreement, bound of the agreement rate")
    if not agreement.has_interval:
        return agreement
    expected = float(expected_agreement(tables.sum(axis=0)))
    low = max(-1.0, (agreement.low - expected) / (1 - expected))
    return replace(agreement, low=low)


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
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike,
    *,
    n_levels: int,
    inclusion: ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[LetterAccuracy, ...]:
    """Precision :math:`n_{ii} / c_i` and recall :math:`n_{ii} / r_i` of the judge for each letter, clustered.

    Args:
        a: Letter of each item by the reference, shape (n,), codes in ``range(n_levels)``.
        b: The same by the judge.
        clusters: Cluster of each item, shape (n,), any labels.
        n_levels: Number of letters on the scale, used or not.
        inclusion: As in `cluster_tables`.
        level: Confidence level.

    Returns:
        One entry for each letter, shares in [0, 1] with the interval of `clustered_rate` over the clusters
        that have such an item. Swapping the raters swaps precision and recall. NaN for a letter that was
        never given.

    Raises:
        ValueError: A letter is no code of the scale, the lengths differ, or there are no items.
    """
    tables = cluster_tables(a, b, clusters, n_levels=n_levels, inclusion=inclusion)
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
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike,
    *,
    n_levels: int,
    inclusion: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    r"""P(judge gives a better letter than the reference) minus P(judge gives a worse one).

    Interval: `clustered_ratio` of :math:`\sum_g (\text{better} - \text{worse})` and the items.

    Args:
        a: Letter of each item by the reference, shape (n,), codes in ``range(n_levels)``, 0 the best.
        b: The same by the judge.
        clusters: Cluster of each item, shape (n,), any labels.
        n_levels: Number of letters on the scale, used or not.
        inclusion: As in `cluster_tables`.
        level: Confidence level.

    Returns:
        A difference in [-1, 1], positive for a lenient judge; swapping the raters changes its sign. The
        interval is NaN with fewer than 10 clusters, and when all clusters show the same value.

    Raises:
        ValueError: A letter is no code of the scale, the lengths differ, or there are no items.
    """
    tables = cluster_tables(a, b, clusters, n_levels=n_levels, inclusion=inclusion)
    sign = np.sign(np.subtract.outer(np.arange(n_levels), np.arange(n_levels)))
    net = (tables * sign).sum(axis=(1, 2))
    sizes = tables.sum(axis=(1, 2))
    return clustered_ratio(net, sizes, n=round(float(sizes.sum())), level=level)
