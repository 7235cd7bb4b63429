"""The embedded models as chat models: no server, no GPU, no download.

They read a request's ``inputs``, not its messages, and answer in the JSON that the request's schema asks for. qaeval finds
them by the entry points of ``pyproject.toml``.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from qaeval.chat.protocol import ChatError, ChatModel, ChatRequest, Completion
from qaeval.records import REJECTED
from qaeval_floor import candidates
from qaeval_floor.answers import judge_answer, lead_answer, salient_answer
from qaeval_floor.candidates import Pair
from qaeval_floor.lexical import judge
from qaeval_floor.preferences import lead_pair, salient_pair

_Reply: TypeAlias = Callable[[Mapping[str, str]], Mapping[str, Any]]


class Embedded:
    """A chat model whose reply is a pure function of the request's inputs."""

    def __init__(self, reply: _Reply) -> None:
        self._reply = reply

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer at once; gives way to the event loop, so that Ctrl-C is heard.

        Raises:
            ChatError: the inputs hold nothing to work on.
        """
        await asyncio.sleep(0)
        started = time.perf_counter()
        try:
            value = self._reply(request.inputs)
        except ValueError as error:
            raise ChatError("rejected", str(error)) from error
        text = json.dumps(value, ensure_ascii=False)
        return Completion(text, "stop", usage=None, latency_s=time.perf_counter() - started)


def _candidate(
    choose: Callable[[str], tuple[Pair, Pair, Pair]],
) -> _Reply:
    def reply(inputs: Mapping[str, str]) -> Mapping[str, Any]:
        pairs = choose(inputs["chunk"])
        return {
            "pairs": [{"type": pair.type, "question": pair.question, "answer": pair.answer} for pair in pairs]
        }

    return reply


def _by_kind(**replies: _Reply) -> _Reply:
    def reply(inputs: Mapping[str, str]) -> Mapping[str, Any]:
        return replies[inputs.get("kind", "qa_pair")](inputs)

    return reply


def _judge(inputs: Mapping[str, str]) -> Mapping[str, Any]:
    """Grade by the rubric's kind of item.

    Raises:
        ValueError: it is a preference pair, or there is no source.
    """
    if REJECTED in inputs:
        raise ValueError("the embedded judge does not grade preference pairs; name another one with --judge")
    grade = judge_answer if inputs.get("rubric", "").startswith("rag_answer") else judge
    graded = grade(inputs["chunk"], inputs["question"], inputs["answer"])
    return {
        "reason": graded.reason,
        "letter": graded.letter,
        "flaw": graded.flaw or "none",
        "hallucination": graded.hallucination,
    }


def lead() -> ChatModel:
    """Make the simplest candidate, ``embedded-lead``."""
    return Embedded(
        _by_kind(qa_pair=_candidate(candidates.lead), answer=lead_answer, preference_pair=lead_pair)
    )


def salient() -> ChatModel:
    """Make the better candidate, ``embedded-salient``."""
    return Embedded(
        _by_kind(qa_pair=_candidate(candidates.salient), answer=salient_answer, preference_pair=salient_pair)
    )


def lexical() -> ChatModel:
    """Make the judge, ``embedded-lexical``."""
    return Embedded(_judge)
