"""Streamed, timed requests to one server. Nothing is retried: a sweep measures the failures too.

The clock starts before the request is sent. Time to first token ends with the first chunk that has a choice,
end-to-end time with the last one, as in ``vllm bench serve``. Tokens are those that the server counts in
``usage``: one chunk may hold several.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import orjson

from qaeval.chat.circuit_breaker import CircuitBreaker
from qaeval.chat.protocol import ChatError, ChatRequest
from qaeval.chat.timeouts import AdaptiveTimeout
from qaeval.chat.transport import Transport
from qaeval.chat.wire import (
    TransientError,
    content_text,
    encode,
    is_overflow,
    masked,
    read_usage,
    server_message,
    without_thinking,
)
from qaeval.errors import EndpointError
from qaeval.records import Usage

_OK: Final = 200
_BUSY: Final = frozenset({408, 429})
_SERVER_ERROR: Final = 500
_EXCERPT: Final = 200
_END_OF_EVENT: Final = re.compile(rb"\r?\n\r?\n")
_PARTIAL_END: Final = 3
"""Bytes of an event's end (``\\r\\n\\r\\n``) that may have come in an earlier piece."""
_DATA: Final = b"data:"
_DONE: Final = b"[DONE]"
_STREAMED: Final = MappingProxyType({"stream": True, "stream_options": {"include_usage": True}})


@dataclass(frozen=True, slots=True)
class Streamed:
    """A whole reply with the times of its chunks, in seconds.

    Attributes:
        text: the content, without thinking.
        finish_reason: ``stop``, ``length``, or another reason of the server.
        usage: tokens, as the server counted them.
        ttft_s: from sending to the first chunk.
        e2e_s: from sending to the last chunk.
        gaps_s: between two chunks.
    """

    text: str
    finish_reason: str
    usage: Usage
    ttft_s: float
    e2e_s: float
    gaps_s: tuple[float, ...]


class StreamingChat:
    """Streaming client of one OpenAI-compatible server; an async context manager.

    Args:
        base_url: up to and with ``/v1``.
        addresses: the only addresses to connect to: those that the guard checked.
        model: the name under which the server serves the model.
        api_key: sent as bearer token; never part of a message.
        structured: whether the server enforces a request's schema.
        merge_system: whether the system message goes to the head of the first user turn.
        max_top_logprobs: the server's limit.
        prefix_items: whether the server knows ``prefixItems`` of a schema.
        fields: name under which the server takes a sampling field; empty for one that it refuses.
        extra_body: further fields of every request.

    Raises:
        EndpointError: the URL is not the base URL of a server.
    """

    def __init__(
        self,
        *,
        base_url: str,
        addresses: Sequence[str],
        model: str,
        api_key: str | None = None,
        structured: bool = True,
        merge_system: bool = False,
        max_top_logprobs: int = 20,
        prefix_items: bool = True,
        fields: Mapping[str, str] = MappingProxyType({}),
        extra_body: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._server = Transport(base_url, addresses)
        self._api_key = api_key
        self._model = model
        self._structured = structured
        self._merge_system = merge_system
        self._max_top_logprobs = max_top_logprobs
        self._prefix_items = prefix_items
        self._fields = dict(fields)
        self._extra_body = dict(extra_body)
        self._timeout = AdaptiveTimeout()

    async def __aenter__(self) -> Self:
        self._server.open(self._api_key)
        self._server.breaker = CircuitBreaker(str(self._server.url), self._server.is_healthy, outage_s=0.0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.close()

    async def ask(
        self, request: ChatRequest, extra_fields: Mapping[str, Any] = MappingProxyType({})
    ) -> Streamed:
        """Ask once.

        Args:
            request: what is asked.
            extra_fields: further fields of this request alone.

        Raises:
            ChatError: no whole reply came.
            EndpointError: the server does not answer.
        """
        body = encode(
            request,
            model=self._model,
            structured=self._structured,
            merge_system=self._merge_system,
            max_top_logprobs=self._max_top_logprobs,
            prefix_items=self._prefix_items,
            fields=self._fields,
            extra_body={**self._extra_body, **extra_fields, **_STREAMED},
        )
        stream = _Stream()
        timeout_s = self._timeout.seconds(request.sampling.max_tokens)
        started = perf_counter()
        try:
            status, _, content = await self._server.post(body, timeout_s, on_chunk=stream.take)
        except TransientError as raised:
            error: TransientError | None = raised
        except (LookupError, TypeError, ValueError, AttributeError):
            error = None
        else:
            if status != _OK:
                raise self._refusal(status, content)
            return stream.reply(started, str(self._server.url), self._api_key)
        if error is None:
            raise ChatError("endpoint", stream.unexpected(str(self._server.url), self._api_key))
        if error.kind == "no_reply" and not await self._server.breaker.answers():
            raise EndpointError(f"{error.detail} (its /health does not answer either)")
        raise ChatError(error.reason, error.detail)

    def _refusal(self, status: int, content: bytes) -> ChatError:
        message = server_message(content, secret=self._api_key)
        detail = f"{self._server.url}: expected HTTP 200, got {status} {message}"
        if is_overflow(content):
            return ChatError("context_overflow", detail)
        return ChatError("endpoint" if status in _BUSY or status >= _SERVER_ERROR else "rejected", detail)


class _Stream:
    """Assembles a reply from the pieces of its events."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._head = b""
        self._texts: list[str] = []
        self._times: list[float] = []
        self._usage: Usage | None = None
        self._finish_reason: str | None = None
        self._error: bytes | None = None

    def take(self, piece: bytes) -> None:
        """Read a piece of the stream.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: it is not a stream of chat completion chunks.
        """
        at = perf_counter()
        self._head = self._head or piece[: 4 * _EXCERPT]
        start, done = max(0, len(self._rest) - _PARTIAL_END), 0
        self._rest += piece
        while end := _END_OF_EVENT.search(self._rest, start):
            self._read(bytes(self._rest[done : end.start()]), at)
            start = done = end.end()
        del self._rest[:done]

    def _read(self, event: bytes, at: float) -> None:
        lines = [line[len(_DATA) :].strip() for line in event.splitlines() if line.startswith(_DATA)]
        data = b"\n".join(lines)
        if not data or data == _DONE:
            return
        chunk = orjson.loads(data)
        if chunk.get("error"):
            self._error = data
        if usage := chunk.get("usage"):
            self._usage = read_usage(usage, [])
        if choices := chunk.get("choices"):
            self._times.append(at)
            self._texts.append(content_text(choices[0]["delta"].get("content")))
            self._finish_reason = _name(choices[0].get("finish_reason")) or self._finish_reason

    def reply(self, started: float, url: str, secret: str | None) -> Streamed:
        """Return the whole reply.

        Raises:
            ChatError: it is incomplete, or the server did not count its tokens.
        """
        if self._error is not None:
            raise ChatError(
                "endpoint", f"{url}: the stream ended with {server_message(self._error, secret=secret)}"
            )
        if not self._times:
            raise ChatError("endpoint", self.unexpected(url, secret))
        if self._finish_reason in {None, "abort", "error"}:
            detail = f"{url}: the stream stopped before its end (finish_reason {self._finish_reason!r})"
            raise ChatError("interrupted", detail)
        if self._usage is None:
            detail = (
                f"{url}: expected usage in the last chunk, got none; the server must support "
                f"stream_options.include_usage"
            )
            raise ChatError("endpoint", detail)
        return Streamed(
            text=without_thinking("".join(self._texts)),
            finish_reason=self._finish_reason or "",
            usage=self._usage,
            ttft_s=self._times[0] - started,
            e2e_s=self._times[-1] - started,
            gaps_s=tuple(later - earlier for earlier, later in pairwise(self._times)),
        )

    def unexpected(self, url: str, secret: str | None) -> str:
        """Return an error message about content that is not a stream."""
        got = repr(masked(self._head.decode(errors="replace"), secret)[:_EXCERPT])
        return (
            f"{url}: expected a stream of chat completion chunks, got {got}; is this an "
            f"OpenAI-compatible server?"
        )


def _name(value: object) -> str:
    if not isinstance(value, str | None):
        raise TypeError(f"expected a name, got {type(value).__name__}")
    return value or ""
