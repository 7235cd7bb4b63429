"""What the report says of preference pairs, counted by hand from a table of letters."""

import pandas as pd
import pytest

from qaeval.analysis.letters import FAILED
from qaeval.comparison import findings
from qaeval.comparison.findings import near_duplicates, summarise_pairs
from qaeval.comparison.report import Selection
from qaeval.records import Chunk, Sample

CARDS = (
    {"persona": "nurse", "type": "refund"},
    {"persona": "nurse", "type": "outage"},
    {"persona": "clerk", "type": "refund"},
)
SAMPLES = [
    Sample.of(Chunk(chunk_id=f"c{number}", text=f"Card {number}.")).model_copy(update={"given": card})
    for number, card in enumerate(CARDS)
]
COLUMNS = ("candidate", "status", "sample", "type", "question", "answer", "rejected", "findings")


def table(*rows: tuple[object, ...]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["sample_id"] = [SAMPLES[number].sample_id for number in frame.pop("sample")]
    return frame


def test_pairs_of_a_candidate_are_counted_without_those_that_failed() -> None:
    rows = table(
        ("alpha", "graded", 0, "outage", "one two three", "four", "five six", None),
        ("alpha", "graded", 0, "refund", "one", "two three", "four", "too long"),
        ("alpha", "graded", 1, "refund", "one two", "three four five", "six", None),
        ("alpha", FAILED, 2, "refund", "", "", "", None),
        ("beta", FAILED, 0, "outage", "", "", "", None),
    )
    expected = {"refund": 2, "outage": 1}
    assert summarise_pairs(rows, SAMPLES, ["alpha", "beta"]) == (
        Selection(
            candidate="alpha",
            prompt_words=2.0,
            chosen_words=2.0,
            rejected_words=4 / 3,
            n_without_findings=2,
            n_personas=1,
            n_personas_expected=2,
            scenarios={"refund": 2, "outage": 1},
            scenarios_expected=expected,
        ),
        Selection(
            candidate="beta",
            prompt_words=None,
            chosen_words=None,
            rejected_words=None,
            n_without_findings=0,
            n_personas=0,
            n_personas_expected=2,
            scenarios={},
            scenarios_expected=expected,
        ),
    )


def test_scenarios_stand_with_the_most_frequent_first() -> None:
    rows = table(
        ("alpha", "graded", 0, "outage", "a", "b", "c", None),
        ("alpha", "graded", 1, "refund", "a", "b", "c", None),
        ("alpha", "graded", 2, "refund", "a", "b", "c", None),
    )
    (pairs,) = summarise_pairs(rows, SAMPLES, ["alpha"])
    assert list(pairs.scenarios) == ["refund", "outage"]
    assert list(pairs.scenarios_expected) == ["refund", "outage"]
    assert (pairs.n_personas, pairs.n_without_findings) == (2, 3)


def test_questions_with_the_words_of_an_earlier_one_are_counted_once_each() -> None:
    question = "Which pressure opens the red valve of pump seven in winter nights"
    same = "In winter nights, which pressure opens the red valve of pump seven?"
    other = "Who repairs the green turbine after storms"
    assert near_duplicates([question, other]) == 0
    assert near_duplicates([question, other, same]) == 1
    assert near_duplicates([question, question, same, other]) == 2
    ten = "alpha bravo charlie delta echo foxtrot golf hotel india juliet"
    assert near_duplicates([ten, f"{ten} kilo lima", other]) == 1  # 10 of 12 words
    assert near_duplicates([ten, f"{ten} kilo lima mike", other]) == 0  # 10 of 13


def test_questions_are_not_compared_beyond_either_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    ten = "alpha bravo charlie delta echo foxtrot golf hotel india juliet"
    near = [
        f"{ten} {word}" for word in ("kilo", "lima", "mike", "november")
    ]  # each is near each: 0 + 1 + 2 + 3 pairs
    monkeypatch.setattr(findings, "_MOST_COMPARED", 6)
    assert near_duplicates(near) == 3
    monkeypatch.setattr(findings, "_MOST_COMPARED", 5)
    assert near_duplicates(near) is None
    monkeypatch.setattr(findings, "_MOST_QUESTIONS", 3)
    assert near_duplicates(near[:3]) == 2
    assert near_duplicates([near[0]] * 4) is None
