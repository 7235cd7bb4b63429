"""A judge that tells nothing apart, and a run in which nothing was graded: no pass, no success, and the reason in every view."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import qaeval
from certificate_builders import certificate
from gate_runs import TODAY, controls, draw_letters, evidence
from qaeval.chat.protocol import ChatError, ChatRequest
from qaeval.cli import run as command
from qaeval.cli.gate_tables import print_gate
from qaeval.comparison.html import render_html
from qaeval.comparison.markdown import render_markdown
from qaeval.comparison.model import Reason, Verdict
from qaeval.comparison.overview import build_overview
from qaeval.comparison.report_file import load_report
from qaeval.errors import DataError, EndpointError
from qaeval.gate.decide import decide
from qaeval.gate.evidence import Evidence
from qaeval.gate.model import GateReport
from qaeval.gate.policy import Policy
from qaeval.gate.rules import GateInputs
from qaeval.gate.views import to_comment, to_junit, to_markdown
from qaeval.records import Label
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered
from report_builders import case

TYPES = ("factual", "conceptual", "comparison")
USABLE = {"quantity": "usable_rate", "margin": 0.1}
VALID = {"quantity": "valid_rate", "margin": 0.1}


def gate(
    run: Evidence, *rules: dict[str, Any], baseline: Evidence | None = None, **policy: Any
) -> GateReport:
    asked = Policy.model_validate({"rules": rules, **policy})
    inputs = GateInputs(policy=asked, run=run, baseline=baseline or run, candidates={}, today=TODAY)
    return decide(inputs)


# ------------------------------------------------------------------------------ what decides


def test_a_judge_that_gives_the_best_letter_to_controls_passes_nothing() -> None:
    blind = evidence({"alpha": draw_letters(60, 0.8)}, controls=controls("AAAAAA"))
    report = gate(blind, USABLE)
    assert (report.outcome, report.exit_code) == ("untrusted", 3)
    assert report.controls is not None
    assert (report.controls.outcome, report.controls.n_best) == ("tells nothing apart", 6)
    assert "6 of 6 planted controls" in report.headline
    assert [rule.verdict for rule in report.rules] == ["inconclusive"]
    assert gate(evidence({"alpha": draw_letters(60, 0.8)}), USABLE).outcome == "pass"


@pytest.mark.slow
def test_one_letter_without_controls_passes_nothing_from_thirty_items_on() -> None:
    assert gate(evidence({"alpha": ["AAA"] * 60}, controls=()), USABLE).outcome == "untrusted"
    assert gate(evidence({"alpha": ["AAA"] * 60}), USABLE).outcome == "pass"
    few = gate(evidence({"alpha": ["A"] * 29}, controls=()), {**USABLE, "margin": 0.2})
    assert few.outcome == "pass"


def test_rules_that_rest_on_no_letter_are_decided_all_the_same() -> None:
    blind = evidence({"alpha": ["AAA"] * 60}, controls=())
    assert gate(blind, VALID).outcome == "pass"
    failed = evidence({"alpha": ["AAA"] * 30 + ["x"] * 30}, controls=())
    report = gate(failed, USABLE, VALID, baseline=blind)
    assert (report.outcome, report.exit_code) == ("regression", 1)


def test_a_valid_certificate_overrules_the_controls(tmp_path: Path) -> None:
    blind = evidence({"alpha": draw_letters(60, 0.8)}, controls=controls("AAAAAA"))
    path = tmp_path / "c.json"
    certificate(blind.source.identity).write(path)
    policy = {"certificate": "warn", "certificate_file": str(path)}
    assert gate(blind, USABLE, **policy).outcome == "pass"
    assert gate(blind, USABLE).outcome == "untrusted"


def test_a_baseline_says_nothing_of_the_judge() -> None:
    blind = evidence({"alpha": draw_letters(60, 0.8)}, controls=controls("AAAAAA"))
    file = replace(blind, discrimination=None, doubts=())
    run = evidence({"alpha": draw_letters(60, 0.8)})
    assert gate(run, USABLE, baseline=blind).outcome == gate(run, USABLE, baseline=file).outcome == "pass"


def labels_of(run: Evidence, letters: str) -> list[Label]:
    """Label the first items of the run's candidate."""
    items = run.candidates[0].item_ids.ravel().tolist()
    return [
        Label(item_id=item, letter=letter, rater="anna", rater_kind="human")
        for item, letter in zip(items, letters, strict=False)
    ]


def test_a_pass_by_a_judge_that_nothing_validated_is_cautioned_in_every_view(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = evidence({"alpha": draw_letters(60, 0.8)})
    run = evidence({"alpha": draw_letters(60, 0.8)}, labels=labels_of(plain, "A" * 12))
    report = gate(run, USABLE)
    said = "Caution: the judge is not validated (4 labelled chunks; 10 are needed). This pass is only as good as its letters."
    assert (report.outcome, report.exit_code, report.caution) == ("pass", 0, said)
    print_gate(report)
    assert said in " ".join(capsys.readouterr().out.split())
    for text in (to_markdown(report), to_comment(report)):
        assert (
            text.index(report.headline) < text.index("Caution: the judge is not validated") < text.index("|")
        )
    assert to_junit(report).count("Caution: the judge is not validated") == 2
    assert "(no labels; labels of 10 chunks are needed)" in gate(plain, USABLE).caution


def test_a_pass_that_labels_or_a_certificate_back_has_no_caution(tmp_path: Path) -> None:
    run = evidence({"alpha": draw_letters(60, 0.8)})
    right = labels_of(run, "".join(draw_letters(60, 0.8)))
    assert gate(evidence({"alpha": draw_letters(60, 0.8)}, labels=right), USABLE).caution == ""
    assert gate(run, VALID).caution == ""
    assert gate(evidence({"alpha": draw_letters(60, 0.2, seed=1)}), USABLE, baseline=run).caution == ""
    path = tmp_path / "c.json"
    certificate(run.source.identity).write(path)
    assert gate(run, USABLE, certificate="warn", certificate_file=str(path)).caution == ""


def test_the_reason_against_a_judge_names_what_applies() -> None:
    # 9 of 15 letters are right, and 12 of 15 labels are a C; no item below A got an A
    judged, labels = ["ABC", "ACB", "ABC", "BCB", "CBC"] * 12, ["ACC", "ACC", "ACC", "CCC", "CCC"] * 12
    given = labels_of(evidence({"alpha": judged}), "".join(labels))
    report = gate(evidence({"alpha": judged}, labels=given), USABLE)
    assert report.outcome == "untrusted"
    shown = "agrees with 60.0 % of the labels; always answering C would agree with 80.0 %."
    assert report.headline.startswith(
        f"The judge is not trusted: by anna's labels, the judge {shown} More chunks "
    )
    page = case({"alpha": judged}).with_rows(labels=given).report()
    (caution,) = [note.text for note in page.headline if "not shown to be reliable" in note.text]
    assert caution.endswith(f"it {shown}")
    screen = build_overview(page)
    assert f"By anna's labels, the judge {shown}" in str(screen)
    assert "gives an A to 0" not in f"{screen} {caution}"


def test_labels_that_do_not_show_the_judge_to_be_better_are_no_validation() -> None:
    labels = labels_of(evidence({"alpha": ["AAA"] * 30}), "A" * 90)
    labelled = evidence({"alpha": ["AAA"] * 30}, labels=labels)
    assert "labels of 30 chunks do not show that it is better than chance" in gate(labelled, USABLE).caution


# ------------------------------------------------------------------------------ runs


def writes(request: ChatRequest) -> str:
    text = request.inputs["chunk"]
    return pairs_reply([(kind, f"{kind}: what of {text[:30]}?", text[:160]) for kind in TYPES])


def copies(_request: ChatRequest) -> str:
    return pairs_reply([(kind, "…", "…") for kind in TYPES])


def copies_too(_request: ChatRequest) -> str:
    return pairs_reply([(kind, "...", "...") for kind in TYPES])


def one_letter(_request: ChatRequest) -> str:
    return grade_reply("A")


def compare(out: Path, *candidates: Callable[[ChatRequest], str]) -> qaeval.Run:
    names = [reply.__name__ for reply in candidates]
    with ExitStack() as stack:
        for name, reply in (*zip(names, candidates, strict=True), ("judge", one_letter)):
            stack.enter_context(registered(name, ScriptedModel(reply)))
        return qaeval.compare(names, judge="judge", eval_name="qa_pairs", n=12, out=out, cache=False)


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run in which a candidate copies the example and the judge gives one letter to everything."""
    return compare(tmp_path_factory.mktemp("blind") / "blind", writes, copies).path


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run in which every candidate copies the example."""
    out = tmp_path_factory.mktemp("copied") / "copied"
    with pytest.raises(DataError, match="no generation succeeded") as raised:
        compare(out, copies, copies_too)
    assert raised.value.reported == out
    return out


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return what a command prints on stdout."""

    def output(*arguments: object, code: int = 0) -> str:
        capsys.readouterr()
        assert command([*map(str, arguments)]) == code
        return capsys.readouterr().out

    return output


def verdicts(run: Path, printed: Callable[..., str]) -> list[Verdict]:
    """Read the verdict of a run from every document that carries it."""
    (segment,) = json.loads(printed("history", run.parent, "--json"))["evals"][0]["stretches"]
    documents = [
        json.loads((run / "report.json").read_text()),
        json.loads(printed("decide", run, "--json")),
        segment["runs"][0],
        json.loads(printed("report", run, "--json")),
    ]
    return [Verdict.model_validate(document["verdict"]) for document in documents]


@pytest.mark.slow
def test_a_copied_example_and_a_judge_of_one_letter_are_no_verdict_in_every_view(
    blind: Path, tmp_path: Path, printed: Callable[..., str]
) -> None:
    report = load_report(blind)
    assert report.verdict.kind == "none"
    assert all(rater.standing == "no labels joined" for rater in report.agreement)
    assert verdicts(blind, printed) == [report.verdict] * 4
    sentence = report.headline[0].text
    views = ["--summary", "summary.md", "--comment", "comment.md", "--junit", "junit.xml"]
    gated = json.loads(printed("gate", blind, "--baseline", blind, *views, "--json", code=3))
    assert Verdict.model_validate(gated["verdict"]) == report.verdict
    assert gated["controls"]["n_best"] == 10
    export = ("export", blind, "--to", "csv", "--out", tmp_path / "export")
    texts = [
        render_html(report, ()),
        render_markdown(report),
        printed("report", blind),
        printed("decide", blind),
        printed("history", blind.parent),
        printed("gate", blind, "--baseline", blind, code=3),
        *(Path(name).read_text() for name in ("summary.md", "comment.md", "junit.xml")),
        printed(*export) + (tmp_path / "export" / "README.md").read_text(),
    ]
    for text in texts:
        assert sentence in " ".join(text.split())


def test_a_plan_by_a_judge_that_tells_nothing_apart_asks_for_no_more_chunks(
    blind: Path, printed: Callable[..., str]
) -> None:
    plan = json.loads(printed("plan", blind, "--json"))
    (pair,) = plan["pairs"]
    assert (pair["needed"], pair["detectable"], pair["power"]) == (None, None, 0)
    assert [reason["code"] for reason in plan["doubts"]] == ["judge_tells_nothing_apart"]
    text = printed("plan", blind)
    assert "10 of 10 planted controls" in text
    assert "over a million" not in text


@pytest.mark.slow
def test_a_run_in_which_every_candidate_copies_the_example_is_reported_without_a_verdict(
    copied: Path, printed: Callable[..., str]
) -> None:
    report = load_report(copied)
    assert report.verdict.reasons == (Reason(code="nothing_graded", failure="placeholder"),)
    assert verdicts(copied, printed) == [report.verdict] * 4
    assert not (copied / "controls.jsonl").exists()
    sentence = report.headline[0].text
    assert "placeholder" in sentence
    for text in (
        unescape((copied / "report.html").read_text()),
        (copied / "report.md").read_text(),
        printed("report", copied),
        printed("decide", copied),
        printed("history", copied.parent),
    ):
        assert sentence in " ".join(text.split())


@pytest.mark.slow
def test_a_run_in_which_nothing_was_graded_is_no_success(
    copied: Path, blind: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with registered("copies", ScriptedModel(copies)), registered("judge", ScriptedModel(one_letter)):
        arguments = ["compare", "copies", "--judge", "judge", "--n", "3", "--out", str(tmp_path / "run")]
        assert command(arguments) == 65
        shown = capsys.readouterr()
        assert load_report(tmp_path / "run").headline[0].text in " ".join(shown.out.split())
        assert "9 × placeholder" in shown.err
        assert "--resume" not in shown.err
        assert command([*arguments, "--resume", "--json"]) == 65
        assert json.loads(capsys.readouterr().out)["verdict"]["kind"] == "none"
        assert command(["grade", str(tmp_path / "run")]) == 65
    gated = ["gate", str(copied), "--baseline", str(blind)]
    for arguments in (gated, ["baseline", "set", str(copied)], ["plan", str(copied)]):
        capsys.readouterr()
        assert command(arguments) == 65
        assert "72 of 72 items failed as placeholder" in capsys.readouterr().err
    assert not Path("baselines").exists()


@pytest.mark.slow
def test_a_judge_whose_server_fails_everywhere_leaves_a_report_and_may_be_asked_again(tmp_path: Path) -> None:
    def fails(_request: ChatRequest) -> str:
        raise ChatError("endpoint", "503")

    out = tmp_path / "run"
    with registered("writer", ScriptedModel(writes)), registered("judge", ScriptedModel(fails)):
        with pytest.raises(EndpointError, match="gave no item a letter") as raised:
            qaeval.compare("writer", judge="judge", eval_name="qa_pairs", n=2, out=out, cache=False)
        assert raised.value.reported == out
        assert load_report(out).verdict.reasons[0].failure == "endpoint"
