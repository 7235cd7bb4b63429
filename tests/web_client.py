"""A local page on a real socket, and a client that sends exactly the given headers."""

import http.client
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.routing import BaseRoute

from qaeval.web.server import PageServer


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str


class Client:
    """A browser without a browser: ``enter`` exchanges the token, ``send`` shows the cookie."""

    def __init__(self, server: PageServer) -> None:
        self.server = server
        self.origin = f"http://127.0.0.1:{server.port}"
        self.cookie = ""

    def enter(self) -> "Client":
        answer = self.send("GET", self.server.access.urls()[0])
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return self

    def send(self, method: str, url: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send a request; ``sec_fetch_site="none"`` is a header, and an empty value leaves a header out."""
        parts = urlsplit(url)
        default = {"host": f"127.0.0.1:{self.server.port}", "cookie": self.cookie}
        default |= {"origin": self.origin} if method == "POST" else {}
        default |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        connection.putrequest(method, parts.path + (f"?{parts.query}" if parts.query else ""), skip_host=True)
        for name, value in default.items():
            if value:
                connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read().decode())
        connection.close()
        return answer


@contextmanager
def running(server: PageServer) -> Iterator[Client]:
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Client(server)
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def serving(
    routes: Sequence[BaseRoute], allow_hosts: Sequence[str] = ()
) -> Iterator[tuple[Client, list[str]]]:
    """Serve routes; the list receives the messages of the terminal."""
    messages: list[str] = []
    with running(PageServer(routes, allow_hosts=allow_hosts, on_message=messages.append)) as client:
        yield client, messages
