"""Agreement of several raters, some of whose letters may be missing.

Ratings have shape (n_items, n_raters): codes in ``range(n_levels)``, NaN where a rater gave none.
"""

from dataclasses import dataclass, replace
from math import nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from qaeval.stats._arrays import TINY, Floats, Ints, cluster_codes
from qaeval.stats.coefficients import Weights, agreement_weights, chance_corrected
from qaeval.stats.estimate import Estimate
from qaeval.stats.paired import benjamini_yekutieli
from qaeval.stats.resampling import jackknife

Metric = Literal["nominal", "ordinal", "interval", "ratio"]


def rating_counts(ratings: ArrayLike, *, n_levels: int) -> Floats:
    """Number of raters that gave each letter to each item, :math:`m_{uk}`.

    Args:
        ratings: Shape (n_items, n_raters), codes in ``range(n_levels)`` or NaN where a rater gave none.
        n_levels: Number of letters on the scale, used or not.

    Returns:
        Shape (n_items, n_levels), whole numbers, at least 0. Always defined.

    Raises:
        ValueError: The ratings have another shape, or hold something other than codes and NaN.
    """
    raw = np.asarray(ratings, dtype=np.float64)
    if raw.ndim != 2 or raw.size == 0:
        raise ValueError(f"ratings must have shape (n_items, n_raters), got {raw.shape}")
    given = ~np.isnan(raw)
    if (given & ((raw < 0) | (raw >= n_levels) | (raw != np.floor(raw)))).any():
        raise ValueError(f"ratings must be codes in range({n_levels}), or NaN where one is missing")
    return np.stack([(raw == level).sum(axis=1) for level in range(n_levels)], axis=1).astype(np.float64)


def coincidences(counts: ArrayLike) -> Floats:
    r"""Coincidence matrix of each item, shape (n_items, K, K): its pairs of letters over raters - 1.

    Cell (c, k) of item *u* is :math:`m_{uc} (m_{uk} - [c = k]) / (m_u - 1)`; 0 for items with fewer than two
    letters. They add up to Krippendorff's coincidence matrix.
    """
    m = np.asarray(counts, dtype=np.float64)
    pairs = m[:, :, None] * m[:, None, :] - m[:, :, None] * np.eye(m.shape[1])
    others = m.sum(axis=1)[:, None, None] - 1
    out: Floats = np.divide(pairs, others, out=np.zeros_like(pairs), where=others > 0)
    return out


def alpha_from_coincidences(
    coincidence: ArrayLike, *, metric: Metric = "ordinal", values: ArrayLike | None = None
) -> Floats:
    r"""Krippendorff's alpha from coincidence matrices, shape (..., K, K) to (...).

    :math:`\alpha = 1 - (n - 1) \sum o_{ck} \delta^2_{ck} / \sum n_c n_k \delta^2_{ck}` with :math:`\delta^2`
    0 or 1 (nominal), :math:`(v_c - v_k)^2` (interval), :math:`((v_c - v_k)/(v_c + v_k))^2` (ratio) or
    :math:`(\sum_{g=c}^k n_g - (n_c + n_k)/2)^2` (ordinal). Up to 1; NaN when only one letter occurs.
    """
    o = np.asarray(coincidence, dtype=np.float64)
    each = o.sum(axis=-1)
    delta = _difference(each, metric, values)
    total = each.sum(axis=-1)
    observed = (o * delta).sum(axis=(-2, -1))
    expected = np.einsum("...i,...ij,...j->...", each, delta, each)
    ratio = np.divide(
        (total - 1) * observed, expected, out=np.full(expected.shape, nan), where=expected > TINY
    )
    return np.asarray(1.0 - ratio, dtype=np.float64)


def _difference(each: Floats, metric: Metric, values: ArrayLike | None) -> Floats:
    k = each.shape[-1]
    if metric == "ordinal":
        middle = np.cumsum(each, axis=-1) - each / 2
        return np.asarray((middle[..., :, None] - middle[..., None, :]) ** 2, dtype=np.float64)
    v = np.arange(k, dtype=np.float64) if values is None else np.asarray(values, dtype=np.float64)
    if v.shape != (k,):
        raise ValueError(f"values must give one number for each of the {k} levels, got shape {v.shape}")
    gap = v[:, None] - v[None, :]
    if metric == "interval":
        delta = gap**2
    elif metric == "ratio":
        sums = v[:, None] + v[None, :]
        delta = np.divide(gap, sums, out=np.zeros_like(gap), where=sums != 0) ** 2
    elif metric == "nominal":
        delta = 1.0 - np.eye(k)
    else:
        raise ValueError(f"metric must be 'nominal', 'ordinal', 'interval' or 'ratio', got {metric!r}")
    return np.asarray(np.broadcast_to(delta, (*each.shape, k)), dtype=np.float64)


def krippendorff_alpha(
    ratings: ArrayLike, *, n_levels: int, metric: Metric = "ordinal", values: ArrayLike | None = None
) -> float:
    """Krippendorff's alpha of several raters, letters may be missing.

    The formula is that of `alpha_from_coincidences`. Ordinal alpha depends on how often each letter occurs,
    so it must not be compared between data sets. Source: Krippendorff 2011.

    Args:
        ratings: Shape (n_items, n_raters), codes in ``range(n_levels)`` or NaN; the raters' order is free.
        n_levels: Number of letters on the scale.
        metric: How far apart two letters are: ``"nominal"``, ``"ordinal"``, ``"interval"`` or ``"ratio"``.
        values: Numbers that the letters stand for (interval and ratio), shape (n_levels,); 0, 1, 2 … when
            left out.

    Returns:
        At most 1, 0 for agreement by chance; NaN when only one letter occurs or no item has two letters.

    Raises:
        ValueError: The ratings have another shape or hold something other than codes and NaN, or the metric
            is unknown.
    """
    pairs = coincidences(rating_counts(ratings, n_levels=n_levels)).sum(axis=0)
    return float(alpha_from_coincidences(pairs, metric=metric, values=values))


def krippendorff_interval(
    ratings: ArrayLike,
    clusters: ArrayLike,
    *,
    n_levels: int,
    metric: Metric = "ordinal",
    values: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """Krippendorff's alpha with the cluster jackknife on Fisher's scale.

    Sources: Krippendorff 2011; Efron and Tibshirani 1993.

    Args:
        ratings: Shape (n_items, n_raters), codes in ``range(n_levels)`` or NaN; the raters' order is free.
        clusters: Cluster of each item, shape (n_items,), any labels.
        n_levels: Number of letters on the scale.
        metric: How far apart two letters are: ``"nominal"``, ``"ordinal"``, ``"interval"`` or ``"ratio"``.
        values: Numbers that the letters stand for (interval and ratio), shape (n_levels,); 0, 1, 2 … when
            left out.
        level: Confidence level.

    Returns:
        Alpha, at most 1. `n_excluded` counts the items with fewer than two letters. The value is NaN when
        only one letter occurs, the interval with fewer than 10 clusters.

    Raises:
        ValueError: No item has letters from two raters, or the ratings are not as in `krippendorff_alpha`.
    """
    pairs = coincidences(rating_counts(ratings, n_levels=n_levels))
    codes, n_clusters = cluster_codes(clusters, n=len(pairs))
    sums = np.zeros((n_clusters, n_levels, n_levels))
    np.add.at(sums, codes, pairs)
    n = int((pairs.sum(axis=(1, 2)) > 0).sum())
    informative = sums[sums.sum(axis=(1, 2)) > 0]
    if len(informative) == 0:
        raise ValueError("no item has letters from two raters: agreement cannot be measured")

    def statistic(totals: Floats) -> Floats:
        return alpha_from_coincidences(totals, metric=metric, values=values)

    estimate = jackknife(statistic, informative, n=n, scale="fisher", level=level)
    return replace(estimate, n_excluded=len(pairs) - n)


def fleiss_interval(
    ratings: ArrayLike, clusters: ArrayLike, *, n_levels: int, level: float = 0.95
) -> Estimate:
    """Fleiss' kappa with the cluster jackknife on Fisher's scale.

    The value is that of `multirater_coefficient`. Sources: Fleiss 1971; Efron and Tibshirani 1993.

    Args:
        ratings: Shape (n_items, n_raters), codes in ``range(n_levels)`` or NaN; the raters' order is free.
        clusters: Cluster of each item, shape (n_items,), any labels.
        n_levels: Number of letters on the scale.
        level: Confidence level.

    Returns:
        Kappa in [-1, 1]. `n_excluded` counts the items with fewer than two letters. The value is NaN when only
        one letter occurs, the interval with fewer than 10 clusters.

    Raises:
        ValueError: No item has letters from two raters, or the ratings are not as in `krippendorff_alpha`.
    """
    counts = rating_counts(ratings, n_levels=n_levels)
    codes, n_clusters = cluster_codes(clusters, n=len(counts))
    raters = counts.sum(axis=1)
    given, paired = raters > 0, raters >= 2
    if not paired.any():
        raise ValueError("no item has letters from two raters: agreement cannot be measured")
    agreeing = (counts * (counts - 1)).sum(axis=1)
    parts = np.column_stack(
        [
            np.divide(agreeing, raters * (raters - 1), out=np.zeros_like(raters), where=paired),
            paired,
            counts / np.maximum(raters, 1)[:, None],
        ]
    )
    sums = np.zeros((n_clusters, parts.shape[1]))
    np.add.at(sums, codes, parts)

    def statistic(totals: Floats) -> Floats:
        shares = totals[:, 2:] / totals[:, 2:].sum(axis=1, keepdims=True)
        agreement = np.divide(
            totals[:, 0], totals[:, 1], out=np.full(len(totals), nan), where=totals[:, 1] > 0
        )
        return chance_corrected(agreement, (shares**2).sum(axis=1))

    informative = sums[np.bincount(codes, weights=given, minlength=n_clusters) > 0]
    estimate = jackknife(statistic, informative, n=int(paired.sum()), scale="fisher", level=level)
    return replace(estimate, n_excluded=int((~paired).sum()))


@dataclass(frozen=True, slots=True)
class MultiRaterCoefficient:
    """A chance-corrected coefficient of several raters, with its standard error for independent items."""

    value: float
    """The coefficient; NaN when chance agreement is 1."""
    se: float
    """Standard error of the linearisation, independent items; NaN for a single item."""
    agreement: float
    """Mean share of agreeing pairs of raters."""
    expected: float
    """Agreement by chance."""


def multirater_coefficient(
    counts: ArrayLike,
    *,
    coefficient: Literal["fleiss", "brennan_prediger", "gwet_ac"] = "fleiss",
    weights: "Weights | ArrayLike" = None,
) -> MultiRaterCoefficient:
    r"""Fleiss' kappa, Brennan-Prediger (Randolph's free-marginal kappa) or Gwet's AC1/AC2 of several raters.

    :math:`(p_a - p_e)/(1 - p_e)`: :math:`p_a` averages the agreeing pairs of raters over items with two or
    more letters; with :math:`\pi_k` the mean share of letter *k*, :math:`p_e` is :math:`\sum
    w_{kl}\pi_k\pi_l` (Fleiss), :math:`\sum w / K^2` (Brennan-Prediger) or :math:`\frac{\sum w}{K(K-1)}\sum
    \pi_k (1-\pi_k)` (Gwet). Standard error: Gwet's linearisation with n - 1, for independent items. Source:
    Gwet 2014.

    Args:
        counts: Raters that gave each letter to each item, shape (n_items, K), see `rating_counts`.
        coefficient: ``"fleiss"``, ``"brennan_prediger"`` or ``"gwet_ac"``.
        weights: None, ``"linear"``, ``"quadratic"`` or a symmetric matrix of agreement weights, shape (K, K).

    Returns:
        Value in [-1, 1] with standard error and parts. Items without letters are left out. The value is NaN
        when chance agreement is 1, the standard error also for a single item.

    Raises:
        ValueError: No item has letters from two raters, the counts have another shape or are negative, or the
            coefficient is unknown.
    """
    m = np.asarray(counts, dtype=np.float64)
    if m.ndim != 2 or not np.isfinite(m).all() or (m < 0).any():
        raise ValueError(f"counts must have shape (n_items, K) and not be negative, got shape {m.shape}")
    m = m[m.sum(axis=1) > 0]
    if not (m.sum(axis=1) >= 2).any():
        raise ValueError("no item has letters from two raters: agreement cannot be measured")
    w = agreement_weights(m.shape[1], weights)
    raters = m.sum(axis=1)
    paired = raters >= 2
    pairs = np.where(paired, raters * (raters - 1), 1.0)
    each = np.where(paired, (m * (m @ w - 1)).sum(axis=1) / pairs, 0.0)
    agreement = float(each[paired].mean())
    expected, slopes = _chance_of_many(m / raters[:, None], w, coefficient)
    value = float(chance_corrected(agreement, expected))
    if np.isnan(value) or len(m) == 1:
        return MultiRaterCoefficient(value, nan, agreement, expected)
    direct = len(m) / paired.sum() * (each - expected * paired) / (1 - expected)
    linear = direct - 2 * (1 - value) * (slopes - expected) / (1 - expected)
    se = sqrt(float(((linear - value) ** 2).sum()) / (len(m) * (len(m) - 1)))
    return MultiRaterCoefficient(value, se, agreement, expected)


def _chance_of_many(shares: Floats, w: Floats, coefficient: str) -> tuple[float, Floats]:
    """Return chance agreement and each item's part in it, shape (n_items,)."""
    pi, k = shares.mean(axis=0), w.shape[0]
    if coefficient == "fleiss":
        return float(pi @ w @ pi), np.asarray(shares @ ((w + w.T) / 2 @ pi), dtype=np.float64)
    factor = float(w.sum()) / (k * (k - 1))
    if coefficient == "gwet_ac":
        return factor * float(pi @ (1 - pi)), np.asarray(factor * (shares @ (1 - pi)), dtype=np.float64)
    if coefficient == "brennan_prediger":
        expected = float(w.sum()) / k**2
        return expected, np.full(len(shares), expected)
    raise ValueError(f"coefficient must be 'fleiss', 'brennan_prediger' or 'gwet_ac', got {coefficient!r}")


_MAX_ITERATIONS = 1000
_CONVERGED = 1e-10
"""Change of the log-likelihood at which EM ends, times a thousandth of its size where that is above 1."""
_LEAST = 1e-300
"""Probability in place of 0, whose logarithm does not exist."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DawidSkene:
    """Letters of the items and error rates of the raters, estimated together without labels."""

    posterior: Floats
    """Probability of each letter for each item, shape (n_items, n_levels); NaN for an item without letters."""
    prevalence: Floats
    """Estimated share of each letter, shape (n_levels,)."""
    confusion: Floats
    """Probability of each letter of a rater for an item of a letter, shape (n_raters, n_levels, n_levels): true letters
    in rows, given ones in columns."""
    log_likelihood: float
    n_iterations: int
    converged: bool
    """False where EM was stopped after 1,000 iterations."""

    @property
    def accuracy(self) -> Floats:
        """Estimated share of items with the right letter by rater, shape (n_raters,), in [0, 1]."""
        return np.asarray(np.einsum("k,jkk->j", self.prevalence, self.confusion), dtype=np.float64)


def dawid_skene(ratings: ArrayLike, *, n_levels: int, raters: ArrayLike | None = None) -> DawidSkene:
    r"""Dawid and Skene's model of raters with unequal errors, by EM from the shares of each item's letters.

    Given the letter of an item, raters are independent: :math:`P(k \mid u) \propto p_k \prod_j \prod_l
    \pi_{jkl}^{n_{ujl}}`. Raters that share errors break the assumption, and the posterior is then over-confident.
    Without labels the letters are known only as far as most raters are right. Source: Dawid and Skene 1979.

    Args:
        ratings: Shape (n_items, n_ratings), codes in ``range(n_levels)``, NaN where a letter is missing.
        n_levels: Number of letters on the scale.
        raters: Rater of each column, shape (n_ratings,), any labels; equal ones are one rater who graded several
            times. Default: each column is a rater of its own.

    Returns:
        Posterior of each item, prevalence, and the confusion matrix of each rater in the order of
        ``numpy.unique(raters)``, all in [0, 1]. The posterior of an item without letters is NaN.

    Raises:
        ValueError: There are fewer than 3 ratings an item, no letter at all, or the shapes do not fit.
    """
    m = rating_counts(ratings, n_levels=n_levels)
    raw = np.asarray(ratings, dtype=np.float64)
    columns = np.arange(raw.shape[1]) if raters is None else np.asarray(raters)
    if columns.shape != raw.shape[1:] or len(columns) < 3:
        raise ValueError(
            f"expected 3 or more columns with one rater each, got {len(columns)} for {raw.shape}"
        )
    given = m.sum(axis=1) > 0
    if not given.any():
        raise ValueError("no item has a letter: nothing can be estimated")
    _, rater_of = np.unique(columns, return_inverse=True)
    counts = np.zeros((int(given.sum()), int(rater_of.max()) + 1, n_levels))
    for column, rater in enumerate(rater_of):
        counts[:, rater, :] += raw[given, column, None] == np.arange(n_levels)
    # items with the same letters have the same posterior
    patterns, pattern_of, weights = np.unique(
        counts.reshape(len(counts), -1), axis=0, return_inverse=True, return_counts=True
    )
    counts = patterns.reshape(-1, *counts.shape[1:])
    known = counts.sum(axis=1) / counts.sum(axis=(1, 2))[:, None]
    before, n_iterations, converged = -np.inf, 0, False
    while not converged and n_iterations < _MAX_ITERATIONS:
        n_iterations += 1
        prevalence = weights @ known / weights.sum()
        letters = np.einsum("uk,ujl->jkl", weights[:, None] * known, counts)
        totals = letters.sum(axis=2, keepdims=True)
        # a rater who graded no item of a letter says nothing about it
        confusion = np.divide(letters, totals, out=np.full_like(letters, 1 / n_levels), where=totals > TINY)
        logs = np.log(np.maximum(confusion, _LEAST))
        joint = np.log(np.maximum(prevalence, _LEAST)) + np.einsum("ujl,jkl->uk", counts, logs)
        evidence = special.logsumexp(joint, axis=1)
        known, likelihood = np.exp(joint - evidence[:, None]), float(weights @ evidence)
        converged = abs(likelihood - before) <= _CONVERGED * max(1.0, abs(likelihood) / 1000)
        before = likelihood
    posterior = np.full((len(raw), n_levels), nan)
    posterior[given] = known[pattern_of]
    return DawidSkene(
        posterior=posterior,
        prevalence=np.asarray(prevalence, dtype=np.float64),
        confusion=np.asarray(confusion, dtype=np.float64),
        log_likelihood=likelihood,
        n_iterations=n_iterations,
        converged=converged,
    )


_FEWEST_FOR_A_RATER = 30
"""Items of a rater in the alt-test, as in the paper."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlternativeAnnotator:
    """May a judge stand in for one of the human raters?"""

    judge_ahead: Floats
    """Share of items on which the judge agrees with the others at least as well as each rater, shape (n_raters,)."""
    p_values: Floats
    """One-sided, of the hypothesis that each rater is ahead by the margin or more, shape (n_raters,)."""
    share_rejected: float
    """Omega: share of the raters for whom that is rejected (Benjamini-Yekutieli)."""
    mean_ahead: float
    """Rho: mean of `judge_ahead`."""
    passed: bool
    """Whether omega is at least one half."""


def alternative_annotator_test(
    judge: ArrayLike,
    ratings: ArrayLike,
    clusters: ArrayLike,
    *,
    margin: float = 0.2,
    q: float = 0.05,
) -> AlternativeAnnotator:
    r"""The alt-test: does a judge agree with the other raters as well as each rater does?

    Each rater *j* is left out in turn. On item *i*, :math:`W^f_{ij} = 1` where the judge agrees with at least as many of the
    other raters as *j* does, :math:`W^h_{ij}` the reverse; :math:`\overline{W^h - W^f} \ge \varepsilon` is tested
    one-sided, with t on the clusters' CR1 variance in place of the paper's t over items. Source: Calderon, Reichart and
    Dror 2025 (arXiv 2501.10970).

    Args:
        judge: Letter of the judge for each item, shape (n_items,).
        ratings: Letters of the raters, shape (n_items, n_raters), at least 3 raters; NaN where one gave none.
        clusters: The cluster of each item, shape (n_items,), any labels; each its own for the test of the paper.
        margin: What a human is worth: 0.2 for experts, 0.15 for skilled, 0.1 for crowd workers.
        q: False discovery rate over the raters.

    Returns:
        Shares and p-values in [0, 1]; a p-value is NaN, and rejects nothing, for a rater with fewer than 30 items.

    Raises:
        ValueError: There are fewer than 3 raters, or the shapes do not fit.
    """
    f, h = np.asarray(judge, dtype=np.float64), np.asarray(ratings, dtype=np.float64)
    if h.ndim != 2 or h.shape[1] < 3 or f.shape != h.shape[:1]:
        raise ValueError(f"ratings must have shape (n_items, at least 3 raters), got {h.shape} for {f.shape}")
    codes, _ = cluster_codes(clusters, n=len(f))
    ahead, p_values = np.full(h.shape[1], nan), np.full(h.shape[1], nan)
    for rater in range(h.shape[1]):
        others = np.delete(h, rater, axis=1)
        known = ~np.isnan(h[:, rater]) & ~np.isnan(f) & ~np.isnan(others).all(axis=1)
        by_judge = (others == f[:, None]).sum(axis=1)[known]
        by_rater = (others == h[:, rater, None]).sum(axis=1)[known]
        judge_ahead, rater_ahead = (by_judge >= by_rater).astype(float), (by_rater >= by_judge).astype(float)
        ahead[rater] = judge_ahead.mean() if known.any() else nan
        if known.sum() >= _FEWEST_FOR_A_RATER:
            p_values[rater] = _below(rater_ahead - judge_ahead, codes[known], margin)
    return summarised_raters(ahead, p_values, q=q)


def summarised_raters(
    judge_ahead: ArrayLike, p_values: ArrayLike, *, q: float = 0.05
) -> AlternativeAnnotator:
    """Return omega, rho and the verdict of the alt-test from the results for each rater, shape (n_raters,)."""
    ahead, p = np.asarray(judge_ahead, dtype=np.float64), np.asarray(p_values, dtype=np.float64)
    rejected = float((benjamini_yekutieli(np.where(np.isnan(p), 1.0, p)) <= q).mean())
    return AlternativeAnnotator(
        judge_ahead=ahead,
        p_values=p,
        share_rejected=rejected,
        mean_ahead=float(np.nanmean(ahead)),
        passed=rejected >= 0.5,
    )


def _below(values: Floats, codes: Ints, limit: float) -> float:
    """P-value of the hypothesis that the mean is at least `limit`, clustered; 0 or 1 where nothing varies."""
    groups, codes = np.unique(codes, return_inverse=True)
    n_clusters = len(groups)
    mean = float(values.mean())
    sums = np.bincount(codes, weights=values - mean)
    se = sqrt(n_clusters / max(1, n_clusters - 1) * float((sums**2).sum())) / len(values)
    if not se > TINY:
        return 0.0 if mean < limit else 1.0
    return float(special.stdtr(n_clusters - 1, (mean - limit) / se))
