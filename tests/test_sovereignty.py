"""Nothing leaves: a run opens no connection but to the endpoints that were checked, under the addresses that were checked."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from command import qaeval, sockets_of
from qaeval.chat.http import HttpChat
from qaeval.chat.protocol import ChatError, ChatRequest, Message, Sampling
from qaeval.chat.resolver import PinnedResolver, pinned_lookups, sockets_to
from qaeval.errors import EndpointError
from qaeval.history.mlflow import push
from qaeval.registry.config import ModelSpec
from qaeval.run.endpoint import connect, resolve
from qaeval.serving.probe import probe
from replay.server import LoopbackServer
from tracking_server import tracking_server

SECRET = "a-key-that-must-not-leave"  # noqa: S105 - of a test
HELLO = ChatRequest(messages=(Message("user", "Say hello."),), sampling=Sampling(max_tokens=8))


@pytest.mark.slow
def test_a_run_connects_to_its_endpoints_alone(tmp_path: Path) -> None:
    with LoopbackServer(["mistral", "qwen", "selene"]) as server:
        names = ("mistral", "qwen", "selene")
        endpoints = [word for name in names for word in ("--endpoint", f"{name}={server.url}")]
        arguments = ["compare", "mistral", "qwen", "--n", "4", "--out", str(tmp_path / "run"), *endpoints]
        connected, looked_up = sockets_of(*arguments, log=tmp_path / "seen.json")
    assert connected == {repr(("127.0.0.1", server.port))}
    assert looked_up <= {"'127.0.0.1'"}


async def test_a_name_is_connected_to_at_the_address_that_was_checked() -> None:
    with LoopbackServer(["one"]) as server:
        url = f"http://judge.invalid:{server.port}/v1"
        async with HttpChat(base_url=url, addresses=("127.0.0.1",), model="one") as model:
            assert (await model.complete(HELLO)).text
        facts = await probe(url, "one", addresses=("127.0.0.1",))
    assert facts.model_found


async def test_a_name_that_points_elsewhere_later_is_not_followed_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([["127.0.0.1"], ["203.0.113.7"]])
    monkeypatch.setattr("qaeval.chat.guard.resolve", lambda _host: next(answers))
    with LoopbackServer(["one"]) as server:
        spec = ModelSpec(name="one", url=f"http://judge.invalid:{server.port}/v1")
        endpoint = await resolve(spec, api_key=None, allow_external=())
        async with connect(endpoint, api_key=None) as model:
            assert (await model.complete(HELLO)).text
        assert endpoint.addresses == ("127.0.0.1",)
    with pytest.raises(EndpointError, match=r"203\.0\.113\.7, outside"):
        await resolve(spec, api_key=None, allow_external=())


async def test_a_redirect_is_not_followed() -> None:
    with LoopbackServer(["one"]) as elsewhere, LoopbackServer(["one"]) as server:
        server.answer(307, {}, {"Location": f"{elsewhere.url}/chat/completions"})
        async with HttpChat(
            base_url=server.url, addresses=("127.0.0.1",), model="one", max_attempts=1
        ) as model:
            with pytest.raises(ChatError, match="redirect"):
                await model.complete(HELLO)
        assert elsewhere.requests == []


async def test_both_families_are_pinned() -> None:
    pinned = PinnedResolver(("10.0.0.1", "fd00::1"))
    results = await pinned.resolve("x", 80, 0)  # type: ignore[arg-type]
    assert [result["host"] for result in results] == ["10.0.0.1", "fd00::1"]
    with pytest.raises(OSError, match="no address"):
        await PinnedResolver(("10.0.0.1",)).resolve("x", 80, asyncio.base_events.socket.AF_INET6)  # type: ignore[attr-defined]


def test_a_socket_is_made_for_the_checked_address_and_port_alone() -> None:
    make = sockets_to(("127.0.0.1", "::1"), 9000)
    stream, any_protocol = socket.SOCK_STREAM, 0
    make((socket.AF_INET, stream, any_protocol, "", ("127.0.0.1", 9000))).close()
    make((socket.AF_INET6, stream, any_protocol, "", ("0:0:0:0:0:0:0:1", 9000, 0, 0))).close()
    for family, address in (
        (socket.AF_INET, ("127.0.0.2", 9000)),
        (socket.AF_INET, ("127.0.0.1", 9001)),
        (socket.AF_INET6, ("::2", 9000, 0, 0)),
    ):
        with pytest.raises(ConnectionRefusedError, match=str(address[1])):
            make((family, stream, any_protocol, "", address))


# ------------------------------------------------------------------------------ what cannot fit is not sent


@pytest.mark.parametrize("n_words", [220, 400])  # with the answer, alone
async def test_a_prompt_that_cannot_fit_is_counted_and_not_sent(n_words: int) -> None:
    long = ChatRequest(messages=(Message("user", "memory " * n_words),), sampling=Sampling(max_tokens=100))
    with LoopbackServer({"one": 300}) as server:
        async with HttpChat(base_url=server.url, addresses=("127.0.0.1",), model="one", context=300) as model:
            with pytest.raises(ChatError, match="300 tokens, 100 ") as caught:
                await model.complete(long)
        assert caught.value.reason == "context_overflow"
        assert server.requests == []


async def test_a_prompt_that_fits_is_sent_after_counting() -> None:
    fits = ChatRequest(messages=(Message("user", "memory " * 40),), sampling=Sampling(max_tokens=100))
    with LoopbackServer({"one": 300}) as server:
        async with HttpChat(base_url=server.url, addresses=("127.0.0.1",), model="one", context=300) as model:
            assert (await model.complete(fits)).text
        assert len(server.requests) == 1


async def test_where_the_server_does_not_count_the_request_is_sent() -> None:
    long = ChatRequest(messages=(Message("user", "memory " * 200),), sampling=Sampling(max_tokens=100))
    with LoopbackServer({"one": 8000}) as server:
        server.fail("no_tokenizer")
        async with HttpChat(base_url=server.url, addresses=("127.0.0.1",), model="one", context=300) as model:
            assert (await model.complete(long)).text


class RebindingName:
    """A name whose first lookup answers with the loopback interface, and every further one with an address outside."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lookups = 0
        self._look_up = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: Any, *arguments: Any, **options: Any) -> list[Any]:
        if host != "model.internal":
            return self._look_up(host, *arguments, **options)
        self.lookups += 1
        return self._look_up("127.0.0.1" if self.lookups == 1 else "203.0.113.1", *arguments, **options)


def test_doctor_looks_a_host_up_once_and_connects_to_the_checked_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = RebindingName(monkeypatch)
    with LoopbackServer(["mistral"], api_key=SECRET) as server:
        url = server.url.replace("127.0.0.1", "model.internal")
        (tmp_path / "qaeval.yaml").write_text(
            f"models: {{mistral: {{url: '{url}', api_key_env: MODEL_KEY}}}}\n"
        )
        monkeypatch.setenv("MODEL_KEY", SECRET)
        done = qaeval("doctor", "mistral", cwd=tmp_path)
    assert f"{url}: serves mistral" in done.stdout
    assert name.lookups == 1


@pytest.mark.filterwarnings("default")
@pytest.mark.slow
def test_a_client_without_a_resolver_is_pinned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    name = RebindingName(monkeypatch)
    with tracking_server() as server:
        url = server.url.replace("127.0.0.1", "model.internal")
        assert push(url, "nightly", []) == ()
    assert name.lookups == 1


def test_a_pinned_lookup_refuses_the_address_of_a_redirect() -> None:
    look_up = socket.getaddrinfo
    with pinned_lookups(["127.0.0.1"]):
        assert {entry[4][0] for entry in socket.getaddrinfo("any.name", 80)} == {"127.0.0.1"}
        assert socket.getaddrinfo("127.0.0.1", 80)
        with pytest.raises(ConnectionRefusedError):
            socket.getaddrinfo("203.0.113.1", 80)
    assert socket.getaddrinfo is look_up


def test_a_client_without_checked_addresses_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="addresses"):
        PinnedResolver(())
