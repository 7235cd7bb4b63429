"""One bounded loop for all stages that ask models."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

_Task = TypeVar("_Task")
_Row = TypeVar("_Row")


class Stop(Protocol):
    """Says whether the user asked to stop (Ctrl-C)."""

    def is_set(self) -> bool:
        """Return True once no new work may begin."""
        ...


async def for_each(
    tasks: Iterable[_Task],
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
        tasks: pulled lazily, each by exactly one worker.
        work: asks the model; must not raise for what a model did (that is a failure row).
        emit: called once per finished task, in the order of finishing.
        concurrency: at least 1.
        stop: checked before each task.

    Raises:
        Exception: the first that ``work`` or ``emit`` raised; the other workers are cancelled.
    """
    source = iter(tasks)

    async def worker() -> None:
        for task in source:
            emit(await work(task))
            if stop.is_set():
                return

    if stop.is_set():
        return
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except ExceptionGroup as raised:
        raise raised.exceptions[0] from None
