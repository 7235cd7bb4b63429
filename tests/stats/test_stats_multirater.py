"""Several raters: the published examples of Krippendorff, Fleiss and Gwet."""

import numpy as np
import pytest
import scipy
from pytest import approx  # noqa: PT013

from qaeval.stats.multirater import (
    alpha_from_coincidences,
    alternative_annotator_test,
    coincidences,
    dawid_skene,
    fleiss_interval,
    krippendorff_alpha,
    krippendorff_interval,
    multirater_coefficient,
    rating_counts,
    summarised_raters,
)

X = np.nan
# Krippendorff's "C" data: 4 coders, 12 units, letters 1 to 5
KRIPPENDORFF = (
    np.array(
        [
            [1, 1, X, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4],
            [4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [X, 5, 5, 5], [X, X, 1, 1], [X, X, 3, X],
        ]
    )
    - 1
)  # fmt: skip
# Wikipedia's example: 3 coders, 15 units, letters 1 to 4
WIKIPEDIA = (
    np.array(
        [
            [X, X, X, X, X, 3, 4, 1, 2, 1, 1, 3, 3, X, 3],
            [1, X, 2, 1, 3, 3, 4, 3, X, X, X, X, X, X, X],
            [X, X, 2, 1, 3, 4, 4, X, 2, 1, 1, 3, 3, X, 4],
        ]
    ).T
    - 1
)
# Fleiss 1971: diagnoses of 30 patients by 6 psychiatrists
DIAGNOSES = """444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 144444 124444 222333 144444
    224445 333335 111455 111112 224444 133555 555555 244444 224555 114444 144445 222224 111155 224444 133333
    555555"""
SIX_RATERS = """00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031"""
FLEISS_WIKIPEDIA = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def diagnoses() -> np.ndarray:
    return np.array([[int(letter) - 1 for letter in row] for row in DIAGNOSES.split()])


def six_raters() -> np.ndarray:
    return np.array([[int(count) for count in row] for row in SIX_RATERS.split()])


@pytest.mark.parametrize(
    ("metric", "alpha"),
    [("nominal", 0.743421), ("ordinal", 0.815388), ("interval", 0.849107), ("ratio", 0.797403)],
)
def test_alpha_of_krippendorffs_example(metric: str, alpha: float) -> None:
    values = [1, 2, 3, 4, 5]
    result = krippendorff_alpha(KRIPPENDORFF, n_levels=5, metric=metric, values=values)
    assert result == approx(alpha, abs=5e-7)


@pytest.mark.parametrize(
    ("metric", "alpha"), [("nominal", 0.691358), ("interval", 0.8108), ("ordinal", 0.8067)]
)
def test_alpha_of_wikipedias_example(metric: str, alpha: float) -> None:
    result = krippendorff_alpha(WIKIPEDIA, n_levels=4, metric=metric)
    assert result == approx(alpha, abs=5e-5 if metric != "nominal" else 5e-7)


@pytest.mark.parametrize(
    ("coefficient", "value", "se"),
    [("fleiss", 0.76117, 0.15302), ("gwet_ac", 0.77544, 0.14295), ("brennan_prediger", 0.77273, 0.14472)],
)
def test_irrcac_vignette_with_missing_letters(coefficient: str, value: float, se: float) -> None:
    result = multirater_coefficient(rating_counts(KRIPPENDORFF, n_levels=5), coefficient=coefficient)
    assert (result.value, result.se) == approx((value, se), abs=5e-6)
    assert result.agreement == approx(0.8181818, abs=5e-8)


def test_fleiss_of_wikipedias_example() -> None:
    assert multirater_coefficient(FLEISS_WIKIPEDIA).value == approx(0.20993, abs=5e-6)


def test_fleiss_interval_is_that_of_the_clusters() -> None:
    # items repeated in their cluster say nothing new, and the value is that of the items
    ratings = np.random.default_rng(2).integers(0, 3, (30, 4)).astype(float)
    ratings[:, 1] = ratings[:, 0]
    ratings[3, 2] = np.nan
    single = fleiss_interval(ratings, np.arange(30), n_levels=3)
    repeated = fleiss_interval(np.repeat(ratings, 4, axis=0), np.repeat(np.arange(30), 4), n_levels=3)
    assert single.value == approx(multirater_coefficient(rating_counts(ratings, n_levels=3)).value)
    assert (repeated.value, repeated.low, repeated.high) == approx((single.value, single.low, single.high))
    assert (repeated.n, repeated.n_clusters) == (120, 30)


def test_fleiss_1971() -> None:
    counts = rating_counts(diagnoses(), n_levels=5)
    result = multirater_coefficient(counts)
    assert result.value == approx(0.4302, abs=5e-5)
    assert (result.agreement, result.expected) == approx((0.5556, 0.2199), abs=5.1e-5)


@pytest.mark.parametrize(
    ("coefficient", "value", "se"),
    [
        ("fleiss", 0.4139265, 0.08119291),
        ("gwet_ac", 0.4448007, 0.08418757),
        ("brennan_prediger", 0.4388889, None),
    ],
)
def test_distrib_6raters(coefficient: str, value: float, se: float) -> None:
    result = multirater_coefficient(six_raters(), coefficient=coefficient)
    assert result.value == approx(value, abs=5e-8)
    if se is not None:
        assert result.se == approx(se, abs=5e-9)


def test_alpha_of_distrib_6raters() -> None:
    alpha = alpha_from_coincidences(coincidences(six_raters()).sum(axis=0), metric="nominal")
    assert float(alpha) == approx(0.4204384, abs=5e-8)


@pytest.mark.parametrize(
    ("table", "fixed", "free"),
    [([[7, 1], [3, 5]], 0.161905, 0.214286), ([[6, 1, 0], [0, 7, 0]], 0.708333, 0.785714)],
)
def test_randolphs_fixed_and_free_marginal_kappa(table: list[list[int]], fixed: float, free: float) -> None:
    assert multirater_coefficient(table).value == approx(fixed, abs=5e-7)
    assert multirater_coefficient(table, coefficient="brennan_prediger").value == approx(free, abs=5e-7)


def test_alpha_of_two_raters_is_scotts_pi_for_a_finite_sample() -> None:
    # the abstractors' table: alpha .7972585 = (pa' - pe)/(1 - pe), pa' = (1 - 1/2n) pa + 1/2n
    table = np.array([[13, 0, 0], [0, 20, 7], [0, 4, 56]])
    first, second = np.repeat(np.indices((3, 3)).reshape(2, -1), table.ravel(), axis=1)
    alpha = krippendorff_alpha(np.stack([first, second], axis=1), n_levels=3, metric="nominal")
    assert alpha == approx(0.7972585, abs=5e-8)


def test_alpha_interval_leaves_out_items_with_one_letter() -> None:
    ratings = np.tile(KRIPPENDORFF, (4, 1))
    estimate = krippendorff_interval(ratings, np.arange(len(ratings)), n_levels=5, metric="nominal")
    assert (estimate.n, estimate.n_excluded, estimate.n_clusters) == (44, 4, 44)
    assert -1 <= estimate.low < estimate.value < estimate.high <= 1


def test_one_letter_only_has_no_alpha() -> None:
    assert np.isnan(krippendorff_alpha([[1, 1], [1, 1]], n_levels=3))
    assert np.isnan(multirater_coefficient([[3, 0], [3, 0]]).value)


def test_bad_ratings_are_named() -> None:
    with pytest.raises(ValueError, match=r"codes in range\(3\)"):
        rating_counts([[0, 3]], n_levels=3)
    with pytest.raises(ValueError, match="from two raters"):
        multirater_coefficient([[1, 0], [0, 1]])
    with pytest.raises(ValueError, match="metric must be"):
        krippendorff_alpha([[0, 1], [1, 1]], n_levels=2, metric="cardinal")


def test_the_alt_test_of_the_printed_shares_and_p_values_passes_no_judge() -> None:
    # mtbench, gpt-4o, margin .2 (STATS.md E-1)
    result = summarised_raters([0.7703, 0.8095, 0.7386], [0.01918, 0.02600, 0.31454])
    assert result.share_rejected == 0
    assert result.mean_ahead == pytest.approx(0.7728, abs=5e-5)
    assert not result.passed


def test_a_judge_as_good_as_the_raters_passes_and_one_that_guesses_does_not() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 120)
    ratings = np.stack(
        [np.where(rng.random(120) < 0.8, true, rng.integers(0, 3, 120)) for _ in range(3)], axis=1
    )
    chunks = np.arange(120) // 2
    assert alternative_annotator_test(true, ratings, chunks).passed
    guess = alternative_annotator_test(rng.integers(0, 3, 120), ratings, chunks)
    assert not guess.passed
    assert guess.share_rejected == 0


def test_the_alt_test_without_clusters_is_the_papers_t_test() -> None:
    rng = np.random.default_rng(1)
    judge, ratings = rng.integers(0, 2, 60), rng.integers(0, 2, (60, 3)).astype(float)
    result = alternative_annotator_test(judge, ratings, np.arange(60))
    others = ratings[:, 1:]
    by_judge = (others == judge[:, None]).sum(axis=1)
    by_rater = (others == ratings[:, :1]).sum(axis=1)
    d = (by_rater >= by_judge).astype(float) - (by_judge >= by_rater)
    oracle = scipy.stats.ttest_1samp(d, 0.2, alternative="less")
    assert result.p_values[0] == pytest.approx(oracle.pvalue)
    assert result.judge_ahead[0] == (by_judge >= by_rater).mean()


def test_a_rater_with_few_items_rejects_nothing() -> None:
    ratings = np.ones((40, 3))
    ratings[20:, 0] = np.nan
    result = alternative_annotator_test(np.ones(40), ratings, np.arange(40))
    assert np.isnan(result.p_values[0])
    assert result.share_rejected == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="at least 3 raters"):
        alternative_annotator_test(np.ones(40), ratings[:, :2], np.arange(40))


# Dawid and Skene 1979: 45 patients, 5 anaesthetists, the first of whom graded three times
ANAESTHESIA = (
    "1111111 3334334 1122122 2223121 2223222 2223322 1122111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 "
    "1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 "
    "1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 "
    "2322222 1211111 2222222"
)


def test_dawid_skene_on_the_anaesthetists() -> None:
    ratings = np.array([[int(letter) - 1 for letter in word] for word in ANAESTHESIA.split()])
    model = dawid_skene(ratings, n_levels=4, raters=[1, 1, 1, 2, 3, 4, 5])
    assert model.prevalence.round(4).tolist() == [0.4, 0.4216, 0.1118, 0.0667]
    assert round(model.log_likelihood, 4) == -190.7310
    assert (model.n_iterations, model.converged) == (26, True)
    assert model.posterior.sum(axis=1) == pytest.approx(np.ones(45))
    assert model.confusion.sum(axis=2) == pytest.approx(np.ones((5, 4)))
    single = dawid_skene(ratings[:, [0, 3, 4, 5, 6]], n_levels=4)
    assert single.prevalence.round(4).tolist() == [0.4, 0.4126, 0.1208, 0.0667]


def test_dawid_skene_finds_planted_errors_and_takes_missing_letters() -> None:
    rng = np.random.default_rng(5)
    true = rng.choice(3, 6000, p=[0.6, 0.3, 0.1])
    rates = [0.95, 0.8, 0.7]
    ratings = np.column_stack(
        [np.where(rng.random(6000) < rate, true, rng.integers(0, 3, 6000)) for rate in rates]
    ).astype(float)
    ratings[rng.random(ratings.shape) < 0.1] = X
    ratings[:, 0] = np.where(np.isnan(ratings).all(axis=1), true, ratings[:, 0])
    ratings[0] = X
    model = dawid_skene(ratings, n_levels=3)
    assert model.prevalence == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    assert model.accuracy == pytest.approx([rate + (1 - rate) / 3 for rate in rates], abs=0.03)
    assert np.isnan(model.posterior[0]).all()
    assert not np.isnan(model.posterior[1:]).any()
    majority_right = np.mean(
        [np.bincount(r[~np.isnan(r)].astype(int), minlength=3).argmax() for r in ratings[1:]] == true[1:]
    )
    assert (model.posterior[1:].argmax(axis=1) == true[1:]).mean() > majority_right


def test_dawid_skene_refuses_what_it_cannot_tell_apart() -> None:
    with pytest.raises(ValueError, match="3 or more"):
        dawid_skene(np.zeros((9, 2)), n_levels=2)
    with pytest.raises(ValueError, match="no item has a letter"):
        dawid_skene(np.full((9, 3), X), n_levels=2)
