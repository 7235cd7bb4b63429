"""From a reply to a row: what each end of a request becomes, in both stages."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from qaeval.chat.protocol import Alternatives, ChatError, ChatRequest, Completion, Sampling
from qaeval.evals.find import find_eval, find_rubric
from qaeval.records import Chunk, Failure, Generation, Grade, Item, Sample, Usage
from qaeval.run import generate, grade
from qaeval.testing import grade_reply, pairs_reply

PAIRS = pairs_reply([(kind, f"{kind}?", "3 bar") for kind in ("factual", "conceptual", "comparison")])
SAMPLE = Sample.of(Chunk(chunk_id="c", text="Pumps start at 3 bar.", title="Pumps"))
ITEM = Item.of(SAMPLE.sample_id, 0, type="factual", question="When?", answer="At 3 bar.")
REPLY = Completion("", "stop", Usage(prompt_tokens=40, completion_tokens=9), 0.25)
ESCAPED = {"special token": 1}


@dataclass
class Model:
    """Gives one reply, or refuses."""

    reply: Completion | ChatError
    requests: list[ChatRequest] = field(default_factory=list)

    async def complete(self, request: ChatRequest) -> Completion:
        self.requests.append(request)
        if isinstance(self.reply, ChatError):
            raise self.reply
        return self.reply


async def generated(reply: Completion | ChatError, sample: Sample = SAMPLE) -> Any:
    task = generate.GenerateTask("t", "m", sample, reply_number=2)
    return await generate.generate_one(
        Model(reply), task, find_eval("qa_pairs"), Sampling(max_tokens=77), lenient=False
    )


async def graded(reply: Completion | ChatError, item: Item = ITEM, sample: Sample = SAMPLE) -> Any:
    task = grade.GradeTask("t", "j", sample, item, reply_number=2, letter_number=3)
    instructions = grade.Instructions.of(find_rubric("qa_pair_abc"), Sampling(max_tokens=77), "reason_first")
    return await grade.grade_one(Model(reply), task, instructions, lenient=False)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (replace(REPLY, text=PAIRS, finish_reason="length"), "truncated"),
        (replace(REPLY, text=PAIRS, finish_reason="abort"), "interrupted"),
        (replace(REPLY, text='{"pairs": 3}'), "missing_field"),
        (replace(REPLY, text="no JSON"), "invalid_json"),
        (ChatError("context_overflow", "the prompt has 9,000 tokens"), "context_overflow"),
    ],
)
async def test_a_reply_without_items_is_a_failure_of_its_task(
    reply: Completion | ChatError, reason: str
) -> None:
    row = await generated(reply)
    assert isinstance(row, Failure)
    text, usage, latency_s = (
        ("", None, 0.0) if isinstance(reply, ChatError) else (reply.text, reply.usage, reply.latency_s)
    )
    assert (row.reason, row.text, row.usage, row.latency_s) == (reason, text, usage, latency_s)
    assert (row.task_id, row.stage, row.model, row.sample_id, row.item_id, row.reply_number) == (
        *("t", "generate", "m", SAMPLE.sample_id),
        *(None, 2),
    )
    assert row.detail == reply.detail if isinstance(reply, ChatError) else row.detail
    assert ("max_tokens=77" in row.detail) == (reason == "truncated")


async def test_a_reply_with_items_is_a_row_with_all_of_its_figures() -> None:
    row = await generated(replace(REPLY, text=PAIRS, cached=True))
    assert isinstance(row, Generation)
    assert [(item.position, item.type, item.question, item.answer) for item in row.items] == [
        (position, kind, f"{kind}?", "3 bar")
        for position, kind in enumerate(("factual", "conceptual", "comparison"))
    ]
    assert (row.task_id, row.candidate, row.sample_id, row.reply_number) == ("t", "m", SAMPLE.sample_id, 2)
    assert (row.text, row.usage, row.latency_s, row.cached) == (PAIRS, REPLY.usage, 0.25, True)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (replace(REPLY, text=grade_reply("A"), finish_reason="length"), "truncated"),
        (replace(REPLY, text=grade_reply("A"), finish_reason="abort"), "interrupted"),
        (replace(REPLY, text=grade_reply("D")), "unparseable"),
        (replace(REPLY, text=grade_reply("a")), "unparseable"),
        (replace(REPLY, text=grade_reply("A", flags={})), "unparseable"),
        (replace(REPLY, text='["A"]'), "unparseable"),
        (ChatError("endpoint", "nothing within 30 s"), "endpoint"),
    ],
)
async def test_a_reply_without_a_letter_is_a_failure_of_its_task(
    reply: Completion | ChatError, reason: str
) -> None:
    row = await graded(reply)
    assert isinstance(row, Failure)
    text, usage, latency_s = (
        ("", None, 0.0) if isinstance(reply, ChatError) else (reply.text, reply.usage, reply.latency_s)
    )
    if reason == "truncated":  # asked for once more, in fewer words
        usage, latency_s = Usage(prompt_tokens=80, completion_tokens=18), 0.5
    assert (row.reason, row.text, row.usage, row.latency_s) == (reason, text, usage, latency_s)
    assert (row.task_id, row.stage, row.model, row.sample_id, row.item_id) == (
        *("t", "grade", "j", SAMPLE.sample_id),
        ITEM.item_id,
    )
    assert (row.reply_number, row.letter_number) == (2, 3)
    assert row.detail == reply.detail if isinstance(reply, ChatError) else row.detail
    assert ("max_tokens=77" in row.detail) == (reason == "truncated")


async def test_a_letter_is_a_row_with_all_of_its_figures() -> None:
    rubric = find_rubric("qa_pair_abc")
    flaw = rubric.flaws[0].name
    text = grade_reply("B", "It says when.", flags={"hallucination": True}, flaw=flaw)
    alternatives = Alternatives("B", 0, {"B": -0.5, "A": -1.5})
    row = await graded(replace(REPLY, text=text, cached=True, alternatives=alternatives))
    assert isinstance(row, Grade)
    assert (row.letter, row.flags, row.flaw, row.reason) == ("B", ("hallucination",), flaw, "It says when.")
    assert (row.task_id, row.judge, row.rubric_sha, row.item_id) == ("t", "j", rubric.sha, ITEM.item_id)
    assert (row.reply_number, row.letter_number) == (2, 3)
    assert (row.text, row.usage, row.latency_s, row.cached) == (text, REPLY.usage, 0.25, True)
    # e^-0.5 / (e^-0.5 + e^-1.5) = 1 / (1 + 1/e)
    assert row.probabilities == pytest.approx({"A": 0.268941, "B": 0.731059, "C": 0.0}, abs=1e-6)


async def test_the_best_letter_has_no_flaw_and_a_reply_without_alternatives_no_probabilities() -> None:
    flaw = find_rubric("qa_pair_abc").flaws[0].name
    row = await graded(replace(REPLY, text=grade_reply("A", flaw=flaw)))
    assert (row.letter, row.flaw, row.flags, row.probabilities, row.cached) == ("A", "", (), None, False)


@pytest.mark.parametrize("text", [PAIRS, "no JSON"])
async def test_a_row_counts_the_special_tokens_of_its_prompt_whatever_the_reply(text: str) -> None:
    hostile = Sample.of(Chunk(chunk_id="c", text="Pumps <|im_end|> start.", title="Pumps"))
    assert (await generated(replace(REPLY, text=text), hostile)).escaped == ESCAPED
    assert (await generated(ChatError("endpoint", "gone"), hostile)).escaped == ESCAPED


@pytest.mark.parametrize(
    "reply",
    [
        replace(REPLY, text=grade_reply("A")),
        replace(REPLY, text="no JSON"),
        replace(REPLY, finish_reason="length"),
        replace(REPLY, finish_reason="abort"),
        ChatError("endpoint", "gone"),
    ],
)
async def test_a_graded_row_counts_the_special_tokens_of_its_prompt(reply: Completion | ChatError) -> None:
    hostile = Item.of(SAMPLE.sample_id, 0, type="", question="When </s>?", answer="At 3 bar.")
    assert (await graded(reply, hostile)).escaped == ESCAPED


async def test_an_item_without_its_source_is_not_shown_to_a_judge_that_needs_one() -> None:
    model = Model(replace(REPLY, text=grade_reply("A")))
    sample = Sample.of(Chunk(chunk_id="c", text=""), "When?")
    instructions = grade.Instructions.of(find_rubric("qa_pair_abc"), Sampling(), "reason_first")
    row = await grade.grade_one(model, grade.GradeTask("t", "j", sample, ITEM), instructions, lenient=False)
    assert isinstance(row, Failure)
    assert (row.reason, row.latency_s, model.requests) == ("no_source", 0.0, [])


@pytest.mark.parametrize(
    ("top", "probabilities"),
    [
        # tokens that spell one letter are added up: e^0 against e^0 + e^0 = 1 : 2
        ({'"A': 0.0, '"B': 0.0, '"B"': 0.0}, {"A": 1 / 3, "B": 2 / 3, "C": 0.0}),
        ({'"A': 0.0, "A": 0.0, '"D': 0.0, '"Axis': 0.0}, {"A": 1.0, "B": 0.0, "C": 0.0}),
        ({'"D': 0.0, "A": 0.0}, None),
        ({}, None),
    ],
)
def test_probabilities_are_those_of_the_scale_at_the_letter(
    top: dict[str, float], probabilities: dict[str, float] | None
) -> None:
    distribution = grade.letter_probabilities(Alternatives('"A', 1, top), "ABC")
    assert distribution == (pytest.approx(probabilities) if probabilities else None)


@pytest.mark.parametrize(
    ("top", "remark"),
    [
        ({'"A': math.log(0.5), '"B': math.log(0.5)}, ""),
        ({'"A': math.log(0.9), '"B': math.log(0.095)}, ""),  # C has at most 0.5 %
        (
            {'"A': math.log(0.9), '"B': math.log(0.04)},
            "C: not among the 2 likeliest tokens, counted as 0, at most 6%",
        ),
        ({'"A': math.log(0.5), '"B': math.log(0.1), '"C': -9.0}, ""),  # all letters were seen
        # without a schema, other words hold a share: of .8 letters and .2 that is not known, at most a fifth
        ({'"A': math.log(0.8)}, "B, C: not among the 1 likeliest tokens, counted as 0, at most 20%"),
    ],
)
def test_a_letter_outside_the_alternatives_is_named_with_the_most_that_it_can_have(
    top: dict[str, float], remark: str
) -> None:
    assert grade.unseen_letters(Alternatives('"A', 1, top), "ABC") == remark


async def test_a_row_says_which_letter_was_not_seen() -> None:
    alternatives = Alternatives("B", 0, {"B": math.log(0.6), "A": math.log(0.3)})
    row = await graded(replace(REPLY, text=grade_reply("B"), alternatives=alternatives))
    assert isinstance(row, Grade)
    assert row.probabilities == pytest.approx({"A": 1 / 3, "B": 2 / 3, "C": 0})
    assert row.remark == "C: not among the 2 likeliest tokens, counted as 0, at most 10%"
