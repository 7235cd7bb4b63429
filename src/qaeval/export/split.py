"""Train, validation and test, split so that nothing of the one is in the other.

Where a chunk goes depends on its id and the seed alone, so that data that are added move nothing. Chunks of the same text,
and chunks that share a question, word for word but for case, spaces and how it ends, go together, to the earliest of their
sides: only they can be moved by what is added.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from qaeval.errors import UsageError
from qaeval.export.dedup import plain
from qaeval.records import record_id

SPLITS: Final = ("train", "validation", "test")
"""From the earliest to the latest."""

By: TypeAlias = Literal["chunk", "document"]

_PARTS: Final = 2**64
"""A record id has 64 bits."""


@dataclass(frozen=True)
class Place:
    """What decides where a row goes."""

    chunk_id: str
    document: str
    questions: tuple[str, ...]
    text: str = ""
    """Of the chunk."""


@dataclass(frozen=True)
class Assigned:
    """The split of every row, and how many groups a shared question or text moved."""

    splits: tuple[str, ...]
    moved: int


def assign(
    places: Sequence[Place],
    *,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    by: By = "chunk",
) -> Assigned:
    """Give every row a split.

    Args:
        places: The rows.
        shares: Of train, validation and test; together 1.
        seed: Another seed splits otherwise.
        by: What stays together; chunks without a document stay on their own.

    Raises:
        UsageError: the shares are none.
    """
    require_shares(shares)
    keys = [_key(place, by) for place in places]
    own = {key: _drawn(key, shares, seed) for key in keys}
    groups = _Groups()
    first: dict[tuple[str, str], str] = {}
    for key, place in zip(keys, places, strict=True):
        shared = [("question", _asked(question)) for question in place.questions]
        shared += [("text", plain(place.text))] if place.text else []
        for one in shared:
            groups.join(key, first.setdefault(one, key))
    earliest: dict[str, int] = {}
    for key, split in own.items():
        group = groups.find(key)
        earliest[group] = min(earliest.get(group, split), split)
    given = {key: earliest[groups.find(key)] for key in own}
    moved = sum(given[key] != split for key, split in own.items())
    return Assigned(tuple(SPLITS[given[key]] for key in keys), moved)


def require_shares(shares: Sequence[float]) -> None:
    """Refuse shares that are none.

    Raises:
        UsageError: not three, one below 0, or together not 1.
    """
    right = len(shares) == len(SPLITS) and all(0 <= share <= 1 for share in shares)
    if not right or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        shown = "/".join(f"{share:g}" for share in shares)
        raise UsageError(
            f"split {shown}: expected shares of train, validation and test that make 1 together, like 0.8/0.1/0.1"
        )


def _key(place: Place, by: By) -> str:
    # the kind is part of it: a chunk without a document must not fall together with a document of its name
    return f"document {place.document}" if by == "document" and place.document else f"chunk {place.chunk_id}"


def _asked(question: str) -> str:
    """Return what two questions have in common that differ in case, spaces and punctuation at the end alone."""
    text = plain(question)
    end = len(text)
    while end and unicodedata.category(text[end - 1])[0] in "PZ":
        end -= 1
    return text[:end] or text


def _drawn(key: str, shares: Sequence[float], seed: int) -> int:
    """Draw a split's number for a key."""
    at = int(record_id("split", str(seed), key), 16) / _PARTS
    wanted = [number for number, share in enumerate(shares) if share > 0]
    for number in wanted:
        at -= shares[number]
        if at < 0:
            return number
    return wanted[-1]  # the shares may sum to a little less than 1


class _Groups:
    """Sets that are joined: union and find."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, key: str) -> str:
        root = key
        while (above := self._parent.get(root, root)) != root:
            root = above
        while key != root:
            self._parent[key], key = root, self._parent.get(key, key)
        return root

    def join(self, one: str, other: str) -> None:
        self._parent[self.find(one)] = self.find(other)
