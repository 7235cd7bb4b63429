"""Which items and chunks to label next, and how many decide."""

import numpy as np
import pytest

from qaeval.stats import (
    corrected_difference,
    draw_chunks,
    expected_width,
    inclusion_probabilities,
    labelled_chunks_needed,
    neyman_allocation,
    smoothed_spread,
)

SHARES = np.array([0.6, 0.3, 0.1])
SPREADS = np.sqrt(np.array([0.95 * 0.05, 0.25, 0.09]))


def variance(shares: np.ndarray, n: np.ndarray) -> float:
    return float((shares**2 * SPREADS**2 / n).sum())


def test_neymans_allocation_has_the_printed_variance() -> None:
    n = neyman_allocation(1000 * SHARES, SPREADS, 100)
    assert n.sum() == 100
    assert variance(SHARES, n) == pytest.approx(9.66e-4, abs=5e-7)
    assert variance(SHARES, 100 * SHARES) == pytest.approx(11.25e-4, abs=5e-7)


def test_the_allocation_of_lees_calibration_set_is_the_authors() -> None:
    pilot = np.sqrt([1 - (7 + 1) / 12, 1 - (9 + 1) / 12])
    assert neyman_allocation([6e4, 4e4], pilot, 200).tolist() == [136, 64]


def test_every_stratum_reaches_its_floor_first() -> None:
    assert neyman_allocation([900, 90, 10], [0.5, 0.1, 0.0], 15).tolist() == [5, 5, 5]
    assert neyman_allocation([900, 90, 3], [0.5, 0.1, 0.0], 20).tolist() == [12, 5, 3]


def test_labels_that_exist_count() -> None:
    n = neyman_allocation(1000 * SHARES, SPREADS, 40, labelled=[50, 5, 5])
    assert n.tolist() == [0, 37, 3]
    assert neyman_allocation([20, 5], [0.5, 0.5], 100, labelled=[18, 5]).tolist() == [2, 0]


def test_a_spread_from_no_labels_is_that_of_half_and_half() -> None:
    assert smoothed_spread([0, 8, 0], [0, 8, 8]) == pytest.approx([0.5, 0.3, 0.3])


def test_inclusion_probabilities_add_up_and_stop_at_1() -> None:
    p = inclusion_probabilities([0.1, 0.1, 0.1, 0.1, 5.0], 3)
    assert p.sum() == pytest.approx(3)
    assert p[-1] == 1
    assert (p[:-1] == 0.5).all()
    assert inclusion_probabilities(np.zeros(8), 2) == pytest.approx([0.25] * 8)
    assert inclusion_probabilities(np.ones(8), 8) == pytest.approx([1.0] * 8)


def test_chunks_are_drawn_with_their_probabilities_and_in_fixed_number() -> None:
    rng = np.random.default_rng(0)
    p = inclusion_probabilities(rng.random(30), 7)
    drawn = np.array([draw_chunks(p, rng) for _ in range(4000)])
    assert set(drawn.sum(axis=1)) == {7}
    assert drawn.mean(axis=0) == pytest.approx(p, abs=0.04)


def test_each_block_gets_the_number_that_its_probabilities_add_up_to() -> None:
    blocks = np.array([0, 1, 2] * 20)
    p = np.array([0.5, 0.1, 0.25])[blocks]
    for seed in range(50):
        drawn = draw_chunks(p, np.random.default_rng(seed), blocks=blocks)
        counts = np.bincount(blocks[drawn], minlength=3)
        assert (counts == [10, 2, 5]).all()


def test_more_correlation_needs_fewer_labelled_chunks() -> None:
    needed = [
        labelled_chunks_needed(0.1, sd=0.4, correlation=rho, n_chunks=600) for rho in (-0.5, 0, 0.5, 0.7, 0.9)
    ]
    assert needed == sorted(needed, reverse=True)  # type: ignore[type-var]
    assert needed[0] == needed[1] == 128
    assert labelled_chunks_needed(0.1, sd=0.4, correlation=0.5, n_chunks=100) is None


@pytest.mark.slow
def test_so_many_labelled_chunks_decide_as_often_as_promised() -> None:
    rng = np.random.default_rng(1)
    n = labelled_chunks_needed(0.15, sd=0.4, correlation=0.8, n_chunks=200)
    assert n is not None
    decided = 0
    for _ in range(300):
        d = np.clip(np.round(10 * (0.15 + 0.4 * rng.standard_normal(200))) / 10, -1, 1)
        h = np.clip(d + 0.3 + 0.3 * rng.standard_normal(200), -1, 1)
        labelled = np.where(np.arange(200) < n, d, np.nan)
        decided += corrected_difference(h, labelled).p_value <= 0.05
    assert 0.7 < decided / 300 < 0.9


def test_the_expected_width_is_that_which_more_labels_give() -> None:
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(60):
        d = np.round(10 * np.clip(0.1 + 0.35 * rng.standard_normal(200), -1, 1)) / 10
        h = np.clip(d + 0.2 * rng.standard_normal(200), -1, 1)
        now, then = (np.where(np.arange(200) < n, d, np.nan) for n in (30, 80))
        width = expected_width(h, now, 50)
        assert (width.n_now, width.n_then) == (30, 80)
        reached = corrected_difference(h, then).estimate
        ratios.append(width.then / (reached.high - reached.low))
        assert width.then < width.now
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)


def test_without_an_interval_the_expected_width_comes_from_the_labels() -> None:
    d = np.where(np.arange(40) < 4, [0.0, 1 / 3, -1 / 3, 0.0] * 10, np.nan)
    width = expected_width(np.zeros(40), d, 16)
    assert np.isnan(width.now)
    # the variance of the four labels is 2/27, the quantile of t on 19 degrees of freedom 2.0930
    assert width.then == pytest.approx(2 * 2.0930 * 0.27217 / 20**0.5, rel=1e-3)
    assert np.isnan(expected_width(np.zeros(40), d, 3).then)


def test_arguments_out_of_range_are_errors() -> None:
    with pytest.raises(ValueError, match="more must be"):
        expected_width([0.1], [0.1], -1)
    with pytest.raises(ValueError, match="must not be negative"):
        neyman_allocation([5, 5], [0.1, 0.1], 3, labelled=[6, 0])
    with pytest.raises(ValueError, match="0 <= hits <= labelled"):
        smoothed_spread([2], [1])
    with pytest.raises(ValueError, match="uniform in"):
        inclusion_probabilities([0.1, 0.2], 3)
    with pytest.raises(ValueError, match="probabilities must be in"):
        draw_chunks([1.2], np.random.default_rng(0))
    with pytest.raises(ValueError, match="a difference other than 0"):
        labelled_chunks_needed(0, sd=0.4, correlation=0.5, n_chunks=100)
    with pytest.raises(ValueError, match="alpha and power"):
        labelled_chunks_needed(0.1, sd=0.4, correlation=0.5, n_chunks=100, alpha=0)
