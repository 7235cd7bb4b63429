"""Betting tests: constants of confseq, capital worked by hand, and Ville's inequality by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pytest import approx  # noqa: PT013

from qaeval.stats.sequential import (
    BettingTest,
    ConfidenceSequence,
    SequentialLook,
    corrected_looks,
    sequential_looks,
)

Floats = NDArray[np.float64]


# ---------------------------------------------------------------- bets


def test_capital_has_the_constants_of_confseq_for_its_bets() -> None:
    # betting_mart of confseq with its default bets, null 0.5, half the capital on each side
    x = np.array([1, 0, 1, 1, 0, 1, 1, 1, 1, 0] * 10, dtype=float)
    t = np.arange(1, 101)
    mean = (0.5 + x.cumsum()) / (t + 1)
    spread = (0.25 + ((x - mean) ** 2).cumsum()) / (t + 1)
    bets = np.minimum(np.sqrt(2 * np.log(40) / (t * np.log(t + 1) * np.append(0.25, spread[:-1]))), 1.0)
    up = BettingTest(0.5, alpha=0.05, n_values=100, low=0, bets=lambda betting: bets[betting.n])
    down = BettingTest(-0.5, alpha=0.05, n_values=100, low=-1, high=0, bets=lambda betting: bets[betting.n])
    capital = []
    for value in x:
        up.update(value)
        down.update(-value)
        capital.append(max(np.exp(up.log_capital), np.exp(down.log_capital)) / 2)
    assert [capital[place] for place in (9, 49, 99)] == approx([1.06787109, 19.59123772, 287.33296195])


def test_capital_is_the_product_of_hand_worked_bets() -> None:
    # bets of 0.5 against 0: values 1, -1, 0.5 give 1.5 * 0.5 * 1.25; with weights 1, 0.5, 1: 1.5 * 0.75 * 1.25
    plain = BettingTest(0.0, alpha=0.05, n_values=3, bets=lambda _: 0.5)
    heavy = BettingTest(0.0, alpha=0.05, n_values=3, bets=lambda _: 0.5)
    for value, weight in ((1, 1), (-1, 0.5), (0.5, 1)):
        plain.update(value)
        heavy.update(value, weight)
    assert np.exp(plain.log_capital) == approx(1.5 * 0.5 * 1.25)
    assert np.exp(heavy.log_capital) == approx(1.5 * 0.75 * 1.25)
    assert plain.p_value == approx(1 / 1.5)
    assert heavy.mean == approx((1 - 0.5 + 0.5) / 2.5)


def test_no_value_takes_more_than_nine_tenths_of_the_capital() -> None:
    betting = BettingTest([-0.05, 0.3], alpha=0.05, n_values=4, bets=lambda _: 1e9)
    betting.update(-1.0)
    assert np.exp(betting.log_capital) == approx([0.1, 0.1])


def test_the_first_bets_are_those_of_the_formula() -> None:
    # before the first value: variance 0.04 * 2^2 = 0.16; both bets are sqrt(2 ln 20 / (0.16 * 100)) = 0.6119
    betting = BettingTest(0.0, alpha=0.05, n_values=100)
    betting.update(0.5)
    assert np.exp(betting.log_capital) == approx(1 + 0.5 * np.sqrt(2 * np.log(20) / 16))


def test_bets_do_not_depend_on_the_value_that_is_bet_on() -> None:
    rng = np.random.default_rng(3)
    values = rng.choice([-1.0, 0.0, 0.5], 40)
    gains = []
    for last in (-1.0, 1.0):
        betting = BettingTest(-0.05, alpha=0.05, n_values=41)
        for value in values:
            betting.update(value)
        before = float(betting.log_capital)
        betting.update(last)
        gains.append((np.exp(float(betting.log_capital) - before) - 1) / (last + 0.05))
    assert gains[0] == approx(gains[1])


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0.01, 3)), min_size=1, max_size=30),
    st.integers(1, 40),
    st.sampled_from([1e-4, 0.05, 0.4]),
)
def test_capital_stays_positive_and_bounds_in_range_for_any_values(
    values: list[tuple[float, float]], n_values: int, alpha: float
) -> None:
    bounds = ConfidenceSequence(alpha_low=alpha, alpha_high=alpha, n_values=n_values, max_weight=3.0)
    betting = BettingTest(np.array([-1.0, -0.05, 0.0, 0.9]), alpha=alpha, n_values=n_values, max_weight=3.0)
    for value, weight in values:
        betting.update(value, weight)
        bounds.update(value, weight)
    assert np.isfinite(betting.log_capital).all()
    assert ((betting.p_value > 0) & (betting.p_value <= 1)).all()
    assert -1 <= bounds.low <= 1
    assert -1 <= bounds.high <= 1


def draw(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Floats:
    """Draw differences of a chunk's share among three items: skewed and lumpy, with this mean."""
    win = 0.1
    values = rng.binomial(3, win, shape) - rng.binomial(3, win - mean, shape)
    return np.asarray(values / 3)


@pytest.mark.parametrize("n", [25, 150])
def test_capital_seldom_ever_reaches_one_over_alpha_where_the_null_is_true(n: int) -> None:
    values = draw(np.random.default_rng(n), -0.05, (4000, n))
    betting = BettingTest(np.full(4000, -0.05), alpha=0.05, n_values=n)
    for column in values.T:
        betting.update(column)
    # three standard errors above 5 %
    assert 0 < betting.is_above.mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


def test_unequal_weights_keep_the_error_rate_of_the_ratio() -> None:
    # heavy chunks lose 10 points and light ones gain 10: the mean over items is -0.0667, over chunks 0
    rng = np.random.default_rng(8)
    shape, items = (3000, 120), np.tile([1, 5], 60)
    shift = np.where(items == 5, -0.1, 0.1)
    p = rng.binomial(items, 0.5 + shift, shape) - rng.binomial(items, 0.5, shape)
    weights, null = items / items.mean(), float((items * shift).sum() / items.sum())
    betting = BettingTest(np.full(3000, null), alpha=0.05, n_values=120, max_weight=weights.max())
    for place in range(120):
        betting.update(p[:, place] / items[place], weights[place])
    assert betting.is_above.mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 3000)
    assert betting.mean.mean() == approx(null, abs=0.005)


def test_what_is_true_is_found_with_nearly_the_power_of_one_look() -> None:
    # t test of 200 values with this spread: about 0.67; bets that know no last value find a third
    values = draw(np.random.default_rng(5), 0.0, (2000, 200))
    betting = BettingTest(np.full(2000, -0.05), alpha=0.05, n_values=200)
    for column in values.T:
        betting.update(column)
    t = (values.mean(axis=1) + 0.05) / (values.std(axis=1, ddof=1) / np.sqrt(200))
    assert betting.is_above.mean() > (t > 1.653).mean() - 0.15


# ---------------------------------------------------------------- bounds


def bounds_of(values: Floats, n: int | None = None) -> ConfidenceSequence:
    bounds = ConfidenceSequence(
        alpha_low=0.05, alpha_high=0.05, n_values=n or len(values), thresholds=(-0.05, 0.0)
    )
    for value in values:
        bounds.update(float(value))
    return bounds


def test_bounds_begin_as_the_range_and_never_widen() -> None:
    bounds = ConfidenceSequence(alpha_low=0.05, alpha_high=0.05, n_values=80)
    assert (bounds.low, bounds.high) == (-1, 1)
    ends = []
    for value in draw(np.random.default_rng(2), 0.0, (1, 80))[0]:
        bounds.update(float(value))
        ends.append((bounds.low, bounds.high))
    lows, highs = zip(*ends, strict=True)
    assert list(lows) == sorted(lows)
    assert list(highs) == sorted(highs, reverse=True)
    assert bounds.low < bounds.mean < bounds.high


def test_bounds_are_mirrored_with_the_values() -> None:
    values = draw(np.random.default_rng(4), -0.1, (1, 120))[0]
    bounds, mirrored = bounds_of(values), bounds_of(-values)
    assert (bounds.low, bounds.high, bounds.mean) == approx((-mirrored.high, -mirrored.low, -mirrored.mean))


def test_bounds_of_shares_are_those_of_differences_moved_and_halved() -> None:
    values = draw(np.random.default_rng(6), -0.1, (1, 120))[0]
    shares = ConfidenceSequence(alpha_low=0.05, alpha_high=0.05, n_values=120, low=0.0, high=1.0)
    for value in values:
        shares.update(float((value + 1) / 2))
    assert (shares.low, shares.high) == approx(
        tuple((end + 1) / 2 for end in (bounds_of(values).low, bounds_of(values).high))
    )


def test_capital_against_a_lower_mean_is_never_behind() -> None:
    values = draw(np.random.default_rng(7), -0.05, (1, 150))[0]
    betting = BettingTest(np.linspace(-0.5, 0.5, 101), alpha=0.05, n_values=150)
    for value in values:
        betting.update(value)
        assert (np.diff(betting.is_above.astype(int)) <= 0).all()
    assert betting.is_above.any()


def test_a_bound_tells_the_margin_exactly() -> None:
    # without any difference only the number of chunks counts: 0.9 of the capital on each, (1 + 0.9 / 0.95 * 0.05)^n >= 20
    bounds = ConfidenceSequence(alpha_low=0.05, alpha_high=0.05, n_values=400, thresholds=(-0.05,))
    while not bounds.low > -0.05:
        bounds.update(0.0)
    assert np.log(20) / np.log(1 + 0.9 / 0.95 * 0.05) <= bounds.n < 85


def test_more_values_than_were_announced_are_taken() -> None:
    bounds = bounds_of(np.full(60, 0.5), n=20)
    assert 0.3 < bounds.low < 0.5 < bounds.high < 0.7


def test_values_and_weights_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha"):
        BettingTest(0.0, alpha=1.5, n_values=3)
    with pytest.raises(ValueError, match="n_values"):
        BettingTest(0.0, alpha=0.05, n_values=0)
    with pytest.raises(ValueError, match="below high"):
        BettingTest(0.0, alpha=0.05, n_values=3, low=1.0)
    betting = BettingTest(0.0, alpha=0.05, n_values=3)
    with pytest.raises(ValueError, match="values must be in"):
        betting.update(1.2)
    with pytest.raises(ValueError, match="values must be in"):
        betting.update(float("nan"))
    with pytest.raises(ValueError, match="weights must be in"):
        betting.update(0.2, 2.0)


# ---------------------------------------------------------------- differences at every look


def pairs_of(rates: tuple[float, float], shape: tuple[int, int], seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    return np.asarray((rng.binomial(3, rates[1], shape) - rng.binomial(3, rates[0], shape)) / 3)


def shown(look: SequentialLook) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return look.p_value <= 0.05, look.p_equivalent <= 0.05


def test_looks_narrow_and_swapping_candidates_mirrors_them() -> None:
    d = pairs_of((0.6, 0.8), (1, 200), 1)[0]
    looks = sequential_looks(d, looks=(50, 100, 200), n_values=200, margin=0.05)
    assert [float(look.low) for look in looks] == sorted(float(look.low) for look in looks)
    assert 0 < looks[-1].low < d.mean() < looks[-1].high
    assert float(looks[-1].p_value) <= 0.05 < float(looks[-1].p_equivalent)
    for look, mirrored in zip(
        looks, sequential_looks(-d, looks=(50, 100, 200), n_values=200, margin=0.05), strict=True
    ):
        assert mirrored.low == approx(-look.high)
        assert mirrored.p_value == approx(float(look.p_value))
        assert mirrored.p_equivalent == approx(float(look.p_equivalent))


def test_the_interval_excludes_0_exactly_where_the_test_does() -> None:
    (look,) = sequential_looks(pairs_of((0.6, 0.75), (300, 80), 2), looks=(80,), n_values=80, margin=0.05)
    assert ((look.low > 0) | (look.high < 0)).tolist() == (look.p_value <= 0.05).tolist()
    assert 0.1 < (look.p_value <= 0.05).mean() < 0.9


def test_candidates_that_tie_are_equal_within_the_margin() -> None:
    looks = sequential_looks(np.zeros(400), looks=(40, 400), n_values=1932, margin=0.05)
    assert [bool(look.p_equivalent <= 0.05) for look in looks] == [False, True]
    (apart,) = sequential_looks(np.full(400, 0.2), looks=(400,), n_values=1932, margin=0.05)
    assert apart.p_equivalent == 1


@pytest.mark.slow
def test_both_errors_of_looks_stay_below_5_percent() -> None:
    level = sequential_looks(pairs_of((0.7, 0.7), (300, 120), 3), looks=(120,), n_values=120, margin=0.1)[-1]
    apart = sequential_looks(pairs_of((0.7, 0.8), (300, 120), 4), looks=(120,), n_values=120, margin=0.1)[-1]
    # two standard errors of a rate of 5 % are 2.5 points
    assert shown(level)[0].mean() < 0.075
    assert shown(apart)[1].mean() < 0.075


def test_labels_of_all_chunks_need_no_judge() -> None:
    y = pairs_of((0.4, 0.9), (1, 120), 5)[0]
    judged = (
        corrected_looks(h, y, looks=(120,), n_values=120, margin=0.05)[0]
        for h in (np.zeros(120), np.full(120, -1.0))
    )
    for look in judged:
        assert look.low > 0
        assert look.low < y.mean() < look.high


def test_labels_of_some_chunks_correct_a_judge_that_favours_a_candidate() -> None:
    rng = np.random.default_rng(6)
    y = np.full((1, 600), 0.0)
    h = np.clip(y + rng.binomial(1, 0.4, y.shape), -1, 1)  # 40 points towards the second
    labelled = np.where(rng.random(600) < 0.5, y, np.nan)
    (look,) = corrected_looks(h, labelled, looks=(600,), n_values=600, margin=0.05)
    (naive,) = sequential_looks(h, looks=(600,), n_values=600, margin=0.05)
    assert naive.low > 0.2
    assert look.low[0] <= 0 <= look.high[0]
    assert look.high[0] - look.low[0] < 0.3


@pytest.mark.slow
def test_corrected_errors_stay_below_5_percent_where_the_judge_is_biased() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.binomial(3, 0.7, (2, 300, 100))
    h = (b - rng.binomial(a, 0.8)) / 3
    labelled = np.where(rng.random(100) < 0.5, (b - a) / 3, np.nan)
    looks = corrected_looks(h, labelled, looks=(25, 50, 75, 100), n_values=100, margin=0.1, step=0.1)
    assert shown(looks[-1])[0].mean() < 0.075
    # the judge alone errs often
    assert shown(sequential_looks(h, looks=(100,), n_values=100, margin=0.1)[-1])[0].mean() > 0.2


def test_a_margin_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="margin must be"):
        sequential_looks(np.zeros(3), looks=(3,), n_values=3, margin=1.5)
    with pytest.raises(ValueError, match="margin must be"):
        corrected_looks(np.zeros(3), np.zeros(3), looks=(3,), n_values=3, margin=0.0)
