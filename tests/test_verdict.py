"""The verdict as data: what decides it, and that every view prints the same one."""

import json
import re
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from qaeval.cli import run as qaeval
from qaeval.comparison.decision import decide
from qaeval.comparison.headline import verdict_sentence
from qaeval.comparison.html import render_html
from qaeval.comparison.markdown import render_markdown
from qaeval.comparison.model import Reason, Verdict
from qaeval.comparison.report_file import load_report
from qaeval.comparison.terminal import overview_text
from qaeval.records import Label
from qaeval.storage.run_directory import model_json
from report_builders import Case, candidate, case, items_of, label_of

EXAMPLE = Path(__file__).parents[1] / "results" / "example"

BETTER = {"alpha": ["AB"] * 12, "beta": ["AA"] * 12}
"""The judge gives beta 50 points more."""


def labelled(run: Case, letters: Sequence[str], *names: str, **more: str) -> tuple[Label, ...]:
    """Label all items of the named candidates, the same letters over and over for each."""
    return tuple(
        label_of(item, letters[index % len(letters)], **more)
        for name in names
        for index, item in enumerate(items_of(run, name))
    )


def codes(verdict: Verdict) -> list[str]:
    return [reason.code for reason in verdict.reasons]


def better(**facts: object) -> Case:
    return case(BETTER, items_per_sample=2, **facts)  # type: ignore[arg-type]


def refuted() -> Case:
    """Labels at odds with the judge's letters: it gives an A to every item that anna graded C."""
    run = better()
    return run.with_rows(labels=labelled(run, "AC", "beta"))


# ------------------------------------------------------------------------------ what decides


def test_without_labels_a_better_candidate_is_used_if_the_judge_is_right() -> None:
    verdict = better().report().verdict
    assert (verdict.kind, verdict.candidate, verdict.condition) == ("use", "beta", "if_judge_right")
    assert verdict.reasons == (
        Reason(code="better", candidates=("alpha",)),
        Reason(code="not_labelled", candidates=("alpha",)),
    )


@pytest.mark.slow
def test_candidates_without_a_difference_that_matters_are_equal() -> None:
    letters = {"alpha": ["AA", "AB"] * 10, "beta": ["AA", "AB"] * 10, "gamma": ["CC"] * 20}
    verdict = case(letters, items_per_sample=2).report(margin=0.2).verdict
    assert (verdict.kind, verdict.candidate, verdict.candidates) == ("equal", None, ("alpha", "beta"))
    assert verdict.condition == "if_judge_right"
    assert verdict.reason("better") == Reason(code="better", candidates=("gamma",))


@pytest.mark.slow
def test_open_differences_are_undecided() -> None:
    letters = {"alpha": ["AB", "BB"] * 6, "beta": ["AB"] * 10 + ["BB"] * 2}
    verdict = case(letters, items_per_sample=2).report(margin=0.02).verdict
    assert (verdict.kind, verdict.candidate, verdict.leader, verdict.condition) == (
        "undecided",
        None,
        "beta",
        None,
    )
    assert verdict.reason("not_enough_data") == Reason(
        code="not_enough_data", candidates=("alpha",), n_more_chunks=30
    )


def test_level_candidates_are_undecided_and_named_level() -> None:
    letters = {"alpha": ["AB", "BB"] * 6, "beta": ["BB", "AB"] * 6}
    assert codes(case(letters, items_per_sample=2).report().verdict) == [
        "not_enough_data",
        "level",
        "not_labelled",
    ]


@pytest.mark.parametrize("ungraded", [["AAB", "---"] * 20, ["AAB", "-AB"] * 20], ids=["replies", "items"])
def test_a_candidate_does_not_lose_by_items_that_the_judge_left_without_a_letter(ungraded: list[str]) -> None:
    whole = ["AAB"] * 40  # the same letters, wherever there are any
    report = case({"alpha": ungraded, "beta": whole}).report()
    assert report.differences[0].outcome == "b is better"
    assert (report.verdict.kind, report.verdict.leader) == ("undecided", "beta")
    assert report.verdict.reason("ungraded") == Reason(code="ungraded", candidates=("alpha",))
    assert report.verdict.reason("not_enough_data") == Reason(code="not_enough_data", candidates=("alpha",))


def test_items_without_a_letter_that_could_change_nothing_leave_the_verdict() -> None:
    clear = case({"alpha": ["ABB"] * 38 + ["-AB"] * 2, "beta": ["AAA"] * 40}).report().verdict
    assert (clear.kind, clear.candidate, clear.reason("ungraded")) == ("use", "beta", None)
    # as many on both sides: the difference stays as it is
    same = case({"alpha": ["AB-"] * 40, "beta": ["AA-"] * 40}).report().verdict
    assert (same.kind, same.candidate, same.reason("ungraded")) == ("use", "beta", None)


def test_candidates_are_not_equal_by_items_that_the_judge_left_without_a_letter() -> None:
    letters = {"alpha": ["AAB", "AA-"] * 20, "beta": ["AAB"] * 40}
    verdict = case(letters).report(margin=0.1).verdict
    assert (verdict.kind, verdict.reason("ungraded")) == (
        "undecided",
        Reason(code="ungraded", candidates=("beta",)),
    )
    assert case(letters).report(margin=0.4).verdict.kind == "equal"


def test_labels_decide_also_where_the_judge_left_items_without_a_letter() -> None:
    run = case({"alpha": ["AB", "-B"] * 6, "beta": ["AA"] * 12}, items_per_sample=2)
    run = run.with_rows(labels=(*labelled(run, "AB", "alpha"), *labelled(run, "A", "beta")))
    verdict = run.report().verdict
    assert (verdict.kind, verdict.candidate, verdict.reason("ungraded")) == ("use", "beta", None)


def test_few_chunks_are_undecided() -> None:
    letters = {"alpha": ["AB"] * 9, "beta": ["AA"] * 9}
    verdict = case(letters, items_per_sample=2).report().verdict
    assert (verdict.kind, codes(verdict)) == ("undecided", ["too_few_chunks", "not_labelled"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("letters", "code"),
    [
        ({"alpha": ["AB"] * 12}, "one_candidate"),
        ({"alpha": ["--"] * 12, "beta": ["--"] * 12}, "nothing_graded"),
        ({"alpha": ["BC"] * 12, "beta": ["CC"] * 12}, "nothing_usable"),
    ],
)
def test_nothing_to_decide_is_no_verdict(letters: dict[str, list[str]], code: str) -> None:
    verdict = case(letters, items_per_sample=2).report().verdict
    assert (verdict.kind, verdict.candidate, verdict.condition, codes(verdict)) == (
        "none",
        None,
        None,
        [code],
    )


def test_embedded_candidates_alone_are_no_verdict() -> None:
    embedded = {name: candidate(name, kind="embedded", hf_id="") for name in BETTER}
    verdict = better(**embedded).report().verdict
    assert (verdict.kind, codes(verdict)) == ("none", ["embedded_only", "better"])


# ------------------------------------------------------------------------------ labels that refute


def test_labels_that_refute_the_judge_leave_no_verdict() -> None:
    verdict = refuted().report().verdict
    assert (verdict.kind, verdict.candidate) == ("none", None)
    detail = "by anna's labels, the judge is not shown to agree more than chance would"
    assert verdict.reasons == (Reason(code="judge_refuted", raters=("anna",), detail=detail),)
    assert not verdict.trusts_judge


def test_labels_too_few_to_prove_a_judge_that_agrees_do_not_refute_it() -> None:
    # 23 of 24 items are an A, by the judge and by anna alike: too few other letters to beat always answering A
    run = case({"alpha": ["AB"] * 12, "beta": ["AA"] * 11 + ["AC"]}, items_per_sample=2)
    run = run.with_rows(labels=labelled(run, "A" * 23 + "C", "beta"))
    report = run.report()
    assert report.agreement[0].standing in {"chance", "majority"}
    assert (report.verdict.kind, report.verdict.condition) == ("use", "if_judge_right")


def test_labels_of_few_chunks_refute_nothing() -> None:
    run = better()
    assert run.with_rows(labels=labelled(run, "AC", "beta")[:18]).report().verdict.kind == "use"


def test_labels_with_one_letter_that_the_judge_gave_too_refute_nothing() -> None:
    run = better()
    assert run.with_rows(labels=labelled(run, "A", "beta")).report().verdict.kind == "use"


@pytest.mark.slow
def test_a_person_comes_before_a_model_when_labels_contradict_each_other() -> None:
    run = case({"alpha": ["AB"] * 24, "beta": ["AA"] * 24}, items_per_sample=2)
    by_anna = (*labelled(run, "AB", "alpha"), *labelled(run, "A", "beta"))
    by_model = labelled(run, "AC", "beta", rater="m", rater_kind="model")
    assert run.with_rows(labels=(*by_anna, *by_model)).report().verdict.kind == "use"
    assert run.with_rows(labels=by_model).report().verdict.kind == "none"


# ------------------------------------------------------------------------------ views


@pytest.mark.parametrize("run", [better(), refuted()], ids=["use", "none"])
@pytest.mark.slow
def test_page_markdown_and_terminal_print_the_verdict(run: Case) -> None:
    report = run.report()
    sentence = verdict_sentence(report.verdict)
    assert [line.text for line in overview_text(report) if line.kind == "verdict"] == [sentence]
    assert f"**{sentence}**" in render_markdown(report)
    (title,) = re.findall(r"<h1 [^>]*>(.*)</h1>", render_html(report).replace("&#39;", "'"))
    assert title == sentence


def test_a_refuted_judge_chooses_no_candidate() -> None:
    report = refuted().report()
    decision = decide(report, {})
    assert (decision.choice, decision.tied, decision.ranges, decision.rivals) == (None, (), (), ())
    assert decision.verdict == report.verdict
    assert decision.refused == ("quality", "cost")
    by_the_rest = decide(report, {"quality": 0, "cost": 0, "licence": 0, "speed": 0})
    assert by_the_rest.refused == ()


def test_decide_prints_the_verdict_for_its_margin() -> None:
    letters = {"alpha": ["AA", "AB"] * 10, "beta": ["AA", "AB"] * 9 + ["AA", "AA"]}
    report = case(letters, items_per_sample=2).report(margin=0.01)
    assert (report.verdict.kind, decide(report, {}).verdict.kind) == ("undecided", "undecided")
    assert decide(report, {}, margin=0.5).verdict.kind == "equal"


@pytest.mark.parametrize("n_labelled", [0, 12], ids=["judge", "labels"])
def test_decide_asks_for_as_many_chunks_as_a_report_with_its_margin(n_labelled: int) -> None:
    letters = {"alpha": ["AAB", "ABB", "AAA"] * 40, "beta": ["AAA", "ABB", "AAB", "AAB"] * 29 + ["AAA"] * 4}
    run = case(letters)
    labels = tuple(
        label_of(item, "AAB"[place % 3])
        for name in letters
        for place, item in enumerate(items_of(run, name)[: 3 * n_labelled])
    )
    run = run.with_rows(labels=labels)
    wide, narrow = run.report(margin=0.2), run.report(margin=0.01)
    decided = decide(wide, {}, margin=0.01).verdict
    assert decided == narrow.verdict
    assert (decided.kind, decided.reasons[0].code) == ("undecided", "not_enough_data")
    # with so small a margin labels of all chunks of the run would not do
    assert (decided.reasons[0].n_more_chunks is None) == bool(n_labelled)
    assert decide(narrow, {}, margin=0.2).verdict == wide.verdict


def test_decide_of_a_run_until_decided_takes_the_interval_for_another_margin() -> None:
    letters = {"alpha": ["AA", "AB"] * 10, "beta": ["AA", "AB"] * 9 + ["AA", "AA"]}
    report = case(letters, items_per_sample=2).report(margin=0.4)
    (pair,) = report.differences
    every_look = pair.model_copy(update={"at_every_look": True, "p_equivalent": 0.01})
    report = report.model_copy(update={"differences": (every_look,)})
    assert decide(report, {}).verdict.kind == "equal"
    narrow = decide(report, {}, margin=0.01).verdict
    assert (narrow.kind, narrow.reasons[0].code) == ("undecided", "not_enough_data")
    assert narrow.reasons[0].n_more_chunks is None  # no number holds at every look


# ------------------------------------------------------------------------------ report.json on disk


@pytest.fixture
def run_of_refuted(tmp_path: Path) -> Path:
    path = shutil.copytree(EXAMPLE, tmp_path / "run")
    (path / "report.json").write_text(model_json(refuted().report()))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"]["report.json"] = sha256((path / "report.json").read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.mark.slow
def test_history_and_decide_read_the_verdict_from_the_file(
    run_of_refuted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = load_report(run_of_refuted).verdict
    assert written == refuted().report().verdict
    assert qaeval(["history", str(tmp_path), "--json"]) == 0
    (history,) = json.loads(capsys.readouterr().out)["evals"]
    (segment,) = history["stretches"]
    assert Verdict.model_validate(segment["runs"][0]["verdict"]) == written
    assert qaeval(["decide", str(run_of_refuted), "--json"]) == 0
    decision = json.loads(capsys.readouterr().out)
    assert (decision["choice"], Verdict.model_validate(decision["verdict"])) == (None, written)


@pytest.mark.slow
def test_a_report_of_an_earlier_version_gets_its_verdict_from_its_data(run_of_refuted: Path) -> None:
    document = json.loads((run_of_refuted / "report.json").read_text())
    del document["verdict"]
    document["headline"][0]["text"] = "Take beta: it is better than alpha."
    (run_of_refuted / "report.json").write_text(json.dumps(document))
    assert load_report(run_of_refuted) == refuted().report()


def test_reasons_of_a_later_version_are_kept(run_of_refuted: Path) -> None:
    document = json.loads((run_of_refuted / "report.json").read_text())
    document["verdict"]["reasons"].append({"code": "of_tomorrow", "share": 0.5})
    (run_of_refuted / "report.json").write_text(json.dumps(document))
    assert codes(load_report(run_of_refuted).verdict) == ["judge_refuted", "of_tomorrow"]


def test_the_data_card_prints_the_verdict(run_of_refuted: Path, tmp_path: Path) -> None:
    assert qaeval(["export", str(run_of_refuted), "--to", "csv", "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert verdict_sentence(load_report(run_of_refuted).verdict) in card
