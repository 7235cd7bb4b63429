"""Closed loops against one server under increasing load.

A level is a number of requests in flight; a repeat is one closed loop at a level: each request that ends is
replaced by the next one. The first repeat of all levels precedes the second, so that a slow drift of the
machine affects all levels alike. Each repeat starts with as many warm-up requests as are in flight; their
times do not count.
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
"""File of all timed requests of a sweep."""

_MIN_REQUESTS: Final = 20
_REQUESTS_PER_SLOT: Final = 5
"""Default number of requests of a repeat per request in flight: the steady window is then four replies
long."""
_METRICS_TIMEOUT_S: Final = 3.0
_GAUGE_INTERVAL_S: Final = 1.0
_NEVER_S: Final = 1e9


class RequestProgress(Protocol):
    """Progress of the requests of a sweep."""

    def row(self, row: TimedRequest) -> None:
        """Report a finished request, after its row is on disk."""
        ...

    def end(self) -> None:
        """End the display; further calls have no effect."""
        ...


class SweepProgress(Protocol):
    """Progress of a sweep; the command line displays it."""

    def stage(self, name: str, model: str, *, total: int, done: int) -> RequestProgress:
        """Start the display of ``total`` requests."""
        ...

    def note(self, text: str) -> None:
        """Show a message: a server that starts, a finished repeat."""
        ...


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """Levels, repeats and requests of a sweep."""

    levels: tuple[int, ...]
    repeats: int
    requests: int | None = None

    def repeats_in_turn(self) -> Iterator[tuple[int, int]]:
        """Yield level and repeat; each repeat goes through all levels before the next repeat."""
        return ((level, repeat) for repeat in range(1, self.repeats + 1) for level in self.levels)

    def n_requests(self, level: int) -> int:
        """Return the number of requests of a repeat, without warm-up."""
        return self.requests or max(_MIN_REQUESTS, _REQUESTS_PER_SLOT * level)

    @property
    def n_all(self) -> int:
        """Number of all requests, warm-up included."""
        return self.repeats * sum(self.n_requests(level) + level for level in self.levels)


class ClosedLoopRunner:
    """Runs closed loops against one endpoint and writes their rows."""

    def __init__(
        self, store: RunStore, load: Load, endpoint: Endpoint, progress: RequestProgress, stop: Stop
    ) -> None:
        self._store, self._load, self._endpoint = store, load, endpoint
        self._progress, self._stop = progress, stop
        self._salt = now() if endpoint.facts is not None and endpoint.facts.version else ""

    async def run(
        self, model: StreamingChat, level: int, repeat: int, n: int
    ) -> tuple[list[TimedRequest], list[Reading]]:
        """Run one closed loop, and read the server's metrics before, during and after it.

        Raises:
            Interrupted: the user asked to stop; requests in flight were finished and written.
            EndpointError: the server stopped answering.
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
                await context.enter_async_context(Scraper([self._server()], read, every_s=_NEVER_S))
                watched = await context.enter_async_context(self._server())
                await context.enter_async_context(background_task(_watch(watched, read)))
            with self._store.writer(REQUESTS) as requests:
                started = perf_counter()

                async def ask(index: int) -> TimedRequest:
                    return await self._ask(model, index, started, level, repeat, warm_up=index >= n)

                async def emit(_place: int, row: TimedRequest) -> None:
                    requests.append(row)
                    rows.append(row)
                    self._progress.row(row)

                indices = iter([*range(n, n + level), *range(n)])
                await for_each(indices, ask, emit, limit=FixedLimit(level), stop=self._stop)
        with self._store.writer(METRICS) as metrics:
            for reading in readings:
                metrics.append(reading)
        if self._stop.is_set() and len(rows) < n + level:
            raise Interrupted("stopped")
        return rows, readings

    async def _ask(
        self, model: StreamingChat, index: int, started: float, level: int, repeat: int, *, warm_up: bool
    ) -> TimedRequest:
        round_number, position = divmod(index, len(self._load.prompts))
        prompt = self._load.prompts[position]
        # the salt differs in each round, so that no prompt hits its own earlier prefix in the cache;
        # the prefix that prompts share is cached within a round, as in a run
        extra_body = {"cache_salt": f"{self._salt} {level} {repeat} {round_number}"} if self._salt else {}
        fields: dict[str, Any] = {
            "concurrency": level,
            "repeat": repeat,
            "sample_id": prompt.sample_id,
            "warm_up": warm_up,
            "start_s": perf_counter() - started,
        }
        try:
            reply = await model.ask(prompt.request, extra_body)
        except ChatError as error:
            end_s = perf_counter() - started
            return TimedRequest(**fields, end_s=end_s, reason=error.reason, detail=error.detail)
        return TimedRequest(
            **fields,
            end_s=fields["start_s"] + reply.e2e_s,
            ttft_s=reply.ttft_s,
            e2e_s=reply.e2e_s,
            gaps_s=reply.gaps_s,
            usage=reply.usage,
            finish_reason=reply.finish_reason,
            n_items=0 if reply.finish_reason == "length" else prompt.count(reply.text),
        )

    def _server(self) -> Server:
        spec = self._endpoint.spec
        return Server(spec.url or "", api_key(spec), _METRICS_TIMEOUT_S, addresses=self._endpoint.addresses)


async def _watch(server: Server, read: Callable[[float, Mapping[str, float]], None]) -> None:
    """Read the KV cache usage once a second, and only that: parsing all metrics would delay the timing."""
    started = perf_counter()
    while True:
        answer = await server.ask("/metrics", root=True)
        usage = read_gauge(answer.content, KV_CACHE)
        if usage is not None:
            read(perf_counter() - started, {KV_CACHE: usage})
        await asyncio.sleep(_GAUGE_INTERVAL_S)


def streaming(endpoint: Endpoint) -> StreamingChat:
    """Return a streaming client with the settings of the stages."""
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
        prefix_items=facts is not None and facts.version is not None,
        fields={} if facts is None else facts.fields,
        addresses=endpoint.addresses,
        extra_body=spec.request_extras(
            knows_repetition=facts is not None and bool(facts.repetition_detection)
        ),
    )
