"""How many requests are in flight: a fixed number, or as many as keep the servers busy.

`AdaptiveLimit` has two ways to find that number. A server that reports what runs and what waits (vLLM's
``/metrics``) is filled until something waits, and then given a few requests more than it runs, so that no
slot is ever empty. One that reports nothing is given more for as long as that brings more finished requests
per second.
"""

from collections import deque
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Final, Protocol

from qaeval.records import PREEMPTIONS, RUNNING, WAITING

_INITIAL: Final = 16
"""Doubling from here reaches 256 slots in four steps."""
_MAX: Final = 1024
"""The highest number that the client was measured at (docs/decisions/0002)."""
_MIN: Final = 4

_SPARE_SHARE: Final = 8
"""Per so many running requests one more is sent, which waits in the server for the next free slot."""
_RUNNING_READINGS: Final = 8
"""Readings over which the maximum of running requests is taken: their number drops when many end at the same
moment."""
_FULL_SHARE: Final = 0.9
"""Share of the limit in flight from which the limit is what holds the server back; below it there is too
little work."""
_CUT: Final = 0.75
"""Share of the limit that is left after a preemption or a refusal."""
_CALM_S: Final = 5.0
"""Time after a cut in which the limit does not rise: the server works off its queue first."""
_SAME_REFUSAL_S: Final = 1.0
"""Refusals this close together are one event: many requests are refused at the same moment."""

_MIN_GAIN: Final = 1.1
"""Without a server's own numbers the limit doubles again while requests per second grow by at least this
factor."""
_MIN_WINDOW_S: Final = 0.5
"""Shortest time over which requests per second are counted; below it chance decides."""
_RETRY_WINDOWS: Final = 20
"""Windows after which a settled limit is tried again at twice its value: the load of a shared server
changes."""


class ConcurrencyLimit(Protocol):
    """How many tasks may be in work; the loop reports what happens."""

    value: int
    """May change at any time."""
    on_rise: Callable[[], None]
    """Called when the limit has risen; set by the loop."""

    def task_started(self) -> None:
        """Count a task that begins."""
        ...

    def task_ended(self) -> None:
        """Count a task that ends."""
        ...

    def refused(self) -> None:
        """Take note of a server that asked for fewer requests (429, 503)."""
        ...


def _ignore() -> None:
    """Do nothing, until a loop sets the callback."""


class FixedLimit:
    """Always the same number.

    Args:
        value: At least 1.
    """

    def __init__(self, value: int) -> None:
        self.value = value
        self.on_rise = _ignore

    def task_started(self) -> None:
        """Do nothing."""

    def task_ended(self) -> None:
        """Do nothing."""

    def refused(self) -> None:
        """Do nothing."""


class AdaptiveLimit:
    """As many as keep the servers busy.

    Args:
        clock: Monotonic, in seconds.
        maximum: Upper bound of the limit.
    """

    def __init__(self, *, clock: Callable[[], float] = perf_counter, maximum: int = _MAX) -> None:
        self.value = min(_INITIAL, maximum)
        self.on_rise = _ignore
        self.in_flight = 0
        self._clock = clock
        self._maximum = maximum
        self._calm_until = 0.0
        self._running: deque[float] = deque(maxlen=_RUNNING_READINGS)
        self._preemptions: float | None = None
        self._has_readings = self._has_queue = False
        self._climb = _Climb(clock())

    @property
    def is_searching(self) -> bool:
        """Whether the limit still rises, so that readings should come often."""
        return not self._has_queue and self.value < self._maximum and self._clock() >= self._calm_until

    def task_started(self) -> None:
        """Count a task that begins."""
        self.in_flight += 1
        if self.in_flight >= _FULL_SHARE * self.value:
            self._climb.is_full = True

    def task_ended(self) -> None:
        """Count a task that ends; where no server reports its load, try whether a higher limit is faster."""
        self.in_flight -= 1
        if not self._has_readings and self._clock() >= self._calm_until:
            target = self._climb.task_ended(self._clock(), self.value)
            if target is not None:
                self._set(target)

    def reading(self, values: Mapping[str, float]) -> None:
        """Follow what the servers report of their load, added up over all of them.

        Args:
            values: By the names of vLLM's metrics; without running and waiting requests nothing changes.
        """
        if RUNNING not in values or WAITING not in values:
            return
        self._has_readings = True
        running, waiting = values[RUNNING], values[WAITING]
        self._running.append(running)
        self._has_queue = waiting > 0
        before, self._preemptions = self._preemptions, values.get(PREEMPTIONS)
        if before is not None and self._preemptions is not None and self._preemptions > before:
            self._cut(running)
        elif waiting > 0:
            peak = max(self._running)
            target = int(peak + peak / _SPARE_SHARE) + _MIN
            # the queue may be that of a server that has only begun to take requests in: fall by steps, not at
            # once
            self._set(max(target, int(_CUT * self.value)) if target < self.value else self._risen(target))
        elif self.in_flight >= _FULL_SHARE * self.value:
            self._set(self._risen(2 * self.value))

    def _risen(self, limit: int) -> int:
        """Return the higher limit, or the present one so soon after a cut."""
        return limit if self._clock() >= self._calm_until else self.value

    def refused(self) -> None:
        """Cut the limit after a server asked for fewer requests (429, 503)."""
        if self._clock() >= self._calm_until - _CALM_S + _SAME_REFUSAL_S:
            self._cut(self.in_flight)

    def _cut(self, running: float) -> None:
        self._calm_until = self._clock() + _CALM_S
        self._set(int(_CUT * min(running, self.value)))

    def _set(self, limit: int) -> None:
        before, self.value = self.value, max(_MIN, min(self._maximum, limit))
        if self.value > before:
            self.on_rise()


class _Climb:
    """Doubles the limit while that brings more requests per second, then returns to the last one that did."""

    def __init__(self, now: float) -> None:
        self._begin_window(now)
        self._limit, self._n_to_skip = 0, 0
        self._best_rate, self._best_limit = 0.0, 0
        self._n_settled = 0

    def _begin_window(self, now: float) -> None:
        self._since, self._n_ended, self.is_full = now, 0, False

    def task_ended(self, now: float, limit: int) -> int | None:
        """Count a finished task; at the end of a window, return the limit to try next."""
        if limit != self._limit:  # what is in flight began under another limit: let it end before counting
            self._limit, self._n_to_skip = limit, limit
        if self._n_to_skip:
            self._n_to_skip -= 1
            self._begin_window(now)
            return None
        self._n_ended += 1
        if self._n_ended < 2 * limit or now - self._since < _MIN_WINDOW_S:
            return None
        rate, was_full = self._n_ended / (now - self._since), self.is_full
        self._begin_window(now)
        if not was_full:
            return None
        if limit <= self._best_limit:  # settled
            self._n_settled += 1
            self._best_rate = rate
            return 2 * limit if self._n_settled % _RETRY_WINDOWS == 0 else None
        if rate >= _MIN_GAIN * self._best_rate:
            self._best_rate, self._best_limit = rate, limit
            return 2 * limit
        return self._best_limit
