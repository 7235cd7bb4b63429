"""The order of the stages.

A run directory goes through ``generate``, ``grade`` and ``report``; ``compare`` is the three in order. Each can be
stopped at any moment and called again: what is finished is never asked again.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Container, Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qaeval.chat.cached import Cache
from qaeval.chat.protocol import ChatModel, Sampling
from qaeval.errors import DataError, Interrupted
from qaeval.evals.definition import EvalDefinition
from qaeval.records import Failure, Generation, Record, Sample
from qaeval.registry.config import ModelSpec, Serving
from qaeval.run import generate as generating
from qaeval.run import grade as grading
from qaeval.run.endpoint import Endpoint
from qaeval.run.hosting import Hosting, in_turns, runs_apart
from qaeval.run.loop import Feed
from qaeval.run.plan import Judging
from qaeval.run.session import Sessions, Todo
from qaeval.run.watch import Progress, StageProgress, Stop, listening, nobody
from qaeval.serving.exporter import Exporter
from qaeval.storage.run_directory import GENERATIONS, GRADES, RunStore


class Runner:
    """Takes one run directory through its stages; a context manager, so that no server of its own outlives it.

    Args:
        store: the open run directory.
        progress: told of every stage and row.
        concurrency: requests in flight; None: as many as keep the servers busy.
        serving: how a model without a URL is served.
        allow_external: hosts outside the user's network that may be sent data.
        outage_s: longest wait for a server that stopped answering.
        cache: folder of the replies of earlier runs; None asks every question.
        exporter: told which model works on which machine; None: nobody reads.
        only: ids of the samples to ask about, where the run is one shard of several; None: all of them.
        on_stop: called when the user asks to stop for the first time.
    """

    def __init__(
        self,
        store: RunStore,
        progress: Progress,
        *,
        concurrency: int | None = None,
        serving: Serving | None = None,
        allow_external: Sequence[str] = (),
        outage_s: float = 120.0,
        cache: Path | None = None,
        exporter: Exporter | None = None,
        only: Container[str] | None = None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._only = only
        self._progress = progress
        self._stop = Stop(on_stop)
        self._cache = None if cache is None else Cache(cache, told=progress.note)
        self._sessions = Sessions(
            store=store,
            progress=progress,
            stop=self._stop,
            concurrency=concurrency,
            outage_s=outage_s,
            cache=self._cache,
            exporter=exporter,
        )
        self._hosting = Hosting.with_servers(
            serving,
            logs=store.path / "logs",
            told=progress.note,
            stopped=self._stop.is_set,
            allow_external=allow_external,
        )

    def __enter__(self) -> Self:
        self._open = ExitStack()
        if self._cache is not None:
            self._open.enter_context(self._cache)
        self._loop = asyncio.Runner()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._loop.run(self._hosting.close())
        finally:
            self._loop.close()
            self._open.close()

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

    def grade(
        self,
        judging: Judging,
        *,
        samples: Iterable[Sample] | None = None,
        candidates: Container[str] | None = None,
        then: Callable[[Any], Coroutine[Any, Any, None]] = nobody,
        most: int | None = None,
    ) -> None:
        """Have the judge grade every item that has no letter yet.

        Args:
            judging: Who grades by what.
            samples: Those whose items are graded, in this order, gone through while the judge works; None: all.
            candidates: Those whose items are graded; None: all.
            then: Told of every row after it is written.
            most: Requests in flight at most, where few must be begun in vain; None: as many as keep the server busy.

        Raises:
            DataError: there is nothing to grade.
            NotComparableError: the run was graded by another judge or rubric.
            Interrupted, EndpointError, StoreError: as in ``generate``.
        """
        _record_judging(self._store, judging)
        self._sessions = replace(self._sessions, most=most)
        self._loop.run(self._grade(judging, samples, candidates, then))

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
        name = judging.judge.name
        done = self._store.finished(GRADES)
        grades = self._progress.stage("grade", name, total=len(done), done=len(done))
        given: set[int] = set()
        in_work: dict[str, Sample] = {}

        async def hand_over(sample: Sample, generations: Sequence[Generation]) -> None:
            tasks = list(grading.tasks(name, sample, generations, done))
            new = [task for task in tasks if int(task.task_id, 16) not in given]
            given.update(int(task.task_id, 16) for task in new)
            grades.more(len(new))
            await feed.put(new)

        async def then(row: Any) -> None:  # noqa: ANN401 - a row of the generate stage
            sample = in_work.pop(row.sample_id)
            if isinstance(row, Generation):
                await hand_over(sample, [row])

        async def backlog() -> None:
            with self._store.replies() as replies:
                for sample in self._store.samples() if len(replies) else ():
                    await hand_over(sample, replies.of(sample.sample_id))

        async def write() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(backlog())
                    for spec in candidates:
                        await self._generate_with(spec, definition, in_work=in_work, then=then)
            except ExceptionGroup as raised:
                raise raised.exceptions[0] from None
            finally:
                feed.close()

        self._sessions = replace(self._sessions, alongside=True)
        with listening(self._stop):
            try:
                await _both(write(), self._grade_fed(judging, Todo(1, 0, feed), grades))
            finally:
                grades.end()
        if not (given or len(done)) and self._only is None:
            raise _nothing_to_grade(self._store)

    async def _generate_with(
        self,
        spec: ModelSpec,
        definition: EvalDefinition,
        *,
        in_work: dict[str, Sample] | None = None,
        then: Callable[[Any], Coroutine[Any, Any, None]] = nobody,
    ) -> None:
        sampling = spec.sampled(Sampling(**definition.sampling.model_dump()))
        lenient = spec.structured == "off"

        async def ask(model: ChatModel, task: generating.GenerateTask) -> Record:
            if in_work is not None:
                in_work[task.sample.sample_id] = task.sample
            return await generating.generate_one(model, task, definition, sampling, lenient=lenient)

        def unfinished() -> Todo[generating.GenerateTask]:
            done = self._store.finished(GENERATIONS)
            keys = [
                generating.task_id(spec.name, sample_id) in done
                for sample_id in self._store.sample_ids()
                if self._asks(sample_id)
            ]
            samples = (sample for sample in self._store.samples() if self._asks(sample.sample_id))
            tasks = generating.tasks(spec.name, samples, done)
            return Todo(len(keys), sum(keys), tasks)

        async def stage(endpoint: Endpoint, todo: Todo[generating.GenerateTask]) -> None:
            await self._sessions.run("generate", endpoint, todo, ask, GENERATIONS, then=then)

        await self._hosting.through(spec, unfinished, stage)

    def _asks(self, sample_id: str) -> bool:
        return self._only is None or sample_id in self._only

    async def _grade(
        self,
        judging: Judging,
        samples: Iterable[Sample] | None,
        candidates: Container[str] | None,
        then: Callable[[Any], Coroutine[Any, Any, None]],
    ) -> None:
        name = judging.judge.name
        with self._store.replies() as replies:
            if not replies.n_items:
                if self._only is not None:
                    return  # other shards may have something
                raise _nothing_to_grade(self._store)

            def unfinished() -> Todo[grading.GradeTask]:
                done = self._store.finished(GRADES)
                tasks = (
                    task
                    for sample in (self._store.samples() if samples is None else samples)
                    for task in grading.tasks(
                        name, sample, _by(candidates, replies.of(sample.sample_id)), done
                    )
                )
                return Todo(replies.n_items, len(done), tasks)

            async def stage(endpoint: Endpoint, todo: Todo[grading.GradeTask]) -> None:
                await self._sessions.run("grade", endpoint, todo, _asking(judging), GRADES, then=then)

            with listening(self._stop):
                await self._hosting.through(judging.judge, unfinished, stage)

    async def _grade_fed(
        self, judging: Judging, todo: Todo[grading.GradeTask], progress: StageProgress
    ) -> None:
        endpoint = await self._hosting.resolve(judging.judge)
        await self._sessions.run("grade", endpoint, todo, _asking(judging), GRADES, progress=progress)


def _by(candidates: Container[str] | None, replies: Iterable[Generation]) -> Iterator[Generation]:
    return (reply for reply in replies if candidates is None or reply.candidate in candidates)


def _asking(judging: Judging) -> Callable[[ChatModel, grading.GradeTask], Coroutine[Any, Any, Record]]:
    spec = judging.judge
    instructions = grading.Instructions.of(judging.rubric, spec.sampled(grading.SAMPLING), spec.judge_mode)
    lenient = spec.structured == "off"

    async def ask(model: ChatModel, task: grading.GradeTask) -> Record:
        return await grading.grade_one(model, task, instructions, lenient=lenient)

    return ask


def _nothing_to_grade(store: RunStore) -> DataError:
    lost = [row for row in store.generations() if isinstance(row, Failure)]
    reasons = Counter(row.reason for row in lost)
    why = "; ".join(
        f"{n:,} × {reason}: {next(row.detail for row in lost if row.reason == reason)}"
        for reason, n in reasons.most_common(3)
    )
    return DataError(
        f"{store.path}: no generation succeeded, so there is nothing to grade ({why or 'nothing was asked'}); "
        f"all of them stand in {store.path / GENERATIONS}"
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
