"""Rates corrected by what labels of *another* population say about the judge's errors.

These forms divide by how well the judge tells letters apart, so they are wide for a mediocre judge and worthless for a
poor one, which they refuse. They also assume that the judge errs here as often as it did there. Where labels of the run
itself exist, `qaeval.stats.correction` needs neither.
"""

from dataclasses import dataclass
from functools import partial
from math import inf, isinf, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from qaeval.stats._arrays import TINY, Floats, as_table, check_level
from qaeval.stats.estimate import MIN_CLUSTERS, Estimate, too_few, undefined, warning
from qaeval.stats.intervals import t_quantile, wilson_bounds, z_quantile
from qaeval.stats.resampling import Clusters, jackknife, jackknife_se

Refusal = Literal["poor judge", "nearly singular"]
"""Why nothing is corrected: the judge is not shown to tell letters apart, or its errors nearly cancel."""

MAX_CONDITION = 20.0
"""Largest condition number of a table that is inverted: beyond it, a point of noise becomes twenty."""
_EM_STEPS = 5000


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferredRate:
    """A judge's rate, corrected by its errors elsewhere."""

    estimate: Estimate
    """The rate, cut to [0, 1]; NaN where it is refused."""
    raw: float
    """The rate before it is cut; outside [0, 1] the judge does not err here as it did there."""
    se: float
    """Standard error of `raw` by the delta method."""
    youden: float
    """Sensitivity + specificity - 1: 1 for a perfect judge, 0 for one that tells nothing apart."""
    youden_low: float
    """Lower bound of `youden`."""
    refused: Refusal | None
    """Why there is no estimate, else None."""


def rogan_gladen(
    rate: float,
    n: float,
    *,
    sensitivity: float,
    specificity: float,
    n_positive: float = inf,
    n_negative: float = inf,
    level: float = 0.95,
) -> TransferredRate:
    r"""Rate corrected by the judge's sensitivity and specificity in another population.

    :math:`\hat\theta = (p + Sp - 1)/J`, :math:`J = Se + Sp - 1`, with the standard error by the delta method and the
    interval of Lee et al., which adds a success and a failure to each rate of the judge and moves the centre. With
    known sensitivity and specificity (no sizes), Wilson's interval of *p* is transformed. For clustered items pass sizes
    over the design effect. Sources: Rogan and Gladen 1978; Lee et al. 2025 (arXiv 2511.21140).

    Args:
        rate: Share of hits by the judge, in [0, 1].
        n: Items that it is of, above 0; need not be whole.
        sensitivity: Share of hits among items that are hits by label, in [0, 1].
        specificity: Share of misses among items that are misses by label, in [0, 1].
        n_positive: Items that are hits by label; infinite for a known sensitivity.
        n_negative: The same for misses.
        level: Confidence level.

    Returns:
        A rate in [0, 1]. NaN, as *poor judge*, where the lower bound of J (by Wilson's intervals of the two rates) is
        not above 0.

    Raises:
        ValueError: A rate is outside [0, 1], or a size is not above 0.
    """
    check_level(level)
    if any(not 0 <= value <= 1 for value in (rate, sensitivity, specificity)):
        raise ValueError(f"rates must be in [0, 1], got {rate!r}, {sensitivity!r}, {specificity!r}")
    if not min(n, n_positive, n_negative) > 0 or isinf(n):
        raise ValueError(f"sizes must be above 0, got {n!r}, {n_positive!r}, {n_negative!r}")
    z = z_quantile(level)
    youden = sensitivity + specificity - 1
    below = [p - _low(p, size, z) for p, size in ((sensitivity, n_positive), (specificity, n_negative))]
    youden_low = youden - sqrt(below[0] ** 2 + below[1] ** 2)
    raw = (rate + specificity - 1) / youden if abs(youden) > TINY else nan
    se = _delta_se(raw, rate, n, sensitivity, n_positive, specificity, n_negative)
    method = "Rogan-Gladen, Lee's interval"
    if not youden_low > 0:
        reason = f"the judge is not shown to tell hits from misses: J is {youden:.2f}, its lower bound {youden_low:.2f}"
        estimate = undefined(reason, method=method, n=round(n), n_clusters=round(n), level=level)
        return TransferredRate(
            estimate=estimate, raw=raw, se=se, youden=youden, youden_low=youden_low, refused="poor judge"
        )
    if isinf(n_positive) and isinf(n_negative):
        low, high = ((end + specificity - 1) / youden for end in wilson_bounds(rate, n, z))
        method = "Rogan-Gladen, Wilson transformed"
    else:
        low, high = _lee(rate, n, sensitivity, n_positive, specificity, n_negative, z)
    outside = (
        None if 0 <= raw <= 1 else f"the raw value is {raw:.2f}: the judge does not err here as it did there"
    )
    estimate = Estimate(
        value=_cut(raw),
        low=_cut(low),
        high=_cut(high),
        level=level,
        method=method,
        n=round(n),
        n_clusters=round(n),
        reason=outside,
    )
    return TransferredRate(
        estimate=estimate, raw=raw, se=se, youden=youden, youden_low=youden_low, refused=None
    )


def _low(p: float, size: float, z: float) -> float:
    return p if isinf(size) else wilson_bounds(p, size, z)[0]


def _delta_se(theta: float, p: float, n: float, se: float, m1: float, sp: float, m0: float) -> float:
    variance = p * (1 - p) / n + (1 - theta) ** 2 * sp * (1 - sp) / m0 + theta**2 * se * (1 - se) / m1
    youden = se + sp - 1
    return sqrt(variance) / abs(youden) if abs(youden) > TINY else nan


def _lee(p: float, n: float, se: float, m1: float, sp: float, m0: float, z: float) -> tuple[float, float]:
    p, n = (n * p + z * z / 2) / (n + z * z), n + z * z
    sp, m0 = ((m0 * sp + 1) / (m0 + 2), m0 + 2) if not isinf(m0) else (sp, m0)
    se, m1 = ((m1 * se + 1) / (m1 + 2), m1 + 2) if not isinf(m1) else (se, m1)
    theta = (p + sp - 1) / (se + sp - 1)
    moved = 2 * z * z * (theta * se * (1 - se) / m1 - (1 - theta) * sp * (1 - sp) / m0)
    half = z * _delta_se(theta, p, n, se, m1, sp, m0)
    return theta + moved - half, theta + moved + half


def _cut(rate: float) -> float:
    return min(1.0, max(0.0, rate))


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferredShares:
    """Shares of the letters, corrected by the judge's errors elsewhere."""

    shares: tuple[Estimate, ...]
    """Share of each letter, adding up to 1; NaN where they are refused."""
    condition: float
    """Condition number of the table of the judge's errors: how much it may magnify noise."""
    smallest: Estimate
    """Smallest singular value of that table: 0 where some mixture of letters looks like another."""
    refused: Refusal | None
    """Why there are no shares, else None."""


def letter_shares(tables: ArrayLike, judged: ArrayLike, *, level: float = 0.95) -> TransferredShares:
    r"""Shares of the letters by label, from the judge's letters and its table of errors in another population.

    With :math:`M_{yj}` the share of letter *j* by the judge among items with label *y*, the shares :math:`\pi` solve
    :math:`M' \pi = p` for the judge's shares *p*; where that leaves the simplex, they maximise the likelihood on it (EM).
    The interval is from a delete-one-cluster jackknife of both samples, t. Source: Buonaccorsi 2010, section 2.

    Args:
        tables: Counts of the labelled items of each cluster there, labels in rows and judge in columns, shape
            (G, K, K), see `qaeval.stats.cluster_tables`.
        judged: Items with each letter of the judge in each cluster here, shape (H, K).
        level: Confidence level.

    Returns:
        Shares in [0, 1] that add up to 1; their intervals are NaN with fewer than 10 clusters here. NaN, as *poor judge*, where the interval of the smallest singular value of
        *M* is not above 0 or does not exist (fewer than 10 clusters, a letter without labels), and, as *nearly
        singular*, where the condition number is above 20.

    Raises:
        ValueError: The shapes do not fit, the counts are negative, or the judge gave no letter.
    """
    check_level(level)
    there, here = as_table(tables, name="tables"), np.asarray(judged, dtype=np.float64)
    if there.ndim != 3 or here.ndim != 2 or here.shape[1] != there.shape[1]:
        raise ValueError(
            f"tables must have shape (G, K, K) and judged (H, K), got {there.shape} and {here.shape}"
        )
    if not np.isfinite(here).all() or (here < 0).any() or not here.sum() > 0:
        raise ValueError("judged must hold counts: not negative, with a positive sum")
    n, k = round(float(here.sum())), there.shape[1]
    smallest = jackknife(_smallest, there, n=round(float(there.sum())), level=level)
    condition = float(_condition(there.sum(axis=0)[None])[0])
    refused = _refusal(smallest, jackknife_se(_smallest, Clusters.of(there)), condition)
    if refused is not None:
        reason = f"the judge's errors cannot be inverted: {refused}, condition number {condition:.1f}"
        none = undefined(reason, method="inverted errors", n=n, n_clusters=len(here), level=level)
        return TransferredShares(shares=(none,) * k, condition=condition, smallest=smallest, refused=refused)
    total_there, total_here = there.sum(axis=0), here.sum(axis=0)
    values = _shares(total_there[None], total_here[None])[0]
    if few := too_few(len(here)):
        shares = tuple(
            undefined(
                few,
                value=float(value),
                method="inverted errors",
                n=n,
                n_clusters=len(here),
                level=level,
            )
            for value in values
        )
        return TransferredShares(shares=shares, condition=condition, smallest=smallest, refused=None)
    t = t_quantile(level, min(len(there), len(here)) - 1)
    estimates = []
    for letter in range(k):
        by_errors = jackknife_se(
            partial(_share_by_errors, judged=total_here, letter=letter), Clusters.of(there)
        )
        by_judge = jackknife_se(
            partial(_share_by_judge, tables=total_there, letter=letter), Clusters.of(here)
        )
        half = t * sqrt(by_errors**2 + by_judge**2)
        estimates.append(
            Estimate(
                value=float(values[letter]),
                low=_cut(float(values[letter]) - half),
                high=_cut(float(values[letter]) + half),
                level=level,
                method="inverted errors, jackknife t",
                n=n,
                n_clusters=len(here),
                reason=warning(len(here)),
            )
        )
    return TransferredShares(shares=tuple(estimates), condition=condition, smallest=smallest, refused=None)


def _refusal(smallest: Estimate, se: float, condition: float) -> Refusal | None:
    # a judge without an error shows no spread, and no interval
    low = smallest.value if se == 0 and smallest.n_clusters >= MIN_CLUSTERS else smallest.low
    if not low > 0:
        return "poor judge"
    return "nearly singular" if condition > MAX_CONDITION else None


def _errors(tables: Floats) -> Floats:
    """Tables of counts to the judge's shares for each label; NaN rows where a letter has no label."""
    rows = tables.sum(axis=-1, keepdims=True)
    out: Floats = np.divide(tables, rows, out=np.full(tables.shape, nan), where=rows > 0)
    return out


def _singular(tables: Floats) -> Floats:
    errors = _errors(tables)
    known = np.isfinite(errors).all(axis=(-2, -1))
    out = np.full(errors.shape[:-1], nan)
    if known.any():
        out[known] = np.linalg.svd(errors[known], compute_uv=False)
    return out


def _smallest(tables: Floats) -> Floats:
    return _singular(tables)[:, -1]


def _condition(tables: Floats) -> Floats:
    values = _singular(tables)
    return np.asarray(values[:, 0] / np.maximum(values[:, -1], TINY))


def _shares(tables: Floats, judged: Floats) -> Floats:
    """Shares of the letters by label, shape (B, K), for stacks of tables and of the judge's counts."""
    errors, p = np.broadcast_arrays(
        _errors(tables), (judged / judged.sum(axis=-1, keepdims=True))[:, None, :]
    )
    p = p[:, 0, :]
    shares = np.linalg.solve(np.swapaxes(errors, -1, -2), p[..., None])[..., 0]
    outside = (shares < 0).any(axis=-1)
    if outside.any():
        shares[outside] = _most_likely(errors[outside], p[outside])
    return np.asarray(shares)


def _share_by_errors(tables: Floats, *, judged: Floats, letter: int) -> Floats:
    return _shares(tables, judged[None])[:, letter]


def _share_by_judge(judged: Floats, *, tables: Floats, letter: int) -> Floats:
    return _shares(tables[None], judged)[:, letter]


def _most_likely(errors: Floats, p: Floats) -> Floats:
    pi = np.full(p.shape, 1 / p.shape[-1])
    for _ in range(_EM_STEPS):
        expected = np.einsum("by,byj->bj", pi, errors)
        ratio = np.divide(p, expected, out=np.zeros_like(p), where=expected > 0)
        updated = pi * np.einsum("byj,bj->by", errors, ratio)
        if np.abs(updated - pi).max() < TINY:
            break
        pi = updated
    return np.asarray(pi / pi.sum(axis=-1, keepdims=True))
