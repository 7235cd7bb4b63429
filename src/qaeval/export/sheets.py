"""Sheets for human labels, and letters in the format of Inspect's precomputed scores."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from qaeval.comparison.verdict import SHOWN_FROM
from qaeval.errors import UsageError
from qaeval.export.select import GradedItem, Grading, graded_items, replies_of
from qaeval.records import FORM, REJECTED, TRANSIENT_REASONS, Failure, Label, record_id
from qaeval.stats.labelling import neyman_allocation, smoothed_spread
from qaeval.storage.run_directory import RunStore

_ITEMS: Final = 60
"""Default number of items of one candidate to label next."""

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


def next_rows(
    items: Sequence[GradedItem],
    grading: Grading,
    labels: Iterable[Label],
    *,
    n: int | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Draw the items whose labels decide most, given the labels that exist.

    Of two candidates or more: whole chunks with all their items, because a difference is corrected by chunks that are labelled
    for both; each chunk that is not labelled throughout has the same chance. Of one candidate: items by the judge's letter, by
    Neyman's allocation with at least 5 labels of each letter. Rows and their order reveal neither letter nor candidate.

    Args:
        items: Items of the candidates, with the judge's letters.
        grading: Settings of the run.
        labels: Labels of any items; those of models, other rubrics or other items are ignored.
        n: Number of items; of whole chunks, at least so many. Default: chunks up to `SHOWN_FROM` in all; of one candidate, 60 items.
        seed: Seed of draw and order.

    Raises:
        UsageError: every item is labelled.
    """
    given = {
        label.item_id: label
        for label in labels
        if label.rater_kind == "human" and label.rubric in grading.label_rubrics
    }
    if all(item.item.item_id in given for item in items):
        raise UsageError("every item has a label by a person: there is nothing to label next")
    draw = _next_chunks if len({item.candidate for item in items}) > 1 else _next_items
    drawn = {item.item.item_id: item for item in draw(items, grading, given, n, seed)}
    order = sorted(drawn.values(), key=lambda item: record_id("order", str(seed), item.item.item_id))
    return [_sheet_row(item, grading) for item in order]


def _next_chunks(
    items: Sequence[GradedItem], _grading: Grading, given: Mapping[str, Label], n: int | None, seed: int
) -> list[GradedItem]:
    chunks: dict[str, list[GradedItem]] = {}
    n_chunks = len({item.sample.chunk.chunk_id for item in items})
    for item in items:
        if item.item.item_id not in given:
            chunks.setdefault(item.sample.chunk.chunk_id, []).append(item)
    # at least one chunk more than are labelled throughout
    wanted = max(1, SHOWN_FROM - (n_chunks - len(chunks)))
    drawn: list[GradedItem] = []
    for index, chunk_id in enumerate(sorted(chunks, key=lambda name: record_id("chunk", str(seed), name))):
        if (index >= wanted) if n is None else (len(drawn) >= n):
            break
        drawn += chunks[chunk_id]
    return drawn


def _next_items(
    items: Sequence[GradedItem], grading: Grading, given: Mapping[str, Label], n: int | None, seed: int
) -> list[GradedItem]:
    by_letter = {letter: [item for item in items if item.letter == letter] for letter in grading.scale}
    strata = [members for members in by_letter.values() if members]
    if not strata:
        return []
    labelled = [
        [given[item.item.item_id] for item in members if item.item.item_id in given] for members in strata
    ]
    done = [len(labels) for labels in labelled]
    hits = [sum(label.letter == grading.scale[0] for label in labels) for labels in labelled]
    counts = neyman_allocation(
        [len(members) for members in strata], smoothed_spread(hits, done), n or _ITEMS, labelled=done
    )
    drawn: list[GradedItem] = []
    for members, count in zip(strata, counts.tolist(), strict=True):
        left = [item for item in members if item.item.item_id not in given]
        drawn += sorted(left, key=lambda item: record_id("label", str(seed), item.item.item_id))[:count]
    return drawn


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
