"""The same numbers from scikit-learn, statsmodels and scipy, on data that Hypothesis makes up."""

from unittest.mock import patch

import numpy as np
import pytest
import scipy
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pytest import approx  # noqa: PT013

from qaeval.stats.coefficients import balanced_accuracy
from qaeval.stats.homogeneity import stuart_maxwell
from qaeval.stats.intervals import clopper_pearson, clustered_mean, wilson
from qaeval.stats.margins import equivalence
from qaeval.stats.multirater import multirater_coefficient
from qaeval.stats.paired import holm, sign_flip_test
from qaeval.stats.reliability import cohen_kappa, confusion_matrix

ORACLE = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))

PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)
TABLES = st.lists(st.integers(0, 30), min_size=9, max_size=9).map(lambda cells: np.reshape(cells, (3, 3)))
FULL_TABLES = st.lists(st.integers(1, 30), min_size=9, max_size=9).map(
    lambda cells: np.reshape(cells, (3, 3))
)
COUNTS = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@ORACLE
@given(PAIRS, st.sampled_from([None, "linear", "quadratic"]))
def test_kappa_matches_scikit_learn(pairs: list[tuple[int, int]], weights: str | None) -> None:
    from sklearn import metrics

    a, b = zip(*pairs, strict=True)
    assume(len({*a, *b}) > 1)
    theirs = metrics.cohen_kappa_score(a, b, labels=[0, 1, 2], weights=weights)
    assert cohen_kappa(a, b, n_levels=3, weights=weights) == approx(theirs)


@ORACLE
@given(PAIRS)
def test_balanced_accuracy_matches_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import balanced_accuracy_score

    a, b = zip(*pairs, strict=True)
    assume(set(b) <= set(a) and len(set(a)) > 1)
    table = confusion_matrix(a, b, 3)
    assert float(balanced_accuracy(table)) == approx(balanced_accuracy_score(a, b))


@ORACLE
@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=2, max_size=20))
def test_fleiss_matches_statsmodels(ratings: list[list[int]]) -> None:
    from statsmodels.stats.inter_rater import fleiss_kappa

    counts = np.array([[row.count(level) for level in range(3)] for row in ratings])
    assume((counts.sum(axis=0) > 0).sum() > 1)
    assert multirater_coefficient(counts).value == approx(fleiss_kappa(counts))
    randolph = multirater_coefficient(counts, coefficient="brennan_prediger").value
    assert randolph == approx(fleiss_kappa(counts, method="randolph"))


@ORACLE
@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_of_rates_match_statsmodels(count: tuple[int, int], level: float) -> None:
    from statsmodels.stats.proportion import proportion_confint

    k, n = count
    for interval, name in ((wilson, "wilson"), (clopper_pearson, "beta")):
        ours = interval(k, n, level=level)
        assert (ours.low, ours.high) == approx(proportion_confint(k, n, 1 - level, name), abs=1e-12)


@ORACLE
@given(FULL_TABLES)
def test_homogeneity_matches_statsmodels(table: np.ndarray) -> None:
    from statsmodels.stats.contingency_tables import SquareTable

    theirs = SquareTable(table, shift_zeros=False)
    assume(np.linalg.matrix_rank(theirs.table + theirs.table.T) > 0)
    expected = theirs.homogeneity(method="stuart_maxwell")
    assert stuart_maxwell(table).statistic == approx(expected.statistic, rel=1e-7, abs=1e-9)
    assert stuart_maxwell(table).p_value == approx(expected.pvalue, rel=1e-6, abs=1e-12)


@ORACLE
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_matches_statsmodels(p_values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    with patch("gc.collect"):  # it collects garbage at each call, 0.2 s
        theirs = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == approx(theirs)


@pytest.mark.slow
@ORACLE
@given(st.integers(0, 2**31))
def test_clustered_mean_matches_a_regression(seed: int) -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 15, 80)
    values = rng.normal(size=80) + clusters / 5
    g = len(np.unique(clusters))
    # statsmodels' correction is G/(G-1) times (n-1)/(n-k), which is 1 for a mean
    fit = sm.OLS(values, np.ones(80)).fit(
        cov_type="cluster", cov_kwds={"groups": np.unique(clusters, return_inverse=True)[1]}, use_t=True
    )
    ours = clustered_mean(values, clusters)
    assert g >= 10
    assert (ours.low, ours.high) == approx(tuple(fit.conf_int()[0]))


@ORACLE
@given(st.integers(0, 2**31))
def test_tost_matches_statsmodels(seed: int) -> None:
    from statsmodels.stats.weightstats import ttost_paired

    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 25))
    p_value, (_, p_low, _), (_, p_high, _) = ttost_paired(b, a, -0.5, 0.5)
    ours = equivalence(a, b, low=-0.5, high=0.5, span=None)
    assert (ours.p_value, ours.p_low, ours.p_high) == approx((p_value, p_low, p_high))


@ORACLE
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=10))
def test_sign_flips_match_scipys_permutation_test(steps: list[int]) -> None:
    theirs = scipy.stats.permutation_test(
        (np.array(steps),), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="greater"
    )
    assert sign_flip_test(np.array(steps) / 3, alternative="greater") == approx(theirs.pvalue)
