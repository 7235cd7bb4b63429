"""Planning: the law of a loss by hand, the exact test's power by hand, and the closed formula where it holds."""

import numpy as np
import pytest
import scipy
from pytest import approx  # noqa: PT013

from qaeval.stats.paired import sign_flip_test
from qaeval.stats.planning import Pilot, _tails, plan, simulated_power
from qaeval.stats.power import reached_power

PERFECT = Pilot.of(np.ones(12), np.ones(12), 1)


def pilot_of(rate_a: float, rate_b: float, n_chunks: int = 4000, size: int = 3) -> Pilot:
    rng = np.random.default_rng(3)
    return Pilot.of(rng.binomial(size, rate_a, n_chunks), rng.binomial(size, rate_b, n_chunks), size)


def test_a_loss_from_full_chunks_is_binomial() -> None:
    # both have 3 of 3; a fifth is lost at random: 0, 1, 2, 3 lost with .512, .384, .096, .008
    values, shares = Pilot.of([3, 3], [3, 3], 3).law(0.2)
    assert values == approx(np.arange(-3, 4) / 3)
    assert shares == approx([0.008, 0.096, 0.384, 0.512, 0, 0, 0])


@pytest.mark.parametrize("difference", [0.0, 0.02, 0.3, 0.6])
def test_the_law_has_the_difference_asked_for(difference: float) -> None:
    # the pilot's rates are about 0.2 apart: once the better candidate loses, once the worse
    values, shares = pilot_of(0.8, 0.6).law(difference)
    assert shares.sum() == approx(1)
    assert values @ shares == approx(-difference)


def test_swapped_candidates_have_the_same_law() -> None:
    pilot = pilot_of(0.8, 0.6)
    swapped = Pilot(pilot.usable_b, pilot.usable_a, pilot.size)
    assert swapped.law(0.1)[1] == approx(pilot.law(0.1)[1])


@pytest.mark.parametrize("differences", [[1, 1, -1], [3, -2, 1, 0, 1], [2] * 7, [1, -1] * 5 + [3], [0, 0]])
def test_the_tails_are_those_of_the_sign_flip_test(differences: list[int]) -> None:
    sizes = tuple(sum(abs(d) == step for d in differences) for step in (1, 2, 3))
    expected = sign_flip_test(np.array(differences) / 3)
    assert _tails(sizes)[abs(sum(differences))] == approx(expected)


def test_six_losses_and_no_win_are_needed_at_five_per_cent() -> None:
    # 2/2^6 = .031 and 2/2^5 = .063, so the power is P(Bin(20, .3) >= 6) = .584
    assert simulated_power(PERFECT, 20, 0.3) == approx(scipy.stats.binom.sf(5, 20, 0.3), abs=0.025)
    assert simulated_power(PERFECT, 5, 1.0) == 0
    assert simulated_power(PERFECT, 6, 1.0) == 1


def test_many_chunks_reach_what_the_formula_says() -> None:
    pilot = pilot_of(0.8, 0.75)
    values, shares = pilot.law(0.05)
    sd = np.sqrt(values**2 @ shares - (values @ shares) ** 2)
    assert simulated_power(pilot, 700, 0.05) == approx(reached_power(sd, 700, 0.05), abs=0.025)


def test_few_chunks_reach_less_than_the_formula_says() -> None:
    pilot = pilot_of(0.93, 0.93)
    values, shares = pilot.law(0.15)
    sd = np.sqrt(values**2 @ shares - (values @ shares) ** 2)
    assert simulated_power(pilot, 20, 0.15) < reached_power(sd, 20, 0.15) - 0.05


def test_no_difference_is_found_as_often_as_alpha_allows() -> None:
    assert simulated_power(pilot_of(0.8, 0.8), 60, 0.0) <= 0.06


@pytest.mark.slow
def test_the_plan_keeps_its_promises() -> None:
    pilot = pilot_of(0.8, 0.75, n_chunks=200)
    result = plan(pilot, 0.05)
    assert result.n_chunks == 200
    assert simulated_power(pilot, 200, result.detectable) >= 0.8
    assert simulated_power(pilot, 200, 0.97 * result.detectable) < 0.8
    assert result.needed is not None
    assert simulated_power(pilot, result.needed, 0.05) >= 0.8
    assert simulated_power(pilot, round(0.95 * result.needed), 0.05) < 0.8
    assert result.power == simulated_power(pilot, 200, 0.05)
    assert result == plan(pilot, 0.05), "the same run has the same plan"


@pytest.mark.slow
def test_more_power_needs_more_chunks() -> None:
    pilot = pilot_of(0.8, 0.75, n_chunks=200)
    at_80, at_90 = (plan(pilot, 0.05, power=power) for power in (0.8, 0.9))
    assert (at_80.needed or 0) < (at_90.needed or 0)
    assert at_80.detectable < at_90.detectable


def test_fewer_chunks_than_a_verdict_takes_show_nothing() -> None:
    # six chunks that are all lost have p = .031, but fewer than 10 give no verdict; of ten, six lost ones do
    six, ten = (plan(PERFECT, 1.0, n_chunks=n) for n in (6, 10))
    assert (six.power, six.needed, ten.power) == (0.0, 10, 1.0)
    assert np.isnan(six.detectable)


@pytest.mark.parametrize(
    ("usable_a", "usable_b", "size"),
    [([1], [1], 1), ([1, 1], [1], 1), ([1, 2], [1, 1], 1), ([-1, 0], [0, 0], 3), ([0.5, 1], [1, 1], 1)],
)
def test_impossible_counts_are_refused(usable_a: list[float], usable_b: list[float], size: int) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Pilot.of(usable_a, usable_b, size)


@pytest.mark.parametrize(
    ("difference", "options"),
    [(0.0, {}), (-0.1, {}), (1.1, {}), (0.1, {"alpha": 0.0}), (0.1, {"power": 1.0}), (0.1, {"n_chunks": 1})],
)
def test_plans_out_of_range_are_refused(difference: float, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        plan(PERFECT, difference, **options)  # type: ignore[arg-type]
