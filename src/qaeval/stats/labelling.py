"""Which items or chunks to label next, and how many labelled chunks decide."""

from dataclasses import dataclass
from math import ceil, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from qaeval.stats._arrays import TINY, Bools, Floats, Ints, as_values, same_length
from qaeval.stats.correction import corrected_difference
from qaeval.stats.estimate import MIN_CLUSTERS
from qaeval.stats.intervals import t_quantile


def neyman_allocation(
    sizes: ArrayLike,
    spreads: ArrayLike,
    total: int,
    *,
    labelled: ArrayLike | None = None,
    floor: int = 5,
) -> Ints:
    r"""How many items of each stratum to label next, so that the rate over all strata is known best.

    Neyman's allocation: :math:`n_j \propto W_j s_j`, with :math:`W_j` the share of the stratum (a letter of the judge, or
    a letter of a candidate) and :math:`s_j = \sqrt{\mu_j (1 - \mu_j)}` the spread of its labels. What is labelled already
    counts, no stratum gets fewer than `floor` in all, none more than it has. Source: Neyman 1934.

    Args:
        sizes: Items in each stratum, shape (S,).
        spreads: Standard deviation of a label in each stratum, shape (S,), at least 0; from earlier labels as
            `smoothed_spread` gives it.
        total: Labels to give next, at least 0.
        labelled: Items of each stratum that are labelled already, shape (S,); default: none.
        floor: Labels that each stratum should have in all.

    Returns:
        Whole numbers, at least 0, that add up to `total`, or to all items left where that is less. Always defined.

    Raises:
        ValueError: A size, spread or count is negative, more is labelled than there is, or the lengths differ.
    """
    size, spread = as_values(sizes, name="sizes"), as_values(spreads, name="spreads")
    done = np.zeros(len(size)) if labelled is None else as_values(labelled, name="labelled")
    same_length(sizes=size, spreads=spread, labelled=done)
    if min(size.min(), spread.min(), done.min(), total, floor) < 0 or (done > size).any():
        raise ValueError("sizes, spreads and labels must not be negative, and no more labelled than there is")
    # one label after the other: to the stratum below its floor, else to that which lowers the variance most
    given = done.copy()
    importance = np.maximum(size * spread, TINY * np.maximum(size, 1))
    for _ in range(int(min(total, (size - done).sum()))):
        open_ = given < size
        below = open_ & (given < floor)
        gain = importance**2 / np.maximum(given * (given + 1), 0.5)
        candidates = below if below.any() else open_
        given[int(np.argmax(np.where(candidates, gain, -1.0)))] += 1
    return np.asarray(given - done, dtype=np.int64)


def smoothed_spread(hits: ArrayLike, labelled: ArrayLike) -> Floats:
    r"""Standard deviation of a label in each stratum, from a few labels or none.

    :math:`\sqrt{\mu (1 - \mu)}` with :math:`\mu = (y + 1)/(n + 2)`: a stratum without labels counts as half and half.

    Args:
        hits: Labels in each stratum that are hits, shape (S,).
        labelled: Labels in each stratum, shape (S,).

    Returns:
        Shape (S,), in (0, 0.5]. Always defined.

    Raises:
        ValueError: There are more hits than labels, or the lengths differ.
    """
    y, n = as_values(hits, name="hits"), as_values(labelled, name="labelled")
    same_length(hits=y, labelled=n)
    if (y < 0).any() or (y > n).any():
        raise ValueError("each stratum needs 0 <= hits <= labelled")
    mu = (y + 1) / (n + 2)
    return np.asarray(np.sqrt(mu * (1 - mu)))


def inclusion_probabilities(spreads: ArrayLike, n: int, *, uniform: float = 0.5) -> Floats:
    r"""Probability with which each chunk should be drawn, where whole chunks are labelled for all candidates.

    Neyman for single chunks: proportional to the spread that the chunk's label difference has given the judge's
    letters, the root of the sum of :math:`s^2` over its items. A part `uniform` goes to all chunks alike, because a
    chunk that the judge is sure of may hold the error that decides; below one half the few such chunks that are drawn
    weigh so much that no interval holds (``benchmarks/correction.py``). Source: Särndal, Swensson and Wretman 1992,
    section 3.6.

    Args:
        spreads: Spread of each chunk, shape (G,), at least 0.
        n: Chunks to draw, 1 to G.
        uniform: Part that all chunks have alike, in (0, 1].

    Returns:
        Shape (G,), in (0, 1], adding up to `n`. Always defined.

    Raises:
        ValueError: A spread is negative, or `n` or `uniform` is out of range.
    """
    s = as_values(spreads, name="spreads")
    if (s < 0).any() or not 1 <= n <= len(s) or not 0 < uniform <= 1:
        raise ValueError(
            f"need spreads of at least 0, 1 to {len(s)} chunks and uniform in (0, 1], got {n!r}, {uniform!r}"
        )
    raw = np.full(len(s), uniform) + (1 - uniform) * (s / s.mean() if s.max() > 0 else 1.0)
    certain = np.zeros(len(s), dtype=bool)
    while True:
        share = np.where(certain, 1.0, (n - certain.sum()) * raw / max(TINY, float(raw[~certain].sum())))
        if not (share > 1 + TINY).any():
            return np.asarray(np.minimum(share, 1.0))
        certain |= share > 1


def draw_chunks(
    probabilities: ArrayLike, rng: np.random.Generator, *, blocks: ArrayLike | None = None
) -> Bools:
    """Draw chunks with the given probabilities: systematically, in random order, so that their number is fixed.

    Source: Madow 1949.

    Args:
        probabilities: Probability of each chunk, shape (G,), in [0, 1].
        rng: Source of the order and the start.
        blocks: Stratum of each chunk, shape (G,): the order is random within strata, so that of each stratum as many are drawn as its
            probabilities add up to, rounded up or down. Default: one stratum.

    Returns:
        True or False for each chunk, shape (G,); as many as the probabilities add up to. Always defined.

    Raises:
        ValueError: A probability is outside [0, 1].
    """
    p = as_values(probabilities, name="probabilities")
    if (p < 0).any() or (p > 1 + TINY).any():
        raise ValueError("probabilities must be in [0, 1]")
    order = rng.permutation(len(p))
    if blocks is not None:
        order = order[np.argsort(np.asarray(blocks)[order], kind="stable")]
    ends = np.cumsum(p[order])
    # the sum is a whole number but for rounding, which must not cost or add a chunk
    ends = np.round(ends, 9) + float(rng.random())
    starts = np.append(ends[0] - p[order[0]], ends[:-1])
    drawn = np.zeros(len(p), dtype=bool)
    drawn[order] = np.floor(ends) > np.floor(starts)
    return drawn


def labelled_chunks_needed(
    difference: float,
    *,
    sd: float,
    correlation: float,
    n_chunks: int,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    r"""Labelled chunks with which a corrected difference decides.

    The variance of `corrected_difference` is :math:`s^2 \{(1 - \rho^2)/n + \rho^2/G\}`; the test is Student's on n - 2
    degrees of freedom, two-sided. With :math:`\rho = 0` it is that of the labels alone.

    Args:
        difference: True difference, not 0; its sign does not matter.
        sd: Standard deviation of the labels' difference between chunks, positive.
        correlation: Between the judge's and the labels' difference of a chunk, in [-1, 1]; a negative one does not
            help and counts as 0.
        n_chunks: Chunks that the judge has graded, at least 10.
        alpha: Error rate of the test, in (0, 1).
        power: Probability to find the difference, in (0, 1).

    Returns:
        At least 10, at most `n_chunks`; None (in place of NaN) where even all labels do not decide.

    Raises:
        ValueError: An argument is out of range.
    """
    if difference == 0 or not sd > 0 or not -1 <= correlation <= 1 or n_chunks < MIN_CLUSTERS:
        raise ValueError(
            "need a difference other than 0, a positive sd, a correlation in [-1, 1] and at least 10 chunks, "
            f"got {difference!r}, {sd!r}, {correlation!r}, {n_chunks!r}"
        )
    if not 0 < alpha < 1 or not 0 < power < 1:
        raise ValueError(f"alpha and power must be between 0 and 1, got {alpha!r} and {power!r}")
    n = np.arange(MIN_CLUSTERS, ceil(n_chunks) + 1, dtype=np.float64)
    rho = max(0.0, correlation)
    se = sd * np.sqrt((1 - rho**2) / n + rho**2 / n_chunks)
    reached = special.stdtr(n - 2, abs(difference) / se - special.stdtrit(n - 2, 1 - alpha / 2))
    enough = np.flatnonzero(reached >= power)
    return int(n[enough[0]]) if len(enough) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedWidth:
    """Width of the interval of a corrected difference, now and with more labelled chunks."""

    now: float
    """Width of the interval of `corrected_difference`; NaN with fewer than 10 labelled chunks."""
    then: float
    """Expected width with `n_then` labelled chunks; NaN where those are fewer than 10, or fewer than 2 are labelled now."""
    n_now: int
    """Labelled chunks."""
    n_then: int
    """Labelled chunks with those to come, at most all."""


def expected_width(
    judged: ArrayLike,
    labelled: ArrayLike,
    more: int,
    *,
    sizes: ArrayLike | None = None,
    level: float = 0.95,
) -> ExpectedWidth:
    r"""What more labels would buy: the width of the interval of `corrected_difference` now, and with more chunks labelled.

    The variance with n of G chunks labelled is :math:`s^2 \{(1 - \rho^2)/n + \rho^2/G\}`, as in
    `labelled_chunks_needed`, with :math:`\rho = 0` where the judge is not used. The width now changes with its root and
    the quantile of t; without an interval now it is computed from the labels' variance.

    Args:
        judged: Judge's difference of the rates, b minus a, in each chunk, shape (G,), in [-1, 1].
        labelled: The same from labels, shape (G,); NaN where the chunk is not labelled for both candidates.
        more: Chunks to label next, at least 0; more than are left count as all that are left.
        sizes: Items of each chunk, shape (G,); default: every chunk counts the same.
        level: Confidence level.

    Returns:
        Widths in [0, 2]; NaN as said at `ExpectedWidth`.

    Raises:
        ValueError: No chunk is labelled, a value is out of its range, or the lengths differ.
    """
    if more < 0:
        raise ValueError(f"more must be at least 0, got {more!r}")
    out = corrected_difference(judged, labelled, sizes=sizes, level=level)
    d = np.asarray(labelled, dtype=np.float64)
    n, n_chunks = out.estimate.n_clusters, len(d)
    n_then = min(n + more, n_chunks)
    used = out.basis == "corrected"
    rho = out.correlation if used else 0.0

    def half_width(count: int) -> float:
        return t_quantile(level, count - 1 - used) * sqrt((1 - rho**2) / count + rho**2 / n_chunks)

    now = out.estimate.high - out.estimate.low
    if n_then < MIN_CLUSTERS or n < 2:
        then = nan
    elif out.estimate.has_interval:
        then = now * half_width(n_then) / half_width(n)
    else:
        then = min(2.0, 2 * float(np.nanstd(d, ddof=1)) * half_width(n_then))
    return ExpectedWidth(now=now, then=then, n_now=n, n_then=n_then)
