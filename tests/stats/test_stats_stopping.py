"""Stopping rules of labelling: bets calculated by hand, simulated error rates, and decisions for several candidates."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest import approx  # noqa: PT013

from qaeval.stats.stopping import LabelDecision, PoolBets, decide_by_labels

Floats = NDArray[np.float64]


def decide(judged: Floats, usable: Floats, n: int, **options: object) -> LabelDecision:
    """Decide from the labels of the first n chunks."""
    labelled = np.where(np.arange(usable.shape[1]) < n, usable, np.nan)
    return decide_by_labels(judged, labelled, np.arange(n), **({"margin": 0.05} | options))  # type: ignore[arg-type]


def draw_rates(rng: np.random.Generator, rates: tuple[float, ...], n_chunks: int) -> tuple[Floats, Floats]:
    """Draw usable rates by the judge and by labels, of three items per chunk."""
    usable = np.array([rng.binomial(3, rate, n_chunks) for rate in rates])
    judged = rng.binomial(usable, 0.95) + rng.binomial(3 - usable, 0.2)
    return judged / 3, usable / 3


def test_capital_matches_hand_calculated_bets() -> None:
    # null 0, two chunks of equal weight that the judge rates equal: lead .1 against a variance of .16, the
    # drift of the mean of 2 left is .1, the bet .1 / (.16 + .01); then the first label is +.5, so the mean of the
    # one left is -.5 under the null
    bets = PoolBets(np.zeros(2), np.ones(2), np.zeros(1))
    bets.update(np.asarray(0.5))
    assert bets.log_peak == approx(np.log1p(0.1 / 0.17 * 0.5))
    variance = 2 * 0.16 / 3
    drift = (0.5 + 0.5) / 6 * 2
    bet = min(drift / (variance + drift**2), 0.97 / 0.5)
    log_capital_before = float(bets.log_peak[0])
    bets.update(np.asarray(-0.25))
    assert bets.log_peak == approx([np.inf])  # 0.5 - 0.25 is above 0: ruled out
    assert float(bets._log_capital[0]) - log_capital_before == approx(np.log1p(bet * 0.25))


def test_judge_letters_of_labelled_chunks_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    judged, usable = draw_rates(rng, (0.5, 0.8), 40)
    swapped = judged.copy()
    swapped[:, 20:] = swapped[:, 20:][:, ::-1]
    original, changed = (
        decide(judge_rates, usable, 20).pairs[0].difference for judge_rates in (judged, swapped)
    )
    assert (original.value, original.low, original.high) == approx((changed.value, changed.low, changed.high))


def test_pool_estimate_is_exact_with_all_chunks_labelled() -> None:
    judged, usable = draw_rates(np.random.default_rng(2), (0.7, 0.75), 30)
    sizes = np.tile([1.0, 3.0, 2.0], 10)
    decision = decide(judged, usable, 30, sizes=sizes)
    exact = float(sizes @ (usable[1] - usable[0]) / sizes.sum())
    difference = decision.pairs[0].difference
    assert (difference.value, difference.low, difference.high) == approx((exact, exact, exact))
    assert decision.is_decided
    assert decision.outcome == ("equal" if abs(exact) < 0.05 else "best")


def test_labels_that_decide_without_bets() -> None:
    # 6 selected chunks of 10 show +1: the other four cannot bring the mean to 0
    usable = np.array([np.zeros(10), np.repeat([1.0, 0.0], [6, 4])])
    judged = np.full((2, 10), 0.5)
    assert decide(judged, usable, 5, n_before=5).outcome == "undecided"
    assert decide(judged, usable, 6, n_before=6).leaders == (1,)


def test_earlier_labels_count_without_bets() -> None:
    judged, usable = draw_rates(np.random.default_rng(9), (0.3, 0.9), 80)
    with_bets = decide(judged, usable, 30).pairs[0].difference
    without_bets = decide(judged, usable, 30, n_before=30).pairs[0].difference
    assert without_bets.value == approx(with_bets.value)
    assert without_bets.low < with_bets.low
    # 50 of 80 chunks without a label: the mean can lie anywhere between these
    differences = usable[1, :30] - usable[0, :30]
    assert (without_bets.low, without_bets.high) == approx(
        ((differences.sum() - 50) / 80, (differences.sum() + 50) / 80), abs=0.01
    )


@pytest.mark.parametrize("estimand", ["pool", "future"])
def test_reversing_candidates_mirrors_the_outcome(estimand: str) -> None:
    judged, usable = draw_rates(np.random.default_rng(7), (0.4, 0.9, 0.5), 60)
    decision = decide(judged, usable, 45, estimand=estimand)
    reversed_decision = decide(judged[::-1], usable[::-1], 45, estimand=estimand)
    assert decision.leaders == reversed_decision.leaders == (1,)
    first, last = decision.pairs[0].difference, reversed_decision.pairs[2].difference
    assert (first.low, first.high) == approx((-last.high, -last.low))


def test_tied_candidates_are_equal_and_beat_the_third() -> None:
    rng = np.random.default_rng(12)
    judged, usable = draw_rates(rng, (0.2, 0.9), 200)
    rates = [np.vstack([two_rates[0], two_rates[1], two_rates[1]]) for two_rates in (judged, usable)]
    decision = decide(rates[0], rates[1], 160, margin=0.1)
    assert decision.outcome == "equal"
    assert sorted(decision.leaders) == [1, 2]
    outcomes = {(pair.a, pair.b): pair.outcome for pair in decision.pairs}
    assert outcomes == {(0, 1): "b better", (0, 2): "b better", (1, 2): "equal"}
    assert [(pair.a, pair.b) for pair in decision.pairs] == list(combinations(range(3), 2))


def test_future_estimand_is_decided_only_at_planned_looks() -> None:
    judged, usable = draw_rates(np.random.default_rng(3), (0.3, 0.9), 60)
    before_look, at_look, after_look = (decide(judged, usable, n, estimand="future") for n in (14, 15, 16))
    assert (before_look.outcome, before_look.next_look) == ("undecided", 15)
    assert np.isnan(before_look.pairs[0].difference.value)
    assert (at_look.outcome, at_look.next_look) == ("best", 30)
    assert after_look.pairs == at_look.pairs


def test_fewer_than_ten_chunks_have_no_planned_look() -> None:
    judged, usable = draw_rates(np.random.default_rng(3), (0.1, 0.9), 8)
    early, late = (decide(judged, usable, n, estimand="future") for n in (3, 8))
    assert (early.outcome, early.next_look) == ("undecided", 8)
    assert (late.outcome, late.next_look) == ("undecided", 8)
    assert late.pairs[0].difference.reason == "8 clusters: no interval is given with fewer than 10"


def test_decision_for_the_future_estimand_is_final() -> None:
    # ahead in the first quarter, behind afterwards: decided at the first look
    differences = np.repeat([1.0, -1.0], [15, 45])
    usable = np.array([np.where(differences < 0, 1.0, 0.0), np.where(differences > 0, 1.0, 0.0)])
    judged = np.full((2, 60), 0.5)
    assert decide(judged, usable, 60, estimand="future").leaders == (1,)


def test_earlier_labels_are_not_extrapolated_at_a_planned_look() -> None:
    # ten chunks selected because the second candidate wins them; the candidates tie in the other 50
    differences = np.concatenate([np.ones(10), np.tile([1.0, -1.0], 25)])
    usable = np.array([np.where(differences < 0, 1.0, 0.0), np.where(differences > 0, 1.0, 0.0)])
    judged = np.full((2, 60), 0.5)
    assert decide(judged, usable, 30, estimand="future").leaders == (1,)
    decision = decide(judged, usable, 30, n_before=10, estimand="future")
    assert decision.outcome == "undecided"
    assert decision.pairs[0].difference.value == approx(10 / 60)


def test_pool_bounds_keep_their_error_rate_over_all_looks() -> None:
    # the null is the mean of each pool, the hardest case: unequal chunks, a judge that favours one candidate
    rng = np.random.default_rng(6)
    sizes = rng.integers(1, 7, (2000, 60))
    rates = rng.beta(2, 1, sizes.shape)
    usable = rng.binomial(sizes, rates, (2, *sizes.shape))
    judged = rng.binomial(usable, np.array([0.6, 0.95])[:, None, None]) + rng.binomial(sizes - usable, 0.3)
    judge_differences, differences = (
        (usable_items[1] - usable_items[0]) / sizes for usable_items in (judged, usable)
    )
    weights = sizes / sizes.mean(axis=1, keepdims=True)
    for sign in (1, -1):
        bets = PoolBets(
            sign * judge_differences, weights, sign * (weights * differences).mean(axis=1, keepdims=True)
        )
        for chunk in range(59):
            bets.update(sign * differences[:, chunk])
        # at most three standard errors above 5 %
        assert 0 < (bets.log_peak >= np.log(20)).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.slow
def test_planned_looks_rarely_prefer_one_of_two_equal_candidates() -> None:
    rng = np.random.default_rng(8)
    n_runs, n_wrong = 150, 0
    for _ in range(n_runs):
        rates = rng.beta(2, 1, 60)
        usable = rng.binomial(3, np.array([rates, rates])) / 3
        judged = np.clip(usable + rng.choice([0.0, 1 / 3], usable.shape) * [[0], [1]], 0, 1)
        n = 0
        while not (decision := decide(judged, usable, n, estimand="future")).is_decided and n < 60:
            n = decision.next_look
        n_wrong += decision.outcome == "best"
    assert n_wrong / n_runs < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_runs)


def test_invalid_arguments_are_errors() -> None:
    judged, usable = draw_rates(np.random.default_rng(1), (0.5, 0.5), 20)
    with pytest.raises(ValueError, match="order must name"):
        decide_by_labels(judged, usable, [0, 1], margin=0.05)
    with pytest.raises(ValueError, match="n_before"):
        decide(judged, usable, 12, n_before=13)
    with pytest.raises(ValueError, match="at least 2 candidates"):
        decide(judged[:1], usable[:1], 5)
    with pytest.raises(ValueError, match="rates must be"):
        decide(judged + 1, usable, 5)
    with pytest.raises(ValueError, match="margin and alpha"):
        decide(judged, usable, 5, margin=0.0)
    with pytest.raises(ValueError, match="sizes must hold"):
        decide(judged, usable, 5, sizes=np.zeros(20))
