"""A model of Inspect's as a `ChatModel`: qaeval's stages ask it as they ask any other, and read its replies the same way."""

from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final, Optional
from urllib.parse import urlsplit

import orjson
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    ResponseSchema,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from inspect_ai.util import JSONSchema, LimitExceededError
from pydantic import ConfigDict

from qaeval.chat.protocol import ChatError, ChatRequest, Completion
from qaeval.chat.wire import TransientError, is_overflow, merge_system_turns, read_completion
from qaeval.records import Usage

_STOPPED: Final[Mapping[str, str]] = {"stop": "stop", "max_tokens": "length", "unknown": "abort"}
"""Inspect's stop reasons that have an equal in the OpenAI format; it calls what it does not know, ``abort`` too, ``unknown``."""
_MOST_ABORTS: Final = 3
"""So often a reply that the server stopped short is asked for; Inspect itself takes it as a reply."""
_SHOWN: Final = 500
_REFUSED: Final = range(400, 500)
_MAY_PASS: Final = frozenset({408, 429})
_TURNS: Final = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


class ExactSchema(JSONSchema):
    """A JSON schema that is sent as it stands: Inspect's own class drops ``minItems`` and ``maxItems`` without a word."""

    model_config = ConfigDict(extra="allow")

    items: Optional["ExactSchema"] = None
    properties: dict[str, "ExactSchema"] | None = None  # type: ignore[assignment]


class InspectChat:
    """A model of Inspect's; its provider, retries, connections and log are Inspect's.

    Args:
        model: The model.
        structured: Whether the server is sent a request's schema.
        merge_system: Whether the system message is put at the head of the first user turn.

    Attributes:
        output: What the model said last, as Inspect has it; None where there was no reply.
    """

    def __init__(self, model: Model, *, structured: bool = True, merge_system: bool = False) -> None:
        self.output: ModelOutput | None = None
        self._model = model
        self._structured = structured
        self._merge_system = merge_system

    @property
    def host(self) -> str:
        """The server's host; empty where the provider does not say."""
        return urlsplit(self._model.api.base_url or "").hostname or ""

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask once, Inspect's retries included.

        Raises:
            ChatError: when there is no reply.
        """
        for _ in range(_MOST_ABORTS):
            self.output = None
            output, latency_s = await self._ask(request)
            self.output = output
            try:
                return read_output(output, request, latency_s)
            except TransientError as error:
                last = error
        raise ChatError(last.reason, last.detail)

    async def _ask(self, request: ChatRequest) -> tuple[ModelOutput, float]:
        turns = as_chat_messages(request, merge_system=self._merge_system)
        config = generate_config(request, structured=self._structured)
        started = perf_counter()
        try:
            output = await self._model.generate(turns, config=config)
        except LimitExceededError:
            raise
        except (
            Exception
        ) as error:  # each provider has its own exceptions, and every one means that there is no reply
            raise _no_reply(error) from error
        return output, output.time or perf_counter() - started


def read_output(output: ModelOutput, request: ChatRequest, latency_s: float) -> Completion:
    """Read what a model said as qaeval reads the body of a reply.

    Raises:
        TransientError: the server stopped the reply before its end.
        ChatError: there is no reply of use.
    """
    body = orjson.dumps(_body(output))
    limit, place = request.sampling.max_tokens, request.alternatives_at
    return read_completion(body, latency_s=latency_s, max_tokens=limit, pattern=place)


def as_chat_messages(request: ChatRequest, *, merge_system: bool) -> list[ChatMessage]:
    """Write a request's turns as Inspect has them."""
    turns = merge_system_turns(request.messages) if merge_system else request.messages
    return [_TURNS[turn.role](content=turn.content) for turn in turns]


def generate_config(request: ChatRequest, *, structured: bool) -> GenerateConfig:
    """Write what a request says besides its messages as Inspect has it."""
    sampling, schema = request.sampling, request.schema
    return GenerateConfig(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
        logprobs=True if request.top_logprobs else None,
        top_logprobs=request.top_logprobs or None,
        response_schema=ResponseSchema(
            name="reply", json_schema=ExactSchema.model_validate(dict(schema)), strict=True
        )
        if structured and schema is not None
        else None,
    )


def _body(output: ModelOutput) -> dict[str, Any]:
    """Write Inspect's output as the body of a chat completion, so that one reader reads both.

    Raises:
        ChatError: there is none, or the context was too small.
    """
    if output.error or not output.choices:
        raise ChatError("endpoint", f"{output.model}: {output.error or 'a reply without choices'}")
    if output.stop_reason == "model_length":
        raise ChatError("context_overflow", f"{output.model}: {output.completion[:_SHOWN]}")
    choice = output.choices[0]
    found = {
        "message": {"content": output.completion},
        "finish_reason": _STOPPED.get(choice.stop_reason, choice.stop_reason),
        "logprobs": choice.logprobs.model_dump() if choice.logprobs else None,
    }
    usage = as_usage(output.usage)
    counted = None if usage is None else {**usage.model_dump(), "prompt_tokens_details": usage.model_dump()}
    return {"choices": [found], "usage": counted}


def as_usage(usage: ModelUsage | None) -> Usage | None:
    """Read tokens as the server counted them; Inspect takes cached tokens out of the input's."""
    if usage is None:
        return None
    cached = usage.input_tokens_cache_read or 0
    return Usage(
        prompt_tokens=usage.input_tokens + cached + (usage.input_tokens_cache_write or 0),
        completion_tokens=usage.output_tokens,
        cached_tokens=cached,
    )


def from_usage(usage: Usage | None) -> ModelUsage | None:
    """Write tokens as Inspect counts them."""
    if usage is None:
        return None
    return ModelUsage(
        input_tokens=usage.prompt_tokens - usage.cached_tokens,
        input_tokens_cache_read=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _no_reply(error: Exception) -> ChatError:
    """Say why, from whichever exception a provider raised; Inspect wraps them, and puts the whole prompt into the text."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    status = getattr(error, "status_code", None) or getattr(cause, "status_code", None)
    said = f"{type(cause).__name__}: {getattr(error, 'provider_message', None) or cause}"[:_SHOWN]
    if isinstance(status, int) and status in _REFUSED and status not in _MAY_PASS:
        return ChatError("context_overflow" if is_overflow(said.encode()) else "rejected", said)
    return ChatError("endpoint", said)


class _Recorded(ModelAPI):
    """Stands for a model of a log that qaeval exported; it says nothing more than the log holds."""

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - the name that Inspect gives it
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Refuse.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"{self.model_name} is a name in a log that qaeval exported; give a model that can be asked with --model"
        )


@modelapi(name="qaeval")
def recorded() -> type[ModelAPI]:
    """Models ``qaeval/NAME``: those of exported logs, so that Inspect can open and score them again."""
    return _Recorded
