"""One server under more and more load: the prompts of a stage, closed loops, and what they showed.

A level is a number of requests in flight, a repeat one closed loop at a level: as soon as a request ends the next is sent. All
levels are gone through once before any is repeated, so that a machine that slowly changes does so for all of them. Each repeat begins
with as many requests as are in flight, which fill the server and whose times count nowhere.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, Protocol

from qaeval.chat.protocol import ChatError
from qaeval.chat.streaming import StreamingChat
from qaeval.environment import now
from qaeval.errors import Interrupted
from qaeval.records import KV_CACHE, Reading, TimedRequest
from qaeval.registry.find import api_key
from qaeval.run.endpoint import Endpoint
from qaeval.run.loop import for_each
from qaeval.run.pace import FixedLimit
from qaeval.run.watch import Stop
from qaeval.serving.client import Server
from qaeval.serving.load import read_gauge
from qaeval.serving.metrics import Scraper
from qaeval.serving.server import background_task
from qaeval.storage.run_directory import METRICS, RunStore
from qaeval.sweep.load import Load

REQUESTS: Final = "requests.jsonl"
"""Every request of a sweep, as it was timed."""

_LEAST_REQUESTS: Final = 20
_REQUESTS_EACH: Final = 5
"""Requests of a repeat for each one in flight, where nothing is said: the steady window is then four replies long."""
_METRICS_S: Final = 3.0
_GAUGE_S: Final = 1.0
_NEVER_S: Final = 1e9


class Shown(Protocol):
    """Watches the requests of a sweep."""

    def row(self, row: TimedRequest) -> None:
        """Take note of a finished request, after its row is on disk."""
        ...

    def end(self) -> None:
        """End; a second time changes nothing."""
        ...


class Progress(Protocol):
    """Watches a sweep; the command line draws it."""

    def stage(self, name: str, model: str, *, total: int, done: int) -> Shown:
        """Begin with ``total`` requests."""
        ...

    def note(self, text: str) -> None:
        """Pass on what happens: a server that starts, a repeat that is finished."""
        ...


@dataclass(frozen=True, kw_only=True)
class Course:
    """Which levels, how often, with how many requests each."""

    levels: tuple[int, ...]
    repeats: int
    requests: int | None = None

    def repeats_in_turn(self) -> Iterator[tuple[int, int]]:
        """Yield level and repeat, every level once before any is repeated."""
        return ((level, repeat) for repeat in range(1, self.repeats + 1) for level in self.levels)

    def n_requests(self, level: int) -> int:
        """Return the requests of a repeat that count."""
        return self.requests or max(_LEAST_REQUESTS, _REQUESTS_EACH * level)

    @property
    def n_all(self) -> int:
        """All requests, those that fill the server among them."""
        return self.repeats * sum(self.n_requests(level) + level for level in self.levels)


class Loops:
    """Runs closed loops against one endpoint and writes their rows."""

    def __init__(self, store: RunStore, load: Load, endpoint: Endpoint, shown: Shown, stop: Stop) -> None:
        self._store, self._load, self._endpoint = store, load, endpoint
        self._shown, self._stop = shown, stop
        self._salt = now() if endpoint.facts is not None and endpoint.facts.version else ""

    async def run(
        self, model: StreamingChat, level: int, repeat: int, n: int
    ) -> tuple[list[TimedRequest], list[Reading]]:
        """Run one closed loop, and read the server's metrics before, meanwhile and after.

        Raises:
            Interrupted: the user asked to stop; what was in flight is finished and kept.
            EndpointError: the server is gone.
        """
        rows: list[TimedRequest] = []
        readings: list[Reading] = []
        session = f"{level}/{repeat}"

        def read(at_s: float, values: Mapping[str, float], missing: tuple[str, ...] = ()) -> None:
            stage, name = self._load.stage, self._load.spec.name
            readings.append(
                Reading(stage=stage, model=name, session=session, at_s=at_s, values=values, missing=missing)
            )

        async with AsyncExitStack() as context:
            if self._endpoint.facts is not None and self._endpoint.facts.metrics:
                await context.enter_async_context(Scraper(self._server(), read, every_s=_NEVER_S))
                watched = await context.enter_async_context(self._server())
                await context.enter_async_context(background_task(_watch(watched, read)))
            with self._store.writer(REQUESTS) as requests:
                began = perf_counter()

                async def ask(place: int) -> TimedRequest:
                    return await self._ask(model, place, began, level, repeat, warm_up=place >= n)

                async def emit(_place: int, row: TimedRequest) -> None:
                    requests.append(row)
                    rows.append(row)
                    self._shown.row(row)

                places = iter([*range(n, n + level), *range(n)])
                await for_each(places, ask, emit, limit=FixedLimit(level), stop=self._stop)
        with self._store.writer(METRICS) as metrics:
            for reading in readings:
                metrics.append(reading)
        if self._stop.is_set() and len(rows) < n + level:
            raise Interrupted("stopped")
        return rows, readings

    async def _ask(
        self, model: StreamingChat, place: int, began: float, level: int, repeat: int, *, warm_up: bool
    ) -> TimedRequest:
        again, at = divmod(place, len(self._load.prompts))
        prompt = self._load.prompts[at]
        # a prompt that was asked before is not found in the prefix cache, while what prompts share is, as in a run
        more = {"cache_salt": f"{self._salt} {level} {repeat} {again}"} if self._salt else {}
        about: dict[str, Any] = {
            "concurrency": level,
            "repeat": repeat,
            "sample_id": prompt.sample_id,
            "warm_up": warm_up,
            "start_s": perf_counter() - began,
        }
        try:
            reply = await model.ask(prompt.request, more)
        except ChatError as error:
            end_s = perf_counter() - began
            return TimedRequest(**about, end_s=end_s, reason=error.reason, detail=error.detail)
        return TimedRequest(
            **about,
            end_s=about["start_s"] + reply.e2e_s,
            ttft_s=reply.ttft_s,
            e2e_s=reply.e2e_s,
            gaps_s=reply.gaps_s,
            usage=reply.usage,
            finish_reason=reply.finish_reason,
            n_items=0 if reply.finish_reason == "length" else prompt.count(reply.text),
        )

    def _server(self) -> Server:
        spec = self._endpoint.spec
        return Server(spec.url or "", api_key(spec), _METRICS_S, addresses=self._endpoint.addresses)


async def _watch(server: Server, read: Callable[[float, Mapping[str, float]], None]) -> None:
    """Read how full the KV cache is, once a second; all of ``/metrics`` would take time from the clock's own thread."""
    began = perf_counter()
    while True:
        answer = await server.ask("/metrics", root=True)
        used = read_gauge(answer.content, KV_CACHE)
        if used is not None:
            read(perf_counter() - began, {KV_CACHE: used})
        await asyncio.sleep(_GAUGE_S)


def streaming(endpoint: Endpoint) -> StreamingChat:
    """Return the model that is asked for streams, set up as the stages do."""
    spec, facts = endpoint.spec, endpoint.facts
    no_system = facts is not None and facts.system_role is False
    limit = None if facts is None else facts.max_logprobs
    return StreamingChat(
        base_url=spec.url or "",
        model=spec.served,
        api_key=api_key(spec),
        structured=spec.structured == "json_schema",
        merge_system=no_system or spec.system_role == "merge",
        max_top_logprobs=20 if limit is None else limit,
        addresses=endpoint.addresses,
        extra_body=spec.request_extras(),
    )
