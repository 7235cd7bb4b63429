"""The impossible kappa: 111/50/10 against 167/3/1, "65.0 %", "kappa 0.30"."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx  # noqa: PT013

from qaeval.stats.bounds import agreement_bounds
from qaeval.stats.coefficients import balanced_accuracy, kappa
from qaeval.stats.homogeneity import stuart_maxwell
from qaeval.stats.published import (
    check_published,
    compatible_tables,
    grim,
    grim_counts,
    kappa_from_agreement,
)

REFERENCE, JUDGE = (111, 50, 10), (167, 3, 1)


def tables_with(row: Sequence[int], column: Sequence[int], agreements: int | None = None) -> np.ndarray:
    """All tables of three letters with these marginals, by trying every upper left corner."""
    tops = [range(min(row[i], column[j]) + 1) for i in (0, 1) for j in (0, 1)]
    tables = []
    for a, b, c, d in itertools.product(*tops):
        last_row = [column[0] - a - c, column[1] - b - d]
        table = [[a, b, row[0] - a - b], [c, d, row[1] - c - d], [*last_row, row[2] - sum(last_row)]]
        if min(map(min, table)) >= 0 and agreements in {None, a + d + table[2][2]}:
            tables.append(table)
    return np.array(tables).reshape(-1, 3, 3)


def kappa_range(tables: np.ndarray, weights: str) -> tuple[float, float]:
    values = kappa(tables, weights=weights)
    return float(values.min()), float(values.max())


def test_bounds_of_the_impossible_kappa() -> None:
    # pe = (111*167 + 50*3 + 10*1)/171^2; at most 111 + 3 + 1 = 115, at least 111 + 167 - 171 = 107 agree
    bounds = agreement_bounds(REFERENCE, JUDGE)
    assert bounds.expected == approx(18697 / 29241)
    assert bounds.expected == approx(0.639410, abs=5e-7)
    assert bounds.agreement_max == approx(115 / 171)
    assert bounds.agreement_max == approx(0.672515, abs=5e-7)
    assert bounds.kappa_max == approx(0.091806, abs=5e-7)
    assert bounds.agreement_min == approx(0.625731, abs=5e-7)
    assert bounds.kappa_min == approx(-0.037936, abs=5e-7)


def test_kappa_of_111_agreements() -> None:
    value = kappa_from_agreement(111 / 171, 18697 / 29241)
    assert value == approx(0.026935, abs=5e-7)
    # kappa .30 needs 127.8 agreements, more than 115; at .649 it needs pe = .4987
    needed = 0.30 + 0.70 * 18697 / 29241
    assert (needed, needed * 171) == (approx(0.747587, abs=5e-7), approx(127.8, abs=0.05))
    assert approx(0.4987, abs=5e-5) == (111 / 171 - 0.30) / 0.70


@pytest.mark.parametrize(
    ("weights", "low", "high"), [("linear", -0.04057, 0.09817), ("quadratic", -0.04406, 0.17121)]
)
def test_weights_cannot_rescue_it(weights: str, low: float, high: float) -> None:
    bounds = agreement_bounds(REFERENCE, JUDGE, weights=weights)
    assert (bounds.kappa_min, bounds.kappa_max) == approx((low, high), abs=5e-6)


def test_only_thirty_tables_have_these_marginals_and_six_this_agreement() -> None:
    assert compatible_tables(REFERENCE, JUDGE) == 30
    assert compatible_tables(REFERENCE, JUDGE, agreements=111) == 6
    six = tables_with(REFERENCE, JUDGE, 111)
    assert len(tables_with(REFERENCE, JUDGE)) == 30
    assert len(six) == 6
    assert kappa_range(six, "linear") == approx((0.0149, 0.0704), abs=5e-5)
    assert kappa_range(six, "quadratic") == approx((-0.0010, 0.1282), abs=5e-5)


@pytest.mark.parametrize(
    ("row", "column", "kappa_max"), [((111, 60), (167, 4), 0.0849), ((161, 10), (170, 1), 0.1730)]
)
def test_two_letters_cannot_rescue_it(
    row: tuple[int, int], column: tuple[int, int], kappa_max: float
) -> None:
    assert agreement_bounds(row, column).kappa_max == approx(kappa_max, abs=5e-5)


def test_the_six_tables_show_a_judge_without_information() -> None:
    tables = tables_with(REFERENCE, JUDGE, 111)
    accuracy = balanced_accuracy(tables)
    assert (accuracy.min(), accuracy.max()) == approx((0.333, 0.367), abs=5e-4)
    chi2 = [stuart_maxwell(table).statistic for table in tables]
    assert (min(chi2), max(chi2)) == approx((52.3, 56.4), abs=0.05)
    assert max(stuart_maxwell(table).p_value for table in tables) < 5e-12


def test_grim() -> None:
    # 111/171 = 64.9 %, 112/171 = 65.5 %
    assert not grim(65.0, 171, decimals=1)
    assert list(grim_counts(64.9, 171, decimals=1)) == [111]
    assert list(grim_counts(65.5, 171, decimals=1)) == [112]
    assert grim(65, 171, decimals=0)


@settings(max_examples=100)
@given(st.integers(1, 2000), st.data(), st.integers(0, 3))
def test_every_honest_percentage_passes_grim(n: int, data: st.DataObject, decimals: int) -> None:
    m = data.draw(st.integers(0, n))
    assert m in grim_counts(round(100 * m / n, decimals), n, decimals=decimals)


def test_the_check_names_everything_that_is_wrong() -> None:
    check = check_published(REFERENCE, JUDGE, agreement_percent=65.0, kappa=0.30)
    assert not check.is_possible
    assert check.n_tables == 0
    assert check.baseline == approx(111 / 171)
    assert (len(check.contradictions), len(check.warnings)) == (3, 3)
    assert "65.0 %" in check.contradictions[0]
    assert "-0.044 and 0.171" in check.contradictions[1]
    assert "decimal point" in check.contradictions[2]


def test_the_corrected_numbers_are_possible_but_damning() -> None:
    check = check_published(REFERENCE, JUDGE, agreement_percent=64.9, kappa=0.03)
    assert check.is_possible
    assert check.n_tables == 6
    assert any("hardly judges" in warning for warning in check.warnings)
    assert any("adds nothing" in warning for warning in check.warnings)
    assert any("cannot exceed 0.092" in warning for warning in check.warnings)


@pytest.mark.parametrize(
    ("table", "printed"),
    [
        ([[40, 9], [6, 45]], 0.70),
        ([[80, 10], [5, 5]], 0.32),
        ([[45, 15], [25, 15]], 0.13),
        ([[25, 35], [5, 35]], 0.26),
    ],
)
def test_sound_tables_are_not_flagged(table: list[list[int]] | np.ndarray, printed: float) -> None:
    counts = np.array(table)
    check = check_published(
        counts.sum(axis=1),
        counts.sum(axis=0),
        agreement_percent=np.trace(counts),
        agreement_decimals=0,
        kappa=printed,
    )
    assert check.contradictions == ()
    assert check.n_tables == 1


def test_a_weighted_kappa_is_a_warning_not_a_contradiction() -> None:
    # mammograms: 63.5 %, linear kappa .57, plain .47
    check = check_published((33, 22, 29, 1), (28, 38, 16, 3), agreement_percent=63.5, kappa=0.57)
    assert check.is_possible
    assert any("unweighted kappa" in warning for warning in check.warnings)
    assert check.n_tables is None


def test_marginals_alone_can_be_checked() -> None:
    check = check_published(REFERENCE, JUDGE)
    assert check.is_possible
    assert np.isnan(check.kappa_low)
    assert check.n_tables is None


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=9, max_size=9).filter(any))
def test_every_table_is_among_those_with_its_marginals(cells: list[int]) -> None:
    table = np.array(cells).reshape(3, 3)
    r, c = table.sum(axis=1), table.sum(axis=0)
    listed = tables_with(r.tolist(), c.tolist(), int(np.trace(table)))
    assert (listed == table).all(axis=(1, 2)).sum() == 1
    assert len(listed) == compatible_tables(r, c, agreements=int(np.trace(table)))
    assert (listed.sum(axis=2) == r).all()
    assert (listed.sum(axis=1) == c).all()
    for weights in (None, "linear", "quadratic"):
        bounds, value = agreement_bounds(r, c, weights=weights), kappa(table, weights=weights)
        assert np.isnan(value) or bounds.kappa_min - 1e-9 <= value <= bounds.kappa_max + 1e-9


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=9, max_size=9).filter(any))
def test_weighted_bounds_are_reached_by_some_table(cells: list[int]) -> None:
    table = np.array(cells).reshape(3, 3)
    r, c = table.sum(axis=1), table.sum(axis=0)
    low, high = kappa_range(tables_with(r.tolist(), c.tolist()), "quadratic")
    bounds = agreement_bounds(r, c, weights="quadratic")
    assert (low, high) == approx((bounds.kappa_min, bounds.kappa_max), nan_ok=True)


def test_bad_marginals_are_refused() -> None:
    with pytest.raises(ValueError, match="items: 10 and 11"):
        agreement_bounds([5, 5], [5, 6])
    with pytest.raises(ValueError, match="2 and 3 levels"):
        agreement_bounds([5, 5], [5, 5, 0])
    with pytest.raises(ValueError, match="counts or shares"):
        agreement_bounds([5, -5], [0, 0])
    with pytest.raises(ValueError, match="for 2 or 3 levels"):
        compatible_tables([1, 1, 1, 1], [1, 1, 1, 1])
    with pytest.raises(ValueError, match="whole numbers"):
        compatible_tables([0.5, 0.5], [0.5, 0.5])
    with pytest.raises(ValueError, match="percent in"):
        grim(101, 5, decimals=0)
