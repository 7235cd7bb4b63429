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


def make_run_data(letters: dict[str, list[str]]) -> RunData:
    source_case = case(letters)
    return RunData(
        rows=source_case.rows,
        eval_facts=source_case.eval_facts(),
        rubric=source_case.rubric,
        judge=source_case.judge,
        candidates=source_case.candidates,
        judge_tuned=False,
    )


FIRST_DATA = make_run_data({"alpha": ["AAB"] * 12})
SECOND_DATA = make_run_data({"beta": ["ABB"] * 12})


def letters_by_candidate(data: RunData) -> dict[str, list[str]]:
    table = data.table()
    return {str(name): "".join(rows["letter"]) for name, rows in table.groupby("candidate")}  # type: ignore[misc]


def test_the_candidates_of_both_runs_keep_their_letters() -> None:
    joined = join_runs({"one": FIRST_DATA, "other": SECOND_DATA})
    assert [facts.name for facts in joined.candidates] == ["alpha", "beta"]
    assert letters_by_candidate(joined) == {
        **letters_by_candidate(FIRST_DATA),
        **letters_by_candidate(SECOND_DATA),
    }


def test_a_candidate_in_both_runs_gets_the_run_name() -> None:
    second_run = make_run_data({"alpha": ["ABB"] * 12})
    joined = join_runs({"one": FIRST_DATA, "again": second_run})
    assert letters_by_candidate(joined) == {
        "alpha": letters_by_candidate(FIRST_DATA)["alpha"],
        "alpha@again": letters_by_candidate(second_run)["alpha"],
    }


def test_an_item_with_equal_grades_in_both_runs_is_one_item() -> None:
    joined = join_runs({"one": FIRST_DATA, "same": make_run_data({"alpha": ["AAB"] * 12})})
    assert len(joined.rows.grades) == len(FIRST_DATA.rows.grades)


def test_a_run_without_letters_does_not_borrow_those_of_another() -> None:
    complete = make_run_data({"alpha": ["AAB"] * 12})
    incomplete = replace(complete, rows=replace(complete.rows, grades=tuple(complete.rows.grades)[:-2]))
    for runs in ({"one": FIRST_DATA, "stopped": incomplete}, {"stopped": incomplete, "one": FIRST_DATA}):
        with pytest.raises(DataError, match=r"stopped: 2 items .*`qaeval grade`"):
            join_runs(runs)


def test_runs_that_differ_in_more_than_candidates_are_refused() -> None:
    shorter = make_run_data({"beta": ["ABB"] * 11})
    other_rubric = RunData(
        **{**vars(SECOND_DATA), "rubric": SECOND_DATA.rubric.model_copy(update={"sha": "f" * 64})}
    )
    other_judge = RunData(
        **{**vars(SECOND_DATA), "judge": SECOND_DATA.judge.model_copy(update={"revision": "b" * 40})}
    )
    for different_run, message in ((other_rubric, "rubric"), (other_judge, "judge's model")):
        with pytest.raises(NotComparableError, match=message):
            join_runs({"one": FIRST_DATA, "odd": different_run})
    assert shorter.eval_facts.n_samples != FIRST_DATA.eval_facts.n_samples


EXAMPLE = Path(__file__).parents[1] / "results" / "example"


def copy_example(path: Path, **session_fields: object) -> Path:
    """Copy the example run and update its sessions; `prompt_sha` is set only for grading sessions."""
    run = shutil.copytree(EXAMPLE, path)
    rows = [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]
    for row in rows:
        row.update({key: value for key, value in session_fields.items() if key != "prompt_sha"})
        if row["stage"] == "grade" and "prompt_sha" in session_fields:
            row["prompt_sha"] = session_fields["prompt_sha"]
    (run / "sessions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("shas", "has_warning"), [("aa", False), ("ab", True), (("a", ""), True)])
def test_runs_with_different_judge_prompts_cause_a_warning(
    shas: tuple[str, str], has_warning: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        copy_example(tmp_path / name, prompt_sha=sha * 64)
        for name, sha in zip(("first", "second"), shas, strict=True)
    ]
    assert run(["report", *map(str, runs), "--format", "json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["run"]["warnings"]
    assert [all(text in warning for text in ("first", "second", shas[0] * 8)) for warning in warnings] == [
        True
    ] * has_warning


@pytest.mark.slow
def test_a_run_finished_at_the_end_of_its_last_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy_example(tmp_path / "run", started="2026-02-03T23:59:00+00:00", seconds=90.4)
    assert run(["report", str(path), "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)["run"]
    assert (facts["started"], facts["finished"]) == ("2026-02-03T23:59:00+00:00", "2026-02-04T00:00:30+00:00")


@pytest.mark.slow
def test_csv_has_a_row_per_expected_item_and_escapes_formulas() -> None:
    graded_case = case({"alpha": ["AAB"] * 2, "beta": ["A-C!"] * 2})
    items = graded_case.items()
    formula_item = items[0].candidates[0].items[0].model_copy(update={"answer": '=HYPERLINK("http://x")'})
    candidate = (
        items[0].candidates[0].model_copy(update={"items": (formula_item, *items[0].candidates[0].items[1:])})
    )
    items = (items[0].model_copy(update={"candidates": (candidate, *items[0].candidates[1:])}), *items[1:])
    rows = list(csv.DictReader(io.StringIO(render_csv(items))))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2 * 2 * 3
    assert {row["item_id"] for row in rows if row["status"] == "graded"} <= {
        str(grade.item_id) for grade in graded_case.rows.grades
    }
    assert rows[0]["answer"] == '\'=HYPERLINK("http://x")'


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["--n", "12", "--seed", "7", "--out", str(path)]
    assert run(["compare", "embedded-lead", "embedded-salient", *arguments]) == 0
    return path


@pytest.mark.slow
def test_every_format_is_printed_completely(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for name in ("html", "md", "json"):
        assert run(["report", str(finished_run), "--format", name]) == 0
        assert capsys.readouterr().out == (finished_run / f"report.{name}").read_text()
    assert run(["report", str(finished_run), "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 72


@pytest.mark.slow
def test_a_printed_table_can_be_filled_with_labels(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["report", str(finished_run), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    for index, row in enumerate(rows):
        row["label"] = row["letter"] if index % 2 else ""
    path = tmp_path / "anna.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({row["item_id"]: row for row in rows}.values())
    assert run(["agreement", str(finished_run), "--labels", str(path), "--json"]) == 0
    (agreement,) = json.loads(capsys.readouterr().out)["agreement"]
    assert (agreement["rater"], agreement["rater_kind"], agreement["coefficients"]["observed"]["value"]) == (
        "anna",
        "human",
        1.0,
    )
    assert agreement["n_labels"] >= 30


def test_a_table_without_labels_names_its_columns(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bert.csv").write_text("item_id,first,second\nx,A,B\n")
    assert run(["agreement", str(finished_run), "--labels", str(tmp_path / "bert.csv")]) == 65
    assert "has item_id, first, second" in capsys.readouterr().err


@pytest.mark.slow
def test_two_runs_are_joined_and_different_samples_refused(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished_run, tmp_path / "again")
    capsys.readouterr()
    assert run(["report", str(finished_run), str(tmp_path / "again"), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [candidate["facts"]["name"] for candidate in report["candidates"]][2:] == [
        "embedded-lead@again",
        "embedded-salient@again",
    ]
    assert report["ranking"]
    arguments = ["--n", "12", "--seed", "8", "--out", str(tmp_path / "other")]
    assert run(["compare", "embedded-lead", "embedded-salient", *arguments]) == 0
    assert run(["report", str(finished_run), str(tmp_path / "other")]) == 4
    assert "differ in samples" in capsys.readouterr().err


@pytest.mark.slow
def test_json_output_contains_the_path_of_the_run(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["report", str(finished_run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(finished_run)


def test_an_unknown_format_lists_the_known_formats(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(finished_run), "--format", "pdf"]) == 64
    assert "html, md, json, csv" in capsys.readouterr().err
