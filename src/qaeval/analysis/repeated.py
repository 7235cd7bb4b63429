"""Replies that are the same for several chunks: each is about none of them, and counts as a failure.

Replies are read one by one as they come, so only what reads a run as a whole can see this.
"""

import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from qaeval.checks.answers import refuses
from qaeval.records import REJECTED, Failure, FailureReason, GenerateRow, Generation, Sample, record_number
from qaeval.text.units import count_words

PLACEHOLDER: Final[FailureReason] = "placeholder"
_MIN_CHUNKS: Final = 3
"""Two chunks may overlap so far that one reply is right for both."""
_MIN_WORDS: Final = 5
"""A shorter answer can be right for several given questions."""


@dataclass(frozen=True, slots=True)
class ReplyTexts:
    """What a candidate wrote for one sample."""

    candidate: str
    sample_id: str
    chunk: str
    """Text of the chunk; chunks with one text count once."""
    is_asked: bool
    """Whether the sample gives the question; then the answer alone is the candidate's."""
    texts: tuple[tuple[str, str, str], ...]
    """Question, answer and rejected answer of each item, by position."""


def repeated_replies(replies: Iterable[ReplyTexts]) -> dict[tuple[str, str], int]:
    """Find the replies that are the same for three chunks or more.

    An answer to a given question that is a refusal or has fewer than five words may be right for several, and is
    not counted. Hashes are held in place of the texts.

    Returns:
        Number of chunks, by candidate and sample id.
    """
    written, chunks, may_repeat = array("Q"), array("Q"), array("b")
    ids: list[tuple[str, str]] = []
    for reply in replies:
        texts = (text for item in reply.texts for text in (item[1:] if reply.is_asked else item))
        written.append(record_number(reply.candidate, str(reply.is_asked), *texts))
        chunks.append(record_number(reply.chunk))
        may_repeat.append(_may_repeat(reply))
        ids.append((sys.intern(reply.candidate), reply.sample_id))
    groups: dict[int, list[int]] = {}
    _, group, counts = np.unique(np.asarray(written, np.uint64), return_inverse=True, return_counts=True)
    for number in np.flatnonzero((counts >= _MIN_CHUNKS)[group]).tolist():
        groups.setdefault(written[number], []).append(number)
    return {
        ids[number]: n_chunks
        for numbers in groups.values()
        if (n_chunks := len({chunks[number] for number in numbers})) >= _MIN_CHUNKS
        and not may_repeat[numbers[0]]
        for number in numbers
    }


def _may_repeat(reply: ReplyTexts) -> bool:
    return reply.is_asked and all(
        count_words(answer) < _MIN_WORDS or refuses(answer) for _, answer, _ in reply.texts
    )


def detail(n_chunks: int) -> str:
    """Say why a reply is a failure."""
    return f"the same reply for {n_chunks} chunks"


def fail_repeated(samples: Iterable[Sample], rows: Iterable[GenerateRow]) -> list[GenerateRow]:
    """Replace the replies that are the same for several chunks by failures; all rows are held in memory.

    Args:
        samples: The sample set.
        rows: The last row of every generation task.
    """
    rows = list(rows)
    if not rows:
        return rows
    by_id = {sample.sample_id: sample for sample in samples}
    repeated = repeated_replies(texts for row in rows for texts in texts_of(by_id[row.sample_id], row))
    return [failed_if_repeated(row, repeated) for row in rows]


def texts_of(sample: Sample, row: GenerateRow) -> tuple[ReplyTexts, ...]:
    """Return what a candidate wrote for a sample; nothing of a reply that failed whole: it has no text that could be the same."""
    if not isinstance(row, Generation) or not row.items:
        return ()
    written = tuple((item.question, item.answer, item.parts.get(REJECTED, "")) for item in row.items)
    return (ReplyTexts(row.candidate, row.sample_id, sample.chunk.text, bool(sample.question), written),)


def failed_if_repeated(row: GenerateRow, repeated: Mapping[tuple[str, str], int]) -> GenerateRow:
    """Return a failure in place of a reply that `repeated_replies` names."""
    n_chunks = repeated.get((row.candidate, row.sample_id)) if isinstance(row, Generation) else None
    return _failure(row, n_chunks) if isinstance(row, Generation) and n_chunks else row


def _failure(row: Generation, n_chunks: int) -> Failure:
    return Failure(
        task_id=row.task_id,
        stage="generate",
        model=row.candidate,
        sample_id=row.sample_id,
        reason=PLACEHOLDER,
        detail=detail(n_chunks),
        text=row.text,
        usage=row.usage,
        latency_s=row.latency_s,
    )
