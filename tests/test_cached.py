"""What was asked before is not asked again, and nothing else is taken for it."""

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

ASK = ChatRequest((Message("user", "How much?"),), {"type": "object"}, Sampling(max_tokens=5), top_logprobs=3)
REPLY = Completion(
    "A lot.",
    "stop",
    Usage(prompt_tokens=3, completion_tokens=2),
    1.5,
    Alternatives("A", 0, {"A": -0.1, "B": -2.5}),
)


class Counting:
    def __init__(self, reply: Completion = REPLY) -> None:
        self.asked: list[ChatRequest] = []
        self.reply = reply

    async def complete(self, request: ChatRequest) -> Completion:
        self.asked.append(request)
        return self.reply


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache") as cache:
        yield cache


async def test_a_second_run_is_given_the_same_reply_without_asking(tmp_path: Path) -> None:
    for n_asked in (1, 0):
        model = Counting()
        with Cache(tmp_path) as cache:
            reply = await Cached(model, cache, "m").complete(ASK)
        assert len(model.asked) == n_asked
        assert reply == replace(REPLY, latency_s=reply.latency_s, cached=n_asked == 0)
    assert reply.latency_s == 0


@pytest.mark.parametrize(
    "changed",
    [
        replace(ASK, messages=(Message("system", "How much?"),)),
        replace(ASK, messages=(Message("user", "How many?"),)),
        replace(ASK, schema={"type": "array"}),
        replace(ASK, sampling=Sampling(max_tokens=5, seed=1)),
        replace(ASK, sampling=Sampling(max_tokens=6)),
        replace(ASK, top_logprobs=0),
    ],
)
async def test_another_question_is_asked(cache: Cache, changed: ChatRequest) -> None:
    model = Counting()
    for request in (ASK, changed):
        await Cached(model, cache, "m").complete(request)
    assert len(model.asked) == 2


async def test_another_model_is_asked(cache: Cache) -> None:
    for identity in (["m", "0.31"], ["m", "0.32"], ["n", "0.32"]):
        model = Counting()
        await Cached(model, cache, identity).complete(ASK)
        assert len(model.asked) == 1


async def test_a_reply_that_the_server_broke_off_is_not_kept(cache: Cache) -> None:
    model = Counting(replace(REPLY, finish_reason="abort"))
    for _ in range(2):
        await Cached(model, cache, "m").complete(ASK)
    assert len(model.asked) == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"nonsense", b'{"text": 1}'])
async def test_a_damaged_reply_is_asked_anew(cache: Cache, damage: bytes) -> None:
    model = Cached(Counting(), cache, "m")
    await model.complete(ASK)
    cache.put(model._key(ASK), damage)
    assert not (await model.complete(ASK)).cached
    assert (await model.complete(ASK)).cached


def test_a_reply_is_read_as_it_was_written() -> None:
    for reply in (REPLY, Completion("", "length", None, 0.1)):
        assert read_reply(write_reply(reply)) == replace(reply, latency_s=0.0, cached=True)


async def test_a_file_that_cannot_be_used_costs_a_note_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    messages: list[str] = []
    with Cache(tmp_path, on_message=messages.append) as cache:
        assert await Cached(Counting(), cache, "m").complete(ASK) == REPLY
        assert await Cached(Counting(), cache, "m").complete(ASK) == REPLY
    assert len(messages) == 1
    assert str(tmp_path) in messages[0]


def test_two_runs_share_the_file_also_while_one_of_them_waits(tmp_path: Path) -> None:
    messages: list[str] = []
    with (
        Cache(tmp_path, on_message=messages.append) as slow,
        Cache(tmp_path, on_message=messages.append) as fast,
    ):
        slow.put(b"1", b"first")
        slow.put(b"2", b"second")  # and then nothing for minutes: a model loads
        fast.put(b"3", b"third")
        fast.remember("m", {"commit": "c"})
        assert slow.get(b"1") == b"first"  # not written yet
    with Cache(tmp_path) as later:
        assert [later.get(key) for key in (b"1", b"2", b"3")] == [b"first", b"second", b"third"]
        assert later.weights("m") == [{"commit": "c"}]
    assert messages == []


async def test_nobody_else_may_read_it(cache: Cache, tmp_path: Path) -> None:
    assert not (tmp_path / "cache").exists()  # nothing was asked
    await Cached(Counting(), cache, "m").complete(ASK)
    assert (tmp_path / "cache" / FILE).stat().st_mode & 0o077 == 0


# ------------------------------------------------------------------------------ on the command line


def compare(out: Path, server: LoopbackServer, *options: str) -> dict[str, object]:
    names = ("mistral-v0.3", "qwen2.5", "selene")
    endpoints = [word for name in names for word in ("--endpoint", f"{name}={server.url}")]
    command = ["compare", "mistral-v0.3", "qwen2.5", "--judge", "selene", "--n", "4", "--out", out]
    with patch.dict(os.environ, {"QAEVAL_CACHE": str(out.parent / "cache")}):
        done = qaeval(*command, *endpoints, *options, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    (out.parent / "stderr").write_text(done.stderr)
    report: dict[str, object] = json.loads((out / "report.json").read_text())
    return report


def questions(server: LoopbackServer) -> int:
    """Requests beside those of the probe."""
    return sum("response_format" in body and body["max_tokens"] > 64 for body in server.requests)


@pytest.mark.slow
def test_a_second_run_asks_nothing_and_its_report_says_so(tmp_path: Path) -> None:
    with LoopbackServer(["mistral-v0.3", "qwen2.5", "selene"]) as server:
        first = compare(tmp_path / "one", server)
        n = questions(server)
        second = compare(tmp_path / "two", server)
        assert questions(server) == n > 20
        compare(tmp_path / "three", server, "--no-cache")
        assert questions(server) == 2 * n
    for name in ("differences", "strata", "failures", "ranking"):
        assert first[name] == second[name]
    speed = [row["timing"] for row in second["candidates"]]  # type: ignore[attr-defined]
    assert [(row["fresh"], row["items_per_s"]) for row in speed] == [(0.0, None)] * 2
    assert second["timing"]["costs"] == []  # type: ignore[index]
    text = (tmp_path / "two" / "report.md").read_text()
    assert text.count(" 100.0 %") >= 3


@pytest.mark.slow
def test_a_model_whose_weights_nobody_knows_is_always_asked(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("models: {mistral-v0.3: {revision: null}}")
    with LoopbackServer(["mistral-v0.3", "qwen2.5", "selene"]) as server:
        for run in ("one", "two"):
            compare(tmp_path / run, server, "--config", str(tmp_path / "ours.yaml"))
    models = [body["model"] for body in server.requests if body.get("max_tokens", 0) > 64]
    assert models.count("mistral-v0.3") == 8
    assert models.count("qwen2.5") == 4


def known(spec: ModelSpec, **facts: object) -> Weights | None:
    found = EndpointFacts(
        base_url="http://s/v1", model=spec.served, **{"version": "0.32.0", "root": "/models/a", **facts}
    )
    return known_weights(spec, found, env={})


OURS = ModelSpec(name="ours", url="http://127.0.0.1:8000/v1")


def test_weights_are_known_by_a_commit_by_the_users_word_or_while_the_server_runs() -> None:
    reported = {"root": "/models/a", "version": "0.32.0", "files": ""}
    revision = "a" * 40
    assert known(OURS) is None  # a root is a name: the folder may hold other weights tomorrow
    assert known(OURS, started="1.5e9") == {"start of the server": "1.5e9", **reported}
    assert known(OURS, started="1.5e9", served=(ServedModel(name="ours", adapter_of="base"),)) is None
    assert known(OURS.model_copy(update={"replicas": ("http://b/v1",)}), started="1.5e9") is None
    assert known(OURS.model_copy(update={"pin": "step-900"})) == {"pin": "step-900", **reported}
    pinned = OURS.model_copy(update={"hf_id": "a/b", "revision": revision})
    assert known(pinned, started="1.5e9") == {"revision": revision, **reported}
    assert known(pinned, version=None) is None
    assert known(pinned.model_copy(update={"lora": Lora(base="b", path="/l")})) is None


def test_a_server_of_qaeval_has_the_commit_that_the_hub_cache_names(tmp_path: Path) -> None:
    spec = ModelSpec(name="m", hf_id="a/b")
    facts = EndpointFacts(base_url="http://s/v1", model="m", version="0.32.0")
    env = {"HF_HOME": str(tmp_path)}
    assert known_weights(spec, facts, env=env) is None
    refs = tmp_path / "hub" / "models--a--b" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("c" * 40)
    assert known_weights(spec, facts, env=None) is None  # a container has a cache of its own
    weights = known_weights(spec, facts, env=env)
    assert weights and weights["revision"] == "c" * 40  # noqa: PT018
    renamed = known_weights(spec, facts, env={"HUGGINGFACE_HUB_CACHE": str(tmp_path / "hub")})
    assert renamed == weights
    downloaded = spec.model_copy(update={"vllm_args": ("--download-dir=/weights",)})
    assert known_weights(downloaded, facts, env=env) is None
    elsewhere = spec.model_copy(update={"url": "http://10.0.0.1/v1"})
    assert known_weights(elsewhere, facts, env=env) is None


def test_what_changed_since_the_last_run_is_said() -> None:
    first, moved = {"pin": "1", "root": "a"}, {"pin": "1", "root": "b"}
    assert why_asked("m", first, []) == ""
    assert why_asked("m", first, [first, moved]) == ""  # the cache has these replies too
    assert why_asked("m", moved, [first]) == "m: replies of earlier runs are not reused: root 'a' → 'b'"
    again = why_asked("m", {"start of the server": "2"}, [{"start of the server": "1"}])
    assert "its server was started again" in again
    assert "`pin` in qaeval.yaml" in why_asked("m", None, [first])


@pytest.mark.slow
def test_a_server_is_asked_again_when_its_root_changes_and_the_first_lines_say_so(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("models: {mistral-v0.3: {revision: null}}")
    options = ("--config", str(tmp_path / "ours.yaml"))
    names, asked = ["mistral-v0.3", "qwen2.5", "selene"], []
    with LoopbackServer(names, started=1795206038.43) as server:
        for run, root in (("one", "a"), ("two", "a"), ("three", "b")):
            server.roots = {"mistral-v0.3": f"models/{root}"}
            before = len(server.requests)
            compare(tmp_path / run, server, *options)
            models = [body["model"] for body in server.requests[before:] if body.get("max_tokens", 0) > 64]
            asked.append(models.count("mistral-v0.3"))
            log = (tmp_path / "stderr").read_text()
            assert ("mistral-v0.3: replies of earlier runs are not reused: root" in log) == (root == "b")
    assert asked == [4, 0, 4]


@pytest.mark.slow
def test_the_file_holds_replies_and_no_names(tmp_path: Path) -> None:
    with LoopbackServer(["mistral-v0.3", "qwen2.5", "selene"]) as server:
        compare(tmp_path / "one", server)
    rows = sqlite3.connect(tmp_path / "cache" / FILE).execute("SELECT question, reply FROM reply").fetchall()
    assert all(len(question) == 32 for question, _ in rows)
    assert set(json.loads(rows[0][1])) == {"text", "finish", "usage", "alternatives", "thinking", "remark"}
