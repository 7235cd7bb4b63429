"""An Inspect model as a `ChatModel`, for qaeval's stages."""

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
from qaeval.chat.wire import (
    TransientError,
    is_overflow,
    merge_system_turns,
    read_completion,
    without_prefix_items,
)
from qaeval.records import Usage

_FINISH_REASONS: Final[Mapping[str, str]] = {"stop": "stop", "max_tokens": "length", "unknown": "abort"}
"""Inspect's stop reasons as finish reasons of the OpenAI format; Inspect maps all others, ``abort``
included, to ``unknown``."""
_MAX_ATTEMPTS: Final = 3
"""Attempts for a reply that the server aborts; Inspect would accept the aborted reply."""
_MAX_DETAIL_CHARS: Final = 500
_CLIENT_ERRORS: Final = range(400, 500)
_RETRYABLE: Final = frozenset({408, 429})
_MESSAGE_TYPES: Final = {
    "system": ChatMessageSystem,
    "user": ChatMessageUser,
    "assistant": ChatMessageAssistant,
}


class ExactSchema(JSONSchema):
    """A JSON schema that is sent unchanged: Inspect's class silently drops ``minItems`` and ``maxItems``."""

    model_config = ConfigDict(extra="allow")

    items: Optional["ExactSchema"] = None
    properties: dict[str, "ExactSchema"] | None = None  # type: ignore[assignment]


class InspectChat:
    """An Inspect model with Inspect's provider, retries, connections and log.

    Args:
        model: The model.
        structured: Whether to send the schema of a request.
        merge_system: Whether to put the system message at the start of the first user turn.

    Attributes:
        output: Inspect's output of the last request; None without a reply.
    """

    def __init__(self, model: Model, *, structured: bool = True, merge_system: bool = False) -> None:
        self.output: ModelOutput | None = None
        self._model = model
        self._structured = structured
        self._merge_system = merge_system

    @property
    def host(self) -> str:
        """Host of the server; empty if the provider does not have one."""
        return urlsplit(self._model.api.base_url or "").hostname or ""

    async def complete(self, request: ChatRequest) -> Completion:
        """Send a request, with Inspect's retries.

        Raises:
            ChatError: there is no reply.
        """
        for _ in range(_MAX_ATTEMPTS):
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
            raise _chat_error(error) from error
        return output, output.time or perf_counter() - started


def read_output(output: ModelOutput, request: ChatRequest, latency_s: float) -> Completion:
    """Convert Inspect's output with the reader of reply bodies.

    Raises:
        TransientError: the server aborted the reply.
        ChatError: there is no usable reply.
    """
    body = orjson.dumps(_body(output))
    limit, place = request.sampling.max_tokens, request.alternatives_at
    return read_completion(body, latency_s=latency_s, max_tokens=limit, pattern=place)


def as_chat_messages(request: ChatRequest, *, merge_system: bool) -> list[ChatMessage]:
    """Convert the turns of a request to Inspect's messages."""
    turns = merge_system_turns(request.messages) if merge_system else request.messages
    return [_MESSAGE_TYPES[turn.role](content=turn.content) for turn in turns]


def generate_config(request: ChatRequest, *, structured: bool) -> GenerateConfig:
    """Convert the parameters of a request to Inspect's configuration."""
    sampling, schema = request.sampling, request.schema
    return GenerateConfig(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed,
        logprobs=True if request.top_logprobs else None,
        top_logprobs=request.top_logprobs or None,
        response_schema=ResponseSchema(
            name="reply", json_schema=ExactSchema.model_validate(without_prefix_items(schema)), strict=True
        )
        if structured and schema is not None
        else None,
    )


def _body(output: ModelOutput) -> dict[str, Any]:
    """Convert Inspect's output to the body of a chat completion, for the reader of reply bodies.

    Raises:
        ChatError: there is no output, or the context was too small.
    """
    if output.error or not output.choices:
        raise ChatError("endpoint", f"{output.model}: {output.error or 'a reply without choices'}")
    if output.stop_reason == "model_length":
        raise ChatError("context_overflow", f"{output.model}: {output.completion[:_MAX_DETAIL_CHARS]}")
    choice = output.choices[0]
    choice_body = {
        "message": {"content": output.completion},
        "finish_reason": _FINISH_REASONS.get(choice.stop_reason, choice.stop_reason),
        "logprobs": choice.logprobs.model_dump() if choice.logprobs else None,
    }
    usage = as_usage(output.usage)
    counted = None if usage is None else {**usage.model_dump(), "prompt_tokens_details": usage.model_dump()}
    return {"choices": [choice_body], "usage": counted}


def as_usage(usage: ModelUsage | None) -> Usage | None:
    """Convert token counts; Inspect excludes cached tokens from input tokens, the server includes them."""
    if usage is None:
        return None
    cached = usage.input_tokens_cache_read or 0
    prompt = usage.input_tokens + cached + (usage.input_tokens_cache_write or 0)
    return Usage(
        prompt_tokens=prompt,
        # some providers count reasoning in the total alone
        completion_tokens=max(usage.output_tokens, usage.total_tokens - prompt),
        cached_tokens=cached,
    )


def from_usage(usage: Usage | None) -> ModelUsage | None:
    """Convert token counts to Inspect's, which exclude cached tokens from the input tokens."""
    if usage is None:
        return None
    return ModelUsage(
        input_tokens=usage.prompt_tokens - usage.cached_tokens,
        input_tokens_cache_read=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _chat_error(error: Exception) -> ChatError:
    """Return the cause of a provider's exception; Inspect wraps it, and adds the whole prompt to the text."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    status = getattr(error, "status_code", None) or getattr(cause, "status_code", None)
    detail = f"{type(cause).__name__}: {getattr(error, 'provider_message', None) or cause}"[
        :_MAX_DETAIL_CHARS
    ]
    if isinstance(status, int) and status in _CLIENT_ERRORS and status not in _RETRYABLE:
        return ChatError("context_overflow" if is_overflow(detail.encode()) else "rejected", detail)
    return ChatError("endpoint", detail)


class _RecordedModel(ModelAPI):
    """A placeholder for a model of an exported log; it cannot generate."""

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - Inspect's name
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Refuse.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"{self.model_name} is a placeholder in a log exported by qaeval; pass a model with --model"
        )


@modelapi(name="qaeval")
def recorded() -> type[ModelAPI]:
    """Models ``qaeval/NAME`` of exported logs, so that Inspect can open and rescore these logs."""
    return _RecordedModel
