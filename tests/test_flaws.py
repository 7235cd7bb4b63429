"""Flaws, the reasons for lower letters: in the rubric, the judge's reply and the counts of the report."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qaeval.agreement.panel import panel_grades
from qaeval.analysis.model import NOT_NAMED
from qaeval.cli import run
from qaeval.evals.find import find_rubric
from qaeval.evals.rubric import Rubric, grade_schema, load_rubric, prompt_text
from qaeval.records import Grade
from qaeval.report.facts import Meaning, RubricFacts
from qaeval.run.grade import parse_reply
from qaeval.testing import grade_reply
from qaeval_floor.answers import judge_answer
from qaeval_floor.faults import FLAWS
from qaeval_floor.lexical import WEIGHTS, judge

RUBRIC = find_rubric("qa_pair_abc")
VERSION_2 = load_rubric(Path(__file__).parent / "data" / "qa_pair_abc_2.yaml")
"""The rubric as version 2, before it had numbered rules."""
VERSION_1 = Rubric.model_validate(
    VERSION_2.model_dump(exclude={"flaws": True, "labels_from": True, "examples": {"__all__": {"flaw"}}})
    | {"version": 1}
)
"""The rubric as it was before it asked for flaws."""
SOURCE = "Pumps start at 3 bar. The valve closes within 5 seconds, because a spring pulls it back."


def parse_letter_and_flaw(
    reply: dict[str, Any], *, lenient: bool = False, rubric: Rubric = RUBRIC
) -> tuple[str, str]:
    complete_reply = {"reason": "r", "letter": "B", "hallucination": False, **reply}
    parsed = parse_reply(json.dumps(complete_reply), rubric, lenient=lenient)
    return parsed.letter, parsed.flaw


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    ("flaw", "expected"),
    [("omission", "omission"), ("none", ""), ("boring", ""), (7, ""), (None, ""), ({"a": 1}, ""), ([], "")],
)
def test_an_unreadable_flaw_never_costs_the_letter(flaw: Any, expected: str, *, lenient: bool) -> None:
    assert parse_letter_and_flaw({"flaw": flaw}, lenient=lenient) == ("B", expected)


@pytest.mark.parametrize("flaw", ["Off question", " OFF_QUESTION. ", ["off-question", "wrong"]])
def test_lenient_parsing_accepts_other_spellings_of_a_flaw(flaw: Any) -> None:
    assert parse_letter_and_flaw({"flaw": flaw}, lenient=True) == ("B", "off-question")
    assert parse_letter_and_flaw({"flaw": flaw}) == ("B", "")


def test_the_best_letter_drops_its_flaw_and_a_missing_flaw_keeps_the_letter() -> None:
    assert parse_letter_and_flaw({"letter": "A", "flaw": "wrong"}) == ("A", "")
    assert parse_letter_and_flaw({}) == ("B", "")
    assert parse_letter_and_flaw({"flaw": "wrong"}, rubric=VERSION_1) == ("B", "")


@pytest.mark.parametrize("mode", ["reason_first", "letter"])
def test_the_schema_asks_for_one_flaw_after_the_letter(mode: Any) -> None:
    schema = grade_schema(RUBRIC, mode=mode)
    keys = list(schema["properties"])
    assert keys[keys.index("letter") + 1] == "flaw"
    assert schema["properties"]["flaw"]["enum"] == ["none", *(flaw.name for flaw in RUBRIC.flaws)]
    assert "flaw" in schema["required"]
    assert "flaw" not in grade_schema(VERSION_1, mode=mode)["properties"]


@pytest.mark.parametrize("name", ["qa_pair_abc", "rag_answer_abc", "dpo_pair_abc"])
def test_the_prompt_lists_every_flaw_and_the_flaws_of_the_examples(name: str) -> None:
    rubric = find_rubric(name)
    prompt = prompt_text(rubric)
    assert rubric.flaws
    assert rubric.examples
    assert all(f"- {flaw.name}: {flaw.meaning}" in prompt for flaw in rubric.flaws)
    for example in rubric.examples:
        assert f'"letter": "{example.letter}", "flaw": "{example.flaw or "none"}"' in prompt


def test_a_rubric_without_flaws_keeps_its_digest_and_prompt() -> None:
    assert VERSION_1.sha.startswith("004bb8db")  # of the file that qaeval 0.1 shipped
    assert "flaw" not in prompt_text(VERSION_1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flaws": [{"name": "none", "meaning": "m"}]}, "'none'"),
        ({"flaws": [{"name": "x", "meaning": "m"}, {"name": "x", "meaning": "m"}]}, "duplicate flaw 'x'"),
        ({"flaws": [{"name": "omissions", "meaning": "m"}]}, "Did you mean 'omissions'"),
        ({"labels_from": [3]}, "labels_from"),
    ],
)
def test_invalid_flaws_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("'", ".")):
        Rubric.model_validate(RUBRIC.model_dump() | change)


def test_examples_need_a_flaw_unless_they_have_the_best_letter() -> None:
    content = RUBRIC.model_dump(mode="json")
    for number, flaw in ((0, "wrong"), (1, "")):
        examples = [dict(example) for example in content["examples"]]
        examples[number]["flaw"] = flaw
        with pytest.raises(ValueError, match=rf"examples\[{number + 1}\]\.flaw"):
            Rubric.model_validate(content | {"examples": examples})


# ------------------------------------------------------------------------------ the embedded judge


def test_every_fault_of_the_lexical_judge_maps_to_a_flaw() -> None:
    assert set(FLAWS) == set(WEIGHTS)
    assert set(FLAWS.values()) <= RUBRIC.flaw_names


@pytest.mark.parametrize(
    ("question", "answer", "flaw"),
    [
        ("At which pressure do the pumps start?", "Pumps start at 3 bar.", ""),
        ("At which pressure do the pumps start?", "Pumps start at 9 bar.", "unsupported"),
        ("At which pressure do the pumps start?", "Pumps do not start at 3 bar.", "wrong"),
        ("How many bar do the pumps take?", "Pumps start.", "omission"),
        ("Which colour has the heating of the greenhouse?", "Pumps start at 3 bar.", "off-question"),
        ("According to the text, at which pressure do the pumps start?", "Pumps start at 3 bar.", "question"),
        ("At which pressure do the pumps start?", "", "format"),
    ],
)
def test_the_lexical_judge_names_the_most_serious_flaw(question: str, answer: str, flaw: str) -> None:
    grade = judge(SOURCE, question, answer)
    assert grade.flaw == flaw
    assert (grade.letter == "A") == (flaw == "")


def test_the_lexical_judge_of_answers_names_a_refusal() -> None:
    assert judge_answer(
        SOURCE, "At which pressure do the pumps start?", "The passage does not say."
    ).flaw == ("refusal")
    assert judge_answer(SOURCE, "At which pressure do the pumps start?", "Pumps start at 7 bar.").flaw == (
        "unsupported"
    )


# ------------------------------------------------------------------------------ a run


@pytest.fixture(scope="module")
def graded_run(embedded_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(embedded_run, tmp_path_factory.mktemp("flaws") / "run")


def test_the_report_counts_the_flaws_of_the_rows_with_intervals(graded_run: Path) -> None:
    rows = [
        Grade.model_validate_json(line) for line in (graded_run / "grades.jsonl").read_text().splitlines()
    ]
    flaw_of = {row.item_id: row.flaw for row in rows}
    assert {row.flaw for row in rows if row.letter == "A"} == {""}
    report = json.loads((graded_run / "report.json").read_text())
    replies = [json.loads(line) for line in (graded_run / "generations.jsonl").read_text().splitlines()]
    assert report["candidates"]
    n_named = 0
    for candidate in report["candidates"]:
        name = candidate["facts"]["name"]
        items = [
            item["item_id"] for reply in replies if reply["candidate"] == name for item in reply["items"]
        ]
        for count in candidate["flaws"]:
            if count["name"] == NOT_NAMED:
                continue
            assert count["n"] == sum(flaw_of[item] == count["name"] for item in items)
            assert count["share"]["low"] <= count["share"]["value"] <= count["share"]["high"]
            n_named += count["n"]
        n_below_best = candidate["n_graded"] - next(
            letter["n"] for letter in candidate["letters"] if letter["name"] == "A"
        )
        assert sum(count["n"] for count in candidate["flaws"]) == n_below_best
    assert n_named > 0


@pytest.mark.slow
def test_views_and_tables_show_the_flaws(graded_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flaws = {
        json.loads(line).get("flaw") for line in (graded_run / "grades.jsonl").read_text().splitlines()
    } - {None}
    for name in ("report.md", "report.html"):
        text = (graded_run / name).read_text()
        assert all(flaw in text for flaw in flaws)
    capsys.readouterr()
    assert run(["report", str(graded_run)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("items are not A") == 1
    assert any(flaw in printed for flaw in flaws)
    assert run(["export", str(graded_run), "--to", "csv"]) == 0
    capsys.readouterr()
    assert run(["report", str(graded_run), "--format", "csv"]) == 0
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row["flaw"] for row in table} - {""} == flaws
    assert {row["flaw"] for row in table if row["letter"] == "A"} == {""}


@pytest.mark.slow
def test_a_run_graded_before_flaws_existed_can_be_read(graded_run: Path, tmp_path: Path) -> None:
    old_run = tmp_path / "old"
    shutil.copytree(graded_run, old_run)
    settings = json.loads((old_run / "settings.json").read_text())
    rubric = settings["grading"]["rubric"]
    del rubric["flaws"], rubric["rules"]
    (old_run / "settings.json").write_text(json.dumps(settings))
    lines = [json.loads(line) for line in (old_run / "grades.jsonl").read_text().splitlines()]
    (old_run / "grades.jsonl").write_text(
        "".join(
            json.dumps({key: value for key, value in line.items() if key != "flaw"}) + "\n" for line in lines
        )
    )
    assert run(["report", str(old_run)]) == 0
    report = json.loads((old_run / "report.json").read_text())
    assert all("flaws" not in candidate for candidate in report["candidates"])


@pytest.mark.slow
def test_labels_of_compatible_rubric_versions_are_accepted(graded_run: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    shutil.copytree(graded_run, run_folder)
    settings = json.loads((run_folder / "settings.json").read_text())
    settings["grading"]["rubric"]["labels_from"] = [2]
    (run_folder / "settings.json").write_text(json.dumps(settings))
    rows = [json.loads(line) for line in (run_folder / "grades.jsonl").read_text().splitlines()]
    agreements = []
    for version in ("qa_pair_abc/3", "qa_pair_abc/2", "qa_pair_abc/1"):
        sheet = tmp_path / "anna.csv"
        sheet.write_text(
            "item_id,label,rubric\n"
            + "".join(f"{row['item_id']},{row['letter']},{version}\n" for row in rows)
        )
        assert run(["report", str(run_folder), "--labels", str(sheet)]) == 0
        report = json.loads((run_folder / "report.json").read_text())
        agreements.append(report["agreement"][0]["n_other_rubric"])
    assert agreements == [0, 0, len(rows)]


def test_a_scripted_reply_can_name_a_flaw() -> None:
    assert parse_reply(grade_reply("C", flaw="wrong"), RUBRIC, lenient=False).flaw == "wrong"


def test_a_panel_takes_the_flaw_of_its_majority() -> None:
    facts = RubricFacts(name="r", sha="r", scale=tuple(Meaning(name=letter) for letter in "ABC"))
    verdicts = {
        "x": ("C", "wrong"),
        "y": ("C", ""),
        "z": ("B", "omission"),
        "u": ("C", "wrong"),
        "v": ("B", "omission"),
    }
    rows = {
        member: [
            Grade(
                task_id="t",
                judge=member,
                rubric_sha="r",
                item_id="i",
                letter=letter,
                flaw=flaw,
                text="",
                latency_s=0,
            )
        ]
        for member, (letter, flaw) in verdicts.items()
    }
    (row,) = panel_grades(rows, facts)
    assert isinstance(row, Grade)
    assert (row.letter, row.flaw) == ("C", "wrong")
    split_rows = {member: rows[member] for member in ("y", "z")} | {"w": rows["y"]}
    (row,) = panel_grades(split_rows, facts)
    assert isinstance(row, Grade)
    assert (row.letter, row.flaw) == ("C", "")
