"""The OpenAI chat format: a request becomes bytes, bytes become a ``Completion``. Pure."""

import math
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from itertools import accumulate
from typing import Any, Final, Literal

import aiohttp
import orjson

from qaeval.chat.protocol import Alternatives, ChatError, ChatRequest, Completion, FinishReason, Message
from qaeval.records import FailureReason, Usage

FIXED_FIELDS: Final = frozenset(
    "model messages temperature top_p max_tokens seed stream n response_format logprobs top_logprobs".split()  # noqa: SIM905 - a list of words
)
"""Fields that qaeval sets and records, or must not be sent; `extra_body` cannot set them."""

_COMPLETE: Final[Mapping[str, FinishReason]] = {"stop": "stop", "eos_token": "stop", "length": "length"}
_ABORTED: Final = frozenset({"abort", "error", None})
"""vLLM answers 200 with ``abort`` when it is stopped while it writes a reply."""
_MAX_RETRY_AFTER_S: Final = 60.0
_MAX_TOKEN: Final = 256
"""Characters of a token at most: the longest tokens of today's vocabularies, runs of spaces, have 128."""
_BODY_EXCERPT: Final = 200
_MESSAGE_EXCERPT: Final = 500

_OVERFLOW: Final = re.compile(
    r"maximum context length|context_length_exceeded|exceeds?\b.{0,60}\bcontext (?:length|size|window)"
    r"|longer than .{0,40}context length|`inputs` tokens \+ ",
    re.IGNORECASE | re.DOTALL,
)
_THINKING: Final = re.compile(r"\s*<think>.*?(?:</think>\s*|\Z)", re.DOTALL)
_TAIL_OF_THINKING: Final = re.compile(r"\s*[^\s{\[`<](?:(?!<think>).)*?</think>\s*", re.DOTALL)
"""A chat template that puts the opening tag into the prompt leaves a reply with the closing tag alone."""


class TransientError(Exception):
    """An attempt failed, and the next one may succeed.

    Attributes:
        reason: reason of the failure row when no attempt succeeds.
        detail: where, what was expected, what was received.
        kind: ``bad_reply`` (a reply came and cannot be used), ``no_reply`` (none came, or the server failed:
            it may be gone) or ``busy`` (the server asks for fewer requests).
        retry_after_s: how long the server asks to wait; 0 where it does not say.
    """

    def __init__(
        self,
        reason: FailureReason,
        detail: str,
        kind: Literal["bad_reply", "no_reply", "busy"] = "bad_reply",
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.kind = kind
        self.retry_after_s = retry_after_s


def encode(
    request: ChatRequest,
    *,
    model: str,
    structured: bool,
    merge_system: bool,
    max_top_logprobs: int,
    extra_body: Mapping[str, Any],
    prefix_items: bool = True,
) -> bytes:
    """Serialise a request; ``prefixItems`` of its schema is left out for a server that does not know it.

    Raises:
        ChatError: the messages have something that JSON cannot express, such as half a surrogate pair.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        **extra_body,
        "model": model,
        "messages": as_sent(request.messages, merge_system=merge_system),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }
    if structured and request.schema is not None:
        enforced = request.schema if prefix_items else _without_prefix_items(request.schema)
        schema = {"name": "reply", "schema": enforced, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if top := min(request.top_logprobs, max_top_logprobs):
        body |= {"logprobs": True, "top_logprobs": top}
    try:
        return orjson.dumps(body, default=dict)
    except TypeError as error:
        raise ChatError("rejected", f"{model}: the request cannot be written as JSON: {error}") from None


def _without_prefix_items(schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    if isinstance(schema, Mapping):
        return {key: _without_prefix_items(part) for key, part in schema.items() if key != "prefixItems"}
    return [_without_prefix_items(part) for part in schema] if isinstance(schema, list) else schema


def as_sent(messages: Iterable[Message], *, merge_system: bool) -> list[dict[str, str]]:
    """Return the turns in the form of the request."""
    turns = merge_system_turns(messages) if merge_system else messages
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def merge_system_turns(messages: Iterable[Message]) -> list[Message]:
    """Put the system messages at the head of the first user turn."""
    turns = list(messages)
    system = [turn.content for turn in turns if turn.role == "system"]
    dialogue = [turn for turn in turns if turn.role != "system"]
    if not system:
        return dialogue
    if dialogue and dialogue[0].role == "user":
        system.append(dialogue.pop(0).content)
    return [Message("user", "\n\n".join(system)), *dialogue]


def read_completion(
    content: bytes, *, latency_s: float, max_tokens: int, pattern: re.Pattern[str] | None = None
) -> Completion:
    """Read the body of a 200.

    A text that is longer than `max_tokens` tokens can be is cut, as one that reached them.

    Args:
        content: the body.
        latency_s: becomes part of the completion.
        max_tokens: the limit of the request; a reply that was cut earlier was cut by the context.
        pattern: finds the token whose alternatives are kept.

    Raises:
        TransientError: the server stopped the reply before its end.
        ChatError: the reply ended for an unknown reason, or the context was too small for it.
        LookupError, TypeError, ValueError, AttributeError: the body is not a chat completion.
    """
    reply = orjson.loads(content)
    choice = reply["choices"][0]
    finish_reason, usage = choice.get("finish_reason"), _usage(reply.get("usage"))
    if finish_reason in _ABORTED:
        raise TransientError(
            "interrupted", f"the server stopped the reply before its end (finish_reason {finish_reason!r})"
        )
    if finish_reason not in _COMPLETE:
        raise ChatError("rejected", f"expected finish_reason 'stop' or 'length', got {finish_reason!r}")
    if finish_reason == "length" and usage and usage.completion_tokens < max_tokens:
        detail = (
            f"prompt ({usage.prompt_tokens} tokens) and max_tokens ({max_tokens}) do not fit the model's "
            f"context: the server cut the reply after {usage.completion_tokens} tokens"
        )
        raise ChatError("context_overflow", detail)
    text, finish = _text(choice["message"]), _COMPLETE[finish_reason]
    if len(text) > (limit := max_tokens * _MAX_TOKEN):
        text, finish = text[:limit], "length"
    return Completion(
        without_thinking(text), finish, usage, latency_s, _alternatives(choice.get("logprobs"), pattern)
    )


def without_thinking(text: str) -> str:
    """Drop a ``<think>…</think>`` prefix, also one that was never closed or that begins in the prompt."""
    if "think>" not in text:
        return text
    thinking = _THINKING.match(text) or _TAIL_OF_THINKING.match(text)
    return text[thinking.end() :] if thinking else text


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise TypeError("content is not text")
    return content or ""


def _usage(usage: Mapping[str, Any] | None) -> Usage | None:
    if usage is None:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


def _alternatives(logprobs: Mapping[str, Any] | None, pattern: re.Pattern[str] | None) -> Alternatives | None:
    """Return the alternatives at the match alone: those of all tokens are a hundred times as many."""
    tokens = (logprobs or {}).get("content") or ()
    if pattern is None or not tokens:
        return None
    texts = [token["token"] for token in tokens]
    matches = list(pattern.finditer("".join(texts)))
    if not matches:
        return None
    at = matches[-1].start(1)  # the last match: a reason may quote the field
    ends = list(accumulate(map(len, texts)))
    index = bisect_right(ends, at)
    return Alternatives(texts[index], at - (ends[index] - len(texts[index])), _top(tokens[index]))


def _top(token: Mapping[str, Any]) -> dict[str, float]:
    """Return log-probabilities by text; tokens with the same text and different ids are added up."""
    top: dict[str, float] = {}
    for alternative in token.get("top_logprobs") or ():
        text, logprob = alternative["token"], alternative["logprob"]
        if text in top:
            low, high = sorted((top[text], logprob))
            logprob = high + math.log1p(math.exp(low - high))
        top[text] = logprob
    top.setdefault(token["token"], token["logprob"])
    return top


def server_message(content: bytes, *, secret: str | None) -> str:
    """Quote a server's error message, or the beginning of a body without one; the secret is masked."""
    text, limit = content.decode(errors="replace"), _BODY_EXCERPT
    try:
        body = orjson.loads(content)
    except ValueError:
        body = None
    message = body.get("error", body.get("detail", body.get("message"))) if isinstance(body, dict) else None
    if isinstance(message, dict):
        message = message.get("message")
    if isinstance(message, str):
        text, limit = message, _MESSAGE_EXCERPT
    return repr(masked(text, secret)[:limit])


def masked(text: str, secret: str | None) -> str:
    """Replace the secret in a text by asterisks."""
    return text.replace(secret, "***") if secret else text


def is_overflow(content: bytes) -> bool:
    """Return whether a refusal is about a context that is too small."""
    return _OVERFLOW.search(content.decode(errors="replace")) is not None


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Read ``Retry-After``, up to a minute: seconds, or a date relative to the server's ``Date``."""
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_between(headers.get("Date", ""), value)
    return min(_MAX_RETRY_AFTER_S, seconds) if seconds > 0 else 0.0


def _seconds_between(start: str, end: str) -> float:
    try:
        return (parsedate_to_datetime(end) - parsedate_to_datetime(start)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def connection_problem(error: Exception) -> str:
    """Describe why no reply came, in plainer words than the library where there are some."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"no address for the host {error.host!r}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return f"no secure connection: {error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        return f"no connection ({reason})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "a connection that was closed without a reply"
    return f"{type(error).__name__}: {error}"
