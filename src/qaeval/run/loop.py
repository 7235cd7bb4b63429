"""One bounded loop for all stages that ask models."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar

from qaeval.run.pace import Pace

_Task = TypeVar("_Task")
_Row = TypeVar("_Row")


class Feed(Generic[_Task]):
    """Tasks that become known while others are worked on; whoever feeds it says when there are no more.

    Args:
        room: Tasks that may wait to be taken; who puts more waits until some are.
    """

    def __init__(self, room: int = 4096) -> None:
        self._queue: asyncio.Queue[_Task | None] = asyncio.Queue()
        self._room = room
        self._moved = asyncio.Event()
        self._is_abandoned = False

    async def put(self, tasks: Iterable[_Task]) -> None:
        """Add tasks; then wait while too many wait to be taken."""
        for task in tasks:
            self._queue.put_nowait(task)
        while self._queue.qsize() > self._room and not self._is_abandoned:
            self._moved.clear()
            await self._moved.wait()

    def close(self) -> None:
        """Let the workers end once they have worked through what is there."""
        self._queue.put_nowait(None)

    def abandon(self) -> None:
        """Let nobody wait for room any more: nothing is taken from now on."""
        self._is_abandoned = True
        self._moved.set()

    async def take(self) -> _Task | None:
        """Return the next task; None when there are no more, to everybody who asks."""
        task = await self._queue.get()
        self._moved.set()
        if task is None:
            self._queue.put_nowait(None)
        return task


class Stop(Protocol):
    """Says whether the user asked to stop (Ctrl-C)."""

    def is_set(self) -> bool:
        """Return True once no new work may begin."""
        ...


async def for_each(
    tasks: Iterable[_Task] | Feed[_Task],
    work: Callable[[_Task], Awaitable[_Row]],
    emit: Callable[[_Row], Awaitable[None]],
    *,
    pace: Pace,
    stop: Stop,
) -> None:
    """Work through tasks, as many at a time as the pace says; emit each row as it is ready.

    Workers pull from one shared iterator, so memory is bounded by the limit, not by the number of tasks. Where the
    limit rises workers are added, where it falls they end after their task. When ``stop`` is set no new task begins
    and those in flight finish.

    Args:
        tasks: pulled lazily, each by exactly one worker; of a feed until it is closed.
        work: asks the model; must not raise for what a model did (that is a failure row).
        emit: called once per finished task, in the order of finishing; while it waits its worker takes nothing new.
        pace: says how many; is told of every task.
        stop: checked before each task.

    Raises:
        Exception: the first that ``work`` or ``emit`` raised; the other workers are cancelled.
    """
    source = iter(()) if isinstance(tasks, Feed) else iter(tasks)
    n_workers, is_empty = 0, False

    async def worker() -> None:
        nonlocal n_workers, is_empty
        try:
            while n_workers <= pace.limit and not stop.is_set():
                task = await tasks.take() if isinstance(tasks, Feed) else next(source, None)
                if task is None:
                    is_empty = True
                    return
                if stop.is_set():
                    return
                pace.began()
                try:
                    row = await work(task)
                finally:
                    pace.ended()
                await emit(row)
        finally:
            n_workers -= 1

    try:
        async with asyncio.TaskGroup() as group:

            def fill() -> None:
                nonlocal n_workers
                while n_workers < pace.limit and not is_empty and not stop.is_set():
                    n_workers += 1
                    group.create_task(worker())

            pace.changed = fill
            fill()
    except ExceptionGroup as raised:
        raise raised.exceptions[0] from None
    finally:
        pace.changed = lambda: None
        if isinstance(tasks, Feed):
            tasks.abandon()
