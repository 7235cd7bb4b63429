"""The order of the stages.

A run directory goes through ``generate``, ``grade`` and ``report``; ``compare`` is the three in order. Each can be
stopped at any moment and called again: what is finished is never asked again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from qaeval import __version__
from qaeval.chat.protocol import Sampling
from qaeval.config import ModelSpec, Serving
from qaeval.errors import DataError, Interrupted
from qaeval.evaldef import EvalDefinition
from qaeval.hosting import Hosting, in_turns, runs_apart
from qaeval.models import Endpoint, connect
from qaeval.prepare import Judging
from qaeval.records import Generation, Reading, Record, Session
from qaeval.serving.client import Server
from qaeval.serving.conductor import Conductor
from qaeval.serving.metrics import Scraper
from qaeval.stages import generate as generating
from qaeval.stages import grade as grading
from qaeval.stages.loop import Feed, for_each
from qaeval.stages.progress import Progress, StageProgress
from qaeval.stages.watch import Stop, Watch, listening
from qaeval.store import GENERATIONS, GRADES, METRICS, SESSIONS, RunStore, finished
from qaeval.surroundings import api_key, environment, git_commit, now

_METRICS_S: Final = 3.0
"""Longest wait for a server's metrics; a busy one must not hold up the stage."""

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
        self._stop = Stop(on_stop)
        self._alongside = False
        self._hosting = Hosting(
            Conductor(
                serving or Serving(),
                env=environment(),
                logs=store.path / "logs",
                told=progress.note,
                stopped=self._stop.is_set,
            ),
            allow_external=allow_external,
        )

    def __enter__(self) -> Self:
        self._loop = asyncio.Runner()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._loop.run(self._hosting.close())
        finally:
            self._loop.close()

    def check(self, *specs: ModelSpec) -> None:
        """Look at every endpoint, and at the arguments of every server to start, before the first GPU second is spent.

        Raises:
            UsageError: a model cannot be reached or started, or its key is missing.
            EndpointError: a server cannot be used.
        """
        self._loop.run(self._hosting.check(specs))

    def compare(self, candidates: Sequence[ModelSpec], definition: EvalDefinition, judging: Judging) -> None:
        """Generate and grade: side by side where candidates and judge run on servers of their own, else one after the other.

        Raises:
            as ``generate`` and ``grade``.
        """
        if runs_apart(candidates, judging.judge):
            _record_judging(self._store, judging)
            self._loop.run(self._side_by_side(candidates, definition, judging))
        else:
            self.generate(candidates, definition)
            self.grade(judging)

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
        self._hosting.adapters = tuple(spec for spec in candidates if spec.lora)
        with listening(self._stop):
            for spec in in_turns(candidates):
                await self._generate_with(spec, definition)

    async def _side_by_side(
        self, candidates: Sequence[ModelSpec], definition: EvalDefinition, judging: Judging
    ) -> None:
        """Grade items as they are written; each task once, whoever wrote the same item again."""
        feed: Feed[grading.GradeTask] = Feed()
        samples = {sample.sample_id: sample for sample in self._store.samples()}
        done = set(finished(self._store.grades()))
        grades = self._progress.stage(f"grade {judging.judge.name}", total=len(done), done=len(done))

        def take_on(row: Any) -> None:  # noqa: ANN401 - a row of the generate stage
            if isinstance(row, Generation):
                new = grading.tasks(judging.judge.name, [samples[row.sample_id]], [row])
                new = [task for task in new if task.task_id not in done]
                done.update(task.task_id for task in new)
                grades.more(len(new))
                feed.put(new)

        async def generate() -> None:
            try:
                for spec in candidates:
                    await self._generate_with(spec, definition, then=take_on)
            finally:
                feed.close()

        for row in self._store.generations().values():
            take_on(row)
        self._alongside = True
        with listening(self._stop):
            try:
                await _both(generate(), self._grade_with(judging, feed, grades))
            finally:
                grades.end()
        if not done:
            raise _nothing_to_grade(self._store.path)

    async def _generate_with(
        self, spec: ModelSpec, definition: EvalDefinition, *, then: Callable[[Any], None] = lambda _row: None
    ) -> None:
        listed = generating.tasks(spec.name, self._store.samples())
        sampling = spec.sampled(Sampling(**definition.sampling.model_dump()))
        lenient = spec.structured == "off"

        async def stage(endpoint: Endpoint, todo: Sequence[generating.GenerateTask]) -> None:
            async with connect(endpoint, api_key=api_key(spec)) as model:

                async def work(task: generating.GenerateTask) -> Record:
                    return await generating.generate_one(model, task, definition, sampling, lenient=lenient)

                progress = self._progress.stage(
                    f"generate {spec.name}", total=len(listed), done=len(listed) - len(todo)
                )
                await self._stage("generate", endpoint, todo, work, GENERATIONS, progress, then=then)

        await self._hosting.through(spec, lambda: self._unfinished(listed, self._store.generations()), stage)

    async def _grade(self, judging: Judging) -> None:
        spec = judging.judge
        generations = [row for row in self._store.generations().values() if isinstance(row, Generation)]
        listed = grading.tasks(spec.name, self._store.samples(), generations)
        if not listed:
            raise _nothing_to_grade(self._store.path)

        async def stage(endpoint: Endpoint, todo: list[grading.GradeTask]) -> None:
            progress = self._progress.stage(
                f"grade {spec.name}", total=len(listed), done=len(listed) - len(todo)
            )
            await self._grade_on(endpoint, judging, todo, progress)

        with listening(self._stop):
            await self._hosting.through(spec, lambda: self._unfinished(listed, self._store.grades()), stage)

    async def _grade_with(
        self, judging: Judging, feed: Feed[grading.GradeTask], progress: StageProgress
    ) -> None:
        await self._grade_on(await self._hosting.resolve(judging.judge), judging, feed, progress)

    async def _grade_on(
        self,
        endpoint: Endpoint,
        judging: Judging,
        todo: Iterable[grading.GradeTask] | Feed[grading.GradeTask],
        progress: StageProgress,
    ) -> None:
        spec = judging.judge
        sampling, lenient = spec.sampled(_JUDGE_SAMPLING), spec.structured == "off"
        async with connect(endpoint, api_key=api_key(spec)) as model:

            async def work(task: grading.GradeTask) -> Record:
                return await grading.grade_one(
                    model, task, judging.rubric, sampling, mode=spec.judge_mode, lenient=lenient
                )

            await self._stage("grade", endpoint, todo, work, GRADES, progress)

    @staticmethod
    def _unfinished(listed: Sequence[_Task], rows: Mapping[str, Record]) -> list[_Task]:
        done = finished(rows)
        return [task for task in listed if task.task_id not in done]  # type: ignore[attr-defined]

    async def _stage(
        self,
        stage: Literal["generate", "grade"],
        endpoint: Endpoint,
        todo: Iterable[_Task] | Feed[_Task],
        work: Callable[[_Task], Awaitable[Record]],
        file: str,
        progress: StageProgress,
        *,
        then: Callable[[Any], None] = lambda _row: None,
    ) -> None:
        """Work through one model's tasks; whatever ends the stage, its session is written."""
        self._store.drop_manifest()
        started, clock = now(), time.perf_counter()
        scraped = self._scraped(stage, endpoint, started)
        with self._store.writer(file) as rows:
            watch = Watch(rows.append, progress, concurrency=self._concurrency, then=then)
            try:
                async with scraped:
                    await for_each(todo, work, watch, concurrency=self._concurrency, stop=self._stop)
            finally:
                progress.end()
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
            load_s=endpoint.load_s,
            alongside=self._alongside,
            endpoint=facts.model_dump(mode="json") if facts else None,
        )
        with self._store.writer(SESSIONS) as sessions:
            sessions.append(session)


def _nothing_to_grade(path: Path) -> DataError:
    return DataError(
        f"{path}: no generation succeeded, so there is nothing to grade; why stands in {path / GENERATIONS}"
    )


async def _both(one: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Run both; when one fails the other is cancelled, but a user who asks to stop lets both finish what is in flight."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        while waiting := [task for task in tasks if not task.done()]:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            failed = [task.exception() for task in tasks if task.done()]
            if any(error is not None and not isinstance(error, Interrupted) for error in failed):
                break
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for error in results:
        if isinstance(error, Exception):
            raise error


def _record_judging(store: RunStore, judging: Judging) -> None:
    """Write who grades into the run's settings, or refuse another judge or rubric than the first one."""
    settings = store.settings()
    wanted = {**settings, "grading": judging.settings()}
    if settings.get("grading") is None:
        store.write_settings(wanted)
    else:
        store.require_settings(wanted)
