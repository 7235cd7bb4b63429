"""Settings of vLLM that save GPU time: used where the server knows them, and a reply that repeats itself is a failure of its own."""

from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from qaeval.chat.protocol import ChatRequest, Completion, Message, Sampling
from qaeval.chat.wire import read_completion
from qaeval.evals.find import find_eval, find_rubric
from qaeval.records import Chunk, Failure, Grade, Item, Sample, Usage
from qaeval.registry.levers import LEVERS, REPETITION_DETECTION, LeverName
from qaeval.registry.model import ModelSpec
from qaeval.run.endpoint import connect, resolve
from qaeval.run.generate import GenerateTask, generate_one
from qaeval.run.grade import SAMPLING, GradeTask, Instructions, grade_one
from qaeval.serving.server import check_arguments, options_of, serve_command
from qaeval.testing import grade_reply
from replay.server import LoopbackServer

HERE = Path(__file__).parent
OPTIONS = options_of((HERE / "replay" / "vllm-0.32.0" / "serve-options.txt").read_text())
SAMPLE = Sample.of(Chunk(chunk_id="c", text="A double bass has four strings."))
HELLO = ChatRequest((Message("user", "Say hello."),), sampling=Sampling(max_tokens=4))


def served(*levers: LeverName, vllm_args: tuple[str, ...] = ()) -> ModelSpec:
    return ModelSpec(name="m", hf_id="org/m", levers=levers, vllm_args=vllm_args)


def test_every_lever_has_an_option_that_vllm_knows_or_is_a_field_of_requests() -> None:
    assert {*LEVERS} == {*get_args(LeverName)}
    argv = serve_command(served(*LEVERS), command=("vllm",), port=1, options=OPTIONS)
    check_arguments(argv, OPTIONS)
    assert all(part in argv for lever in LEVERS.values() for part in lever.arguments)


def test_a_lever_that_the_installed_vllm_does_not_know_is_left_out() -> None:
    options = OPTIONS - {"--speculative-config"}
    argv = serve_command(served("prompt-lookup", "fp8-kv"), command=("vllm",), port=1, options=options)
    assert "--kv-cache-dtype=fp8" in argv
    assert not [part for part in argv if part.startswith("--speculative-config")]


def test_arguments_of_the_entry_follow_those_of_levers_and_win() -> None:
    argv = serve_command(served("fp8-kv", vllm_args=("--kv-cache-dtype=auto",)), command=("vllm",), port=1)
    assert argv.index("--kv-cache-dtype=auto") > argv.index("--kv-cache-dtype=fp8")


def test_levers_other_than_the_default_are_a_part_of_the_model() -> None:
    assert "levers" not in ModelSpec(name="m", hf_id="org/m").identity()
    assert served().identity()["levers"] == []
    assert served("repetition-detection", "fp8-kv").identity()["levers"] == ["repetition-detection", "fp8-kv"]


@pytest.mark.parametrize(
    ("levers", "repetition", "is_sent"),
    [
        (("repetition-detection",), "known", True),
        (("repetition-detection",), "ignored", False),
        (("repetition-detection",), "refused", False),
        ((), "known", False),
    ],
)
async def test_repetition_is_detected_where_the_server_can(
    levers: Any, repetition: Any, *, is_sent: bool
) -> None:
    with LoopbackServer(repetition=repetition) as server:
        spec = ModelSpec(name="tiny-gen", url=server.url, levers=levers)
        endpoint = await resolve(spec, api_key=None, allow_external=())
        async with connect(endpoint, api_key=None) as model:
            await model.complete(HELLO)
        sent = server.requests[-1].get("repetition_detection")
    assert sent == (REPETITION_DETECTION["repetition_detection"] if is_sent else None)


def repeated(text: str = "the same the same the same") -> Completion:
    choice = {"finish_reason": "repetition", "message": {"content": text}}
    body = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 96, "total_tokens": 105}}
    return read_completion(orjson.dumps(body), latency_s=0.1, max_tokens=512)


class Repeats:
    """A model that repeats itself, unless it is asked for the letter alone and has one."""

    def __init__(self, *, has_letter: bool = True) -> None:
        self.has_letter = has_letter

    async def complete(self, request: ChatRequest) -> Completion:
        properties = (request.schema or {}).get("properties", {})
        if self.has_letter and "letter" in properties and "reason" not in properties:
            return Completion(grade_reply("B"), "stop", Usage(prompt_tokens=9, completion_tokens=10), 0.1)
        return repeated('{"reason": "It says four. It says four. It says four.')


async def test_a_candidate_that_repeats_itself_has_a_failure_of_its_own() -> None:
    definition = find_eval("qa_pairs")
    row = await generate_one(
        Repeats(), GenerateTask("1", "m", SAMPLE), definition, Sampling(max_tokens=512), lenient=False
    )
    assert isinstance(row, Failure)
    assert (row.reason, row.is_transient) == ("repetition", False)
    assert "ended it after 96 tokens" in row.detail


@pytest.mark.parametrize("mode", ["reason_first", "letter"])
async def test_a_judge_whose_reason_repeats_itself_is_asked_for_the_letter_alone(mode: Any) -> None:
    rubric = find_rubric("qa_pair_abc")
    item = Item.of(SAMPLE.sample_id, 0, type="", question="How many?", answer="Four.")
    model = Repeats(has_letter=mode == "reason_first")
    task, instructions = GradeTask("1", "j", SAMPLE, item), Instructions.of(rubric, SAMPLING, mode)
    row = await grade_one(model, task, instructions, lenient=False)
    if mode == "letter":
        assert isinstance(row, Failure)
        assert row.reason == "repetition"
    else:
        assert isinstance(row, Grade)
        assert (row.letter, row.usage) == ("B", Usage(prompt_tokens=18, completion_tokens=106))
        assert "the reason repeated itself" in row.remark


def test_the_documents_list_every_lever_with_its_measurement() -> None:
    text = (HERE.parent / "docs" / "performance.md").read_text()
    for name, lever in LEVERS.items():
        line = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert (lever.measured or "not measured") in line
        assert lever.saves in line
