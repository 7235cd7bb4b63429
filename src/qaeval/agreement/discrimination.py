"""Whether a judge tells anything apart: planted controls, labels, and the letters that it gave.

A judge that gives the best letter to dots, or to the answer of another chunk, says nothing of the candidates, and
more chunks would not change that. One letter for nearly all items is no reason by itself: a good run has it, and its
controls then pass.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

import pandas as pd
from scipy.special import bdtr

from qaeval.agreement.model import ControlCount, JudgeDiscrimination, RaterAgreement
from qaeval.analysis.letters import GRADED
from qaeval.records import Control, Grade
from qaeval.report.numbers import listed, plural

MIN_CONTROLS: Final = 6
"""Graded controls from which these decide."""
MIN_ITEMS: Final = 30
"""Graded items from which one letter for nearly all of them decides, where no controls were graded."""
MAX_SHARE: Final = 0.95
"""Share of the items with one letter."""
_GOOD_RECALL: Final = 0.8
_MAX_FALSE_ALARMS: Final = 0.01
"""A judge that gives a control the best letter with probability .2 is refused with this probability at most."""
_MIN_RECALL: Final = 0.5
"""Labels show that a judge finds what is below the best letter where the recall's interval is above this, the share
of controls that refutes it."""


@lru_cache
def max_best(n: int) -> int:
    """Return how many of n controls may have the best letter.

    A judge is refuted by half of them or more, if that is also more than a judge with a recall of .8 would give in
    one run of a hundred (exact binomial): by 5 of 6 controls, by 6 of 10.

    Args:
        n: Graded controls, at least 1.
    """
    by_chance = next(k for k in range(n + 1) if bdtr(k, n, 1 - _GOOD_RECALL) >= 1 - _MAX_FALSE_ALARMS)
    return max((n - 1) // 2, by_chance)


def letter_counts(table: pd.DataFrame) -> dict[str, int]:
    """Count the different items with each letter.

    Args:
        table: The table of letters of a run, see `qaeval.analysis.letters.letter_table`.
    """
    graded = table[table["status"] == GRADED].drop_duplicates("item_id")
    return {str(letter): int(n) for letter, n in graded["letter"].value_counts().items()}


def judge_discrimination(
    controls: Iterable[Control],
    letters: Mapping[str, int],
    agreement: Sequence[RaterAgreement],
    *,
    judge: str,
    best: str,
) -> JudgeDiscrimination:
    """Say whether a judge tells anything apart.

    Args:
        controls: The planted controls of the run; none in a run without.
        letters: Number of different items with each letter.
        agreement: The judge against raters; labels overrule the controls.
        judge: Its name.
        best: The best letter of the scale.
    """
    controls = tuple(controls)
    graded = [
        (control.defect, control.grade.letter) for control in controls if isinstance(control.grade, Grade)
    ]
    letter, n_letter = max(letters.items(), key=lambda count: (count[1], count[0] == best), default=("", 0))
    measured = JudgeDiscrimination(
        outcome="not shown",
        n_controls=len(controls),
        n_graded=len(graded),
        n_best=sum(given == best for _, given in graded),
        n_pending=sum(control.is_pending for control in controls),
        defects=tuple(
            ControlCount(
                defect=defect,
                n_graded=sum(of == defect for of, _ in graded),
                n_best=graded.count((defect, best)),
            )
            for defect in dict.fromkeys(of for of, _ in graded)
        ),
        letter=letter,
        n_letter=n_letter,
        n_items=sum(letters.values()),
        raters=tuple(rater.rater for rater in agreement if _shows_recall(rater)),
    )
    decided = measured.model_copy(update=_decide(measured))
    return decided.model_copy(update={"sentence": _sentence(decided, judge, best)})


def _shows_recall(rater: RaterAgreement) -> bool:
    recall = rater.lower_recall
    return recall is not None and recall.low is not None and recall.low > _MIN_RECALL


def _decide(measured: JudgeDiscrimination) -> dict[str, str]:
    if measured.raters:
        return {"outcome": "tells apart", "basis": "labels"}
    if measured.n_graded >= MIN_CONTROLS:
        passes = measured.n_best <= max_best(measured.n_graded)
        return {"outcome": "tells apart" if passes else "tells nothing apart", "basis": "controls"}
    is_one_letter = measured.n_items >= MIN_ITEMS and measured.n_letter >= MAX_SHARE * measured.n_items
    # fewer controls than decide can still refute that the judge knows one letter alone
    if is_one_letter and measured.n_best == measured.n_graded:
        return {"outcome": "tells nothing apart", "basis": "letters"}
    return {}


def _sentence(measured: JudgeDiscrimination, judge: str, best: str) -> str:
    """Say what controls, labels and letters show, with the counts; an empty string where there is nothing to say."""
    counts = ", ".join(
        f"{count.n_best:,} of {count.n_graded:,} with {_DEFECTS[count.defect]}" for count in measured.defects
    )
    controls = f"{judge} gave {best} to {measured.n_best:,} of {plural(measured.n_graded, 'planted control')} ({counts})"
    if measured.outcome == "tells nothing apart":
        letters = (
            f"{judge} gave {measured.letter} to {measured.n_letter:,} of {plural(measured.n_items, 'item')}"
        )
        few = controls if measured.n_graded else "no planted control was graded"
        text = f"The judge tells nothing apart: {controls if measured.basis == 'controls' else f'{letters}, and {few}'}."
    elif measured.n_graded:
        labels = (
            f"; the labels by {listed(measured.raters)} show that it finds items below {best}"
            if measured.basis == "labels"
            else ""
        )
        text = f"{controls}{labels}."
    else:
        text = ""
    if measured.n_pending:
        pending = plural(measured.n_pending, "planted control is", "planted controls are")
        text = f"{text} {pending} not graded yet; `qaeval grade` completes them."
    return text.strip()


_DEFECTS: Final = {"placeholder": "dots as the answer", "foreign answer": "another chunk's answer"}
