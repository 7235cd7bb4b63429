"""Search for overlapping sets of words without comparing all pairs.

Prefix filtering, after Chaudhuri, Ganti and Kaushik (2006) and Bayardo, Ma and Srikant (2007): two sets whose
Jaccard index reaches the threshold share at least one of their rarest words, so each set is compared only
with those that do. The search is exact.
"""

from array import array
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np

WordSet: TypeAlias = frozenset[Hashable]


class NearIndex:
    """An index for near-duplicate search in numbered sets; 40 bytes a set are held, and the numbers of those that share a rare word.

    Args:
        sets: All sets, read again for each comparison; they define which words are rare.
        tenths: The threshold in tenths; an integer, since rounding 0.9 × n would miss pairs at the threshold.
        groups: The group of each set; only sets of one group are compared. Empty: all are of one group.
    """

    def __init__(self, sets: Sequence[WordSet], tenths: int, groups: Sequence[Hashable] = ()) -> None:
        self._sets, self._tenths, self._groups = sets, tenths, groups
        frequency: Counter[Hashable] = Counter()
        for words in sets:
            frequency.update(words)
        keys, self._ends = array("q"), array("Q", [0])
        for number, words in enumerate(sets):
            rarest = sorted(words, key=lambda word: (frequency[word], word))
            del rarest[len(words) * (10 - tenths) // 10 + 1 :]
            keys.extend(hash((self._group(number), word)) for word in rarest)
            self._ends.append(len(keys))
        _, key, counts = np.unique(np.asarray(keys, np.int64), return_inverse=True, return_counts=True)
        # no other set is found by a word of one set alone
        self._keys = np.where(counts[key] > 1, key, -1).astype(np.int32) if len(keys) else key
        self._added: dict[int, list[int]] = {}

    def candidates(self, number: int) -> set[int]:
        """Return the numbers of a superset of the added sets of its group that are near a set."""
        numbers = {other for key in self._shared(number) for other in self._added.get(key, ())}
        return {other for other in numbers if self._group(other) == self._group(number)}

    def add(self, number: int) -> None:
        """Let a set be found."""
        for key in self._shared(number):
            self._added.setdefault(key, []).append(number)

    def has_near(self, number: int) -> bool:
        """Whether a set that was added is near."""
        words = self._sets[number]
        return any(self.is_near(words, self._sets[other]) for other in self.candidates(number))

    def is_near(self, first: WordSet, second: WordSet) -> bool:
        """Whether the Jaccard index of two sets reaches the threshold."""
        shared = len(first & second)
        return shared * 10 >= self._tenths * (len(first) + len(second) - shared)

    def _group(self, number: int) -> Hashable:
        return self._groups[number] if self._groups else None

    def _shared(self, number: int) -> list[int]:
        """Return the rare words of a set that another one has too, as numbers."""
        keys = self._keys[self._ends[number] : self._ends[number + 1]]
        return [key for key in keys.tolist() if key >= 0]
