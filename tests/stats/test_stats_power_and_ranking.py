"""Planning and Bradley-Terry: published sample sizes and strengths."""

import numpy as np
import pytest
from pytest import approx  # noqa: PT013

from qaeval.stats.power import (
    chunks_needed,
    design_effect,
    detectable_difference,
    icc1,
    reached_power,
)
from qaeval.stats.ranking import bradley_terry, bradley_terry_bootstrap

CITATIONS = np.array([[0, 730, 498, 221], [33, 0, 68, 17], [320, 813, 0, 142], [284, 276, 325, 0]])


def test_miller_2024_needs_969_questions() -> None:
    # (1.96 + .8416)^2 (1/9) / .03^2 = 968.997
    assert chunks_needed(1 / 3, 0.03) == 969


@pytest.mark.parametrize(
    ("n", "difference", "margin"),
    [
        (100, 0.098, 0.087),
        (200, 0.069, 0.062),
        (300, 0.057, 0.050),
        (500, 0.044, 0.039),
        (1000, 0.031, 0.028),
    ],
)
def test_detectable_differences_for_a_spread_of_035(n: int, difference: float, margin: float) -> None:
    assert detectable_difference(0.35, n) == approx(difference, abs=5e-4)
    assert detectable_difference(0.35, n, sides=1) == approx(margin, abs=5e-4)


def test_one_stage_cluster_samples_of_epir() -> None:
    # P .46 to a relative .10 at 90 %: n0 = 1.645^2 .54/(.46 .01) = 317.6; deff 15.8 -> 67 clusters of 75
    independent = 1.6448536**2 * 0.54 / (0.46 * 0.01)
    assert independent == approx(317.6, abs=0.05)
    assert design_effect(75, 0.20) == approx(15.8)
    assert np.ceil(independent * design_effect(75, 0.20) / 75) == 67
    # sizes with standard deviation 35: deff 19.07 -> 81
    assert design_effect(75, 0.20, cv=35 / 75) == approx(19.07, abs=5e-3)
    assert np.ceil(independent * design_effect(75, 0.20, cv=35 / 75) / 75) == 81


def test_non_inferiority_sample_of_epir() -> None:
    # .85 against .65, margin .10: (1.645 + .8416)^2 (.1275 + .2275)/.3^2 = 24.4 -> 25 in each arm
    assert chunks_needed(np.sqrt(0.85 * 0.15 + 0.65 * 0.35), 0.20 + 0.10, sides=1) == 25


def test_icc_of_shrout_and_fleiss() -> None:
    # MSB 11.2417, MSW 6.2639: ICC(1) = (11.2417 - 6.2639)/(11.2417 + 3 * 6.2639) = .17
    ratings = [9, 2, 5, 8, 6, 1, 3, 2, 8, 4, 6, 8, 7, 1, 2, 6, 10, 5, 6, 9, 6, 2, 4, 7]
    assert icc1(ratings, np.repeat(np.arange(6), 4)) == approx(0.166, abs=5e-4)


def test_icc_does_not_exist_without_spread_or_repeats() -> None:
    assert np.isnan(icc1([1, 2, 3], [0, 1, 2]))
    assert np.isnan(icc1([1, 2, 3], [0, 0, 0]))
    assert np.isnan(icc1([1, 1, 1, 1], [0, 0, 1, 1]))


def test_more_items_in_a_chunk_help_little() -> None:
    # rho .2, from 3 to 6 items: sqrt((1 + 1)/6 / ((1 + .4)/3)) = .845
    three, six = (design_effect(size, 0.2) / size for size in (3, 6))
    assert np.sqrt(six / three) == approx(0.845, abs=5e-4)


def test_power_inverts_the_number_of_chunks() -> None:
    n = chunks_needed(0.35, 0.05, power=0.9)
    assert reached_power(0.35, n - 1, 0.05) < 0.9 <= reached_power(0.35, n, 0.05)


def test_citations_of_stigler() -> None:
    # reference Biometrika: Comm. Statist. -2.9491, JASA -.4796, JRSS-B .2690
    strengths = bradley_terry(CITATIONS, reference=0)
    assert strengths == approx([0, -2.9491, -0.4796, 0.2690], abs=5e-5)


def test_residual_deviance_of_citations() -> None:
    # G^2 over the six pairs: 4.293
    strengths = bradley_terry(CITATIONS)
    games = CITATIONS + CITATIONS.T
    fitted = games / (1 + np.exp(strengths[None, :] - strengths[:, None]))
    off = ~np.eye(4, dtype=bool)
    assert 2 * (CITATIONS[off] * np.log(CITATIONS[off] / fitted[off])).sum() == approx(4.293, abs=5e-4)


def test_two_candidates_by_hand() -> None:
    # 3 wins to 1: log 3
    assert bradley_terry([[0, 3], [1, 0]], reference=1) == approx([np.log(3), 0])


def test_a_candidate_that_never_lost_has_no_strength() -> None:
    assert np.isnan(bradley_terry([[0, 3], [0, 0]])).all()
    two_leagues = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    assert np.isnan(bradley_terry(two_leagues)).all()


def test_bootstrap_of_strengths_gives_ranks() -> None:
    rng = np.random.default_rng(7)
    wins = np.zeros((60, 3, 3))
    for i, j, p in ((0, 1, 0.7), (0, 2, 0.9), (1, 2, 0.75)):
        won = rng.binomial(2, p, 60)
        wins[:, i, j], wins[:, j, i] = won, 2 - won
    ranking = bradley_terry_bootstrap(wins, rng=rng, n_resamples=400)
    assert [entry.rank for entry in ranking] == [1, 2, 3]
    assert ranking[0].rank_low == 1
    assert all(entry.strength.low < entry.strength.value < entry.strength.high for entry in ranking)


def test_candidates_that_won_as_often_share_a_place() -> None:
    """Everybody plays everybody 33 times, so strengths follow from the wins; rounding must not decide between the second and the fourth."""
    wins = np.array([[0, 25, 17, 24.5], [8, 0, 20, 18.5], [16, 13, 0, 9.5], [8.5, 14.5, 23.5, 0]])
    assert wins.sum(axis=1).tolist() == [66.5, 46.5, 38.5, 46.5]
    ranking = bradley_terry_bootstrap([wins / 33] * 33, rng=np.random.default_rng(1), n_resamples=20)
    assert [place.rank for place in ranking] == [1, 2, 4, 2]


def test_bootstrap_says_why_there_are_no_strengths() -> None:
    never_lost = bradley_terry_bootstrap([[[0, 1], [0, 0]]] * 20, rng=np.random.default_rng(1))
    assert "never lost" in str(never_lost[0].strength.reason)
    assert never_lost[0].rank == 0
    few = bradley_terry_bootstrap([[[0, 1], [1, 0]]] * 5, rng=np.random.default_rng(1))
    assert "fewer than 10" in str(few[0].strength.reason)
    once = np.zeros((20, 2, 2))
    once[:, 0, 1], once[0, 1, 0] = 1, 1
    rare = bradley_terry_bootstrap(once, rng=np.random.default_rng(1), n_resamples=200)
    assert "resamples have no strengths" in str(rare[0].strength.reason)


def test_bad_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="sd must be positive"):
        chunks_needed(0, 0.1)
    with pytest.raises(ValueError, match="difference of 0"):
        chunks_needed(1, 0)
    with pytest.raises(ValueError, match="1 or 2 sides"):
        chunks_needed(1, 1, sides=3)
    with pytest.raises(ValueError, match="alpha and power"):
        chunks_needed(1, 1, power=1)
    with pytest.raises(ValueError, match="at least 2 chunks"):
        detectable_difference(1, 1)
    with pytest.raises(ValueError, match="alpha must be in"):
        reached_power(1, 5, 1, alpha=0)
    with pytest.raises(ValueError, match="icc in"):
        design_effect(3, 2)
    with pytest.raises(ValueError, match="must be square"):
        bradley_terry([[1, 2, 3]])
    with pytest.raises(ValueError, match="finite and not negative"):
        bradley_terry([[0, -1], [1, 0]])
