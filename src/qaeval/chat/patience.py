"""How long to wait for a reply: what its tokens may take at worst, or less where the server has shown that it is faster."""

import asyncio
from collections import deque
from typing import Final

_ANSWER_S: Final = 60.0
"""Waiting in the server's queue, and for the first token."""
_SLOWEST: Final = 2.0
"""Tokens per second and request; slower than any GPU under load."""
_LEARNT: Final = 32
"""Replies after which their times count."""
_RECENT: Final = 256
_TIMES: Final = 5.0
"""A reply that takes so many times the slowest of the recent ones is not coming."""
_LEAST_S: Final = 20.0


class Patience:
    """Learns from the replies of one model in one stage, whose requests allow the same number of tokens."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._slowest = 0.0
        self._waiting: dict[asyncio.Timeout, tuple[float, int]] = {}

    def seconds(self, max_tokens: int) -> float:
        """Return how long to wait for a reply of at most this many tokens, from sending to the last byte."""
        at_worst = _ANSWER_S + max_tokens / _SLOWEST
        if len(self._recent) < _LEARNT:
            return at_worst
        return min(at_worst, max(_LEAST_S, _TIMES * self._slowest))

    def begin(self, limit: asyncio.Timeout, max_tokens: int) -> None:
        """Look after the limit of a request that was just sent: it was set before much was known."""
        self._waiting[limit] = (asyncio.get_running_loop().time(), max_tokens)

    def end(self, limit: asyncio.Timeout) -> None:
        """Forget a request that has ended."""
        self._waiting.pop(limit, None)

    def learn(self, latency_s: float) -> None:
        """Take note of a reply that came; once enough is known, shorten the limits of what is still waited for."""
        leaving = self._recent[0] if len(self._recent) == _RECENT else 0.0
        self._recent.append(latency_s)
        self._slowest = max(self._recent) if leaving == self._slowest else max(self._slowest, latency_s)
        if len(self._recent) == _LEARNT:
            now = asyncio.get_running_loop().time()
            for limit, (began, max_tokens) in self._waiting.items():
                if not limit.expired():
                    limit.reschedule(max(now, began + self.seconds(max_tokens)))
