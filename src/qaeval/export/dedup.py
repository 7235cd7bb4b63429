"""Remove exact and near duplicates.

Two texts are near duplicates if the Jaccard index of their content words is at least 0.9 and their question
words, negations and numbers, which change the meaning, are the same.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from qaeval.text.lexicon import word_set
from qaeval.text.near import NearIndex
from qaeval.text.units import content_words, numbers, words

_SIMILARITY_TENTHS: Final = 9
"""Jaccard index of near duplicates, in tenths."""

_QUESTION_WORDS: Final = word_set(
    "what which who whom whose when where why how was welche welcher welches welchen welchem wer wen wem "
    "wessen wann wo warum wieso weshalb wie wohin woher womit wodurch wozu"
)
_NEGATIONS: Final = word_set(
    "not no never without cannot neither nor nicht kein keine keinen keiner keinem nie niemals ohne"
)


@dataclass(frozen=True)
class ComparedText:
    """The texts of a row that are compared."""

    question: str
    answer: str


@dataclass(frozen=True)
class Deduplicated:
    """Indices of the rows to keep, in their order, and the number of removed rows."""

    indices: tuple[int, ...]
    exact: int
    near: int


def deduplicate(texts: Sequence[ComparedText], order: Sequence[int] | None = None) -> Deduplicated:
    """Return the rows to keep, one of each set of duplicates.

    Args:
        texts: The texts of the rows.
        order: Row indices by preference, the preferred one first; default: the given order.

    Returns:
        The indices to keep, and the number of removed rows.
    """
    preferred = range(len(texts)) if order is None else order
    seen: set[tuple[str, str]] = set()
    distinct = []
    for index in preferred:
        key = (normalised(texts[index].question), normalised(texts[index].answer))
        if key not in seen:
            seen.add(key)
            distinct.append(index)
    kept = _without_near_duplicates(distinct, texts)
    return Deduplicated(tuple(sorted(kept)), len(texts) - len(distinct), len(distinct) - len(kept))


def normalised(text: str) -> str:
    """Normalise case and white space for the comparison of exact duplicates."""
    return " ".join(text.casefold().split())


def _without_near_duplicates(indices: Iterable[int], texts: Sequence[ComparedText]) -> list[int]:
    """Return the indices of texts without a near duplicate among the preceding ones."""
    indices = list(indices)
    bags = {
        index: frozenset(content_words(f"{texts[index].question}\n{texts[index].answer}"))
        for index in indices
    }
    near_index = NearIndex(bags.values(), _SIMILARITY_TENTHS)
    kept = []
    for index in indices:
        bag, signature = bags[index], _signature(texts[index])
        if not any(near_index.is_near(bag, candidate) for candidate in near_index.candidates(bag, signature)):
            kept.append(index)
            near_index.add(bag, signature)
    return kept


def _signature(text: ComparedText) -> Hashable:
    """Return what near duplicates must share: question words, number of negations, numbers."""
    question_words = tuple(word for word in words(text.question) if word in _QUESTION_WORDS)
    negations = Counter(
        word
        for word in words(f"{text.question}\n{text.answer}")
        if word in _NEGATIONS or word.endswith(("n't", "n’t"))
    )
    return (
        question_words,
        negations.total(),
        tuple(numbers(text.question)),
        tuple(sorted(numbers(text.answer))),
    )
