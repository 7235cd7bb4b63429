"""One bounded loop for all stages that ask models."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar

from qaeval.run.pace import ConcurrencyLimit

_Task = TypeVar("_Task")
_Row = TypeVar("_Row")


class TaskQueue(Generic[_Task]):
    """Tasks that one stage produces while another one works on them.

    Args:
        maxsize: Tasks that may wait; a producer that finds more waits until the queue has drained to this
            size. What a producer adds at once can exceed it.
    """

    def __init__(self, maxsize: int = 4096) -> None:
        # 4096: four times the highest concurrency, so that the consumer never runs dry, and still some
        # megabytes at most
        self._queue: asyncio.Queue[_Task | None] = asyncio.Queue()
        self._maxsize = maxsize
        self._taken = asyncio.Event()
        self._is_abandoned = False
        self._n_waiting = 0

    @property
    def is_starved(self) -> bool:
        """Whether a consumer waits for a task."""
        return self._n_waiting > 0 and self.is_empty

    @property
    def is_empty(self) -> bool:
        """Whether no task waits."""
        return self._queue.empty()

    def add(self, tasks: Iterable[_Task]) -> None:
        """Add tasks, however many the queue holds; a producer then waits for `room`."""
        for task in tasks:
            self._queue.put_nowait(task)

    async def room(self) -> None:
        """Wait while the queue holds more than ``maxsize``."""
        while self._queue.qsize() > self._maxsize and not self._is_abandoned:
            self._taken.clear()
            await self._taken.wait()

    def close(self) -> None:
        """End the queue: consumers finish what is in it."""
        self._queue.put_nowait(None)

    def abandon(self) -> None:
        """Release producers that wait: nothing is taken any more."""
        self._is_abandoned = True
        self._taken.set()

    async def take(self) -> _Task | None:
        """Return the next task; None, to every consumer, once the queue is closed and empty."""
        self._n_waiting += 1
        try:
            task = await self._queue.get()
        finally:
            self._n_waiting -= 1
        self._taken.set()
        if task is None:
            self._queue.put_nowait(None)  # for the next consumer
        return task


class StopFlag(Protocol):
    """Says whether the user asked to stop."""

    def is_set(self) -> bool:
        """Return True once no new work may begin."""
        ...


async def for_each(
    tasks: Iterable[_Task] | TaskQueue[_Task],
    work: Callable[[_Task], Awaitable[_Row]],
    emit: Callable[[_Task, _Row], Awaitable[None]],
    *,
    limit: ConcurrencyLimit,
    stop: StopFlag,
) -> None:
    """Work through tasks, as many at a time as the limit allows; emit each row as it is ready.

    Workers pull from one shared iterator, so memory is bounded by the limit, not by the number of tasks.
    Where the limit rises workers are added, where it falls they end after their task. When ``stop`` is set no
    new task begins and those in flight finish.

    Args:
        tasks: pulled lazily, each by exactly one worker; a queue until it is closed.
        work: asks the model; must not raise for what a model did (that is a failure row).
        emit: called once per finished task, in the order of finishing; while it waits its worker takes
            nothing new.
        limit: of the number of workers; notified of every task.
        stop: checked before each task.

    Raises:
        Exception: the first that ``work`` or ``emit`` raised; the other workers are cancelled.
    """
    source = iter(()) if isinstance(tasks, TaskQueue) else iter(tasks)
    n_workers, is_empty = 0, False

    async def worker() -> None:
        nonlocal n_workers, is_empty
        try:
            while n_workers <= limit.value and not stop.is_set():
                task = await tasks.take() if isinstance(tasks, TaskQueue) else next(source, None)
                if task is None:
                    is_empty = True
                    return
                if stop.is_set():
                    return
                limit.task_started()
                try:
                    row = await work(task)
                finally:
                    limit.task_ended()
                await emit(task, row)
        finally:
            n_workers -= 1

    try:
        async with asyncio.TaskGroup() as group:

            def fill() -> None:
                nonlocal n_workers
                while n_workers < limit.value and not is_empty and not stop.is_set():
                    n_workers += 1
                    group.create_task(worker())

            limit.on_rise = fill
            fill()
    except ExceptionGroup as raised:
        raise raised.exceptions[0] from None
    finally:
        limit.on_rise = lambda: None
        if isinstance(tasks, TaskQueue):
            tasks.abandon()
