"""The runner used as a library: consecutive stages, in a thread, in a running event loop, and stopped from code."""

import asyncio
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from qaeval.errors import EndpointError, Interrupted
from qaeval.records import GenerateRow, Generation, GradeRow, Item
from qaeval.registry.find import find_config
from qaeval.run import generate
from qaeval.run.plan import Judging, Plan, find_judging, make_plan
from qaeval.run.runner import Runner
from qaeval.storage.run_directory import GENERATIONS, GRADES, RunStore
from replay.server import LoopbackServer

CANDIDATES = ("mistral", "qwen")
N_SAMPLES = 12
N_PROBES = 4
"""Requests in flight while a server is probed."""


@dataclass
class CountingProgress:
    """Counts rows, and calls an action after a given number of them."""

    rows: list[GenerateRow | GradeRow] = field(default_factory=list)
    after: int = -1
    action: Callable[[], None] = lambda: None

    def stage(self, _name: str, _model: str, *, total: int, done: int) -> "CountingProgress":
        assert total >= done
        return self

    def row(self, row: GenerateRow | GradeRow) -> None:
        self.rows.append(row)
        if len(self.rows) == self.after:
            self.action()

    def skip(self, _n: int) -> None: ...

    def end(self) -> None: ...

    def note(self, _text: str) -> None: ...


@dataclass(frozen=True)
class Bench:
    """Candidates on one server, the judge on another, and the plan of the run."""

    writers: LoopbackServer
    judge: LoopbackServer
    plan: Plan
    judging: Judging
    folder: Path

    def settings(self) -> dict[str, Any]:
        return {**self.plan.settings(), "grading": self.judging.settings()}

    def store(self, name: str = "run") -> RunStore:
        return RunStore.create(self.folder / name, self.settings(), self.plan.samples, resume=False)

    def rows(self, file: str, name: str = "run") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name / file).read_text().splitlines()]

    def sessions(self) -> list[tuple[str, bool]]:
        """Stage of each session, and whether the other stage ran at the same time."""
        return [(row["stage"], row["alongside"]) for row in self.rows("sessions.jsonl")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with LoopbackServer(CANDIDATES) as writers, LoopbackServer(["judge"], latency_s=0.02) as judge:
        yield make_bench(tmp_path, dict.fromkeys(CANDIDATES, writers), judge)


def make_bench(folder: Path, writers: Mapping[str, LoopbackServer], judge: LoopbackServer) -> Bench:
    registry = folder / "registry.yaml"
    models = {name: {"url": server.url} for name, server in writers.items()}
    registry.write_text(json.dumps({"models": models, "judges": {"judge": {"url": judge.url}}}))
    config = find_config(registry)
    plan = make_plan(config, CANDIDATES, eval_name="qa_pairs", chunks=None, n=N_SAMPLES, seed=0)
    judging = find_judging(config, plan.candidates, judge="judge", rubric=plan.definition.rubric)
    return Bench(next(iter(writers.values())), judge, plan, judging, folder)


@pytest.mark.slow
def test_a_stage_after_a_compare_is_recorded_as_running_alone(bench: Bench) -> None:
    with bench.store() as store, Runner(store, CountingProgress()) as runner:
        runner.compare(bench.plan.candidates, bench.plan.definition, bench.judging)
        assert set(bench.sessions()) == {("generate", True), ("grade", True)}
        (store.path / GRADES).unlink()
        runner.grade(bench.judging)
        (store.path / GENERATIONS).unlink()
        runner.generate(bench.plan.candidates, bench.plan.definition)
    assert bench.sessions()[3:] == [("grade", False), ("generate", False), ("generate", False)]


@pytest.mark.slow
def test_the_concurrency_limit_of_a_stage_does_not_apply_to_the_next(bench: Bench) -> None:
    with bench.store() as store, Runner(store, CountingProgress(), concurrency=16) as runner:
        runner.generate(bench.plan.candidates, bench.plan.definition)
        runner.grade(bench.judging, max_concurrency=2)
        (store.path / GENERATIONS).unlink()
        bench.writers.latency_s = 0.5
        runner.generate(bench.plan.candidates, bench.plan.definition)
    assert bench.judge.most_in_flight <= N_PROBES
    assert bench.writers.most_in_flight == N_SAMPLES


@pytest.mark.slow
def test_a_compare_in_a_thread_sets_no_signal_handler(bench: Bench) -> None:
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    errors: list[BaseException] = []

    def compare() -> None:
        try:
            with bench.store() as store, Runner(store, CountingProgress()) as runner:
                runner.check(*bench.plan.candidates, bench.judging.judge)
                runner.compare(bench.plan.candidates, bench.plan.definition, bench.judging)
        except BaseException as error:  # noqa: BLE001 - asserted on below, in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=compare)
    thread.start()
    thread.join(30)
    assert not errors
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert len(bench.rows(GENERATIONS)) == 2 * N_SAMPLES
    assert {row["kind"] for row in bench.rows(GRADES)} == {"grade"}


@pytest.mark.slow
async def test_asynchronous_and_synchronous_compare_write_the_same_rows(bench: Bench) -> None:
    before = signal.getsignal(signal.SIGINT)
    with bench.store("async") as store:
        async with Runner(store, CountingProgress(), handle_signals=False) as runner:
            await runner.acheck(*bench.plan.candidates, bench.judging.judge)
            await runner.acompare(bench.plan.candidates, bench.plan.definition, bench.judging)
    assert signal.getsignal(signal.SIGINT) is before

    def compare() -> None:
        with bench.store("sync") as store, Runner(store, CountingProgress()) as runner:
            runner.compare(bench.plan.candidates, bench.plan.definition, bench.judging)

    await asyncio.to_thread(compare)
    for file in (GENERATIONS, GRADES):
        rows = [{row["task_id"]: row for row in bench.rows(file, name)} for name in ("async", "sync")]
        assert rows[0].keys() == rows[1].keys() != set()
        assert all(row["kind"] != "failure" for row in rows[0].values())


async def test_the_programs_interrupt_handler_is_restored(bench: Bench) -> None:
    def handler(*_: object) -> None: ...

    before = signal.signal(signal.SIGINT, handler)
    try:
        with bench.store() as store:
            async with Runner(store, CountingProgress()) as runner:
                await runner.agenerate(bench.plan.candidates, bench.plan.definition)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


async def test_a_synchronous_method_in_a_running_loop_is_refused(bench: Bench) -> None:
    with bench.store() as store:
        with pytest.raises(RuntimeError, match="acompare"):
            Runner(store, CountingProgress()).__enter__()
        runner = await asyncio.to_thread(Runner(store, CountingProgress()).__enter__)
        with pytest.raises(RuntimeError, match="acompare"):
            runner.generate(bench.plan.candidates, bench.plan.definition)
        await asyncio.to_thread(runner.__exit__, None, None, None)


def test_a_method_of_a_runner_outside_its_context_is_refused(bench: Bench) -> None:
    with bench.store() as store, pytest.raises(RuntimeError, match="with"):
        Runner(store, CountingProgress()).grade(bench.judging)


@pytest.mark.slow
def test_a_stop_from_another_thread_keeps_requests_in_flight_and_the_run_resumes(bench: Bench) -> None:
    bench.writers.latency_s = 0.05
    n_stops: list[int] = []
    progress = CountingProgress(after=5)
    with bench.store() as store:
        runner = Runner(store, progress, concurrency=2, on_stop=lambda: n_stops.append(1))
        progress.action = lambda: [threading.Thread(target=runner.stop).start() for _ in range(2)]  # type: ignore[assignment, func-returns-value]
        with runner, pytest.raises(Interrupted):
            runner.compare(bench.plan.candidates, bench.plan.definition, bench.judging)
        assert n_stops == [1]
        stopped = bench.rows(GENERATIONS) + bench.rows(GRADES)
        assert 5 <= len(stopped) < 2 * N_SAMPLES
        with Runner(store, CountingProgress()) as resumed:
            resumed.compare(bench.plan.candidates, bench.plan.definition, bench.judging)
    finished = [row["task_id"] for row in bench.rows(GENERATIONS) + bench.rows(GRADES)]
    assert len(finished) == len(set(finished))
    assert {row["task_id"] for row in stopped} < set(finished)


async def test_a_cancelled_compare_writes_its_sessions_and_no_failures(bench: Bench) -> None:
    bench.judge.latency_s = 0.2
    graded = asyncio.Event()
    progress = CountingProgress(after=2 * N_SAMPLES + 2, action=graded.set)
    with bench.store() as store:
        async with Runner(store, progress, concurrency=4) as runner:
            comparing = asyncio.ensure_future(
                runner.acompare(bench.plan.candidates, bench.plan.definition, bench.judging)
            )
            await asyncio.wait_for(graded.wait(), 30)
            comparing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await comparing
            assert ("grade", True) in bench.sessions()
    assert {row["kind"] for row in bench.rows(GENERATIONS) + bench.rows(GRADES)} == {"generation", "grade"}


@pytest.mark.slow
@pytest.mark.parametrize("n", [49, 50])
async def test_a_run_of_fifty_samples_is_estimated_from_five_without_leaving_rows(
    bench: Bench, n: int
) -> None:
    config = find_config(bench.folder / "registry.yaml")
    plan = make_plan(config, CANDIDATES, eval_name="qa_pairs", chunks=None, n=n, seed=0)
    with replace(bench, plan=plan).store() as store:
        async with Runner(store, CountingProgress()) as runner:
            estimate = await runner.aestimate(plan.candidates, plan.definition, bench.judging)
        assert (list(store.generations()), list(store.sessions())) == ([], [])
    requested_models = [body["model"] for body in bench.writers.requests if body["max_tokens"] > 64]
    if n < 50:
        assert (estimate, requested_models) == (None, [])
        return
    assert estimate is not None
    assert sorted(requested_models) == [*["mistral"] * 5, *["qwen"] * 5]
    assert (estimate.n_requests, estimate.n_samples) == (2 * 50 * 4, 50)
    assert sorted(estimate.machine_s) == sorted(estimate.measured) == ["judge", *CANDIDATES]
    assert estimate.assumed == ()
    assert estimate.prompt_tokens is not None


@pytest.mark.parametrize("n", [49, 50])
async def test_grading_of_fifty_samples_is_estimated_from_five(bench: Bench, n: int) -> None:
    config = find_config(bench.folder / "registry.yaml")
    plan = make_plan(config, CANDIDATES[:1], eval_name="qa_pairs", chunks=None, n=n, seed=0)
    kinds = plan.definition.item_types
    with replace(bench, plan=plan).store() as store:
        with store.writer(GENERATIONS) as writer:
            for sample in store.samples():
                items = tuple(
                    Item.of(sample.sample_id, position, type=kind, question=f"{kind}?", answer="Yes.")
                    for position, kind in enumerate(kinds)
                )
                task_id = generate.task_id("mistral", sample.sample_id)
                writer.append(
                    Generation(
                        task_id=task_id,
                        candidate="mistral",
                        sample_id=sample.sample_id,
                        items=items,
                        text="",
                        latency_s=0,
                    )
                )
        async with Runner(store, CountingProgress()) as runner:
            estimate = await runner.aestimate_grades(bench.judging)
        assert list(store.grades()) == []
    n_graded = sum("response_format" in body and body["max_tokens"] > 64 for body in bench.judge.requests)
    if n < 50:
        assert (estimate, n_graded) == (None, 0)
        return
    assert estimate is not None
    assert (n_graded, estimate.n_requests, estimate.n_samples) == (15, 150, 50)
    assert (list(estimate.machine_s), estimate.measured) == (["judge"], ("judge",))


# ------------------------------------------------------------------------------ candidates on separate servers


class Requests(list[dict[str, Any]]):
    """Requests of a server; each request that is not a probe calls `on_request` before its reply."""

    def __init__(self, on_request: Callable[[], object]) -> None:
        super().__init__()
        self.on_request = on_request

    def append(self, body: dict[str, Any]) -> None:
        super().append(body)
        if body["max_tokens"] > 64:  # not a probe
            self.on_request()


@dataclass(frozen=True)
class OwnServers:
    """Two candidates and a judge with a server each."""

    first: LoopbackServer
    second: LoopbackServer
    judge: LoopbackServer
    bench: Bench

    def restarted(self, second: LoopbackServer) -> Bench:
        """Return the bench with another server of the second candidate."""
        return make_bench(
            self.bench.folder, dict(zip(CANDIDATES, (self.first, second), strict=True)), self.judge
        )

    def answered(self) -> list[str]:
        """Candidate of each reply, in the order of the file."""
        return [row["candidate"] for row in self.bench.rows(GENERATIONS) if row["kind"] == "generation"]


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[OwnServers]:
    with (
        LoopbackServer(["mistral"]) as first,
        LoopbackServer(["qwen"]) as second,
        LoopbackServer(["judge"]) as judge,
    ):
        servers = dict(zip(CANDIDATES, (first, second), strict=True))
        yield OwnServers(first, second, judge, make_bench(tmp_path, servers, judge))


def compare(bench: Bench, name: str = "run", **options: Any) -> None:
    with bench.store(name) as store, Runner(store, CountingProgress(), **options) as runner:
        runner.compare(bench.plan.candidates, bench.plan.definition, bench.judging)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["generate", "compare"])
def test_candidates_on_separate_servers_run_concurrently(own_servers: OwnServers, stage: str) -> None:
    barrier = threading.Barrier(2)
    meetings: list[int] = []

    def meet() -> None:
        if not meetings:  # the first request to each server waits until the other server has one too
            with suppress(threading.BrokenBarrierError):
                barrier.wait(10)
                meetings.append(1)

    own_servers.first.requests, own_servers.second.requests = Requests(meet), Requests(meet)
    bench = own_servers.bench
    with bench.store() as store, Runner(store, CountingProgress(), concurrency=1) as runner:
        if stage == "compare":
            runner.compare(bench.plan.candidates, bench.plan.definition, bench.judging)
        else:
            runner.generate(bench.plan.candidates, bench.plan.definition)
    assert meetings
    assert sorted(own_servers.answered()) == sorted(CANDIDATES * N_SAMPLES)
    sessions = {(row["model"], row["stage"]): row for row in bench.rows("sessions.jsonl")}
    assert all(row["alongside"] for row in sessions.values())
    assert {sessions[name, "generate"]["n_tasks"] for name in CANDIDATES} == {N_SAMPLES}


@pytest.mark.slow
def test_concurrent_and_sequential_candidates_write_the_same_rows(
    own_servers: OwnServers, bench: Bench
) -> None:
    compare(own_servers.bench, "side by side")
    compare(bench, "in turns")
    for file in (GENERATIONS, GRADES):
        rows = [
            {row.pop("task_id"): row for row in bench.rows(file, name)}
            for name in ("side by side", "in turns")
        ]
        for row in (*rows[0].values(), *rows[1].values()):
            del row["latency_s"]
        assert rows[0] == rows[1]


def test_the_judge_grades_the_items_of_a_chunk_consecutively(own_servers: OwnServers) -> None:
    own_servers.second.latency_s = 0.01
    compare(own_servers.bench, concurrency=1)
    prompts = [body["messages"][-1]["content"] for body in own_servers.judge.requests]
    marks = [match[1] for prompt in prompts if (match := re.search(r"<source (\w+)>", prompt))]
    n_changes = sum(mark != next_mark for mark, next_mark in pairwise(marks))
    # candidates in turns: 2 x 12 - 1; a busy machine may keep the judge waiting for one of them
    assert n_changes < 1.5 * N_SAMPLES


@pytest.mark.slow
def test_a_dead_candidate_ends_the_run_after_the_others_are_graded(
    own_servers: OwnServers,
) -> None:
    with LoopbackServer(["qwen"], die_after=6) as failing_server:
        with pytest.raises(EndpointError, match="stopped answering"):
            compare(own_servers.restarted(failing_server), concurrency=1, outage_s=0.2)
        assert own_servers.answered().count("mistral") == N_SAMPLES
        n_written = len(own_servers.answered())
        assert n_written < 2 * N_SAMPLES
        items = [
            item["item_id"] for row in own_servers.bench.rows(GENERATIONS) for item in row.get("items", ())
        ]
        assert sorted(row["item_id"] for row in own_servers.bench.rows(GRADES)) == sorted(set(items))
    restarted = own_servers.restarted(own_servers.second)
    with RunStore.create(
        restarted.folder / "run", restarted.settings(), restarted.plan.samples, resume=True
    ) as store:
        with Runner(store, CountingProgress()) as runner:
            runner.compare(restarted.plan.candidates, restarted.plan.definition, restarted.judging)
        assert all(isinstance(row, Generation) for row in store.generations())
    assert sorted(own_servers.answered()) == sorted(CANDIDATES * N_SAMPLES)


def test_a_dead_judge_stops_all_candidates(own_servers: OwnServers) -> None:
    own_servers.first.latency_s = own_servers.second.latency_s = 0.05
    with LoopbackServer(["judge"], die_after=8) as judge:
        servers = dict(zip(CANDIDATES, (own_servers.first, own_servers.second), strict=True))
        with pytest.raises(EndpointError, match="stopped answering"):
            compare(make_bench(own_servers.bench.folder, servers, judge), concurrency=1, outage_s=0.2)
    assert 0 < len(own_servers.answered()) < 2 * N_SAMPLES


@pytest.mark.slow
def test_a_stop_ends_all_candidates_and_the_run_resumes(own_servers: OwnServers) -> None:
    bench = own_servers.bench
    progress = CountingProgress(after=6)
    with bench.store() as store:
        runner = Runner(store, progress, concurrency=1)
        progress.action = runner.stop
        with runner, pytest.raises(Interrupted):
            runner.compare(bench.plan.candidates, bench.plan.definition, bench.judging)
        assert len(progress.rows) < 12
        with Runner(store, CountingProgress()) as resumed:
            resumed.compare(bench.plan.candidates, bench.plan.definition, bench.judging)
        assert all(row.kind == "generation" for row in store.generations())
    assert sorted(own_servers.answered()) == sorted(CANDIDATES * N_SAMPLES)
    items = {item["item_id"] for row in bench.rows(GENERATIONS) for item in row["items"]}
    assert sorted(row["item_id"] for row in bench.rows(GRADES)) == sorted(items)
