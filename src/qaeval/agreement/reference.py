"""The letter by which a judge is measured on an item that several raters labelled."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy as np

from qaeval.agreement.panel import panel_letter
from qaeval.records import Label

RaterKind: TypeAlias = Literal["human", "model"]


@dataclass(frozen=True)
class Reference:
    """The letter by which the judge is measured on an item."""

    letter: str
    kind: RaterKind
    inclusion: float | None = field(default=None, compare=False)
    """Probability with which the item was drawn to be labelled, relative to the other items with a letter of this kind; None where that
    is not known, or all of them were drawn alike."""


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
    inclusion = {
        kind: _relative_inclusion(
            [label for label in labels if label.rater_kind == kind] for labels in by_rater.values()
        )
        for kind in get_args(RaterKind)
    }
    reference = {}
    for item_id, by_kind in given.items():
        kind: RaterKind = "human" if "human" in by_kind else "model"
        code, _ = panel_letter(by_kind[kind], n_members=len(by_kind[kind]))
        if code is not None:
            reference[item_id] = Reference(scale[code], kind, inclusion[kind].get(item_id))
    return reference


def inclusion_of(items: Iterable[Reference]) -> np.ndarray | None:
    """Return numbers proportional to the probability with which each item was drawn.

    Returns:
        Shape (n_items,); None where they are not known of all, all are alike, or labels of people and of models are mixed.
    """
    items = list(items)
    drawn = [item.inclusion for item in items]
    if None in drawn or len(set(drawn)) < 2 or len({item.kind for item in items}) > 1:
        return None
    return np.array(drawn, dtype=np.float64)


def _relative_inclusion(raters: Iterable[Sequence[Label]]) -> dict[str, float]:
    """Return the probability with which each item was drawn, relative to the largest; empty unless known of all, or if all are alike.

    The labels of several raters are samples of the same items, so an item has the sum of the weights that it has in each, by their
    numbers of labels: the mean of the raters' estimates. Source: Hartley 1962, for several frames.
    """
    weights: dict[str, float] = {}
    is_uneven = False
    for labels in raters:
        drawn = {label.item_id: label.inclusion or label.chunk_inclusion for label in labels}
        is_uneven = is_uneven or len(set(drawn.values())) > 1
        for item_id, probability in drawn.items():
            if probability is None:
                return {}
            weights[item_id] = weights.get(item_id, 0.0) + len(drawn) / probability
    smallest = min(weights.values(), default=1.0)
    return {item_id: smallest / weight for item_id, weight in weights.items()} if is_uneven else {}
