"""Timeouts of replies: the worst case for their tokens, or less where the server has proved faster."""

import asyncio
from collections import deque
from typing import Final

_FIRST_TOKEN_S: Final = 60.0
"""Waiting in the server's queue, and for the first token."""
_MIN_TOKENS_PER_S: Final = 2.0
"""Tokens per second of one request; slower than any GPU under load."""
_MIN_REPLIES: Final = 32
"""Replies that are needed before their times count; fewer say little about the slowest."""
_RECENT_REPLIES: Final = 256
_MAX_RATIO: Final = 5.0
"""A reply that takes this many times as long as the slowest recent one is taken for lost."""
_MIN_TIMEOUT_S: Final = 20.0
"""Lower bound, for servers whose replies take milliseconds."""


class AdaptiveTimeout:
    """Learns from the replies of one model in one stage, whose requests allow the same number of tokens."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_RECENT_REPLIES)
        self._slowest = 0.0
        self._waiting: dict[asyncio.Timeout, tuple[float, int]] = {}

    def seconds(self, max_tokens: int) -> float:
        """Return the timeout for a reply of at most this many tokens, from sending to the last byte."""
        worst_case = _FIRST_TOKEN_S + max_tokens / _MIN_TOKENS_PER_S
        if len(self._recent) < _MIN_REPLIES:
            return worst_case
        return min(worst_case, max(_MIN_TIMEOUT_S, _MAX_RATIO * self._slowest))

    def begin(self, timeout: asyncio.Timeout, max_tokens: int) -> None:
        """Register the timeout of a request that was just sent, so that it can be shortened later."""
        self._waiting[timeout] = (asyncio.get_running_loop().time(), max_tokens)

    def end(self, timeout: asyncio.Timeout) -> None:
        """Forget the timeout of a request that has ended."""
        self._waiting.pop(timeout, None)

    def learn(self, latency_s: float) -> None:
        """Count a reply that came; once there are enough, shorten the timeouts of requests in flight."""
        dropped = self._recent[0] if len(self._recent) == _RECENT_REPLIES else 0.0
        self._recent.append(latency_s)
        # the maximum is searched anew only when the slowest reply leaves the window: this runs for every
        # reply
        self._slowest = max(self._recent) if dropped == self._slowest else max(self._slowest, latency_s)
        if len(self._recent) == _MIN_REPLIES:
            now = asyncio.get_running_loop().time()
            for timeout, (sent, max_tokens) in self._waiting.items():
                if not timeout.expired():
                    timeout.reschedule(max(now, sent + self.seconds(max_tokens)))
