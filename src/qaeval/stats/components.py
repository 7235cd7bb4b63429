"""Where the spread of letters comes from: chunks, items, the candidate's replies, or the judge itself.

A letter is a number here, 1 for usable and 0 for not, or a score. Half the mean squared difference of two
letters depends on what they share, and each step adds one source of spread:

=======================================  ===========================================
two letters of                           half their mean squared difference
=======================================  ===========================================
one text, given in two passes            judge
one item, in two replies to one sample   judge + reply
one chunk, two items in two replies      judge + reply + item
two chunks                               judge + reply + item + chunk: the variance
=======================================  ===========================================
"""

from dataclasses import dataclass, replace
from math import isnan, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from qaeval.stats._arrays import TINY, Floats, Ints, as_values, check_level, cluster_codes
from qaeval.stats.estimate import Estimate, too_few, undefined, warning
from qaeval.stats.intervals import clopper_pearson, clustered_rate, t_quantile
from qaeval.stats.multirater import krippendorff_interval, rating_counts

SOURCES = ("judge", "reply", "item", "chunk")
"""Sources of spread, the innermost first."""
_MISSING = {
    "judge": "no text has two letters",
    "reply": "no item has two replies",
    "item": "no chunk has two items",
    "chunk": "there is one chunk",
}
_ITEM, _CHUNK = 2, 3
_METHOD = "cluster jackknife, logit, MOVER, t"


@dataclass(frozen=True, kw_only=True, slots=True)
class VarianceComponent:
    """One source of the spread of letters."""

    source: str
    """``chunk``, ``item``, ``reply`` or ``judge``."""
    variance: Estimate
    """In the squared unit of the values, at least 0; NaN without repeats of this source."""
    share: Estimate
    """Of the total variance, in [0, 1]; NaN without repeats of this source."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VarianceComponents:
    """The spread of letters, split by source."""

    total: Estimate
    """Variance of a single letter of a random chunk."""
    chunk: VarianceComponent
    """Between chunks; with the items where no chunk has two."""
    item: VarianceComponent
    """Between items of a chunk; with the replies where no item has two."""
    reply: VarianceComponent
    """Between replies of the candidate; with the judge's noise where no text has two letters."""
    judge: VarianceComponent
    """Between letters that the judge gives to one text."""


def variance_components(
    values: ArrayLike,
    clusters: ArrayLike,
    items: ArrayLike,
    replies: ArrayLike,
    *,
    span: float = 1.0,
    level: float = 0.95,
) -> VarianceComponents:
    r"""Split the variance of letters into chunk, item, reply and judge, by the method of moments.

    With :math:`D` half the mean squared difference of two letters that share a text, an item, a chunk or
    nothing (every pair of texts counts once, a text with the mean over its letters), the components are
    :math:`\sigma^2_J = D_1`, :math:`\sigma^2_R = D_2 - D_1`, :math:`\sigma^2_I = D_3 - D_2` and
    :math:`\sigma^2_C = D_4 - D_3`. They are unbiased whatever the numbers of repeats, equal those of the
    analysis of variance in a balanced nested design, and add up to :math:`D_4`. Pairs in :math:`D_3` come from two
    replies where items have several, so that what one reply shares does not count as the chunk's.

    Intervals: delete-one-chunk jackknife, Student's t on G - 1 degrees of freedom, on the logit scale of the range.
    A component is a difference, and gets its interval from those of :math:`\sigma^2 + \lambda D` and
    :math:`\lambda D` by recovered variances (MOVER) with the jackknife's correlation, :math:`\lambda` half the
    number of units (texts, items, chunks) over that of the units inside; for items and chunks four half chunks of
    the most spread are added. Where no pair differs, the upper end is Clopper-Pearson's on chunks. The total of
    letters that are 0 or 1 has the interval of :math:`p(1 - p)`. What is negative is 0, since no variance is, and a
    share above 1 is 1. ``benchmarks/components.py`` measures the coverage. Sources: Koch 1967, 1968 (estimates);
    Zou and Donner 2008 (MOVER); Bonett and Price 2012 (added units).

    Args:
        values: One number for each letter, shape (n,).
        clusters: Chunk of each letter, shape (n,), any labels.
        items: Expected item (the place in the replies to a sample) of each letter, shape (n,), any labels.
        replies: Reply of each letter, shape (n,), any labels, such as the number of the repeat. Letters with
            the same item and reply are the judge's repeats for one text.
        span: Distance of the smallest and the largest possible value, positive; 1 for usable or not.
        level: Confidence level.

    Returns:
        Variances of at least 0. A source without repeats is NaN with the reason and counts in the next one
        outwards. Intervals are NaN with fewer than 10 chunks; `reason` warns with fewer than 20.

    Raises:
        ValueError: A value is not finite, values lie further apart than `span`, the lengths differ, or an item
            is in two chunks.
    """
    check_level(level)
    y = as_values(values, name="values")
    if not span > 0 or np.ptp(y) > span + TINY:
        raise ValueError(
            f"the values lie {np.ptp(y):g} apart: expected a positive span of at least that, got {span!r}"
        )
    chunk, n_chunks = cluster_codes(clusters, n=len(y))
    item, n_items = cluster_codes(items, n=len(y))
    reply, _ = cluster_codes(replies, n=len(y))
    y = (y - y.min()) / span
    sums, pairs = _pair_sums(y, chunk, item, reply, n_chunks)
    units = np.array([len(y), pairs[:, 3].sum(), n_items, n_chunks], dtype=np.float64)
    variances = _Levels(
        values=_half_differences(sums.sum(axis=0, keepdims=True), pairs.sum(axis=0, keepdims=True))[0],
        left_out=_half_differences(sums.sum(axis=0) - sums, pairs.sum(axis=0) - pairs),
        cautious=_left_out_cautiously(sums, pairs, n_items / n_chunks),
        informative=np.asarray((pairs > 0).sum(axis=0), dtype=np.int64),
        units=units,
        n=len(y),
        level=level,
        unit=span**2,
    )
    shares = variances.shares()
    parts, inner = {}, None
    for at, source in enumerate(SOURCES):
        parts[source] = VarianceComponent(
            source=source, variance=variances.component(at, inner), share=shares.component(at, inner)
        )
        inner = inner if np.isnan(variances.values[at]) else at
    total = variances.component(3, None)
    if total.has_interval and ((y == 0) | (y == 1)).all():
        total = _binary_variance(total, sums, pairs, level=level, unit=span**2)
    return VarianceComponents(total=total, **parts)


@dataclass(frozen=True, kw_only=True)
class _Levels:
    """Half mean squared differences, or their shares of the last one."""

    values: Floats
    """Shape (4,), the innermost first; NaN where there is no pair."""
    left_out: Floats
    """The same without each chunk, shape (G, 4)."""
    cautious: Floats
    """The same with half chunks added, for items and chunks, shape (G + 4, 4)."""
    informative: Ints
    """Chunks with pairs of each level, shape (6,), the first four in use."""
    units: Floats
    """Letters, texts, items and chunks."""
    n: int
    level: float
    ceiling: float = 0.5
    """Largest possible value: half the squared span of 1, or a share of 1."""
    total: float = 1.0
    """What the values are shares of."""
    unit: float = 1.0
    """Factor of the results."""

    def shares(self) -> "_Levels":
        """Divide every level by the last one."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return replace(
                self,
                values=self.values / self.values[3],
                left_out=self.left_out / self.left_out[:, 3:],
                cautious=self.cautious / self.cautious[:, 3:],
                ceiling=1.0,
                total=float(self.values[3]),
                unit=1.0,
            )

    def component(self, outer: int, inner: int | None) -> Estimate:
        """Estimate a level less one further in, or a level alone."""
        n_chunks = len(self.left_out)
        counts: dict[str, Any] = {"n": self.n, "n_clusters": n_chunks, "level": self.level}
        used = [outer] if inner is None else [outer, inner]
        value = float(self.values[outer]) - (0.0 if inner is None else float(self.values[inner]))
        if isnan(value):
            has_pairs = n_chunks > 1 if outer == _CHUNK else self.informative[outer] > 0
            return undefined("the letters do not vary" if has_pairs else _MISSING[SOURCES[outer]], **counts)
        value = self._clipped(value)
        reason = too_few(n_chunks)
        if reason is None and not np.isfinite(self.left_out[:, used]).all():
            reason = "the component does not exist without one of the chunks"
        if reason is not None:
            return undefined(reason, value=value, method=_METHOD, **counts)
        if inner is None:
            low, high = self._interval(self.values[outer], self.left_out[:, outer], outer)
        else:
            low, high = self._difference_interval(outer, inner)
        return Estimate(
            value=value,
            low=self._clipped(low),
            high=self._clipped(high),
            method=_METHOD,
            reason=warning(n_chunks),
            **counts,
        )

    def _clipped(self, value: float) -> float:
        """Return a value in the range of variances or shares, in the unit of the results."""
        return min(self.ceiling, max(0.0, value)) * self.unit

    def _difference_interval(self, outer: int, inner: int) -> tuple[float, float]:
        """Return the interval of a component by MOVER, from the component plus some noise and that noise.

        The noise is half of what a mean over the units further in would have: the larger, the more the
        interval of a small component is like that of the noise, which is known well.
        """
        left_out = self.cautious if outer >= _ITEM else self.left_out
        share = self.units[outer] / self.units[inner] / 2
        noise, noise_left_out = share * self.values[inner], share * left_out[:, inner]
        noisy = self.values[outer] - self.values[inner] + noise
        noisy_left_out = left_out[:, outer] - left_out[:, inner] + noise_left_out
        low, high = self._interval(noisy, noisy_left_out, outer)
        noise_low, noise_high = self._interval(noise, noise_left_out, inner)
        rho = _correlation(noisy_left_out, noise_left_out)
        return (
            noisy - noise - _reach(noisy - low, noise_high - noise, rho),
            noisy - noise + _reach(high - noisy, noise - noise_low, rho),
        )

    def _interval(self, value: float, left_out: Floats, at: int) -> tuple[float, float]:
        """Return the jackknife interval of a value on the logit scale of its range."""
        se = _jackknife_se(left_out)
        half = t_quantile(self.level, len(self.left_out) - 1) * se
        if value == 0 and se <= TINY:  # no pair differs: at most this share of the chunks has some that do
            most = clopper_pearson(0, int(self.informative[at]), level=self.level).high
            return 0.0, most / 2 / self.total
        share = value / self.ceiling
        if not TINY < share < 1 - TINY:  # no logit
            return value - half, value + half
        reach = half / self.ceiling / (share * (1 - share))
        low, high = special.expit(special.logit(share) + np.array([-reach, reach]))
        return float(low) * self.ceiling, float(high) * self.ceiling


def _reach(outer: float, inner: float, rho: float) -> float:
    return sqrt(max(0.0, outer**2 - 2 * rho * outer * inner + inner**2))


def _jackknife_se(left_out: Floats) -> float:
    n = len(left_out)
    return sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    product = float((a * a).sum() * (b * b).sum())
    return float((a * b).sum()) / sqrt(product) if product > TINY**2 else 0.0


def _binary_variance(total: Estimate, sums: Floats, pairs: Floats, *, level: float, unit: float) -> Estimate:
    """Give the variance of a rate p the interval of p(1 - p): near 1/2, its largest value, no error is seen."""
    rate = clustered_rate(sums[:, 4], pairs[:, 3], level=level)
    ends = np.array([rate.low, rate.high])
    at_ends = ends * (1 - ends)
    highest = 0.25 if rate.low <= 0.5 <= rate.high else float(at_ends.max())
    value = total.value / unit
    return replace(
        total,
        low=min(value, float(at_ends.min())) * unit,
        high=max(value, highest) * unit,
        method=f"p(1 - p) of {rate.method}",
    )


def _pair_sums(y: Floats, chunk: Ints, item: Ints, reply: Ints, n_chunks: int) -> tuple[Floats, Floats]:
    """Return what each chunk adds to the sums of squared differences and pairs of every level.

    Both have shape (G, 6). The first three columns are pairs of one text, item and chunk; the others are what
    `_half_differences` makes the pairs of two chunks of: texts, sums over texts, pairs inside the chunk.
    """
    texts, letter_text = np.unique(np.column_stack([chunk, item, reply]), axis=0, return_inverse=True)
    letter_text = letter_text.reshape(-1)
    if len(np.unique(texts[:, 1])) < len(np.unique(texts[:, :2], axis=0)):
        raise ValueError("an item is in two chunks: expected items that belong to one each")
    n = np.bincount(letter_text).astype(np.float64)
    mean = np.bincount(letter_text, weights=y) / n
    square = np.bincount(letter_text, weights=y * y) / n
    where = texts[:, 0]

    def by_chunk(home: Ints, values: Floats) -> Floats:
        return np.asarray(np.bincount(home, weights=values, minlength=n_chunks), dtype=np.float64)

    def within(groups: Ints) -> tuple[Floats, Floats]:
        """Sum half the squared differences over ordered pairs of texts of each group, by chunk."""
        _, group = np.unique(groups, axis=0, return_inverse=True)
        group = group.reshape(-1)
        size = np.bincount(group).astype(np.float64)
        pairs = size * np.bincount(group, weights=square) - np.bincount(group, weights=mean) ** 2
        home = np.zeros(len(size), dtype=np.int64)
        home[group] = where
        return by_chunk(home, pairs), by_chunk(home, size**2)

    repeated = n >= 2
    spread = np.divide(n * (square - mean**2), n - 1, out=np.zeros_like(n), where=repeated)
    judge, judge_pairs = by_chunk(where, spread * n * (n - 1)), by_chunk(where, n * (n - 1))
    self_pairs, n_self = within(texts)
    item_pairs, n_item = within(texts[:, :2])
    reply_pairs, n_reply = within(texts[:, [0, 2]])
    chunk_pairs, n_chunk = within(texts[:, :1])
    between, n_between = chunk_pairs - item_pairs, n_chunk - n_item
    if (n_item > n_self).any():  # items in two replies: pairs that share no reply
        between, n_between = between - reply_pairs + self_pairs, n_between - n_reply + n_self
    size, squares, means = (by_chunk(where, values) for values in (np.ones_like(n), square, mean))
    sums = np.column_stack([judge, item_pairs - self_pairs, between, squares, means, chunk_pairs])
    counts = np.column_stack([judge_pairs, n_item - n_self, n_between, size, size, n_chunk])
    return sums, counts


def _half_differences(sums: Floats, counts: Floats) -> Floats:
    """Return the four half mean squared differences of each row of totals; NaN where there is no pair."""
    out = np.full((len(sums), 4), nan)
    np.divide(sums[:, :3], counts[:, :3], out=out[:, :3], where=counts[:, :3] > 0)
    # ordered pairs of texts of all chunks, less those inside one chunk
    size, squares, means, inside = counts[:, 3], sums[:, 3], sums[:, 4], sums[:, 5]
    pairs = size**2 - counts[:, 5]
    np.divide(size * squares - means**2 - inside, pairs, out=out[:, 3], where=pairs > 0)
    out[np.abs(out) < TINY] = 0.0
    return out


def _left_out_cautiously(sums: Floats, pairs: Floats, n_items: float) -> Floats:
    """Return the half differences without each chunk, of the data with four half chunks added, shape (G + 4, 4).

    A small estimate comes with a small error, since the chunks that make both large may not have been drawn:
    without the half chunks, intervals of the chunk component cover down to 84 %. Two of them are all 0 and all 1,
    as Bonett and Price (2012) add to pairs; in the other two one item is unlike the others.
    """
    half = pairs.mean(axis=0) * np.array([0.5, 0.25, 0.25, 0.5, 0.5, 0.25])
    texts, inside = half[3], half[5]
    apart = (n_items - 1) / n_items**2 if n_items > 1 else 0.0
    # of the pairs of two items, those that share no reply alone are counted
    counted = half[2] / max(TINY, inside - texts**2 / n_items)
    added = np.array(
        [
            [0, 0, inside * spread * counted, texts * mean, texts * mean, inside * spread]
            for mean, spread in ((0, 0), (1, 0), (1 / n_items, apart), (1 - 1 / n_items, apart))
        ]
    )
    sums, pairs = np.vstack([sums, added]), np.vstack([pairs, [half] * 4])
    return _half_differences(sums.sum(axis=0) - sums, pairs.sum(axis=0) - pairs)


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatAgreement:
    """How far a judge agrees with itself."""

    n_items: int
    """Items with two letters or more."""
    n_excluded: int
    """Items with fewer."""
    self_agreement: Estimate
    """Probability that two of its letters for an item are equal, in [0, 1]."""
    flips: Estimate
    """Probability that one of them is the best and the other the worst of the scale, in [0, 1]."""
    alpha: Estimate
    """Krippendorff's alpha, nominal: self-agreement beyond chance, at most 1."""


def repeat_agreement(
    letters: ArrayLike, clusters: ArrayLike, *, n_levels: int, level: float = 0.95
) -> RepeatAgreement:
    r"""Agreement of a judge's repeated letters with each other.

    Of the pairs of letters of an item, :math:`\sum_k m_k(m_k - 1) / m(m - 1)` are equal and :math:`2 m_0
    m_{K-1} / m(m - 1)` are best and worst, where letter *k* was given :math:`m_k` times out of *m*; the means
    over items have the interval of `clustered_rate`. Self-agreement is an upper bound of what letters can be
    worth: a judge that does not agree with itself agrees with nobody.

    Args:
        letters: Letter of each item in each pass, shape (n_items, n_passes), codes in ``range(n_levels)``, 0
            the best, NaN where one is missing.
        clusters: Chunk of each item, shape (n_items,), any labels.
        n_levels: Number of letters on the scale, used or not.
        level: Confidence level.

    Returns:
        Shares in [0, 1] over items with two letters or more. Alpha is NaN when only one letter occurs, the
        intervals with fewer than 10 chunks.

    Raises:
        ValueError: No item has two letters, or the letters are not as described.
    """
    counts = rating_counts(letters, n_levels=n_levels)
    codes, n_clusters = cluster_codes(clusters, n=len(counts))
    passes = counts.sum(axis=1)
    repeated = passes >= 2
    if not repeated.any():
        raise ValueError("no item has two letters: the judge's agreement with itself cannot be measured")
    counts, chunk, pairs = counts[repeated], codes[repeated], (passes * (passes - 1))[repeated]
    items = np.bincount(chunk, minlength=n_clusters).astype(np.float64)

    def mean(equal: Floats) -> Estimate:
        sums = np.bincount(chunk, weights=equal / pairs, minlength=n_clusters)
        return clustered_rate(sums, items, level=level)

    return RepeatAgreement(
        n_items=len(counts),
        n_excluded=int((~repeated).sum()),
        self_agreement=mean((counts * (counts - 1)).sum(axis=1)),
        flips=mean(2 * counts[:, 0] * counts[:, -1]),
        alpha=krippendorff_interval(letters, clusters, n_levels=n_levels, metric="nominal", level=level),
    )
