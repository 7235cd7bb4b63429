"""Properties that statistics share. A public function that stands in no table below fails the suite."""

import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest import approx  # noqa: PT013

import qaeval.stats
from qaeval.stats import coefficients as co
from qaeval.stats import homogeneity as ho
from qaeval.stats import reliability as re
from qaeval.stats.bounds import agreement_bounds
from qaeval.stats.estimate import Estimate
from qaeval.stats.intervals import (
    clopper_pearson,
    clustered_mean,
    clustered_rate,
    clustered_ratio,
    wilson,
)
from qaeval.stats.margins import equivalence, non_inferiority
from qaeval.stats.multirater import (
    fleiss_interval,
    krippendorff_alpha,
    krippendorff_interval,
    multirater_coefficient,
)
from qaeval.stats.paired import paired_difference, sign_flip_test, weighted_difference
from qaeval.stats.ranking import bradley_terry, bradley_terry_bootstrap
from qaeval.stats.resampling import cluster_bootstrap, cluster_bootstrap_all, jackknife

Table = np.ndarray
EXACT = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
TABLES = (
    st.lists(st.integers(0, 25), min_size=9, max_size=9)
    .filter(any)
    .map(lambda cells: np.reshape(cells, (3, 3)))
)
TWO_BY_TWO = (
    st.lists(st.integers(0, 25), min_size=4, max_size=4)
    .filter(any)
    .map(lambda cells: np.reshape(cells, (2, 2)))
)


# --- statistics of one confusion table -------------------------------------------------------------------


@dataclass(frozen=True)
class Of:
    """What a statistic of a table is expected to do."""

    function: Callable[[Table], object]
    low: float = -1.0
    swap: int = 1
    """1: swapping the raters changes nothing; -1: it changes the sign; 0: neither."""
    permute: int = 1
    """1: renaming the letters changes nothing; 0: only reversing them may be free."""
    reverse: int = 1
    """1: reversing the scale changes nothing; -1: it changes the sign."""
    two_levels: bool = False


COEFFICIENTS: dict[str, Callable[[Table], np.ndarray]] = {
    "agreement": co.weighted_agreement,
    "kappa": co.kappa,
    "kappa_linear": partial(co.kappa, weights="linear"),
    "kappa_quadratic": partial(co.kappa, weights="quadratic"),
    "scott_pi": co.scott_pi,
    "brennan_prediger": co.brennan_prediger,
    "gwet_ac1": co.gwet_ac,
    "gwet_ac2_linear": partial(co.gwet_ac, weights="linear"),
    "gwet_ac2_quadratic": partial(co.gwet_ac, weights="quadratic"),
    "balanced_accuracy": co.balanced_accuracy,
}

TABLE_STATISTICS = {
    "agreement": Of(co.weighted_agreement, low=0),
    "kappa": Of(co.kappa),
    "kappa_linear": Of(COEFFICIENTS["kappa_linear"], permute=0),
    "kappa_quadratic": Of(COEFFICIENTS["kappa_quadratic"], permute=0),
    "scott_pi": Of(co.scott_pi),
    "brennan_prediger": Of(co.brennan_prediger),
    "gwet_ac1": Of(co.gwet_ac),
    "gwet_ac2_linear": Of(COEFFICIENTS["gwet_ac2_linear"], permute=0),
    "gwet_ac2_quadratic": Of(COEFFICIENTS["gwet_ac2_quadratic"], permute=0),
    "balanced_accuracy": Of(co.balanced_accuracy, low=0, swap=0),
    "expected_agreement": Of(co.expected_agreement, low=0),
    "bias_index": Of(co.bias_index, swap=-1, reverse=-1, permute=0, two_levels=True),
    "prevalence_index": Of(co.prevalence_index, reverse=-1, permute=0, two_levels=True),
    "kappa_max": Of(lambda t: agreement_bounds(t.sum(axis=1), t.sum(axis=0)).kappa_max),
    "kappa_min": Of(lambda t: agreement_bounds(t.sum(axis=1), t.sum(axis=0)).kappa_min),
}


def same(first: object, second: object, sign: int = 1) -> bool:
    return float(first) == approx(sign * float(second), abs=1e-9, nan_ok=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TABLE_STATISTICS)
@EXACT
@given(data=st.data())
def test_table_statistics_keep_their_promises(name: str, data: st.DataObject) -> None:
    entry = TABLE_STATISTICS[name]
    table = data.draw(TWO_BY_TWO if entry.two_levels else TABLES)
    order = data.draw(st.permutations(range(len(table))))
    value = entry.function(table)
    assert np.isnan(value) or entry.low - 1e-9 <= value <= 1 + 1e-9
    assert same(entry.function(table[::-1, ::-1]), value, entry.reverse)
    if entry.swap:
        assert same(entry.function(table.T), value, entry.swap)
    if entry.permute:
        assert same(entry.function(table[np.ix_(order, order)]), value)
    assert same(entry.function(3 * table), value)


@EXACT
@given(TABLES)
def test_specific_agreement_follows_the_letters(table: np.ndarray) -> None:
    order = [2, 0, 1]
    values = co.specific_agreement(table)
    assert co.specific_agreement(table.T) == approx(values, nan_ok=True)
    assert co.specific_agreement(table[np.ix_(order, order)]) == approx(values[order], nan_ok=True)
    assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()


@EXACT
@given(st.lists(TABLES, min_size=1, max_size=4))
def test_stacked_tables_give_stacked_values(tables: list[np.ndarray]) -> None:
    for name, statistic in COEFFICIENTS.items():
        alone = [float(statistic(table)) for table in tables]
        assert np.asarray(statistic(np.stack(tables))) == approx(alone, nan_ok=True), name


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_a_table_without_items_has_no_value(name: str) -> None:
    assert np.isnan(COEFFICIENTS[name](np.zeros((1, 3, 3)))[0])


def test_the_agreement_table_is_covered() -> None:
    assert set(COEFFICIENTS) <= set(TABLE_STATISTICS)


# --- estimates from clustered items ----------------------------------------------------------------------


def letters(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    chunks = np.repeat(np.arange(30), 3)
    reference = rng.choice(3, 90, p=[0.5, 0.3, 0.2])
    judge = np.where(rng.random(90) < 0.35, reference, rng.integers(0, 3, 90))
    return reference, judge, chunks


def per_chunk(a: np.ndarray, chunks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, codes = np.unique(chunks, return_inverse=True)
    return np.bincount(codes, weights=a == 0), np.bincount(codes).astype(float)


def ratings(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([a, b], axis=1)


def clustered_table(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return re.cluster_tables(a, b, c, n_levels=3)


def mean_difference(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Estimate:
    (wins_a, n), (wins_b, _) = per_chunk(a, c), per_chunk(b, c)
    return paired_difference(wins_a / n, wins_b / n)


def difference_by_weight(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Estimate:
    (wins_a, n), (wins_b, _) = per_chunk(a, c), per_chunk(b, c)
    return weighted_difference(wins_b / n - wins_a / n, n + wins_a)


def ranked(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Estimate:
    tables = clustered_table(a, b, c).astype(float)
    return bradley_terry_bootstrap(tables, rng=np.random.default_rng(1), n_resamples=300)[0].strength


def bootstrapped(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Estimate:
    return cluster_bootstrap(
        co.kappa, clustered_table(a, b, c), rng=np.random.default_rng(1), n=len(a), n_resamples=400
    )


CLUSTERED: dict[str, tuple[Callable[..., Estimate], float, float]] = {
    "clustered_rate": (lambda a, _, c: clustered_rate(*per_chunk(a, c)), 0, 1),
    "clustered_mean": (lambda a, _, c: clustered_mean(a, c), 0, 2),
    "clustered_ratio": (lambda a, _, c: clustered_ratio(*per_chunk(a, c)), 0, 1),
    "paired_difference": (mean_difference, -1, 1),
    "weighted_difference": (difference_by_weight, -1, 1),
    "jackknife": (lambda a, b, c: jackknife(co.kappa, clustered_table(a, b, c), n=len(a)), -1, 1),
    "cluster_bootstrap": (bootstrapped, -1, 1),
    "cluster_bootstrap_all": (
        lambda a, b, c: cluster_bootstrap_all(
            COEFFICIENTS,
            clustered_table(a, b, c),
            rng=np.random.default_rng(1),
            n=len(a),
            n_resamples=400,
        )["gwet_ac1"],
        -1,
        1,
    ),
    "kappa_interval": (lambda a, b, c: re.kappa_interval(a, b, c, n_levels=3), -1, 1),
    "kappa_difference": (
        lambda a, b, c: re.kappa_difference(a, b, (b + (c % 3 == 0)) % 3, c, n_levels=3),
        -2,
        2,
    ),
    "agreement_rate": (lambda a, b, c: re.agreement_rate(a, b, c, n_levels=3), 0, 1),
    "letter_accuracy": (lambda a, b, c: re.letter_accuracy(a, b, c, n_levels=3)[0].recall, 0, 1),
    "leniency": (lambda a, b, c: re.leniency(a, b, c, n_levels=3), -1, 1),
    "krippendorff_interval": (lambda a, b, c: krippendorff_interval(ratings(a, b), c, n_levels=3), -1, 1),
    "fleiss_interval": (lambda a, b, c: fleiss_interval(ratings(a, b), c, n_levels=3), -1, 1),
    "lift_over_majority": (lambda a, b, c: re.lift_over_majority(a, b, c, n_levels=3), -1, 1),
    "bradley_terry_bootstrap": (ranked, -np.inf, np.inf),
    "non_inferiority": (
        lambda a, b, c: (
            non_inferiority(*(np.divide(*per_chunk(x, c)) for x in (a, b)), margin=0.1).difference
        ),
        -1,
        1,
    ),
    "equivalence": (
        lambda a, b, c: (
            equivalence(*(np.divide(*per_chunk(x, c)) for x in (a, b)), low=-0.1, high=0.1).difference
        ),
        -1,
        1,
    ),
}


@pytest.mark.parametrize("name", CLUSTERED)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clustered_estimates_lie_in_their_interval_and_range(name: str, seed: int) -> None:
    function, low, high = CLUSTERED[name]
    estimate = function(*letters(seed))
    assert estimate.reason is None
    assert low <= estimate.low < estimate.value < estimate.high <= high
    assert estimate.n_clusters == 30 or name == "letter_accuracy"


@pytest.mark.parametrize("name", CLUSTERED)
def test_names_and_order_of_clusters_do_not_matter(name: str) -> None:
    function = CLUSTERED[name][0]
    a, b, chunks = letters(4)
    shuffled = np.random.default_rng(0).permutation(90)
    renamed = np.array([f"chunk {2 * (29 - c) + 100}" for c in chunks])
    if name == "kappa_difference":  # its second judge is made from the cluster's number
        renamed = (chunks * 3 + chunks % 3).astype(int) + 300
    first, second = function(a, b, chunks), function(a[shuffled], b[shuffled], renamed[shuffled])
    assert first.value == approx(second.value)
    # resampled intervals use the distinct clusters in sorted order, so even they stay the same
    assert (first.low, first.high) == approx((second.low, second.high))


@pytest.mark.parametrize("name", CLUSTERED)
def test_four_times_the_clusters_halve_the_interval(name: str) -> None:
    function = CLUSTERED[name][0]
    a, b, chunks = letters(5)
    once = function(a, b, chunks)
    more = function(np.tile(a, 4), np.tile(b, 4), np.concatenate([chunks + 30 * i for i in range(4)]))
    assert more.value == approx(once.value, abs=0.02 if name == "krippendorff_interval" else 1e-6)
    assert (once.high - once.low) / (more.high - more.low) == approx(2, rel=0.2)


@pytest.mark.parametrize("name", CLUSTERED)
def test_repeating_items_inside_their_clusters_adds_no_certainty(name: str) -> None:
    function = CLUSTERED[name][0]
    a, b, chunks = letters(6)
    once, more = function(a, b, chunks), function(np.tile(a, 4), np.tile(b, 4), np.tile(chunks, 4))
    # Krippendorff's alpha has a small-sample term in the number of letters
    tolerance = 0.02 if name == "krippendorff_interval" else 1e-6
    assert more.value == approx(once.value, abs=tolerance)
    assert more.high - more.low == approx(
        once.high - once.low, rel=0.05 if "bootstrap" in name else tolerance
    )


@pytest.mark.parametrize("name", CLUSTERED)
def test_too_few_clusters_are_refused_an_interval(name: str) -> None:
    a, b, chunks = letters(7)
    estimate = CLUSTERED[name][0](a[:27], b[:27], chunks[:27])
    assert not estimate.has_interval
    assert estimate.reason is not None


# --- tests: a p-value that does not depend on who is first -------------------------------------------------

P_VALUES: dict[str, Callable[[Table], float]] = {
    "stuart_maxwell": lambda t: ho.stuart_maxwell(t).p_value,
    "clustered_homogeneity": lambda t: ho.clustered_homogeneity([t, t[::-1], t.T @ t, t + 1]).p_value,
    "sign_flip_test": lambda t: sign_flip_test((t - t.T)[np.triu_indices(3, 1)] / 3),
}


@pytest.mark.parametrize("name", P_VALUES)
@EXACT
@given(table=TABLES)
def test_p_values_are_probabilities_and_do_not_depend_on_the_order(name: str, table: np.ndarray) -> None:
    p_value = P_VALUES[name](table)
    assert np.isnan(p_value) or 0 <= p_value <= 1
    if name != "clustered_homogeneity":
        assert same(P_VALUES[name](table.T), p_value)


@EXACT
@given(st.lists(TABLES, min_size=5, max_size=9))
def test_clustered_homogeneity_does_not_depend_on_the_order(tables: list[np.ndarray]) -> None:
    stack = np.stack(tables)
    for method in ("hotelling", "stuart-maxwell"):
        first, second = (
            ho.clustered_homogeneity(t, method=method).p_value for t in (stack, stack.transpose(0, 2, 1))
        )
        assert first == approx(second, abs=1e-6, nan_ok=True)


# --- intervals of counts: mirrored when successes and failures swap ----------------------------------------

MIRRORED: dict[str, Callable[..., Estimate]] = {
    "wilson": wilson,
    "clopper_pearson": clopper_pearson,
}


@pytest.mark.parametrize("name", MIRRORED)
@EXACT
@given(st.integers(1, 200), st.data())
def test_intervals_of_rates_are_mirrored(name: str, n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    first, second = MIRRORED[name](k, n), MIRRORED[name](n - k, n)
    assert (first.low, first.high) == approx((1 - second.high, 1 - second.low), abs=1e-9)
    assert 0 <= first.low <= first.value <= first.high <= 1


# --- several raters: their order does not matter -----------------------------------------------------------

RATINGS = st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=4, max_size=15).map(np.array)
MANY: dict[str, Callable[[np.ndarray], float]] = {
    "krippendorff_alpha": lambda r: krippendorff_alpha(r, n_levels=3),
    "multirater_coefficient": lambda r: (
        multirater_coefficient(np.stack([(r == k).sum(axis=1) for k in range(3)], axis=1)).value
    ),
}


@pytest.mark.parametrize("name", MANY)
@EXACT
@given(ratings=RATINGS)
def test_the_order_of_raters_and_items_does_not_matter(name: str, ratings: np.ndarray) -> None:
    value = MANY[name](ratings)
    assert np.isnan(value) or value <= 1 + 1e-12
    assert same(MANY[name](ratings[:, [2, 0, 1]]), value)
    assert same(MANY[name](ratings[::-1]), value)


@EXACT
@given(st.lists(st.integers(1, 9), min_size=6, max_size=6))
def test_bradley_terry_turns_round_with_the_wins(cells: list[int]) -> None:
    wins = np.zeros((3, 3))
    wins[~np.eye(3, dtype=bool)] = cells
    assert bradley_terry(wins.T) == approx(-bradley_terry(wins), abs=1e-8)
    assert bradley_terry(wins[::-1, ::-1]) == approx(bradley_terry(wins)[::-1], abs=1e-8)


# --- nothing is forgotten ----------------------------------------------------------------------------------

IN_TABLES = {
    *CLUSTERED, *P_VALUES, *MIRRORED, *MANY,
    "weighted_agreement", "kappa", "scott_pi", "brennan_prediger", "gwet_ac", "balanced_accuracy",
    "expected_agreement", "bias_index", "prevalence_index", "specific_agreement", "agreement_bounds", "bradley_terry",
}  # fmt: skip
TESTED_BY_EXAMPLE = {
    # thin forms of the above over letters
    "decide_by_labels", "expected_width", "cohen_kappa", "majority_baseline", "confusion_matrix", "cluster_tables",
    # published numbers and planning have no symmetry to test
    "check_published", "compatible_tables", "grim", "grim_counts", "kappa_from_agreement",
    "chunks_needed", "design_effect", "detectable_difference", "icc1", "plan", "simulated_power",
    "reached_power", "holm", "alpha_from_coincidences", "agreeing_with_test",
    # what holds at every look
    "deadline_bets", "decision_bets", "sequential_looks", "corrected_looks",
    # chunks that stand for different numbers of others: test_stats_weights.py
    "effective_number",
    # labels of some chunks
    "corrected_difference", "corrected_rate", "differential_error", "rogan_gladen", "letter_shares",
    "neyman_allocation", "smoothed_spread", "inclusion_probabilities", "draw_chunks", "labelled_chunks_needed",
    # printed elsewhere
    "cochran_q", "benjamini_yekutieli", "clustered_signed_rank", "alternative_annotator_test", "dawid_skene",
    # repeated letters
    "variance_components", "repeat_agreement",
    # probabilities of letters: test_stats_calibration.py
    "area_under_curve", "best_threshold", "brier_score", "calibration_bins", "cross_fitted", "escalation_threshold",
    "expected_calibration_error", "fit_isotonic", "fit_threshold", "ranked_probability_score",
    # a judge or a model that moved
    "drift_evidence", "look_alpha", "mean_bounds",
}  # fmt: skip
PARTS = {
    # steps of the above that no report shows
    "agreement_weights", "proportions", "chance_corrected", "mean_marginal", "rating_counts", "coincidences",
    "chunk_differences", "lattice_steps", "t_pivot", "mostly_one_value", "hides_a_rare_value", "leverage", "weighted_pivot", "signed_rank_result", "summarised_raters", "t_interval", "t_quantile", "z_quantile", "wilson_bounds",
    "undefined", "too_few", "warning", "resampled_totals", "left_out_values", "jackknife_se",
    "acceleration", "bca_tails", "scaled_inclusion", "gaffke_bound", "positive_probability",
}  # fmt: skip


def public_functions() -> set[str]:
    names = set()
    for module_info in pkgutil.iter_modules(qaeval.stats.__path__):
        if module_info.name.startswith("_"):
            continue
        module = import_module(f"qaeval.stats.{module_info.name}")
        names |= {
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
        }
    return names


def test_no_statistic_is_forgotten() -> None:
    assert public_functions() <= IN_TABLES | TESTED_BY_EXAMPLE | PARTS
    assert public_functions() >= TESTED_BY_EXAMPLE | PARTS, "named here, but gone"


def test_every_public_function_says_what_it_does() -> None:
    modules = [
        import_module(f"qaeval.stats.{info.name}") for info in pkgutil.iter_modules(qaeval.stats.__path__)
    ]
    functions = {
        f"{module.__name__}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    assert len(functions) > len(modules)
    assert [name for name, function in functions.items() if not function.__doc__] == []
