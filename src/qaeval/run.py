"""The order of the stages, and the only reader of clock, git and environment.

A run directory goes through ``generate``, ``grade`` and ``report``; ``compare`` is the three in order. Each can be
stopped at any moment and called again: what is finished is never asked again.
"""

import asyncio
import os
import platform
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from qaeval import __version__
from qaeval.chat.protocol import Sampling
from qaeval.config import ModelSpec, Serving
from qaeval.errors import DataError, EndpointError, Interrupted, UsageError
from qaeval.evaldef import EvalDefinition
from qaeval.models import Endpoint, connect, resolve, without_server
from qaeval.prepare import Judging
from qaeval.publish import publish
from qaeval.records import Generation, Reading, Record, Session
from qaeval.report.document import Report
from qaeval.report.facts import RunFacts
from qaeval.serving.client import Server
from qaeval.serving.conductor import Conductor
from qaeval.serving.metrics import Scraper
from qaeval.stages import generate as generating
from qaeval.stages import grade as grading
from qaeval.stages.loop import for_each
from qaeval.stages.progress import Progress
from qaeval.stages.watch import Stop, Watch, listening
from qaeval.store import GENERATIONS, GRADES, METRICS, SESSIONS, RunStore, finished

_METRICS_S: Final = 3.0
"""Longest wait for a server's metrics; a busy one must not hold up the stage."""

_RESTARTS: Final = 2
"""So often a server of ours that died during a stage is started again."""

_JUDGE_SAMPLING: Final = Sampling(temperature=0.0, top_p=1.0, max_tokens=512, seed=0)
"""Room for a paragraph of reasons; a judge that runs over is `truncated`, never cut to a letter."""

_Task = TypeVar("_Task")


class Runner:
    """Takes one run directory through its stages; a context manager, so that no server of its own outlives it.

    Args:
        store: the open run directory.
        progress: told of every stage and row.
        concurrency: requests in flight.
        serving: how a model without a URL is served.
        allow_external: hosts outside the user's network that may be sent data.
        on_stop: called when the user asks to stop for the first time.
    """

    def __init__(
        self,
        store: RunStore,
        progress: Progress,
        *,
        concurrency: int,
        serving: Serving | None = None,
        allow_external: Sequence[str] = (),
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._progress = progress
        self._concurrency = concurrency
        self._allow_external = allow_external
        self._stop = Stop(on_stop)
        self._adapters: tuple[ModelSpec, ...] = ()
        self._conductor = Conductor(
            serving or Serving(),
            env=os.environ,
            logs=store.path / "logs",
            told=progress.note,
            stopped=self._stop.is_set,
        )

    def __enter__(self) -> Self:
        self._loop = asyncio.Runner()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._loop.run(self._conductor.close())
        finally:
            self._loop.close()

    def check(self, *specs: ModelSpec) -> None:
        """Look at every endpoint, and at the arguments of every server to start, before the first GPU second is spent.

        Raises:
            UsageError: a model cannot be reached or started, or its key is missing.
            EndpointError: a server cannot be used.
        """
        self._loop.run(self._check(specs))

    async def _check(self, specs: Sequence[ModelSpec]) -> None:
        hosted = [spec for spec in specs if spec.is_hosted]
        for spec in specs:
            if not spec.is_hosted:
                await self._resolve(spec)
            elif not self._conductor.is_available:
                raise UsageError(without_server(spec))
            api_key(spec)
        await self._conductor.check(hosted)

    def generate(self, candidates: Sequence[ModelSpec], definition: EvalDefinition) -> None:
        """Ask every candidate for what it has not answered yet.

        Models that qaeval serves itself come last and side by side with their adapters, in the order given, so that each
        is loaded once; one that is also the judge should be named last.

        Raises:
            Interrupted: the user asked to stop; what was in flight is finished and kept.
            EndpointError: a server cannot be used, or stopped answering; finished rows are kept.
            StoreError: a row could not be written.
        """
        self._loop.run(self._generate(candidates, definition))

    def grade(self, judging: Judging) -> None:
        """Have the judge grade every item that has no letter yet.

        Raises:
            DataError: there is nothing to grade.
            NotComparableError: the run was graded by another judge or rubric.
            Interrupted, EndpointError, StoreError: as in ``generate``.
        """
        _record_judging(self._store, judging)
        self._loop.run(self._grade(judging))

    async def _generate(self, candidates: Sequence[ModelSpec], definition: EvalDefinition) -> None:
        self._adapters = tuple(spec for spec in candidates if spec.lora)
        with listening(self._stop):
            for spec in in_turns(candidates):
                await self._generate_with(spec, definition)

    async def _generate_with(self, spec: ModelSpec, definition: EvalDefinition) -> None:
        listed = generating.tasks(spec.name, self._store.samples())
        sampling = spec.sampled(Sampling(**definition.sampling.model_dump()))
        lenient = spec.structured == "off"

        async def stage(endpoint: Endpoint, todo: Sequence[generating.GenerateTask]) -> None:
            async with connect(endpoint, api_key=api_key(spec)) as model:

                async def work(task: generating.GenerateTask) -> Record:
                    return await generating.generate_one(model, task, definition, sampling, lenient=lenient)

                await self._stage("generate", endpoint, listed, todo, work, GENERATIONS)

        await self._through(spec, lambda: self._unfinished(listed, self._store.generations()), stage)

    async def _grade(self, judging: Judging) -> None:
        spec = judging.judge
        generations = [row for row in self._store.generations().values() if isinstance(row, Generation)]
        listed = grading.tasks(spec.name, self._store.samples(), generations)
        if not listed:
            raise DataError(f"{self._store.path}: no generation succeeded, so there is nothing to grade")
        sampling = spec.sampled(_JUDGE_SAMPLING)
        lenient = spec.structured == "off"

        async def stage(endpoint: Endpoint, todo: Sequence[grading.GradeTask]) -> None:
            async with connect(endpoint, api_key=api_key(spec)) as model:

                async def work(task: grading.GradeTask) -> Record:
                    return await grading.grade_one(
                        model, task, judging.rubric, sampling, mode=spec.judge_mode, lenient=lenient
                    )

                await self._stage("grade", endpoint, listed, todo, work, GRADES)

        with listening(self._stop):
            await self._through(spec, lambda: self._unfinished(listed, self._store.grades()), stage)

    async def _through(
        self,
        spec: ModelSpec,
        unfinished: Callable[[], list[_Task]],
        stage: Callable[[Endpoint, list[_Task]], Coroutine[Any, Any, None]],
    ) -> None:
        """Work through a model's stage; a server of ours that dies meanwhile is started again, a few times."""
        for restarts_left in range(_RESTARTS, -1, -1):
            todo = unfinished()
            if not todo:
                return
            endpoint = await self._resolve(spec)
            if not spec.is_hosted:
                await stage(endpoint, todo)
                return
            try:
                await self._until_death(asyncio.ensure_future(stage(endpoint, todo)))
            except EndpointError:
                if not self._conductor.lost():
                    raise
            why = self._conductor.lost()
            if not why:
                return
            if not restarts_left:
                raise EndpointError(
                    f"{why}\nstarted {_RESTARTS + 1} times and given up; finished rows are kept"
                )

    async def _until_death(self, work: "asyncio.Future[None]") -> None:
        """Wait for the work; where the server dies first, what is in flight is dropped, not recorded as failed."""
        death = asyncio.ensure_future(self._conductor.death())
        try:
            await asyncio.wait([work, death], return_when=asyncio.FIRST_COMPLETED)
            died = not work.done()
            if died:
                work.cancel()
            try:
                await work
            except asyncio.CancelledError:
                if not died:
                    raise
        finally:
            work.cancel()
            death.cancel()

    async def _resolve(self, spec: ModelSpec) -> Endpoint:
        key = api_key(spec)
        if spec.is_hosted:
            if not self._conductor.is_available:
                raise UsageError(without_server(spec))
            beside = [one for one in self._adapters if one.lora and one.lora.base == spec.hosting.name]
            url = await self._conductor.serve(spec, adapters=beside, api_key=key)
            spec = spec.model_copy(update={"url": url})
        return await resolve(spec, api_key=key, allow_external=self._allow_external)

    @staticmethod
    def _unfinished(listed: Sequence[_Task], rows: Mapping[str, Record]) -> list[_Task]:
        done = finished(rows)
        return [task for task in listed if task.task_id not in done]  # type: ignore[attr-defined]

    async def _stage(
        self,
        stage: Literal["generate", "grade"],
        endpoint: Endpoint,
        listed: Sequence[_Task],
        todo: Sequence[_Task],
        work: Callable[[_Task], Awaitable[Record]],
        file: str,
    ) -> None:
        """Work through one model's tasks; whatever ends the stage, its session is written."""
        self._store.drop_manifest()
        name = endpoint.spec.name
        started, clock = _now(), time.perf_counter()
        scraped = self._scraped(stage, endpoint, started)
        with self._store.writer(file) as rows:
            watch = Watch(rows.append, self._progress, concurrency=self._concurrency)
            self._progress.stage(f"{stage} {name}", total=len(listed), done=len(listed) - len(todo))
            try:
                async with scraped:
                    await for_each(todo, work, watch, concurrency=self._concurrency, stop=self._stop)
            finally:
                self._progress.end()
                self._write_session(stage, endpoint, started, time.perf_counter() - clock, watch.n_done)
        if self._stop.is_set():
            raise Interrupted(
                f"stopped; {watch.n_done} finished in this session are kept in {self._store.path}"
            )

    def _scraped(
        self, stage: Literal["generate", "grade"], endpoint: Endpoint, started: str
    ) -> AbstractAsyncContextManager[object]:
        """Read the server's metrics for the length of a stage, where it has any."""
        spec = endpoint.spec
        if endpoint.facts is None or not endpoint.facts.metrics or spec.url is None:
            return nullcontext()
        server = Server(spec.url, api_key(spec), _METRICS_S, addresses=endpoint.addresses)

        def write(at_s: float, values: Mapping[str, float], missing: tuple[str, ...]) -> None:
            reading = Reading(
                stage=stage, model=spec.name, session=started, at_s=at_s, values=values, missing=missing
            )
            with self._store.writer(METRICS) as rows:
                rows.append(reading)

        return Scraper(server, write)

    def _write_session(
        self,
        stage: Literal["generate", "grade"],
        endpoint: Endpoint,
        started: str,
        seconds: float,
        n_tasks: int,
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
            endpoint=facts.model_dump(mode="json") if facts else None,
        )
        with self._store.writer(SESSIONS) as sessions:
            sessions.append(session)


def in_turns(specs: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Order models so that each server that qaeval starts is started once: an adapter follows its base."""
    bases = list(dict.fromkeys(spec.hosting.name for spec in specs))
    return sorted(specs, key=lambda spec: (spec.is_hosted, bases.index(spec.hosting.name)))


def write_report(store: RunStore, *, label_paths: Sequence[Path], margin: float, command: str) -> Report:
    """Analyse a run, write its reports, and mark it complete with the manifest.

    Args:
        store: The run.
        label_paths: Files of labels, one or more raters each.
        margin: Smallest difference of usable rates that matters.
        command: What the user typed.

    Raises:
        DataError: the run is not finished, or a label file is not readable.
    """
    sessions = store.sessions()
    facts = RunFacts(
        id=store.path.name,
        started=min((session.started for session in sessions), default=_now()),
        finished=_now(),
        qaeval_version=__version__,
        git_commit=git_commit(),
        python=platform.python_version(),
        platform=platform.platform(),
        command=command,
        warnings=tuple(store.warnings),
    )
    return publish(store, facts, label_paths=label_paths, margin=margin)


def _record_judging(store: RunStore, judging: Judging) -> None:
    """Write who grades into the run's settings, or refuse another judge or rubric than the first one."""
    settings = store.settings()
    wanted = {**settings, "grading": judging.settings()}
    if settings.get("grading") is None:
        store.write_settings(wanted)
    else:
        store.require_settings(wanted)


def api_key(spec: ModelSpec) -> str | None:
    """Read the model's key from the environment variable that the registry names.

    Raises:
        UsageError: the variable is not set.
    """
    if spec.api_key_env is None:
        return None
    key = os.environ.get(spec.api_key_env)
    if not key:
        raise UsageError(
            f"{spec.name}: the registry takes its key from ${spec.api_key_env}, which is not set"
        )
    return key


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_run_name() -> str:
    """Name a run by the time it starts."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def git_commit() -> str:
    """Return the commit of the working directory, ``-dirty`` appended where files differ; "" without git."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],  # noqa: S607 - the user's git
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
