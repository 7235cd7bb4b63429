"""Where in a chunk an answer stands: for the reader's eye, not for a grade."""

import re
from collections.abc import Sequence
from typing import Final

from qaeval.text.units import content_words, sentences

_PART: Final = re.compile(r".+?(?:[.!?…][\"”’»)\]]*\s+|\n+|$)", re.DOTALL)
_LEAST: Final = 0.5
"""Share of a sentence's content words from which a part of the chunk supports it."""


def split_parts(text: str) -> tuple[str, ...]:
    """Cut a text after sentences and at line ends; the parts put together are the text."""
    return tuple(_PART.findall(text))


def part_words(parts: Sequence[str]) -> tuple[frozenset[str], ...]:
    """Return the content words of each part, for all answers about the chunk."""
    return tuple(frozenset(content_words(part)) for part in parts)


def supporting_parts(words: Sequence[frozenset[str]], answer: str) -> tuple[int, ...]:
    """Find the part that each sentence of an answer has most words in common with, if it is at least half of them.

    Args:
        words: From `part_words`.
        answer: Any text.

    Returns:
        Positions of parts, ascending; empty where nothing of the answer stands in the chunk.
    """
    found = set()
    for sentence in sentences(answer):
        wanted = set(content_words(sentence))
        if not wanted:
            continue
        shares = [len(wanted & own) / len(wanted) for own in words]
        best = max(range(len(shares)), key=lambda place: shares[place], default=None)
        if best is not None and shares[best] >= _LEAST:
            found.add(best)
    return tuple(sorted(found))
