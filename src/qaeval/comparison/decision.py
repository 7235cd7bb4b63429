"""Choice of a candidate by the user's weights: analysis, data and view of ``qaeval decide``.

The weighted sum of a candidate is linear in every weight, so the weight at which another candidate comes first is the root of a
linear equation for each rival. The section of the report that weighs the candidates for hosting is here too.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from qaeval.comparison.headline import verdict_sentence
from qaeval.comparison.model import ALPHA, Difference, LabelledDifference, Verdict, outcome_of
from qaeval.comparison.report import Report
from qaeval.comparison.verdict import decide_verdict
from qaeval.cost.model import Choice, WeightedCriterion
from qaeval.errors import UsageError, closest
from qaeval.report import numbers
from qaeval.report.facts import Part
from qaeval.report.measure import Measure
from qaeval.report.tables import Section, Table

_QUALITY: Final = "quality"
_JUDGED: Final = (_QUALITY, "cost")
"""Criteria that depend on the judge's letters: cost is that of usable items."""
_TIE: Final = 1e-12
"""Sums closer than this are one."""

FORMAT: Final = 1
"""Version of the layout of `Decision`."""


class LeftOut(Part):
    """A criterion that is unknown for a candidate and therefore counts for none."""

    criterion: str
    weight: float
    unknown: tuple[str, ...]
    """Candidates for which it is unknown."""
    could_win: tuple[str, ...]
    """Candidates that could come first if it were known: with their best possible score, and the worst of the choice. In a tie, those
    that could come first alone; empty where the choice is refused."""


ChoiceStatus: TypeAlias = Literal["stands", "open", "not known"]
"""``open``: the interval of the difference in quality holds values at which the rival comes first."""


class Rival(Part):
    """The choice against one other candidate."""

    candidate: str
    lead: float
    """Weighted mean of the choice minus the rival's."""
    needed: float | None
    """The choice stands while its usable rate minus the rival's is above this share; None if quality does not count."""
    difference: Measure | None
    """Usable rate of the choice minus the rival's, by labels where they decide; None without a comparison."""
    standing: ChoiceStatus
    reason: str | None = None
    """Why it is not known whether the choice stands."""


class WeightRange(Part):
    """Range of the weight of one criterion, the others fixed, in which the same candidate comes first."""

    criterion: str
    weight: float
    is_given: bool
    """Whether the user gave it; else it is qaeval's proposal."""
    low: float | None
    """Below this weight `below` comes first; None where no smaller weight changes the choice."""
    below: str
    high: float | None
    """Above this weight `above` comes first; None where no larger weight changes the choice."""
    above: str


class Decision(Part):
    """Document of ``qaeval decide``."""

    format: int = FORMAT
    source: str
    """The run, or the runs."""
    choice: str | None
    """The candidate that comes first; None where several do, or where there is no choice."""
    tied: tuple[str, ...]
    """Candidates that come first together; empty where one does."""
    refused: tuple[str, ...] = ()
    """Criteria with a weight whose scores depend on a judge that labels or controls refute; not empty: there is no choice."""
    weights: Mapping[str, float]
    candidates: tuple[Choice, ...]
    """With the weights of the user, the highest mean first."""
    ranges: tuple[WeightRange, ...]
    """Of the criteria that count; empty without a choice."""
    rivals: tuple[Rival, ...]
    """Empty without a choice."""
    left_out: tuple[LeftOut, ...]
    verdict: Verdict
    """Of quality alone: the report's, for the margin of this decision."""
    quality: str
    """The verdict as a sentence."""


def decide(report: Report, user_weights: Mapping[str, float], *, margin: float | None = None) -> Decision:
    """Weigh the candidates of a report by the user's weights.

    Args:
        report: Of at least two candidates.
        user_weights: The user's weights by criterion, 0 or more; what is not there keeps the weight that qaeval proposes.
        margin: Smallest difference of usable rates that matters, in (0, 1); default: that of the report.

    Raises:
        UsageError: there is nothing to choose, a criterion is unknown, a weight is negative, or nothing has a weight.
    """
    if not report.timing.choice:
        raise UsageError(
            f"{report.run.id}: one candidate, so there is nothing to decide; compare two, or name two runs"
        )
    weights = _weights(report.timing.choice[0], user_weights)
    choices = sorted(
        (_weighed(choice, weights) for choice in report.timing.choice), key=lambda choice: -choice.mean
    )
    scores = {choice.candidate: _scores(choice) for choice in choices}
    sums = {name: _sum(candidate_scores, weights) for name, candidate_scores in scores.items()}
    best = max(sums.values())
    first = tuple(name for name, total in sums.items() if best - total <= _TIE)
    counting = [criterion.name for criterion in choices[0].criteria if criterion.counts]
    margin = report.margin if margin is None else margin
    verdict = decide_verdict(
        report.candidates,
        report.differences if margin == report.margin else _for_margin(report.differences, margin),
        report.agreement,
        report.controls,
        margin=margin,
    )
    refused = (
        () if verdict.trusts_judge else tuple(name for name in _JUDGED if name in counting and weights[name])
    )
    leader = first[0] if len(first) == 1 and not refused else None
    return Decision(
        source=report.run.id,
        choice=leader,
        tied=() if leader or refused else first,
        refused=refused,
        weights=weights,
        candidates=tuple(choices),
        ranges=tuple(
            weight_range(name, leader, scores, weights, is_given=name in user_weights) for name in counting
        )
        if leader
        else (),
        rivals=tuple(_rival(report, leader, name, scores, weights) for name in scores if name != leader)
        if leader
        else (),
        left_out=tuple(
            _left_out(name, choices, () if refused else first, sums, weights[name])
            for name in weights
            if name not in counting
        ),
        verdict=verdict,
        quality=verdict_sentence(verdict),
    )


def weight_range(
    criterion: str,
    leader: str,
    scores: Mapping[str, Mapping[str, float]],
    weights: Mapping[str, float],
    *,
    is_given: bool = False,
) -> WeightRange:
    """Return the weights of a criterion between which the leader stays first, the others fixed.

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
    leader_scores, weight = scores[leader], weights[criterion]
    for rival, rival_scores in scores.items():
        gap = leader_scores[criterion] - rival_scores[criterion]
        if rival == leader or not gap:
            continue
        rest = sum(
            weights[name] * (leader_scores[name] - rival_scores[name])
            for name in leader_scores
            if name != criterion
        )
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


def _weights(choice: Choice, user_weights: Mapping[str, float]) -> dict[str, float]:
    proposed = {criterion.name: criterion.weight for criterion in choice.criteria}
    for name, weight in user_weights.items():
        if name not in proposed:
            raise UsageError(
                f"--weight {name}: no criterion is called {name!r}.{closest(name, proposed)} Known: {', '.join(proposed)}"
            )
        if weight < 0:
            raise UsageError(f"--weight {name}: a weight is 0 or more, got {weight:g}")
    weights = {**proposed, **user_weights}
    if not sum(weights[criterion.name] for criterion in choice.criteria if criterion.counts):
        raise UsageError(
            "every criterion that is known for all candidates has the weight 0; give one with --weight"
        )
    return weights


def _weighed(choice: Choice, weights: Mapping[str, float]) -> Choice:
    criteria = tuple(
        criterion.model_copy(update={"weight": weights[criterion.name]}) for criterion in choice.criteria
    )
    total = sum(criterion.weight for criterion in criteria if criterion.counts)
    mean = (
        sum(criterion.weight * (criterion.score or 0.0) for criterion in criteria if criterion.counts) / total
    )
    return choice.model_copy(update={"criteria": criteria, "mean": mean})


def _scores(choice: Choice) -> dict[str, float]:
    return {
        criterion.name: criterion.score
        for criterion in choice.criteria
        if criterion.counts and criterion.score is not None
    }


def _sum(scores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(weights[name] * score for name, score in scores.items())


def _rival(
    report: Report,
    leader: str,
    rival: str,
    scores: Mapping[str, Mapping[str, float]],
    weights: Mapping[str, float],
) -> Rival:
    """Compare the choice with another candidate, and decide whether the uncertainty of quality can change it.

    A score of quality is a usable rate as a share of the best one. With that scale held, the choice stands while the difference
    of the two rates is above ``-rest x best / weight``; the interval of the paired difference lies above it, or does not.
    """
    leader_scores, rival_scores = scores[leader], scores[rival]
    lead = (_sum(leader_scores, weights) - _sum(rival_scores, weights)) / sum(
        weights[name] for name in leader_scores
    )
    if _QUALITY not in leader_scores:
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
    rest = sum(
        weights[name] * (leader_scores[name] - rival_scores[name])
        for name in leader_scores
        if name != _QUALITY
    )
    best = max(rate.value or 0.0 for name, rate in report.usable_rates().items() if name in scores)
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
    # an end of the interval at 0 does not belong to it where the test rejects 0
    is_first = difference.low > needed or (
        abs(needed) <= _TIE and difference.low >= 0 and _p_of(report, leader, rival) <= ALPHA
    )
    status: ChoiceStatus = "stands" if is_first else "open"
    return Rival(candidate=rival, lead=lead, needed=needed, difference=difference, standing=status)


def _difference(report: Report, leader: str, rival: str) -> Measure | None:
    """Return the usable rate of the choice minus the rival's, on the same chunks; None where they were not compared.

    By labels where those decide, else by the judge's letters. Where labels measure the rates and not the difference, the interval
    of the judge's difference says nothing about the choice, and is left out.
    """

    def of(pair: Difference) -> Measure:
        if pair.deciding or not report.has_labelled_rates:
            return pair.effective
        reason = "the scores of quality are by labels, and too few chunks are labelled for the difference"
        return pair.effective.model_copy(update={"low": None, "high": None, "reason": reason})

    for pair in report.differences:
        if (pair.a, pair.b) == (rival, leader):
            return of(pair)
        if (pair.a, pair.b) == (leader, rival):
            return of(pair).scaled(-1)
    return None


def _p_of(report: Report, leader: str, rival: str) -> float:
    """Return the p-value of the test that the two candidates do not differ, by labels where those decide."""
    pair = next(pair for pair in report.differences if {pair.a, pair.b} == {leader, rival})
    p = pair.deciding.p if pair.deciding else pair.p
    return 1.0 if p is None else p


def _for_margin(pairs: Sequence[Difference], margin: float) -> tuple[Difference, ...]:
    """Return the differences with the numbers of chunks that would decide for another margin than the report's, in (0, 1).

    What holds at every look was tested for the margin of the report alone, so for another one the interval decides.
    """
    from qaeval.comparison.differences import more_chunks  # noqa: PLC0415 - importing pandas takes a second

    def anew(estimate: Difference | LabelledDifference, *, at_every_look: bool) -> Mapping[str, object]:
        p_holm = 1.0 if estimate.p_holm is None else estimate.p_holm
        outcome = outcome_of(estimate.difference, p_holm, margin=margin)
        # the number supposes a fixed sample, and a run until decided would look again
        is_open = outcome == "not enough data" and not at_every_look
        n_more = more_chunks(estimate.difference, margin, len(pairs)) if is_open else None
        return {"n_more_chunks": n_more, "p_equivalent": None}

    changed = []
    for pair in pairs:
        update = anew(pair, at_every_look=pair.at_every_look)
        if (first := pair.deciding) is not None:
            decided = first.model_copy(update=anew(first, at_every_look=pair.at_every_look))
            update = {**update, "labelled": (decided, *pair.labelled[1:])}
        changed.append(pair.model_copy(update=update))
    return tuple(changed)


def _left_out(
    name: str, choices: Sequence[Choice], first: tuple[str, ...], sums: Mapping[str, float], weight: float
) -> LeftOut:
    """Say who could come first if a criterion were known.

    Args:
        name: The criterion.
        choices: Of all candidates.
        first: Who comes first without it; several in a tie, nobody where the choice is refused.
        sums: Weighted sums of the other criteria, by candidate.
        weight: 0 or more.
    """
    scores = {choice.candidate: _score(choice, name) for choice in choices}
    # a rival that draws level with the choice could come first; in a tie that changes nothing
    ahead = -_TIE if len(first) == 1 else _TIE
    could = tuple(
        rival
        for rival, score in scores.items()
        if first
        and first != (rival,)
        and all(
            sums[rival] + weight * (1.0 if score is None else score)
            >= sums[other] + weight * (scores[other] or 0.0) + ahead
            for other in first
            if other != rival
        )
    )
    unknown = tuple(candidate for candidate, score in scores.items() if score is None)
    return LeftOut(criterion=name, weight=weight, unknown=unknown, could_win=could)


def _score(choice: Choice, name: str) -> float | None:
    criterion: WeightedCriterion = next(criterion for criterion in choice.criteria if criterion.name == name)
    return criterion.score


_RANGES: Final = (
    "Each row changes one weight and keeps the others; at the ends of its range two candidates are tied. The ends are exact: the "
    "lead over a rival is linear in every weight."
)
_ONCE: Final = (
    "Cost and speed were measured once and have no interval. The cost of usable items depends on their rate, which is held fixed here. "
    "Licence, maintenance and sovereignty come from the registry and the run."
)
_ALL: Final = 1.0
"""No two rates are further apart."""


def write_decision(decision: Decision) -> tuple[Section, ...]:
    """Turn a decision into one section."""
    return (
        Section(
            anchor="decision",
            title=_title(decision),
            paragraphs=(
                *(_rival_sentence(rival, decision) for rival in decision.rivals),
                *_closest(decision),
                *(_left_out_sentence(criterion, decision) for criterion in decision.left_out),
                f"By quality alone: {decision.quality}",
                _ONCE,
            ),
            tables=(_score_table(decision), *_ranges(decision)),
        ),
    )


def _title(decision: Decision) -> str:
    if decision.refused:
        without = " ".join(f"--weight {name}=0" for name in decision.refused)
        depend = "depends" if len(decision.refused) == 1 else "depend"
        refuted = "labels refute" if decision.verdict.reason("judge_refuted") else "tells nothing apart"
        return (
            f"No choice: {numbers.listed(decision.refused)} {depend} on the letters of a judge that {refuted}. `{without}` chooses by the "
            f"other criteria."
        )
    if decision.choice:
        return f"{decision.choice} comes first."
    return f"No choice: {numbers.listed(decision.tied)} are tied with these weights. Change one of them, for example `--weight quality=5`."


def _rival_sentence(rival: Rival, decision: Decision) -> str:
    lead = f"It leads {rival.candidate} by {_lead(rival.candidate, decision)}"
    if rival.needed is None:
        return f"{lead}; {rival.reason}."
    if rival.needed <= -_ALL:
        return f"{lead}, whatever the quality of both."
    apart = numbers.size(rival.needed)
    condition = f"{lead}, and comes first as long as its usable rate is " + (
        f"more than {apart} above {rival.candidate}'s"
        if rival.needed > 0
        else f"less than {apart} below {rival.candidate}'s"
        if rival.needed < 0
        else f"above {rival.candidate}'s"
    )
    if rival.difference is None or rival.standing == "not known":
        return (
            f"{condition}. Whether this holds is unknown: {(rival.reason or '').replace('cluster', 'chunk')}."
        )
    sentence = f"{condition}. The difference is {numbers.difference(rival.difference)}"
    if rival.standing == "stands":
        return f"{sentence}: the uncertainty of quality does not change the choice."
    return f"{sentence}: by the measured rates {decision.choice} comes first, but {rival.candidate} may; more chunks would decide (`qaeval plan`)."


def _lead(rival: str, decision: Decision) -> str:
    """Print by how much the choice leads a rival: the difference of the means as the table prints them."""
    means = {choice.candidate: round(choice.mean, 2) for choice in decision.candidates}
    lead = means[decision.choice or ""] - means[rival]
    return numbers.decimal(lead) if lead else "less than 0.01"


def _closest(decision: Decision) -> tuple[str, ...]:
    """Name the weight whose smallest relative change turns the choice."""
    turns = [
        (abs(end - bounds.weight) / bounds.weight, end, to, bounds)
        for bounds in decision.ranges
        for end, to in _ends(bounds)
    ]
    unweighted = [bounds for bounds in decision.ranges if not bounds.weight and bounds.high is not None]
    if not turns and unweighted:
        first = min(unweighted, key=lambda bounds: bounds.high or 0.0)
        return (
            (
                f"No change of a weight above 0 changes the choice; with a weight of {first.criterion} above "
                f"{_weight(first.high or 0.0)} in place of 0, {first.above} comes first."
            ),
        )
    if not turns:
        return (
            (f"No single weight changes the choice: {decision.choice} stays first.",)
            if decision.choice
            else ()
        )
    share, end, to, bounds = min(turns, key=lambda turn: turn[0])
    side, sign = ("below", numbers.MINUS) if end < bounds.weight else ("above", "+")
    how_far = f"{sign}{numbers.size(share, ' %')}" if share <= 1 else f"{_weight(end / bounds.weight)} times"
    text = (
        f"The choice is most sensitive to the weight of {bounds.criterion}: {side} {_weight(end)} instead of {_weight(bounds.weight)} "
        f"({how_far}) {to} comes first."
    )
    return (text,)


def _ends(bounds: WeightRange) -> list[tuple[float, str]]:
    ends = ((bounds.low, bounds.below), (bounds.high, bounds.above))
    return [(end, to) for end, to in ends if end is not None and bounds.weight]


def _left_out_sentence(criterion: LeftOut, decision: Decision) -> str:
    text = f"{criterion.criterion} (weight {_weight(criterion.weight)}) is unknown for {numbers.listed(criterion.unknown)} and counts for no candidate"
    if decision.refused:
        return f"{text}."
    if not criterion.could_win:
        return f"{text}; by itself it could not {'break the tie' if decision.tied else 'change the choice'}."
    tie = "it could break the tie: " if decision.tied else ""
    return f"{text}; if it were known, {tie}{numbers.listed(criterion.could_win, 'or')} could come first."


def _score_table(decision: Decision) -> Table:
    criteria = decision.candidates[0].criteria
    rows = [
        (
            criterion.name,
            _weight(criterion.weight) if criterion.counts else "left out",
            *(
                "not known"
                if choice.criteria[index].score is None
                else numbers.decimal(choice.criteria[index].score)
                for choice in decision.candidates
            ),
        )
        for index, criterion in enumerate(criteria)
    ]
    rows.append(("weighted mean", "", *(numbers.decimal(choice.mean) for choice in decision.candidates)))
    header = ("Criterion", "Weight", *(choice.candidate for choice in decision.candidates))
    return Table(caption="Scores from 0 to 1", header=header, rows=tuple(rows))


def _ranges(decision: Decision) -> tuple[Table, ...]:
    if not decision.ranges:
        return ()
    rows = tuple(
        (
            bounds.criterion,
            _weight(bounds.weight),
            "yours" if bounds.is_given else "proposed",
            "0" if bounds.low is None else _weight(bounds.low),
            bounds.below or "–",
            "any" if bounds.high is None else _weight(bounds.high),
            bounds.above or "–",
        )
        for bounds in decision.ranges
    )
    header = (
        "Criterion",
        "Weight",
        "Whose",
        "First from",
        "below: first is",
        "First up to",
        "above: first is",
    )
    caption = f"Range of each weight in which {decision.choice} comes first"
    return (Table(caption=caption, header=header, rows=rows, notes=(_RANGES,), words=frozenset({2, 4, 6})),)


def _weight(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


_HOW: Final = (
    "Scores from 0 to 1: quality, cost and speed as shares of the best candidate's (usable items by labels, where every candidate has "
    "labels in 10 chunks or more; else by the judge), reliability as the share of items that came and "
    "got a letter, licence 1 for open source and 0 for restricted, maintenance 1 at the model's release and 0 three years after it, "
    "sovereignty 1 where nothing left. The weights are a proposal: a "
    "difference of the means shows nothing beyond the differences above."
)


def _distrust(verdict: Verdict) -> tuple[str, ...]:
    """Say why the means choose no candidate; empty where the judge's letters may decide."""
    if verdict.trusts_judge:
        return ()
    why = "Labels refute the judge" if verdict.reason("judge_refuted") else "The judge tells nothing apart"
    return (
        f"{why}, and the scores of quality and cost depend on its letters: these means choose no candidate.",
    )


def hosting(report: Report) -> Section:
    """Scores by criterion with their weights, and the weighted means."""
    choices = report.timing.choice
    if not choices:
        return Section(
            anchor="hosting",
            title="Choosing one to host",
            paragraphs=("The run has one candidate.",),
        )
    names = [choice.candidate for choice in choices]
    weights = {criterion.name: criterion.weight for criterion in choices[0].criteria}
    rows = [
        (
            criterion,
            numbers.decimal(weight, 0),
            *(numbers.decimal(_score_in_report(report, name, criterion)) for name in names),
        )
        for criterion, weight in weights.items()
    ]
    rows.append(("weighted mean", "", *(numbers.decimal(choice.mean) for choice in choices)))
    facts = {candidate.facts.name: candidate.facts for candidate in report.candidates}
    licences = [
        f"{name}: {facts[name].licence or 'licence not known'} ({facts[name].openness or 'openness not known'})."
        for name in names
    ]
    return Section(
        anchor="hosting",
        title="Choosing one to host",
        paragraphs=(
            *_distrust(report.verdict),
            _HOW,
            *_left_out_of_choice(choices),
            " ".join(licences),
            "`qaeval decide RUN` computes how far each weight can change before another candidate comes first.",
        ),
        tables=(
            Table(
                caption="Weighed for hosting",
                header=("Criterion", "Weight", *names),
                rows=tuple(rows),
            ),
        ),
    )


def _left_out_of_choice(choices: Sequence[Choice]) -> tuple[str, ...]:
    names = [criterion.name for criterion in choices[0].criteria if not criterion.counts]
    if not names:
        return ()
    return (f"Not known for every candidate and left out of the means: {numbers.listed(names)}.",)


def _score_in_report(report: Report, candidate: str, criterion: str) -> float | None:
    (choice,) = (choice for choice in report.timing.choice if choice.candidate == candidate)
    return next(entry.score for entry in choice.criteria if entry.name == criterion)
