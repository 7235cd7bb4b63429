"""The stages of a run, in order.

A run directory goes through ``generate``, ``grade`` and ``report``; ``compare`` is the first two. Each can be
stopped at any moment and called again: finished tasks are not asked again.

The core is asynchronous (``async with Runner(…) as runner: await runner.acompare(…)``). Every method has a
synchronous form for scripts and the command line, which runs a private event loop.
"""

import asyncio
import time
from collections import Counter
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Container,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeAlias

from qaeval.chat.cached import Cache
from qaeval.chat.protocol import Sampling
from qaeval.errors import DataError, EndpointError, Interrupted, NotComparableError
from qaeval.evals.definition import EvalDefinition
from qaeval.files.rows import ReplyIndex
from qaeval.records import Failure, GradeRow, Sample, Session
from qaeval.registry.config import ModelSpec, Serving
from qaeval.run import grade
from qaeval.run.controls import ControlStage
from qaeval.run.endpoint import Endpoint
from qaeval.run.estimate import (
    MIN_SAMPLES,
    N_PROBED,
    Quiet,
    WorkEstimate,
    estimate,
    estimate_grades,
    probed_candidates,
)
from qaeval.run.hosting import ServerManager, lanes, runs_apart
from qaeval.run.plan import Judging
from qaeval.run.repeats import GenerateRepeats, GradeRepeats, deterministic_note
from qaeval.run.session import RunContext, run_stage
from qaeval.run.stages import GenerateStage, GradeStage, GradingQueue, Stage, StoredReplies, ignore
from qaeval.run.watch import Progress, Stop, Unwatched, stop_on_signals
from qaeval.run.weights import known_weights, why_asked
from qaeval.serving.exporter import Exporter
from qaeval.storage.run_directory import GENERATIONS, GRADES, LOGS, RunStore, differences, further_files

_Parameters = ParamSpec("_Parameters")
_CandidateWork: TypeAlias = Callable[[ModelSpec, bool], Awaitable[None]]
_CandidateError: TypeAlias = EndpointError | DataError | Interrupted


def _synchronous(
    method: Callable[Concatenate["Runner", _Parameters], Coroutine[Any, Any, None]],
) -> Callable[Concatenate["Runner", _Parameters], None]:
    """Return the form of a coroutine method for a thread without an event loop."""

    def run(self: "Runner", /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> None:
        self._run(method(self, *args, **kwargs))

    run.__doc__ = method.__doc__
    return run


class Runner:
    """Takes one run directory through its stages; a context manager, so that no server it starts outlives it.

    Args:
        store: The open run directory.
        progress: Notified of every stage and row.
        concurrency: Requests in flight; None: as many as keep the servers busy.
        serving: How a model without a URL is served.
        allow_external: Hosts outside the user's network that may be sent data.
        outage_s: Longest wait for a server that stopped answering, in seconds.
        cache: Folder of the replies of earlier runs; None: every request is sent.
        exporter: Counts requests in flight and machine time; None: no metrics are served.
        sample_ids: Samples to ask about, where the run is one shard of several; None: all.
        on_stop: Called once, when a stop is requested for the first time.
        handle_signals: Whether Ctrl-C and SIGTERM request a stop while a stage runs; never outside the main
            thread.
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
        sample_ids: Container[str] | None = None,
        on_stop: Callable[[], None] = lambda: None,
        handle_signals: bool = True,
    ) -> None:
        self._store = store
        self._sample_ids = sample_ids
        self._progress = progress
        self._stop = Stop(on_stop)
        self._handle_signals = handle_signals
        self._cache = None if cache is None else Cache(cache, on_message=progress.note)
        self._servers = ServerManager(
            serving,
            logs=store.path / LOGS,
            on_message=progress.note,
            stopped=self._stop.is_set,
            allow_external=allow_external,
        )
        self._context = RunContext(
            store=store,
            servers=self._servers,
            progress=progress,
            stop=self._stop,
            concurrency=concurrency,
            outage_s=outage_s,
            cache=self._cache,
            exporter=exporter,
        )
        self._open = ExitStack()
        self._loop: asyncio.Runner | None = None

    def stop(self) -> None:
        """Request a stop, from any thread.

        No new task begins, those in flight finish and are kept, and the stage raises `Interrupted`.
        """
        self._stop.request()

    # ---------------------------------------------------------------- asynchronous

    async def __aenter__(self) -> Self:
        if self._cache is not None:
            self._open.enter_context(self._cache)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._servers.close()
        finally:
            self._open.close()

    async def acheck(self, *specs: ModelSpec) -> None:
        """Probe every endpoint, and check the arguments of every server to start, before a GPU is used.

        Raises:
            UsageError: a model cannot be reached or started, or its key is missing.
            EndpointError: a server cannot be used.
        """
        endpoints = await self._servers.check(specs)
        if self._cache is not None:
            for endpoint in endpoints:
                self._note_reuse(self._cache, endpoint)

    def _note_reuse(self, cache: Cache, endpoint: Endpoint) -> None:
        """Say why a model with a server is asked what an earlier run asked it."""
        spec, facts = endpoint.spec, endpoint.facts
        if facts is None:
            return
        weights = known_weights(spec, facts, env=self._servers.local_env)
        earlier = cache.weights(spec.entry)
        if text := why_asked(spec.entry, weights, earlier):
            self._progress.note(text)
        if weights is not None and weights not in earlier[-1:]:
            cache.remember(spec.entry, weights)

    async def aestimate(
        self, candidates: Sequence[ModelSpec], definition: EvalDefinition, judging: Judging | None
    ) -> WorkEstimate | None:
        """Ask about the first samples and extrapolate; None for a small run, and without a server.

        The probe has a run directory of its own, which is removed: its few requests at a time are no measure of the run's speed.
        Models whose server qaeval starts are not all probed, since each would be loaded twice
        (`qaeval.run.estimate.probed_candidates`).

        Args:
            candidates: Who answers.
            definition: The eval.
            judging: Judge and rubric; None where nothing is graded.

        Raises:
            as ``acompare``.
        """
        judge = None if judging is None else judging.judge
        probed, with_judge = probed_candidates(candidates, judge)
        n_samples = sum(1 for _ in self._store.sample_ids())
        if not probed or n_samples < MIN_SAMPLES:
            return None
        self._note(f"probing the speed with {N_PROBED} of {n_samples:,} samples")
        samples = islice(self._store.samples(), N_PROBED)
        with (
            TemporaryDirectory(prefix="qaeval-") as folder,
            RunStore.create(Path(folder, "probe"), self._store.settings(), samples, resume=False) as store,
            self._elsewhere(store),
        ):
            started = time.perf_counter()
            if judging is not None and with_judge:
                await self.acompare(probed, definition, judging)
            else:
                await self.agenerate(probed, definition)
            seconds, sessions = time.perf_counter() - started, store.sessions()
            load_s = self._carry_loads(sessions, probed)
            return estimate(
                (*store.generations(), *(store.grades() if with_judge else ())),
                sessions,
                wall_s=seconds - load_s,
                probed=probed,
                candidates=candidates,
                judge=judge,
                is_judge_probed=with_judge,
                n_samples=n_samples,
                items_per_sample=definition.items_per_sample,
            )

    async def aestimate_grades(self, judging: Judging) -> WorkEstimate | None:
        """Have the judge grade the items of the first samples and extrapolate; see `aestimate`.

        Args:
            judging: Judge and rubric.

        Raises:
            as ``agrade``.
        """
        with self._store.replies() as replies:
            ids = replies.sample_ids(MIN_SAMPLES)
            first = {sample_id: replies.of(sample_id) for sample_id in ids[:N_PROBED]}
            n_items = replies.n_items - len(self._store.finished(_grades_of(self._store, judging)))
        if judging.judge.kind != "server" or len(ids) < MIN_SAMPLES or n_items <= 0:
            return None
        n_samples = sum(1 for _ in self._store.sample_ids())
        self._note(f"probing the speed with {N_PROBED} of {n_samples:,} samples")
        settings = {**self._store.settings(), "grading": None}
        samples = (sample for sample in self._store.samples() if sample.sample_id in first)
        with (
            TemporaryDirectory(prefix="qaeval-") as folder,
            RunStore.create(Path(folder, "probe"), settings, samples, resume=False) as store,
            self._elsewhere(store),
        ):
            with store.writer(GENERATIONS) as writer:
                for row in chain.from_iterable(first.values()):
                    writer.append(row)
            started = time.perf_counter()
            await self._grade(judging)
            seconds, sessions = time.perf_counter() - started, store.sessions()
            return estimate_grades(
                store.grades(),
                sessions,
                wall_s=seconds - self._carry_loads(sessions, [judging.judge]),
                n_items=n_items,
                n_samples=n_samples,
            )

    def _carry_loads(self, sessions: Sequence[Session], specs: Sequence[ModelSpec]) -> float:
        """Count the starts of servers in the run, and return their seconds."""
        loads = {session.model: session.load_s for session in sessions if session.load_s}
        for spec in specs:
            if spec.name in loads:
                self._servers.carry_load(spec, loads[spec.name])
        return sum(loads.values())

    @contextmanager
    def _elsewhere(self, store: RunStore) -> Iterator[None]:
        """Work in another run directory, without progress and cache, while the block runs.

        Raises:
            Interrupted, EndpointError: as the work, without its promise that rows are kept.
        """
        own = self._store, self._progress, self._context
        self._store, self._progress = store, Quiet(self._progress)
        self._context = replace(self._context, store=store, progress=self._progress, cache=None)
        try:
            yield
        except Interrupted as error:
            raise Interrupted("stopped before the run began") from error
        except EndpointError as error:
            text = str(error).replace("; finished rows are kept", "")
            raise EndpointError(f"{text}; the run has not begun") from error
        finally:
            self._store, self._progress, self._context = own

    async def acompare(
        self,
        candidates: Sequence[ModelSpec],
        definition: EvalDefinition,
        judging: Judging,
        *,
        repeat: int = 1,
        repeat_judge: int = 1,
        controls: bool = False,
    ) -> None:
        """Generate and grade, at the same time where the judge shares no server with a candidate.

        A run without any item is complete: its failures are its result.

        Args:
            candidates: Who answers.
            definition: The eval.
            judging: Judge and rubric.
            repeat: As in ``agenerate``.
            repeat_judge: As ``repeat`` of ``agrade_repeats``.
            controls: Whether the judge grades planted controls too.

        Raises:
            as ``agenerate`` and ``agrade``.
        """
        if runs_apart(candidates, judging.judge):
            _record_judging(self._store, judging)
            with self._signals():
                await self._generate_and_grade(candidates, definition, judging)
                if controls:
                    with self._store.replies() as replies:
                        await self._grade_controls(judging, replies)
                # after the last letter: the judge's session must not hold the time of repeats
                await self._side_by_side(
                    candidates,
                    lambda spec, alongside: self._repeat(
                        spec, definition, repeat=repeat, alongside=alongside
                    ),
                )
        else:
            await self.agenerate(candidates, definition, repeat=repeat)
            await self._grade(judging, controls=controls)
        await self.agrade_repeats(judging, repeat=repeat_judge)

    async def agenerate(
        self, candidates: Sequence[ModelSpec], definition: EvalDefinition, *, repeat: int = 1
    ) -> None:
        """Ask every candidate for what it has not answered yet.

        Candidates with servers of their own work side by side; if one fails, the others finish before the error is raised.
        Those that share a server take turns. Models that qaeval serves itself come last and next to their adapters, in
        the order given, so that each is loaded once; a candidate that is also the judge should be named last.

        Args:
            candidates: Who answers.
            definition: The eval.
            repeat: Replies to each sample, that of the run included.

        Raises:
            Interrupted: the user asked to stop; requests in flight finish and are kept.
            EndpointError: a server cannot be used, or stopped answering; finished rows are kept.
            StoreError: a row could not be written.
        """
        with self._signals():
            await self._generate(candidates, definition, repeat=repeat)

    async def agrade(
        self,
        judging: Judging,
        *,
        samples: Iterable[Sample] | None = None,
        candidates: Container[str] | None = None,
        items: Collection[str] | None = None,
        on_row: Callable[[GradeRow], Awaitable[None]] = ignore,
        max_concurrency: int | None = None,
        controls: bool = False,
    ) -> None:
        """Have the judge grade every item that has no grade of it yet.

        The letters of a judge that is not the one in the settings are kept beside those.

        Args:
            judging: Judge and rubric.
            samples: Samples whose items are graded, in this order, read while the judge works; None: all.
            candidates: Names of the candidates whose items are graded; None: all.
            items: Ids of the items that are graded; None: all.
            on_row: Called with every row after it is written.
            max_concurrency: Highest number of requests in flight; None: as many as keep the server busy.
            controls: Whether the judge grades planted controls at the end.

        Raises:
            DataError: there is nothing to grade; of a shard alone that is fine, since others may have items.
            NotComparableError: the run was graded by another rubric, or by the judge with other settings.
            Interrupted, EndpointError, StoreError: as in ``agenerate``.
        """
        has_items = await self._grade(
            judging,
            samples=samples,
            candidates=candidates,
            items=items,
            on_row=on_row,
            max_concurrency=max_concurrency,
            controls=controls,
        )
        if not has_items and self._sample_ids is None:
            raise _nothing_to_grade(self._store)

    async def _grade(
        self,
        judging: Judging,
        *,
        samples: Iterable[Sample] | None = None,
        candidates: Container[str] | None = None,
        items: Collection[str] | None = None,
        on_row: Callable[[GradeRow], Awaitable[None]] = ignore,
        max_concurrency: int | None = None,
        controls: bool = False,
    ) -> bool:
        """Grade as ``agrade`` does; return whether the run has an item."""
        file = _record_grading(self._store, judging)
        with self._store.replies() as replies:
            if not replies.n_items:
                return False
            tasks = StoredReplies(
                store=self._store,
                replies=replies,
                judge=judging.judge.name,
                file=file,
                samples=samples,
                candidates=candidates,
                items=items,
            )
            stage = GradeStage(
                judging,
                tasks,
                sees=grade.judge_sees(self._store.settings()),
                max_concurrency=max_concurrency,
                on_row=on_row,
                file=file,
            )
            with self._signals():
                await run_stage(stage, self._context)
                if controls:
                    await self._grade_controls(judging, replies)
        return True

    async def _grade_controls(self, judging: Judging, replies: ReplyIndex) -> None:
        """Have the judge grade the planted controls that have no grade yet.

        Raises:
            EndpointError: the judge's server cannot be used; every item keeps its grade.
        """
        try:
            stage = ControlStage(judging, self._store, replies)
            await run_stage(stage, self._context, progress=Unwatched())
        except EndpointError as error:
            raise EndpointError(
                f"{error}\nevery item is graded, the planted controls are not; `qaeval grade {self._store.path}` "
                f"grades them, `qaeval report {self._store.path}` reports the run without them"
            ) from error

    async def agrade_repeats(self, judging: Judging, *, repeat: int = 1) -> None:
        """Have the judge grade the items of the candidates' further replies, and the items of the run again.

        Args:
            judging: Judge and rubric.
            repeat: Letters for each item of the run, the first included.

        Raises:
            NotComparableError: the run was graded by another judge or rubric.
            Interrupted, EndpointError, StoreError: as in ``agenerate``.
        """
        _record_judging(self._store, judging)
        if repeat > 1:
            self._note(deterministic_note(judging.judge, grade.SAMPLING))
        with self._signals():
            await run_stage(GradeRepeats(judging, self._store, repeat=repeat), self._context)

    async def awork(self, stage: Stage[Any, Any]) -> None:
        """Work through the pending tasks of any stage, such as that of an audit.

        Args:
            stage: What to do; its rows go to the run directory.

        Raises:
            Interrupted, EndpointError, StoreError: as in ``agenerate``.
        """
        with self._signals():
            await run_stage(stage, self._context)

    async def _generate(
        self,
        candidates: Sequence[ModelSpec],
        definition: EvalDefinition,
        queue: GradingQueue | None = None,
        *,
        repeat: int = 1,
    ) -> None:
        self._servers.adapters = tuple({spec.entry: spec for spec in candidates if spec.lora}.values())
        await self._side_by_side(
            candidates,
            lambda spec, alongside: self._ask(
                spec, definition, queue=queue, repeat=repeat, alongside=alongside
            ),
        )

    async def _ask(
        self,
        spec: ModelSpec,
        definition: EvalDefinition,
        *,
        queue: GradingQueue | None,
        repeat: int,
        alongside: bool,
    ) -> None:
        """Ask one candidate for all of its replies."""
        stage = GenerateStage(
            spec, definition, self._store, sample_ids=self._sample_ids, queue=queue, alongside=alongside
        )
        try:
            await run_stage(stage, self._context)
        finally:
            if queue is not None:
                queue.end(spec.name)
        await self._repeat(spec, definition, repeat=repeat, alongside=alongside)

    async def _repeat(
        self, spec: ModelSpec, definition: EvalDefinition, *, repeat: int, alongside: bool
    ) -> None:
        if repeat > 1:
            self._note(deterministic_note(spec, Sampling(**definition.sampling.model_dump())))
            stage = GenerateRepeats(spec, definition, self._store, repeat=repeat, alongside=alongside)
            await run_stage(stage, self._context)

    async def _side_by_side(self, candidates: Sequence[ModelSpec], work: _CandidateWork) -> None:
        """Work with candidates of separate servers at the same time, with those of one server in turns.

        Args:
            candidates: Those inside this process come first, since they hold up everything else.
            work: Called with each candidate, and whether others work at the same time.

        Raises:
            EndpointError, DataError: a candidate failed, and the others of its server were not asked; those of other servers
                finished first.
            Interrupted: the user asked to stop.
        """
        for spec in candidates:
            if spec.in_process:
                await work(spec, False)
        groups = lanes(candidates)
        n_at_work = len(groups)
        errors: list[_CandidateError] = []

        async def in_turns(group: Sequence[ModelSpec]) -> None:
            nonlocal n_at_work
            try:
                for spec in group:
                    await work(spec, len(groups) > 1)
            except (EndpointError, DataError, Interrupted) as error:
                errors.append(error)
                if n_at_work > 1 and not isinstance(error, Interrupted):
                    self._note(f"{error}. The other candidates continue")
            finally:
                n_at_work -= 1

        try:
            async with asyncio.TaskGroup() as tasks:
                for group in groups:
                    tasks.create_task(in_turns(group))
        except ExceptionGroup as raised:
            raise raised.exceptions[0] from None
        if errors:
            raise _joined(errors)

    def _note(self, text: str | None) -> None:
        if text:
            self._progress.note(text)

    async def _generate_and_grade(
        self,
        candidates: Sequence[ModelSpec],
        definition: EvalDefinition,
        judging: Judging,
    ) -> None:
        """Grade items as they are written; a bounded queue holds the candidates back for a slow judge.

        If a candidate fails, the judge grades what there is before the error is raised.
        """
        n_samples = sum(
            self._sample_ids is None or id_ in self._sample_ids for id_ in self._store.sample_ids()
        )
        progress = self._progress.stage(
            "grade",
            judging.judge.name,
            total=len(candidates) * n_samples * definition.items_per_sample,
            done=len(self._store.finished(GRADES)),
        )
        queue = GradingQueue(
            self._store, judging.judge.name, progress, items_per_sample=definition.items_per_sample
        )

        failed: list[EndpointError | DataError] = []

        async def produce() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(queue.put_stored())
                    try:
                        await self._generate(candidates, definition, queue)
                    except (EndpointError, DataError) as error:
                        failed.append(error)
            except ExceptionGroup as raised:
                raise raised.exceptions[0] from None
            finally:
                queue.close()

        try:
            stage = GradeStage(judging, queue, sees=grade.judge_sees(self._store.settings()), alongside=True)
            grading = run_stage(stage, self._context, progress=progress)
            await _run_both(produce(), grading)
        finally:
            progress.end()
        if failed:
            raise failed[0]

    def _signals(self) -> AbstractContextManager[None]:
        return stop_on_signals(self._stop) if self._handle_signals else nullcontext()

    # ---------------------------------------------------------------- synchronous

    def __enter__(self) -> Self:
        _require_no_loop()
        self._loop = asyncio.Runner()
        self._run(self.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._run(self.__aexit__(kind, error, traceback))
        finally:
            if self._loop is not None:
                self._loop.close()

    check = _synchronous(acheck)

    def estimate(
        self, candidates: Sequence[ModelSpec], definition: EvalDefinition, judging: Judging | None
    ) -> WorkEstimate | None:
        """Estimate a run; see `aestimate`."""
        result: WorkEstimate | None = self._run(self.aestimate(candidates, definition, judging))
        return result

    def estimate_grades(self, judging: Judging) -> WorkEstimate | None:
        """Estimate the grading of a run; see `aestimate_grades`."""
        result: WorkEstimate | None = self._run(self.aestimate_grades(judging))
        return result

    compare = _synchronous(acompare)
    generate = _synchronous(agenerate)
    grade = _synchronous(agrade)
    grade_repeats = _synchronous(agrade_repeats)
    work = _synchronous(awork)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what the coroutine returns
        if self._loop is None:
            work.close()
            raise RuntimeError("a method of Runner was called outside `with`; enter it first")
        try:
            _require_no_loop()
        except RuntimeError:
            work.close()
            raise
        return self._loop.run(work)


def _require_no_loop() -> None:
    """Refuse to block a running event loop.

    Raises:
        RuntimeError: this thread runs one.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "Runner was used synchronously in a running event loop: use `async with Runner(...)` with acheck, "
        "acompare, agenerate and agrade, or call it in a thread"
    )


async def _run_both(*work: Coroutine[Any, Any, None]) -> None:
    """Run coroutines together; when one fails, cancel the others.

    `Interrupted` cancels none: each stage has seen the request to stop, and finishes what is in flight.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        while pending := [task for task in tasks if not task.done()]:
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            errors = [task.exception() for task in tasks if task.done()]
            if any(error is not None and not isinstance(error, Interrupted) for error in errors):
                break
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for error in results:
        if isinstance(error, Exception):
            raise error


def _joined(errors: Sequence[_CandidateError]) -> _CandidateError:
    """Return what ends the run: the stop that the user asked for, else the error of the candidates, or all of them as one."""
    stops = [error for error in errors if isinstance(error, Interrupted)]
    if stops or len(errors) == 1:
        return [*stops, *errors][0]
    return type(errors[0])("\n".join(map(str, errors)))


def _nothing_to_grade(store: RunStore) -> DataError:
    failures = [row for row in store.generations() if isinstance(row, Failure)]
    reasons = Counter(row.reason for row in failures)
    why = "; ".join(
        f"{n:,} × {reason}: {next(row.detail for row in failures if row.reason == reason)}"
        for reason, n in reasons.most_common(3)
    )
    return DataError(
        f"{store.path}: no generation succeeded, so there is nothing to grade "
        f"({why or 'nothing was asked'}); see {store.path / GENERATIONS}"
    )


def _record_grading(store: RunStore, judging: Judging) -> str:
    """Write judge and rubric into the run, as those of the settings or beside them; return the file of the letters.

    Raises:
        NotComparableError: the run was graded by another rubric, or by the judge with other settings.
    """
    grading, requested = store.settings().get("grading"), judging.settings()
    file = _grades_of(store, judging)
    if grading is None or file == GRADES:
        _record_judging(store, judging)
        return file
    if different := differences(grading["rubric"], requested["rubric"]):
        raise NotComparableError(
            f"{store.path}: graded by {grading['judge']['name']} with another rubric: {different}. All judges of a run "
            f"grade by the same one: --rubric with that of the run, or a copy of the run"
        )
    store.write_further_judge(requested)
    return file


def _grades_of(store: RunStore, judging: Judging) -> str:
    """Return the file of a judge's letters: those of the settings, or beside them."""
    grading = store.settings().get("grading")
    is_first = grading is None or grading["judge"]["name"] == judging.judge.name
    return GRADES if is_first else further_files(judging.judge.name)[1]


def _record_judging(store: RunStore, judging: Judging) -> None:
    """Write judge and rubric into the run's settings, or refuse others than those of the first grading.

    Raises:
        NotComparableError: the run was graded by another judge or rubric.
    """
    settings = store.settings()
    requested = {**settings, "grading": judging.settings()}
    if settings.get("grading") is None:
        store.write_settings(requested)
    else:
        store.require_settings(requested)
