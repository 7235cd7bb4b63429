"""Headline of a report: the sentence of the verdict, findings, cautions and notes."""

from collections.abc import Sequence
from typing import Final

from qaeval.agreement.messages import counts_against, shortfall
from qaeval.agreement.model import JudgeDiscrimination, RaterAgreement
from qaeval.analysis.model import CandidateSummary, JudgeSummary, Sentence
from qaeval.comparison.model import Difference, LabelledRate, Reason, SampleWeights, Stopping, Verdict
from qaeval.comparison.report import CheckGroup
from qaeval.comparison.verdict import SHOWN_FROM, ordered
from qaeval.records import failure_meaning
from qaeval.report.facts import SAME_FAMILY, ModelFacts, RubricFacts
from qaeval.report.numbers import in_words, listed, percent, plural, rate, two_digits_up
from qaeval.stats.estimate import MIN_CLUSTERS

_S: Final = "'s"

_MAX_NAMED: Final = 3
"""Equal candidates that the sentence of the verdict names."""
_MAX_MORE: Final = 10_000
"""A larger number of chunks is no advice: nobody grades so many for one comparison."""
_MANY_UNGRADED: Final = 0.02
"""With a larger share of items without a letter the rates hang on what those letters would have been."""


def write_headline(
    verdict: Verdict,
    candidates: Sequence[CandidateSummary],
    differences: Sequence[Difference],
    judge: JudgeSummary,
    agreement: Sequence[RaterAgreement],
    controls: JudgeDiscrimination,
    checks: Sequence[CheckGroup],
    labelled_rates: Sequence[LabelledRate],
    *,
    rubric: RubricFacts,
    n_chunks: int,
    weights: SampleWeights | None = None,
    stopping: Stopping | None = None,
) -> tuple[Sentence, ...]:
    """Write the headline: the verdict, the findings that it rests on, then cautions and notes."""
    order = ordered(candidates, differences)
    tells_nothing = controls.outcome == "tells nothing apart"
    basis = verdict_basis(verdict)
    findings = [
        *((controls.sentence,) if tells_nothing else _pairs(verdict, differences)),
        *((basis,) if basis else ()),
        *_labelled_rates(order, labelled_rates),
        _rates(order, rubric),
        *_frequent(checks),
        *(() if stopping is None else (stopping_sentence(stopping), _AT_EVERY_LOOK)),
    ]
    cautions = [
        *((weights.sentence,) if weights else ()),
        *_few(n_chunks),
        *_standing(judge, agreement),
        *((controls.sentence,) if controls.n_pending and not tells_nothing else ()),
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
    return (
        Sentence(kind="verdict", text=verdict_sentence(verdict)),
        *(Sentence(kind="finding", text=text) for text in findings),
        *(Sentence(kind="caution", text=text) for text in cautions),
        *(Sentence(kind="note", text=text) for text in notes),
    )


_AT_EVERY_LOOK: Final = "Intervals and tests of the differences hold at every look; all other intervals are for a number of chunks fixed beforehand."


def stopping_sentence(stopping: Stopping) -> str:
    """Say when a run until decided ended, and what that saved."""
    looks = plural(len(stopping.looks), "look")
    if stopping.n_chunks == stopping.n_chunks_planned:
        ending = (
            "the first place was decided at the last"
            if stopping.is_decided
            else "the first place stayed undecided"
        )
        return f"All {plural(stopping.n_chunks, 'chunk')} were asked for in {looks}: {ending}."
    if not stopping.is_decided:
        return (
            f"{stopping.n_chunks:,} of {plural(stopping.n_chunks_planned, 'chunk')} were asked for so far, in random order ({looks}); the "
            f"first place is undecided. The command of the run with --resume continues."
        )
    n_left = stopping.n_chunks_planned - stopping.n_chunks
    share = percent(n_left / stopping.n_chunks_planned)
    return (
        f"Stopped early after {stopping.n_chunks:,} of {plural(stopping.n_chunks_planned, 'chunk')} in random order ({looks}): the letters "
        f"settle the first place. That saved {share} of the chunks and {stopping.n_items_planned - stopping.n_items:,} judged items."
    )


def verdict_sentence(verdict: Verdict) -> str:
    """Say in at most twelve words, names aside, what to do, or why there is no verdict."""
    if verdict.kind == "none":
        return _no_verdict(verdict)
    if verdict.kind == "undecided":
        return _undecided(verdict)
    is_shown = verdict.condition == "shown"
    if verdict.kind == "equal":
        return _equal(verdict.candidates, is_shown=is_shown)
    better = verdict.reason("better")
    beaten = better.candidates if better else ()
    if is_shown:
        return f"Use {verdict.candidate}: it writes more usable items than {_others(beaten, at_most=2)}."
    return f"Use {verdict.candidate} if the judge is right: more usable than {_others(beaten, at_most=1)}."


def _equal(names: Sequence[str], *, is_shown: bool) -> str:
    which = listed(names, "or") if len(names) <= _MAX_NAMED else f"the cheapest of {len(names)}"
    if not is_shown:
        return f"Use {which} if the judge is right: equally usable."
    costs = ", whichever costs less" if len(names) <= _MAX_NAMED else ""
    return f"Use {which}{costs}: no difference that matters."


def _others(names: Sequence[str], *, at_most: int) -> str:
    return listed(names) if len(names) <= at_most else "the others"


def verdict_basis(verdict: Verdict) -> str:
    """Say which labels the verdict rests on and what contradicts it; empty where there is nothing to say."""
    labels, few = verdict.reason("labelled"), verdict.reason("few_labels")
    texts = []
    if few:
        condition = (
            f"; from {SHOWN_FROM} labelled chunks on, the verdict has no condition"
            if verdict.condition
            else ""
        )
        texts.append(f"The verdict rests on {_labels(few)}{condition}.")
    elif labels:
        texts.append(f"The verdict rests on {_labels(labels)}.")
    if others := verdict.reason("raters_differ"):
        texts.append(f"But {listed([f'{rater}{_S}' for rater in others.raters])} labels show something else.")
    if verdict.reason("judge_differs"):
        texts.append("The judge's letters alone would say otherwise.")
    ungraded = verdict.reason("nothing_graded")
    if ungraded and ungraded.failure:
        meaning = failure_meaning(ungraded.failure)
        texts.append(
            f"The most frequent failure is {in_words(ungraded.failure)}{f': {meaning}' if meaning else ''}."
        )
    return " ".join(texts)


def _labels(reason: Reason) -> str:
    """Name the labels that decide: ``anna's labels of 40 chunks``."""
    at_least = "at least " if len(reason.candidates) > 1 else ""
    return f"{listed([f'{rater}{_S}' for rater in reason.raters])} labels of {at_least}{plural(reason.n_chunks or 0, 'chunk')}"


def _undecided(verdict: Verdict) -> str:
    if verdict.reason("too_few_chunks"):
        return f"No winner yet: an interval needs at least {MIN_CLUSTERS} chunks."
    if ungraded := verdict.reason("ungraded"):
        return f"No winner yet: items without a letter could change the comparison with {listed(ungraded.candidates[:2])}."
    unclear = verdict.reason("not_enough_data")
    n_more = unclear.n_more_chunks if unclear else None
    labelled = {
        name
        for code in ("labelled", "few_labels")
        if (reason := verdict.reason(code))
        for name in reason.candidates
    }
    # of labels and of further chunks there is no common number
    by_labels = {name in labelled for name in unclear.candidates} if unclear else set()
    if n_more is not None and n_more <= _MAX_MORE and len(by_labels) == 1:
        of = "labels of " if by_labels == {True} else ""
        return (
            f"No winner yet: {of}about {plural(two_digits_up(n_more), 'more chunk', 'more chunks')} decide."
        )
    if level := verdict.reason("level"):
        return f"No winner yet: {listed([verdict.leader or '', *level.candidates[:1]])} are level."
    return f"No winner yet: {verdict.leader} leads, but not by enough."


def _no_verdict(verdict: Verdict) -> str:
    if refuted := verdict.reason("judge_refuted"):
        raters = listed([f"{rater}{_S}" for rater in refuted.raters[:2]])
        return f"No verdict: {raters} labels do not support the judge."
    ungraded = verdict.reason("nothing_graded")
    failure = f" ({in_words(ungraded.failure)})" if ungraded and ungraded.failure else ""
    texts = {
        "judge_tells_nothing_apart": "the judge cannot tell good items from bad.",
        "one_candidate": f"{verdict.leader} is the only candidate.",
        "nothing_graded": f"no item was graded{failure}.",
        "nothing_usable": "no candidate wrote a usable item.",
        "embedded_only": "no language model was measured.",
    }
    return f"No verdict: {next((texts[reason.code] for reason in verdict.reasons if reason.code in texts), 'see the report.')}"


def doubt_clause(doubts: Sequence[Reason], controls: JudgeDiscrimination | None = None) -> str:
    """Say why the judge's letters decide nothing, without a full stop.

    Args:
        doubts: Reasons of a verdict, `judge_refuted` or `judge_tells_nothing_apart` among them.
        controls: What planted controls and letters show; None: without the counts.
    """
    if refuted := next((reason for reason in doubts if reason.code == "judge_refuted"), None):
        if refuted.detail:
            return refuted.detail
        raters = listed([f"{rater}{_S}" for rater in refuted.raters])
        return f"by {raters} labels, the judge is not shown to agree more often than chance or a constant answer would"
    sentence = "The judge tells nothing apart" if controls is None else controls.sentence.rstrip(".")
    return f"{sentence[:1].lower()}{sentence[1:]}"


def _rates(order: Sequence[CandidateSummary], rubric: RubricFacts) -> str:
    rates = "; ".join(f"{candidate.facts.name} {rate(candidate.usable)}" for candidate in order)
    return f"Usable items by the judge's letters ({rubric.best}, of all that were asked for): {rates}."


def _labelled_rates(order: Sequence[CandidateSummary], rates: Sequence[LabelledRate]) -> list[str]:
    """Return the usable rates by labels; nothing where no candidate has labels of enough chunks."""
    deciding: dict[str, LabelledRate] = {}
    for usable in rates:
        if usable.name == "usable" and usable.is_enough:
            deciding.setdefault(usable.candidate, usable)
    if not deciding:
        return []
    texts = [
        f"{candidate.facts.name} {rate(labelled.rate)} ({labelled.rater}, {plural(labelled.n_items, 'item')})"
        for candidate in order
        if (labelled := deciding.get(candidate.facts.name))
    ]
    return [f"Usable items by labels, corrected for the items without one: {'; '.join(texts)}."]


def _pairs(verdict: Verdict, differences: Sequence[Difference]) -> list[str]:
    """Return the sentences about the leader and each other candidate."""
    return [pair.sentence for pair in differences if verdict.leader in {pair.a, pair.b}]


def _frequent(checks: Sequence[CheckGroup]) -> list[str]:
    """Name what a check found in half of a candidate's items or more."""
    return [
        f"The check {in_words(group.check.name)} found something in {rate.n_found:,} of {plural(rate.n_checked, 'item')} of {rate.candidate} "
        f"({percent(rate.share.value)}). {group.check.meaning}"
        for group in checks
        for rate in group.rates
        if rate.is_frequent
    ]


def _few(n_chunks: int) -> list[str]:
    if n_chunks >= MIN_CLUSTERS:
        return []
    return [
        f"Too few chunks for an interval ({n_chunks}, at least {MIN_CLUSTERS}): the rates are only indicative."
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
            f"The judge {name} was not checked against labels: how reliable its letters are is unknown."
        )
    shown = [rater for rater in joined if rater.standing != "too few chunks"]
    # a file of few labels, a second reading say, is a doubt only where no other file shows more
    cautions += [_doubt(name, rater) for rater in shown or joined if rater.standing != "beats both"]
    if joined and all(rater.rater_kind == "model" for rater in joined):
        cautions.append(
            "The judge was checked against a model's labels only: no person has labelled items of this run yet. `qaeval label` "
            "asks for them."
        )
    return cautions


def _doubt(judge: str, rater: RaterAgreement) -> str:
    text = (
        f"By {rater.rater}'s labels, the judge {judge} is not shown to be reliable: {shortfall(rater)}. "
        f"{counts_against(rater)}"
    )
    return text.rstrip()


def _trust(judge: str, rater: RaterAgreement) -> str:
    is_perfect = rater.coefficients is not None and rater.coefficients.observed.value == 1
    return (
        f"The judge {judge} agrees with {rater.rater} better than chance and better than always answering "
        f"{rater.majority_letter}{'' if is_perfect else ', but not perfectly'}. {rater.sentences[0]}"
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
        f"({' or '.join(map(in_words, rubric.flag_names))}): its letters and its flags contradict each other."
    )
    return [text]


def _failed(candidate: CandidateSummary) -> str:
    kinds = ", ".join(f"{in_words(reason)} {n:,}" for reason, n in candidate.failed_by_reason.items())
    return (
        f"{candidate.facts.name}: {candidate.failed.n:,} of {plural(candidate.n_expected, 'item')} failed ({kinds}) and count as not usable; fix "
        f"the failures before you compare quality."
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
