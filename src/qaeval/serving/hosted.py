"""A model behind a hosted API, by the `openai` SDK: it sends, waits as the API asks, and tries again.

Needs the extra ``hosted``. Nothing is sent without consent for the host (`run.consent`), and to no address but those that the guard
checked.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import orjson

from qaeval.chat.protocol import ChatError, ChatRequest, Completion
from qaeval.chat.wire import (
    TransientError,
    checked_key,
    encode,
    is_overflow,
    is_unfinished,
    masked,
    read_answer,
    server_message,
)
from qaeval.errors import UsageError, install_command
from qaeval.serving.client import HttpAnswer

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

_MAX_RETRIES: Final = 8
_TIMEOUT_S: Final = 600.0
_CONNECT_S: Final = 10.0
_EXCERPT: Final = 200
_OK: Final = 200
_KEY_REFUSED: Final = frozenset({401, 403})


class HostedServer:
    """One hosted API; an async context manager.

    Args:
        base_url: Up to and with ``/v1``.
        api_key: Sent as bearer token, masked in answers.
        addresses: The only addresses to connect to: those that the guard checked. IPv4 is tried first.
        max_retries: Further attempts of a request, after the wait for which the API asks (``Retry-After``).

    Raises:
        UsageError: The SDK is not installed, or the key cannot be part of a header.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        *,
        addresses: Sequence[str],
        max_retries: int = _MAX_RETRIES,
    ) -> None:
        self.base = base_url.rstrip("/")
        self._api_key = checked_key(api_key) or ""
        self._client = _client(self.base, self._api_key, addresses, max_retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.close()

    async def ask(self, path: str, body: Mapping[str, Any] | None = None) -> HttpAnswer:
        """Send GET, or POST with a body; every outcome is an answer."""
        import httpx2  # noqa: PLC0415 - of the extra alone
        from openai import APIConnectionError, APIStatusError  # noqa: PLC0415

        try:
            if body is None:
                response = await self._client.get(path, cast_to=httpx2.Response)
            else:
                response = await self._client.post(path, cast_to=httpx2.Response, body=dict(body))
        except APIStatusError as error:
            return HttpAnswer(error.status_code, self._masked(error.response.content))
        except APIConnectionError as error:
            cause = str(error.__cause__ or "") or error  # the SDK's own words are "Connection error."
            return HttpAnswer(0, problem=masked(f"no connection: {cause}", self._api_key or None)[:_EXCERPT])
        return HttpAnswer(response.status_code, self._masked(response.content))

    def _masked(self, content: bytes) -> bytes:
        return content.replace(self._api_key.encode(), b"***") if self._api_key else content


def _client(base_url: str, api_key: str, addresses: Sequence[str], max_retries: int) -> "AsyncOpenAI":
    try:
        import httpx2  # noqa: PLC0415 - of the extra alone
        from openai import AsyncOpenAI  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            f"a model of `kind: hosted` needs the openai SDK: {install_command('hosted')}"
        ) from error
    # its lines at level INFO would name every request
    for name in ("openai", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # IPv4 first: many machines have no route for IPv6
    allowed = [str(ip) for ip in sorted(map(ip_address, addresses), key=lambda ip: ip.version)]

    class Pinned(httpx2.AsyncHTTPTransport):
        """Connects to a checked address; the host stays in the header and in the check of the certificate.

        An address that cannot be reached is the last one from then on.
        """

        async def handle_async_request(self, request: "httpx2.Request") -> "httpx2.Response":
            host = request.url.host
            if host != httpx2.URL(base_url).host:
                raise httpx2.ConnectError(f"{host} is not the host that was checked", request=request)
            request.extensions = {**request.extensions, "sni_hostname": host}
            *others, last = allowed
            for address in others:
                request.url = request.url.copy_with(host=address)
                try:
                    return await super().handle_async_request(request)
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    allowed.remove(address)
                    allowed.append(address)
            request.url = request.url.copy_with(host=last)
            return await super().handle_async_request(request)

    return AsyncOpenAI(
        base_url=base_url,
        api_key=api_key or "none",
        organization="",
        project="",
        max_retries=max_retries,
        timeout=httpx2.Timeout(_TIMEOUT_S, connect=_CONNECT_S),
        http_client=httpx2.AsyncClient(transport=Pinned(), trust_env=False, follow_redirects=False),
    )


class HostedChat:
    """A model behind a hosted API as a ``ChatModel``; an async context manager.

    Args:
        server: The API.
        model: The name of the model.
        api_key: Masked in replies.
        structured: Whether a schema is sent.
        system_role: ``merge`` puts the system message at the head of the first user turn.
        max_top_logprobs: The API's limit of alternatives; 0 asks for none.
        fields: Name under which the API takes a sampling field; empty for one that it refuses.
        reply_names: Further names of models that may answer. A dated version of the model (``NAME-2026-01-01``) may too.
        extra_body: Further fields of every request.
    """

    def __init__(
        self,
        server: HostedServer,
        *,
        model: str,
        api_key: str | None = None,
        structured: Literal["json_schema", "off"] = "json_schema",
        system_role: Literal["keep", "merge"] = "keep",
        max_top_logprobs: int = 0,
        fields: Mapping[str, str] = MappingProxyType({}),
        reply_names: Collection[str] = (),
        extra_body: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._server = server
        self._model = model
        self._api_key = api_key
        self._structured = structured == "json_schema"
        self._merge_system = system_role == "merge"
        self._max_top_logprobs = max_top_logprobs
        self._fields = dict(fields)
        self._reply_names = frozenset(reply_names)
        self._extra_body = dict(extra_body)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, traceback)

    async def complete(self, request: ChatRequest) -> Completion:
        """Ask once, retries included.

        Raises:
            ChatError: there is no reply, or the model refuses to answer.
        """
        body = encode(
            request,
            model=self._model,
            structured=self._structured,
            merge_system=self._merge_system,
            max_top_logprobs=self._max_top_logprobs,
            prefix_items=False,
            fields=self._fields,
            extra_body=self._extra_body,
        )
        started = perf_counter()
        answer = await self._server.ask("/chat/completions", orjson.loads(body))
        where = f"{self._server.base}/chat/completions"
        if answer.status != _OK:
            raise _refusal(where, answer)
        try:
            return read_answer(
                answer.content,
                where=where,
                asked=self._model,
                names=self._reply_names,
                is_dated_allowed=True,
                latency_s=perf_counter() - started,
                max_tokens=request.sampling.max_tokens,
                pattern=request.alternatives_at,
                probability_of=request.probability_of,
                secret=self._api_key,
            )
        except TransientError as error:  # the SDK has tried again
            raise ChatError(error.reason, error.detail) from None


def _refusal(where: str, answer: HttpAnswer) -> ChatError:
    if answer.status == 0:
        return ChatError("endpoint", f"{where}: {answer.summary}")
    said = server_message(answer.content, secret=None)
    got = f"{where}: expected HTTP 200, got {answer.status} {said}"
    if is_overflow(answer.content):
        return ChatError("context_overflow", got)
    if is_unfinished(answer.content):
        return ChatError("truncated", f"{got}; set a larger `sampling: {{max_tokens: …}}`")
    if answer.status in _KEY_REFUSED:
        return ChatError("rejected", f"{got}; check the environment variable that `api_key_env` names")
    is_transient = answer.status in {408, 409, 429} or answer.status >= 500
    return ChatError("endpoint" if is_transient else "rejected", got)
