"""One stage with one model, in this process: ask, write, measure, record how long it took."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from qaeval import __version__
from qaeval.chat.cached import Cache, Cached
from qaeval.chat.protocol import ChatModel
from qaeval.environment import git_commit, now
from qaeval.errors import EndpointError, Interrupted
from qaeval.records import Reading, Record, Session
from qaeval.registry.config import ModelSpec
from qaeval.registry.find import api_key
from qaeval.run.endpoint import Endpoint, connect
from qaeval.run.hosting import ServerManager
from qaeval.run.loop import for_each
from qaeval.run.pace import AdaptiveLimit, FixedLimit
from qaeval.run.stages import PendingTasks, Stage
from qaeval.run.watch import Progress, RowRecorder, StageProgress, Stop
from qaeval.run.weights import known_weights
from qaeval.serving.client import Server
from qaeval.serving.energy import EnergyWatch
from qaeval.serving.exporter import Exporter
from qaeval.serving.gpus import gpu_meter
from qaeval.serving.load import LoadWatcher, is_idle
from qaeval.serving.metrics import Scraper
from qaeval.storage.run_directory import METRICS, SESSIONS, RunStore

_METRICS_S: Final = 3.0
"""Longest wait for a server's metrics; a busy one must not hold up the stage."""
HOSTED_CONCURRENCY: Final = 8
"""Requests in flight to a hosted API, whose limits are not known, unless the user says otherwise."""
_IN_PROCESS_CONCURRENCY: Final = 4
"""A model inside qaeval computes in the thread that writes rows: more at once only wait."""
_MAX_RESTARTS: Final = 2
"""Restarts of a server that qaeval started and that died in a stage. A server that dies three times has a
cause that lasts."""

_Task = TypeVar("_Task")
_Row = TypeVar("_Row", bound=Record)


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What all stages of a run share.

    Attributes:
        store: The open run directory.
        servers: Finds and starts the servers of models.
        progress: Notified of every stage and row.
        stop: Set when the user asks to stop.
        concurrency: Requests in flight; None: as many as keep the servers busy.
        outage_s: Longest wait for a server that stopped answering.
        cache: Replies of earlier runs; None: every request is sent.
        exporter: Counts requests in flight and machine time; None: no metrics are served.
    """

    store: RunStore
    servers: ServerManager
    progress: Progress
    stop: Stop
    concurrency: int | None = None
    outage_s: float = 120.0
    cache: Cache | None = None
    exporter: Exporter | None = None


async def run_stage(
    stage: Stage[_Task, _Row], context: RunContext, *, progress: StageProgress | None = None
) -> None:
    """Work through the pending tasks of a stage; restart a server of qaeval that dies meanwhile.

    Args:
        stage: What to do.
        context: Of the run.
        progress: Of this stage, where the caller has begun it already.

    Raises:
        Interrupted: the user asked to stop; requests in flight finish and are kept.
        EndpointError: a server cannot be used, stopped answering, or died too often; finished rows are kept.
        StoreError: a row could not be written.
    """
    why_dead = ""
    for _ in range(1 + _MAX_RESTARTS):
        pending = stage.pending()
        if not pending:
            return
        endpoint = await context.servers.resolve(stage.spec)
        session = _Session(stage, context, endpoint, pending, progress)
        why_dead = await context.servers.run_while_alive(stage.spec, session.run())
        if not why_dead:
            return
    raise EndpointError(
        f"{why_dead}\nstarted {1 + _MAX_RESTARTS} times without success; finished rows are kept"
    )


class _Session(Generic[_Task, _Row]):
    """One process's work on a stage with a model at one endpoint."""

    def __init__(
        self,
        stage: Stage[_Task, _Row],
        context: RunContext,
        endpoint: Endpoint,
        pending: PendingTasks[_Task],
        progress: StageProgress | None,
    ) -> None:
        self._stage, self._context, self._endpoint, self._pending = stage, context, endpoint, pending
        self._progress = progress
        self._started = ""

    async def run(self) -> None:
        """Work through the tasks; whatever ends the stage, its session is written."""
        stage, store, pending = self._stage, self._context.store, self._pending
        store.drop_manifest()  # before the first row: a manifest says that the run is complete
        energy = await self._energy_watch()
        progress = self._progress or self._context.progress.stage(
            stage.name, stage.spec.name, total=pending.n, done=pending.n_done
        )
        self._started, start_s = now(), time.perf_counter()
        with store.writer(stage.file) as rows:
            recorder = RowRecorder(rows.append, progress, stage.on_row, is_start=not pending.n_done)
            try:
                await self._work(recorder, energy)
            finally:
                progress.end()
                self._write_session(time.perf_counter() - start_s, recorder.n_rows, energy)
        if self._context.stop.is_set():
            raise Interrupted(f"stopped; everything that finished is kept in {store.path}")

    async def _work(self, recorder: RowRecorder, energy: EnergyWatch | None) -> None:
        stage, endpoint, context = self._stage, self._endpoint, self._context
        limit = self._limit()
        async with AsyncExitStack() as stack:
            model: ChatModel = await stack.enter_async_context(
                connect(
                    endpoint,
                    api_key=api_key(endpoint.spec),
                    outage_s=context.outage_s,
                    on_message=context.progress.note,
                    on_busy=limit.refused,
                )
            )
            if context.exporter is not None and stage.is_measured:
                model = stack.enter_context(
                    context.exporter.at_work(
                        stage.name, stage.spec.name, model, machine=endpoint.machine, load_s=endpoint.load_s
                    )
                )
            model = self._cached(model)
            await self._watch_server(stack, limit)
            if energy is not None:  # last, so that it measures the work and not the connecting
                await stack.enter_async_context(energy)
            await for_each(
                self._pending.tasks,
                lambda task: stage.ask(model, task),
                recorder,
                limit=limit,
                stop=context.stop,
            )

    def _limit(self) -> AdaptiveLimit | FixedLimit:
        if self._endpoint.facts is None:
            return FixedLimit(_IN_PROCESS_CONCURRENCY)
        maximum, concurrency = self._stage.max_concurrency, self._context.concurrency
        if concurrency is None and self._endpoint.spec.kind == "hosted":
            concurrency = HOSTED_CONCURRENCY
        if concurrency is None:
            return AdaptiveLimit() if maximum is None else AdaptiveLimit(maximum=maximum)
        return FixedLimit(concurrency if maximum is None else min(concurrency, maximum))

    def _cached(self, model: ChatModel) -> ChatModel:
        """Put the cache before a model whose replies depend on nothing that qaeval does not know."""
        spec, facts, cache = self._endpoint.spec, self._endpoint.facts, self._context.cache
        if (
            cache is None
            or facts is None
            or not self._stage.uses_cache
            or (weights := known_weights(self._stage.spec, facts, env=self._context.servers.local_env))
            is None
        ):
            return model
        merged = facts.system_role is False or spec.system_role == "merge"
        identity = [spec.identity(), weights, facts.max_model_len, merged]
        return Cached(model, cache, identity)

    async def _watch_server(self, stack: AsyncExitStack, limit: AdaptiveLimit | FixedLimit) -> None:
        """Read the server's metrics during the stage, where it has any: for the record, and for the limit."""
        endpoint, spec = self._endpoint, self._endpoint.spec
        if endpoint.facts is None or not endpoint.facts.metrics or spec.url is None:
            return
        if not self._stage.is_measured:
            return
        addresses_of = ((spec.url, endpoint.addresses), *endpoint.replicas)

        def servers() -> list[Server]:
            return [_metrics_of(url, spec, addresses) for url, addresses in addresses_of]

        await stack.enter_async_context(Scraper(servers(), self._write_reading))
        if isinstance(limit, AdaptiveLimit):
            await stack.enter_async_context(LoadWatcher(servers(), limit.reading, lambda: limit.is_searching))

    def _write_reading(self, at_s: float, values: Mapping[str, float], missing: tuple[str, ...]) -> None:
        reading = Reading(
            stage=self._stage.name,
            model=self._endpoint.spec.name,
            session=self._started,
            at_s=at_s,
            values=values,
            missing=missing,
        )
        with self._context.store.writer(METRICS) as rows:
            rows.append(reading)

    async def _energy_watch(self) -> EnergyWatch | None:
        """Find what reads the server's GPUs, and measure their idle power; None where nothing reads them."""
        endpoint, spec = self._endpoint, self._endpoint.spec
        if spec.url is None or not self._stage.is_measured:
            return None
        url = spec.url
        meter = await asyncio.to_thread(
            gpu_meter, spec, addresses=endpoint.addresses, exporter_addresses=endpoint.gpu_addresses
        )
        if meter is None:
            return None
        watch = EnergyWatch(
            meter,
            idle_watts=spec.idle_watts,
            is_idle=lambda: is_idle(_metrics_of(url, spec, endpoint.addresses)),
            alone=not self._stage.alongside,
        )
        await watch.before()
        return watch

    def _write_session(self, seconds: float, n_tasks: int, energy: EnergyWatch | None) -> None:
        if not self._stage.is_measured:
            return
        endpoint = self._endpoint
        session = session_of(
            endpoint,
            stage=self._stage.name,
            started=self._started,
            seconds=seconds,
            n_tasks=n_tasks,
            load_s=endpoint.load_s,
            alongside=self._stage.alongside,
            prompt_sha=self._stage.prompt_sha,
            energy=None if energy is None else energy.result(),
        )
        with self._context.store.writer(SESSIONS) as sessions:
            sessions.append(session)


def session_of(endpoint: Endpoint, **measured: Any) -> Session:  # noqa: ANN401 - fields of a record
    """Return the record of a stage's work at the servers of a model.

    Args:
        endpoint: Of the model.
        **measured: Fields of `Session` that do not follow from it.
    """
    return Session(
        model=endpoint.spec.name,
        qaeval_version=__version__,
        git_commit=git_commit(),
        host=endpoint.host or "",
        external=endpoint.external,
        endpoint=endpoint.facts.model_dump(mode="json") if endpoint.facts else None,
        **measured,
    )


def _metrics_of(url: str, spec: ModelSpec, addresses: tuple[str, ...]) -> Server:
    return Server(url, api_key(spec), _METRICS_S, addresses=addresses)
