"""When the stages of a run were at work, as spans of the clock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from qaeval.records import Session

_CLOCK_S: Final = 1.0
"""Sessions know their start to the second: one that begins so much before the last one's end followed it."""

Span: TypeAlias = tuple[float, float]
"""Seconds since 1970, from and to."""


@dataclass(frozen=True)
class Stay:
    """A session on the clock."""

    session: Session
    start: float
    """Seconds since 1970."""

    @property
    def work(self) -> Span:
        """When it worked."""
        return self.start, self.start + self.session.seconds

    @property
    def load(self) -> Span:
        """When a server of qaeval's own started for it."""
        return self.start - self.session.load_s, self.start


def on_the_clock(sessions: Sequence[Session]) -> list[Stay]:
    """Put sessions on the clock, the first first; those of different shards do not wait for each other."""
    stays: list[Stay] = []
    ends: dict[str, float] = {}
    for one in sorted(sessions, key=lambda session: session.started):
        start, end = datetime.fromisoformat(one.started).timestamp(), ends.get(one.shard, float("-inf"))
        if not one.alongside and 0 < end - (start - one.load_s) <= _CLOCK_S:
            start = end + one.load_s
        stays.append(Stay(one, start))
        ends[one.shard] = max(end, stays[-1].work[1])
    return stays


def worked_s(sessions: Sequence[Session]) -> float:
    """Return how long the sessions of one stage worked, in seconds: one after the other, but shards side by side count once."""
    if len({one.shard for one in sessions}) < 2:  # noqa: PLR2004 - the clock is only asked where it is needed
        return sum(one.seconds for one in sessions)
    return length(union(one.work for one in on_the_clock(sessions)))


def union(spans: Iterable[Span]) -> list[Span]:
    """Merge spans into disjoint ones, the first first; empty ones are left out."""
    merged: list[Span] = []
    for first, last in sorted(span for span in spans if span[1] > span[0]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def cut(spans: Iterable[Span], first: float, last: float) -> list[Span]:
    """Return the parts of disjoint spans that lie between two moments."""
    parts = ((max(first, start), min(last, end)) for start, end in spans)
    return [part for part in parts if part[1] > part[0]]


def length(spans: Iterable[Span]) -> float:
    """Add up the seconds of disjoint spans."""
    return sum(end - start for start, end in spans)
