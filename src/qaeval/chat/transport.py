"""One server of a model: its session, its health, and how a body becomes a status and bytes."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import aiohttp
from yarl import URL

from qaeval.chat.circuit import Circuit
from qaeval.chat.pinned import Pinned
from qaeval.chat.wire import MayPassError, connection_problem, masked
from qaeval.errors import EndpointError

_KEEPALIVE_S: Final = 4.0
"""Shorter than uvicorn's 5 s: a connection is never reused at the moment when the server closes it."""

_CONNECT_S: Final = 10.0
_HEALTH_S: Final = 5.0
_SHOWN: Final = 200
_LARGE: Final = 2**20
"""aiohttp warns about larger bodies that are handed over as plain bytes."""
_MOST_BYTES: Final = 2**24
"""A larger reply is no chat completion."""
_OK: Final = 200
_ILL: Final = 500


class Transport:
    """Sends bodies to one server.

    Args:
        base_url: Up to and with ``/v1``.
        addresses: The only ones that are connected to; empty: what the name resolves to.

    Attributes:
        url: Of its chat completions.
        in_flight: Requests that wait for its reply.
        n_sent: All requests so far.
        circuit: Open while it is gone.

    Raises:
        EndpointError: the URL is not one of a server.
    """

    circuit: Circuit

    def __init__(self, base_url: str, addresses: Sequence[str]) -> None:
        self.url = _completions_url(base_url)
        self.in_flight = self.n_sent = 0
        self._addresses = tuple(addresses)
        self._secret: str | None = None
        self._session: aiohttp.ClientSession

    def open(self, api_key: str | None) -> None:
        """Make the session that all requests share."""
        self._secret = api_key
        # nothing compressed: a small reply cannot unpack into a large one
        headers = {"Content-Type": "application/json", "User-Agent": "qaeval", "Accept-Encoding": "identity"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=_KEEPALIVE_S,
                resolver=Pinned(self._addresses) if self._addresses else None,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Look no more after the server, and close the session."""
        await self.circuit.close()
        await self._session.close()

    def beside(self, path: str) -> URL:
        """Return the URL of one of vLLM's own routes, which stand beside ``/v1``."""
        return self.url.with_path(f"{self.url.path.removesuffix('/v1/chat/completions')}{path}")

    async def is_healthy(self) -> bool:
        """Look whether anything answers that does not call itself ill."""
        try:
            async with self._session.get(
                self.beside("/health"),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_HEALTH_S),
            ) as reply:
                return reply.status < _ILL
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def post(
        self,
        body: bytes,
        wait_s: float | None = None,
        url: URL | None = None,
        *,
        took: Callable[[bytes], None] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a body, to the chat completions where nothing else is said.

        Args:
            body: JSON.
            wait_s: From sending to the last byte.
            url: One of the server's other routes.
            took: Takes the pieces of a reply with status 200 as they come; the content that is returned is then empty.

        Raises:
            MayPassError: no reply came, or none that a server of this kind sends.
        """
        data = body if len(body) < _LARGE else io.BytesIO(body)
        timeout = aiohttp.ClientTimeout(total=wait_s, sock_connect=_CONNECT_S)
        self.in_flight += 1
        self.n_sent += 1
        try:
            async with self._session.post(
                url or self.url, data=data, allow_redirects=False, timeout=timeout
            ) as response:
                pieces = took if response.status == _OK else None
                return response.status, response.headers, await _content(response, pieces)
        except _TooLargeError:
            came = f"a reply of more than {_MOST_BYTES // 2**20} MiB"
            raise MayPassError("endpoint", f"{self.url}: expected a chat completion, got {came}") from None
        except TimeoutError as error:
            came = str(error) or "nothing in time"
        except (aiohttp.ClientError, OSError) as error:
            came = masked(connection_problem(error), self._secret)[:_SHOWN]
        finally:
            self.in_flight -= 1
        # Outside `except`, so that aiohttp's exception, which holds the request's headers, is not its context.
        raise self.lost(came)

    def lost(self, came: str) -> MayPassError:
        """Say that no reply came."""
        detail = f"{self.url}: expected a reply, got {came}; is the server up and not overloaded?"
        return MayPassError("endpoint", detail, "lost")


class _TooLargeError(Exception):
    """A reply that is larger than any chat completion."""


async def _content(response: aiohttp.ClientResponse, took: Callable[[bytes], None] | None) -> bytes:
    """Read the whole reply, or hand over its pieces, but never more than a chat completion can have."""
    if took is None and response.content_length is not None and response.content_length <= _MOST_BYTES:
        return await response.read()
    read, n = bytearray(), 0
    take = read.extend if took is None else took
    async for piece in response.content.iter_any():
        n += len(piece)
        if n > _MOST_BYTES:
            raise _TooLargeError
        take(piece)
    return bytes(read)


def _completions_url(base_url: str) -> URL:
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        came = "one with a user or password" if "@" in base_url else repr(base_url.partition("?")[0])
        raise EndpointError(f"expected a server's URL such as http://127.0.0.1:8000/v1, got {came}")
    if url.user or url.password or url.query_string:
        raise EndpointError(f"{origin(base_url)}: a URL takes no user, password or query; use `api_key_env`")
    return url.with_path(f"{url.path.rstrip('/')}/chat/completions")


def origin(url: str) -> str:
    """Return scheme, host and port alone: the rest may hold secrets."""
    try:
        parsed = URL(url)
        return repr(str(parsed.origin())) if parsed.absolute else "another path"
    except ValueError:
        return "an unreadable URL"
