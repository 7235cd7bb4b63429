"""Who may use a local page: the holder of its one-time address, from the page itself, under a loopback name.

==================================  ==============================================================
threat                              prevention
==================================  ==============================================================
another user or program             one-time token, exchanged for a cookie of this process
a page of another origin            ``Origin`` and ``Sec-Fetch-Site`` of every request, SameSite=Strict
DNS rebinding                       allow-list of ``Host``
text of a model that is a script    a content policy that allows the page's own files only
a frame around the page             ``frame-ancestors 'none'``
a copy on disk or in a cache        ``no-store``
==================================  ==============================================================
"""

import re
import secrets
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qaeval.errors import UsageError

TOKEN: Final = "token"  # noqa: S105 - the name of the parameter
_HOST: Final = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\]):(\d{1,5})")
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # no-referrer would empty the Origin of forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_ENTERED: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>qaeval</title>'
    '<link rel="icon" href="data:,"><meta http-equiv="refresh" content="0; url=/"><p><a href="/">Continue</a></p></html>'
)


class Access:
    """The names under which a server may be called, its one-time token and the cookie of those who had it.

    Args:
        port: port of the server.
        allow_hosts: further values of ``Host``, like ``localhost:8000``: the near end of an ssh tunnel.
        on_message: receives the new address when an address is used twice.

    Raises:
        UsageError: a host is not a loopback name with a port.
    """

    def __init__(
        self,
        port: int,
        allow_hosts: Iterable[str] = (),
        *,
        on_message: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._on_message = on_message
        self._tunnels = tuple(map(_checked_host, allow_hosts))
        hosts = (f"127.0.0.1:{port}", f"localhost:{port}", *self._tunnels)
        self.hosts = frozenset(
            (*hosts, *(host.removesuffix(":80") for host in hosts))
        )  # a browser omits port 80
        # cookies are shared by all ports of a host: servers side by side need names of their own
        self.cookie = f"qaeval-{port}"
        self._address = f"127.0.0.1:{port}"
        self._session = secrets.token_urlsafe(32)
        self._token = secrets.token_urlsafe(32)
        self._used: set[str] = set()

    def urls(self) -> tuple[str, ...]:
        """Return the addresses to open: that of this machine, then those of the tunnels."""
        query = urlencode({TOKEN: self._token})
        return tuple(f"http://{host}/?{query}" for host in (self._address, *self._tunnels))

    def is_member(self, headers: Headers) -> bool:
        """Return whether a request has the cookie."""
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return morsel is not None and secrets.compare_digest(morsel.value.encode(), self._session.encode())

    def exchange(self, token: str) -> Response:
        """Return the response to an address with a token: the cookie, or a refusal."""
        if secrets.compare_digest(token.encode(), self._token.encode()):
            self._used.add(self._token)
            self._token = secrets.token_urlsafe(32)
            # The page moves on by itself: a browser that was sent here by another site would not show a
            # SameSite=Strict cookie after a redirect.
            response = HTMLResponse(_ENTERED)
            response.set_cookie(self.cookie, self._session, path="/", httponly=True, samesite="strict")
            return response
        if token in self._used:
            self._on_message("\n".join(("the address was opened a second time; a new one:", *self.urls())))
            return _refusal("This address was used before. The terminal shows a new one.")
        return _refusal("Wrong token. Open the address that the terminal shows.")


def _checked_host(host: str) -> str:
    match = _HOST.fullmatch(host.lower())
    if match is None or not 0 < int(match[1]) < 65536:
        raise UsageError(
            f"--allow-host {host}: expected localhost:PORT or 127.0.0.1:PORT, the near end of an ssh tunnel"
        )
    return host.lower()


def _refusal(reason: str, status: int = 403) -> Response:
    return PlainTextResponse(f"qaeval: {reason}\n", status_code=status)


class Guard:
    """Middleware in front of every route: refuses what `Access` does not allow, and sets the headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return  # there are no web sockets, and uvicorn's lifespan is off

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        answer = self._answer(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """Return the answer to a request that does not reach a route; None for one that does."""
        headers, method = Headers(scope=scope), scope["method"]
        if headers.getlist("host") != [headers.get("host", "")] or headers["host"] not in self._access.hosts:
            return _refusal("Unknown Host. Behind an ssh tunnel, add --allow-host localhost:PORT.", 421)
        if reason := _foreign(headers, method):
            return _refusal(reason)
        token = parse_qs(scope["query_string"].decode("latin-1")).get(TOKEN)
        is_member = self._access.is_member(headers)
        if token and method == "GET":
            return RedirectResponse("/", 303) if is_member else self._access.exchange(token[0])
        return None if is_member else _refusal("No session. Open the address that the terminal shows.")


def _foreign(headers: Headers, method: str) -> str:
    """Return why a request comes from another page; empty for one of its own page or of the address bar."""
    site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
    is_read = method in {"GET", "HEAD"}
    if not is_read and headers.get("origin") != f"http://{headers['host']}":
        return "The request comes from another origin."
    allowed = {None, "same-origin", "none"} if is_read else {None, "same-origin"}
    # a link elsewhere may lead here: the page is opened, and the other site cannot read it
    if site not in allowed and not (is_read and mode == "navigate"):
        return "The request comes from another site."
    return ""
