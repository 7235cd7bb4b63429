"""How a rater worked: time, drift, agreement with the own repeats, labels faster than the text can be read."""

from collections.abc import Sequence
from statistics import median
from typing import Final

from qaeval.agreement.model import RaterQuality
from qaeval.records import Label

READING: Final = 250
"""Words that an adult reads in a minute: 238 in English prose (Brysbaert 2019, a meta-analysis of 190 studies)."""
SKIMMING: Final = 3 * READING
"""Words a minute beyond which nobody takes a text in; a label that was faster is counted as not read."""
_MIN_TIMES: Final = 9
_MIN_LABELS: Final = 20


def rater_quality(labels: Sequence[Label], repeats: Sequence[Label], best: str) -> RaterQuality | None:
    """Summarise how a rater worked; the order of the labels counts and not their clock, which may have been turned back.

    Args:
        labels: Of one rater, in the order in which they were given.
        repeats: Second labels of the rater.
        best: The best letter.

    Returns:
        None where no label has a time and nothing was labelled twice.
    """
    seconds = [label.seconds for label in labels if label.seconds is not None]
    first = {label.item_id: label for label in labels}
    pairs = [(first[label.item_id], label) for label in repeats if label.item_id in first]
    if not seconds and not pairs:
        return None
    third, half = len(seconds) // 3, len(labels) // 2
    has_times, has_labels = len(seconds) >= _MIN_TIMES, len(labels) >= _MIN_LABELS
    readable = [
        (label.seconds, label.words)
        for label in labels
        if label.seconds is not None and label.words is not None
    ]
    return RaterQuality(
        n_timed=len(seconds),
        median_seconds=median(seconds) if seconds else None,
        seconds_first=median(seconds[:third]) if has_times else None,
        seconds_last=median(seconds[-third:]) if has_times else None,
        best_first=_share(labels[:half], best) if has_labels else None,
        best_last=_share(labels[half:], best) if has_labels else None,
        n_too_fast=sum(spent < 60 * words / SKIMMING for spent, words in readable),
        n_readable=len(readable),
        n_repeats=len(pairs),
        n_repeats_same=sum(before.letter == again.letter for before, again in pairs),
    )


def _share(labels: Sequence[Label], best: str) -> float:
    return sum(label.letter == best for label in labels) / len(labels)
