"""Labels of labelling tools and spreadsheets: each format as its tool writes it, with the item ids of an exported sheet."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from qaeval.agreement.label_files import read_labels
from qaeval.errors import DataError
from qaeval.records import Label

CASES = Path(__file__).parent / "data" / "cases"
IDS = ("62d0eead47f35614", "2e7447d8fa4587a5", "faf71cd9ce9d7873")
Written: TypeAlias = Callable[[str, Any], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(name: str, value: Any) -> Path:
        path = tmp_path / name
        text = value if isinstance(value, str) else "".join(json.dumps(row) + "\n" for row in value)
        path.write_text(text, "utf-8")
        return path

    return write


def letters(path: Path) -> dict[str, str]:
    return {label.item_id: label.letter for label in read_labels(path)}


@pytest.mark.parametrize(
    "name", ["labels_label_studio.json", "labels_label_studio_min.jsonl", "labels_excel_sep_line.csv"]
)
def test_the_public_cases_are_read(name: str) -> None:
    labels = read_labels(CASES / name)
    assert [(label.item_id, label.letter) for label in labels] == [*zip(IDS, "ABC", strict=True)]
    assert {(label.rater, label.rater_kind) for label in labels} == {(Path(name).stem, "human")}


def test_label_studio_json_with_notes_times_and_skipped_tasks(written: Written) -> None:
    def task(item: str, letter: str, by: Any, **more: Any) -> dict[str, Any]:
        choice = {"from_name": "grade", "to_name": "t", "type": "choices", "value": {"choices": [letter]}}
        note = {"from_name": "why", "to_name": "t", "type": "textarea", "value": {"text": ["vague", "short"]}}
        return {
            "id": 1,
            "data": {"item_id": item, "question": "Why?", "label": "not this"},
            "annotations": [{"id": 7, "completed_by": by, "result": [choice, note], **more}],
        }

    tasks = [
        task(
            "i1",
            "B",
            {"id": 1, "email": "anna@example.org"},
            lead_time=4.5,
            created_at="2026-01-05T10:00:00Z",
        ),
        task("i2", "C", {"id": 2, "email": "bert@example.org"}),
        task("i3", "A", 1, was_cancelled=True),
        {"id": 4, "data": {"item_id": "i4"}, "annotations": []},
    ]
    first, second = read_labels(written("studio.json", json.dumps(tasks)))
    assert (first.item_id, first.letter, first.note) == ("i1", "B", "vague short")
    assert (first.seconds, first.time) == (4.5, "2026-01-05T10:00:00Z")
    assert (first.rater, second.rater) == ("studio-anna@example.org", "studio-bert@example.org")


def test_label_studio_csv(written: Written) -> None:
    path = written(
        "studio.csv",
        "annotation_id,annotator,created_at,id,item_id,lead_time,question,sentiment,updated_at\n"
        "1,1,2026-01-05T10:00:00Z,1,i1,3.5,Why is that so and what follows from it?,B,2026-01-05T10:00:00Z\n",
    )
    (label,) = read_labels(path)
    assert (label.item_id, label.letter, label.seconds) == ("i1", "B", 3.5)


@pytest.mark.parametrize(
    "row",
    [
        {  # Argilla 2, Records.to_list()
            "id": "u1",
            "status": "completed",
            "fields": {"question": "Why?"},
            "metadata": {"item_id": "i1"},
            "suggestions": {},
            "responses": {"grade": [{"value": "B", "user_id": "u"}]},
        },
        {  # Argilla 2, flattened
            "id": "u1",
            "item_id": "i1",
            "grade.responses": ["B"],
            "grade.responses.users": ["u"],
            "grade.suggestion": None,
        },
        {  # Argilla 1, FeedbackDataset
            "fields": {"question": "Why?"},
            "metadata": {},
            "external_id": "i1",
            "responses": [
                {"user_id": "u", "values": {"grade": {"value": "B"}}, "status": "submitted"},
                {"user_id": "v", "values": {"grade": {"value": "C"}}, "status": "discarded"},
            ],
        },
        {  # Argilla 1, DatasetForTextClassification
            "inputs": {"text": "Why?"},
            "metadata": {"item_id": "i1"},
            "annotation": "B",
            "annotation_agent": "u",
            "prediction": None,
        },
        {  # Prodigy, choice
            "text": "Why?",
            "meta": {"item_id": "i1"},
            "options": [{"id": "A"}, {"id": "B"}],
            "accept": ["B"],
            "answer": "accept",
            "_input_hash": 1,
            "_task_hash": 2,
            "_annotator_id": "u",
        },
        {  # Prodigy, textcat
            "text": "Why?",
            "item_id": "i1",
            "label": "B",
            "answer": "accept",
            "_input_hash": 1,
        },
        {"id": 1, "text": "Why?", "item_id": "i1", "label": ["B"], "Comments": []},  # doccano
    ],
)
def test_rows_of_other_tools(written: Written, row: dict[str, Any]) -> None:
    (label,) = read_labels(written("anna.jsonl", [row]))
    assert (label.item_id, label.letter, label.rater, label.rater_kind) == ("i1", "B", "anna", "human")


def test_rejected_and_ignored_tasks_of_prodigy_are_no_labels(written: Written) -> None:
    rows = [
        {"item_id": f"i{n}", "label": "B", "answer": answer, "_input_hash": n}
        for n, answer in enumerate(["accept", "reject", "ignore"])
    ]
    assert letters(written("p.jsonl", rows)) == {"i0": "B"}


def test_headers_in_any_case_and_lower_case_letters(written: Written) -> None:
    path = written("sheet.csv", "Item ID;Label;NOTE\ni1;a;fine\ni2;C;\ni3;;\n")
    labels = {label.item_id: label for label in read_labels(path)}
    assert {name: label.letter for name, label in labels.items()} == {"i1": "A", "i2": "C"}
    assert labels["i1"].note == "fine"
    assert letters(written("sheet.jsonl", [{"item_id": "i1", "label": "b"}])) == {"i1": "B"}


@pytest.mark.parametrize(
    "name", ["label", "letter", "grade", "rating", "score", "choice", "verdict", "annotation"]
)
def test_a_column_of_letters_is_known_by_its_name(written: Written, name: str) -> None:
    # a second column of short texts: only the name tells
    path = written("sheet.csv", f"item_id,topic,{name}\ni1,B,A\ni2,B,C\n")
    assert letters(path) == {"i1": "A", "i2": "C"}


def test_an_array_of_labels_of_qaeval_is_read(written: Written) -> None:
    rows = [Label(item_id="i1", rater="anna", rater_kind="model", letter="B").model_dump(mode="json")]
    (label,) = read_labels(written("labels.json", json.dumps(rows)))
    assert (label.rater, label.rater_kind, label.letter) == ("anna", "model", "B")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x.csv", "text,verdict\nWhy?,B\n"),
        ("x.csv", "item_id,first,second\ni1,A,B\n"),
        ("x.json", "[1, 2]"),
        ("x.json", "[]"),
        ("x.json", "[{]"),
        ("x.jsonl", [{"id": 1, "text": "Why?", "label": ["B"]}]),
        ("x.jsonl", [{"foo": 1}]),
        ("x.jsonl", [{"item_id": "i1", "label": ["B", "C"], "id": 1}]),
        ("x.json", '{\n "annotations": []\n}'),
    ],
)
def test_what_is_none_of_these_names_the_tools_that_are_read(written: Written, name: str, value: Any) -> None:
    with pytest.raises(DataError) as refused:
        read_labels(written(name, value))
    assert {"Label", "Studio,", "Argilla,", "Prodigy", "doccano"} <= set(
        str(refused.value).replace("doccano;", "doccano").replace(".", " ").split()
    )


def studio_task(item: str, *results: dict[str, Any]) -> dict[str, Any]:
    choice = {"type": "choices", "value": {"choices": ["B"]}}
    return {"data": {"item_id": item}, "annotations": [{"completed_by": 1, "result": [choice, *results]}]}


def test_a_note_is_a_text_or_a_list_of_lines(written: Written) -> None:
    tasks = [
        studio_task("i1", {"type": "textarea", "value": {"text": "vague"}}),
        studio_task("i2", {"type": "textarea", "value": {"text": ["vague", "short"]}}),
    ]
    assert [label.note for label in read_labels(written("s.json", json.dumps(tasks)))] == [
        "vague",
        "vague short",
    ]


def test_a_line_separator_in_a_text_does_not_end_a_row(written: Written) -> None:
    rows = [{"id": n, "text": "one\u2028two", "item_id": f"i{n}", "label": ["A"]} for n in range(2)]
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    assert letters(written("d.jsonl", text)) == {"i0": "A", "i1": "A"}


@pytest.mark.parametrize(
    "task",
    [
        {"annotations": [{"result": [{"type": "textarea", "value": 3}]}], "data": {"item_id": "i"}},
        {
            "annotations": [{"result": [{"type": "textarea", "value": {"text": [1]}}]}],
            "data": {"item_id": "i"},
        },
        {"item_id": "i", "id": 1, "responses": [{"values": "B"}]},
        {"item_id": "i", "id": 1, "grade.responses": 3},
    ],
)
def test_fields_in_another_form_are_refused_in_words(written: Written, task: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="Label Studio"):
        read_labels(written("x.json", json.dumps([task])))


def test_odd_extras_of_an_annotation_are_no_crash(written: Written) -> None:
    task = studio_task("i1")
    task["annotations"][0]["lead_time"] = ["long"]
    with pytest.raises(DataError, match="row 1"):
        read_labels(written("x.json", json.dumps([task])))
