"""A server that stopped answering: requests wait until it answers again, instead of failing in turn."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

from qaeval.errors import EndpointError

_HEALTH_VALID_S: Final = 0.5
"""Validity of a health check: requests that fail with the same fault share one."""
_FIRST_WAIT_S: Final = 0.25
"""Waits between two health checks double from here to `_MAX_WAIT_S`: short outages end soon, long ones cost
few requests."""
_MAX_WAIT_S: Final = 5.0


class CircuitBreaker:
    """Open while its server does not answer; requests then wait for it.

    Args:
        server: The server's name in messages.
        is_healthy: Asks the server whether it is well; never raises.
        outage_s: Longest wait for a server that stopped answering, in seconds.
        on_message: Called when the server stopped answering, and when it answers again.
        sleep: Waits between two health checks.
        clock: Monotonic, in seconds.
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
        self._healthy_at = float("-inf")
        self._checking = asyncio.Lock()
        self._outage: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the server does not answer at present."""
        return self._outage is not None

    async def answers(self) -> bool:
        """Check the server after a failed request; open where it does not answer.

        Many requests fail together. The first one sends a health check, the others wait for its result.
        """
        async with self._checking:
            if self._outage is not None:
                return False
            if self._clock() - self._healthy_at < _HEALTH_VALID_S:
                return True
            if await self._is_healthy():
                self._healthy_at = self._clock()
                return True
            self._outage = asyncio.create_task(self._wait_for_server())
            return False

    async def wait(self) -> None:
        """Wait until the server answers; return at once where it does.

        Raises:
            EndpointError: it did not answer within ``outage_s``.
        """
        if self._outage is not None:
            await asyncio.shield(self._outage)  # one request that is cancelled must not end the wait of all

    async def close(self) -> None:
        """End a wait that is under way."""
        if self._outage is not None:
            self._outage.cancel()
            await asyncio.wait([self._outage])
            if not self._outage.cancelled():
                self._outage.exception()  # retrieved: the requests that waited have raised it

    async def _wait_for_server(self) -> None:
        since, wait_s = self._clock(), _FIRST_WAIT_S
        self._on_message(f"{self._server} does not answer; waiting up to {self._outage_s:.0f} s")
        while True:
            await self._sleep(wait_s)
            wait_s = min(_MAX_WAIT_S, 2 * wait_s)
            if await self._is_healthy():
                break
            if self._clock() - since >= self._outage_s:
                raise EndpointError(
                    f"{self._server}: the server stopped answering and did not come back within "
                    f"{self._outage_s:.0f} s; finished rows are kept"
                )
        self._on_message(f"{self._server} answers again after {self._clock() - since:.0f} s")
        self._healthy_at = self._clock()
        self._outage = None
