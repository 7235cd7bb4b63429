"""From a sentence to the questions that it answers; a rule that is not safe on a sentence makes none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from qaeval_floor import german, lexicon, statements
from qaeval_floor.english import capitalise, parse
from qaeval_floor.lexicon import PRONOUNS

PairType = Literal["factual", "conceptual", "comparison"]
_MIN_WORDS, _MAX_WORDS = 3, 26
_MAX_TOPIC = 60
_CONTRACTION = re.compile(
    r"\b(do|does|did|is|are|was|were|has|have|should|must|wo|ca|can|would|could)n[’']t\b"
)
_FULL = {"wo": "will", "ca": "can"}
_SECOND_SUBJECT = re.compile(r" and (?=(?:the|a|an|its|their) )")


@dataclass(frozen=True)
class Question:
    """A question that a sentence answers."""

    text: str
    focus: PairType
    quality: float
    """How well such questions read and how directly the sentence answers them, 0 to 3."""


@dataclass(frozen=True)
class Context:
    """What the rules know of the chunk that a sentence stands in."""

    german: bool
    lower: frozenset[str]
    """Words that appear in lower case somewhere in the chunk."""
    heading: str = ""


def ask(sentence: str, context: Context) -> list[Question]:
    """All questions that the rules can form on a sentence, the best first.

    Args:
        sentence: A sentence of the chunk.
        context: Language and vocabulary of the chunk.

    Returns:
        Questions, each grammatical as far as the rules can tell; empty where no rule is safe.
    """
    drafts = german.ask(sentence) if context.german else _english(sentence, context)
    questions = (Question(finish(text), focus, quality) for text, focus, quality in drafts)
    presentable = [question for question in questions if is_presentable(question.text)]
    return sorted(presentable, key=lambda question: -question.quality)


def finish(question: str) -> str:
    """Capitalise a question and end it with one question mark."""
    question = " ".join(question.split()).rstrip(" .,;:!?-–—")
    return capitalise(question) + "?"


def is_presentable(question: str) -> bool:
    """Whether brackets and quotes are closed and the length is that of a question."""
    closed = all(
        question.count(left) == question.count(right) for left, right in (("(", ")"), ("[", "]"), ("{", "}"))
    )
    quotes = question.count("„") + question.count("“") + question.count("”")
    even = not (question.count("`") % 2 or question.count('"') % 2 or quotes % 2)
    fitting = _MIN_WORDS <= len(question.split()) <= _MAX_WORDS
    clear = not re.search(r"[;:|]\s| (?:it|this|them|these|those)\?$", question)
    return closed and even and fitting and clear


def topic(sentence: str, context: Context) -> str:
    """A short phrase that says what a sentence is about.

    Args:
        sentence: A sentence of the chunk.
        context: Language and vocabulary of the chunk.

    Returns:
        Its subject, else a name or noun phrase in it, else its longest word; empty where it has no words.
    """
    if context.german:
        return german.topic(sentence)
    clause = parse(sentence, context.lower)
    if clause is not None and clause.subject.casefold() not in PRONOUNS and len(clause.subject.split()) <= 6:
        return clause.subject
    phrase = noun_phrase(sentence)
    if phrase:
        return phrase
    code = re.search(r"`[^`]{2,40}`", sentence)
    if code:
        return code.group()
    tokens = [token.strip("`*\"'.,;:!?()[]{}<>|“”‘’") for token in sentence.split()[:60]]
    content = [
        token
        for token in tokens
        if token.casefold() not in lexicon.ENGLISH_STOP and any(map(str.isalnum, token))
    ]
    plain = [token for token in content if re.fullmatch(r"[\w.-]{2,30}", token)] or content
    plain = [token for token in plain if not token.endswith(("ed", "ing", "ly"))] or plain
    names = [token for token in plain if any(letter.isupper() for letter in token[1:])]
    longest = max(names or plain, key=len, default="")
    return f"“{longest}”" if 0 < len(longest) <= _MAX_TOPIC else ""


def noun_phrase(sentence: str) -> str:
    """The first phrase that opens with an article and ends before a word that cannot belong to it."""
    tokens = sentence.split()[:45]
    for index, token in enumerate(tokens[:40]):
        article = token.casefold()
        if article in {"the", "a", "an", "each", "every"}:
            phrase = _after_article(tokens[index + 1 : index + 6], singular=article != "the")
            if phrase and not _is_unfinished(phrase):
                return f"{article if article in {'a', 'an'} else 'the'} {' '.join(phrase)}"
    return ""


def _is_unfinished(phrase: list[str]) -> bool:
    """Whether the last word waits for a noun: an adjective, a number, or a participle on its own."""
    last = phrase[-1].casefold()
    alone = len(phrase) == 1 and (last.endswith("ed") or ("-" in last and "`" not in last and last.islower()))
    return (
        alone
        or last in lexicon.UNFINISHED
        or last in lexicon.NUMBER_WORDS
        or last.endswith("ly")
        or last.isdigit()
    )


def _after_article(tokens: list[str], *, singular: bool) -> list[str]:
    """The words of a noun phrase; empty where an adjective or adverb would be its last word."""
    phrase: list[str] = []
    for word, following in zip(tokens[:4], [*tokens[1:], ""], strict=False):
        bare = _bare(word)
        if bare in lexicon.PHRASE_ENDS or (
            phrase and _may_be_verb(phrase[-1], bare, _bare(following), singular=singular)
        ):
            break
        if phrase and bare.endswith("ing") and _bare(following) in lexicon.ENGLISH_STOP:
            break
        phrase.append(word.strip('.,;:!?()"'))
        if not word[-1].isalnum() and word[-1] != "`":
            break
    else:
        return []  # it goes on
    return [word for word in phrase if word]


def _may_be_verb(noun: str, word: str, following: str, *, singular: bool) -> bool:
    """Whether a word after a noun may be the verb: known as one, in -ed, or in -s with more to come."""
    many = noun.endswith("s") and not noun.endswith(("ss", "us", "is"))
    third_person = word.endswith("s") and not word.endswith(("ss", "us", "is"))
    if word in lexicon.VERBS:  # after a singular noun only "it maps" is a verb; "map" is a noun
        return many or word not in lexicon.NOUN_VERBS or word == "need"
    is_listed = lexicon.present_verb(word) is not None
    goes_on = bool(following) and following not in lexicon.ENGLISH_STOP
    governs = third_person and following in lexicon.DETERMINERS
    return is_listed or governs or word.endswith("ed") or (third_person and (goes_on or singular))


def _bare(token: str) -> str:
    return token.strip("`*\"'.,;:!?()").casefold()


def _english(sentence: str, context: Context) -> Iterator[statements.RawQuestion]:
    sentence = _CONTRACTION.sub(
        lambda match: f"{_FULL.get(match.group(1).casefold(), match.group(1))} not", sentence
    )
    yield from statements.conditional(sentence)
    yield from statements.imperative(sentence)
    yield from _consequence(sentence, context)
    yield from _opening_cause(sentence, context)
    for segment in sentence.split("; "):
        clause = parse(capitalise(segment), context.lower | {segment.split(" ")[0]})
        if clause is not None:
            for rule in statements.RULES:
                yield from rule(clause)


def _opening_cause(sentence: str, context: Context) -> Iterator[statements.RawQuestion]:
    """``Because X, Y.`` asks why Y; a pronoun in Y stands for the subject of X."""
    match = re.match(r"^(?:Because|Since(?! \d)) ([^,;]+), (.+)$", sentence)
    if match is None:
        return
    cause, result = match.groups()
    before = parse(capitalise(cause), context.lower | {cause.split(" ")[0]})
    pronoun = re.match(r"(?:they|it) ", result)
    if pronoun and before is not None and (before.aux in {"are", "do"}) == (pronoun.group() == "they "):
        result = before.subject + result[pronoun.end() - 1 :]
    clause = parse(capitalise(result), context.lower | {result.split(" ")[0]})
    if clause is not None and not re.search(r"[,;]", clause.rest):
        yield clause.ask("why", clause.rest), "conceptual", 2.8


def _consequence(sentence: str, context: Context) -> Iterator[statements.RawQuestion]:
    """``X, so Y.`` asks why Y."""
    match = statements.CONSEQUENCE.search(sentence)
    result = match.group(1) if match else ""
    clause = parse(capitalise(result), context.lower | {result.split(" ")[0]}) if result else None
    if clause is not None and clause.subject != "you" and not re.search(r"[,;]|because", clause.rest):
        head = _SECOND_SUBJECT.split(clause.rest)[0]
        yield clause.ask("why", head), "conceptual", 2.4
