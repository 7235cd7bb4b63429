"""Questions that are always grammatical, for sentences and chunks that no rule fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from qaeval.text.units import content_words
from qaeval_floor.english import parse
from qaeval_floor.lexicon import ENGLISH_PHRASES, GERMAN_PHRASES, PRONOUNS
from qaeval_floor.proposals import QuestionDraft, Source
from qaeval_floor.questions import Context, PairType, finish, is_presentable, noun_phrase, topic

_MAX_NAME_WORDS, _MAX_NAME_CHARACTERS = 6, 80


def lead_questions(focus: PairType, source: Source, first: Source, context: Context) -> Iterator[str]:
    """The baseline's questions of one type, in the order of preference; the last ones are never used up.

    Args:
        focus: The type of the pair.
        source: The unit that answers.
        first: The first unit of the chunk, which a comparison goes back to.
        context: Language and vocabulary of the chunk.

    Yields:
        Questions.
    """
    phrases, about = _phrases(context), _about(source, context)
    opening = _about(first, context)
    if focus == "conceptual":
        yield finish(phrases["describe"].format(about))
    if focus == "comparison" and _thing(about) != _thing(opening):
        yield finish(phrases["relate"].format(about, opening))
    for key in ("say", "else", "describe"):
        yield finish(phrases[key].format(about))


def last_resort(
    focus: PairType, sources: Sequence[Source], context: Context, taken: Sequence[QuestionDraft]
) -> QuestionDraft:
    """A pair for a type that no rule could fill.

    Args:
        focus: The type of the pair.
        sources: The units of the chunk.
        context: Language and vocabulary of the chunk.
        taken: The pairs that are chosen already.

    Returns:
        For a comparison two things that one sentence relates, else the honest answer that nothing is compared; for
        the other types the best sentence that is still free.
    """
    phrases = _phrases(context)
    ranked = sorted(sources, key=lambda source: -_worth(source, context))[:50]
    if focus == "comparison":
        unused = [source for source in ranked if not any(source.unit.text in draft.answer for draft in taken)]
        related = next(filter(None, (_relation(source, context) for source in [*unused, *ranked])), None)
        if related is not None:
            return related
        about = _about(ranked[0], context)
        return QuestionDraft(
            finish(phrases["compare"].format(about)), phrases["nothing"].format(about), focus, 0.0
        )
    free = [source for source in ranked if not any(source.unit.text in draft.answer for draft in taken)]
    source = (free or ranked)[0]
    used = {draft.question for draft in taken}
    questions = [finish(question) for question in _plain(focus, source, context)]
    question = next(question for question in questions if question not in used)
    return QuestionDraft(question, source.answer, focus, 0.0)


def _relation(source: Source, context: Context) -> QuestionDraft | None:
    """How the subject of a sentence and the first thing after its verb are related."""
    clause = (
        None if context.german or source.unit.kind != "sentence" else parse(source.sentence, context.lower)
    )
    if clause is None or {*clause.subject.casefold().split()} & (PRONOUNS | {"and"}):
        return None
    partner = noun_phrase(clause.rest)
    if not partner or content_words(partner)[-1:] == content_words(clause.subject)[-1:]:
        return None
    question = finish(ENGLISH_PHRASES["related"].format(clause.subject, partner))
    return QuestionDraft(question, source.answer, "comparison", 0.0) if is_presentable(question) else None


def _thing(phrase: str) -> str:
    return phrase.casefold().removeprefix("the ").removeprefix("an ").removeprefix("a ")


def _worth(source: Source, context: Context) -> float:
    """Salience; a full sentence stands before a table row or a fragment."""
    prose = source.unit.kind == "sentence" and source.sentence.endswith((".", "!"))
    return (
        source.score + 0.3 * prose + (0.2 if prose and topic(source.sentence, context)[:1].isalpha() else 0.0)
    )


def _plain(focus: PairType, source: Source, context: Context) -> Iterator[str]:
    phrases, about = _phrases(context), _about(source, context)
    if source.unit.kind == "code":
        yield phrases["code"] if focus == "factual" else phrases["say"].format(about)
    order = ("mark", "holds", "say", "else") if focus == "conceptual" else ("holds", "mark", "say", "else")
    for key in order:
        yield phrases[key].format(about)


def _about(source: Source, context: Context) -> str:
    """The topic of a unit in words; its heading, then a general word, stand in for units without any."""
    mark = "„{}“" if context.german else "“{}”"
    if source.label:
        return mark.format(source.label)
    if source.unit.kind == "row" and _short(source.unit.cells[0][1]):
        return mark.format(_short(source.unit.cells[0][1]))
    phrase = topic(source.sentence, context)
    if phrase:
        return phrase
    heading = _short(source.unit.heading)
    return mark.format(heading) if any(map(str.isalnum, heading)) else _phrases(context)["text"]


def _short(name: str) -> str:
    """The first words of a name; empty where even the first is no word that a question could hold."""
    head = " ".join(name.split()[:_MAX_NAME_WORDS])
    return head if len(head) <= _MAX_NAME_CHARACTERS else ""


def _phrases(context: Context) -> Mapping[str, str]:
    return GERMAN_PHRASES if context.german else ENGLISH_PHRASES
