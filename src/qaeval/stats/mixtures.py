r"""Closed forms that hold at every look: normal and beta-binomial mixtures, and Wald's lines.

They bet on all alternatives at once, in the proportions of a prior, and need no order of the values. `sequential` is
narrower where the last value is known beforehand; these are what it is checked against.
"""

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from qaeval.stats._arrays import Floats

_EDGE = 1e-12


def mixture_rho(v: float, *, alpha: float) -> float:
    r"""Return the prior precision for which the normal mixture is narrowest at variance `v`.

    :math:`\rho = v / (2 \log(1/\alpha) + \log(1 + 2 \log(1/\alpha)))`. Source: Howard et al. 2021, section 3.5.
    """
    twice = 2 * log(1 / alpha)
    return v / (twice + log(1 + twice))


def log_mixture(s: ArrayLike, v: ArrayLike, *, rho: float) -> Floats:
    r"""Logarithm of the normal mixture, :math:`s^2 / (2 (v + \rho)) + \frac12 \log(\rho / (v + \rho))`.

    Args:
        s: Sum of the values' distances from the null.
        v: Sum of their variances.
        rho: From `mixture_rho`.
    """
    spread = np.asarray(v, dtype=np.float64) + rho
    return np.asarray(np.asarray(s) ** 2 / (2 * spread) + np.log(rho / spread) / 2)


def mixture_bound(v: ArrayLike, *, rho: float, alpha: float) -> Floats:
    r"""Return what the absolute sum stays below at all times together, for variances summed up to `v`; two-sided.

    :math:`\sqrt{(v + \rho) (2 \log(1/\alpha) + \log((v + \rho) / \rho))}`: where the mixture reaches 1 / alpha. Exact for
    normal values and for those whose spread is bounded by `v`, else for many values.
    """
    spread = np.asarray(v, dtype=np.float64) + rho
    return np.asarray(np.sqrt(spread * (2 * log(1 / alpha) + np.log(spread / rho))))


def bernoulli_interval(
    successes: int, n: int, *, alpha: float = 0.05, n_opt: float | None = None
) -> tuple[float, float]:
    r"""Interval of a rate of independent yes-or-no values that holds at every look.

    All p for which :math:`B(a + S, b + n - S) / B(a, b) < p^S (1 - p)^{n - S} / \alpha`: the beta-binomial mixture has not
    reached 1 / alpha against p. Items of one chunk are not independent; give it one value of each chunk.

    Args:
        successes: S, in 0..n.
        n: Values seen, at least 1.
        alpha: Error rate over all looks, two-sided.
        n_opt: The prior is a = r / (1 - p), b = r / p, narrowest around so many values (Howard et al. 2021); None: a = b = 1.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes must be between 0 and n, and n at least 1, got {successes!r} of {n!r}")
    rate, failures = successes / n, n - successes

    def over(p: float) -> float:
        a = b = 1.0
        if n_opt is not None:
            spread = p * (1 - p)
            r = max(mixture_rho(spread * n_opt, alpha=alpha) - spread, 1e-3 * spread)
            a, b = r / (1 - p), r / p
        mixed = special.betaln(a + successes, b + failures) - special.betaln(a, b)
        plain = special.xlogy(successes, p) + special.xlog1py(failures, -p)
        return float(mixed - plain - log(1 / alpha))

    low = optimize.brentq(over, _EDGE, rate) if successes else 0.0
    high = optimize.brentq(over, rate, 1 - _EDGE) if failures else 1.0
    return float(low), float(high)


def sign_e_value(wins: int, losses: int) -> float:
    r"""Evidence against "wins and losses are equally likely": :math:`2^{w + l} B(1 + w, 1 + l)`.

    Ties are left out. 1 / E is a p-value at every look. One win or loss for each chunk: items of a chunk are not independent.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"wins and losses are counts, got {wins!r} and {losses!r}")
    return float(np.exp((wins + losses) * log(2) + special.betaln(1 + wins, 1 + losses)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """Wald's test of two rates: successes among n below ``slope * n - low`` speak for p1, above ``slope * n + high`` for p2."""

    low: float
    high: float
    slope: float

    @classmethod
    def of(cls, p1: float, p2: float, *, alpha: float, beta: float) -> "Lines":
        """Return the lines for rates p1 < p2 with error rates alpha (of finding p2) and beta (of finding p1). Source: Wald 1945."""
        if not 0 < p1 < p2 < 1:
            raise ValueError(f"expected 0 < p1 < p2 < 1, got {p1!r} and {p2!r}")
        k = log(p2 * (1 - p1) / (p1 * (1 - p2)))
        return cls(
            low=log((1 - alpha) / beta) / k,
            high=log((1 - beta) / alpha) / k,
            slope=log((1 - p1) / (1 - p2)) / k,
        )
