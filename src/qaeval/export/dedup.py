"""Remove exact and near duplicates.

Two texts are near duplicates if the Jaccard index of their content words is at least 0.9 and their question
words, negations and numbers, which change the meaning, are the same.
"""

from array import array
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, overload

import numpy as np

from qaeval.records import record_number
from qaeval.text.lexicon import word_set
from qaeval.text.near import NearIndex, WordSet
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
    rank: int = 0
    """Of duplicates that of the lowest rank is kept, and the first of these."""


@dataclass(frozen=True)
class Deduplicated:
    """Indices of the rows to keep, in their order, and the number of removed rows."""

    indices: tuple[int, ...]
    n: int
    """Number of rows before."""
    exact: int
    near: int


def deduplicate(texts: Iterable[ComparedText]) -> Deduplicated:
    """Return the rows to keep, one of each set of duplicates; hashes and numbers of words are held, and no texts.

    Args:
        texts: The texts of the rows.

    Returns:
        The indices to keep, and the number of removed rows.
    """
    ranks, contents, signatures, bags = array("i"), array("Q"), array("q"), _Bags()
    for text in texts:
        ranks.append(text.rank)
        contents.append(record_number(normalised(text.question), normalised(text.answer)))
        signatures.append(hash(_signature(text)))
        bags.append(content_words(f"{text.question}\n{text.answer}"))
    preferred = np.argsort(np.asarray(ranks, np.int32), kind="stable")
    _, first = np.unique(np.asarray(contents, np.uint64)[preferred], return_index=True)
    distinct = preferred[np.sort(first)].tolist()
    near_index, kept = NearIndex(bags, _SIMILARITY_TENTHS, signatures), []
    for index in distinct:
        if not near_index.has_near(index):
            kept.append(index)
            near_index.add(index)
    return Deduplicated(
        tuple(sorted(kept)), len(contents), len(contents) - len(distinct), len(distinct) - len(kept)
    )


class _Bags(Sequence[WordSet]):
    """Sets of words, held as numbers: 4 bytes a word."""

    def __init__(self) -> None:
        self._number_of: dict[str, int] = {}
        self._numbers, self._ends = array("I"), array("Q", [0])

    def append(self, words: Iterable[str]) -> None:
        self._numbers.extend(
            self._number_of.setdefault(word, len(self._number_of)) for word in dict.fromkeys(words)
        )
        self._ends.append(len(self._numbers))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> WordSet: ...
    @overload
    def __getitem__(self, index: slice) -> list[WordSet]: ...
    def __getitem__(self, index: int | slice) -> WordSet | list[WordSet]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return frozenset(self._numbers[self._ends[index] : self._ends[index + 1]])


def normalised(text: str) -> str:
    """Normalise case and white space for the comparison of exact duplicates."""
    return " ".join(text.casefold().split())


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
