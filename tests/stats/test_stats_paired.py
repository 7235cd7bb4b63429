"""Paired comparisons by chunk: Darwin's maize, R's sleep data and other published examples."""

import itertools
from typing import Any

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx  # noqa: PT013

from qaeval.stats import paired
from qaeval.stats.estimate import Estimate
from qaeval.stats.margins import equivalence, non_inferiority
from qaeval.stats.paired import (
    agreeing_with_test,
    benjamini_yekutieli,
    clustered_signed_rank,
    holm,
    lattice_steps,
    paired_difference,
    sign_flip_test,
    signed_rank_result,
)

DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48])
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0, 2]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
DEPRESSION_X = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
DEPRESSION_Y = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])


@pytest.mark.parametrize(
    ("ends", "p", "expected"),
    [
        ((-0.1, 0.4), 0.04, (0.0, 0.4)),
        ((0.1, 0.4), 0.06, (0.0, 0.4)),
        ((0.1, 0.4), 0.04, (0.1, 0.4)),
        ((-0.1, 0.4), 0.06, (-0.1, 0.4)),
    ],
)
def test_an_interval_agrees_with_the_test_that_decides(
    ends: tuple[float, float], p: float, expected: tuple[float, float]
) -> None:
    more: dict[str, Any] = {"method": "any", "n": 20, "n_clusters": 20}
    higher = agreeing_with_test(Estimate(value=0.2, low=ends[0], high=ends[1], **more), p)
    lower = agreeing_with_test(Estimate(value=-0.2, low=-ends[1], high=-ends[0], **more), p)
    assert (higher.low, higher.high) == expected == (-lower.high, -lower.low)


def test_fishers_test_of_darwins_maize() -> None:
    # 863 of the 32768 sign patterns reach the sum of 314: two-sided 1726/32768
    assert DARWIN.sum() == 314
    assert sign_flip_test(DARWIN / 8) == approx(2 * 863 / 32768)
    assert sign_flip_test(DARWIN / 8) == approx(0.052673, abs=5e-7)
    assert sign_flip_test(DARWIN, alternative="greater") == approx(863 / 32768)
    # 835 patterns exceed it, so 32768 - 835 are at most as large
    assert sign_flip_test(DARWIN, alternative="less") == approx((32768 - 835) / 32768)


def test_students_t_of_darwins_maize() -> None:
    result = paired_difference(np.zeros(15), DARWIN, span=None)
    assert result.value / ((result.high - result.value) / 2.1447867) == approx(2.148, abs=5e-4)
    assert scipy.stats.ttest_1samp(DARWIN, 0).pvalue == approx(0.0497, abs=5e-5)


def test_sign_flips_of_clustered_thyroids() -> None:
    b = np.array([0] * 8 + [1] + [0] * 12)
    c = np.array([2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0])
    assert sign_flip_test(b - c) == approx(0.15625)


def test_wilcoxon_and_sign_test_are_sign_flips_of_ranks_and_signs() -> None:
    # R's wilcox.test: V = 40, one-sided .01953, two-sided .03906; sign test one-sided .08984
    d = DEPRESSION_X - DEPRESSION_Y
    ranks = scipy.stats.rankdata(np.abs(d)) * np.sign(d)
    assert ranks[ranks > 0].sum() == 40
    assert sign_flip_test(ranks, alternative="greater") == approx(0.01953, abs=5e-6)
    assert sign_flip_test(ranks) == approx(0.03906, abs=5e-6)
    assert sign_flip_test(np.sign(d), alternative="greater") == approx(0.08984, abs=5e-6)


@settings(max_examples=60)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=11), st.sampled_from([1, 2, 3, 12]))
def test_sign_flip_counts_all_patterns(steps: list[int], denominator: int) -> None:
    patterns = np.array(list(itertools.product([-1, 1], repeat=len(steps)))) @ np.array(steps)
    expected = np.mean(np.abs(patterns) >= abs(sum(steps)))
    assert sign_flip_test(np.array(steps) / denominator) == approx(expected)


def test_sign_flip_is_exact_for_thousands_of_chunks() -> None:
    # 3000 differences of one third: the heads of a fair coin, 1600 of 3000; binomial tail by hand of scipy
    d = np.repeat([1, -1], [1600, 1400]) / 3
    assert sign_flip_test(d) == approx(scipy.stats.binomtest(1600, 3000).pvalue, rel=1e-9)


def test_sign_flip_of_ten_thousand_chunks_of_all_sizes() -> None:
    # multiples of 1/60: the exact law is close to a normal one with variance sum of squares
    d = np.random.default_rng(8).integers(-60, 62, size=10_000) / 60
    z = d.sum() / np.sqrt((d**2).sum())
    assert 1 < abs(z) < 4
    assert sign_flip_test(d) == approx(2 * scipy.stats.norm.sf(abs(z)), rel=5e-3)


def test_mixed_cluster_sizes_stay_exact() -> None:
    # halves and thirds lie on sixths
    steps = lattice_steps(np.array([1 / 2, -1 / 3, 2 / 3, 0.0]))
    assert steps is not None
    assert steps.tolist() == [3, -2, 4, 0]


def test_off_the_lattice_few_chunks_are_enumerated_and_many_need_a_generator() -> None:
    rng = np.random.default_rng(3)
    few, many = rng.normal(size=12) * np.pi, rng.normal(0.1, size=60) * np.pi
    patterns = np.array(list(itertools.product([-1, 1], repeat=12))) @ few
    assert sign_flip_test(few) == approx(np.mean(np.abs(patterns) >= abs(few.sum()) - 1e-9))
    with pytest.raises(ValueError, match="pass rng"):
        sign_flip_test(many)
    p_value = sign_flip_test(many, rng=np.random.default_rng(1), n_resamples=4999)
    assert p_value == approx(scipy.stats.ttest_1samp(many, 0).pvalue, abs=0.03)
    assert p_value == sign_flip_test(many, rng=np.random.default_rng(1), n_resamples=4999)


def test_no_difference_at_all_has_p_value_one() -> None:
    assert sign_flip_test(np.zeros(30)) == 1.0


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, made monotone
    assert holm([0.01, 0.04, 0.03, 0.005]) == approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, np.nan, 0.04])[[0, 2]] == approx([0.02, 0.04])


def test_paired_difference_is_b_minus_a() -> None:
    # D = 1/3 in 20 chunks and 0 in 20: mean 1/6, sd sqrt(40/39)/6, t(39) = 2.0226909
    b = np.repeat([1 / 3, 0], 20)
    result = paired_difference(np.zeros(40), b)
    assert result.value == approx(1 / 6)
    assert result.high - result.value == approx(2.0226909 * np.sqrt(40 / 39) / 6 / np.sqrt(40))
    assert paired_difference(b, np.zeros(40)).value == approx(-1 / 6)


def test_chunks_that_one_candidate_lacks_are_counted() -> None:
    a, b = np.linspace(0, 1, 25), np.linspace(1, 0, 25)
    a[3] = b[7] = np.nan
    result = paired_difference(a, b)
    assert (result.n, result.n_clusters, result.n_excluded) == (23, 23, 2)


def test_two_chunks_are_added_where_nearly_all_tie() -> None:
    # 29 ties and one 1/3: data get 1 and -1; mean (1/3)/32, sum of squares 1/9 + 2
    d = np.zeros(30)
    d[0] = 1 / 3
    result = paired_difference(np.zeros(30), d)
    centre = (1 / 3) / 32
    se = np.sqrt((1 / 9 + 2 - 32 * centre**2) / 31 / 32)
    assert result.value == approx(1 / 90)
    assert (result.low, result.high) == approx((centre - 2.0452296 * se, centre + 2.0452296 * se))
    assert "two chunks added" in result.method


def test_a_skewed_difference_has_hall_s_lower_end() -> None:
    # 12 of 60 chunks lose 1, the rest tie: the skewness of a coin of .2 is .6/.4, a = 1.5/(3 sqrt 60) * sd ratio
    d = np.repeat([-1.0, 0.0], [12, 48])
    result = paired_difference(np.zeros(60), d)
    se, t = d.std(ddof=1) / np.sqrt(60), 2.0009954
    a = ((d + 0.2) ** 3).mean() / d.std(ddof=1) ** 3 / (3 * np.sqrt(60))
    assert result.low == approx(-0.2 - se * (np.cbrt(1 + 3 * a * (t - a / 2)) - 1) / a)
    assert result.low < -0.2 - t * se
    assert result.high == approx(-0.2 + t * se)
    assert "skewness" in result.method


def test_all_ties_still_have_an_interval() -> None:
    result = paired_difference(np.ones(30), np.ones(30))
    assert result.value == 0
    assert -0.15 < result.low < 0 < result.high < 0.15
    seconds = paired_difference(np.ones(30), np.ones(30), span=None)
    assert not seconds.has_interval
    assert "no information" in str(seconds.reason)


def test_few_chunks_have_a_value_and_no_interval() -> None:
    result = paired_difference([0, 0, 1], [1, 0, 1])
    assert result.value == approx(1 / 3)
    assert not result.has_interval


def test_equivalence_of_the_sleep_data() -> None:
    # TOSTER vignette: -1.58, SE .389, 90 % (-2.293, -.867), t -4.062; lower -2.777 p .989, upper -5.348 p .0002
    result = equivalence(SLEEP_2, SLEEP_1, low=-0.5, high=0.5, span=None)
    assert result.difference.value == approx(-1.58)
    assert (result.difference.low, result.difference.high) == approx((-2.293, -0.867), abs=5e-4)
    assert (result.t_low, result.t_high) == approx((-2.777, -5.348), abs=5e-4)
    assert result.p_low == approx(0.989, abs=5e-4)
    assert result.p_high == approx(0.0002, abs=5e-5)
    assert result.p_value == result.p_low
    assert not result.is_shown
    se = (result.difference.high - result.difference.value) / 1.8331129
    assert se == approx(0.389, abs=5e-4)
    assert result.difference.value / se == approx(-4.062, abs=5e-4)


def test_non_inferiority_bound_and_p_value_agree() -> None:
    rng = np.random.default_rng(5)
    a = rng.binomial(3, 0.8, 200) / 3
    b = rng.binomial(3, 0.8, 200) / 3
    wide, narrow = non_inferiority(a, b, margin=0.2), non_inferiority(a, b, margin=0.001)
    assert wide.is_shown
    assert wide.p_value < 0.05
    assert not narrow.is_shown
    assert narrow.p_value > 0.05
    # at the bound itself the p-value is alpha
    assert non_inferiority(a, b, margin=-wide.difference.low).p_value == approx(0.05)


def test_a_clear_loss_is_worse() -> None:
    result = non_inferiority(np.ones(40), np.repeat([0.0, 1 / 3], 20), margin=0.05)
    assert result.is_worse
    assert not result.is_shown
    assert result.p_worse < 0.001


def test_too_few_chunks_show_nothing() -> None:
    result = non_inferiority([1, 1, 1], [1, 1, 1], margin=0.5)
    assert not result.is_shown
    assert not result.is_worse
    assert np.isnan(result.p_value)


def test_bad_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths differ"):
        paired_difference([1, 2], [1])
    with pytest.raises(ValueError, match="mean for both"):
        paired_difference([1, np.nan], [np.nan, 1])
    with pytest.raises(ValueError, match="one-dimensional"):
        paired_difference([[1]], [[1]])
    with pytest.raises(ValueError, match="must be finite"):
        paired_difference([np.inf], [1])
    with pytest.raises(ValueError, match="alternative must be"):
        sign_flip_test([1], alternative="both")
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.5])
    with pytest.raises(ValueError, match="at least one value"):
        holm([])
    with pytest.raises(ValueError, match="must be positive"):
        non_inferiority([1], [1], margin=0)
    with pytest.raises(ValueError, match="low must be below high"):
        equivalence([1], [1], low=1, high=0)
    with pytest.raises(ValueError, match=r"alpha must be between 0 and 0\.5"):
        equivalence([1], [1], low=-1, high=1, alpha=0.6)


def test_clustered_signed_ranks_give_the_printed_test() -> None:
    # crsd of clusrank (STATS.md B14): T = -110, Z = -.6332, so that its variance is (110/.6332)^2
    result = signed_rank_result(-110, (110 / 0.6332) ** 2, n=40, n_clusters=20)
    assert result.statistic == pytest.approx(-0.6332, abs=5e-5)
    assert result.p_value == pytest.approx(0.5266, abs=5e-5)


def test_clustered_signed_ranks_by_hand() -> None:
    # |d| 1 2 2 4 have ranks 1 2.5 2.5 4; the clusters sum to 1 + 2.5 and -2.5 + 4
    result = clustered_signed_rank([1, 2, 0, -2, 4], [0, 0, 1, 1, 1])
    assert result.statistic == pytest.approx((3.5 + 1.5) / np.sqrt(3.5**2 + 1.5**2))
    assert np.isnan(clustered_signed_rank([0, 0], [0, 1]).p_value)


def test_benjamini_and_yekutieli_reject_none_of_the_printed_p_values() -> None:
    # mtbench, gpt-4o (STATS.md E-1): sum of 1/j for three is 11/6
    adjusted = benjamini_yekutieli([0.01918, 0.02600, 0.31454])
    assert adjusted == pytest.approx([0.0715, 0.0715, 0.31454 * 11 / 6], abs=1e-6)
    assert benjamini_yekutieli([0.04, 0.001]) == pytest.approx([0.06, 0.003])
    with pytest.raises(ValueError, match="between 0 and 1"):
        benjamini_yekutieli([1.2])


def test_sign_patterns_drawn_by_size_follow_the_law_of_those_drawn_by_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    d = rng.choice([0.0, 1.0, -1.0, np.sqrt(2), -np.sqrt(2)], 400, p=[0.2, 0.2, 0.24, 0.16, 0.2])
    by_chunk = sign_flip_test(d, rng=np.random.default_rng(1))
    monkeypatch.setattr(paired, "_MANY", 0)
    by_size = sign_flip_test(d, rng=np.random.default_rng(2))
    assert 0.01 < by_chunk < 0.5
    assert by_size == pytest.approx(by_chunk, abs=0.02)
    one_sided = [
        sign_flip_test(d, alternative=side, rng=np.random.default_rng(2)) for side in ("less", "greater")
    ]
    assert sum(one_sided) == pytest.approx(1, abs=0.03)
