"""A panel of judges: the letter of most members decides, and Dawid-Skene stands beside it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import qaeval
from command import qaeval as typed
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


def _sum(request: Any) -> int:
    return sum(map(ord, request.inputs["question"]))


def by_b(request: Any) -> str:
    return grade_reply("ABC"[_sum(request) % 3])


def by_c(request: Any) -> str:
    return grade_reply("ABC"[_sum(request) // 3 % 3])


def test_an_item_without_a_majority_or_a_letter_is_a_failure_of_the_panel() -> None:
    made = case({"alpha": ["AB"]}, items_per_sample=2)
    first, second = (row for row in made.rows.grades if isinstance(row, Grade))
    failure = Failure(
        task_id="f",
        stage="grade",
        model="b",
        sample_id="s",
        item_id=first.item_id,
        reason="truncated",
        detail="",
    )
    lone, decided = panel_grades(
        {
            "a": [first, second],
            "b": [failure, second.model_copy(update={"judge": "b", "letter": "C"})],
            "c": [second.model_copy(update={"judge": "c", "letter": "C", "flags": ("hallucination",)})],
        },
        RUBRIC,
    )
    assert isinstance(lone, Failure)
    assert (lone.reason, lone.sample_id, lone.item_id, lone.stage) == (
        "truncated",
        "s",
        first.item_id,
        "grade",
    )
    assert lone.model == "a+b+c"
    assert lone.detail.endswith("a A, b no letter, c no letter")
    assert isinstance(decided, Grade)
    assert (decided.letter, decided.judge, decided.text, decided.usage) == ("C", "a+b+c", "", None)
    missing, _ = panel_grades({"a": [first, second], "b": [second], "c": [second]}, RUBRIC)
    assert isinstance(missing, Failure)
    assert (missing.reason, missing.sample_id) == ("interrupted", "")


def test_a_panels_letter_has_the_flaw_the_reason_and_the_flags_of_most_of_its_members() -> None:
    (row,) = (row for row in case({"alpha": ["B"]}, items_per_sample=1).rows.grades if isinstance(row, Grade))

    def by(judge: str, letter: str, flaw: str, *flags: str) -> Grade:
        change = {
            "judge": judge,
            "letter": letter,
            "flaw": flaw,
            "flags": flags,
            "reason": f"{judge} says so.",
        }
        return row.model_copy(update=change)

    def panel(*rows: Grade) -> Grade:
        (decided,) = panel_grades({own.judge: [own] for own in rows}, RUBRIC)
        assert isinstance(decided, Grade)
        return decided

    worst = by("c", "C", "wrong", "hallucination")
    decided = panel(worst, by("a", "B", "omission"), by("b", "B", "omission"))
    assert (decided.letter, decided.flaw, decided.flags) == ("B", "omission", ())
    assert decided.reason == "c C, a B, b B. a says so."
    assert panel(worst, by("a", "B", "", "hallucination"), by("b", "B", "")).flags == ("hallucination",)
    assert panel(worst, by("a", "B", ""), by("b", "B", "")).flaw == ""
    tie = panel(by("a", "A", ""), by("b", "B", "omission"), worst)
    assert (tie.letter, tie.reason) == ("B", "a A, b B, c C (tie). b says so.")
    assert panel(by("a", "A", "", "hallucination"), by("b", "A", "")).flags == ()  # half is not most


@contextmanager
def judges(**replies: Any) -> Iterator[dict[str, ScriptedModel]]:
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
    """A copy, to be graded."""
    return Path(shutil.copytree(labelled_run, tmp_path / "run"))


def _grade(run: Path, **replies: Any) -> qaeval.Run:
    with judges(**({"b": by_b, "c": by_c} | replies)), registered("scripted-judge", ScriptedModel(by_b)):
        return qaeval.grade(run, panel=MEMBERS, cache=False)


def _letters(path: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["item_id"]: row["letter"] for row in rows if row["kind"] == "grade"}


def _votes(run: Path) -> dict[str, list[str | None]]:
    files = [run / "grades.jsonl", run / "grades" / "b.jsonl", run / "grades" / "c.jsonl"]
    by_member = [_letters(path) for path in files]
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
def test_the_most_frequent_letter_decides(
    codes: list[int], n_members: int, expected: tuple[int | None, bool]
) -> None:
    assert panel_letter(codes, n_members=n_members) == expected


@pytest.mark.slow
def test_the_letters_of_the_report_are_those_of_most_members(run: Path) -> None:
    graded = _grade(run)
    votes = _votes(run)
    expected = {
        item: "ABC"[panel_letter(["ABC".index(x) for x in given if x], n_members=3)[0] or 0]
        for item, given in votes.items()
    }
    letters = graded.letters
    assert letters["letter"].tolist() == [expected[item] for item in letters["item_id"]]
    panel = graded.report.panel
    assert panel is not None
    assert [member.judge for member in panel.members] == list(MEMBERS)
    assert panel.n_items == len(votes)
    assert panel.n_ties == sum(len(set(given)) == 3 for given in votes.values()) > 0
    assert panel.n_unanimous == sum(len(set(given)) == 1 for given in votes.values()) > 0
    assert panel.n_undecided == 0
    for index, member in enumerate(panel.members):
        assert member.n_as_panel == sum(given[index] == expected[item] for item, given in votes.items())
    assert panel.agreement is not None
    assert panel.agreement.fleiss.has_interval
    assert graded.report.judge.facts.name == "scripted-judge+b+c"
    assert graded.report.judge.timing.latency_p50_s is None


@pytest.mark.slow
def test_dawid_skene_stands_beside_the_panel_and_is_measured_against_labels(run: Path) -> None:
    _grade(run)
    report = qaeval.load_run(run, panel=MEMBERS, labels=run / "labels" / "anna.jsonl").report
    votes, table = _votes(run), qaeval.load_run(run, panel=MEMBERS, labels=[]).letters
    model = dawid_skene([["ABC".index(x or "") for x in given] for given in votes.values()], n_levels=3)
    best = dict(zip(votes, model.posterior[:, 0], strict=True))
    probable = {item: "ABC"[row.argmax()] for item, row in zip(votes, model.posterior, strict=True)}
    assert report.panel is not None
    differ = table.drop_duplicates("item_id")
    assert report.panel.n_differ == sum(
        probable[item] != letter for item, letter in zip(differ["item_id"], differ["letter"], strict=True)
    )
    assert len(report.panel.candidates) == 2
    for candidate in report.panel.candidates:
        items = table[table["candidate"] == candidate.candidate]["item_id"]
        assert candidate.share_dawid_skene == pytest.approx(items.map(best).mean(), abs=1e-6)
    further = {judge.judge: judge for judge in report.judges}
    assert list(further) == [*MEMBERS, DAWID_SKENE]
    (change,) = further[DAWID_SKENE].kappa_differences
    assert change.rater == "anna"
    assert "labels" in report.panel.sentences[-1]


@pytest.mark.slow
def test_an_item_that_a_member_failed_is_decided_by_two_equal_letters(run: Path) -> None:
    def fails(request: Any) -> str:
        return by_c(request) if _sum(request) % 2 else "no letter"

    report = _grade(run, c=fails).report
    votes = _votes(run)
    missing = [given for given in votes.values() if given[2] is None]
    undecided = sum(first != second for first, second, _ in missing)
    assert 0 < undecided < len(missing)
    assert report.panel is not None
    assert report.panel.members[2].n_ungraded == len(missing)
    assert report.panel.n_undecided == undecided
    table = qaeval.load_run(run, panel=MEMBERS, labels=[]).letters
    assert (table.drop_duplicates("item_id")["status"] == "ungraded").sum() == undecided


@pytest.mark.slow
def test_a_member_that_fails_wholly_does_not_stop_the_others(run: Path) -> None:
    def dead(_: Any) -> str:
        raise ChatError("endpoint", "no server")

    with pytest.raises((DataError, EndpointError), match="1 of 3 members"):
        _grade(run, b=dead)
    assert len(_letters(run / "grades" / "c.jsonl")) == len(_letters(run / "grades.jsonl"))
    report = qaeval.load_run(run, panel=MEMBERS, labels=[]).report
    assert report.panel is not None
    assert report.panel.members[1].n_graded == 0
    assert report.panel.prevalence == ()  # two members do not identify the model
    assert DAWID_SKENE not in {judge.judge for judge in report.judges}
    with judges(b=by_b, c=by_c) as models, registered("scripted-judge", ScriptedModel(by_b)):
        qaeval.grade(run, panel=MEMBERS, cache=False)
    assert models["c"].requests == []
    assert len(models["b"].requests) == len(_votes(run))


@pytest.mark.slow
def test_the_panel_is_shown_and_written(run: Path, tmp_path: Path) -> None:
    _grade(run)
    shown = typed("report", "run", "--panel", PANEL, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for name in ("report.md", "report.html"):
        text = (run / name).read_text()
        assert "The panel" in text
        assert "Dawid-Skene" in text
    assert json.loads((run / "report.json").read_text())["panel"]["n_ties"] > 0
    shown = typed("report", "run", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "panel" not in json.loads((run / "report.json").read_text())


@pytest.mark.slow
def test_the_first_member_is_the_judge_of_an_ungraded_run(run: Path) -> None:
    (run / "grades.jsonl").unlink()
    settings = json.loads((run / "settings.json").read_text())
    del settings["grading"]
    (run / "settings.json").write_text(json.dumps(settings))
    _grade(run)
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
def test_a_panel_that_cannot_decide_is_refused_before_a_request(
    run: Path, panel: list[str], message: str
) -> None:
    with (
        judges(b=by_b, c=by_c, m=by_c) as models,
        registered("scripted-judge", ScriptedModel(by_b)),
        pytest.raises(UsageError, match=message),
    ):
        qaeval.grade(run, panel=panel)
    assert not any(model.requests for model in models.values())
    assert not (run / "grades").exists()


@pytest.mark.parametrize(
    "options",
    [["--panel", "scripted-judge,b,c"], ["--panel", "a,,b"], ["--panel", PANEL, "--decide-by", "b"]],
)
def test_a_report_of_an_impossible_panel_is_refused(run: Path, options: list[str]) -> None:
    shown = typed("report", run.name, *options, cwd=run.parent)
    assert shown.returncode == 64, shown.stdout


def test_panel_and_judge_exclude_each_other(run: Path) -> None:
    with pytest.raises(UsageError, match="exclude"):
        qaeval.grade(run, panel=MEMBERS, judge="b")


@pytest.mark.slow
def test_compare_has_the_panel_grade_and_decide(tmp_path: Path) -> None:
    with judges(a=by_c, b=by_b, c=by_c) as models:
        run = qaeval.compare(
            "embedded-lead", panel=["a", "b", "c"], n=6, out=tmp_path / "run", labels=[], cache=False
        )
    assert run.report.panel is not None
    assert [member.n_graded for member in run.report.panel.members] == [run.report.panel.n_items] * 3
    assert run.report.panel.n_undecided == run.report.panel.n_ties == 0
    by_a = _letters(run.path / "grades.jsonl")
    assert run.letters[run.letters["item_id"] != ""]["letter"].tolist() == [
        by_a[item] for item in run.letters["item_id"] if item
    ]
    assert len(models["b"].requests) == run.report.panel.n_items


@pytest.mark.slow
def test_compare_goes_on_after_a_member_that_failed(tmp_path: Path) -> None:
    def dead(_: Any) -> str:
        raise ChatError("endpoint", "no server")

    arguments: dict[str, Any] = {"n": 4, "out": tmp_path / "run", "labels": [], "cache": False}
    with judges(a=by_c, b=dead, c=by_c), pytest.raises((DataError, EndpointError), match="1 of 3 members"):
        qaeval.compare("embedded-lead", panel=["a", "b", "c"], **arguments)
    with judges(a=by_c, b=by_b, c=by_c) as models:
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
def test_the_command_line_refuses_a_panel_with_the_exit_code_of_usage(
    run: Path, arguments: tuple[str, ...]
) -> None:
    shown = typed(*arguments, cwd=run.parent)
    assert shown.returncode == 64
    assert "panel" in shown.stderr
    assert not (run.parent / "shards").exists()
    assert not (run.parent / "results").exists()


@pytest.mark.slow
def test_runs_side_by_side_are_compared_by_the_same_panel(run: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "other", {"o": LETTERS["m"]})
    first, second = _grade(run), _grade(tmp_path / "other")
    both = qaeval.load_run([run, tmp_path / "other"], panel=MEMBERS, labels=[])
    rates = {candidate.facts.name: candidate.usable.value for candidate in both.report.candidates}
    alone = [*first.report.candidates, *second.report.candidates]
    assert rates == {candidate.facts.name: candidate.usable.value for candidate in alone}
    assert both.report.judge.facts.name == "scripted-judge+b+c"


@pytest.mark.slow
def test_flags_and_reasons_are_those_of_most_members(run: Path) -> None:
    def flagged(_: Any) -> str:
        return grade_reply("B", flags={"hallucination": True}, reason="<b>invented</b>")

    letters = _grade(run, b=flagged, c=flagged).letters
    assert letters["flag hallucination"].all()
    assert set(letters["letter"]) == {"B"}
    page = qaeval.load_run(run, panel=MEMBERS, labels=[]).to_html()
    assert "<b>invented" not in page
    one = _grade_again(run)
    assert not one["flag hallucination"].any()


def _grade_again(run: Path) -> Any:
    """Return the letters where a single member raises the flag."""
    with judges(d=by_c):
        qaeval.grade(run, judge="d", cache=False)
    return qaeval.load_run(run, panel=["scripted-judge", "b", "d"], labels=[]).letters
