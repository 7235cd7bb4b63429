"""The OpenAI chat format: a request becomes bytes, bytes become a ``Completion``. Pure."""

import errno
import os
import re
import zlib
from collections.abc import Collection, Iterable, Mapping
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Final, Literal

import aiohttp
import orjson

from qaeval.chat.logprobs import NOT_READABLE, alternatives, joint_probability, load_reply
from qaeval.chat.protocol import Alternatives, ChatError, ChatRequest, Completion, FinishReason, Message
from qaeval.errors import UsageError
from qaeval.records import FailureReason, Usage

FIXED_FIELDS: Final = frozenset(
    "model messages temperature top_p max_tokens seed stream n response_format logprobs top_logprobs".split()  # noqa: SIM905 - a list of words
)
"""Fields that qaeval sets and records, or must not be sent; `extra_body` cannot set them."""

_COMPLETE: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "length": "length",
    "repetition": "repetition",
}
_ABORTED: Final = frozenset({"abort", "error", None})
"""vLLM answers 200 with ``abort`` when it is stopped while it writes a reply."""
_MAX_RETRY_AFTER_S: Final = 60.0
_MAX_TOKEN: Final = 256
"""Characters of a token at most: the longest tokens of today's vocabularies, runs of spaces, have 128."""
_MAX_COUNT: Final = 2**31
_BODY_EXCERPT: Final = 200
_MESSAGE_EXCERPT: Final = 500

_OVERFLOW: Final = re.compile(
    r"maximum context length|context_length_exceeded|context (?:length|size|window) exceeded|exceeds?\b.{0,60}\bcontext (?:length|size|window)"
    r"|longer than .{0,40}context length|`inputs` tokens \+ ",
    re.IGNORECASE | re.DOTALL,
)
_UNFINISHED: Final = re.compile(r"max_tokens or model output limit was reached", re.IGNORECASE)
"""OpenAI's words where thinking alone reached the limit: a refusal in place of a reply that was cut."""
_THINKING: Final = re.compile(r"\s*<(think|thinking)>.*?(?:</\1>\s*|\Z)", re.DOTALL)
_HARMONY: Final = re.compile(
    r"\s*(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)\b.*?(?:<\|channel\|>final\b[^<]*<\|message\|>|\Z)",
    re.DOTALL,
)
"""The channels before the final one, where a server without the model's parser leaves them in the text."""
_HARMONY_END: Final = re.compile(r"<\|(?:return|end)\|>\s*\Z")
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
    fields: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Serialise a request; ``prefixItems`` of its schema is left out for a server that does not know it.

    Args:
        request: what is asked.
        model: the served name.
        structured: whether the schema is sent.
        merge_system: whether system messages go into the first user turn.
        max_top_logprobs: the server's limit.
        extra_body: further fields.
        prefix_items: whether the server knows ``prefixItems``.
        fields: name under which the server takes a sampling field; empty for one that it refuses.

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
    rename_fields(body, fields)
    if structured and request.schema is not None:
        enforced = request.schema if prefix_items else without_prefix_items(request.schema)
        schema = {"name": "reply", "schema": enforced, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if top := min(request.top_logprobs, max_top_logprobs):
        body |= {"logprobs": True, "top_logprobs": top}
    elif request.probability_of is not None and max_top_logprobs:
        body["logprobs"] = True
    try:
        return orjson.dumps(body, default=dict)
    except TypeError as error:
        raise ChatError("rejected", f"{model}: the request cannot be written as JSON: {error}") from None


def rename_fields(body: dict[str, Any], fields: Mapping[str, str]) -> None:
    """Give fields of a request the names that the server takes; one with an empty name is left out."""
    for name, other in fields.items():
        value = body.pop(name, None)
        if other and value is not None:
            body[other] = value


def without_prefix_items(schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """Return a schema without ``prefixItems``, which the structured outputs of hosted services refuse."""
    if isinstance(schema, Mapping):
        return {key: without_prefix_items(part) for key, part in schema.items() if key != "prefixItems"}
    return [without_prefix_items(part) for part in schema] if isinstance(schema, list) else schema


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
    content: bytes,
    *,
    latency_s: float,
    max_tokens: int,
    pattern: re.Pattern[str] | None = None,
    probability_of: re.Pattern[str] | None = None,
    secret: str | None = None,
) -> Completion:
    """Read the body of a 200.

    A text that is longer than `max_tokens` tokens can be is cut, as one that reached them.

    Args:
        content: the body.
        latency_s: becomes part of the completion.
        max_tokens: the limit of the request; a reply that was cut earlier was cut by the context.
        pattern: finds the token whose alternatives are kept.
        probability_of: finds the parts whose probability is kept.
        secret: is masked where the server is quoted.

    Raises:
        TransientError: the server stopped the reply before its end.
        ChatError: the reply ended for an unknown reason, or the context was too small for it.
        LookupError, TypeError, ValueError, AttributeError: the body is not a chat completion.
    """
    reply, tokens = load_reply(content)
    if isinstance(reply, dict) and reply.get("error") and not reply.get("choices"):
        raise _refusal_in_200(reply["error"], content, secret)
    choice = reply["choices"][0]
    remarks: list[str] = []
    finish_reason, usage = choice.get("finish_reason"), read_usage(reply.get("usage"), remarks)
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
    message = choice["message"]
    text, finish = content_text(message.get("content")), _COMPLETE[finish_reason]
    if isinstance(refusal := message.get("refusal"), str) and refusal and not text:
        raise ChatError(
            "rejected", f"the model refuses to answer: {masked(refusal, secret)[:_MESSAGE_EXCERPT]!r}"
        )
    if len(text) > (limit := max_tokens * _MAX_TOKEN):
        text, finish = text[:limit], "length"
    return Completion(
        without_thinking(text),
        finish,
        usage,
        latency_s,
        _guarded_alternatives(choice.get("logprobs"), tokens, pattern, remarks),
        n_thinking=_n_thinking(message),
        remark="; ".join(remarks),
        model=name if isinstance(name := reply.get("model"), str) else "",
        probability=None
        if probability_of is None
        else _guarded_probability(choice.get("logprobs"), tokens, probability_of, remarks),
    )


def read_answer(
    content: bytes,
    *,
    where: str,
    asked: str,
    names: Collection[str],
    is_dated_allowed: bool = False,
    latency_s: float,
    max_tokens: int,
    pattern: re.Pattern[str] | None = None,
    probability_of: re.Pattern[str] | None = None,
    secret: str | None = None,
) -> Completion:
    """Read the body of a 200 by a model of the right name; errors say where it came from.

    Args:
        content: the body.
        where: the route.
        asked: name of the model in the request.
        names: further names of models that may answer.
        is_dated_allowed: as in `another_model`.
        latency_s: as in `read_completion`, like the arguments after it.
        max_tokens: the limit of the request.
        pattern: finds the token whose alternatives are kept.
        probability_of: finds the parts whose probability is kept.
        secret: is masked where the server is quoted.

    Raises:
        TransientError: the body is not a chat completion, or the server stopped the reply before its end.
        ChatError: as in `read_completion`, or another model answered.
    """
    try:
        completion = read_completion(
            content,
            latency_s=latency_s,
            max_tokens=max_tokens,
            pattern=pattern,
            probability_of=probability_of,
            secret=secret,
        )
    except TransientError as error:
        raise TransientError(error.reason, f"{where}: {error.detail}", error.kind) from None
    except ChatError as error:
        raise ChatError(error.reason, f"{where}: {error.detail}") from None
    except (LookupError, TypeError, ValueError, AttributeError):
        excerpt = repr(masked(content[: 4 * _BODY_EXCERPT].decode(errors="replace"), secret)[:_BODY_EXCERPT])
        detail = f"{where}: expected a chat completion, got {excerpt}; is this an OpenAI-compatible server?"
        raise TransientError("endpoint", detail) from None
    if problem := another_model(asked, completion.model, names, is_dated_allowed=is_dated_allowed):
        raise ChatError("rejected", f"{where}: {problem}")
    return completion


def another_model(
    asked: str, answered: str, names: Collection[str], *, is_dated_allowed: bool = False
) -> str:
    """Describe a reply by another model than asked, and what to do if that is intended; empty where the name fits or is missing.

    Args:
        asked: name of the model in the request.
        answered: name in the reply.
        names: further names of models that may answer.
        is_dated_allowed: whether a version of the model (``NAME-2026-01-01``) may answer too.
    """
    if answered in {"", asked, *names} or (is_dated_allowed and answered.startswith(f"{asked}-")):
        return ""
    return (
        f"asked for {asked!r}, {answered[:_BODY_EXCERPT]!r} answered; if that is the same model, list the name in `reply_names:` of "
        "its entry in qaeval.yaml"
    )


def _refusal_in_200(
    error: Any,  # noqa: ANN401 - any JSON value
    content: bytes,
    secret: str | None,
) -> TransientError | ChatError:
    """Classify the error object that a gateway sent with status 200, by its code and its words."""
    said = f"the server sent status 200 with an error: {server_message(content, secret=secret)}"
    if is_overflow(content):
        return ChatError("context_overflow", said)
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    status = int(code) if isinstance(code, int | str) and str(code).isdigit() else 0
    kind = str(error.get("type")) if isinstance(error, dict) else ""
    if status in {429, 503, 529} or "overloaded" in kind or "rate_limit" in kind:
        return TransientError("endpoint", said, "busy")
    if 400 <= status < 500 or "invalid_request" in kind:
        return ChatError("rejected", said)
    return TransientError("endpoint", said)


def without_thinking(text: str) -> str:
    """Drop thinking at the beginning: ``<think>…</think>``, ``<thinking>``, harmony's channels before the final one.

    It may never have been closed, or begin in the prompt.
    """
    if "<|channel|>" in text and (channels := _HARMONY.match(text)):
        return _HARMONY_END.sub("", text[channels.end() :])
    if "think" not in text:
        return text
    thinking = _THINKING.match(text) or _TAIL_OF_THINKING.match(text)
    return text[thinking.end() :] if thinking else text


def _n_thinking(message: Mapping[str, Any]) -> int:
    """Count the characters of thinking that a server's parser took out of the text, or gave as parts beside it."""
    fields = (message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))
    apart = next((len(field) for field in fields if isinstance(field, str) and field), 0)
    content = message.get("content")
    return apart or (sum(map(_n_thinking_of_part, content)) if isinstance(content, list) else 0)


def _n_thinking_of_part(part: object) -> int:
    match part:
        case {"type": "thinking", "thinking": str(text)}:
            return len(text)
        case {"type": "thinking", "thinking": list(texts)} | {"type": "reasoning", "summary": list(texts)}:
            nested = (text.get("text") for text in texts if isinstance(text, dict))
            return sum(len(text) for text in nested if isinstance(text, str))
    return 0


def content_text(content: object) -> str:
    """Return the text of a message's content: a string, or a list of parts, of which thinking is left out.

    Raises:
        TypeError: it is neither.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError("content is not text")
    return "".join(map(_text_of_part, content))


def _text_of_part(part: object) -> str:
    match part:
        case {"type": "text" | "output_text", "text": str(text)}:
            return text
        case {"type": "thinking" | "reasoning"}:
            return ""
    raise TypeError("content is not text")


_PROMPT_TOKENS: Final = ("prompt_tokens", "input_tokens")
_COMPLETION_TOKENS: Final = ("completion_tokens", "output_tokens")


def read_usage(usage: Any, remarks: list[str]) -> Usage | None:  # noqa: ANN401 - any JSON value
    """Read the counts of tokens; None, with a remark, where they are none."""
    if usage is None:
        return None
    counts = usage if isinstance(usage, dict) else {}
    prompt, completion = (
        next((counts[name] for name in names if _is_count(counts.get(name))), None)
        for names in (_PROMPT_TOKENS, _COMPLETION_TOKENS)
    )
    if prompt is None or completion is None:
        remarks.append("usage without counts of tokens")
        return None
    total = counts.get("total_tokens")
    if isinstance(total, int) and _is_count(total):  # some count reasoning in the total alone
        completion = max(completion, total - prompt)
    details = counts.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(cached, prompt) if isinstance(cached, int) and _is_count(cached) else 0,
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_COUNT


def _guarded_alternatives(
    logprobs: Any,  # noqa: ANN401 - any JSON value
    tokens: bytes,
    pattern: re.Pattern[str] | None,
    remarks: list[str],
) -> Alternatives | None:
    """Return the alternatives; None, with a remark, where they are not in the form of the API: the text counts all the same."""
    try:
        return alternatives(logprobs, tokens, pattern)
    except NOT_READABLE:
        remarks.append("log-probabilities in another form")
        return None


def _guarded_probability(
    logprobs: Any,  # noqa: ANN401 - any JSON value
    tokens: bytes,
    pattern: re.Pattern[str] | None,
    remarks: list[str],
) -> float | None:
    """Return the probability of parts of the reply; None, with a remark, as for alternatives."""
    try:
        return joint_probability(logprobs, tokens, pattern)
    except NOT_READABLE:
        remarks.append("log-probabilities in another form")
        return None


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


def checked_key(api_key: str | None) -> str | None:
    """Return an API key without spaces around it; None for an empty one.

    Raises:
        UsageError: it cannot be part of a header.
    """
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(
            "the API key has characters that an HTTP header cannot have; check its environment variable"
        )
    return key or None


def masked(text: str, secret: str | None) -> str:
    """Replace the secret in a text by asterisks."""
    return text.replace(secret, "***") if secret else text


def is_overflow(content: bytes) -> bool:
    """Return whether a refusal is about a context that is too small."""
    return _OVERFLOW.search(content.decode(errors="replace")) is not None


def is_unfinished(content: bytes) -> bool:
    """Return whether a refusal is about a limit of tokens that the model reached before its reply began."""
    return _UNFINISHED.search(content.decode(errors="replace")) is not None


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


def decompressed(content: bytes, encoding: str, limit: int) -> bytes:
    """Unpack a body that a server compressed without being asked to, up to a size.

    Args:
        content: the body.
        encoding: of the header ``Content-Encoding``; any but gzip and deflate leaves the body as it is.
        limit: bytes at most; a longer result is cut, and no JSON any more.
    """
    if encoding.strip().lower() not in {"gzip", "x-gzip", "deflate"}:
        return content
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(content, limit)
    except zlib.error:
        return content


def connection_problem(error: Exception, url: str = "") -> str:
    """Describe why no reply came, in plainer words than the library where there are some."""
    closed = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientResponseError) or (
        isinstance(error, OSError) and error.errno in {errno.ECONNRESET, errno.EPIPE}
    )
    if closed and url.startswith("http:"):
        return f"{_connection_problem(error)}; if the server expects TLS, the URL begins with https://"
    return _connection_problem(error)


def _connection_problem(error: Exception) -> str:
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
