"""Estimates from labels of some chunks and the judge's letters of all chunks."""

from math import isnan, nan

import numpy as np
import pytest

from qaeval.stats import (
    Estimate,
    clustered_rate,
    corrected_difference,
    corrected_rate,
    differential_error,
    paired_difference,
    sign_flip_test,
)

Array = np.ndarray


def arena_example() -> tuple[Array, Array]:
    """Judge and labels of 276 battles, 28 of them labelled (STATS.md D-3): debiasLLMReporting's vignette."""
    labelled = np.r_[np.ones(4), np.zeros(24), np.full(248, nan)]
    judged = np.r_[1, 0, 0, 0, 1, 1, 1, np.zeros(21), np.ones(40), np.zeros(208)]
    return judged, labelled


def simulate_run(
    n: int, n_labelled: int, *, noise: float = 0.2, shift: float = 0.0, seed: int = 0
) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    true = rng.integers(-3, 4, n) / 3
    judged = np.clip(true + shift + np.round(noise * rng.standard_normal(n) * 3) / 3, -1, 1)
    return judged, np.where(rng.permutation(n) < n_labelled, true, nan)


def test_corrected_value_and_lambda_match_the_published_example() -> None:
    corrected = corrected_difference(*arena_example())
    assert corrected.corrected.value == pytest.approx(0.145, abs=5e-4)
    assert corrected.tuning == pytest.approx(0.11153, abs=5e-6)


def test_an_uninformative_judge_leaves_the_estimate_to_the_labels() -> None:
    judged, labelled = arena_example()
    corrected = corrected_difference(judged, labelled)
    known_labels = labelled[~np.isnan(labelled)]
    labels_only = paired_difference(np.zeros(28), known_labels)
    assert corrected.basis == "labels alone"
    assert corrected.width_ratio >= 0.95
    assert (corrected.estimate.value, corrected.estimate.low, corrected.estimate.high) == (
        labels_only.value,
        labels_only.low,
        labels_only.high,
    )
    assert corrected.p_value == corrected.p_labels == sign_flip_test(known_labels)


def test_with_all_chunks_labelled_the_estimate_uses_only_labels() -> None:
    judged, _ = simulate_run(40, 40)
    labelled = np.random.default_rng(1).integers(-3, 4, 40) / 3
    labels_only = paired_difference(np.zeros(40), labelled)
    corrected = corrected_difference(judged, labelled, inclusion=np.linspace(0.1, 1, 40))
    assert corrected.basis == "all labelled"
    assert (corrected.estimate.value, corrected.estimate.low, corrected.estimate.high) == pytest.approx(
        (labels_only.value, labels_only.low, labels_only.high)
    )
    assert corrected.p_value == sign_flip_test(labelled)


def test_chunks_are_weighted_by_their_items() -> None:
    judged, labelled = simulate_run(40, 40)
    sizes = np.arange(40) % 4 + 1
    corrected = corrected_difference(judged, labelled, sizes=sizes)
    assert corrected.estimate.value == pytest.approx((sizes * labelled).sum() / sizes.sum())


def test_a_judge_with_a_constant_bias_narrows_the_interval() -> None:
    judged, labelled = simulate_run(200, 40, shift=0.0)
    biased = np.clip(judged + 0.3, -1.3, 1) * 0.7
    corrected = corrected_difference(biased, labelled)
    assert corrected.basis == "corrected"
    assert corrected.width_ratio < 0.65
    assert corrected.correlation > 0.9
    assert corrected.estimate.low < corrected.estimate.value < corrected.estimate.high


def test_swapping_the_candidates_negates_the_difference() -> None:
    judged, labelled = simulate_run(120, 30, shift=1 / 3)
    forward, backward = corrected_difference(judged, labelled), corrected_difference(-judged, -labelled)
    assert forward.basis == backward.basis == "corrected"
    assert (forward.estimate.low, forward.estimate.high) == pytest.approx(
        (-backward.estimate.high, -backward.estimate.low)
    )
    assert forward.p_value == pytest.approx(backward.p_value)


def test_the_p_value_agrees_with_the_interval() -> None:
    outcomes = set()
    for seed in range(40):
        corrected = corrected_difference(*simulate_run(120, 30, shift=1 / 3, seed=seed))
        excludes_zero = corrected.estimate.low > 0 or corrected.estimate.high < 0
        if corrected.basis == "corrected":
            assert (corrected.p_value < 0.05) == excludes_zero
            outcomes.add(excludes_zero)
    assert outcomes == {True, False}


def test_equal_labels_do_not_give_a_zero_width_interval() -> None:
    labelled = np.where(np.arange(100) < 20, 0.0, nan)
    judged = np.tile([0.0, 1 / 3], 50)
    for judge_values in (judged, np.zeros(100), np.nan_to_num(labelled)):
        estimate = corrected_difference(judge_values, labelled).estimate
        assert estimate.value == 0
        assert estimate.low < -0.1
        assert estimate.high > 0.1


def test_a_judge_without_observed_errors_is_not_treated_as_perfect() -> None:
    judged, _ = simulate_run(500, 0)
    labelled = np.where(np.arange(500) < 20, judged, nan)
    corrected = corrected_difference(judged, labelled)
    naive = paired_difference(np.zeros(500), judged)
    assert corrected.basis == "corrected"
    assert corrected.estimate.high - corrected.estimate.low > 2 * (naive.high - naive.low)


def test_fewer_than_10_labelled_chunks_give_no_interval() -> None:
    judged, labelled = simulate_run(60, 9)
    corrected = corrected_difference(judged, labelled)
    assert corrected.basis == "labels alone"
    assert corrected.estimate.value == pytest.approx(np.nanmean(labelled))
    assert not corrected.estimate.has_interval
    assert isnan(corrected.p_value)
    assert corrected.p_labels == sign_flip_test(labelled[~np.isnan(labelled)])


def test_intervals_stay_within_the_range_of_a_difference() -> None:
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


def test_very_unequal_probabilities_cause_a_warning() -> None:
    judged, labelled = simulate_run(200, 40)
    steep, even = np.where(np.arange(200) % 20 == 0, 0.01, 1.0), np.where(np.arange(200) % 2, 0.5, 0.4)
    assert "differ so much" in str(corrected_difference(judged, labelled, inclusion=steep).labels.reason)
    assert corrected_difference(judged, labelled, inclusion=even).labels.reason is None


def test_differential_error_finds_the_candidate_that_the_judge_favours() -> None:
    judged, labelled = simulate_run(100, 20, noise=0)
    biased = np.clip(judged + 1 / 3, -1, 1)
    error = differential_error(biased, labelled)
    is_labelled = ~np.isnan(labelled)
    assert error.estimate.value == pytest.approx((biased - labelled)[is_labelled].mean())
    assert error.estimate.low > 0
    assert error.p_value == sign_flip_test((biased - labelled)[is_labelled]) < 0.01


def test_an_evenly_lenient_judge_has_no_differential_error() -> None:
    judged, labelled = simulate_run(100, 20, noise=0)
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


# --- rates ------------------------------------------------------------------------------------------------


def simulate_graded_run(
    *, n_chunks: int = 200, recall: float = 0.7, seed: int = 0
) -> tuple[Array, Array, Array]:
    """Return judge's letters, all labels and chunks; 3 items per chunk, 70 % usable."""
    rng = np.random.default_rng(seed)
    label = np.where(rng.random(3 * n_chunks) < 0.7, 0, rng.integers(1, 3, 3 * n_chunks))
    judged = np.where(rng.random(3 * n_chunks) < recall, label, 0)
    return judged, label, np.arange(3 * n_chunks) // 3


def value_and_bounds(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def test_the_post_stratified_rate_matches_the_published_example() -> None:
    judged, labelled = arena_example()
    corrected = corrected_rate(1 - judged, 1 - labelled, np.arange(276), n_levels=2)
    assert corrected.corrected.value == pytest.approx(0.14493, abs=5e-6)


def test_a_rate_with_all_items_labelled_equals_the_labels_rate() -> None:
    judged, label, chunks = simulate_graded_run()
    corrected = corrected_rate(judged, label, chunks, n_levels=3, inclusion=np.linspace(0.1, 1, 600))
    by_chunk = (label == 0).reshape(200, 3).sum(axis=1)
    assert corrected.basis == "all labelled"
    assert value_and_bounds(corrected.estimate) == value_and_bounds(clustered_rate(by_chunk, np.full(200, 3)))


def test_an_accurate_judge_makes_the_rate_more_precise() -> None:
    judged, label, chunks = simulate_graded_run(recall=0.95)
    labelled = np.where(chunks < 40, label, nan)
    corrected = corrected_rate(judged, labelled, chunks, n_levels=3)
    share = np.array([(judged == letter).mean() for letter in range(3)])
    rate = [(label[:120][judged[:120] == letter] == 0).mean() for letter in range(3)]
    assert corrected.basis == "corrected"
    assert corrected.width_ratio < 0.7
    assert corrected.estimate.value == pytest.approx(float(share @ rate))
    assert corrected.estimate.low < 0.7 < corrected.estimate.high
    assert corrected.estimate.n_clusters == 40


def test_a_constant_judge_leaves_the_rate_to_the_labels() -> None:
    _, label, chunks = simulate_graded_run()
    labelled = np.where(chunks < 40, label, nan)
    corrected = corrected_rate(np.zeros(600), labelled, chunks, n_levels=3)
    labels_only = clustered_rate((label[:120] == 0).reshape(40, 3).sum(axis=1), np.full(40, 3))
    assert corrected.basis == "labels alone"
    assert value_and_bounds(corrected.estimate) == value_and_bounds(labels_only)
    assert "do not narrow the interval" in str(corrected.estimate.reason)


def test_any_letters_can_be_the_target() -> None:
    judged, label, chunks = simulate_graded_run()
    labelled = np.where(chunks < 40, label, nan)
    best = corrected_rate(judged, labelled, chunks, n_levels=3, target=(0, 1)).estimate
    worst = corrected_rate(judged, labelled, chunks, n_levels=3, target=(2,)).estimate
    assert (1 - best.value, 1 - best.high, 1 - best.low) == pytest.approx(value_and_bounds(worst))


def test_failed_items_count_as_the_worst_letter_without_a_label() -> None:
    judged, label, chunks = simulate_graded_run(recall=0.95)
    failed = chunks % 4 == 0
    labelled = np.where((chunks < 80) & ~failed, label, nan)
    rate = corrected_rate(np.where(failed, nan, judged), labelled, chunks, n_levels=3, failed=failed)
    without_failed = corrected_rate(judged[~failed], labelled[~failed], chunks[~failed], n_levels=3)
    assert rate.estimate.value == pytest.approx(0.75 * without_failed.estimate.value)
    assert rate.unlabelled == ()
    worst = corrected_rate(judged, labelled, chunks, n_levels=3, failed=failed, target=(1, 2)).estimate
    assert worst.value == pytest.approx(1 - rate.estimate.value)


def test_a_candidate_that_only_failed_has_a_rate_of_zero() -> None:
    corrected = corrected_rate(
        np.full(40, nan), np.full(40, nan), np.arange(40), n_levels=3, failed=np.ones(40)
    )
    assert (corrected.estimate.value, corrected.basis) == (0, "all labelled")


def test_a_letter_without_labels_uses_the_rate_of_the_nearest_letter() -> None:
    judged, label, chunks = simulate_graded_run()
    labelled = np.where((chunks < 40) & (judged != 2), label, nan)
    corrected = corrected_rate(judged, labelled, chunks, n_levels=3)
    rate = [(label[:120][judged[:120] == letter] == 0).mean() for letter in range(2)]
    share = np.array([(judged == letter).mean() for letter in range(3)])
    assert corrected.unlabelled == (2,)
    assert corrected.corrected.value == pytest.approx(float(share @ [*rate, rate[1]]))
    width = corrected.corrected.high - corrected.corrected.low
    reference = corrected_rate(judged, np.where(chunks < 40, label, nan), chunks, n_levels=3).corrected
    assert width > reference.high - reference.low


def test_labels_drawn_by_letter_are_weighted() -> None:
    judged, label, chunks = simulate_graded_run()
    drawn = (judged > 0) | (np.arange(600) % 5 == 0)
    labelled = np.where(drawn, label, nan)
    corrected = corrected_rate(judged, labelled, chunks, n_levels=3, inclusion=np.where(judged > 0, 1, 0.2))
    weights = np.where(judged > 0, 1.0, 5.0)[drawn]
    assert corrected.labels.value == pytest.approx(float(weights @ (label[drawn] == 0) / weights.sum()))
    assert corrected.basis == "corrected"
    assert abs(corrected.estimate.value - (label == 0).mean()) < 0.05


def test_unanimous_labels_do_not_give_a_zero_width_rate_interval() -> None:
    judged, _, chunks = simulate_graded_run()
    labelled = np.where(chunks < 20, 0.0, nan)
    estimate = corrected_rate(judged, labelled, chunks, n_levels=3).estimate
    assert estimate.value == estimate.high == 1
    assert estimate.low < 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labelled": np.full(30, nan)}, "no item is labelled"),
        ({"labelled": np.full(30, 3.0)}, "labelled must hold integer codes"),
        ({"judged": np.full(30, 7.0)}, "judged must hold integer codes"),
        ({"target": ()}, "target must name some of the letters"),
        ({"target": (0, 1, 2)}, "target must name some of the letters"),
        ({"inclusion": np.zeros(30)}, "inclusion must hold the probability"),
        ({"failed": np.zeros(3)}, "lengths differ"),
        ({"clusters": np.arange(3)}, "clusters must name"),
    ],
)
def test_rates_refuse_arguments_out_of_range(change: dict[str, Array], message: str) -> None:
    arguments = {"judged": np.zeros(30), "labelled": np.zeros(30), "clusters": np.arange(30)} | change
    with pytest.raises(ValueError, match=message):
        corrected_rate(**arguments, n_levels=3)  # type: ignore[arg-type]


# --- any data ---------------------------------------------------------------------------------------------


def is_within(estimate: Estimate, lowest: float) -> bool:
    is_inside = lowest <= estimate.value <= 1
    if not estimate.has_interval:
        return is_inside
    return (
        is_inside
        and lowest <= estimate.low <= estimate.value <= estimate.high <= 1
        and estimate.low < estimate.high
    )


@pytest.mark.parametrize("seed", range(40))
def test_estimates_stay_in_range_and_are_symmetric(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(11, 40))
    sizes = rng.integers(1, 4, n)
    a, b = (rng.binomial(sizes, rate) for rate in rng.choice([0.02, 0.3, 0.9, 1], 2))
    judged = (np.where(rng.random(n) < 0.8, b, 0) - a) / sizes
    n_labelled = n - 1 if seed % 2 else int(rng.integers(1, n + 1))
    labelled = np.where(rng.permutation(n) < n_labelled, (b - a) / sizes, nan)
    options = {"sizes": sizes, "inclusion": rng.uniform(0.1, 1, n) if seed % 4 > 1 else None}
    forward = corrected_difference(judged, labelled, **options).estimate  # type: ignore[arg-type]
    backward = corrected_difference(-judged, -labelled, **options).estimate  # type: ignore[arg-type]
    assert is_within(forward, -1)
    assert value_and_bounds(forward) == pytest.approx(
        (-backward.value, -backward.high, -backward.low), nan_ok=True
    )

    chunks = np.repeat(np.arange(n), sizes)
    label = rng.choice(3, len(chunks), p=rng.dirichlet([0.5, 0.5, 0.5]))
    letters = np.where(rng.random(len(chunks)) < 0.7, label, rng.integers(0, 3, len(chunks)))
    item_labels = np.where(rng.permutation(len(chunks)) < max(1, len(chunks) // 3), label, nan)
    failed = rng.random(len(chunks)) < 0.1 * (seed % 3)
    failed[~np.isnan(item_labels)] = False
    best = corrected_rate(letters, item_labels, chunks, n_levels=3, failed=failed).estimate
    below_best = corrected_rate(
        letters, item_labels, chunks, n_levels=3, failed=failed, target=(1, 2)
    ).estimate
    assert is_within(best, 0)
    assert value_and_bounds(best) == pytest.approx(
        (1 - below_best.value, 1 - below_best.high, 1 - below_best.low), nan_ok=True
    )
