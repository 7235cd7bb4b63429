"""Marginal homogeneity: published chi-squared values, plain and clustered."""

import numpy as np
import pytest
from pytest import approx  # noqa: PT013

from qaeval.stats.homogeneity import (
    clustered_homogeneity,
    cochran_q,
    stuart_maxwell,
)

UEBERSAX = np.array([[20, 10, 5], [3, 30, 15], [0, 5, 40]])
VISION = [[1520, 266, 124, 66], [234, 1512, 432, 78], [117, 362, 1772, 205], [36, 82, 179, 492]]
PREMARITAL = [[144, 33, 84, 126], [2, 4, 14, 29], [0, 2, 6, 25], [0, 0, 1, 5]]


def singletons(table: np.ndarray) -> np.ndarray:
    """One table for each item."""
    cells = np.repeat(np.arange(table.size), table.ravel())
    return np.eye(table.size)[cells].reshape(-1, *table.shape)


def test_uebersax() -> None:
    assert stuart_maxwell(UEBERSAX).statistic == approx(13.765, abs=5e-4)
    assert stuart_maxwell(UEBERSAX).p_value == approx(0.0010, abs=5e-5)


def test_vision_of_7477_women() -> None:
    result = stuart_maxwell(VISION)
    assert (result.statistic, result.df) == (approx(11.957, abs=5e-4), (3,))
    assert result.p_value == approx(0.007533, abs=5e-7)


def test_premarital_and_extramarital_sex() -> None:
    assert stuart_maxwell(PREMARITAL).statistic == approx(271.92, abs=5e-3)


def test_items_of_their_own_give_the_plain_tests() -> None:
    tables = singletons(UEBERSAX)
    plain = clustered_homogeneity(tables, method="stuart-maxwell")
    hotelling = clustered_homogeneity(tables)
    assert plain.statistic == approx(13.7647, abs=5e-5)
    # T^2 = p (G - 1)/(G - p) F = 2 * 127/126 * F; Bhapkar's 15.4233 is G/(G - 1) T^2
    assert 2 * 127 / 126 * hotelling.statistic == approx(15.3028, abs=5e-5)
    assert 2 * 128 / 126 * hotelling.statistic == approx(15.4233, abs=5e-5)
    assert hotelling.df == (2, 126)


def test_letters_that_nobody_used_do_not_count() -> None:
    # the third letter is empty: McNemar's (2 - 9)^2/11 on one degree of freedom
    result = stuart_maxwell([[5, 2, 0], [9, 7, 0], [0, 0, 0]])
    assert (result.statistic, result.df) == (approx(49 / 11), (1,))


def test_full_agreement_leaves_nothing_to_test() -> None:
    result = stuart_maxwell([[5, 0], [0, 7]])
    assert np.isnan(result.p_value)
    assert "nothing to test" in result.reason


def test_clusters_without_disagreement_leave_nothing_to_test() -> None:
    assert np.isnan(clustered_homogeneity([np.eye(3)] * 20).p_value)
    alike = clustered_homogeneity([[[0, 1], [0, 2]]] * 20)
    assert "all differ alike" in str(alike.reason)
    few = clustered_homogeneity([[[0, 2, 0], [0, 0, 0], [0, 0, 1]], [[0, 0, 1], [1, 1, 0], [0, 0, 0]]])
    assert np.isnan(few.p_value)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="must be square"):
        stuart_maxwell([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ValueError, match="finite and not negative"):
        stuart_maxwell([[1, -2], [4, 5]])
    with pytest.raises(ValueError, match="one table is needed"):
        stuart_maxwell([[[1, 2], [4, 5]]])
    with pytest.raises(ValueError, match=r"shape \(G, K, K\)"):
        clustered_homogeneity([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="method must be 'hotelling'"):
        clustered_homogeneity([[[1, 2], [3, 4]]], method="bhapkar")


def test_cochrans_q_of_four_media_is_the_printed_value() -> None:
    # growth of diphtheria bacilli on four media (STATS.md B10; coin's tests)
    patterns = {(1, 1, 1, 1): 4, (1, 1, 0, 1): 2, (0, 1, 1, 1): 3, (0, 1, 0, 1): 1, (0, 0, 0, 0): 59}
    result = cochran_q([pattern for pattern, count in patterns.items() for _ in range(count)])
    assert result.statistic == pytest.approx(8.0526, abs=5e-5)
    assert result.df == (3,)
    assert result.p_value == pytest.approx(0.04494, abs=5e-6)


def test_cochrans_q_of_two_candidates_is_mcnemars_test() -> None:
    hits = [(1, 0)] * 12 + [(0, 1)] * 4 + [(1, 1)] * 30
    assert cochran_q(hits).statistic == pytest.approx((12 - 4) ** 2 / 16)


def test_cochrans_q_does_not_exist_where_candidates_agree_on_every_item() -> None:
    result = cochran_q([(1, 1, 1), (0, 0, 0)])
    assert np.isnan(result.p_value)
    assert result.reason
    with pytest.raises(ValueError, match="must hold 0 and 1"):
        cochran_q([(1, 2)])
    with pytest.raises(ValueError, match="k at least 2"):
        cochran_q([1, 0])
