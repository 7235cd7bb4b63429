"""What the marginals of two raters allow: the range of agreement and of kappa over all possible tables."""

from dataclasses import dataclass
from math import nan

import numpy as np
import scipy  # its `optimize` is loaded at the first use: 0.2 s that few runs need
from numpy.typing import ArrayLike

from qaeval.stats._arrays import TINY, Floats, as_values
from qaeval.stats.coefficients import Weights, agreement_weights


@dataclass(frozen=True, slots=True)
class AgreementBounds:
    """Range of (weighted) agreement and kappa over all tables with given marginals."""

    agreement_min: float
    """Smallest observed agreement."""
    agreement_max: float
    """Largest observed agreement."""
    expected: float
    """Agreement by chance, which the marginals fix."""
    kappa_min: float
    """Smallest kappa; NaN when the expected agreement is 1."""
    kappa_max: float
    """Largest kappa; NaN when the expected agreement is 1."""


def agreement_bounds(
    row_marginal: ArrayLike, column_marginal: ArrayLike, *, weights: "Weights | ArrayLike" = None
) -> AgreementBounds:
    r"""Range of agreement and kappa that two raters' marginals allow.

    Unweighted in closed form: at most :math:`\sum_i \min(r_i, c_i)`, at least :math:`\sum_i \max(0, r_i + c_i
    - 1)`. Weighted by the transportation linear program :math:`\max / \min \sum w_{ij} t_{ij}` over tables
    *t* with these marginals.

    Args:
        row_marginal: Counts or shares of each letter by one rater, shape (K,).
        column_marginal: The same for the other rater; the sums must agree.
        weights: None, ``"linear"``, ``"quadratic"`` or a matrix of agreement weights, shape (K, K).

    Returns:
        Agreements in [0, 1] for weights in [0, 1], kappas in [-1, 1]. Swapping the raters changes nothing for
        symmetric weights. The kappas are NaN when the expected agreement is 1.

    Raises:
        ValueError: The marginals have different lengths or sums, or are negative.
    """
    r, c = _shares(row_marginal, column_marginal)
    w = agreement_weights(len(r), weights)
    if np.array_equal(w, np.eye(len(r))):
        lowest, highest = float(np.maximum(0.0, r + c - 1.0).sum()), float(np.minimum(r, c).sum())
    else:
        lowest, highest = _transport(r, c, w), -_transport(r, c, -w)
    expected = float(r @ w @ c)
    room = 1.0 - expected
    if room <= TINY:
        return AgreementBounds(lowest, highest, expected, nan, nan)
    return AgreementBounds(lowest, highest, expected, (lowest - expected) / room, (highest - expected) / room)


def _shares(row_marginal: ArrayLike, column_marginal: ArrayLike) -> tuple[Floats, Floats]:
    r = as_values(row_marginal, name="row_marginal")
    c = as_values(column_marginal, name="column_marginal")
    if len(r) != len(c):
        raise ValueError(f"the marginals have {len(r)} and {len(c)} levels, they must have the same")
    if (r < 0).any() or (c < 0).any() or not r.sum() > 0:
        raise ValueError("marginals must be counts or shares: not negative, with a positive sum")
    if abs(r.sum() - c.sum()) > 1e-9 * r.sum():
        raise ValueError(f"the marginals describe different numbers of items: {r.sum():g} and {c.sum():g}")
    return r / r.sum(), c / c.sum()


def _transport(r: Floats, c: Floats, cost: Floats) -> float:
    """Return the smallest cost of moving mass `r` to mass `c`."""
    k = len(r)
    rows, columns = np.kron(np.eye(k), np.ones(k)), np.kron(np.ones(k), np.eye(k))
    result = scipy.optimize.linprog(
        cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([r, c]), method="highs"
    )
    return float(result.fun)
