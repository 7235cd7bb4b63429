"""Any OpenAI-compatible server as a ``ChatModel``: one session, bytes in, bytes out, bounded retries.

How many requests are in flight is the stage loop's business; there is no limit here. What may pass (connection,
timeout, 408, 429, 5xx, a body that is not a reply, ``abort``) is asked again; everything else is final.
"""

import asyncio
import io
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Self

import aiohttp
import orjson
from yarl import URL

from qaeval.chat.pinned import Pinned
from qaeval.chat.protocol import ChatError, ChatRequest, Completion
from qaeval.chat.wire import (
    FIXED_FIELDS,
    MayPassError,
    as_sent,
    connection_problem,
    encode,
    is_overflow,
    masked,
    read_completion,
    retry_after_s,
    server_says,
)
from qaeval.errors import EndpointError, UsageError

_KEEPALIVE_S: Final = 4.0
"""Shorter than uvicorn's 5 s: a connection is never reused at the moment when the server closes it."""

_CONNECT_S: Final = 10.0
_BACKOFF_S: Final = 0.5
_BACKOFF_MAX_S: Final = 30.0
_SHOWN: Final = 200
_LARGE: Final = 2**20
"""aiohttp warns about larger bodies that are handed over as plain bytes."""

_TEMPLATE_TOKENS: Final = 256
"""More than the chat templates of today's models put around the messages."""

_OK: Final = 200
_NOT_FOUND: Final = 404
_KEY_REFUSED: Final = frozenset({401, 403})
_REDIRECT: Final = range(300, 400)
_PASSING: Final = frozenset({408, 429, *range(500, 600)})


class HttpChat:
    """A model behind an OpenAI-compatible ``/chat/completions``, for instance vLLM's.

    Use it as an async context manager; all requests share its session.

    Args:
        base_url: up to and with ``/v1``.
        model: the name under which the server serves the model.
        api_key: sent as bearer token; never part of a message or of ``repr``.
        structured: ``json_schema`` has the server enforce a request's schema, ``off`` sends none.
        system_role: ``merge`` puts the system message at the head of the first user turn.
        timeout_s: for one attempt, from sending to the last byte.
        max_attempts: how often a request is sent at most.
        max_top_logprobs: the server's limit; requests that ask for more alternatives get this many.
        context: the server's context length in tokens, where it counts tokens itself; a request that does not fit
            with its whole answer is then not sent.
        addresses: the only ones that are connected to; empty: what the name resolves to.
        extra_body: further fields of the request, e.g. ``chat_template_kwargs``.
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
        timeout_s: float = 300.0,
        max_attempts: int = 5,
        max_top_logprobs: int = 20,
        context: int | None = None,
        addresses: Sequence[str] = (),
        extra_body: Mapping[str, Any] = MappingProxyType({}),
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        if fixed := sorted(FIXED_FIELDS & set(extra_body)):
            raise UsageError(
                f"{model}: extra fields may not set {fixed}; qaeval sets and records them itself"
            )
        self._url = _completions_url(base_url)
        self._api_key = _checked_key(api_key)
        self._model = model
        self._structured = structured == "json_schema"
        self._merge_system = system_role == "merge"
        self._timeout_s = timeout_s
        self._max_attempts = max(1, max_attempts)
        self._max_top_logprobs = max_top_logprobs
        self._context = context
        self._addresses = tuple(addresses)
        self._extra_body = dict(extra_body)
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, protects nothing
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"HttpChat(url={str(self._url)!r}, model={self._model!r})"

    async def __aenter__(self) -> Self:
        headers = {"Content-Type": "application/json", "User-Agent": "qaeval"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=_KEEPALIVE_S,
                resolver=Pinned(self._addresses) if self._addresses else None,
            ),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask once, retries included.

        Raises:
            ChatError: when there is no reply.
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
        for attempt in range(1, self._max_attempts + 1):
            try:
                return await self._attempt(body, request.sampling.max_tokens)
            except MayPassError as failure:
                last = failure
            if attempt < self._max_attempts:
                await self._sleep(self._delay_s(attempt, last.retry_after_s))
        raise ChatError(last.reason, f"{last.detail} (attempts: {self._max_attempts})")

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
        url = self._url.with_path(f"{self._url.path.removesuffix('/v1/chat/completions')}/tokenize")
        try:
            status, _, content = await self._post(orjson.dumps(body), url)
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

    async def _attempt(self, body: bytes, max_tokens: int) -> Completion:
        started = perf_counter()
        status, headers, content = await self._post(body)
        if status != _OK:
            raise self._refusal(status, headers, content)
        try:
            return read_completion(content, latency_s=perf_counter() - started, max_tokens=max_tokens)
        except MayPassError as error:
            raise MayPassError(error.reason, f"{self._url}: {error.detail}") from None
        except ChatError as error:
            raise ChatError(error.reason, f"{self._url}: {error.detail}") from None
        except (LookupError, TypeError, ValueError, AttributeError):
            came = repr(masked(content.decode(errors="replace"), self._api_key)[:_SHOWN])
        detail = f"{self._url}: expected a chat completion, got {came}; is this an OpenAI-compatible server?"
        raise MayPassError("endpoint", detail)

    async def _post(self, body: bytes, url: URL | None = None) -> tuple[int, Mapping[str, str], bytes]:
        if self._session is None:
            raise RuntimeError("HttpChat is used outside `async with`")
        data = body if len(body) < _LARGE else io.BytesIO(body)
        try:
            async with self._session.post(url or self._url, data=data, allow_redirects=False) as response:
                return response.status, response.headers, await response.read()
        except TimeoutError as error:
            came = str(error) or f"nothing within {self._timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            came = masked(connection_problem(error), self._api_key)[:_SHOWN]
        # Outside `except`, so that aiohttp's exception, which holds the request's headers, is not its context.
        raise MayPassError(
            "endpoint", f"{self._url}: expected a reply, got {came}; is the server up and not overloaded?"
        )

    def _refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> Exception:
        said = server_says(content, secret=self._api_key)
        came = f"{self._url}: expected HTTP 200, got {status}"
        if status in _REDIRECT:
            target = _origin(headers.get("Location", ""))
            return ChatError(
                "rejected", f"{came}, a redirect to {target}, which is not followed; give the final URL"
            )
        if status in _PASSING:
            return MayPassError("endpoint", f"{came} {said}; see the server's log", retry_after_s(headers))
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


def _completions_url(base_url: str) -> URL:
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        came = "one with a user or password" if "@" in base_url else repr(base_url.partition("?")[0])
        raise EndpointError(f"expected a server's URL such as http://127.0.0.1:8000/v1, got {came}")
    if url.user or url.password or url.query_string:
        raise EndpointError(f"{_origin(base_url)}: a URL takes no user, password or query; use `api_key_env`")
    return url.with_path(f"{url.path.rstrip('/')}/chat/completions")


def _checked_key(api_key: str | None) -> str | None:
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(
            "the API key holds characters that no HTTP header may hold; check its environment variable"
        )
    return key or None


def _origin(url: str) -> str:
    """Return scheme, host and port alone: the rest may hold secrets."""
    try:
        parsed = URL(url)
        return repr(str(parsed.origin())) if parsed.absolute else "another path"
    except ValueError:
        return "an unreadable URL"
