"""What labels show of two candidates, in words: which is better, by how much, and whom the judge favours."""

from typing import Any

import pytest

from qaeval.comparison.differences import labelled_sentence, more_chunks
from qaeval.comparison.model import Difference, LabelledDifference
from qaeval.report.measure import Measure


def measured(value: float | None, low: float | None, high: float | None, n: int = 60) -> Measure:
    return Measure(value=value, low=low, high=high, method="m", n=n, n_clusters=n)


PAIR = Difference(
    a="alpha",
    b="beta",
    difference=measured(0.1, 0.05, 0.15),
    p=0.001,
    p_holm=0.002,
    n_chunks_b_better=1,
    n_chunks_equal=1,
    n_chunks_a_better=1,
    outcome="b is better",
    sentence="",
)
JUDGE = "By the judge's letters alone, beta − alpha is "


def estimate(difference: Measure, outcome: str, **more: Any) -> LabelledDifference:
    facts: dict[str, Any] = {
        "rater": "anna",
        "rater_kind": "human",
        "n_chunks": 40,
        "basis": "corrected",
        "difference": difference,
        "labels": difference,
        "p": 0.01,
        "p_holm": 0.012,
        "error": measured(None, None, None),
        "p_error": None,
        "tuning": 0.5,
        "width_ratio": 0.9,
        "outcome": outcome,
    }
    return LabelledDifference(**{**facts, **more})


def sentence(difference: Measure, outcome: str, *, n_pairs: int = 1, **more: Any) -> str:
    return labelled_sentence(PAIR, estimate(difference, outcome, **more), n_pairs=n_pairs)


@pytest.mark.parametrize(
    ("outcome", "difference", "words"),
    [
        (
            "b is better",
            measured(0.1, 0.02, 0.18),
            "beta is better than alpha: 10.0 points more usable items, 95 % interval 2.0 to 18.0 (p = 0.012)",
        ),
        (
            "a is better",
            measured(-0.1, -0.18, -0.02),
            "alpha is better than beta: 10.0 points more usable items, 95 % interval 2.0 to 18.0 (p = 0.012)",
        ),
        (
            "no difference shown",
            measured(0.01, -0.02, 0.04),
            "alpha and beta show no difference: beta − alpha is ",
        ),
        ("no difference shown", measured(0.01, -0.02, 0.04), ", and one above 4.0 points is ruled out"),
        ("no difference shown", measured(-0.01, -0.05, 0.03), ", and one above 5.0 points is ruled out"),
        (
            "not enough data",
            measured(0.01, -0.1, 0.12),
            "alpha and beta are not told apart: beta − alpha is ",
        ),
    ],
)
def test_labels_show_who_is_better_or_what_is_ruled_out(
    outcome: str, difference: Measure, words: str
) -> None:
    text = sentence(difference, outcome)
    assert text.startswith("By anna's labels of 40 of 60 chunks, ")
    assert words in text
    assert JUDGE in text


def test_all_labelled_chunks_are_called_all() -> None:
    assert sentence(measured(0.1, 0.02, 0.18), "b is better", n_chunks=60).startswith(
        "By anna's labels of all 60 chunks, "
    )


@pytest.mark.parametrize(
    ("n_more", "words"),
    [
        (1, "labels of about 1 more chunk would decide"),
        (20, "labels of about 20 more chunks would decide"),
        (21, "more labelled chunks than the run has would decide"),
    ],
)
def test_more_labels_are_advised_up_to_all_chunks_of_the_run(n_more: int, words: str) -> None:
    text = sentence(measured(0.01, -0.1, 0.12), "not enough data", n_more_chunks=n_more)
    assert f"; {words} if the difference stays as it is" in text


def test_no_number_of_labels_is_advised_where_none_is_known() -> None:
    text = sentence(measured(0.01, -0.1, 0.12), "not enough data", n_more_chunks=None)
    assert "not told apart" in text
    assert "would decide" not in text


@pytest.mark.parametrize(
    ("n_pairs", "p_holm", "words"),
    [
        (1, 0.012, "(p = 0.012)"),
        (2, 0.012, "(p = 0.012 after correction for 2 pairs)"),
        (3, None, "(p = 1.000 after correction for 3 pairs)"),
        (1, 0.0, "(p < 0.001)"),
    ],
)
def test_the_test_is_that_after_correction(n_pairs: int, p_holm: float | None, words: str) -> None:
    assert words in sentence(measured(0.1, 0.02, 0.18), "b is better", n_pairs=n_pairs, p_holm=p_holm)


@pytest.mark.parametrize("outcome", ["not enough data", "no difference shown"])
def test_an_interval_that_only_the_correction_contradicts_is_explained(outcome: str) -> None:
    difference = measured(0.03, 0.001, 0.049)
    explained = "(shown for this pair alone, but not after correction for the number of pairs)"
    alone, corrected = (sentence(difference, outcome, n_pairs=3, p=p, p_holm=0.12) for p in (0.04, 0.06))
    assert f"+4.9] {explained} (p = 0.120 after correction for 3 pairs)" in alone
    assert explained not in corrected


@pytest.mark.parametrize(
    ("error", "p_error", "end"),
    [
        (measured(None, None, None), None, "."),
        (measured(0.0, 0.0, 0.0), None, "; on the labelled chunks the judge favours neither."),
        (
            measured(0.08, 0.02, 0.14),
            0.05,
            "; on the labelled chunks the judge favours beta by 8.0 points, 95 % interval +2.0 to +14.0 (p = 0.050).",
        ),
        (
            measured(-0.08, -0.14, 0.02),
            0.06,
            (
                "; on the labelled chunks the judge is not shown to favour a candidate: 8.0 points towards alpha, "
                "95 % interval −2.0 to +14.0 (p = 0.060)."
            ),
        ),
        (measured(0.08, 0.02, 0.14), None, "."),
    ],
)
def test_the_candidate_that_the_judge_favours_is_named(
    error: Measure, p_error: float | None, end: str
) -> None:
    text = sentence(measured(0.1, 0.02, 0.18), "b is better", error=error, p_error=p_error)
    _, _, judge = text.partition(JUDGE)
    assert judge.partition("]")[2] == end or judge.endswith(end)
    assert ("favour" in judge) == (len(end) > 1)


def test_chunks_that_decide_come_from_the_spread_and_the_farther_of_margin_and_zero() -> None:
    # half the interval is 1.96 standard errors, so that the spread is 0.5; told from 0 at 0.1 it needs
    # (1.96 + 0.84)² × 0.25 / 0.01 = 196.2 chunks, from a margin of 0.2 as many
    half = 1.959964 * 0.5 / 8
    wide = Measure(value=0.1, low=0.1 - half, high=0.1 + half, method="m", n=64, n_clusters=64)
    assert more_chunks(wide, 0.05, 1) == pytest.approx(197 - 64, abs=3)
    assert more_chunks(wide, 0.2, 1) == more_chunks(wide, 0.05, 1)
    assert more_chunks(wide, 0.3, 1) == 1  # 49 in all would have done
    assert more_chunks(wide, 0.05, 3) > more_chunks(wide, 0.05, 1)
    sure = Measure(value=0.5, low=0.49, high=0.51, method="m", n=64, n_clusters=64)
    assert more_chunks(sure, 0.05, 1) == 1


@pytest.mark.parametrize("value", [-0.1, 0.0, 0.1])
def test_ends_and_values_of_zero_are_numbers(value: float) -> None:
    # the interval is 0.2 wide wherever it lies: told from a margin of 0.2 at 0, from 0 at ±0.1
    at = Measure(value=value, low=value - 0.1, high=value + 0.1, method="m", n=64, n_clusters=64)
    distance = 0.2 if value == 0 else 0.1
    spread = 0.1 * 8 / 1.959964
    needed = (1.959964 + 0.841621) ** 2 * spread**2 / distance**2
    assert more_chunks(at, 0.2, 1) == pytest.approx(max(1, needed - 64), abs=4)
