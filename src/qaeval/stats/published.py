"""Can published agreement numbers be true? Checks that need only printed marginals and coefficients."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor, isnan, nan, sqrt
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from qaeval.stats._arrays import Floats, Ints, as_values
from qaeval.stats.bounds import AgreementBounds, agreement_bounds
from qaeval.stats.coefficients import Weights, agreement_weights

NEARLY_CONSTANT = 0.95
"""A judge that gives one letter more often is flagged: fewer than 1 item in 20 has another letter."""
LOW_KAPPA_MAX = 0.4
"""Below this the marginals alone keep kappa down, whatever the judge does on the items."""
_MAX_DIAGONALS = 2e7
"""Tables are not counted with more diagonals than this, about 800 items spread evenly over 3 letters."""
_SLACK = 1e-9
"""Rounding errors of a share, which must not turn a printed number into a contradiction."""


_WEIGHTS: Final[tuple[Weights, ...]] = (None, "linear", "quadratic")


def grim(percent: float, n: int, *, decimals: int) -> bool:
    r"""Whether some whole number of *n* items rounds to this percentage: the GRIM test.

    True when an integer *m* exists with :math:`|100 m / n - percent| \le \frac12 10^{-decimals}`; both ways
    of rounding a half are accepted. Source: Brown and Heathers 2017.

    Args:
        percent: The printed percentage, 0 to 100.
        n: Items it was computed from.
        decimals: Digits printed after the point; negative for a share with fewer than two: -1 for 0.9, which is 90 %.

    Returns:
        True or False; always defined.

    Raises:
        ValueError: An argument is out of range.
    """
    return bool(grim_counts(percent, n, decimals=decimals))


def grim_counts(percent: float, n: int, *, decimals: int) -> range:
    """Return the whole numbers of *n* items that round to this percentage; empty when there is none."""
    if n < 1 or decimals < -2 or not 0 <= percent <= 100:
        raise ValueError(
            f"need n >= 1, decimals >= -2, percent in [0, 100]; got {n!r}, {decimals!r}, {percent!r}"
        )
    half = 0.5 * 10.0**-decimals
    first = max(0, ceil((percent - half) * n / 100 - _SLACK))
    last = min(n, floor((percent + half) * n / 100 + _SLACK))
    return range(first, last + 1)


def kappa_from_agreement(agreement: float, expected: float) -> float:
    """Return (agreement - expected) / (1 - expected), both as shares; NaN when expected is 1."""
    return (agreement - expected) / (1 - expected) if expected < 1 else nan


def compatible_tables(
    row_marginal: ArrayLike, column_marginal: ArrayLike, *, agreements: int | None = None
) -> int:
    """Count the tables of whole numbers with these marginals, and with this trace if one is given.

    Exact for 2 and 3 levels; 0 means that the numbers cannot come from one data set.
    """
    parts = _diagonals(row_marginal, column_marginal, agreements)
    return sum(int((last - first + 1).sum()) for _, first, last in parts)


def _whole(row_marginal: ArrayLike, column_marginal: ArrayLike) -> tuple[Ints, Ints]:
    r, c = as_values(row_marginal, name="row_marginal"), as_values(column_marginal, name="column_marginal")
    if len(r) != len(c) or len(r) not in {2, 3}:
        raise ValueError(f"tables are counted for 2 or 3 levels, got {len(r)} and {len(c)}")
    if (r != np.round(r)).any() or (c != np.round(c)).any() or (r < 0).any() or (c < 0).any():
        raise ValueError("marginals must be whole numbers of items")
    if r.sum() != c.sum():
        raise ValueError(f"the marginals describe different numbers of items: {r.sum():g} and {c.sum():g}")
    return r.astype(np.int64), c.astype(np.int64)


def _diagonals(
    row_marginal: ArrayLike, column_marginal: ArrayLike, agreements: int | None
) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield possible diagonals, shape (m, K), with the first and last value of the one free cell.

    For 3 levels that is the cell (0, 1); for 2 levels no cell is free, and first = last = 0. One batch for
    each value of the first cell keeps memory small.
    """
    r, c = _whole(row_marginal, column_marginal)
    tops = np.minimum(r, c)
    rest = [np.arange(top + 1) for top in tops[1:]]
    for corner in range(int(tops[0]) + 1):
        others = np.stack([axis.ravel() for axis in np.meshgrid(*rest, indexing="ij")], axis=1)
        diagonal = np.insert(others, 0, corner, axis=1)
        if agreements is not None:
            diagonal = diagonal[diagonal.sum(axis=1) == agreements]
        first, last = _free_cell(r - diagonal, c - diagonal)
        fits = last >= first
        yield diagonal[fits], first[fits], last[fits]


def _free_cell(rows: Ints, columns: Ints) -> tuple[Ints, Ints]:
    """First and last value of the cell (0, 1), from the sums of rows and columns without the diagonal."""
    if rows.shape[1] == 2:
        fits = (rows[:, 0] == columns[:, 1]) & (rows[:, 1] == columns[:, 0])
        return np.zeros(len(fits), dtype=np.int64), np.where(fits, 0, -1).astype(np.int64)
    left = columns[:, 0] + columns[:, 1] - rows[:, 2]
    floors = (0 * left, columns[:, 1] - rows[:, 2], left - rows[:, 1])
    ceilings = (rows[:, 0], columns[:, 1], left)
    return np.max(floors, axis=0), np.min(ceilings, axis=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedCheck:
    """What follows from published marginals, and what contradicts them."""

    n: int
    """Items."""
    expected: float
    """Agreement by chance, from the marginals."""
    kappa_low: float
    """Smallest kappa that the printed agreement rounds from; NaN when none was printed."""
    kappa_high: float
    """Largest kappa that the printed agreement rounds from; NaN when none was printed."""
    bounds: AgreementBounds
    """Range of agreement and unweighted kappa over all tables."""
    linear: AgreementBounds
    """The same for linear weights."""
    quadratic: AgreementBounds
    """The same for quadratic weights."""
    n_tables: int | None
    """Whole-number tables that fit marginals and agreement; None when not counted."""
    baseline: float
    """Agreement of a judge that always gives the reference's most frequent letter."""
    contradictions: tuple[str, ...]
    """Sentences: what cannot be true. Empty for a sound table."""
    warnings: tuple[str, ...]
    """Sentences: what is possible but speaks against the judge."""

    @property
    def is_possible(self) -> bool:
        """Whether nothing contradicts the published numbers."""
        return not self.contradictions


def check_published(
    reference_counts: ArrayLike,
    judge_counts: ArrayLike,
    *,
    agreement_percent: float | None = None,
    agreement_decimals: int = 1,
    kappa: float | None = None,
    kappa_decimals: int = 2,
    confusion: ArrayLike | None = None,
) -> PublishedCheck:
    """Check published agreement of a judge with a reference for what the marginals rule out.

    Every printed number is taken as an interval of half a unit of its last digit; only what lies outside for
    all values in it is called a contradiction. A kappa that could be true with linear or quadratic weights,
    but not without, is a warning. Source of the bounds: `agreement_bounds`; of the percentage: `grim`.

    Args:
        reference_counts: Items with each letter by the reference, shape (K,), whole numbers.
        judge_counts: Items with each letter by the judge.
        agreement_percent: Printed agreement, 0 to 100.
        agreement_decimals: Its digits after the point.
        kappa: Printed kappa.
        kappa_decimals: Its digits after the point.
        confusion: Whole table, reference in rows, shape (K, K), where it was printed; its sums are the counts. Agreement and kappas
            are then known and not only bounded.

    Returns:
        The findings, in sentences, and the numbers behind them: agreements and shares in [0, 1], kappas in
        [-1, 1]. Those of an agreement that was not printed are NaN.

    Raises:
        ValueError: The counts have different lengths or sums, are negative, or a printed number is out of
            range.
    """
    r = as_values(reference_counts, name="reference_counts")
    c = as_values(judge_counts, name="judge_counts")
    bounds = [_bounds(r, c, confusion, weights) for weights in _WEIGHTS]
    n, expected = round(float(r.sum())), bounds[0].expected
    shares = _agreement_interval(agreement_percent, agreement_decimals)
    implied = (kappa_from_agreement(shares[0], expected), kappa_from_agreement(shares[1], expected))
    counts = (
        None if agreement_percent is None else grim_counts(agreement_percent, n, decimals=agreement_decimals)
    )
    baseline = float(r.max()) / n
    contradictions = list(
        _agreement_contradictions(agreement_percent, agreement_decimals, n=n, bounds=bounds[0])
    )
    warnings = list(_warnings(c / n, baseline, shares[0], n=n, bounds=bounds[0]))
    mismatch, impossible = _kappa_mismatch(
        kappa, 0.5 * 10.0**-kappa_decimals, implied, bounds, n_levels=len(r)
    )
    (contradictions if impossible else warnings).extend(mismatch)
    return PublishedCheck(
        n=n,
        expected=expected,
        kappa_low=implied[0],
        kappa_high=implied[1],
        bounds=bounds[0],
        linear=bounds[1],
        quadratic=bounds[2],
        n_tables=_number_of_tables(r, c, counts) if confusion is None else None,
        baseline=baseline,
        contradictions=tuple(contradictions),
        warnings=tuple(warnings),
    )


def _bounds(r: Floats, c: Floats, confusion: ArrayLike | None, weights: Weights) -> AgreementBounds:
    """Bounds of agreement and kappa; equal where the whole table is known."""
    bounds = agreement_bounds(r, c, weights=weights)
    if confusion is None:
        return bounds
    table = np.asarray(confusion, dtype=float)
    if table.shape != (len(r), len(r)) or not (
        np.array_equal(table.sum(axis=1), r) and np.array_equal(table.sum(axis=0), c)
    ):
        raise ValueError("the rows and columns of the table must sum to the counts of reference and judge")
    agreement = float((agreement_weights(len(r), weights) * table).sum() / table.sum())
    kappa = kappa_from_agreement(agreement, bounds.expected)
    kappa = nan if isnan(bounds.kappa_max) else kappa
    return AgreementBounds(agreement, agreement, bounds.expected, kappa, kappa)


def _agreement_interval(percent: float | None, decimals: int) -> tuple[float, float]:
    if percent is None:
        return nan, nan
    half = 0.5 * 10.0**-decimals
    return max(0.0, percent - half) / 100, min(100.0, percent + half) / 100


def _number_of_tables(r: Floats, c: Floats, counts: range | None) -> int | None:
    """Count compatible tables; None for more than 3 levels, without agreement, or for many items."""
    if counts is None or len(r) > 3 or float(np.prod(np.minimum(r, c) + 1)) > _MAX_DIAGONALS:
        return None
    return sum(compatible_tables(r, c, agreements=m) for m in counts)


def _agreement_contradictions(
    percent: float | None, decimals: int, *, n: int, bounds: AgreementBounds
) -> Iterator[str]:
    if percent is None:
        return
    low, high = _agreement_interval(percent, decimals)
    if not grim(percent, n, decimals=decimals):
        near = sorted({floor(percent * n / 100), ceil(percent * n / 100)})
        digits = max(decimals, 0)
        nearest = " and ".join(f"{m}/{n} = {100 * m / n:.{digits}f} %" for m in near)
        yield f"no whole number of {n} items gives {percent:.{digits}f} % agreement: {nearest}"
    printed = f"{percent:.{max(decimals, 0)}f} %"
    is_known = bounds.agreement_min == bounds.agreement_max
    if low > bounds.agreement_max + _SLACK:
        largest = 100 * bounds.agreement_max
        source = "the table has" if is_known else "the marginals allow at most"
        yield f"{source} {largest:.1f} % agreement, not {printed}"
    if high < bounds.agreement_min - _SLACK:
        smallest = 100 * bounds.agreement_min
        source = "the table has" if is_known else "the marginals force at least"
        yield f"{source} {smallest:.1f} % agreement, not {printed}"


def _kappa_mismatch(
    printed: float | None,
    half: float,
    implied: tuple[float, float],
    bounds: list[AgreementBounds],
    *,
    n_levels: int,
) -> tuple[list[str], bool]:
    """Say what speaks against the printed kappa, and whether weights could not explain it either."""
    if printed is None:
        return [], False
    if isnan(bounds[0].kappa_max):
        undefined = (
            "kappa is undefined: both raters give every item the same letter, so that agreement by chance is 100 % and kappa is "
            "0/0; some tools print 1, some 0"
        )
        return [undefined], False
    low, high = printed - half - _SLACK, printed + half + _SLACK
    allowed = [low <= b.kappa_max and high >= b.kappa_min for b in bounds]
    sentences = []
    if bounds[0].kappa_min == bounds[0].kappa_max:
        if allowed[0]:
            return [], False
        names = ("unweighted", "with linear weights", "with quadratic weights")
        exact = {name: f"{b.kappa_max:.3f}" for b, name in zip(bounds, names, strict=True)}
        if any(allowed):
            name = names[allowed.index(True)]
            return [f"kappa {printed:g} is that {name}; unweighted it is {exact['unweighted']}"], False
        shown = exact if n_levels > 2 else {"": exact["unweighted"]}
        listed = ", ".join(f"{value} {name}".rstrip() for name, value in shown.items())
        return [f"the kappa of the table is {listed}, not {printed:g}"], True
    if not any(allowed):
        sentences.append(
            f"kappa {printed:g} is impossible: over all tables with these marginals kappa is between "
            f"{min(b.kappa_min for b in bounds):.3f} and {max(b.kappa_max for b in bounds):.3f}, "
            "whatever the weights"
        )
    elif not allowed[0]:
        sentences.append(
            f"kappa {printed:g} is not unweighted: the marginals allow {bounds[0].kappa_min:.3f} to "
            f"{bounds[0].kappa_max:.3f}"
        )
    if implied[1] < low or implied[0] > high:
        slip = implied[0] - half <= printed / 10 <= implied[1] + half
        sentences.append(
            f"unweighted kappa from the printed agreement is {implied[0]:.3f} to {implied[1]:.3f}, "
            f"not {printed:g}" + ("; a slipped decimal point would explain it" if slip else "")
        )
    weighted_could = n_levels > 2 and any(allowed[1:])
    return sentences, not weighted_could


def _warnings(
    judge_shares: Floats, baseline: float, agreement: float, *, n: int, bounds: AgreementBounds
) -> Iterator[str]:
    largest = float(judge_shares.max())
    if largest > NEARLY_CONSTANT:
        yield f"the judge gives one letter to {100 * largest:.1f} % of the items: it hardly judges"
    # one standard error of the baseline: less than that above it is no sign that the judge knows the items
    if agreement <= baseline + sqrt(baseline * (1 - baseline) / n):
        yield (
            f"always giving the most frequent letter would agree on {100 * baseline:.1f} %: "
            "the judge adds nothing"
        )
    if bounds.kappa_max < LOW_KAPPA_MAX and bounds.kappa_min < bounds.kappa_max:
        yield f"the letters' frequencies differ so much that kappa cannot exceed {bounds.kappa_max:.3f}"
