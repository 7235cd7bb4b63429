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

from dataclasses import dataclass
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
    analysis of variance in a balanced design, and add up to :math:`D_4`. Pairs in :math:`D_3` come from two
    replies where items have several, so that what one reply shares does not count as the chunk's.

    Intervals: each :math:`D` has a delete-one-chunk jackknife interval on the logit scale of its range, Student's
    t on G - 1 degrees of freedom, and Clopper-Pearson on chunks where no pair differs; a difference of two has
    the interval by recovered variances (MOVER) with the jackknife's correlation. A negative estimate is 0, and
    ends below 0 are 0: the truth cannot be there. ``benchmarks/components.py`` measures the coverage. Sources: Koch
    1967, 1968; Searle, Casella and McCulloch 1992, chapter 5; Zou and Donner 2008.

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
    slot, _ = cluster_codes(items, n=len(y))
    reply, _ = cluster_codes(replies, n=len(y))
    sums, pairs = _pair_sums((y - y.min()) / span, chunk, slot, reply, n_chunks)
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN where a level has no pair
        levels = _half_differences(sums.sum(axis=0, keepdims=True), pairs.sum(axis=0, keepdims=True))[0]
        left_out = _half_differences(sums.sum(axis=0) - sums, pairs.sum(axis=0) - pairs)
        relative, relative_left_out = levels / levels[3], left_out / left_out[:, 3:]
    informative = np.asarray((pairs > 0).sum(axis=0), dtype=np.int64)
    variances = _Levels(levels, left_out, informative, n=len(y), level=level, unit=span**2)
    shares = _Levels(
        relative, relative_left_out, informative, n=len(y), level=level, ceiling=1.0, total=float(levels[3])
    )
    parts, inner = {}, None
    for at, source in enumerate(SOURCES):
        parts[source] = VarianceComponent(
            source=source, variance=variances.difference(at, inner), share=shares.difference(at, inner)
        )
        inner = inner if np.isnan(levels[at]) else at
    return VarianceComponents(total=variances.difference(3, None), **parts)


@dataclass(frozen=True)
class _Levels:
    """Half mean squared differences, or their shares of the last one."""

    values: Floats
    """Shape (4,), the innermost first; NaN where there is no pair."""
    left_out: Floats
    """The same without each chunk, shape (G, 4)."""
    informative: Ints
    """Chunks with pairs of each level, shape (4,)."""
    n: int
    level: float
    ceiling: float = 0.5
    """Largest possible value: half the squared span of 1, or a share of 1."""
    total: float = 1.0
    """What the values are shares of."""
    unit: float = 1.0
    """Factor of the results."""

    def difference(self, outer: int, inner: int | None) -> Estimate:
        """Estimate a level less one further in, or a level alone."""
        n_chunks = len(self.left_out)
        counts: dict[str, Any] = {"n": self.n, "n_clusters": n_chunks, "level": self.level}
        used = [outer] if inner is None else [outer, inner]
        value = float(self.values[outer]) - (0.0 if inner is None else float(self.values[inner]))
        if isnan(value):
            has_pairs = n_chunks > 1 if outer == 3 else self.informative[outer] > 0
            return undefined("the letters do not vary" if has_pairs else _MISSING[SOURCES[outer]], **counts)
        value = max(0.0, value) * self.unit
        reason = too_few(n_chunks)
        if reason is None and not np.isfinite(self.left_out[:, used]).all():
            reason = "the component does not exist without one of the chunks"
        if reason is not None:
            return undefined(reason, value=value, method=_METHOD, **counts)
        low, high = self._interval(outer) if inner is None else self._mover(outer, inner)
        ends = {"low": max(0.0, low) * self.unit, "high": max(0.0, high) * self.unit}
        return Estimate(value=value, method=_METHOD, reason=warning(n_chunks), **ends, **counts)

    def _mover(self, outer: int, inner: int) -> tuple[float, float]:
        above, below = float(self.values[outer]), float(self.values[inner])
        (low, high), (inner_low, inner_high) = self._interval(outer), self._interval(inner)
        rho = _correlation(self.left_out[:, outer], self.left_out[:, inner])
        difference = above - below
        return (
            difference - _reach(above - low, inner_high - below, rho),
            difference + _reach(high - above, below - inner_low, rho),
        )

    def _interval(self, at: int) -> tuple[float, float]:
        """Return the interval of one level."""
        share, n_chunks = float(self.values[at]) / self.ceiling, len(self.left_out)
        if share <= 0:  # no pair differs: at most this share of the chunks has pairs that do
            most = clopper_pearson(0, int(self.informative[at]), level=self.level).high
            return 0.0, most / 2 / self.total
        half = t_quantile(self.level, n_chunks - 1) * _jackknife_se(self.left_out[:, at]) / self.ceiling
        if share >= 1 - TINY:  # no logit
            return (share - half) * self.ceiling, (share + half) * self.ceiling
        centre, reach = float(special.logit(share)), half / (share * (1 - share))
        return (
            float(special.expit(centre - reach)) * self.ceiling,
            float(special.expit(centre + reach)) * self.ceiling,
        )


def _reach(of_outer: float, of_inner: float, rho: float) -> float:
    return sqrt(max(0.0, of_outer**2 - 2 * rho * of_outer * of_inner + of_inner**2))


def _pair_sums(y: Floats, chunk: Ints, slot: Ints, reply: Ints, n_chunks: int) -> tuple[Floats, Floats]:
    """Return what each chunk adds to the sums of squared differences and pairs of every level.

    Both have shape (G, 6). The first three columns are pairs of one text, item and chunk; the others are what
    `_half_differences` makes the pairs of two chunks of: texts, sums over texts, pairs inside the chunk.
    """
    texts, letter_text = np.unique(np.column_stack([chunk, slot, reply]), axis=0, return_inverse=True)
    letter_text = letter_text.reshape(-1)
    if len(np.unique(texts[:, 1])) < len(np.unique(texts[:, :2], axis=0)):
        raise ValueError("an item is in two chunks: expected items that belong to one each")
    n = np.bincount(letter_text).astype(np.float64)
    mean = np.bincount(letter_text, weights=y) / n
    square = np.bincount(letter_text, weights=y * y) / n
    where = texts[:, 0]

    def within(groups: Ints) -> tuple[Floats, Floats]:
        """Sum half the squared differences over ordered pairs of texts of each group, by chunk."""
        _, group = np.unique(groups, axis=0, return_inverse=True)
        group = group.reshape(-1)
        size = np.bincount(group).astype(np.float64)
        pairs = size * np.bincount(group, weights=square) - np.bincount(group, weights=mean) ** 2
        home = np.zeros(len(size), dtype=np.int64)
        home[group] = where
        return (
            np.bincount(home, weights=pairs, minlength=n_chunks),
            np.bincount(home, weights=size**2, minlength=n_chunks),
        )

    repeated = n >= 2
    spread = np.divide(n * (square - mean**2), n - 1, out=np.zeros_like(n), where=repeated)
    judge = np.bincount(where, weights=spread * (n * (n - 1)), minlength=n_chunks)
    judge_pairs = np.bincount(where, weights=n * (n - 1), minlength=n_chunks)
    self_pairs, n_self = within(texts)
    item_pairs, n_item = within(texts[:, :2])
    reply_pairs, n_reply = within(texts[:, [0, 2]])
    chunk_pairs, n_chunk = within(texts[:, :1])
    between, n_between = chunk_pairs - item_pairs, n_chunk - n_item
    if (n_item > n_self).any():  # items in two replies: pairs that share no reply
        between, n_between = between - reply_pairs + self_pairs, n_between - n_reply + n_self
    size = np.bincount(where, minlength=n_chunks).astype(np.float64)
    squares = np.bincount(where, weights=square, minlength=n_chunks)
    means = np.bincount(where, weights=mean, minlength=n_chunks)
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


def _jackknife_se(left_out: Floats) -> float:
    n = len(left_out)
    return sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    product = float((a * a).sum() * (b * b).sum())
    return float((a * b).sum()) / sqrt(product) if product > TINY**2 else 0.0


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
