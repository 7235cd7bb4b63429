"""Summarise timed requests by level, and find the knee. Pure.

Throughput is measured over the steady window of a closed loop, in which all requests are in flight. A reply
that lies partly in the window counts by that part, so that ramp-up and ramp-down do not bias the
throughput.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import ceil, nan, sqrt
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from qaeval.analysis.model import ServerSpan
from qaeval.cost.alternatives import steady_work
from qaeval.records import TimedRequest
from qaeval.report.measure import Measure
from qaeval.stats.estimate import Estimate
from qaeval.sweep.model import Knee, KneeShare, LatencySummary, LevelCost, LoadLevel, RepeatSummary

KNEE_SHARE_OF_BEST: Final = 0.95
"""Throughput at the knee: at least this share of the best."""
MAX_ERROR_SHARE: Final = 0.01
"""A level with a larger share of failed requests cannot be the knee."""
Floats: TypeAlias = NDArray[np.float64]

MIN_REPEATS: Final = 3
"""Fewest repeats for a confidence interval."""

_DRAWS: Final = 10_000
_MIN_KNEE_SHARE: Final = 0.025
"""A level that is the knee in a smaller share of the draws is not listed as possible."""
_TOLERANCE: Final = 1e-9
"""Relative tolerance, so that a level with exactly 95 % of the best is not lost to rounding."""


def summarise_levels(
    rows: Iterable[TimedRequest], servers: Mapping[int, ServerSpan | None] | None = None
) -> tuple[LoadLevel, ...]:
    """Summarise finished repeats by level, in ascending order.

    Args:
        rows: Requests of complete repeats, warm-up included.
        servers: The server's metrics by level.
    """
    ordered = sorted(rows, key=lambda row: (row.concurrency, row.repeat, row.start_s))
    return tuple(
        _level(concurrency, list(level_rows), (servers or {}).get(concurrency))
        for concurrency, level_rows in groupby(ordered, key=lambda row: row.concurrency)
    )


def _level(concurrency: int, rows: Sequence[TimedRequest], server: ServerSpan | None) -> LoadLevel:
    by_repeat = groupby(rows, key=lambda row: row.repeat)
    summaries = tuple(summarise_repeat(list(repeat_rows)) for _, repeat_rows in by_repeat)
    counted = [row for row in rows if not row.warm_up]
    replies = [row for row in counted if row.reason is None]
    e2e = _latency_summary([row.e2e_s for row in replies])
    per_s = mean_over_repeats([repeat.requests_per_s for repeat in summaries])
    return LoadLevel(
        concurrency=concurrency,
        repeats=summaries,
        n_requests=len(counted),
        n_failed=len(counted) - len(replies),
        failed_by_reason=Counter(row.reason for row in counted if row.reason is not None),
        n_cut=sum(row.finish_reason == "length" for row in replies),
        n_items=sum(row.n_items for row in replies),
        requests_per_s=per_s,
        tokens_per_s=mean_over_repeats([repeat.tokens_per_s for repeat in summaries]),
        items_per_s=mean_over_repeats([repeat.items_per_s for repeat in summaries]),
        ttft=_latency_summary([row.ttft_s for row in replies]),
        tpot=_latency_summary([row.tpot_s for row in replies]),
        itl=_latency_summary([gap for row in replies for gap in row.gaps_s]),
        e2e=e2e,
        little=None if e2e.mean is None or per_s.value is None else per_s.value * e2e.mean,
        server=server,
    )


def summarise_repeat(rows: Sequence[TimedRequest]) -> RepeatSummary:
    """Summarise one closed loop over its steady window.

    Args:
        rows: All requests of the loop, warm-up included; at least one is not warm-up.
    """
    counted = [row for row in rows if not row.warm_up]
    begins, last = min(row.start_s for row in counted), max(row.start_s for row in counted)
    ends = min(row.end_s for row in rows if row.end_s > last or row.start_s == last)
    window = max(ends - begins, 1e-9)
    replies = [(row, _share_in_window(row, begins, ends)) for row in rows if row.reason is None]
    lengths = [row.e2e_s for row in counted if row.reason is None and row.e2e_s is not None]
    return RepeatSummary(
        concurrency=rows[0].concurrency,
        repeat=rows[0].repeat,
        n_requests=len(counted),
        n_failed=sum(row.reason is not None for row in counted),
        window_s=window,
        requests_per_s=sum(share for _, share in replies) / window,
        tokens_per_s=sum(share * row.usage.completion_tokens for row, share in replies if row.usage) / window,
        items_per_s=sum(share * row.n_items for row, share in replies) / window,
        e2e_mean_s=sum(lengths) / len(lengths) if lengths else None,
    )


def _share_in_window(row: TimedRequest, begins: float, ends: float) -> float:
    """Return the share of a reply's tokens in the window, with an even spread from first to last token.

    The time before the first token does not count: a request in the server's queue is not work that was done.
    """
    first, last = row.start_s + (row.ttft_s or 0.0), row.start_s + (row.e2e_s or 0.0)
    if last <= first:
        return float(begins < last <= ends)
    return max(0.0, min(last, ends) - max(first, begins)) / (last - first)


def _latency_summary(values: Iterable[float | None]) -> LatencySummary:
    array = np.array([value for value in values if value is not None])
    if not len(array):
        return LatencySummary(n=0, mean=None, p50=None, p95=None, p99=None)
    p50, p95, p99 = (float(value) for value in np.percentile(array, (50, 95, 99)))
    return LatencySummary(n=len(array), mean=float(array.mean()), p50=p50, p95=p95, p99=p99)


def mean_over_repeats(values: Sequence[float]) -> Measure:
    """Return the mean over repeats with Student's t interval: mean ± t × s / √r, r - 1 degrees of freedom.

    Assumes independent, roughly normal repeats; fewer than three give no interval.
    """
    r, mean = len(values), sum(values) / len(values)
    half_width, reason = nan, None
    if r < MIN_REPEATS:
        reason = f"no interval from {r} repeats, fewer than {MIN_REPEATS}"
    else:
        half_width = float(stdtrit(r - 1, 0.975)) * float(np.std(values, ddof=1)) / sqrt(r)
    return Measure.of(
        Estimate(
            value=mean,
            low=mean - half_width,
            high=mean + half_width,
            method=f"Student's t over {r} repeats",
            n=r,
            n_clusters=r,
            reason=reason,
        )
    )


# ----------------------------------------------------------------------------------------------- the knee


def find_knee(levels: Sequence[LoadLevel], *, seed: int = 0) -> Knee:
    """Find the smallest level with 95 % of the best throughput, at most 1 % errors and no preemption.

    Throughput is output tokens per second: the levels have different mixes of replies, so requests per
    second would compare short replies with long ones. The best is that of the qualifying levels. The knee
    counts as found if a higher level was tried; at the last level throughput may still be rising.

    Uncertainty: the mean of each level is drawn 10,000 times from its t distribution, and the knee is
    determined in each draw.

    Args:
        levels: Levels in ascending order.
        seed: Seed of the draws.
    """
    excluded = {level.concurrency: reason for level in levels if (reason := _exclusion_reason(level))}
    qualified = [level for level in levels if level.concurrency not in excluded and level.tokens_per_s.value]
    if not qualified:
        no_knee = "every level has errors, preemptions or no reply" if levels else "no level was measured"
        return Knee(
            concurrency=None, is_found=False, best=None, share_of_best=None, excluded=excluded, reason=no_knee
        )
    means = np.array([level.tokens_per_s.value or 0.0 for level in qualified])
    knee_index, best_index = _knee_indices(means[None, :])[0], int(means.argmax())
    knee = qualified[knee_index].concurrency
    why_open = _why_open(levels, knee)
    return Knee(
        concurrency=knee,
        is_found=why_open is None,
        best=qualified[best_index].concurrency,
        share_of_best=float(means[knee_index] / means[best_index]),
        least=min_in_flight(*map(float, means[[0, best_index]])) if qualified[0].concurrency == 1 else None,
        excluded=excluded,
        possible=_possible_knees(qualified, seed),
        reason=why_open,
    )


def min_in_flight(alone: float, best: float) -> int:
    """Return the lower bound of the requests in flight for 95 % of the best: ``ceil(0.95 × best / alone)``.

    The throughput of n requests in flight is at most n times that of a single request (the asymptotic bound
    of a closed system), since more requests never make each of them faster.

    Args:
        alone: Throughput with one request in flight, above 0.
        best: The best throughput, in the same unit.
    """
    return max(1, ceil(KNEE_SHARE_OF_BEST * best / alone - _TOLERANCE))


def _exclusion_reason(level: LoadLevel) -> str:
    if level.failed_share > MAX_ERROR_SHARE:
        return f"{100 * level.failed_share:.1f} % errors"
    if level.preemptions:
        return f"{level.preemptions:,.0f} preemption{'' if level.preemptions == 1 else 's'}"
    return ""


def _why_open(levels: Sequence[LoadLevel], knee: int) -> str | None:
    """Return why the knee is not found; None if it is."""
    if len(levels) == 1:
        return "only one level was measured"
    if knee == levels[-1].concurrency:
        return f"throughput still rises at {knee}, the last measured level"
    return None


def _knee_indices(throughputs: Floats) -> list[int]:
    """Return, for each row, the first column with 95 % of the row's maximum."""
    best = throughputs.max(axis=1, keepdims=True)
    indices: list[int] = (throughputs >= (KNEE_SHARE_OF_BEST - _TOLERANCE) * best).argmax(axis=1).tolist()
    return indices


def _possible_knees(levels: Sequence[LoadLevel], seed: int) -> tuple[KneeShare, ...]:
    """Redraw the mean throughputs and count the knees; empty if a level has too few repeats."""
    if any(len(level.repeats) < MIN_REPEATS for level in levels):
        return ()
    rng = np.random.default_rng(seed)
    columns = []
    for level in levels:
        values = np.array([repeat.tokens_per_s for repeat in level.repeats])
        scale = values.std(ddof=1) / sqrt(len(values))
        columns.append(values.mean() + scale * rng.standard_t(len(values) - 1, _DRAWS))
    shares = np.bincount(_knee_indices(np.column_stack(columns)), minlength=len(levels)) / _DRAWS
    return tuple(
        KneeShare(concurrency=level.concurrency, share=float(share))
        for level, share in zip(levels, shares, strict=True)
        if share >= _MIN_KNEE_SHARE
    )


def level_costs(levels: Sequence[LoadLevel], knee: Knee, price_per_hour: float) -> tuple[LevelCost, ...]:
    """Return the cost of 1,000 items at the lowest level and at the knee, for levels with items."""
    selected = dict.fromkeys([levels[0].concurrency, *([knee.concurrency] if knee.concurrency else [])])
    speeds = {level.concurrency: level.items_per_s.value for level in levels}
    return tuple(
        LevelCost(concurrency=concurrency, work=steady_work(1000, per_s=per_s, price_per_hour=price_per_hour))
        for concurrency in selected
        if (per_s := speeds[concurrency])
    )
