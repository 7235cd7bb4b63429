"""What labels of some chunks say about all of them, with the judge's letters as a help and never as a witness.

The labels are a sample of the run, with known probabilities of being drawn; the judge has graded everything. The
judge's letters then make the estimate from the labels more precise, however wrong they are: what the judge gets
wrong is measured on the labelled chunks and taken off. Where the judge does not help, the estimate is that of the
labels alone, and where everything is labelled, too.
"""

from dataclasses import dataclass, replace
from math import nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from qaeval.stats._arrays import TINY, Floats, as_values, check_level, same_length
from qaeval.stats.estimate import Estimate, too_few, undefined, warning
from qaeval.stats.paired import Pivot, mostly_one_value, paired_difference, sign_flip_test, t_pivot

Basis = Literal["all labelled", "corrected", "labels alone"]
"""What an estimate rests on: all labels; labels and judge; or labels, because the judge would not help."""

WORTH = 0.95
"""A corrected interval must be shorter than so much of the labels' own, else the judge adds nothing."""
_NOTHING = "all chunks are labelled, or fewer than 10: the labels speak alone"
_NO_HELP = "the judge adds nothing: the estimate is that of the labels alone"
_SEED = 20_240_229
"""Of the sign patterns, drawn only where the test cannot be exact."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectedDifference:
    """The difference of two candidates as the labels have it, the judge's error taken off."""

    estimate: Estimate
    """The difference to act on: `n_clusters` counts the labelled chunks, `n` all of them."""
    labels: Estimate
    """The difference from the labelled chunks alone."""
    corrected: Estimate
    """The difference from labels and judge, whether used or not; NaN where there is nothing to correct."""
    basis: Basis
    """What `estimate` rests on."""
    p_value: float
    """Two-sided, of the hypothesis that the difference is 0, from the data of `estimate`; NaN without an interval.

    The exact sign-flip test where `estimate` rests on labels drawn with equal probabilities, else from the interval.
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
    """Of the exact sign-flip test that it favours neither; NaN where unequal probabilities allow no exact test."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """Differences of all chunks, and which of them are labelled."""

    judged: Floats
    labelled: Floats
    """NaN where a chunk is not labelled."""
    sizes: Floats
    """Items of each chunk."""
    inverse: Floats
    """One over the probability of being drawn, for the labelled chunks; ones where all were drawn alike."""
    is_equal: bool
    """Whether all chunks had the same probability."""

    @property
    def chosen(self) -> np.ndarray:
        return ~np.isnan(self.labelled)

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
    def n_effective(self) -> float:
        """Labelled chunks, less what unequal probabilities cost: Kish's effective number."""
        return float(self.inverse.sum() ** 2 / (self.inverse**2).sum())


def _sample(
    judged: ArrayLike, labelled: ArrayLike, sizes: ArrayLike | None, inclusion: ArrayLike | None
) -> _Sample:
    h = as_values(judged, name="judged")
    d = np.asarray(labelled, dtype=np.float64)
    if d.ndim != 1 or np.isinf(d).any():
        raise ValueError(f"labelled must hold a difference or NaN for each chunk, got shape {d.shape}")
    w = np.ones(len(h)) if sizes is None else as_values(sizes, name="sizes")
    pi = np.ones(len(h)) if inclusion is None else np.asarray(inclusion, dtype=np.float64)
    same_length(judged=h, labelled=d, sizes=w, inclusion=pi)
    if max(np.abs(h).max(), np.abs(d[~np.isnan(d)]).max(initial=0.0)) > 1 + TINY:
        raise ValueError("differences of rates are between -1 and 1")
    if not (w > 0).all():
        raise ValueError("sizes must be above 0: every chunk has items")
    chosen = ~np.isnan(d)
    if not chosen.any():
        raise ValueError("no chunk is labelled for both candidates: there is nothing to correct with")
    drawn = pi[chosen]
    if not ((drawn > 0) & (drawn <= 1)).all():
        raise ValueError("inclusion must hold the probability, in (0, 1], that each labelled chunk was drawn")
    is_equal = bool(np.ptp(drawn) < TINY) or bool(chosen.all())
    inverse = np.ones(len(drawn)) if is_equal else 1 / drawn
    return _Sample(h, d, w, inverse, is_equal)


def corrected_difference(
    judged: ArrayLike,
    labelled: ArrayLike,
    *,
    sizes: ArrayLike | None = None,
    inclusion: ArrayLike | None = None,
    level: float = 0.95,
) -> CorrectedDifference:
    r"""Difference of two candidates, corrected by chunks that are labelled for both.

    Prediction-powered and paired by chunk: with :math:`D_g` the labels' and :math:`H_g` the judge's difference,
    :math:`\hat\theta = \bar D_L + \beta (\bar H - \bar H_L)`, *L* the *n* labelled of *G* chunks, means weighted by
    `sizes` and, in *L*, by 1/`inclusion`. :math:`\beta` minimises the variance over chunks; :math:`\lambda = \beta (G
    - n)/G` is held within [0, 1]. The interval is for chunks to come, as that of the judged difference is: t on n - 2
    degrees of freedom. Where fewer than 10 labelled chunks differ from the commonest difference, or from the commonest
    error of the judge, two chunks are added, D = 1 and D = -1 with H = 0, so that labels that are all equal do not
    prove an error of 0; elsewhere each end is the further one of Student's and Hall's. An interval that is not at least
    5 % shorter than that of the labels alone is not used. Sources: Angelopoulos, Duchi and Zrnic 2023
    (arXiv 2311.01453); Cochran 1977, section 7.

    Args:
        judged: Judge's difference of the rates, b minus a, in each chunk, shape (G,), in [-1, 1].
        labelled: The same from labels, shape (G,); NaN where the chunk is not labelled for both candidates.
        sizes: Items of each chunk, shape (G,); default: every chunk counts the same.
        inclusion: Probability with which each chunk was drawn to be labelled, shape (G,), in (0, 1]; only the
            labelled ones are read. Default: all the same. Draws must depend on nothing but the judge's letters.
        level: Confidence level.

    Returns:
        The difference in [-1, 1]; swapping the candidates changes its sign. With all chunks labelled, the labels' own
        estimate. With fewer than 10 labelled chunks it is that of the labels and its interval is NaN.

    Raises:
        ValueError: No chunk is labelled, a value is out of its range, or the lengths differ.
    """
    check_level(level)
    sample = _sample(judged, labelled, sizes, inclusion)
    chosen, n_chunks = sample.chosen, len(sample.judged)
    n = int(chosen.sum())
    d = sample.labelled[chosen]
    labels = _labels_alone(sample, d, level=level)
    exact = sign_flip_test(sample.sizes[chosen] * d, rng=np.random.default_rng(_SEED))
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
        reason=warning(n),
    )
    ratio = (corrected.high - corrected.low) / (labels.high - labels.low)
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
    level: float = 0.95,
) -> DifferentialError:
    r"""How much the judge favours candidate b: its difference minus that of the labels, on the labelled chunks.

    Mean of :math:`H_g - D_g` with the interval of `paired_difference`, and the exact sign-flip test of it. A judge that
    is as lenient with both candidates has none, however lenient it is.

    Args:
        judged: Judge's difference of the rates, b minus a, in each chunk, shape (G,), in [-1, 1].
        labelled: The same from labels, shape (G,); NaN where the chunk is not labelled for both candidates.
        sizes: Items of each chunk, shape (G,); default: every chunk counts the same.
        inclusion: Probability with which each chunk was drawn to be labelled, shape (G,), in (0, 1]; only the
            labelled ones are read. Default: all the same.
        level: Confidence level.

    Returns:
        The error in [-2, 2]; swapping the candidates changes its sign. The interval is NaN with fewer than 10 labelled
        chunks.

    Raises:
        ValueError: No chunk is labelled, a value is out of its range, or the lengths differ.
    """
    check_level(level)
    sample = _sample(judged, labelled, sizes, inclusion)
    chosen = sample.chosen
    errors = sample.judged[chosen] - sample.labelled[chosen]
    test = sign_flip_test(sample.sizes[chosen] * errors, rng=np.random.default_rng(_SEED))
    return DifferentialError(
        estimate=_labels_alone(sample, errors, level=level), p_value=test if sample.is_equal else nan
    )


def _labels_alone(sample: _Sample, values: Floats, *, level: float) -> Estimate:
    """Weighted mean of one value for each labelled chunk, with the interval of the judged difference."""
    n = len(values)
    linear, span = _linearised(sample, values)
    value = float((sample.expansion * values).mean())
    if sample.is_equal:
        estimate = paired_difference(np.zeros(n), linear, span=span, level=level)
    elif reason := too_few(n):
        estimate = undefined(reason, value=value, n=n, n_clusters=n, level=level)
    else:
        low, high = _labels_pivot(sample, values).ends(level)
        estimate = Estimate(
            value=value, low=low, high=high, level=level, method=_DRAWN, n=n, n_clusters=n, reason=warning(n)
        )
    estimate = replace(estimate, value=value, n=len(sample.judged))
    if not estimate.has_interval:
        return estimate
    limit = max(1.0, float(np.abs(values).max()))
    return replace(estimate, low=max(-limit, estimate.low), high=min(limit, estimate.high))


_DRAWN = "labelled chunks weighted by probability, t"


def _linearised(sample: _Sample, values: Floats) -> tuple[Floats, float]:
    """Values whose mean is the weighted mean and whose spread is its error, and how far one can lie from 0."""
    a = sample.expansion
    mean = float((a * values).mean())
    linear = mean + a * (values - mean)
    return linear, max(1.0, float(np.abs(linear).max()))


def _labels_pivot(sample: _Sample, values: Floats) -> Pivot:
    linear, span = _linearised(sample, values)
    return replace(t_pivot(linear, span=span), df=sample.n_effective - 1)


def _tuned(sample: _Sample) -> tuple[float, float, Pivot]:
    """Corrected difference, lambda, and what the interval is made from."""
    chosen, n_chunks = sample.chosen, len(sample.judged)
    n, a, w = int(chosen.sum()), sample.expansion, sample.weights
    rest = n_chunks - n
    d, h = sample.labelled[chosen], sample.judged[chosen]
    mean_d, mean_h, mean_all = float((a * d).mean()), float((a * h).mean()), float((w * sample.judged).mean())
    # what each chunk adds to the error: from its label, and from the judge's difference, for beta = 1
    by_label = a * (d - mean_d)
    by_judge = n / n_chunks * w[chosen] * (h - mean_all) - a * (h - mean_h)
    unlabelled = w[~chosen] * (sample.judged[~chosen] - mean_all) / n_chunks
    if sample.is_equal:
        by_judge = by_judge - by_judge.mean()
        unlabelled = unlabelled - unlabelled.mean()
    from_labelled = n / (n - 1) / n**2
    from_rest = rest / (rest - 1) if rest > 1 and sample.is_equal else 1.0
    curvature = from_labelled * float((by_judge**2).sum()) + from_rest * float((unlabelled**2).sum())
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
    m = len(spread)
    variance = float((spread**2).sum()) / (m - 2) / m + beta**2 * from_rest * float((unlabelled**2).sum())
    se = sqrt(variance) if variance > TINY**2 else 0.0
    if m == n and se > 0:
        skew = float((spread**3).mean()) / n**2 / se**3 / 3
        method += ", skewness guard"
    return value, tuning, Pivot(centre, se, sample.n_effective - 2, skew, method)


def _two_sided(pivot: Pivot) -> float:
    return min(1.0, 2 * min(pivot.tails(0.0)))


def _correlation(d: Floats, h: Floats) -> float:
    if len(d) < 2 or np.ptp(d) < TINY or np.ptp(h) < TINY:
        return nan
    return float(np.corrcoef(d, h)[0, 1])


def _joined(*reasons: str | None) -> str:
    return "; ".join(reason for reason in reasons if reason)
