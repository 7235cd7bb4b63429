"""Rates corrected by the judge's errors in another population."""

import numpy as np
import pytest

from qaeval.stats import letter_shares, rogan_gladen

QGEVAL = np.array([[374, 59, 48], [46, 152, 191], [23, 96, 2011]])
"""Labels in rows, judge in columns (STATS.md 5.5)."""


def singletons(table: np.ndarray) -> np.ndarray:
    """A table as one table for each item."""
    k = len(table)
    cells = np.repeat(np.arange(k * k), table.ravel())
    return np.eye(k * k)[cells].reshape(-1, k, k)


def test_known_errors_give_the_printed_prevalence() -> None:
    rate = rogan_gladen(45 / 150, 150, sensitivity=0.96, specificity=0.89)
    assert rate.raw == rate.estimate.value == pytest.approx(0.22353, abs=5e-6)
    assert (rate.estimate.low, rate.estimate.high) == pytest.approx((0.1440, 0.3148), abs=5e-5)


def test_a_rate_below_the_judges_false_alarms_is_cut_to_0_with_a_warning() -> None:
    rate = rogan_gladen(6 / 151, 151, sensitivity=0.964, specificity=0.927)
    assert round(100 * rate.raw) == -4
    assert rate.estimate.value == 0
    assert "-0.04" in str(rate.estimate.reason)


def test_lees_interval_is_that_of_the_authors() -> None:
    rate = rogan_gladen(0.4, 1000, sensitivity=0.9, specificity=0.7, n_positive=200, n_negative=200)
    assert rate.raw == pytest.approx(0.166667, abs=5e-7)
    assert (rate.estimate.low, rate.estimate.high) == pytest.approx((0.056351, 0.262733), abs=5e-7)
    assert rate.youden == pytest.approx(0.6)


def test_the_standard_error_is_the_delta_methods() -> None:
    rate = rogan_gladen(0.4, 1000, sensitivity=0.9, specificity=0.7, n_positive=200, n_negative=200)
    variance = 0.24 / 1000 + (5 / 6) ** 2 * 0.21 / 200 + (1 / 6) ** 2 * 0.09 / 200
    assert rate.se == pytest.approx(np.sqrt(variance) / 0.6)


def test_a_judge_that_is_not_shown_to_tell_hits_from_misses_is_refused() -> None:
    arena = rogan_gladen(40 / 248, 248, sensitivity=1 / 4, specificity=21 / 24, n_positive=4, n_negative=24)
    assert arena.raw == pytest.approx(0.2903, abs=5e-5)
    assert arena.refused == "poor judge"
    assert arena.youden_low < 0 < arena.youden
    assert not arena.estimate.is_defined
    assert rogan_gladen(0.4, 100, sensitivity=0.5, specificity=0.5).refused == "poor judge"


def test_inverting_the_judges_own_errors_returns_the_labels() -> None:
    shares = letter_shares(singletons(QGEVAL), QGEVAL.sum(axis=0)[None].repeat(12, axis=0))
    assert [3000 * share.value for share in shares.shares] == pytest.approx([481, 389, 2130])
    assert shares.condition == pytest.approx(3.75, abs=5e-3)
    assert shares.refused is None
    assert all(share.low < share.value < share.high for share in shares.shares)


def test_shares_that_no_mixture_gives_are_the_likeliest_on_the_simplex() -> None:
    judged = np.array([[30.0, 1, 0]] * 20)
    values = [share.value for share in letter_shares(singletons(QGEVAL), judged).shares]
    assert min(values) >= 0
    assert sum(values) == pytest.approx(1)
    assert values[0] == pytest.approx(1, abs=1e-6)


def test_a_judge_without_an_error_is_inverted() -> None:
    shares = letter_shares(singletons(np.diag([20, 10, 5])), np.array([[2.0, 1, 1]] * 20))
    assert [share.value for share in shares.shares] == pytest.approx([0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("table", "refused"),
    [
        (np.array([[60, 30, 10], [12, 6, 2], [30, 15, 5]]), "poor judge"),
        (np.array([[9990, 5, 5], [5, 5150, 4845], [5, 4850, 5145]]), "nearly singular"),
        (np.array([[60, 3, 1], [3, 20, 2], [0, 0, 0]]), "poor judge"),
    ],
)
def test_errors_that_nearly_cancel_are_refused(table: np.ndarray, refused: str) -> None:
    shares = letter_shares(singletons(table), np.array([[3.0, 2, 1]] * 20))
    assert shares.refused == refused
    assert not any(share.is_defined for share in shares.shares)


@pytest.mark.parametrize(("n_clusters", "has_interval"), [(1, False), (9, False), (10, True)])
def test_shares_of_few_clusters_have_no_interval(n_clusters: int, has_interval: bool) -> None:
    judged = np.array([[3.0, 2, 1]] * n_clusters)
    judged[0] += [1, 0, 0]
    shares = letter_shares(singletons(np.diag([20, 10, 5]) + 1), judged).shares
    assert all(share.is_defined for share in shares)
    assert {share.has_interval for share in shares} == {has_interval}
    assert all(share.low <= share.value <= share.high for share in shares if has_interval)


def test_arguments_out_of_range_are_errors() -> None:
    with pytest.raises(ValueError, match="rates must be in"):
        rogan_gladen(1.2, 100, sensitivity=0.9, specificity=0.9)
    with pytest.raises(ValueError, match="sizes must be above 0"):
        rogan_gladen(0.2, 0, sensitivity=0.9, specificity=0.9)
    with pytest.raises(ValueError, match="tables must have shape"):
        letter_shares(QGEVAL, [[1, 2, 3]])
    with pytest.raises(ValueError, match="judged must hold counts"):
        letter_shares(singletons(QGEVAL), [[0, 0, 0]])
