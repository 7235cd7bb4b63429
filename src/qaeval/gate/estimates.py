"""What the data say about one rule: the quantity on both sides, and an interval at any level for what decides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, isnan, log, nan, sqrt
from typing import Final, TypeAlias

import numpy as np
from scipy import special

from qaeval.gate.evidence import CandidateEvidence, Evidence, Floats, Mask
from qaeval.gate.policy import Rule
from qaeval.report.numbers import percent
from qaeval.stats.estimate import MIN_CLUSTERS, Estimate, too_few, undefined
from qaeval.stats.intervals import clustered_rate
from qaeval.stats.paired import paired_difference, sign_flip_test
from qaeval.stats.power import chunks_needed

Interval: TypeAlias = Callable[[float], Estimate]
"""A two-sided confidence level to an estimate with an interval of that level."""

_SMALLEST_ALPHA: Final = 1e-9
_STEPS: Final = 60
_LEVEL: Final = 0.9
_POWER: Final = 0.8
_MOST_CHUNKS: Final = 20_000
"""Beyond that a formula says how many chunks are needed."""


@dataclass(frozen=True, kw_only=True)
class RuleEstimate:
    """What one rule is decided from; without `deciding` it cannot be evaluated, and `reason` says why."""

    deciding: Interval | None = None
    """Of the run minus the baseline, or of the run's quantity where the rule is a limit."""
    baseline: Interval | None = None
    current: Interval | None = None
    larger: Callable[[int], Interval] | None = None
    """What would decide with so many chunks like these; None where only a formula says how the interval shrinks."""
    unit: str = ""
    scale_by: float = 1.0
    """What a relative margin is a share of: the baseline's value."""
    reason: str = ""
    caution: str = ""
    """What the interval does not hold."""
    unseen: float = 0.0
    """Share of items without a letter in the baseline minus that in the run, which more chunks make no smaller."""
    p_permutation: float = 0.0
    """Of the hypothesis that nothing changed, one-sided, where it has an exact test: `permutation_p_value`. A regression needs this one too."""

    @classmethod
    def unavailable(cls, reason: str) -> "RuleEstimate":
        """Say why there is nothing to decide from."""
        return cls(reason=reason)


@dataclass(frozen=True)
class Counts:
    """Items that count and items that there are, by chunk."""

    chunks: tuple[str, ...]
    hits: Floats
    totals: Floats

    @property
    def rate(self) -> Interval:
        """The rate of hits, clustered by chunk."""
        return lambda level: clustered_rate(self.hits, self.totals, level=level)

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
    requested = np.ones_like(candidate.graded)
    if rule.quantity == "usable_rate":
        return candidate.usable, requested
    if rule.quantity == "success_rate":
        return candidate.graded, requested
    if rule.quantity == "valid_rate":
        return candidate.delivered, requested
    if rule.of_flag:
        return candidate.flags[rule.of_flag], candidate.graded
    unchecked = candidate.unchecked.get(rule.check, ~requested)
    return candidate.findings[rule.check], candidate.delivered & ~unchecked


def count_by_chunk(
    evidence: Evidence, hits: Mask, counted: Mask | None = None, *, stratum: str | None = None
) -> Counts:
    """Count items by chunk.

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
    n_hits, n_counted = (
        np.bincount(codes, weights=mask.sum(axis=1, dtype=np.float64), minlength=len(names)).astype(
            np.float64
        )
        for mask in (hits & counted, counted)
    )
    return Counts(names, n_hits, n_counted)


def is_mostly_tied(n_differing: float, n_chunks: int) -> bool:
    """Whether most chunks show no difference and fewer than 10 show one."""
    return n_differing < min(MIN_CLUSTERS, n_chunks / 2)


def lost_unseen(n_chunks: int, *, alpha: float) -> float:
    """Return the share of lost chunks of which so many chunks show none with the probability alpha; about 3 / n for 0.05."""
    return float(1 - alpha ** (1 / n_chunks))


@dataclass(frozen=True)
class PairedRates:
    r"""Difference of two rates, b minus a, on the same chunks; called with a level it is an interval.

    The difference of two ratios of sums is linearised (Cochran 1977, section 6.3): a chunk contributes
    :math:`(s_b - r_b t_b)/\bar t_b - (s_a - r_a t_a)/\bar t_a`, which is the plain difference of its two rates where all chunks
    have the same number of items. Chunks in which neither side has an item that counts are left out.

    Where nearly all chunks tie and fewer than 10 differ, the spread that is seen says little about what is not: the two chunks that
    `paired_difference` adds are added whatever the sizes of the chunks, and the end that a pass is told by is no closer to 0 than
    :math:`1 - \alpha^{1/n}`, the share of wholly lost chunks of which n chunks show none with the probability alpha.
    """

    difference: float
    values: Floats
    """Of each chunk; their mean is the difference, and their spread its error."""
    n: int
    """Items."""
    n_clusters: int
    """Chunks that count, on the side that has fewer."""
    n_differing: float
    """Chunks whose two rates are not the same."""
    higher_is_better: bool = True

    @classmethod
    def of(cls, a: Counts, b: Counts, *, higher_is_better: bool = True) -> "PairedRates":
        """Take the counts of the same chunks in the same order; both sides need an item that counts."""
        kept = (a.totals > 0) | (b.totals > 0)
        rate_a, rate_b = (float(one.hits.sum() / one.totals.sum()) for one in (a, b))
        residual_a, residual_b = (
            (one.hits[kept] - rate * one.totals[kept]) / one.totals[kept].mean()
            for one, rate in ((a, rate_a), (b, rate_b))
        )
        return cls(
            difference=rate_b - rate_a,
            values=rate_b - rate_a + residual_b - residual_a,
            n=round(float(b.totals.sum())),
            n_clusters=min(int((one.totals > 0).sum()) for one in (a, b)),
            n_differing=float(np.count_nonzero(a.hits * b.totals != b.hits * a.totals)),
            higher_is_better=higher_is_better,
        )

    def __call__(self, level: float) -> Estimate:
        """Return the difference with an interval of this level."""
        if reason := too_few(self.n_clusters):
            method = "paired difference by chunk"
            return undefined(
                reason,
                value=self.difference,
                method=method,
                n=self.n,
                n_clusters=self.n_clusters,
                level=level,
            )
        span = max(1.0, float(np.abs(self.values).max()))
        found = paired_difference(np.zeros_like(self.values), self.values, level=level, span=span)
        # chunks weigh as their items do, so the value is that of the rates, whatever the rounding
        made = replace(found, value=self.difference, n=self.n, n_clusters=self.n_clusters)
        if not found.has_interval:
            return made
        low, high = found.low, found.high
        if is_mostly_tied(self.n_differing, len(self.values)):
            low, high = self._guarded(low, high, level, span)
        return replace(made, low=max(-1.0, low), high=min(1.0, high))

    def _guarded(self, low: float, high: float, level: float, span: float) -> tuple[float, float]:
        """Widen an interval that rests on few chunks that differ."""
        more = np.append(self.values, [span, -span])
        found = paired_difference(np.zeros_like(more), more, level=level, span=None)
        unseen = lost_unseen(self.n_clusters, alpha=(1 - level) / 2)
        low, high = min(low, found.low), max(high, found.high)
        return (min(low, -unseen), high) if self.higher_is_better else (low, max(high, unseen))

    def larger(self, n_chunks: int) -> "PairedRates":
        """Return the same with these chunks repeated up to so many."""
        times = n_chunks / len(self.values)
        return replace(
            self,
            values=np.resize(self.values, n_chunks),
            n_clusters=round(self.n_clusters * times),
            n_differing=self.n_differing * times,
        )


def permutation_p_value(a: Counts, b: Counts, *, below: bool) -> float:
    """P-value, one-sided, of the hypothesis that b is not below (above) a, by swapping the two in every chunk.

    Where nothing changed, either side could be the other one in each chunk: every pattern of swaps is equally likely, whatever
    makes the items of a chunk alike. Exact, so the error rate is kept at any number of chunks.

    Args:
        a: Counts of the same chunks in the same order as `b`.
        b: Its totals must be those of `a`; 0, so no objection, where they are not: the differences of rates have no exact test then.
        below: Whether a small b is evidence, or a large one.
    """
    if not np.array_equal(a.totals, b.totals):
        return 0.0
    return sign_flip_test(b.hits - a.hits, alternative="less" if below else "greater")


def without_letters(estimate: RuleEstimate, *, before: float, now: float) -> RuleEstimate:
    """Let a difference of usable rates hold that items without a letter were usable, as far as one side has more of them.

    They count as not usable, so a loss of the run could hide behind a judge that failed on the baseline, and a judge that failed
    on the run could look like a loss.

    Args:
        estimate: About usable items, run minus baseline.
        before: Share of the items of the baseline that were delivered and have no letter.
        now: The same in the run.
    """
    deciding = estimate.deciding
    if now == before or deciding is None:
        return estimate

    def interval(level: float) -> Estimate:
        found = deciding(level)
        if not found.has_interval:
            return found
        low, high = found.low - max(0.0, before - now), found.high + max(0.0, now - before)
        return replace(found, low=max(-1.0, low), high=min(1.0, high))

    return replace(
        estimate,
        deciding=interval,
        unseen=before - now,
        caution=f"the judge gave no letter to {percent(before)} of the items in the baseline and to {percent(now)} in the run: the "
        f"interval holds that they were usable",
    )


def independent_difference(a: Interval, b: Interval) -> Interval:
    r"""Difference b minus a of two independent estimates, from their own intervals.

    Newcombe's hybrid, in general MOVER (Zou and Donner 2008): with ends l and u of each,
    :math:`\Delta - \sqrt{(b - l_b)^2 + (u_a - a)^2}` and :math:`\Delta + \sqrt{(u_b - b)^2 + (a - l_a)^2}`.
    """

    def interval(level: float) -> Estimate:
        one, other = a(level), b(level)
        n_clusters, n = min(one.n_clusters, other.n_clusters), min(one.n, other.n)
        value = other.value - one.value
        if not (one.has_interval and other.has_interval):
            reason = one.reason or other.reason or "an end of an interval is not known"
            return undefined(reason, value=value, method="unpaired", n=n, n_clusters=n_clusters, level=level)
        return Estimate(
            value=value,
            low=value - sqrt((other.value - other.low) ** 2 + (one.high - one.value) ** 2),
            high=value + sqrt((other.high - other.value) ** 2 + (one.value - one.low) ** 2),
            level=level,
            method="unpaired, from the intervals of both (MOVER)",
            n=n,
            n_clusters=n_clusters,
            reason=other.reason or one.reason,
        )

    return interval


def mapped(one: Interval, into: Callable[[float], float]) -> Interval:
    """Map an estimate and its interval by a monotone function; ends change places where it falls."""

    def interval(level: float) -> Estimate:
        found = one(level)
        value, *ends = (nan if isnan(x) else into(x) for x in (found.value, found.low, found.high))
        low, high = sorted(ends) if not any(map(isnan, ends)) else (nan, nan)
        reason = found.reason if not isnan(value) else found.reason or "the rate is 0"
        return replace(found, value=value, low=low, high=high, reason=reason)

    return interval


def relative(difference_of_logs: Interval, base: float) -> Interval:
    """Turn a difference of logarithms into a change in the quantity's unit, of a baseline of this value."""
    return mapped(difference_of_logs, lambda x: base * (exp(x) - 1))


def logarithm(x: float) -> float:
    """Take the logarithm; NaN where there is none."""
    return log(x) if x > 0 else nan


def p_beyond(deciding: Interval, at: float, *, below: bool) -> float:
    """P-value, one-sided, of the hypothesis that the quantity is not below (above) `at`.

    Found by inverting the interval: the smallest alpha at which its end of level 1 - 2 alpha leaves `at` out, in
    [1e-9, 0.5]; 1 above that, NaN without an interval.
    """

    def left_out(alpha: float) -> bool:
        found = deciding(1 - 2 * alpha)
        return found.high < at if below else found.low > at

    if not deciding(_LEVEL).has_interval:
        return nan
    least, most = log(_SMALLEST_ALPHA), log(0.4999)
    if not left_out(exp(most)):
        return 1.0
    if left_out(exp(least)):
        return _SMALLEST_ALPHA
    for _ in range(_STEPS):
        middle = (least + most) / 2
        if most - least < 1e-4:  # noqa: PLR2004 - relative precision of the p-value
            break
        least, most = (least, middle) if left_out(exp(middle)) else (middle, most)
    return exp(most)


def chunks_to_decide(
    estimate: RuleEstimate, goals: Sequence[tuple[float, float]], *, ends_low: bool
) -> int | None:
    """Estimate how many chunks more would decide with a power of 80 % if all stays as it is; None where none would.

    Args:
        estimate: What decides.
        goals: Distance from the value to what a pass, and then to what a regression, is told from, each with its one-sided
            error rate; those that are not positive cannot be reached.
        ends_low: Whether the pass is told by the lower end of the interval, and the regression by the upper one.
    """
    if estimate.deciding is None:
        return None
    n_chunks = estimate.deciding(_LEVEL).n_clusters
    if n_chunks < MIN_CLUSTERS:
        return MIN_CLUSTERS - n_chunks
    needed = [
        _chunks_for(estimate, estimate.deciding, distance, alpha, below=ends_low == (place == 0))
        for place, (distance, alpha) in enumerate(goals)
        if distance > 0
    ]
    known = [one for one in needed if one is not None]
    return max(1, min(known) - n_chunks) if known else None


def _chunks_for(
    estimate: RuleEstimate, deciding: Interval, distance: float, alpha: float, *, below: bool
) -> int | None:
    """Return about how many chunks in all tell the value from what lies at a distance; None where there is no interval."""
    found = deciding(1 - 2 * alpha)
    if not found.has_interval:
        return None
    z = -float(special.ndtri(alpha))
    share = z / (z - float(special.ndtri(1 - _POWER)))

    def reach(estimate: Estimate) -> float:
        return estimate.value - estimate.low if below else estimate.high - estimate.value

    def is_enough(n_chunks: int) -> bool:
        return (
            estimate.larger is not None
            and reach(estimate.larger(n_chunks)(1 - 2 * alpha)) <= share * distance
        )

    least, most = found.n_clusters, found.n_clusters
    while estimate.larger is not None and most < _MOST_CHUNKS and not is_enough(most):
        least, most = most, 2 * most
    if estimate.larger is None or most >= _MOST_CHUNKS:
        spread = reach(found) * sqrt(found.n_clusters) / z
        return chunks_needed(spread, distance, alpha=alpha, power=_POWER, sides=1) if spread > 0 else None
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if is_enough(middle) else (middle, most)
    return most
