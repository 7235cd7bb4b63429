"""Each rule of a policy becomes a verdict for each candidate: pass, regression or inconclusive."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Final

import numpy as np
from scipy import special

from qaeval.comparison.model import Verdict as ComparisonVerdict
from qaeval.errors import DataError, UsageError, closest
from qaeval.files.yaml import listed as problem_list
from qaeval.gate import messages
from qaeval.gate.correction import labelled_estimate
from qaeval.gate.estimates import (
    Counts,
    PairedRates,
    RuleEstimate,
    chunks_to_decide,
    count,
    count_by_chunk,
    independent_difference,
    p_beyond,
    permutation_p_value,
    with_ungraded_items,
)
from qaeval.gate.evidence import CandidateEvidence, Evidence, Mask
from qaeval.gate.model import DriftReport, RuleVerdict, Verdict
from qaeval.gate.performance import Side, kappa_estimate, performance_estimate
from qaeval.gate.policy import BY_USABLE, Policy, Rule
from qaeval.report.facts import PromptChange
from qaeval.report.measure import Measure
from qaeval.report.numbers import percent
from qaeval.stats.estimate import MIN_CLUSTERS, Estimate
from qaeval.stats.paired import holm

MIN_COUNTED_SHARE: Final = 0.5
"""Share of the items that must be graded, or delivered, before a rate of these represents a candidate; of the delivered items
that must be graded before usable rates are compared."""
_REPORTED_LEVEL: Final = 0.95
"""Level of the intervals beside the one that decides, as in reports."""


@dataclass(frozen=True, kw_only=True)
class GateInputs:
    """Policy and evidence of a gate: the same inputs give the same verdict."""

    policy: Policy
    run: Evidence
    baseline: Evidence | None
    """None where every rule is a limit."""
    candidates: Mapping[str, str]
    """Candidates of the run by name, each with its counterpart in the baseline; empty: all, each with its namesake, else with the
    only candidate of the baseline that is the same model with another prompt."""
    today: str
    """ISO 8601; the time that ages are counted to."""
    comparison: ComparisonVerdict | None = None
    """Verdict in the report of the run; None where it has no report by the same judge's letters."""
    drift: DriftReport | None = None
    """What the anchors of the judge's certificate show; None where the policy does not ask."""

    @property
    def pairs(self) -> dict[str, str]:
        """Candidates that are gated, each with its name in the baseline; empty where the baseline has none.

        Raises:
            UsageError: The run, or the baseline, has no candidate of a given name.
        """
        current = [candidate.name for candidate in self.run.candidates]
        earlier = (
            current if self.baseline is None else [candidate.name for candidate in self.baseline.candidates]
        )
        for new, old in self.candidates.items():
            for name, known, owner in ((new, current, "the run"), (old, earlier, "the baseline")):
                if name not in known:
                    raise UsageError(
                        f"--candidate {new}={old}: {owner} has no candidate {name!r}.{closest(name, known)} It has {', '.join(known)}"
                    )
        return dict(self.candidates) or {
            candidate.name: self._counterpart(candidate) for candidate in self.run.candidates
        }

    def _counterpart(self, candidate: CandidateEvidence) -> str:
        if self.baseline is None:
            return candidate.name
        counterpart = candidate.variant.counterpart(other.variant for other in self.baseline.candidates)
        return counterpart.name if counterpart else ""

    @property
    def prompt_changes(self) -> Iterator[PromptChange]:
        """Candidates whose prompt differs from that of their counterpart in the baseline."""
        if self.baseline is None:
            return
        runs = {"run": self.run.source.name, "earlier": self.baseline.source.name}
        for name, old_name in self.pairs.items():
            current, earlier = self.run.candidate(name), self.baseline.candidate(old_name)
            if current and earlier and (change := current.variant.change_from(earlier.variant, **runs)):
                yield change


@dataclass(frozen=True, kw_only=True)
class RuleCase:
    """One rule for one candidate and stratum, with its estimate."""

    rule: Rule
    id: str
    candidate: str
    against: str
    """Candidate of the baseline; empty for a limit."""
    stratum: str | None
    estimate: RuleEstimate
    p_worse: float
    """One-sided p-value of the hypothesis that nothing got worse, before the correction; NaN without an interval."""

    @property
    def margin(self) -> float | None:
        """Largest accepted loss in the quantity's unit; of a relative one only where the baseline's value is known."""
        if self.rule.loss is None or (
            self.rule.definition.scale == "ratio" and self.estimate.deciding is None
        ):
            return None
        return self.rule.loss * self.estimate.margin_scale


def cases_of(inputs: GateInputs) -> list[RuleCase]:
    """Estimate what every rule is about, for every candidate and stratum.

    Raises:
        DataError: A rule names a candidate, flag, check or stratum that does not exist, two rules have one id, or the samples of run
            and baseline contradict their hash.
        UsageError: As for `GateInputs.pairs`.
    """
    policy, pairs = inputs.policy, inputs.pairs
    _require_names(policy, inputs.run, pairs)
    _require_one_sample_set(inputs.run, inputs.baseline)
    cases = [
        _case(rule, name, stratum, inputs, pairs)
        for rule in policy.rules
        for name in _candidates(rule, inputs.run, pairs)
        for stratum in _strata(rule, inputs.run, inputs.baseline)
    ]
    if doubled := [case_id for case_id, n in Counter(case.id for case in cases).items() if n > 1]:
        raise DataError(
            f"policy {policy.name}: {doubled[0]} is the subject of two rules; remove it from one of them"
        )
    return cases


def verdicts_of(cases: Sequence[RuleCase], alpha: float) -> tuple[RuleVerdict, ...]:
    """Return the verdict of every rule, with the correction for their number.

    Args:
        cases: Rules with their estimates, in the policy's order.
        alpha: Error rate of a wrong pass of a rule, and of any wrong regression; one-sided.
    """
    known = [index for index, case in enumerate(cases) if not isnan(case.p_worse)]
    alphas, adjusted = dict.fromkeys(range(len(cases)), alpha), {}
    if known:
        p_values = np.array([cases[index].p_worse for index in known])
        adjusted = dict(zip(known, holm(p_values).tolist(), strict=True))
        # Holm: the smallest p-value is held to alpha / n, the next one to alpha / (n - 1), and so on
        for rank, position in enumerate(np.argsort(p_values, kind="stable").tolist()):
            alphas[known[position]] = alpha / (len(known) - rank)
    return tuple(
        _verdict(case, alpha, alphas[index], adjusted.get(index, 1.0), len(known))
        for index, case in enumerate(cases)
    )


def _require_names(policy: Policy, run: Evidence, pairs: Mapping[str, str]) -> None:
    if problems := [*_unknown_names(policy, run, pairs)]:
        raise DataError(problem_list(f"policy {policy.name}", problems))


def _unknown_names(policy: Policy, run: Evidence, pairs: Mapping[str, str]) -> Iterator[str]:
    for number, rule in enumerate(policy.rules, start=1):
        wanted = [
            ("flag", [rule.flag_name] if rule.flag_name else [], run.flags, "the rubric"),
            ("check", [rule.check] if rule.check else [], run.checks, "the eval"),
            ("stratum", [rule.stratum] if rule.stratum else [], np.unique(run.strata).tolist(), "the run"),
            ("candidates", rule.candidates, tuple(pairs), "the gate"),
        ]
        for key, names, known, owner in wanted:
            for name in names:
                if name not in known:
                    available = ", ".join(known) or "none"
                    yield f"rules[{number}].{key}: {owner} has no {name!r}.{closest(name, known)} It has {available}"


def _candidates(rule: Rule, run: Evidence, pairs: Mapping[str, str]) -> Sequence[str]:
    if rule.quantity == "judge_kappa":
        return [run.source.identity.judge]
    return rule.candidates or tuple(pairs)


def _strata(rule: Rule, run: Evidence, baseline: Evidence | None) -> Sequence[str | None]:
    """Return the strata of a rule, those of the baseline included: a stratum that the run lost must not pass."""
    if not rule.by:
        return [rule.stratum or None]
    earlier = [] if baseline is None or rule.limit is not None else baseline.strata.tolist()
    return sorted({*run.strata.tolist(), *earlier})


def _require_one_sample_set(run: Evidence, baseline: Evidence | None) -> None:
    """Check the samples of two sides with the same hash: their chunks are paired because of it.

    Raises:
        DataError: The samples differ.
    """
    if baseline is None or not run.has_samples_of(baseline):
        return
    current, earlier = (
        dict(zip(evidence.sample_ids.tolist(), evidence.chunks.tolist(), strict=True))
        for evidence in (run, baseline)
    )
    if current != earlier:
        odd = sorted(name for name in {*current, *earlier} if current.get(name) != earlier.get(name))
        raise DataError(
            f"{baseline.source.name}: its samples are not those of {run.source.name}, though the hash of the sample set says so "
            f"({len(odd)} differ, first {odd[0]!r}); set the baseline again from its run"
        )


def _case(
    rule: Rule, name: str, stratum: str | None, inputs: GateInputs, pairs: Mapping[str, str]
) -> RuleCase:
    estimate = _estimate(rule, name, stratum, inputs, pairs)
    p_worse = nan
    if estimate.deciding is not None:
        bound = 0.0 if rule.limit is None else rule.limit
        p_interval = p_beyond(estimate.deciding, bound, below=rule.definition.higher_is_better)
        # a regression needs both tests: Student's alone proves too many where nothing changed (docs/decisions/0008)
        p_worse = p_interval if isnan(p_interval) else max(p_interval, estimate.p_permutation)
    has_several = len(pairs) > 1 and rule.quantity != "judge_kappa"
    parts = (rule.id, f"[{stratum}]" if stratum else "", f"@{name}" if has_several else "")
    return RuleCase(
        rule=rule,
        id="".join(parts),
        candidate=name,
        against="" if rule.limit is not None else pairs.get(name, name),
        stratum=stratum,
        estimate=estimate,
        p_worse=p_worse,
    )


def _estimate(
    rule: Rule, name: str, stratum: str | None, inputs: GateInputs, pairs: Mapping[str, str]
) -> RuleEstimate:
    baseline = inputs.baseline if rule.limit is None else None
    if rule.limit is None and baseline is None:
        return RuleEstimate.unavailable("it has a margin, and there is no baseline (--baseline)")
    if rule.quantity == "judge_kappa":
        return kappa_estimate(rule, inputs.run, baseline)
    sides: list[Side] = []
    for evidence, side_name in ((inputs.run, name), *([(baseline, pairs[name])] if baseline else [])):
        candidate = evidence.candidate(side_name)
        if candidate is None:
            return RuleEstimate.unavailable(
                f"the baseline has no candidate {name}: name its counterpart with --candidate {name}=NAME"
            )
        # a candidate of the run that failed on every item lost what it had; nothing can be lost against such a baseline
        if evidence is baseline and not candidate.graded.any():
            return RuleEstimate.unavailable(f"no item of {side_name} was graded in {evidence.source.name}")
        sides.append((evidence, candidate))
    if rule.definition.scale == "ratio":
        return _gap(rule, None, sides) or performance_estimate(rule, sides[0], sides[1] if baseline else None)
    return _share(rule, stratum, sides)


def _share(rule: Rule, stratum: str | None, sides: Sequence[Side]) -> RuleEstimate:
    """Estimate a share of items: of the run alone, or of run and baseline."""
    counts = [count(evidence, candidate, rule, stratum) for evidence, candidate in sides]
    for side_counts, (evidence, candidate) in zip(counts, sides, strict=True):
        if not side_counts.totals.sum():
            scope = f" in stratum {stratum}" if stratum else ""
            return RuleEstimate.unavailable(
                f"{candidate.name} has no item that counts{scope} in {evidence.source.name}"
            )
    if rule.corrected and (by_labels := _by_labels(rule, stratum, sides)):
        return by_labels
    if gap := _gap(rule, stratum, sides):
        return gap
    estimate = _by_letters(rule, sides, counts)
    if rule.quantity != "usable_rate":
        return estimate
    now, *before = (
        _share_of(evidence, candidate, candidate.delivered & ~candidate.graded, stratum)
        for evidence, candidate in sides
    )
    return with_ungraded_items(estimate, before=before[0] if before else None, now=now)


def _by_letters(rule: Rule, sides: Sequence[Side], counts: Sequence[Counts]) -> RuleEstimate:
    """Estimate a share of items from the counts of the run, or of run and baseline."""
    current = counts[0].rate
    if len(counts) == 1:
        return RuleEstimate(deciding=current, projected=counts[0].projected, current=current)
    (run, _), (baseline, _) = sides
    if not run.has_samples_of(baseline):
        change = independent_difference(counts[1].rate, current)
        return RuleEstimate(deciding=change, baseline=counts[1].rate, current=current)
    higher_is_better = rule.definition.higher_is_better
    paired = PairedRates.of(counts[1], counts[0], higher_is_better=higher_is_better)
    return RuleEstimate(
        deciding=paired,
        projected=paired.projected,
        baseline=counts[1].rate,
        current=current,
        p_permutation=permutation_p_value(counts[1], counts[0], below=higher_is_better),
    )


def _by_labels(rule: Rule, stratum: str | None, sides: Sequence[Side]) -> RuleEstimate | None:
    """Estimate a usable rate by labels; None where the policy leaves it to the judge's letters."""
    estimate = labelled_estimate(sides, stratum)
    if estimate is not None or rule.corrected == "auto":
        return estimate
    place = " of the run" if len(sides) == 1 else ", both of the run and of the baseline"
    return RuleEstimate.unavailable(
        f"it needs labels by one rater in at least {MIN_CLUSTERS} chunks{place} (corrected: true)"
    )


def _gap(rule: Rule, stratum: str | None, sides: Sequence[Side]) -> RuleEstimate | None:
    """Return that the rate of a side does not represent its candidate, by the items that it rests on; None where all do."""
    for evidence, candidate in sides:
        counts = [
            float(count_by_chunk(evidence, mask, stratum=stratum).hits.sum())
            for mask in (candidate.delivered, candidate.graded, candidate.requested)
        ]
        if gap := gap_of(rule, *counts, candidate=candidate.name, run=evidence.source.name):
            return RuleEstimate.unavailable(gap)
    return None


def gap_of(rule: Rule, delivered: float, graded: float, requested: float, *, candidate: str, run: str) -> str:
    """Return why a rate does not represent a candidate: it rests on fewer than `MIN_COUNTED_SHARE` of the items.

    Args:
        rule: About items.
        delivered: Items that were delivered, by weight.
        graded: Items with a letter.
        requested: All items.
        candidate: Name of the candidate.
        run: Name of its run.
    """
    if rule.quantity in BY_USABLE and rule.limit is None:
        # a failure is a loss of usable items, and an item without a letter is not known to be one
        counted, of, items, state = graded, delivered, "delivered items", "graded"
    elif rule.base_quantity == "success_rate":
        counted, of, items, state = graded, requested, "items", "graded"
    elif rule.base_quantity:
        counted, of, items, state = delivered, requested, "items", "delivered"
    else:
        return ""
    if not of or counted >= MIN_COUNTED_SHARE * of:
        return ""
    return f"only {percent(counted / of)} of the {items} of {candidate} were {state} in {run}, which does not represent the others"


def _share_of(evidence: Evidence, candidate: CandidateEvidence, items: Mask, stratum: str | None) -> float:
    """Return the share of some of a candidate's items among all that were requested."""
    return count_by_chunk(evidence, items, candidate.requested, stratum=stratum).share


def _verdict(
    case: RuleCase, alpha: float, alpha_worse: float, p_adjusted: float, n_rules: int
) -> RuleVerdict:
    rule, estimate = case.rule, case.estimate
    deciding = None if estimate.deciding is None else estimate.deciding(1 - 2 * alpha)
    outcome = _outcome(case, deciding, is_worse=p_adjusted <= alpha)
    is_limit = rule.limit is not None
    current = estimate.current(1 - 2 * alpha if is_limit else _REPORTED_LEVEL) if estimate.current else None
    verdict = RuleVerdict(
        id=case.id,
        quantity=rule.quantity,
        candidate=case.candidate,
        against=case.against,
        stratum=case.stratum,
        verdict=outcome,
        baseline=Measure.of(estimate.baseline(_REPORTED_LEVEL)) if estimate.baseline else None,
        current=None if current is None else Measure.of(current),
        change=None if deciding is None or is_limit else Measure.of(deciding),
        margin=case.margin,
        limit=rule.limit,
        unit=estimate.unit or rule.definition.unit,
        higher_is_better=rule.definition.higher_is_better,
        alpha=alpha_worse,
        p_worse=None if isnan(case.p_worse) else case.p_worse,
        power_if_equal=None if is_limit else _power(deciding, case.margin, alpha),
        n_more_chunks=_more_chunks(case, deciding, alpha, alpha_worse) if outcome == "inconclusive" else None,
        labelled_by=estimate.labelled_by,
        n_labelled_chunks=estimate.n_labelled_chunks,
        sentence="",
    )
    sentence = messages.of_rule(verdict, rule, estimate, alpha=alpha, p_adjusted=p_adjusted, n=n_rules)
    return verdict.model_copy(update={"sentence": sentence})


def _outcome(case: RuleCase, deciding: Estimate | None, *, is_worse: bool) -> Verdict:
    """Decide: a pass first (the worst that the interval allows is accepted), then a proven loss."""
    if deciding is None or not deciding.has_interval:
        return "inconclusive"
    rule = case.rule
    if rule.limit is not None:
        is_kept = (
            deciding.low > rule.limit if rule.definition.higher_is_better else deciding.high < rule.limit
        )
    else:
        margin = case.margin or 0.0
        is_kept = deciding.low > -margin if rule.definition.higher_is_better else deciding.high < margin
    return "pass" if is_kept else "regression" if is_worse else "inconclusive"


def _power(deciding: Estimate | None, margin: float | None, alpha: float) -> float | None:
    """Return how probable a pass is where the true change is 0, with a normal interval: Phi(margin / se - z)."""
    if deciding is None or margin is None or not deciding.has_interval or not deciding.high > deciding.low:
        return None
    z = -float(special.ndtri(alpha))
    return float(special.ndtr(z * (2 * margin / (deciding.high - deciding.low) - 1)))


def _more_chunks(case: RuleCase, deciding: Estimate | None, alpha: float, alpha_worse: float) -> int | None:
    if deciding is None or isnan(deciding.value):
        return None
    higher_is_better = case.rule.definition.higher_is_better
    gain = deciding.value if higher_is_better else -deciding.value
    if case.rule.limit is not None:
        to_pass = gain - (case.rule.limit if higher_is_better else -case.rule.limit)
        to_worse = -to_pass
    else:
        to_pass, to_worse = gain + (case.margin or 0.0), -gain
    # what the judge left ungraded widens the interval by the same amount however many chunks there are
    shift = case.estimate.ungraded_shift
    goals = ((to_pass - max(0.0, shift), alpha), (to_worse - max(0.0, -shift), alpha_worse))
    return chunks_to_decide(case.estimate, goals, ends_low=higher_is_better)
