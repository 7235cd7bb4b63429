"""Rules that are decided while the judge still grades, at error rates that hold however often the letters are looked at.

Chunks count one after the other, in an order that was fixed beforehand. Rules about shares of letters and flags are tested with bets
(`qaeval.stats.sequential`); rules that no letter changes are decided once, on all samples. What needs all letters at once (the
judge's kappa, cost of a usable item) cannot be tested chunk by chunk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Final

import numpy as np

from qaeval.corpus.sampling import random_order
from qaeval.errors import DataError, NotComparableError
from qaeval.gate.estimates import (
    Counts,
    PairedRates,
    RuleEstimate,
    count,
    count_by_chunk,
    is_mostly_tied,
    masks_of,
    with_ungraded_items,
)
from qaeval.gate.evidence import PENDING, CandidateEvidence, Evidence, Floats, Integers, Mask
from qaeval.gate.policy import Policy, Rule, lost_unseen
from qaeval.gate.rules import RuleCase, gap_of
from qaeval.records import GradeRow
from qaeval.stats.estimate import Estimate, undefined
from qaeval.stats.margins import non_inferiority
from qaeval.stats.paired import holm
from qaeval.stats.sequential import BettingTest, ConfidenceSequence

SEQUENTIAL: Final = frozenset({"usable_rate", "success_rate", "hallucination_rate", "flag_rate"})
"""Quantities that each chunk's letters add to."""
_WHOLE: Final = frozenset({"judge_kappa", "seconds_per_1000_usable", "cost_per_1000_usable"})
"""Quantities that are known only when all letters are."""
_METHOD: Final = "bets on chunks in random order, holds at every look"
_RESAMPLES: Final = 400
_SEED: Final = 20_240_229


def require_sequential(policy: Policy) -> None:
    """Refuse, before the first item is graded, a policy that cannot be decided early.

    Raises:
        DataError: A rule is about a quantity that needs all letters.
    """
    for number, rule in enumerate(policy.rules, start=1):
        if rule.corrected:
            raise DataError(
                f"policy {policy.name}: rules[{number}]: corrected needs the letters of all chunks; remove the key, "
                "or gate without --sequential"
            )
        if rule.quantity in _WHOLE:
            raise DataError(
                f"policy {policy.name}: rules[{number}]: {rule.quantity} needs all letters; remove the rule, "
                "or gate without --sequential"
            )


def require_same_samples(run: Evidence, baseline: Evidence | None) -> None:
    """Refuse a baseline on other samples: the tests are about each chunk's difference.

    Raises:
        NotComparableError: The sample sets differ.
    """
    if baseline is not None and not run.has_samples_of(baseline):
        raise NotComparableError(
            f"{baseline.source.name} has other samples than {run.source.name}: a sequential gate compares chunk by chunk. Grade "
            "all of the run and gate without --sequential, or set a baseline on these samples"
        )


def grading_order(evidence: Evidence, seed: int) -> tuple[str, ...]:
    """Return the chunks in the order in which they are graded; see `random_order`."""
    return random_order(evidence.chunk_names, sample_set=evidence.source.identity.samples_digest, seed=seed)


class SequentialMonitor:
    """All rules of a gate, updated chunk after chunk.

    Args:
        cases: Rules, with the estimates of those that no letter changes.
        run: The run; items may wait for the judge.
        baseline: What the run is compared with; None where every rule is a limit.
        alpha: Error rate of the policy.

    Attributes:
        n_chunks: Chunks of the run.
        n_seen: Chunks that count so far.
    """

    def __init__(
        self, cases: Sequence[RuleCase], run: Evidence, baseline: Evidence | None, *, alpha: float
    ) -> None:
        self._run, self._alpha = run, alpha
        self._cases = list(cases)
        self.n_chunks, self.n_seen = len(run.chunk_names), 0
        self._tests = {
            index: _RuleTest(case, run, baseline, alpha=alpha, n_rules=len(cases))
            for index, case in enumerate(cases)
            if _is_sequential(case, run, baseline)
        }

    @property
    def n_tests(self) -> int:
        """Rules that are decided chunk by chunk."""
        return len(self._tests)

    def update(self, chunk: str, grades: Mapping[str, GradeRow]) -> None:
        """Take the next chunk's letters into account.

        Args:
            chunk: Chunk in the order that was fixed beforehand.
            grades: The judge's rows by item id, of this chunk's items at least.

        Raises:
            DataError: An item of the chunk has no row.
        """
        samples = np.flatnonzero(self._run.chunks == chunk)
        items = {
            candidate.name: candidate.select(samples).with_grades(grades, self._run.scale)
            for candidate in self._run.candidates
        }
        for candidate in items.values():
            if missing := candidate.item_ids[candidate.letters == PENDING].tolist():
                raise DataError(f"grades: {len(missing)} items of a chunk have no row, first {missing[0]!r}")
        self.n_seen += 1
        for test in self._tests.values():
            test.update(chunk, items[test.candidate], samples)

    def cases(self) -> list[RuleCase]:
        """Return all cases with what the data say by now."""
        return [
            self._tests[index].case() if index in self._tests else case
            for index, case in enumerate(self._cases)
        ]

    def is_decided(self, passed: Mapping[str, bool]) -> bool:
        """Whether the gate's outcome is certain: all rules pass, or one is proven to be worse.

        Args:
            passed: By id, of the rules that are not tested chunk by chunk.
        """
        passes = [
            self._tests[index].passes if index in self._tests else passed.get(case.id, False)
            for index, case in enumerate(self._cases)
        ]
        if all(passes):
            return True
        p_values = [
            self._tests[index].p_worse if index in self._tests else case.p_worse
            for index, case in enumerate(self._cases)
        ]
        known = [index for index, p in enumerate(p_values) if not isnan(p)]
        if not known:
            return False
        adjusted = holm([p_values[index] for index in known])
        return any(
            p <= self._alpha and not passes[index] for index, p in zip(known, adjusted.tolist(), strict=True)
        )

    def power(self) -> "Power | None":
        """Compare how often equal candidates pass, of the margin where looking costs most; None without a margin."""
        powers = [test.power() for test in self._tests.values()]
        known = [power for power in powers if power is not None]
        return max(known, key=lambda power: power.fixed - power.sequential, default=None)


@dataclass(frozen=True, kw_only=True)
class Power:
    """How often a run that is as good as its baseline passes a rule, with all chunks of the run."""

    fixed: float
    """Where everything is graded and looked at once."""
    sequential: float
    """Where the letters are looked at after each chunk."""


def power_at_equality(values: Floats, *, n_chunks: int, margin: float, alpha: float) -> Power:
    """Estimate both powers by drawing chunks from those that were seen, moved so that their mean is 0.

    Args:
        values: Differences of the chunks, in [-1, 1], shape (n,).
        n_chunks: Chunks of a whole run.
        margin: Largest accepted loss.
        alpha: Error rate, one-sided.
    """
    rng = np.random.default_rng(_SEED)
    drawn = np.clip(rng.choice(values - values.mean(), (_RESAMPLES, n_chunks)), -1.0, 1.0)
    test = BettingTest(np.full(_RESAMPLES, -margin), alpha=alpha, n_values=n_chunks)
    for column in drawn.T:
        test.update(column)
    nothing = np.zeros(n_chunks)
    fixed = [non_inferiority(nothing, row, margin=margin, alpha=alpha).is_shown for row in drawn]
    n_differing = np.count_nonzero(values) / len(values) * n_chunks
    if is_mostly_tied(n_differing, n_chunks) and lost_unseen(n_chunks, alpha=alpha) >= margin:
        fixed = [False]
    return Power(fixed=float(np.mean(fixed)), sequential=float(test.is_above.mean()))


class ItemCounts:
    """Delivered, graded and requested items of a candidate in the chunks that count so far."""

    def __init__(self, candidate: str, run: str) -> None:
        self.candidate, self.run = candidate, run
        self._counts: Floats = np.zeros(3)

    def add(self, counts: Floats) -> None:
        """Add a chunk: items that were delivered, graded and requested."""
        self._counts = self._counts + counts

    @property
    def without_letter(self) -> float:
        """Share of the items that were delivered and that the judge gave no letter."""
        delivered, graded, requested = self._counts
        return float((delivered - graded) / requested) if requested else 0.0

    def gap(self, rule: Rule) -> str:
        """Return why a rate does not represent the candidate; see `gap_of`."""
        return gap_of(rule, *map(float, self._counts), candidate=self.candidate, run=self.run)


def _is_sequential(case: RuleCase, run: Evidence, baseline: Evidence | None) -> bool:
    if case.rule.quantity not in SEQUENTIAL or run.candidate(case.candidate) is None:
        return False
    if case.rule.limit is not None:
        return True
    return baseline is not None and baseline.candidate(case.against) is not None


class _RuleTest:
    """Sequential test of one rule for one candidate and stratum.

    Tested is the mean over chunks of the chunk's difference (of its rate, for a limit), weighted by the items that were requested:
    the difference of the rates over all items. A chunk without an item that counts is left out.
    """

    def __init__(
        self, case: RuleCase, run: Evidence, baseline: Evidence | None, *, alpha: float, n_rules: int
    ) -> None:
        self._case, self._alpha, self._run = case, alpha, run
        self.candidate = case.candidate
        self._weights = _weights(run, case)
        self._run_items = ItemCounts(case.candidate, run.source.name)
        self._reference = None
        if case.rule.limit is None and baseline is not None:
            self._reference = _Reference(case, baseline)
        self._sign = 1.0 if case.rule.definition.higher_is_better else -1.0
        self._pass_bound, self._worse_bound = _bounds_of(case.rule, self._sign)
        # a rate lies in [0, 1], a difference of two rates in [-1, 1]
        low, high = (0.0, 1.0) if self._reference is None else (-1.0, 1.0)
        n_chunks = max(1, len(self._weights))
        max_weight = max(self._weights.values(), default=1.0)
        self._bounds = ConfidenceSequence(
            alpha_low=alpha,
            alpha_high=alpha,
            n_values=n_chunks,
            low=low,
            high=high,
            max_weight=max_weight,
            thresholds=(self._pass_bound,),
        )
        # the loss as the test takes it: its sign turned, so that large values are a loss
        smallest_loss, largest_loss = sorted((-self._sign * low, -self._sign * high))
        self._worse = BettingTest(
            -self._sign * self._worse_bound,
            # Holm's correction comes later, with the p-values: the bets aim at the strictest level it may demand
            alpha=alpha / n_rules,
            n_values=n_chunks,
            low=smallest_loss,
            high=largest_loss,
            max_weight=max_weight,
        )
        self._chunks: list[str] = []
        self._n_items: list[float] = []
        self._current: list[tuple[float, float]] = []
        self._before: list[tuple[float, float]] = []
        self._values: list[float] = []

    def update(self, chunk: str, items: CandidateEvidence, samples: Integers) -> None:
        """Take a chunk of the run into account.

        Args:
            chunk: The chunk.
            items: The candidate's items of it.
            samples: Positions of its samples in the run.
        """
        if chunk not in self._weights:
            return
        stratum, of_samples = self._case.stratum, self._run.weights
        weights = np.ones(len(samples)) if of_samples is None else of_samples[samples]
        if stratum is not None:
            weights = weights * (self._run.strata[samples] == stratum)
        hits, counted = masks_of(items, self._case.rule)

        def total(mask: Mask) -> float:
            return float(weights @ mask.sum(axis=1))

        current = (total(hits & counted), total(counted))
        self._run_items.add(np.array([total(mask) for mask in _item_masks(items)]))
        before = (0.0, 1.0) if self._reference is None else self._reference.update(chunk)
        if not (current[1] and before[1]):
            return
        value, weight = current[0] / current[1] - before[0] / before[1], self._weights[chunk]
        self._chunks.append(chunk)
        self._n_items.append(float(counted[weights > 0].sum()))
        self._current.append(current)
        self._before.append(before)
        self._values.append(value)
        self._bounds.update(value, weight)
        self._worse.update(-self._sign * value, weight)

    @property
    def passes(self) -> bool:
        """Whether the margin, or the limit, is shown to be kept."""
        if self._gap:
            return False
        low = self._bounds.low - max(0.0, self._unseen)
        return low > self._pass_bound if self._sign > 0 else self._bounds.high < self._pass_bound

    @property
    def p_worse(self) -> float:
        """Of the hypothesis that nothing got worse, at all looks; 1 where items without a letter could explain the loss."""
        if not self._values or self._gap:
            return nan
        is_explained = self._unseen < 0 and self._bounds.high - self._unseen >= self._worse_bound
        return 1.0 if is_explained else float(self._worse.p_value)

    @property
    def _unseen(self) -> float:
        """Share of items without a letter in the baseline minus that in the run, of a rule about usable items."""
        if self._case.rule.quantity != "usable_rate":
            return 0.0
        return (self._unseen_before or 0.0) - self._run_items.without_letter

    @property
    def _unseen_before(self) -> float | None:
        """Share of the baseline's items without a letter; None for a limit."""
        return None if self._reference is None else self._reference.items.without_letter

    @property
    def _gap(self) -> str:
        """Why the rate does not represent a candidate; empty where it does."""
        sides = [self._run_items] if self._reference is None else [self._run_items, self._reference.items]
        return next(filter(None, (items.gap(self._case.rule) for items in sides)), "")

    def case(self) -> RuleCase:
        """Return the case with what the chunks so far say."""
        if not self._values:
            return replace(
                self._case, estimate=RuleEstimate.unavailable("no graded chunk has an item that counts")
            )
        if self._gap:
            return replace(self._case, estimate=RuleEstimate.unavailable(self._gap), p_worse=nan)
        if self._reference is None:
            estimate = RuleEstimate(deciding=self._estimate, current=self._estimate)
        else:
            n_items = None if self._run.weights is None else np.array(self._n_items)
            current, before = (
                Counts(tuple(self._chunks), hits, totals, n_items)
                for hits, totals in (
                    np.array(counts, dtype=np.float64).T for counts in (self._current, self._before)
                )
            )
            estimate = RuleEstimate(
                deciding=self._estimate,
                projected=PairedRates.of(before, current, higher_is_better=self._sign > 0).projected,
                current=current.rate,
                baseline=before.rate,
            )
        if self._unseen:
            estimate = with_ungraded_items(
                estimate, before=self._unseen_before, now=self._run_items.without_letter
            )
        return replace(self._case, estimate=estimate, p_worse=self.p_worse)

    def _estimate(self, level: float) -> Estimate:
        """Return the mean with its bounds, which have the policy's level alone."""
        n, n_clusters = int(sum(self._n_items)), len(self._values)
        if not np.isclose(level, 1 - 2 * self._alpha):
            reason = "bounds that hold at every look have a single level"
            return undefined(
                reason, value=self._bounds.mean, method=_METHOD, n=n, n_clusters=n_clusters, level=level
            )
        return Estimate(
            value=self._bounds.mean,
            low=self._bounds.low,
            high=self._bounds.high,
            level=level,
            method=_METHOD,
            n=n,
            n_clusters=n_clusters,
        )

    def power(self) -> Power | None:
        """Return how often an equal run passes the margin; None for a limit, or before the first chunk."""
        margin = self._case.margin
        if margin is None or not self._values:
            return None
        return power_at_equality(
            np.array(self._values), n_chunks=len(self._weights), margin=margin, alpha=self._alpha
        )


class _Reference:
    """Counts of a rule in the baseline, chunk by chunk."""

    def __init__(self, case: RuleCase, baseline: Evidence) -> None:
        candidate = baseline.candidate(case.against)
        assert candidate is not None  # noqa: S101 - see `_is_sequential`
        self.items = ItemCounts(case.against, baseline.source.name)
        counts = count(baseline, candidate, case.rule, case.stratum)
        self._counts = {
            chunk: (float(hits), float(total))
            for chunk, hits, total in zip(counts.chunks, counts.hits, counts.totals, strict=True)
        }
        columns = [
            count_by_chunk(baseline, mask, stratum=case.stratum).hits for mask in _item_masks(candidate)
        ]
        self._item_counts = dict(zip(counts.chunks, np.column_stack(columns), strict=True))

    def update(self, chunk: str) -> tuple[float, float]:
        """Count the items of a chunk; return hits and items that count, (0, 0) where the baseline has no such chunk."""
        if chunk not in self._counts:
            return 0.0, 0.0
        self.items.add(self._item_counts[chunk])
        return self._counts[chunk]


def _item_masks(candidate: CandidateEvidence) -> tuple[Mask, Mask, Mask]:
    """Return which items were delivered, graded and requested."""
    return candidate.delivered, candidate.graded, candidate.requested


def _weights(run: Evidence, case: RuleCase) -> dict[str, float]:
    """Return the requested items of each chunk, by weight, over their mean; chunks without samples of the stratum are left out."""
    candidate = run.candidate(case.candidate)
    assert candidate is not None  # noqa: S101 - see `_is_sequential`
    counts = count_by_chunk(run, candidate.requested, stratum=case.stratum)
    kept = counts.totals > 0
    mean = counts.totals[kept].mean() if kept.any() else 1.0
    return {
        chunk: float(total / mean) for chunk, total in zip(counts.chunks, counts.totals, strict=True) if total
    }


def _bounds_of(rule: Rule, sign: float) -> tuple[float, float]:
    """Return what must be exceeded (in the good direction) for a pass, and not reached for a regression."""
    if rule.limit is not None:
        return rule.limit, rule.limit
    return -sign * (rule.loss or 0.0), 0.0
