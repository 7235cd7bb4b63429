"""A judge with two modes: which letter counts, what is asked again, and how often both letters agree."""

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

import qaeval
from qaeval.analysis.replies import ReplyTotals
from qaeval.calibration.cascade import mode_agreement
from qaeval.calibration.sections import mode_section, mode_sentence
from qaeval.chat.protocol import Alternatives, ChatError, ChatRequest, Completion
from qaeval.chat.wire import encode, read_completion
from qaeval.errors import EndpointError, NotComparableError, UsageError
from qaeval.evals.find import find_rubric
from qaeval.records import Cascade, Chunk, Failure, Grade, GradeRow, Item, Sample, ShortGrade, Usage
from qaeval.registry.model import ModelSpec
from qaeval.run.endpoint import resolve
from qaeval.run.grade import GradeTask, Instructions, build_request, grade_one, is_cascade_control
from qaeval.run.plan import described, judge_digest
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered
from replay.server import LoopbackServer

RUBRIC = find_rubric("qa_pair_abc")
FACTS = find_rubric("qa_pair_facts")
SAMPLE = Sample.of(Chunk(chunk_id="c", text="A double bass has four strings."))
TYPES = ("factual", "conceptual", "comparison")


def task(answer: str = "Four.") -> GradeTask:
    item = Item.of(SAMPLE.sample_id, 0, type="", question="How many strings?", answer=answer)
    return GradeTask("1", "judge", SAMPLE, item)


def judge(rubric: Any = RUBRIC, **cascade: Any) -> Instructions:
    spec = ModelSpec(name="judge", url="http://h/v1", judge_mode="cascade", cascade=Cascade(**cascade))
    return Instructions.for_judge(rubric, spec)


class TwoModes:
    """A judge with a letter and its probability for each mode; an exception in place of a letter is raised."""

    def __init__(self, short: tuple[str, float | None], reasoned: str | Exception = "C") -> None:
        self.short, self.reasoned = short, reasoned
        self.asked: list[ChatRequest] = []

    async def complete(self, request: ChatRequest) -> Completion:
        self.asked.append(request)
        assert request.schema is not None
        usage = Usage(prompt_tokens=100, completion_tokens=90)
        if "reason" in request.schema["properties"]:
            if isinstance(self.reasoned, Exception):
                raise self.reasoned
            return Completion(grade_reply(self.reasoned), "stop", usage, 0.5)
        letter, p = self.short
        usage = Usage(prompt_tokens=100, completion_tokens=10)
        top = None if p is None else {letter: float(np.log(p)), "?": -9.0}
        rest = {other: float(np.log((1 - (p or 0)) / 2)) for other in {"A", "B", "C"} - {letter}}
        alternatives = None if top is None else Alternatives(letter, 0, {**top, **rest})
        return Completion(grade_reply(letter), "stop", usage, 0.1, alternatives=alternatives)


async def graded(model: TwoModes, instructions: Instructions) -> GradeRow:
    return await grade_one(model, task(), instructions, lenient=False)


async def test_a_sure_letter_counts_and_nothing_more_is_asked() -> None:
    model = TwoModes(("A", 0.95))
    row = await graded(model, judge(below=0.9, control=0))
    assert isinstance(row, Grade)
    assert (row.letter, row.short, len(model.asked)) == ("A", None, 1)


@pytest.mark.parametrize("p", [0.85, None])
async def test_an_unsure_letter_gives_way_to_the_one_with_reasons(p: float | None) -> None:
    model = TwoModes(("A", p))
    row = await graded(model, judge(below=0.9, control=0))
    assert isinstance(row, Grade)
    assert (row.letter, row.latency_s) == ("C", 0.6)
    assert row.short is not None
    assert (row.short.letter, row.short.is_control) == ("A", False)
    assert row.short.probability == (pytest.approx(p) if p else None)
    # the tokens of both replies were paid for
    assert row.usage == Usage(prompt_tokens=200, completion_tokens=100)


async def test_letters_that_the_cascade_names_are_asked_again_though_the_judge_is_sure() -> None:
    for letter, n_asked in (("C", 2), ("B", 2), ("A", 1)):
        model = TwoModes((letter, 0.99), reasoned="B")
        row = await graded(model, judge(below=0.9, control=0, reasons_for=("B", "C")))
        assert isinstance(row, Grade)
        assert (row.letter, len(model.asked)) == ("B" if n_asked == 2 else "A", n_asked)
        assert (row.short and row.short.letter) == (letter if n_asked == 2 else None)


def test_reasons_for_a_letter_that_the_rubric_does_not_have_are_refused() -> None:
    with pytest.raises(UsageError, match="reasons for F: rubric qa_pair_abc has the letters A, B, C"):
        judge(reasons_for=("F",))


async def test_items_of_the_random_share_are_asked_again_though_the_judge_is_sure() -> None:
    row = await graded(TwoModes(("A", 0.99)), judge(below=0.9, control=1))
    assert isinstance(row, Grade)
    assert (row.letter, row.short and row.short.is_control) == ("C", True)


async def test_a_short_reply_without_a_letter_is_asked_again() -> None:
    row = await graded(TwoModes(("X", 0.99)), judge(control=0))
    assert isinstance(row, Grade)
    assert (row.letter, row.short) == ("C", ShortGrade(letter=""))


async def test_a_letter_with_reasons_that_cannot_be_read_leaves_the_short_one_with_a_remark() -> None:
    row = await graded(TwoModes(("B", 0.6), reasoned="X"), judge(control=0))
    assert isinstance(row, Grade)
    assert (row.letter, row.short) == ("B", None)
    assert "no letter with reasons (unparseable" in row.remark
    assert row.usage == Usage(prompt_tokens=200, completion_tokens=100)


async def test_an_item_is_asked_as_a_whole_again_when_the_server_fails_between_the_two() -> None:
    row = await graded(TwoModes(("B", 0.6), reasoned=ChatError("endpoint", "gone")), judge(control=0))
    assert isinstance(row, Failure)
    assert row.is_transient


async def test_an_item_of_the_random_share_keeps_its_sure_letter_when_the_server_fails_between_the_two() -> (
    None
):
    row = await graded(TwoModes(("B", 0.99), reasoned=ChatError("endpoint", "gone")), judge(control=1))
    assert isinstance(row, Grade)
    assert (row.letter, row.short) == ("B", None)
    assert "no letter with reasons (endpoint" in row.remark


def test_the_random_share_depends_on_the_item_alone_and_has_its_size() -> None:
    drawn = [is_cascade_control(f"{n:016x}", 0.05) for n in range(4_000)]
    assert 150 < sum(drawn) < 250
    assert drawn == [is_cascade_control(f"{n:016x}", 0.05) for n in range(4_000)]


# ------------------------------------------------------------------------------------------ rubrics of facts


def facts_reply(answers: dict[str, str]) -> str:
    return json.dumps(answers, separators=(", ", ": "))


def test_the_probability_of_answers_is_that_of_their_tokens_alone() -> None:
    tokens = [
        ("{", -1.0),
        ('"supported"', -1.0),
        (": ", -2.0),
        ('"y', -0.1),
        ("es", -0.2),
        ('"', -0.4),
        ("}", -3.0),
    ]
    body = {
        "choices": [
            {
                "finish_reason": "stop",
                "message": {"content": '{"supported": "yes"}'},
                "logprobs": {
                    "content": [{"token": text, "logprob": p, "top_logprobs": []} for text, p in tokens]
                },
            }
        ]
    }
    pattern = re.compile(r'"(?:supported)"\s*:\s*"([^"]*)"')
    read = read_completion(orjson.dumps(body), latency_s=0.1, max_tokens=9, probability_of=pattern)
    assert read.probability == pytest.approx(np.exp(-0.3))
    absent = read_completion(
        orjson.dumps(body), latency_s=0.1, max_tokens=9, probability_of=re.compile("(zzz)")
    )
    assert absent.probability is None


def test_the_short_form_of_a_rubric_of_facts_asks_for_facts_alone_and_the_log_probabilities_of_its_tokens() -> (
    None
):
    instructions = judge(FACTS)
    request = build_request(SAMPLE, task().item, instructions)
    assert request.schema is not None
    assert list(request.schema["properties"]) == [fact.name for fact in FACTS.facts]
    body = orjson.loads(
        encode(request, model="m", structured=True, merge_system=False, max_top_logprobs=20, extra_body={})
    )
    assert body["logprobs"] is True
    assert "top_logprobs" not in body
    assert request.probability_of is not None
    example = FACTS.examples[0].facts
    found = {match[1] for match in request.probability_of.finditer(facts_reply(example))}
    assert found == set(example.values())


async def test_facts_are_asked_again_with_reasons_where_their_answers_are_unsure() -> None:
    example = FACTS.examples[0]

    class Facts:
        async def complete(self, request: ChatRequest) -> Completion:
            is_short = "reason" not in (request.schema or {})["properties"]
            text = facts_reply(({} if is_short else {"reason": "It says four."}) | example.facts)
            return Completion(text, "stop", None, 0.1, probability=0.95 if is_short else None)

    for below, has_reason in ((0.9, False), (0.97, True)):
        row = await grade_one(Facts(), task(), judge(FACTS, below=below, control=0), lenient=False)
        assert isinstance(row, Grade)
        assert (row.letter, bool(row.reason)) == (example.letter, has_reason)


# ------------------------------------------------------------------------------- agreement of the two modes


def row(item: str, letter: str, short: ShortGrade | None, tokens: int) -> Grade:
    usage = Usage(prompt_tokens=1, completion_tokens=tokens)
    return Grade(
        task_id=item,
        judge="j",
        rubric_sha="r",
        item_id=item,
        letter=letter,
        short=short,
        text="",
        usage=usage,
        latency_s=1,
    )


def test_agreement_is_counted_on_the_random_share_alone() -> None:
    totals = ReplyTotals()
    for n in range(60):  # decided by the letter alone
        totals.add(row(f"short{n}", "A", None, 10))
    for n in range(20):  # the random share: sure, and 2 of 20 differ
        totals.add(
            row(
                f"sure{n}",
                "B" if n < 2 else "A",
                ShortGrade(letter="A", probability=0.95, is_control=True),
                100,
            )
        )
    for n in range(5):  # the random share: unsure, 3 of 5 differ
        totals.add(
            row(
                f"half{n}",
                "B" if n < 3 else "A",
                ShortGrade(letter="A", probability=0.5, is_control=True),
                100,
            )
        )
    for n in range(15):  # unsure alone: all differ, and no estimate may see them
        totals.add(row(f"unsure{n}", "C", ShortGrade(letter="A", probability=0.4), 100))
    clusters = {pair.item_id: pair.item_id for pair in totals.in_both_modes}
    modes = mode_agreement({"below": 0.9, "control": 0.25}, totals, clusters)
    assert modes is not None
    assert (modes.n_control, modes.agreement.value) == (25, 20 / 25)
    assert (modes.n_kept, modes.kept.value) == (20, 18 / 20)
    assert (modes.n_items, modes.n_with_reasons, modes.n_reconsidered, modes.n_changed) == (100, 40, 20, 18)
    assert (modes.tokens_short, modes.tokens_with_reasons, modes.tokens) == (10, 90, 46)
    named = mode_agreement({"below": 0.9, "control": 0.25, "reasons_for": ["A"]}, totals, clusters)
    assert named is not None
    assert (named.n_control, named.agreement.value) == (25, 20 / 25)
    assert (named.n_kept, named.n_reconsidered, named.n_changed) == (0, 40, 20)
    assert "where it is A" in mode_section(named, "j").paragraphs[1]
    assert "where it is" not in mode_section(modes, "j").paragraphs[1]
    text = mode_sentence(modes, "j").text
    assert "agrees with its letter with reasons in 80.0 %" in text
    assert "of a random 25 items" in text


def test_a_judge_with_one_mode_has_no_agreement_of_modes() -> None:
    assert mode_agreement(None, ReplyTotals(), {}) is None


# ------------------------------------------------------------------------------------------------ whole runs


def writes(request: ChatRequest) -> str:
    text = request.inputs["chunk"]
    return pairs_reply(
        [(kind, f"{kind}: what of {text[:40]}?", text[: 90 + 11 * n]) for n, kind in enumerate(TYPES)]
    )


class Unsure(TwoModes):
    """Says A to everything without reasons and B with them; it is unsure of a third."""

    def __init__(self) -> None:
        super().__init__(("A", 0.95), reasoned="B")

    async def complete(self, request: ChatRequest) -> Completion:
        self.short = ("A", 0.6 if request.inputs["question"].startswith("factual") else 0.95)
        return await super().complete(request)


def compared(path: Path, **options: Any) -> Any:
    settings = {"eval_name": "qa_pairs", "n": 20, "out": path, "cache": False, "controls": False}
    return qaeval.compare("writes", judge="unsure", **settings, **options)


@pytest.mark.slow
def test_a_run_by_cascade_reports_the_agreement_and_is_no_run_by_reasons(tmp_path: Path) -> None:
    model = Unsure()
    with ExitStack() as stack:
        stack.enter_context(registered("writes", ScriptedModel(writes)))
        stack.enter_context(registered("unsure", model))
        run = compared(tmp_path / "run", judge_mode="cascade", reasons_below=0.9)
        rows = [json.loads(line) for line in (run.path / "grades.jsonl").read_text().splitlines()]
        n_control = sum(is_cascade_control(row["item_id"], 0.05) for row in rows)
        n_again = sum("short" in row for row in rows)
        assert n_again == sum(row["letter"] == "B" for row in rows)
        assert 20 <= n_again <= 20 + n_control
        assert len(model.asked) == len(rows) + n_again
        modes = run.report.modes
        assert modes is not None
        assert (modes.below, modes.n_items, modes.n_with_reasons, modes.n_control) == (
            0.9,
            60,
            n_again,
            n_control,
        )
        assert run.report.judge.facts.more["judge mode"].startswith(
            "cascade: reasons below a probability of 0.9"
        )
        assert "Letters with and without reasons" in (run.path / "report.md").read_text()
        assert "of a random" in (run.path / "report.md").read_text()
        # a resumed run asks nothing again, and the mode is a part of the judge
        n_asked = len(model.asked)
        compared(tmp_path / "run", judge_mode="cascade", reasons_below=0.9, resume=True)
        assert len(model.asked) == n_asked
        with pytest.raises(NotComparableError, match="judge_mode"):
            compared(tmp_path / "run", resume=True)
        with pytest.raises(NotComparableError, match="cascade"):
            compared(tmp_path / "run", judge_mode="cascade", reasons_below=0.8, resume=True)


def test_the_mode_makes_another_judge_of_a_certificate_and_no_other_mode_records_a_cascade() -> None:
    spec = ModelSpec(name="judge", url="http://h/v1")
    modes = {mode: described(spec.in_mode(mode, None)) for mode in ("reason_first", "letter", "cascade")}
    assert len({judge_digest(about) for about in modes.values()}) == 3
    assert [mode for mode, about in modes.items() if "cascade" in about] == ["cascade"]
    assert judge_digest(described(spec.in_mode("cascade", 0.8))) != judge_digest(modes["cascade"])
    assert judge_digest(described(spec.in_mode("cascade", None, ("C",)))) != judge_digest(modes["cascade"])
    assert "reasons_for" not in modes["cascade"]["cascade"]  # runs of before it stay comparable


def test_a_threshold_without_a_cascade_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--reasons-below"):
        compared(tmp_path / "run", judge_mode="letter", reasons_below=0.9)
    with pytest.raises(UsageError, match="--reasons-for"):
        compared(tmp_path / "run", judge_mode="letter", reasons_for=["C"])


async def test_a_server_without_log_probabilities_is_refused_before_anything_is_asked() -> None:
    spec = ModelSpec(name="tiny-gen", judge_mode="cascade")
    with (
        LoopbackServer(max_logprobs=0) as server,
        pytest.raises(EndpointError, match="no log-probabilities"),
    ):
        await resolve(spec.model_copy(update={"url": server.url}), api_key=None, allow_external=())
