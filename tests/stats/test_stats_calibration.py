"""Scores of probabilities, calibration error with its null, and cross-fitting: published examples and oracles."""

import sys

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from qaeval.stats.calibration import (
    area_under_curve,
    best_threshold,
    brier_score,
    calibration_bins,
    cross_fitted,
    escalation_threshold,
    expected_calibration_error,
    fit_isotonic,
    fit_threshold,
    ranked_probability_score,
)


def test_published_examples() -> None:
    """E-3 of the catalogue: scikit-learn's Brier score, torchmetrics' calibration errors, an RPS by hand."""
    assert round(brier_score([0.1, 0.9, 0.8, 0.3], [0, 1, 1, 0]), 4) == 0.0375
    bins = calibration_bins([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1], n_bins=2, by="width")
    assert [round(bins.error(norm), 4) for norm in ("l1", "l2", "max")] == [0.29, 0.2918, 0.3167]
    assert round(ranked_probability_score([[0.2, 0.5, 0.3]], [1]), 4) == 0.065


def test_scores_match_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    p, y = rng.random(200).round(1), rng.integers(0, 2, 200)
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y, p))
    assert area_under_curve(p, y) == pytest.approx(roc_auc_score(y, p))
    assert ranked_probability_score(np.column_stack([p, 1 - p]), 1 - y) == pytest.approx(brier_score(p, y))
    oracle = IsotonicRegression(out_of_bounds="clip").fit(p, y)
    new = rng.random(50)
    assert fit_isotonic(p, y.astype(float))(new) == pytest.approx(oracle.predict(new))


def test_ranked_probability_score_at_the_ends_of_the_scale() -> None:
    assert ranked_probability_score([[1, 0, 0]], [2]) == 1
    assert ranked_probability_score([[1, 0, 0]], [0]) == 0
    assert np.isnan(area_under_curve([0.1, 0.2], [1, 1]))


@pytest.mark.parametrize(("p", "y"), [([1.2], [1]), ([0.5], [2]), ([0.5, 0.5], [1]), ([], [])])
def test_values_out_of_range_are_errors(p: list[float], y: list[int]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is that of the shared checks
        brier_score(p, y)


def test_equal_probabilities_share_a_bin() -> None:
    bins = calibration_bins([0.9] * 6 + [0.1] * 6, [1] * 6 + [0] * 6, n_bins=10)
    assert bins.n.tolist() == [6, 6]
    assert bins.error() == pytest.approx(0.1)


def draw_calibrated(rng: np.random.Generator, n_chunks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw calibrated probabilities with outcomes that are correlated within a chunk."""
    p = np.repeat(rng.random(n_chunks), 4)
    y = (np.repeat(rng.random(n_chunks), 4) < p).astype(int)
    return p, y, np.arange(4 * n_chunks) // 4


def test_calibration_test_has_few_false_alarms_and_power() -> None:
    rng = np.random.default_rng(3)
    calibrated, overconfident = [], []
    for _ in range(150):
        p, y, chunks = draw_calibrated(rng, 80)
        calibrated.append(expected_calibration_error(p, y, chunks, n_resamples=300))
        overconfident_p = np.clip(p + 0.35 * np.sign(p - 0.5), 0.01, 0.99)
        overconfident.append(expected_calibration_error(overconfident_p, y, chunks, n_resamples=300))
    assert np.mean([error.p_value <= 0.05 for error in calibrated]) <= 0.09
    assert np.mean([error.p_value <= 0.05 for error in overconfident]) >= 0.7
    ratio = np.mean([error.value for error in calibrated]) / np.mean([error.expected for error in calibrated])
    assert 0.85 <= ratio <= 1.25


def test_cross_fitting_excludes_the_chunk_of_each_item() -> None:
    """The outcomes of one chunk contradict all others: a fit that used them would follow them."""
    p = np.array([0.2, 0.8] * 20)
    y = np.array([0, 1] * 20)
    chunks = np.arange(40) // 2
    y[:2] = [1, 0]
    fitted = cross_fitted(fit_threshold, p, y, chunks)
    assert fitted.tolist() == [0, 1] * 20
    assert cross_fitted(fit_isotonic, p, y, chunks, n_folds=20)[:2].tolist() == [0, 1]
    with pytest.raises(ValueError, match="2 clusters"):
        cross_fitted(fit_isotonic, p, y, np.zeros(40))


def test_59_items_without_an_error_certify_5_percent_and_58_do_not() -> None:
    """E11 of the catalogue."""
    for n, is_certified in ((59, True), (58, False)):
        result = escalation_threshold(np.full(n, 0.9), np.zeros(n, int), np.arange(n), max_error=0.05)
        assert (result.threshold <= 0.9) == is_certified
    result = escalation_threshold(np.full(59, 0.9), np.zeros(59, int), np.arange(59), max_error=0.05)
    assert (result.n, result.n_wrong, round(result.upper, 4)) == (59, 0, 0.0495)


def test_escalation_threshold_excludes_wrong_items() -> None:
    p = np.r_[np.full(100, 0.99), np.full(100, 0.7), np.full(100, 0.3)]
    wrong = np.r_[np.zeros(100), np.zeros(100), np.ones(100)].astype(int)
    result = escalation_threshold(p, wrong, np.arange(300), max_error=0.1)
    assert 0.3 < result.threshold <= 0.7
    assert (result.n, result.n_wrong) == (200, 0)
    assert escalation_threshold(p, 1 - wrong, np.arange(300)).threshold == np.inf
    assert escalation_threshold(p, np.zeros(300, int), np.arange(300)).threshold == 0
    with pytest.raises(ValueError, match="max_error"):
        escalation_threshold(p, wrong, np.arange(300), max_error=1.0)


def test_escalation_threshold_counts_items_by_the_inverse_of_their_probability() -> None:
    """Wrong items of which a tenth was drawn are two thirds of all, and a sixth of those that were labelled."""
    p, wrong, clusters = np.full(120, 0.9), np.repeat([0, 1], [100, 20]), np.arange(120)
    assert escalation_threshold(p, wrong, clusters, max_error=0.3).threshold <= 0.9
    drawn = np.repeat([1.0, 0.1], [100, 20])
    assert escalation_threshold(p, wrong, clusters, inclusion=drawn, max_error=0.3).threshold == np.inf
    right_by_chance = np.repeat([0.1, 1.0], [100, 20])
    weighted = escalation_threshold(p, wrong, clusters, inclusion=right_by_chance, max_error=0.1)
    assert (weighted.n, weighted.n_wrong) == (120, 20)
    assert 20 / 1020 < weighted.upper <= 0.1
    with pytest.raises(ValueError, match="inclusion"):
        escalation_threshold(p, wrong, clusters, inclusion=drawn - 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "size", "n_sims"), [(120, 1, 2000), (300, 1, 2000), (80, 4, 400)])
def test_escalation_error_bound_holds(n: int, size: int, n_sims: int) -> None:
    """At most 10 % of the kept letters are wrong, in at least 95 % of label sets of n chunks."""
    rng = np.random.default_rng(11)
    # the error falls with confidence, so that the mean error above a threshold is known
    grid = np.linspace(0, 1, 20001)
    risk = 0.01 + 0.5 * (1 - grid) ** 2
    n_within_bound = n_finite = 0
    kept_shares = []
    for _ in range(n_sims):
        p = rng.random(n * size)
        skill = np.repeat(rng.choice([-0.01, 0.01], n), size)
        wrong = (rng.random(n * size) < np.clip(0.01 + 0.5 * (1 - p) ** 2 + skill, 0, 1)).astype(int)
        result = escalation_threshold(p, wrong, np.arange(n * size) // size)
        true_error = risk[grid >= result.threshold].mean() if np.isfinite(result.threshold) else 0.0
        n_within_bound += true_error <= 0.1
        n_finite += np.isfinite(result.threshold)
        kept_shares.append(1 - result.threshold if np.isfinite(result.threshold) else 0.0)
    sys.stdout.write(
        f"{n} chunks of {size}: kept {n_within_bound / n_sims:.1%}, keeps {np.mean(kept_shares):.0%} of the letters\n"
    )
    assert n_within_bound / n_sims >= 0.95
    assert n_finite > 0


def test_best_threshold_weights_both_outcomes_equally() -> None:
    p = np.array([0.1, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert best_threshold(p, np.array([0, 0, 1, 1, 1, 1, 1.0])) == pytest.approx(0.45)
    assert best_threshold(np.array([0.5, 0.5]), np.array([0, 1.0])) == 0.5
