"""Hosted models: consent before anything is sent, requests in the form the API accepts, and labels by a model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from command import qaeval
from qaeval import api
from qaeval.agreement.label_files import read_labels
from qaeval.chat.http import HttpChat
from qaeval.chat.protocol import ChatError, ChatRequest, Message, Sampling
from qaeval.errors import DataError, EndpointError, UsageError
from qaeval.run.consent import Disclosure
from qaeval.serving.hosted import HostedChat, HostedServer
from qaeval.serving.probe import probe_hosted
from qaeval.text.visible import visible
from replay.hosted import KEY, HostedApi

HOST = "127.0.0.1"


def write_registry(folder: Path, hosted: HostedApi, *, more_fields: str = "") -> Path:
    path = folder / "hosted.yaml"
    entry = (
        f"{{kind: hosted, url: '{hosted.url}', served_name: opus-5, api_key_env: HOSTED_KEY{more_fields}}}"
    )
    price = "{input_per_million: 5, output_per_million: 25, as_of: 2026-11-01, source: 'a price list', currency: USD}"
    path.write_text(f"judges:\n  claude: {entry}\nhosted_prices:\n  claude: {price}\n")
    return path


@pytest.fixture(autouse=True)
def set_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTED_KEY", KEY)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    api.compare(["embedded-lead", "embedded-salient"], n=12, seed=7, controls=False, out=folder)
    return folder


@pytest.mark.slow
def test_nothing_is_sent_without_consent(tmp_path: Path) -> None:
    with HostedApi() as hosted:
        config = write_registry(tmp_path, hosted)
        disclosures: list[Disclosure] = []

        def refuse(disclosure: Disclosure) -> bool:
            disclosures.append(disclosure)
            return False

        for consent in ((), ["api.example.org"], refuse):
            with pytest.raises(UsageError, match="--consent"):
                api.compare(
                    ["embedded-lead"], judge="claude", n=4, config=config, consent=consent, out=tmp_path / "r"
                )
        assert hosted.requests == []
        (disclosure,) = disclosures
        # 12 items and 10 controls
        assert (disclosure.host, disclosure.model, disclosure.n_requests) == (HOST, "claude", 22)
        assert disclosure.n_reply_tokens == 22 * 512
        # 22 rubrics and chunks at 5 per million tokens, 11,264 reply tokens at 25 per million
        assert "USD" in disclosure.cost
        assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_the_disclosed_number_of_requests_includes_repeats_and_controls(tmp_path: Path) -> None:
    with HostedApi() as hosted:
        config = write_registry(tmp_path, hosted)
        disclosures: list[Disclosure] = []

        def agree(disclosure: Disclosure) -> bool:
            disclosures.append(disclosure)
            return True

        def n_sent() -> int:
            return sum("Say hello." not in str(request["messages"]) for request in hosted.requests)

        api.compare(
            ["embedded-lead"],
            judge="claude",
            n=4,
            repeat=3,
            repeat_judge=2,
            config=config,
            consent=agree,
            out=tmp_path / "r",
        )
        (disclosure,) = disclosures
        # letters of the first replies, their second letters, items of two further replies, controls
        assert disclosure.n_requests == 12 + 12 + 24 + 10
        assert n_sent() == disclosure.n_requests

        before = n_sent()
        api.generate(["embedded-lead"], n=4, repeat=3, out=tmp_path / "g")
        api.grade(tmp_path / "g", judge="claude", repeat=4, config=config, consent=agree)
        assert n_sent() - before == disclosures[-1].n_requests == 4 * 12 + 24 + 10


@pytest.mark.parametrize("addresses", [["::1", HOST], [HOST, "::1"]])
async def test_each_address_that_was_checked_is_tried(addresses: list[str]) -> None:
    with HostedApi(fields=()) as hosted:
        async with HostedServer(hosted.url, KEY, addresses=addresses, max_retries=0) as server:
            answers = [await server.ask("/chat/completions", {"messages": []}) for _ in range(2)]
    assert [(answer.status, answer.summary) for answer in answers if answer.status != 200] == []
    assert len(hosted.requests) == 2


async def test_ipv4_is_tried_first_and_an_unreachable_address_last(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: list[str] = []

    async def connect(_transport: object, request: httpx2.Request) -> httpx2.Response:
        hosts.append(request.url.host)
        if request.url.host != "127.0.0.3":
            raise httpx2.ConnectTimeout("", request=request)
        return httpx2.Response(200, content=b"{}", request=request)

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", connect)
    addresses = ["::1", "127.0.0.2", "127.0.0.3"]
    async with HostedServer(f"http://{HOST}/v1", KEY, addresses=addresses, max_retries=0) as server:
        for _ in range(2):
            assert (await server.ask("/models")).status == 200
    assert hosts == ["127.0.0.2", "127.0.0.3", "127.0.0.3"]


@pytest.mark.parametrize("secret", [f"{KEY}…", f"{KEY}\r\nX: y"])
def test_a_key_invalid_in_a_header_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(UsageError, match="API key") as error:
        HostedServer("http://127.0.0.1/v1", secret, addresses=[HOST])
    assert KEY not in str(error.value)


async def test_the_cause_of_a_missing_connection_is_named(unused_tcp_port: int) -> None:
    url = f"http://{HOST}:{unused_tcp_port}/v1"
    async with HostedServer(url, KEY, addresses=[HOST], max_retries=0) as server:
        summary = (await server.ask("/models")).summary
    assert summary.startswith("no connection: ")
    assert "Connection error" not in summary


@pytest.mark.parametrize("fields", [(), ("max_tokens",)])
async def test_a_reasoning_model_is_probed_with_a_larger_limit(fields: tuple[str, ...]) -> None:
    with HostedApi(fields=fields, min_tokens=300) as hosted:
        async with HostedServer(hosted.url, KEY, addresses=[HOST], max_retries=0) as server:
            facts = await probe_hosted(server, "opus-5")
    assert facts.structured_output is True
    assert facts.schema_refusal == ""
    assert facts.fields == dict.fromkeys(fields, "max_completion_tokens")
    name = "max_completion_tokens" if fields else "max_tokens"
    limits = [request[name] for request in hosted.requests if name in request]
    assert set(limits) == {1, 64, 2048}
    assert limits.count(2048) == sum(limit < 300 for limit in limits)


async def test_a_model_that_never_finishes_reasoning_is_probed_twice() -> None:
    with HostedApi(fields=(), min_tokens=10_000) as hosted:
        async with HostedServer(hosted.url, KEY, addresses=[HOST], max_retries=0) as server:
            with pytest.raises(EndpointError, match="Could not finish the message"):
                await probe_hosted(server, "opus-5")
    assert [request["max_tokens"] for request in hosted.requests] == [1, 2048]


async def test_endless_reasoning_about_a_schema_is_not_reported_as_a_refusal() -> None:
    class Ponderer(HostedApi):
        def answer(self, body: Mapping[str, Any], set_key: str) -> tuple[int, dict[str, Any], dict[str, str]]:
            self.min_tokens = 10_000 if "response_format" in body else 0
            return super().answer(body, set_key)

    with Ponderer(fields=()) as hosted:
        async with HostedServer(hosted.url, KEY, addresses=[HOST], max_retries=0) as server:
            facts = await probe_hosted(server, "opus-5")
    assert (facts.structured_output, facts.schema_refusal) == (None, "")


async def test_a_reply_whose_reasoning_exhausts_the_limit_is_truncated() -> None:
    request = ChatRequest((Message("user", "Hello"),), sampling=Sampling(max_tokens=512))
    with HostedApi(fields=(), min_tokens=513) as hosted:
        server = HostedServer(hosted.url, KEY, addresses=[HOST], max_retries=0)
        chats = (
            HostedChat(server, model="opus-5", api_key=KEY),
            HttpChat(base_url=hosted.url, addresses=[HOST], model="opus-5", api_key=KEY),
        )
        for chat in chats:
            async with chat:
                with pytest.raises(ChatError) as error:
                    await chat.complete(request)
            assert error.value.reason == "truncated"
            assert "Could not finish the message" in error.value.detail
            assert "sampling: {max_tokens" in error.value.detail
    assert len(hosted.requests) == 2


def test_a_script_without_consent_exits_with_the_usage_code(tmp_path: Path) -> None:
    with HostedApi() as hosted:
        config = write_registry(tmp_path, hosted)
        arguments = ("compare", "embedded-lead", "--judge", "claude", "--n", "2", "--config", str(config))
        process = qaeval(*arguments, "--out", str(tmp_path / "r"), cwd=tmp_path)
        assert process.returncode == 64, process
        assert HOST in process.stderr
        assert hosted.requests == []


@pytest.mark.slow
def test_a_hosted_judge_sends_requests_the_api_accepts(tmp_path: Path) -> None:
    with HostedApi(busy=2, overloaded=1, refuses=10) as hosted:
        config = write_registry(tmp_path, hosted)
        run = api.compare(
            ["embedded-lead"],
            judge="claude",
            n=4,
            config=config,
            consent=[HOST],
            controls=False,
            out=tmp_path / "r",
        )
        grade_requests = [body for body in hosted.requests if len(body["messages"][-1]["content"]) > 100]
        assert grade_requests
        assert all("top_p" not in body and body["temperature"] == 0 for body in grade_requests)
        assert set(hosted.keys) == {f"Bearer {KEY}"}
        assert hosted.most_in_flight <= 8
        letters = run.letters
        assert set(letters["status"]) == {"graded", "ungraded"}
        assert (letters["status"] == "ungraded").sum() == 1
        stored = "".join(path.read_text(errors="replace") for path in (tmp_path / "r").rglob("*.json*"))
        assert "I can't help" in stored
        assert KEY not in stored


@pytest.mark.slow
def test_a_field_can_be_omitted_and_a_wrong_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HostedApi(fields=()) as hosted:
        config = write_registry(tmp_path, hosted, more_fields=", sampling: {top_p: omit, seed: omit}")
        api.compare(["embedded-lead"], judge="claude", n=1, config=config, consent=[HOST], out=tmp_path / "a")
        assert not any({"top_p", "seed"} & body.keys() for body in hosted.requests)
        monkeypatch.setenv("HOSTED_KEY", "sk-wrong-key-0000")
        with pytest.raises(EndpointError) as error:
            api.compare(
                ["embedded-lead"], judge="claude", n=1, config=config, consent=[HOST], out=tmp_path / "b"
            )
        assert "401" in str(error.value)
        assert "sk-wrong" not in str(error.value)


@pytest.mark.slow
def test_labels_by_a_model_are_stored_as_model_labels(tmp_path: Path, run: Path) -> None:
    with HostedApi(refuses=7) as hosted:
        config = write_registry(tmp_path, hosted)
        with pytest.raises(UsageError, match="--consent"):
            api.label_by_model(run, "claude", n=20, by="random", config=config)
        assert hosted.requests == []
        labels = api.label_by_model(run, "claude", n=20, by="random", config=config, consent=[HOST])
    rows = read_labels(run / "labels" / "claude.jsonl")
    n_refused = labels.failures["rejected"]
    assert labels.n_labelled + n_refused >= 20
    assert n_refused >= 2
    assert {(row.rater, row.rater_kind) for row in rows} == {("claude", "model")}
    assert all(row.inclusion is not None and row.note == "The text says so." for row in rows)
    report = api.agreement(run)
    (rater,) = (rater for rater in report.agreement if rater.rater == "claude")
    assert rater.rater_kind == "model"
    assert rater.coefficients is not None


@pytest.mark.slow
def test_the_command_labels_with_a_model_and_the_report_shows_it(tmp_path: Path, run: Path) -> None:
    with HostedApi() as hosted:
        config = write_registry(tmp_path, hosted)
        arguments = (
            "label",
            str(run),
            "--model",
            "claude",
            "--n",
            "20",
            "--by",
            "random",
            "--config",
            str(config),
        )
        refused_process = qaeval(*arguments, cwd=tmp_path)
        assert refused_process.returncode == 64, refused_process
        assert hosted.requests == []
        process = qaeval(*arguments, "--consent", HOST, cwd=tmp_path)
        assert process.returncode == 0, process
        assert "a model" in process.stdout
    api.load_run(run).write_report()
    report = json.loads((run / "report.json").read_text())
    assert ("claude", "model") in {(rater["rater"], rater["rater_kind"]) for rater in report["agreement"]}
    assert visible(process.stdout) == process.stdout


def test_the_judge_of_the_run_and_an_unknown_model_cannot_label(tmp_path: Path, run: Path) -> None:
    with HostedApi() as hosted:
        config = write_registry(tmp_path, hosted)
        with pytest.raises(UsageError, match="judge of the run"):
            api.label_by_model(run, "embedded-lexical", config=config)
        with pytest.raises(UsageError, match="nobody"):
            api.label_by_model(run, "nobody", config=config)


@pytest.mark.parametrize(
    "entry", ["{kind: hosted}", "{kind: hosted, url: 'http://h/v1', hf_id: a/b}", "{consented: true}"]
)
def test_an_invalid_hosted_entry_is_refused(tmp_path: Path, entry: str) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(f"judges:\n  claude: {entry}\n")
    with pytest.raises(DataError, match="claude"):
        api.compare(["embedded-lead"], judge="claude", n=1, config=config, out=tmp_path / "r")
