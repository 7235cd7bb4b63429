"""Do two raters, or two candidates, use the letters at the same rates? Plain and clustered tests.

Tables have one rater (or candidate) in rows and the other in columns. The plain tests assume independent
items; the clustered ones take one table, or one pair of counts, for each chunk.
"""

from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
import scipy  # its `optimize` is loaded at the first use: 0.2 s that few runs need
from numpy.typing import ArrayLike
from scipy import special

from qaeval.stats._arrays import TINY, TWO, Floats, as_table, as_values, same_length
from qaeval.stats.estimate import Estimate
from qaeval.stats.intervals import z_quantile


@dataclass(frozen=True, kw_only=True, slots=True)
class TestResult:
    """A test statistic with its p-value."""

    __test__ = False
    statistic: float
    """The test statistic; NaN when the test does not exist."""
    df: tuple[float, ...]
    """Degrees of freedom: one for chi-squared, two for F, none for an exact test."""
    p_value: float
    """Two-sided; NaN when the test does not exist."""
    method: str
    """Name of the test."""
    n: int
    """Items, or pairs, that entered."""
    n_clusters: int
    """Independent units that entered."""
    reason: str | None = None
    """Why the test does not exist, else None."""


def _chi_squared(statistic: float, df: int, method: str, *, n: int, n_clusters: int) -> TestResult:
    if df < 1:
        return TestResult(
            statistic=nan,
            df=(0,),
            p_value=nan,
            method=method,
            n=n,
            n_clusters=n_clusters,
            reason="no pair disagrees: there is nothing to test",
        )
    p_value = float(special.chdtrc(df, statistic))
    return TestResult(
        statistic=statistic, df=(df,), p_value=p_value, method=method, n=n, n_clusters=n_clusters
    )


def mcnemar(b: int, c: int, *, method: Literal["mid-p", "exact", "chi2"] = "mid-p") -> TestResult:
    r"""McNemar's test that the discordant pairs *b* (only the first succeeds) and *c* are equally likely.

    ``"exact"`` is the two-sided binomial test of min(b, c) among b + c at 1/2, ``"mid-p"`` counts half of the
    observed outcome (recommended by Fagerland 2013: exact is too cautious), ``"chi2"`` is
    :math:`(b - c)^2/(b + c)`. Independent pairs only; for chunks use the sign-flip test or `clustered_mcnemar`.
    Swapping b and c changes nothing; NaN with no discordant pair.
    """
    if b < 0 or c < 0 or b != int(b) or c != int(c):
        raise ValueError(f"b and c are counts of pairs, got {b!r} and {c!r}")
    b, c = int(b), int(c)
    n, name = b + c, f"McNemar, {method}"
    if n == 0 or method == "chi2":
        return _chi_squared((b - c) ** 2 / n if n else nan, min(n, 1), name, n=n, n_clusters=n)
    if method not in {"mid-p", "exact"}:
        raise ValueError(f"method must be 'mid-p', 'exact' or 'chi2', got {method!r}")
    smaller = min(b, c)
    tail = float(special.bdtr(smaller, n, 0.5))
    point = tail - (float(special.bdtr(smaller - 1, n, 0.5)) if smaller else 0.0)
    p_value = min(1.0, 2 * tail) if method == "exact" else min(1.0, 2 * tail - point)
    return TestResult(statistic=float(b - c), df=(), p_value=p_value, method=name, n=n, n_clusters=n)


def clustered_mcnemar(
    b: ArrayLike,
    c: ArrayLike,
    totals: ArrayLike,
    *,
    method: Literal["obuchowski", "durkalski", "yang"] = "obuchowski",
) -> TestResult:
    r"""McNemar's test for pairs in clusters, chi-squared with one degree of freedom.

    With :math:`s_g = b_g - c_g` and :math:`d = \sum s_g / \sum n_g`: Obuchowski
    :math:`\frac{G-1}{G} (\sum s_g)^2 / \sum s_g^2`; Durkalski :math:`(\sum s_g/n_g)^2 / \sum (s_g/n_g)^2`; Yang
    :math:`\frac{G-1}{G} (\sum s_g)^2 / \frac12 \sum \{(s_g - n_g d)^2 + s_g^2\}`.

    Args:
        b: Pairs of each cluster where only the first succeeds, shape (G,).
        c: Pairs where only the second does.
        totals: All pairs of each cluster, positive.
        method: Which of the three.

    Returns:
        The test; swapping b and c changes nothing, NaN when all clusters have b = c.
    """
    bs, cs, ns = as_values(b, name="b"), as_values(c, name="c"), as_values(totals, name="totals")
    same_length(b=bs, c=cs, totals=ns)
    if (bs < 0).any() or (cs < 0).any() or (ns <= 0).any() or (bs + cs > ns).any():
        raise ValueError("each cluster needs b >= 0, c >= 0 and b + c <= total, total > 0")
    n_clusters, s = len(bs), bs - cs
    shrink = (n_clusters - 1) / n_clusters
    if method == "obuchowski":
        top, bottom = shrink * float(s.sum()) ** 2, float((s**2).sum())
    elif method == "durkalski":
        top, bottom = float((s / ns).sum()) ** 2, float(((s / ns) ** 2).sum())
    elif method == "yang":
        d = float(s.sum() / ns.sum())
        top = shrink * float(s.sum()) ** 2
        bottom = 0.5 * float(((s - ns * d) ** 2 + s**2).sum())
    else:
        raise ValueError(f"method must be 'obuchowski', 'durkalski' or 'yang', got {method!r}")
    statistic, df = (top / bottom, 1) if bottom > 0 else (nan, 0)
    name = f"clustered McNemar, {method.capitalize()}"
    return _chi_squared(statistic, df, name, n=int(ns.sum()), n_clusters=n_clusters)


def stuart_maxwell(table: ArrayLike) -> TestResult:
    r"""Stuart and Maxwell's test that both marginals are the same, :math:`d' V^{-1} d`.

    :math:`d_i = r_i - c_i`, :math:`V_{ii} = r_i + c_i - 2 n_{ii}`, :math:`V_{ij} = -(n_{ij} + n_{ji})`, chi-squared
    with rank(V) degrees of freedom, so that letters nobody used do not count. For K = 2 it is McNemar's.
    """
    counts, d, v = _differences(table)
    statistic, rank = _quadratic_form(d, v)
    n = round(float(counts.sum()))
    return _chi_squared(statistic, rank, "Stuart-Maxwell", n=n, n_clusters=n)


def bhapkar(table: ArrayLike) -> TestResult:
    r"""Bhapkar's test that both marginals are the same, :math:`SM / (1 - SM/n)` with Stuart-Maxwell's SM.

    More powerful than Stuart-Maxwell; infinite when SM = n, where every item disagrees in one direction.
    """
    counts, d, v = _differences(table)
    statistic, rank = _quadratic_form(d, v)
    n = float(counts.sum())
    room = 1 - statistic / n if n else nan
    larger = statistic / room if room > TINY else float("inf")
    return _chi_squared(larger, rank, "Bhapkar", n=round(n), n_clusters=round(n))


def bowker(table: ArrayLike) -> TestResult:
    r"""Bowker's test that the table is symmetric, :math:`\sum_{i<j} (n_{ij} - n_{ji})^2/(n_{ij} + n_{ji})`.

    Chi-squared; one degree of freedom for each pair of cells that is not empty.
    """
    counts = _one_table(table)
    upper = np.triu_indices(len(counts), k=1)
    above, below = counts[upper], counts.T[upper]
    used = above + below > 0
    parts = (above[used] - below[used]) ** 2 / (above[used] + below[used])
    n = round(float(counts.sum()))
    return _chi_squared(float(parts.sum()), int(used.sum()), "Bowker", n=n, n_clusters=n)


def clustered_homogeneity(
    tables: ArrayLike, *, method: Literal["hotelling", "stuart-maxwell", "bhapkar"] = "hotelling"
) -> TestResult:
    r"""Test that both marginals are the same, from one table for each cluster.

    With :math:`s_g` the differences of the marginals of cluster *g* (last letter dropped), :math:`S = \sum s_g`
    and :math:`C = \sum s_g s_g' - S S'/G`: ``"stuart-maxwell"`` :math:`S'(\sum s_g s_g')^{-1} S` and ``"bhapkar"``
    :math:`S' C^{-1} S`, chi-squared with *p* = rank degrees of freedom; ``"hotelling"`` the small-sample form
    :math:`T^2 = \frac{G-1}{G} S' C^{-1} S`, :math:`F = \frac{G-p}{p(G-1)} T^2` on (p, G - p). With one item in
    each cluster the first two are the plain tests.

    Args:
        tables: Shape (G, K, K).
        method: Which form.

    Returns:
        The test; NaN when the marginals agree in every cluster, or with too few clusters for F.
    """
    counts = as_table(tables, name="tables")
    if counts.ndim != TWO + 1:
        raise ValueError(f"tables must have shape (G, K, K), got {counts.shape}")
    s = (counts.sum(axis=2) - counts.sum(axis=1))[:, :-1]
    n_clusters, n, total = len(s), round(float(counts.sum())), s.sum(axis=0)
    products = s.T @ s
    name = f"clustered marginal homogeneity, {method}"
    if method == "stuart-maxwell":
        statistic, rank = _quadratic_form(total, products)
        return _chi_squared(statistic, rank, name, n=n, n_clusters=n_clusters)
    if method not in {"hotelling", "bhapkar"}:
        raise ValueError(f"method must be 'hotelling', 'stuart-maxwell' or 'bhapkar', got {method!r}")
    centred = products - np.outer(total, total) / n_clusters
    statistic, rank = _quadratic_form(total, centred)
    if rank < int(np.linalg.matrix_rank(products, hermitian=True)):
        reason = "the clusters all differ alike: the data hold no information about the error"
        return TestResult(
            statistic=nan, df=(rank,), p_value=nan, method=name, n=n, n_clusters=n_clusters, reason=reason
        )
    if method == "bhapkar" or rank == 0:
        return _chi_squared(statistic, rank, name, n=n, n_clusters=n_clusters)
    return _hotelling(statistic, rank, name, n=n, n_clusters=n_clusters)


def _hotelling(statistic: float, rank: int, name: str, *, n: int, n_clusters: int) -> TestResult:
    df = (float(rank), float(n_clusters - rank))
    if n_clusters <= rank:
        reason = f"{n_clusters} clusters are too few for {rank} differences"
        return TestResult(
            statistic=nan, df=df, p_value=nan, method=name, n=n, n_clusters=n_clusters, reason=reason
        )
    f = (n_clusters - rank) / (rank * n_clusters) * statistic
    p_value = float(special.fdtrc(*df, f))
    return TestResult(statistic=f, df=df, p_value=p_value, method=name, n=n, n_clusters=n_clusters)


def _one_table(table: ArrayLike) -> Floats:
    counts = as_table(table)
    if counts.ndim != TWO:
        raise ValueError(f"one table is needed, got shape {counts.shape}")
    return counts


def _differences(table: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return the table, the differences of its marginals and their covariance, last letter dropped."""
    counts = _one_table(table)
    d = counts.sum(axis=1) - counts.sum(axis=0)
    v = np.diag(counts.sum(axis=1) + counts.sum(axis=0)) - counts - counts.T
    return counts, d[:-1], v[:-1, :-1]


def _quadratic_form(d: Floats, v: Floats) -> tuple[float, int]:
    """Return d' V^+ d and the rank of V."""
    rank = int(np.linalg.matrix_rank(v, hermitian=True))
    return float(d @ np.linalg.pinv(v, hermitian=True) @ d), rank


def tango(b: int, c: int, n: int, *, level: float = 0.95) -> Estimate:
    r"""Tango's score interval of the difference of two paired rates, :math:`(b - c)/n`, independent pairs.

    All *d* with :math:`|b - c - n d| \le z \sqrt{n (2 \tilde q + d (1 - d))}`, where :math:`\tilde q` is the
    maximum-likelihood rate of the second discordant cell given *d*. In [-1, 1]; swapping b and c mirrors it.
    Source: Tango 1998.

    Args:
        b: Pairs where only the first succeeds.
        c: Pairs where only the second does.
        n: All pairs.
        level: Confidence level.
    """
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"b and c are counts among n pairs, got b={b!r}, c={c!r}, n={n!r}")
    value, z = (b - c) / n, z_quantile(level)

    def above(d: float) -> float:
        return tango_score(b, c, n, d) - z

    def below(d: float) -> float:
        return tango_score(b, c, n, d) + z

    edge = 1 - 1e-10
    low = (
        -1.0 if above(-edge) < 0 or value <= -edge else scipy.optimize.brentq(above, -edge, value, xtol=1e-12)
    )
    high = 1.0 if below(edge) > 0 or value >= edge else scipy.optimize.brentq(below, value, edge, xtol=1e-12)
    return Estimate(
        value=value, low=float(low), high=float(high), level=level, method="Tango score", n=n, n_clusters=n
    )


def tango_score(b: int, c: int, n: int, difference: float) -> float:
    """Tango's z statistic of the hypothesis that the paired difference of rates is `difference`."""
    d = difference
    linear = -b - c + (2 * n - b + c) * d
    constant = -c * d * (1 - d)
    rate = (np.sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * rate + d * (1 - d))
    gap = b - c - n * d
    if variance <= TINY:
        return 0.0 if abs(gap) < TINY else float(np.copysign(np.inf, gap))
    return float(gap / np.sqrt(variance))
