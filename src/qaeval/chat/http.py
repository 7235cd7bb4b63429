"""An OpenAI-compatible server, or several that serve the same model, as a ``ChatModel`` with bounded retries.

The stage loop limits how many requests are in flight; there is no limit here. Transient errors (connection,
timeout, 408, 429, 5xx, a body that is not a reply, ``abort``) are retried; all others are final. A request
goes to the server with the fewest in flight. Requests wait for a server that stopped answering
(`CircuitBreaker`): an outage costs no attempts. A server that asks for fewer requests (429, 503) gets fewer,
through ``on_busy``.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Self

import orjson

from qaeval.chat.circuit_breaker import CircuitBreaker
from qaeval.chat.protocol import ChatError, ChatRequest, Completion
from qaeval.chat.timeouts import AdaptiveTimeout
from qaeval.chat.transport import Transport, origin
from qaeval.chat.wire import (
    FIXED_FIELDS,
    TransientError,
    as_sent,
    checked_key,
    encode,
    is_overflow,
    is_unfinished,
    masked,
    read_answer,
    retry_after_s,
    server_message,
)
from qaeval.errors import UsageError

_MAX_ATTEMPTS: Final = 8
"""A server that fails a quarter of all requests fails one in 65,000 this often; one that fails all costs half
a minute each."""
_BACKOFF_S: Final = 0.5
"""Upper end of the first wait; it doubles with every attempt."""
_MAX_BACKOFF_S: Final = 30.0
_LEAST_SECRET: Final = 12
"""Characters of the shortest key that is masked in replies."""

_MAX_TOKENIZING: Final = 8
"""Pieces that a server is asked about at the same time."""
_MAX_KNOWN_PIECES: Final = 100_000
_TOKENIZE_S: Final = 10.0
_NEIGHBOURS: Final = "{0}{0} <{0}> [{0}] a{0}a"
"""An added token is found between any neighbours; an ordinary piece of the vocabulary is not."""

_TEMPLATE_TOKENS: Final = 256
"""More tokens than the chat templates of today's models put around the messages."""
_BYTES_PER_TOKEN: Final = 2.0
"""Fewer than prose has in most scripts; used until a reply tells more."""
_NEAR: Final = 0.9
"""Share of the room from which on an estimate of the prompt is not trusted."""

_OK: Final = 200
_NOT_FOUND: Final = 404
_KEY_REFUSED: Final = frozenset({401, 403})
_REDIRECT: Final = range(300, 400)
_BUSY: Final = frozenset({429, 503})
_TRANSIENT: Final = frozenset({408, *_BUSY, *range(500, 600)})
_MAX_OUTAGES: Final = 3
"""A request that meets more outages may be their cause, for instance a prompt that crashes the server."""
_MAX_BUSY_WAITS: Final = 30
"""So often a request waits as a busy server asks (``Retry-After``); these waits cost no attempts."""


class HttpChat:
    """A model behind an OpenAI-compatible ``/chat/completions``, for instance vLLM's.

    Use it as an async context manager; all requests share its session.

    Args:
        base_url: up to and with ``/v1``.
        addresses: the only ones that are connected to: those that the guard checked.
        model: the name under which the server serves the model.
        api_key: sent as bearer token; never part of a message or of ``repr``.
        structured: ``json_schema`` has the server enforce a request's schema, ``off`` sends none.
        system_role: ``merge`` puts the system message at the head of the first user turn.
        replicas: further servers of the same model: base URL and addresses of each.
        timeout_s: for one attempt, from sending to the last byte; None: an `AdaptiveTimeout`.
        max_attempts: attempts for one request, without those that an outage or a busy server ended.
        outage_s: longest wait for a server that stopped answering, in seconds.
        max_top_logprobs: the server's limit; requests that ask for more alternatives get this many.
        prefix_items: whether the server knows ``prefixItems`` of a schema.
        fields: name under which the server takes a sampling field; empty for one that it refuses.
        reply_names: further names of models that may answer.
        context: the server's context length in tokens, where it has a tokenizer route; a request that does
            not fit with its whole answer is then not sent.
        tokenizer: whether the server has a tokenizer route, which is asked for special tokens.
        extra_body: further fields of the request, e.g. ``chat_template_kwargs``.
        on_message: called when a server stopped answering, and when it answers again.
        on_busy: called when a server asks for fewer requests.
        sleep: waits between attempts.
        rng: draws the waits.

    Raises:
        EndpointError: a URL is not the base URL of a server.
        UsageError: ``extra_body`` sets a field that qaeval sets, or the key cannot be part of a header.
    """

    def __init__(
        self,
        *,
        base_url: str,
        addresses: Sequence[str],
        model: str,
        api_key: str | None = None,
        structured: Literal["json_schema", "off"] = "json_schema",
        system_role: Literal["keep", "merge"] = "keep",
        replicas: Sequence[tuple[str, Sequence[str]]] = (),
        timeout_s: float | None = None,
        max_attempts: int = _MAX_ATTEMPTS,
        outage_s: float = 120.0,
        max_top_logprobs: int = 20,
        prefix_items: bool = True,
        fields: Mapping[str, str] = MappingProxyType({}),
        reply_names: Collection[str] = (),
        context: int | None = None,
        tokenizer: bool = False,
        extra_body: Mapping[str, Any] = MappingProxyType({}),
        on_message: Callable[[str], None] = lambda _text: None,
        on_busy: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        if fixed := sorted(FIXED_FIELDS & set(extra_body)):
            raise UsageError(f"{model}: extra fields must not set {fixed}; qaeval sets and records these")
        self._servers = [Transport(*server) for server in ((base_url, addresses), *replicas)]
        self._api_key = checked_key(api_key)
        self._model = model
        self._structured = structured == "json_schema"
        self._merge_system = system_role == "merge"
        self._timeout_s = timeout_s
        self._adaptive_timeout = AdaptiveTimeout()
        self._max_attempts = max(1, max_attempts)
        self._max_top_logprobs = max_top_logprobs
        self._prefix_items = prefix_items
        self._fields = dict(fields)
        self._reply_names = frozenset(reply_names)
        self._context = context
        self._bytes_per_token: float | None = None  # learned from replies
        self._tokenizer = tokenizer
        self._special: dict[str, asyncio.Future[bool]] = {}
        self._tokenizing = asyncio.Semaphore(_MAX_TOKENIZING)
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
            server.breaker = CircuitBreaker(
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
        for answer in self._special.values():
            answer.cancel()
        for server in self._servers:
            await server.close()

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask once, retries included.

        Raises:
            ChatError: when there is no reply.
            EndpointError: when no server answers after an outage.
        """
        body = encode(
            request,
            model=self._model,
            structured=self._structured,
            merge_system=self._merge_system,
            max_top_logprobs=self._max_top_logprobs,
            prefix_items=self._prefix_items,
            fields=self._fields,
            extra_body=self._extra_body,
        )
        await self._require_fit(request)
        attempts = busy = outages = 0
        while True:
            server = await self._least_busy()
            try:
                return await self._attempt(server, body, request)
            except TransientError as raised:
                error = raised
            if error.kind == "no_reply" and outages < _MAX_OUTAGES and not await server.breaker.answers():
                outages += 1  # the server's fault, not the request's: wait for it, and ask again
                continue
            if error.kind == "busy":
                self._on_busy()
            if error.kind == "busy" and error.retry_after_s and busy < _MAX_BUSY_WAITS:
                busy += 1
                # up to half as long again, so that waiting requests do not come back at the same moment
                await self._sleep(error.retry_after_s * self._rng.uniform(1.0, 1.5))
                continue
            attempts += 1
            if attempts >= self._max_attempts:
                raise ChatError(error.reason, f"{error.detail} (attempts: {self._max_attempts})")
            await self._sleep(self._delay_s(attempts, error.retry_after_s))

    async def _least_busy(self) -> Transport:
        """Pick the server with the fewest requests in flight; if none answers, wait for the first."""
        if not self._is_open:
            raise RuntimeError("HttpChat is used outside `async with`")
        while True:
            up = [server for server in self._servers if not server.breaker.is_open]
            if up:
                return min(up, key=lambda server: (server.in_flight, server.n_sent))
            waits = [asyncio.ensure_future(server.breaker.wait()) for server in self._servers]
            try:
                done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if len(done) == len(waits):
                for wait in done:
                    wait.result()

    async def _require_fit(self, request: ChatRequest) -> None:
        """Have the server count the prompt, where it may leave no room for the whole answer.

        vLLM would lower ``max_tokens`` without an error; a reply that this cuts is refused too, after its tokens were
        generated. Most prompts need no counting: what a token has at least is learned from the usage of replies.

        Raises:
            ChatError: prompt and answer do not fit the context.
        """
        if self._context is None:
            return
        room = self._context - request.sampling.max_tokens
        n_tokens = _n_bytes(request) / (self._bytes_per_token or _BYTES_PER_TOKEN) + _TEMPLATE_TOKENS
        if n_tokens <= _NEAR * room:
            return
        body = {
            **{key: value for key, value in self._extra_body.items() if key == "chat_template_kwargs"},
            "model": self._model,
            "messages": as_sent(request.messages, merge_system=self._merge_system),
        }
        server = await self._least_busy()
        try:
            timeout_s = self._timeout_for(request.sampling.max_tokens)
            status, _, content = await server.post(
                orjson.dumps(body), timeout_s, server.root_url("/tokenize")
            )
            count = orjson.loads(content)["count"] if status == _OK else None
        except (TransientError, LookupError, TypeError, ValueError):
            return  # the request itself will report the error
        if isinstance(count, int) and count <= room:
            return
        if isinstance(count, int):
            size = f"the prompt has {count:,} tokens"
        elif is_overflow(content):
            size = "the prompt alone is longer"
        else:
            return
        raise ChatError(
            "context_overflow",
            f"{self._model} has a context of {self._context:,} tokens, {request.sampling.max_tokens:,} of "
            f"them for the answer; {size}. The request was not sent; start the server with a larger "
            f"--max-model-len, or lower max_tokens",
        )

    async def special_pieces(self, pieces: Collection[str]) -> frozenset[str]:
        """Return the pieces that the server's tokenizer turns into one special id; each distinct piece is asked about once.

        A piece about which the server gives no answer counts as special.

        Args:
            pieces: texts such as ``<name>`` or ``[name]``.

        Raises:
            EndpointError: when no server answers after an outage.
        """
        if not self._tokenizer:
            return frozenset()
        if len(self._special) > _MAX_KNOWN_PIECES:
            self._special.clear()
        for piece in pieces:
            if piece not in self._special:
                self._special[piece] = asyncio.ensure_future(self._is_special(piece))
        answers = {piece: self._special[piece] for piece in pieces}
        # shielded: the requests of other items may wait for the same answer
        await asyncio.gather(*(asyncio.shield(answer) for answer in answers.values() if not answer.done()))
        return frozenset(piece for piece, answer in answers.items() if answer.result())

    async def _is_special(self, piece: str) -> bool:
        """Tell an added token from an ordinary piece of the vocabulary, which merges with its neighbours."""
        try:
            async with self._tokenizing:
                alone = await self._tokenized(piece)
                if alone["count"] != 1:
                    return False
                around = await self._tokenized(_NEIGHBOURS.format(piece))
                return bool(around["tokens"].count(*alone["tokens"]) >= _NEIGHBOURS.count("{"))
        except (TransientError, LookupError, TypeError, ValueError, AttributeError):
            self._special.pop(piece, None)  # asked again
            return True
        except BaseException:
            self._special.pop(piece, None)
            raise

    async def _tokenized(self, text: str) -> Any:  # noqa: ANN401 - parsed JSON
        """Return the server's answer to a text, tokenized as the content of a message would be: ``count`` and ``tokens``.

        Raises:
            TransientError, LookupError, ValueError: there is none.
        """
        server = await self._least_busy()
        body = orjson.dumps({"model": self._model, "prompt": text, "add_special_tokens": False})
        status, _, content = await server.post(body, _TOKENIZE_S, server.root_url("/tokenize"))
        if status != _OK:
            raise LookupError(f"expected HTTP 200, got {status}")
        return orjson.loads(content)

    def _delay_s(self, attempt: int, at_least_s: float) -> float:
        """Return a wait: what the server asked for, and an exponential back-off with full jitter."""
        return at_least_s + self._rng.uniform(0.0, min(_MAX_BACKOFF_S, _BACKOFF_S * 2 ** (attempt - 1)))

    def _timeout_for(self, max_tokens: int) -> float:
        return self._timeout_s or self._adaptive_timeout.seconds(max_tokens)

    async def _post(
        self, server: Transport, body: bytes, max_tokens: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a body and wait for the reply; an adaptive timeout may be shortened meanwhile."""
        timeout = asyncio.timeout(self._timeout_for(max_tokens))
        sent = perf_counter()
        try:
            async with timeout:
                if self._timeout_s is None:
                    self._adaptive_timeout.begin(timeout, max_tokens)
                return await server.post(body)
        except TimeoutError:
            waited_s = perf_counter() - sent
        finally:
            self._adaptive_timeout.end(timeout)
        raise server.no_reply(f"nothing within {waited_s:.3g} s")

    async def _attempt(self, server: Transport, body: bytes, request: ChatRequest) -> Completion:
        started, max_tokens = perf_counter(), request.sampling.max_tokens
        status, headers, content = await self._post(server, body, max_tokens)
        if status != _OK:
            raise self._refusal(server, status, headers, content)
        latency_s = perf_counter() - started
        completion = read_answer(
            content,
            where=str(server.url),
            asked=self._model,
            names=self._reply_names,
            latency_s=latency_s,
            max_tokens=max_tokens,
            pattern=request.alternatives_at,
            probability_of=request.probability_of,
            secret=self._api_key,
        )
        self._adaptive_timeout.learn(latency_s)
        self._learn_size(request, completion)
        return self._without_key(completion)

    def _learn_size(self, request: ChatRequest, completion: Completion) -> None:
        """Keep the fewest bytes that a token of a prompt had, its template's tokens included."""
        if self._context is None or completion.usage is None or not completion.usage.prompt_tokens:
            return
        learned = _n_bytes(request) / completion.usage.prompt_tokens
        self._bytes_per_token = min(learned, self._bytes_per_token or math.inf)

    def _without_key(self, completion: Completion) -> Completion:
        """Mask the key in a reply that repeats it; short ones, as servers without keys take, may be words."""
        key = self._api_key
        if key is None or len(key) < _LEAST_SECRET or key not in completion.text:
            return completion
        return replace(completion, text=masked(completion.text, key))

    def _refusal(
        self, server: Transport, status: int, headers: Mapping[str, str], content: bytes
    ) -> Exception:
        message = server_message(content, secret=self._api_key)
        got = f"{server.url}: expected HTTP 200, got {status}"
        if status in _REDIRECT:
            target = origin(headers.get("Location", ""))
            return ChatError(
                "rejected", f"{got}, a redirect to {target}, which is not followed; give the final URL"
            )
        if status in _TRANSIENT:
            detail = f"{got} {message}; see the server's log"
            return TransientError(
                "endpoint", detail, "busy" if status in _BUSY else "no_reply", retry_after_s(headers)
            )
        if is_overflow(content):
            return ChatError("context_overflow", f"{got} {message}")
        if is_unfinished(content):
            return ChatError("truncated", f"{got} {message}; set a larger `sampling: {{max_tokens: …}}`")
        return ChatError("rejected", f"{got} {message}; {self._advice(status, content)}")

    def _advice(self, status: int, content: bytes) -> str:
        if status in _KEY_REFUSED and self._api_key:
            return "the server refused the API key; check the environment variable that `api_key_env` names"
        if status in _KEY_REFUSED:
            return (
                "the server needs an API key: set an environment variable, and name it as `api_key_env` of "
                "this model in qaeval.yaml"
            )
        if status == _NOT_FOUND and b"model" in content:
            return f"the server does not serve {self._model!r}; set `served_name` to one of its names"
        if status == _NOT_FOUND:
            return "the server has no such route; should the URL end with /v1?"
        return "a retry would be refused too"


def _n_bytes(request: ChatRequest) -> int:
    """Count the bytes of the messages."""
    texts = (turn.content for turn in request.messages)
    return sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
