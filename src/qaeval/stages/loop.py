"""One bounded loop for all stages that ask models."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar

_Task = TypeVar("_Task")
_Row = TypeVar("_Row")


class Feed(Generic[_Task]):
    """Tasks that become known while others are worked on; whoever feeds it says when there are no more."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[_Task | None] = asyncio.Queue()

    def put(self, tasks: Iterable[_Task]) -> None:
        """Add tasks."""
        for task in tasks:
            self._queue.put_nowait(task)

    def close(self) -> None:
        """Let the workers end once they have worked through what is there."""
        self._queue.put_nowait(None)

    async def take(self) -> _Task | None:
        """Return the next task; None when there are no more, to everybody who asks."""
        task = await self._queue.get()
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
    emit: Callable[[_Row], None],
    *,
    concurrency: int,
    stop: Stop,
) -> None:
    """Work through tasks, ``concurrency`` at a time; emit each row as it is ready.

    Workers pull from one shared iterator, so memory is bounded by the concurrency, not by the number of
    tasks. When ``stop`` is set no new task begins and those in flight finish.

    Args:
        tasks: pulled lazily, each by exactly one worker; of a feed until it is closed.
        work: asks the model; must not raise for what a model did (that is a failure row).
        emit: called once per finished task, in the order of finishing.
        concurrency: at least 1.
        stop: checked before each task.

    Raises:
        Exception: the first that ``work`` or ``emit`` raised; the other workers are cancelled.
    """
    source = iter(()) if isinstance(tasks, Feed) else iter(tasks)

    async def take() -> _Task | None:
        return await tasks.take() if isinstance(tasks, Feed) else next(source, None)

    async def worker() -> None:
        while (task := await take()) is not None and not stop.is_set():
            emit(await work(task))

    if stop.is_set():
        return
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except ExceptionGroup as raised:
        raise raised.exceptions[0] from None
