"""Marginal homogeneity: published chi-squared values, plain and clustered."""

from collections.abc import Callable

import numpy as np
import pytest
from pytest import approx  # noqa: PT013

from qaeval.stats.homogeneity import (
    TestResult,
    bhapkar,
    bowker,
    clustered_homogeneity,
    clustered_mcnemar,
    mcnemar,
    stuart_maxwell,
    tango,
    tango_score,
)

UEBERSAX = np.array([[20, 10, 5], [3, 30, 15], [0, 5, 40]])
VISION = [[1520, 266, 124, 66], [234, 1512, 432, 78], [117, 362, 1772, 205], [36, 82, 179, 492]]
PREMARITAL = [[144, 33, 84, 126], [2, 4, 14, 29], [0, 2, 6, 25], [0, 0, 1, 5]]
# clust.bin.pair "thyroids": 21 patients; both, first only, second only, neither
A = np.array([0, 2, 3, 1, 2, 4, 3, 2, 1, 1, 2, 2, 3, 2, 0, 2, 2, 2, 2, 1, 2])
B = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
C = np.array([2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0])
D = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0])


def singletons(table: np.ndarray) -> np.ndarray:
    """One table for each item."""
    cells = np.repeat(np.arange(table.size), table.ravel())
    return np.eye(table.size)[cells].reshape(-1, *table.shape)


def test_clustering_takes_back_the_verdict_on_thyroids() -> None:
    # unclustered (1 - 7)^2 / 8 = 4.5, p = .034
    result = mcnemar(B.sum(), C.sum(), method="chi2")
    assert result.statistic == approx(4.5)
    assert result.p_value == approx(0.034, abs=5e-4)


@pytest.mark.parametrize(("method", "chi2"), [("obuchowski", 2.86), ("durkalski", 2.32), ("yang", 3.13)])
def test_clustered_mcnemar_of_thyroids(method: str, chi2: float) -> None:
    assert clustered_mcnemar(B, C, A + B + C + D, method=method).statistic == approx(chi2, abs=5e-3)


def test_obuchowski_p_value_of_thyroids() -> None:
    assert clustered_mcnemar(B, C, A + B + C + D).p_value == approx(0.091, abs=5e-4)


def test_approval_ratings() -> None:
    # coin: 150 against 86, chi2 17.356, p 3.099e-05; exact 3.716e-05; mid-p 2.893e-05
    assert mcnemar(150, 86, method="chi2").statistic == approx(17.356, abs=5e-4)
    assert mcnemar(150, 86, method="chi2").p_value == approx(3.099e-05, abs=5e-9)
    assert mcnemar(150, 86, method="exact").p_value == approx(3.716e-05, abs=5e-9)
    assert mcnemar(150, 86).p_value == approx(2.893e-05, abs=5e-9)


def test_equal_discordance_has_p_value_one() -> None:
    assert mcnemar(4, 4).p_value == approx(1.0)
    assert mcnemar(4, 4, method="exact").p_value == 1.0


def test_uebersax() -> None:
    assert stuart_maxwell(UEBERSAX).statistic == approx(13.765, abs=5e-4)
    assert stuart_maxwell(UEBERSAX).p_value == approx(0.0010, abs=5e-5)
    assert bhapkar(UEBERSAX).statistic == approx(15.423, abs=5e-4)
    result = bowker(UEBERSAX)
    assert (result.statistic, result.df) == (approx(13.769, abs=5e-4), (3,))
    assert result.p_value == approx(0.0032, abs=5e-5)


def test_vision_of_7477_women() -> None:
    result = stuart_maxwell(VISION)
    assert (result.statistic, result.df) == (approx(11.957, abs=5e-4), (3,))
    assert result.p_value == approx(0.007533, abs=5e-7)
    assert bhapkar(VISION).statistic == approx(11.976, abs=5e-4)
    assert bowker(VISION).statistic == approx(19.107, abs=5e-4)
    assert bowker(VISION).p_value == approx(0.00399, abs=5e-6)


def test_premarital_and_extramarital_sex() -> None:
    assert stuart_maxwell(PREMARITAL).statistic == approx(271.92, abs=5e-3)
    assert bhapkar(PREMARITAL).statistic == approx(636.03, abs=5e-3)


def test_items_of_their_own_give_the_plain_tests() -> None:
    tables = singletons(UEBERSAX)
    plain = clustered_homogeneity(tables, method="stuart-maxwell")
    hotelling = clustered_homogeneity(tables)
    assert plain.statistic == approx(13.7647, abs=5e-5)
    assert clustered_homogeneity(tables, method="bhapkar").statistic == approx(15.4233, abs=5e-5)
    # T^2 = p (G - 1)/(G - p) F = 2 * 127/126 * F
    assert 2 * 127 / 126 * hotelling.statistic == approx(15.3028, abs=5e-5)
    assert hotelling.df == (2, 126)


def test_letters_that_nobody_used_do_not_count() -> None:
    # the third letter is empty: McNemar's (2 - 9)^2/11 on one degree of freedom
    result = stuart_maxwell([[5, 2, 0], [9, 7, 0], [0, 0, 0]])
    assert (result.statistic, result.df) == (approx(49 / 11), (1,))


@pytest.mark.parametrize("test", [stuart_maxwell, bhapkar, bowker])
def test_full_agreement_leaves_nothing_to_test(test: Callable[..., TestResult]) -> None:
    result = test([[5, 0], [0, 7]])
    assert np.isnan(result.p_value)
    assert result.reason == "no pair disagrees: there is nothing to test"


def test_clusters_without_disagreement_leave_nothing_to_test() -> None:
    assert np.isnan(clustered_mcnemar([0, 1], [0, 1], [3, 3]).p_value)
    assert np.isnan(mcnemar(0, 0).p_value)
    assert np.isnan(clustered_homogeneity([np.eye(3)] * 20).p_value)
    alike = clustered_homogeneity([[[0, 1], [0, 2]]] * 20)
    assert "all differ alike" in str(alike.reason)
    few = clustered_homogeneity([[[0, 2, 0], [0, 0, 0], [0, 0, 1]], [[0, 0, 1], [1, 1, 0], [0, 0, 0]]])
    assert np.isnan(few.p_value)


@pytest.mark.parametrize(
    ("pairs", "level", "low", "high"),
    [
        ((0, 1, 44), 0.90, -0.0957, 0.0365),  # Tango 1998, contact lenses
        ((40, 20, 160), 0.95, 0.03086, 0.21806),  # PropCIs
        ((1, 7, 21), 0.95, -0.5172, -0.0260),  # 1, 1, 7, 12
    ],
)
def test_tango_interval(pairs: tuple[int, int, int], level: float, low: float, high: float) -> None:
    result = tango(*pairs, level=level)
    assert (result.low, result.high) == approx((low, high), abs=5.1e-6 if pairs[0] == 40 else 5e-5)


def test_tango_score_of_contact_lenses() -> None:
    # non-inferiority margin .10: Z 1.709, p .0438
    assert tango_score(0, 1, 44, -0.10) == approx(1.709, abs=5e-4)


def test_tango_reaches_its_ends() -> None:
    assert tango(0, 0, 30).low == approx(-tango(0, 0, 30).high)
    assert tango(10, 0, 10).high == 1.0
    assert tango(0, 10, 10).low == -1.0


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="counts of pairs"):
        mcnemar(-1, 2)
    with pytest.raises(ValueError, match="method must be 'mid-p'"):
        mcnemar(1, 2, method="yates")
    with pytest.raises(ValueError, match="total > 0"):
        clustered_mcnemar([1], [1], [1])
    with pytest.raises(ValueError, match="method must be 'obuchowski'"):
        clustered_mcnemar([1], [1], [2], method="eliasziw")
    with pytest.raises(ValueError, match="must be square"):
        bowker([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ValueError, match="finite and not negative"):
        bowker([[1, -2], [4, 5]])
    with pytest.raises(ValueError, match=r"shape \(G, K, K\)"):
        clustered_homogeneity([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="among n pairs"):
        tango(3, 3, 5)
