"""Each rule of a policy becomes a verdict for each candidate: pass, regression or inconclusive."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final

import numpy as np
from scipy import special

from qaeval.errors import DataError, closest
from qaeval.gate import messages as sentences
from qaeval.gate.estimates import (
    PairedRates,
    RuleEstimate,
    chunks_to_decide,
    count,
    count_by_chunk,
    independent_difference,
    p_beyond,
    permutation_p_value,
    without_letters,
)
from qaeval.gate.evidence import CandidateEvidence, Evidence, Mask
from qaeval.gate.model import RuleVerdict, Verdict
from qaeval.gate.performance import kappa_estimate, performance_estimate
from qaeval.gate.policy import Policy, Rule
from qaeval.report.measure import Measure
from qaeval.report.numbers import percent
from qaeval.stats.estimate import Estimate
from qaeval.stats.paired import holm

LEAST_SHARE: Final = 0.5
"""Of the items must be graded, or delivered, for a rate of those to stand for a candidate."""
_REPORTED: Final = 0.95
"""Level of the intervals beside the one that decides, as in reports."""


@dataclass(frozen=True, kw_only=True)
class RuleCase:
    """One rule for one candidate and stratum, with what the data say."""

    rule: Rule
    id: str
    candidate: str
    against: str
    stratum: str | None
    estimate: RuleEstimate
    p_worse: float
    """NaN where it cannot be evaluated."""

    @property
    def margin(self) -> float | None:
        """Largest accepted loss in the quantity's unit; of a relative one only where the baseline's value is known."""
        if self.rule.loss is None or (self.rule.about.scale == "ratio" and self.estimate.deciding is None):
            return None
        return self.rule.loss * self.estimate.scale_by


def cases_of(
    policy: Policy, run: Evidence, baseline: Evidence | None, pairs: Mapping[str, str]
) -> list[RuleCase]:
    """Ask the data about every rule.

    Args:
        policy: The rules.
        run: What is gated.
        baseline: What it is compared with; None where every rule is a limit.
        pairs: Candidates of the run that are gated, each with its name in the baseline; empty where the baseline has none.

    Raises:
        DataError: a rule names a candidate, flag, check or stratum that there is not.
    """
    _require_names(policy, run, pairs)
    _require_one_sample_set(run, baseline)
    cases = [
        _case(rule, name, stratum, run, baseline, pairs)
        for rule in policy.rules
        for name in _names(rule, run, pairs)
        for stratum in _strata(rule, run, baseline)
    ]
    if twice := [name for name, n in Counter(case.id for case in cases).items() if n > 1]:
        raise DataError(
            f"policy {policy.name}: {twice[0]} is asked by two rules; leave it out of one of them"
        )
    return cases


def verdicts_of(cases: Sequence[RuleCase], alpha: float) -> tuple[RuleVerdict, ...]:
    """Give the verdict of every rule, with the correction for their number.

    Args:
        cases: What the data say, in the policy's order.
        alpha: Error rate of a wrong pass of a rule, and of any wrong regression; one-sided.
    """
    known = [place for place, case in enumerate(cases) if not isnan(case.p_worse)]
    alphas, adjusted = dict.fromkeys(range(len(cases)), alpha), {}
    if known:
        p_values = np.array([cases[place].p_worse for place in known])
        adjusted = dict(zip(known, holm(p_values).tolist(), strict=True))
        for rank, which in enumerate(np.argsort(p_values, kind="stable").tolist()):
            alphas[known[which]] = alpha / (len(known) - rank)
    return tuple(
        _verdict(case, alpha, alphas[place], adjusted.get(place, 1.0), len(known))
        for place, case in enumerate(cases)
    )


def _require_names(policy: Policy, run: Evidence, pairs: Mapping[str, str]) -> None:
    for place, rule in enumerate(policy.rules, start=1):
        wanted = [
            ("flag", [rule.of_flag] if rule.of_flag else [], run.flags, "the rubric"),
            ("check", [rule.check] if rule.check else [], run.checks, "the eval"),
            ("stratum", [rule.stratum] if rule.stratum else [], np.unique(run.strata).tolist(), "the run"),
            ("candidates", rule.candidates, tuple(pairs), "the gate"),
        ]
        for key, names, known, where in wanted:
            for name in names:
                if name not in known:
                    has = ", ".join(known) or "none"
                    raise DataError(
                        f"policy {policy.name}: rules[{place}].{key}: {where} has no {name!r}.{closest(name, known)} It has {has}"
                    )


def _names(rule: Rule, run: Evidence, pairs: Mapping[str, str]) -> Sequence[str]:
    if rule.quantity == "judge_kappa":
        return [run.source.identity.judge]
    return rule.candidates or tuple(pairs)


def _strata(rule: Rule, run: Evidence, baseline: Evidence | None) -> Sequence[str | None]:
    """Return the strata of a rule; those that only the baseline has too, so that a lost one is no pass."""
    if not rule.by:
        return [rule.stratum or None]
    before = [] if baseline is None or rule.limit is not None else baseline.strata.tolist()
    return sorted({*run.strata.tolist(), *before})


def _require_one_sample_set(run: Evidence, baseline: Evidence | None) -> None:
    """Hold two sides whose sample sets have one hash to that hash: chunks are paired by it.

    Raises:
        DataError: one of them has other samples than the other.
    """
    if baseline is None or not run.has_samples_of(baseline):
        return
    own, others = (
        dict(zip(evidence.sample_ids.tolist(), evidence.chunks.tolist(), strict=True))
        for evidence in (run, baseline)
    )
    if own != others:
        odd = sorted(name for name in {*own, *others} if own.get(name) != others.get(name))
        raise DataError(
            f"{baseline.source.name}: its samples are not those of {run.source.name}, though the hash of the sample set says so "
            f"({len(odd)} differ, first {odd[0]!r}); set the baseline again from its run"
        )


def _case(
    rule: Rule,
    name: str,
    stratum: str | None,
    run: Evidence,
    baseline: Evidence | None,
    pairs: Mapping[str, str],
) -> RuleCase:
    estimate = _estimate(rule, name, stratum, run, baseline, pairs)
    against = "" if rule.limit is not None else pairs.get(name, name)
    p_worse = float("nan")
    if estimate.deciding is not None:
        at = 0.0 if rule.limit is None else rule.limit
        p_worse = p_beyond(estimate.deciding, at, below=rule.about.higher_is_better)
        p_worse = p_worse if isnan(p_worse) else max(p_worse, estimate.p_permutation)
    several = len(pairs) > 1 and rule.quantity != "judge_kappa"
    parts = (rule.id, f"[{stratum}]" if stratum else "", f"@{name}" if several else "")
    return RuleCase(
        rule=rule,
        id="".join(parts),
        candidate=name,
        against=against,
        stratum=stratum,
        estimate=estimate,
        p_worse=p_worse,
    )


def _estimate(
    rule: Rule,
    name: str,
    stratum: str | None,
    run: Evidence,
    baseline: Evidence | None,
    pairs: Mapping[str, str],
) -> RuleEstimate:
    against = baseline if rule.limit is None else None
    if rule.limit is None and baseline is None:
        return RuleEstimate.unavailable("it has a margin, and there is no baseline (--baseline)")
    if rule.quantity == "judge_kappa":
        return kappa_estimate(rule, run, against)
    sides = [(run, name), *([(against, pairs[name])] if against else [])]
    found: list[tuple[Evidence, CandidateEvidence]] = []
    for evidence, who in sides:
        candidate = evidence.candidate(who)
        if candidate is None:
            return RuleEstimate.unavailable(
                f"the baseline has no candidate {name}: name its counterpart with --candidate {name}=NAME"
            )
        if not candidate.graded.any():
            return RuleEstimate.unavailable(f"no item of {who} was graded in {evidence.source.name}")
        found.append((evidence, candidate))
    if rule.about.scale == "ratio":
        return performance_estimate(rule, found[0], found[1] if against else None)
    return _share(rule, stratum, found)


def _share(
    rule: Rule, stratum: str | None, sides: Sequence[tuple[Evidence, CandidateEvidence]]
) -> RuleEstimate:
    counts = [count(evidence, candidate, rule, stratum) for evidence, candidate in sides]
    for one, (evidence, candidate) in zip(counts, sides, strict=True):
        if not one.totals.sum():
            what = f" in stratum {stratum}" if stratum else ""
            return RuleEstimate.unavailable(
                f"{candidate.name} has no item that counts{what} in {evidence.source.name}"
            )
        if gap := _gap(rule, stratum, evidence, candidate):
            return RuleEstimate.unavailable(gap)
    if len(counts) == 1:
        return RuleEstimate(deciding=counts[0].rate, current=counts[0].rate)
    (run, _), (baseline, _) = sides
    if not run.has_samples_of(baseline):
        change = independent_difference(counts[1].rate, counts[0].rate)
        estimate = RuleEstimate(deciding=change, baseline=counts[1].rate, current=counts[0].rate)
    else:
        better = rule.about.higher_is_better
        paired = PairedRates.of(counts[1], counts[0], higher_is_better=better)
        estimate = RuleEstimate(
            deciding=paired,
            larger=paired.larger,
            baseline=counts[1].rate,
            current=counts[0].rate,
            p_permutation=permutation_p_value(counts[1], counts[0], below=better),
        )
    if rule.quantity != "usable_rate":
        return estimate
    now, before = (
        _share_of(evidence, candidate.delivered, stratum) - _share_of(evidence, candidate.graded, stratum)
        for evidence, candidate in sides
    )
    return without_letters(estimate, before=before, now=now)


def _gap(rule: Rule, stratum: str | None, evidence: Evidence, candidate: CandidateEvidence) -> str:
    """Say why a rate of graded or delivered items says nothing about a candidate; empty where it does."""
    if not rule.counts_among:
        return ""
    among = candidate.graded if rule.counts_among == "success_rate" else candidate.delivered
    share = _share_of(evidence, among, stratum)
    return "" if share >= LEAST_SHARE else gap_of(rule, share, candidate.name, evidence.source.name)


def gap_of(rule: Rule, share: float, candidate: str, side: str) -> str:
    """Say that a rate of the items that count, so small a share of all, says nothing about a candidate."""
    became = "graded" if rule.counts_among == "success_rate" else "delivered"
    return (
        f"only {percent(share)} of the items of {candidate} were {became} in {side}, and a rate of these says nothing about the "
        f"others"
    )


def _share_of(evidence: Evidence, items: Mask, stratum: str | None) -> float:
    """Return the share of some items among all that were requested."""
    return count_by_chunk(evidence, items, stratum=stratum).share


def _verdict(
    case: RuleCase, alpha: float, alpha_worse: float, p_adjusted: float, n_rules: int
) -> RuleVerdict:
    rule, estimate = case.rule, case.estimate
    found = None if estimate.deciding is None else estimate.deciding(1 - 2 * alpha)
    verdict = _decided(case, found, worse=p_adjusted <= alpha)
    is_limit = rule.limit is not None
    current = estimate.current(1 - 2 * alpha if is_limit else _REPORTED) if estimate.current else None
    made = RuleVerdict(
        id=case.id,
        quantity=rule.quantity,
        candidate=case.candidate,
        against=case.against,
        stratum=case.stratum,
        verdict=verdict,
        baseline=Measure.of(estimate.baseline(_REPORTED)) if estimate.baseline else None,
        current=None if current is None else Measure.of(current),
        change=None if found is None or is_limit else Measure.of(found),
        margin=case.margin,
        limit=rule.limit,
        unit=estimate.unit or rule.about.unit,
        higher_is_better=rule.about.higher_is_better,
        alpha=alpha_worse,
        p_worse=None if isnan(case.p_worse) else case.p_worse,
        power_if_equal=None if is_limit else _power(found, case.margin, alpha),
        n_more_chunks=_more(case, found, alpha, alpha_worse) if verdict == "inconclusive" else None,
        sentence="",
    )
    return made.model_copy(
        update={
            "sentence": sentences.of_rule(made, rule, estimate, alpha=alpha, p_adjusted=p_adjusted, n=n_rules)
        }
    )


def _decided(case: RuleCase, found: Estimate | None, *, worse: bool) -> Verdict:
    """Decide: a pass first (the worst that the interval allows is accepted), then a proven loss."""
    if found is None or not found.has_interval:
        return "inconclusive"
    rule = case.rule
    if rule.limit is not None:
        kept = found.low > rule.limit if rule.about.higher_is_better else found.high < rule.limit
    else:
        margin = case.margin or 0.0
        kept = found.low > -margin if rule.about.higher_is_better else found.high < margin
    return "pass" if kept else "regression" if worse else "inconclusive"


def _power(found: Estimate | None, margin: float | None, alpha: float) -> float | None:
    """How probable a pass is where the true change is 0, taking the interval for normal: Phi(margin / se - z)."""
    if found is None or margin is None or not found.has_interval or not found.high > found.low:
        return None
    z = -float(special.ndtri(alpha))
    return float(special.ndtr(z * (2 * margin / (found.high - found.low) - 1)))


def _more(case: RuleCase, found: Estimate | None, alpha: float, alpha_worse: float) -> int | None:
    if found is None or isnan(found.value):
        return None
    better = case.rule.about.higher_is_better
    gain = found.value if better else -found.value
    if case.rule.limit is not None:
        to_pass = gain - (case.rule.limit if better else -case.rule.limit)
        to_worse = -to_pass
    else:
        unseen = case.estimate.unseen
        to_pass, to_worse = gain + (case.margin or 0.0) - max(0.0, unseen), -gain - max(0.0, -unseen)
    return chunks_to_decide(case.estimate, ((to_pass, alpha), (to_worse, alpha_worse)), ends_low=better)
