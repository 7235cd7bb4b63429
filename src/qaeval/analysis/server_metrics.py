"""What the servers said of themselves over a stage, from the readings of their metrics."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import inf

from qaeval.analysis.model import ServerSpan
from qaeval.records import (
    E2E,
    GENERATED_TOKENS,
    ITL,
    KV_CACHE,
    PREEMPTIONS,
    PREFIX_HITS,
    PREFIX_QUERIES,
    QUEUE,
    RUNNING,
    SUCCESSES,
    TPOT,
    TTFT,
    WAITING,
    Reading,
)


def server_span(readings: Iterable[Reading], stage: str, model: str) -> ServerSpan | None:
    """Summarise a model's stage; None where its server was not read.

    Counters count since the server's start, so each session contributes what they grew by from its first to its last
    reading; a name that a server lacks makes what hangs on it None, never 0.
    """
    stage_readings = [reading for reading in readings if (reading.stage, reading.model) == (stage, model)]
    if not stage_readings:
        return None
    sessions = [list(rows) for _, rows in groupby(stage_readings, key=lambda reading: reading.session)]
    return ServerSpan(
        n_readings=len(stage_readings),
        ttft_s=_mean(sessions, TTFT),
        ttft_p50_s=_quantile(sessions, TTFT, 0.5),
        ttft_p95_s=_quantile(sessions, TTFT, 0.95),
        inter_token_s=_mean(sessions, ITL),
        inter_token_p50_s=_quantile(sessions, ITL, 0.5),
        inter_token_p95_s=_quantile(sessions, ITL, 0.95),
        tpot_s=_mean(sessions, TPOT),
        tpot_p50_s=_quantile(sessions, TPOT, 0.5),
        tpot_p95_s=_quantile(sessions, TPOT, 0.95),
        e2e_s=_mean(sessions, E2E),
        e2e_p50_s=_quantile(sessions, E2E, 0.5),
        e2e_p95_s=_quantile(sessions, E2E, 0.95),
        requests_per_s=_ratio(_finished(sessions), _seconds(sessions)),
        tokens_per_s=_ratio(_grown(sessions, GENERATED_TOKENS), _seconds(sessions)),
        queue_s=_mean(sessions, QUEUE),
        running_max=_most(stage_readings, RUNNING),
        waiting_max=_most(stage_readings, WAITING),
        kv_cache_max=_most(stage_readings, KV_CACHE),
        preemptions=_grown(sessions, PREEMPTIONS),
        prefix_hit_rate=_ratio(
            _grown(sessions, PREFIX_HITS),
            _grown(sessions, PREFIX_QUERIES),
        ),
        missing=tuple(sorted({name for reading in stage_readings for name in reading.missing})),
    )


def _grown(sessions: Sequence[Sequence[Reading]], name: str) -> float | None:
    """Add what a counter grew by in each session; None where a session does not have it twice."""
    total = 0.0
    for session in sessions:
        seen = [reading.values[name] for reading in session if name in reading.values]
        if len(seen) < 2:
            return None
        total += seen[-1] - seen[0]
    return total


def _finished(sessions: Sequence[Sequence[Reading]]) -> float | None:
    """Add the requests that finished, for whatever reason; None where the server does not count them."""
    reasons = {
        name
        for session in sessions
        for reading in session
        for name in reading.values
        if name.startswith(f"{SUCCESSES} ")
    }
    grown = [_grown(sessions, name) for name in reasons]
    return None if not grown or None in grown else sum(growth for growth in grown if growth is not None)


def _seconds(sessions: Sequence[Sequence[Reading]]) -> float:
    """Add the time between the first and the last reading of each session."""
    return sum(
        max(reading.at_s for reading in session) - min(reading.at_s for reading in session)
        for session in sessions
    )


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _mean(sessions: Sequence[Sequence[Reading]], histogram: str) -> float | None:
    return _ratio(_grown(sessions, f"{histogram}_sum"), _grown(sessions, f"{histogram}_count"))


def histogram(readings: Iterable[Reading], stage: str, model: str, name: str) -> dict[float, float]:
    """Count a model's requests by the upper bounds of a histogram, cumulated, rising; empty where it was not read."""
    stage_readings = [reading for reading in readings if (reading.stage, reading.model) == (stage, model)]
    return _cumulated(
        [list(rows) for _, rows in groupby(stage_readings, key=lambda reading: reading.session)], name
    )


def histogram_quantile(cumulated: Mapping[float, float], share: float) -> float | None:
    """Read a quantile off a histogram, straight inside its bucket as Prometheus does; None above the last bound."""
    total = cumulated.get(inf, 0.0)
    below, lower = 0.0, 0.0
    for bound, upto in cumulated.items() if total else ():
        if upto >= share * total:
            inside = (share * total - below) / (upto - below) if upto > below else 1.0
            return None if bound == inf else lower + (bound - lower) * inside
        below, lower = upto, bound
    return None


def _quantile(sessions: Sequence[Sequence[Reading]], histogram: str, share: float) -> float | None:
    return histogram_quantile(_cumulated(sessions, histogram), share)


def _cumulated(sessions: Sequence[Sequence[Reading]], histogram: str) -> dict[float, float]:
    """Add what the buckets grew by; empty where one of them was not read twice in a session."""
    bounds = {
        float(name.rpartition(" ")[2]): name
        for session in sessions
        for reading in session
        for name in reading.values
        if name.startswith(f"{histogram}_bucket ")
    }
    counts = {bound: _grown(sessions, bounds[bound]) for bound in sorted(bounds)}
    defined = {bound: count for bound, count in counts.items() if count is not None}
    return defined if len(defined) == len(counts) else {}


def _most(readings: Iterable[Reading], gauge: str) -> float | None:
    return max((reading.values[gauge] for reading in readings if gauge in reading.values), default=None)
