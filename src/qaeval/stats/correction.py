"""Estimates for all chunks from the labels of some chunks, made more precise by the judge's letters.

The labels are a sample of the run with known inclusion probabilities; the judge has graded every item. The judge's
error is measured on the labelled chunks and subtracted, so that a wrong judge does not bias the estimate. Where the
judge does not help, or all chunks are labelled, the estimate is that of the labels alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from qaeval.stats._arrays import (
    TINY,
    Bools,
    Floats,
    Ints,
    as_codes,
    as_values,
    check_level,
    cluster_codes,
    same_length,
)
from qaeval.stats.estimate import Estimate, too_few, undefined, warning
from qaeval.stats.intervals import clopper_pearson, clustered_rate, t_quantile, wilson_bounds
from qaeval.stats.paired import (
    UNEQUAL,
    Pivot,
    agreeing_with_test,
    effective_number,
    hides_a_rare_value,
    leverage,
    mostly_one_value,
    paired_difference,
    sign_flip_test,
    weighted_pivot,
)

Basis = Literal["all labelled", "corrected", "labels alone"]
"""What an estimate rests on: all labels; labels and judge; or labels, because the judge would not help."""

FEW = 10
"""With so few clusters that hold the rarer outcome no design effect is estimated, from twice as many it is."""
RARE = 0.5
"""With fewer of those clusters, as a share of `FEW`, Wilson's interval covers less than 93 % where the probabilities of being
drawn differ (docs/validity.md)."""
WORTH = 0.95
"""A corrected interval must be shorter than so much of the labels' own, else the judge adds nothing."""
_NOTHING = "everything is labelled, or fewer than 10 clusters are: there is nothing to correct"
_NO_HELP = "the judge's letters do not narrow the interval: it is that of the labels alone"
_DRAWN = "labelled chunks weighted by probability, t"
_SEED = 20_240_229
"""Of the sign patterns, drawn only where the test cannot be exact."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectedDifference:
    """The difference of two candidates as the labels have it, the judge's error taken off."""

    estimate: Estimate
    """The difference to act on: `n_clusters` counts the labelled chunks, `n` all of them."""
    labels: Estimate
    """The difference from the labelled chunks alone; its interval agrees with `p_labels`."""
    corrected: Estimate
    """The difference from labels and judge, whether used or not; NaN where there is nothing to correct."""
    basis: Basis
    """What `estimate` rests on."""
    p_value: float
    """Two-sided, of the hypothesis that the difference is 0, from the data of `estimate`; NaN without an interval.

    The exact sign-flip test where `estimate` rests on labels drawn with equal probabilities of chunks that weigh the same, else
    from the interval.
    """
    p_labels: float
    """Of the exact sign-flip test on the labelled chunks; NaN where they were drawn with unequal probabilities."""
    tuning: float
    """Lambda, the weight of the judge's differences in `corrected`, in [0, 1]; NaN where that is."""
    correlation: float
    """Between the judge's and the labels' differences on the labelled chunks; NaN where either does not vary."""
    width_ratio: float
    """Width of the corrected interval over that of the labels' own, also where it was not used; NaN without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DifferentialError:
    """How much the judge favours candidate b over candidate a."""

    estimate: Estimate
    """Judge's difference minus the labels' difference; positive when the judge favours b."""
    p_value: float
    """Two-sided, of the hypothesis that it favours neither: of the exact sign-flip test, or from the interval where chunks were drawn with
    unequal probabilities or weigh differently; NaN without that interval."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """Differences of all chunks, and which of them are labelled."""

    judged: Floats
    labelled: Floats
    """NaN where a chunk is not labelled."""
    sizes: Floats
    """Items of each chunk, times the weight of the chunk."""
    inverse: Floats
    """One over the probability of being drawn, for the labelled chunks; ones where all were drawn alike."""
    sampling: Floats
    """Weights of the labelled chunks in the run; ones where all weigh the same."""
    is_equal: bool
    """Whether all chunks had the same probability, and weigh the same in the run."""

    @property
    def chosen(self) -> Bools:
        """Labelled chunks."""
        return np.asarray(~np.isnan(self.labelled))

    @property
    def weights(self) -> Floats:
        """Items of each chunk over their mean."""
        return np.asarray(self.sizes / self.sizes.mean())

    @property
    def expansion(self) -> Floats:
        """Weights of the labelled chunks, with mean 1: items over probability."""
        weights = self.sizes[self.chosen] * self.inverse
        return np.asarray(weights / weights.mean())

    @property
    def leverage(self) -> Floats:
        """Factor for the residual of each labelled chunk: one of great weight pulls the mean towards itself."""
        a = self.expansion
        return np.ones(len(a)) if self.is_equal else leverage(a)

    @property
    def n_effective(self) -> float:
        """Labelled chunks, less what unequal probabilities cost."""
        return effective_number(self.inverse * self.sampling)

    def hides_a_rare_value(self, values: Floats) -> bool:
        """Whether the labelled chunks of great weight are nearly all alike, where the probabilities differ much.

        The few that stand for many others may hold none of the chunks that differ, and their spread then says nothing.
        """
        return not self.is_equal and hides_a_rare_value(values, self.expansion, self.n_effective)


def _sample(
    judged: ArrayLike,
    labelled: ArrayLike,
    sizes: ArrayLike | None,
    inclusion: ArrayLike | None,
    weights: ArrayLike | None,
) -> _Sample:
    h = as_values(judged, name="judged")
    d = np.asarray(labelled, dtype=np.float64)
    if d.ndim != 1 or np.isinf(d).any():
        raise ValueError(f"labelled must hold a difference or NaN for each chunk, got shape {d.shape}")
    w = np.ones(len(h)) if sizes is None else as_values(sizes, name="sizes")
    pi = np.ones(len(h)) if inclusion is None else np.asarray(inclusion, dtype=np.float64)
    in_run = np.ones(len(h)) if weights is None else as_values(weights, name="weights")
    same_length(judged=h, labelled=d, sizes=w, inclusion=pi, weights=in_run)
    if max(np.abs(h).max(), np.abs(d[~np.isnan(d)]).max(initial=0.0)) > 1 + TINY:
        raise ValueError("differences of rates are between -1 and 1")
    for name, values in (("sizes", w), ("weights", in_run)):
        if not (values > 0).all():
            raise ValueError(f"{name} must be above 0: every chunk has items")
    chosen = ~np.isnan(d)
    if not chosen.any():
        raise ValueError("no chunk is labelled for both candidates: there is nothing to correct with")
    drawn = pi[chosen]
    if not ((drawn > 0) & (drawn <= 1)).all():
        raise ValueError("inclusion must hold the probability, in (0, 1], that each labelled chunk was drawn")
    is_equal = bool(np.ptp(drawn) < TINY) or bool(chosen.all())
    inverse = np.ones(len(drawn)) if is_equal else 1 / drawn
    return _Sample(h, d, w * in_run, inverse, in_run[chosen], is_equal and weights is None)


def corrected_difference(
    judged: ArrayLike,
    labelled: ArrayLike,
    *,
    sizes: ArrayLike | None = None,
    inclusion: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    level: float = 0.95,
) -> CorrectedDifference:
    r"""Difference of two candidates, corrected by chunks that are labelled for both.

    Prediction-powered and paired by chunk: with :math:`D_g` the labels' and :math:`H_g` the judge's difference,
    :math:`\hat\theta = \bar D_L + \beta (\bar H - \bar H_L)`, *L* the *n* labelled of *G* chunks, means weighted by
    `sizes` and, in *L*, by 1/`inclusion`. :math:`\beta` minimises the variance over chunks; :math:`\lambda = \beta (G
    - n)/G` is held within [0, 1]. The interval is for chunks to come, as that of the judged difference is: t on n - 2
    degrees of freedom. Where fewer than 10 labelled chunks differ from the commonest difference, or from the commonest
    error of the judge, two chunks are added, D = 1 and D = -1 with H = 0, so that labels that are all equal do not
    prove an error of 0. Where the probabilities differ so much that fewer than three quarters of the labelled chunks
    are effective, the same holds for the chunks of more than average weight, with two chunks of the greatest weight;
    elsewhere each end is the further one of Student's and Hall's. An interval that is not at least
    5 % shorter than that of the labels alone is not used. Sources: Angelopoulos, Duchi and Zrnic 2023
    (arXiv 2311.01453); Cochran 1977, section 7.

    Args:
        judged: Judge's difference of the rates, b minus a, in each chunk, shape (G,), in [-1, 1].
        labelled: The same from labels, shape (G,); NaN where the chunk is not labelled for both candidates.
        sizes: Items of each chunk, shape (G,); default: every chunk counts the same.
        inclusion: Probability with which each chunk was drawn to be labelled, shape (G,), in (0, 1]; only the
            labelled ones are read. Default: all the same. Draws must depend on nothing but the judge's letters.
        weights: Weight of each chunk in the run, shape (G,), above 0: one over the probability with which it was drawn from the
            documents, whatever the letters. Default: all the same.
        level: Confidence level.

    Returns:
        The difference in [-1, 1]; swapping the candidates changes its sign. With all chunks labelled, the labels' own
        estimate. With fewer than 10 labelled chunks it is that of the labels and its interval is NaN.

    Raises:
        ValueError: No chunk is labelled, a value is out of its range, or the lengths differ.
    """
    check_level(level)
    sample = _sample(judged, labelled, sizes, inclusion, weights)
    chosen, n_chunks = sample.chosen, len(sample.judged)
    n = int(chosen.sum())
    d = sample.labelled[chosen]
    plain = _labels_alone(sample, d, level=level)
    exact = sign_flip_test(sample.sizes[chosen] * d, rng=np.random.default_rng(_SEED))
    labels = agreeing_with_test(plain, exact) if sample.is_equal else plain
    out = CorrectedDifference(
        estimate=labels,
        labels=labels,
        corrected=undefined(_NOTHING, n=n_chunks, n_clusters=n, level=level),
        basis="all labelled" if n == n_chunks else "labels alone",
        p_value=(exact if sample.is_equal else _two_sided(_labels_pivot(sample, d)))
        if labels.has_interval
        else nan,
        p_labels=exact if sample.is_equal else nan,
        tuning=nan,
        correlation=_correlation(d, sample.judged[chosen]),
        width_ratio=nan,
    )
    if n == n_chunks or not labels.has_interval:
        return out
    value, tuning, pivot = _tuned(sample)
    low, high = pivot.ends(level)
    corrected = Estimate(
        value=min(1.0, max(-1.0, value)),
        low=max(-1.0, low),
        high=min(1.0, high),
        level=level,
        method=pivot.method,
        n=n_chunks,
        n_clusters=n,
        reason=warning(n) or labels.reason,
    )
    ratio = (corrected.high - corrected.low) / (plain.high - plain.low)
    out = replace(out, corrected=corrected, tuning=tuning, width_ratio=ratio)
    if not tuning or not pivot.se > 0 or ratio >= WORTH:
        return replace(out, estimate=replace(labels, reason=_joined(_NO_HELP, labels.reason)))
    return replace(out, estimate=corrected, basis="corrected", p_value=_two_sided(pivot))


def differential_error(
    judged: ArrayLike,
    labelled: ArrayLike,
    *,
    sizes: ArrayLike | None = None,
    inclusion: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    level: float = 0.95,
) -> DifferentialError:
    r"""How much the judge favours candidate b: its difference minus that of the labels, on the labelled chunks.

    Mean of :math:`H_g - D_g` with the interval of `paired_difference`, and the exact sign-flip test of it; with unequal probabilities or
    weights, a weighted mean with the interval of `weighted_difference` and its p-value. A judge that
    is as lenient with both candidates has none, however lenient it is.

    Args:
        judged: Judge's difference of the rates, b minus a, in each chunk, shape (G,), in [-1, 1].
        labelled: The same from labels, shape (G,); NaN where the chunk is not labelled for both candidates.
        sizes: Items of each chunk, shape (G,); default: every chunk counts the same.
        inclusion: Probability with which each chunk was drawn to be labelled, shape (G,), in (0, 1]; only the
            labelled ones are read. Default: all the same.
        weights: Weight of each chunk in the run, shape (G,), above 0: one over the probability with which it was drawn from the
            documents, whatever the letters. Default: all the same.
        level: Confidence level.

    Returns:
        The error in [-2, 2]; swapping the candidates changes its sign. The interval is NaN with fewer than 10 labelled
        chunks.

    Raises:
        ValueError: No chunk is labelled, a value is out of its range, or the lengths differ.
    """
    check_level(level)
    sample = _sample(judged, labelled, sizes, inclusion, weights)
    chosen = sample.chosen
    errors = sample.judged[chosen] - sample.labelled[chosen]
    estimate = _labels_alone(sample, errors, level=level)
    if sample.is_equal:
        p_value = sign_flip_test(sample.sizes[chosen] * errors, rng=np.random.default_rng(_SEED))
    else:
        p_value = _two_sided(_labels_pivot(sample, errors)) if estimate.has_interval else nan
    return DifferentialError(estimate=estimate, p_value=p_value)


def _labels_alone(sample: _Sample, values: Floats, *, level: float) -> Estimate:
    """Weighted mean of one value for each labelled chunk, with the interval of the judged difference."""
    n = len(values)
    linear, span = _linearised(sample, values)
    value = float(np.clip((sample.expansion * values).mean(), values.min(), values.max()))
    if sample.is_equal:
        estimate = paired_difference(np.zeros(n), linear, span=span, level=level)
    elif reason := too_few(n):
        estimate = undefined(reason, value=value, n=n, n_clusters=n, level=level)
    else:
        low, high = _labels_pivot(sample, values).ends(level)
        reason = warning(n) or (UNEQUAL if 2 * sample.n_effective < n else None)
        estimate = Estimate(
            value=value, low=low, high=high, level=level, method=_DRAWN, n=n, n_clusters=n, reason=reason
        )
    estimate = replace(estimate, value=value, n=len(sample.judged))
    if not estimate.has_interval:
        return estimate
    limit = max(1.0, float(np.abs(values).max()))
    return replace(estimate, low=max(-limit, estimate.low), high=min(limit, estimate.high))


def _linearised(sample: _Sample, values: Floats) -> tuple[Floats, float]:
    """Values whose mean is the weighted mean and whose spread is its error, and how far one can lie from 0."""
    a = sample.expansion
    mean = float((a * values).mean())
    linear = mean + sample.leverage * a * (values - mean)
    return linear, max(1.0, float(np.abs(linear).max()))


def _labels_pivot(sample: _Sample, values: Floats) -> Pivot:
    weights = sample.sizes[sample.chosen] * sample.inverse
    return weighted_pivot(values, weights, n_effective=sample.n_effective)


def _tuned(sample: _Sample) -> tuple[float, float, Pivot]:
    """Corrected difference, lambda, and what the interval is made from."""
    chosen, n_chunks = sample.chosen, len(sample.judged)
    n, a, w = int(chosen.sum()), sample.expansion, sample.weights
    rest = n_chunks - n
    d, h = sample.labelled[chosen], sample.judged[chosen]
    mean_d, mean_h, mean_all = float((a * d).mean()), float((a * h).mean()), float((w * sample.judged).mean())
    # what each chunk adds to the error: from its label, and from the judge's difference, for beta = 1
    by_label = sample.leverage * a * (d - mean_d)
    by_judge = n / n_chunks * w[chosen] * (h - mean_all) - sample.leverage * a * (h - mean_h)
    all_judged = w * (sample.judged - mean_all) / n_chunks
    unlabelled = all_judged[~chosen]
    if sample.is_equal:
        by_judge = by_judge - by_judge.mean()
        unlabelled = unlabelled - unlabelled.mean()
    from_labelled = n / (n - 1) / n**2
    # a few unlabelled chunks may be alike by chance: their spread is at least that of all
    pooled = rest / (n_chunks - 1) * float((all_judged**2).sum())
    from_rest = max(pooled, rest / max(1, rest - sample.is_equal) * float((unlabelled**2).sum()))
    curvature = from_labelled * float((by_judge**2).sum()) + from_rest
    beta = -from_labelled * float((by_label * by_judge).sum()) / curvature if curvature > TINY else 0.0
    tuning = min(1.0, max(0.0, beta * rest / n_chunks))
    beta = tuning * n_chunks / rest
    value = mean_d + beta * (mean_all - mean_h)
    spread = by_label + beta * by_judge
    method = "prediction-powered difference by chunk, t"
    centre, skew = value, 0.0
    if any(mostly_one_value(values) for values in (d, d - h, d - beta * h)):
        spread = np.append(spread, [1.0, -1.0])
        centre -= 2 / (n + 2) * (mean_d - beta * mean_h)
        method = "prediction-powered difference by chunk, two chunks added, t"
    elif any(sample.hides_a_rare_value(values) for values in (d, d - h, d - beta * h)):
        extra = float(a.max())
        spread = np.append(spread, [extra, -extra])
        method = "prediction-powered difference by chunk, two chunks added, t"
    m = len(spread)
    variance = float((spread**2).sum()) / (m - 2) / m + beta**2 * from_rest
    se = sqrt(variance) if variance > TINY**2 else 0.0
    if m == n and se > 0:
        skew = float((spread**3).mean()) / n**2 / se**3 / 3
        method += ", skewness guard"
    return value, tuning, Pivot(centre, se, max(1.0, sample.n_effective - 2), skew, method)


def scaled_inclusion(inclusion: ArrayLike, labelled: ArrayLike, n_clusters: int) -> Floats:
    r"""Scale the probabilities of a draw of which only a random part was labelled, so that the labelled clusters stand for all.

    After scaling, :math:`\\sum 1/\\pi` over the labelled clusters is `n_clusters`, so that they can be put beside clusters whose
    label is known for certain.

    Args:
        inclusion: Probability with which each cluster was drawn, shape (G,), in (0, 1]; only those of labelled ones are read.
        labelled: Which clusters are labelled, shape (G,), booleans.
        n_clusters: Clusters that could have been drawn, at least as many as are labelled.

    Returns:
        Shape (G,), in (0, 1]; 1 for clusters that are not labelled. Always defined.

    Raises:
        ValueError: No cluster is labelled, or a probability is out of range.
    """
    pi, chosen = np.asarray(inclusion, dtype=np.float64), np.asarray(labelled, dtype=bool)
    drawn = pi[chosen]
    if not len(drawn) or not ((drawn > 0) & (drawn <= 1)).all() or n_clusters < len(drawn):
        raise ValueError(
            "need a labelled cluster, probabilities in (0, 1] and no fewer clusters than labelled ones"
        )
    scaled = np.ones(len(pi))
    scaled[chosen] = np.minimum(1.0, drawn * float((1 / drawn).sum()) / n_clusters)
    return scaled


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectedRate:
    """The rate of a candidate as the labels have it, the judge's error taken off."""

    estimate: Estimate
    """The rate to act on: `n_clusters` counts the clusters with labels, `n` all items."""
    labels: Estimate
    """The rate from the labelled items alone."""
    corrected: Estimate
    """The rate from labels and judge, whether used or not; NaN where there is nothing to correct."""
    basis: Basis
    """What `estimate` rests on."""
    width_ratio: float
    """Width of the corrected interval over that of the labels' own, also where it was not used; NaN without one."""
    unlabelled: tuple[int, ...]
    """Letters of the judge without a label, which borrow the rate of the nearest letter and any rate for the interval;
    the number of levels stands for items to which the judge gave no letter."""


@dataclass(frozen=True, slots=True)
class _Letters:
    """Items with their strata, and which of them are labelled."""

    hits: Floats
    """1 or 0 by label, NaN where an item is not labelled; shape (n_items,)."""
    strata: Ints
    """Judge's letter, `n_levels` where it gave none, -1 where the candidate failed: the label is then known."""
    clusters: Ints
    n_clusters: int
    inverse: Floats
    """Weight over the probability of being drawn, for labelled items; 1 for the others, and where these are all the same."""
    is_equal: bool
    weights: Floats
    """Weight of each item, with mean 1."""

    @property
    def chosen(self) -> Bools:
        """Labelled items that did not fail."""
        return np.asarray(~np.isnan(self.hits) & (self.strata >= 0))

    @property
    def n_labelled(self) -> int:
        """Clusters with labelled items."""
        return len(np.unique(self.clusters[self.chosen]))

    def by_cluster(self, values: Floats) -> Floats:
        return np.asarray(np.bincount(self.clusters, weights=values, minlength=self.n_clusters))


def corrected_rate(
    judged: ArrayLike,
    labelled: ArrayLike,
    clusters: ArrayLike,
    *,
    n_levels: int,
    target: Sequence[int] = (0,),
    failed: ArrayLike | None = None,
    inclusion: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    level: float = 0.95,
) -> CorrectedRate:
    r"""Rate of items with a target letter, corrected by the labels of some of them.

    Post-stratified by the judge's letter: :math:`\hat\theta = \sum_j W_j \hat\mu_j`, with :math:`W_j` the share of all
    items, by weight, to which the judge gave letter *j* and :math:`\hat\mu_j` the rate by label among them. Each :math:`\hat\mu_j` has
    Wilson's interval :math:`[l_j, u_j]` for its number of labels over the design effect of the clusters, so that a
    letter whose few labels all agree is not taken to be certain (where fewer than 5 labelled clusters, or an eighth, hold
    the rarer outcome, Clopper and Pearson's end where that is further out), and :math:`\sqrt{\sum_j W_j^2 (\hat\mu_j - l_j)^2 + t^2
    v}` goes down from the value, with :math:`v` the clustered variance of the shares; upwards alike. The interval is
    for clusters to come. One that is not at least 5 % shorter than that of the labels alone is not used. Sources:
    Cochran 1977, section 5A.9; Zou and Donner 2008 (the recovery of variances); Fisch et al. 2024 (arXiv 2406.04291).

    Args:
        judged: Judge's letter of each item, shape (n_items,), codes in ``range(n_levels)``; NaN where it gave none.
        labelled: Label of each item, shape (n_items,), codes; NaN where an item is not labelled.
        clusters: Cluster of each item, shape (n_items,), any labels.
        n_levels: Number of letters on the scale.
        target: Letters that count: ``(0,)`` for the best, ``(0, 1)`` for the best two.
        failed: Items that the candidate failed to make, shape (n_items,), booleans. They have the worst letter for
            certain, whatever the other arrays hold.
        inclusion: Probability with which each item was drawn to be labelled, shape (n_items,), in (0, 1]; only those of
            labelled items are read. Default: the same for all items that did not fail. Draws must depend on nothing
            but the judge's letters.
        weights: Weight of each item in the run, shape (n_items,), above 0: one over the probability with which it was drawn from
            the documents, whatever the letters. Default: all the same.
        level: Confidence level.

    Returns:
        A rate in [0, 1]; swapping target and other letters mirrors it. With all items labelled, the labels' own
        estimate, `clustered_rate`. The interval is NaN with fewer than 10 labelled clusters.

    Raises:
        ValueError: No item is labelled, a value is out of its range, or the lengths differ.
    """
    check_level(level)
    data = _letters(judged, labelled, clusters, n_levels, target, failed, inclusion, weights)
    n, n_labelled = len(data.hits), data.n_labelled
    complete = bool((data.chosen | (data.strata < 0)).all())
    present = np.unique(data.strata[data.strata >= 0]).tolist()
    labels = _rate_by_labels(data, complete=complete, level=level)
    out = CorrectedRate(
        estimate=labels,
        labels=labels,
        corrected=undefined(_NOTHING, n=n, n_clusters=n_labelled, level=level),
        basis="all labelled" if complete else "labels alone",
        width_ratio=nan,
        unlabelled=tuple(j for j in present if not (data.chosen & (data.strata == j)).any()),
    )
    if complete or not labels.has_interval:
        return out
    corrected = _post_stratified(
        data, data.strata, level=level, method="post-stratified by letter, Wilson, t"
    )
    # what the judge is worth is seen with the same kind of interval; that of `labels` may be a wider one
    pooled = _post_stratified(data, np.minimum(data.strata, 0), level=level, method=corrected.method)
    width, narrowest = corrected.high - corrected.low, min(labels.high - labels.low, pooled.high - pooled.low)
    out = replace(out, corrected=corrected, width_ratio=width / (labels.high - labels.low))
    if width >= WORTH * narrowest:
        return replace(out, estimate=replace(labels, reason=_joined(_NO_HELP, labels.reason)))
    return replace(out, estimate=corrected, basis="corrected")


def _letters(
    judged: ArrayLike,
    labelled: ArrayLike,
    clusters: ArrayLike,
    n_levels: int,
    target: Sequence[int],
    failed: ArrayLike | None,
    inclusion: ArrayLike | None,
    weights: ArrayLike | None,
) -> _Letters:
    j, y = (np.asarray(values, dtype=np.float64) for values in (judged, labelled))
    lost = np.zeros(j.shape, dtype=bool) if failed is None else np.asarray(failed, dtype=bool)
    pi = np.ones(j.shape) if inclusion is None else np.asarray(inclusion, dtype=np.float64)
    w = np.ones(j.shape) if weights is None else as_values(weights, name="weights")
    same_length(judged=j, labelled=y, failed=lost, inclusion=pi, weights=w)
    if not (w > 0).all():
        raise ValueError("weights must be above 0")
    for name, values in (("judged", j), ("labelled", y)):
        if not np.isnan(values).all():
            as_codes(values[~np.isnan(values)], n_levels=n_levels, name=name)
    counted = sorted(set(target))
    if not counted or not set(counted) < set(range(n_levels)):
        raise ValueError(f"target must name some of the letters in range({n_levels}), got {tuple(target)!r}")
    codes, n_clusters = cluster_codes(clusters, n=len(j))
    hits = np.where(np.isnan(y), nan, np.isin(y, counted))
    hits[lost] = n_levels - 1 in counted
    strata = np.where(lost, -1, np.where(np.isnan(j), n_levels, j)).astype(np.int64)
    chosen = ~np.isnan(hits) & ~lost
    if not chosen.any() and not lost.all():
        raise ValueError("no item is labelled: there is nothing to correct with")
    drawn = pi[chosen]
    if not ((drawn > 0) & (drawn <= 1)).all():
        raise ValueError("inclusion must hold the probability, in (0, 1], that each labelled item was drawn")
    inverse = np.ones(len(j))
    w = w / w.mean()
    is_equal = bool(max(np.ptp(drawn), np.ptp(w)) < TINY) if len(drawn) else True
    if not is_equal:
        inverse[chosen] = w[chosen] / drawn
    return _Letters(hits, strata, codes, n_clusters, inverse, is_equal, w)


def _rate_by_labels(data: _Letters, *, complete: bool, level: float) -> Estimate:
    """Rate from the labels alone: of the labelled items, and of those that failed, whose label is known."""
    if complete or (data.is_equal and (data.strata >= 0).all()):
        known = ~np.isnan(data.hits)
        rate = clustered_rate(
            data.by_cluster(np.where(known, data.weights * data.hits, 0.0)),
            data.by_cluster(data.weights * known),
            level=level,
        )
        return replace(rate, n=len(data.hits))
    return _post_stratified(
        data, np.minimum(data.strata, 0), level=level, method="labelled items weighted, Wilson, t"
    )


@dataclass(frozen=True, slots=True)
class _Stratum:
    """Items that the judge gave one letter."""

    within: Bools
    """Which items, shape (n_items,)."""
    picked: Bools
    """Which of them are labelled."""
    rate: float
    """Share of hits by label; from the nearest letters with labels where there is none."""
    size: float
    """Labels, less what unequal probabilities cost: Kish's effective number."""
    share: float
    """Share of all items, by weight."""

    def bounds(self, deff: float, t: float, level: float, *, is_rare: bool) -> tuple[float, float]:
        """Wilson's interval of the rate, where one outcome is rare joined with Clopper and Pearson's; 0 to 1 without labels."""
        if not self.size:
            return 0.0, 1.0
        n = self.size / deff
        low, high = wilson_bounds(self.rate, n, t)
        if not is_rare:
            return low, high
        exact = clopper_pearson(self.rate * n, n, level=level)
        return min(low, exact.low), max(high, exact.high)


def _strata(data: _Letters, letters: Ints) -> list[_Stratum]:
    rates, sizes = {}, {}
    for letter in np.unique(letters[data.chosen]).tolist():
        picked = data.chosen & (letters == letter)
        u = data.inverse[picked]
        rates[letter] = float((u * data.hits[picked]).sum() / u.sum())
        sizes[letter] = effective_number(u)
    out = []
    for letter in np.unique(letters[letters >= 0]).tolist():
        within = letters == letter
        nearest = min(abs(letter - other) for other in rates)
        rate = float(np.mean([rates[other] for other in rates if abs(letter - other) == nearest]))
        share = float((data.weights * within).mean())
        out.append(_Stratum(within, within & data.chosen, rate, sizes.get(letter, 0.0), share))
    return out


def _post_stratified(data: _Letters, letters: Ints, *, level: float, method: str) -> Estimate:
    """Weighted mean of the strata's rates; see `corrected_rate`."""
    n, n_labelled, strata = len(letters), data.n_labelled, _strata(data, letters)
    expected, by_label = np.where(letters < 0, data.hits, 0.0), np.zeros(n)
    for stratum in strata:
        expected[stratum.within] = stratum.rate
        u = data.inverse[stratum.picked]
        by_label[stratum.picked] = (
            stratum.share * u / u.sum() * (data.hits[stratum.picked] - stratum.rate) if len(u) else 0.0
        )
    value = float((data.weights * expected).mean())
    if reason := too_few(n_labelled):
        return undefined(reason, value=value, method=method, n=n, n_clusters=n_labelled, level=level)
    by_share = data.weights * (expected - value) / n
    from_shares = _cr1_variance(data.by_cluster(by_share))
    total = _cr1_variance(data.by_cluster(by_label + by_share))
    rarity = _rarity(data)
    deff = _design_effect(data, strata, total - from_shares, rarity)
    weights = data.inverse[data.chosen]
    t = t_quantile(level, max(1.0, n_labelled * effective_number(weights) / len(weights) - 1))
    below = above = t**2 * from_shares
    for stratum in strata:
        low, high = stratum.bounds(deff, t, level, is_rare=rarity < RARE)
        below += (stratum.share * (stratum.rate - low)) ** 2
        above += (stratum.share * (high - stratum.rate)) ** 2
    return Estimate(
        value=value,
        low=max(0.0, value - sqrt(below)),
        high=min(1.0, value + sqrt(above)),
        level=level,
        method=method,
        n=n,
        n_clusters=n_labelled,
        reason=warning(n_labelled),
    )


def _cr1_variance(by_cluster: Floats) -> float:
    return len(by_cluster) / (len(by_cluster) - 1) * float((by_cluster**2).sum())


def _rarity(data: _Letters) -> float:
    """Labelled clusters that hold the rarer outcome, over 10 or a quarter of all: below 1 they are few."""
    clusters, hits = data.clusters[data.chosen], data.hits[data.chosen]
    n_rarer = min(len(np.unique(clusters[hits == outcome])) for outcome in (0, 1))
    return n_rarer / min(FEW, data.n_labelled / 4)


def _design_effect(data: _Letters, strata: list[_Stratum], variance: float, rarity: float) -> float:
    """Variance of the labels' part over that of independent items; at least 1.

    Where few clusters hold the rarer outcome the data cannot tell how alike the items of a cluster are: they are taken
    to be equal there, and less and less so with up to twice as many clusters.
    """
    independent = sum(s.share**2 * s.rate * (1 - s.rate) / s.size for s in strata if s.size)
    deff = max(1.0, variance / independent) if independent > TINY else 1.0
    doubt = min(1.0, max(0.0, 2 - rarity))
    per_cluster = np.bincount(data.clusters[data.chosen])
    return max(deff, 1 + doubt * (float((per_cluster**2).sum() / per_cluster.sum()) - 1))


def _two_sided(pivot: Pivot) -> float:
    return min(1.0, 2 * min(pivot.tails(0.0)))


def _correlation(d: Floats, h: Floats) -> float:
    if len(d) < 2 or np.ptp(d) < TINY or np.ptp(h) < TINY:
        return nan
    return float(np.corrcoef(d, h)[0, 1])


def _joined(*reasons: str | None) -> str:
    return "; ".join(reason for reason in reasons if reason)
