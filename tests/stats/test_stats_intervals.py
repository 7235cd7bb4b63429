"""Intervals of rates and means: published limits, and what is done where there is nothing to go by."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pytest import approx  # noqa: PT013

from qaeval.stats.estimate import Estimate, undefined
from qaeval.stats.intervals import (
    clopper_pearson,
    clustered_mean,
    clustered_rate,
    clustered_ratio,
    wilson,
)
from qaeval.stats.power import icc1

LOHR = [
    [3.08, 2.60, 3.44, 3.04], [2.36, 3.04, 3.28, 2.68], [2.00, 2.56, 2.52, 1.88],
    [3.00, 2.88, 3.44, 3.64], [2.68, 1.92, 3.28, 3.20],
]  # fmt: skip


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # Newcombe 1998, Table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # planted defects: 38 of 50 found
        (38, 50, 0.626, 0.857),
    ],
)
def test_wilson_of_newcombes_table(k: int, n: int, low: float, high: float) -> None:
    result = wilson(k, n)
    assert (result.low, result.high) == approx((low, high), abs=5e-5 if n != 50 else 5e-4)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
        (0, 50, 0.0, 0.0711),
    ],
)
def test_clopper_pearson_of_newcombes_table(k: int, n: int, low: float, high: float) -> None:
    result = clopper_pearson(k, n)
    assert (result.low, result.high) == approx((low, high), abs=5.1e-5)


def test_sensitivity_and_specificity_of_scott_2008() -> None:
    # epiR: TP 670, FN 74, FP 202, TN 640
    sensitivity, specificity = wilson(670, 744), wilson(640, 842)
    assert (sensitivity.value, sensitivity.low, sensitivity.high) == approx((0.90, 0.88, 0.92), abs=5e-3)
    assert (specificity.value, specificity.low, specificity.high) == approx((0.76, 0.73, 0.79), abs=5e-3)
    # LR+ = Se / (1 - Sp)
    assert sensitivity.value / (1 - specificity.value) == approx(3.75, abs=5e-3)


@pytest.mark.parametrize(("n", "bound"), [(59, 0.0495), (58, 0.0503)])
def test_rule_of_three(n: int, bound: float) -> None:
    # no miss in n: the one-sided 95 % bound is 1 - .05^(1/n)
    assert clopper_pearson(0, n, level=0.90).high == approx(bound, abs=5e-5)


def test_clustered_mean_of_lohrs_suites() -> None:
    # mean 2.826; cluster totals have variance 2.25568; CR1 = sqrt(s^2/G)/k = sqrt(2.25568/5)/4 = .16792
    values, suites = np.ravel(LOHR), np.repeat(np.arange(5), 4)
    result = clustered_mean(values, suites)
    totals = np.sum(LOHR, axis=1)
    assert result.value == approx(2.826)
    assert totals.var(ddof=1) == approx(2.25568, abs=5e-6)
    assert np.isnan(result.low)  # five clusters carry no interval
    assert np.sqrt(totals.var(ddof=1) / 5) / 4 == approx(0.16792, abs=5e-6)
    # with the finite population factor for 5 of 100 suites: .1637
    assert np.sqrt(0.95 * totals.var(ddof=1) / 5) / 4 == approx(0.1637, abs=5e-5)
    assert icc1(values, suites) == approx(0.3386, abs=5e-5)


def test_clustered_mean_has_the_cr1_error() -> None:
    # the five suites four times: the error follows from the cluster totals, t with 19 degrees of freedom
    values, suites = np.tile(np.ravel(LOHR), 4), np.repeat(np.arange(20), 4)
    result = clustered_mean(values, suites)
    totals = np.tile(np.sum(LOHR, axis=1), 4)
    se = np.sqrt(totals.var(ddof=1) / 20) / 4
    assert result.high - result.value == approx(2.0930241 * se)


def test_items_and_clusters_can_be_weighted() -> None:
    # one cluster of three zeros, one of a single one: 1/4 by item, 1/2 by cluster
    assert clustered_mean([0, 0, 0, 1], [0, 0, 0, 1]).value == approx(0.25)
    assert clustered_mean([0, 0, 0, 1], [0, 0, 0, 1], weight="cluster").value == approx(0.5)


def test_thyroid_difference_by_pair() -> None:
    # Durkalski's 21 patients: CR1 difference -.11765, SE .06321, t interval (-.2495, .0142)
    b = np.array([0] * 8 + [1] + [0] * 12)
    c = np.array([2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0])
    n = np.array([3, 3, 3, 1, 3, 4, 3, 2, 2, 1, 3, 2, 3, 2, 2, 3, 3, 3, 2, 1, 2])
    result = clustered_ratio(b - c, n)
    assert result.value == approx(-0.11765, abs=5e-6)
    assert (result.low, result.high) == approx((-0.2495, 0.0142), abs=5e-5)
    assert (result.high - result.value) / 2.0859634 == approx(0.06321, abs=5e-6)


def test_independent_items_give_wilson_with_t() -> None:
    # one item in each cluster: v = p(1-p)/(G-1), so effective n = G - 1 = 99
    successes = np.repeat([1, 0], [80, 20])
    result = clustered_rate(successes, np.ones(100), method="wilson")
    t, p, n = 1.9842169, 0.8, 99
    centre, half = p + t**2 / (2 * n), t * np.sqrt(p * (1 - p) / n + t**2 / (4 * n * n))
    assert (result.low, result.high) == approx(
        ((centre - half) / (1 + t**2 / n), (centre + half) / (1 + t**2 / n)), abs=1e-6
    )


def test_logit_interval_by_hand() -> None:
    # p = .8, v = .16/99: logit .8 = 1.386294, half = 1.9842169 * sqrt(.16/99)/.16
    result = clustered_rate(np.repeat([1, 0], [80, 20]), np.ones(100), method="logit")
    half = 1.9842169 * np.sqrt(0.16 / 99) / 0.16
    assert result.low == approx(1 / (1 + np.exp(-(1.3862944 - half))), abs=1e-6)
    assert result.high == approx(1 / (1 + np.exp(-(1.3862944 + half))), abs=1e-6)


@pytest.mark.parametrize(("hits", "size"), [(0, 1), (1, 1), (57, 1), (60, 1), (57, 4), (60, 4)])
def test_clusters_that_succeed_or_fail_whole_are_the_trials_of_clopper_pearson(hits: int, size: int) -> None:
    sizes = np.full(60, size)
    result = clustered_rate(np.where(np.arange(60) < hits, sizes, 0), sizes)
    exact = clopper_pearson(hits, 60)
    assert (result.value, result.low, result.high) == approx((exact.value, exact.low, exact.high), abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.9, 0.95, 0.999])
def test_gaffkes_bound_is_the_quantile_of_the_weighted_rate_with_one_more_failed_cluster(
    level: float,
) -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 7, 25)
    hits = rng.binomial(sizes, 0.7)
    weights = rng.exponential(size=(400_000, 26))
    mean_size = (sizes**2).sum() / sizes.sum()
    drawn = (weights[:, :-1] @ hits) / (weights @ np.append(sizes, mean_size))
    assert clustered_rate(hits, sizes, level=level).low == approx(
        np.quantile(drawn, (1 - level) / 2), abs=4e-3
    )


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=10, max_size=40),
    st.integers(0, 39),
    st.sampled_from([0.5, 0.9, 0.95, 1 - 2e-6]),
)
@settings(deadline=None)
def test_more_failures_never_help(clusters: list[tuple[int, int]], position: int, level: float) -> None:
    totals = np.array([total for total, _ in clusters])
    successes = np.minimum([hits for _, hits in clusters], totals)
    assume(successes[position % len(totals)] > 0)
    fewer = successes - (np.arange(len(totals)) == position % len(totals))
    better, worse = (clustered_rate(hits, totals, level=level) for hits in (successes, fewer))
    assert worse.low <= better.low + 1e-9
    assert worse.high <= better.high + 1e-9


def test_a_clean_run_is_never_judged_worse_than_one_with_a_failure() -> None:
    # the cells of a gate: at_least 0.975 passed 299 of 300 and not 300 of 300, at level .9
    totals = np.full(100, 3)
    clean = clustered_rate(totals, totals, level=0.9)
    one_lost = clustered_rate(totals - (np.arange(100) == 0), totals, level=0.9)
    assert one_lost.low < clean.low == approx(0.05 ** (1 / 100))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunks", "rate", "whole"), [(200, 0.98, 0.6), (400, 0.01, 0.3), (20, 0.98, 0.6), (400, 0.99, 1.0)]
)
def test_rare_events_in_whole_chunks_are_covered(chunks: int, rate: float, whole: float) -> None:
    # sizes 1 to 6, a share of the chunks succeeds or fails whole: a clustered logit interval covers .89 in the first cell,
    # and its 5 % bounds err in up to 13 %
    rng = np.random.default_rng(8)
    n_covered, n_too_high, n_too_low, reps = 0, 0, 0, 500
    for _ in range(reps):
        sizes = rng.integers(1, 7, chunks)
        all_or_none = sizes * (rng.random(chunks) < rate)
        hits = np.where(rng.random(chunks) < whole, all_or_none, rng.binomial(sizes, rate))
        wide, narrow = (clustered_rate(hits, sizes, level=level) for level in (0.95, 0.9))
        n_covered += wide.low <= rate <= wide.high
        n_too_high += narrow.low > rate
        n_too_low += narrow.high < rate
    assert n_covered >= 0.95 * reps - 1
    assert max(n_too_high, n_too_low) <= (0.055 + 0.015) * reps, (
        "two standard errors of 500 runs are 1.5 to 2 points"
    )


@pytest.mark.parametrize("method", ["logit", "wilson"])
def test_all_right_is_clopper_pearson_on_clusters(method: str) -> None:
    result = clustered_rate([3] * 30, [3] * 30, method=method)
    assert (result.value, result.high) == (1.0, 1.0)
    assert result.low == approx(0.025 ** (1 / 30))
    assert result.method == "Clopper-Pearson on clusters"
    assert (result.n, result.n_clusters) == (90, 30)


@pytest.mark.parametrize("method", ["logit", "wilson"])
def test_clusters_that_are_all_alike_have_the_binomial_error(method: str) -> None:
    result = clustered_rate([2] * 30, [3] * 30, method=method)
    assert 0.5 < result.low < 2 / 3 < result.high < 0.8


def test_nine_clusters_carry_no_interval_and_ten_a_warning() -> None:
    nine, ten = clustered_rate([1, 2] * 4 + [3], [3] * 9), clustered_rate([1, 2] * 5, [3] * 10)
    assert nine.value == approx(15 / 27)
    assert not nine.has_interval
    assert "fewer than 10" in str(nine.reason)
    assert ten.has_interval
    assert "fewer than 20" in str(ten.reason)
    assert clustered_rate([1, 2] * 10, [3] * 20).reason is None


def test_clusters_without_items_do_not_count() -> None:
    with_empty = clustered_rate([1, 0] * 10 + [0], [2] * 20 + [0])
    assert with_empty == clustered_rate([1, 0] * 10, [2] * 20)
    nobody = clustered_rate([0, 0], [0, 0])
    assert not nobody.is_defined
    assert "no cluster" in str(nobody.reason)


def test_a_mean_without_spread_says_so() -> None:
    result = clustered_mean([0.1] * 30, np.arange(30))
    assert result.value == approx(0.1)
    assert not result.has_interval
    assert "no information" in str(result.reason)


def test_an_undefined_estimate_needs_a_reason() -> None:
    assert undefined("nobody came").reason == "nobody came"
    with pytest.raises(ValueError, match="needs a reason"):
        Estimate(value=float("nan"), low=0, high=1, method="", n=1, n_clusters=1)
    with pytest.raises(ValueError, match="level must be"):
        Estimate(value=0, low=0, high=1, method="", n=1, n_clusters=1, level=95)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
def test_impossible_counts_are_refused(interval: Callable[..., Estimate]) -> None:
    with pytest.raises(ValueError, match="at least one item"):
        interval(0, 0)
    with pytest.raises(ValueError, match="successes must be"):
        interval(5, 4)
    with pytest.raises(ValueError, match=r"for example 0\.95"):
        interval(1, 4, level=95)


def test_bad_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="successes <= total"):
        clustered_rate([2], [1])
    with pytest.raises(ValueError, match=r"successes has 2, totals .* 1"):
        clustered_rate([1, 1], [1])
    with pytest.raises(ValueError, match="positive sum"):
        clustered_ratio([1, 1], [0, 0])
    with pytest.raises(ValueError, match="of the 2 items"):
        clustered_mean([1, 2], [0])
    with pytest.raises(ValueError, match="must not be NaN"):
        clustered_mean([1, 2], [0, np.nan])
    with pytest.raises(ValueError, match="must be finite, got nan at position 1"):
        clustered_mean([1, np.nan], [0, 1])
