"""Node seconds of a run: start of servers, idle time, work."""

from collections.abc import Collection, Iterable, Mapping, Sequence
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
    priced_at: str,
    *,
    hosted: Collection[str] = (),
) -> tuple[NodeCost, ...]:
    """Split the time of each machine of a run, from the start of its first server to the end of its last stage.

    A machine is a host together with the registry's machine of its models. The seconds of parallel stages count once. A machine
    is idle while other machines work on the run, and between two readings of its server's metrics if no request runs or waits
    at either and no token was read or written in between. Interruptions of the run belong to no machine. Embedded models and
    models of hosted APIs have no machine.

    Args:
        sessions: Of the run.
        readings: Metrics of the servers.
        machines: Machine of each model, by the model's name.
        priced_at: ISO 8601; the age of a price is counted up to this time.
        hosted: Models of hosted APIs.
    """
    timed_sessions = time_sessions(sessions)
    nodes: dict[tuple[str, str], list[TimedSession]] = {}
    for timed in timed_sessions:
        if timed.session.host and timed.session.model not in hosted:
            machine = machines.get(timed.session.model)
            nodes.setdefault((timed.session.host, machine.name if machine else ""), []).append(timed)
    active = union(span for timed in timed_sessions for span in (timed.load, timed.work))
    return tuple(
        _node(host, on_node, active, readings, machines.get(on_node[0].session.model), priced_at)
        for (host, _), on_node in nodes.items()
    )


def run_seconds(sessions: Sequence[Session]) -> float:
    """Return the working time of a run in seconds: parallel stages count once, interruptions do not count."""
    return length(union(span for timed in time_sessions(sessions) for span in (timed.load, timed.work)))


def _node(
    host: str,
    on_node: Sequence[TimedSession],
    active: Sequence[Span],
    readings: Sequence[Reading],
    machine: MachineFacts | None,
    priced_at: str,
) -> NodeCost:
    work = union(timed.work for timed in on_node)
    busy = union([*work, *(timed.load for timed in on_node)])
    up = length(cut(active, busy[0][0], busy[-1][1])) if busy else 0.0
    idle_s = length(union(span for timed in on_node for span in _idle_spans(timed, on_node, readings)))
    hourly = None if machine is None else machine.price_per_hour
    return NodeCost(
        host=host,
        models=tuple(dict.fromkeys(timed.session.model for timed in on_node)),
        machine=machine,
        load_s=length(busy) - length(work),
        idle_s=max(0.0, up - length(busy)) + idle_s,
        work_s=length(work) - idle_s,
        price=None if hourly is None else up / _HOUR * hourly,
        stale_days=None if machine is None else days_stale(machine.as_of, priced_at),
    )


def _idle_spans(
    timed: TimedSession, on_node: Sequence[TimedSession], readings: Sequence[Reading]
) -> Iterable[Span]:
    """Yield the spans of a session in which its server was idle and no other session worked on the machine."""
    session = timed.session
    session_readings = [
        row
        for row in readings
        if (row.stage, row.model, row.session) == (session.stage, session.model, session.started)
    ]
    other_work = union(other.work for other in on_node if other is not timed)
    for before, after in pairwise(session_readings):
        if _is_idle(before) and _is_idle(after) and _no_token_between(before, after):
            first, last = timed.start + before.at_s, min(timed.start + after.at_s, timed.work[1])
            if last > first and not cut(other_work, first, last):
                yield first, last


def _is_idle(reading: Reading) -> bool:
    return reading.values.get(RUNNING) == 0 and not reading.values.get(WAITING)


def _no_token_between(before: Reading, after: Reading) -> bool:
    """Whether no token was read or written between two readings; a short request may run between them unseen."""
    counters = (PROMPT_TOKENS, GENERATED_TOKENS)
    return all(name in before.values and before.values[name] == after.values.get(name) for name in counters)
