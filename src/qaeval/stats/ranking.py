"""Bradley-Terry strengths from pairwise judgements, with intervals by cluster.

Only for designs where pairs of candidates are judged against each other, and not every pair on every chunk;
for grades of single answers the paired difference says the same with fewer assumptions.
"""

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike

from qaeval.stats._arrays import Floats, check_level
from qaeval.stats.estimate import Estimate, too_few, undefined, warning
from qaeval.stats.resampling import MAX_UNDEFINED, Clusters, resampled_totals

_MAX_STEPS = 20_000
"""MM converges linearly, and slowly where few games link two groups of candidates."""
_PRECISION = 1e-11
"""Largest step of a log-strength at which the iteration ends; reports print two digits."""

_TIE = 1e-8
"""Log-strengths closer than this are equal: what rounding adds must not rank them by their order."""


def bradley_terry(wins: ArrayLike, *, reference: int | None = None) -> Floats:
    r"""Log-strengths of candidates from pairwise wins.

    :math:`\lambda` with :math:`\operatorname{logit} P(i \text{ beats } j) = \lambda_i - \lambda_j`, maximum
    likelihood by the MM steps :math:`\pi_i = W_i / \sum_j n_{ij}/(\pi_i + \pi_j)`. Sources: Bradley and Terry
    1952; Hunter 2004.

    Args:
        wins: Wins of row over column, shape (..., M, M); a tie is half a win for both. The diagonal is
            ignored.
        reference: Candidate whose strength is 0; by default the mean is 0.

    Returns:
        Shape (..., M), log-odds; transposing the wins changes the signs. NaN where the strengths do not
        exist: some group of candidates never lost, or never played, against the others.

    Raises:
        ValueError: The wins are not square, not finite, or negative.
    """
    w = np.array(wins, dtype=np.float64)
    if w.ndim < 2 or w.shape[-1] != w.shape[-2] or w.shape[-1] < 2:
        raise ValueError(f"wins must be square with at least 2 candidates, got shape {w.shape}")
    if not np.isfinite(w).all() or (w < 0).any():
        raise ValueError("wins must be finite and not negative")
    m = w.shape[-1]
    w[..., range(m), range(m)] = 0.0
    flat = w.reshape(-1, m, m)
    out = np.full((len(flat), m), nan)
    joined = _strongly_connected(flat > 0)
    if joined.any():
        out[joined] = _mm(flat[joined])
    out -= out.mean(axis=1, keepdims=True) if reference is None else out[:, [reference]]
    return out.reshape(w.shape[:-1])


def _strongly_connected(beats: np.ndarray) -> np.ndarray:
    """Whether every candidate reaches every other along wins, for each of the matrices, shape (B,)."""
    m = beats.shape[-1]
    reach = beats | np.eye(m, dtype=bool)
    for _ in range(int(np.ceil(np.log2(m)))):
        reach = (reach.astype(np.float64) @ reach.astype(np.float64)) > 0
    return np.asarray(reach.all(axis=(-2, -1)))


def _mm(wins: Floats) -> Floats:
    """Run the MM steps of all matrices at once; shape (B, M, M) to log-strengths (B, M)."""
    games, won = wins + wins.swapaxes(-1, -2), wins.sum(axis=-1)
    log_strength = np.zeros(won.shape)
    running = np.arange(len(wins))
    for _ in range(_MAX_STEPS):
        now = log_strength[running]
        strength = np.exp(now)
        against = (games[running] / (strength[:, :, None] + strength[:, None, :])).sum(axis=-1)
        new = np.log(won[running] / against)
        new -= new.mean(axis=1, keepdims=True)
        log_strength[running] = new
        running = running[np.abs(new - now).max(axis=1) > _PRECISION]
        if len(running) == 0:
            break
    return log_strength


@dataclass(frozen=True, slots=True)
class Ranked:
    """One candidate's place in a Bradley-Terry ranking."""

    strength: Estimate
    """Log-strength, the mean of all candidates is 0 (or the reference's is)."""
    rank: int
    """1 for the strongest, equal ones share the better place; 0 when the strengths do not exist."""
    rank_low: int
    """Best rank within the interval; 0 without an interval."""
    rank_high: int
    """Worst rank within the interval; 0 without an interval."""


def bradley_terry_bootstrap(
    wins_by_cluster: ArrayLike,
    *,
    rng: np.random.Generator,
    reference: int | None = None,
    n_resamples: int = 1999,
    level: float = 0.95,
) -> tuple[Ranked, ...]:
    """Bradley-Terry strengths and ranks with percentile intervals from resampled clusters.

    Sources: Bradley and Terry 1952; Efron and Tibshirani 1993.

    Args:
        wins_by_cluster: Wins of row over column in each cluster, shape (G, M, M); a tie is half a win for
            both.
        rng: Source of the resamples; the same seed gives the same intervals.
        reference: Candidate whose strength is 0; by default the mean is 0.
        n_resamples: Number of resamples.
        level: Confidence level.

    Returns:
        An entry for each candidate: strength as log-odds, ranks from 1 to M. The interval is NaN with fewer
        than 10 clusters, or when more than 1 % of the resamples have no strengths.

    Raises:
        ValueError: The wins are not square, not finite, or negative.
    """
    check_level(level)
    clusters = Clusters.of(wins_by_cluster)
    n, n_clusters = round(float(clusters.total.sum())), clusters.n_clusters
    strength = bradley_terry(clusters.total, reference=reference)
    m, reason = len(strength), too_few(n_clusters)
    if np.isnan(strength).any():
        reason = "some candidates never lost to, or never met, the others: strengths do not exist"
    draws = np.zeros((0, m))
    if reason is None:
        batches = resampled_totals(clusters, rng=rng, n_resamples=n_resamples)
        draws = np.concatenate([bradley_terry(batch, reference=reference) for batch in batches])
        draws = draws[~np.isnan(draws).any(axis=1)]
        if len(draws) < (1 - MAX_UNDEFINED) * n_resamples:
            reason = f"{n_resamples - len(draws)} of {n_resamples} resamples have no strengths"
    ranks = _ranks(strength[None])[0]
    if reason is not None:
        return tuple(
            Ranked(
                undefined(reason, value=float(value), n=n, n_clusters=n_clusters, level=level),
                int(rank),
                0,
                0,
            )
            for value, rank in zip(strength, ranks, strict=True)
        )
    return _with_intervals(strength, ranks, draws, n=n, n_clusters=n_clusters, level=level)


def _ranks(strengths: Floats) -> np.ndarray:
    """Rank of each candidate, 1 for the largest, equal ones alike, shape (B, M); 0 where there is no strength."""
    larger = (strengths[:, None, :] > strengths[:, :, None] + _TIE).sum(axis=-1)
    return np.where(np.isnan(strengths), 0, larger + 1)


def _with_intervals(
    strength: Floats, ranks: np.ndarray, draws: Floats, *, n: int, n_clusters: int, level: float
) -> tuple[Ranked, ...]:
    tails = [0.5 - level / 2, 0.5 + level / 2]
    low, high = np.quantile(draws, tails, axis=0)
    best, worst = np.quantile(_ranks(draws), tails, axis=0, method="inverted_cdf")
    return tuple(
        Ranked(
            strength=Estimate(
                value=float(strength[i]),
                low=float(low[i]),
                high=float(high[i]),
                level=level,
                method="Bradley-Terry, cluster bootstrap, percentile",
                n=n,
                n_clusters=n_clusters,
                reason=warning(n_clusters),
            ),
            rank=int(ranks[i]),
            rank_low=int(best[i]),
            rank_high=int(worst[i]),
        )
        for i in range(len(strength))
    )
