r"""Has the judge moved? Anchor items that are graded again at every look, tested by betting.

While a judge stays as it is, the letters of an item at all looks are exchangeable: given which letters it got, each order is as likely.
So the last score of an item minus the mean of all its scores has the mean 0, and a bettor who stakes on its sign cannot expect to gain,
whatever the noise of the judge. An item whose letter never changed before pays much when it changes: with K looks the stake grows to
:math:`K - 1` times. A look that follows a move is compared with looks that moved too, and shows less: who asks whether the judge moved at
any time asks every look anew (`look_alpha` covers all of them). Source of the bets: Waudby-Smith and Ramdas 2024, as in `qaeval.stats.sequential`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from qaeval.stats._arrays import TINY, Floats
from qaeval.stats.sequential import BettingTest

_STAKES: Final = np.array([0.1, 0.3, 0.6, 0.9])
"""Shares of the capital at stake; the bettor splits the capital among them."""
_GRID: Final = 401
"""Null means of `mean_bounds`: steps of half a percentage point."""


def look_alpha(look: int, alpha: float) -> float:
    r"""Return the error rate of a look, :math:`\alpha / (k (k + 1))`: over all looks the sum is alpha, however many there are.

    Args:
        look: Number of the look, from 1.
        alpha: Error rate over all looks.
    """
    return alpha / (look * (look + 1))


@dataclass(frozen=True, slots=True)
class DriftEvidence:
    """Evidence of a look that the judge moved; fields have the leading shape of the scores."""

    log_up: Floats
    """Logarithm of the capital of a bettor on higher scores."""
    log_down: Floats
    """The same on lower scores."""

    def moved(self, alpha: float) -> NDArray[np.bool_]:
        """Return whether the judge moved in either direction, at an error rate of this look."""
        return np.asarray(np.maximum(self.log_up, self.log_down) >= np.log(2 / alpha))


def drift_evidence(scores: ArrayLike) -> DriftEvidence:
    """Compare the last look at anchor items with all looks before it.

    Args:
        scores: Score of each item at each look, shape (..., K, n): looks in their order, the first when the anchors were stored; K at
            least 2. NaN: none. An item without a score at the last look bets nothing; without one at an earlier look it bets by its
            others, since these stay exchangeable.

    Raises:
        ValueError: There are fewer than two looks, or a score is infinite.
    """
    x = np.asarray(scores, dtype=np.float64)
    if x.ndim < 2 or x.shape[-2] < 2 or np.isinf(x).any():
        raise ValueError(
            f"scores must not be infinite and must have at least 2 looks, shape (..., K, n), got {x.shape}"
        )
    missing = np.isnan(x)
    n_scores = np.maximum((~missing).sum(axis=-2, keepdims=True), 1)
    deviations = np.where(missing, 0.0, x - np.nansum(x, axis=-2, keepdims=True) / n_scores)

    def capital(signed: Floats) -> Floats:
        # the largest loss of any order of the scores is 1
        worst = -signed.min(axis=-2)
        bets = np.where(worst > TINY, signed[..., -1, :] / np.maximum(worst, TINY), 0.0)
        logs = np.log1p(_STAKES * bets[..., np.newaxis]).sum(axis=-2)
        return np.asarray(logsumexp(logs, axis=-1) - np.log(len(_STAKES)))

    return DriftEvidence(
        log_up=capital(deviations),
        log_down=capital(-deviations),
    )


def mean_bounds(values: ArrayLike, *, alpha: float) -> tuple[Floats, Floats]:
    """Return bounds of the mean of values in [-1, 1] by betting, without a normal distribution.

    Args:
        values: Independent values, such as one for each chunk, shape (..., n).
        alpha: Error rate of each bound.

    Returns:
        Lower and upper bound, in steps of half a percentage point, shape (...); -1 and 1 where nothing is excluded.
    """
    x = np.asarray(values, dtype=np.float64)
    grid = np.linspace(-1.0, 1.0, _GRID)
    bounds = []
    for signed in (x, -x):
        nulls = np.broadcast_to(grid, (*x.shape[:-1], _GRID))
        test = BettingTest(nulls, alpha=alpha, n_values=max(1, x.shape[-1]))
        for index in range(x.shape[-1]):
            test.update(signed[..., index, np.newaxis])
        n_excluded = np.cumprod(test.is_above, axis=-1).sum(axis=-1)
        bounds.append(np.where(n_excluded > 0, grid[np.maximum(n_excluded - 1, 0)], -1.0))
    return bounds[0], -bounds[1]
