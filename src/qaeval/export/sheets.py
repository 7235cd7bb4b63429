"""Sheets for human labels, and letters in the format of Inspect's precomputed scores."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qaeval.agreement.label_rows import FACT_COLUMN, FLAG_COLUMN
from qaeval.errors import UsageError
from qaeval.export.draw import DrawnItems, ItemToDraw, draw_items
from qaeval.export.select import GradedItem, GradedItems, Grading
from qaeval.export.tables import as_csv
from qaeval.records import (
    FORM,
    REJECTED,
    TRANSIENT_REASONS,
    Failure,
    GenerateRow,
    Label,
    LabelDraw,
    LabelPlan,
    record_id,
)
from qaeval.storage.run_directory import RunStore

_TEXT_COLUMNS: Final = ("scale", "chunk_id", "text", "question", "answer", "rejected", "form")
SPREADSHEETS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("en", "ja", "ko", "zh"), ","),
    **dict.fromkeys(
        ("cs", "da", "de", "es", "fi", "fr", "it", "nb", "nl", "pl", "pt", "ru", "sv", "tr"), ";"
    ),
}
"""Separator of CSV files by the language of the spreadsheet: a semicolon where the comma is in the numbers."""


@dataclass(frozen=True)
class LabelSheet:
    """A sheet to fill in; rows and their order reveal neither letter nor candidate."""

    rows: list[dict[str, Any]]
    columns: tuple[str, ...]
    draw: LabelDraw
    """How the items were drawn, with their probabilities."""

    def as_csv(self, spreadsheet: str = "") -> bytes:
        """Write the sheet as CSV.

        Args:
            spreadsheet: Language of the spreadsheet that opens it, one of `SPREADSHEETS`: the file then begins with a byte order
                mark and has its separator. Empty: commas and no mark.
        """
        if not spreadsheet:
            return as_csv(self.rows, self.columns)
        return b"\xef\xbb\xbf" + as_csv(self.rows, self.columns, delimiter=SPREADSHEETS[spreadsheet])


def label_sheet(
    items: Iterable[GradedItem], grading: Grading, *, n: int | None = None, seed: int = 0
) -> LabelSheet:
    """Draw distinct items to label, stratified by letter.

    Each letter gets its share of all items, rounded, and at least one item if ``n`` allows.

    Args:
        items: Items to draw from, which are read twice; those without a letter are ignored.
        grading: Settings of the run.
        n: Number of items; None: all.
        seed: Seed of draw and order.

    Raises:
        UsageError: ``n`` is out of range.
    """
    by_id = {item.item_id: ItemToDraw.of(item) for item in items if item.letter}
    if n is not None and not 1 <= n <= len(by_id):
        raise UsageError(
            f"cannot draw {n:,} of {len(by_id):,} items with a letter; expected 1 to {len(by_id):,}"
        )
    drawn = sorted(by_id.values(), key=lambda item: record_id("label", str(seed), item.item_id))
    shares = dict.fromkeys(grading.scale, 1.0)
    if n is not None:
        sizes = {letter: sum(item.letter == letter for item in drawn) for letter in grading.scale}
        counts = _allocate(sizes, n)
        shares = {letter: count / sizes[letter] for letter, count in counts.items()}
        drawn = [
            item
            for letter, count in counts.items()
            for item in [item for item in drawn if item.letter == letter][:count]
        ]
    probabilities = {item_id: shares[item.letter] for item_id, item in by_id.items()}
    is_equal = len(set(probabilities.values())) <= 1
    return _sheet(
        DrawnItems(
            unit="item",
            items=tuple(drawn),
            probability=next(iter(probabilities.values()), 1.0) if is_equal else 1.0,
            probabilities={} if is_equal else probabilities,
        ),
        items,
        grading,
        by="stratified",
        seed=seed,
    )


def next_sheet(
    items: Iterable[GradedItem],
    grading: Grading,
    labels: Iterable[Label],
    *,
    n: int | None = None,
    seed: int = 0,
) -> LabelSheet:
    """Draw the items whose labels decide most, given the labels that exist; see `draw.draw_items`.

    Of two candidates or more: whole chunks with all their items, because a difference is corrected by chunks that are labelled
    for both. Of one candidate: items by the judge's letter, by Neyman's allocation with at least 5 labels of each letter.

    Args:
        items: Items of the candidates, with the judge's letters; they are read twice.
        grading: Settings of the run.
        labels: Labels of any items; those of models, other rubrics or other items are ignored.
        n: As in `draw_items`.
        seed: Seed of draw and order.

    Raises:
        UsageError: every item is labelled.
    """
    given = [
        label for label in labels if label.rater_kind == "human" and label.rubric in grading.label_rubrics
    ]
    drawn = draw_items(
        [ItemToDraw.of(item) for item in items], given, by="plan", n=n, seed=seed, scale=grading.scale
    )
    return _sheet(drawn, items, grading, by="plan", seed=seed)


def _sheet(
    drawn: DrawnItems[ItemToDraw],
    items: Iterable[GradedItem],
    grading: Grading,
    *,
    by: LabelPlan,
    seed: int,
) -> LabelSheet:
    # the draw goes by letter or chunk, so the items are shuffled: their order must not reveal the letters
    order = sorted(drawn.items, key=lambda item: record_id("order", str(seed), item.item_id))
    ids = tuple(item.item_id for item in order)
    rubric = grading.settings["grading"]["rubric"]
    flags = [FLAG_COLUMN + flag["name"] for flag in rubric.get("flags") or ()]
    flags += [FACT_COLUMN + fact["name"] for fact in rubric.get("facts") or ()]
    scale = "; ".join(f"{level['letter']} = {level['name']}" for level in rubric["scale"])
    numbers = {(item.candidate, item.item_id): number for number, item in enumerate(order)}
    rows: list[dict[str, Any]] = [{}] * len(order)
    for item in items:  # the texts, of the drawn ones alone
        if (number := numbers.get((item.candidate, item.item_id))) is not None:
            rows[number] = _sheet_row(item, grading, flags, scale)
    split = ("split",) if any("split" in row for row in rows) else ()
    return LabelSheet(
        rows=rows,
        columns=("item_id", "label", *flags, "note", "rubric", *_TEXT_COLUMNS, *split),
        draw=LabelDraw(
            draw_id=record_id("sheet", grading.rubric, str(seed), *ids),
            by=by,
            n=max(1, len(ids)),
            seed=seed,
            rubric=grading.rubric,
            rubric_sha=grading.rubric_sha,
            unit=drawn.unit,
            probability=drawn.probability,
            probabilities=drawn.probabilities,
            items=ids,
        ),
    )


def precomputed_rows(
    store: RunStore, labels: Iterable[Label], *, candidates: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Return the records of Inspect's ``precomputed_scores`` by candidate, one per sample.

    The value of a record is the mean over the items of a reply, from 0 (lowest letter) to 1 (best letter):
    Inspect reads the text "C" as correct, and accepts only one record per sample. A lost item has the value 0,
    and so has a reply without items; an item without a letter has none. A sample without a value has no record,
    and is unscored in Inspect.

    Args:
        store: A graded run.
        labels: Labels of any items.
        candidates: Candidates to include; empty: all.
    """
    scale = Grading.of(store).scale
    slots_by_reply: dict[tuple[str, str], list[_Slot]] = {}
    graded = GradedItems(store, labels)
    for item in graded:
        if item.letter:
            slot = _Slot(
                item.item.position,
                1 - scale.index(item.letter) / max(len(scale) - 1, 1),
                item.letter,
                f"{item.letter}: {item.reason}".strip(),
            )
            slots_by_reply.setdefault((item.candidate, item.sample.sample_id), []).append(slot)
    for sample, name, row in graded.replies:
        if row and (slots := _lost_slots(row)):
            slots_by_reply.setdefault((name, sample.sample_id), []).extend(slots)
    records: dict[str, list[dict[str, Any]]] = {}
    for (name, sample_id), slots in slots_by_reply.items():
        if candidates and name not in candidates:
            continue
        slots.sort(key=lambda slot: slot.position)
        records.setdefault(name, []).append(
            {
                "id": sample_id,
                "value": round(sum(slot.value for slot in slots) / len(slots), 6),
                "answer": " ".join(slot.letter for slot in slots if slot.letter),
                "explanation": "\n".join(slot.explanation for slot in slots),
            }
        )
    return {name: sorted(rows, key=lambda row: str(row["id"])) for name, rows in sorted(records.items())}


@dataclass(frozen=True)
class _Slot:
    """What an item of a reply adds to the precomputed score of its sample."""

    position: int
    value: float
    letter: str
    """Empty: there is no item."""
    explanation: str


def _lost_slots(row: GenerateRow) -> list[_Slot]:
    """Return the items of a reply that do not exist; a reply that failed whole is one."""
    if isinstance(row, Failure):
        # what a server did not answer says nothing of the candidate
        return [] if row.reason in TRANSIENT_REASONS else [_Slot(0, 0.0, "", f"{row.reason}: {row.detail}")]
    return [_Slot(item.position, 0.0, "", f"{item.reason}: {item.detail}") for item in row.lost or ()]


def _sheet_row(graded: GradedItem, grading: Grading, flags: Sequence[str], scale: str) -> dict[str, Any]:
    item, chunk = graded.item, graded.sample.chunk
    texts = {
        "text": chunk.text,
        "question": item.question,
        "answer": item.answer,
        "rejected": item.parts.get(REJECTED, ""),
        "form": item.parts.get(FORM, ""),
    }
    return {
        "item_id": item.item_id,
        "label": "",
        **dict.fromkeys(flags, ""),
        "note": "",
        "rubric": grading.rubric,
        "scale": scale,
        "chunk_id": chunk.chunk_id,
        # no reader of tables takes a NUL
        **{name: text.replace("\0", "\ufffd") for name, text in texts.items()},
        **({"split": chunk.split} if chunk.split else {}),
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
