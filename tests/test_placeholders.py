"""Replies that are no answer: an example of the prompt, dots, or the same text for every chunk."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import qaeval
from qaeval.chat.protocol import ChatRequest
from qaeval.chat.reply import ReplyError
from qaeval.cli import run as command
from qaeval.errors import DataError
from qaeval.evals.definition import EvalDefinition, Prompt
from qaeval.evals.find import find_eval
from qaeval.records import Chunk, Sample
from qaeval.run.items import read_items
from qaeval.testing import ScriptedModel, grade_reply, pairs_reply, registered

LICENCE = ("--accept-licence", "writer", "--accept-licence", "judge")
TYPES = ("factual", "conceptual", "comparison")
SAMPLE = Sample.of(Chunk(chunk_id="c", text="The valve opens at 5 bar."))


def prompted(user: str) -> EvalDefinition:
    return find_eval("qa_pairs").model_copy(update={"prompt": Prompt(user=user)})


def reason(answer: str, definition: EvalDefinition) -> str:
    text = pairs_reply([(kind, f"What is {kind}?", answer) for kind in TYPES])
    try:
        read_items(text, SAMPLE, definition, lenient=False)
    except ReplyError as error:
        return error.reason
    return ""


def test_a_reply_must_not_repeat_an_example_of_the_prompt() -> None:
    definition = prompted(
        '$chunk\nReply like {"question": "Your question", "answer": "An \\"answer\\", short"}'
    )
    assert definition.example_texts == {"Your question", 'An "answer", short'}
    assert reason('An "answer", short', definition) == "placeholder"
    assert reason('An "answer", short, of my own', definition) == ""
    assert reason("Your question", prompted("$chunk")) == ""
    assert prompted(r'$chunk {"answer": "C:\Users"}').example_texts == {r"C:\Users"}


def test_a_prompt_of_its_own_has_examples_of_its_own() -> None:
    shipped = find_eval("rag_qa")
    assert len(shipped.example_texts) == 1
    copy = shipped.model_copy(update={"prompt": Prompt(user='$chunk {"answer": "Your answer"}')})
    assert copy.example_texts == {"Your answer"}


@pytest.mark.parametrize("name", ["qa_pairs", "dpo_pairs"])
def test_the_prompt_of_an_enforced_schema_has_no_example_to_copy(name: str) -> None:
    definition = find_eval(name)
    assert definition.enforce_schema
    assert definition.example_texts == set()
    assert "…" not in definition.prompt.user


def test_an_eval_without_an_enforced_schema_shows_the_form_and_refuses_a_copy_of_it() -> None:
    definition = find_eval("rag_qa")
    sample = Sample.of(SAMPLE.chunk, "When does it open?", {"type": "answerable"})
    for answer in ("…", *definition.example_texts):
        reply = json.dumps({"answer": answer, "ticket": {"priority": "low"}})
        with pytest.raises(ReplyError) as raised:
            read_items(reply, sample, definition, lenient=True)
        assert raised.value.reason == "placeholder"


# ------------------------------------------------------------------------------ the same reply for several chunks


def made(tmp_path: Path, reply: Callable[[ChatRequest], str], texts: list[str]) -> qaeval.Run:
    chunks = tmp_path / "chunks.jsonl"
    chunks.write_text(
        "".join(
            json.dumps({"chunk_id": f"c{index}", "text": text}) + "\n" for index, text in enumerate(texts)
        )
    )
    judge = ScriptedModel(lambda _request: grade_reply("A"))
    out = tmp_path / "run"
    with registered("writer", ScriptedModel(reply)), registered("judge", judge):
        return ended(lambda: qaeval.compare("writer", judge="judge", chunks=chunks, out=out, cache=False))


def ended(work: Callable[[], qaeval.Run]) -> qaeval.Run:
    """Return the run, also where the end of `work` is that nothing of it was graded."""
    try:
        return work()
    except DataError as error:
        return qaeval.load_run(error.reported or "not reported")


def fixed(_request: ChatRequest) -> str:
    return pairs_reply([(kind, f"What is {kind}?", f"It is {kind}.") for kind in TYPES])


TEXTS = [f"Valve {index} opens at {index + 2} bar." for index in range(4)]


@pytest.mark.slow
def test_a_reply_that_is_the_same_for_three_chunks_is_a_failure(tmp_path: Path) -> None:
    run = made(tmp_path, fixed, TEXTS)
    (candidate,) = run.report.candidates
    assert candidate.failed_by_reason == {"placeholder": 12}
    assert (candidate.n_valid, candidate.usable.value) == (0, 0.0)
    assert set(run.letters["letter"]) == {""}
    (group,) = run.report.failures
    assert "4 chunks" in group.examples[0].detail
    assert "What is factual?" in group.examples[0].text


@pytest.mark.slow
def test_two_chunks_may_share_a_reply_and_so_may_chunks_of_one_text(tmp_path: Path) -> None:
    def by_chunk(request: ChatRequest) -> str:
        return fixed(request) if request.inputs["chunk"] in {TEXTS[0], TEXTS[1]} else other(request)

    def other(request: ChatRequest) -> str:
        return pairs_reply([(kind, f"What is {kind}?", request.inputs["chunk"]) for kind in TYPES])

    run = made(tmp_path, by_chunk, [TEXTS[0], TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[3]])
    assert run.report.candidates[0].failed_by_reason == {}


@pytest.mark.slow
def test_a_reply_with_one_pair_of_its_own_is_no_repetition(tmp_path: Path) -> None:
    def mostly(request: ChatRequest) -> str:
        pairs = [(kind, f"What is {kind}?", f"It is {kind}.") for kind in TYPES[:2]]
        return pairs_reply([*pairs, ("comparison", "And this?", request.inputs["chunk"])])

    assert made(tmp_path, mostly, TEXTS).report.candidates[0].failed_by_reason == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        ("The answer to this question is in the passage.", {"placeholder": 4}),
        ("The passage does not say that.", {}),
        ("Yes, it does.", {}),
    ],
)
def test_an_answer_may_be_repeated_where_it_is_a_refusal_or_short(
    tmp_path: Path, answer: str, failed: dict[str, int]
) -> None:
    chunks, samples = tmp_path / "chunks.jsonl", tmp_path / "samples.jsonl"
    chunks.write_text(
        "".join(json.dumps({"chunk_id": f"c{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS))
    )
    samples.write_text(
        "".join(
            json.dumps({"chunk_id": f"c{n}", "question": f"Is valve {n} open?", "type": "answerable"}) + "\n"
            for n in range(4)
        )
    )
    ticket = {"priority": "low", "category": "fact", "department": "data"}
    reply = json.dumps({"answer": answer, "ticket": ticket})
    judge = ScriptedModel(lambda _request: grade_reply("A"))
    with registered("writer", ScriptedModel(lambda _request: reply)), registered("judge", judge):
        run = ended(
            lambda: qaeval.compare(
                "writer",
                judge="judge",
                eval_name="rag_qa",
                chunks=chunks,
                samples=samples,
                out=tmp_path / "run",
                cache=False,
            )
        )
    assert run.report.candidates[0].failed_by_reason == failed


@pytest.mark.slow
def test_nothing_that_is_repeated_is_exported_as_training_data(tmp_path: Path) -> None:
    def half(request: ChatRequest) -> str:
        if request.inputs["chunk"] in TEXTS[:3]:
            return fixed(request)
        return pairs_reply([(kind, f"{kind}?", request.inputs["chunk"]) for kind in TYPES])

    run = made(tmp_path, half, TEXTS)
    out = tmp_path / "export"
    assert command(["export", str(run.path), "--to", "sft", "--out", str(out), *LICENCE]) == 0
    exported = "".join(path.read_text() for path in out.glob("*.jsonl"))
    assert TEXTS[3] in exported
    assert "It is factual." not in exported
