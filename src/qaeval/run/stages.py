"""The two stages of a run: which tasks are pending, how a model is asked, where its rows go.

A stage knows nothing of servers, concurrency or sessions; `run_stage` works it through. Where generation and
grading overlap, a generate stage puts the items of each reply into a `GradingQueue`, which the grade stage
takes its tasks from.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from qaeval.chat.protocol import ChatModel, Sampling
from qaeval.evals.definition import EvalDefinition, JudgeSees
from qaeval.files.rows import ReplyIndex
from qaeval.records import GenerateRow, Generation, GradeRow, Sample, StageName
from qaeval.registry.config import ModelSpec
from qaeval.run import generate, grade
from qaeval.run.generate import GenerateTask
from qaeval.run.grade import GradeTask, Instructions
from qaeval.run.loop import TaskQueue
from qaeval.run.plan import Judging
from qaeval.run.watch import StageProgress
from qaeval.storage.run_directory import GENERATIONS, GRADES, RunStore

_Task = TypeVar("_Task")
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class PendingTasks(Generic[_Task]):
    """What a model has to do in a stage.

    Attributes:
        n: All tasks of the stage.
        n_done: Tasks that earlier sessions finished.
        tasks: The others, one at a time.
    """

    n: int
    n_done: int
    tasks: Iterable[_Task] | TaskQueue[_Task]

    def __bool__(self) -> bool:
        return self.n > self.n_done


class Stage(Protocol[_Task, _Row]):
    """One model's work in a run; a stage inherits what it does not decide itself."""

    name: StageName
    """What is done."""

    spec: ModelSpec
    """The model that is asked."""

    file: str
    """The file of the run directory that takes the rows."""

    alongside: bool = False
    """Whether another stage runs at the same time."""

    is_measured: bool = True
    """Whether its time, energy and metrics are the run's."""

    prompt_sha: str = ""
    """Hash of the judge's prompt without its rubric; empty for a candidate, and for a judge that reads no prompt."""

    uses_cache: bool = True
    """Whether replies of earlier runs count."""

    max_concurrency: int | None = None
    """Highest number of requests in flight, whatever would keep the server busy; None: no such limit."""

    def pending(self) -> PendingTasks[_Task]:
        """Read from the run directory what is left to do; called again after a server was restarted."""
        ...

    async def ask(self, model: ChatModel, task: _Task) -> _Row:
        """Ask the model once and make a row of the reply; only bugs raise."""
        ...

    async def on_row(self, task: _Task, row: _Row) -> None:  # noqa: ARG002 - for the stages that use it
        """Take note of a row after it was written; while this waits less is asked. Default: take none."""
        await ignore(row)


class GradingTasks(Protocol):
    """Where a grade stage takes its tasks from."""

    def pending(self) -> PendingTasks[GradeTask]:
        """Return what is left to grade."""
        ...


_MAX_HELD: Final = 1024
"""Samples whose replies wait for other candidates: as many as one candidate has in flight, some megabytes."""
_PATIENCE_S: Final = 2.0
"""Time without a new task after which an idle judge no longer waits for candidates that are behind: longer than the time between
two replies of a busy server, and short against an outage."""


class GradingQueue:
    """Grading tasks of replies as these are written; an item that several candidates write is one task.

    Items of a sample follow each other, whichever candidates wrote them, so that the judge's server computes their common prefix
    once: a reply is held until all candidates at work have answered its sample. It is passed on without theirs if too many
    replies are held, and if the judge has nothing else to do. The judge loses no time by that: it is done when the slowest
    candidate is, or when it has worked through all items.

    Args:
        store: The open run directory.
        judge: The judge's name.
        progress: Of the grade stage; its total is the number of items that all replies have if none fails.
        items_per_sample: Items that a reply should have.
        max_held: Samples whose replies may be held.
        patience_s: Seconds without a new task after which an idle judge gets all that is held.
    """

    def __init__(
        self,
        store: RunStore,
        judge: str,
        progress: StageProgress,
        *,
        items_per_sample: int,
        max_held: int = _MAX_HELD,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._store, self._judge, self._progress = store, judge, progress
        self._items_per_sample = items_per_sample
        self._max_held, self._patience_s = max_held, patience_s
        self._queue: TaskQueue[GradeTask] = TaskQueue()
        self._done = store.finished(GRADES)
        self._queued: set[int] = set()  # ids as numbers: a million strings would take 70 MB
        self._answered: dict[str, bytearray] = {}
        """By candidate at work, whether it has answered each sample."""
        self._behind: set[str] = set()
        """Candidates that kept an idle judge waiting and have answered nothing since."""
        self._held: dict[int, tuple[Sample, list[Generation]]] = {}
        """Replies by the position of their sample, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._added_at = 0.0

    def pending(self) -> PendingTasks[GradeTask]:
        """Return the queue; how many tasks it will hold is not known yet."""
        return PendingTasks(1, 0, self._queue)

    def begin(self, candidate: str, answered: Iterable[bool]) -> None:
        """Take note of a candidate that begins.

        Args:
            candidate: Its name.
            answered: For each sample, whether an earlier session answered it.
        """
        self._answered[candidate] = bytearray(answered)

    def end(self, candidate: str) -> None:
        """Take note of a candidate that ended, whatever it has answered: its replies are not waited for."""
        self._answered.pop(candidate, None)
        self._behind.discard(candidate)
        self._pass_on([index for index in self._held if not self._awaited(index)])

    async def put(self, task: GenerateTask, row: GenerateRow) -> None:
        """Queue the items of a reply once the other candidates have answered its sample; waits while the judge is far behind."""
        self._answered[task.candidate][task.index] = True
        self._behind.discard(task.candidate)
        if isinstance(row, Generation):
            self._held.setdefault(task.index, (task.sample, []))[1].append(row)
        else:
            self._progress.skip(self._items_per_sample)
        if task.index in self._held and not self._awaited(task.index):
            self._pass_on([task.index])
        else:
            self._pass_on([next(iter(self._held))] if len(self._held) > self._max_held else ())
        await self._queue.room()

    def _awaited(self, index: int) -> set[str]:
        """Return the candidates that will answer a sample and are waited for."""
        return {
            candidate
            for candidate, answered in self._answered.items()
            if not (answered[index] or candidate in self._behind)
        }

    def _pass_on(self, indices: Iterable[int]) -> None:
        for index in indices:
            self._add(*self._held.pop(index))
        if self._held and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._after_patience)

    def _after_patience(self) -> None:
        """Pass on what is held if the judge has been idle, and do not wait for the same candidates again."""
        self._timer = None
        idle_s = asyncio.get_running_loop().time() - self._added_at
        is_idle = self._queue.is_starved and idle_s >= self._patience_s
        if is_idle:
            self._behind.update(*map(self._awaited, self._held))
        self._pass_on(list(self._held) if is_idle else ())

    def _add(self, sample: Sample, generations: Sequence[Generation]) -> None:
        """Queue the items of some replies to one sample."""
        new = [
            task
            for task in grade.tasks(self._judge, sample, generations)
            if int(task.task_id, 16) not in self._queued
        ]
        self._queued.update(int(task.task_id, 16) for task in new)
        # tasks of earlier sessions are in the progress already
        self._progress.skip(len(generations) * self._items_per_sample - len(new))
        self._queue.add(task for task in new if task.task_id not in self._done)
        self._added_at = asyncio.get_running_loop().time()

    async def put_stored(self) -> None:
        """Queue the items of earlier sessions' replies."""
        with self._store.replies() as replies:
            n_failed = len(self._store.finished(GENERATIONS)) - len(replies)
            self._progress.skip(n_failed * self._items_per_sample)
            for sample in self._store.samples() if len(replies) else ():
                self._add(sample, replies.of(sample.sample_id))
                await self._queue.room()
                # room() does not wait where all is graded: the judge's server is probed meanwhile, with a time limit
                await asyncio.sleep(0)

    def close(self) -> None:
        """End the queue: the judge finishes what is in it."""
        if self._timer is not None:
            self._timer.cancel()
        self._queue.close()


@dataclass(frozen=True, kw_only=True)
class StoredReplies:
    """Grading tasks of replies that are in the run directory.

    Attributes:
        store: The open run directory.
        replies: Its replies.
        judge: The judge's name.
        file: File of the judge's rows.
        samples: Samples whose items are graded, in this order, read while the judge works; None: all.
        candidates: Candidates whose items are graded; None: all.
        items: Ids of the items that are graded; None: all.
    """

    store: RunStore
    replies: ReplyIndex
    judge: str
    file: str = GRADES
    samples: Iterable[Sample] | None = None
    candidates: Container[str] | None = None
    items: Collection[str] | None = None

    def pending(self) -> PendingTasks[GradeTask]:
        """Return the items that have no grade."""
        done = self.store.finished(self.file)
        tasks = (
            task
            for sample in (self.store.samples() if self.samples is None else self.samples)
            for task in grade.tasks(self.judge, sample, self._replies_to(sample), done)
            if self.items is None or task.item.item_id in self.items
        )
        if self.items is None:
            return PendingTasks(self.replies.n_items, len(done), tasks)
        n_done = sum(grade.task_id(self.judge, item_id) in done for item_id in self.items)
        return PendingTasks(len(self.items), n_done, tasks)

    def _replies_to(self, sample: Sample) -> Iterable[Generation]:
        replies = self.replies.of(sample.sample_id)
        return (row for row in replies if self.candidates is None or row.candidate in self.candidates)


class GenerateStage(Stage[GenerateTask, GenerateRow]):
    """A candidate answers the samples of a run.

    Args:
        spec: The candidate.
        definition: The eval.
        store: The open run directory.
        sample_ids: Samples to ask about, where the run is one shard of several; None: all.
        queue: Takes the items of each reply, where the judge works at the same time.
        alongside: Whether another stage runs at the same time.
    """

    name = "generate"
    file = GENERATIONS

    def __init__(
        self,
        spec: ModelSpec,
        definition: EvalDefinition,
        store: RunStore,
        *,
        sample_ids: Container[str] | None = None,
        queue: GradingQueue | None = None,
        alongside: bool = False,
    ) -> None:
        self.spec = spec
        self.alongside = alongside or queue is not None
        self._definition = generate.definition_for(spec, definition)
        self._store = store
        self._sample_ids = sample_ids
        self._queue = queue
        self._sampling = spec.sampled(Sampling(**definition.sampling.model_dump()))
        self._lenient = spec.structured == "off"

    def pending(self) -> PendingTasks[GenerateTask]:
        """Return the samples that the candidate has not answered."""
        done = self._store.finished(GENERATIONS)
        is_done = [
            generate.task_id(self.spec.name, sample_id) in done
            for sample_id in self._store.sample_ids()
            if self._asks(sample_id)
        ]
        if self._queue is not None:
            self._queue.begin(self.spec.name, is_done)
        samples = (sample for sample in self._store.samples() if self._asks(sample.sample_id))
        return PendingTasks(len(is_done), sum(is_done), generate.tasks(self.spec.name, samples, done))

    def _asks(self, sample_id: str) -> bool:
        return self._sample_ids is None or sample_id in self._sample_ids

    async def ask(self, model: ChatModel, task: GenerateTask) -> GenerateRow:
        """Ask for the items of one sample."""
        return await generate.generate_one(
            model, task, self._definition, self._sampling, lenient=self._lenient
        )

    async def on_row(self, task: GenerateTask, row: GenerateRow) -> None:
        """Hand the items of a reply to the judge, where it works at the same time."""
        if self._queue is not None:
            await self._queue.put(task, row)


async def ignore(_row: Any) -> None:  # noqa: ANN401 - a row of either stage
    """Take no note of a row."""


class GradeStage(Stage[GradeTask, GradeRow]):
    """The judge grades the items of a run.

    Args:
        judging: Judge and rubric.
        tasks: What is graded.
        sees: What the judge is shown besides chunk and item.
        alongside: Whether candidates generate at the same time.
        max_concurrency: Highest number of requests in flight; None: as many as keep the server busy.
        on_row: Called with every row after it was written.
        file: File of the rows.
    """

    name = "grade"

    def __init__(
        self,
        judging: Judging,
        tasks: GradingTasks,
        *,
        sees: tuple[JudgeSees, ...],
        alongside: bool = False,
        max_concurrency: int | None = None,
        on_row: Callable[[GradeRow], Awaitable[None]] = ignore,
        file: str = GRADES,
    ) -> None:
        self.file = file
        self.spec = judging.judge
        self.alongside = alongside
        self.max_concurrency = max_concurrency
        self._tasks = tasks
        self._on_row = on_row
        self._instructions = Instructions.for_judge(judging.rubric, self.spec, sees=sees)
        self.prompt_sha = grade.prompt_sha(self.spec)
        self._lenient = self.spec.structured == "off"

    def pending(self) -> PendingTasks[GradeTask]:
        """Return the items that have no grade."""
        return self._tasks.pending()

    async def ask(self, model: ChatModel, task: GradeTask) -> GradeRow:
        """Ask for the grade of one item."""
        return await grade.grade_one(model, task, self._instructions, lenient=self._lenient)

    async def on_row(self, _task: GradeTask, row: GradeRow) -> None:
        """Pass a row on."""
        await self._on_row(row)
