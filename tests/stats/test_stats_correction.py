"""Estimates from labels of some chunks and the judge's letters for all."""

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


def test_very_unequal_probabilities_carry_a_warning() -> None:
    judged, labelled = drawn_run(200, 40)
    steep, even = np.where(np.arange(200) % 20 == 0, 0.01, 1.0), np.where(np.arange(200) % 2, 0.5, 0.4)
    assert "differ so much" in str(corrected_difference(judged, labelled, inclusion=steep).labels.reason)
    assert corrected_difference(judged, labelled, inclusion=even).labels.reason is None


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


# --- rates ------------------------------------------------------------------------------------------------


def graded_run(*, n_chunks: int = 200, recall: float = 0.7, seed: int = 0) -> tuple[Array, Array, Array]:
    """Judge's letters, all labels and the chunks; 3 items each, 70 % usable."""
    rng = np.random.default_rng(seed)
    label = np.where(rng.random(3 * n_chunks) < 0.7, 0, rng.integers(1, 3, 3 * n_chunks))
    judged = np.where(rng.random(3 * n_chunks) < recall, label, 0)
    return judged, label, np.arange(3 * n_chunks) // 3


def ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def test_the_post_stratified_rate_is_that_of_the_published_example() -> None:
    judged, labelled = arena()
    corrected = corrected_rate(1 - judged, 1 - labelled, np.arange(276), n_levels=2)
    assert corrected.corrected.value == pytest.approx(0.14493, abs=5e-6)


def test_a_rate_with_all_items_labelled_is_that_of_the_labels() -> None:
    judged, label, chunks = graded_run()
    corrected = corrected_rate(judged, label, chunks, n_levels=3, inclusion=np.linspace(0.1, 1, 600))
    by_chunk = (label == 0).reshape(200, 3).sum(axis=1)
    assert corrected.basis == "all labelled"
    assert ends(corrected.estimate) == ends(clustered_rate(by_chunk, np.full(200, 3)))


def test_a_judge_that_helps_makes_the_rate_more_precise() -> None:
    judged, label, chunks = graded_run(recall=0.95)
    some = np.where(chunks < 40, label, nan)
    corrected = corrected_rate(judged, some, chunks, n_levels=3)
    share = np.array([(judged == letter).mean() for letter in range(3)])
    rate = [(label[:120][judged[:120] == letter] == 0).mean() for letter in range(3)]
    assert corrected.basis == "corrected"
    assert corrected.width_ratio < 0.7
    assert corrected.estimate.value == pytest.approx(float(share @ rate))
    assert corrected.estimate.low < 0.7 < corrected.estimate.high
    assert corrected.estimate.n_clusters == 40


def test_a_judge_that_gives_one_letter_leaves_the_rate_to_the_labels() -> None:
    _, label, chunks = graded_run()
    some = np.where(chunks < 40, label, nan)
    corrected = corrected_rate(np.zeros(600), some, chunks, n_levels=3)
    alone = clustered_rate((label[:120] == 0).reshape(40, 3).sum(axis=1), np.full(40, 3))
    assert corrected.basis == "labels alone"
    assert ends(corrected.estimate) == ends(alone)
    assert "the judge adds nothing" in str(corrected.estimate.reason)


def test_any_letters_can_be_the_target() -> None:
    judged, label, chunks = graded_run()
    some = np.where(chunks < 40, label, nan)
    best = corrected_rate(judged, some, chunks, n_levels=3, target=(0, 1)).estimate
    worst = corrected_rate(judged, some, chunks, n_levels=3, target=(2,)).estimate
    assert (1 - best.value, 1 - best.high, 1 - best.low) == pytest.approx(ends(worst))


def test_failed_items_have_the_worst_letter_without_a_label() -> None:
    judged, label, chunks = graded_run(recall=0.95)
    failed = chunks % 4 == 0
    some = np.where((chunks < 80) & ~failed, label, nan)
    rate = corrected_rate(np.where(failed, nan, judged), some, chunks, n_levels=3, failed=failed)
    of_others = corrected_rate(judged[~failed], some[~failed], chunks[~failed], n_levels=3)
    assert rate.estimate.value == pytest.approx(0.75 * of_others.estimate.value)
    assert rate.unlabelled == ()
    worst = corrected_rate(judged, some, chunks, n_levels=3, failed=failed, target=(1, 2)).estimate
    assert worst.value == pytest.approx(1 - rate.estimate.value)


def test_a_candidate_that_only_failed_has_a_rate_of_zero() -> None:
    corrected = corrected_rate(
        np.full(40, nan), np.full(40, nan), np.arange(40), n_levels=3, failed=np.ones(40)
    )
    assert (corrected.estimate.value, corrected.basis) == (0, "all labelled")


def test_a_letter_without_labels_is_named_and_borrows_the_nearest() -> None:
    judged, label, chunks = graded_run()
    some = np.where((chunks < 40) & (judged != 2), label, nan)
    corrected = corrected_rate(judged, some, chunks, n_levels=3)
    rate = [(label[:120][judged[:120] == letter] == 0).mean() for letter in range(2)]
    share = np.array([(judged == letter).mean() for letter in range(3)])
    assert corrected.unlabelled == (2,)
    assert corrected.corrected.value == pytest.approx(float(share @ [*rate, rate[1]]))
    width = corrected.corrected.high - corrected.corrected.low
    whole = corrected_rate(judged, np.where(chunks < 40, label, nan), chunks, n_levels=3).corrected
    assert width > whole.high - whole.low


def test_labels_drawn_by_letter_are_weighted_where_the_judge_is_not_used() -> None:
    judged, label, chunks = graded_run()
    drawn = (judged > 0) | (np.arange(600) % 5 == 0)
    some = np.where(drawn, label, nan)
    corrected = corrected_rate(judged, some, chunks, n_levels=3, inclusion=np.where(judged > 0, 1, 0.2))
    weights = np.where(judged > 0, 1.0, 5.0)[drawn]
    assert corrected.labels.value == pytest.approx(float(weights @ (label[drawn] == 0) / weights.sum()))
    assert corrected.basis == "corrected"
    assert abs(corrected.estimate.value - (label == 0).mean()) < 0.05


def test_labels_that_all_agree_do_not_make_a_rate_certain() -> None:
    judged, _, chunks = graded_run()
    some = np.where(chunks < 20, 0.0, nan)
    estimate = corrected_rate(judged, some, chunks, n_levels=3).estimate
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


# --- whatever the data ------------------------------------------------------------------------------------


def is_within(estimate: Estimate, lowest: float) -> bool:
    inside = lowest <= estimate.value <= 1
    if not estimate.has_interval:
        return inside
    return (
        inside
        and lowest <= estimate.low <= estimate.value <= estimate.high <= 1
        and estimate.low < estimate.high
    )


@pytest.mark.parametrize("seed", range(40))
def test_estimates_hold_their_value_and_turn_round_with_the_data(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(11, 40))
    sizes = rng.integers(1, 4, n)
    a, b = (rng.binomial(sizes, rate) for rate in rng.choice([0.02, 0.3, 0.9, 1], 2))
    judged = (np.where(rng.random(n) < 0.8, b, 0) - a) / sizes
    n_labelled = n - 1 if seed % 2 else int(rng.integers(1, n + 1))
    labelled = np.where(rng.permutation(n) < n_labelled, (b - a) / sizes, nan)
    options = {"sizes": sizes, "inclusion": rng.uniform(0.1, 1, n) if seed % 4 > 1 else None}
    forward = corrected_difference(judged, labelled, **options).estimate  # type: ignore[arg-type]
    back = corrected_difference(-judged, -labelled, **options).estimate  # type: ignore[arg-type]
    assert is_within(forward, -1)
    assert ends(forward) == pytest.approx((-back.value, -back.high, -back.low), nan_ok=True)

    chunks = np.repeat(np.arange(n), sizes)
    label = rng.choice(3, len(chunks), p=rng.dirichlet([0.5, 0.5, 0.5]))
    letters = np.where(rng.random(len(chunks)) < 0.7, label, rng.integers(0, 3, len(chunks)))
    some = np.where(rng.permutation(len(chunks)) < max(1, len(chunks) // 3), label, nan)
    failed = rng.random(len(chunks)) < 0.1 * (seed % 3)
    failed[~np.isnan(some)] = False
    best = corrected_rate(letters, some, chunks, n_levels=3, failed=failed).estimate
    others = corrected_rate(letters, some, chunks, n_levels=3, failed=failed, target=(1, 2)).estimate
    assert is_within(best, 0)
    assert ends(best) == pytest.approx((1 - others.value, 1 - others.high, 1 - others.low), nan_ok=True)
