"""The letter by which a judge is measured on an item that several raters labelled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from qaeval.agreement.panel import panel_letter
from qaeval.records import Label

RaterKind: TypeAlias = Literal["human", "model"]


@dataclass(frozen=True)
class Reference:
    """The letter by which the judge is measured on an item."""

    letter: str
    kind: RaterKind


def reference_letters(by_rater: Mapping[str, Sequence[Label]], scale: Sequence[str]) -> dict[str, Reference]:
    """Return the letter of each labelled item, by people where a person labelled it, else by models.

    Of several raters the most frequent letter counts; of a tie the median, the worse of the middle two, as in a panel.

    Args:
        by_rater: Labels under one rubric; a letter that settles a difference has replaced both.
        scale: Letters, best first.
    """
    given: dict[str, dict[RaterKind, list[int]]] = {}
    for labels in by_rater.values():
        for label in labels:
            of_item = given.setdefault(label.item_id, {})
            of_item.setdefault(label.rater_kind, []).append(scale.index(label.letter))
    reference = {}
    for item_id, by_kind in given.items():
        kind: RaterKind = "human" if "human" in by_kind else "model"
        code, _ = panel_letter(by_kind[kind], n_members=len(by_kind[kind]))
        if code is not None:
            reference[item_id] = Reference(scale[code], kind)
    return reference
