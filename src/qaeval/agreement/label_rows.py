"""The rows of a label file: labels, and of a sitting also draws, skipped items and labels taken back.

A file of a sitting is only ever appended to. The last row of a question counts; a label without a question, as in a sheet, is kept
as it is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np

from qaeval.records import Label, LabelDraw, SkippedItem, UndoneLabel

LabelRow: TypeAlias = Label | LabelDraw | SkippedItem | UndoneLabel

FLAG_COLUMN: Final = "flag "
"""What the name of a sheet's column for a flag starts with."""
FACT_COLUMN: Final = "fact "
"""What the name of a sheet's column for the answer to a fact starts with."""
_YES: Final = frozenset({"x", "1", "true", "yes", "y", "ja", "j", "wahr", "✓"})
_NO: Final = frozenset({"", "0", "false", "no", "n", "nein", "falsch", "-"})

_KINDS: Final[Mapping[str, type[LabelDraw] | type[SkippedItem] | type[UndoneLabel]]] = {
    "draw": LabelDraw,
    "skip": SkippedItem,
    "undo": UndoneLabel,
}


@dataclass(frozen=True)
class RaterRows:
    """What the rows of a label file say after the last of them."""

    labels: tuple[Label, ...]
    """Labels that count, with their inclusion probabilities where a draw is known."""
    repeats: tuple[Label, ...]
    """Second labels of the same rater."""
    answers: Mapping[str, Label | SkippedItem]
    """Last answer to each question of a sitting, in the order in which they were given."""
    draws: tuple[LabelDraw, ...]

    @property
    def skipped(self) -> tuple[SkippedItem, ...]:
        """Items that the rater did not label."""
        return tuple(answer for answer in self.answers.values() if isinstance(answer, SkippedItem))


def parse_row(row: Any, *, rater: str = "") -> LabelRow | None:  # noqa: ANN401 - a JSON value
    """Read a row from a JSON value: a row of a sitting, a label, or a row of a sheet; None where a sheet has no label yet.

    Args:
        row: The JSON value.
        rater: Rater of a row that names none.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(row, dict) and row.get("kind") in _KINDS:
        return _KINDS[row["kind"]].model_validate(row)
    if not isinstance(row, dict) or "label" not in row:
        return Label.model_validate(row)
    letter = as_letter(row["label"]) if isinstance(row["label"], str) else row["label"]
    if letter is None or letter == "":
        return None
    fields = {name: value for name, value in row.items() if name in Label.model_fields and value != ""}
    fields = {**fields, "rater": row.get("rater") or rater, "rater_kind": row.get("rater_kind") or "human"}
    flags, facts = raised_flags(row), answered_facts(row)
    added = {**({"flags": flags} if flags else {}), **({"facts": facts} if facts else {})}
    return Label.model_validate({**fields, **added, "letter": letter})


def answered_facts(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the answers by fact of a row of a sheet, from its columns `FACT_COLUMN` + name; empty cells are none."""
    return {
        name.removeprefix(FACT_COLUMN): str(cell).strip()
        for name, cell in row.items()
        if name.startswith(FACT_COLUMN) and cell is not None and str(cell).strip()
    }


def as_letter(text: str) -> str:
    """Return the letter of a cell; the letters of a rubric are capitals."""
    letter = text.strip()
    return letter.upper() if len(letter) == 1 else letter


def raised_flags(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the flags that a row of a sheet raises, from its columns `FLAG_COLUMN` + name.

    Raises:
        ValueError: a cell is neither x nor empty, nor a word for yes or no in English or German.
    """
    flags = []
    for name, cell in row.items():
        text = "" if cell is None else str(cell).strip().lower()
        if name.startswith(FLAG_COLUMN) and text not in _NO:
            if text not in _YES:
                raise ValueError(f"{name}: expected x or nothing, got {str(cell)[:40]!r}")
            flags.append(name.removeprefix(FLAG_COLUMN))
    return tuple(flags)


def replay(rows: Iterable[LabelRow], draws: Sequence[LabelDraw] = ()) -> RaterRows:
    """Return what counts after all rows, in their order.

    Args:
        rows: Of one label file; a draw is of its rater's labels alone.
        draws: Draws that are known from elsewhere, for example of an exported sheet.
    """
    labels: list[Label] = []
    answers: dict[str, Label | SkippedItem] = {}
    known = list(draws)
    for row in rows:
        if isinstance(row, LabelDraw):
            known.append(row)
        elif isinstance(row, Label) and not row.assignment:
            labels.append(row)
        else:
            # the last answer of a question has the place where it was given, also after an undo
            answers.pop(row.assignment, None)
            if not isinstance(row, UndoneLabel):
                answers[row.assignment] = row
    labels += [answer for answer in answers.values() if isinstance(answer, Label)]
    labels = _with_draw_preferred(labels, known)
    counted = [label for label in labels if not label.repeat]
    return RaterRows(
        labels=tuple(_with_inclusion(counted, known)),
        repeats=tuple(label for label in labels if label.repeat),
        answers=answers,
        draws=tuple(known),
    )


def states_inclusion(label: Label) -> bool:
    """Whether a label states its probability, as a row of another file may."""
    return label.inclusion is not None or label.chunk_inclusion is not None


def drawn_labels(draws: Iterable[LabelDraw]) -> Callable[[Label], bool]:
    """Return a function that tells whether one of the draws holds the item of a label, for its rater and rubric."""
    held = {
        (draw.rater, rubric, item_id)
        for draw in draws
        for rubric in ("", draw.rubric)
        for item_id in draw.items
    }
    return lambda label: any((rater, label.rubric, label.item_id) in held for rater in ("", label.rater))


def _with_draw_preferred(labels: list[Label], draws: Sequence[LabelDraw]) -> list[Label]:
    """Leave out labels that state a probability where the same label comes without one and with its draw.

    The stated one may be of a time when less of the draw was labelled.
    """
    if not draws or not any(map(states_inclusion, labels)):
        return labels
    is_drawn = drawn_labels(draws)
    preferred = {
        (label.rater, label_content(label))
        for label in labels
        if not states_inclusion(label) and is_drawn(label)
    }
    return [
        label
        for label in labels
        if not (states_inclusion(label) and (label.rater, label_content(label)) in preferred)
    ]


def label_content(label: Label) -> tuple[object, ...]:
    """Return what a label says, whatever its rater, question, time and note."""
    return label.item_id, label.letter, label.flags, label.rubric, label.repeat, label.settles


def _with_inclusion(labels: Sequence[Label], draws: Sequence[LabelDraw]) -> list[Label]:
    """Add to each label the probability that one of the draws holds it.

    A draw that was not labelled to its end counts with the share that was: its order is random, so what was labelled is a random
    part of it.
    """
    if not draws:
        return list(labels)
    by_rater: dict[str, list[tuple[LabelDraw, frozenset[str], float]]] = {}
    for rater in {label.rater for label in labels}:
        labelled = {label.item_id for label in labels if label.rater == rater}
        of_rater = [(draw, frozenset(draw.items)) for draw in draws if draw.rater in {"", rater}]
        by_rater[rater] = [
            (draw, items, len(labelled & items) / len(items)) for draw, items in of_rater if labelled & items
        ]
    return [_included(label, by_rater[label.rater]) for label in labels]


def _included(label: Label, draws: Sequence[tuple[LabelDraw, frozenset[str], float]]) -> Label:
    is_stated = states_inclusion(label)
    of_chunk = [] if label.chunk_inclusion is None else [1 - label.chunk_inclusion]
    of_item = [] if of_chunk or label.inclusion is None else [1 - label.inclusion]
    for draw, items, share in draws:
        if draw.rubric != label.rubric and label.rubric:
            continue
        # the stated probability is that of the label's draw already
        if is_stated and label.item_id in items:
            continue
        if draw.unit == "item":
            of_item.append(1 - share * draw.probability_of(label.item_id))
        elif label.chunk_id:
            of_chunk.append(1 - share * draw.probability_of(label.chunk_id))
    # an item that no draw could hold was chosen in another way: nothing is known of it
    return label.model_copy(
        update={
            "inclusion": 1 - prod((*of_item, *of_chunk)) or None,
            "chunk_inclusion": 1 - prod(of_chunk) or None,
        }
    )


def known_inclusion(labels: Sequence[Label]) -> tuple[dict[str, float], bool]:
    """Return the probability with which each item was drawn, if it is known of all.

    Args:
        labels: Of one rater and run.

    Returns:
        Probabilities by item, empty unless all are known; and whether they are those of whole chunks.
    """
    of_chunks = {label.item_id: label.chunk_inclusion for label in labels}
    is_by_chunk = None not in of_chunks.values()
    known = of_chunks if is_by_chunk else {label.item_id: label.inclusion for label in labels}
    probabilities = {item_id: value for item_id, value in known.items() if value is not None}
    return (probabilities, is_by_chunk) if len(probabilities) == len(known) else ({}, False)


def uneven_inclusion(labels: Sequence[Label]) -> np.ndarray | None:
    """Return the probability with which the item of each label was drawn, by itself or with its chunk.

    Args:
        labels: Of one rater and run.

    Returns:
        Shape (n_labels,); None if not all are known, or all are alike.
    """
    drawn = [label.inclusion or label.chunk_inclusion for label in labels]
    if None in drawn or len(set(drawn)) < 2:
        return None
    return np.array(drawn, dtype=np.float64)


def with_settled(labels: Iterable[Label]) -> list[Label]:
    """Replace the letters of items that a third rater settled, and leave the settling labels out.

    Args:
        labels: Of all raters.

    Returns:
        Labels of the raters, in their order.
    """
    labels = list(labels)
    settling = settling_labels(labels)
    return [
        label
        if (third := settling(label)) is None
        else label.model_copy(update={"letter": third.letter, "flags": third.flags, "facts": third.facts})
        for label in labels
        if not label.settles
    ]


def settling_labels(labels: Iterable[Label]) -> Callable[[Label], Label | None]:
    """Return a function that finds the label of a third rater that settles a rater's label; it returns None where none does.

    A label that names no rubric is of that of the run. So a settling label of the same item and rubric counts, else one without a
    rubric; for a rater's label without a rubric any counts. Of several, the last counts.

    Args:
        labels: Of all raters.
    """
    of_rubric: dict[tuple[str, str], Label] = {}
    of_item: dict[str, Label] = {}
    for label in labels:
        if label.settles:
            of_rubric[label.item_id, label.rubric] = of_item[label.item_id] = label

    def find(label: Label) -> Label | None:
        if not label.rubric:
            return of_item.get(label.item_id)
        return of_rubric.get((label.item_id, label.rubric)) or of_rubric.get((label.item_id, ""))

    return find
