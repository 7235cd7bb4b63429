"""The order of the stages, and the only reader of clock, git and environment.

A run directory goes through ``generate``, ``grade`` and ``report``; ``compare`` is the three in order. Each can be
stopped at any moment and called again: what is finished is never asked again.
"""

import asyncio
import os
import platform
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from qaeval import __version__
from qaeval.chat.protocol import Sampling
from qaeval.config import ModelSpec
from qaeval.errors import DataError, EndpointError, Interrupted, UsageError
from qaeval.evaldef import EvalDefinition
from qaeval.models import Endpoint, connect, resolve
from qaeval.prepare import Judging
from qaeval.publish import publish
from qaeval.records import Failure, Generation, Record, Session
from qaeval.report.document import Report
from qaeval.report.facts import RunFacts
from qaeval.stages import generate as generating
from qaeval.stages import grade as grading
from qaeval.stages.loop import for_each
from qaeval.stages.progress import Progress
from qaeval.store import GENERATIONS, GRADES, SESSIONS, RunStore, finished

_LOST_AFTER: Final = 8
"""So many requests in a row without an answer, and at least one per worker: the server is gone."""

_JUDGE_SAMPLING: Final = Sampling(temperature=0.0, top_p=1.0, max_tokens=512, seed=0)
"""Room for a paragraph of reasons; a judge that runs over is `truncated`, never cut to a letter."""

_Task = TypeVar("_Task")


class _Stop:
    """Set by the first Ctrl-C; the second one abandons what is in flight."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._asked = False
        self._on_first = on_first

    def is_set(self) -> bool:
        return self._asked

    def ask(self) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._on_first()


@contextmanager
def _listening(stop: _Stop) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM ask the stages to stop while the block runs."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.ask)
    try:
        yield
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(signum)


class _Watch:
    """Writes each row before anybody hears of it, and notices when a server is gone."""

    def __init__(self, append: Callable[[Record], None], progress: Progress, *, concurrency: int) -> None:
        self._append = append
        self._progress = progress
        self._limit = max(_LOST_AFTER, concurrency)
        self._lost = 0
        self.n_done = 0

    def __call__(self, row: Any) -> None:  # noqa: ANN401 - a row of either stage
        self._append(row)
        self._progress.row(row)
        self.n_done += 1
        self._lost = self._lost + 1 if isinstance(row, Failure) and row.reason == "endpoint" else 0
        if self._lost >= self._limit:
            raise EndpointError(
                f"{row.model}: the server stopped answering ({self._lost} requests in a row: {row.detail}); finished rows are kept"
            )


class Runner:
    """Takes one run directory through its stages.

    Args:
        store: the open run directory.
        progress: told of every stage and row.
        concurrency: requests in flight.
        allow_external: hosts outside the user's network that may be sent data.
        on_stop: called when the user asks to stop for the first time.
    """

    def __init__(
        self,
        store: RunStore,
        progress: Progress,
        *,
        concurrency: int,
        allow_external: Sequence[str] = (),
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._progress = progress
        self._concurrency = concurrency
        self._allow_external = allow_external
        self._stop = _Stop(on_stop)

    def check(self, *specs: ModelSpec) -> None:
        """Look at every endpoint before the first GPU second is spent.

        Raises:
            UsageError: a model has no URL, or its key is missing.
            EndpointError: a server cannot be used.
        """
        asyncio.run(self._check(specs))

    async def _check(self, specs: Sequence[ModelSpec]) -> None:
        for spec in specs:
            await self._resolve(spec)

    def generate(self, candidates: Sequence[ModelSpec], definition: EvalDefinition) -> None:
        """Ask every candidate for what it has not answered yet.

        Raises:
            Interrupted: the user asked to stop; what was in flight is finished and kept.
            EndpointError: a server cannot be used, or stopped answering; finished rows are kept.
            StoreError: a row could not be written.
        """
        asyncio.run(self._generate(candidates, definition))

    def grade(self, judging: Judging) -> None:
        """Have the judge grade every item that has no letter yet.

        Raises:
            DataError: there is nothing to grade.
            NotComparableError: the run was graded by another judge or rubric.
            Interrupted, EndpointError, StoreError: as in ``generate``.
        """
        _record_judging(self._store, judging)
        asyncio.run(self._grade(judging))

    async def _generate(self, candidates: Sequence[ModelSpec], definition: EvalDefinition) -> None:
        with _listening(self._stop):
            for spec in candidates:
                await self._generate_with(spec, definition)

    async def _generate_with(self, spec: ModelSpec, definition: EvalDefinition) -> None:
        endpoint = await self._resolve(spec)
        sampling = spec.sampled(Sampling(**definition.sampling.model_dump()))
        lenient = spec.structured == "off"
        listed = generating.tasks(spec.name, self._store.samples())
        todo = self._unfinished(listed, self._store.generations())
        async with connect(endpoint, api_key=api_key(spec)) as model:

            async def work(task: generating.GenerateTask) -> Record:
                return await generating.generate_one(model, task, definition, sampling, lenient=lenient)

            await self._stage("generate", endpoint, listed, todo, work, GENERATIONS)

    async def _grade(self, judging: Judging) -> None:
        with _listening(self._stop):
            endpoint = await self._resolve(judging.judge)
            spec = judging.judge
            generations = [row for row in self._store.generations().values() if isinstance(row, Generation)]
            listed = grading.tasks(spec.name, self._store.samples(), generations)
            if not listed:
                raise DataError(f"{self._store.path}: no generation succeeded, so there is nothing to grade")
            todo = self._unfinished(listed, self._store.grades())
            sampling = spec.sampled(_JUDGE_SAMPLING)
            lenient = spec.structured == "off"
            async with connect(endpoint, api_key=api_key(spec)) as model:

                async def work(task: grading.GradeTask) -> Record:
                    return await grading.grade_one(
                        model, task, judging.rubric, sampling, mode=spec.judge_mode, lenient=lenient
                    )

                await self._stage("grade", endpoint, listed, todo, work, GRADES)

    async def _resolve(self, spec: ModelSpec) -> Endpoint:
        return await resolve(spec, api_key=api_key(spec), allow_external=self._allow_external)

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
        if not todo:
            return
        self._store.drop_manifest()
        name = endpoint.spec.name
        started, clock = _now(), time.perf_counter()
        with self._store.writer(file) as rows:
            watch = _Watch(rows.append, self._progress, concurrency=self._concurrency)
            self._progress.stage(f"{stage} {name}", total=len(listed), done=len(listed) - len(todo))
            try:
                await for_each(todo, work, watch, concurrency=self._concurrency, stop=self._stop)
            finally:
                self._progress.end()
                self._write_session(stage, endpoint, started, time.perf_counter() - clock, watch.n_done)
        if self._stop.is_set():
            raise Interrupted(
                f"stopped; {watch.n_done} finished in this session are kept in {self._store.path}"
            )

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
