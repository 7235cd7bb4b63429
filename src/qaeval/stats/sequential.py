r"""Tests and bounds of a mean that hold at every look at the data, by betting.

A bettor stakes a part of the capital on each value against a null mean :math:`\mu_0`: it is multiplied by
:math:`1 + \lambda w (x - \mu_0)`, with the bet :math:`\lambda` fixed before the value is seen. Where the mean
is :math:`\mu_0` or less, the expected capital does not grow, so the probability that it ever reaches
:math:`1/\alpha` is at most :math:`\alpha` (Ville 1939): no normal distribution, no known variance, no looks
agreed upon beforehand. The :math:`\mu_0` at which it reached :math:`1/\alpha` are below the mean. Source:
Waudby-Smith and Ramdas 2024, *Estimating means of bounded random variables by betting*.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qaeval.stats._arrays import TINY, Floats

_MAX_STAKE: Final = 0.9
"""Share of the capital that one value may take.

At 1 a single worst value would leave nothing to bet with; the less it is, the more values a margin takes
where nothing differs: log(1/alpha) / log(1 + stake * margin / (1 - margin)), 65 at 0.9 and 116 at 0.5 for a
margin of 0.05 and an alpha of 0.05.
"""
_PRIOR_VARIANCE: Final = 0.04
"""Variance assumed before the first value, as a share of the squared range.

For differences in [-1, 1] a standard deviation of 0.4: those of three items a chunk have 0.22 to 0.43
(docs/gate-validity.md).
"""
_PRIOR_WEIGHT: Final = 2.0
"""Number of values that the assumed variance counts for, so that real values soon outweigh it."""
_MIN_VARIANCE: Final = 1e-4
"""Smallest variance, as a share of the squared range: where chunks tie, bets would grow without end."""
_GRID: Final = 401
"""Null means of a `ConfidenceSequence`: steps of half a percentage point for differences of rates."""
_SHRINK_WEIGHT: Final = 5.0
"""Number of values of 0 that the mean in `decision_bets` is shrunk by."""
_MIN_LEAD: Final = 0.02
"""Smallest distance from the null that `decision_bets` expects: less takes thousands of chunks to show."""
_TUNINGS: Final = (0.0, 0.5, 1.0)
"""Weights of the judge's differences in `corrected_looks`."""
_LABELLED_VALUES: Final = 100
"""Labelled chunks that the bets of `corrected_looks` are best for: their number is not known beforehand."""


class BettingTest:
    """Test by betting that a mean is above a null value, or several null values at once, at every look.

    The mean is that of the values weighted by ``weight``: with weights known beforehand, such as the number
    of a chunk's items, it is a ratio of sums, and the guarantee is that of the ratio. One value for each
    chunk: items of a chunk are not independent. The order of the chunks must not depend on their values.

    Args:
        nulls: Null means, a scalar or any shape; values must broadcast with it.
        alpha: Error rate of each null, one-sided, over all looks.
        n_values: Largest number of values; more are taken, with less power.
        low: Smallest possible value.
        high: Largest possible value.
        max_weight: Largest weight of any value. Bets depend on it instead of the next value's weight.
        bets: Rule that sets the bets; default: `deadline_bets`.

    Attributes:
        log_capital: Natural logarithm of the capital against each null; 0 at the start.
        log_peak: Largest logarithm so far.
        n: Values seen.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        nulls: ArrayLike,
        *,
        alpha: float,
        n_values: int,
        low: float = -1.0,
        high: float = 1.0,
        max_weight: float = 1.0,
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
        self.n_values, self.low, self.high, self.max_weight = n_values, low, high, max_weight
        self.log_capital: Floats = np.zeros_like(self.nulls)
        self.log_peak: Floats = np.zeros_like(self.nulls)
        self.n = 0
        self._bets = bets or deadline_bets
        self._weight: Floats = np.zeros(())
        self._sum, self._weight2, self._sum2, self._squares = (self._weight,) * 4

    @property
    def is_above(self) -> NDArray[np.bool_]:
        """Whether the capital reached 1 / alpha: the mean is above the null; shape of the nulls."""
        return np.asarray(self.log_peak >= self.target)

    @property
    def p_value(self) -> Floats:
        """P-value of "the mean is at most the null" at every look, in (0, 1]; shape of the nulls."""
        return np.exp(-self.log_peak)

    @property
    def mean(self) -> Floats:
        """Weighted mean of the values so far; 0 before the first."""
        return np.asarray(self._sum / np.maximum(self._weight, TINY))

    @property
    def variance(self) -> Floats:
        """Mean squared distance of the weighted values from their mean, the assumed variance counted in."""
        square_range = (self.high - self.low) ** 2
        mean = self.mean
        squares = self._squares - 2 * mean * self._sum2 + mean**2 * self._weight2
        mixed = (_PRIOR_WEIGHT * _PRIOR_VARIANCE * square_range + squares) / (_PRIOR_WEIGHT + self.n)
        return np.asarray(np.maximum(mixed, _MIN_VARIANCE * square_range))

    def update(self, value: ArrayLike, weight: ArrayLike = 1.0) -> None:
        """Place the bets, then take the next value into account.

        Args:
            value: Next value in [low, high], or an array that broadcasts with the nulls.
            weight: Weight in (0, max_weight], known before the value.

        Raises:
            ValueError: The value or the weight is out of range.
        """
        x, w = np.asarray(value, dtype=np.float64), np.asarray(weight, dtype=np.float64)
        if not ((x >= self.low - TINY) & (x <= self.high + TINY)).all():
            raise ValueError(f"values must be in [{self.low}, {self.high}], got {value!r}")
        if not ((w > 0) & (w <= self.max_weight + TINY)).all():
            raise ValueError(f"weights must be in (0, {self.max_weight}], got {weight!r}")
        # a bet may lose at most the stake when the smallest value comes with the largest weight
        max_bet = _MAX_STAKE / np.maximum(self.max_weight * (self.nulls - self.low), TINY)
        bets = np.clip(self._bets(self), 0.0, max_bet)
        self.log_capital = self.log_capital + np.log1p(bets * w * (x - self.nulls))
        self.log_peak = np.maximum(self.log_peak, self.log_capital)
        self.n += 1
        self._weight, self._sum = self._weight + w, self._sum + w * x
        self._weight2, self._sum2 = self._weight2 + w**2, self._sum2 + w**2 * x
        self._squares = self._squares + (w * x) ** 2


Bets: TypeAlias = Callable[[BettingTest], ArrayLike]
"""Rule for the bets on the next value: share of the capital per unit above the null, shape of the nulls."""


def deadline_bets(test: BettingTest) -> Floats:
    r"""Bet to reach the target early where the data allow it, and by the last value where they do not.

    The mean of two bets, with the variance v of the values so far. :math:`\sqrt{2 \log(1/\alpha) / (v N)}` is
    the best constant bet for N values. :math:`\sqrt{2 L / (v n)}` is the best for the n values left and the
    logarithm L that the capital still has to grow by: small when ahead, large when few values are left. The
    first finds large changes early, the second uses the last values (docs/decisions/0007);
    ``benchmarks/gate.py`` compares other bets. Sources: Waudby-Smith and Ramdas 2024; Voracek and Orabona
    2025, *STaR-Bets*.

    Args:
        test: Test before its next value.

    Returns:
        Bets, at least 0, shape of the nulls.
    """
    left = max(test.n_values - test.n, 1)
    missing = np.maximum(test.target - test.log_capital, 0.0)
    spread = test.variance
    constant = np.sqrt(2 * test.target / (spread * test.n_values))
    return np.asarray((constant + np.sqrt(2 * missing / (spread * left))) / 2)


def decision_bets(test: BettingTest) -> Floats:
    r"""Bet for tests with thousands of values, of which few may decide.

    The mean of `deadline_bets`, which wastes no value up to the last, and of the bet
    :math:`d / (v + d^2)` by which the capital would have grown fastest on the values so far, with the
    variance v and the distance d of the mean, shrunk towards 0, from the null (aGRAPA).
    ``benchmarks/until_decided.py`` compares both. Source: Waudby-Smith and Ramdas 2024.

    Args:
        test: Test before its next value.

    Returns:
        Bets, at least 0, shape of the nulls.
    """
    shrunk = test.mean * (test.n / (test.n + _SHRINK_WEIGHT))
    lead = np.maximum(shrunk - test.nulls, _MIN_LEAD)
    return np.asarray((deadline_bets(test) + lead / (test.variance + lead**2)) / 2)


class ConfidenceSequence:
    """Bounds of a mean that hold at all looks together.

    Each bound is read off a `BettingTest` on a grid of null means. Before the first value they are the range.

    Args:
        alpha_low: Error rate of the lower bound, over all looks.
        alpha_high: Error rate of the upper bound, over all looks.
        n_values: Largest number of values; more are taken, with less power.
        low: Smallest possible value.
        high: Largest possible value.
        max_weight: Largest weight of any value.
        thresholds: Means that the bounds must decide exactly, such as a margin; others are on a grid of 1/400
            of the range.

    Attributes:
        low: Lower bound; above each threshold that the mean is shown to be above. It never falls.
        high: Upper bound; below each threshold that the mean is shown to be below. It never rises.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        alpha_low: float,
        alpha_high: float,
        n_values: int,
        low: float = -1.0,
        high: float = 1.0,
        max_weight: float = 1.0,
        thresholds: tuple[float, ...] = (),
    ) -> None:
        grid = np.unique([*np.linspace(low, high, _GRID), *thresholds])
        self.low, self.high = low, high
        self._above = BettingTest(
            grid, alpha=alpha_low, n_values=n_values, low=low, high=high, max_weight=max_weight
        )
        self._below = BettingTest(
            -grid[::-1], alpha=alpha_high, n_values=n_values, low=-high, high=-low, max_weight=max_weight
        )

    @property
    def n(self) -> int:
        """Values seen."""
        return self._above.n

    @property
    def mean(self) -> float:
        """Weighted mean of the values so far; 0 before the first."""
        return float(self._above.mean)

    def update(self, value: float, weight: float = 1.0) -> None:
        """Take the next value into account; arguments and errors as in `BettingTest.update`."""
        self._above.update(value, weight)
        self._below.update(-value, weight)
        self.low = _reached(self._above)
        self.high = -_reached(self._below)


def _reached(test: BettingTest) -> float:
    """Return the smallest number above the nulls that are all excluded, or the smallest possible value."""
    n_excluded = int(np.cumprod(test.is_above).sum())
    return float(np.nextafter(test.nulls[n_excluded - 1], np.inf)) if n_excluded else test.low


@dataclass(frozen=True, slots=True)
class SequentialLook:
    """What the chunks up to a look show of differences between candidates; each array has the leading axes of the values."""

    low: Floats
    """Lower bound of the mean difference, in [-1, 1]; with `high` it holds at all looks together."""
    high: Floats
    """Upper bound."""
    p_value: Floats
    """P-value of "the mean difference is 0", two-sided, valid at every look; in (0, 1]."""
    p_equivalent: Floats
    """P-value of "the mean difference is the margin or more, in either direction", valid at every look; in (0, 1]."""


def sequential_looks(
    differences: ArrayLike,
    *,
    looks: Sequence[int],
    n_values: int,
    margin: float,
    weights: ArrayLike = 1.0,
    max_weight: float = 1.0,
    alpha: float = 0.05,
    n_pairs: int = 1,
) -> tuple[SequentialLook, ...]:
    """Bound mean differences and test them against 0 and the margin, at error rates that hold at every look.

    Bets are placed on every chunk (`BettingTest`, `decision_bets`), and what they showed once stays shown. Source:
    Waudby-Smith and Ramdas 2024.

    Args:
        differences: Differences of the chunks in an order that does not depend on them, shape (..., n), in [-1, 1].
        looks: Numbers of chunks at which to look, ascending, each in [1, n].
        n_values: Largest number of chunks; the bets are best for it.
        margin: Smallest difference that matters, in (0, 1).
        weights: Weight of each chunk, known beforehand, shape (n,), in (0, max_weight].
        max_weight: Largest weight of any chunk.
        alpha: Error rate of a two-sided interval over all looks, in (0, 1).
        n_pairs: Tests among which the error rate is shared later; the bets aim at that level.

    Returns:
        One for each look, in their order; intervals in [-1, 1], the whole of it before there is evidence. Always defined.

    Raises:
        ValueError: An argument is out of range.
    """
    d = np.asarray(differences, dtype=np.float64)
    w = np.broadcast_to(np.asarray(weights, dtype=np.float64), d.shape[-1:])
    nulls = np.unique([*np.linspace(-1.0, 1.0, _GRID), 0.0, *_margins(margin)])
    up, down = (
        BettingTest(
            np.broadcast_to(nulls, (*d.shape[:-1], len(nulls))),
            alpha=alpha / 2 / n_pairs,
            n_values=n_values,
            max_weight=max_weight,
            bets=decision_bets,
        )
        for _ in range(2)
    )
    results = []
    for number in range(max(looks, default=0)):
        up.update(d[..., number, None], float(w[number]))
        down.update(-d[..., number, None], float(w[number]))
        if number + 1 in looks:
            results.append(_look(nulls, up.log_peak, down.log_peak, margin=margin, alpha=alpha))
    return tuple(results)


def corrected_looks(
    judged: ArrayLike,
    labelled: ArrayLike,
    *,
    looks: Sequence[int],
    n_values: int,
    margin: float,
    weights: ArrayLike = 1.0,
    max_weight: float = 1.0,
    alpha: float = 0.05,
    n_pairs: int = 1,
    step: float = 0.005,
) -> tuple[SequentialLook, ...]:
    r"""Bound and test mean differences by labels of some chunks and the judge's letters of all, at every look.

    :math:`E[Y] = E[Y - \lambda H] + \lambda E[H]`, with labels' and judge's differences Y and H. A null value
    of E[Y] is excluded if it is for every way to divide it between the two: one bettor bets on
    :math:`Y - \lambda H` of the labelled chunks, another on :math:`\lambda H` of the others, and the product of
    their capitals, the smallest over all divisions, cannot be expected to grow under the null. The capital is
    divided evenly among three :math:`\lambda`. Unlike in `qaeval.stats.stopping` the judge's mean over all
    chunks is not known before the last one is graded, so it is bet on too. Sources: Waudby-Smith and Ramdas
    2024; Angelopoulos, Duchi and Zrnic 2023 (arXiv 2311.01453), for the judge as control variate.

    Args:
        judged: Judge's differences of the chunks in an order that depends on no letter, shape (..., n), in [-1, 1].
        labelled: Labels' differences, shape (..., n); NaN in chunks without. Those with labels must be a random
            part of the chunks, and the same along all leading axes.
        looks: As in `sequential_looks`; so are the other arguments.
        n_values: Largest number of chunks.
        margin: Smallest difference that matters, in (0, 1).
        weights: Weight of each chunk, shape (n,).
        max_weight: Largest weight of any chunk.
        alpha: Error rate of a two-sided interval over all looks.
        n_pairs: Tests among which the error rate is shared later.
        step: Largest step between the null means, above 0.

    Returns:
        One for each look, in their order; intervals in [-1, 1], the whole of it before there is evidence. Always defined.

    Raises:
        ValueError: An argument is out of range.
    """
    h, y = np.asarray(judged, dtype=np.float64), np.asarray(labelled, dtype=np.float64)
    w = np.broadcast_to(np.asarray(weights, dtype=np.float64), h.shape[-1:])
    margin = _margins(margin)[1]
    n_steps = ceil(margin / step)
    # steps of the margin, so that 0 and the margin are among the null means
    reach = ceil(n_steps / margin)
    nulls: Floats = np.arange(-reach, reach + 1, dtype=np.float64) * (margin / n_steps)
    pairs = [
        tuple(
            _Divided(
                h * sign,
                y * sign,
                w,
                tuning,
                nulls,
                alpha=alpha / 2 / n_pairs,
                n_values=n_values,
                max_weight=max_weight,
            ).log_capitals(looks)
            for sign in (1.0, -1.0)
        )
        for tuning in _TUNINGS
    ]
    results = []
    up: Floats = np.zeros((*h.shape[:-1], len(nulls)))
    down = up
    for number, _ in enumerate(looks):
        mixed = [
            np.logaddexp.reduce([capitals[side][number] for capitals in pairs], axis=0) - np.log(len(pairs))
            for side in (0, 1)
        ]
        up, down = np.maximum(up, mixed[0]), np.maximum(down, mixed[1])
        results.append(_look(nulls, up, down, margin=margin, alpha=alpha))
    return tuple(results)


class _Divided:
    """Bets that a mean is above null means, divided between labelled chunks and the others; see `corrected_looks`."""

    def __init__(
        self,
        h: Floats,
        y: Floats,
        w: Floats,
        tuning: float,
        nulls: Floats,
        *,
        alpha: float,
        n_values: int,
        max_weight: float,
    ) -> None:
        self._h, self._y, self._w, self._tuning, self._nulls = h, y, w, tuning, nulls
        self._is_labelled: NDArray[np.bool_] = np.asarray(~np.isnan(y.reshape(-1, y.shape[-1])).any(axis=0))
        step = float(nulls[1] - nulls[0])
        reach = ceil((1 + tuning) / step), ceil(tuning / step)
        self._parts = tuple(
            BettingTest(
                np.broadcast_to(np.arange(-n, n + 1) * step, (*h.shape[:-1], 2 * n + 1)),
                alpha=alpha,
                n_values=number,
                low=-n * step - TINY,
                high=n * step + TINY,
                max_weight=max_weight,
                bets=decision_bets,
            )
            for n, number in zip(reach, (min(n_values, _LABELLED_VALUES), n_values), strict=True)
            if n
        )

    def log_capitals(self, looks: Sequence[int]) -> list[Floats]:
        """Logarithm of the capital against each null at each look."""
        return list(self._walk(looks))

    def _walk(self, looks: Sequence[int]) -> Iterator[Floats]:
        for number in range(max(looks, default=0)):
            by_judge = self._tuning * self._h[..., number, None]
            if self._is_labelled[number]:
                self._parts[0].update(self._y[..., number, None] - by_judge, float(self._w[number]))
            elif self._tuning:
                self._parts[1].update(by_judge, float(self._w[number]))
            if number + 1 in looks:
                yield self._smallest()

    def _smallest(self) -> Floats:
        """Capital against each null of the sum: the smallest over the ways to divide it."""
        of_labels = self._parts[0].log_capital
        center, n = of_labels.shape[-1] // 2, len(self._nulls) // 2
        if not self._tuning:
            return np.asarray(of_labels[..., center - n : center + n + 1])
        of_judge = self._parts[1].log_capital
        half = of_judge.shape[-1] // 2
        smallest = np.full((*of_labels.shape[:-1], len(self._nulls)), np.inf)
        # the judge's part of the null is `shift` steps; the labels' part is the rest
        for shift in range(-half, half + 1):
            first = center - n - shift
            window = of_labels[..., max(first, 0) : first + len(self._nulls)]
            start = max(-first, 0)
            part = smallest[..., start : start + window.shape[-1]]
            np.minimum(part, window + of_judge[..., half + shift, None], out=part)
        return smallest


def _margins(margin: float) -> tuple[float, float]:
    if not 0 < margin < 1:
        raise ValueError(f"margin must be between 0 and 1, for example 0.05, got {margin!r}")
    return -margin, margin


def _look(nulls: Floats, up: Floats, down: Floats, *, margin: float, alpha: float) -> SequentialLook:
    """Read bounds and p-values off the capitals against each null of a mean, and of the mean times -1."""
    zero, lower = (int(np.argmin(np.abs(nulls - null))) for null in (0.0, -margin))
    return SequentialLook(
        low=_bounds(nulls, up, alpha),
        high=-_bounds(nulls, down, alpha),
        p_value=np.minimum(1.0, 2 * np.exp(-np.maximum(up[..., zero], down[..., zero]))),
        p_equivalent=np.minimum(1.0, np.exp(-np.minimum(up[..., lower], down[..., lower]))),
    )


def _bounds(nulls: Floats, log_capital: Floats, alpha: float) -> Floats:
    """Return the smallest number above the nulls that are all excluded, or the smallest null."""
    excluded = np.cumprod(log_capital >= np.log(2 / alpha), axis=-1).sum(axis=-1)
    above = np.nextafter(nulls, np.inf)
    return np.asarray(np.where(excluded > 0, above[np.maximum(excluded - 1, 0)], max(nulls[0], -1.0)))
