"""Planted controls: drawn from the run, graded but never counted; and what they show about a judge."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

import qaeval
from qaeval.agreement.discrimination import MIN_CONTROLS, judge_discrimination, max_best
from qaeval.agreement.model import RaterAgreement
from qaeval.analysis.letters import cluster_of
from qaeval.chat.protocol import ChatError, ChatRequest
from qaeval.cli import run as command
from qaeval.comparison.decision import decide
from qaeval.comparison.headline import verdict_sentence
from qaeval.comparison.html import render_html
from qaeval.comparison.markdown import render_markdown
from qaeval.comparison.report_file import load_report
from qaeval.errors import EndpointError
from qaeval.records import Control, Grade, Item
from qaeval.report.measure import Measure
from qaeval.run.controls import N_CONTROLS
from qaeval.storage.location import find_location
from qaeval.storage.merge import merge_shards
from qaeval.storage.run_directory import CONTROLS, GRADES, SESSIONS, SETTINGS, RunStore
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered
from replay.server import LoopbackServer

TYPES = ("factual", "conceptual", "comparison")
EXAMPLE = pairs_reply([(kind, "…", "…") for kind in TYPES])


def write_supported(request: ChatRequest) -> str:
    """Answer with the beginning of the chunk, which is unique to it."""
    text = request.inputs["chunk"]
    return pairs_reply([(kind, f"{kind}: what does it say of {text[:30]}?", text[:160]) for kind in TYPES])


def copy_example(_request: ChatRequest) -> str:
    return EXAMPLE


def is_supported(request: ChatRequest) -> bool:
    return request.inputs["answer"] in request.inputs["chunk"]


def grade_by_support(request: ChatRequest) -> str:
    """Grade as a good judge does."""
    return grade_reply("A" if is_supported(request) else "C")


def grade_best(_request: ChatRequest) -> str:
    return grade_reply("A")


class FailingJudge(ScriptedModel):
    """A judge whose server goes away after n controls; all items are graded."""

    def __init__(self, n: int) -> None:
        super().__init__(self._reply)
        self.n_left = n

    def _reply(self, request: ChatRequest) -> str:
        if not is_supported(request):
            if not self.n_left:
                raise EndpointError("judge: the server stopped answering")
            self.n_left -= 1
        return grade_by_support(request)


def compare(
    out: Path,
    judge: Callable[[ChatRequest], str] | ScriptedModel = grade_by_support,
    candidates: dict[str, Callable[[ChatRequest], str]] | None = None,
    *,
    n: int = 12,
    **options: Any,
) -> tuple[qaeval.Run, ScriptedModel]:
    model = judge if isinstance(judge, ScriptedModel) else ScriptedModel(judge)
    with ExitStack() as stack:
        for name, reply in (candidates or {"writer": write_supported}).items():
            stack.enter_context(registered(name, ScriptedModel(reply)))
        stack.enter_context(registered("judge", model))
        names = list(candidates or {"writer": write_supported})
        run = qaeval.compare(names, judge="judge", eval_name="qa_pairs", n=n, out=out, cache=False, **options)
    return run, model


def grade_again(out: Path, judge: ScriptedModel, **options: Any) -> None:
    with registered("writer", ScriptedModel(write_supported)), registered("judge", judge):
        qaeval.grade(out, judge="judge", cache=False, **options)


def read_controls(out: Path) -> tuple[Control, ...]:
    with RunStore.open(out) as store:
        return store.controls()


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ------------------------------------------------------------------------------ drawn and graded


@pytest.mark.slow
def test_a_run_grades_ten_controls_with_the_prompt_of_its_items(tmp_path: Path) -> None:
    run, judge = compare(tmp_path / "run")
    controls = read_controls(run.path)
    assert Counter(control.defect for control in controls) == {"placeholder": 5, "foreign answer": 5}
    assert all(isinstance(control.grade, Grade) and control.grade.letter == "C" for control in controls)
    assert len({request.messages[0] for request in judge.requests}) == 1
    assert len(judge.requests) == 36 + N_CONTROLS
    assert not any(is_supported(request) for request in judge.requests[36:])


@pytest.mark.slow
def test_foreign_answers_come_from_another_chunk(tmp_path: Path) -> None:
    run, _ = compare(tmp_path / "run")
    with RunStore.open(run.path) as store:
        cluster_of_sample = {sample.sample_id: cluster_of(sample) for sample in store.samples()}
        cluster_of_answer = {
            item.answer: cluster_of_sample[row.sample_id] for row in store.generations() for item in row.items
        }
    foreign = [control for control in read_controls(run.path) if control.defect == "foreign answer"]
    assert foreign
    for control in foreign:
        assert cluster_of_answer[control.item.answer] != cluster_of_sample[control.sample_id]


@pytest.mark.slow
def test_the_draw_depends_only_on_the_items(tmp_path: Path) -> None:
    first, second = (read_controls(compare(tmp_path / name)[0].path) for name in ("one", "two"))
    assert [control.task_id for control in first] == [control.task_id for control in second]


@pytest.mark.slow
def test_controls_appear_only_in_their_file(tmp_path: Path) -> None:
    (run, _), (bare_run, _) = compare(tmp_path / "run"), compare(tmp_path / "bare", controls=False)
    ids = {control.item.item_id for control in read_controls(run.path)}
    assert not ids & {row["item_id"] for row in read_rows(run.path / GRADES)}
    assert not ids & set(run.letters["item_id"])
    sessions = read_rows(run.path / SESSIONS)
    assert [(row["stage"], row["n_tasks"]) for row in sessions] == [("generate", 12), ("grade", 36)]
    with_controls, without_controls = run.report, bare_run.report
    assert with_controls.candidates[0].usable == without_controls.candidates[0].usable
    assert (with_controls.judge.n_asked, with_controls.judge.tokens) == (
        without_controls.judge.n_asked,
        without_controls.judge.tokens,
    )


@pytest.mark.slow
def test_without_controls_no_extra_request_is_sent(tmp_path: Path) -> None:
    run, judge = compare(tmp_path / "run", controls=False)
    assert len(judge.requests) == 36
    assert not (run.path / CONTROLS).exists()
    assert json.loads((run.path / SETTINGS).read_text())["controls"] is False
    judge = ScriptedModel(grade_by_support)
    grade_again(run.path, judge)
    assert judge.requests == []


@pytest.mark.slow
def test_no_controls_option_skips_the_controls(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert command(["compare", "embedded-lead", "--n", "2", "--no-controls", "--out", str(out)]) == 0
    assert not (out / CONTROLS).exists()
    assert command(["grade", str(out)]) == 0
    assert not (out / CONTROLS).exists()


@pytest.mark.slow
def test_a_run_of_one_item_has_one_inconclusive_control(tmp_path: Path) -> None:
    out = tmp_path / "run"
    samples = tmp_path / "samples.jsonl"
    chunk = {"chunk_id": "c", "text": "The valve opens at 5 bar and closes again within ten seconds."}
    chunks = tmp_path / "chunks.jsonl"
    chunks.write_text(json.dumps(chunk) + "\n")
    question = {"chunk_id": "c", "question": "When does the valve open?", "type": "answerable"}
    samples.write_text(json.dumps(question) + "\n")
    arguments = ["--eval", "rag_qa", "--chunks", str(chunks), "--samples", str(samples), "--out", str(out)]
    assert command(["compare", "embedded-lead", *arguments]) == 0
    (control,) = read_controls(out)
    assert control.defect == "placeholder"
    report = load_report(out)
    assert report.controls is not None
    assert (report.controls.outcome, report.controls.n_graded) == ("not shown", 1)


@pytest.mark.slow
def test_preference_pairs_have_a_defect_in_the_chosen_answer(tmp_path: Path) -> None:
    def write_pair(request: ChatRequest) -> str:
        text = request.inputs["chunk"]
        return json.dumps({"prompt": f"Help me: {text[:80]}", "chosen": text[-300:], "rejected": text[:90]})

    def grade_pair(request: ChatRequest) -> str:
        return grade_reply("A" if is_supported(request) else "C", flags={"false_claim": False})

    out = tmp_path / "run"
    with registered("writer", ScriptedModel(write_pair)), registered("judge", ScriptedModel(grade_pair)):
        qaeval.compare("writer", judge="judge", eval_name="dpo_pairs", n=12, out=out, cache=False)
    controls = read_controls(out)
    assert Counter(control.defect for control in controls)["placeholder"] == 5
    assert all(control.item.parts["rejected"] for control in controls)
    assert load_report(out).controls.n_best == 0  # type: ignore[union-attr]


# ------------------------------------------------------------------------------ stopped, resumed, of other versions


@pytest.mark.slow
def test_an_outage_during_the_controls_loses_no_grades(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(EndpointError):
        compare(out, FailingJudge(4))
    assert len(read_rows(out / GRADES)) == 36
    controls = read_controls(out)
    assert len(controls) == N_CONTROLS
    n_pending = sum(control.is_pending for control in controls)
    assert n_pending >= 6
    report = qaeval.load_run(out).report
    assert report.controls is not None
    assert report.controls.n_pending == n_pending
    judge = ScriptedModel(grade_by_support)
    grade_again(out, judge)
    assert len(judge.requests) == n_pending
    assert [control.task_id for control in read_controls(out)] == [control.task_id for control in controls]
    assert not any(control.is_pending for control in read_controls(out))


@pytest.mark.slow
def test_a_temporary_failure_is_retried_on_resume(tmp_path: Path) -> None:
    errors = [ChatError("endpoint", "503")]

    def fail_once(request: ChatRequest) -> str:
        if not is_supported(request) and errors:
            raise errors.pop()
        return grade_by_support(request)

    run, _ = compare(tmp_path / "run", fail_once)
    assert run.report.controls.n_pending == 1  # type: ignore[union-attr]
    judge = ScriptedModel(grade_by_support)
    grade_again(run.path, judge)
    assert len(judge.requests) == 1


@pytest.mark.slow
def test_a_run_killed_after_the_draw_grades_the_drawn_controls(tmp_path: Path) -> None:
    run, _ = compare(tmp_path / "run")
    file = run.path / CONTROLS
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[: N_CONTROLS + 3]) + lines[N_CONTROLS + 3][:40])
    judge = ScriptedModel(grade_by_support)
    grade_again(run.path, judge)
    assert len(judge.requests) == N_CONTROLS - 3


@pytest.mark.slow
def test_controls_can_be_added_to_an_older_run(tmp_path: Path) -> None:
    run, _ = compare(tmp_path / "run", controls=False)
    settings = json.loads((run.path / SETTINGS).read_text())
    del settings["controls"]
    (run.path / SETTINGS).write_text(json.dumps(settings))
    assert qaeval.load_run(run.path).report.controls.n_controls == 0  # type: ignore[union-attr]
    grade_again(run.path, ScriptedModel(grade_by_support), controls=False)
    assert not (run.path / CONTROLS).exists()
    grade_again(run.path, ScriptedModel(grade_by_support))
    assert len(read_controls(run.path)) == N_CONTROLS


@pytest.mark.slow
def test_controls_are_graded_after_overlapped_stages(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with LoopbackServer(["mistral"]) as writer, LoopbackServer(["judge"]) as judge:
        registry = tmp_path / "registry.yaml"
        models = {"models": {"mistral": {"url": writer.url}}, "judges": {"judge": {"url": judge.url}}}
        registry.write_text(json.dumps(models))
        arguments = ["--judge", "judge", "--n", "8", "--config", str(registry), "--out", str(out)]
        assert command(["compare", "mistral", *arguments]) == 0
    assert [row["alongside"] for row in read_rows(out / SESSIONS)] == [True, True]
    assert len(read_controls(out)) == N_CONTROLS
    assert not any(control.is_pending for control in read_controls(out))


@pytest.mark.slow
def test_the_first_of_several_shards_grades_the_controls_of_the_run(tmp_path: Path) -> None:
    shards, out = tmp_path / "place", tmp_path / "run"
    for index in range(2):
        arguments = ["--n", "8", "--shard", f"{index}/2", "--out", str(shards)]
        assert command(["compare", "embedded-salient", *arguments]) == 0
    assert len([*shards.glob(f"shard=*/attempt-*/{CONTROLS}")]) == 1
    merge_shards([find_location(str(shards), allow_external=())], find_location(str(out), allow_external=()))
    assert len(read_controls(out)) == N_CONTROLS
    assert command(["grade", str(out)]) == 0
    assert len(read_rows(out / CONTROLS)) == 2 * N_CONTROLS  # drawn, then graded: nothing was added


# ------------------------------------------------------------------------------ what controls show about the judge


def make_controls(letters: str) -> list[Control]:
    item = Item(item_id="1", position=0, type="", question="Why?", answer="…")
    grade = Grade(task_id="1", judge="j", rubric_sha="r", item_id="1", letter="A", text="", latency_s=0)
    return [
        Control(
            task_id=str(index),
            defect="placeholder",
            sample_id="1",
            item=item,
            grade=grade.model_copy(update={"letter": letter}),
        )
        for index, letter in enumerate(letters)
    ]


def judge_outcome(
    controls: str, letters: dict[str, int], agreement: Sequence[RaterAgreement] = ()
) -> tuple[str, str]:
    discrimination = judge_discrimination(
        make_controls(controls), letters, agreement, judge="judge", best="A"
    )
    return discrimination.outcome, discrimination.basis


def make_rater(low: float | None) -> RaterAgreement:
    recall = Measure(value=0.8, low=low, high=None if low is None else 0.9, method="", n=40, n_clusters=20)
    return RaterAgreement(
        rater="anna",
        rater_kind="human",
        n_labels=40,
        n_tuning_excluded=0,
        n_ungraded=0,
        n_not_in_run=0,
        standing="beats both",
        sentences=(),
        coefficients=None,
        lower_recall=recall,
    )


@pytest.mark.parametrize("n", range(MIN_CONTROLS, N_CONTROLS + 1))
def test_a_judge_with_recall_80_is_refused_in_at_most_one_percent_of_runs(n: int) -> None:
    # each control gets the best letter with probability .2
    exact_rate = float(binom.sf(max_best(n), n, 0.2))
    assert exact_rate <= 0.01
    assert max_best(n) + 1 >= n / 2
    # a limit lower by one would exceed 1 %, unless the minimum of half the controls applies
    assert float(binom.sf(max_best(n) - 1, n, 0.2)) > 0.01 or 2 * max_best(n) < n
    n_best = np.random.default_rng(0).binomial(n, 0.2, size=20_000)
    is_refused = [
        judge_outcome("A" * k + "C" * (n - k), {"A": 40})[0] == "tells nothing apart" for k in range(n + 1)
    ]
    assert np.mean(np.array(is_refused)[n_best]) == pytest.approx(exact_rate, abs=0.002)


def test_a_constant_judge_is_refused_after_six_controls() -> None:
    assert judge_outcome("A" * 6, {"A": 30}) == ("tells nothing apart", "controls")
    assert judge_outcome("A" * 5, {"A": 20, "B": 10}) == ("not shown", "")


@pytest.mark.parametrize(
    ("controls", "letters", "expected"),
    [
        ("C" * 10, {"A": 400}, ("tells apart", "controls")),
        ("", {"A": 29}, ("not shown", "")),
        ("", {"A": 30}, ("tells nothing apart", "letters")),
        ("", {"B": 38, "A": 2}, ("tells nothing apart", "letters")),
        ("", {"A": 37, "B": 3}, ("not shown", "")),
        ("CCC", {"A": 40}, ("not shown", "")),
        ("AAA", {"A": 40}, ("tells nothing apart", "letters")),
        ("", {}, ("not shown", "")),
    ],
)
def test_constant_letters_refuse_a_judge_unless_controls_pass(
    controls: str, letters: dict[str, int], expected: tuple[str, str]
) -> None:
    assert judge_outcome(controls, letters) == expected


@pytest.mark.parametrize(
    ("low", "expected"), [(0.51, "tells apart"), (0.5, "tells nothing apart"), (None, "tells nothing apart")]
)
def test_labels_with_high_lower_letter_recall_overrule_the_controls(low: float | None, expected: str) -> None:
    assert judge_outcome("A" * 10, {"A": 40}, [make_rater(low)])[0] == expected


# ------------------------------------------------------------------------------ no verdict, in every view


@pytest.mark.slow
def test_a_copying_candidate_and_a_constant_judge_leave_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidates = {"writer": write_supported, "copier": copy_example}
    run, _ = compare(tmp_path / "run", grade_best, candidates, n=14)
    report = load_report(run.path)
    assert report.verdict.kind == "none"
    assert [reason.code for reason in report.verdict.reasons] == ["judge_tells_nothing_apart"]
    assert not report.verdict.trusts_judge
    assert report.candidates[1].failed_by_reason == {"placeholder": 42}
    assert report.controls is not None
    assert (report.controls.n_best, report.controls.n_graded) == (10, 10)
    assert all(pair.n_more_chunks is None for pair in report.differences)
    decision = decide(report, {})
    assert decision.choice is None
    assert decision.verdict == report.verdict
    sentence = verdict_sentence(report.verdict)
    assert sentence.startswith("No verdict:")
    page, text = render_html(report, ()), render_markdown(report)
    for view in (page, text, (run.path / "report.html").read_text(), (run.path / "report.md").read_text()):
        assert sentence in view
        assert "more chunk" not in view
    assert command(["report", str(run.path)]) == 0
    assert command(["decide", str(run.path)]) == 0
    printed = capsys.readouterr().out
    assert "No verdict:" in printed
    assert "more chunk" not in printed


@pytest.mark.slow
def test_constant_letters_with_passing_controls_keep_the_verdict(tmp_path: Path) -> None:
    run, _ = compare(
        tmp_path / "run", grade_by_support, {"writer": write_supported, "copier": copy_example}, n=14
    )
    assert set(run.letters["letter"]) == {"A", ""}
    assert (run.report.verdict.kind, run.report.verdict.candidate) == ("use", "writer")


@pytest.mark.slow
def test_constant_letters_without_controls_leave_no_verdict(tmp_path: Path) -> None:
    run, _ = compare(
        tmp_path / "run",
        grade_best,
        {"writer": write_supported, "copier": copy_example},
        n=14,
        controls=False,
    )
    assert [reason.code for reason in run.report.verdict.reasons] == ["judge_tells_nothing_apart"]


# ------------------------------------------------------------------------------ checks under the headline


@pytest.mark.slow
def test_an_adapter_that_refuses_answerable_questions_is_named_under_the_headline(tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    rag = Path(__file__).parents[1] / "evals" / "rag_qa" / "samples.jsonl"
    answerable = [row for row in read_rows(rag) if row["type"] == "answerable"][:14]
    samples.write_text("".join(json.dumps(row) + "\n" for row in answerable))

    def adapter(request: ChatRequest) -> str:
        refuses = request.inputs["question"] != answerable[0]["question"]
        text = "The passage does not say that." if refuses else request.inputs["chunk"][:120]
        ticket = {"priority": "low", "category": "fact", "department": "data"}
        return json.dumps({"answer": text, "ticket": ticket})

    def judge(request: ChatRequest) -> str:
        return grade_reply("C" if "…" in request.inputs["answer"] else "A")

    out = tmp_path / "run"
    with registered("adapter", ScriptedModel(adapter)), registered("judge", ScriptedModel(judge)):
        run = qaeval.compare(
            "adapter", judge="judge", eval_name="rag_qa", samples=samples, out=out, cache=False
        )
    (group,) = [group for group in run.report.checks if group.check.name == "wrong_refusal"]
    (rate,) = group.rates
    assert (rate.n_found, rate.n_checked, rate.is_frequent) == (13, 14, True)
    (finding,) = [row.text for row in run.report.headline if "wrong refusal" in row.text]
    assert all(part in finding for part in ("13 of 14", "adapter", "92.9 %"))
    assert run.report.candidates[0].failed.n == 0  # a repeated refusal is an answer, not a placeholder
