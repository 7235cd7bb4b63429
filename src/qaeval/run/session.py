"""One process's work on one stage with one model: ask, write, watch, and put on record how long it took."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from qaeval import __version__
from qaeval.chat.cached import Cache, Cached
from qaeval.chat.protocol import ChatModel
from qaeval.environment import git_commit, now
from qaeval.errors import Interrupted
from qaeval.records import Reading, Record, Session
from qaeval.registry.config import ModelSpec
from qaeval.registry.find import api_key
from qaeval.run.endpoint import Endpoint, connect
from qaeval.run.loop import Feed, for_each
from qaeval.run.pace import Auto, Fixed
from qaeval.run.watch import Progress, StageProgress, Stop, Watch, nobody
from qaeval.serving.client import Server
from qaeval.serving.energy import EnergyWatch
from qaeval.serving.exporter import Exporter
from qaeval.serving.gpus import gpu_meter
from qaeval.serving.load import LoadWatcher, is_idle
from qaeval.serving.metrics import Scraper
from qaeval.storage.run_directory import METRICS, SESSIONS, RunStore

Stage: TypeAlias = Literal["generate", "grade"]

_METRICS_S: Final = 3.0
"""Longest wait for a server's metrics; a busy one must not hold up the stage."""
_EMBEDDED_AT_ONCE: Final = 4
"""Embedded models think on the one core that writes, too: more at once only wait."""

_Task = TypeVar("_Task")


@dataclass(frozen=True)
class Todo(Generic[_Task]):
    """What a model has to do in a stage.

    Attributes:
        n: All of it.
        n_done: What was done by earlier sessions.
        tasks: The rest, one at a time.
    """

    n: int
    n_done: int
    tasks: Iterable[_Task] | Feed[_Task]

    def __bool__(self) -> bool:
        return self.n > self.n_done


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """Runs sessions of one run.

    Attributes:
        store: The open run directory.
        progress: Told of every stage and row.
        stop: Set when the user asks to stop.
        concurrency: Requests in flight; None: as many as keep the servers busy.
        outage_s: Longest wait for a server that stopped answering.
        cache: Replies of earlier runs; None asks every question.
        alongside: Whether the other stage runs at the same time.
        exporter: Told which model works on which machine; None: nobody reads.
        most: Requests in flight at most, whatever keeps the servers busy; None: no such limit.
    """

    store: RunStore
    progress: Progress
    stop: Stop
    concurrency: int | None = None
    outage_s: float = 120.0
    cache: Cache | None = None
    alongside: bool = False
    exporter: Exporter | None = None
    most: int | None = None

    async def run(
        self,
        stage: Stage,
        endpoint: Endpoint,
        todo: Todo[_Task],
        ask: Callable[[ChatModel, _Task], Awaitable[Record]],
        file: str,
        *,
        progress: StageProgress | None = None,
        then: Callable[[Any], Awaitable[None]] = nobody,
    ) -> None:
        """Work through one model's tasks; whatever ends the stage, its session is written.

        Args:
            stage: Which one.
            endpoint: Where the model answers.
            todo: What there is to do.
            ask: Makes a task a row; must not raise for what a model did.
            file: Takes the rows.
            progress: Where the caller began the stage itself.
            then: Told of every row after it is written; while it waits less is asked.

        Raises:
            Interrupted: the user asked to stop; what was in flight is finished and kept.
            EndpointError: the server stopped answering; finished rows are kept.
            StoreError: a row could not be written.
        """
        self.store.drop_manifest()
        spec = endpoint.spec
        energy = await self._energy(endpoint)
        shown = progress or self.progress.stage(stage, spec.name, total=todo.n, done=todo.n_done)
        started, clock = now(), time.perf_counter()
        with self.store.writer(file) as rows:
            watch = Watch(rows.append, shown, then=then)
            try:
                async with AsyncExitStack() as context:
                    pace = self._pace(endpoint)
                    model: ChatModel = await context.enter_async_context(
                        connect(
                            endpoint,
                            api_key=api_key(spec),
                            outage_s=self.outage_s,
                            told=self.progress.note,
                            on_busy=pace.refused,
                        )
                    )
                    if self.exporter is not None:
                        counted = self.exporter.at_work(
                            stage, spec.name, model, host=endpoint.host, load_s=endpoint.load_s
                        )
                        model = context.enter_context(counted)
                    model = self._cached(model, endpoint)
                    await self._watch_server(context, stage, endpoint, started, pace)
                    if energy is not None:
                        await context.enter_async_context(energy)
                    await for_each(
                        todo.tasks, lambda task: ask(model, task), watch, pace=pace, stop=self.stop
                    )
            finally:
                shown.end()
                self._write(stage, endpoint, started, time.perf_counter() - clock, watch.n_done, energy)
        if self.stop.is_set():
            raise Interrupted(f"stopped; everything that finished is kept in {self.store.path}")

    def _pace(self, endpoint: Endpoint) -> Auto | Fixed:
        if endpoint.facts is None:
            return Fixed(_EMBEDDED_AT_ONCE)
        if self.most is None:
            return Auto() if self.concurrency is None else Fixed(self.concurrency)
        return Auto(most=self.most) if self.concurrency is None else Fixed(min(self.concurrency, self.most))

    def _cached(self, model: ChatModel, endpoint: Endpoint) -> ChatModel:
        """Put the cache before a model whose replies hang on nothing that qaeval does not know."""
        spec, facts = endpoint.spec, endpoint.facts
        if self.cache is None or facts is None or not (is_pinned(spec) and facts.version):
            return model
        merged = facts.system_role is False or spec.system_role == "merge"
        identity = [spec.identity(), facts.version, facts.max_model_len, merged]
        return Cached(model, self.cache, identity)

    async def _watch_server(
        self, context: AsyncExitStack, stage: Stage, endpoint: Endpoint, started: str, pace: Auto | Fixed
    ) -> None:
        """Read the server's metrics for the length of the stage, where it has any: for the record, and for the pace."""
        spec = endpoint.spec
        if endpoint.facts is None or not endpoint.facts.metrics or spec.url is None:
            return

        def server(url: str, addresses: tuple[str, ...]) -> Server:
            return Server(url, api_key(spec), _METRICS_S, addresses=addresses)

        def write(at_s: float, values: Mapping[str, float], missing: tuple[str, ...]) -> None:
            reading = Reading(
                stage=stage, model=spec.name, session=started, at_s=at_s, values=values, missing=missing
            )
            with self.store.writer(METRICS) as rows:
                rows.append(reading)

        await context.enter_async_context(Scraper(server(spec.url, endpoint.addresses), write))
        if isinstance(pace, Auto):
            places = ((spec.url, endpoint.addresses), *endpoint.replicas)
            watcher = LoadWatcher(
                [server(*place) for place in places], pace.reading, lambda: pace.is_searching
            )
            await context.enter_async_context(watcher)

    async def _energy(self, endpoint: Endpoint) -> EnergyWatch | None:
        """Find what reads the server's GPUs, and see what they use before the stage; None where nothing reads them."""
        spec = endpoint.spec
        if spec.url is None:
            return None
        meter = await asyncio.to_thread(
            gpu_meter, spec, addresses=endpoint.addresses, exporter_addresses=endpoint.gpu_addresses
        )
        if meter is None:
            return None
        watch = EnergyWatch(
            meter,
            idle_watts=spec.idle_watts,
            is_idle=lambda: is_idle(
                Server(spec.url or "", api_key(spec), _METRICS_S, addresses=endpoint.addresses)
            ),
            alone=not self.alongside,
        )
        await watch.before()
        return watch

    def _write(
        self,
        stage: Stage,
        endpoint: Endpoint,
        started: str,
        seconds: float,
        n_tasks: int,
        energy: EnergyWatch | None,
    ) -> None:
        facts = endpoint.facts
        session = Session(
            stage=stage,
            model=endpoint.spec.name,
            started=started,
            seconds=seconds,
            n_tasks=n_tasks,
            qaeval_version=__version__,
            git_commit=git_commit(),
            host=endpoint.host or "",
            external=endpoint.external,
            load_s=endpoint.load_s,
            alongside=self.alongside,
            endpoint=facts.model_dump(mode="json") if facts else None,
            energy=None if energy is None else energy.found(),
        )
        with self.store.writer(SESSIONS) as sessions:
            sessions.append(session)


def is_pinned(spec: ModelSpec) -> bool:
    """Whether the registry says which weights answer: a revision of a repository, and no adapter from a folder."""
    return bool(spec.hf_id and spec.revision and spec.lora is None)
