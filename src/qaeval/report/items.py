"""The items of a run as the HTML report shows them; they are not part of ``report.json``."""

from typing import Final, Literal

from qaeval.report.facts import Part

UNSURE: Final = 0.8
"""Below this probability of its letter the judge counts as unsure."""


class ItemView(Part):
    """One expected item, to be read."""

    item_id: str = ""
    """What a label names it by; empty where there is no item."""
    position: int
    status: Literal["graded", "ungraded", "failed"]
    type: str = ""
    question: str = ""
    answer: str = ""
    rejected: str = ""
    """Of a preference pair."""
    findings: tuple[tuple[str, str], ...] = ()
    """Check and what it found."""
    letter: str = ""
    flags: tuple[str, ...] = ()
    reason: str = ""
    """The judge's reason, or why there is no item or no letter."""
    labels: tuple[tuple[str, str], ...] = ()
    """Rater and letter."""
    sure: float | None = None
    """The judge's probability of its letter; None where the server gives none."""
    support: tuple[int, ...] = ()
    """Parts of the chunk in which the answer stands, by position."""


class CandidateItems(Part):
    """What one candidate wrote about one chunk."""

    candidate: str
    items: tuple[ItemView, ...]


class ChunkItems(Part):
    """A chunk and everything that was written about it."""

    chunk_id: str
    sample_id: str
    question: str = ""
    """What all candidates were asked about it; empty where they write their questions."""
    title: str
    stratum: str
    document: str
    text: str
    parts: tuple[str, ...]
    """The text, cut after sentences and at line ends."""
    candidates: tuple[CandidateItems, ...]
