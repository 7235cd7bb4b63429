"""Sheets for human labels, and letters in the format of Inspect's precomputed scores."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from qaeval.errors import UsageError
from qaeval.export.select import GradedItem, Grading, graded_items, replies_of
from qaeval.records import FORM, REJECTED, TRANSIENT_REASONS, Failure, Label, record_id
from qaeval.storage.run_directory import RunStore

SHEET_COLUMNS: Final = (
    "item_id",
    "label",
    "note",
    "rubric",
    "chunk_id",
    "text",
    "question",
    "answer",
    "rejected",
    "form",
)


def label_rows(
    items: Iterable[GradedItem], grading: Grading, *, n: int | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Draw distinct items to label, stratified by letter.

    Rows and their order reveal neither letter nor candidate. Each letter gets its share of all items,
    rounded, and at least one item if ``n`` allows.

    Args:
        items: Items to draw from; those without a letter are ignored.
        grading: Settings of the run.
        n: Number of items; None: all.
        seed: Seed of draw and order.

    Raises:
        UsageError: ``n`` is out of range.
    """
    by_id = {item.item.item_id: item for item in items if item.letter}
    if n is not None and not 1 <= n <= len(by_id):
        raise UsageError(
            f"cannot draw {n:,} of {len(by_id):,} items with a letter; expected 1 to {len(by_id):,}"
        )
    drawn = sorted(by_id.values(), key=lambda item: record_id("label", str(seed), item.item.item_id))
    if n is not None:
        counts = _allocate(
            {letter: sum(item.letter == letter for item in drawn) for letter in grading.scale}, n
        )
        drawn = [
            item
            for letter, count in counts.items()
            for item in [item for item in drawn if item.letter == letter][:count]
        ]
    # the draw went by letter, so it is shuffled: the order must not reveal the letters
    drawn.sort(key=lambda item: record_id("order", str(seed), item.item.item_id))
    return [_sheet_row(item, grading) for item in drawn]


def precomputed_rows(
    store: RunStore, labels: Iterable[Label], *, candidates: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Return the records of Inspect's ``precomputed_scores`` by candidate, one per sample.

    The value of a record is the mean over the items of a reply, from 0 (lowest letter) to 1 (best letter):
    Inspect reads the text "C" as correct, and accepts only one record per sample. A reply without items has
    the value 0; a sample whose items have no letter has no record, and is unscored in Inspect.

    Args:
        store: A graded run.
        labels: Labels of any items.
        candidates: Candidates to include; empty: all.
    """
    scale = Grading.of(store).scale
    records: dict[str, list[dict[str, Any]]] = {}
    items_by_reply: dict[tuple[str, str], list[GradedItem]] = {}
    for item in graded_items(store, labels):
        if item.letter and (not candidates or item.candidate in candidates):
            items_by_reply.setdefault((item.candidate, item.sample.sample_id), []).append(item)
    for (name, sample_id), items in items_by_reply.items():
        values = [1 - scale.index(item.letter) / max(len(scale) - 1, 1) for item in items]
        records.setdefault(name, []).append(
            {
                "id": sample_id,
                "value": round(sum(values) / len(values), 6),
                "answer": " ".join(item.letter for item in items),
                "explanation": "\n".join(f"{item.letter}: {item.reason}".strip() for item in items),
            }
        )
    for row in replies_of(store):
        if (
            isinstance(row, Failure)
            and row.reason not in TRANSIENT_REASONS
            and (not candidates or row.model in candidates)
        ):
            lost = {
                "id": row.sample_id,
                "value": 0.0,
                "answer": "",
                "explanation": f"{row.reason}: {row.detail}",
            }
            records.setdefault(row.model, []).append(lost)
    return {name: sorted(rows, key=lambda row: str(row["id"])) for name, rows in sorted(records.items())}


def _sheet_row(graded: GradedItem, grading: Grading) -> dict[str, Any]:
    item, chunk = graded.item, graded.sample.chunk
    return {
        "item_id": item.item_id,
        "label": "",
        "note": "",
        "rubric": grading.rubric,
        "chunk_id": chunk.chunk_id,
        "text": chunk.text,
        "question": item.question,
        "answer": item.answer,
        "rejected": item.parts.get(REJECTED, ""),
        "form": item.parts.get(FORM, ""),
    }


def _allocate(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """Allocate ``n`` to letters by size, with largest remainders and, if ``n`` allows, at least one each."""
    available = {letter: size for letter, size in sizes.items() if size}
    total = sum(available.values())
    exact = {letter: n * size / total for letter, size in available.items()}
    counts = {
        letter: max(int(share), 1) if n >= len(available) else int(share) for letter, share in exact.items()
    }
    while (missing := n - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [
            letter
            for letter in counts
            if (counts[letter] < available[letter] if step > 0 else counts[letter] > 1)
        ]
        letter = max(movable, key=lambda letter: step * (exact[letter] - counts[letter]))
        counts[letter] += step
    return counts
