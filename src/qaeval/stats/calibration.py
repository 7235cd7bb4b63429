r"""Probabilities of letters against labels: scores, calibration error with its null, and fits that see no label of their own chunk.

A probability of the best letter is calibrated if, of the items that get :math:`p`, a share :math:`p` is labelled with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import scipy  # its `optimize` is loaded at the first use: 0.2 s that only labelled probabilities need
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from qaeval.stats._arrays import TINY, Bools, Floats, Ints, as_codes, as_values, cluster_codes, same_length
from qaeval.stats.intervals import clustered_rate

Fit: TypeAlias = Callable[[Floats, Floats], Callable[[Floats], Floats]]
"""Learns from probabilities and outcomes, and returns the function of a probability."""

_SEED: Final = 0
_MAX_BINS: Final = 10
_CLUSTERS_OF_BIN: Final = 16


def brier_score(probabilities: ArrayLike, outcomes: ArrayLike) -> float:
    """Mean squared distance of probabilities from outcomes 0 and 1: 0 for certain and right, 0.25 for always one half.

    Args:
        probabilities: Shape (n,), in [0, 1].
        outcomes: 0 or 1, shape (n,).

    Raises:
        ValueError: A value is out of range, or the lengths differ.
    """
    p, y = _pairs(probabilities, outcomes)
    return float(((p - y) ** 2).mean())


def ranked_probability_score(distributions: ArrayLike, codes: ArrayLike) -> float:
    r"""Mean ranked probability score of distributions over an ordered scale.

    :math:`\frac{1}{K-1} \sum_k (F_k - O_k)^2` with the cumulated probabilities :math:`F` and outcomes :math:`O`: 0 for certain and right, 1
    for certain of the other end of the scale. With two letters it is the Brier score. Source: Epstein 1969.

    Args:
        distributions: Probability of each letter, shape (n, K), rows with the sum 1.
        codes: The letter that was labelled, shape (n,), in ``range(K)``.

    Raises:
        ValueError: A row is no distribution, a code is off the scale, or the lengths differ.
    """
    p = np.asarray(distributions, dtype=np.float64)
    if p.ndim != 2 or not (p >= -TINY).all() or not np.allclose(p.sum(axis=1), 1, atol=1e-6):
        raise ValueError(
            "distributions must have the shape (n, K), with rows that are not negative and sum to 1"
        )
    n_levels = p.shape[1]
    y = as_codes(codes, n_levels=n_levels, name="codes")
    same_length(distributions=p, codes=y)
    outcome = np.arange(n_levels) >= y[:, np.newaxis]
    return float(((p.cumsum(axis=1) - outcome)[:, :-1] ** 2).sum(axis=1).mean() / (n_levels - 1))


def area_under_curve(scores: ArrayLike, outcomes: ArrayLike) -> float:
    """Probability that a random outcome 1 has a larger score than a random outcome 0, ties counted half; NaN without both.

    Args:
        scores: Shape (n,).
        outcomes: 0 or 1, shape (n,).

    Raises:
        ValueError: An outcome is neither, or the lengths differ.
    """
    x, y = as_values(scores, name="scores"), _outcomes(outcomes)
    same_length(scores=x, outcomes=y)
    n_1 = int(y.sum())
    n_0 = len(y) - n_1
    if not n_1 or not n_0:
        return float("nan")
    ranks = _mean_ranks(x)
    return float((ranks[y == 1].sum() - n_1 * (n_1 + 1) / 2) / (n_1 * n_0))


@dataclass(frozen=True, slots=True)
class CalibrationBins:
    """Items in bins of their probability: arrays of shape (B,), of the bins that hold an item."""

    n: Ints
    """Items."""
    probability: Floats
    """Mean probability."""
    share: Floats
    """Share of outcomes 1."""
    codes: Ints
    """Bin of each item, shape (n,)."""

    def error(self, norm: Literal["l1", "l2", "max"] = "l1") -> float:
        """Return the distance of shares and probabilities: mean (``l1``), root of the mean square (``l2``) or largest (``max``)."""
        gaps, weights = np.abs(self.share - self.probability), self.n / self.n.sum()
        if norm == "max":
            return float(gaps.max())
        return float(weights @ gaps) if norm == "l1" else float(np.sqrt(weights @ gaps**2))


def calibration_bins(
    probabilities: ArrayLike,
    outcomes: ArrayLike,
    *,
    n_bins: int = 10,
    by: Literal["mass", "width"] = "mass",
) -> CalibrationBins:
    """Group items by their probability.

    Args:
        probabilities: Shape (n,), in [0, 1].
        outcomes: 0 or 1, shape (n,).
        n_bins: Bins, at most.
        by: ``mass`` gives bins of about as many items, equal probabilities in one; ``width`` bins of equal width.

    Raises:
        ValueError: A value is out of range, or the lengths differ.
    """
    p, y = _pairs(probabilities, outcomes)
    if by == "width":
        raw = np.minimum((p * n_bins).astype(np.int64), n_bins - 1)
    else:
        # by the mean rank of equal probabilities, so that they share a bin
        raw = ((_mean_ranks(p) - 0.5) * n_bins / len(p)).astype(np.int64)
    codes = np.unique(raw, return_inverse=True)[1]
    n = np.bincount(codes)
    return CalibrationBins(
        n=n,
        probability=np.bincount(codes, weights=p) / n,
        share=np.bincount(codes, weights=y) / n,
        codes=codes.astype(np.int64),
    )


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Expected calibration error, with what a calibrated judge would have by chance alone."""

    value: float
    expected: float
    """Mean under calibration: few items in a bin lie beside their probability by chance."""
    p_value: float
    """Of the hypothesis that the probabilities are calibrated, in (0, 1]."""
    bins: CalibrationBins


def expected_calibration_error(
    probabilities: ArrayLike,
    outcomes: ArrayLike,
    clusters: ArrayLike,
    *,
    n_bins: int | None = None,
    n_resamples: int = 2000,
) -> CalibrationError:
    r"""Expected calibration error in bins of equal mass, and its null.

    The error is above 0 for a calibrated judge too. Its null is a wild bootstrap by cluster: the residuals :math:`y - p` of a cluster,
    whose mean is 0 under calibration, keep or change their sign together (Rademacher weights), so that dependent items stay dependent.

    Args:
        probabilities: Shape (n,), in [0, 1].
        outcomes: 0 or 1, shape (n,).
        clusters: Cluster of each item, shape (n,).
        n_bins: Bins, at most; default: one for each 16 clusters, 2 to 10: the null needs that many in a bin.
        n_resamples: Resamples of the null; the seed is fixed.

    Raises:
        ValueError: A value is out of range, or the lengths differ.
    """
    p, y = _pairs(probabilities, outcomes)
    codes, n_clusters = cluster_codes(clusters, n=len(p))
    n_bins = n_bins or min(_MAX_BINS, max(2, n_clusters // _CLUSTERS_OF_BIN))
    bins = calibration_bins(p, y, n_bins=n_bins)
    sums = np.zeros((n_clusters, len(bins.n)))
    np.add.at(sums, (codes, bins.codes), y - p)
    signs = np.random.default_rng(_SEED).choice([-1.0, 1.0], size=(n_resamples, n_clusters))
    null = np.abs(signs @ sums).sum(axis=1) / len(p)
    value = bins.error()
    return CalibrationError(
        value=value,
        expected=float(null.mean()),
        p_value=float((1 + (null >= value - TINY).sum()) / (1 + n_resamples)),
        bins=bins,
    )


# -------------------------------------------------------------------- calibration on labels


def fit_isotonic(probabilities: Floats, outcomes: Floats) -> Callable[[Floats], Floats]:
    """Learn a rising function of the probability by isotonic regression; between the probabilities that were seen it is linear.

    Args:
        probabilities: Shape (n,).
        outcomes: 0 or 1, shape (n,).
    """
    x, codes = np.unique(probabilities, return_inverse=True)
    weights = np.bincount(codes)
    means = np.bincount(codes, weights=outcomes) / weights
    fitted = scipy.optimize.isotonic_regression(means, weights=weights).x
    return lambda values: np.interp(values, x, fitted)


def fit_threshold(probabilities: Floats, outcomes: Floats) -> Callable[[Floats], Floats]:
    """Learn the threshold above which an outcome is taken for 1: the one with the most right outcomes of either kind, both weighing alike.

    Args:
        probabilities: Shape (n,).
        outcomes: 0 or 1, shape (n,), both of them.
    """
    threshold = best_threshold(probabilities, outcomes)
    return lambda values: (values >= threshold).astype(np.float64)


def best_threshold(probabilities: Floats, outcomes: Floats) -> float:
    """Return the threshold with the largest Youden index, midway between two probabilities; the lowest of equal ones."""
    x = np.unique(probabilities)
    cuts = np.concatenate([[x[0]], (x[1:] + x[:-1]) / 2])
    above = probabilities[:, np.newaxis] >= cuts
    ones = outcomes == 1
    youden = above[ones].mean(axis=0) - above[~ones].mean(axis=0)
    return float(cuts[int(youden.argmax())])


def cross_fitted(
    fit: Fit, probabilities: ArrayLike, outcomes: ArrayLike, clusters: ArrayLike, *, n_folds: int = 5
) -> Floats:
    """Return what a fit says of each item, learned from the items of other clusters only; shape (n,).

    Args:
        fit: `fit_isotonic` or `fit_threshold`.
        probabilities: Shape (n,), in [0, 1].
        outcomes: 0 or 1, shape (n,).
        clusters: Cluster of each item, shape (n,); a cluster is in one fold.
        n_folds: Folds, at most as many as there are clusters.

    Returns:
        Values in [0, 1]; NaN where the other folds have one outcome alone.

    Raises:
        ValueError: A value is out of range, the lengths differ, or there is one cluster.
    """
    p, y = _pairs(probabilities, outcomes)
    codes, n_clusters = cluster_codes(clusters, n=len(p))
    if n_clusters < 2:
        raise ValueError("cross-fitting needs at least 2 clusters")
    n_folds = min(n_folds, n_clusters)
    fold_of = np.random.default_rng(_SEED).permutation(n_clusters) % n_folds
    fitted = np.full(len(p), np.nan)
    for fold in range(n_folds):
        held: Bools = fold_of[codes] == fold
        if len(set(y[~held].tolist())) == 2:
            fitted[held] = fit(p[~held], y[~held])(p[held])
    return fitted


# -------------------------------------------------------------------- selective grading


@dataclass(frozen=True, slots=True)
class EscalationThreshold:
    """Confidence from which a judge's letters are kept; everything below goes to a second judge."""

    threshold: float
    """Infinite where no threshold is shown to keep the promise."""
    n: int
    """Labelled items from the threshold on."""
    n_wrong: int
    """Those whose letter is not that of the label."""
    upper: float
    """Upper bound of the share of wrong letters from the threshold on; NaN without a threshold."""


_STEPS: Final = np.concatenate([1 - 10.0 ** -np.arange(6.0, 0.25, -0.1), np.arange(4, -1, -1) / 10])
"""Thresholds in the order in which they are tested: fixed beforehand, and finer near 1, where the confidences of a model lie."""


def escalation_threshold(
    confidences: ArrayLike,
    wrong: ArrayLike,
    clusters: ArrayLike,
    *,
    inclusion: ArrayLike | None = None,
    max_error: float = 0.1,
    alpha: float = 0.05,
) -> EscalationThreshold:
    r"""Find the lowest confidence from which a judge errs in at most `max_error` of the items, by fixed-sequence testing.

    Thresholds that are fixed beforehand are tested from the most confident down, each with the upper bound of `clustered_rate` at the
    level :math:`1 - \alpha` (Clopper-Pearson with one item for each cluster); the first that fails ends the sequence, so that all are
    tested at alpha together. The sequence begins where one error would pass, for a sequence that begins with fewer items
    mostly ends there; with few clusters, where no error would. Source: Jung et al. 2024 (arXiv 2407.18370), *Trust or Escalate*.

    Args:
        confidences: Confidence of the judge in each labelled item, shape (n,), in [0, 1].
        wrong: 1 where the judge's letter is not that of the label, else 0, shape (n,).
        clusters: Cluster of each item, shape (n,).
        inclusion: Probability in (0, 1] with which each item was drawn to be labelled, shape (n,), or numbers proportional to it: items
            count by its inverse, so that the share is that of all items. None: all alike.
        max_error: Largest share of wrong letters among those that are kept, in (0, 1).
        alpha: Probability with which that may fail, in (0, 1).

    Returns:
        The threshold; with probability `1 - alpha` the share of wrong letters from it on is at most `max_error`.

    Raises:
        ValueError: A value is out of range, or the lengths differ.
    """
    p, w = _pairs(confidences, wrong)
    if not 0 < max_error < 1 or not 0 < alpha < 1:
        raise ValueError(f"max_error and alpha must be between 0 and 1, got {max_error!r} and {alpha!r}")
    codes, n_clusters = cluster_codes(clusters, n=len(p))
    drawn = np.ones(len(p)) if inclusion is None else as_values(inclusion, name="inclusion")
    same_length(confidences=p, inclusion=drawn)
    if not (drawn > 0).all():
        raise ValueError("inclusion must hold the probability, above 0, with which each item was drawn")
    weight = drawn.mean() / drawn
    least = _first_size(max_error, alpha, n_wrong=1)
    if n_clusters < 1.5 * least:
        least = _first_size(max_error, alpha, n_wrong=0)
    result = EscalationThreshold(float("inf"), 0, 0, float("nan"))
    for step in _STEPS:
        kept = p >= step
        n = int(kept.sum())
        if len(np.unique(codes[kept])) < least:
            continue
        if n == result.n:
            result = EscalationThreshold(float(step), n, result.n_wrong, result.upper)
            continue
        wrongs, totals = (
            np.bincount(codes[kept], weights=values[kept], minlength=n_clusters).astype(np.float64)
            for values in (w * weight, weight)
        )
        present = totals > 0
        upper = _upper(wrongs[present], totals[present], alpha)
        if not upper <= max_error:
            break
        result = EscalationThreshold(float(step), n, int(w[kept].sum()), upper)
    return result


def _first_size(max_error: float, alpha: float, *, n_wrong: int) -> int:
    """Return the smallest number of items of which so many may be wrong."""
    n = n_wrong + 1
    while betaincinv(n_wrong + 1, n - n_wrong, 1 - alpha) > max_error:
        n += 1
    return n


def _upper(wrongs: Floats, totals: Floats, alpha: float) -> float:
    """Return the one-sided upper bound of a rate over clusters."""
    if (totals == 1).all():
        n, k = len(totals), int(wrongs.sum())
        return 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - alpha))
    return float(clustered_rate(wrongs, totals, level=1 - 2 * alpha).high)


def _mean_ranks(values: Floats) -> Floats:
    """Return ranks from 1; equal values share their mean rank."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (counts.cumsum() - (counts - 1) / 2)[codes]
    return ranks


def _pairs(probabilities: ArrayLike, outcomes: ArrayLike) -> tuple[Floats, Floats]:
    p, y = as_values(probabilities, name="probabilities"), _outcomes(outcomes)
    same_length(probabilities=p, outcomes=y)
    if not ((p >= -TINY) & (p <= 1 + TINY)).all():
        raise ValueError("probabilities must be between 0 and 1")
    return p, y


def _outcomes(outcomes: ArrayLike) -> Floats:
    return as_codes(outcomes, n_levels=2, name="outcomes").astype(np.float64)
