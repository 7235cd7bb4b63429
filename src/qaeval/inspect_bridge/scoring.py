"""From qaeval's rows to Inspect's scores: numbers of qaeval's own, because Inspect reads the letter C as *correct*.

Two scores stand beside each other. ``letters`` is the mean of the letters of a reply and is unscored where there is none;
``usable`` is the share of its expected items with the best letter, and counts what failed as not usable.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from inspect_ai.scorer import Metric, SampleScore, Score, Value, metric

from qaeval.analysis.letters import cluster_of
from qaeval.errors import DataError
from qaeval.records import Failure, FailureReason, GenerateRow, Generation, Grade, GradeRow, Item, Sample

LETTERS: Final = "letters"
USABLE: Final = "usable"
CLUSTER: Final = "chunk_id"
"""Key of a sample's metadata: what makes its items dependent."""

_NO_LETTER: Final = "-"
_REASONS: Final[Mapping[FailureReason, str]] = {
    "invalid_json": "invalid_response_format",
    "missing_field": "invalid_response_format",
    "wrong_item_count": "invalid_response_format",
    "empty": "no_response",
}
"""What Inspect calls a candidate's failures; the others keep their names."""


def points(letters: Sequence[str]) -> dict[str, float]:
    """Give each letter of a scale its number, evenly from 1 for the best to 0: A=1, B=0.5, C=0."""
    return {letter: 1 - place / (len(letters) - 1) for place, letter in enumerate(letters)}


def sample_metadata(sample: Sample) -> dict[str, Any]:
    """What a sample of Inspect's says besides its messages."""
    return {
        CLUSTER: cluster_of(sample),
        "stratum": sample.stratum,
        "type": sample.type,
        "sample": sample.model_dump(mode="json"),
    }


def letters_score(
    generation: GenerateRow,
    grades: Mapping[str, GradeRow],
    scale: Sequence[str],
    *,
    hosts: Mapping[str, str] | None = None,
) -> Score:
    """Score a reply by its letters.

    Args:
        generation: The reply, or why there is none.
        grades: A row for each of its items, by item.
        scale: The rubric's letters, best first.
        hosts: Where candidate and judge are served, by model.

    Raises:
        DataError: an item has no row.
    """
    items = generation.items if isinstance(generation, Generation) else ()
    if missing := [item.item_id for item in items if item.item_id not in grades]:
        raise DataError(f"item {missing[0]} has no grade and no failure; finish with `qaeval grade`")
    rows = [grades[item.item_id] for item in items]
    found = [row.letter for row in rows if isinstance(row, Grade)]
    lost = [row for row in (generation, *rows) if isinstance(row, Failure)]
    metadata = {
        "generation": generation.model_dump(mode="json", exclude={"items"}),
        "grades": [_entry(item, row) for item, row in zip(items, rows, strict=True)],
        "failure": lost[0].reason if lost else None,
        "hosts": dict(hosts or {}),
    }
    why = "\n".join(f"{row.stage} failed: {row.reason}: {row.detail}" for row in lost)
    if not found:
        reason = "grader_failed" if lost[0].stage == "grade" else _REASONS.get(lost[0].reason, lost[0].reason)
        return Score.unscored(reason=reason, explanation=why, metadata=metadata)
    table = points(scale)
    return Score(
        value=sum(table[letter] for letter in found) / len(found),
        answer=" ".join(row.letter if isinstance(row, Grade) else _NO_LETTER for row in rows),
        explanation="\n".join(
            [*(row.reason for row in rows if isinstance(row, Grade) and row.reason), why]
        ).strip()
        or None,
        metadata=metadata,
    )


def usable_score(score: Score, best: str, expected: int) -> Score:
    """Say how many of the expected items have the best letter; what failed is not usable.

    Args:
        score: The same sample's `letters_score`.
        best: The best letter.
        expected: Items that a reply owes.
    """
    letters = [grade["letter"] for grade in (score.metadata or {})["grades"]]
    n_best, n_graded = letters.count(best), sum(letter is not None for letter in letters)
    return Score(
        value=n_best / expected,
        answer=f"{n_best}/{expected}",
        metadata={"n_best": n_best, "n_expected": expected, "n_failed": expected - n_graded},
    )


def _entry(item: Item, row: GradeRow) -> dict[str, Any]:
    """Lay an item and its grade, or why it has none, side by side."""
    return {**item.model_dump(mode="json"), "letter": None, **row.model_dump(mode="json")}


def read_entry(entry: Mapping[str, Any]) -> tuple[Item, GradeRow]:
    """Read what `letters_score` laid side by side.

    Raises:
        ValidationError: it is something else.
    """
    item = Item.model_validate({key: entry[key] for key in Item.model_fields if key in entry})
    kind: type[Grade | Failure] = Grade if entry.get("kind") == "grade" else Failure
    return item, kind.model_validate({key: entry[key] for key in kind.model_fields if key in entry})


@metric
def usable_rate() -> Metric:
    """Share of the expected items that have the best letter; failures count as not usable."""

    def rate(scores: list[SampleScore]) -> Value:
        expected = _total(scores, "n_expected")
        return _total(scores, "n_best") / expected if expected else math.nan

    return rate


@metric
def failed() -> Metric:
    """Expected items that have no letter, because the reply or the judge failed."""

    def count(scores: list[SampleScore]) -> Value:
        return _total(scores, "n_failed")

    return count


def _total(scores: Sequence[SampleScore], name: str) -> float:
    return float(sum((one.score.metadata or {})[name] for one in scores))
