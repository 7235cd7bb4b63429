"""Which candidate comes first by the user's weights, and how far each weight, and the quality, can move before another does.

The weighted sum of a candidate is linear in every weight, so each answer is the root of one inequality per rival: exact, no search.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from qaeval.errors import UsageError, closest
from qaeval.report.decision import Decision, LeftOut, Rival, WeightRange
from qaeval.report.document import Choice, Criterion, Report
from qaeval.report.measure import Measure

_QUALITY: Final = "quality"
_TIE: Final = 1e-12
"""Sums closer than this are one."""


def decide(report: Report, given: Mapping[str, float]) -> Decision:
    """Weigh the candidates of a report anew.

    Args:
        report: Of at least two candidates.
        given: The user's weights by criterion, 0 or more; what is not there keeps the weight that qaeval proposes.

    Raises:
        UsageError: there is nothing to choose, a criterion is unknown, a weight is negative, or nothing has a weight.
    """
    if not report.timing.choice:
        raise UsageError(
            f"{report.run.id}: one candidate, so there is nothing to decide; compare two, or name two runs"
        )
    weights = _weights(report.timing.choice[0], given)
    choices = sorted((_weighed(one, weights) for one in report.timing.choice), key=lambda one: -one.mean)
    scores = {one.candidate: _scores(one) for one in choices}
    sums = {name: _sum(own, weights) for name, own in scores.items()}
    best = max(sums.values())
    first = tuple(name for name, total in sums.items() if best - total <= _TIE)
    counting = [one.name for one in choices[0].criteria if one.counts]
    leader = first[0] if len(first) == 1 else None
    verdict = next((one.text for one in report.headline if one.kind == "verdict"), "")
    return Decision(
        source=report.run.id,
        choice=leader,
        tied=() if leader else first,
        weights=weights,
        candidates=tuple(choices),
        ranges=tuple(weight_range(name, leader, scores, weights, is_given=name in given) for name in counting)
        if leader
        else (),
        rivals=tuple(_rival(report, leader, name, scores, weights) for name in scores if name != leader)
        if leader
        else (),
        left_out=tuple(
            _left_out(name, choices, leader, sums, weights[name]) for name in weights if name not in counting
        ),
        quality=verdict,
    )


def weight_range(
    criterion: str,
    leader: str,
    scores: Mapping[str, Mapping[str, float]],
    weights: Mapping[str, float],
    *,
    is_given: bool = False,
) -> WeightRange:
    """Say between which weights of a criterion the leader stays first, all others as they are.

    Against each rival the leader's lead is ``w x d + rest``: `d` is their difference in score on the criterion, `rest` what the
    other criteria add. It is 0 at ``w = -rest / d``; the range is the narrowest of all rivals. At its ends two are tied. A
    weight is never below 0, so a root at 0 or below changes no choice.

    Args:
        criterion: Which weight moves.
        leader: Who comes first, alone.
        scores: 0 to 1, by candidate and criterion; the same criteria for all.
        weights: 0 or more, by criterion.
        is_given: Whether the weight is the user's.
    """
    low: tuple[float, str] | None = None
    high: tuple[float, str] | None = None
    own, weight = scores[leader], weights[criterion]
    for rival, theirs in scores.items():
        gap = own[criterion] - theirs[criterion]
        if rival == leader or not gap:
            continue
        rest = sum(weights[name] * (own[name] - theirs[name]) for name in own if name != criterion)
        turn = -rest / gap
        if gap > 0 and turn > 0 and (low is None or turn > low[0]):
            low = turn, rival
        if gap < 0 and (high is None or turn < high[0]):
            high = turn, rival
    return WeightRange(
        criterion=criterion,
        weight=weight,
        is_given=is_given,
        low=low[0] if low else None,
        below=low[1] if low else "",
        high=high[0] if high else None,
        above=high[1] if high else "",
    )


def _weights(choice: Choice, given: Mapping[str, float]) -> dict[str, float]:
    proposed = {one.name: one.weight for one in choice.criteria}
    for name, weight in given.items():
        if name not in proposed:
            raise UsageError(
                f"--weight {name}: no criterion is called {name!r}.{closest(name, proposed)} Known: {', '.join(proposed)}"
            )
        if weight < 0:
            raise UsageError(f"--weight {name}: a weight is 0 or more, got {weight:g}")
    weights = {**proposed, **given}
    if not sum(weights[one.name] for one in choice.criteria if one.counts):
        raise UsageError(
            "every criterion that is known for all candidates has the weight 0; give one with --weight"
        )
    return weights


def _weighed(choice: Choice, weights: Mapping[str, float]) -> Choice:
    criteria = tuple(one.model_copy(update={"weight": weights[one.name]}) for one in choice.criteria)
    total = sum(one.weight for one in criteria if one.counts)
    mean = sum(one.weight * (one.score or 0.0) for one in criteria if one.counts) / total
    return choice.model_copy(update={"criteria": criteria, "mean": mean})


def _scores(choice: Choice) -> dict[str, float]:
    return {one.name: one.score for one in choice.criteria if one.counts and one.score is not None}


def _sum(scores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(weights[name] * score for name, score in scores.items())


def _rival(
    report: Report,
    leader: str,
    rival: str,
    scores: Mapping[str, Mapping[str, float]],
    weights: Mapping[str, float],
) -> Rival:
    """Compare the choice with another candidate, and say whether what is known of quality can turn it.

    A score of quality is a usable rate as a share of the best one. With that scale held, the choice stands while the difference
    of the two rates is above ``-rest x best / weight``; the interval of the paired difference lies above it, or does not.
    """
    own, theirs = scores[leader], scores[rival]
    lead = (_sum(own, weights) - _sum(theirs, weights)) / sum(weights[name] for name in own)
    if _QUALITY not in own:
        return Rival(
            candidate=rival,
            lead=lead,
            needed=None,
            difference=None,
            standing="not known",
            reason="quality is not known: no item is usable",
        )
    difference = _difference(report, leader, rival)
    if not weights[_QUALITY]:
        reason = "quality has no weight"
        return Rival(
            candidate=rival, lead=lead, needed=None, difference=difference, standing="stands", reason=reason
        )
    rest = sum(weights[name] * (own[name] - theirs[name]) for name in own if name != _QUALITY)
    best = max(one.usable.value or 0.0 for one in report.candidates if one.facts.name in scores)
    needed = -rest * best / weights[_QUALITY]
    if difference is None or difference.low is None:
        reason = (difference.reason if difference else None) or "the run has no interval of their difference"
        return Rival(
            candidate=rival,
            lead=lead,
            needed=needed,
            difference=difference,
            standing="not known",
            reason=reason,
        )
    standing = "stands" if difference.low > needed else "open"
    return Rival(candidate=rival, lead=lead, needed=needed, difference=difference, standing=standing)


def _difference(report: Report, leader: str, rival: str) -> Measure | None:
    """Return the usable rate of the choice minus the rival's, on the same chunks; None where they were not compared."""
    for pair in report.differences:
        if (pair.a, pair.b) == (rival, leader):
            return pair.difference
        if (pair.a, pair.b) == (leader, rival):
            one = pair.difference
            ends = {"value": one.value, "low": one.high, "high": one.low}
            return one.model_copy(update={name: None if end is None else -end for name, end in ends.items()})
    return None


def _left_out(
    name: str, choices: Sequence[Choice], leader: str | None, sums: Mapping[str, float], weight: float
) -> LeftOut:
    known = {one.candidate: _score(one, name) for one in choices}
    worst = 0.0 if leader is None else known[leader] or 0.0
    could = tuple(
        rival
        for rival, score in known.items()
        if leader is not None
        and rival != leader
        and sums[rival] + weight * (1.0 if score is None else score) >= sums[leader] + weight * worst - _TIE
    )
    unknown = tuple(candidate for candidate, score in known.items() if score is None)
    return LeftOut(criterion=name, weight=weight, unknown=unknown, could_win=could)


def _score(choice: Choice, name: str) -> float | None:
    criterion: Criterion = next(one for one in choice.criteria if one.name == name)
    return criterion.score
