"""Verdict of a comparison, computed from the candidates, their differences and the labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from qaeval.agreement.messages import shortfall
from qaeval.agreement.model import JudgeDiscrimination, RaterAgreement
from qaeval.analysis.model import CandidateSummary
from qaeval.comparison.model import (
    Condition,
    Difference,
    LabelledDifference,
    Outcome,
    Reason,
    ReasonCode,
    Verdict,
    depends_on_ungraded,
    outcome_of,
)
from qaeval.report.numbers import listed

SHOWN_FROM: Final = 30
"""Labelled chunks from which a corrected difference is shown without a condition. With fewer, t intervals of differences that
mostly tie are rough."""
_MIN_RECALL: Final = 0.5
"""Share of the items below the best letter that a judge must find so that labels, though too few to prove it, do not refute it."""
_SAME: Final = 1e-9
"""Mean differences closer than this are equal."""


def decide_verdict(
    candidates: Sequence[CandidateSummary],
    differences: Sequence[Difference],
    agreement: Sequence[RaterAgreement],
    controls: JudgeDiscrimination | None,
    *,
    margin: float,
) -> Verdict:
    """Decide which candidate to use.

    Where a rater labelled enough chunks for an interval, the corrected difference of the pair decides, also against the
    judge's own. The verdict is `shown` where every pair of the leader is decided by labels of `SHOWN_FROM` chunks or more and no
    other rater of the same kind shows something else.

    Args:
        candidates: At least one.
        differences: Of every pair of candidates.
        agreement: The judge against each rater.
        controls: Whether the judge tells anything apart; None: not known.
        margin: Smallest difference of usable rates that matters, in (0, 1).
    """
    order = ordered(candidates, differences)
    leader = order[0].facts.name
    if reasons := _nothing_to_decide(order, agreement, controls):
        return Verdict(kind="none", leader=leader, reasons=reasons)
    names = [candidate.facts.name for candidate in order]
    pairs = {
        name: next(pair for pair in differences if {pair.a, pair.b} == {leader, name}) for name in names[1:]
    }
    shares = {
        each.facts.name: each.usable_if_ungraded_were - (each.usable.value or 0.0) for each in candidates
    }
    rivals: dict[ReasonCode, list[str]] = {}
    ungraded = []
    for name, pair in pairs.items():
        outcome = pair.effective_outcome(margin)
        shift = shares[pair.b] - shares[pair.a]
        if not pair.deciding and depends_on_ungraded(pair.difference, outcome, shift, margin):
            outcome = "not enough data"
            ungraded.append(name)
        rivals.setdefault(_code(outcome, is_leader_a=pair.a == leader), []).append(name)
    if all(candidate.facts.is_embedded for candidate in order):
        better = _reason("better", rivals.get("better", ())) if set(rivals) == {"better"} else ()
        return Verdict(kind="none", leader=leader, reasons=(Reason(code="embedded_only"), *better))
    basis = _basis(pairs, margin)
    for code in ("too_few_chunks", "not_enough_data"):
        if unclear := rivals.get(code):
            level = abs(_lead(pairs[names[1]], leader)) < _SAME and code == "not_enough_data"
            reasons = (
                _open(code, unclear, {} if ungraded else pairs),
                *_reason("ungraded", ungraded),
                *(_reason("level", names[1:2]) if level else ()),
                *basis,
            )
            return Verdict(kind="undecided", leader=leader, reasons=reasons)
    equal = rivals.get("no_difference", [])
    return Verdict(
        kind="equal" if equal else "use",
        candidate=None if equal else leader,
        candidates=(leader, *equal) if equal else (),
        leader=leader,
        condition=_condition(basis),
        reasons=(*_reason("no_difference", equal), *_reason("better", rivals.get("better", ())), *basis),
    )


def ordered(
    candidates: Sequence[CandidateSummary], differences: Sequence[Difference]
) -> list[CandidateSummary]:
    """Sort candidates by their mean difference from the others, the best first: by usable rate where labels decide nothing."""

    def mean_lead(name: str) -> float:
        leads = [_lead(pair, name) for pair in differences if name in {pair.a, pair.b}]
        return round(sum(leads) / len(leads), 9) if leads else 0.0

    return sorted(candidates, key=lambda candidate: -mean_lead(candidate.facts.name))


def _open(code: ReasonCode, unclear: Sequence[str], pairs: Mapping[str, Difference]) -> Reason:
    """Say which differences are open, and how many more chunks would decide all of them; without pairs that is not known."""
    needed = [_n_more(pair) for name in unclear if (pair := pairs.get(name))] or [None]
    known = [n for n in needed if n is not None]
    return Reason(
        code=code,
        candidates=tuple(unclear),
        n_more_chunks=max(known) if len(known) == len(needed) else None,
    )


def _n_more(pair: Difference) -> int | None:
    """Return how many more chunks would decide a pair; None where more labels would than the run has chunks for."""
    first = pair.deciding
    if first is None:
        return pair.n_more_chunks
    n_left = pair.difference.n_clusters - first.n_chunks
    return first.n_more_chunks if (first.n_more_chunks or 0) <= n_left else None


def _lead(pair: Difference, name: str) -> float:
    value = pair.effective.value or 0.0
    return value if pair.b == name else -value


def _basis(pairs: Mapping[str, Difference], margin: float) -> tuple[Reason, ...]:
    """Say what decides about the leader and each rival: labels or the judge, and what contradicts them."""
    grouped: dict[ReasonCode, dict[str, LabelledDifference]] = {"labelled": {}, "few_labels": {}}
    judged, judge_differs, raters_differ = [], [], {}
    for name, pair in pairs.items():
        first = pair.deciding
        if first is None:
            judged.append(name)
            continue
        grouped["labelled" if first.n_chunks >= SHOWN_FROM else "few_labels"][name] = first
        outcome = pair.effective_outcome(margin)
        if outcome != pair.judged_outcome(margin):
            judge_differs.append(name)
        if others := [
            other.rater
            for other in pair.labelled[1:]
            if other.is_enough
            and other.rater_kind == first.rater_kind
            and _contradict(
                outcome, outcome_of(other.difference, 1.0 if other.p is None else other.p, margin=margin)
            )
        ]:
            raters_differ[name] = others
    reasons = [
        Reason(
            code=code,
            candidates=tuple(estimates),
            raters=tuple(dict.fromkeys(estimate.rater for estimate in estimates.values())),
            n_chunks=min(estimate.n_chunks for estimate in estimates.values()),
        )
        for code, estimates in grouped.items()
        if estimates
    ]
    if raters_differ:
        raters = tuple(dict.fromkeys(rater for others in raters_differ.values() for rater in others))
        reasons.append(Reason(code="raters_differ", candidates=tuple(raters_differ), raters=raters))
    return (*_reason("not_labelled", judged), *reasons, *_reason("judge_differs", judge_differs))


def _contradict(first: Outcome, other: Outcome) -> bool:
    """Whether two outcomes, both shown, are different."""
    shown = {"a is better", "b is better", "no difference shown"}
    return first != other and {first, other} <= shown


def _condition(basis: Sequence[Reason]) -> Condition:
    conditional = {"not_labelled", "few_labels", "raters_differ"}
    return "if_judge_right" if any(reason.code in conditional for reason in basis) else "shown"


def _nothing_to_decide(
    order: Sequence[CandidateSummary],
    agreement: Sequence[RaterAgreement],
    controls: JudgeDiscrimination | None,
) -> tuple[Reason, ...]:
    """Return why there is nothing to decide, or nothing to decide by; empty where there is."""
    if not any(candidate.n_graded for candidate in order):
        return (Reason(code="nothing_graded", failure=_most_frequent_failure(order)),)
    doubts = judge_doubts(agreement, controls)
    if len(order) == 1:
        return (Reason(code="one_candidate"), *doubts)
    if doubts:
        return doubts
    if not any(candidate.usable.value for candidate in order):
        return (Reason(code="nothing_usable"),)
    return ()


def _most_frequent_failure(candidates: Sequence[CandidateSummary]) -> str:
    """Return the most frequent reason of failed and ungraded items; empty where there is none."""
    reasons: Counter[str] = Counter()
    for candidate in candidates:
        reasons.update(candidate.failed_by_reason)
        reasons.update(candidate.ungraded_by_reason)
    return next((reason for reason, _ in reasons.most_common(1)), "")


def judge_doubts(
    agreement: Sequence[RaterAgreement], controls: JudgeDiscrimination | None
) -> tuple[Reason, ...]:
    """Return why the judge's letters decide nothing; empty where nothing speaks against them."""
    refuted = refuting(agreement)
    return (
        *((_refuted_by(refuted),) if refuted else ()),
        *(
            (Reason(code="judge_tells_nothing_apart"),)
            if controls is not None and controls.outcome == "tells nothing apart"
            else ()
        ),
    )


def _refuted_by(raters: Sequence[RaterAgreement]) -> Reason:
    shown: dict[str, list[str]] = {}
    for rater in raters:
        shown.setdefault(shortfall(rater, "the judge"), []).append(f"{rater.rater}'s")
    detail = "; ".join(f"by {listed(names)} labels, {clause}" for clause, names in shown.items())
    return Reason(code="judge_refuted", raters=tuple(rater.rater for rater in raters), detail=detail)


def refuting(agreement: Sequence[RaterAgreement]) -> tuple[RaterAgreement, ...]:
    """Return the raters by whose labels the judge beats neither chance nor the most frequent letter.

    Few labels of a good run do not show that a good judge beats always giving the most frequent letter: of 36 items of which
    90 % are usable, not even a perfect judge does. So a judge that agrees more often than that letter, and gives a lower letter
    to at least half of the items to which the rater did, is not refuted; the caution that it is not shown to be reliable stays.
    A person's labels come before a model's: where labels of a person are from enough chunks for an interval, those of models
    refute nothing. Labels with one letter alone, to which the judge gave that letter too, refute nothing either: kappa does not
    exist.
    """
    enough = [
        rater
        for rater in agreement
        if rater.coefficients is not None
        and rater.standing != "too few chunks"
        and rater.coefficients.kappa.value is not None
    ]
    people = [rater for rater in enough if rater.rater_kind != "model"]
    return tuple(
        rater
        for rater in people or enough
        if rater.standing in {"chance", "majority"} and not _is_only_unproven(rater)
    )


def _is_only_unproven(rater: RaterAgreement) -> bool:
    lift, recall = rater.lift, rater.lower_recall
    if lift is None or recall is None or lift.value is None or recall.value is None:
        return False
    return lift.value > 0 and recall.value >= _MIN_RECALL


def _code(outcome: Outcome, *, is_leader_a: bool) -> ReasonCode:
    if outcome == ("a is better" if is_leader_a else "b is better"):
        return "better"
    if outcome == "no difference shown":
        return "no_difference"
    return "too_few_chunks" if outcome == "too few chunks" else "not_enough_data"


def _reason(code: ReasonCode, candidates: Sequence[str]) -> tuple[Reason, ...]:
    return (Reason(code=code, candidates=tuple(candidates)),) if candidates else ()
