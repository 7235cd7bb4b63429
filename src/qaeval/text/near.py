"""Search for overlapping sets of words without comparing all pairs.

Prefix filtering, after Chaudhuri, Ganti and Kaushik (2006) and Bayardo, Ma and Srikant (2007): two sets whose
Jaccard index reaches the threshold share at least one of their rarest words, so each set is compared only
with those that do. The search is exact.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TypeAlias

WordSet: TypeAlias = frozenset[str]


class NearIndex:
    """An index of word sets for near-duplicate search.

    Args:
        sets: All sets that will be added or searched for; they define which words are rare.
        tenths: The threshold in tenths; an integer, since rounding 0.9 × n would miss pairs at the threshold.
    """

    def __init__(self, sets: Iterable[WordSet], tenths: int) -> None:
        self._tenths = tenths
        self._frequency = Counter(word for words in sets for word in words)
        self._groups: dict[tuple[Hashable, str], list[WordSet]] = {}

    def candidates(self, words: WordSet, group: Hashable = None) -> set[WordSet]:
        """Return a superset of the sets in a group that are near the given one."""
        return {
            candidate for word in self._rarest(words) for candidate in self._groups.get((group, word), ())
        }

    def add(self, words: WordSet, group: Hashable = None) -> None:
        """Add a set to a group."""
        for word in self._rarest(words):
            self._groups.setdefault((group, word), []).append(words)

    def is_near(self, first: WordSet, second: WordSet) -> bool:
        """Whether the Jaccard index of two sets reaches the threshold."""
        shared = len(first & second)
        return shared * 10 >= self._tenths * (len(first) + len(second) - shared)

    def _rarest(self, words: WordSet) -> list[str]:
        rarest = sorted(words, key=lambda word: (self._frequency[word], word))
        return rarest[: len(words) * (10 - self._tenths) // 10 + 1]
