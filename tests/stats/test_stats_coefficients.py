"""Published agreement tables: the printed number at the printed precision."""

import numpy as np
import pytest
from pytest import approx  # noqa: PT013 - the numbers below are read more easily

from qaeval.stats.bounds import agreement_bounds
from qaeval.stats.coefficients import (
    agreement_weights,
    balanced_accuracy,
    bias_index,
    brennan_prediger,
    expected_agreement,
    gwet_ac,
    kappa,
    macro_f1,
    pabak,
    prevalence_index,
    scott_pi,
    specific_agreement,
    weighted_agreement,
)
from qaeval.stats.iid import iid_coefficient
from qaeval.stats.intervals import clopper_pearson, wilson

FEINSTEIN = {
    "balanced": [[40, 9], [6, 45]],
    "prevalent": [[80, 10], [5, 5]],
    "biased": [[45, 15], [25, 15]],
    "opposed": [[25, 35], [5, 35]],
}
FLEISS_COHEN_EVERITT = [[106, 10, 4], [22, 28, 10], [2, 12, 6]]
SAS = [[0, 4, 1], [0, 8, 0], [0, 1, 5]]
MAMMOGRAMS = [[21, 12, 0, 0], [4, 17, 1, 0], [3, 9, 15, 2], [0, 0, 0, 1]]
ABSTRACTORS = [[13, 0, 0], [0, 20, 7], [0, 4, 56]]
SALMON = [[19, 10], [6, 256]]


@pytest.mark.parametrize(
    ("name", "po", "pe", "value"),
    [
        # Feinstein and Cicchetti 1990, both paradoxes
        ("balanced", 0.85, 0.5008, 0.6995),
        ("prevalent", 0.85, 0.78, 0.3182),
        ("biased", 0.60, 0.54, 0.1304),
        ("opposed", 0.60, 0.46, 0.2593),
    ],
)
def test_kappa_of_feinstein_and_cicchetti(name: str, po: float, pe: float, value: float) -> None:
    table = FEINSTEIN[name]
    assert weighted_agreement(table) == approx(po)
    assert expected_agreement(table) == approx(pe, abs=5e-5)
    assert kappa(table) == approx(value, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "kappa_max", "bias", "prevalence", "adjusted"),
    [
        ("balanced", 0.9399, 0.03, -0.05, 0.70),
        ("prevalent", 0.7727, 0.05, 0.75, 0.70),
        ("biased", 0.7826, -0.10, 0.30, 0.20),
        ("opposed", 0.4444, 0.30, -0.10, 0.20),
    ],
)
def test_indices_of_feinstein_and_cicchetti(
    name: str, kappa_max: float, bias: float, prevalence: float, adjusted: float
) -> None:
    table = np.array(FEINSTEIN[name])
    assert agreement_bounds(table.sum(axis=1), table.sum(axis=0)).kappa_max == approx(kappa_max, abs=5e-5)
    assert bias_index(table) == approx(bias)
    assert prevalence_index(table) == approx(prevalence)
    assert pabak(table) == approx(adjusted)


@pytest.mark.parametrize("name", FEINSTEIN)
def test_kappa_follows_from_pabak_and_the_indices(name: str) -> None:
    # Byrt 1993: k = (PABAK - PI^2 + BI^2) / (1 - PI^2 + BI^2)
    table = FEINSTEIN[name]
    shift = -(prevalence_index(table) ** 2) + bias_index(table) ** 2
    assert kappa(table) == approx((pabak(table) + shift) / (1 + shift))


@pytest.mark.parametrize(
    ("name", "se", "se_null"), [("balanced", 0.0714, 0.0998), ("prevalent", 0.1335, 0.0974)]
)
def test_standard_errors_of_feinstein_and_cicchetti(name: str, se: float, se_null: float) -> None:
    result = iid_coefficient(FEINSTEIN[name])
    assert (result.se, result.se_null) == approx((se, se_null), abs=5e-5)


def test_chest_x_rays() -> None:
    # 19790 films
    table = [[1467, 782], [1309, 16232]]
    assert weighted_agreement(table) == approx(0.8943, abs=5e-5)
    assert expected_agreement(table) == approx(0.7780, abs=5e-5)
    assert kappa(table) == approx(0.524, abs=5e-4)


def test_cohen_1968() -> None:
    # n = 200, disagreement weights 0..6: psych::cohen.kappa .492 and .348
    table = 200 * np.array([[0.44, 0.07, 0.09], [0.05, 0.20, 0.05], [0.01, 0.03, 0.06]])
    weights = 1 - np.array([[0, 1, 3], [1, 0, 6], [3, 6, 0]]) / 6
    plain, weighted = iid_coefficient(table), iid_coefficient(table, weights=weights)
    assert (plain.value, weighted.value) == approx((0.4915, 0.3478), abs=5e-5)
    assert (plain.se, weighted.se) == approx((0.0510, 0.0755), abs=5e-5)


def test_fleiss_cohen_everitt_1969() -> None:
    weights = [[1, 0, 0.4444], [0, 1, 0.6667], [0.4444, 0.6667, 1]]
    plain, weighted = (
        iid_coefficient(FLEISS_COHEN_EVERITT),
        iid_coefficient(FLEISS_COHEN_EVERITT, weights=weights),
    )
    assert (plain.value, plain.se, plain.se_null) == approx((0.42857, 0.05371, 0.05551), abs=5e-6)
    assert (weighted.value, weighted.se, weighted.se_null) == approx((0.5071, 0.0570, 0.0653), abs=5e-5)


@pytest.mark.parametrize(
    ("weights", "value", "se"), [("linear", 0.49231, 0.05072), ("quadratic", 0.56667, 0.05567)]
)
def test_fleiss_cohen_everitt_with_distance_weights(weights: str, value: float, se: float) -> None:
    result = iid_coefficient(FLEISS_COHEN_EVERITT, weights=weights)
    assert (result.value, result.se) == approx((value, se), abs=5e-6)


@pytest.mark.parametrize(
    ("weights", "printed", "low", "high", "z"),
    [
        (None, (0.4842, 0.1380, 0.1484), 0.2137, 0.7547, 3.2626),
        ("linear", (0.4701, 0.1457, 0.1426), 0.1845, 0.7558, 3.2971),
    ],
)
def test_sas_printout_with_an_empty_column(
    weights: str, printed: tuple[float, float, float], low: float, high: float, z: float
) -> None:
    result = iid_coefficient(SAS, weights=weights)
    assert (result.value, result.se, result.se_null) == approx(printed, abs=5e-5)
    assert result.value - 1.959964 * result.se == approx(low, abs=5.1e-5)
    assert result.value + 1.959964 * result.se == approx(high, abs=5.1e-5)
    assert result.value / result.se_null == approx(z, abs=5e-5)


def test_mammograms() -> None:
    # Stata's kap prints the null error .0694 and Z = 6.81
    plain, linear = iid_coefficient(MAMMOGRAMS), iid_coefficient(MAMMOGRAMS, weights="linear")
    assert weighted_agreement(MAMMOGRAMS) == approx(0.6353, abs=5e-5)
    assert expected_agreement(MAMMOGRAMS) == approx(0.3082, abs=5e-5)
    assert (plain.value, plain.se, plain.se_null) == approx((0.4728, 0.0727, 0.0694), abs=5e-5)
    assert plain.value / plain.se_null == approx(6.81, abs=5e-3)
    assert weighted_agreement(MAMMOGRAMS, weights="linear") == approx(0.8667, abs=5e-5)
    assert expected_agreement(MAMMOGRAMS, weights="linear") == approx(0.6911, abs=5e-5)
    assert (linear.value, linear.se_null) == approx((0.5684, 0.0788), abs=5e-5)


@pytest.mark.parametrize(
    ("coefficient", "value", "se"),
    [
        # CRAN irrCAC vignette, cont3x3abstractors
        ("kappa", 0.7964094, 0.05891072),
        ("gwet_ac", 0.8493305, 0.04321747),
        ("scott_pi", 0.7962397, 0.05905473),
        ("brennan_prediger", 0.835, 0.04693346),
    ],
)
def test_abstractors(coefficient: str, value: float, se: float) -> None:
    result = iid_coefficient(ABSTRACTORS, coefficient=coefficient)
    assert result.value == approx(value, abs=5e-8)
    assert result.se == approx(se, abs=1e-8)


def test_abstractors_interval_with_students_t() -> None:
    # irrCAC prints CI (.680, .913) for kappa and (.764, .935) for AC1, t with 99 degrees of freedom
    t = 1.984217
    for coefficient, low, high in (("kappa", 0.680, 0.913), ("gwet_ac", 0.764, 0.935)):
        result = iid_coefficient(ABSTRACTORS, coefficient=coefficient)
        assert (result.value - t * result.se, result.value + t * result.se) == approx((low, high), abs=5.1e-4)


def test_abstractors_agreement() -> None:
    assert weighted_agreement(ABSTRACTORS) == approx(0.89)
    assert wilson(89, 100).value == approx(0.89)


def test_gwet_2008_shows_how_ac1_flatters() -> None:
    table = [[118, 5], [2, 0]]
    assert weighted_agreement(table) == approx(0.944)
    assert kappa(table) == approx(-0.0234, abs=5e-5)
    assert gwet_ac(table) == approx(0.9408, abs=5e-5)
    assert scott_pi(table) == approx(-0.0288, abs=5e-5)
    assert pabak(table) == approx(0.888)


def test_the_judge_that_always_says_a() -> None:
    # 111/50/10 against 167/3/1 with 111 agreements: AC1 .5837, Brennan-Prediger .4737, Scott -.1167.
    table = [[111, 0, 0], [46, 3, 1], [10, 0, 0]]
    table_with_trace_111 = [[109, 1, 1], [48, 2, 0], [10, 0, 0]]
    assert np.trace(table_with_trace_111) == 111
    assert np.trace(table) == 114
    assert gwet_ac(table_with_trace_111) == approx(0.5837, abs=5e-5)
    assert brennan_prediger(table_with_trace_111) == approx(0.4737, abs=5e-5)
    assert scott_pi(table_with_trace_111) == approx(-0.1167, abs=5e-5)


def test_salmon_and_elisa() -> None:
    # epiR: kappa .67, z = 11.53 from the null error, PABAK .89 (exact .82 to .94)
    salmon = iid_coefficient(SALMON)
    assert salmon.value == approx(0.67, abs=5e-3)
    assert salmon.value / salmon.se_null == approx(11.53, abs=5e-3)
    assert pabak(SALMON) == approx(0.89, abs=5e-3)
    exact = clopper_pearson(275, 291)
    assert (2 * exact.low - 1, 2 * exact.high - 1) == approx((0.82, 0.94), abs=5e-3)
    # FCE interval, not the (.56, .79) that epiR prints from the null error
    assert (salmon.value - 1.96 * salmon.se, salmon.value + 1.96 * salmon.se) == approx(
        (0.524, 0.823), abs=1e-3
    )
    assert (salmon.value - 1.96 * salmon.se_null, salmon.value + 1.96 * salmon.se_null) == approx(
        (0.56, 0.79), abs=5e-3
    )
    elisa = iid_coefficient([[596, 61], [29, 987]])
    assert (elisa.value, float(pabak([[596, 61], [29, 987]]))) == approx((0.89, 0.89), abs=5e-3)
    assert (elisa.value - 1.96 * elisa.se, elisa.value + 1.96 * elisa.se) == approx((0.86, 0.91), abs=6e-3)


def test_specific_agreement_is_positive_and_negative_agreement() -> None:
    # 2a/(2a+b+c) and 2d/(2d+b+c) of the second table: 160/175 and 10/25
    assert specific_agreement(FEINSTEIN["prevalent"]) == approx([160 / 175, 10 / 25])


def test_qgeval_relevance_has_a_low_ceiling() -> None:
    table = np.array([[3, 0, 0], [0, 1, 6], [0, 38, 2952]])
    assert kappa(table) == approx(0.150, abs=5e-4)
    assert agreement_bounds(table.sum(axis=1), table.sum(axis=0)).kappa_max == approx(0.382, abs=5e-4)


def test_balanced_accuracy_and_f1_by_hand() -> None:
    # recalls 3/4, 1/2 and an unused letter; F1 6/8 and 2/4
    table = [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert balanced_accuracy(table) == approx((3 / 4 + 1 / 2) / 2)
    assert macro_f1(table) == approx((6 / 8 + 2 / 4) / 2)


def test_weights_span_the_whole_scale() -> None:
    # ratings in {0, 2, 3} of a scale of 4: linear weights stay 1 - |i-j|/3
    assert agreement_weights(4, "linear")[0] == approx([1, 2 / 3, 1 / 3, 0])
    assert agreement_weights(3, "quadratic")[0] == approx([1, 3 / 4, 0])


def test_one_letter_only_has_no_kappa_but_an_ac1() -> None:
    table = [[20, 0], [0, 0]]
    assert np.isnan(kappa(table))
    assert np.isnan(scott_pi(table))
    assert gwet_ac(table) == approx(1.0)
    assert np.isnan(iid_coefficient(table).value)
