"""What the data say about times, cost and the judge: quantities that are no share of the items.

A run is one sample of its machine: nobody repeated it. The intervals here hold what the samples add, never what the machine
does on another day, and every sentence says so.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from math import ceil, inf, isnan, log, nan, sqrt
from typing import Final

import numpy as np
from scipy import special

from qaeval.analysis.server_metrics import histogram_quantile
from qaeval.gate.estimates import (
    Counts,
    Interval,
    PairedRates,
    RuleEstimate,
    count_by_chunk,
    independent_difference,
    logarithm,
    mapped,
    relative,
)
from qaeval.gate.evidence import CandidateEvidence, Evidence, Floats, Integers, Mask, RaterLabels
from qaeval.gate.policy import Rule
from qaeval.report.numbers import percent
from qaeval.stats.estimate import Estimate, too_few, undefined, warning
from qaeval.stats.intervals import clustered_rate, t_interval
from qaeval.stats.reliability import kappa_interval

_ONE_MACHINE: Final = "the interval does not hold what the machine adds from day to day"
_SEED: Final = 20_240_229
_N_RESAMPLES: Final = 4000
_BLOCK: Final = 250
_FEWEST_REQUESTS: Final = 100
"""Of a server's histogram; fewer say nothing about 95 %."""

Both = tuple[Evidence, CandidateEvidence]
"""A run or its baseline, and the candidate in it."""


def performance_estimate(rule: Rule, run: Both, baseline: Both | None) -> RuleEstimate:
    """RuleEstimate about latency, time to the first token, throughput or cost."""
    for _, candidate in (run, *([baseline] if baseline else [])):
        if not candidate.resources.has_server:
            return RuleEstimate.unavailable(f"{candidate.name} has no server whose times could be measured")
    if rule.quantity.endswith("_latency"):
        return _latency(rule, run, baseline)
    if rule.quantity.endswith("_ttft"):
        return _ttft(rule, run, baseline)
    return _per_item(rule, run, baseline)


def kappa_estimate(rule: Rule, run: Evidence, baseline: Evidence | None) -> RuleEstimate:
    """RuleEstimate about the judge's agreement with a rater."""
    own = _rater(run, rule.rater)
    if isinstance(own, str):
        return RuleEstimate.unavailable(own)
    current = _kappa(own, len(run.scale))
    if baseline is None:
        return RuleEstimate(deciding=current, current=current, unit="kappa")
    other = _rater(baseline, rule.rater or own.rater)
    if isinstance(other, str):
        return RuleEstimate.unavailable(f"baseline: {other}")
    before = _kappa(other, len(baseline.scale))
    return RuleEstimate(
        deciding=independent_difference(before, current), baseline=before, current=current, unit="kappa"
    )


def _rater(evidence: Evidence, name: str) -> RaterLabels | str:
    """Find the labels of a rater, or say why there are none."""
    names = [one.rater for one in evidence.labels]
    if not names:
        return "no item has a label to compare the judge with (--labels FILE)"
    if not name and len(names) > 1:
        return f"several raters have labels: name one with rater: {', '.join(names)}"
    found = [one for one in evidence.labels if name in {"", one.rater}]
    return found[0] if found else f"no label is by the rater {name!r}; there are {', '.join(names)}"


def _kappa(labels: RaterLabels, n_levels: int) -> Interval:
    def interval(level: float) -> Estimate:
        return kappa_interval(
            labels.reference, labels.judged, labels.clusters, n_levels=n_levels, level=level
        )

    return interval


# -------------------------------------------------------------------- latency


def _latency(rule: Rule, run: Both, baseline: Both | None) -> RuleEstimate:
    share = 0.5 if rule.quantity.startswith("p50") else 0.95
    paired = baseline is not None and run[0].has_samples_of(baseline[0])
    sides = [_requests(*run), *([_requests(*baseline)] if baseline else [])]
    if paired and baseline is not None:  # pairs of replies to the same questions alone
        sides = [
            _requests(*run, _is_timed_in(baseline, run)),
            _requests(*baseline, _is_timed_in(run, baseline)),
        ]
    for (_, candidate), requests in zip((run, *([baseline] if baseline else [])), sides, strict=True):
        if not len(requests[0]):
            return RuleEstimate.unavailable(
                f"no reply of {candidate.name} was timed{' on both sides' if paired else ''}: they came from earlier runs, or the "
                f"baseline keeps no times"
            )
    current = _quantile(sides[0], share)
    if baseline is None:
        return RuleEstimate(deciding=current, current=current, unit="s", caution=_ONE_MACHINE)
    before = _quantile(sides[1], share)
    base = before(0.95).value
    change = _log_ratio(sides[1], sides[0], share, paired=paired)
    return RuleEstimate(
        deciding=relative(change, base),
        baseline=before,
        current=current,
        unit="s",
        scale_by=base,
        caution=_ONE_MACHINE,
    )


Requests = tuple[Floats, Integers, int]
"""Seconds of each timed reply, rising; the code of its chunk; the number of all chunks."""


def _is_timed_in(other: Both, side: Both) -> Mask:
    """Return which samples of one side have a timed reply on the other side."""
    evidence, candidate = other
    return np.isin(side[0].sample_ids, evidence.sample_ids[candidate.resources.is_timed])


def _requests(evidence: Evidence, candidate: CandidateEvidence, samples: Mask | None = None) -> Requests:
    """Return the times of a candidate's replies; of some samples alone, where a mask is given."""
    timed = candidate.resources.is_timed if samples is None else candidate.resources.is_timed & samples
    seconds, chunks = candidate.resources.latency_s[timed], evidence.chunk_codes[timed]
    order = np.lexsort((chunks, seconds))
    return seconds[order], chunks[order], len(evidence.chunk_names)


def _quantile(requests: Requests, share: float) -> Interval:
    seconds, chunks, _ = requests
    n_chunks = len(np.unique(chunks))

    def interval(level: float) -> Estimate:
        value = float(np.quantile(seconds, share))
        n, method = len(seconds), "bootstrap over chunks, percentile"
        if reason := too_few(n_chunks) or _too_few_for(share, n_chunks, level):
            return undefined(reason, value=value, method=method, n=n, n_clusters=n_chunks, level=level)
        low, high = _ends(_draws(requests, share), level)
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


def _log_ratio(a: Requests, b: Requests, share: float, *, paired: bool) -> Interval:
    """Logarithm of the quantile of b over that of a; the same resampled chunks on both sides where they are paired."""
    one, other = (_quantile(side, share) for side in (a, b))

    def interval(level: float) -> Estimate:
        before, after = one(level), other(level)
        found = replace(
            after,
            value=log(after.value / before.value),
            n=min(before.n, after.n),
            n_clusters=min(before.n_clusters, after.n_clusters),
            method=f"{'paired' if paired else 'unpaired'} bootstrap over chunks, percentile",
        )
        if not (before.has_interval and after.has_interval):
            return replace(found, low=nan, high=nan, reason=before.reason or after.reason)
        draws = np.log(_draws(b, share, salt=0 if paired else 1) / _draws(a, share))
        low, high = _ends(draws, level)
        return replace(found, low=low, high=high)

    return interval


def _too_few_for(share: float, n_chunks: int, level: float) -> str:
    """Say why so few chunks show no interval of a quantile; empty where they do.

    The slowest of n independent replies is below the quantile q with the probability q^n. While that is more than the error
    rate, no reply is surely above it. The same holds for the resamples, of which one at least must lie outside.
    """
    tail = (1 - level) / 2
    if tail * _N_RESAMPLES < 1:
        return f"an error rate of {tail:.2g} is less than {_N_RESAMPLES:,} resamples can tell"
    needed = ceil(log(tail) / log(max(share, 1 - share)))
    if n_chunks >= needed:
        return ""
    return f"replies about {n_chunks} chunks were timed, and it takes {needed} to bound the time of {percent(share)} of all replies"


def _ends(draws: Floats, level: float) -> tuple[float, float]:
    """Return the percentiles of a level."""
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _draws(requests: Requests, share: float, *, salt: int = 0) -> Floats:
    seconds, chunks, n_chunks = requests
    return _resampled(seconds.tobytes(), chunks.tobytes(), n_chunks, share, salt)


@lru_cache(maxsize=16)
def _resampled(seconds: bytes, chunks: bytes, n_chunks: int, share: float, salt: int) -> Floats:
    """Draw chunks with replacement and take the smallest time that `share` of the drawn replies do not exceed."""
    values, codes = np.frombuffer(seconds), np.frombuffer(chunks, dtype=int)
    rng = np.random.default_rng([_SEED, salt])
    drawn = []
    for _ in range(_N_RESAMPLES // _BLOCK):
        times = rng.multinomial(n_chunks, np.full(n_chunks, 1 / n_chunks), size=_BLOCK)
        cumulated = times[:, codes].cumsum(axis=1)
        reached = cumulated >= share * np.maximum(cumulated[:, -1:], 1)
        drawn.append(values[reached.argmax(axis=1)])
    return np.concatenate(drawn)


# -------------------------------------------------------------------- time to the first token


def _ttft(rule: Rule, run: Both, baseline: Both | None) -> RuleEstimate:
    share = 0.5 if rule.quantity.startswith("p50") else 0.95
    for _, candidate in (run, *([baseline] if baseline else [])):
        n = candidate.resources.ttft.get(inf, 0.0)
        if n < _FEWEST_REQUESTS:
            return RuleEstimate.unavailable(
                f"the server of {candidate.name} told the time to the first token of {n:.0f} requests; {_FEWEST_REQUESTS} are needed"
            )
    current = _from_histogram(run[1].resources.ttft, share)
    if baseline is None:
        return RuleEstimate(deciding=current, current=current, unit="s", caution=_ONE_MACHINE)
    before = _from_histogram(baseline[1].resources.ttft, share)
    base = before(0.95).value
    if isnan(base) or isnan(current(0.95).value):
        return RuleEstimate.unavailable("the quantile is above the last bound of the server's histogram")
    change = independent_difference(mapped(before, logarithm), mapped(current, logarithm))
    return RuleEstimate(
        deciding=relative(change, base),
        baseline=before,
        current=current,
        unit="s",
        scale_by=base,
        caution=_ONE_MACHINE,
    )


def _from_histogram(cumulated: Mapping[float, float], share: float) -> Interval:
    r"""Quantile with a binomial interval: the quantiles at :math:`q \pm z \sqrt{q (1 - q) / n}`; requests count as independent."""
    n = round(cumulated[inf])

    def interval(level: float) -> Estimate:
        reach = float(special.ndtri((1 + level) / 2)) * sqrt(share * (1 - share) / n)
        ends = [
            histogram_quantile(cumulated, one) if one < 1 else None for one in (share - reach, share + reach)
        ]
        value = histogram_quantile(cumulated, share)
        known = value is not None and None not in ends
        return Estimate(
            value=nan if value is None else value,
            low=float(ends[0]) if known and ends[0] is not None else nan,
            high=float(ends[1]) if known and ends[1] is not None else nan,
            level=level,
            method="server's histogram, binomial ranks",
            n=n,
            n_clusters=n,
            reason=None
            if known
            else "the quantile or its interval is above the last bound of the server's histogram",
        )

    return interval


# -------------------------------------------------------------------- throughput and cost


def _per_item(rule: Rule, run: Both, baseline: Both | None) -> RuleEstimate:
    """RuleEstimate about a rate of items times or divided by what the stage took."""
    sides = [run, *([baseline] if baseline else [])]
    factors = []
    for _, candidate in sides:
        factor = _factor(rule, candidate)
        if isinstance(factor, str):
            return RuleEstimate.unavailable(factor)
        factors.append(factor)
    units = {unit for _, unit in factors}
    if len(units) > 1:
        return RuleEstimate.unavailable(
            f"the run's price is in {factors[0][1]}, the baseline's in {factors[1][1]}: they cannot be compared"
        )
    counts = [
        count_by_chunk(evidence, candidate.delivered if rule.quantity == "items_per_s" else candidate.usable)
        for evidence, candidate in sides
    ]
    if any(not one.hits.sum() for one in counts):
        return RuleEstimate.unavailable("no item counts: nothing can be divided by their number")
    power = 1 if rule.about.higher_is_better else -1
    current = _scaled(counts[0], factors[0][0], power)
    unit = factors[0][1]
    if baseline is None:
        return RuleEstimate(deciding=current, current=current, unit=unit, caution=_ONE_MACHINE)
    before = _scaled(counts[1], factors[1][0], power)
    base = before(0.95).value
    same = run[0].has_samples_of(baseline[0])
    logs = _log_rates(counts[1], counts[0]) if same else _apart(counts[1], counts[0])
    shift = log(factors[0][0] / factors[1][0])
    change = mapped(logs, lambda x: power * x + shift)
    now, then = (candidate.resources.price_basis for _, candidate in (run, baseline))
    apart = (
        ""
        if now == then or rule.quantity != "cost_per_1000_usable"
        else f"priced at {now}, the baseline at {then}; "
    )
    return RuleEstimate(
        deciding=relative(change, base),
        baseline=before,
        current=current,
        unit=unit,
        scale_by=base,
        caution=f"{apart}{_ONE_MACHINE}",
    )


def _factor(rule: Rule, candidate: CandidateEvidence) -> tuple[float, str] | str:
    """Return what the rate is multiplied by, or divided into, with its unit; or why there is none."""
    use, n = candidate.resources, candidate.letters.size
    if not use.work_s or not use.fresh:
        return f"the time of {candidate.name} is not known: all its replies came from earlier runs"
    if rule.quantity == "items_per_s":
        return n * use.fresh / use.work_s, "/s"
    if rule.quantity == "seconds_per_1000_usable":
        return 1000 * use.work_s / (use.fresh * n), "s"
    if use.price is None:
        return f"the machine of {candidate.name} has no price: add one to the registry, or ask for seconds_per_1000_usable"
    return 1000 * use.price / (use.fresh * n), use.currency


def _scaled(counts: Counts, factor: float, power: int) -> Interval:
    def into(rate: float) -> float:
        return factor * rate**power if rate > 0 else nan

    return mapped(lambda level: clustered_rate(counts.hits, counts.totals, level=level), into)


def _log_rates(a: Counts, b: Counts) -> Interval:
    """Logarithm of rate b over rate a on the same chunks, linearised, Student's t on chunks."""
    values = (
        b.hits / b.hits.mean()
        - a.hits / a.hits.mean()
        - (b.totals / b.totals.mean() - a.totals / a.totals.mean())
    )
    ratio = (b.hits.sum() / b.totals.sum()) / (a.hits.sum() / a.totals.sum())
    flat = PairedRates.of(a, b)

    def interval(level: float) -> Estimate:
        n_chunks = len(values)
        spread = float(np.std(values, ddof=1) / sqrt(n_chunks)) if n_chunks > 1 else nan
        if spread < 1e-12:  # noqa: PLR2004 - all chunks alike: the guard of the difference of rates holds for the ratio too
            rate = float(a.hits.sum() / a.totals.sum())
            return mapped(flat, lambda d: log(max(1e-9, 1 + d / rate)))(level)
        return t_interval(
            log(ratio),
            spread,
            n=round(float(b.totals.sum())),
            n_clusters=n_chunks,
            level=level,
            method="paired ratio by chunk, CR1 t",
        )

    return interval


def _apart(a: Counts, b: Counts) -> Interval:
    return independent_difference(mapped(a.rate, logarithm), mapped(b.rate, logarithm))
