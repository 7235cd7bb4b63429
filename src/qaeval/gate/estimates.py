"""Estimates for one rule: the quantity in the run and in the baseline, and an interval at any level for what decides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, isnan, log, nan, sqrt
from typing import Final, TypeAlias

import numpy as np
from scipy import special

from qaeval.gate.evidence import CandidateEvidence, Evidence, Floats, Mask
from qaeval.gate.policy import Rule, lost_unseen
from qaeval.report.numbers import percent
from qaeval.stats.estimate import MIN_CLUSTERS, Estimate, too_few, undefined
from qaeval.stats.intervals import clustered_rate
from qaeval.stats.paired import effective_number, paired_difference, sign_flip_test, weighted_difference
from qaeval.stats.power import chunks_needed

IntervalAt: TypeAlias = Callable[[float], Estimate]
"""Maps a two-sided confidence level to an estimate with an interval of that level."""

_MIN_P_VALUE: Final = 1e-9
"""Smallest p-value that an inverted interval gives; smaller ones are given as this."""
_P_VALUE_PRECISION: Final = 1e-4
"""Relative precision of an inverted p-value: four digits, of which a report shows two."""
_LEVEL: Final = 0.9
"""Level at which an interval is tried, to see whether there is any: that of the default error rate."""
_POWER: Final = 0.8
"""Probability with which a larger sample has to decide."""
_SEED: Final = 20_240_229
"""Of the sign patterns, drawn only where weights of chunks are no multiples of one fraction."""
_NO_DISTANCE: Final = 1e-9
"""A smaller distance between a value and a bound is rounding."""
_MAX_MORE: Final = 100_000_000
"""A larger number of further chunks is none."""
_MAX_PROJECTED_CHUNKS: Final = 20_000
"""Largest sample whose interval is computed; beyond it the spread says little more, and a formula is enough."""


@dataclass(frozen=True, kw_only=True)
class RuleEstimate:
    """Estimates that decide one rule; without `deciding` the rule cannot be evaluated, and `reason` says why."""

    deciding: IntervalAt | None = None
    """Run minus baseline, or the run's quantity where the rule is a limit."""
    baseline: IntervalAt | None = None
    current: IntervalAt | None = None
    projected: Callable[[int], IntervalAt] | None = None
    """What a sample of so many chunks like these would decide from; None: only a formula says how the interval shrinks."""
    unit: str = ""
    margin_scale: float = 1.0
    """Value of the baseline, of which a relative margin is a share; 1 for margins in points."""
    reason: str = ""
    caveat: str = ""
    """Uncertainty that the interval leaves out."""
    ungraded_shift: float = 0.0
    """Share of items without a letter in the baseline, 0 for a limit, minus that in the run, and what that does to a cost, in its unit:
    more chunks make it no smaller."""
    labelled_by: str = ""
    """Rater whose labels correct the quantity; empty where the judge's letters decide."""
    n_labelled_chunks: int | None = None
    p_permutation: float = 0.0
    """One-sided p-value of `permutation_p_value`, which a regression needs too; 0 for quantities without an exact test."""

    @classmethod
    def unavailable(cls, reason: str) -> "RuleEstimate":
        """Return the estimate of a rule that cannot be evaluated."""
        return cls(reason=reason)


@dataclass(frozen=True)
class Counts:
    """Hits and items that count, by chunk; by weight, where the samples were drawn with different probabilities."""

    chunks: tuple[str, ...]
    hits: Floats
    totals: Floats
    n_items: Floats | None = None
    """Items that count by number, where `totals` counts them by weight; else None."""

    @property
    def n(self) -> int:
        """Number of items that count."""
        return round(float((self.totals if self.n_items is None else self.n_items).sum()))

    @property
    def rate(self) -> IntervalAt:
        """The rate of hits, clustered by chunk."""
        return lambda level: replace(clustered_rate(self.hits, self.totals, level=level), n=self.n)

    def projected(self, n_chunks: int) -> IntervalAt:
        """Return the rate of these chunks, repeated up to so many."""
        kept = self.totals > 0
        hits, totals = (np.resize(values[kept], n_chunks) for values in (self.hits, self.totals))
        n_items = None if self.n_items is None else np.resize(self.n_items[kept], n_chunks)
        return replace(self, hits=hits, totals=totals, n_items=n_items).rate

    @property
    def share(self) -> float:
        """The rate of hits as a number; at least one item must count."""
        return float(self.hits.sum() / self.totals.sum())


def count(evidence: Evidence, candidate: CandidateEvidence, rule: Rule, stratum: str | None) -> Counts:
    """Count by chunk the items that a rule about a share of items is about.

    Args:
        evidence: The run or its baseline.
        candidate: One of its candidates.
        rule: About a share.
        stratum: Only samples of this stratum; None: all.
    """
    hits, counted = masks_of(candidate, rule)
    return count_by_chunk(evidence, hits, counted, stratum=stratum)


def masks_of(candidate: CandidateEvidence, rule: Rule) -> tuple[Mask, Mask]:
    """Return which items are hits of a rule about a share of items, and which count at all."""
    requested = candidate.requested
    if rule.quantity == "usable_rate":
        return candidate.usable, requested
    if rule.quantity == "success_rate":
        return candidate.graded, requested
    if rule.quantity == "valid_rate":
        return candidate.delivered, requested
    if rule.flag_name:
        return candidate.flags[rule.flag_name], candidate.graded
    unchecked = candidate.unchecked.get(rule.check, np.zeros_like(requested))
    return candidate.findings[rule.check], candidate.delivered & ~unchecked


def count_by_chunk(
    evidence: Evidence, hits: Mask, counted: Mask | None = None, *, stratum: str | None = None
) -> Counts:
    """Count items by chunk, and by the weight of their sample.

    Args:
        evidence: The run or its baseline, for its chunks and strata.
        hits: Items that are hits, shape (n_samples, items_per_sample).
        counted: Items that count; None: all.
        stratum: Only samples of this stratum; None: all.
    """
    counted = np.ones_like(hits) if counted is None else counted
    if stratum is not None:
        counted = counted & (evidence.strata == stratum)[:, np.newaxis]
    names, codes = evidence.chunk_names, evidence.chunk_codes

    def by_chunk(of_samples: Floats) -> Floats:
        return np.bincount(codes, weights=of_samples, minlength=len(names)).astype(np.float64)

    n_hits, n_counted = (by_chunk(evidence.weighted(mask)) for mask in (hits & counted, counted))
    n_items = None if evidence.weights is None else by_chunk(counted.sum(axis=1, dtype=np.float64))
    return Counts(names, n_hits, n_counted, n_items)


def is_mostly_tied(n_differing: float, n_chunks: int) -> bool:
    """Whether most chunks show no difference and fewer than `MIN_CLUSTERS` show one."""
    return n_differing < min(MIN_CLUSTERS, n_chunks / 2)


@dataclass(frozen=True)
class PairedRates:
    r"""Difference of two rates, b minus a, on the same chunks; called with a level it is an interval.

    The difference of two ratios of sums is linearised (Cochran 1977, section 6.3): a chunk contributes
    :math:`(s_b - r_b t_b)/\bar t_b - (s_a - r_a t_a)/\bar t_a`, which is the plain difference of its two rates where all chunks
    have the same number of items. Chunks without an item that counts on either side are left out.

    Where nearly all chunks tie and fewer than 10 differ, the observed spread says little about the chunks that were not drawn. Two
    chunks of the largest possible difference are added then, as `paired_difference` does, whatever the sizes of the chunks, and the
    end that decides a pass is no closer to 0 than :math:`1 - \alpha^{1/n}`, the share of wholly lost chunks of which n chunks show
    none with the probability alpha.
    """

    difference: float
    values: Floats
    """One per chunk; their mean is the difference, and their spread its error."""
    n: int
    """Items."""
    n_clusters: int
    """Chunks that count, on the side that has fewer."""
    n_differing: float
    """Chunks whose two rates differ."""
    higher_is_better: bool = True
    weights: Floats | None = None
    """Items of the chunks by weight, where samples weigh differently and both sides have the same items; else None."""
    rates: Floats | None = None
    """Differences of the chunks' own rates, with `weights`."""

    @classmethod
    def of(cls, a: Counts, b: Counts, *, higher_is_better: bool = True) -> "PairedRates":
        """Pair counts of the same chunks in the same order; both sides need an item that counts."""
        kept = (a.totals > 0) | (b.totals > 0)
        residuals_a, residuals_b = (
            (counts.hits[kept] - counts.share * counts.totals[kept]) / counts.totals[kept].mean()
            for counts in (a, b)
        )
        difference = b.share - a.share
        weights, rates = None, None
        if b.n_items is not None and np.array_equal(a.totals, b.totals):
            weights, rates = b.totals[kept], (b.hits[kept] - a.hits[kept]) / b.totals[kept]
        differs = ~np.isclose(a.hits * b.totals, b.hits * a.totals, rtol=1e-9, atol=0.0)
        return cls(
            difference=difference,
            values=difference + residuals_b - residuals_a,
            n=b.n,
            n_clusters=min(int((counts.totals > 0).sum()) for counts in (a, b)),
            n_differing=float(np.count_nonzero(differs)),
            higher_is_better=higher_is_better,
            weights=weights,
            rates=rates,
        )

    def __call__(self, level: float) -> Estimate:
        """Return the difference with an interval of this level."""
        if reason := too_few(self.n_clusters):
            return undefined(
                reason,
                value=self.difference,
                method="paired difference by chunk",
                n=self.n,
                n_clusters=self.n_clusters,
                level=level,
            )
        span = max(1.0, float(np.abs(self.values).max()), self._greatest_weight)
        estimate = (
            weighted_difference(self.rates, self.weights, level=level)
            if self.rates is not None and self.weights is not None
            else paired_difference(np.zeros_like(self.values), self.values, level=level, span=span)
        )
        # chunks weigh as their items do, so the value is that of the rates, whatever the rounding
        estimate = replace(estimate, value=self.difference, n=self.n, n_clusters=self.n_clusters)
        if not estimate.has_interval:
            return estimate
        low, high = estimate.low, estimate.high
        if is_mostly_tied(self.n_differing, len(self.values)):
            low, high = self._guarded(low, high, level, span)
        return replace(estimate, low=max(-1.0, low), high=min(1.0, high))

    def _guarded(self, low: float, high: float, level: float, span: float) -> tuple[float, float]:
        """Widen an interval that rests on few chunks that differ."""
        padded = np.append(self.values, [span, -span])
        guard = paired_difference(np.zeros_like(padded), padded, level=level, span=None)
        n = self.n_clusters if self.weights is None else int(effective_number(self.weights))
        unseen = lost_unseen(n, alpha=(1 - level) / 2)
        low, high = min(low, guard.low), max(high, guard.high)
        return (min(low, -unseen), high) if self.higher_is_better else (low, max(high, unseen))

    @property
    def _greatest_weight(self) -> float:
        """Of a chunk, over the mean: the most that a chunk which changed can add to the sum of differences."""
        return 1.0 if self.weights is None else float(self.weights.max() / self.weights.mean())

    def projected(self, n_chunks: int) -> "PairedRates":
        """Return the same with these chunks repeated up to so many."""
        factor = n_chunks / len(self.values)
        return replace(
            self,
            values=np.resize(self.values, n_chunks),
            weights=None if self.weights is None else np.resize(self.weights, n_chunks),
            rates=None if self.rates is None else np.resize(self.rates, n_chunks),
            n_clusters=round(self.n_clusters * factor),
            n_differing=self.n_differing * factor,
        )


def permutation_p_value(a: Counts, b: Counts, *, below: bool) -> float:
    """P-value, one-sided, of the hypothesis that b is not below (above) a, by swapping the two in every chunk.

    Where nothing changed, the two sides of a chunk are exchangeable: every pattern of swaps is equally likely, whatever makes the
    items of a chunk alike. The test is exact, so it keeps the error rate at any number of chunks; where weights make patterns too
    many to count, they are drawn.

    Args:
        a: Counts of the same chunks in the same order as `b`.
        b: Counts with the totals of `a`. With other totals the differences of rates have no exact test, and the p-value is 0: the test
            does not object.
        below: Whether a small b is evidence, or a large one.
    """
    if not np.array_equal(a.totals, b.totals):
        return 0.0
    return sign_flip_test(
        b.hits - a.hits, alternative="less" if below else "greater", rng=np.random.default_rng(_SEED)
    )


def with_ungraded_items(estimate: RuleEstimate, *, before: float | None, now: float) -> RuleEstimate:
    """Widen a usable rate, or a difference of two, so that it includes the case that items without a letter were usable.

    They count as not usable, so a loss of the run could hide behind a judge that failed on the baseline, and a judge that failed
    on the run could look like a loss. The interval grows by the difference of the two shares, at the end where it matters; that of
    the run alone grows by its share, at the upper end.

    Args:
        estimate: Of usable items, run minus baseline, or of the run alone.
        before: Share of the baseline's items that were delivered and have no letter; None for the run alone.
        now: The same share of the run.
    """
    deciding, shift = estimate.deciding, (before or 0.0) - now
    if not shift or deciding is None:
        return estimate
    interval = widened(deciding, down=max(0.0, shift), up=max(0.0, -shift), ends=(-1.0, 1.0))
    return replace(
        estimate,
        deciding=interval,
        current=interval if before is None else estimate.current,
        ungraded_shift=shift,
        caveat=ungraded_caveat(before, now),
    )


def widened(
    source: IntervalAt, *, down: float, up: float, ends: tuple[float, float] = (-inf, inf)
) -> IntervalAt:
    """Move the ends of an interval apart, down and up by so much, but not beyond `ends`."""

    def interval(level: float) -> Estimate:
        bounded = source(level)
        if not bounded.has_interval:
            return bounded
        return replace(bounded, low=max(ends[0], bounded.low - down), high=min(ends[1], bounded.high + up))

    return interval


def ungraded_caveat(before: float | None, now: float) -> str:
    """Return that an interval allows for items without a letter being usable; see `with_ungraded_items`."""
    shares = f"{percent(now)} of the items"
    if before is not None:
        shares = f"{percent(before)} of the items in the baseline and to {percent(now)} in the run"
    return f"the judge gave no letter to {shares}: the interval allows for them being usable"


def independent_difference(a: IntervalAt, b: IntervalAt) -> IntervalAt:
    r"""Difference b minus a of two independent estimates, from their own intervals.

    Newcombe's hybrid, in general MOVER (Zou and Donner 2008): with ends l and u of each,
    :math:`\Delta - \sqrt{(b - l_b)^2 + (u_a - a)^2}` and :math:`\Delta + \sqrt{(u_b - b)^2 + (a - l_a)^2}`.
    """

    def interval(level: float) -> Estimate:
        before, after = a(level), b(level)
        n_clusters, n = min(before.n_clusters, after.n_clusters), min(before.n, after.n)
        value = after.value - before.value
        if not (before.has_interval and after.has_interval):
            reason = before.reason or after.reason or "an end of an interval is not known"
            return undefined(reason, value=value, method="unpaired", n=n, n_clusters=n_clusters, level=level)
        return Estimate(
            value=value,
            low=value - sqrt((after.value - after.low) ** 2 + (before.high - before.value) ** 2),
            high=value + sqrt((after.high - after.value) ** 2 + (before.value - before.low) ** 2),
            level=level,
            method="unpaired, from the intervals of both (MOVER)",
            n=n,
            n_clusters=n_clusters,
            reason=after.reason or before.reason,
        )

    return interval


def mapped(source: IntervalAt, transform: Callable[[float], float]) -> IntervalAt:
    """Map an estimate and its interval by a monotone function; where it falls, the ends change places."""

    def interval(level: float) -> Estimate:
        estimate = source(level)
        value, *ends = (
            nan if isnan(number) else transform(number)
            for number in (estimate.value, estimate.low, estimate.high)
        )
        low, high = sorted(ends) if not any(map(isnan, ends)) else (nan, nan)
        reason = estimate.reason if not isnan(value) else estimate.reason or "the rate is 0"
        return replace(estimate, value=value, low=low, high=high, reason=reason)

    return interval


def relative(difference_of_logs: IntervalAt, base: float) -> IntervalAt:
    """Turn a difference of logarithms into a change in the quantity's unit, from a baseline of this value."""
    return mapped(difference_of_logs, lambda x: base * (exp(x) - 1))


def logarithm(x: float) -> float:
    """Return the logarithm; NaN for numbers without one."""
    return log(x) if x > 0 else nan


def p_beyond(deciding: IntervalAt, bound: float, *, below: bool) -> float:
    """P-value, one-sided, of the hypothesis that the quantity is not below (above) `bound`.

    By inverting the interval: the smallest alpha at which its end of level 1 - 2 alpha leaves the bound out, in
    [1e-9, 0.5]; 1 above that, NaN without an interval.
    """

    def is_left_out(alpha: float) -> bool:
        estimate = deciding(1 - 2 * alpha)
        return estimate.high < bound if below else estimate.low > bound

    if not deciding(_LEVEL).has_interval:
        return nan
    smallest, largest = log(_MIN_P_VALUE), log(0.4999)
    if not is_left_out(exp(largest)):
        return 1.0
    if is_left_out(exp(smallest)):
        return _MIN_P_VALUE
    while largest - smallest >= _P_VALUE_PRECISION:
        middle = (smallest + largest) / 2
        smallest, largest = (smallest, middle) if is_left_out(exp(middle)) else (middle, largest)
    return exp(largest)


def chunks_to_decide(
    estimate: RuleEstimate, goals: Sequence[tuple[float, float]], *, ends_low: bool
) -> int | None:
    """Estimate how many more chunks would decide with a power of 80 % if the value stays; None where none would.

    Args:
        estimate: What decides.
        goals: Distance from the value to the bound of a pass, then of a regression, each with its one-sided error rate; a bound at
            the value or beyond it cannot be reached.
        ends_low: Whether the lower end of the interval decides the pass, and the upper one the regression.
    """
    if estimate.deciding is None:
        return None
    n_chunks = estimate.deciding(_LEVEL).n_clusters
    if n_chunks < MIN_CLUSTERS:
        return MIN_CLUSTERS - n_chunks
    needed = [
        _chunks_for(estimate, estimate.deciding, distance, alpha, below=ends_low == (index == 0))
        for index, (distance, alpha) in enumerate(goals)
        if distance > _NO_DISTANCE
    ]
    more = min((n - n_chunks for n in needed if n is not None), default=_MAX_MORE + 1)
    return max(1, more) if more <= _MAX_MORE else None


def _chunks_for(
    estimate: RuleEstimate, deciding: IntervalAt, distance: float, alpha: float, *, below: bool
) -> int | None:
    """Return about how many chunks tell the value from a bound at this distance; None without an interval."""
    current = deciding(1 - 2 * alpha)
    if not current.has_interval:
        return None
    z = -float(special.ndtri(alpha))
    # of the distance, z standard errors are the interval's; those of the power are room for a value that turns out smaller
    share = z / (z - float(special.ndtri(1 - _POWER)))
    project = estimate.projected

    def half_width(bounded: Estimate) -> float:
        return bounded.value - bounded.low if below else bounded.high - bounded.value

    def is_enough(n_chunks: int) -> bool:
        return project is not None and half_width(project(n_chunks)(1 - 2 * alpha)) <= share * distance

    too_small, enough = current.n_clusters, current.n_clusters
    while project is not None and enough < _MAX_PROJECTED_CHUNKS and not is_enough(enough):
        too_small, enough = enough, 2 * enough
    if project is None or enough >= _MAX_PROJECTED_CHUNKS:
        spread = half_width(current) * sqrt(current.n_clusters) / z
        return chunks_needed(spread, distance, alpha=alpha, power=_POWER, sides=1) if spread > 0 else None
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        too_small, enough = (too_small, middle) if is_enough(middle) else (middle, enough)
    return enough
