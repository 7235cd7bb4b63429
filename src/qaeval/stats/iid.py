"""Standard errors of agreement coefficients for *independent* items, as the literature prints them.

They are the reference that published tables can be checked against. Items of one chunk are not independent,
so reports use the cluster jackknife of `reliability` instead.
"""

from dataclasses import dataclass
from math import nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from qaeval.stats import coefficients as co
from qaeval.stats._arrays import TINY, TWO, Floats, as_table

Coefficient = Literal["kappa", "scott_pi", "brennan_prediger", "gwet_ac"]


@dataclass(frozen=True, slots=True)
class IidCoefficient:
    """A coefficient and its standard error for independent items."""

    value: float
    """The coefficient; NaN where it does not exist."""
    se: float
    """Large-sample standard error around the value."""
    se_null: float
    """Standard error if there were no agreement beyond chance; kappa only, else NaN."""


def iid_coefficient(
    table: ArrayLike, *, coefficient: Coefficient = "kappa", weights: "co.Weights | ArrayLike" = None
) -> IidCoefficient:
    r"""Coefficient of one table with the standard error of its linearisation.

    With the influence :math:`u_{ij} = \{w_{ij} - p_o - (1 - \gamma)\, \partial p_e(i, j)\} / (1 - p_e)` of an item
    in cell (i, j) the variance is :math:`\sum p_{ij} u_{ij}^2 / n`. For kappa that is Fleiss, Cohen and
    Everitt's (1969) variance, and `se_null` is theirs under :math:`\kappa = 0`, the one that ``kap`` of Stata
    and epiR's ``fleiss`` print; for the others it is Gwet's (2008, 2014).

    Args:
        table: Counts, shape (K, K), symmetric weights assumed for all but kappa.
        coefficient: Which one.
        weights: None, ``"linear"``, ``"quadratic"`` or a matrix of agreement weights.

    Returns:
        Value and standard errors, NaN when chance agreement is 1.
    """
    counts = as_table(table)
    if counts.ndim != TWO:
        raise ValueError(f"one table is needed, got shape {counts.shape}")
    n, p = float(counts.sum()), co.proportions(counts)
    w = co.agreement_weights(len(p), weights)
    expected, slope = _chance(p, w, coefficient)
    if not n > 0 or 1 - expected <= TINY:
        return IidCoefficient(nan, nan, nan)
    observed = float((w * p).sum())
    value = (observed - expected) / (1 - expected)
    influence = (w - observed - (1 - value) * slope) / (1 - expected)
    se = sqrt(float((p * influence**2).sum()) / n)
    return IidCoefficient(value, se, _null_se(p, w, expected, n) if coefficient == "kappa" else nan)


def _chance(p: Floats, w: Floats, coefficient: Coefficient) -> tuple[float, Floats]:
    """Return chance agreement, and how one more item in each cell would change it, shape (K, K)."""
    r, c, k = p.sum(axis=1), p.sum(axis=0), len(p)
    q = (r + c) / 2
    if coefficient == "kappa":
        expected = float(r @ w @ c)
        return expected, np.asarray(np.add.outer(w @ c, r @ w) - 2 * expected, dtype=np.float64)
    if coefficient == "scott_pi":
        expected = float(q @ w @ q)
        return expected, np.asarray(np.add.outer(w @ q, w @ q) - 2 * expected, dtype=np.float64)
    if coefficient == "brennan_prediger":
        return float(w.sum()) / k**2, np.zeros((k, k))
    factor = float(w.sum()) / (k * (k - 1))
    ends = np.add.outer(1 - 2 * q, 1 - 2 * q) / 2
    slope = factor * (ends - float((1 - 2 * q) @ q))
    return factor * float(q @ (1 - q)), np.asarray(slope, dtype=np.float64)


def _null_se(p: Floats, w: Floats, expected: float, n: float) -> float:
    r, c = p.sum(axis=1), p.sum(axis=0)
    spread = np.outer(r, c) * (w - np.add.outer(w @ c, r @ w)) ** 2
    return sqrt(max(0.0, float(spread.sum()) - expected**2) / n) / (1 - expected)
