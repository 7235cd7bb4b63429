"""Node seconds of a run, told apart: starting servers, waiting, work."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final, TypeAlias

from qaeval.analysis.cost import days_stale
from qaeval.records import Reading, Session
from qaeval.report.facts import MachineFacts
from qaeval.report.nodes import NodeCost
from qaeval.vllm_metrics import GENERATED_TOKENS, PROMPT_TOKENS, RUNNING, WAITING

_HOUR: Final = 3600.0
_CLOCK_S: Final = 1.0
"""Sessions know their start to the second: one that begins so much before the last one's end followed it."""

_Span: TypeAlias = tuple[float, float]
"""Seconds since 1970, from and to."""


@dataclass(frozen=True)
class _Stay:
    """A session on the clock."""

    session: Session
    start: float
    """Seconds since 1970."""

    @property
    def work(self) -> _Span:
        return self.start, self.start + self.session.seconds

    @property
    def load(self) -> _Span:
        return self.start - self.session.load_s, self.start


def node_costs(
    sessions: Sequence[Session],
    readings: Sequence[Reading],
    machines: Mapping[str, MachineFacts],
    finished: str,
) -> tuple[NodeCost, ...]:
    """Say what each machine of a run did from its first server's start to the end of its last stage.

    A machine is a host together with the registry's machine of its models. Where two of its stages ran at the same time, the
    seconds count once. It idles while other machines work on the run, and between two readings of its server's metrics when no
    request runs or waits at either and no token came or went in between. Time in which nothing of the run worked anywhere (it was interrupted) is nobody's. Embedded models
    have no machine.

    Args:
        sessions: Of the run.
        readings: What the servers said of themselves.
        machines: What each model runs on, by its name.
        finished: ISO 8601; prices are dated against it.
    """
    stays = _on_the_clock(sessions)
    nodes: dict[tuple[str, str], list[_Stay]] = {}
    for one in stays:
        if one.session.host:
            machine = machines.get(one.session.model)
            nodes.setdefault((one.session.host, machine.name if machine else ""), []).append(one)
    active = _union(span for one in stays for span in (one.load, one.work))
    return tuple(
        _node(host, own, active, readings, machines.get(own[0].session.model), finished)
        for (host, _), own in nodes.items()
    )


def run_seconds(sessions: Sequence[Session]) -> float:
    """Return how long a run worked, in seconds: stages side by side count once, interruptions not at all."""
    return _length(_union(span for one in _on_the_clock(sessions) for span in (one.load, one.work)))


def _node(
    host: str,
    own: Sequence[_Stay],
    active: Sequence[_Span],
    readings: Sequence[Reading],
    machine: MachineFacts | None,
    finished: str,
) -> NodeCost:
    work = _union(one.work for one in own)
    busy = _union([*work, *(one.load for one in own)])
    up = _length(_cut(active, busy[0][0], busy[-1][1])) if busy else 0.0
    quiet = _length(_union(span for one in own for span in _quiet(one, own, readings)))
    hourly = None if machine is None else machine.price_per_hour
    return NodeCost(
        host=host,
        models=tuple(dict.fromkeys(one.session.model for one in own)),
        machine=machine,
        load_s=_length(busy) - _length(work),
        idle_s=max(0.0, up - _length(busy)) + quiet,
        work_s=_length(work) - quiet,
        price=None if hourly is None else up / _HOUR * hourly,
        stale_days=None if machine is None else days_stale(machine.as_of, finished),
    )


def _on_the_clock(sessions: Sequence[Session]) -> list[_Stay]:
    stays: list[_Stay] = []
    end = float("-inf")
    for one in sorted(sessions, key=lambda session: session.started):
        start = datetime.fromisoformat(one.started).timestamp()
        if not one.alongside and 0 < end - (start - one.load_s) <= _CLOCK_S:
            start = end + one.load_s
        stays.append(_Stay(one, start))
        end = max(end, stays[-1].work[1])
    return stays


def _quiet(stay: _Stay, own: Sequence[_Stay], readings: Sequence[Reading]) -> Iterable[_Span]:
    """Yield the times of a stage in which its server had nothing to do, unless another stage was at work on the machine."""
    one = stay.session
    mine = [
        row for row in readings if (row.stage, row.model, row.session) == (one.stage, one.model, one.started)
    ]
    others = _union(other.work for other in own if other is not stay)
    for before, after in pairwise(mine):
        if _is_quiet(before) and _is_quiet(after) and _nothing_between(before, after):
            first, last = stay.start + before.at_s, min(stay.start + after.at_s, stay.work[1])
            if last > first and not _cut(others, first, last):
                yield first, last


def _is_quiet(reading: Reading) -> bool:
    return reading.values.get(RUNNING) == 0 and not reading.values.get(WAITING)


def _nothing_between(before: Reading, after: Reading) -> bool:
    """Whether no token was read or written between two readings: requests may have come and gone."""
    counters = (PROMPT_TOKENS, GENERATED_TOKENS)
    return all(name in before.values and before.values[name] == after.values.get(name) for name in counters)


def _union(spans: Iterable[_Span]) -> list[_Span]:
    merged: list[_Span] = []
    for first, last in sorted(span for span in spans if span[1] > span[0]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _cut(spans: Iterable[_Span], first: float, last: float) -> list[_Span]:
    """Return the parts of disjoint spans that lie between two moments."""
    parts = ((max(first, start), min(last, end)) for start, end in spans)
    return [part for part in parts if part[1] > part[0]]


def _length(spans: Iterable[_Span]) -> float:
    return sum(end - start for start, end in spans)
