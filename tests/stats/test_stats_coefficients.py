"""Published agreement tables: the printed number at the printed precision."""

from collections.abc import Callable

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
    prevalence_index,
    scott_pi,
    specific_agreement,
    weighted_agreement,
)
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
    assert brennan_prediger(table) == approx(adjusted)


@pytest.mark.parametrize("name", FEINSTEIN)
def test_kappa_follows_from_pabak_and_the_indices(name: str) -> None:
    # Byrt 1993: k = (PABAK - PI^2 + BI^2) / (1 - PI^2 + BI^2)
    table = FEINSTEIN[name]
    shift = -(prevalence_index(table) ** 2) + bias_index(table) ** 2
    assert kappa(table) == approx((brennan_prediger(table) + shift) / (1 + shift))


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
    assert kappa(table) == approx(0.4915, abs=5e-5)
    assert kappa(table, weights=weights) == approx(0.3478, abs=5e-5)


@pytest.mark.parametrize(
    ("weights", "value"),
    [
        (None, 0.42857),
        ([[1, 0, 0.4444], [0, 1, 0.6667], [0.4444, 0.6667, 1]], 0.5071),
        ("linear", 0.49231),
        ("quadratic", 0.56667),
    ],
)
def test_fleiss_cohen_everitt_1969(weights: str | list[list[float]] | None, value: float) -> None:
    assert kappa(FLEISS_COHEN_EVERITT, weights=weights) == approx(
        value, abs=5e-5 if value == 0.5071 else 5e-6
    )


@pytest.mark.parametrize(("weights", "value"), [(None, 0.4842), ("linear", 0.4701)])
def test_sas_printout_with_an_empty_column(weights: str, value: float) -> None:
    assert kappa(SAS, weights=weights) == approx(value, abs=5e-5)


def test_mammograms() -> None:
    assert weighted_agreement(MAMMOGRAMS) == approx(0.6353, abs=5e-5)
    assert expected_agreement(MAMMOGRAMS) == approx(0.3082, abs=5e-5)
    assert kappa(MAMMOGRAMS) == approx(0.4728, abs=5e-5)
    assert weighted_agreement(MAMMOGRAMS, weights="linear") == approx(0.8667, abs=5e-5)
    assert expected_agreement(MAMMOGRAMS, weights="linear") == approx(0.6911, abs=5e-5)
    assert kappa(MAMMOGRAMS, weights="linear") == approx(0.5684, abs=5e-5)


@pytest.mark.parametrize(
    ("coefficient", "value"),
    [
        # CRAN irrCAC vignette, cont3x3abstractors
        (kappa, 0.7964094),
        (gwet_ac, 0.8493305),
        (scott_pi, 0.7962397),
        (brennan_prediger, 0.835),
    ],
)
def test_abstractors(coefficient: Callable[..., np.ndarray], value: float) -> None:
    assert coefficient(ABSTRACTORS) == approx(value, abs=5e-8)


def test_abstractors_agreement() -> None:
    assert weighted_agreement(ABSTRACTORS) == approx(0.89)
    assert wilson(89, 100).value == approx(0.89)


def test_gwet_2008_shows_how_ac1_flatters() -> None:
    table = [[118, 5], [2, 0]]
    assert weighted_agreement(table) == approx(0.944)
    assert kappa(table) == approx(-0.0234, abs=5e-5)
    assert gwet_ac(table) == approx(0.9408, abs=5e-5)
    assert scott_pi(table) == approx(-0.0288, abs=5e-5)
    assert brennan_prediger(table) == approx(0.888)


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
    # epiR: kappa .67, PABAK .89 (exact .82 to .94); ELISA .89 and .89
    assert kappa(SALMON) == approx(0.67, abs=5e-3)
    assert brennan_prediger(SALMON) == approx(0.89, abs=5e-3)
    exact = clopper_pearson(275, 291)
    assert (2 * exact.low - 1, 2 * exact.high - 1) == approx((0.82, 0.94), abs=5e-3)
    elisa = [[596, 61], [29, 987]]
    assert (float(kappa(elisa)), float(brennan_prediger(elisa))) == approx((0.89, 0.89), abs=5e-3)


def test_specific_agreement_is_positive_and_negative_agreement() -> None:
    # 2a/(2a+b+c) and 2d/(2d+b+c) of the second table: 160/175 and 10/25
    assert specific_agreement(FEINSTEIN["prevalent"]) == approx([160 / 175, 10 / 25])


def test_qgeval_relevance_has_a_low_ceiling() -> None:
    table = np.array([[3, 0, 0], [0, 1, 6], [0, 38, 2952]])
    assert kappa(table) == approx(0.150, abs=5e-4)
    assert agreement_bounds(table.sum(axis=1), table.sum(axis=0)).kappa_max == approx(0.382, abs=5e-4)


def test_balanced_accuracy_by_hand() -> None:
    # recalls 3/4, 1/2 and an unused letter
    table = [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert balanced_accuracy(table) == approx((3 / 4 + 1 / 2) / 2)


def test_weights_span_the_whole_scale() -> None:
    # ratings in {0, 2, 3} of a scale of 4: linear weights stay 1 - |i-j|/3
    assert agreement_weights(4, "linear")[0] == approx([1, 2 / 3, 1 / 3, 0])
    assert agreement_weights(3, "quadratic")[0] == approx([1, 3 / 4, 0])


def test_one_letter_only_has_no_kappa_but_an_ac1() -> None:
    table = [[20, 0], [0, 0]]
    assert np.isnan(kappa(table))
    assert np.isnan(scott_pi(table))
    assert gwet_ac(table) == approx(1.0)
