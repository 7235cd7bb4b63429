"""Estimates from labels of some chunks and the judge's letters for all."""

from math import isnan, nan

import numpy as np
import pytest

from qaeval.stats import corrected_difference, differential_error, paired_difference, sign_flip_test

Array = np.ndarray


def arena() -> tuple[Array, Array]:
    """Judge and labels of 276 battles, 28 of them labelled (STATS.md D-3): debiasLLMReporting's vignette."""
    labelled = np.r_[np.ones(4), np.zeros(24), np.full(248, nan)]
    judged = np.r_[1, 0, 0, 0, 1, 1, 1, np.zeros(21), np.ones(40), np.zeros(208)]
    return judged, labelled


def drawn_run(
    n: int, n_labelled: int, *, noise: float = 0.2, shift: float = 0.0, seed: int = 0
) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    true = rng.integers(-3, 4, n) / 3
    judged = np.clip(true + shift + np.round(noise * rng.standard_normal(n) * 3) / 3, -1, 1)
    return judged, np.where(rng.permutation(n) < n_labelled, true, nan)


def test_the_corrected_value_and_lambda_are_those_of_the_published_example() -> None:
    corrected = corrected_difference(*arena())
    assert corrected.corrected.value == pytest.approx(0.145, abs=5e-4)
    assert corrected.tuning == pytest.approx(0.11153, abs=5e-6)


def test_a_judge_that_does_not_help_leaves_the_labels_alone() -> None:
    judged, labelled = arena()
    corrected = corrected_difference(judged, labelled)
    known = labelled[~np.isnan(labelled)]
    alone = paired_difference(np.zeros(28), known)
    assert corrected.basis == "labels alone"
    assert corrected.width_ratio >= 0.95
    assert (corrected.estimate.value, corrected.estimate.low, corrected.estimate.high) == (
        alone.value,
        alone.low,
        alone.high,
    )
    assert corrected.p_value == corrected.p_labels == sign_flip_test(known)


def test_with_all_chunks_labelled_the_labels_speak_alone() -> None:
    judged, _ = drawn_run(40, 40)
    labelled = np.random.default_rng(1).integers(-3, 4, 40) / 3
    alone = paired_difference(np.zeros(40), labelled)
    corrected = corrected_difference(judged, labelled, inclusion=np.linspace(0.1, 1, 40))
    assert corrected.basis == "all labelled"
    assert (corrected.estimate.value, corrected.estimate.low, corrected.estimate.high) == pytest.approx(
        (alone.value, alone.low, alone.high)
    )
    assert corrected.p_value == sign_flip_test(labelled)


def test_chunks_count_by_their_items() -> None:
    judged, labelled = drawn_run(40, 40)
    sizes = np.arange(40) % 4 + 1
    corrected = corrected_difference(judged, labelled, sizes=sizes)
    assert corrected.estimate.value == pytest.approx((sizes * labelled).sum() / sizes.sum())


def test_a_judge_that_is_right_but_for_a_constant_is_worth_many_labels() -> None:
    judged, labelled = drawn_run(200, 40, shift=0.0)
    favouring = np.clip(judged + 0.3, -1.3, 1) * 0.7
    corrected = corrected_difference(favouring, labelled)
    assert corrected.basis == "corrected"
    assert corrected.width_ratio < 0.65
    assert corrected.correlation > 0.9
    assert corrected.estimate.low < corrected.estimate.value < corrected.estimate.high


def test_swapping_the_candidates_turns_the_difference_round() -> None:
    judged, labelled = drawn_run(120, 30, shift=1 / 3)
    forward, back = corrected_difference(judged, labelled), corrected_difference(-judged, -labelled)
    assert forward.basis == back.basis == "corrected"
    assert (forward.estimate.low, forward.estimate.high) == pytest.approx(
        (-back.estimate.high, -back.estimate.low)
    )
    assert forward.p_value == pytest.approx(back.p_value)


def test_the_p_value_agrees_with_the_interval() -> None:
    sides = set()
    for seed in range(40):
        corrected = corrected_difference(*drawn_run(120, 30, shift=1 / 3, seed=seed))
        outside = corrected.estimate.low > 0 or corrected.estimate.high < 0
        if corrected.basis == "corrected":
            assert (corrected.p_value < 0.05) == outside
            sides.add(outside)
    assert sides == {True, False}


def test_labels_that_are_all_equal_prove_no_error_of_zero() -> None:
    labelled = np.where(np.arange(100) < 20, 0.0, nan)
    judged = np.tile([0.0, 1 / 3], 50)
    for h in (judged, np.zeros(100), np.nan_to_num(labelled)):
        estimate = corrected_difference(h, labelled).estimate
        assert estimate.value == 0
        assert estimate.low < -0.1
        assert estimate.high > 0.1


def test_a_judge_without_an_error_on_the_labelled_chunks_is_not_taken_to_be_perfect() -> None:
    judged, _ = drawn_run(500, 0)
    labelled = np.where(np.arange(500) < 20, judged, nan)
    corrected = corrected_difference(judged, labelled)
    naive = paired_difference(np.zeros(500), judged)
    assert corrected.basis == "corrected"
    assert corrected.estimate.high - corrected.estimate.low > 2 * (naive.high - naive.low)


def test_fewer_than_10_labelled_chunks_give_the_labels_value_without_interval() -> None:
    judged, labelled = drawn_run(60, 9)
    corrected = corrected_difference(judged, labelled)
    assert corrected.basis == "labels alone"
    assert corrected.estimate.value == pytest.approx(np.nanmean(labelled))
    assert not corrected.estimate.has_interval
    assert isnan(corrected.p_value)
    assert corrected.p_labels == sign_flip_test(labelled[~np.isnan(labelled)])


def test_intervals_stay_within_what_a_difference_can_be() -> None:
    judged, labelled = np.ones(60), np.where(np.arange(60) < 12, 1.0, nan)
    judged[::3] = 0
    estimate = corrected_difference(judged, labelled).estimate
    assert estimate.value == estimate.high == 1
    assert estimate.low < 0.8


def test_chunks_drawn_with_unequal_probabilities_are_weighted() -> None:
    judged = np.r_[np.zeros(80), np.ones(20)]
    truth = np.r_[np.zeros(80), np.tile([1.0, 0.0], 10)]
    drawn = np.r_[np.arange(80) < 20, np.ones(20, bool)]
    labelled = np.where(drawn, truth, nan)
    corrected = corrected_difference(judged, labelled, inclusion=np.where(judged == 1, 1.0, 0.25))
    assert corrected.labels.value == pytest.approx(0.1)
    assert corrected_difference(judged, labelled).labels.value == pytest.approx(0.25)
    assert isnan(corrected.p_labels)


def test_differential_error_finds_the_candidate_that_the_judge_favours() -> None:
    judged, labelled = drawn_run(100, 20, noise=0)
    favouring = np.clip(judged + 1 / 3, -1, 1)
    error = differential_error(favouring, labelled)
    chosen = ~np.isnan(labelled)
    assert error.estimate.value == pytest.approx((favouring - labelled)[chosen].mean())
    assert error.estimate.low > 0
    assert error.p_value == sign_flip_test((favouring - labelled)[chosen]) < 0.01


def test_an_evenly_lenient_judge_has_no_differential_error() -> None:
    judged, labelled = drawn_run(100, 20, noise=0)
    error = differential_error(judged, labelled)
    assert (error.estimate.value, error.p_value) == (0, 1)
    assert error.estimate.low < 0 < error.estimate.high


@pytest.mark.parametrize(
    ("judged", "labelled", "options", "message"),
    [
        ([0.0, 0.5], [nan, nan], {}, "no chunk is labelled"),
        ([0.0, 0.5], [0.0, 1.5], {}, "between -1 and 1"),
        ([0.0, nan], [0.0, nan], {}, "judged must be finite"),
        ([0.0, 0.5], [0.0], {}, "lengths differ"),
        ([0.0, 0.5], [0.0, nan], {"sizes": [1, 0]}, "sizes must be above 0"),
        ([0.0, 0.5], [0.0, nan], {"inclusion": [0, 1]}, "inclusion must hold the probability"),
        ([0.0, 0.5], [0.0, nan], {"level": 2}, "level must be"),
    ],
)
def test_arguments_out_of_range_are_errors(
    judged: list[float], labelled: list[float], options: dict[str, object], message: str
) -> None:
    for function in (corrected_difference, differential_error):
        with pytest.raises(ValueError, match=message):
            function(judged, labelled, **options)  # type: ignore[arg-type]
