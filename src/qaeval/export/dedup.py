"""Exact and near duplicates, found without comparing everything with everything.

Two texts are near duplicates when the sets of their content words overlap by 0.9 of their union (Jaccard). Words that carry
no content of their own but turn the sense, question words, negations and numbers, have to be the same.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from qaeval.text.lexicon import word_set
from qaeval.text.near import NearIndex
from qaeval.text.units import content_words, numbers, words

_ALIKE: Final = 9
"""Tenths of their content words that near duplicates share."""

_QUESTION_WORDS: Final = word_set(
    "what which who whom whose when where why how was welche welcher welches welchen welchem wer wen wem wessen wann wo "
    "warum wieso weshalb wie wohin woher womit wodurch wozu"
)
_NEGATIONS: Final = word_set(
    "not no never without cannot neither nor nicht kein keine keinen keiner keinem nie niemals ohne"
)


@dataclass(frozen=True)
class Text:
    """What is compared of a row."""

    question: str
    answer: str


@dataclass(frozen=True)
class Unique:
    """Places of the rows that stay, in their order, and how many others went."""

    places: tuple[int, ...]
    exact: int
    near: int


def deduplicate(texts: Sequence[Text], order: Sequence[int] | None = None) -> Unique:
    """Find the rows to keep, one of each set of duplicates.

    Args:
        texts: The rows' texts.
        order: Places in the order of preference, the one to keep first; as they come when left out.

    Returns:
        The places to keep.
    """
    preferred = range(len(texts)) if order is None else order
    seen: set[tuple[str, str]] = set()
    different = []
    for place in preferred:
        key = (plain(texts[place].question), plain(texts[place].answer))
        if key not in seen:
            seen.add(key)
            different.append(place)
    kept = _far_apart(different, texts)
    return Unique(tuple(sorted(kept)), len(texts) - len(different), len(different) - len(kept))


def plain(text: str) -> str:
    """Fold case and spaces away; what is left is compared letter by letter."""
    return " ".join(text.casefold().split())


def _far_apart(places: Iterable[int], texts: Sequence[Text]) -> list[int]:
    """Keep the places whose text is near no kept one."""
    places = list(places)
    bags = {
        place: frozenset(content_words(f"{texts[place].question}\n{texts[place].answer}")) for place in places
    }
    index = NearIndex(bags.values(), _ALIKE)
    kept = []
    for place in places:
        bag, turn = bags[place], _turn(texts[place])
        if not any(index.is_near(bag, other) for other in index.candidates(bag, turn)):
            kept.append(place)
            index.add(bag, turn)
    return kept


def _turn(text: Text) -> Hashable:
    """What has to be the same: question words, negations, numbers."""
    asked = tuple(word for word in words(text.question) if word in _QUESTION_WORDS)
    said = Counter(
        word
        for word in words(f"{text.question}\n{text.answer}")
        if word in _NEGATIONS or word.endswith(("n't", "n’t"))
    )
    return asked, said.total(), tuple(numbers(text.question)), tuple(sorted(numbers(text.answer)))
