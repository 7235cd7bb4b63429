"""The load of a model's servers, read several times a second while it changes."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from qaeval.records import LOAD, PREEMPTIONS, RUNNING, WAITING
from qaeval.serving.client import HttpAnswer, Server
from qaeval.serving.server import background_task

_FAST_S: Final = 0.1
"""While the limit of requests rises: a server of any size is then full within a second."""
_SLOW_S: Final = 1.0
_OK: Final = 200


def read_load(text: bytes) -> dict[str, float]:
    """Read running and waiting requests and preemptions, added up over a server's engines.

    ``/metrics`` has hundreds of lines; parsing all of them several times a second would cost a tenth of a
    core.

    Raises:
        ValueError: a value is not a number.
    """
    values: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith(b"vllm:num_"):
            name = line.partition(b"{")[0].partition(b" ")[0].decode(errors="replace")
            if name in LOAD:
                values[name] = values.get(name, 0.0) + float(line.rpartition(b" ")[2])
    return values


def read_gauge(text: bytes, name: str) -> float | None:
    """Read a gauge, the maximum over a server's engines; None where it is missing or not a number."""
    start = name.encode()
    lines = (line for line in text.splitlines() if line.startswith((start + b"{", start + b" ")))
    try:
        return max((float(line.rpartition(b" ")[2]) for line in lines), default=None)
    except ValueError:
        return None


async def is_idle(server: Server) -> bool:
    """Whether a server reports no request; False where it reports nothing."""
    async with server:
        answer = await server.ask("/metrics", root=True)
    try:
        load = read_load(answer.content) if answer.status == _OK else {}
    except ValueError:
        return False
    return load.get(RUNNING) == load.get(WAITING) == 0


class LoadWatcher:
    """Reads the load of all servers of a model while a stage runs; an async context manager.

    Args:
        servers: All servers of the model; one that does not answer counts as idle.
        on_reading: Called with the sum over all servers; of preemptions with those since the first reading of each server.
        is_changing: Returns whether the next reading should come soon.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        on_reading: Callable[[Mapping[str, float]], None],
        is_changing: Callable[[], bool],
    ) -> None:
        self._servers = servers
        self._on_reading = on_reading
        self._is_changing = is_changing
        self._last_preemptions: dict[int, float] = {}
        self._n_preempted = 0.0
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for server in self._servers:
            await self._open.enter_async_context(server)
        await self._open.enter_async_context(background_task(self._keep_reading()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def _keep_reading(self) -> None:
        while True:
            answers = await asyncio.gather(*(server.ask("/metrics", root=True) for server in self._servers))
            self._on_reading(self._added_up(answers))
            await asyncio.sleep(_FAST_S if self._is_changing() else _SLOW_S)

    def _added_up(self, answers: Sequence[HttpAnswer]) -> dict[str, float]:
        total: dict[str, float] = {}
        for index, answer in enumerate(answers):
            try:
                values = read_load(answer.content) if answer.status == _OK else {}
            except ValueError:
                values = {}
            if PREEMPTIONS in values:
                # counted by server: the sum of counters would rise when one answers again
                now = values.pop(PREEMPTIONS)
                self._n_preempted += max(0.0, now - self._last_preemptions.get(index, now))
                self._last_preemptions[index] = now
            for name, value in values.items():
                total[name] = total.get(name, 0.0) + value
        return {**total, PREEMPTIONS: self._n_preempted} if self._last_preemptions else total
