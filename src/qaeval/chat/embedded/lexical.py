"""The lexical judge: letters from words, numbers, names and negation, with a reason that names what it found.

It is no language model and does not read the rubric's prose. It knows the scale A/B/C of ``qa_pair_abc`` and looks for
what can be seen without understanding: whether the chunk supports each sentence of the answer, whether a number or a
name was invented, whether a negation was lost, and whether the question can stand alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from qaeval.chat.embedded.text import content_words, named_terms, numbers, sentences, words


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where a feature begins to count; shares between 0 and 1.

    Attributes:
        supported: a sentence with at least this share of its content words in one place of the chunk is supported.
        partly: below this share it is invented.
        answerable: share of the question's content words that the chunk must hold.
        same: overlap from which two sentences speak of the same thing, so that a negation can be compared.
    """

    supported: float = 0.8
    partly: float = 0.5
    answerable: float = 0.5
    same: float = 0.8


@dataclass(frozen=True, slots=True)
class Opinion:
    """A letter with what led to it."""

    letter: str
    hallucination: bool
    reason: str


DEFAULTS: Final = Thresholds()

_NEGATION: Final = frozenset(
    {
        "not",
        "no",
        "never",
        "none",
        "without",
        "cannot",
        "neither",
        "nor",
        "nicht",
        "kein",
        "keine",
        "nie",
        "ohne",
    }
)
_STOCK: Final = re.compile(
    r"\b(?:(?:the|this) (?:text|passage|chunk|document) (?:say|says|state|states|describe|compare)"
    r"|(?:based on|according to|in) the (?:text|passage)|der Text|laut Text)\b",
    re.IGNORECASE,
)
_SPECULATION: Final = re.compile(
    r"\b(?:probably|presumably|perhaps|maybe|might|vermutlich|vielleicht)\b", re.IGNORECASE
)
_REFUSAL: Final = re.compile(
    r"\b(?:text|passage|source) does not (?:say|state|mention|compare)|\bText (?:sagt|nennt|vergleicht)\b.*\bnicht",
    re.IGNORECASE,
)
_CONTRAST: Final = re.compile(
    r"\b(?:than|whereas|while|unlike|instead|rather|versus|compared|differ\w*|but|however|während|sondern|anders)\b",
    re.IGNORECASE,
)
_PRONOUN: Final = re.compile(r"(?:It|This|They|These|Those|Es|Dies|Sie)\b")


def judge(chunk: str, question: str, answer: str, *, thresholds: Thresholds = DEFAULTS) -> Opinion:
    """Grade a question/answer pair against its chunk.

    Raises:
        ValueError: the chunk is blank, so that nothing can be checked.
    """
    if not chunk.strip():
        raise ValueError("the chunk is blank: an answer cannot be checked against nothing")
    if not answer.strip() or not question.strip():
        return Opinion("C", hallucination=False, reason="the question or the answer is empty")
    if _REFUSAL.search(answer):
        return _refusal(chunk, question)
    invented = _invented(chunk, answer)
    wrong = [
        *invented,
        *_contradictions(chunk, answer, thresholds),
        *_unrelated(chunk, question, answer, thresholds),
    ]
    unsupported, weak = _support(chunk, answer, thresholds)
    wrong += unsupported
    if wrong:
        return Opinion("C", hallucination=bool(invented or unsupported), reason="; ".join(wrong))
    minor = [*weak, *_wording(question, answer)]
    if minor:
        return Opinion("B", hallucination=False, reason="; ".join(minor))
    return Opinion(
        "A",
        hallucination=False,
        reason="every sentence of the answer stands in the source and answers the question",
    )


def _refusal(chunk: str, question: str) -> Opinion:
    asked = set(content_words(_STOCK.sub(" ", question)))
    compared = [one for one in sentences(chunk) if _CONTRAST.search(one) and asked & set(content_words(one))]
    if compared:
        return Opinion(
            "C",
            hallucination=False,
            reason=f"the answer finds no comparison, but the source has one: {compared[0][:80]!r}",
        )
    if _STOCK.search(question):
        return Opinion(
            "B", hallucination=False, reason="an honest refusal, to a question that refers to the text"
        )
    return Opinion("A", hallucination=False, reason="an honest refusal: the source does not say")


def _invented(chunk: str, answer: str) -> list[str]:
    known = set(numbers(chunk))
    present = {word.casefold() for word in named_terms(chunk)} | set(words(chunk))
    found = [f"number {one!r} does not stand in the source" for one in numbers(answer) if one not in known]
    names = [one for one in named_terms(answer) if not {one.casefold(), *words(one)} & present]
    return found + [f"name {one!r} does not stand in the source" for one in names]


def _places(chunk: str) -> list[str]:
    """Return each sentence, and each pair of neighbours: an answer may join two."""
    single = sentences(chunk) or [chunk]
    return [*single, *(f"{one} {two}" for one, two in pairwise(single))]


def _best(sentence: str, places: Sequence[str]) -> tuple[float, str]:
    wanted = set(content_words(sentence))
    if not wanted:
        return 1.0, sentence
    shares = [(len(wanted & set(content_words(place))) / len(wanted), -len(place), place) for place in places]
    share, _, place = max(shares, default=(0.0, 0, ""))
    return share, place


def _contradictions(chunk: str, answer: str, thresholds: Thresholds) -> list[str]:
    single = sentences(chunk) or [chunk]
    found = []
    for sentence in sentences(answer):
        share, place = _best(sentence, single)
        if (
            share >= thresholds.same
            and _negations(sentence) != _negations(place)
            and _length_alike(sentence, place)
        ):
            found.append(f"a negation differs from the source: {place[:80]!r}")
    return found


def _negations(sentence: str) -> int:
    return sum(word in _NEGATION or word.endswith("n't") for word in words(sentence)) % 2


def _length_alike(one: str, two: str, factor: float = 1.6) -> bool:
    # a short excerpt may leave a negated clause out without turning it round
    return len(words(two)) <= factor * len(words(one))


def _unrelated(chunk: str, question: str, answer: str, thresholds: Thresholds) -> list[str]:
    asked = set(content_words(_STOCK.sub(" ", question)))
    if not asked:
        return []
    if len(asked & set(content_words(chunk))) / len(asked) < thresholds.answerable:
        return ["the question asks for something that the source does not speak of"]
    if not asked & set(content_words(answer)):
        return ["the answer shares no word with the question"]
    return []


def _support(chunk: str, answer: str, thresholds: Thresholds) -> tuple[list[str], list[str]]:
    places = _places(chunk)
    invented, weak = [], []
    for sentence in sentences(answer):
        share, _ = _best(sentence, places)
        if share < thresholds.partly:
            invented.append(f"the source does not support {sentence[:80]!r}")
        elif share < thresholds.supported:
            weak.append(f"the source supports only part of {sentence[:80]!r}")
    return invented, weak


def _wording(question: str, answer: str) -> list[str]:
    found = []
    if _STOCK.search(question) or _STOCK.search(answer):
        found.append("the pair refers to the text instead of standing alone")
    if _SPECULATION.search(answer):
        found.append("the answer speculates")
    if (match := _PRONOUN.match(answer)) and match.group() not in question:
        found.append(f"the answer begins with {match.group()!r}, which refers to nothing in the pair")
    return found
