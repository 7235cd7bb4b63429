"""Replies that are the same for several chunks: each is about none of them, and counts as a failure.

Replies are read one by one as they come, so only what reads a run as a whole can see this.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qaeval.checks.answers import refuses
from qaeval.records import REJECTED, Failure, FailureReason, GenerateRow, Generation, Sample
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
    not counted.

    Returns:
        Number of chunks, by candidate and sample id.
    """
    groups: dict[tuple[str, tuple[tuple[str, ...], ...]], list[ReplyTexts]] = {}
    for reply in replies:
        written = tuple(texts[1:] for texts in reply.texts) if reply.is_asked else reply.texts
        groups.setdefault((reply.candidate, written), []).append(reply)
    return {
        (reply.candidate, reply.sample_id): n_chunks
        for group in groups.values()
        if (n_chunks := len({reply.chunk for reply in group})) >= _MIN_CHUNKS and not _may_repeat(group[0])
        for reply in group
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
    repeated = repeated_replies(
        ReplyTexts(
            row.candidate,
            row.sample_id,
            by_id[row.sample_id].chunk.text,
            bool(by_id[row.sample_id].question),
            tuple((item.question, item.answer, item.parts.get(REJECTED, "")) for item in row.items),
        )
        for row in rows
        # replies that failed whole have no text that could be the same
        if isinstance(row, Generation) and row.items
    )
    return [
        _failure(row, n_chunks)
        if isinstance(row, Generation) and (n_chunks := repeated.get((row.candidate, row.sample_id)))
        else row
        for row in rows
    ]


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
