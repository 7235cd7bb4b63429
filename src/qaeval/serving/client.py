"""A client of a server's information routes that raises nothing: every outcome is an answer."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson

from qaeval.chat.resolver import PinnedResolver
from qaeval.chat.wire import connection_problem, decompressed

_EXCERPT: Final = 200
_MAX_BYTES: Final = 2**25
"""Ten times the metrics of a server with many engines; a larger answer is not read."""
_REFUSED: Final = frozenset({400, 422})


class HttpAnswer:
    """The outcome of a request.

    Attributes:
        status: HTTP status; 0 when no answer came.
        content: the bytes, with the API key masked.
        body: the content, where it is JSON; else None.
    """

    def __init__(self, status: int, content: bytes = b"", problem: str = "") -> None:
        self.status = status
        self.content = content
        self._problem = problem
        try:
            self.body = orjson.loads(content)
        except ValueError:
            self.body = None

    @property
    def refused(self) -> bool:
        """Whether the server understood the request and refused it."""
        return self.status in _REFUSED

    @property
    def summary(self) -> str:
        """The outcome in one line."""
        return self._problem or f"HTTP {self.status} {self.content.decode(errors='replace')[:_EXCERPT]!r}"


class Server:
    """One OpenAI-compatible server; an async context manager.

    Args:
        base_url: up to and with ``/v1``.
        api_key: sent as bearer token, masked in answers.
        timeout_s: for one request.
        addresses: the only addresses to connect to: those that the guard checked.
    """

    def __init__(
        self, base_url: str, api_key: str | None, timeout_s: float, *, addresses: Sequence[str]
    ) -> None:
        self.base = base_url.rstrip("/")
        self.root = self.base.removesuffix("/v1")
        self._api_key = (api_key or "").strip()
        self._addresses = tuple(addresses)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=PinnedResolver(self._addresses)),
            # no compression: a small answer cannot unpack into a large one
            headers={
                "Accept-Encoding": "identity",
                **({"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}),
            },
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(
        self, path: str, body: Mapping[str, Any] | None = None, *, root: bool = False
    ) -> HttpAnswer:
        """Send GET, or POST with a body. A redirect is an answer and is not followed.

        Args:
            path: with its leading slash.
            body: sent as JSON.
            root: the path is one of vLLM's own routes, which are not under ``/v1``.
        """
        url = f"{self.root if root else self.base}{path}"
        data = None if body is None else orjson.dumps(body, default=dict)
        headers = {} if body is None else {"Content-Type": "application/json"}
        method = "GET" if body is None else "POST"
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False
            ) as reply:
                content = bytearray()
                async for piece in reply.content.iter_any():
                    content += piece
                    if len(content) > _MAX_BYTES:
                        return HttpAnswer(0, problem=f"an answer of more than {_MAX_BYTES // 2**20} MiB")
                encoding = reply.headers.get("Content-Encoding", "")
                plain = decompressed(bytes(content), encoding, _MAX_BYTES)
                return HttpAnswer(reply.status, self._masked(plain))
        except TimeoutError:
            return HttpAnswer(0, problem=f"no answer within {self._timeout.total:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return HttpAnswer(0, problem=connection_problem(error, url)[:_EXCERPT])

    def _masked(self, content: bytes) -> bytes:
        return content.replace(self._api_key.encode(), b"***") if self._api_key else content
