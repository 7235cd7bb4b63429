"""Split rows into train, validation and test without leakage.

The split of a chunk depends only on its id and the seed, so that additional data does not move it. Chunks
with the same text or a shared question (apart from case, white space and final punctuation) go together,
into the earliest of their splits; only these can move when data is added.
"""

import math
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from qaeval.errors import UsageError
from qaeval.export.dedup import normalised
from qaeval.records import record_number

SPLITS: Final = ("train", "validation", "test")
"""Splits in the order of precedence."""

SplitUnit: TypeAlias = Literal["chunk", "document"]

_ID_RANGE: Final = 2**64
"""A record id has 64 bits."""


@dataclass(frozen=True)
class SplitKey:
    """The properties of a row that determine its split."""

    chunk_id: str
    document: str
    questions: tuple[str, ...]
    text: str = ""
    """Text of the chunk."""


@dataclass(frozen=True)
class SplitAssignment:
    """The split of every row, and the number of keys that a shared question or text moved."""

    splits: tuple[str, ...]
    n_moved: int


def assign(
    split_keys: Iterable[SplitKey],
    *,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    by: SplitUnit = "chunk",
) -> SplitAssignment:
    """Assign a split to every row.

    Args:
        split_keys: The keys of the rows.
        shares: Shares of train, validation and test; their sum is 1.
        seed: Seed of the split.
        by: Unit that is kept together; a chunk without a document is a unit of its own.

    Raises:
        UsageError: the shares are invalid.
    """
    require_shares(shares)
    drawn: dict[str, int] = {}
    numbers: dict[str, int] = {}  # of the keys, in the order of `drawn`
    keys, owners, contents = array("I"), array("I"), array("Q")
    for split_key in split_keys:
        key = _key(split_key, by)
        if key not in drawn:
            numbers[key], drawn[key] = len(drawn), _draw_split(key, shares, seed)
        keys.append(numbers[key])
        for number in _contents(split_key):
            contents.append(number)
            owners.append(numbers[key])
    groups, names = _Groups(), list(drawn)
    content, owner = np.asarray(contents, np.uint64), np.asarray(owners, np.uint32)
    order = np.argsort(content, kind="stable")
    is_same = content[order][1:] == content[order][:-1]
    for first, second in zip(
        owner[order][:-1][is_same].tolist(), owner[order][1:][is_same].tolist(), strict=True
    ):
        groups.join(names[first], names[second])
    earliest: dict[str, int] = {}
    for key, split in drawn.items():
        group = groups.find(key)
        earliest[group] = min(earliest.get(group, split), split)
    final = {key: earliest[groups.find(key)] for key in drawn}
    n_moved = sum(final[key] != split for key, split in drawn.items())
    return SplitAssignment(tuple(SPLITS[final[names[number]]] for number in keys), n_moved)


def require_shares(shares: Sequence[float]) -> None:
    """Refuse invalid shares.

    Raises:
        UsageError: there are not three shares, one is negative, or their sum is not 1.
    """
    is_valid = len(shares) == len(SPLITS) and all(0 <= share <= 1 for share in shares)
    if not is_valid or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        shown = "/".join(f"{share:g}" for share in shares)
        raise UsageError(
            f"split {shown}: expected shares of train, validation and test with the sum 1, like 0.8/0.1/0.1"
        )


def _key(split_key: SplitKey, by: SplitUnit) -> str:
    # the prefix keeps a chunk without a document apart from a document of the same name
    if by == "document" and split_key.document:
        return f"document {split_key.document}"
    return f"chunk {split_key.chunk_id}"


def _contents(split_key: SplitKey) -> Iterator[int]:
    """Yield what other keys may share, as hashes."""
    for question in split_key.questions:
        yield record_number("question", _question_key(question))
    if split_key.text:
        yield record_number("text", normalised(split_key.text))


def _question_key(question: str) -> str:
    """Return the question without differences in case, white space and final punctuation."""
    text = normalised(question)
    end = len(text)
    while end and unicodedata.category(text[end - 1])[0] in "PZ":
        end -= 1
    return text[:end] or text


def _draw_split(key: str, shares: Sequence[float], seed: int) -> int:
    """Draw the index of a key's split."""
    position = record_number("split", str(seed), key) / _ID_RANGE
    nonempty = [number for number, share in enumerate(shares) if share > 0]
    for number in nonempty:
        position -= shares[number]
        if position < 0:
            return number
    return nonempty[-1]  # rounding: the shares may sum to slightly less than 1


class _Groups:
    """Disjoint sets (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, key: str) -> str:
        root = key
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while key != root:
            self._parent[key], key = root, self._parent.get(key, key)
        return root

    def join(self, first: str, second: str) -> None:
        self._parent[self.find(first)] = self.find(second)
