"""Chunks that a comparison needs and differences that it can show, by simulating the test that decides.

The formulas of `qaeval.stats.power` know only the spread of the paired differences. But the exact sign-flip
test on few chunks has fewer possible p-values than they assume, and a candidate that loses usable items also
changes that spread. Here runs are drawn from the chunks of the pilot, the worse candidate loses usable items
until the true difference is reached, and the sign-flip test decides.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import nan, sqrt

import numpy as np
import scipy  # its `stats` is loaded at the first use: half a second that few runs need
from numpy.typing import ArrayLike
from scipy import special

from qaeval.stats._arrays import TINY, Floats, Ints, as_values, same_length
from qaeval.stats.estimate import MIN_CLUSTERS

_N_RUNS = 4000
"""Simulated runs for one power: two standard errors at 0.8 are 0.013."""
_EXACT_UP_TO = 50
"""With more chunks that differ the normal law of the sign-flip statistic is close enough, and much faster."""
_MAX_CHUNKS = 1_000_000
"""No plan is made for more."""
_TOLERANCE = 0.01
"""Relative precision of what bisection finds; the simulated power is no more precise than that."""


@dataclass(frozen=True, slots=True)
class Pilot:
    """Usable items of two candidates in the same chunks of a run that was made."""

    usable_a: Ints
    """Usable items of candidate a in each chunk, shape (G,), 0 to `size`."""
    usable_b: Ints
    """The same for candidate b."""
    size: int
    """Items that each candidate owes for a chunk."""

    @classmethod
    def of(cls, usable_a: ArrayLike, usable_b: ArrayLike, size: int) -> "Pilot":
        """Check and take over the counts.

        Args:
            usable_a: Usable items of candidate a in each chunk, shape (G,), whole numbers from 0 to `size`.
            usable_b: The same for candidate b, on the same chunks.
            size: Items that each candidate owes for a chunk.

        Raises:
            ValueError: The lengths differ, there are fewer than 2 chunks, or a count is no whole number up to
                `size`.
        """
        a, b = as_values(usable_a, name="usable_a"), as_values(usable_b, name="usable_b")
        same_length(usable_a=a, usable_b=b)
        both = np.concatenate([a, b])
        if len(a) < 2 or size < 1:
            raise ValueError(f"a pilot needs at least 2 chunks of at least 1 item, got {len(a)} of {size!r}")
        if (both != np.round(both)).any() or both.min() < 0 or both.max() > size:
            raise ValueError(f"usable items are whole numbers from 0 to {size}")
        return cls(a.astype(np.int64), b.astype(np.int64), size)

    @classmethod
    def assumed(cls, rate: float, icc: float, size: int) -> "Pilot":
        """Draw 10,000 chunks of two equal candidates, for a plan before any run.

        The same arguments give the same chunks.

        Args:
            rate: Usable rate of both, in (0, 1).
            icc: Correlation of items of a chunk, in [0, 1); the chunk's rate is drawn from a beta
                distribution.
            size: Items of each chunk.

        Raises:
            ValueError: An argument is out of range.
        """
        if not 0 < rate < 1 or not 0 <= icc < 1 or size < 1:
            raise ValueError(
                f"need a rate in (0, 1), an icc in [0, 1) and items above 0, got {rate!r}, {icc!r}, {size!r}"
            )
        rng = np.random.default_rng(0)
        rates = rng.beta(rate * (1 - icc) / icc, (1 - rate) * (1 - icc) / icc, 10_000) if icc else rate
        a, b = rng.binomial(size, rates, (2, 10_000))
        return cls(a, b, size)

    @property
    def rates(self) -> tuple[float, float]:
        """Usable rate of the better and of the worse candidate."""
        a, b = float(self.usable_a.mean()) / self.size, float(self.usable_b.mean()) / self.size
        return max(a, b), min(a, b)

    @property
    def sd(self) -> float:
        """Standard deviation of the paired difference between chunks."""
        return float(np.std((self.usable_b - self.usable_a) / self.size, ddof=1))

    def law(self, difference: float) -> tuple[Floats, Floats]:
        """Return the possible differences of a chunk, worse minus better, and their probabilities.

        One candidate loses usable items at random, each with the same probability, until the true rates are
        `difference` apart: the worse one where the pilot's rates are nearer to each other than that, else the
        better.

        Raises:
            ValueError: The difference is negative or larger than the better candidate's rate.
        """
        best, worst = self.rates
        if not 0 <= difference <= best + TINY:
            raise ValueError(f"a difference must be 0 to the better rate, {best:.3f}, got {difference!r}")
        swapped = self.usable_b.mean() > self.usable_a.mean()
        better, worse = (self.usable_b, self.usable_a) if swapped else (self.usable_a, self.usable_b)
        if difference >= best - worst:
            keep_worse = (best - difference) / worst if worst > 0 else 1.0
            keep_better = 1.0
        else:
            keep_worse, keep_better = 1.0, (worst + difference) / best
        shares = np.zeros(2 * self.size + 1)
        left = np.arange(self.size + 1)
        cells, times = np.unique(np.stack([better, worse], axis=1), axis=0, return_counts=True)
        for (n_better, n_worse), count in zip(cells.tolist(), times.tolist(), strict=True):
            of_better = scipy.stats.binom.pmf(left, n_better, keep_better)
            of_worse = scipy.stats.binom.pmf(left, n_worse, max(0.0, keep_worse))
            shares += count * np.convolve(of_worse, of_better[::-1])
        values = np.arange(-self.size, self.size + 1) / self.size
        return values, shares / shares.sum()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a paired comparison can see."""

    n_chunks: int
    """Chunks of the comparison that is planned."""
    sd: float
    """Standard deviation of the paired difference between the pilot's chunks."""
    detectable: float
    """Smallest true difference that this many chunks find with the power asked for; NaN for none."""
    needed: int | None
    """Chunks needed to find `difference` with the power asked for; None where even a million do not."""
    power: float
    """Probability that this many chunks find `difference`."""


def plan(
    pilot: Pilot, difference: float, *, n_chunks: int | None = None, alpha: float = 0.05, power: float = 0.8
) -> Plan:
    """Say what a comparison could show, and how many chunks would find `difference`.

    Each power is `simulated_power`, 0 with fewer than 10 chunks, where a comparison gives no verdict; the
    numbers of chunks are found to 1 % by bisection.

    Args:
        pilot: Chunks of two candidates, the more the better: from 20 the spread is known to about a sixth.
        difference: True difference of the usable rates that matters, above 0, at most the better candidate's
            rate.
        n_chunks: Chunks of the comparison; default: those of the pilot.
        alpha: Error rate of the two-sided sign-flip test, in (0, 1).
        power: Probability to find the difference, in (0, 1).

    Returns:
        Rates and differences in [0, 1]; the detectable difference is NaN where none is found with this power.

    Raises:
        ValueError: An argument is out of range.
    """
    chunks = len(pilot.usable_a) if n_chunks is None else n_chunks
    if not difference > 0 or not 0 < alpha < 1 or not 0 < power < 1:
        raise ValueError(
            f"need difference > 0, alpha and power in (0, 1), got {difference!r}, {alpha!r}, {power!r}"
        )
    if chunks < 2:
        raise ValueError(f"at least 2 chunks are needed, got {chunks!r}")
    return Plan(
        n_chunks=chunks,
        sd=pilot.sd,
        detectable=_detectable(pilot, chunks, alpha=alpha, power=power),
        needed=_needed(pilot, difference, alpha=alpha, power=power),
        power=_verdict_power(pilot, chunks, difference, alpha=alpha),
    )


def simulated_power(pilot: Pilot, n_chunks: int, difference: float, *, alpha: float = 0.05) -> float:
    """Probability that the two-sided sign-flip test finds a true difference with this many chunks.

    Source: `Pilot.law` draws the runs, the exact `sign_flip_test` or its normal law decides them.

    Args:
        pilot: Chunks of two candidates.
        n_chunks: Chunks of the comparison.
        difference: True difference of the usable rates, 0 to the better candidate's rate.
        alpha: Error rate of the test, in (0, 1).

    Returns:
        A share in [0, 1] of 4,000 simulated runs; the same arguments give the same share. Always defined.

    Raises:
        ValueError: The difference is out of range.
    """
    _, shares = pilot.law(difference)
    counts = np.random.default_rng(0).multinomial(n_chunks, shares, size=_N_RUNS)
    # the test knows only how many chunks differ by how many items, and the sum of the differences
    plus, minus = counts[:, pilot.size + 1 :], counts[:, pilot.size - 1 :: -1]
    steps = np.arange(1, pilot.size + 1)
    sums = np.abs((plus - minus) @ steps)
    distinct, times = np.unique(np.column_stack([plus + minus, sums]), axis=0, return_counts=True)
    sizes, sums = distinct[:, :-1], distinct[:, -1]
    spread = np.sqrt(sizes @ steps**2)
    # continuity correction: a flip moves the sum by two items or more, so half a step of its lattice is 1
    z = np.maximum(0.0, sums - 1.0) / np.where(spread > 0, spread, 1.0)
    is_found = 2 * special.ndtr(-z) <= alpha
    few = sizes.sum(axis=1) <= _EXACT_UP_TO
    is_found[few] = [
        float(_tails(tuple(row))[total]) <= alpha + TINY
        for row, total in zip(sizes[few].tolist(), sums[few].tolist(), strict=True)
    ]
    return float(times @ is_found / _N_RUNS)


@lru_cache(maxsize=50_000)
def _tails(sizes: tuple[int, ...]) -> Floats:
    """Two-sided p-value of the exact sign-flip test for each absolute sum, from 0.

    Args:
        sizes: Chunks that differ by 1, 2, … items, whatever their sign.
    """
    law = np.ones(1)
    for step, n in enumerate(sizes, start=1):
        flips = np.zeros(2 * step * n + 1)
        flips[:: 2 * step] = scipy.stats.binom.pmf(np.arange(n + 1), n, 0.5)
        law = np.convolve(law, flips)
    middle = len(law) // 2
    folded = law[middle:] + np.append(0.0, law[:middle][::-1])
    return np.asarray(folded[::-1].cumsum()[::-1], dtype=np.float64)


def _verdict_power(pilot: Pilot, n_chunks: int, difference: float, *, alpha: float) -> float:
    """Return the probability of a verdict, which takes at least `MIN_CLUSTERS` chunks."""
    return simulated_power(pilot, n_chunks, difference, alpha=alpha) if n_chunks >= MIN_CLUSTERS else 0.0


def _detectable(pilot: Pilot, n_chunks: int, *, alpha: float, power: float) -> float:
    low, high = 0.0, pilot.rates[0]
    if _verdict_power(pilot, n_chunks, high, alpha=alpha) < power:
        return nan
    while high - low > _TOLERANCE * high:
        middle = (low + high) / 2
        if _verdict_power(pilot, n_chunks, middle, alpha=alpha) < power:
            low = middle
        else:
            high = middle
    return high


def _needed(pilot: Pilot, difference: float, *, alpha: float, power: float) -> int | None:
    low, high = 1, 2
    while _verdict_power(pilot, high, difference, alpha=alpha) < power:
        if high >= _MAX_CHUNKS:
            return None
        low, high = high, min(_MAX_CHUNKS, 2 * high)
    while high - low > max(1, _TOLERANCE * high):
        middle = round(sqrt(low * high))
        if _verdict_power(pilot, middle, difference, alpha=alpha) < power:
            low = middle
        else:
            high = middle
    return high
