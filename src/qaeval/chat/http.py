"""Any OpenAI-compatible server as a ``ChatModel``, or several that serve the same model: bytes in, bytes out, bounded retries.

How many requests are in flight is the stage loop's business; there is no limit here. What may pass (connection,
timeout, 408, 429, 5xx, a body that is not a reply, ``abort``) is asked again; everything else is final. A request goes to
the server with the fewest in flight. A server that does not answer is left alone until it does (`Circuit`), and requests wait
for it: an outage costs no attempts. A server that asks for patience (429, 503) is obeyed, and the loop is told.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Self

import orjson

from qaeval.chat.circuit import Circuit
from qaeval.chat.patience import Patience
from qaeval.chat.protocol import ChatError, ChatRequest, Completion
from qaeval.chat.transport import Transport, origin
from qaeval.chat.wire import (
    FIXED_FIELDS,
    MayPassError,
    as_sent,
    encode,
    is_overflow,
    masked,
    read_completion,
    retry_after_s,
    server_says,
)
from qaeval.errors import UsageError

_MOST_ATTEMPTS: Final = 8
"""A server that fails every fourth request fails one request of 65,000 so often, and one that always does costs half a minute."""
_BACKOFF_S: Final = 0.5
_BACKOFF_MAX_S: Final = 30.0
_SHOWN: Final = 200

_TEMPLATE_TOKENS: Final = 256
"""More than the chat templates of today's models put around the messages."""

_OK: Final = 200
_NOT_FOUND: Final = 404
_KEY_REFUSED: Final = frozenset({401, 403})
_REDIRECT: Final = range(300, 400)
_BUSY: Final = frozenset({429, 503})
_PASSING: Final = frozenset({408, *_BUSY, *range(500, 600)})
_MOST_OUTAGES: Final = 3
"""A request that meets this many outages may be what causes them."""
_MOST_BUSY: Final = 30
"""So often a request does as a busy server asks, beside its attempts."""


class HttpChat:
    """A model behind an OpenAI-compatible ``/chat/completions``, for instance vLLM's.

    Use it as an async context manager; all requests share its session.

    Args:
        base_url: up to and with ``/v1``.
        model: the name under which the server serves the model.
        api_key: sent as bearer token; never part of a message or of ``repr``.
        structured: ``json_schema`` has the server enforce a request's schema, ``off`` sends none.
        system_role: ``merge`` puts the system message at the head of the first user turn.
        replicas: further servers of the same model: base URL and addresses of each.
        timeout_s: for one attempt, from sending to the last byte; None: what `Patience` says.
        max_attempts: how often a request is sent at most, outages and a busy server's wishes not counted.
        outage_s: longest wait for a server that is gone.
        max_top_logprobs: the server's limit; requests that ask for more alternatives get this many.
        context: the server's context length in tokens, where it counts tokens itself; a request that does not fit
            with its whole answer is then not sent.
        addresses: the only ones that are connected to; empty: what the name resolves to.
        extra_body: further fields of the request, e.g. ``chat_template_kwargs``.
        on_message: called when a server is gone, and when it is back.
        on_busy: called when a server asks for fewer requests.
        sleep: waits between attempts.
        rng: draws the waits.

    Raises:
        EndpointError: the URL is not one of a server.
        UsageError: ``extra_body`` sets a field that qaeval sets, or the key cannot be a header.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str | None = None,
        structured: Literal["json_schema", "off"] = "json_schema",
        system_role: Literal["keep", "merge"] = "keep",
        replicas: Sequence[tuple[str, Sequence[str]]] = (),
        timeout_s: float | None = None,
        max_attempts: int = _MOST_ATTEMPTS,
        outage_s: float = 120.0,
        max_top_logprobs: int = 20,
        context: int | None = None,
        addresses: Sequence[str] = (),
        extra_body: Mapping[str, Any] = MappingProxyType({}),
        on_message: Callable[[str], None] = lambda _text: None,
        on_busy: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        if fixed := sorted(FIXED_FIELDS & set(extra_body)):
            raise UsageError(
                f"{model}: extra fields may not set {fixed}; qaeval sets and records them itself"
            )
        self._servers = [Transport(url, of_it) for url, of_it in ((base_url, addresses), *replicas)]
        self._api_key = _checked_key(api_key)
        self._model = model
        self._structured = structured == "json_schema"
        self._merge_system = system_role == "merge"
        self._timeout_s = timeout_s
        self._patience = Patience()
        self._max_attempts = max(1, max_attempts)
        self._max_top_logprobs = max_top_logprobs
        self._context = context
        self._outage_s = outage_s
        self._on_message = on_message
        self._on_busy = on_busy
        self._extra_body = dict(extra_body)
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, protects nothing
        self._is_open = False

    def __repr__(self) -> str:
        return f"HttpChat(urls={[str(server.url) for server in self._servers]!r}, model={self._model!r})"

    async def __aenter__(self) -> Self:
        for server in self._servers:
            server.open(self._api_key)
            server.circuit = Circuit(
                f"{self._model} at {server.url.origin()}",
                server.is_healthy,
                outage_s=self._outage_s,
                on_message=self._on_message,
                sleep=self._sleep,
            )
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        for server in self._servers:
            await server.close()

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask once, retries included.

        Raises:
            ChatError: when there is no reply.
            EndpointError: when no server came back from an outage.
        """
        body = encode(
            request,
            model=self._model,
            structured=self._structured,
            merge_system=self._merge_system,
            max_top_logprobs=self._max_top_logprobs,
            extra_body=self._extra_body,
        )
        await self._require_fit(request)
        attempts = busy = outages = 0
        while True:
            server = await self._least_busy()
            try:
                return await self._attempt(server, body, request)
            except MayPassError as failure:
                last = failure
            if last.what == "lost" and outages < _MOST_OUTAGES and not await server.circuit.answers():
                outages += 1  # the server's fault, not the request's: wait for it, and ask again
                continue
            if last.what == "busy":
                self._on_busy()
            if last.what == "busy" and last.retry_after_s and busy < _MOST_BUSY:
                busy += 1
                await self._sleep(last.retry_after_s * self._rng.uniform(1.0, 1.5))
                continue
            attempts += 1
            if attempts >= self._max_attempts:
                raise ChatError(last.reason, f"{last.detail} (attempts: {self._max_attempts})")
            await self._sleep(self._delay_s(attempts, last.retry_after_s))

    async def _least_busy(self) -> Transport:
        """Pick the server with the fewest requests in flight; where all are gone, wait for the first."""
        if not self._is_open:
            raise RuntimeError("HttpChat is used outside `async with`")
        while True:
            up = [server for server in self._servers if not server.circuit.is_open]
            if up:
                return min(up, key=lambda server: (server.in_flight, server.n_sent))
            waits = [asyncio.ensure_future(server.circuit.wait()) for server in self._servers]
            try:
                done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if len(done) == len(waits):
                for wait in done:
                    wait.result()

    async def _require_fit(self, request: ChatRequest) -> None:
        """Have the server count the prompt, where it may be too long to leave room for the whole answer.

        vLLM would shorten the answer without a word. A token is at least one byte, so most prompts need no counting.

        Raises:
            ChatError: it does not fit.
        """
        if self._context is None:
            return
        room = self._context - request.sampling.max_tokens
        if sum(len(turn.content.encode()) for turn in request.messages) + _TEMPLATE_TOKENS <= room:
            return
        body = {
            **{key: value for key, value in self._extra_body.items() if key == "chat_template_kwargs"},
            "model": self._model,
            "messages": as_sent(request.messages, merge_system=self._merge_system),
        }
        server = await self._least_busy()
        try:
            wait_s = self._wait_s(request.sampling.max_tokens)
            status, _, content = await server.post(orjson.dumps(body), wait_s, server.beside("/tokenize"))
            count = orjson.loads(content)["count"] if status == _OK else None
        except (MayPassError, LookupError, TypeError, ValueError):
            return  # the request itself will tell what is wrong
        if isinstance(count, int) and count <= room:
            return
        if isinstance(count, int):
            found = f"the prompt has {count:,} tokens"
        elif is_overflow(content):
            found = "the prompt alone is longer"
        else:
            return
        raise ChatError(
            "context_overflow",
            f"{self._model} has {self._context:,} tokens in all, {request.sampling.max_tokens:,} of them for the answer: {found}. "
            f"It was not sent; start the server with a larger --max-model-len, or lower max_tokens",
        )

    def _delay_s(self, attempt: int, at_least_s: float) -> float:
        """Full jitter on an exponential back-off, on top of what the server asked for."""
        return at_least_s + self._rng.uniform(0.0, min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** (attempt - 1)))

    def _wait_s(self, max_tokens: int) -> float:
        return self._timeout_s or self._patience.seconds(max_tokens)

    async def _in_time(
        self, server: Transport, body: bytes, max_tokens: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a body and wait for the reply as long as patience says, which may change meanwhile."""
        limit = asyncio.timeout(self._wait_s(max_tokens))
        began = perf_counter()
        try:
            async with limit:
                if self._timeout_s is None:
                    self._patience.begin(limit, max_tokens)
                return await server.post(body)
        except TimeoutError:
            waited = perf_counter() - began
        finally:
            self._patience.end(limit)
        raise server.lost(f"nothing within {waited:.3g} s")

    async def _attempt(self, server: Transport, body: bytes, request: ChatRequest) -> Completion:
        started, max_tokens = perf_counter(), request.sampling.max_tokens
        status, headers, content = await self._in_time(server, body, max_tokens)
        if status != _OK:
            raise self._refusal(server, status, headers, content)
        latency_s = perf_counter() - started
        try:
            completion = read_completion(
                content, latency_s=latency_s, max_tokens=max_tokens, place=request.alternatives_at
            )
        except MayPassError as error:
            raise MayPassError(error.reason, f"{server.url}: {error.detail}") from None
        except ChatError as error:
            raise ChatError(error.reason, f"{server.url}: {error.detail}") from None
        except (LookupError, TypeError, ValueError, AttributeError):
            came = repr(masked(content[: 4 * _SHOWN].decode(errors="replace"), self._api_key)[:_SHOWN])
        else:
            self._patience.learn(latency_s)
            return completion
        detail = f"{server.url}: expected a chat completion, got {came}; is this an OpenAI-compatible server?"
        raise MayPassError("endpoint", detail)

    def _refusal(
        self, server: Transport, status: int, headers: Mapping[str, str], content: bytes
    ) -> Exception:
        said = server_says(content, secret=self._api_key)
        came = f"{server.url}: expected HTTP 200, got {status}"
        if status in _REDIRECT:
            target = origin(headers.get("Location", ""))
            return ChatError(
                "rejected", f"{came}, a redirect to {target}, which is not followed; give the final URL"
            )
        if status in _PASSING:
            detail = f"{came} {said}; see the server's log"
            return MayPassError(
                "endpoint", detail, "busy" if status in _BUSY else "lost", retry_after_s(headers)
            )
        if is_overflow(content):
            return ChatError("context_overflow", f"{came} {said}")
        return ChatError("rejected", f"{came} {said}; {self._advice(status, content)}")

    def _advice(self, status: int, content: bytes) -> str:
        if status in _KEY_REFUSED and self._api_key:
            return (
                "the server does not accept the key; check the environment variable that `api_key_env` names"
            )
        if status in _KEY_REFUSED:
            return (
                "the server wants a key: name the environment variable that holds it as `api_key_env` of this model in "
                "qaeval.yaml, and set it"
            )
        if status == _NOT_FOUND and b"model" in content:
            return f"model {self._model!r} was asked for; set `served_name` to a name that the server serves"
        if status == _NOT_FOUND:
            return "the server has no such route: must the URL end with /v1?"
        return "the same request would be refused again"


def _checked_key(api_key: str | None) -> str | None:
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(
            "the API key holds characters that no HTTP header may hold; check its environment variable"
        )
    return key or None
