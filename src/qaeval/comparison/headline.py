"""The headline: which candidate, by how much, how sure, and what the judge is worth; in careful words."""

from collections.abc import Mapping, Sequence
from typing import Final

from qaeval.agreement.model import RaterAgreement
from qaeval.analysis.model import CandidateSummary, JudgeSummary, Sentence
from qaeval.comparison.model import Difference
from qaeval.report.facts import ModelFacts, RubricFacts
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
        *_same_model(judge.facts, candidates),
        *_contradictions(judge.facts.name, candidates, rubric),
        *(_failed(one) for one in candidates if one.failed.n > _MANY_UNGRADED * one.n_expected),
        *(_ungraded(one, rubric) for one in candidates if _share(one) > _MANY_UNGRADED),
    ]
    trusted = [one for one in agreement if one.standing == "beats both"]
    notes = [*(_trust(judge.facts.name, one) for one in trusted), *_embedded(candidates)]
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
    leader, names = order[0].facts.name, [one.facts.name for one in order]
    if len(order) == 1:
        return f"One candidate: there is nothing to compare {leader} with."
    others: dict[str, list[str]] = {"won": [], "tied": [], "open": [], "few": []}
    outcomes = {
        pair.b if pair.a == leader else pair.a: "won"
        if _wins(leader, pair)
        else _STANDING.get(pair.outcome, "open")
        for pair in differences
        if leader in {pair.a, pair.b}
    }
    for other in sorted(outcomes, key=names.index):
        others[outcomes[other]].append(other)
    won, tied = listed(others["won"]), listed([leader, *others["tied"]], "or")
    if doubt := _undecided(order, others):
        return doubt
    if order[0].facts.is_embedded and all(one.facts.is_embedded for one in order):
        return f"Nothing to host here: of these floors {leader} is {f'better than {won}' if won else 'no better'}."
    sure = any(one.standing == "beats both" for one in agreement)
    if others["tied"]:
        better = (
            f", both better than {won}"
            if len(others["tied"]) == 1 and won
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
    return sorted(candidates, key=lambda one: -(one.usable.value or 0.0))


def _undecided(order: Sequence[CandidateSummary], others: Mapping[str, Sequence[str]]) -> str:
    """Say why no candidate can be taken; an empty string where one can."""
    leader, second = order[0], order[1]
    name, level = leader.facts.name, leader.usable.value == second.usable.value
    if level and not leader.usable.value:
        if not any(one.n_graded for one in order):
            return "No verdict: not one item was graded; the failures below say why."
        return "None to take: no candidate wrote an item that is usable as it is."
    if others["few"]:
        return f"Too few chunks to take one: {name} had the most usable items, which proves nothing."
    if others["open"] and level:
        return f"No winner yet: {name} and {second.facts.name} are level, and more chunks are needed to rule a difference out."
    if others["open"]:
        return f"No winner yet: {name} leads, but more chunks are needed to tell it from {listed(others['open'], 'and')}."
    return ""


def _wins(leader: str, pair: Difference) -> bool:
    return pair.outcome == ("a is better" if pair.a == leader else "b is better")


def _rates(order: Sequence[CandidateSummary], rubric: RubricFacts) -> str:
    rates = "; ".join(f"{one.facts.name} {rate(one.usable)}" for one in order)
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
    name, said = judge.facts.name, []
    if judge.facts.is_embedded:
        what = f" ({judge.facts.description})" if judge.facts.description else ""
        said.append(
            f"The judge {name} is not a language model{what}: its letters are a rough check of wording."
        )
    joined = [one for one in agreement if one.coefficients is not None]
    if not joined:
        said.append(
            f"The judge {name} was not checked against labels: how far its letters can be trusted is not known."
        )
    shown = [one for one in joined if one.standing != "too few chunks"]
    # a file of few labels, a second reading say, is a doubt only where no other file shows more
    said += [_doubt(name, one) for one in shown or joined if one.standing != "beats both"]
    if joined and all(one.rater_kind == "model" for one in joined):
        said.append("The judge was checked against a hosted model's labels only, not against people's.")
    return said


def _doubt(judge: str, one: RaterAgreement) -> str:
    why = {
        "too few chunks": "the labels come from too few chunks for an interval",
        "chance": "it is not shown to agree more than chance would",
        "majority": f"it is not shown to agree more often than always answering {one.majority_letter} would",
    }
    return f"The judge {judge} is not to be relied on by {one.rater}'s labels: {why.get(one.standing, '')}. {one.sentences[0]}"


def _trust(judge: str, one: RaterAgreement) -> str:
    return (
        f"The judge {judge} agrees with {one.rater} better than chance and better than always answering "
        f"{one.majority_letter}, but not perfectly. {one.sentences[0]}"
    )


def _same_model(judge: ModelFacts, candidates: Sequence[CandidateSummary]) -> list[str]:
    return [
        f"{one.facts.name} was graded by the same model that wrote it ({judge.hf_id}): judges tend to favour themselves."
        for one in candidates
        if judge.hf_id and one.facts.hf_id == judge.hf_id
    ]


def _share(one: CandidateSummary) -> float:
    return one.ungraded.n / one.n_expected


def _contradictions(judge: str, candidates: Sequence[CandidateSummary], rubric: RubricFacts) -> list[str]:
    flagged = [
        f"{plural(one.n_best_flagged, 'item')} of {one.facts.name}"
        for one in candidates
        if one.n_best_flagged
    ]
    if not flagged:
        return []
    text = (
        f"{judge} gave {rubric.best} to {listed(flagged)} and raised a flag on them all the same "
        f"({' or '.join(rubric.flag_names)}): its letters contradict its flags."
    )
    return [text]


def _failed(one: CandidateSummary) -> str:
    kinds = ", ".join(f"{reason} {n:,}" for reason, n in one.failed_by_reason.items())
    return (
        f"{one.facts.name}: {one.failed.n:,} of {plural(one.n_expected, 'item')} failed ({kinds}) and count as not usable; mend "
        f"that before you compare quality."
    )


def _ungraded(one: CandidateSummary, rubric: RubricFacts) -> str:
    return (
        f"{one.facts.name}: {plural(one.ungraded.n, 'item')} of {one.n_expected:,} got no letter; with {rubric.best} for all "
        f"of them the usable rate would be {percent(one.usable_if_ungraded_were)} instead of {percent(one.usable.value)}."
    )


def _embedded(candidates: Sequence[CandidateSummary]) -> list[str]:
    names = [one.facts.name for one in candidates if one.facts.is_embedded]
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
