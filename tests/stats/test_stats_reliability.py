"""Agreement from letters: values worked by hand, and what is said about bad letters."""

import numpy as np
import pytest
from pytest import approx  # noqa: PT013

from qaeval.stats.bounds import agreement_bounds
from qaeval.stats.coefficients import Weights, kappa, weighted_agreement
from qaeval.stats.reliability import (
    agreement_rate,
    cluster_tables,
    cohen_kappa,
    confusion_matrix,
    kappa_interval,
    leniency,
    letter_accuracy,
    lift_over_majority,
    majority_baseline,
)

A, B, C = 0, 1, 2
# 20 items: 8 both A, 6 both C, 4 A/C, 2 C/A
REFERENCE = [A] * 8 + [C] * 6 + [A] * 4 + [C] * 2
JUDGE = [A] * 8 + [C] * 6 + [C] * 4 + [A] * 2


def test_kappa_of_a_hand_worked_table() -> None:
    # p_o = 14/20; p_e = (12/20)(10/20) + (8/20)(10/20) = .5; kappa = .2/.5
    table = confusion_matrix(REFERENCE, JUDGE, 3)
    assert weighted_agreement(table) == approx(0.7)
    assert cohen_kappa(REFERENCE, JUDGE, n_levels=3) == approx(0.4)
    assert majority_baseline(REFERENCE, n_levels=3) == approx(12 / 20)
    # at best 10 + 8 agree: (.9 - .5)/.5
    assert agreement_bounds(table.sum(axis=1), table.sum(axis=0)).kappa_max == approx(0.8)


def test_confusion_matrix_has_the_reference_in_rows() -> None:
    assert confusion_matrix(REFERENCE, JUDGE, 3).tolist() == [[8, 0, 4], [0, 0, 0], [2, 0, 6]]


def test_cluster_tables_add_up() -> None:
    clusters = [f"chunk {i % 7}" for i in range(20)]
    tables = cluster_tables(REFERENCE, JUDGE, clusters, n_levels=3)
    assert tables.shape == (7, 3, 3)
    assert (tables.sum(axis=0) == confusion_matrix(REFERENCE, JUDGE, 3)).all()


def test_an_item_that_was_drawn_half_as_likely_counts_twice() -> None:
    drawn = np.where(np.arange(20) % 3 == 0, 0.4, 0.8)
    twice = [index for index in range(20) for _ in range(2 if index % 3 == 0 else 1)]
    reference, judge = np.array(REFERENCE)[twice], np.array(JUDGE)[twice]
    clusters = np.arange(20)
    tables = cluster_tables(REFERENCE, JUDGE, clusters, n_levels=3, inclusion=drawn)
    assert tables.sum() == approx(20)
    assert tables == approx(cluster_tables(reference, judge, clusters[twice], n_levels=3) * 20 / len(twice))
    for statistic in (agreement_rate, kappa_interval, lift_over_majority, leniency):
        weighted = statistic(REFERENCE, JUDGE, clusters, n_levels=3, inclusion=drawn)
        repeated = statistic(reference, judge, clusters[twice], n_levels=3)
        assert (weighted.value, weighted.n, weighted.n_clusters) == (approx(repeated.value), 20, 20)
        assert (weighted.low, weighted.high) == (approx(repeated.low), approx(repeated.high))
    by_letter = letter_accuracy(REFERENCE, JUDGE, clusters, n_levels=3, inclusion=drawn)
    for letter, other in zip(
        by_letter, letter_accuracy(reference, judge, clusters[twice], n_levels=3), strict=True
    ):
        assert letter.recall.value == approx(other.recall.value, nan_ok=True)
        assert letter.precision.value == approx(other.precision.value, nan_ok=True)


def test_equal_probabilities_change_nothing() -> None:
    plain = cluster_tables(REFERENCE, JUDGE, np.arange(20), n_levels=3)
    assert cluster_tables(REFERENCE, JUDGE, np.arange(20), n_levels=3, inclusion=[0.3] * 20) == approx(plain)


@pytest.mark.parametrize("inclusion", [[0.5] * 19 + [0.0], [0.5] * 19])
def test_probabilities_that_no_draw_has_are_refused(inclusion: list[float]) -> None:
    with pytest.raises(ValueError, match="inclusion"):
        cluster_tables(REFERENCE, JUDGE, np.arange(20), n_levels=3, inclusion=inclusion)


def test_precision_and_recall_of_a_letter() -> None:
    accuracy = letter_accuracy(REFERENCE, JUDGE, np.arange(20), n_levels=3)
    assert accuracy[A].recall.value == approx(8 / 12)
    assert accuracy[A].precision.value == approx(8 / 10)
    assert accuracy[A].precision.n_clusters == 10
    assert not accuracy[B].recall.is_defined
    assert "no cluster" in str(accuracy[B].precision.reason)


def test_a_judge_that_gives_better_letters_is_lenient() -> None:
    # A for C twice, C for A four times: (2 - 4)/20
    assert leniency(REFERENCE, JUDGE, np.arange(20), n_levels=3).value == approx(-0.1)
    assert leniency(JUDGE, REFERENCE, np.arange(20), n_levels=3).value == approx(0.1)


def test_agreement_rate_counts_items_and_clusters() -> None:
    result = agreement_rate(REFERENCE, JUDGE, np.arange(20) // 2, n_levels=3)
    assert (result.value, result.n, result.n_clusters) == (approx(0.7), 20, 10)
    assert result.low < 0.7 < result.high


def test_perfect_agreement_is_bounded_by_the_clusters() -> None:
    # 30 clusters in full agreement: share at least .025^(1/30); p_e = 1/2
    letters = [A, C] * 30
    result = kappa_interval(letters, letters, np.arange(60) // 2, n_levels=3)
    assert (result.value, result.high) == (1.0, 1.0)
    assert result.low == approx((0.025 ** (1 / 30) - 0.5) / 0.5)
    few = kappa_interval(letters, letters, np.arange(60) // 20, n_levels=3)
    assert few.value == 1.0
    assert not few.has_interval


def test_one_letter_only_has_no_kappa() -> None:
    assert np.isnan(cohen_kappa([A] * 30, [A] * 30, n_levels=3))
    assert np.isnan(agreement_bounds([30, 0, 0], [30, 0, 0]).kappa_max)
    result = kappa_interval([A] * 30, [A] * 30, np.arange(30), n_levels=3)
    assert not result.is_defined
    assert "does not exist" in str(result.reason)


def test_a_constant_judge_has_kappa_zero() -> None:
    assert cohen_kappa(REFERENCE, [A] * 20, n_levels=3) == approx(0.0)


def test_a_single_cluster_has_a_value_only() -> None:
    result = kappa_interval(REFERENCE, JUDGE, ["one"] * 20, n_levels=3)
    assert result.value == approx(0.4)
    assert "1 cluster:" in str(result.reason)


def test_few_clusters_with_another_letter_of_one_rater_are_a_warning() -> None:
    # the reference has B in 20 of 30 clusters, the judge nearly always answers A
    reference, judge = np.zeros(90, dtype=int), np.zeros(90, dtype=int)
    reference[:60:3], judge[3:9] = B, B
    result = kappa_interval(reference, judge, np.arange(90) // 3, n_levels=3)
    assert result.has_interval
    assert "in only 2 clusters" in str(result.reason)


@pytest.mark.slow
@pytest.mark.parametrize(("recall", "icc"), [(0.1, 0.0), (0.3, 0.6), (0.95, 0.0), (0.95, 0.6)])
@pytest.mark.parametrize("weights", [None, "quadratic"])
def test_kappa_without_a_warning_is_covered_from_nearly_constant_to_nearly_perfect_judges(
    recall: float, icc: float, weights: Weights
) -> None:
    # 20 chunks of 3 with A, B, C at .5, .3, .2; the judge keeps a B or C with `recall`, else it answers A
    rng, shares = np.random.default_rng(3), np.array([0.5, 0.3, 0.2])
    moves = np.array([[0.98, 0.014, 0.006], [1 - recall, recall, 0], [1 - recall, 0, recall]])
    truth = float(kappa(np.diag(shares) @ moves, weights=weights))
    clusters, covered = np.repeat(np.arange(20), 3), []
    for _ in range(400):
        rates = np.tile(shares, (20, 1))
        if icc:
            gamma = rng.gamma(shares * (1 - icc) / icc, size=(20, 3)) + 1e-300
            rates = gamma / gamma.sum(axis=1, keepdims=True)
        reference = (rng.random((60, 1)) > rates.cumsum(axis=1)[clusters, :2]).sum(axis=1)
        judge = (rng.random((60, 1)) > moves.cumsum(axis=1)[reference, :2]).sum(axis=1)
        result = kappa_interval(reference, judge, clusters, n_levels=3, weights=weights)
        if result.reason is None:
            covered.append(result.low <= truth <= result.high)
    if recall < 0.5:
        assert len(covered) < 100, "a judge that nearly always answers A carries a warning"
    else:
        assert np.mean(covered) >= 0.93 - 0.01


def test_perfect_agreement_bounds_every_kappa_alike() -> None:
    # 57 of 57 equal, nearly all A: with two letters all weights are one kappa, whose bounds must not differ
    letters = np.repeat([A, B], [51, 6])
    plain, linear, quadratic = (
        kappa_interval(letters, letters, np.arange(57) // 3, n_levels=3, weights=weights)
        for weights in (None, "linear", "quadratic")
    )
    assert plain.low == linear.low == quadratic.low
    assert plain.low == approx(1 - (1 - 0.025 ** (1 / 19)) / (2 * 51 * 6 / 57**2))


def test_the_lift_over_the_commonest_letter_is_paired_by_cluster() -> None:
    # 30 clusters AAA, 10 BBB; the judge finds one B of each: right on 100 of 120, always answering A on 90
    reference = np.repeat([A, B], [90, 30])
    judge = reference.copy()
    judge[90:] = np.tile([B, A, A], 10)
    clusters = np.arange(120) // 3
    lift = lift_over_majority(reference, judge, clusters, n_levels=3)
    spread = np.std(np.repeat([0, 1 / 3], [30, 10]), ddof=1) / np.sqrt(40)
    assert (lift.value, lift.n, lift.n_clusters) == (approx(10 / 120), 120, 40)
    assert 0 < lift.low <= 10 / 120 - 2.0226909 * spread + 1e-9
    assert agreement_rate(reference, judge, clusters, n_levels=3).low < 90 / 120, "what decided before"
    constant = lift_over_majority(reference, np.full(120, A), clusters, n_levels=3)
    assert (constant.value, constant.low < 0 < constant.high) == (0.0, True)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0, 1], [0], "lengths differ: a has 2, b has 1"),
        ([0, 3], [0, 1], r"a must hold integer codes in range\(3\), got 3 at position 1"),
        ([0, 1], [0, -1], r"b must hold integer codes in range\(3\), got -1 at position 1"),
        ([0, 0.5], [0, 1], r"got 0\.5 at position 1"),
        ([0, np.nan], [0, 1], "got nan at position 1"),
        (["A", "B"], [0, 1], "integer codes"),
        ([], [], "a is empty"),
        ([[0, 1]], [[0, 1]], "one-dimensional"),
    ],
)
def test_bad_letters_are_named(first: list[object], second: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cohen_kappa(first, second, n_levels=3)


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="at least 2 levels"):
        cohen_kappa([0], [0], n_levels=1)
    with pytest.raises(ValueError, match="weights must be"):
        cohen_kappa([0], [0], n_levels=2, weights="cubic")
    with pytest.raises(ValueError, match="of the 2 items"):
        kappa_interval([0, 1], [0, 1], [0], n_levels=2)
    with pytest.raises(ValueError, match=r"for example 0\.95"):
        kappa_interval([0, 1], [0, 1], [0, 1], n_levels=2, level=95)
