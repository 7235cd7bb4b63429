"""How many requests are in flight: a fixed number, or as many as keep the servers busy.

`Auto` has two ways to find that number. A server that tells what runs and what waits (vLLM's ``/metrics``) is filled until
something waits, and then given a few requests more than it runs, so that no slot is ever empty. One that tells nothing is
given more for as long as that brings more finished requests per second.
"""

from collections import deque
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Final, Protocol

from qaeval.records import PREEMPTIONS, RUNNING, WAITING

_FIRST: Final = 16
_MOST: Final = 1024
_LEAST: Final = 4

_SPARE: Final = 8
"""Of what runs, one in so many is sent on top, to wait in the server for the next free slot."""
_SEEN: Final = 8
"""Readings over which the largest number of running requests counts: it falls for a moment when many finish at once."""
_FULL: Final = 0.9
"""Of the limit that is in flight: with less it is not the limit that holds the server back."""
_CUT: Final = 0.75
"""What is left of the limit after a preemption or a refusal."""
_CALM_S: Final = 5.0
"""After a cut the limit does not rise for so long."""

_GAIN: Final = 1.1
"""Without a server's own numbers: the limit doubles again while that brings at least so many times the requests per second."""
_WINDOW_S: Final = 0.5
"""Shortest time over which requests per second are counted."""
_AGAIN: Final = 20
"""Windows after which a limit that was found is questioned again."""


class Pace(Protocol):
    """Says how many tasks may be at work, and is told what happens."""

    limit: int
    """May change at any time."""
    changed: Callable[[], None]
    """Called when the limit has risen; the loop sets it."""

    def began(self) -> None:
        """Take note of a task that begins."""
        ...

    def ended(self) -> None:
        """Take note of a task that is finished."""
        ...

    def refused(self) -> None:
        """Take note of a server that asked for fewer requests."""
        ...


def _nobody() -> None:
    """Be told of a change, by nobody yet."""


class Fixed:
    """Always the same number.

    Args:
        limit: At least 1.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.changed = _nobody

    def began(self) -> None:
        """Take note of nothing."""

    def ended(self) -> None:
        """Take note of nothing."""

    def refused(self) -> None:
        """Take note of nothing."""


class Auto:
    """As many as keep the servers busy.

    Args:
        clock: Seconds, ever rising.
        most: Never more than this.
    """

    def __init__(self, *, clock: Callable[[], float] = perf_counter, most: int = _MOST) -> None:
        self.limit = min(_FIRST, most)
        self.changed = _nobody
        self.in_flight = 0
        self._clock = clock
        self._most = most
        self._calm_until = 0.0
        self._running: deque[float] = deque(maxlen=_SEEN)
        self._preemptions: float | None = None
        self._is_told = self._is_queued = False
        self._climb = _Climb(clock())

    @property
    def is_searching(self) -> bool:
        """Whether the limit is still rising, so that readings should come fast."""
        return not self._is_queued and self.limit < self._most and self._clock() >= self._calm_until

    def began(self) -> None:
        """Count a task in."""
        self.in_flight += 1
        if self.in_flight >= _FULL * self.limit:
            self._climb.is_full = True

    def ended(self) -> None:
        """Count a task out and, where no server tells how it is, see whether more brings more."""
        self.in_flight -= 1
        if not self._is_told and self._clock() >= self._calm_until:
            wanted = self._climb.ended(self._clock(), self.limit)
            if wanted is not None:
                self._set(wanted)

    def reading(self, values: Mapping[str, float]) -> None:
        """Take note of what the servers say of themselves, added up over all of them.

        Args:
            values: By the names of vLLM's metrics; without those of running and waiting requests nothing changes.
        """
        if RUNNING not in values or WAITING not in values:
            return
        self._is_told = True
        running, waiting = values[RUNNING], values[WAITING]
        self._running.append(running)
        self._is_queued = waiting > 0
        before, self._preemptions = self._preemptions, values.get(PREEMPTIONS)
        if before is not None and self._preemptions is not None and self._preemptions > before:
            self._cut(running)
        elif waiting > 0:
            most = max(self._running)
            wanted = int(most + most / _SPARE) + _LEAST
            # the queue may be that of a server that has only begun to take requests in: fall by steps, not at once
            self._set(max(wanted, int(_CUT * self.limit)) if wanted < self.limit else self._risen(wanted))
        elif self.in_flight >= _FULL * self.limit:
            self._set(self._risen(2 * self.limit))

    def _risen(self, limit: int) -> int:
        """Return the higher limit, or the present one so soon after a cut."""
        return limit if self._clock() >= self._calm_until else self.limit

    def refused(self) -> None:
        """Take note of a server that asked for fewer requests (429, 503)."""
        if self._clock() >= self._calm_until - _CALM_S + 1.0:
            self._cut(self.in_flight)

    def _cut(self, running: float) -> None:
        self._calm_until = self._clock() + _CALM_S
        self._set(int(_CUT * min(running, self.limit)))

    def _set(self, limit: int) -> None:
        before, self.limit = self.limit, max(_LEAST, min(self._most, limit))
        if self.limit > before:
            self.changed()


class _Climb:
    """Doubles the limit while that brings more requests per second, then goes back to the last one that did."""

    def __init__(self, now: float) -> None:
        self._begin(now)
        self._limit, self._skip = 0, 0
        self._best_rate, self._best_limit = 0.0, 0
        self._held = 0

    def _begin(self, now: float) -> None:
        """Begin a window."""
        self._since, self._n, self.is_full = now, 0, False

    def ended(self, now: float, limit: int) -> int | None:
        """Count a finished task; at the end of a window, return the limit to try next."""
        if limit != self._limit:  # what is in flight began under another limit: let it end before counting
            self._limit, self._skip = limit, limit
        if self._skip:
            self._skip -= 1
            self._begin(now)
            return None
        self._n += 1
        if self._n < 2 * limit or now - self._since < _WINDOW_S:
            return None
        rate, was_full = self._n / (now - self._since), self.is_full
        self._begin(now)
        if not was_full:
            return None
        if limit <= self._best_limit:  # settled
            self._held += 1
            self._best_rate = rate
            return 2 * limit if self._held % _AGAIN == 0 else None
        if rate >= _GAIN * self._best_rate:
            self._best_rate, self._best_limit = rate, limit
            return 2 * limit
        return self._best_limit
