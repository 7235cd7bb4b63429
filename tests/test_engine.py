"""The loop that asks models: how many at once, what happens when a server goes away, how long a reply is waited for."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qaeval.chat.circuit_breaker import CircuitBreaker
from qaeval.chat.http import HttpChat
from qaeval.chat.protocol import ChatError, ChatRequest, Message
from qaeval.chat.timeouts import AdaptiveTimeout
from qaeval.errors import EndpointError
from qaeval.records import PREEMPTIONS, RUNNING, WAITING
from qaeval.registry.model import ModelSpec
from qaeval.run.endpoint import resolve
from qaeval.run.loop import TaskQueue, for_each
from qaeval.run.pace import AdaptiveLimit, FixedLimit
from qaeval.serving.load import read_load
from replay.server import LoopbackServer

ASK = ChatRequest((Message("user", "The server waits five seconds before it closes a connection."),))


class Never:
    def is_set(self) -> bool:
        return False


async def ignore(_task: object, _row: object) -> None:
    pass


# ------------------------------------------------------------------------------ the loop


async def test_workers_follow_the_limit_up_and_down() -> None:
    limit, at_work, peak = FixedLimit(2), 0, 0
    peaks: list[int] = []

    async def work(number: int) -> int:
        nonlocal at_work, peak
        at_work += 1
        peak = max(peak, at_work)
        await asyncio.sleep(0)
        if number == 10:
            limit.value = 8
            limit.on_rise()
        if number == 50:
            peak, limit.value = 0, 3
        at_work -= 1
        peaks.append(peak)
        return number

    rows: list[int] = []

    async def emit(_task: int, row: int) -> None:
        rows.append(row)

    await for_each(range(100), work, emit, limit=limit, stop=Never())
    assert sorted(rows) == list(range(100))
    assert max(peaks[:10]) == 2
    assert max(peaks[20:50]) == 8
    assert max(peaks[70:]) <= 3


async def test_tasks_are_pulled_one_by_one() -> None:
    pulled = 0

    def tasks() -> Iterator[int]:
        nonlocal pulled
        for number in range(1000):
            pulled += 1
            yield number

    finished = 0

    async def work(number: int) -> int:
        nonlocal finished
        await asyncio.sleep(0)
        assert pulled - finished <= 4
        finished += 1
        return number

    await for_each(tasks(), work, ignore, limit=FixedLimit(4), stop=Never())
    assert (pulled, finished) == (1000, 1000)


async def test_who_queues_waits_for_room_and_not_once_nobody_takes() -> None:
    queue: TaskQueue[int] = TaskQueue(maxsize=10)
    queue.add(range(30))
    put = asyncio.ensure_future(queue.room())
    await asyncio.sleep(0)
    assert not put.done()
    for _ in range(20):
        await queue.take()
    await asyncio.wait_for(put, 1)
    queue.add(range(30))
    put = asyncio.ensure_future(queue.room())
    await asyncio.sleep(0)
    assert not put.done()
    queue.abandon()
    await asyncio.wait_for(put, 1)


async def test_what_a_task_raises_ends_the_loop_as_it_is() -> None:
    async def work(number: int) -> int:
        if number == 5:
            raise EndpointError("gone")
        await asyncio.sleep(0)
        return number

    with pytest.raises(EndpointError, match="gone"):
        await for_each(range(100), work, ignore, limit=FixedLimit(4), stop=Never())


# ------------------------------------------------------------------------------ how many at once


class Machine:
    """A server with some slots, and a clock of its own; a request takes a second whatever runs beside it."""

    def __init__(self, slots: int) -> None:
        self.slots, self.now = slots, 0.0
        self.running: list[float] = []
        self.waiting = self.done = 0

    def clock(self) -> float:
        return self.now

    def values(self, **counts: float) -> dict[str, float]:
        return {RUNNING: float(len(self.running)), WAITING: float(self.waiting), **counts}

    def tick(self, limit: AdaptiveLimit, *, reports: bool) -> None:
        """Let a tenth of a second pass: what is due ends, what waits begins, new requests come up to the limit."""
        self.now += 0.1
        due = [end for end in self.running if end <= self.now + 1e-9]
        self.running = [end for end in self.running if end > self.now + 1e-9]
        for _ in due:
            limit.task_ended()
            self.done += 1
        self._fill()
        if reports:
            limit.reading(self.values())
        while len(self.running) + self.waiting < limit.value:
            limit.task_started()
            self.waiting += 1
        self._fill()

    def _fill(self) -> None:
        n = min(self.waiting, self.slots - len(self.running))
        self.running += [self.now + 1.0] * n
        self.waiting -= n


@pytest.mark.parametrize("slots", [4, 16, 64, 256, 700])
def test_a_server_that_tells_is_full_within_a_second_and_its_queue_is_short(slots: int) -> None:
    machine = Machine(slots)
    limit = AdaptiveLimit(clock=machine.clock)
    for _ in range(10):
        machine.tick(limit, reports=True)
    assert len(machine.running) == slots
    for _ in range(100):
        machine.tick(limit, reports=True)
        assert len(machine.running) >= 0.98 * slots
    assert machine.waiting <= 0.25 * slots + 4


@pytest.mark.parametrize("slots", [16, 64, 256])
def test_a_server_that_tells_nothing_is_filled_while_that_brings_more(slots: int) -> None:
    machine = Machine(slots)
    limit = AdaptiveLimit(clock=machine.clock)
    for _ in range(200):
        machine.tick(limit, reports=False)
    before = machine.done
    for _ in range(100):
        machine.tick(limit, reports=False)
    assert machine.done - before >= 0.9 * 10 * slots  # of ten seconds with every slot at work
    assert limit.value <= 4 * slots


def test_a_preemption_and_a_refusal_cut_the_limit_and_keep_it_down_for_a_while() -> None:
    for cut in ("preemption", "refusal"):
        machine = Machine(1000)
        limit = AdaptiveLimit(clock=machine.clock)
        for _ in range(6):
            machine.tick(limit, reports=True)
        before = limit.value
        if cut == "preemption":
            limit.reading(machine.values(**{PREEMPTIONS: 0.0}))
            limit.reading(machine.values(**{PREEMPTIONS: 2.0}))
        else:
            limit.refused()
        after = limit.value
        assert after < before
        limit.refused()  # many requests are refused at the same moment: one cut
        if cut == "refusal":
            assert limit.value == after
        for _ in range(40):
            machine.tick(limit, reports=True)
        assert limit.value <= after
        for _ in range(60):
            machine.tick(limit, reports=True)
        assert limit.value > after


def test_each_step_of_the_limit_is_worked_by_hand() -> None:
    now, rises = [100.0], []
    limit = AdaptiveLimit(clock=lambda: now[0])
    limit.on_rise = lambda: rises.append(limit.value)

    def after(running: float, waiting: float, preemptions: float | None = None) -> int:
        known = {} if preemptions is None else {PREEMPTIONS: preemptions}
        limit.reading({RUNNING: running, WAITING: waiting, **known})
        return limit.value

    assert (limit.value, limit.is_searching) == (16, True)
    for _ in range(14):
        limit.task_started()
    assert after(14, 0) == 16  # 14 in flight are less than 0.9 of 16
    limit.task_started()
    assert after(15, 0) == 32
    assert after(40, 1) == 40 + 40 // 8 + 4
    assert after(8, 1) == 49  # the most running of the last eight readings
    assert [after(8, 1) for _ in range(7)] == [49] * 6 + [36]  # falls by steps: 0.75 of 49; the target is 13
    assert limit.is_searching is False
    assert after(20, 1, preemptions=2) == 27  # a first count says nothing of what is new
    assert after(20, 1, preemptions=3) == 15  # 0.75 of what runs
    now[0] = 104.9
    assert after(20, 1, preemptions=3) == 15
    now[0] = 105.0
    assert after(20, 1, preemptions=3) == 20 + 20 // 8 + 4
    limit.refused()
    assert limit.value == 11  # 0.75 of the 15 in flight
    now[0] = 105.9
    limit.refused()
    assert limit.value == 11  # the same event
    now[0] = 106.0
    limit.refused()
    assert limit.value == 8
    for _ in range(3):
        now[0] += 1
        limit.refused()
    assert limit.value == 4
    assert rises == [32, 49, 26]


@pytest.mark.parametrize(("maximum", "value"), [(10, 10), (16, 16), (4, 4)])
def test_the_limit_stays_within_its_bounds(maximum: int, value: int) -> None:
    limit = AdaptiveLimit(clock=lambda: 0.0, maximum=maximum)
    for _ in range(maximum):
        limit.task_started()
    limit.reading({RUNNING: 500, WAITING: 9})
    assert (limit.value, limit.is_searching) == (value, False)


@pytest.mark.parametrize("values", [{}, {RUNNING: 3.0}, {WAITING: 3.0}])
def test_a_server_that_does_not_tell_both_numbers_tells_nothing(values: dict[str, float]) -> None:
    limit = AdaptiveLimit(clock=lambda: 0.0)
    for _ in range(16):
        limit.task_started()
    limit.reading(values)
    assert limit.value == 16


def test_a_queue_does_not_raise_the_limit_right_after_a_cut() -> None:
    limit = AdaptiveLimit(clock=lambda: 0.0)
    limit.reading({RUNNING: 100.0, WAITING: 10.0, PREEMPTIONS: 0.0})
    assert limit.value > 100
    limit.reading({RUNNING: 100.0, WAITING: 10.0, PREEMPTIONS: 5.0})
    cut = limit.value
    limit.reading({RUNNING: 100.0, WAITING: 10.0, PREEMPTIONS: 5.0})
    assert limit.value == cut == 75


def test_without_work_the_limit_does_not_rise() -> None:
    limit = AdaptiveLimit(clock=lambda: 0.0)
    for _ in range(10):
        limit.reading({RUNNING: 1.0, WAITING: 0.0})
    assert limit.value == 16


def test_the_load_of_all_engines_is_added_up() -> None:
    text = (
        b"# HELP vllm:num_requests_running x\n"
        b'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
        b'vllm:num_requests_running{engine="1",model_name="m"} 4.0\n'
        b'vllm:num_requests_waiting{engine="0",model_name="m"} 0.0\n'
        b'vllm:num_requests_waiting_by_reason{reason="x"} 9.0\n'
        b"vllm:num_preemptions_total 2.0\n"
    )
    assert read_load(text) == {RUNNING: 7.0, WAITING: 0.0, PREEMPTIONS: 2.0}


# ------------------------------------------------------------------------------ how long


async def test_a_reply_is_waited_for_by_its_tokens_until_the_server_has_shown_how_fast_it_is() -> None:
    patience = AdaptiveTimeout()
    assert patience.seconds(512) == 60 + 256
    for _ in range(32):
        patience.learn(2.0)
    assert patience.seconds(512) == 20  # never less
    patience.learn(30.0)
    assert patience.seconds(512) == 150
    assert patience.seconds(16) == 68  # never more than its tokens may take


async def test_a_slow_reply_counts_among_256_and_no_longer() -> None:
    patience = AdaptiveTimeout()
    for latency_s in (30.0, 20.0, *[2.0] * 254):
        patience.learn(latency_s)
    assert patience.seconds(512) == 150
    patience.learn(2.0)
    assert patience.seconds(512) == 100  # 30 s is forgotten, 20 s is not
    patience.learn(2.0)
    assert patience.seconds(512) == 20


async def test_what_was_sent_before_much_was_known_is_not_waited_for_longer_than_the_rest() -> None:
    patience = AdaptiveTimeout()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(patience.seconds(512)) as limit:
        patience.begin(limit, 512)
        assert (limit.when() or 0) - loop.time() > 300
        for _ in range(32):
            patience.learn(2.0)
        await asyncio.sleep(0)
        assert (limit.when() or 0) - loop.time() <= 20


# ------------------------------------------------------------------------------ a server that is gone


class Health:
    """Answers as it is told, and counts how often it was asked."""

    def __init__(self, *answers: bool) -> None:
        self.answers, self.n = list(answers), 0

    async def __call__(self) -> bool:
        self.n += 1
        await asyncio.sleep(0)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def no_time(_seconds: float) -> None:
    await asyncio.sleep(0)


async def test_many_failures_at_once_are_one_look() -> None:
    health = Health(True)
    circuit = CircuitBreaker("m", health, outage_s=1)
    assert all(await asyncio.gather(*(circuit.answers() for _ in range(50))))
    assert health.n == 1


async def test_requests_wait_for_a_server_that_comes_back_and_are_told() -> None:
    messages: list[str] = []
    circuit = CircuitBreaker(
        "m", Health(False, False, False, True), outage_s=60, on_message=messages.append, sleep=no_time
    )
    assert not await circuit.answers()
    assert circuit.is_open
    await asyncio.wait_for(asyncio.gather(*(circuit.wait() for _ in range(20))), 1)
    assert not circuit.is_open
    assert "does not answer" in messages[0]
    assert "answers again" in messages[1]


async def test_one_that_does_not_come_back_ends_the_stage() -> None:
    ticks = iter(range(1000))
    circuit = CircuitBreaker("m", Health(False), outage_s=10, sleep=no_time, clock=lambda: float(next(ticks)))
    await circuit.answers()
    with pytest.raises(EndpointError, match="within 10 s"):
        await circuit.wait()
    await circuit.close()


async def test_an_outage_costs_no_attempt(unused_tcp_port_factory: Callable[[], int]) -> None:
    port = unused_tcp_port_factory()
    async with HttpChat(
        base_url=f"http://127.0.0.1:{port}/v1",
        addresses=("127.0.0.1",),
        model="tiny-gen",
        max_attempts=1,
        outage_s=30,
    ) as model:
        pending = asyncio.ensure_future(model.complete(ASK))
        await asyncio.sleep(0.6)
        assert not pending.done()
        with LoopbackServer(port=port):
            assert (await asyncio.wait_for(pending, 20)).finish_reason == "stop"


async def test_a_failing_request_to_a_server_that_is_well_costs_attempts() -> None:
    with LoopbackServer() as server:
        server.fail("reset")
        async with HttpChat(
            base_url=server.url, addresses=("127.0.0.1",), model="tiny-gen", max_attempts=3, sleep=no_time
        ) as model:
            with pytest.raises(ChatError, match="attempts: 3"):
                await model.complete(ASK)
        assert len(server.requests) == 3


async def test_a_request_that_meets_more_than_three_outages_costs_attempts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def is_down(_breaker: CircuitBreaker) -> bool:
        return False

    monkeypatch.setattr(
        CircuitBreaker, "answers", is_down
    )  # down at each look, and up before the next request
    with LoopbackServer() as server:
        server.fail("reset")
        async with HttpChat(
            base_url=server.url, addresses=("127.0.0.1",), model="tiny-gen", max_attempts=2, sleep=no_time
        ) as model:
            with pytest.raises(ChatError, match="attempts: 2"):
                await model.complete(ASK)
    assert len(server.requests) == 3 + 2


# ------------------------------------------------------------------------------ several servers


def pair(first: LoopbackServer, second: LoopbackServer, **options: Any) -> HttpChat:
    return HttpChat(
        base_url=first.url,
        addresses=("127.0.0.1",),
        model="tiny-gen",
        replicas=((second.url, ("127.0.0.1",)),),
        **options,
    )


async def test_requests_go_to_the_server_with_the_fewest_in_flight() -> None:
    with LoopbackServer() as quick, LoopbackServer(latency_s=1) as slow:
        async with pair(quick, slow) as model:

            async def ask(_number: int) -> object:
                return await model.complete(ASK)

            await for_each(range(60), ask, ignore, limit=FixedLimit(6), stop=Never())
    assert len(quick.requests) + len(slow.requests) == 60
    assert len(quick.requests) > 3 * len(slow.requests) > 0
    assert abs(quick.most_in_flight - slow.most_in_flight) <= 1


async def test_what_one_server_loses_another_one_answers() -> None:
    with LoopbackServer() as stays, LoopbackServer(die_after=5) as dies:
        async with pair(dies, stays, max_attempts=2) as model:
            before = [await model.complete(ASK) for _ in range(10)]
            await asyncio.to_thread(dies.join)
            after = [await model.complete(ASK) for _ in range(20)]
    assert [reply.finish_reason for reply in (*before, *after)] == ["stop"] * 30
    assert (len(dies.requests), len(stays.requests)) == (5, 25)


async def test_an_endpoint_has_the_addresses_of_every_server() -> None:
    with LoopbackServer() as first, LoopbackServer() as second:
        spec = ModelSpec(name="tiny-gen", url=first.url, replicas=(second.url,))
        endpoint = await resolve(spec, api_key=None, allow_external=())
    assert (endpoint.spec, endpoint.host, endpoint.addresses) == (spec, "127.0.0.1", ("127.0.0.1",))
    assert endpoint.replicas == ((second.url, ("127.0.0.1",)),)
    assert (endpoint.external, endpoint.load_s, endpoint.gpu_addresses) == (False, 0.0, ())
    assert endpoint.facts
    assert endpoint.facts.max_model_len == 8192


async def test_servers_of_one_model_that_differ_are_refused() -> None:
    with LoopbackServer() as first, LoopbackServer({"tiny-gen": 4096}) as second:
        spec = ModelSpec(name="tiny-gen", url=first.url, replicas=(second.url,))
        with pytest.raises(EndpointError, match=r"differ in max model len: 8192 .* 4096"):
            await resolve(spec, api_key=None, allow_external=())


# ------------------------------------------------------------------------------ replies that are none


async def test_a_reply_without_end_is_cut_off() -> None:
    with LoopbackServer() as server:
        server.answer(200, b" " * (17 * 2**20))
        async with HttpChat(
            base_url=server.url, addresses=("127.0.0.1",), model="tiny-gen", max_attempts=1
        ) as model:
            with pytest.raises(ChatError, match="16 MiB"):
                await model.complete(ASK)


async def test_a_compressed_reply_is_no_reply() -> None:
    with LoopbackServer() as server:
        server.answer(200, b"\x1f\x8b" + b"\0" * 100, {"Content-Encoding": "gzip"})
        async with HttpChat(
            base_url=server.url, addresses=("127.0.0.1",), model="tiny-gen", max_attempts=1
        ) as model:
            with pytest.raises(ChatError, match="expected a chat completion"):
                await model.complete(ASK)
