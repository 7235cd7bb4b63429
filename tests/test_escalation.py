"""Escalation: which items a second judge grades, whose letter counts, and the report of both judges."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qaeval
from qaeval.api import Run
from qaeval.calibration.model import Escalation
from qaeval.chat.protocol import Alternatives, ChatError, ChatRequest, Completion
from qaeval.cli import run as run_command
from qaeval.comparison.report_file import load_report
from qaeval.errors import UsageError
from qaeval.records import Usage
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered

TYPES = ("factual", "conceptual", "comparison")
N_CHUNKS = 40


def item_number(request: ChatRequest) -> int:
    return sum(map(ord, request.inputs["question"] + request.inputs["answer"]))


def write_pairs(request: ChatRequest) -> str:
    text = request.inputs["chunk"]
    return pairs_reply(
        [(kind, f"{kind}: what of {text[:40]}?", text[: 90 + 11 * n]) for n, kind in enumerate(TYPES)]
    )


def is_good(request: ChatRequest) -> bool:
    return item_number(request) % 3 > 0


class UnsureJudge:
    """A judge that gives A to every item, with high probability to good ones and low to others."""

    def __init__(self, best: Mapping[bool, float]) -> None:
        self.best = best

    async def complete(self, request: ChatRequest) -> Completion:
        probability = self.best[is_good(request)]
        top = {
            "A": float(np.log(probability)),
            "B": float(np.log((1 - probability) / 2)),
            "C": float(np.log((1 - probability) / 2)),
        }
        usage = Usage(prompt_tokens=100, completion_tokens=10)
        return Completion(grade_reply("A"), "stop", usage, 0.1, alternatives=Alternatives("A", 0, top))


class CorrectJudge:
    """A judge that is always right and collects its requests."""

    def __init__(self) -> None:
        self.requests: list[ChatRequest] = []

    async def complete(self, request: ChatRequest) -> Completion:
        self.requests.append(request)
        letter = "A" if is_good(request) else "C"
        return Completion(grade_reply(letter), "stop", Usage(prompt_tokens=300, completion_tokens=30), 0.3)


def compare_with_unsure_judge(path: Path, **options: Any) -> Run:
    return qaeval.compare(
        "writes",
        judge="unsure",
        eval_name="qa_pairs",
        n=N_CHUNKS,
        out=path,
        cache=False,
        controls=False,
        **options,
    )


def write_labels(run: Run, path: Path) -> Path:
    """Write correct labels of all items."""
    rows = []
    for item, question, answer in run.items[["item_id", "question", "answer"]].itertuples(index=False):
        letter = "A" if sum(map(ord, question + answer)) % 3 > 0 else "C"
        rows.append({"item_id": item, "label": letter, "rater": "anna"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def second_judge() -> CorrectJudge:
    return CorrectJudge()


def register_models(second_judge: CorrectJudge, best: Mapping[bool, float] | None = None) -> Any:
    stack = ExitStack()
    stack.enter_context(registered("writes", ScriptedModel(write_pairs)))
    stack.enter_context(registered("unsure", UnsureJudge(best or {True: 0.95, False: 0.55})))
    stack.enter_context(registered("right", second_judge))
    return stack


def read_escalation(path: Path) -> Escalation:
    return Escalation.model_validate_json((path / "escalation.json").read_bytes())


@pytest.mark.slow
def test_labels_set_the_threshold_and_the_second_judge_decides_below_it(
    tmp_path: Path, second_judge: CorrectJudge, capsys: pytest.CaptureFixture[str]
) -> None:
    with register_models(second_judge):
        run = compare_with_unsure_judge(tmp_path / "run")
        labels = write_labels(run, tmp_path / "anna.jsonl")
        qaeval.grade(run.path, escalate="right", labels=labels, cache=False, controls=False)
        report = read_escalation(run.path)
        n_good = int((run.letters["probability"] > 0.9).sum())
        n = len(run.letters)
        assert (report.n_items, report.n_unsure, report.n_disputed) == (n, n - n_good, 0)
        assert report.threshold is not None
        assert 0.55 < report.threshold <= 0.95
        assert (report.n_labels, report.n_kept, report.n_wrong) == (n, n_good, 0)
        # labelled items that were not escalated are graded too, for the comparison
        assert (report.n_labelled_too, len(second_judge.requests)) == (n_good, n)
        first, right, cascade = report.shares
        assert (first.judge, right.judge, cascade.judge) == ("unsure", "right", "unsure+right")
        assert [share.kappa and share.kappa.value for share in report.shares] == [0.0, 1.0, 1.0]
        assert (first.n_tokens, right.n_tokens) == (110 * n, 330 * n)
        assert cascade.n_tokens == 110 * n + 330 * (n - n_good)
        combined = qaeval.load_run(run.path, labels=labels, decide_by="unsure+right")
        assert set(combined.letters.loc[combined.letters["letter"] == "C", "status"]) == {"graded"}
        assert (combined.letters["letter"] == "A").sum() == n_good
        (rater,) = combined.agreement().agreement
        assert rater.coefficients is not None
        assert rater.coefficients.kappa.value == 1
        path = qaeval.load_run(run.path, labels=labels).write_report()
    document = load_report(path)
    assert document.escalation == report
    assert [other.judge for other in document.judges] == ["right", "unsure+right"]
    assert "Escalation from unsure to right" in (path / "report.md").read_text()
    capsys.readouterr()
    assert run_command(["report", str(path), "--labels", str(labels)]) == 0


@pytest.mark.slow
def test_everything_is_escalated_without_a_labelled_threshold(
    tmp_path: Path, second_judge: CorrectJudge
) -> None:
    with register_models(second_judge):
        run = compare_with_unsure_judge(tmp_path / "run")
        qaeval.grade(run.path, escalate="right", labels=[], cache=False, controls=False)
    report = read_escalation(run.path)
    assert (report.threshold, report.n_labels, report.n_unsure) == (None, 0, len(run.letters))
    assert [share.kappa for share in report.shares] == [None] * 3


@pytest.mark.slow
def test_given_threshold_needs_no_labels_and_has_no_error_bound(
    tmp_path: Path, second_judge: CorrectJudge
) -> None:
    with register_models(second_judge):
        run = compare_with_unsure_judge(tmp_path / "run", escalate="right", escalate_below=0.9, labels=[])
    report = read_escalation(run.path)
    assert (report.basis, report.threshold, report.upper) == ("given", 0.9, None)
    assert 0 < report.n_unsure == len(second_judge.requests) < report.n_items
    assert run.report.escalation == report
    right = report.shares[1]
    assert right.is_extrapolated
    assert right.n_tokens == 330 * report.n_items


@pytest.mark.slow
def test_disputed_and_ungraded_items_are_always_escalated(tmp_path: Path, second_judge: CorrectJudge) -> None:
    def third_reply(request: ChatRequest) -> str:
        return grade_reply("B" if item_number(request) % 5 == 0 else "A")

    class PartlySilentJudge(UnsureJudge):
        async def complete(self, request: ChatRequest) -> Completion:
            if item_number(request) % 7 == 0:
                raise ChatError("rejected", "no")
            return await super().complete(request)

    with (
        register_models(second_judge),
        registered("unsure", PartlySilentJudge({True: 0.95, False: 0.95})),
        registered("third", ScriptedModel(third_reply)),
    ):
        run = compare_with_unsure_judge(tmp_path / "run")
        qaeval.grade(run.path, judge="third", cache=False)
        qaeval.grade(run.path, escalate="right", escalate_below=0.5, labels=[], cache=False, controls=False)
    report = read_escalation(run.path)
    sums = [sum(map(ord, q + a)) for q, a in run.items[["question", "answer"]].itertuples(index=False)]
    assert report.n_without_letter == sum(number % 7 == 0 for number in sums) > 0
    assert report.n_disputed == sum(number % 5 == 0 and number % 7 > 0 for number in sums) > 0
    assert report.n_unsure == 0
    assert len(second_judge.requests) == report.n_escalated


@pytest.mark.slow
def test_repeated_escalation_makes_no_duplicate_requests(tmp_path: Path, second_judge: CorrectJudge) -> None:
    with register_models(second_judge):
        run = compare_with_unsure_judge(tmp_path / "run", escalate="right", escalate_below=0.9, labels=[])
        n_requests = len(second_judge.requests)
        qaeval.grade(run.path, escalate="right", escalate_below=0.9, labels=[], cache=False, controls=False)
        assert len(second_judge.requests) == n_requests
        assert read_escalation(run.path).n_disputed == 0
        qaeval.grade(run.path, judge="right", cache=False)
        assert len(second_judge.requests) == len(run.letters)


@pytest.mark.parametrize(
    "options",
    [{"escalate": "unsure"}, {"escalate": "nobody"}, {"escalate": "right", "panel": ["a", "b", "c"]}],
)
@pytest.mark.slow
def test_invalid_second_judge_is_refused(
    tmp_path: Path, second_judge: CorrectJudge, options: dict[str, Any]
) -> None:
    with register_models(second_judge):
        run = compare_with_unsure_judge(tmp_path / "run")
        with pytest.raises(UsageError):
            qaeval.grade(run.path, cache=False, controls=False, **options)


@pytest.mark.slow
def test_command_escalates_items(
    tmp_path: Path, second_judge: CorrectJudge, capsys: pytest.CaptureFixture[str]
) -> None:
    with register_models(second_judge):
        run = compare_with_unsure_judge(tmp_path / "run")
        assert (
            run_command(["grade", str(run.path), "--escalate", "right", "--escalate-below", "0.9", "--yes"])
            == 0
        )
        assert f"right decides {read_escalation(run.path).n_escalated}" in capsys.readouterr().out
        arguments = [
            "compare",
            "writes",
            "--shard",
            "0/2",
            "--out",
            str(tmp_path / "s"),
            "--escalate",
            "right",
        ]
        assert run_command(arguments) == 64
