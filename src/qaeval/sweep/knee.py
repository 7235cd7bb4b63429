"""From timed requests to levels, and from levels to the knee. Pure.

Throughput is counted over the steady window of a closed loop, while all requests are in flight, and a reply of which a part came in the
window counts in part: so neither the filling nor the emptying of the server is taken for its speed.
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
from qaeval.sweep.model import Knee, KneeShare, Level, LevelCost, RepeatSummary, Spread

ENOUGH: Final = 0.95
"""Of the best throughput: what the knee brings."""
MOST_ERRORS: Final = 0.01
"""A level with a larger share of failed requests is not the knee."""
Floats: TypeAlias = NDArray[np.float64]

LEAST_REPEATS: Final = 3
"""With fewer no interval is given."""

_DRAWS: Final = 10_000
_UNLIKELY: Final = 0.025
"""A level that is the knee in a smaller share of the draws is not among the possible ones."""
_CLOSE: Final = 1e-9
"""Relative: a level with exactly 95 % of the best is not lost to rounding."""


def summarise(
    rows: Iterable[TimedRequest], servers: Mapping[int, ServerSpan | None] | None = None
) -> tuple[Level, ...]:
    """Sum up finished repeats, level by level, the lowest first.

    Args:
        rows: Of whole repeats alone, warm-up included.
        servers: What the server said of itself, by level.
    """
    ordered = sorted(rows, key=lambda row: (row.concurrency, row.repeat, row.start_s))
    return tuple(
        _level(concurrency, list(own), (servers or {}).get(concurrency))
        for concurrency, own in groupby(ordered, key=lambda row: row.concurrency)
    )


def _level(concurrency: int, rows: Sequence[TimedRequest], server: ServerSpan | None) -> Level:
    repeats = tuple(summarise_repeat(list(own)) for _, own in groupby(rows, key=lambda row: row.repeat))
    counted = [row for row in rows if not row.warm_up]
    replies = [row for row in counted if row.reason is None]
    e2e = _spread([row.e2e_s for row in replies])
    per_s = over_repeats([one.requests_per_s for one in repeats])
    return Level(
        concurrency=concurrency,
        repeats=repeats,
        n_requests=len(counted),
        n_failed=len(counted) - len(replies),
        failed_by_reason=Counter(row.reason for row in counted if row.reason is not None),
        n_cut=sum(row.finish_reason == "length" for row in replies),
        n_items=sum(row.n_items for row in replies),
        requests_per_s=per_s,
        tokens_per_s=over_repeats([one.tokens_per_s for one in repeats]),
        items_per_s=over_repeats([one.items_per_s for one in repeats]),
        ttft=_spread([row.ttft_s for row in replies]),
        tpot=_spread([row.tpot_s for row in replies]),
        itl=_spread([gap for row in replies for gap in row.gaps_s]),
        e2e=e2e,
        little=None if e2e.mean is None or per_s.value is None else per_s.value * e2e.mean,
        server=server,
    )


def summarise_repeat(rows: Sequence[TimedRequest]) -> RepeatSummary:
    """Sum up one closed loop over its steady window.

    Args:
        rows: All of it, warm-up included; at least one that counts.
    """
    counted = [row for row in rows if not row.warm_up]
    begins, last = min(row.start_s for row in counted), max(row.start_s for row in counted)
    ends = min(row.end_s for row in rows if row.end_s > last or row.start_s == last)
    window = max(ends - begins, 1e-9)
    replies = [(row, _inside(row, begins, ends)) for row in rows if row.reason is None]
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


def _inside(row: TimedRequest, begins: float, ends: float) -> float:
    """Return the share of a reply that came in the window, its tokens taken to be spread evenly from the first to the last.

    The time until the first token brings none: a request that waits in the server's queue is no work that was done.
    """
    first, last = row.start_s + (row.ttft_s or 0.0), row.start_s + (row.e2e_s or 0.0)
    if last <= first:
        return float(begins < last <= ends)
    return max(0.0, min(last, ends) - max(first, begins)) / (last - first)


def _spread(values: Iterable[float | None]) -> Spread:
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return Spread(n=0, mean=None, p50=None, p95=None, p99=None)
    p50, p95, p99 = (float(value) for value in np.percentile(known, (50, 95, 99)))
    return Spread(n=len(known), mean=float(known.mean()), p50=p50, p95=p95, p99=p99)


def over_repeats(values: Sequence[float]) -> Measure:
    """Return the mean over repeats with Student's t interval: mean ± t × s / √r, r - 1 degrees of freedom.

    Repeats are taken to be independent and about normal; with fewer than three there is no interval.
    """
    r, mean = len(values), sum(values) / len(values)
    reach, reason = nan, None
    if r < LEAST_REPEATS:
        reason = f"{r} of at least {LEAST_REPEATS} repeats: no interval"
    else:
        reach = float(stdtrit(r - 1, 0.975)) * float(np.std(values, ddof=1)) / sqrt(r)
    return Measure.of(
        Estimate(
            value=mean,
            low=mean - reach,
            high=mean + reach,
            method=f"Student's t over {r} repeats",
            n=r,
            n_clusters=r,
            reason=reason,
        )
    )


# ----------------------------------------------------------------------------------------------- the knee


def find_knee(levels: Sequence[Level], *, seed: int = 0) -> Knee:
    """Find the smallest level with 95 % of the best throughput, at most 1 % errors and no preemption.

    Throughput is output tokens per second: with each level's own mix of replies, requests per second would compare short
    replies with long ones. The best is the best of the levels that qualify. The knee is found where a higher level was tried; at
    the last one it may still be rising.

    How far the repeats leave it open: each level's mean is drawn 10,000 times from Student's t around it, and the knee is looked
    for in each draw.

    Args:
        levels: The lowest first.
        seed: Of the draws.
    """
    excluded = {one.concurrency: what for one in levels if (what := _disqualified(one))}
    fit = [one for one in levels if one.concurrency not in excluded and (one.tokens_per_s.value or 0) > 0]
    if not fit:
        reason = (
            "no level qualifies: each has errors, preemptions or no reply"
            if levels
            else "nothing was measured"
        )
        return Knee(
            concurrency=None, is_found=False, best=None, share_of_best=None, excluded=excluded, reason=reason
        )
    means = np.array([one.tokens_per_s.value or 0.0 for one in fit])
    at, best = _knees(means[None, :])[0], int(means.argmax())
    knee = fit[at].concurrency
    why = _open(levels, knee)
    return Knee(
        concurrency=knee,
        is_found=why is None,
        best=fit[best].concurrency,
        share_of_best=float(means[at] / means[best]),
        least=least_in_flight(float(means[0]), float(means[best])) if fit[0].concurrency == 1 else None,
        excluded=excluded,
        possible=_possible(fit, seed),
        reason=why,
    )


def least_in_flight(alone: float, best: float) -> int:
    """Return with how many in flight 95 % of the best throughput can be reached at all: ``ceil(0.95 × best / alone)``.

    No server answers n requests at once more than n times as fast as one alone (the asymptotic bound of a closed system), for
    more requests make none of them faster.

    Args:
        alone: Throughput with one in flight, above 0.
        best: The best throughput, in the same unit.
    """
    return max(1, ceil(ENOUGH * best / alone - _CLOSE))


def _disqualified(level: Level) -> str:
    if level.failed_share > MOST_ERRORS:
        return f"{100 * level.failed_share:.1f} % errors"
    if level.preemptions:
        return f"{level.preemptions:,.0f} preemption{'' if level.preemptions == 1 else 's'}"
    return ""


def _open(levels: Sequence[Level], knee: int) -> str | None:
    """Say why the knee is not found; None where it is."""
    if len(levels) == 1:
        return "one level says nothing of others"
    if knee == levels[-1].concurrency:
        return f"throughput still rises at {knee}, the last level that was tried"
    return None


def _knees(throughputs: Floats) -> list[int]:
    """Return the first column with enough of its row's best, for each row."""
    best = throughputs.max(axis=1, keepdims=True)
    places: list[int] = (throughputs >= (ENOUGH - _CLOSE) * best).argmax(axis=1).tolist()
    return places


def _possible(levels: Sequence[Level], seed: int) -> tuple[KneeShare, ...]:
    """Draw the mean throughputs anew and count the knees; nothing where a level has too few repeats."""
    if any(len(one.repeats) < LEAST_REPEATS for one in levels):
        return ()
    rng = np.random.default_rng(seed)
    columns = []
    for one in levels:
        values = np.array([repeat.tokens_per_s for repeat in one.repeats])
        scale = values.std(ddof=1) / sqrt(len(values))
        columns.append(values.mean() + scale * rng.standard_t(len(values) - 1, _DRAWS))
    shares = np.bincount(_knees(np.column_stack(columns)), minlength=len(levels)) / _DRAWS
    return tuple(
        KneeShare(concurrency=one.concurrency, share=float(share))
        for one, share in zip(levels, shares, strict=True)
        if share >= _UNLIKELY
    )


def level_costs(levels: Sequence[Level], knee: Knee, price_per_hour: float) -> tuple[LevelCost, ...]:
    """Return what 1,000 items cost at the lowest level and at the knee; nothing where a level brings no item."""
    wanted = dict.fromkeys([levels[0].concurrency, *([knee.concurrency] if knee.concurrency else [])])
    speeds = {one.concurrency: one.items_per_s.value for one in levels}
    return tuple(
        LevelCost(concurrency=at, work=steady_work(1000, per_s=per_s, price_per_hour=price_per_hour))
        for at in wanted
        if (per_s := speeds[at])
    )
