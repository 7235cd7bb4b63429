"""A server that is gone: requests wait until it answers again, instead of failing one after the other."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

from qaeval.errors import EndpointError

_FRESH_S: Final = 0.5
"""A look at the server's health counts for so long."""
_WAIT_S: Final = 0.25
_WAIT_MAX_S: Final = 5.0


class Circuit:
    """Open while its server does not answer.

    Args:
        server: How messages call it.
        is_healthy: Looks whether the server answers; never raises.
        outage_s: Longest wait for a server that is gone.
        on_message: Called when the server is gone, and when it is back.
        sleep: Waits between two looks.
        clock: Seconds, ever rising.
    """

    def __init__(
        self,
        server: str,
        is_healthy: Callable[[], Awaitable[bool]],
        *,
        outage_s: float,
        on_message: Callable[[str], None] = lambda _text: None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._server = server
        self._is_healthy = is_healthy
        self._outage_s = outage_s
        self._on_message = on_message
        self._sleep = sleep
        self._clock = clock
        self._looked_at = float("-inf")
        self._look = asyncio.Lock()
        self._outage: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the server is gone."""
        return self._outage is not None

    async def answers(self) -> bool:
        """Look whether the server answers; where it does not, open.

        Many requests fail together: the first one looks, the others take its word.
        """
        async with self._look:
            if self._outage is not None:
                return False
            if self._clock() - self._looked_at < _FRESH_S:
                return True
            if await self._is_healthy():
                self._looked_at = self._clock()
                return True
            self._outage = asyncio.create_task(self._wait_for_it())
            return False

    async def wait(self) -> None:
        """Wait until the server answers again; at once where it does.

        Raises:
            EndpointError: it did not, for too long.
        """
        if self._outage is not None:
            await asyncio.shield(self._outage)

    async def close(self) -> None:
        """Look no more."""
        if self._outage is not None:
            self._outage.cancel()
            await asyncio.wait([self._outage])
            if not self._outage.cancelled():
                self._outage.exception()  # seen: whoever waited has raised it

    async def _wait_for_it(self) -> None:
        began, wait = self._clock(), _WAIT_S
        self._on_message(f"{self._server} does not answer; waiting for it, {self._outage_s:.0f} s at most")
        while True:
            await self._sleep(wait)
            wait = min(_WAIT_MAX_S, 2 * wait)
            if await self._is_healthy():
                break
            if self._clock() - began >= self._outage_s:
                raise EndpointError(
                    f"{self._server}: the server stopped answering and did not come back within {self._outage_s:.0f} s; "
                    f"finished rows are kept"
                )
        self._on_message(f"{self._server} answers again after {self._clock() - began:.0f} s")
        self._looked_at = self._clock()
        self._outage = None
