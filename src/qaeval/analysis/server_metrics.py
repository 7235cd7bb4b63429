"""Metrics of a server over a stage, from readings of its /metrics."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
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
    counter_growth,
)


def server_span(readings: Iterable[Reading], stage: str, model: str) -> ServerSpan | None:
    """Summarise the server metrics of a model in a stage; None without readings.

    Counters start with the server, so each session contributes the increases between its readings. A metric
    that the server lacks makes every value that depends on it None, never 0.
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
        tokens_per_s=_ratio(_increase(sessions, GENERATED_TOKENS), _seconds(sessions)),
        queue_s=_mean(sessions, QUEUE),
        running_max=_maximum(stage_readings, RUNNING),
        waiting_max=_maximum(stage_readings, WAITING),
        kv_cache_max=_maximum(stage_readings, KV_CACHE),
        preemptions=_increase(sessions, PREEMPTIONS),
        prefix_hit_rate=_ratio(
            _increase(sessions, PREFIX_HITS),
            _increase(sessions, PREFIX_QUERIES),
        ),
        missing=tuple(sorted({name for reading in stage_readings for name in reading.missing})),
    )


def _increase(sessions: Sequence[Sequence[Reading]], name: str) -> float | None:
    """Return the total increase of a counter over the sessions; None if a session has fewer than two readings of it."""
    total = 0.0
    for session in sessions:
        values = [reading.values[name] for reading in session if name in reading.values]
        if len(values) < 2:
            return None
        total += sum(counter_growth(*pair) for pair in pairwise(values))
    return total


def _finished(sessions: Sequence[Sequence[Reading]]) -> float | None:
    """Return the number of finished requests, whatever their finish reason; None if the server does not count them."""
    reasons = {
        name
        for session in sessions
        for reading in session
        for name in reading.values
        if name.startswith(f"{SUCCESSES} ")
    }
    increases = [_increase(sessions, name) for name in reasons]
    known = [increase for increase in increases if increase is not None]
    return sum(known) if known and len(known) == len(increases) else None


def _seconds(sessions: Sequence[Sequence[Reading]]) -> float:
    """Return the total time between the first and the last reading of each session."""
    return sum(
        max(reading.at_s for reading in session) - min(reading.at_s for reading in session)
        for session in sessions
    )


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _mean(sessions: Sequence[Sequence[Reading]], histogram: str) -> float | None:
    return _ratio(_increase(sessions, f"{histogram}_sum"), _increase(sessions, f"{histogram}_count"))


def histogram(readings: Iterable[Reading], stage: str, model: str, name: str) -> dict[float, float]:
    """Return cumulative counts of a model's requests by upper bound, ascending; empty without readings."""
    stage_readings = [reading for reading in readings if (reading.stage, reading.model) == (stage, model)]
    return _cumulated(
        [list(rows) for _, rows in groupby(stage_readings, key=lambda reading: reading.session)], name
    )


def histogram_quantile(cumulated: Mapping[float, float], share: float) -> float | None:
    """Return a quantile of a histogram, interpolated linearly within its bucket as in Prometheus; None above the last bound."""
    total = cumulated.get(inf, 0.0)
    below, lower = 0.0, 0.0
    for bound, count in cumulated.items() if total else ():
        if count >= share * total:
            fraction = (share * total - below) / (count - below) if count > below else 1.0
            return None if bound == inf else lower + (bound - lower) * fraction
        below, lower = count, bound
    return None


def _quantile(sessions: Sequence[Sequence[Reading]], histogram: str, share: float) -> float | None:
    return histogram_quantile(_cumulated(sessions, histogram), share)


def _cumulated(sessions: Sequence[Sequence[Reading]], histogram: str) -> dict[float, float]:
    """Return the total increase of each bucket; empty if a session has fewer than two readings of one."""
    bounds = {
        float(name.rpartition(" ")[2]): name
        for session in sessions
        for reading in session
        for name in reading.values
        if name.startswith(f"{histogram}_bucket ")
    }
    counts = {bound: _increase(sessions, bounds[bound]) for bound in sorted(bounds)}
    defined = {bound: count for bound, count in counts.items() if count is not None}
    return defined if len(defined) == len(counts) else {}


def _maximum(readings: Iterable[Reading], gauge: str) -> float | None:
    return max((reading.values[gauge] for reading in readings if gauge in reading.values), default=None)
