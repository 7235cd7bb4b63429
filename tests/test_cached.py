"""The cache reuses replies to identical requests, and only to those."""

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from command import qaeval
from qaeval.chat.cached import FILE, Cache, Cached, read_reply, write_reply
from qaeval.chat.protocol import Alternatives, ChatRequest, Completion, Message, Sampling
from qaeval.records import Usage
from qaeval.registry.model import Lora, ModelSpec
from qaeval.run.weights import Weights, known_weights, why_asked
from qaeval.serving.probe import EndpointFacts, ServedModel
from replay.server import LoopbackServer

REQUEST = ChatRequest(
    (Message("user", "How much?"),), {"type": "object"}, Sampling(max_tokens=5), top_logprobs=3
)
REPLY = Completion(
    "A lot.",
    "stop",
    Usage(prompt_tokens=3, completion_tokens=2),
    1.5,
    Alternatives("A", 0, {"A": -0.1, "B": -2.5}),
)


class CountingModel:
    def __init__(self, reply: Completion = REPLY) -> None:
        self.requests: list[ChatRequest] = []
        self.reply = reply

    async def complete(self, request: ChatRequest) -> Completion:
        self.requests.append(request)
        return self.reply


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache") as cache:
        yield cache


async def test_a_second_run_reuses_the_reply_without_a_request(tmp_path: Path) -> None:
    for n_asked in (1, 0):
        model = CountingModel()
        with Cache(tmp_path) as cache:
            reply = await Cached(model, cache, "m").complete(REQUEST)
        assert len(model.requests) == n_asked
        assert reply == replace(REPLY, latency_s=reply.latency_s, cached=n_asked == 0)
    assert reply.latency_s == 0


@pytest.mark.parametrize(
    "other_request",
    [
        replace(REQUEST, messages=(Message("system", "How much?"),)),
        replace(REQUEST, messages=(Message("user", "How many?"),)),
        replace(REQUEST, schema={"type": "array"}),
        replace(REQUEST, sampling=Sampling(max_tokens=5, seed=1)),
        replace(REQUEST, sampling=Sampling(max_tokens=6)),
        replace(REQUEST, top_logprobs=0),
    ],
)
async def test_a_different_request_is_sent(cache: Cache, other_request: ChatRequest) -> None:
    model = CountingModel()
    for request in (REQUEST, other_request):
        await Cached(model, cache, "m").complete(request)
    assert len(model.requests) == 2


async def test_a_different_model_is_asked(cache: Cache) -> None:
    for identity in (["m", "0.31"], ["m", "0.32"], ["n", "0.32"]):
        model = CountingModel()
        await Cached(model, cache, identity).complete(REQUEST)
        assert len(model.requests) == 1


async def test_an_aborted_reply_is_not_cached(cache: Cache) -> None:
    model = CountingModel(replace(REPLY, finish_reason="abort"))
    for _ in range(2):
        await Cached(model, cache, "m").complete(REQUEST)
    assert len(model.requests) == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"nonsense", b'{"text": 1}'])
async def test_a_damaged_reply_is_requested_again(cache: Cache, damage: bytes) -> None:
    model = Cached(CountingModel(), cache, "m")
    await model.complete(REQUEST)
    cache.put(model._key(REQUEST), damage)
    assert not (await model.complete(REQUEST)).cached
    assert (await model.complete(REQUEST)).cached


def test_a_reply_round_trips_through_its_serialised_form() -> None:
    for reply in (REPLY, Completion("", "length", None, 0.1)):
        assert read_reply(write_reply(reply)) == replace(reply, latency_s=0.0, cached=True)


async def test_an_unusable_cache_file_only_causes_a_message(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    messages: list[str] = []
    with Cache(tmp_path, on_message=messages.append) as cache:
        assert await Cached(CountingModel(), cache, "m").complete(REQUEST) == REPLY
        assert await Cached(CountingModel(), cache, "m").complete(REQUEST) == REPLY
    assert len(messages) == 1
    assert str(tmp_path) in messages[0]


def test_two_runs_share_the_cache_file_concurrently(tmp_path: Path) -> None:
    messages: list[str] = []
    with (
        Cache(tmp_path, on_message=messages.append) as first_cache,
        Cache(tmp_path, on_message=messages.append) as second_cache,
    ):
        first_cache.put(b"1", b"first")
        first_cache.put(b"2", b"second")  # and then nothing for minutes, as while a model loads
        second_cache.put(b"3", b"third")
        second_cache.remember("m", {"commit": "c"})
        assert first_cache.get(b"1") == b"first"  # not written yet
    with Cache(tmp_path) as reopened:
        assert [reopened.get(key) for key in (b"1", b"2", b"3")] == [b"first", b"second", b"third"]
        assert reopened.weights("m") == [{"commit": "c"}]
    assert messages == []


async def test_the_cache_file_is_private_to_its_user(cache: Cache, tmp_path: Path) -> None:
    assert not (tmp_path / "cache").exists()  # no request yet
    await Cached(CountingModel(), cache, "m").complete(REQUEST)
    assert (tmp_path / "cache" / FILE).stat().st_mode & 0o077 == 0


# ------------------------------------------------------------------------------ on the command line


def run_compare(out: Path, server: LoopbackServer, *options: str) -> dict[str, object]:
    names = ("mistral-v0.3", "qwen2.5", "selene")
    endpoints = [argument for name in names for argument in ("--endpoint", f"{name}={server.url}")]
    command = ["compare", "mistral-v0.3", "qwen2.5", "--judge", "selene", "--n", "4", "--out", out]
    with patch.dict(os.environ, {"QAEVAL_CACHE": str(out.parent / "cache")}):
        result = qaeval(*command, *endpoints, *options, cwd=out.parent)
    assert result.returncode == 0, result.stderr
    (out.parent / "stderr").write_text(result.stderr)
    report: dict[str, object] = json.loads((out / "report.json").read_text())
    return report


def count_questions(server: LoopbackServer) -> int:
    """Number of requests other than those of the probe."""
    return sum("response_format" in body and body["max_tokens"] > 64 for body in server.requests)


@pytest.mark.slow
def test_a_second_run_sends_no_questions_and_its_report_says_so(tmp_path: Path) -> None:
    with LoopbackServer(["mistral-v0.3", "qwen2.5", "selene"]) as server:
        first = run_compare(tmp_path / "one", server)
        n_questions = count_questions(server)
        second = run_compare(tmp_path / "two", server)
        assert count_questions(server) == n_questions > 20
        run_compare(tmp_path / "three", server, "--no-cache")
        assert count_questions(server) == 2 * n_questions
    for name in ("differences", "strata", "failures", "ranking"):
        assert first[name] == second[name]
    speed = [row["timing"] for row in second["candidates"]]  # type: ignore[attr-defined]
    assert [(row["fresh"], row["items_per_s"]) for row in speed] == [(0.0, None)] * 2
    assert second["timing"]["costs"] == []  # type: ignore[index]
    text = (tmp_path / "two" / "report.md").read_text()
    assert text.count(" 100.0 %") >= 3


@pytest.mark.slow
def test_a_model_with_unknown_weights_is_always_asked(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("models: {mistral-v0.3: {revision: null}}")
    with LoopbackServer(["mistral-v0.3", "qwen2.5", "selene"]) as server:
        for run in ("one", "two"):
            run_compare(tmp_path / run, server, "--config", str(tmp_path / "ours.yaml"))
    models = [body["model"] for body in server.requests if body.get("max_tokens", 0) > 64]
    assert models.count("mistral-v0.3") == 8
    assert models.count("qwen2.5") == 4


def find_weights(spec: ModelSpec, **facts: object) -> Weights | None:
    facts_of_endpoint = EndpointFacts(
        base_url="http://s/v1", model=spec.served, **{"version": "0.32.0", "root": "/models/a", **facts}
    )
    return known_weights(spec, facts_of_endpoint, env={})


OUR_MODEL = ModelSpec(name="ours", url="http://127.0.0.1:8000/v1")


def test_weights_are_identified_by_commit_by_pin_or_by_server_start() -> None:
    server_facts = {"root": "/models/a", "version": "0.32.0", "files": ""}
    revision = "a" * 40
    assert find_weights(OUR_MODEL) is None  # a root is only a path: its weights may change
    assert find_weights(OUR_MODEL, started="1.5e9") == {"start of the server": "1.5e9", **server_facts}
    assert (
        find_weights(OUR_MODEL, started="1.5e9", served=(ServedModel(name="ours", adapter_of="base"),))
        is None
    )
    assert find_weights(OUR_MODEL.model_copy(update={"replicas": ("http://b/v1",)}), started="1.5e9") is None
    assert find_weights(OUR_MODEL.model_copy(update={"pin": "step-900"})) == {
        "pin": "step-900",
        **server_facts,
    }
    pinned = OUR_MODEL.model_copy(update={"hf_id": "a/b", "revision": revision})
    assert find_weights(pinned, started="1.5e9") == {"revision": revision, **server_facts}
    assert find_weights(pinned, version=None) is None
    assert find_weights(pinned.model_copy(update={"lora": Lora(base="b", path="/l")})) is None


def test_a_local_server_has_the_commit_named_by_the_hub_cache(tmp_path: Path) -> None:
    spec = ModelSpec(name="m", hf_id="a/b")
    facts = EndpointFacts(base_url="http://s/v1", model="m", version="0.32.0")
    env = {"HF_HOME": str(tmp_path)}
    assert known_weights(spec, facts, env=env) is None
    refs = tmp_path / "hub" / "models--a--b" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("c" * 40)
    assert known_weights(spec, facts, env=None) is None  # a container has its own cache
    weights = known_weights(spec, facts, env=env)
    assert weights and weights["revision"] == "c" * 40  # noqa: PT018
    renamed = known_weights(spec, facts, env={"HUGGINGFACE_HUB_CACHE": str(tmp_path / "hub")})
    assert renamed == weights
    downloaded = spec.model_copy(update={"vllm_args": ("--download-dir=/weights",)})
    assert known_weights(downloaded, facts, env=env) is None
    remote = spec.model_copy(update={"url": "http://10.0.0.1/v1"})
    assert known_weights(remote, facts, env=env) is None


def test_the_message_says_what_changed_since_the_last_run() -> None:
    first, moved = {"pin": "1", "root": "a"}, {"pin": "1", "root": "b"}
    assert why_asked("m", first, []) == ""
    assert why_asked("m", first, [first, moved]) == ""  # the cache has these replies too
    assert why_asked("m", moved, [first]) == "m: replies of earlier runs are not reused: root 'a' → 'b'"
    message = why_asked("m", {"start of the server": "2"}, [{"start of the server": "1"}])
    assert "its server was started again" in message
    assert "`pin` in qaeval.yaml" in why_asked("m", None, [first])


@pytest.mark.slow
def test_a_changed_server_root_causes_new_requests_and_a_message(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("models: {mistral-v0.3: {revision: null}}")
    options = ("--config", str(tmp_path / "ours.yaml"))
    names, n_requests = ["mistral-v0.3", "qwen2.5", "selene"], []
    with LoopbackServer(names, started=1795206038.43) as server:
        for run, root in (("one", "a"), ("two", "a"), ("three", "b")):
            server.roots = {"mistral-v0.3": f"models/{root}"}
            n_before = len(server.requests)
            run_compare(tmp_path / run, server, *options)
            models = [body["model"] for body in server.requests[n_before:] if body.get("max_tokens", 0) > 64]
            n_requests.append(models.count("mistral-v0.3"))
            log = (tmp_path / "stderr").read_text()
            assert ("mistral-v0.3: replies of earlier runs are not reused: root" in log) == (root == "b")
    assert n_requests == [4, 0, 4]


@pytest.mark.slow
def test_the_cache_file_has_replies_and_no_names(tmp_path: Path) -> None:
    with LoopbackServer(["mistral-v0.3", "qwen2.5", "selene"]) as server:
        run_compare(tmp_path / "one", server)
    rows = sqlite3.connect(tmp_path / "cache" / FILE).execute("SELECT question, reply FROM reply").fetchall()
    assert all(len(question) == 32 for question, _ in rows)
    assert set(json.loads(rows[0][1])) == {"text", "finish", "usage", "alternatives", "thinking", "remark"}
