"""Sets of words that overlap, found without comparing everything with everything.

Sets whose Jaccard index reaches a threshold share one of their rarest words, if enough of these are looked at, so each set is
compared with the few that do: prefix filtering, after Chaudhuri, Ganti and Kaushik (2006) and Bayardo, Ma and Srikant (2007). It
finds every such pair, not most of them.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TypeAlias

Words: TypeAlias = frozenset[str]


class NearIndex:
    """Remembers sets of words and names those that may be near another one.

    Args:
        sets: All that will be asked for or added; they say which words are rare.
        tenths: The threshold in whole numbers: 0.9 times a number is rounded, and a pair on the edge would be missed.
    """

    def __init__(self, sets: Iterable[Words], tenths: int) -> None:
        self._tenths = tenths
        self._frequency = Counter(word for own in sets for word in own)
        self._seen: dict[tuple[Hashable, str], list[Words]] = {}

    def candidates(self, own: Words, group: Hashable = None) -> set[Words]:
        """Return the sets added to a group so far that may be near one; all that are near are among them."""
        return {other for word in self._rarest(own) for other in self._seen.get((group, word), ())}

    def add(self, own: Words, group: Hashable = None) -> None:
        """Remember a set."""
        for word in self._rarest(own):
            self._seen.setdefault((group, word), []).append(own)

    def is_near(self, one: Words, other: Words) -> bool:
        """Whether two sets overlap by the threshold."""
        shared = len(one & other)
        return shared * 10 >= self._tenths * (len(one) + len(other) - shared)

    def _rarest(self, own: Words) -> list[str]:
        rarest = sorted(own, key=lambda word: (self._frequency[word], word))
        return rarest[: len(own) * (10 - self._tenths) // 10 + 1]
