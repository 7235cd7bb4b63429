"""Sheets for people who label, and letters in the form in which Inspect takes scores."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from qaeval.errors import UsageError
from qaeval.export.select import GradedItem, Grading, graded_items
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
    """Draw items to be labelled, each once, in an order and with words that do not give away its letter or its candidate.

    Every letter has the share that it has among all items, rounded, and one item at least where there is room.

    Args:
        items: What can be drawn; those without a letter are passed over.
        grading: The run's rubric.
        n: How many; None takes all.
        seed: Another seed draws others, in another order.

    Raises:
        UsageError: ``n`` is less than one or more than there are.
    """
    known = {one.item.item_id: one for one in items if one.letter}
    if n is not None and not 1 <= n <= len(known):
        raise UsageError(
            f"cannot draw {n:,} items to label: the run has {len(known):,} with a letter; ask for 1 to {len(known):,}"
        )
    lot = sorted(known.values(), key=lambda one: record_id("label", str(seed), one.item.item_id))
    if n is not None:
        counts = _allocate({letter: sum(one.letter == letter for one in lot) for letter in grading.scale}, n)
        lot = [
            one
            for letter, count in counts.items()
            for one in [one for one in lot if one.letter == letter][:count]
        ]
    # drawn by letter, so the order must be made anew
    lot.sort(key=lambda one: record_id("order", str(seed), one.item.item_id))
    return [_sheet_row(one, grading) for one in lot]


def precomputed_rows(
    store: RunStore, labels: Iterable[Label], *, candidates: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Make the scores of every candidate as Inspect's ``precomputed_scores`` reads them, one record for each sample.

    A record's value is a number from 0 (the lowest letter) to 1 (the best), the mean where a reply has several items:
    Inspect reads a text "C" as correct, and refuses two records of one sample. A reply that gave no item is 0; a sample
    whose items have no letter is left out, and Inspect leaves it unscored.

    Args:
        store: A graded run.
        labels: Labels of any items.
        candidates: These alone; empty: all.
    """
    scale = Grading.of(store).scale
    records: dict[str, list[dict[str, Any]]] = {}
    own: dict[tuple[str, str], list[GradedItem]] = {}
    for one in graded_items(store, labels):
        if one.letter and (not candidates or one.candidate in candidates):
            own.setdefault((one.candidate, one.sample.sample_id), []).append(one)
    for (name, sample_id), items in own.items():
        values = [1 - scale.index(one.letter) / max(len(scale) - 1, 1) for one in items]
        records.setdefault(name, []).append(
            {
                "id": sample_id,
                "value": round(sum(values) / len(values), 6),
                "answer": " ".join(one.letter for one in items),
                "explanation": "\n".join(f"{one.letter}: {one.reason}".strip() for one in items),
            }
        )
    for row in store.generations():
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


def _sheet_row(one: GradedItem, grading: Grading) -> dict[str, Any]:
    item, chunk = one.item, one.sample.chunk
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
    """Share ``n`` among letters by their sizes: one each while there is room, the rest by the largest remainders."""
    there = {letter: size for letter, size in sizes.items() if size}
    total = sum(there.values())
    exact = {letter: n * size / total for letter, size in there.items()}
    counts = {
        letter: max(int(share), 1) if n >= len(there) else int(share) for letter, share in exact.items()
    }
    while (missing := n - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [
            letter
            for letter in counts
            if (counts[letter] < there[letter] if step > 0 else counts[letter] > 1)
        ]
        letter = max(movable, key=lambda letter: step * (exact[letter] - counts[letter]))
        counts[letter] += step
    return counts
