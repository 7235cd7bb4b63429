"""Node seconds of a run, told apart: starting servers, waiting, work."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from qaeval.analysis.replies import Span, TimedSession, cut, length, time_sessions, union
from qaeval.cost.candidates import days_stale
from qaeval.cost.model import NodeCost
from qaeval.records import GENERATED_TOKENS, PROMPT_TOKENS, RUNNING, WAITING, Reading, Session
from qaeval.report.facts import MachineFacts

_HOUR: Final = 3600.0


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
    timed_sessions = time_sessions(sessions)
    nodes: dict[tuple[str, str], list[TimedSession]] = {}
    for timed in timed_sessions:
        if timed.session.host:
            machine = machines.get(timed.session.model)
            nodes.setdefault((timed.session.host, machine.name if machine else ""), []).append(timed)
    active = union(span for timed in timed_sessions for span in (timed.load, timed.work))
    return tuple(
        _node(host, on_node, active, readings, machines.get(on_node[0].session.model), finished)
        for (host, _), on_node in nodes.items()
    )


def run_seconds(sessions: Sequence[Session]) -> float:
    """Return how long a run worked, in seconds: stages side by side count once, interruptions not at all."""
    return length(union(span for timed in time_sessions(sessions) for span in (timed.load, timed.work)))


def _node(
    host: str,
    on_node: Sequence[TimedSession],
    active: Sequence[Span],
    readings: Sequence[Reading],
    machine: MachineFacts | None,
    finished: str,
) -> NodeCost:
    work = union(timed.work for timed in on_node)
    busy = union([*work, *(timed.load for timed in on_node)])
    up = length(cut(active, busy[0][0], busy[-1][1])) if busy else 0.0
    quiet = length(union(span for timed in on_node for span in _quiet(timed, on_node, readings)))
    hourly = None if machine is None else machine.price_per_hour
    return NodeCost(
        host=host,
        models=tuple(dict.fromkeys(timed.session.model for timed in on_node)),
        machine=machine,
        load_s=length(busy) - length(work),
        idle_s=max(0.0, up - length(busy)) + quiet,
        work_s=length(work) - quiet,
        price=None if hourly is None else up / _HOUR * hourly,
        stale_days=None if machine is None else days_stale(machine.as_of, finished),
    )


def _quiet(
    stay: TimedSession, on_node: Sequence[TimedSession], readings: Sequence[Reading]
) -> Iterable[Span]:
    """Yield the times of a stage in which its server had nothing to do, unless another stage was at work on the machine."""
    session = stay.session
    session_readings = [
        row
        for row in readings
        if (row.stage, row.model, row.session) == (session.stage, session.model, session.started)
    ]
    other_work = union(timed.work for timed in on_node if timed is not stay)
    for before, after in pairwise(session_readings):
        if _is_quiet(before) and _is_quiet(after) and _nothing_between(before, after):
            first, last = stay.start + before.at_s, min(stay.start + after.at_s, stay.work[1])
            if last > first and not cut(other_work, first, last):
                yield first, last


def _is_quiet(reading: Reading) -> bool:
    return reading.values.get(RUNNING) == 0 and not reading.values.get(WAITING)


def _nothing_between(before: Reading, after: Reading) -> bool:
    """Whether no token was read or written between two readings: requests may have come and gone."""
    counters = (PROMPT_TOKENS, GENERATED_TOKENS)
    return all(name in before.values and before.values[name] == after.values.get(name) for name in counters)
