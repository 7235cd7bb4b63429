"""The headline: which candidate, by how much, how sure, and what the judge is worth; in careful words."""

from collections.abc import Mapping, Sequence
from typing import Final

from qaeval.agreement.model import RaterAgreement
from qaeval.analysis.model import CandidateSummary, JudgeSummary, Sentence
from qaeval.comparison.model import Difference
from qaeval.report.facts import SAME_FAMILY, ModelFacts, RubricFacts
from qaeval.report.numbers import listed, percent, plural, rate
from qaeval.stats.estimate import MIN_CLUSTERS

_STANDING: Final = {
    "no difference shown": "tied",
    "not enough data": "open",
    "too few chunks": "few",
}
"""How a pair of the leader ended, where it did not win."""

_MANY_UNGRADED: Final = 0.02
"""With a larger share of items without a letter the rates hang on what those letters would have been."""


def write_headline(
    candidates: Sequence[CandidateSummary],
    differences: Sequence[Difference],
    judge: JudgeSummary,
    agreement: Sequence[RaterAgreement],
    *,
    rubric: RubricFacts,
    n_chunks: int,
) -> tuple[Sentence, ...]:
    """Write the headline: the verdict, what it rests on, then what to beware of."""
    order = _ordered(candidates)
    findings = [*_pairs(order[0].facts.name, differences), _rates(order, rubric)]
    cautions = [
        *_few(n_chunks),
        *_standing(judge, agreement),
        *_same_family(judge.facts, candidates),
        *_contradictions(judge.facts.name, candidates, rubric),
        *(
            _failed(candidate)
            for candidate in candidates
            if candidate.failed.n > _MANY_UNGRADED * candidate.n_expected
        ),
        *(_ungraded(candidate, rubric) for candidate in candidates if _share(candidate) > _MANY_UNGRADED),
    ]
    trusted = [rater for rater in agreement if rater.standing == "beats both"]
    notes = [
        *(_trust(judge.facts.name, rater) for rater in trusted),
        *_embedded(candidates),
        *_unknown_family(judge.facts, candidates),
    ]
    verdict = write_verdict(candidates, differences, agreement)
    return (
        Sentence(kind="verdict", text=verdict),
        *(Sentence(kind="finding", text=text) for text in findings),
        *(Sentence(kind="caution", text=text) for text in cautions),
        *(Sentence(kind="note", text=text) for text in notes),
    )


def write_verdict(
    candidates: Sequence[CandidateSummary],
    differences: Sequence[Difference],
    agreement: Sequence[RaterAgreement],
) -> str:
    """Say in one sentence which candidate to take, or why none can be named yet, and what that rests on."""
    order = _ordered(candidates)
    leader, names = order[0].facts.name, [candidate.facts.name for candidate in order]
    if len(order) == 1:
        return f"One candidate: there is nothing to compare {leader} with."
    rivals: dict[str, list[str]] = {"won": [], "tied": [], "open": [], "few": []}
    outcomes = {
        pair.b if pair.a == leader else pair.a: "won"
        if _wins(leader, pair)
        else _STANDING.get(pair.outcome, "open")
        for pair in differences
        if leader in {pair.a, pair.b}
    }
    for rival in sorted(outcomes, key=names.index):
        rivals[outcomes[rival]].append(rival)
    won, tied = listed(rivals["won"]), listed([leader, *rivals["tied"]], "or")
    if doubt := _undecided(order, rivals):
        return doubt
    if order[0].facts.is_embedded and all(candidate.facts.is_embedded for candidate in order):
        return f"Nothing to host here: of these floors {leader} is {f'better than {won}' if won else 'no better'}."
    sure = any(rater.standing == "beats both" for rater in agreement)
    if rivals["tied"]:
        better = (
            f", both better than {won}"
            if len(rivals["tied"]) == 1 and won
            else f"; better than {won}"
            if won
            else ""
        )
        verdict = f"Take {tied} by cost or licence: no difference in quality that matters{better}"
    else:
        verdict = f"Take {leader}: it is better than {won}"
    return f"{verdict}." if sure else f"{verdict}. But this judge is not shown to be reliable."


def _ordered(candidates: Sequence[CandidateSummary]) -> list[CandidateSummary]:
    """Sort candidates by usable rate, the highest first."""
    return sorted(candidates, key=lambda candidate: -(candidate.usable.value or 0.0))


def _undecided(order: Sequence[CandidateSummary], rivals: Mapping[str, Sequence[str]]) -> str:
    """Say why no candidate can be taken; an empty string where one can."""
    leader, second = order[0], order[1]
    name, level = leader.facts.name, leader.usable.value == second.usable.value
    if level and not leader.usable.value:
        if not any(candidate.n_graded for candidate in order):
            return "No verdict: not one item was graded; the failures below say why."
        return "None to take: no candidate wrote an item that is usable as it is."
    if rivals["few"]:
        return f"Too few chunks to take one: {name} had the most usable items, which proves nothing."
    if rivals["open"] and level:
        return f"No winner yet: {name} and {second.facts.name} are level, and more chunks are needed to rule a difference out."
    if rivals["open"]:
        return f"No winner yet: {name} leads, but more chunks are needed to tell it from {listed(rivals['open'], 'and')}."
    return ""


def _wins(leader: str, pair: Difference) -> bool:
    return pair.outcome == ("a is better" if pair.a == leader else "b is better")


def _rates(order: Sequence[CandidateSummary], rubric: RubricFacts) -> str:
    rates = "; ".join(f"{candidate.facts.name} {rate(candidate.usable)}" for candidate in order)
    return f"Usable items (graded {rubric.best}, of all that were asked for): {rates}."


def _pairs(leader: str, differences: Sequence[Difference]) -> list[str]:
    """Return what is known of the leader against each other candidate."""
    pairs = [pair for pair in differences if leader in {pair.a, pair.b}]
    won = [pair for pair in pairs if _wins(leader, pair)]
    sentences = [pair.sentence for pair in pairs]
    if len(won) == len(pairs) > 1:
        return [f"{leader} is better than every other candidate.", *sentences]
    return sentences


def _few(n_chunks: int) -> list[str]:
    if n_chunks >= MIN_CLUSTERS:
        return []
    return [
        f"Too few chunks for an interval ({n_chunks}, at least {MIN_CLUSTERS}): the rates are a look, not a measurement."
    ]


def _standing(judge: JudgeSummary, agreement: Sequence[RaterAgreement]) -> list[str]:
    name, cautions = judge.facts.name, []
    if judge.facts.is_embedded:
        description = f" ({judge.facts.description})" if judge.facts.description else ""
        cautions.append(
            f"The judge {name} is not a language model{description}: its letters are a rough check of wording."
        )
    joined = [rater for rater in agreement if rater.coefficients is not None]
    if not joined:
        cautions.append(
            f"The judge {name} was not checked against labels: how far its letters can be trusted is not known."
        )
    shown = [rater for rater in joined if rater.standing != "too few chunks"]
    # a file of few labels, a second reading say, is a doubt only where no other file shows more
    cautions += [_doubt(name, rater) for rater in shown or joined if rater.standing != "beats both"]
    if joined and all(rater.rater_kind == "model" for rater in joined):
        cautions.append("The judge was checked against a hosted model's labels only, not against people's.")
    return cautions


def _doubt(judge: str, rater: RaterAgreement) -> str:
    reasons = {
        "too few chunks": "the labels come from too few chunks for an interval",
        "chance": "it is not shown to agree more than chance would",
        "majority": f"it is not shown to agree more often than always answering {rater.majority_letter} would",
    }
    return f"The judge {judge} is not to be relied on by {rater.rater}'s labels: {reasons.get(rater.standing, '')}. {rater.sentences[0]}"


def _trust(judge: str, rater: RaterAgreement) -> str:
    return (
        f"The judge {judge} agrees with {rater.rater} better than chance and better than always answering "
        f"{rater.majority_letter}, but not perfectly. {rater.sentences[0]}"
    )


def _same_family(judge: ModelFacts, candidates: Sequence[CandidateSummary]) -> list[str]:
    """Return who was graded by its own model or by a model of its family."""
    same_model = [facts.name for facts in _facts(candidates) if judge.hf_id and facts.hf_id == judge.hf_id]
    cautions = [
        f"{name} was graded by the same model that wrote it ({judge.hf_id}): judges tend to favour themselves."
        for name in same_model
    ]
    related = [
        facts.name
        for facts in _facts(candidates)
        if facts.name not in same_model and {*facts.family} & {*judge.family}
    ]
    if related:
        cautions.append(
            f"The judge {judge.name} is of the family of {listed(related)} ({listed(judge.family)}): judges tend to prefer "
            f"the words of their own family."
        )
    if SAME_FAMILY in judge.more:
        cautions = cautions or [f"The judge {judge.name} has the same server as a candidate."]
        cautions[-1] += " --allow-same-family allowed that."
    return cautions


def _unknown_family(judge: ModelFacts, candidates: Sequence[CandidateSummary]) -> list[str]:
    served = [facts for facts in (*_facts(candidates), judge) if facts.kind == "server"]
    unknown = [facts.name for facts in served if not facts.family]
    if not unknown or judge.is_embedded or all(facts.is_embedded for facts in _facts(candidates)):
        return []
    names = listed(list(dict.fromkeys(unknown)))
    return [f"The family of {names} is not known (`family:` in qaeval.yaml), so it may be the judge's own."]


def _facts(candidates: Sequence[CandidateSummary]) -> list[ModelFacts]:
    return [candidate.facts for candidate in candidates]


def _share(candidate: CandidateSummary) -> float:
    return candidate.ungraded.n / candidate.n_expected


def _contradictions(judge: str, candidates: Sequence[CandidateSummary], rubric: RubricFacts) -> list[str]:
    flagged = [
        f"{plural(candidate.n_best_flagged, 'item')} of {candidate.facts.name}"
        for candidate in candidates
        if candidate.n_best_flagged
    ]
    if not flagged:
        return []
    text = (
        f"{judge} gave {rubric.best} to {listed(flagged)} and raised a flag on them all the same "
        f"({' or '.join(rubric.flag_names)}): its letters contradict its flags."
    )
    return [text]


def _failed(candidate: CandidateSummary) -> str:
    kinds = ", ".join(f"{reason} {n:,}" for reason, n in candidate.failed_by_reason.items())
    return (
        f"{candidate.facts.name}: {candidate.failed.n:,} of {plural(candidate.n_expected, 'item')} failed ({kinds}) and count as not usable; mend "
        f"that before you compare quality."
    )


def _ungraded(candidate: CandidateSummary, rubric: RubricFacts) -> str:
    return (
        f"{candidate.facts.name}: {plural(candidate.ungraded.n, 'item')} of {candidate.n_expected:,} got no letter; with {rubric.best} for all "
        f"of them the usable rate would be {percent(candidate.usable_if_ungraded_were)} instead of {percent(candidate.usable.value)}."
    )


def _embedded(candidates: Sequence[CandidateSummary]) -> list[str]:
    names = [candidate.facts.name for candidate in candidates if candidate.facts.is_embedded]
    if not names:
        return []
    copies, floors = ("copies", "a floor") if len(names) == 1 else ("copy", "floors")
    are = "is" if len(names) == 1 else "are"
    text = (
        f"{listed(names)} {are} {floors}, not {'a language model' if len(names) == 1 else 'language models'}: without any model, "
        f"{'it' if len(names) == 1 else 'they'} {copies} sentences of the chunk. A model worth hosting must do better."
    )
    if len(names) == len(candidates):
        text += " This run shows how the comparison works, not which model to host."
    return [text]
