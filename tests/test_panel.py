"""A panel of judges: the majority letter decides, and Dawid-Skene is reported beside it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import qaeval
from command import qaeval as run_command
from qaeval.agreement.panel import DAWID_SKENE, panel_grades, panel_letter
from qaeval.chat.protocol import ChatError
from qaeval.errors import DataError, EndpointError, UsageError
from qaeval.records import Failure, Grade
from qaeval.stats import dawid_skene
from qaeval.testing import ScriptedModel, grade_reply, make_run, registered
from report_builders import RUBRIC, case

N_CHUNKS = 20
LETTERS = {"m": ["AAB", "ABC"] * (N_CHUNKS // 2), "n": ["AAA", "CBA"] * (N_CHUNKS // 2)}
MEMBERS = ("scripted-judge", "b", "c")
PANEL = "scripted-judge,b,c"


def _question_checksum(request: Any) -> int:
    return sum(map(ord, request.inputs["question"]))


def reply_of_b(request: Any) -> str:
    return grade_reply("ABC"[_question_checksum(request) % 3])


def reply_of_c(request: Any) -> str:
    return grade_reply("ABC"[_question_checksum(request) // 3 % 3])


def test_item_without_majority_or_letters_is_a_panel_failure() -> None:
    example = case({"alpha": ["AB"]}, items_per_sample=2)
    first, second = (row for row in example.rows.grades if isinstance(row, Grade))
    failure = Failure(
        task_id="f",
        stage="grade",
        model="b",
        sample_id="s",
        item_id=first.item_id,
        reason="truncated",
        detail="",
    )
    undecided, decided = panel_grades(
        {
            "a": [first, second],
            "b": [failure, second.model_copy(update={"judge": "b", "letter": "C"})],
            "c": [second.model_copy(update={"judge": "c", "letter": "C", "flags": ("hallucination",)})],
        },
        RUBRIC,
    )
    assert isinstance(undecided, Failure)
    assert (undecided.reason, undecided.sample_id, undecided.item_id, undecided.stage) == (
        "truncated",
        "s",
        first.item_id,
        "grade",
    )
    assert undecided.model == "a+b+c"
    assert undecided.detail.endswith("a A, b no letter, c no letter")
    assert isinstance(decided, Grade)
    assert (decided.letter, decided.judge, decided.text, decided.usage) == ("C", "a+b+c", "", None)
    missing, _ = panel_grades({"a": [first, second], "b": [second], "c": [second]}, RUBRIC)
    assert isinstance(missing, Failure)
    assert (missing.reason, missing.sample_id) == ("interrupted", "")


def test_panel_grade_has_the_majority_flaw_reason_and_flags() -> None:
    (row,) = (row for row in case({"alpha": ["B"]}, items_per_sample=1).rows.grades if isinstance(row, Grade))

    def make_grade(judge: str, letter: str, flaw: str, *flags: str) -> Grade:
        fields = {
            "judge": judge,
            "letter": letter,
            "flaw": flaw,
            "flags": flags,
            "reason": f"{judge} says so.",
        }
        return row.model_copy(update=fields)

    def decide(*rows: Grade) -> Grade:
        (decided,) = panel_grades({row.judge: [row] for row in rows}, RUBRIC)
        assert isinstance(decided, Grade)
        return decided

    worst = make_grade("c", "C", "wrong", "hallucination")
    decided = decide(worst, make_grade("a", "B", "omission"), make_grade("b", "B", "omission"))
    assert (decided.letter, decided.flaw, decided.flags) == ("B", "omission", ())
    assert decided.reason == "c C, a B, b B. a says so."
    assert decide(worst, make_grade("a", "B", "", "hallucination"), make_grade("b", "B", "")).flags == (
        "hallucination",
    )
    assert decide(worst, make_grade("a", "B", ""), make_grade("b", "B", "")).flaw == ""
    tie = decide(make_grade("a", "A", ""), make_grade("b", "B", "omission"), worst)
    assert (tie.letter, tie.reason) == ("B", "a A, b B, c C (tie). b says so.")
    # a flag of half of the members is not a majority
    assert decide(make_grade("a", "A", "", "hallucination"), make_grade("b", "A", "")).flags == ()


@contextmanager
def registered_judges(**replies: Any) -> Iterator[dict[str, ScriptedModel]]:
    with ExitStack() as stack:
        models = {name: ScriptedModel(reply) for name, reply in replies.items()}
        for name, model in models.items():
            stack.enter_context(registered(name, model))
        yield models


@pytest.fixture(scope="module")
def labelled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("panel") / "run"
    labels = {"anna": {name: [word[::-1] for word in words] for name, words in LETTERS.items()}}
    make_run(folder, LETTERS, labels=labels)
    return folder


@pytest.fixture
def run(labelled_run: Path, tmp_path: Path) -> Path:
    """A copy of the labelled run that the test may grade."""
    return Path(shutil.copytree(labelled_run, tmp_path / "run"))


def _grade_with_panel(run: Path, **replies: Any) -> qaeval.Run:
    with (
        registered_judges(**({"b": reply_of_b, "c": reply_of_c} | replies)),
        registered("scripted-judge", ScriptedModel(reply_of_b)),
    ):
        return qaeval.grade(run, panel=MEMBERS, cache=False)


def _read_letters(path: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["item_id"]: row["letter"] for row in rows if row["kind"] == "grade"}


def _read_votes(run: Path) -> dict[str, list[str | None]]:
    files = [run / "grades.jsonl", run / "grades" / "b.jsonl", run / "grades" / "c.jsonl"]
    by_member = [_read_letters(path) for path in files]
    return {item: [letters.get(item) for letters in by_member] for item in by_member[0]}


@pytest.mark.parametrize(
    ("codes", "n_members", "expected"),
    [
        ([0, 0, 2], 3, (0, False)),
        ([2, 0, 1], 3, (1, True)),
        ([0, 0, 2, 2, 1], 5, (1, True)),
        ([1, 0, 0, 2, 3], 5, (0, False)),
        ([0, 1], 3, (None, False)),
        ([1, 1], 3, (1, False)),
        ([2], 3, (None, False)),
        ([], 3, (None, False)),
        ([0, 0, 2, 2], 5, (2, True)),
    ],
)
def test_panel_letter_is_the_majority_or_the_median(
    codes: list[int], n_members: int, expected: tuple[int | None, bool]
) -> None:
    assert panel_letter(codes, n_members=n_members) == expected


@pytest.mark.slow
def test_report_letters_are_the_majority_letters(run: Path) -> None:
    graded_run = _grade_with_panel(run)
    votes = _read_votes(run)
    expected = {
        item: "ABC"[
            panel_letter(["ABC".index(letter) for letter in member_letters if letter], n_members=3)[0] or 0
        ]
        for item, member_letters in votes.items()
    }
    letters = graded_run.letters
    assert letters["letter"].tolist() == [expected[item] for item in letters["item_id"]]
    panel = graded_run.report.panel
    assert panel is not None
    assert [member.judge for member in panel.members] == list(MEMBERS)
    assert panel.n_items == len(votes)
    assert panel.n_ties == sum(len(set(member_letters)) == 3 for member_letters in votes.values()) > 0
    assert panel.n_unanimous == sum(len(set(member_letters)) == 1 for member_letters in votes.values()) > 0
    assert panel.n_undecided == 0
    for index, member in enumerate(panel.members):
        assert member.n_as_panel == sum(
            member_letters[index] == expected[item] for item, member_letters in votes.items()
        )
    assert panel.agreement is not None
    assert panel.agreement.fleiss.has_interval
    assert graded_run.report.judge.facts.name == "scripted-judge+b+c"
    assert graded_run.report.judge.timing.latency_p50_s is None


@pytest.mark.slow
def test_dawid_skene_is_reported_and_compared_with_labels(run: Path) -> None:
    _grade_with_panel(run)
    report = qaeval.load_run(run, panel=MEMBERS, labels=run / "labels" / "anna.jsonl").report
    votes, table = _read_votes(run), qaeval.load_run(run, panel=MEMBERS, labels=[]).letters
    model = dawid_skene(
        [["ABC".index(letter or "") for letter in member_letters] for member_letters in votes.values()],
        n_levels=3,
    )
    best_probability = dict(zip(votes, model.posterior[:, 0], strict=True))
    probable = {item: "ABC"[row.argmax()] for item, row in zip(votes, model.posterior, strict=True)}
    assert report.panel is not None
    unique_items = table.drop_duplicates("item_id")
    assert report.panel.n_differ == sum(
        probable[item] != letter
        for item, letter in zip(unique_items["item_id"], unique_items["letter"], strict=True)
    )
    assert len(report.panel.candidates) == 2
    for candidate in report.panel.candidates:
        items = table[table["candidate"] == candidate.candidate]["item_id"]
        assert candidate.share_dawid_skene == pytest.approx(items.map(best_probability).mean(), abs=1e-6)
    judges_by_name = {judge.judge: judge for judge in report.judges}
    assert list(judges_by_name) == [*MEMBERS, DAWID_SKENE]
    (change,) = judges_by_name[DAWID_SKENE].kappa_differences
    assert change.rater == "anna"
    assert "labels" in report.panel.sentences[-1]


@pytest.mark.slow
def test_item_that_a_member_failed_needs_two_equal_letters(run: Path) -> None:
    def reply_or_failure(request: Any) -> str:
        return reply_of_c(request) if _question_checksum(request) % 2 else "no letter"

    report = _grade_with_panel(run, c=reply_or_failure).report
    votes = _read_votes(run)
    missing = [member_letters for member_letters in votes.values() if member_letters[2] is None]
    undecided = sum(first != second for first, second, _ in missing)
    assert 0 < undecided < len(missing)
    assert report.panel is not None
    assert report.panel.members[2].n_ungraded == len(missing)
    assert report.panel.n_undecided == undecided
    table = qaeval.load_run(run, panel=MEMBERS, labels=[]).letters
    assert (table.drop_duplicates("item_id")["status"] == "ungraded").sum() == undecided


@pytest.mark.slow
def test_failing_member_does_not_stop_the_others(run: Path) -> None:
    def raise_endpoint_error(_: Any) -> str:
        raise ChatError("endpoint", "no server")

    with pytest.raises((DataError, EndpointError), match="1 of 3 members"):
        _grade_with_panel(run, b=raise_endpoint_error)
    assert len(_read_letters(run / "grades" / "c.jsonl")) == len(_read_letters(run / "grades.jsonl"))
    report = qaeval.load_run(run, panel=MEMBERS, labels=[]).report
    assert report.panel is not None
    assert report.panel.members[1].n_graded == 0
    assert report.panel.prevalence == ()  # two members do not identify the model
    assert DAWID_SKENE not in {judge.judge for judge in report.judges}
    with (
        registered_judges(b=reply_of_b, c=reply_of_c) as models,
        registered("scripted-judge", ScriptedModel(reply_of_b)),
    ):
        qaeval.grade(run, panel=MEMBERS, cache=False)
    assert models["c"].requests == []
    assert len(models["b"].requests) == len(_read_votes(run))


@pytest.mark.slow
def test_panel_is_in_the_report_files(run: Path, tmp_path: Path) -> None:
    _grade_with_panel(run)
    result = run_command("report", "run", "--panel", PANEL, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for name in ("report.md", "report.html"):
        text = (run / name).read_text()
        assert "The panel" in text
        assert "Dawid-Skene" in text
    assert json.loads((run / "report.json").read_text())["panel"]["n_ties"] > 0
    result = run_command("report", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "panel" not in json.loads((run / "report.json").read_text())


@pytest.mark.slow
def test_the_first_member_is_the_judge_of_an_ungraded_run(run: Path) -> None:
    (run / "grades.jsonl").unlink()
    settings = json.loads((run / "settings.json").read_text())
    del settings["grading"]
    (run / "settings.json").write_text(json.dumps(settings))
    _grade_with_panel(run)
    assert json.loads((run / "settings.json").read_text())["grading"]["judge"]["name"] == "scripted-judge"
    assert {path.stem for path in (run / "grades").glob("*.jsonl")} == {"b", "c"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("panel", "message"),
    [
        (["scripted-judge", "b"], "three or more"),
        (["scripted-judge", "b", "c", "d"], "odd number"),
        (["scripted-judge", "b", "b"], "b is named twice"),
        ([], "three or more"),
        (["scripted-judge", "b", "unknown"], "unknown"),
        (["scripted-judge", "b", "m"], "the same model"),
    ],
)
def test_invalid_panel_is_refused_without_requests(run: Path, panel: list[str], message: str) -> None:
    with (
        registered_judges(b=reply_of_b, c=reply_of_c, m=reply_of_c) as models,
        registered("scripted-judge", ScriptedModel(reply_of_b)),
        pytest.raises(UsageError, match=message),
    ):
        qaeval.grade(run, panel=panel)
    assert not any(model.requests for model in models.values())
    assert not (run / "grades").exists()


@pytest.mark.parametrize(
    "options",
    [["--panel", "scripted-judge,b,c"], ["--panel", "a,,b"], ["--panel", PANEL, "--decide-by", "b"]],
)
def test_report_of_an_invalid_panel_is_refused(run: Path, options: list[str]) -> None:
    result = run_command("report", run.name, *options, cwd=run.parent)
    assert result.returncode == 64, result.stdout


def test_panel_and_judge_exclude_each_other(run: Path) -> None:
    with pytest.raises(UsageError, match="exclude"):
        qaeval.grade(run, panel=MEMBERS, judge="b")


@pytest.mark.slow
def test_compare_grades_with_the_panel(tmp_path: Path) -> None:
    with registered_judges(a=reply_of_c, b=reply_of_b, c=reply_of_c) as models:
        run = qaeval.compare(
            "embedded-lead", panel=["a", "b", "c"], n=6, out=tmp_path / "run", labels=[], cache=False
        )
    assert run.report.panel is not None
    assert [member.n_graded for member in run.report.panel.members] == [run.report.panel.n_items] * 3
    assert run.report.panel.n_undecided == run.report.panel.n_ties == 0
    by_a = _read_letters(run.path / "grades.jsonl")
    assert run.letters[run.letters["item_id"] != ""]["letter"].tolist() == [
        by_a[item] for item in run.letters["item_id"] if item
    ]
    assert len(models["b"].requests) == run.report.panel.n_items


@pytest.mark.slow
def test_compare_resumes_after_a_failed_member(tmp_path: Path) -> None:
    def raise_endpoint_error(_: Any) -> str:
        raise ChatError("endpoint", "no server")

    arguments: dict[str, Any] = {"n": 4, "out": tmp_path / "run", "labels": [], "cache": False}
    with (
        registered_judges(a=reply_of_c, b=raise_endpoint_error, c=reply_of_c),
        pytest.raises((DataError, EndpointError), match="1 of 3 members"),
    ):
        qaeval.compare("embedded-lead", panel=["a", "b", "c"], **arguments)
    with registered_judges(a=reply_of_c, b=reply_of_b, c=reply_of_c) as models:
        run = qaeval.compare("embedded-lead", panel=["a", "b", "c"], resume=True, **arguments)
    assert run.report.panel is not None
    assert run.report.panel.members[1].n_ungraded == 0
    assert models["a"].requests == models["c"].requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("grade", "run", "--panel", "scripted-judge,b"),
        ("grade", "run", "--panel", "scripted-judge,b,b"),
        ("compare", "embedded-lead", "--panel", "a,b,c,d"),
        ("compare", "embedded-lead", "--panel", "a,b,c", "--shard", "0/2", "--out", "shards"),
    ],
)
def test_command_line_refuses_an_invalid_panel(run: Path, arguments: tuple[str, ...]) -> None:
    result = run_command(*arguments, cwd=run.parent)
    assert result.returncode == 64
    assert "panel" in result.stderr
    assert not (run.parent / "shards").exists()
    assert not (run.parent / "results").exists()


@pytest.mark.slow
def test_side_by_side_runs_are_compared_by_the_same_panel(run: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "other", {"o": LETTERS["m"]})
    first, second = _grade_with_panel(run), _grade_with_panel(tmp_path / "other")
    combined = qaeval.load_run([run, tmp_path / "other"], panel=MEMBERS, labels=[])
    rates = {candidate.facts.name: candidate.usable.value for candidate in combined.report.candidates}
    separate = [*first.report.candidates, *second.report.candidates]
    assert rates == {candidate.facts.name: candidate.usable.value for candidate in separate}
    assert combined.report.judge.facts.name == "scripted-judge+b+c"


@pytest.mark.slow
def test_flags_and_reasons_are_those_of_the_majority(run: Path) -> None:
    def flagged_reply(_: Any) -> str:
        return grade_reply("B", flags={"hallucination": True}, reason="<b>invented</b>")

    letters = _grade_with_panel(run, b=flagged_reply, c=flagged_reply).letters
    assert letters["flag hallucination"].all()
    assert set(letters["letter"]) == {"B"}
    page = qaeval.load_run(run, panel=MEMBERS, labels=[]).to_html()
    assert "<b>invented" not in page
    second_letters = _letters_with_one_flagging_member(run)
    assert not second_letters["flag hallucination"].any()


def _letters_with_one_flagging_member(run: Path) -> Any:
    """Return the letters where a single member raises the flag."""
    with registered_judges(d=reply_of_c):
        qaeval.grade(run, judge="d", cache=False)
    return qaeval.load_run(run, panel=["scripted-judge", "b", "d"], labels=[]).letters
