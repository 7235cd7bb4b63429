"""Agreement of two raters from tables of counts: kappa and its relatives, all vectorised over tables.

A table has shape (..., K, K): rows are the reference's letters, columns the judge's, best letter first. Every
function takes counts or proportions and returns shape (...): NaN where the coefficient does not exist.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from qaeval.stats._arrays import TINY, Floats, as_table

Weights = Literal["linear", "quadratic"] | None
"""How much a near miss counts: not at all (None), by distance, or by squared distance."""


def agreement_weights(n_levels: int, weights: "Weights | ArrayLike" = None) -> Floats:
    """Agreement weights of a scale, in [0, 1] and 1 on the diagonal.

    None gives the identity, ``"linear"`` :math:`1 - |i-j|/(K-1)`, ``"quadratic"`` :math:`1 -
    (i-j)^2/(K-1)^2`. Source: Cohen 1968.

    Args:
        n_levels: Number of letters on the scale, used or not.
        weights: None, ``"linear"``, ``"quadratic"``, or a matrix of shape (K, K) that is taken as it is.

    Returns:
        Shape (K, K).

    Raises:
        ValueError: The name is unknown, or the matrix has another shape.
    """
    if weights is None:
        return np.eye(n_levels)
    if isinstance(weights, str):
        if weights not in {"linear", "quadratic"}:
            raise ValueError(f"weights must be None, 'linear', 'quadratic' or a matrix, got {weights!r}")
        levels = np.arange(n_levels)
        distance = np.abs(levels[:, None] - levels[None, :]) / (n_levels - 1)
        return np.asarray(1.0 - distance ** (2 if weights == "quadratic" else 1), dtype=np.float64)
    matrix = np.asarray(weights, dtype=np.float64)
    if matrix.shape != (n_levels, n_levels):
        raise ValueError(f"weights must have shape {(n_levels, n_levels)}, got {matrix.shape}")
    return matrix


def proportions(table: ArrayLike) -> Floats:
    """Tables divided by their sums; NaN for a table without items."""
    counts = as_table(table)
    total = counts.sum(axis=(-2, -1), keepdims=True)
    shares: Floats = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    return shares


def chance_corrected(observed: ArrayLike, expected: ArrayLike) -> Floats:
    r"""Return :math:`(p_o - p_e)/(1 - p_e)`, NaN where :math:`p_e = 1`."""
    po, pe = np.asarray(observed, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    room = 1.0 - pe
    empty = np.full(np.broadcast(po, pe).shape, np.nan)
    out: Floats = np.divide(po - pe, room, out=empty, where=room > TINY)
    return out


def weighted_agreement(table: ArrayLike, *, weights: "Weights | ArrayLike" = None) -> Floats:
    r"""Observed agreement :math:`p_o = \sum w_{ij} p_{ij}`.

    Args:
        table: Counts or shares, shape (..., K, K), one rater in rows and the other in columns.
        weights: None, ``"linear"``, ``"quadratic"`` or a matrix of agreement weights, shape (K, K).

    Returns:
        Shape (...), in [0, 1] for weights in [0, 1]. Transposing the table changes nothing for symmetric
        weights. NaN for a table without items.

    Raises:
        ValueError: The table is not square, or holds something other than counts.
    """
    p = proportions(table)
    return np.asarray((p * agreement_weights(p.shape[-1], weights)).sum(axis=(-2, -1)), dtype=np.float64)


def expected_agreement(table: ArrayLike, *, weights: "Weights | ArrayLike" = None) -> Floats:
    r"""Agreement by chance with each rater's own marginals, :math:`p_e = \sum w_{ij} r_i c_j`.

    Args:
        table: Counts or shares, shape (..., K, K), one rater in rows and the other in columns.
        weights: None, ``"linear"``, ``"quadratic"`` or a matrix of agreement weights, shape (K, K).

    Returns:
        Shape (...), in [0, 1] for weights in [0, 1]. Transposing the table changes nothing for symmetric
        weights. NaN for a table without items.

    Raises:
        ValueError: The table is not square, or holds something other than counts.
    """
    p = proportions(table)
    w = agreement_weights(p.shape[-1], weights)
    return np.asarray(np.einsum("...i,ij,...j->...", p.sum(axis=-1), w, p.sum(axis=-2)), dtype=np.float64)


def kappa(table: ArrayLike, *, weights: "Weights | ArrayLike" = None) -> Floats:
    """Cohen's kappa, :math:`(p_o - p_e)/(1 - p_e)`, plain or weighted.

    Never compare kappas of different weights. Sources: Cohen 1960, 1968.

    Args:
        table: Counts or shares, shape (..., K, K), one rater in rows and the other in columns.
        weights: None, ``"linear"``, ``"quadratic"`` or a matrix of agreement weights, shape (K, K).

    Returns:
        Shape (...), in [-1, 1]. Transposing the table changes nothing for symmetric weights. NaN when
        :math:`p_e = 1`: both raters used one and the same letter throughout.

    Raises:
        ValueError: The table is not square, or holds something other than counts.
    """
    return chance_corrected(
        weighted_agreement(table, weights=weights), expected_agreement(table, weights=weights)
    )


def scott_pi(table: ArrayLike, *, weights: "Weights | ArrayLike" = None) -> Floats:
    r"""Scott's pi: chance agreement :math:`\sum w_{ij} q_i q_j` from the mean marginal :math:`q = (r + c)/2`.

    Source: Scott 1955.

    Args:
        table: Counts or shares, shape (..., K, K), one rater in rows and the other in columns.
        weights: None, ``"linear"``, ``"quadratic"`` or a matrix of agreement weights, shape (K, K).

    Returns:
        Shape (...), in [-1, 1]. Transposing the table changes nothing for symmetric weights. NaN when all
        letters of both raters are one and the same.

    Raises:
        ValueError: The table is not square, or holds something other than counts.
    """
    q = mean_marginal(table)
    w = agreement_weights(q.shape[-1], weights)
    return chance_corrected(
        weighted_agreement(table, weights=weights), np.einsum("...i,ij,...j->...", q, w, q)
    )


def brennan_prediger(table: ArrayLike, *, weights: "Weights | ArrayLike" = None) -> Floats:
    r"""Brennan and Prediger's coefficient: chance agreement :math:`\sum w_{ij} / K^2`, the same for all data.

    For K = 2 it is PABAK, :math:`2 p_o - 1`; for many raters Randolph's free-marginal kappa. High whenever
    one letter dominates, whatever the judge does: show it beside the majority baseline, never alone. Source:
    Brennan and Prediger 1981.

    Args:
        table: Counts or shares, shape (..., K, K), one rater in rows and the other in columns.
        weights: None, ``"linear"``, ``"quadratic"`` or a matrix of agreement weights, shape (K, K).

    Returns:
        Shape (...), in [-1, 1]. Transposing the table changes nothing for symmetric weights. NaN for a table
        without items.

    Raises:
        ValueError: The table is not square, or holds something other than counts.
    """
    k = as_table(table).shape[-1]
    w = agreement_weights(k, weights)
    return chance_corrected(weighted_agreement(table, weights=weights), w.sum() / k**2)


def gwet_ac(table: ArrayLike, *, weights: "Weights | ArrayLike" = None) -> Floats:
    r"""Gwet's AC1 (no weights) or AC2: chance :math:`\frac{\sum w}{K(K-1)} \sum_j q_j (1 - q_j)`.

    It flatters a judge that always gives the majority letter: never show it alone. Source: Gwet 2008.

    Args:
        table: Counts or shares, shape (..., K, K), one rater in rows and the other in columns.
        weights: None, ``"linear"``, ``"quadratic"`` or a matrix of agreement weights, shape (K, K).

    Returns:
        Shape (...), in [-1, 1]. Transposing the table changes nothing for symmetric weights. NaN for a table
        without items.

    Raises:
        ValueError: The table is not square, or holds something other than counts.
    """
    q = mean_marginal(table)
    k = q.shape[-1]
    factor = agreement_weights(k, weights).sum() / (k * (k - 1))
    return chance_corrected(weighted_agreement(table, weights=weights), factor * (q * (1 - q)).sum(axis=-1))


def mean_marginal(table: ArrayLike) -> Floats:
    """Share of each letter among the letters of both raters, shape (..., K)."""
    p = proportions(table)
    return np.asarray((p.sum(axis=-1) + p.sum(axis=-2)) / 2, dtype=np.float64)


def specific_agreement(table: ArrayLike) -> Floats:
    """Agreement on each letter, :math:`2 n_{ii} / (r_i + c_i)`.

    Of the times that one rater gives the letter, how often the other does too; the F1 score of the letter.
    For 2x2 tables: positive and negative agreement. Source: Cicchetti and Feinstein 1990.

    Args:
        table: Counts or shares, shape (..., K, K), one rater in rows and the other in columns.

    Returns:
        Shape (..., K), in [0, 1]. Transposing the table changes nothing. NaN for a letter that neither rater
        gave.

    Raises:
        ValueError: The table is not square, or holds something other than counts.
    """
    counts = as_table(table)
    both = counts.sum(axis=-1) + counts.sum(axis=-2)
    agreed = 2 * np.diagonal(counts, axis1=-2, axis2=-1)
    out: Floats = np.divide(agreed, both, out=np.full_like(both, np.nan), where=both > 0)
    return out


def bias_index(table: ArrayLike) -> Floats:
    """Bias index of a 2x2 table, :math:`(b - c)/n`. Source: Byrt, Bishop and Carlin 1993.

    Args:
        table: Counts or shares :math:`((a, b), (c, d))`, shape (..., 2, 2).

    Returns:
        Shape (...), in [-1, 1]; swapping the raters changes its sign. NaN for a table without items.

    Raises:
        ValueError: The table is not 2x2, or holds something other than counts.
    """
    p = _two_by_two(table)
    return np.asarray(p[..., 0, 1] - p[..., 1, 0], dtype=np.float64)


def prevalence_index(table: ArrayLike) -> Floats:
    """Prevalence index of a 2x2 table, :math:`(a - d)/n`. Source: Byrt, Bishop and Carlin 1993.

    Args:
        table: Counts or shares :math:`((a, b), (c, d))`, shape (..., 2, 2).

    Returns:
        Shape (...), in [-1, 1]; swapping the letters changes its sign. NaN for a table without items.

    Raises:
        ValueError: The table is not 2x2, or holds something other than counts.
    """
    p = _two_by_two(table)
    return np.asarray(p[..., 0, 0] - p[..., 1, 1], dtype=np.float64)


def _two_by_two(table: ArrayLike) -> Floats:
    p = proportions(table)
    if p.shape[-1] != 2:
        raise ValueError(f"this index is defined for 2 levels, got a table of {p.shape[-1]}")
    return p


def balanced_accuracy(table: ArrayLike) -> Floats:
    r"""Mean recall over the letters that the reference gave, :math:`\frac1m \sum n_{ii} / r_i`.

    Args:
        table: Counts, shape (..., K, K), the reference in rows and the judge in columns.

    Returns:
        Shape (...), in [0, 1]; a judge that ignores the items has 1 / m, m the letters that the reference
        gave. NaN for a table without items.

    Raises:
        ValueError: The table is not square, or holds something other than counts.
    """
    counts = as_table(table)
    rows = counts.sum(axis=-1)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    recall = np.divide(hits, rows, out=np.zeros_like(rows), where=rows > 0)
    used = (rows > 0).sum(axis=-1)
    total = recall.sum(axis=-1)
    out: Floats = np.divide(total, used, out=np.full(total.shape, np.nan), where=used > 0)
    return out
