"""Runs side by side, and the report in every format."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from qaeval.cli import run
from qaeval.comparison.analysis import RunData
from qaeval.comparison.csv import COLUMNS, render_csv
from qaeval.comparison.run_data import join_runs
from qaeval.errors import DataError, NotComparableError
from report_builders import case


def data_of(letters: dict[str, list[str]]) -> RunData:
    made = case(letters)
    return RunData(
        rows=made.rows,
        eval_facts=made.eval_facts(),
        rubric=made.rubric,
        judge=made.judge,
        candidates=made.candidates,
        judge_tuned=False,
    )


ONE = data_of({"alpha": ["AAB"] * 12})
OTHER = data_of({"beta": ["ABB"] * 12})


def letters_of(data: RunData) -> dict[str, list[str]]:
    table = data.table()
    return {str(name): "".join(rows["letter"]) for name, rows in table.groupby("candidate")}  # type: ignore[misc]


def test_the_candidates_of_both_runs_keep_their_letters() -> None:
    joined = join_runs({"one": ONE, "other": OTHER})
    assert [facts.name for facts in joined.candidates] == ["alpha", "beta"]
    assert letters_of(joined) == {**letters_of(ONE), **letters_of(OTHER)}


def test_a_candidate_of_both_runs_is_told_apart() -> None:
    again = data_of({"alpha": ["ABB"] * 12})
    joined = join_runs({"one": ONE, "again": again})
    assert letters_of(joined) == {
        "alpha": letters_of(ONE)["alpha"],
        "alpha@again": letters_of(again)["alpha"],
    }


def test_an_item_that_both_graded_alike_is_one_item() -> None:
    joined = join_runs({"one": ONE, "same": data_of({"alpha": ["AAB"] * 12})})
    assert len(joined.rows.grades) == len(ONE.rows.grades)


def test_a_run_that_lacks_letters_does_not_borrow_those_of_another() -> None:
    same = data_of({"alpha": ["AAB"] * 12})
    stopped = replace(same, rows=replace(same.rows, grades=tuple(same.rows.grades)[:-2]))
    for runs in ({"one": ONE, "stopped": stopped}, {"stopped": stopped, "one": ONE}):
        with pytest.raises(DataError, match=r"stopped: 2 items .*`qaeval grade`"):
            join_runs(runs)


def test_runs_that_differ_in_more_than_candidates_are_refused() -> None:
    shorter = data_of({"beta": ["ABB"] * 11})
    other_rubric = RunData(**{**vars(OTHER), "rubric": OTHER.rubric.model_copy(update={"sha": "f" * 64})})
    other_judge = RunData(**{**vars(OTHER), "judge": OTHER.judge.model_copy(update={"revision": "b" * 40})})
    for odd, what in ((other_rubric, "rubric"), (other_judge, "judge's model")):
        with pytest.raises(NotComparableError, match=what):
            join_runs({"one": ONE, "odd": odd})
    assert shorter.eval_facts.n_samples != ONE.eval_facts.n_samples


EXAMPLE = Path(__file__).parents[1] / "results" / "example"


def copy_of_example(path: Path, **of_sessions: object) -> Path:
    """Copy the example run; its sessions get these fields, those of grading alone a prompt."""
    run = shutil.copytree(EXAMPLE, path)
    rows = [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]
    for row in rows:
        row.update({key: value for key, value in of_sessions.items() if key != "prompt_sha"})
        if row["stage"] == "grade" and "prompt_sha" in of_sessions:
            row["prompt_sha"] = of_sessions["prompt_sha"]
    (run / "sessions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("shas", "named"), [("aa", False), ("ab", True), (("a", ""), True)])
def test_runs_side_by_side_name_the_prompts_of_the_judge_in_which_they_differ(
    shas: tuple[str, str], named: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        copy_of_example(tmp_path / name, prompt_sha=sha * 64)
        for name, sha in zip(("first", "second"), shas, strict=True)
    ]
    assert run(["report", *map(str, runs), "--format", "json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["run"]["warnings"]
    assert [all(text in warning for text in ("first", "second", shas[0] * 8)) for warning in warnings] == [
        True
    ] * named


@pytest.mark.slow
def test_a_run_finished_at_the_end_of_its_last_session_however_often_it_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy_of_example(tmp_path / "run", started="2026-02-03T23:59:00+00:00", seconds=90.4)
    assert run(["report", str(path), "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)["run"]
    assert (facts["started"], facts["finished"]) == ("2026-02-03T23:59:00+00:00", "2026-02-04T00:00:30+00:00")


@pytest.mark.slow
def test_csv_has_a_row_for_each_expected_item_and_runs_no_formula() -> None:
    made = case({"alpha": ["AAB"] * 2, "beta": ["A-C!"] * 2})
    items = made.items()
    evil = items[0].candidates[0].items[0].model_copy(update={"answer": '=HYPERLINK("http://x")'})
    own = items[0].candidates[0].model_copy(update={"items": (evil, *items[0].candidates[0].items[1:])})
    items = (items[0].model_copy(update={"candidates": (own, *items[0].candidates[1:])}), *items[1:])
    rows = list(csv.DictReader(io.StringIO(render_csv(items))))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2 * 2 * 3
    assert {row["item_id"] for row in rows if row["status"] == "graded"} <= {
        str(grade.item_id) for grade in made.rows.grades
    }
    assert rows[0]["answer"] == '\'=HYPERLINK("http://x")'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    words = ["--n", "12", "--seed", "7", "--out", str(path)]
    assert run(["compare", "embedded-lead", "embedded-salient", *words]) == 0
    return path


@pytest.mark.slow
def test_every_format_is_printed_whole(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for name in ("html", "md", "json"):
        assert run(["report", str(finished), "--format", name]) == 0
        assert capsys.readouterr().out == (finished / f"report.{name}").read_text()
    assert run(["report", str(finished), "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 72


@pytest.mark.slow
def test_labels_are_made_in_the_printed_table(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["report", str(finished), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    for place, row in enumerate(rows):
        row["label"] = row["letter"] if place % 2 else ""
    path = tmp_path / "anna.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({row["item_id"]: row for row in rows}.values())
    assert run(["agreement", str(finished), "--labels", str(path), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["agreement"]
    assert (one["rater"], one["rater_kind"], one["coefficients"]["observed"]["value"]) == (
        "anna",
        "human",
        1.0,
    )
    assert one["n_labels"] >= 30


def test_a_table_without_labels_says_which_column_is_missing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bert.csv").write_text("item_id,first,second\nx,A,B\n")
    assert run(["agreement", str(finished), "--labels", str(tmp_path / "bert.csv")]) == 65
    assert "has item_id, first, second" in capsys.readouterr().err


@pytest.mark.slow
def test_two_runs_are_put_side_by_side_and_other_samples_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "again")
    capsys.readouterr()
    assert run(["report", str(finished), str(tmp_path / "again"), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["facts"]["name"] for one in report["candidates"]][2:] == [
        "embedded-lead@again",
        "embedded-salient@again",
    ]
    assert report["ranking"]
    words = ["--n", "12", "--seed", "8", "--out", str(tmp_path / "other")]
    assert run(["compare", "embedded-lead", "embedded-salient", *words]) == 0
    assert run(["report", str(finished), str(tmp_path / "other")]) == 4
    assert "differ in samples" in capsys.readouterr().err


@pytest.mark.slow
def test_json_for_machines_says_where_the_run_is(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["report", str(finished), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(finished)


def test_an_unknown_format_names_the_known_ones(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(finished), "--format", "pdf"]) == 64
    assert "html, md, json, csv" in capsys.readouterr().err
