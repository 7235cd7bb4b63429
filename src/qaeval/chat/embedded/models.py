"""The embedded models as chat models: no server, no GPU, no download.

They read a request's ``inputs``, not its messages, and answer in the JSON that the request's schema asks for.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from qaeval.chat.embedded.candidates import Pair, lead, salient
from qaeval.chat.embedded.lexical import judge
from qaeval.chat.protocol import ChatError, ChatModel, ChatRequest, Completion


class Embedded:
    """A chat model whose reply is a pure function of the request's inputs."""

    def __init__(self, reply: Callable[[Mapping[str, str]], Mapping[str, Any]]) -> None:
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
) -> Callable[[Mapping[str, str]], Mapping[str, Any]]:
    def reply(inputs: Mapping[str, str]) -> Mapping[str, Any]:
        pairs = choose(inputs["chunk"])
        return {
            "pairs": [{"type": pair.type, "question": pair.question, "answer": pair.answer} for pair in pairs]
        }

    return reply


def _judge(inputs: Mapping[str, str]) -> Mapping[str, Any]:
    opinion = judge(inputs["chunk"], inputs["question"], inputs["answer"])
    return {"reason": opinion.reason, "letter": opinion.letter, "hallucination": opinion.hallucination}


EMBEDDED: Final[Mapping[str, Callable[[], ChatModel]]] = {
    "embedded-lead": lambda: Embedded(_candidate(lead)),
    "embedded-salient": lambda: Embedded(_candidate(salient)),
    "embedded-lexical": lambda: Embedded(_judge),
}
"""The embedded models by the name that the registry gives them."""
