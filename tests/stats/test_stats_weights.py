"""Samples that were drawn with different probabilities: estimates for the population that they come from."""

import numpy as np
import pytest
from pytest import approx  # noqa: PT013

from qaeval.corpus.sampling import draw
from qaeval.files.spool import SpooledRows
from qaeval.records import Chunk, Sample
from qaeval.stats.correction import corrected_difference, corrected_rate
from qaeval.stats.intervals import clustered_rate
from qaeval.stats.paired import effective_number, paired_difference, weighted_difference

SIZES = {"large": 900, "medium": 90, "small": 30}
RATES = {"large": (0.95, 0.9), "medium": (0.5, 0.6), "small": (0.1, 0.4)}
"""Usable rate of two candidates by stratum; b is 5 points worse in the stratum that holds nearly all chunks."""
ITEMS = 3
N_DRAWN = 90


def test_the_effective_number_is_that_of_equal_weights_with_the_same_error() -> None:
    assert effective_number([2.0, 2.0, 2.0]) == approx(3)
    # the square of 4 over 10
    assert effective_number([3.0, 1.0]) == approx(1.6)
    with pytest.raises(ValueError, match="above 0"):
        effective_number([1.0, 0.0])


def test_a_weighted_difference_is_the_weighted_mean_and_weights_count_by_ratio() -> None:
    rng = np.random.default_rng(0)
    d, w = rng.integers(-3, 4, size=40) / 3, rng.integers(1, 6, size=40).astype(float)
    estimate = weighted_difference(d, w)
    assert estimate.value == approx((w * d).sum() / w.sum())
    assert estimate.low < estimate.value < estimate.high
    scaled, mirrored = weighted_difference(d, 7 * w), weighted_difference(-d, w)
    assert (scaled.low, scaled.high) == approx((estimate.low, estimate.high))
    assert (mirrored.low, mirrored.high) == approx((-estimate.high, -estimate.low))


def test_equal_weights_give_nearly_the_interval_without_weights() -> None:
    d = np.random.default_rng(1).integers(-3, 4, size=60) / 3
    plain, weighted = paired_difference(np.zeros(60), d), weighted_difference(d, np.ones(60))
    # each residual is larger by one part in 60: its chunk pulls the mean towards itself
    assert (weighted.low, weighted.high) == approx((plain.low, plain.high), abs=0.01)


def test_chunks_of_great_weight_that_are_all_equal_prove_no_precision() -> None:
    # ten chunks stand for 90 % of the population and tie; how many of those that were not drawn do is not known
    d, w = np.array([0.0] * 10 + [1 / 3, -1 / 3, 1 / 3] * 10), np.array([27.0] * 10 + [1.0] * 30)
    estimate = weighted_difference(d, w)
    assert estimate.high - estimate.low > 0.2
    assert estimate.reason == "the probabilities of being drawn differ so much that the interval is rough"


@pytest.mark.parametrize(
    ("differences", "weights", "message"),
    [([2.0], [1.0], "between -1 and 1"), ([0.5], [-1.0], "above 0"), ([0.5, 0.1], [1.0], "lengths differ")],
)
def test_values_out_of_range_are_errors(differences: list[float], weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weighted_difference(differences, weights)


def test_labels_of_weighted_chunks_are_weighted_by_the_product() -> None:
    rng = np.random.default_rng(2)
    judged, labels = rng.integers(-3, 4, size=30) / 3, rng.integers(-3, 4, size=30) / 3
    labelled = np.where(np.arange(30) % 2, labels, np.nan)
    weights, inclusion = rng.integers(1, 5, size=30).astype(float), np.where(np.arange(30) % 3, 0.5, 0.25)
    known = ~np.isnan(labelled)
    product = weights[known] / inclusion[known]
    result = corrected_difference(judged, labelled, inclusion=inclusion, weights=weights)
    assert result.labels.value == approx((product * labelled[known]).sum() / product.sum())
    assert np.isnan(result.p_labels)


def test_a_corrected_rate_weighs_letters_and_labels() -> None:
    # letter 0 by the judge: weights 1, 1, 4; letter 1: weights 2, 2; labels of items 0, 1 and 3
    judged = np.repeat([[0, 0, 0, 1, 1]], 20, axis=0).ravel()
    labelled = np.repeat([[0, 1, np.nan, 1, np.nan]], 20, axis=0).ravel()
    weights, inclusion = np.tile([1.0, 3.0, 4.0, 2.0, 2.0], 20), np.tile([0.5, 0.25, 0.5, 0.5, 0.5], 20)
    clusters = np.repeat(np.arange(20), 5)
    result = corrected_rate(
        judged, labelled, clusters, n_levels=2, weights=weights, inclusion=inclusion
    ).corrected
    # of letter 0, with 8 of 12 parts of the weight, labels say 2 / (2 + 12); of letter 1 they say 0
    assert result.value == approx(8 / 12 * 2 / 14)
    complete = corrected_rate(judged, judged, clusters, n_levels=2, weights=weights).estimate
    assert complete.value == approx(8 / 12)


def _population(rng: np.random.Generator) -> tuple[SpooledRows[Sample], dict[str, np.ndarray]]:
    """Make chunks of three strata with items of two candidates, which are alike within a chunk; hits by sample id."""
    samples, hits = SpooledRows(Sample), {}
    for stratum, size in SIZES.items():
        for number in range(size):
            sample = Sample.of(Chunk(chunk_id=f"{stratum}-{number}", text="x", stratum=stratum))
            samples.append(sample)
            p = np.array(RATES[stratum])
            hits[sample.sample_id] = rng.binomial(ITEMS, rng.beta(4 * p, 4 * (1 - p)))
    return samples, hits


@pytest.mark.slow
def test_weighted_estimates_are_unbiased_and_cover_where_unweighted_ones_do_not() -> None:
    rng = np.random.default_rng(20)
    samples, hits = _population(rng)
    all_hits = np.array([hits[sample.sample_id] for sample in samples])
    rate, difference = np.array([all_hits[:, 0].mean(), np.diff(all_hits).mean()]) / ITEMS
    n_runs = 400
    values, covered = np.zeros((n_runs, 4)), np.zeros((n_runs, 4), dtype=bool)
    for run in range(n_runs):
        drawn = draw(samples, n=N_DRAWN, seed=run, allocation="equal")
        a, b = np.array([hits[sample.sample_id] for sample in drawn]).T
        w, d = np.array([sample.weight for sample in drawn]), (b - a) / ITEMS
        w = w / w.mean()
        estimates = (
            clustered_rate(w * a, w * ITEMS),
            clustered_rate(a, np.full(N_DRAWN, ITEMS)),
            weighted_difference(d, w),
            paired_difference(a / ITEMS, b / ITEMS),
        )
        values[run] = [estimate.value for estimate in estimates]
        truths = (rate, rate, difference, difference)
        covered[run] = [e.low <= truth <= e.high for e, truth in zip(estimates, truths, strict=True)]
    error = values.std(axis=0) / np.sqrt(n_runs)
    bias = values.mean(axis=0) - [rate, rate, difference, difference]
    assert (np.abs(bias[[0, 2]]) < 3 * error[[0, 2]]).all(), "weighted estimates are unbiased"
    assert (np.abs(bias[[1, 3]]) > 0.1).all(), "the sample has another rate than the documents"
    assert (covered.mean(axis=0)[[0, 2]] >= 0.93).all()
    assert (covered.mean(axis=0)[[1, 3]] < 0.5).all()
