"""Estimates of latency, throughput, cost and the judge's kappa: quantities that are no share of the items.

A run is one sample of its machine: nobody repeated it. The intervals here cover the variation between samples, not that of the
machine from day to day, and every sentence says so.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from math import ceil, expm1, inf, isnan, log, log1p, nan, sqrt
from typing import Final, TypeAlias

import numpy as np
from scipy import special

from qaeval.analysis.server_metrics import histogram_quantile
from qaeval.gate.estimates import (
    Counts,
    IntervalAt,
    PairedRates,
    RuleEstimate,
    count_by_chunk,
    independent_difference,
    logarithm,
    mapped,
    relative,
    ungraded_caveat,
    widened,
)
from qaeval.gate.evidence import CandidateEvidence, Evidence, Floats, Integers, Mask, RaterLabels
from qaeval.gate.policy import BY_USABLE, Rule
from qaeval.report.numbers import percent
from qaeval.stats.estimate import Estimate, too_few, undefined, warning
from qaeval.stats.intervals import t_interval
from qaeval.stats.reliability import kappa_interval

_ONE_MACHINE: Final = "the interval does not cover the machine's day-to-day variation"
_SEED: Final = 20_240_229
"""Fixed: the same inputs give the same verdict."""
_N_RESAMPLES: Final = 4000
"""With 4,000 a p-value is 1/4,000 at least, and the default level's ends rest on 200 resamples each."""
_BLOCK: Final = 250
"""Resamples that are drawn at once: the block holds a number for each of them and each reply."""
_MIN_REQUESTS: Final = 100
"""Of a server's histogram; the slowest 5 % of fewer are not five requests."""
_NO_SPREAD: Final = 1e-12
"""A standard error below this is rounding: all chunks have the same ratio."""

Side: TypeAlias = tuple[Evidence, CandidateEvidence]
"""A run or its baseline, and the candidate in it."""


def performance_estimate(rule: Rule, run: Side, baseline: Side | None) -> RuleEstimate:
    """Estimate latency, time to the first token, throughput or cost."""
    for _, candidate in _sides(run, baseline):
        if not candidate.resources.has_server:
            return RuleEstimate.unavailable(f"{candidate.name} has no server whose times could be measured")
    if rule.quantity.endswith("_latency"):
        return _latency(rule, run, baseline)
    if rule.quantity.endswith("_ttft"):
        return _ttft(rule, run, baseline)
    return _per_item(rule, run, baseline)


def _sides(run: Side, baseline: Side | None) -> tuple[Side, ...]:
    return (run,) if baseline is None else (run, baseline)


def _share_of(rule: Rule) -> float:
    """Return the share of replies that a quantile of a rule is about."""
    return 0.5 if rule.quantity.startswith("p50") else 0.95


# -------------------------------------------------------------------- agreement of the judge


def kappa_estimate(rule: Rule, run: Evidence, baseline: Evidence | None) -> RuleEstimate:
    """Estimate the judge's agreement with a rater."""
    labels = _find_labels(run, rule.rater)
    if isinstance(labels, str):
        return RuleEstimate.unavailable(labels)
    current = _kappa(labels, len(run.scale))
    if baseline is None:
        return RuleEstimate(deciding=current, current=current, unit="kappa")
    earlier = _find_labels(baseline, rule.rater or labels.rater)
    if isinstance(earlier, str):
        return RuleEstimate.unavailable(f"baseline: {earlier}")
    before = _kappa(earlier, len(baseline.scale))
    return RuleEstimate(
        deciding=independent_difference(before, current), baseline=before, current=current, unit="kappa"
    )


def _find_labels(evidence: Evidence, rater: str) -> RaterLabels | str:
    """Return the labels of a rater, or why there are none."""
    raters = [labels.rater for labels in evidence.labels]
    if not raters:
        return "no item has a label to compare the judge with (--labels FILE)"
    if not rater and len(raters) > 1:
        return f"several raters have labels: name one with rater: {', '.join(raters)}"
    if rater and rater not in raters:
        return f"no label is by the rater {rater!r}; there are {', '.join(raters)}"
    return evidence.labels[raters.index(rater) if rater else 0]


def _kappa(labels: RaterLabels, n_levels: int) -> IntervalAt:
    def interval(level: float) -> Estimate:
        return kappa_interval(
            labels.reference, labels.judged, labels.clusters, n_levels=n_levels, level=level
        )

    return interval


# -------------------------------------------------------------------- latency


def _latency(rule: Rule, run: Side, baseline: Side | None) -> RuleEstimate:
    share = _share_of(rule)
    is_paired = baseline is not None and run[0].has_samples_of(baseline[0])
    if is_paired and baseline is not None:  # pairs are replies to the same questions
        requests = [
            _requests(run, _is_timed_in(baseline, run)),
            _requests(baseline, _is_timed_in(run, baseline)),
        ]
    else:
        requests = [_requests(side) for side in _sides(run, baseline)]
    for (_, candidate), (seconds, _, _) in zip(_sides(run, baseline), requests, strict=True):
        if not len(seconds):
            return RuleEstimate.unavailable(
                f"no reply of {candidate.name} was timed{' on both sides' if is_paired else ''}: they came from earlier runs, or the "
                f"baseline keeps no times"
            )
    current = _quantile(requests[0], share)
    if baseline is None:
        return RuleEstimate(deciding=current, current=current, unit="s", caveat=_ONE_MACHINE)
    before = _quantile(requests[1], share)
    change = _log_ratio(requests[1], requests[0], share, is_paired=is_paired)
    return _of_ratio(change, before, current, unit="s")


def _of_ratio(
    log_ratio: IntervalAt, before: IntervalAt, current: IntervalAt, *, unit: str, caveat: str = _ONE_MACHINE
) -> RuleEstimate:
    """Return the estimate of a quantity with a relative margin, from the logarithm of its ratio."""
    base = before(0.95).value
    return RuleEstimate(
        deciding=relative(log_ratio, base),
        baseline=before,
        current=current,
        unit=unit,
        margin_scale=base,
        caveat=caveat,
    )


Requests: TypeAlias = tuple[Floats, Integers, int]
"""Seconds of each timed reply, rising; the code of its chunk; the number of all chunks."""


def _is_timed_in(other: Side, side: Side) -> Mask:
    """Return which samples of one side have a timed reply on the other side."""
    evidence, candidate = other
    return np.isin(side[0].sample_ids, evidence.sample_ids[candidate.resources.is_timed])


def _requests(side: Side, samples: Mask | None = None) -> Requests:
    """Return the times of a candidate's replies, of some samples where a mask is given."""
    evidence, candidate = side
    timed = candidate.resources.is_timed if samples is None else candidate.resources.is_timed & samples
    seconds, chunks = candidate.resources.latency_s[timed], evidence.chunk_codes[timed]
    order = np.lexsort((chunks, seconds))
    return seconds[order], chunks[order], len(evidence.chunk_names)


def _quantile(requests: Requests, share: float) -> IntervalAt:
    seconds, chunks, _ = requests
    n_chunks = len(np.unique(chunks))

    def interval(level: float) -> Estimate:
        value = float(np.quantile(seconds, share))
        n, method = len(seconds), "bootstrap over chunks, percentile"
        if reason := too_few(n_chunks) or _too_few_for(share, n_chunks, level):
            return undefined(reason, value=value, method=method, n=n, n_clusters=n_chunks, level=level)
        low, high = _percentiles(_draws(requests, share), level)
        return Estimate(
            value=value,
            low=low,
            high=high,
            level=level,
            method=method,
            n=n,
            n_clusters=n_chunks,
            reason=warning(n_chunks),
        )

    return interval


def _log_ratio(a: Requests, b: Requests, share: float, *, is_paired: bool) -> IntervalAt:
    """Return the logarithm of the quantile of b over that of a; pairs resample the same chunks on both sides."""
    quantile_a, quantile_b = _quantile(a, share), _quantile(b, share)

    def interval(level: float) -> Estimate:
        before, after = quantile_a(level), quantile_b(level)
        ratio = replace(
            after,
            value=log(after.value / before.value),
            n=min(before.n, after.n),
            n_clusters=min(before.n_clusters, after.n_clusters),
            method=f"{'paired' if is_paired else 'unpaired'} bootstrap over chunks, percentile",
        )
        if not (before.has_interval and after.has_interval):
            return replace(ratio, low=nan, high=nan, reason=before.reason or after.reason)
        # the same salt draws the same chunks
        draws = np.log(_draws(b, share, salt=0 if is_paired else 1) / _draws(a, share))
        low, high = _percentiles(draws, level)
        return replace(ratio, low=low, high=high)

    return interval


def _too_few_for(share: float, n_chunks: int, level: float) -> str:
    """Return why so few chunks give no interval of a quantile; empty where they do.

    The slowest of n independent replies is below the quantile q with the probability q^n. While that is more than the error
    rate, no reply is surely above it. The same holds for the resamples, of which at least one must lie outside.
    """
    tail = (1 - level) / 2
    if tail * _N_RESAMPLES < 1:
        return f"an error rate of {tail:.2g} is below what {_N_RESAMPLES:,} resamples resolve"
    needed = ceil(log(tail) / log(max(share, 1 - share)))
    if n_chunks >= needed:
        return ""
    return f"replies about {n_chunks} chunks were timed, and it takes {needed} to bound the time of {percent(share)} of all replies"


def _percentiles(draws: Floats, level: float) -> tuple[float, float]:
    """Return the ends of the percentile interval of a level."""
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _draws(requests: Requests, share: float, *, salt: int = 0) -> Floats:
    seconds, chunks, n_chunks = requests
    return _resampled(seconds.tobytes(), chunks.tobytes(), n_chunks, share, salt)


@lru_cache(maxsize=16)  # inverting an interval asks for many levels of the same draws
def _resampled(seconds: bytes, chunks: bytes, n_chunks: int, share: float, salt: int) -> Floats:
    """Draw chunks with replacement and take the smallest time that `share` of the drawn replies do not exceed."""
    values, codes = np.frombuffer(seconds), np.frombuffer(chunks, dtype=int)
    rng = np.random.default_rng([_SEED, salt])
    drawn = []
    for _ in range(_N_RESAMPLES // _BLOCK):
        times = rng.multinomial(n_chunks, np.full(n_chunks, 1 / n_chunks), size=_BLOCK)
        cumulated = times[:, codes].cumsum(axis=1)
        is_reached = cumulated >= share * np.maximum(cumulated[:, -1:], 1)
        drawn.append(values[is_reached.argmax(axis=1)])
    return np.concatenate(drawn)


# -------------------------------------------------------------------- time to the first token


def _ttft(rule: Rule, run: Side, baseline: Side | None) -> RuleEstimate:
    share = _share_of(rule)
    for _, candidate in _sides(run, baseline):
        n = candidate.resources.ttft.get(inf, 0.0)
        if n < _MIN_REQUESTS:
            return RuleEstimate.unavailable(
                f"the server of {candidate.name} gave the time to the first token of {n:.0f} requests; {_MIN_REQUESTS} are needed"
            )
    current = _histogram_interval(run[1].resources.ttft, share)
    if baseline is None:
        return RuleEstimate(deciding=current, current=current, unit="s", caveat=_ONE_MACHINE)
    before = _histogram_interval(baseline[1].resources.ttft, share)
    if isnan(before(0.95).value) or isnan(current(0.95).value):
        return RuleEstimate.unavailable("the quantile is above the last bound of the server's histogram")
    change = independent_difference(mapped(before, logarithm), mapped(current, logarithm))
    return _of_ratio(change, before, current, unit="s")


def _histogram_interval(cumulated: Mapping[float, float], share: float) -> IntervalAt:
    r"""Quantile with a binomial interval: the quantiles at :math:`q \pm z \sqrt{q (1 - q) / n}`; requests count as independent."""
    n = round(cumulated[inf])

    def interval(level: float) -> Estimate:
        reach = float(special.ndtri((1 + level) / 2)) * sqrt(share * (1 - share) / n)
        low, value, high = (
            histogram_quantile(cumulated, rank) if rank < 1 else None
            for rank in (share - reach, share, share + reach)
        )
        is_known = low is not None and value is not None and high is not None
        return Estimate(
            value=nan if value is None else value,
            low=low if is_known and low is not None else nan,
            high=high if is_known and high is not None else nan,
            level=level,
            method="server's histogram, binomial ranks",
            n=n,
            n_clusters=n,
            reason=None
            if is_known
            else "the quantile or its interval is above the last bound of the server's histogram",
        )

    return interval


# -------------------------------------------------------------------- throughput and cost


def _per_item(rule: Rule, run: Side, baseline: Side | None) -> RuleEstimate:
    """Estimate a rate of items times, or divided into, what the stage took."""
    sides = _sides(run, baseline)
    factors = []
    for _, candidate in sides:
        factor = _factor(rule, candidate)
        if isinstance(factor, str):
            return RuleEstimate.unavailable(factor)
        factors.append(factor)
    unit = factors[0][1]
    if {unit} != {other for _, other in factors}:
        return RuleEstimate.unavailable(
            f"the run's price is in {unit}, the baseline's in {factors[1][1]}: they cannot be compared"
        )
    counts = [
        count_by_chunk(
            evidence,
            candidate.delivered if rule.quantity == "items_per_s" else candidate.usable,
            candidate.requested,
        )
        for evidence, candidate in sides
    ]
    if any(not side.hits.sum() for side in counts):
        return RuleEstimate.unavailable("no item counts: nothing can be divided by their number")
    power = 1 if rule.definition.higher_is_better else -1
    now, earlier = (_without_letter(rule, side) for side in (run, baseline))
    # of the logarithm of the rate: how far its ends move where items without a letter are usable
    down = log1p(max(0.0, earlier - now) / counts[-1].share)
    up = log1p(max(0.0, now - earlier) / counts[0].share)
    current = _scaled(counts[0].rate, factors[0][0], power)
    ungraded_shift = current(0.95).value * (expm1(down) + expm1(-up))
    if baseline is None:
        rate = widened(counts[0].rate, down=0.0, up=now, ends=(0.0, 1.0))
        current = _scaled(rate, factors[0][0], power)
        caveat = f"{_ungraded_caveat(None, now)}{_ONE_MACHINE}"
        return RuleEstimate(
            deciding=current, current=current, unit=unit, caveat=caveat, ungraded_shift=ungraded_shift
        )
    is_paired = run[0].has_samples_of(baseline[0])
    logs = _log_rates(counts[1], counts[0]) if is_paired else _unpaired_log_rates(counts[1], counts[0])
    shift = log(factors[0][0] / factors[1][0])
    estimate = _of_ratio(
        mapped(widened(logs, down=down, up=up), lambda x: power * x + shift),
        _scaled(counts[1].rate, factors[1][0], power),
        current,
        unit=unit,
        caveat=f"{_price_caveat(rule, run, baseline)}{_ungraded_caveat(earlier, now)}{_ONE_MACHINE}",
    )
    return replace(estimate, ungraded_shift=ungraded_shift)


def _without_letter(rule: Rule, side: Side | None) -> float:
    """Return the share of items without a letter, which may be usable; 0 for a rule that does not count usable items."""
    if side is None or rule.quantity not in BY_USABLE:
        return 0.0
    evidence, candidate = side
    return count_by_chunk(evidence, candidate.delivered & ~candidate.graded, candidate.requested).share


def _ungraded_caveat(before: float | None, now: float) -> str:
    """Return that the interval allows for items without a letter; empty where it need not."""
    return "" if now == (before or 0.0) else f"{ungraded_caveat(before, now)}; "


def _price_caveat(rule: Rule, run: Side, baseline: Side) -> str:
    """Return that two costs rest on different prices; empty where they do not."""
    now, before = run[1].resources.price_basis, baseline[1].resources.price_basis
    if now == before or rule.quantity != "cost_per_1000_usable":
        return ""
    return f"priced at {now}, the baseline at {before}; "


def _factor(rule: Rule, candidate: CandidateEvidence) -> tuple[float, str] | str:
    """Return what a rate of items is multiplied by, or divided into, with its unit; or why there is none."""
    use, n = candidate.resources, int(candidate.requested.sum())
    if not use.work_s or not use.fresh:
        return f"the time of {candidate.name} is not known: all its replies came from earlier runs"
    if rule.quantity == "items_per_s":
        return n * use.fresh / use.work_s, "/s"
    if rule.quantity == "seconds_per_1000_usable":
        return 1000 * use.work_s / (use.fresh * n), "s"
    if use.price is None:
        return f"the machine of {candidate.name} has no price: add one to the registry, or ask for seconds_per_1000_usable"
    return 1000 * use.price / (use.fresh * n), use.currency


def _scaled(rate: IntervalAt, factor: float, power: int) -> IntervalAt:
    return mapped(rate, lambda share: factor * share**power if share > 0 else nan)


def _log_rates(a: Counts, b: Counts) -> IntervalAt:
    """Return the logarithm of rate b over rate a on the same chunks, linearised, with Student's t on chunks."""
    values = (
        b.hits / b.hits.mean()
        - a.hits / a.hits.mean()
        - (b.totals / b.totals.mean() - a.totals / a.totals.mean())
    )
    ratio = b.share / a.share
    difference = PairedRates.of(a, b)

    def interval(level: float) -> Estimate:
        n_chunks = len(values)
        spread = float(np.std(values, ddof=1) / sqrt(n_chunks)) if n_chunks > 1 else nan
        if spread < _NO_SPREAD:
            # all chunks alike: the guard of the difference of rates holds for the ratio too
            return mapped(difference, lambda d: log(max(1e-9, 1 + d / a.share)))(level)
        return t_interval(
            log(ratio),
            spread,
            n=round(float(b.totals.sum())),
            n_clusters=n_chunks,
            level=level,
            method="paired ratio by chunk, CR1 t",
        )

    return interval


def _unpaired_log_rates(a: Counts, b: Counts) -> IntervalAt:
    return independent_difference(mapped(a.rate, logarithm), mapped(b.rate, logarithm))
