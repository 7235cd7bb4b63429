from dataclasses import replace
from typing import Any

import pytest

from qaeval.analysis.letters import letter_table
from qaeval.errors import DataError
from qaeval.records import Generation, Grade, Item
from report_builders import JUDGE, RUBRIC, Case, case


def table_of(made: Case, **more: Any) -> Any:
    return letter_table(
        made.rows.samples,
        made.rows.generations,
        made.rows.grades,
        **{
            "candidates": [facts.name for facts in made.candidates],
            "items_per_sample": made.items_per_sample,
            "judge": JUDGE.name,
            "rubric": RUBRIC,
            **more,
        },
    )


def test_every_expected_item_has_one_row_and_one_status() -> None:
    table = table_of(case({"alpha": ["AB-", "x", "CCA!"], "beta": ["AAA", "BBB", "x"]}))
    assert len(table) == 2 * 3 * 3
    counts = table.groupby("candidate")["status"].value_counts().to_dict()
    assert counts == {
        ("alpha", "graded"): 5,
        ("alpha", "failed"): 3,
        ("alpha", "ungraded"): 1,
        ("beta", "graded"): 6,
        ("beta", "failed"): 3,
    }


def test_rows_stand_in_the_order_of_candidates_samples_and_positions() -> None:
    table = table_of(case({"beta": ["ABC", "x"], "alpha": ["AAA", "BBB"]}))
    assert list(table["candidate"]) == ["beta"] * 6 + ["alpha"] * 6
    assert list(table["position"]) == [0, 1, 2] * 4
    assert list(table["letter"]) == ["A", "B", "C", "", "", "", "A", "A", "A", "B", "B", "B"]


def test_what_does_not_exist_is_empty_text() -> None:
    table = table_of(case({"alpha": ["AB-", "x"]}))
    texts = ["item_id", "type", "question", "answer", "letter", "why", "failure", "detail", "text"]
    assert not table[texts].isna().any(axis=None)
    assert list(table["failure"]) == ["", "", "unparseable", *["invalid_json"] * 3]
    assert table.loc[3, "item_id"] == ""


def test_a_raised_flag_is_true_and_a_missing_item_has_none() -> None:
    table = table_of(case({"alpha": ["AB!-", "x"]}))
    assert list(table["flag hallucination"]) == [False, True, False, False, False, False]
    assert table["flag hallucination"].dtype == bool


def test_the_order_of_rows_does_not_matter() -> None:
    made = case({"alpha": ["AB-", "x", "CCA"], "beta": ["AAA", "BBB", "x"]})
    turned = made.with_rows(generations=made.rows.generations[::-1], grades=made.rows.grades[::-1])
    assert table_of(made).equals(table_of(turned))


def test_the_same_pair_by_two_candidates_shares_one_grade() -> None:
    made = case({"alpha": ["A"], "beta": ["B"]}, items_per_sample=1)
    first, second = made.rows.generations
    shared = made.with_rows(generations=(first, second.model_copy(update={"items": first.items})))
    table = table_of(shared.with_rows(grades=made.rows.grades[:1]))
    assert list(table["letter"]) == ["A", "A"]


def test_a_run_in_which_everything_failed_is_a_table_too() -> None:
    assert list(table_of(case({"alpha": ["x", "x"]}))["status"]) == ["failed"] * 6


def test_a_missing_generation_is_named() -> None:
    made = case({"alpha": ["AAA", "BBB"]})
    lost = made.rows.generations[1]
    with pytest.raises(DataError, match=rf"1 is missing \('alpha {lost.sample_id}'\).*--resume"):
        table_of(made.with_rows(generations=made.rows.generations[:1], grades=made.rows.grades[:3]))


def test_a_doubled_generation_is_refused() -> None:
    made = case({"alpha": ["AAA"]})
    with pytest.raises(DataError, match=r"generations: .* 1 twice"):
        table_of(made.with_rows(generations=made.rows.generations * 2))


def test_a_doubled_sample_is_refused() -> None:
    made = case({"alpha": ["AAA"]})
    with pytest.raises(DataError, match=r"samples: .* twice"):
        table_of(made.with_rows(samples=made.rows.samples * 2))


def test_a_generation_of_a_foreign_candidate_is_refused() -> None:
    made = case({"alpha": ["AAA"], "beta": ["AAA"]})
    with pytest.raises(DataError, match="this run: 'beta"):
        table_of(replace(made, candidates=made.candidates[:1]))


def test_missing_grades_are_named_by_the_first_three() -> None:
    made = case({"alpha": ["AAA", "BBB"]})
    with pytest.raises(DataError, match=r"5 are missing .*('\w+', ){3}….*`qaeval grade RUN"):
        table_of(made.with_rows(grades=made.rows.grades[:1]))


def test_a_grade_of_an_item_that_nobody_wrote_is_refused() -> None:
    made = case({"alpha": ["AAA"]})
    stray = made.rows.grades[0].model_copy(update={"item_id": "stray"})
    with pytest.raises(DataError, match="this run: 'stray'"):
        table_of(made.with_rows(grades=(*made.rows.grades, stray)))


def test_two_grades_of_one_item_are_refused() -> None:
    made = case({"alpha": ["AAA"]})
    with pytest.raises(DataError, match=r"grades: .* 3 twice"):
        table_of(made.with_rows(grades=made.rows.grades * 2))


def test_a_reply_with_too_many_items_is_refused() -> None:
    made = case({"alpha": ["AAA"]})
    reply = made.rows.generations[0]
    assert isinstance(reply, Generation)
    more = Item.of(reply.sample_id, 3, type="fact", question="And?", answer="Nothing.")
    longer = reply.model_copy(update={"items": (*reply.items, more)})
    with pytest.raises(DataError, match=r"positions \[0, 1, 2\]"):
        table_of(made.with_rows(generations=(longer,)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rubric_sha": "other"}, "of another rubric"),
        ({"judge": "another"}, r"'judge-7b' only, .* \['another'\]"),
        ({"letter": "D"}, "letters off the scale A/B/C"),
        ({"flags": ("boring",)}, "flags outside the rubric"),
    ],
)
def test_a_grade_by_other_rules_is_refused(change: dict[str, Any], message: str) -> None:
    made = case({"alpha": ["AAA"]})
    grade = made.rows.grades[0]
    assert isinstance(grade, Grade)
    with pytest.raises(DataError, match=message):
        table_of(made.with_rows(grades=(grade.model_copy(update=change), *made.rows.grades[1:])))
