"""English contrasts, inside a sentence or between two, to questions of comparison."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from qaeval.text.units import content_words
from qaeval_floor.english import Clause, capitalise, decapitalise, parse, short_enough
from qaeval_floor.lexicon import BE, CLAUSE_WORDS, ENGLISH_STOP, PREPOSITIONS, PRONOUNS
from qaeval_floor.questions import Context, Question, finish, is_presentable

_SPLIT = re.compile(
    r"(?:,|;| –| —)? (?:whereas|while)(?: that of)? |[,;] but |; (?:however|in contrast|by contrast), "
)
_UNLIKE = re.compile(r"^(?:Unlike|In contrast to|Compared (?:with|to)|As opposed to) ([^,]{2,60}), (.+)")
_THAN = re.compile(
    r"\b(?:\w+er|more|less|fewer|better|worse|further)\b[^,;.]{0,50}? than ((?:(?:a|an|the|its|any) )?[^,;.]+)"
)
_AMOUNT = re.compile(
    r"\b(?:more|less|fewer|later|earlier|longer|greater|other|rather|higher|lower|larger) than (?:\d|one\b|two\b|three\b|four\b|five\b|six\b|seven\b|eight\b|nine\b|ten\b|twelve\b|half|[€$£]|an hour|a (?:second|minute|day|week))"
)
_INSTEAD = re.compile(r",? (instead of|rather than) ([^,;.]+)")
_BETWEEN = re.compile(
    r"\bdifferences? between ([^,;.]{2,40}) and ((?:(?:a|an|the) )?[^,;.\s]+(?: [^,;.\s]+)?)"
)
_OPENS_CONTRAST = re.compile(
    r"^(?:By contrast|In contrast|However|On the other hand|Conversely|But|Unlike that)\b,? "
)
_STOP_NP = (
    CLAUSE_WORDS
    | PREPOSITIONS
    | {"is", "are", "was", "were", "do", "does", "can", "must", "and", "or", "to", "has", "have"}
)
_COMMON_WORDS = 2
_CODE_NAME = re.compile(r"[A-Z][A-Za-z]{0,40}\d[\w.-]*")


def compare(sentence: str, context: Context) -> list[Question]:
    """Questions of comparison that one sentence answers.

    Args:
        sentence: A sentence of the chunk.
        context: Language and vocabulary of the chunk.

    Returns:
        The questions, the best first; empty where the sentence compares nothing that can be named.
    """
    if context.german:
        return []  # the German rules find their contrasts themselves
    return _presentable(_inside(sentence, context))


def compare_two(first: str, second: str, context: Context) -> list[Question]:
    """Questions of comparison that two adjacent sentences answer together.

    Args:
        first: A sentence of the chunk.
        second: The sentence after it.
        context: Language and vocabulary of the chunk.

    Returns:
        A question where both have plain, different subjects and either the second opens with a contrast or both
        say the same kind of thing (two or more content words in common beyond their subjects).
    """
    if context.german:
        return []
    left, right = parse(first, context.lower), parse(second, context.lower)
    if left is None or right is None:
        return []
    contrast = bool(_OPENS_CONTRAST.match(second))
    shared = set(content_words(left.rest)) & set(content_words(right.rest))
    alike = left.aux == right.aux and left.verb == right.verb and len(shared) >= _COMMON_WORDS
    siblings = _are_siblings(left.subject, right.subject)
    if not (contrast or alike or siblings):
        return []
    return _presentable(_differ(left, right.subject, 2.4 if siblings else 1.9 if contrast else 1.6))


def _are_siblings(left: str, right: str) -> bool:
    """Whether two subjects are kinds of one thing: ``personal tokens``, ``project tokens``; ``E4M3``, ``E5M2``."""
    if left != right and all(map(_CODE_NAME.fullmatch, (left, right))):
        return _shape(left) == _shape(right)
    first, second = (content_words(text) for text in (left, right))
    sized = min(len(first), len(second)) >= 1 and 2 <= max(len(first), len(second)) <= 4
    return (
        sized and first[-1] == second[-1] and min(len(first), len(second)) > 1 and not {*first} <= {*second}
    )


def _shape(name: str) -> str:
    return re.sub(r"[A-Z]+", "A", re.sub(r"\d+", "0", name))


def _presentable(questions: Iterator[Question]) -> list[Question]:
    finished = (Question(finish(draft.text), draft.focus, draft.quality) for draft in questions)
    presentable = (question for question in finished if is_presentable(question.text))
    return sorted(presentable, key=lambda question: -question.quality)


def _inside(sentence: str, context: Context) -> Iterator[Question]:
    between = _BETWEEN.search(sentence)
    if between:
        yield Question(
            f"what is the difference between {between.group(1)} and {_phrase(between.group(2))}",
            "comparison",
            2.8,
        )
    unlike = _UNLIKE.match(sentence)
    if unlike:
        main = parse(capitalise(unlike.group(2)), context.lower)
        if main is not None:
            yield from _differ(main, unlike.group(1), 3.0)
        return
    yield from _two_clauses(sentence, context)
    segments = sentence.split("; ")
    for left, right in pairwise(segments):
        with_name = replace(context, lower=context.lower | {right.split(" ")[0]})
        yield from compare_two(left, capitalise(right), with_name)
    yield from _unparsed_than(sentence, context)
    clause = parse(sentence, context.lower)
    if clause is None:
        return
    inner = re.search(r"\bdiffers? from ([^,;.]+)", sentence)
    if inner:
        yield from _differ(clause, _phrase(inner.group(1)), 2.9)
    yield from _than(clause, segments[0])
    yield from _instead(clause)


def _two_clauses(sentence: str, context: Context) -> Iterator[Question]:
    segments = re.split(r"; (?!however|in contrast|by contrast)", sentence)
    halves = next((parts for parts in map(_halves, segments) if len(parts) == 2), [])
    if not halves:
        return
    left = parse(capitalise(halves[0]), context.lower)
    right = parse(capitalise(halves[1]), context.lower | {halves[1].split(" ")[0]})
    if left is None or right is None:
        return
    strong = re.search(r"whereas|, while|in contrast", sentence, re.IGNORECASE) is not None
    kin = {left.aux, right.aux} <= BE or {left.aux, right.aux} <= {"does", "do"} or left.aux == right.aux
    if strong or kin:  # "while" may be a matter of time, "but" of consequence
        yield from _differ(left, right.subject, 2.9 if strong else 2.2)


def _halves(sentence: str) -> list[str]:
    opened = re.match(r"^(?:While|Whereas|Although) ([^,]+), (.+)$", sentence)
    return list(opened.groups()) if opened else _SPLIT.split(sentence, maxsplit=1)


def _differ(clause: Clause, partner: str, quality: float) -> Iterator[Question]:
    """How the subject of a clause differs from something else."""
    subject = clause.subject
    names = {subject.casefold(), partner.casefold()}
    if len(names) == 1 or names & (PRONOUNS | {"", "you", "we"}) or not short_enough(partner):
        return
    if set(content_words(subject)) == set(content_words(partner)):
        return
    tail = f" {clause.adjunct}" if clause.adjunct else ""
    yield Question(f"how {_do(clause)} {subject} differ from {partner}{tail}", "comparison", quality)


def _do(clause: Clause) -> str:
    if clause.aux in {"is", "was", "does", "has"}:
        return "does"
    if clause.aux in {"are", "were", "do", "have"}:
        return "do"
    head = clause.subject.split(" of ")[0].split()[-1]
    several = " and " in clause.subject or (head.endswith("s") and not head.endswith(("ss", "us", "is")))
    return "do" if several else "does"


def _than(clause: Clause, sentence: str) -> Iterator[Question]:
    match = _THAN.search(sentence)
    if match is None or _AMOUNT.search(sentence) or "rather than" in sentence or "other than" in sentence:
        return
    partner = _phrase(match.group(1))
    if (
        partner
        and partner.casefold() not in PRONOUNS
        and partner.split()[0] not in ENGLISH_STOP - {"a", "an", "the"}
    ):
        yield Question(f"how {_do(clause)} {clause.subject} compare with {partner}", "comparison", 2.6)


def _unparsed_than(sentence: str, context: Context) -> Iterator[Question]:
    """``X ferments faster than Y``: before a comparative the verb need not be known."""
    match = re.match(
        r"^((?:[\w-]+ ){1,4})[a-z]+[^su]s (?:\w{3,}er|more|less|fewer) [^,;.]*?than ([^,;.]+)", sentence
    )
    if match is None or _AMOUNT.search(sentence):
        return
    tokens = match.group(1).casefold().split()
    if not set(tokens) & (_STOP_NP | PRONOUNS) and tokens[-1] not in ENGLISH_STOP:
        partner = _phrase(match.group(2))
        yield Question(
            f"how does {decapitalise(match.group(1).strip(), context.lower)} compare with {partner}",
            "comparison",
            2.6,
        )


def _instead(clause: Clause) -> Iterator[Question]:
    match = _INSTEAD.search(" " + clause.rest)
    if (
        match is None
        or not clause.verb
        or "not" in clause.verb
        or clause.aux not in {"does", "do", "will", "should"}
    ):
        return
    partner = match.group(2)
    if partner.endswith((" one", " ones")):
        return
    gerund = partner.split()[0].endswith("ing")
    if gerund and short_enough(partner):
        yield Question(f"what {clause.aux} {clause.subject} do instead of {partner}", "comparison", 2.5)
    elif (
        short_enough(partner)
        and (clause.rest.split()[0] not in PREPOSITIONS)
        and len(clause.verb.split()) == 1
    ):
        yield Question(
            f"what {clause.aux} {clause.subject} {clause.verb} instead of {partner}", "comparison", 2.4
        )


def _phrase(text: str) -> str:
    """The noun phrase that a text opens with."""
    phrase: list[str] = []
    for token in text.split()[:6]:
        if token.casefold() in _STOP_NP and phrase:
            break
        phrase.append(token)
    return decapitalise(" ".join(phrase), frozenset())
