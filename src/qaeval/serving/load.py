"""How busy the servers of a model are, several times a second while that is news."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from qaeval.records import LOAD, RUNNING, WAITING
from qaeval.serving.client import Server
from qaeval.serving.server import meanwhile

_SOON_S: Final = 0.1
_LATER_S: Final = 1.0
_OK: Final = 200


def read_load(text: bytes) -> dict[str, float]:
    """Read running and waiting requests and preemptions, added up over a server's engines.

    The whole of ``/metrics`` has hundreds of lines; parsing all of them several times a second would cost a tenth of a core.

    Raises:
        ValueError: a value is no number.
    """
    values: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith(b"vllm:num_"):
            name = line.partition(b"{")[0].partition(b" ")[0].decode(errors="replace")
            if name in LOAD:
                values[name] = values.get(name, 0.0) + float(line.rpartition(b" ")[2])
    return values


def read_gauge(text: bytes, name: str) -> float | None:
    """Read one gauge, the largest of a server's engines; None where it is not there or no number."""
    start = name.encode()
    lines = (line for line in text.splitlines() if line.startswith((start + b"{", start + b" ")))
    try:
        return max((float(line.rpartition(b" ")[2]) for line in lines), default=None)
    except ValueError:
        return None


async def is_idle(server: Server) -> bool:
    """Whether a server says that it has no request; False where it does not say."""
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
        servers: All of them; one that does not answer counts as idle.
        told: Takes the numbers, added up.
        is_soon: Whether the next reading should come soon.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        told: Callable[[Mapping[str, float]], None],
        is_soon: Callable[[], bool],
    ) -> None:
        self._servers = servers
        self._told = told
        self._is_soon = is_soon
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for server in self._servers:
            await self._open.enter_async_context(server)
        await self._open.enter_async_context(meanwhile(self._keep_reading()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def _keep_reading(self) -> None:
        while True:
            answers = await asyncio.gather(*(server.ask("/metrics", root=True) for server in self._servers))
            total: dict[str, float] = {}
            for answer in answers:
                try:
                    values = read_load(answer.content) if answer.status == _OK else {}
                except ValueError:
                    values = {}
                for name, value in values.items():
                    total[name] = total.get(name, 0.0) + value
            self._told(total)
            await asyncio.sleep(_SOON_S if self._is_soon() else _LATER_S)
