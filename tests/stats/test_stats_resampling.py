"""Jackknife and bootstrap over clusters."""

import time

import numpy as np
import pytest
from pytest import approx  # noqa: PT013

from figures import Bar
from qaeval.stats.coefficients import gwet_ac, kappa, scott_pi
from qaeval.stats.reliability import cluster_tables, kappa_difference, kappa_interval
from qaeval.stats.resampling import (
    Clusters,
    acceleration,
    cluster_bootstrap,
    cluster_bootstrap_all,
    jackknife,
    jackknife_se,
    left_out_values,
    resampled_totals,
)

# Efron and Tibshirani 1993: spatial test data, neurologically impaired children
SPATIAL = np.array(
    [48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41.0]
)
MOMENTS = np.stack([np.ones(26), SPATIAL, SPATIAL**2], axis=1)


def variance(totals: np.ndarray) -> np.ndarray:
    return totals[:, 2] / totals[:, 0] - (totals[:, 1] / totals[:, 0]) ** 2


def mean(totals: np.ndarray) -> np.ndarray:
    return totals[:, 1] / totals[:, 0]


def letters(n_chunks: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.choice(3, 3 * n_chunks, p=[0.6, 0.3, 0.1])
    b = np.where(rng.random(len(a)) < 0.7, a, rng.integers(0, 3, len(a)))
    return a, b, np.repeat(np.arange(n_chunks), 3)


def test_efron_and_tibshiranis_variance_and_acceleration() -> None:
    clusters = Clusters.of(MOMENTS)
    assert variance(clusters.total[None])[0] == approx(171.534, abs=5e-4)
    assert acceleration(left_out_values(variance, clusters), clusters.multiplicity) == approx(
        0.0612, abs=5e-5
    )


@pytest.mark.parametrize(("method", "low", "high"), [("bca", 115.8, 259.6), ("percentile", 100.8, 233.9)])
def test_efron_and_tibshiranis_intervals(method: str, low: float, high: float) -> None:
    # published from 2000 resamples, so within 4; the limits of many are (115.7, 261.4) and (97.8, 234.5)
    rng = np.random.default_rng(1)
    result = cluster_bootstrap(
        variance, MOMENTS, rng=rng, n=26, method=method, n_resamples=200_000, level=0.90
    )
    assert (result.low, result.high) == approx((low, high), abs=4)


def test_jackknife_error_of_a_mean_is_the_usual_one() -> None:
    assert jackknife_se(mean, Clusters.of(MOMENTS)) == approx(SPATIAL.std(ddof=1) / np.sqrt(26))


def test_jackknife_of_kappa_leaves_out_each_cluster() -> None:
    a, b, chunks = letters(25)
    tables = cluster_tables(a, b, chunks, n_levels=3)
    left = np.array([kappa(np.delete(tables, g, axis=0).sum(axis=0)) for g in range(25)])
    se = np.sqrt(24 / 25 * ((left - left.mean()) ** 2).sum())
    plain = jackknife(kappa, tables, n=75)
    assert plain.high - plain.value == approx(2.0638986 * se)
    bent, value = kappa_interval(a, b, chunks, n_levels=3), plain.value
    assert bent.low == approx(np.tanh(np.arctanh(value) - 2.0638986 * se / (1 - value**2)))


def test_the_same_seed_gives_the_same_interval() -> None:
    a, b, chunks = letters(40)
    first, second = (
        kappa_interval(a, b, chunks, n_levels=3, method="bca", rng=np.random.default_rng(5), n_resamples=500)
        for _ in range(2)
    )
    assert first == second


def test_batches_do_not_change_the_number_of_resamples() -> None:
    clusters = Clusters.of(MOMENTS)
    batches = list(resampled_totals(clusters, rng=np.random.default_rng(1), n_resamples=300_000))
    assert len(batches) > 1
    assert sum(map(len, batches)) == 300_000
    assert all((batch[:, 0] == 26).all() for batch in batches)


def test_equal_clusters_are_gathered() -> None:
    clusters = Clusters.of([[1, 0], [0, 1], [1, 0], [1, 0]])
    assert clusters.multiplicity.tolist() == [1, 3]
    assert clusters.total.tolist() == [3, 1]
    assert clusters.n_clusters == 4


def test_bootstrap_without_spread_says_so() -> None:
    same = np.tile([1.0, 2.0, 4.0], (20, 1))
    result = cluster_bootstrap(mean, same, rng=np.random.default_rng(1), n=20, n_resamples=50)
    assert result.value == 2
    assert "the same value" in str(result.reason)
    assert "no cluster changes" in str(jackknife(mean, same, n=20).reason)


def test_bootstrap_that_often_has_no_value_says_so() -> None:
    # kappa vanishes when the one cluster with another letter is left out
    tables = np.zeros((20, 2, 2))
    tables[:, 0, 0] = 3
    tables[0] = [[1, 0], [0, 2]]
    result = cluster_bootstrap(kappa, tables, rng=np.random.default_rng(1), n=60, n_resamples=200)
    assert "have no value" in str(result.reason)
    assert "without one of" in str(jackknife(kappa, tables, n=60).reason)


def test_bca_does_not_exist_when_all_resamples_are_on_one_side() -> None:
    def largest(totals: np.ndarray) -> np.ndarray:
        return (totals > 0).sum(axis=1).astype(float)

    contributions = np.eye(12)
    result = cluster_bootstrap(largest, contributions, rng=np.random.default_rng(1), n=12, n_resamples=200)
    assert "one side" in str(result.reason)


def test_few_clusters_give_a_value_only() -> None:
    a, b, chunks = letters(9)
    for method in ("jackknife", "bca"):
        result = kappa_interval(a, b, chunks, n_levels=3, method=method, rng=np.random.default_rng(1))
        assert result.is_defined
        assert "fewer than 10" in str(result.reason)


def test_perfect_agreement_in_few_clusters_has_neither_end_of_an_interval() -> None:
    a, _, chunks = letters(9)
    result = kappa_interval(a, a, chunks, n_levels=3)
    assert (result.value, result.has_interval) == (1, False)
    assert np.isnan([result.low, result.high]).all()


def test_kappa_difference_of_two_judges() -> None:
    a, b, chunks = letters(60)
    worse = np.where(np.arange(len(b)) % 4 == 0, (b + 1) % 3, b)
    result = kappa_difference(a, b, worse, chunks, n_levels=3)
    better, poorer = (kappa_interval(a, judge, chunks, n_levels=3).value for judge in (b, worse))
    assert result.value == approx(poorer - better)
    assert result.high < 0
    assert "no cluster changes" in str(kappa_difference(a, b, b, chunks, n_levels=3).reason)


def test_kappa_difference_weights_items_by_the_inverse_of_their_probability() -> None:
    a, b, chunks = letters(60)
    worse = np.where(np.arange(len(b)) % 4 == 0, (b + 1) % 3, b)
    drawn = np.where(np.arange(len(b)) % 4 == 0, 0.2, 0.8)
    kappas = [kappa_interval(a, judge, chunks, n_levels=3, inclusion=drawn).value for judge in (b, worse)]
    result = kappa_difference(a, b, worse, chunks, n_levels=3, inclusion=drawn)
    assert result.value == approx(kappas[1] - kappas[0])
    assert result.value < kappa_difference(a, b, worse, chunks, n_levels=3).value


@pytest.mark.parametrize("size", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_a_million_letters_are_quick(size: int, bar: Bar) -> None:
    rng = np.random.default_rng(0)
    n = 1_000_000
    a = rng.choice(3, n, p=[0.7, 0.2, 0.1])
    b = np.where(rng.random(n) < 0.8, a, rng.integers(0, 3, n))
    start = time.process_time()
    tables = cluster_tables(a, b, np.arange(n) // size, n_levels=3)
    coefficients = {"kappa": kappa, "scott_pi": scott_pi, "gwet_ac": gwet_ac}
    results = cluster_bootstrap_all(coefficients, tables, rng=rng, n=n, n_resamples=2000)
    bar(f"a million letters in chunks of {size}, CPU s", time.process_time() - start, 20)
    assert all(result.has_interval for result in results.values())


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no clusters to resample"):
        Clusters.of(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="must be finite"):
        Clusters.of([[np.nan]])
    with pytest.raises(ValueError, match="method must be"):
        cluster_bootstrap(mean, MOMENTS, rng=np.random.default_rng(1), n=26, method="basic")
    with pytest.raises(ValueError, match="needs rng"):
        kappa_interval([0, 1], [0, 0], [0, 1], n_levels=2, method="bca")
