"""The local server: who may read and write a page."""

import socket
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from qaeval.errors import UsageError
from qaeval.web.app import body_of
from qaeval.web.security import Access
from qaeval.web.server import PageServer
from web_client import Client, serving

WRITES: list[bytes] = []


async def write(request: Request) -> Response:
    WRITES.append(await body_of(request))
    return PlainTextResponse("written")


def crash(_: Request) -> Response:
    raise RuntimeError("secret")


ROUTES = [
    Route("/crash", crash),
    Route("/", lambda _: PlainTextResponse("secret")),
    Route("/write", write, methods=["POST"]),
]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Client, list[str]]]:
    with serving(ROUTES, allow_hosts=["localhost:8000"]) as (client, messages):
        yield client, messages


@pytest.fixture
def client(server: tuple[Client, list[str]]) -> Client:
    """A client that has entered."""
    WRITES.clear()
    return Client(server[0].server).enter()


def test_the_token_opens_the_page_once(server: tuple[Client, list[str]]) -> None:
    client, messages = server
    url = client.server.access.urls()[0]
    entered = client.send("GET", url)
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert client.send("GET", "/", cookie=cookie.partition(";")[0]).text == "secret"
    again = client.send("GET", url)
    assert (again.status, again.headers["set-cookie"]) == (403, None)
    assert client.server.access.urls()[0] in messages[-1]
    assert client.send("GET", client.server.access.urls()[0]).status == 200


def test_a_reload_of_the_address_by_its_holder_leads_to_the_page(client: Client) -> None:
    for token in ("used", client.server.access.urls()[0].partition("=")[2]):
        answer = client.send("GET", f"/?token={token}")
        assert (answer.status, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize("token", ["", "wrong", "%00%ff", "a&token=b", "x" * 4000])
def test_a_wrong_token_is_refused(server: tuple[Client, list[str]], token: str) -> None:
    answer = server[0].send("GET", f"/?token={token}")
    assert answer.status == 403
    assert "secret" not in answer.text
    assert answer.headers["set-cookie"] is None


@pytest.mark.parametrize(
    "cookie", ["", "qaeval=x", "=;;=", 'qaeval-{port}="', "qaeval-{port}=\xe9", "qaeval-{port}="]
)
@pytest.mark.parametrize("path", ["/", "/static/report.css", "/missing"])
def test_nothing_is_served_without_the_cookie(
    server: tuple[Client, list[str]], path: str, cookie: str
) -> None:
    client = server[0]
    answer = client.send("GET", path, cookie=cookie.format(port=client.server.port))
    assert answer.status == 403


def test_the_cookie_of_another_server_is_refused(client: Client) -> None:
    with serving(ROUTES) as (other, _):
        stolen = client.cookie.partition("=")[2]
        assert other.send("GET", "/", cookie=f"qaeval-{other.server.port}={stolen}").status == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "", "[::1]:{port}"],
)
def test_another_host_is_refused_even_with_the_cookie(client: Client, host: str) -> None:
    host = host.format(port=client.server.port)
    assert client.send("GET", "/", host=host).status in {
        400,
        421,
    }  # h11 refuses a request without Host itself
    assert client.send("POST", "/write", b"x", host=host, origin=f"http://{host}").status in {400, 421}
    assert WRITES == []


@pytest.mark.parametrize("host", ["localhost:{port}", "localhost:8000"])
def test_names_of_the_loopback_interface_and_of_tunnels_are_known(client: Client, host: str) -> None:
    host = host.format(port=client.server.port)
    assert client.send("GET", "/", host=host).text == "secret"
    assert client.send("POST", "/write", b"x", host=host, origin=f"http://{host}").text == "written"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost:{port}"},  # the page's own machine, but not the page
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
        {"sec_fetch_site": "none", "sec_fetch_mode": "navigate"},
    ],
)
def test_a_write_from_another_page_is_refused(client: Client, headers: dict[str, str]) -> None:
    headers = {name: value.format(port=client.server.port) for name, value in headers.items()}
    assert client.send("POST", "/write", b"x", **headers).status == 403
    assert WRITES == []
    assert client.send("POST", "/write", b"x", sec_fetch_site="same-origin").text == "written"


def test_another_page_cannot_read_but_link(client: Client) -> None:
    assert client.send("GET", "/", sec_fetch_site="same-site", sec_fetch_mode="no-cors").status == 403
    assert client.send("GET", "/", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200


@pytest.mark.parametrize("path", ["/", "/missing", "/?token=wrong", "/static/report.css", "/crash"])
@pytest.mark.parametrize("entered", [True, False])
def test_every_answer_has_the_headers(client: Client, path: str, entered: bool) -> None:
    answer = client.send("GET", path, cookie=client.cookie if entered else "")
    assert "Traceback" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["server"] is None


@pytest.mark.parametrize("name", ["..%2fapp.py", "%2e%2e/app.py", "../../app.py", "app.py", "", ".", "x.css"])
def test_files_outside_the_package_data_are_not_served(client: Client, name: str) -> None:
    assert client.send("GET", f"/static/{name}").status == 404


def test_a_large_body_is_refused(client: Client) -> None:
    assert client.send("POST", "/write", b"x" * 65_537).status == 413
    assert WRITES == []


def test_the_server_listens_on_loopback_alone(server: tuple[Client, list[str]]) -> None:
    assert server[0].server._socket.getsockname()[0] == "127.0.0.1"


def test_a_port_in_use_is_an_error_of_usage() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}.*in use"):
            PageServer(ROUTES, port=port)


@pytest.mark.parametrize(
    "host", ["localhost", "evil.example:80", "localhost:0", "localhost:99999", "localhost:80/x", "0.0.0.0:80"]
)
def test_only_loopback_names_can_be_allowed(host: str) -> None:
    with pytest.raises(UsageError, match="--allow-host"):
        PageServer(ROUTES, allow_hosts=[host])


def test_a_browser_omits_port_80() -> None:
    access = Access(8123, ["localhost:80"])
    assert {"localhost", "localhost:80", "localhost:8123"} <= access.hosts
    assert "127.0.0.1" not in access.hosts


def test_the_address_of_a_tunnel_is_printed(server: tuple[Client, list[str]]) -> None:
    _, messages = server
    assert "http://localhost:8000/?token=" in messages[0]
