"""The server of a local page: in the process of its command, on the loopback interface, until Ctrl-C."""

import errno
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import uvicorn
from starlette.routing import BaseRoute

from qaeval.errors import UsageError
from qaeval.web.app import local_app
from qaeval.web.security import Access

_LOOPBACK: Final = "127.0.0.1"
_TEXT_BROWSERS: Final = frozenset({"www-browser", "links", "elinks", "lynx", "w3m"})
"""Text browsers: they would take over the terminal that shows the address."""
_CLOSE_S: Final = 2
"""Longest wait for requests in progress at the end."""


class PageServer:
    """A server of local pages.

    Args:
        routes: routes of the pages; every one is behind `Guard`.
        port: port; None or 0: a free one.
        allow_hosts: further values of ``Host``, for an ssh tunnel.
        on_message: receives what the user should read in the terminal.

    Raises:
        UsageError: the port is in use or not allowed, or a host is not a loopback name.
    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        port: int | None = None,
        allow_hosts: Iterable[str] = (),
        on_message: Callable[[str], None] = print,
    ) -> None:
        self._on_message = on_message
        self._socket = _listen(port or 0)
        self.port: int = self._socket.getsockname()[1]
        try:
            self.access = Access(self.port, allow_hosts, on_message=on_message)
        except UsageError:
            self._socket.close()
            raise
        self._server = _Server(
            uvicorn.Config(
                local_app(routes, self.access),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_CLOSE_S,
            )
        )

    def run(self, *, open_browser: bool = False) -> None:
        """Print the addresses, open a browser if asked, and serve until Ctrl-C or `stop`."""
        self._server.on_started = partial(self._announce, open_browser=open_browser)
        try:
            self._server.run(sockets=[self._socket])
        except KeyboardInterrupt:
            pass  # the way to end it; uvicorn has closed the connections
        finally:
            self._socket.close()

    def _announce(self, *, open_browser: bool) -> None:
        urls = self.access.urls()
        # whoever names a tunnel sits at another machine
        if open_browser and len(urls) == 1 and _open(urls[0]):
            self._on_message(f"opened in the browser: {urls[0]}")
        else:
            self._on_message("\n".join(f"open {url}" for url in urls))
            if len(urls) == 1:
                self._on_message(
                    f"on another machine, first: ssh -L {self.port}:{_LOOPBACK}:{self.port} THIS-MACHINE"
                )
        self._on_message("Ctrl-C ends it")

    def stop(self) -> None:
        """End `run`, from another thread or a route."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """A server that says when it handles requests and signals: a Ctrl-C before that would end it with a traceback."""

    on_started: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.on_started()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_LOOPBACK, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise UsageError(
            f"--port {port}: the port {reason}; choose another one, or none for a free port"
        ) from None
    return listener


def _open(url: str) -> bool:
    """Open a graphical browser; False where there is none."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    if getattr(browser, "basename", getattr(browser, "name", "")) in _TEXT_BROWSERS:
        return False
    # some browsers return when their window is closed
    threading.Thread(target=browser.open, args=(url,), daemon=True).start()
    return True
