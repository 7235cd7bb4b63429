"""`--metrics-port`: what a Prometheus reads of a run while it works."""

import asyncio
import contextlib
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qaeval.chat.protocol import ChatError, ChatRequest, Completion
from qaeval.cli import run
from qaeval.records import FAILURES, Failure, Generation, Grade, Item, Usage
from qaeval.registry.model import ModelSpec
from qaeval.report.facts import MachineFacts
from qaeval.run.endpoint import Endpoint
from qaeval.run.metrics_port import Metered
from qaeval.serving.exporter import Exporter
from qaeval.storage.run_directory import RunStore

L4 = MachineFacts(name="l4", price_per_hour=3.6, currency="USD", as_of="2026-11-01")


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Silent:
    """A progress that nobody watches."""

    def stage(self, _name: str, _model: str, *, total: int, done: int) -> "Silent":
        assert total >= done
        return self

    def note(self, _text: str) -> None: ...
    def row(self, _row: object) -> None: ...
    def skip(self, _n: int) -> None: ...
    def end(self) -> None: ...


def exporter(machines: Mapping[str, MachineFacts] | None = None, clock: Clock | None = None) -> Exporter:
    return Exporter(
        "127.0.0.1", 0, run="first", eval_name="qa_pairs", machines=machines or {}, clock=clock or Clock()
    )


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - the exporter's own
        return str(reply.read().decode())


def read(url: str) -> dict[tuple[str, ...], float]:
    """Return the samples by name and the values of their labels, in the order of the labels' names."""
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(fetched(url))
        for sample in family.samples
    }


def generation(n_items: int, *, cached: bool = False) -> Generation:
    items = [Item.of("s", n, type="t", question=f"q{n}", answer="a") for n in range(n_items)]
    usage = Usage(prompt_tokens=100, completion_tokens=20)
    latency = 0.0 if cached else 1.5
    return Generation(
        task_id="t",
        candidate="m",
        sample_id="s",
        items=tuple(items),
        text="",
        usage=usage,
        latency_s=latency,
        cached=cached,
    )


def grade(letter: str) -> Grade:
    return Grade(task_id="t", judge="j", rubric_sha="", item_id="i", letter=letter, text="", latency_s=0.1)


def failure() -> Failure:
    usage = Usage(prompt_tokens=7, completion_tokens=3)
    return Failure(
        task_id="t",
        stage="generate",
        model="m",
        sample_id="s",
        reason="truncated",
        detail="x",
        usage=usage,
        latency_s=1.0,
    )


def test_repeats_are_stages_of_their_own_and_no_series_comes_twice() -> None:
    with exporter() as metrics:
        for name, letters in (("grade", "AB"), ("grade repeats", "AAA")):
            stage = Metered(Silent(), metrics).stage(name, "j", total=3, done=0)
            for letter in letters:
                stage.row(grade(letter))
        text = fetched(metrics.url)
        samples = read(metrics.url)
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert samples["qaeval_grades_total", "A", "j"] == 1
    assert samples["qaeval_items_total", "j", "grade repeats"] == 3


def test_rows_are_counted_by_stage_and_model() -> None:
    with exporter() as metrics:
        progress = Metered(Silent(), metrics)
        stage = progress.stage("generate", "m", total=10, done=4)
        for row in (generation(3), generation(2, cached=True), failure()):
            stage.row(row)
        stage.end()
        samples = read(metrics.url)
    assert samples["qaeval_tasks_planned", "m", "generate"] == 10
    assert samples["qaeval_tasks_finished", "m", "generate"] == 4 + 3
    assert samples["qaeval_items_total", "m", "generate"] == 3 + 2
    assert samples["qaeval_cached_replies_total", "m", "generate"] == 1
    assert samples["qaeval_failures_total", "m", "truncated", "generate"] == 1
    # the tokens of the known reply were paid by an earlier run, those of the failed one were not
    assert samples["qaeval_tokens_total", "prompt", "m", "generate"] == 100 + 7
    assert samples["qaeval_tokens_total", "completion", "m", "generate"] == 20 + 3


def test_the_labels_of_each_series_have_their_names() -> None:
    with exporter() as metrics:
        progress = Metered(Silent(), metrics)
        for row in (generation(3), failure()):
            progress.stage("generate", "m", total=2, done=0).row(row)
        progress.stage("grade", "j", total=1, done=0).row(grade("A"))
        lines = set(fetched(metrics.url).splitlines())
    assert {
        'qaeval_items_total{model="m",stage="generate"} 3.0',
        'qaeval_tokens_total{kind="prompt",model="m",stage="generate"} 107.0',
        'qaeval_failures_total{model="m",reason="truncated",stage="generate"} 1.0',
        'qaeval_grades_total{letter="A",model="j"} 1.0',
    } <= lines


def test_every_reason_is_there_before_the_first_failure() -> None:
    with exporter() as metrics:
        Metered(Silent(), metrics).stage("grade", "j", total=1, done=0)
        samples = read(metrics.url)
    reasons = {key[2]: value for key, value in samples.items() if key[0] == "qaeval_failures_total"}
    assert reasons == dict.fromkeys(FAILURES, 0.0)


def test_tasks_that_do_not_exist_are_not_planned() -> None:
    with exporter() as metrics:
        stage = Metered(Silent(), metrics).stage("grade", "j", total=5, done=0)
        stage.skip(2)
        for letter in "ABA":
            stage.row(grade(letter))
        samples = read(metrics.url)
    assert samples["qaeval_tasks_planned", "j", "grade"] == 3
    assert samples["qaeval_grades_total", "A", "j"] == 2
    assert samples["qaeval_grades_total", "B", "j"] == 1


def test_a_stage_that_goes_on_after_a_restart_counts_on() -> None:
    with exporter() as metrics:
        progress = Metered(Silent(), metrics)
        progress.stage("generate", "m", total=4, done=0).row(generation(3))
        progress.stage("generate", "m", total=4, done=1).row(generation(3))
        samples = read(metrics.url)
    assert samples["qaeval_tasks_finished", "m", "generate"] == 2
    assert samples["qaeval_items_total", "m", "generate"] == 6


class Gate:
    """A model that answers when it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def complete(self, _request: ChatRequest) -> Completion:
        await self.open.wait()
        raise ChatError("rejected", "no")


async def test_a_request_is_in_flight_until_its_end_whatever_that_is() -> None:
    def in_flight() -> float:
        return read(metrics.url)["qaeval_requests_in_flight", "m", "generate"]

    with exporter() as metrics:
        gate = Gate()
        with metrics.at_work("generate", "m", gate, machine=None, load_s=0) as model:
            requests = [asyncio.create_task(model.complete(ChatRequest(()))) for _ in range(2)]
            await asyncio.sleep(0)
            assert await asyncio.to_thread(in_flight) == 2
            gate.open.set()
            for request in requests:
                with pytest.raises(ChatError):
                    await request
        assert await asyncio.to_thread(in_flight) == 0


def test_models_on_one_machine_share_its_seconds_and_nobody_pays_twice() -> None:
    clock = Clock()
    with exporter({"m": L4, "j": L4, "far": L4}, clock) as metrics:
        model = Gate.__new__(Gate)
        with metrics.at_work("generate", "m", model, machine="a", load_s=40):
            clock.now += 100  # m alone
            with metrics.at_work("grade", "j", model, machine="a", load_s=0):
                clock.now += 60  # both: 30 s each
                middle = read(metrics.url)
            clock.now += 10  # m alone
        clock.now += 1000  # nobody
        with metrics.at_work("generate", "far", model, machine="b", load_s=0):
            clock.now += 20
        samples = read(metrics.url)
    assert middle["qaeval_node_seconds_total", "m", "generate"] == 40 + 100 + 30
    assert samples["qaeval_node_seconds_total", "m", "generate"] == 40 + 100 + 30 + 10
    assert samples["qaeval_node_seconds_total", "j", "grade"] == 30
    # 3.60 an hour is a tenth of a cent a second
    assert samples["qaeval_spend", "USD", "m"] == pytest.approx(0.180)
    assert samples["qaeval_spend", "USD", "j"] == pytest.approx(0.030)
    assert samples["qaeval_spend", "USD", "far"] == pytest.approx(0.020)


def test_without_a_price_nothing_is_said_about_money() -> None:
    clock = Clock()
    with exporter({"m": MachineFacts(name="own")}, clock) as metrics:
        with metrics.at_work("generate", "m", Gate.__new__(Gate), machine="a", load_s=1):
            clock.now += 9
        with metrics.at_work("generate", "embedded", Gate.__new__(Gate), machine=None, load_s=0):
            clock.now += 9
        samples = read(metrics.url)
    assert samples["qaeval_node_seconds_total", "m", "generate"] == 10
    assert samples["qaeval_node_seconds_total", "embedded", "generate"] == 0
    assert not [key for key in samples if key[0] == "qaeval_spend"]


def test_a_name_cannot_leave_its_label() -> None:
    name = 'm"} 1\nqaeval_spend{model="x\\'
    with exporter() as metrics:
        Metered(Silent(), metrics).stage("generate", name, total=1, done=0)
        samples = read(metrics.url)
    assert samples["qaeval_tasks_planned", name, "generate"] == 1
    assert not [key for key in samples if key[0] == "qaeval_spend"]


def test_nothing_is_told_of_the_machine_or_the_interpreter() -> None:
    with exporter() as metrics:
        Metered(Silent(), metrics).stage("generate", "m", total=1, done=0)
        names = {key[0] for key in read(metrics.url)}
    assert names
    assert all(name.startswith("qaeval_") and not name.endswith("_created") for name in names)


def test_the_port_is_free_again_afterwards() -> None:
    with exporter() as metrics:
        url = metrics.url
    with pytest.raises(OSError, match="refused"):
        fetched(url)


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_that_is_taken_ends_the_command_before_it_begins(
    used_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = [
        "compare",
        "embedded-lead",
        "embedded-salient",
        "--out",
        str(out),
        "--metrics-port",
        str(used_port),
    ]
    assert run(arguments) == 64
    expected = capsys.readouterr().err
    assert f"--metrics-port {used_port}: " in expected
    assert "Address already in use" in expected
    assert not out.exists()
    assert run([*arguments, "--shard", "0/2"]) == 64
    assert "to continue" not in capsys.readouterr().err  # the port would be taken again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--metrics-host", "0.0.0.0"], "--metrics-host needs --metrics-port"),  # noqa: S104 - never reached
        (["--metrics-port", "65536"], "65535"),
        (["--metrics-port", "0", "--metrics-host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--metrics-port", "0", "--metrics-host", "ü" * 300], "another --metrics-host"),
    ],
)
def test_what_cannot_be_served_is_a_usage_error(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "embedded-lead", "--out", str(tmp_path / "run"), *arguments]) == 64
    assert expected in capsys.readouterr().err


class Scraper(threading.Thread):
    """Reads again and again, and keeps the last reading."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.url = f"http://127.0.0.1:{port}/metrics"
        self.last: dict[tuple[str, ...], float] = {}
        self.over = False

    def run(self) -> None:
        while not self.over:
            with contextlib.suppress(OSError):  # not there yet, or gone
                self.last = read(self.url)
            time.sleep(0.02)


@pytest.mark.slow
def test_a_run_is_read_while_it_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    scraper = Scraper(port)
    scraper.start()
    arguments = ["compare", "embedded-lead", "embedded-salient", "--n", "4", "--out", str(tmp_path / "first")]
    try:
        assert run([*arguments, "--metrics-port", str(port)]) == 0
    finally:
        scraper.over = True
        scraper.join()
    assert f"metrics: http://127.0.0.1:{port}/metrics" in capsys.readouterr().err
    with RunStore.open(tmp_path / "first") as store:
        letters = Counter(row.letter for row in store.grades() if isinstance(row, Grade))
        n_items = sum(
            len(row.items)
            for row in store.generations()
            if isinstance(row, Generation) and row.candidate == "embedded-lead"
        )
    samples = scraper.last
    assert {key[1]: value for key, value in samples.items() if key[0] == "qaeval_grades_total"} == letters
    assert samples["qaeval_tasks_finished", "embedded-lead", "generate"] == 4
    assert samples["qaeval_items_total", "embedded-lead", "generate"] == n_items
    assert [key[1:3] for key in samples if key[0] == "qaeval_run_info"] == [("qa_pairs", "first")]


@pytest.mark.parametrize(("kind", "machine"), [("server", "gpu.lan"), ("hosted", None)])
def test_a_hosted_api_works_on_no_machine(kind: Any, machine: str | None) -> None:
    spec = ModelSpec(name="m", kind=kind, url="https://gpu.lan/v1")
    assert Endpoint(spec, host="gpu.lan").machine == machine
