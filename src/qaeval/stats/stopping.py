r"""When do more labels no longer change which candidate is best?

Chunks are labelled for all candidates in a random order. For the chunks of the run (`pool`) each label is a
draw without replacement from a finite population whose judged differences are known, and the tests are bets
that hold after every chunk. For chunks to come (`future`) bets on a pool err (a difference of the pool is
found although the documents have none), so there are four looks that are planned beforehand, with the
corrected difference at each. Sources: Waudby-Smith and Ramdas 2020, *Confidence sequences for sampling
without replacement*; Angelopoulos, Duchi and Zrnic 2023 (arXiv 2311.01453), for the judge as control variate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil, inf, nan
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qaeval.stats._arrays import TINY, Floats, Ints, as_values
from qaeval.stats.correction import CorrectedDifference, corrected_difference
from qaeval.stats.estimate import MIN_CLUSTERS, Estimate, too_few, undefined
from qaeval.stats.paired import agreeing_with_test

Estimand = Literal["pool", "future"]
"""What a difference is about: the chunks of this run, or the chunks to come from documents like them."""

PairOutcome = Literal["a better", "b better", "equal", "undecided"]
_SWAPPED: Final[dict[PairOutcome, PairOutcome]] = {
    "a better": "b better",
    "b better": "a better",
    "equal": "equal",
    "undecided": "undecided",
}
N_LOOKS: Final = 4
"""Looks for `future`: after a quarter, half, three quarters and all of the chunks."""
_MAX_STAKE: Final = 0.97
"""Share of the capital that one chunk may take."""
_TUNINGS: Final = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
"""Weights of the judge to choose from. A larger one lowers the variance and widens the range, which limits
the bets."""
_PRIOR_VARIANCE: Final = 0.16
"""Variance of a difference assumed before the first chunk, as in `qaeval.stats.sequential`."""
_PRIOR_WEIGHT: Final = 2.0
"""Chunks that the assumed variance counts for."""
_MIN_VARIANCE: Final = 4e-4
"""Smallest variance: where chunks tie, bets would grow without end."""
_PRIOR_LEAD: Final = 0.1
"""Distance from the null assumed before the first chunk."""
_LEAD_WEIGHT: Final = 5.0
"""Chunks that the assumed distance counts for."""
_GRID: Final = 201
"""Null means of the interval: steps of one percentage point."""
_METHOD_POOL: Final = "bets without replacement on labelled chunks in random order, hold after every chunk"
_METHOD_FUTURE: Final = f"corrected difference at {N_LOOKS} planned looks, Bonferroni"


@dataclass(frozen=True, kw_only=True, slots=True)
class PairDecision:
    """What the labels so far show of two candidates."""

    a: int
    """Position of the first candidate."""
    b: int
    """Position of the second."""
    outcome: PairOutcome
    """``equal``: the difference is smaller than the margin, which comes before ``better``."""
    difference: Estimate
    """Corrected difference b minus a, with an interval that holds at all looks; `n` counts all chunks,
    `n_clusters` those labelled. For ``pool``, with all chunks labelled, it is known and the interval has no
    width. For ``future`` it is that of the last planned look; NaN before the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelDecision:
    """Whether labelling may stop."""

    outcome: Literal["best", "equal", "undecided"]
    """``best``: one candidate is better than every other. ``equal``: the leader is not, but is equal to some
    and better than the others. ``undecided``: more labels may show it, unless all chunks are labelled."""
    leaders: tuple[int, ...]
    """Positions of the candidate that is best, or of those that are equal, the leader first; empty where
    undecided."""
    pairs: tuple[PairDecision, ...]
    """All pairs of candidates, by position."""
    estimand: Estimand
    """What is decided about."""
    n_labelled: int
    """Labelled chunks."""
    n_chunks: int
    """Chunks of the run."""
    next_look: int
    """Labelled chunks at which the next decision can fall: one more for `pool`, the next planned look for
    `future`; the number of chunks where all are labelled."""

    @property
    def is_decided(self) -> bool:
        """Whether more labels cannot change the outcome, up to the error rate."""
        return self.outcome != "undecided"


def decide_by_labels(
    judged: ArrayLike,
    labelled: ArrayLike,
    order: ArrayLike,
    *,
    margin: float,
    alpha: float = 0.05,
    sizes: ArrayLike | None = None,
    n_before: int = 0,
    estimand: Estimand = "pool",
) -> LabelDecision:
    r"""Decide which candidate is best, if the labels so far show it; may be asked after every labelled chunk.

    For ``pool`` a bettor stakes capital on each chunk in the order of labelling, on :math:`Y - \lambda H +
    \lambda \bar H`: labels' and judge's difference of the chunk, and the judge's mean over the chunks that
    are not labelled yet. The bet and :math:`\lambda` come from earlier chunks only. A null mean of the pool
    fixes the mean of the chunks left, so the capital cannot be expected to grow under it, and reaches
    :math:`1/\alpha` with probability :math:`\alpha` at most (Ville 1939). For ``future``
    `corrected_difference` is tested at `N_LOOKS` looks, each at a share of `alpha`.

    The probability that a candidate is called best and is not, and the probability that candidates are called
    equal that differ by the margin or more, are at most `alpha` each: a union bound over the K comparisons
    that can go wrong, and over all pairs.

    Args:
        judged: Judge's usable rate of each candidate in each chunk, shape (K, G), in [0, 1].
        labelled: The same from labels, shape (K, G); NaN in chunks that are not labelled for all candidates.
        order: Positions of the labelled chunks in the order in which they were labelled, shape (n,). From
            `n_before` on it must be random, whatever the labels say.
        margin: Smallest difference that matters, in (0, 1).
        alpha: Error rate of either kind over all looks, in (0, 1).
        sizes: Items of each chunk, shape (G,); default: every chunk counts the same.
        n_before: Chunks at the start of `order` that were chosen in another way, such as earlier labels, or
            chunks in which every candidate failed: they count as known, and nothing is bet on them.
        estimand: ``pool`` or ``future``.

    Returns:
        The decision, with differences in [-1, 1]. They are NaN before the first label, for ``future`` before
        the first planned look. Swapping candidates swaps their positions.

    Raises:
        ValueError: A value is out of its range, shapes differ, or `order` does not name the labelled chunks.
    """
    pool = _Pool.of(judged, labelled, order, sizes=sizes)
    if not 0 < margin < 1 or not 0 < alpha < 1:
        raise ValueError(f"margin and alpha must be between 0 and 1, got {margin!r} and {alpha!r}")
    if not 0 <= n_before <= len(pool.order):
        raise ValueError(f"n_before counts chunks of order, 0 to {len(pool.order)}, got {n_before!r}")
    n_candidates, n_chunks, n = len(pool.judged), len(pool.sizes), len(pool.order)
    # a wrong best candidate is found better than a truly best one, which has K - 1 rivals, or ties with one
    levels = _Levels(alpha / n_candidates, alpha / max(1, n_candidates * (n_candidates - 1) // 2), margin)
    looks = [look for look in _looks(n_chunks) if look > n_before]
    ends = [n] if estimand == "pool" else [look for look in looks if look <= n] or [n]
    positions = list(combinations(range(n_candidates), 2))
    for end in ends:
        pairs = (
            _decide_in_pool(pool, positions, n_before, levels)
            if estimand == "pool"
            else tuple(_decide_at_look(pool, a, b, end, n_before, levels) for a, b in positions)
        )
        outcome, leaders = _first_place(pairs, n_candidates)
        if outcome != "undecided":
            break
    following = [look for look in looks if look > n]
    return LabelDecision(
        outcome=outcome,
        leaders=leaders,
        pairs=pairs,
        estimand=estimand,
        n_labelled=n,
        n_chunks=n_chunks,
        next_look=min(n + 1, n_chunks) if estimand == "pool" else following[0] if following else n_chunks,
    )


@dataclass(frozen=True, slots=True)
class _Levels:
    """Error rates of one pair."""

    better: float
    """One-sided."""
    equal: float
    """Of each of the two one-sided tests."""
    margin: float


@dataclass(frozen=True, slots=True)
class _Pool:
    """Rates of all candidates in all chunks."""

    judged: Floats
    labelled: Floats
    order: Ints
    sizes: Floats

    @classmethod
    def of(
        cls, judged: ArrayLike, labelled: ArrayLike, order: ArrayLike, *, sizes: ArrayLike | None
    ) -> "_Pool":
        h, y = np.asarray(judged, dtype=np.float64), np.asarray(labelled, dtype=np.float64)
        if h.ndim != 2 or h.shape != y.shape or len(h) < 2 or not h.size:
            raise ValueError(
                "judged and labelled need one shape, at least 2 candidates by at least 1 chunk, "
                f"got {h.shape} and {y.shape}"
            )
        known = ~np.isnan(y).any(axis=0)
        rates = np.concatenate([h.ravel(), y[:, known].ravel()])
        if not ((rates >= -TINY) & (rates <= 1 + TINY)).all():
            raise ValueError("rates must be between 0 and 1")
        chunks = np.asarray(order, dtype=np.int64).reshape(-1)
        if sorted(chunks.tolist()) != np.flatnonzero(known).tolist():
            raise ValueError(
                "order must name each chunk that is labelled for all candidates once, and no other"
            )
        w = np.ones(h.shape[1]) if sizes is None else as_values(sizes, name="sizes")
        if w.shape != (h.shape[1],) or not (w > 0).all():
            raise ValueError(f"sizes must hold a number above 0 for each of {h.shape[1]} chunks")
        return cls(h, y, chunks, w)


def _looks(n_chunks: int) -> list[int]:
    looks = {max(MIN_CLUSTERS, ceil(n_chunks * look / N_LOOKS)) for look in range(1, N_LOOKS + 1)}
    return sorted(look for look in looks if look <= n_chunks)


class PoolBets:
    """Bets that the mean over a finite population is above null means, chunks drawn without replacement.

    All arrays may have leading axes for independent pools, which are the rows of a simulation.

    Args:
        judged: Judge's difference of each chunk, shape (..., G), in [-1, 1], the chunks in the order of
            labelling; those that are not labelled yet follow in any order.
        weights: Weight of each chunk, shape (..., G), above 0, with mean 1 over G.
        nulls: Null means, shape (K,) or (..., K).

    Attributes:
        nulls: Null means.
        log_peak: Largest natural logarithm of the capital so far against each null, shape (..., K); infinite
            where the labels rule the null out.
        n: Chunks seen.
    """

    def __init__(self, judged: Floats, weights: Floats, nulls: Floats) -> None:
        self._h, self._w, self.nulls = weights * judged, weights, nulls
        self._n_chunks = judged.shape[-1]
        self._rest_h, self._rest_w = _sum_of_rest(self._h), _sum_of_rest(weights)
        # the label's difference is -1 at worst; what is subtracted for the judge makes it worse
        worst = weights[..., None] + _TUNINGS * self._h[..., None]
        self._worst = np.maximum.accumulate(worst[..., ::-1, :], axis=-2)[..., ::-1, :]
        self._sums = np.zeros((5, *judged.shape[:-1]))
        self._log_capital: Floats = np.zeros((*judged.shape[:-1], nulls.shape[-1]))
        self.log_peak: Floats = self._log_capital
        self.n = 0

    @property
    def value(self) -> Floats:
        """Corrected mean: of the labels, plus what the judge says of the chunks without; shape (...)."""
        d, h, _, hh, dh = self._sums
        n = max(self.n, 1)
        tuning = np.clip((dh - d * h / n) / (hh - h**2 / n + _PRIOR_WEIGHT * _PRIOR_VARIANCE), 0.0, 1.0)
        return np.asarray((d - tuning * h) / n + tuning * self._rest_h[..., 0] / self._n_chunks)

    def see(self, differences: Floats) -> None:
        """Take the next chunk as known, without a bet; shape (...)."""
        d, h = self._w[..., self.n] * differences, self._h[..., self.n]
        self._sums = self._sums + np.stack([d, h, d**2, h**2, d * h])
        self.n += 1
        self.log_peak = np.where(self._is_ruled_out(), inf, self.log_peak)

    def update(self, differences: Floats) -> None:
        """Bet on the next chunk, then take its labels' difference into account; shape (...), in [-1, 1]."""
        n_left = self._n_chunks - self.n
        mean_h = self._rest_h[..., self.n] / n_left
        # the mean of the chunks left, if the null is the mean of all
        null = (self._n_chunks * self.nulls - self._sums[0][..., None]) / n_left
        tuning, bet = self._bets(null, mean_h, n_left)
        d = (self._w[..., self.n] * differences)[..., None]
        value = d - tuning * (self._h[..., self.n] - mean_h)[..., None]
        self._log_capital = self._log_capital + np.log1p(bet * (value - null))
        self.log_peak = np.maximum(self.log_peak, self._log_capital)
        self.see(differences)

    def _bets(self, null: Floats, mean_h: Floats, n_left: int) -> tuple[Floats, Floats]:
        """Return the tuning and the bet against each null by which the capital grows fastest, so far."""
        d, h, dd, hh, dh = self._sums[..., None]
        n = self.n
        squares = dd - 2 * _TUNINGS * dh + _TUNINGS**2 * hh - (d - _TUNINGS * h) ** 2 / max(n, 1)
        variance = (_PRIOR_WEIGHT * _PRIOR_VARIANCE + np.maximum(squares, 0.0)) / (_PRIOR_WEIGHT + n)
        variance = np.maximum(variance, _MIN_VARIANCE)[..., None, :]
        lead = n * np.maximum(self.value[..., None] - self.nulls, 0.0) + _LEAD_WEIGHT * _PRIOR_LEAD
        drift = (lead / (n + _LEAD_WEIGHT) * self._n_chunks / n_left)[..., None]
        loss = null[..., None] + (self._worst[..., n, :] - _TUNINGS * mean_h[..., None])[..., None, :]
        bets = np.minimum(drift / (variance + drift**2), _MAX_STAKE / np.maximum(loss, TINY))
        best = np.argmax(bets * drift - bets**2 * variance / 2, axis=-1)
        bet = np.take_along_axis(bets, best[..., None], axis=-1)[..., 0]
        # a null above what the rest can reach is true, and a ruled-out one needs no bet
        is_open = np.abs(null) <= (self._rest_w[..., n] / n_left)[..., None]
        return _TUNINGS[best], np.where(is_open, bet, 0.0)

    def bounds(self, alpha: float) -> Floats:
        """Smallest mean that is not excluded at the error rate `alpha`, -1 where none is; shape (...)."""
        excluded = np.cumprod(self.log_peak >= -np.log(alpha), axis=-1).sum(axis=-1)
        above = np.nextafter(np.broadcast_to(self.nulls, self.log_peak.shape), inf)
        last = np.take_along_axis(above, np.maximum(excluded - 1, 0)[..., None], axis=-1)[..., 0]
        return np.where(excluded > 0, last, -1.0)

    def _is_ruled_out(self) -> NDArray[np.bool_]:
        """Whether even the worst labels of all chunks left give a mean above the null."""
        rest = self._rest_w[..., self.n] if self.n < self._n_chunks else np.zeros(self._sums.shape[1:])
        return np.asarray((self._sums[0] - rest)[..., None] > self._n_chunks * self.nulls + TINY)


def _sum_of_rest(values: Floats) -> Floats:
    return np.asarray(np.cumsum(values[..., ::-1], axis=-1)[..., ::-1])


def _decide_in_pool(
    pool: _Pool, pairs: Sequence[tuple[int, int]], n_before: int, levels: _Levels
) -> tuple[PairDecision, ...]:
    """Bet for and against every pair at once; see `decide_by_labels`."""
    n, n_chunks = len(pool.order), len(pool.sizes)
    order = np.concatenate([pool.order, np.setdiff1d(np.arange(n_chunks), pool.order)])
    w = pool.sizes[order] / pool.sizes.mean()
    a, b = (list(positions) for positions in zip(*pairs, strict=True))
    # both directions of each pair: shape (pairs, 2, chunks)
    h, d = (
        np.stack([x[b] - x[a], x[a] - x[b]], axis=1)
        for x in (pool.judged[:, order], pool.labelled[:, pool.order])
    )
    nulls = np.unique([*np.linspace(-1.0, 1.0, _GRID), 0.0, levels.margin, -levels.margin])
    bets = PoolBets(h, np.broadcast_to(w, h.shape), nulls)
    for number in range(n):
        (bets.see if number < n_before else bets.update)(d[..., number])
    is_equal = (bets.log_peak[..., np.searchsorted(nulls, -levels.margin)] >= -np.log(levels.equal)).all(-1)
    bounds, values = bets.bounds(levels.better), bets.value[:, 0]
    if n == n_chunks:
        values = np.round((w * d[:, 0]).mean(axis=-1), 12)
        bounds = np.stack([values, -values], axis=1)
        is_equal = np.abs(values) < levels.margin
    return tuple(
        _pair_in_pool(pool, pair, float(value), (float(low), float(-below)), bool(equal), levels)
        for pair, value, (low, below), equal in zip(pairs, values, bounds, is_equal, strict=True)
    )


def _pair_in_pool(
    pool: _Pool,
    pair: tuple[int, int],
    value: float,
    bounds: tuple[float, float],
    is_equal: bool,
    levels: _Levels,
) -> PairDecision:
    n, n_chunks, (low, high) = len(pool.order), len(pool.sizes), bounds
    estimate = Estimate(
        value=min(max(value, low), high) if n else nan,
        low=low,
        high=max(low, high),
        level=1 - 2 * levels.better,
        method=_METHOD_POOL if n < n_chunks else "all chunks labelled",
        n=n_chunks,
        n_clusters=n,
        reason=None if n else "no chunk is labelled",
    )
    outcome = _outcome(estimate, is_equal=is_equal, is_better=low > 0 or high < 0)
    return PairDecision(a=pair[0], b=pair[1], outcome=outcome, difference=estimate)


def _decide_at_look(pool: _Pool, a: int, b: int, n: int, n_before: int, levels: _Levels) -> PairDecision:
    n_chunks = len(pool.sizes)
    looks = [look for look in _looks(n_chunks) if look > n_before]
    if n not in looks:
        reason = too_few(n) or f"the first planned look is at {min(looks, default=n_chunks)} labelled chunks"
        difference = undefined(reason, method=_METHOD_FUTURE, n=n_chunks, n_clusters=n)
        return PairDecision(a=a, b=b, outcome="undecided", difference=difference)
    labelled, inclusion = np.full(n_chunks, nan), np.ones(n_chunks)
    seen = pool.order[:n]
    labelled[seen] = (pool.labelled[b] - pool.labelled[a])[seen]
    inclusion[pool.order[n_before:n]] = (n - n_before) / (n_chunks - n_before)

    def corrected(alpha: float) -> CorrectedDifference:
        return corrected_difference(
            pool.judged[b] - pool.judged[a],
            labelled,
            sizes=pool.sizes,
            inclusion=inclusion,
            level=1 - 2 * alpha / N_LOOKS,
        )

    better, equal = corrected(levels.better), corrected(levels.equal).estimate
    estimate = replace(agreeing_with_test(better.estimate, better.p_value), method=_METHOD_FUTURE)
    is_equal = -levels.margin < equal.low and equal.high < levels.margin
    outcome = _outcome(estimate, is_equal=is_equal, is_better=better.p_value <= 1 - estimate.level + TINY)
    return PairDecision(a=a, b=b, outcome=outcome, difference=estimate)


def _outcome(difference: Estimate, *, is_equal: bool, is_better: bool) -> PairOutcome:
    if is_equal:
        return "equal"
    if not is_better:
        return "undecided"
    return "b better" if difference.value > 0 else "a better"


def _first_place(
    pairs: Sequence[PairDecision], n_candidates: int
) -> tuple[Literal["best", "equal", "undecided"], tuple[int, ...]]:
    """Return who leads, if that is decided against every other candidate."""
    lead = np.zeros(n_candidates)
    outcomes: dict[tuple[int, int], PairOutcome] = {}
    for pair in pairs:
        value = pair.difference.value if pair.difference.is_defined else 0.0
        lead[pair.b] += value
        lead[pair.a] -= value
        outcomes[pair.a, pair.b] = pair.outcome
        outcomes[pair.b, pair.a] = _SWAPPED[pair.outcome]
    for leader in np.argsort(-lead, kind="stable").tolist():
        rivals = {rival: outcomes[leader, rival] for rival in range(n_candidates) if rival != leader}
        if set(rivals.values()) <= {"a better", "equal"}:
            equal = tuple(rival for rival, outcome in rivals.items() if outcome == "equal")
            return ("equal" if equal else "best"), (leader, *equal)
    return "undecided", ()
