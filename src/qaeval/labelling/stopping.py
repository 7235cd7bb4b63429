"""Whether the labels of a sitting decide which candidate is best, so that it may end."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from qaeval.comparison.correction import ChunkRates
from qaeval.records import Label, LabelDraw, record_number
from qaeval.report.facts import RubricFacts
from qaeval.stats.stopping import Estimand, LabelDecision, decide_by_labels

ESTIMANDS: dict[Estimand, str] = {
    "pool": "about the chunks of this run",
    "future": "about documents to come that are like these",
}
"""What a decision is about, in words."""


def decide_sitting(
    table: pd.DataFrame,
    labels: Sequence[Label],
    draws: Sequence[LabelDraw],
    *,
    candidates: Sequence[str],
    rubric: RubricFacts,
    judge_tuned: bool,
    margin: float,
    estimand: Estimand,
) -> LabelDecision | None:
    """Decide from the labels of one rater; chunks count in the random order in which they were drawn.

    Chunks that were labelled before the first draw of this kind, and for ``pool`` those in which no candidate wrote an item, count as
    known. For ``future`` the latter have a random place among the others.

    Args:
        table: The table of letters.
        labels: Of the rater.
        draws: All draws of the rater, in their order; those with `until_decided` are the random sequence.
        candidates: At least two, in the order of the positions of the decision.
        rubric: Its scale.
        judge_tuned: Whether labels that the judge was tuned on are left out.
        margin: Smallest difference that matters, in (0, 1).
        estimand: ``pool`` or ``future``.

    Returns:
        None before the first label.
    """
    by_rater = ChunkRates.by_rater(table, labels, rubric, judge_tuned=judge_tuned)
    if not by_rater:
        return None
    names = list(candidates)
    (rates,) = (of_rater.of_both(names) for of_rater in by_rater.values())
    position = {str(chunk): index for index, chunk in enumerate(rates.judged.index)}
    labelled = rates.labelled[names].to_numpy(float).T.copy()
    complete = ~np.isnan(labelled).any(axis=0)
    is_empty = rates.n_items[names].sum(axis=1).to_numpy() == 0
    sequence = _sequence(table, draws, position)
    drawn = set(sequence)
    done = [index for index in sequence if complete[index] and not is_empty[index]]
    known = [index for index in np.flatnonzero(complete).tolist() if index not in drawn or is_empty[index]]
    if estimand == "future":
        seed = record_number("order", *(draw.draw_id for draw in draws))
        n_left = len(position) - len(drawn | set(known))
        done = _interleaved(done, known, len(drawn) - len(done) + n_left, np.random.default_rng(seed))
        masked = np.setdiff1d(np.flatnonzero(complete), done)
        labelled[:, masked] = np.nan
        known = []
    return decide_by_labels(
        rates.judged[names].to_numpy(float).T,
        labelled,
        [*known, *done],
        margin=margin,
        sizes=rates.sizes.to_numpy(float),
        n_before=len(known),
        estimand=estimand,
    )


def _sequence(table: pd.DataFrame, draws: Sequence[LabelDraw], position: dict[str, int]) -> list[int]:
    """Return the positions of the chunks that were drawn in random order, each once."""
    chunk_of = dict(zip(table["item_id"], table["cluster"], strict=True))
    chunks = (
        chunk_of[item_id]
        for draw in draws
        if draw.until_decided
        for item_id in draw.items
        if item_id in chunk_of
    )
    return [position[chunk] for chunk in dict.fromkeys(chunks) if chunk in position]


def _interleaved(
    done: Sequence[int], known: Sequence[int], n_left: int, rng: np.random.Generator
) -> list[int]:
    """Give the chunks that are known without a label random places among all, and return those that were reached."""
    slots = rng.integers(0, len(done) + n_left + 1, len(known))
    order: list[int] = []
    for index, chunk in enumerate(done):
        order += [other for other, slot in zip(known, slots.tolist(), strict=True) if slot == index]
        order.append(chunk)
    return order
