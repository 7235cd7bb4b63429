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
KEPT = always_on(price_per_hour=1.0, run_s=HOUR, currency="USD")  # 24 a day, 24 runs fit
ZERO = scale_to_zero(
    price_per_run=1.5, run_s=1.5 * HOUR, currency="USD"
)  # an hour of work, half an hour of start


def test_always_on_meets_scale_to_zero_where_the_machine_would_never_sleep() -> None:
    found = break_even(KEPT, ZERO)
    assert found.runs_per_day == approx(16)  # 24 / 1.5
    assert (found.below, found.above) == ("scale to zero", "always on")
    assert found.reason is None


def test_the_order_of_the_two_does_not_matter() -> None:
    one, other = break_even(KEPT, ZERO), break_even(ZERO, KEPT)
    assert (one.runs_per_day, one.below, one.above) == (other.runs_per_day, other.below, other.above)


def test_always_on_meets_hosted_where_a_day_costs_the_same() -> None:
    found = break_even(KEPT, hosted_option("api", price_per_run=2.0, currency="USD"))
    assert found.runs_per_day == approx(12)
    assert (found.below, found.above) == ("api", "always on")


def test_no_break_even_at_more_runs_than_fit_into_a_day() -> None:
    found = break_even(KEPT, hosted_option("api", price_per_run=0.5, currency="USD"))  # 48 runs, 24 fit
    assert found.runs_per_day is None
    assert (found.below, found.above) == ("api", "api")
    assert {"48.0", "24.0"} <= set((found.reason or "").split())


def test_no_break_even_beyond_the_capacity_of_the_cheaper_option() -> None:
    # two machines that are not up all through a run: 24 a day against 1.2 a run meet at 20 runs, 12 fit
    found = break_even(KEPT, scale_to_zero(price_per_run=1.2, run_s=2 * HOUR, currency="USD"))
    assert (found.runs_per_day, found.below) == (None, "scale to zero")
    assert "12.0" in (found.reason or "")


def test_two_options_paid_by_the_run_never_break_even() -> None:
    found = break_even(ZERO, hosted_option("api", price_per_run=2.0, currency="USD"))
    assert found.reason
    assert (found.runs_per_day, found.below, found.above) == (None, "scale to zero", "scale to zero")


def test_equal_options_have_no_cheaper_one() -> None:
    found = break_even(ZERO, hosted_option("api", price_per_run=1.5, currency="USD"))
    assert (found.runs_per_day, found.below, found.above) == (None, None, None)


def test_currencies_are_not_compared() -> None:
    found = break_even(KEPT, hosted_option("api", price_per_run=2.0, currency="EUR"))
    assert (found.runs_per_day, found.below) == (None, None)
    assert "USD and EUR" in (found.reason or "")


def test_an_unknown_cost_hands_on_its_reason() -> None:
    found = break_even(KEPT, unknown_option("api", "no tokens were counted"))
    assert (found.runs_per_day, found.below, found.reason) == (None, None, "no tokens were counted")


def test_every_pair_of_options_is_compared() -> None:
    pairs = break_evens([KEPT, ZERO, hosted_option("api", price_per_run=2.0, currency="USD")])
    assert [(one.a, one.b) for one in pairs] == [
        ("always on", "scale to zero"),
        ("always on", "api"),
        ("scale to zero", "api"),
    ]


@pytest.mark.parametrize("runs", [1.0, 15.9, 16.1, 23.0])
def test_the_cheaper_way_is_cheaper_on_its_side(runs: float) -> None:
    found = break_even(KEPT, ZERO)
    prices = {one.name: (one.per_day or 0) + (one.per_run or 0) * runs for one in (KEPT, ZERO)}
    assert found.runs_per_day is not None
    assert min(prices, key=prices.__getitem__) == (found.below if runs < found.runs_per_day else found.above)


def test_work_at_a_steady_speed_is_worked_by_hand() -> None:
    # 7,200 items at 2 per second: an hour
    found = steady_work(7200, per_s=2.0, price_per_hour=1.8)
    assert (found.seconds, found.hours, found.price) == (approx(3600), approx(1), approx(1.8))
    assert found.price_per_1000 == approx(0.25)


@pytest.mark.parametrize(("n", "per_s", "price"), [(0, 1.0, 1.0), (1, 0.0, 1.0), (1, 1.0, -1.0)])
def test_numbers_that_are_not_positive_are_refused(n: int, per_s: float, price: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        steady_work(n, per_s=per_s, price_per_hour=price)
