"""What an embedded judge thinks of an item."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Opinion:
    """A letter with what led to it."""

    letter: str
    hallucination: bool
    """Whether something is stated as fact that nothing supports."""
    reason: str
