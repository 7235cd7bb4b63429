r"""Looking at the data as often as one likes: bounds of a mean that hold at every look.

A gambler bets that a mean is above :math:`\mu_0`. Each value multiplies the capital by
:math:`1 + \lambda w (x - \mu_0)`, where the bet :math:`\lambda` is fixed before the value is seen. Where the mean is
:math:`\mu_0` or less, the capital is not expected to grow, so the probability that it ever reaches :math:`1/\alpha` is
:math:`\alpha` at most (Ville 1939): no normal distribution, no known spread, no looks agreed upon beforehand. The
:math:`\mu_0` at which it reached :math:`1/\alpha` are below the mean. Source: Waudby-Smith and Ramdas 2024, *Estimating
means of bounded random variables by betting*.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qaeval.stats._arrays import TINY, Floats

_WORST: Final = 0.9
"""Share of the capital that one value may take."""
_GUESS: Final = 0.04
"""What the spread is taken for before it is seen, as a share of the squared range."""
_GUESS_WEIGHT: Final = 2.0
"""So many values the guess counts for."""
_LEAST_SPREAD: Final = 1e-4
"""The spread is never taken for less, as a share of the squared range."""
_GRID: Final = 401
"""Means that `Bounds` bets against."""


class Wager:
    """Gamblers, each of whom bets that a mean is above a value of their own.

    The mean is that of the values weighted by ``weight``: with weights that are known beforehand, the number of a chunk's
    items say, it is a ratio of sums, and the guarantee is that of the ratio.

    Args:
        nulls: What is bet against; its shape and that of the values seen must go together.
        alpha: Error rate of each gambler.
        n_values: How many values there will be at most.
        low: The least that a value can be.
        high: The most that a value can be.
        heaviest: The largest weight of any value; bets do not depend on the weight of the next value, only on this.
        bets: Sets the bets; see `deadline_bets`.

    Attributes:
        log_capital: Natural logarithm of each capital; 0 at the start.
        log_peak: The highest that it ever was.
        n: Values seen.
    """

    def __init__(
        self,
        nulls: ArrayLike,
        *,
        alpha: float,
        n_values: int,
        low: float = -1.0,
        high: float = 1.0,
        heaviest: float = 1.0,
        bets: "Bets | None" = None,
    ) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, for example 0.05, got {alpha!r}")
        if n_values < 1:
            raise ValueError(f"n_values says how many values there will be, at least 1, got {n_values!r}")
        if not low < high:
            raise ValueError(f"low must be below high, got {low!r} and {high!r}")
        self.nulls: Floats = np.asarray(nulls, dtype=np.float64)
        self.target = float(np.log(1 / alpha))
        self.n_values, self.low, self.high, self.heaviest = n_values, low, high, heaviest
        self.log_capital: Floats = np.zeros_like(self.nulls)
        self.log_peak: Floats = np.zeros_like(self.nulls)
        self.n = 0
        self._bets = bets or deadline_bets
        self._weight: Floats = np.zeros(())
        self._sum, self._weight2, self._sum2, self._squares = (self._weight,) * 4

    @property
    def is_above(self) -> NDArray[np.bool_]:
        """Whether the capital ever reached 1 / alpha: the mean is above this null."""
        return np.asarray(self.log_peak >= self.target)

    @property
    def p_value(self) -> Floats:
        """Of the hypothesis that the mean is at most the null; holds at every look."""
        return np.exp(-self.log_peak)

    @property
    def mean(self) -> Floats:
        """Weighted mean of what was seen; 0 before anything was."""
        return np.asarray(self._sum / np.maximum(self._weight, TINY))

    @property
    def variance(self) -> Floats:
        """Mean square of a weighted value's distance from the mean, with a guess counted in."""
        square = (self.high - self.low) ** 2
        mean = self.mean
        seen = self._squares - 2 * mean * self._sum2 + mean**2 * self._weight2
        mixed = (_GUESS_WEIGHT * _GUESS * square + seen) / (_GUESS_WEIGHT + self.n)
        return np.asarray(np.maximum(mixed, _LEAST_SPREAD * square))

    def see(self, value: ArrayLike, weight: ArrayLike = 1.0) -> None:
        """Bet on a value, then see it.

        Args:
            value: In [low, high].
            weight: In (0, heaviest], known before the value.

        Raises:
            ValueError: the value cannot be, or the weight is not positive.
        """
        x, w = np.asarray(value, dtype=np.float64), np.asarray(weight, dtype=np.float64)
        if not ((x >= self.low - TINY) & (x <= self.high + TINY)).all():
            raise ValueError(f"values must be in [{self.low}, {self.high}], got {value!r}")
        if not ((w > 0) & (w <= self.heaviest + TINY)).all():
            raise ValueError(f"weights must be in (0, {self.heaviest}], got {weight!r}")
        most = _WORST / np.maximum(self.heaviest * (self.nulls - self.low), TINY)
        bets = np.clip(self._bets(self), 0.0, most)
        self.log_capital = self.log_capital + np.log1p(bets * w * (x - self.nulls))
        self.log_peak = np.maximum(self.log_peak, self.log_capital)
        self.n += 1
        self._weight, self._sum = self._weight + w, self._sum + w * x
        self._weight2, self._sum2 = self._weight2 + w**2, self._sum2 + w**2 * x
        self._squares = self._squares + (w * x) ** 2


Bets: TypeAlias = Callable[[Wager], ArrayLike]
"""Sets the bets on the next value from what was seen: capital per unit above the null, by gambler."""


def deadline_bets(wager: Wager) -> Floats:
    r"""Bet so that the capital gets to its target early where it can, and by the last value where it cannot.

    The mean of two bets, with the spread v seen so far. :math:`\sqrt{2 \log(1/\alpha) / (v N)}` is the best constant bet for
    N values. :math:`\sqrt{2 L / (v n)}` is the best for the n values that are left and the logarithm L that the capital has
    still to grow by: calm when ahead, bold when time runs out (Voracek and Orabona 2025, *STaR-Bets*). Together they
    find most of what a test of all values finds; ``benchmarks/gate.py`` compares them with bets that know no last value.
    """
    left = max(wager.n_values - wager.n, 1)
    needed = np.maximum(wager.target - wager.log_capital, 0.0)
    spread = wager.variance
    constant = np.sqrt(2 * wager.target / (spread * wager.n_values))
    return np.asarray((constant + np.sqrt(2 * needed / (spread * left))) / 2)


class Bounds:
    """Bounds of a mean, each of which holds at all looks together: a confidence sequence.

    Args:
        alpha_low: Error rate of the lower bound.
        alpha_high: Error rate of the upper bound.
        n_values: How many values there will be at most.
        low: The least that a value can be.
        high: The most that a value can be.
        heaviest: The largest weight of any value.
        at: Values that the bounds must tell apart exactly, a margin say; others are told apart by 1/400 of the range.

    Attributes:
        low: Lower bound; above each of ``at`` that the mean is above.
        high: Upper bound; below each of ``at`` that the mean is below.
    """

    def __init__(
        self,
        *,
        alpha_low: float,
        alpha_high: float,
        n_values: int,
        low: float = -1.0,
        high: float = 1.0,
        heaviest: float = 1.0,
        at: tuple[float, ...] = (),
    ) -> None:
        grid = np.unique([*np.linspace(low, high, _GRID), *at])
        self.low, self.high = low, high
        self._above = Wager(grid, alpha=alpha_low, n_values=n_values, low=low, high=high, heaviest=heaviest)
        self._below = Wager(
            -grid[::-1], alpha=alpha_high, n_values=n_values, low=-high, high=-low, heaviest=heaviest
        )

    @property
    def n(self) -> int:
        """Values seen."""
        return self._above.n

    @property
    def mean(self) -> float:
        """Weighted mean of what was seen; 0 before anything was."""
        return float(self._above.mean)

    def see(self, value: float, weight: float = 1.0) -> None:
        """Take one more value into account; arguments as in `Wager.see`."""
        self._above.see(value, weight)
        self._below.see(-value, weight)
        self.low = _reached(self._above)
        self.high = -_reached(self._below)


def _reached(wager: Wager) -> float:
    """Return the least number above the nulls up to which all are excluded, or the least value where none is."""
    n_excluded = int(np.cumprod(wager.is_above).sum())
    return float(np.nextafter(wager.nulls[n_excluded - 1], np.inf)) if n_excluded else wager.low
