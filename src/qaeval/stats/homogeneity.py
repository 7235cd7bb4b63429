"""Do two raters use the letters at the same rates? Stuart and Maxwell's test, plain and clustered.

Tables have one rater in rows and the other in columns. `stuart_maxwell` takes one table of independent items,
`clustered_homogeneity` one table for each cluster.
"""

from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from qaeval.stats._arrays import Floats, as_table


@dataclass(frozen=True, kw_only=True, slots=True)
class TestResult:
    """A test statistic with its p-value."""

    __test__ = False
    statistic: float
    """The test statistic; NaN when the test does not exist."""
    df: tuple[float, ...]
    """Degrees of freedom: one for chi-squared, two for F."""
    p_value: float
    """Two-sided, in [0, 1]; NaN when the test does not exist."""
    method: str
    """Name of the test."""
    n: int
    """Items that entered."""
    n_clusters: int
    """Independent units that entered."""
    reason: str | None = None
    """Why the test does not exist, else None."""


def stuart_maxwell(table: ArrayLike) -> TestResult:
    r"""Stuart and Maxwell's test that both raters use the letters at the same rates, independent items.

    :math:`d' V^{-1} d` with :math:`d_i = r_i - c_i`, :math:`V_{ii} = r_i + c_i - 2 n_{ii}`, :math:`V_{ij} =
    -(n_{ij} + n_{ji})`. For K = 2 it is McNemar's test without continuity correction. Source: Stuart 1955,
    Maxwell 1970.

    Args:
        table: Counts, shape (K, K), one rater in rows and the other in columns.

    Returns:
        Chi-squared statistic, at least 0, with its p-value in [0, 1]; transposing the table changes nothing.
        NaN when no item disagrees.

    Raises:
        ValueError: The table is not square, or holds something other than counts.
    """
    counts = as_table(table)
    if counts.ndim != 2:
        raise ValueError(f"one table is needed, got shape {counts.shape}")
    d = counts.sum(axis=1) - counts.sum(axis=0)
    v = np.diag(counts.sum(axis=1) + counts.sum(axis=0)) - counts - counts.T
    # the differences of all letters add up to 0, so one of them carries nothing: the last is left out
    statistic, rank = _quadratic_form(d[:-1], v[:-1, :-1])
    n = round(float(counts.sum()))
    return _chi_squared(statistic, rank, "Stuart-Maxwell", n=n, n_clusters=n)


def clustered_homogeneity(
    tables: ArrayLike, *, method: Literal["hotelling", "stuart-maxwell"] = "hotelling"
) -> TestResult:
    r"""Test that both raters use the letters at the same rates, items in clusters.

    With :math:`s_g` the differences of the marginals of cluster *g* (last letter left out), :math:`S = \sum
    s_g` and :math:`C = \sum s_g s_g' - S S'/G`: ``"stuart-maxwell"`` is :math:`S'(\sum s_g s_g')^{-1} S`,
    chi-squared on *p* = rank degrees of freedom, which with one item in each cluster is `stuart_maxwell`.
    ``"hotelling"`` is the form for a small number of clusters, :math:`T^2 = \frac{G-1}{G} S' C^{-1} S` with
    :math:`F = \frac{G-p}{p(G-1)} T^2` on (p, G - p).

    Args:
        tables: Counts of each cluster, shape (G, K, K), see `qaeval.stats.cluster_tables`.
        method: Which form.

    Returns:
        Statistic, at least 0, and p-value in [0, 1]; swapping the raters changes nothing. NaN when the
        marginals agree in every cluster, when all clusters differ alike, and with too few clusters for F.

    Raises:
        ValueError: The tables have another shape, or hold something other than counts.
    """
    counts = as_table(tables, name="tables")
    if counts.ndim != 3:
        raise ValueError(f"tables must have shape (G, K, K), got {counts.shape}")
    if method not in {"hotelling", "stuart-maxwell"}:
        raise ValueError(f"method must be 'hotelling' or 'stuart-maxwell', got {method!r}")
    s = (counts.sum(axis=2) - counts.sum(axis=1))[:, :-1]
    n_clusters, n, total = len(s), round(float(counts.sum())), s.sum(axis=0)
    products = s.T @ s
    name = f"clustered marginal homogeneity, {method}"
    statistic, rank = _quadratic_form(total, products)
    if method == "stuart-maxwell" or rank == 0:
        return _chi_squared(statistic, rank, name, n=n, n_clusters=n_clusters)
    centred_statistic, centred_rank = _quadratic_form(total, products - np.outer(total, total) / n_clusters)
    df, reason = (float(rank), float(n_clusters - rank)), None
    if centred_rank < rank:
        reason = "the clusters all differ alike: the data hold no information about the error"
    elif n_clusters <= rank:
        reason = f"{n_clusters} clusters are too few for {rank} differences"
    f = nan if reason else (n_clusters - rank) / (rank * n_clusters) * centred_statistic
    return TestResult(
        statistic=f,
        df=df,
        p_value=nan if reason else float(special.fdtrc(*df, f)),
        method=name,
        n=n,
        n_clusters=n_clusters,
        reason=reason,
    )


def _chi_squared(statistic: float, df: int, method: str, *, n: int, n_clusters: int) -> TestResult:
    reason = None if df else "the raters differ in no independent unit: there is nothing to test"
    return TestResult(
        statistic=nan if reason else statistic,
        df=(df,),
        p_value=nan if reason else float(special.chdtrc(df, statistic)),
        method=method,
        n=n,
        n_clusters=n_clusters,
        reason=reason,
    )


def _quadratic_form(d: Floats, v: Floats) -> tuple[float, int]:
    """Return d' V^+ d and the rank of V: letters that nobody used lower the rank and do not count.

    statsmodels keeps K - 1 degrees of freedom there, and finds a p-value of .15 where McNemar's is .05.
    """
    rank = int(np.linalg.matrix_rank(v, hermitian=True))
    return float(d @ np.linalg.pinv(v, hermitian=True) @ d), rank


def cochran_q(hits: ArrayLike) -> TestResult:
    r"""Cochran's Q: do several candidates (or raters) have the same rate of hits on the same items?

    :math:`Q = k(k-1) \sum_j (C_j - \bar C)^2 / (k \sum_i R_i - \sum_i R_i^2)` with :math:`C_j` the hits of candidate *j*
    and :math:`R_i` those on item *i*; for two candidates McNemar's test. *Independent items.* Source: Cochran 1950.

    Args:
        hits: 1 or 0 for each item and candidate, shape (n_items, k), k at least 2.

    Returns:
        Chi-squared statistic on k - 1 degrees of freedom, at least 0, with its p-value in [0, 1]; the order of items
        and candidates is free. NaN when the candidates agree on every item.

    Raises:
        ValueError: The array has another shape, or holds something other than 0 and 1.
    """
    x = np.asarray(hits, dtype=np.float64)
    if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] < 2:
        raise ValueError(f"hits must have shape (n_items, k) with k at least 2, got {x.shape}")
    if not np.isin(x, (0, 1)).all():
        raise ValueError("hits must hold 0 and 1")
    n, k = x.shape
    by_candidate, by_item = x.sum(axis=0), x.sum(axis=1)
    mixed = float((by_item * (k - by_item)).sum())
    statistic = (
        k * (k - 1) * float(((by_candidate - by_candidate.mean()) ** 2).sum()) / mixed if mixed else nan
    )
    return _chi_squared(statistic, k - 1 if mixed else 0, "Cochran's Q", n=n, n_clusters=n)
