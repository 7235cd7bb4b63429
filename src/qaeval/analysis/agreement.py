"""The judge against the raters, and the raters against each other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan
from typing import Literal

import numpy as np
import pandas as pd

from qaeval.analysis import agreement_words as words
from qaeval.analysis.letters import GRADED, flag_column
from qaeval.errors import DataError
from qaeval.records import Label
from qaeval.report.document import (
    Coefficients,
    FlagAgreement,
    LabelledCandidate,
    LetterAgreement,
    RaterAgreement,
    RaterPair,
)
from qaeval.report.facts import RubricFacts
from qaeval.report.measure import Measure
from qaeval.stats import reliability
from qaeval.stats.estimate import Estimate


@dataclass(frozen=True)
class _Pair:
    """Letters of two raters on the same items, as codes; `a` is the reference."""

    a: np.ndarray
    b: np.ndarray
    clusters: np.ndarray
    n_levels: int

    def coefficients(self) -> Coefficients:
        a, b, clusters, k = self.a, self.b, self.clusters, self.n_levels
        confusion = reliability.confusion_matrix(a, b, k)
        most = reliability.kappa_max(a, b, n_levels=k)
        linear = reliability.kappa_interval(a, b, clusters, n_levels=k, weights="linear")
        return Coefficients(
            n=len(a),
            n_chunks=len(set(clusters)),
            confusion=tuple(tuple(int(n) for n in row) for row in confusion),
            observed=Measure.of(reliability.agreement_rate(a, b, clusters, n_levels=k)),
            kappa=Measure.of(reliability.kappa_interval(a, b, clusters, n_levels=k)),
            kappa_linear=Measure.of(linear),
            kappa_max=None if isnan(most) else float(most),
        )


def by_rater(labels: Iterable[Label], rubric: RubricFacts) -> dict[str, list[Label]]:
    """Tell labels apart by rater, and check them.

    Raises:
        DataError: a rater labelled an item twice, or used a letter or flag that the rubric does not have.
    """
    raters: dict[str, dict[str, Label]] = {}
    doubled, off = [], []
    for label in labels:
        own = raters.setdefault(label.rater, {})
        if label.item_id in own:
            doubled.append(label.item_id)
        if label.letter not in rubric.letters or set(label.flags) - set(rubric.flag_names):
            off.append(label.item_id)
        own[label.item_id] = label
    if doubled:
        raise DataError(
            f"labels: {len(doubled)} items have two labels by one rater: {', '.join(doubled[:3])}"
        )
    if off:
        known = f"{'/'.join(rubric.letters)} and flags {list(rubric.flag_names)}"
        raise DataError(f"labels: {len(off)} use letters or flags other than {known}: {', '.join(off[:3])}")
    return {rater: list(raters[rater].values()) for rater in sorted(raters)}


def judge_agreement(
    table: pd.DataFrame, labels: Iterable[Label], *, judge: str, rubric: RubricFacts, judge_tuned: bool
) -> tuple[RaterAgreement, ...]:
    """Compare the judge with every rater; labels that a tuned judge has seen are left out and counted."""
    raters = by_rater(labels, rubric)
    return tuple(
        _with_rater(table, own, judge=judge, rubric=rubric, judge_tuned=judge_tuned)
        for own in raters.values()
    )


def _with_rater(
    table: pd.DataFrame, labels: Sequence[Label], *, judge: str, rubric: RubricFacts, judge_tuned: bool
) -> RaterAgreement:
    kept = [label for label in labels if not (judge_tuned and label.split == "tuning")]
    in_run, graded = set(table["item_id"]), table[table["status"] == GRADED]
    items = graded.drop_duplicates("item_id").set_index("item_id")
    known = [label for label in kept if label.item_id in in_run]
    joined = [label for label in known if label.item_id in items.index]
    found = RaterAgreement(
        rater=labels[0].rater,
        rater_kind=_kind(labels),
        n_labels=len(labels),
        n_tuning_excluded=len(labels) - len(kept),
        n_ungraded=len(known) - len(joined),
        n_not_in_run=len(kept) - len(known),
        standing="no labels joined",
        sentences=(),
        coefficients=None,
    )
    if joined:
        found = _measured(found, joined, items, graded, rubric)
    return found.model_copy(update={"sentences": words.sentences(found, judge=judge, rubric=rubric)})


def _kind(labels: Sequence[Label]) -> Literal["human", "model", "mixed"]:
    kinds = {label.rater_kind for label in labels}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _measured(
    found: RaterAgreement,
    labels: Sequence[Label],
    items: pd.DataFrame,
    graded: pd.DataFrame,
    rubric: RubricFacts,
) -> RaterAgreement:
    own = items.loc[[label.item_id for label in labels]]
    code = {letter: place for place, letter in enumerate(rubric.letters)}
    reference = np.array([code[label.letter] for label in labels])
    judged = own["letter"].map(code).to_numpy(int)
    pair = _Pair(reference, judged, own["cluster"].to_numpy(object), len(code))
    coefficients = pair.coefficients()
    baseline = reliability.majority_baseline(reference, n_levels=len(code))
    accuracy = reliability.letter_accuracy(reference, judged, pair.clusters, n_levels=len(code))
    return found.model_copy(
        update={
            "standing": words.standing(coefficients, baseline),
            "coefficients": coefficients,
            "majority_letter": rubric.letters[int(np.bincount(reference).argmax())],
            "majority_baseline": baseline,
            "leniency": Measure.of(
                reliability.leniency(reference, judged, pair.clusters, n_levels=len(code))
            ),
            "letters": tuple(
                LetterAgreement(
                    letter=rubric.letters[one.letter],
                    recall=_rate(one.recall, labels[0].rater, "gave"),
                    precision=_rate(one.precision, "the judge", "gave"),
                )
                for one in accuracy
            ),
            "flags": tuple(_flag(name, labels, own) for name in rubric.flag_names),
            "candidates": _by_candidate(labels, graded, rubric.best),
        }
    )


def _flag(name: str, labels: Sequence[Label], own: pd.DataFrame) -> FlagAgreement:
    reference = np.array([int(name in label.flags) for label in labels])
    judged = own[flag_column(name)].to_numpy(int)
    clusters = own["cluster"].to_numpy(object)
    counts = reliability.confusion_matrix(reference, judged, 2)
    raised = reliability.letter_accuracy(reference, judged, clusters, n_levels=2)[1]
    return FlagAgreement(
        flag=name,
        n_both=int(counts[1, 1]),
        n_rater_only=int(counts[1, 0]),
        n_judge_only=int(counts[0, 1]),
        n_neither=int(counts[0, 0]),
        recall=_rate(raised.recall, labels[0].rater, "raised"),
        precision=_rate(raised.precision, "the judge", "raised"),
    )


def _rate(estimate: Estimate, who: str, did: str) -> Measure:
    """Take a rate over; where it does not exist, say who never gave the letter or raised the flag."""
    measure = Measure.of(estimate)
    return measure if estimate.is_defined else measure.model_copy(update={"reason": f"{who} never {did} it"})


def _by_candidate(labels: Sequence[Label], graded: pd.DataFrame, best: str) -> tuple[LabelledCandidate, ...]:
    given = {label.item_id: label.letter for label in labels}
    rows = graded[graded["item_id"].isin(list(given))]
    rows = rows.assign(by_rater=rows["item_id"].map(given) == best, by_judge=rows["letter"] == best)
    return tuple(
        LabelledCandidate(
            candidate=str(name),
            n=len(own),
            n_best_by_rater=int(own["by_rater"].sum()),
            n_best_by_judge=int(own["by_judge"].sum()),
        )
        for name, own in rows.groupby("candidate", sort=False)
    )


def rater_agreement(
    table: pd.DataFrame, labels: Iterable[Label], rubric: RubricFacts
) -> tuple[RaterPair, ...]:
    """Compare the raters with each other on the items that both labelled: the ceiling for any judge."""
    clusters = dict(zip(table["item_id"], table["cluster"], strict=True))
    code = {letter: place for place, letter in enumerate(rubric.letters)}
    pairs = []
    for (a, first), (b, second) in combinations(by_rater(labels, rubric).items(), 2):
        others = {label.item_id: label for label in second}
        shared = [(label, others[label.item_id]) for label in first if label.item_id in others]
        if not shared:
            continue
        pair = _Pair(
            np.array([code[one.letter] for one, _ in shared]),
            np.array([code[two.letter] for _, two in shared]),
            np.array(
                [clusters.get(one.item_id, one.chunk_id or one.item_id) for one, _ in shared], dtype=object
            ),
            len(code),
        )
        found = pair.coefficients()
        pairs.append(RaterPair(a=a, b=b, sentence=words.ceiling(a, b, found), coefficients=found))
    return tuple(pairs)
