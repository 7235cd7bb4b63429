"""The verdict of a comparison, computed from the candidates, their differences and the labels."""

from collections.abc import Sequence

from qaeval.agreement.model import JudgeDiscrimination, RaterAgreement
from qaeval.analysis.model import CandidateSummary
from qaeval.comparison.model import Difference, Outcome, Reason, ReasonCode, Verdict, outcome_of


def decide_verdict(
    candidates: Sequence[CandidateSummary],
    differences: Sequence[Difference],
    agreement: Sequence[RaterAgreement],
    controls: JudgeDiscrimination | None,
    *,
    margin: float,
) -> Verdict:
    """Decide which candidate to use.

    Args:
        candidates: At least one.
        differences: Of every pair of candidates.
        agreement: The judge against each rater.
        controls: Whether the judge tells anything apart; None: not known.
        margin: Smallest difference of usable rates that matters, in (0, 1).
    """
    order = ordered(candidates)
    leader = order[0].facts.name
    if reasons := _nothing_to_decide(order, agreement, controls):
        return Verdict(kind="none", leader=leader, reasons=reasons)
    rivals = _rivals(order, differences, margin)
    if all(candidate.facts.is_embedded for candidate in order):
        reasons = (
            Reason(code="embedded_only"),
            *(_reason("better", rivals["better"]) if len(rivals["better"]) == len(order) - 1 else ()),
        )
        return Verdict(kind="none", leader=leader, reasons=reasons)
    if rivals["too_few_chunks"]:
        return Verdict(
            kind="undecided", leader=leader, reasons=_reason("too_few_chunks", rivals["too_few_chunks"])
        )
    if rivals["not_enough_data"]:
        level = order[0].usable.value == order[1].usable.value
        return Verdict(
            kind="undecided",
            leader=leader,
            reasons=(
                *_reason("not_enough_data", rivals["not_enough_data"]),
                *(_reason("level", (order[1].facts.name,)) if level else ()),
            ),
        )
    equal = rivals["no_difference"]
    return Verdict(
        kind="equal" if equal else "use",
        candidate=None if equal else leader,
        candidates=(leader, *equal) if equal else (),
        leader=leader,
        condition="if_judge_right",
        reasons=(
            *_reason("no_difference", equal),
            *_reason("better", rivals["better"]),
            Reason(code="not_labelled"),
        ),
    )


def ordered(candidates: Sequence[CandidateSummary]) -> list[CandidateSummary]:
    """Sort candidates by usable rate, the highest first."""
    return sorted(candidates, key=lambda candidate: -(candidate.usable.value or 0.0))


def _nothing_to_decide(
    order: Sequence[CandidateSummary],
    agreement: Sequence[RaterAgreement],
    controls: JudgeDiscrimination | None,
) -> tuple[Reason, ...]:
    """Return why there is nothing to decide, or nothing to decide by; empty where there is."""
    doubts = _doubts(agreement, controls)
    if len(order) == 1:
        return (Reason(code="one_candidate"), *doubts)
    if not any(candidate.n_graded for candidate in order):
        return (Reason(code="nothing_graded"),)
    if doubts:
        return doubts
    if not any(candidate.usable.value for candidate in order):
        return (Reason(code="nothing_usable"),)
    return ()


def _doubts(agreement: Sequence[RaterAgreement], controls: JudgeDiscrimination | None) -> tuple[Reason, ...]:
    """Return why the judge's letters decide nothing."""
    refuted = refuting(agreement)
    return (
        *((Reason(code="judge_refuted", raters=tuple(rater.rater for rater in refuted)),) if refuted else ()),
        *(
            (Reason(code="judge_tells_nothing_apart"),)
            if controls is not None and controls.outcome == "tells nothing apart"
            else ()
        ),
    )


def refuting(agreement: Sequence[RaterAgreement]) -> tuple[RaterAgreement, ...]:
    """Return the raters by whose labels the judge beats neither chance nor the commonest letter.

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
    return tuple(rater for rater in people or enough if rater.standing in {"chance", "majority"})


def _rivals(
    order: Sequence[CandidateSummary], differences: Sequence[Difference], margin: float
) -> dict[ReasonCode, list[str]]:
    """Sort the leader's rivals by how their difference from it ended, each group by usable rate."""
    leader, names = order[0].facts.name, [candidate.facts.name for candidate in order]
    rivals: dict[ReasonCode, list[str]] = {
        "better": [],
        "no_difference": [],
        "not_enough_data": [],
        "too_few_chunks": [],
    }
    pairs = {
        (pair.b if pair.a == leader else pair.a): pair for pair in differences if leader in {pair.a, pair.b}
    }
    for rival in sorted(pairs, key=names.index):
        pair = pairs[rival]
        outcome = outcome_of(pair.difference, pair.p_holm, n_pairs=len(differences), margin=margin)
        rivals[_code(outcome, is_leader_a=pair.a == leader)].append(rival)
    return rivals


def _code(outcome: Outcome, *, is_leader_a: bool) -> ReasonCode:
    if outcome == ("a is better" if is_leader_a else "b is better"):
        return "better"
    if outcome == "no difference shown":
        return "no_difference"
    return "too_few_chunks" if outcome == "too few chunks" else "not_enough_data"


def _reason(code: ReasonCode, candidates: Sequence[str]) -> tuple[Reason, ...]:
    return (Reason(code=code, candidates=tuple(candidates)),) if candidates else ()
