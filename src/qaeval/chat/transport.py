"""One server of a model: its HTTP session, its health, one POST."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import aiohttp
from yarl import URL

from qaeval.chat.circuit_breaker import CircuitBreaker
from qaeval.chat.resolver import PinnedResolver
from qaeval.chat.wire import TransientError, connection_problem, decompressed, masked
from qaeval.errors import EndpointError

_KEEPALIVE_S: Final = 4.0
"""Shorter than uvicorn's 5 s, so that no connection is reused at the moment when the server closes it."""

_CONNECT_S: Final = 10.0
_HEALTH_S: Final = 5.0
_EXCERPT: Final = 200
_LARGE_BODY: Final = 2**20
"""aiohttp warns about larger bodies that are passed as plain bytes."""
_MAX_BYTES: Final = 2**24
"""A larger reply is not a chat completion, and could fill the memory."""
_OK: Final = 200
_SERVER_ERROR: Final = 500


class Transport:
    """Sends bodies to one server.

    Args:
        base_url: Up to and with ``/v1``.
        addresses: The only addresses to connect to: those that the guard checked.

    Attributes:
        url: The chat completions route.
        in_flight: Requests without a reply yet.
        n_sent: All requests so far.
        breaker: Open while the server does not answer.

    Raises:
        EndpointError: the URL is not the base URL of a server.
    """

    breaker: CircuitBreaker

    def __init__(self, base_url: str, addresses: Sequence[str]) -> None:
        self.url = _completions_url(base_url)
        self.in_flight = self.n_sent = 0
        self._addresses = tuple(addresses)
        self._secret: str | None = None
        self._session: aiohttp.ClientSession

    def open(self, api_key: str | None) -> None:
        """Open the session that all requests share."""
        self._secret = api_key
        # no compression: a small reply cannot unpack into a large one
        headers = {"Content-Type": "application/json", "User-Agent": "qaeval", "Accept-Encoding": "identity"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=_KEEPALIVE_S,
                resolver=PinnedResolver(self._addresses),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """End the health checks, and close the session."""
        await self.breaker.close()
        await self._session.close()

    def root_url(self, path: str) -> URL:
        """Return the URL of one of vLLM's own routes, which are not under ``/v1``."""
        return self.url.with_path(f"{self.url.path.removesuffix('/v1/chat/completions')}{path}")

    async def is_healthy(self) -> bool:
        """Return whether ``/health`` answers without a server error."""
        try:
            async with self._session.get(
                self.root_url("/health"),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_HEALTH_S),
            ) as reply:
                return reply.status < _SERVER_ERROR
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def post(
        self,
        body: bytes,
        timeout_s: float | None = None,
        url: URL | None = None,
        *,
        on_chunk: Callable[[bytes], None] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a body.

        Args:
            body: JSON.
            timeout_s: From sending to the last byte; None: no limit.
            url: The route; default: chat completions.
            on_chunk: Called with the pieces of a reply with status 200 as they come; the returned content is
                then empty.

        Returns:
            Status, headers and content.

        Raises:
            TransientError: no reply came, or one that is too large.
        """
        data = body if len(body) < _LARGE_BODY else io.BytesIO(body)
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        self.in_flight += 1
        self.n_sent += 1
        try:
            async with self._session.post(
                url or self.url, data=data, allow_redirects=False, timeout=timeout
            ) as response:
                consumer = on_chunk if response.status == _OK else None
                content = await _content(response, consumer)
                encoding = response.headers.get("Content-Encoding", "")
                return response.status, response.headers, decompressed(content, encoding, _MAX_BYTES)
        except _TooLargeError:
            got = f"a reply of more than {_MAX_BYTES // 2**20} MiB"
            raise TransientError("endpoint", f"{self.url}: expected a chat completion, got {got}") from None
        except TimeoutError as error:
            got = str(error) or "nothing in time"
        except (aiohttp.ClientError, OSError) as error:
            got = masked(connection_problem(error, str(self.url)), self._secret)[:_EXCERPT]
        finally:
            self.in_flight -= 1
        # Outside `except`, so that aiohttp's exception, which holds the request's headers, is not its
        # context.
        raise self.no_reply(got)

    def no_reply(self, got: str) -> TransientError:
        """Return the error of a request without a reply."""
        detail = f"{self.url}: expected a reply, got {got}; is the server up and not overloaded?"
        return TransientError("endpoint", detail, "no_reply")


class _TooLargeError(Exception):
    """A reply is larger than any chat completion."""


async def _content(response: aiohttp.ClientResponse, on_chunk: Callable[[bytes], None] | None) -> bytes:
    """Read the whole reply, or pass its pieces on, up to the size that a chat completion can have."""
    if on_chunk is None and response.content_length is not None and response.content_length <= _MAX_BYTES:
        return await response.read()
    read, n = bytearray(), 0
    consume = read.extend if on_chunk is None else on_chunk
    async for piece in response.content.iter_any():
        n += len(piece)
        if n > _MAX_BYTES:
            raise _TooLargeError
        consume(piece)
    return bytes(read)


def _completions_url(base_url: str) -> URL:
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        got = "one with a user or password" if "@" in base_url else repr(base_url.partition("?")[0])
        raise EndpointError(f"expected a server's URL such as http://127.0.0.1:8000/v1, got {got}")
    if url.user or url.password or url.query_string:
        raise EndpointError(
            f"{origin(base_url)}: a URL cannot have a user, password or query; use `api_key_env`"
        )
    return url.with_path(f"{url.path.rstrip('/')}/chat/completions")


def origin(url: str) -> str:
    """Return scheme, host and port alone: the rest of a URL may hold secrets."""
    try:
        parsed = URL(url)
        return repr(str(parsed.origin())) if parsed.absolute else "another path"
    except ValueError:
        return "an unreadable URL"
