"""Two candidates on the same chunks: their difference, a test of it, and tests of many at once."""

from dataclasses import dataclass, replace
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from qaeval.stats._arrays import TINY, Floats, Ints, as_values, check_level, cluster_codes, same_length
from qaeval.stats.estimate import Estimate, too_few, undefined, warning
from qaeval.stats.homogeneity import TestResult
from qaeval.stats.intervals import t_interval, t_quantile

_FEW_DIFFERENT = 10
"""With fewer chunks that differ, Student's interval covers as little as 88 % (docs/validity.md)."""
_NO_SKEW = 1e-9
"""Hall's correction divides by the skewness; below this it is the identity."""
_MAX_LATTICE = 5040
"""Largest common denominator of the differences: a multiple of 1 to 10, the usual sizes of a chunk."""
_MAX_LATTICE_SCALE = 1e6
"""Beyond it a double has too few digits left to tell a multiple of a fraction from a neighbour."""
_MAX_ENUMERATED = 20
"""2^20 sign patterns are 8 MB."""
_MANY = 10_000
"""Chunks from which random sign patterns are drawn by sizes, if these are at most `_MAX_SIZES`."""
_MAX_SIZES = 1_000
_MAX_LATTICE_STEPS = 20_000_000
"""The exact law of the sum has as many points, 160 MB."""
_EVEN = 0.75
"""With so many effective chunks, as a share of all, the weights of chunks differ little."""
_UNSEEN = 3
"""With fewer different values among the chunks of great weight, their spread says little."""
UNEQUAL = "the probabilities of being drawn differ so much that the interval is rough"
_WEIGHTED = "paired difference by chunk, weighted by probability, t"
_DIRECT_WORK = 10_000_000
"""Beyond so many multiplications a Fourier transform is quicker; below, direct sums keep tiny tails exact."""


def chunk_differences(mean_a_by_chunk: ArrayLike, mean_b_by_chunk: ArrayLike) -> tuple[Floats, int]:
    """Return b minus a for the chunks that both have, and the number of chunks left out (a NaN in either)."""
    a = np.asarray(mean_a_by_chunk, dtype=np.float64)
    b = np.asarray(mean_b_by_chunk, dtype=np.float64)
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(f"means must be one-dimensional, got shapes {a.shape} and {b.shape}")
    same_length(mean_a_by_chunk=a, mean_b_by_chunk=b)
    if np.isinf(a).any() or np.isinf(b).any():
        raise ValueError("the means of the chunks must be finite, or NaN where a chunk has none")
    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        raise ValueError("no chunk has a mean for both candidates: there is nothing to compare")
    return b[both] - a[both], int((~both).sum())


def paired_difference(
    mean_a_by_chunk: ArrayLike,
    mean_b_by_chunk: ArrayLike,
    *,
    level: float = 0.95,
    span: float | None = 1.0,
) -> Estimate:
    r"""Mean over chunks of candidate b minus candidate a, with a Student interval over chunks.

    With :math:`D_g = \bar b_g - \bar a_g` the value is :math:`\bar D` and the standard error
    :math:`\sqrt{\sum (D_g - \bar D)^2 / (G (G-1))}`, t on G - 1 degrees of freedom. Every chunk has one vote.
    Positive means that **b** is higher. Source: Miller 2024 (arXiv 2411.00640).

    Two corrections for data within a span; ``benchmarks/validity.py`` finds that plain Student intervals fall
    to 88 % without them, and that a candidate that loses the whole margin passes a gate in up to 17 % of the
    runs instead of 5. Where fewer than 10 chunks differ from the most frequent difference (good candidates
    mostly tie), two chunks are added to the interval's data, one with D = span and one with D = -span, as
    Bonett and Price (2012) do for single pairs; the value stays as it is. Elsewhere each end is the further
    one of Student's and Hall's (1992) skewness-corrected end: a few lost chunks among many ties skew the
    mean.

    Args:
        mean_a_by_chunk: Mean of candidate a in each chunk, shape (G,); NaN where the chunk has none.
        mean_b_by_chunk: The same for candidate b, on the same chunks in the same order.
        level: Confidence level.
        span: Largest possible difference: 1 for rates and scores in [0, 1]. None for measurements without a
            bound (seconds, tokens), and then, as for differences beyond the span, no chunks are added.

    Returns:
        The difference, in [-span, span] or in the unit of the measurements; swapping the candidates changes
        its sign. `n` and `n_clusters` count the chunks that both have, `n_excluded` the others. The interval
        is NaN with fewer than 10 chunks, and without a span when all chunks show one difference.

    Raises:
        ValueError: No chunk has both means, a mean is infinite, or the lengths differ.
    """
    check_level(level)
    d, n_excluded = chunk_differences(mean_a_by_chunk, mean_b_by_chunk)
    n_chunks, value = len(d), float(d.mean())
    pivot = t_pivot(d, span=span)
    estimate = replace(
        t_interval(
            pivot.centre,
            pivot.se,
            n=n_chunks,
            n_clusters=n_chunks,
            n_excluded=n_excluded,
            level=level,
            method=pivot.method,
        ),
        value=value,
    )
    if span is None or not estimate.has_interval:
        return estimate
    low, high = pivot.ends(level)
    widest = max(span, float(np.abs(d).max()))
    return replace(estimate, low=max(-widest, low), high=min(widest, high))


@dataclass(frozen=True, slots=True)
class Pivot:
    """What Student's t is applied to."""

    centre: float
    """Middle of the interval."""
    se: float
    """Standard error; 0 when the data show no spread, NaN for one chunk."""
    df: float
    """Degrees of freedom."""
    skew: float
    """Hall's correction, skewness / (3 sqrt(G)); 0 for none."""
    method: str
    """Name for the reader."""

    def ends(self, level: float) -> tuple[float, float]:
        """Return the ends of the interval: Student's or Hall's, whichever is further out."""
        t = t_quantile(level, self.df)
        low = max(t, self._uncorrected(t))
        high = min(-t, self._uncorrected(-t))
        return self.centre - self.se * low, self.centre - self.se * high

    def tails(self, at: float) -> tuple[float, float]:
        """P-values of the hypotheses that the mean is at most, and at least, `at`; they agree with `ends`."""
        t = (self.centre - at) / self.se
        corrected = t + self.skew * t**2 + self.skew**2 * t**3 / 3 + self.skew / 2
        at_most, at_least = -min(t, corrected), max(t, corrected)
        return float(special.stdtr(self.df, at_most)), float(special.stdtr(self.df, at_least))

    def _uncorrected(self, q: float) -> float:
        """Return the t whose skewness-corrected value is q."""
        if abs(self.skew) < _NO_SKEW:
            return q
        return float((np.cbrt(1 + 3 * self.skew * (q - self.skew / 2)) - 1) / self.skew)


def t_pivot(differences: Floats, *, span: float | None) -> Pivot:
    """Return centre, standard error and corrections of the mean difference; see `paired_difference`."""
    d, df = differences, len(differences) - 1
    if span is None or np.abs(d).max() > span + TINY:
        return Pivot(float(d.mean()), _standard_error(d), df, 0.0, "paired difference by chunk, CR1 t")
    if mostly_one_value(d):
        more = np.append(d, [span, -span])
        method = "paired difference by chunk, two chunks added, t"
        return Pivot(float(more.mean()), _standard_error(more), df, 0.0, method)
    se, skew = _standard_error(d), 0.0
    if se > 0:
        third = float(((d - d.mean()) ** 3).mean()) / (se * np.sqrt(len(d))) ** 3
        skew = float(third / (3 * np.sqrt(len(d))))
    return Pivot(float(d.mean()), se, df, skew, "paired difference by chunk, CR1 t, skewness guard")


def effective_number(weights: ArrayLike) -> float:
    r"""Number of equal weights that would have the same error: :math:`(\sum w)^2 / \sum w^2`.

    Source: Kish 1965, section 11.7.

    Args:
        weights: Weight of each unit, shape (n,), above 0.

    Returns:
        A number in [1, n], n where all weights are equal; their scale does not matter. Always defined.

    Raises:
        ValueError: There are no weights, or one is not above 0.
    """
    w = as_values(weights, name="weights")
    if not (w > 0).all():
        raise ValueError("weights must be above 0")
    return float(w.sum() ** 2 / (w**2).sum())


def weighted_difference(differences: ArrayLike, weights: ArrayLike, *, level: float = 0.95) -> Estimate:
    r"""Weighted mean over chunks of candidate b minus candidate a, where chunks stand for different numbers of others.

    :math:`\hat\Delta = \sum w_g D_g / \sum w_g` (Hájek's form of the Horvitz-Thompson estimator) with a Student interval over
    chunks; see `weighted_pivot` for its standard error, its degrees of freedom and what holds where weights differ much. The draw
    is taken to be one of chunks with replacement, so that strata that differ make the interval wider than it had to be, never
    narrower. Sources: Hájek 1971; Särndal, Swensson and Wretman 1992, section 5.7.

    Args:
        differences: D of each chunk, shape (G,), in [-1, 1].
        weights: Weight of each chunk, shape (G,), above 0: its items over the probability with which it was drawn.
        level: Confidence level.

    Returns:
        The difference in [-1, 1]; swapping the candidates changes its sign, and weights count by their ratios alone. The
        interval is NaN with fewer than 10 chunks, and carries a warning where the weights leave fewer than half of them.

    Raises:
        ValueError: A difference is out of its range, a weight is not above 0, or the lengths differ.
    """
    check_level(level)
    d, w = as_values(differences, name="differences"), as_values(weights, name="weights")
    same_length(differences=d, weights=w)
    if np.abs(d).max() > 1 + TINY:
        raise ValueError("differences of rates are between -1 and 1")
    n, n_effective = len(d), effective_number(w)
    value = float(np.clip((w * d).sum() / w.sum(), d.min(), d.max()))
    if reason := too_few(n):
        return undefined(reason, value=value, method=_WEIGHTED, n=n, n_clusters=n, level=level)
    low, high = weighted_pivot(d, w).ends(level)
    return Estimate(
        value=value,
        low=max(-1.0, low),
        high=min(1.0, high),
        level=level,
        method=_WEIGHTED,
        n=n,
        n_clusters=n,
        reason=warning(n) or (UNEQUAL if 2 * n_effective < n else None),
    )


def weighted_pivot(values: Floats, weights: Floats, *, n_effective: float | None = None) -> Pivot:
    """Return what Student's t is applied to for a weighted mean over chunks whose weights differ.

    A chunk of great weight pulls the mean towards itself, so its residual is too small by its share of the weight, by which it is
    divided. The degrees of freedom are those of the effective chunks. Where the weights differ much and nearly all chunks of more
    than average weight show one value, two chunks of the greatest weight are added, one in favour of each candidate: the few
    that stand for many others may hold none of those that differ, and their spread then says nothing.

    Args:
        values: Difference of each chunk, shape (G,).
        weights: Weight of each chunk, shape (G,), above 0.
        n_effective: Effective chunks; default: those of `weights`.
    """
    n, a = len(values), weights / weights.mean()
    n_effective = effective_number(weights) if n_effective is None else n_effective
    mean = float((a * values).mean())
    linear = mean + leverage(a) * a * (values - mean)
    pivot = t_pivot(linear, span=max(1.0, float(np.abs(linear).max())))
    if hides_a_rare_value(values, a, n_effective):
        variance = (float(((linear - linear.mean()) ** 2).sum()) + 2 * float(a.max()) ** 2) / n / (n + 2)
        pivot = replace(pivot, se=max(pivot.se, sqrt(variance)))
    return replace(pivot, df=max(1.0, n_effective - 1))


def leverage(weights: Floats) -> Floats:
    """Return the factor for the residual of each chunk, from weights of mean 1."""
    return np.asarray(1 / (1 - np.minimum(weights / len(weights), 0.5)))


def hides_a_rare_value(values: Floats, weights: Floats, n_effective: float) -> bool:
    """Whether weights differ much and nearly all chunks of great weight show one value; weights have mean 1."""
    if n_effective > _EVEN * len(weights):
        return False
    heavy = np.round(values[weights > 1], 9)
    n_equal = int(np.unique(heavy, return_counts=True)[1].max())
    return 2 * n_equal > len(heavy) and len(heavy) - n_equal < _UNSEEN


def mostly_one_value(d: Floats) -> bool:
    """Whether most chunks show the same difference and fewer than 10 show another."""
    n_equal = int(np.unique(np.round(d, 9), return_counts=True)[1].max())
    return 2 * n_equal > len(d) and len(d) - n_equal < _FEW_DIFFERENT


def _standard_error(d: Floats) -> float:
    if len(d) < 2:
        return nan
    spread = float(np.std(d, ddof=1))
    return float(spread / np.sqrt(len(d))) if spread > TINY else 0.0


def agreeing_with_test(estimate: Estimate, p_value: float) -> Estimate:
    r"""Interval of a difference, made to agree with the test that decides whether there is one.

    The end nearer to 0 becomes 0 where the interval leaves out 0 and the test does not reject it, and where
    the interval holds 0 and the test rejects it (0 is then an end that does not belong to the interval). What
    is left out of a 95 % interval where the true difference is 0 is then exactly what the test rejects.

    Args:
        estimate: Difference with its interval, of `paired_difference`.
        p_value: Two-sided p-value of the hypothesis that the difference is 0, of `sign_flip_test`.

    Returns:
        The difference in its unit; swapping the candidates mirrors it. Unchanged without an interval.
    """
    if not estimate.has_interval:
        return estimate
    is_rejected = p_value <= 1 - estimate.level + TINY
    leaves_out_zero = estimate.low > 0 or estimate.high < 0
    if is_rejected == leaves_out_zero:
        return estimate
    method = f"{estimate.method}; its end at 0 by the sign-flip test"
    if estimate.value > 0:
        return replace(estimate, low=0.0, method=method)
    return replace(estimate, high=0.0, method=method)


def sign_flip_test(
    differences: ArrayLike,
    *,
    alternative: str = "two-sided",
    rng: np.random.Generator | None = None,
    n_resamples: int = 9999,
) -> float:
    r"""P-value of the sign-flip test: could the labels of the two candidates be swapped within every chunk?

    The statistic is :math:`S = \sum_g D_g`; under the null hypothesis each sign pattern is equally likely.
    Exact for any number of chunks when the differences are multiples of one fraction (rates of a few items
    are), and for up to 20 chunks otherwise; else by `n_resamples` random patterns, as (hits+1)/(patterns+1).
    Source: Fisher 1935, section 21.

    Args:
        differences: D of each chunk, shape (G,).
        alternative: ``"two-sided"`` (:math:`|S|` as large), ``"greater"`` or ``"less"``.
        rng: Needed only where patterns are drawn.
        n_resamples: Patterns drawn there.

    Returns:
        A probability in (0, 1]; 1 when all differences are 0. Always defined. Two-sided it does not change
        with the sign of the differences.

    Raises:
        ValueError: A difference is not finite, the alternative is unknown, or `rng` is missing where needed.
    """
    d = as_values(differences, name="differences")
    if alternative not in {"two-sided", "greater", "less"}:
        raise ValueError(f"alternative must be 'two-sided', 'greater' or 'less', got {alternative!r}")
    if alternative == "less":
        d = -d
    two_sided = alternative == "two-sided"
    steps = lattice_steps(d)
    if steps is not None:
        return _lattice_tail(steps, two_sided=two_sided)
    if len(d) <= _MAX_ENUMERATED:
        sums = np.zeros(1)
        for value in d:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(_as_extreme(sums, float(d.sum()), two_sided=two_sided)))
    if rng is None:
        raise ValueError("the differences are not multiples of one fraction: pass rng to draw sign patterns")
    sizes, counts = np.unique(np.abs(d), return_counts=True)
    if len(d) >= _MANY and len(sizes) <= _MAX_SIZES:
        # the signs of differences of one size are a binomial: a draw for each size in place of one for each chunk
        sums = (2.0 * rng.binomial(counts, 0.5, size=(n_resamples, len(sizes))) - counts) @ sizes
    else:
        signs = (rng.integers(0, 2, size=len(d)) * 2.0 - 1.0 for _ in range(n_resamples))
        sums = np.fromiter((float(s @ d) for s in signs), dtype=np.float64, count=n_resamples)
    hits = int(_as_extreme(sums, float(d.sum()), two_sided=two_sided).sum())
    # the observed pattern is one of those drawn, so that the p-value is never 0 and keeps its error rate
    return (hits + 1) / (n_resamples + 1)


def _as_extreme(sums: Floats, observed: float, *, two_sided: bool) -> np.ndarray:
    # sums that are equal but for rounding count as extreme: the observed pattern is one of them
    slack = 1e-9 * max(1.0, abs(observed))
    return (np.abs(sums) >= abs(observed) - slack) if two_sided else (sums >= observed - slack)


def lattice_steps(differences: Floats) -> Ints | None:
    """Return the differences as whole multiples of a common fraction, as small as possible, or None.

    None also when the law of their sum would have more than 20 million points.
    """
    # means of a few items are fractions up to rounding, so multiples are compared with a tolerance
    scale = float(np.abs(differences).max(initial=0.0))
    if scale == 0:
        return np.zeros(len(differences), dtype=np.int64)
    distinct = np.unique(np.abs(differences))
    if len(distinct) > _MAX_LATTICE or scale > _MAX_LATTICE_SCALE:
        return None
    # from the smallest denominator up: the coarser the lattice, the shorter the law of the sum
    for denominator in range(1, _MAX_LATTICE + 1):
        multiples = distinct * denominator
        if np.abs(multiples - np.round(multiples)).max() < 1e-9 * denominator:
            steps = np.round(differences * denominator).astype(np.int64)
            steps = steps // np.gcd.reduce(np.abs(steps))
            return steps if np.abs(steps).sum() <= _MAX_LATTICE_STEPS else None
    return None


def _lattice_tail(steps: Ints, *, two_sided: bool) -> float:
    """Return P(sum of randomly signed steps is at least as extreme as the sum), exactly.

    The positive part of a random pattern is a sum of independent binomials, one for each size of step; their
    distributions are convolved.
    """
    sizes, counts = np.unique(np.abs(steps[steps != 0]), return_counts=True)
    law = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spaced = np.zeros(size * count + 1)
        spaced[::size] = _half_binomial(count)
        quick = (count + 1) * len(law) > _DIRECT_WORK
        law = _fast_convolve(law, spaced) if quick else _sparse_convolve(law, spaced, size)
    total, observed = len(law) - 1, int(steps.sum())
    reached = 2 * np.arange(total + 1) - total
    extreme = np.abs(reached) >= abs(observed) if two_sided else reached >= observed
    return float(min(1.0, law[extreme].sum() / law.sum()))


def _half_binomial(count: int) -> Floats:
    """Return the probabilities of 0..count heads of a fair coin."""
    heads = np.arange(count + 1)
    log_counts = special.gammaln(count + 1) - special.gammaln(heads + 1) - special.gammaln(count - heads + 1)
    return np.asarray(np.exp(log_counts - count * np.log(2.0)), dtype=np.float64)


def _fast_convolve(law: Floats, spaced: Floats) -> Floats:
    """Convolve by Fourier transform, exact to about 1e-15 of the whole."""
    size = len(law) + len(spaced) - 1
    padded = 1 << (size - 1).bit_length()
    product = np.fft.rfft(law, padded) * np.fft.rfft(spaced, padded)
    return np.maximum(np.fft.irfft(product, padded)[:size], 0.0)


def _sparse_convolve(law: Floats, spaced: Floats, size: int) -> Floats:
    """Convolve with a law that is 0 except at multiples of `size`: positive terms, nothing cancels."""
    out = np.zeros(len(law) + len(spaced) - 1)
    for position in range(0, len(spaced), size):
        out[position : position + len(law)] += spaced[position] * law
    return out


def holm(p_values: ArrayLike) -> Floats:
    r"""Holm's adjusted p-values, in the order given.

    :math:`\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1) p_{(j)})`. A comparison is significant at
    :math:`\alpha` in the family when its adjusted p-value is at most :math:`\alpha`. Source: Holm 1979.

    Args:
        p_values: P-value of each comparison of the family, shape (m,), in [0, 1]. NaN (a test that could not
            be made) is not counted.

    Returns:
        Shape (m,), in [0, 1]; NaN stays NaN.

    Raises:
        ValueError: There are no p-values, or one is outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or p.size == 0:
        raise ValueError(f"p_values must be a list with at least one value, got shape {p.shape}")
    known = ~np.isnan(p)
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise ValueError("p_values must be between 0 and 1")
    out = np.full(len(p), nan)
    ordered = np.sort(p[known])
    factors = np.arange(len(ordered), 0, -1)
    stepped = np.minimum(1.0, np.maximum.accumulate(ordered * factors))
    ranks = np.argsort(np.argsort(p[known], kind="stable"), kind="stable")
    out[known] = stepped[ranks]
    return out


def benjamini_yekutieli(p_values: ArrayLike) -> Floats:
    r"""Benjamini and Yekutieli's adjusted p-values, in the order given: the false discovery rate under any dependence.

    :math:`\tilde p_{(i)} = \min_{j \ge i} \min(1, m\, c_m\, p_{(j)} / j)` with :math:`c_m = \sum_{j \le m} 1/j`.
    Source: Benjamini and Yekutieli 2001.

    Args:
        p_values: P-value of each test of the family, shape (m,), in [0, 1].

    Returns:
        Shape (m,), in [0, 1]. Always defined.

    Raises:
        ValueError: There are no p-values, or one is outside [0, 1].
    """
    p = as_values(p_values, name="p_values")
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p_values must be between 0 and 1")
    order = np.argsort(p, kind="stable")
    ranks = np.arange(1, len(p) + 1)
    stepped = p[order] * len(p) * float((1 / ranks).sum()) / ranks
    out = np.empty(len(p))
    out[order] = np.minimum(1.0, np.minimum.accumulate(stepped[::-1])[::-1])
    return out


def clustered_signed_rank(differences: ArrayLike, clusters: ArrayLike) -> TestResult:
    r"""Wilcoxon's signed-rank test for items in clusters, by Rosner, Glynn and Lee.

    The absolute differences that are not 0 are ranked over all clusters (ties share their mean rank), :math:`S_g` is the
    sum of the signed ranks of cluster *g*: :math:`Z = \sum S_g / \sqrt{\sum S_g^2}`, normal. Source: Rosner, Glynn and
    Lee 2006.

    Args:
        differences: One for each item, shape (n,).
        clusters: The cluster of each item, shape (n,), any labels.

    Returns:
        Z, whose sign is that of the differences, with its two-sided p-value in [0, 1]. NaN when all differences are 0.

    Raises:
        ValueError: A difference is not finite, or the lengths differ.
    """
    d = as_values(differences, name="differences")
    codes, n_clusters = cluster_codes(clusters, n=len(d))
    sizes, tied = np.unique(np.round(np.abs(d[d != 0]), 12), return_inverse=True)
    counts = np.bincount(tied, minlength=len(sizes))
    ranks = np.zeros(len(d))
    ranks[d != 0] = (np.cumsum(counts) - (counts - 1) / 2)[tied]
    sums = np.bincount(codes, weights=np.sign(d) * ranks, minlength=n_clusters)
    return signed_rank_result(float(sums.sum()), float((sums**2).sum()), n=len(d), n_clusters=n_clusters)


def signed_rank_result(total: float, variance: float, *, n: int, n_clusters: int) -> TestResult:
    """Return the test of a sum of signed ranks with this variance under the null hypothesis."""
    statistic = total / sqrt(variance) if variance > 0 else nan
    return TestResult(
        statistic=statistic,
        df=(),
        p_value=float(2 * special.ndtr(-abs(statistic))) if variance > 0 else nan,
        method="clustered signed ranks, Rosner-Glynn-Lee",
        n=n,
        n_clusters=n_clusters,
        reason=None if variance > 0 else "all differences are 0: there is nothing to test",
    )
