"""Convert qaeval's rows to Inspect's scores: numbers, because Inspect reads the letter C as *correct*.

A sample has two scores. ``letters`` is the mean of the letters of a reply, unscored without letters;
``usable`` is the share of the expected items with the best letter, where failures count as not usable.
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
"""Metadata key of the cluster of dependent samples."""

_NO_LETTER_MARK: Final = "-"
_NO_RESPONSE: Final = "no_response"
_INSPECT_REASONS: Final[Mapping[FailureReason, str]] = {
    "invalid_json": "invalid_response_format",
    "missing_field": "invalid_response_format",
    "wrong_item_count": "invalid_response_format",
    "empty": _NO_RESPONSE,
}
"""Inspect's names of failure reasons; other reasons keep their names."""


def points(letters: Sequence[str]) -> dict[str, float]:
    """Return the number of each letter, evenly spaced from 1 for the best to 0: A=1, B=0.5, C=0."""
    return {letter: 1 - index / (len(letters) - 1) for index, letter in enumerate(letters)}


def sample_metadata(sample: Sample) -> dict[str, Any]:
    """Return the metadata of an Inspect sample."""
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
        generation: The reply, or its failure.
        grades: The grade or failure of each item, by item id.
        scale: The rubric's letters, best first.
        hosts: Hosts of candidate and judge, by model.

    Raises:
        DataError: an item has neither grade nor failure.
    """
    items = generation.items if isinstance(generation, Generation) else ()
    if missing := [item.item_id for item in items if item.item_id not in grades]:
        raise DataError(f"item {missing[0]} has neither grade nor failure; run `qaeval grade`")
    rows = [grades[item.item_id] for item in items]
    given_letters = [row.letter for row in rows if isinstance(row, Grade)]
    failures = [
        (row.stage, row.reason, row.detail) for row in (generation, *rows) if isinstance(row, Failure)
    ]
    if isinstance(generation, Generation):
        failures += [("generate", item.reason, item.detail) for item in generation.lost or ()]
    metadata = {
        "generation": generation.model_dump(mode="json", exclude={"items"}),
        "grades": [_entry(item, row) for item, row in zip(items, rows, strict=True)],
        "failure": failures[0][1] if failures else None,
        "hosts": dict(hosts or {}),
    }
    explanation = "\n".join(f"{stage} failed: {reason}: {detail}" for stage, reason, detail in failures)
    if not given_letters:
        return Score.unscored(
            reason=_unscored_reason(failures), explanation=explanation or None, metadata=metadata
        )
    table = points(scale)
    return Score(
        value=sum(table[letter] for letter in given_letters) / len(given_letters),
        answer=" ".join(row.letter if isinstance(row, Grade) else _NO_LETTER_MARK for row in rows),
        explanation="\n".join(
            [*(row.reason for row in rows if isinstance(row, Grade) and row.reason), explanation]
        ).strip()
        or None,
        metadata=metadata,
    )


def _unscored_reason(failures: Sequence[tuple[str, FailureReason, str]]) -> str:
    """Return Inspect's name of the first failure, given as stage, reason and detail."""
    if not failures:
        return _NO_RESPONSE
    stage, reason, _ = failures[0]
    return "grader_failed" if stage == "grade" else _INSPECT_REASONS.get(reason, reason)


def usable_score(score: Score, best: str, items_per_sample: int) -> Score:
    """Return the share of the expected items with the best letter; failures count as not usable.

    Args:
        score: The `letters_score` of the same sample.
        best: The best letter.
        items_per_sample: Number of items that a whole reply has.

    Returns:
        The score; unscored where the reply has no expected item.
    """
    scored = score.metadata or {}
    letters = [grade["letter"] for grade in scored["grades"]]
    # as in the table of letters: a reply that states its lost items has those and its own, and no others
    lost = scored["generation"].get("lost")
    expected = items_per_sample if lost is None else len(letters) + len(lost)
    n_best, n_graded = letters.count(best), sum(letter is not None for letter in letters)
    answer = f"{n_best}/{expected}"
    metadata = {"n_best": n_best, "n_expected": expected, "n_failed": expected - n_graded}
    if not expected:
        return Score.unscored(reason=_NO_RESPONSE, answer=answer, metadata=metadata)
    return Score(value=n_best / expected, answer=answer, metadata=metadata)


def _entry(item: Item, row: GradeRow) -> dict[str, Any]:
    """Merge an item with its grade or failure into one entry."""
    return {**item.model_dump(mode="json"), "letter": None, **row.model_dump(mode="json")}


def read_entry(entry: Mapping[str, Any]) -> tuple[Item, GradeRow]:
    """Split an entry of `letters_score` into the item and its grade or failure.

    Raises:
        ValidationError: the entry is invalid.
    """
    item = Item.model_validate({key: entry[key] for key in Item.model_fields if key in entry})
    kind: type[Grade | Failure] = Grade if entry.get("kind") == "grade" else Failure
    return item, kind.model_validate({key: entry[key] for key in kind.model_fields if key in entry})


@metric
def usable_rate() -> Metric:
    """Share of the expected items with the best letter; failures count as not usable."""

    def rate(scores: list[SampleScore]) -> Value:
        expected = _total(scores, "n_expected")
        return _total(scores, "n_best") / expected if expected else math.nan

    return rate


@metric
def failed() -> Metric:
    """Number of expected items without a letter, because the reply or the judge failed."""

    def count(scores: list[SampleScore]) -> Value:
        return _total(scores, "n_failed")

    return count


def _total(scores: Sequence[SampleScore], name: str) -> float:
    return float(sum((score.score.metadata or {})[name] for score in scores))
