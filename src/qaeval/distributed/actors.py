"""The stages of a run inside Ray actors: the stage functions and the client of one machine, a block at a time.

An actor checks its hosts itself (the sovereignty guard) and pins the addresses that it saw. Its requests in flight are
limited by a semaphore of its own, since Ray starts several batches of an asynchronous actor at once. What can go wrong
with a sample becomes its row; what ends a run on one machine becomes the `problem` of a block, which the driver raises.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np
from yarl import URL

from qaeval.chat.guard import Resolver, check_host
from qaeval.chat.protocol import ChatModel, Sampling
from qaeval.distributed.blocks import BlockFiles
from qaeval.errors import QaevalError
from qaeval.evals.definition import EvalDefinition
from qaeval.records import Failure, FailureReason, GenerateRow, Generation, GradeRow, Record
from qaeval.registry.config import ModelSpec
from qaeval.registry.find import api_key
from qaeval.run import generate, grade
from qaeval.run.endpoint import connect, resolve
from qaeval.run.generate import GenerateTask
from qaeval.run.grade import GradeTask, Instructions
from qaeval.run.loop import for_each
from qaeval.run.pace import FixedLimit
from qaeval.run.plan import Judging
from qaeval.run.stages import ignore
from qaeval.run.watch import RowRecorder, Stop, Unwatched
from qaeval.storage.location import find_location

_Task = TypeVar("_Task", GenerateTask, GradeTask)
_Row = TypeVar("_Row", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the actors of a stage need to know; it is sent to them once.

    Attributes:
        place: Location of the blocks.
        limit: Requests that one actor has in flight at most.
        n_blocks: Blocks that one actor works on at the same time.
        outage_s: Longest wait for a server that stopped answering, in seconds.
        allow_external: Hosts outside the user's network that may be sent data.
        is_start: Whether no row of the stage exists: it ends if all of its first tasks fail alike.
    """

    place: str
    limit: int
    n_blocks: int
    outage_s: float
    allow_external: tuple[str, ...]
    is_start: bool


class _Slots:
    """Requests in flight of an actor; the block that began first has precedence.

    With equal chances the blocks in work would end together, and leave the servers idle until the next ones begin.
    """

    def __init__(self, n: int) -> None:
        self._n_free = n
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()

    @asynccontextmanager
    async def taken(self, order: int) -> AsyncIterator[None]:
        """Hold a slot while the block runs."""
        if self._n_free:  # then nobody waits
            self._n_free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            heappush(self._waiting, (order, next(self._numbers), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._release()
                raise
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        while self._waiting:
            _, _, turn = heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._n_free += 1


class _StageActor(ABC, Generic[_Task, _Row]):
    """Works on blocks: opens its models at the first one, and keeps them open."""

    def __init__(self, work: Work, specs: Sequence[ModelSpec]) -> None:
        self._work = work
        self._specs = tuple(specs)
        self._files = BlockFiles(find_location(work.place, allow_external=work.allow_external))
        self._slots = _Slots(work.limit)
        self._order = count()
        self._blocks = asyncio.Semaphore(work.n_blocks)
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()
        self._models: dict[str, ChatModel] = {}
        self._servers: dict[str, tuple[str | None, tuple[str, ...]]] = {}
        self._recorders: dict[str, RowRecorder] = {}
        self._stop = Stop()
        self._rows: dict[str, Any] = {}
        """Rows by task, of the blocks in work."""

    async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Work on the blocks of a batch; yield their numbers, each with its problem, if it has one."""
        for block, problem, kind in zip(batch["block"], batch["problem"], batch["kind"], strict=True):
            result = {"block": int(block), "problem": str(problem), "kind": str(kind)}
            if not problem:
                async with self._blocks:
                    try:
                        await self.open_models()
                        await self._work_on(int(block))
                    except QaevalError as error:
                        result.update(problem=str(error), kind=type(error).__name__)
            yield {name: np.array([value]) for name, value in result.items()}

    async def open_models(self) -> None:
        """Open the models, and again where a name leads to other servers than before: replicas come and go."""
        async with self._opening:
            for spec in self._specs:
                try:
                    servers = await asyncio.to_thread(spread, spec, allow_external=self._work.allow_external)
                except QaevalError:
                    if spec.name not in self._models:
                        raise
                    continue  # what is open still works, or its requests say what is wrong
                if self._servers.get(spec.name) == (servers.url, servers.replicas):
                    continue
                key = api_key(spec)
                endpoint = await resolve(servers, api_key=key, allow_external=self._work.allow_external)
                # sessions that requests of another block still use are closed with the actor
                opened = connect(endpoint, api_key=key, outage_s=self._work.outage_s)
                self._models[spec.name] = await self._open.enter_async_context(opened)
                self._servers[spec.name] = (servers.url, servers.replicas)
                self._recorders.setdefault(
                    spec.name,
                    RowRecorder(self._keep, Unwatched(), _ignore_both, is_start=self._work.is_start),
                )

    async def close(self) -> None:
        """Close all models. Ray ends an actor's process without a word; this is for those who use it in their own."""
        await self._open.aclose()

    def _keep(self, row: Any) -> None:  # noqa: ANN401 - a row of either stage
        self._rows[row.task_id] = row

    @abstractmethod
    async def _work_on(self, block: int) -> None:
        """Write the rows of a block, unless they are there."""

    async def _asked(
        self,
        tasks: Sequence[_Task],
        ask: Callable[[_Task], Awaitable[_Row]],
        model_of: Callable[[_Task], str],
        failed: Callable[[_Task, FailureReason, str], Failure],
    ) -> list[_Row]:
        """Ask about all tasks, within the limit of the actor; return their rows in the order of the tasks."""
        order = next(self._order)

        async def work(task: _Task) -> _Row | Failure:
            async with self._slots.taken(order):
                try:
                    return await ask(task)
                except QaevalError:
                    raise
                # one sample that a bug stumbles over must not end the work on a million others
                except Exception as error:  # noqa: BLE001
                    return failed(task, "internal", f"{type(error).__name__}: {error}"[:500])

        async def emit(task: _Task, row: _Row | Failure) -> None:
            await self._recorders[model_of(task)](task, row)

        # twice as many workers as slots: a block with precedence needs tasks that wait for the slot that gets free
        await for_each(tasks, work, emit, limit=FixedLimit(2 * self._work.limit), stop=self._stop)
        return [self._rows.pop(task.task_id) for task in tasks]


class GenerateBlocks(_StageActor[GenerateTask, GenerateRow]):
    """The candidates answer the samples of blocks.

    Args:
        work: Of the stage.
        candidates: Who answers.
        definition: The eval.
    """

    def __init__(self, work: Work, candidates: Sequence[ModelSpec], definition: EvalDefinition) -> None:
        super().__init__(work, candidates)
        sampling = Sampling(**definition.sampling.model_dump())
        self._asks = {
            spec.name: (
                generate.definition_for(spec, definition),
                spec.sampled(sampling),
                spec.structured == "off",
            )
            for spec in candidates
        }

    async def _work_on(self, block: int) -> None:
        if await asyncio.to_thread(self._files.replies, block) is not None:
            return
        samples = await asyncio.to_thread(self._files.samples, block)
        # sample by sample, so that the servers of all candidates work, each on a document's chunks in their order
        tasks = [
            task for sample in samples for spec in self._specs for task in generate.tasks(spec.name, [sample])
        ]
        rows = await self._asked(tasks, self._ask, lambda task: task.candidate, generate.failed_reply)
        await asyncio.to_thread(self._files.write_replies, block, rows)

    async def _ask(self, task: GenerateTask) -> GenerateRow:
        definition, sampling, lenient = self._asks[task.candidate]
        return await generate.generate_one(
            self._models[task.candidate], task, definition, sampling, lenient=lenient
        )


class GradeBlocks(_StageActor[GradeTask, GradeRow]):
    """The judge grades the items of blocks.

    Args:
        work: Of the stage.
        judging: Judge and rubric.
        settings: Of the run; they say what the judge sees.
    """

    def __init__(self, work: Work, judging: Judging, settings: Mapping[str, Any]) -> None:
        super().__init__(work, [judging.judge])
        self._judge = judging.judge
        self._instructions = Instructions.for_judge(
            judging.rubric, judging.judge, sees=grade.judge_sees(settings)
        )
        self._lenient = judging.judge.structured == "off"

    async def _work_on(self, block: int) -> None:
        if await asyncio.to_thread(self._files.letters, block) is not None:
            return
        samples = await asyncio.to_thread(self._files.samples, block)
        replies = await asyncio.to_thread(self._files.replies, block)
        by_sample: dict[str, list[Generation]] = {}
        for row in replies or ():
            if isinstance(row, Generation):
                by_sample.setdefault(row.sample_id, []).append(row)
        tasks = [
            task
            for sample in samples
            for task in grade.tasks(self._judge.name, sample, by_sample.get(sample.sample_id, ()))
        ]
        rows = await self._asked(tasks, self._ask, lambda task: task.judge, grade.failed_letter)
        await asyncio.to_thread(self._files.write_letters, block, rows)

    async def _ask(self, task: GradeTask) -> GradeRow:
        model = self._models[task.judge]
        return await grade.grade_one(model, task, self._instructions, lenient=self._lenient)


def spread(spec: ModelSpec, *, allow_external: Iterable[str], resolver: Resolver | None = None) -> ModelSpec:
    """Take the addresses of a headless service for servers of their own, so that the least busy one is asked.

    A name with several addresses would otherwise be one server whose connections pile up at its first address. TLS needs
    the name, so that an https URL stays what it is.

    Args:
        spec: A model; one without a URL, or with replicas in the registry, is returned as it is.
        allow_external: Hosts outside the user's network that may be sent data.
        resolver: Looks names up; default: the system's.

    Raises:
        EndpointError: the host is not allowed, or unknown.
    """
    if spec.url is None or spec.kind != "server" or spec.replicas or not spec.url.startswith("http://"):
        return spec
    location = check_host(spec.url, allow_external=tuple(allow_external), resolver=resolver)
    if location.external:
        return spec  # its name is allowed, and not its addresses
    addresses = location.addresses
    # a name has the same machine twice where it has both versions
    version4 = [address for address in addresses if ":" not in address]
    if len(version4) < 2:
        return spec
    first, *others = (str(URL(spec.url).with_host(address)) for address in version4)
    return spec.model_copy(update={"url": first, "replicas": tuple(others)})


async def _ignore_both(_task: object, row: object) -> None:
    await ignore(row)
