"""Hosting options and their break-even, computed by hand."""

import pytest

from qaeval.cost.alternatives import (
    always_on,
    break_even,
    break_evens,
    hosted_option,
    scale_to_zero,
    steady_work,
    unknown_option,
)

approx = pytest.approx

HOUR = 3600.0
ALWAYS_ON = always_on(price_per_hour=1.0, run_s=HOUR, currency="USD")  # 24 a day, 24 runs fit
SCALE_TO_ZERO = scale_to_zero(
    price_per_run=1.5, run_s=1.5 * HOUR, currency="USD"
)  # an hour of work, half an hour of start


def test_always_on_and_scale_to_zero_break_even_at_full_use() -> None:
    result = break_even(ALWAYS_ON, SCALE_TO_ZERO)
    assert result.runs_per_day == approx(16)  # 24 / 1.5
    assert (result.below, result.above) == ("scale to zero", "always on")
    assert result.reason is None


def test_break_even_is_symmetric() -> None:
    result, swapped = break_even(ALWAYS_ON, SCALE_TO_ZERO), break_even(SCALE_TO_ZERO, ALWAYS_ON)
    assert (result.runs_per_day, result.below, result.above) == (
        swapped.runs_per_day,
        swapped.below,
        swapped.above,
    )


def test_always_on_and_hosted_break_even_at_equal_daily_cost() -> None:
    result = break_even(ALWAYS_ON, hosted_option("api", price_per_run=2.0, currency="USD"))
    assert result.runs_per_day == approx(12)
    assert (result.below, result.above) == ("api", "always on")


def test_no_break_even_at_more_runs_than_fit_into_a_day() -> None:
    result = break_even(ALWAYS_ON, hosted_option("api", price_per_run=0.5, currency="USD"))  # 48 runs, 24 fit
    assert result.runs_per_day is None
    assert (result.below, result.above) == ("api", "api")
    assert {"48.0", "24.0"} <= set((result.reason or "").split())


def test_no_break_even_beyond_the_capacity_of_the_cheaper_option() -> None:
    # two machines that are not up all through a run: 24 a day against 1.2 a run meet at 20 runs, 12 fit
    result = break_even(ALWAYS_ON, scale_to_zero(price_per_run=1.2, run_s=2 * HOUR, currency="USD"))
    assert (result.runs_per_day, result.below) == (None, "scale to zero")
    assert "12.0" in (result.reason or "")


def test_two_options_paid_by_the_run_never_break_even() -> None:
    result = break_even(SCALE_TO_ZERO, hosted_option("api", price_per_run=2.0, currency="USD"))
    assert result.reason
    assert (result.runs_per_day, result.below, result.above) == (None, "scale to zero", "scale to zero")


def test_equal_options_have_no_cheaper_option() -> None:
    result = break_even(SCALE_TO_ZERO, hosted_option("api", price_per_run=1.5, currency="USD"))
    assert (result.runs_per_day, result.below, result.above) == (None, None, None)


def test_different_currencies_are_not_compared() -> None:
    result = break_even(ALWAYS_ON, hosted_option("api", price_per_run=2.0, currency="EUR"))
    assert (result.runs_per_day, result.below) == (None, None)
    assert "USD and EUR" in (result.reason or "")


def test_unknown_cost_propagates_its_reason() -> None:
    result = break_even(ALWAYS_ON, unknown_option("api", "no tokens were counted"))
    assert (result.runs_per_day, result.below, result.reason) == (None, None, "no tokens were counted")


def test_every_pair_of_options_is_compared() -> None:
    pairs = break_evens([ALWAYS_ON, SCALE_TO_ZERO, hosted_option("api", price_per_run=2.0, currency="USD")])
    assert [(pair.a, pair.b) for pair in pairs] == [
        ("always on", "scale to zero"),
        ("always on", "api"),
        ("scale to zero", "api"),
    ]


@pytest.mark.parametrize("runs", [1.0, 15.9, 16.1, 23.0])
def test_cheaper_option_has_the_lower_daily_cost(runs: float) -> None:
    result = break_even(ALWAYS_ON, SCALE_TO_ZERO)
    prices = {
        option.name: (option.per_day or 0) + (option.per_run or 0) * runs
        for option in (ALWAYS_ON, SCALE_TO_ZERO)
    }
    assert result.runs_per_day is not None
    assert min(prices, key=prices.__getitem__) == (
        result.below if runs < result.runs_per_day else result.above
    )


def test_steady_work_matches_hand_calculation() -> None:
    # 7,200 items at 2 per second: an hour
    result = steady_work(7200, per_s=2.0, price_per_hour=1.8)
    assert (result.seconds, result.hours, result.price) == (approx(3600), approx(1), approx(1.8))
    assert result.price_per_1000 == approx(0.25)


@pytest.mark.parametrize(("n", "per_s", "price"), [(0, 1.0, 1.0), (1, 0.0, 1.0), (1, 1.0, -1.0)])
def test_numbers_that_are_not_positive_are_refused(n: int, per_s: float, price: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        steady_work(n, per_s=per_s, price_per_hour=price)
