"""Files of rows that are looked up without being held."""

import json
from pathlib import Path

import pytest

from qaeval.errors import DataError
from qaeval.files.rows import EachRow, Finished, LastRows, ReplyIndex, RowIndex, RowWriter
from qaeval.records import Failure, Generation, Grade, Item


def reply(candidate: str, sample: int, *questions: str, task: int | None = None) -> Generation:
    sample_id = f"{sample:016x}"
    items = tuple(
        Item.of(sample_id, index, type="t", question=question, answer="a")
        for index, question in enumerate(questions)
    )
    number = task if task is not None else 1000 * sample + len(candidate)
    return Generation(
        task_id=f"{number:016x}",
        candidate=candidate,
        sample_id=sample_id,
        items=items,
        text="",
        latency_s=0.0,
    )


def failed(task: int, sample: int, reason: str = "endpoint") -> Failure:
    return Failure(
        task_id=f"{task:016x}",
        stage="generate",
        model="m",
        sample_id=f"{sample:016x}",
        reason=reason,
        detail="d",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def write(path: Path, *rows: Generation | Failure) -> None:
    with RowWriter(path) as writer:
        for row in rows:
            writer.append(row)


def test_replies_are_found_by_sample_whatever_their_order(path: Path) -> None:
    write(path, reply("b", 2, "x"), reply("a", 1, "y"), reply("aa", 2, "z"), failed(7, 3))
    with ReplyIndex(path) as replies:
        candidates = [[row.candidate for row in replies.of(f"{sample:016x}")] for sample in (1, 2, 3, 4)]
        assert candidates == [["a"], ["b", "aa"], [], []]
        assert (len(replies), replies.n_items) == (3, 3)


def test_the_last_row_of_a_task_is_the_one_that_counts(path: Path) -> None:
    write(path, reply("a", 1, "x", "y", task=5), failed(6, 2), reply("b", 2, "z", task=6), failed(5, 1))
    with ReplyIndex(path) as replies:
        assert [row.candidate for row in replies.of(f"{2:016x}")] == ["b"]
        assert replies.of(f"{1:016x}") == []
        assert replies.n_items == 1
    assert {name for name in (5, 6) if f"{name:016x}" in Finished.read(path)} == {6}


def test_the_same_item_of_two_candidates_is_one_item(path: Path) -> None:
    write(path, reply("a", 1, "same", "own"), reply("bb", 1, "same", "other"))
    with ReplyIndex(path) as replies:
        assert replies.n_items == 3


def test_rows_are_read_anew_each_time(path: Path) -> None:
    write(path, reply("a", 1, task=1))
    every_row, last_rows = EachRow(path, len), LastRows(path, Generation.model_validate_json)
    assert (len(every_row), len(list(last_rows))) == (1, 1)
    write(path, reply("a", 2, task=2), reply("b", 1, task=1))
    assert len(every_row) == 3
    assert sorted(row.candidate for row in last_rows) == ["a", "b"]


def test_no_file_is_no_rows(path: Path) -> None:
    with ReplyIndex(path) as replies:
        assert (len(replies), replies.n_items, replies.of("0" * 16)) == (0, 0, [])
    assert len(Finished.read(path)) == 0
    assert list(LastRows(path, len)) == []


@pytest.mark.parametrize(
    "line", ["{}", "[1]", '{"task_id": 7}', '{"kind": "generation", "task_id": "xyz"}', "nonsense", "\xff"]
)
def test_a_line_that_is_no_row_is_named(path: Path, line: str) -> None:
    write(path, reply("a", 1))
    with path.open("ab") as file:
        file.write(line.encode("latin-1") + b"\n")
    for read in (ReplyIndex, Finished.read):
        with pytest.raises(DataError, match=r"rows\.jsonl:2:"):
            read(path)


def test_rows_are_looked_up_by_another_id_and_the_last_of_a_task_counts(tmp_path: Path) -> None:
    path = tmp_path / "grades.jsonl"
    rows = [("1", "a", 1), ("2", "b", 2), ("1", "a", 3), ("3", "a", 4), ("4", None, 5)]
    path.write_text(
        "".join(json.dumps({"task_id": task, "item_id": item, "n": n}) + "\n" for task, item, n in rows)
    )
    with RowIndex(path, "item_id", json.loads) as index:
        assert [row["n"] for row in index.of("a")] == [3, 4]
        index.close()  # the next look-up opens the file again
        assert [row["n"] for row in index.of("b")] == [2]
        assert index.of("c") == []


def test_a_row_that_is_not_valid_when_it_is_looked_up_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "grades.jsonl"
    path.write_text('{"task_id": "1", "item_id": "a"}\n')
    index = RowIndex(path, "item_id", Grade.model_validate_json)
    with index, pytest.raises(DataError, match=r"grades\.jsonl: byte 0: not a valid row"):
        index.of("a")
