"""Agreement between the judge and each rater, and between raters.

Builds the document of ``qaeval agreement`` from a run or from a table with one column of letters per rater.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from qaeval.agreement import messages
from qaeval.agreement.coefficients import Paired
from qaeval.agreement.label_rows import settling_labels, uneven_inclusion, with_settled
from qaeval.agreement.model import (
    NO_ORDER,
    AgreementReport,
    FactAgreement,
    FlagAgreement,
    GroupAgreement,
    LabelledCandidate,
    LetterAgreement,
    MultiRaterAgreement,
    RaterAgreement,
    RaterPair,
)
from qaeval.agreement.rater_quality import rater_quality
from qaeval.agreement.scale import Scale
from qaeval.analysis.letters import GRADED, fact_column, flag_column
from qaeval.calibration.analysis import soft_grades
from qaeval.errors import DataError
from qaeval.records import Label
from qaeval.report import numbers
from qaeval.report.facts import FactMeaning, Meaning, RubricFacts
from qaeval.report.measure import Measure
from qaeval.report.numbers import plural
from qaeval.stats import multirater, reliability
from qaeval.stats.estimate import Estimate


def fits(label: Label, rubric: RubricFacts) -> bool:
    """Return whether a label belongs to this rubric, or names none; letters of two rubrics are never compared."""
    return not label.rubric or label.rubric in rubric.label_names


def by_rater(labels: Iterable[Label], rubric: RubricFacts) -> dict[str, list[Label]]:
    """Group labels by rater, and check those that were given under this rubric.

    Labels under another rubric, or another version of it, are kept and not checked: their letters are never compared. Letters that
    settle a difference between raters are left out.

    Raises:
        DataError: a rater gave an item two different labels, or used a letter or flag that the rubric does not have.
    """
    raters: dict[str, dict[tuple[str, bool], Label]] = {}
    comparable, invalid = [], []
    for label in labels:
        if label.settles:
            continue
        is_comparable = fits(label, rubric)
        raters.setdefault(label.rater, {})[label.item_id, is_comparable] = label
        if not is_comparable:
            continue
        comparable.append(label)
        if wrong := _wrong_answers(label, rubric):
            invalid.append(f"{label.item_id} ({label.rater}: {wrong[0]})")
        if label.letter not in rubric.letters or set(label.flags) - set(rubric.flag_names):
            invalid.append(
                f"{label.item_id} ({label.rater}: {label.letter!r}{' ' + ', '.join(label.flags) if label.flags else ''})"
            )
    require_no_contradiction(comparable)
    if invalid:
        scale = f"{'/'.join(rubric.letters)} and flags {list(rubric.flag_names)}"
        facts = "".join(f", {fact.name} {'/'.join(fact.answers)}" for fact in rubric.facts)
        raise DataError(
            f"labels: {len(invalid)} use letters or flags other than {scale}{facts}: {', '.join(invalid[:3])}"
        )
    return {rater: list(raters[rater].values()) for rater in sorted(raters)}


def _wrong_answers(label: Label, rubric: RubricFacts) -> list[str]:
    """Return the answers of a label that the rubric does not have; facts of another rubric do not count."""
    answers = {fact.name: fact.answers for fact in rubric.facts}
    return [
        f"{fact}: {answer!r}"
        for fact, answer in label.facts.items()
        if fact in answers and answer not in answers[fact]
    ]


def require_no_contradiction(labels: Iterable[Label]) -> None:
    """Refuse two different labels of one rater for one item.

    Args:
        labels: Under the same rubric; of any raters.

    Raises:
        DataError: there are such labels; the message names the first three items with both letters.
    """
    first: dict[tuple[str, str], Label] = {}
    doubled = []
    for label in labels:
        before = first.setdefault((label.rater, label.item_id), label)
        if (before.letter, before.flags) != (label.letter, label.flags):
            doubled.append(f"{label.item_id} ({label.rater}: {before.letter} and {label.letter})")
    if doubled:
        raise DataError(
            f"labels: {plural(len(doubled), 'item has', 'items have')} two different labels by the same rater: {', '.join(doubled[:3])}; keep the "
            f"one that is right, or give the second reading another rater"
        )


def comparable_labels(
    labels: Iterable[Label], rubric: RubricFacts, *, judge_tuned: bool
) -> dict[str, list[Label]]:
    """Return the labels by rater that a run's letters can be compared with.

    Args:
        labels: Of all raters.
        rubric: The run's; labels under another one are left out.
        judge_tuned: Whether to leave out the labels that the judge was tuned on.

    Raises:
        DataError: As in `by_rater`.
    """
    comparable = (
        label
        for label in with_settled(labels)
        if fits(label, rubric) and not (judge_tuned and label.split == "tuning")
    )
    return by_rater(comparable, rubric)


def judge_agreement(
    table: pd.DataFrame,
    labels: Iterable[Label],
    *,
    judge: str,
    rubric: RubricFacts,
    judge_tuned: bool,
    repeats: Iterable[Label] = (),
) -> tuple[RaterAgreement, ...]:
    """Compare the judge with every rater; labels used to tune the judge are excluded and counted.

    Args:
        table: The table of letters.
        labels: Of all raters. Where a third rater settled a difference, that letter is the reference.
        judge: Judge of the run.
        rubric: Rubric of the run.
        judge_tuned: Exclude labels of the tuning half.
        repeats: Second labels of the same raters; they show how far a rater agrees with itself.
    """
    labels = list(labels)
    given = by_rater(labels, rubric)
    settling = settling_labels(labels)
    again = [label for label in repeats if fits(label, rubric)]
    agreement = []
    for name, reference in by_rater(with_settled(labels), rubric).items():
        own = [label for label in given[name] if fits(label, rubric)]
        settled_by = [third.rater for label in own if (third := settling(label))]
        facts = {
            "n_settled": len(settled_by),
            "settled_by": tuple(sorted(set(settled_by))),
            "quality": rater_quality(own, [label for label in again if label.rater == name], rubric.best),
        }
        agreement.append(
            _with_rater(table, reference, facts, judge=judge, rubric=rubric, judge_tuned=judge_tuned)
        )
    return tuple(agreement)


def _with_rater(
    table: pd.DataFrame,
    labels: Sequence[Label],
    facts: Mapping[str, Any],
    *,
    judge: str,
    rubric: RubricFacts,
    judge_tuned: bool,
) -> RaterAgreement:
    rubric_labels = [label for label in labels if fits(label, rubric)]
    unseen = [label for label in rubric_labels if not (judge_tuned and label.split == "tuning")]
    in_run, graded = set(table["item_id"]), table[table["status"] == GRADED]
    items = graded.drop_duplicates("item_id").set_index("item_id")
    present = [label for label in unseen if label.item_id in in_run]
    joined = [label for label in present if label.item_id in items.index]
    rater = RaterAgreement(
        rater=labels[0].rater,
        rater_kind=_kind(labels),
        n_labels=len(labels),
        n_tuning_excluded=len(rubric_labels) - len(unseen),
        n_other_rubric=len(labels) - len(rubric_labels),
        n_ungraded=len(present) - len(joined),
        n_not_in_run=len(unseen) - len(present),
        standing="no labels joined",
        sentences=(),
        coefficients=None,
        **facts,
    )
    if joined:
        rater = _joined_agreement(rater, joined, items, graded, rubric)
    return rater.model_copy(update={"sentences": messages.sentences(rater, judge=judge, rubric=rubric)})


def _kind(labels: Sequence[Label]) -> Literal["human", "model", "mixed"]:
    kinds = {label.rater_kind for label in labels}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _joined_agreement(
    rater: RaterAgreement,
    labels: Sequence[Label],
    items: pd.DataFrame,
    graded: pd.DataFrame,
    rubric: RubricFacts,
) -> RaterAgreement:
    rows = items.loc[[label.item_id for label in labels]]
    code = {letter: index for index, letter in enumerate(rubric.letters)}
    reference = np.array([code[label.letter] for label in labels])
    judged = rows["letter"].map(code).to_numpy(int)
    inclusion = uneven_inclusion(labels)
    pair = Paired(reference, judged, rows["cluster"].to_numpy(object), len(code), inclusion)
    return measured(rater, pair, rubric.letters).model_copy(
        update={
            "flags": tuple(_flag(name, labels, rows, inclusion) for name in rubric.flag_names),
            "facts": tuple(
                agreement for fact in rubric.facts if (agreement := _fact(fact, labels, rows, inclusion))
            ),
            "candidates": _by_candidate(labels, graded, rubric.best),
        }
    )


def measured(rater: RaterAgreement, pair: Paired, letters: Sequence[str]) -> RaterAgreement:
    """Return a rater with every statistic of the letters of rater (`pair.a`) and judge (`pair.b`)."""
    k = len(letters)
    coefficients, drawn = pair.coefficients(), pair.inclusion
    by_letter = pair.tables().sum(axis=(0, 2))
    lift = Measure.of(
        reliability.lift_over_majority(pair.a, pair.b, pair.clusters, n_levels=k, inclusion=drawn)
    )
    accuracy = reliability.letter_accuracy(pair.a, pair.b, pair.clusters, n_levels=k, inclusion=drawn)
    lower = reliability.letter_accuracy(
        (pair.a > 0).astype(int), (pair.b > 0).astype(int), pair.clusters, n_levels=2, inclusion=drawn
    )[1]
    return rater.model_copy(
        update={
            "standing": messages.standing(coefficients, lift),
            "coefficients": coefficients,
            "is_weighted": drawn is not None,
            "majority_letter": letters[int(by_letter.argmax())],
            "majority_baseline": float(by_letter.max() / by_letter.sum()),
            "lift": lift,
            "leniency": Measure.of(
                reliability.leniency(pair.a, pair.b, pair.clusters, n_levels=k, inclusion=drawn)
            )
            if pair.is_ordered
            else None,
            "lower_recall": _rate(lower.recall, rater.rater, "gave") if pair.is_ordered else None,
            "letters": tuple(
                LetterAgreement(
                    letter=letters[accuracy.letter],
                    recall=_rate(accuracy.recall, rater.rater, "gave"),
                    precision=_rate(accuracy.precision, "the judge", "gave"),
                )
                for accuracy in accuracy
            ),
        }
    )


def _flag(
    name: str, labels: Sequence[Label], rows: pd.DataFrame, inclusion: np.ndarray | None
) -> FlagAgreement:
    reference = np.array([int(name in label.flags) for label in labels])
    judged = rows[flag_column(name)].to_numpy(int)
    clusters = rows["cluster"].to_numpy(object)
    counts = reliability.confusion_matrix(reference, judged, 2)
    raised = reliability.letter_accuracy(reference, judged, clusters, n_levels=2, inclusion=inclusion)[1]
    return FlagAgreement(
        flag=name,
        n_both=int(counts[1, 1]),
        n_rater_only=int(counts[1, 0]),
        n_judge_only=int(counts[0, 1]),
        n_neither=int(counts[0, 0]),
        recall=_rate(raised.recall, labels[0].rater, "raised"),
        precision=_rate(raised.precision, "the judge", "raised"),
    )


def _fact(
    fact: FactMeaning, labels: Sequence[Label], rows: pd.DataFrame, inclusion: np.ndarray | None
) -> FactAgreement | None:
    """Compare the answers to a fact; None where no label and its item's grade both have one."""
    code = {answer: index for index, answer in enumerate(fact.answers)}
    given = [code.get(label.facts.get(fact.name, ""), -1) for label in labels]
    reference, judged = np.array(given), rows[fact_column(fact.name)].map(code).fillna(-1).to_numpy(int)
    shared = (reference >= 0) & (judged >= 0)
    if not shared.any():
        return None
    clusters = rows["cluster"].to_numpy(object)
    drawn = None if inclusion is None else inclusion[shared]
    pair = Paired(reference[shared], judged[shared], clusters[shared], len(code), drawn).coefficients()
    return FactAgreement(
        fact=fact.name,
        answers=fact.answers,
        n=pair.n,
        confusion=pair.confusion,
        observed=pair.observed,
        kappa=pair.kappa
        if pair.kappa.value is not None
        else pair.kappa.model_copy(update={"reason": "both gave every item the same answer"}),
    )


def _rate(estimate: Estimate, subject: str, action: str) -> Measure:
    """Convert a rate; the reason of an undefined one names who never gave the letter or raised the flag."""
    measure = Measure.of(estimate)
    return (
        measure
        if estimate.is_defined
        else measure.model_copy(update={"reason": f"{subject} never {action} it"})
    )


def _by_candidate(labels: Sequence[Label], graded: pd.DataFrame, best: str) -> tuple[LabelledCandidate, ...]:
    letters = {label.item_id: label.letter for label in labels}
    rows = graded[graded["item_id"].isin(list(letters))]
    rows = rows.assign(by_rater=rows["item_id"].map(letters) == best, by_judge=rows["letter"] == best)
    return tuple(
        LabelledCandidate(
            candidate=str(name),
            n=len(group),
            n_best_by_rater=int(group["by_rater"].sum()),
            n_best_by_judge=int(group["by_judge"].sum()),
        )
        for name, group in rows.groupby("candidate", sort=False)
    )


def rater_agreement(
    table: pd.DataFrame, labels: Iterable[Label], rubric: RubricFacts, judged: Sequence[RaterAgreement]
) -> tuple[RaterPair, ...]:
    """Compare the raters with each other on the items that both labelled.

    Args:
        table: The table of letters, with the cluster of each item.
        labels: Labels of all raters.
        rubric: The rubric of the run.
        judged: Agreement of the judge with the same raters, for comparison.
    """
    clusters = dict(zip(table["item_id"], table["cluster"], strict=True))
    code = {letter: index for index, letter in enumerate(rubric.letters)}
    pairs = []
    rubric_labels = [label for label in labels if fits(label, rubric)]
    for (a, first), (b, second) in combinations(by_rater(rubric_labels, rubric).items(), 2):
        second_labels = {label.item_id: label for label in second}
        shared = [(label, second_labels[label.item_id]) for label in first if label.item_id in second_labels]
        if shared:
            # a labelled item outside the run has no row in the table: its label may still name the chunk
            label_clusters = [
                clusters.get(label.item_id, label.chunk_id or label.item_id) for label, _ in shared
            ]
            pair = Paired(
                np.array([code[label.letter] for label, _ in shared]),
                np.array([code[label.letter] for _, label in shared]),
                np.array(label_clusters, dtype=object),
                len(code),
            )
            independent = {_kind(first), _kind(second)} != {"model"}
            pairs.append(rater_pair(a, b, pair, judged, independent=independent))
    return tuple(pairs)


def rater_pair(
    a: str, b: str, pair: Paired, judged: Sequence[RaterAgreement], *, independent: bool = True
) -> RaterPair:
    """Compare two raters with each other."""
    coefficients = pair.coefficients()
    sentence = messages.between_raters(a, b, coefficients, judged, independent=independent)
    return RaterPair(a=a, b=b, sentence=sentence, coefficients=coefficients)


def compare_all_raters(
    raters: Sequence[str],
    ratings: np.ndarray,
    clusters: np.ndarray,
    n_levels: int,
    *,
    is_ordered: bool = True,
) -> MultiRaterAgreement | None:
    """Measure the agreement of all raters together; None with fewer than three, or if no item has two letters.

    Args:
        raters: Names, in the order of the columns.
        ratings: Codes of the letters, shape (n_items, n_raters), NaN where a letter is missing.
        clusters: Cluster of each item, shape (n_items,).
        n_levels: Number of letters on the scale.
        is_ordered: Whether the letters have an order.
    """
    if len(raters) < 3:
        return None
    counts = multirater.rating_counts(ratings, n_levels=n_levels)
    n_items = int((counts.sum(axis=1) > 1).sum())
    if not n_items:
        return None
    alpha, ordinal = (
        multirater.krippendorff_interval(ratings, clusters, n_levels=n_levels, metric=metric)
        for metric in ("nominal", "ordinal")
    )
    return MultiRaterAgreement(
        raters=tuple(raters),
        n_items=n_items,
        fleiss=Measure.of(multirater.fleiss_interval(ratings, clusters, n_levels=n_levels)),
        alpha=Measure.of(alpha),
        alpha_ordinal=Measure.of(ordinal) if is_ordered else Measure.of(ordinal).without_value(NO_ORDER),
    )


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The roles of the columns of a table."""

    raters: tuple[str, ...]
    """Columns of letters, the reference first."""
    judge: str = ""
    """The rater that is compared with all others; empty: only the raters are compared with each other."""
    cluster: str = ""
    """Column of clusters; empty: the rows are independent."""
    by: str = ""
    """Column of groups that are analysed separately."""


def report_of_run(
    table: pd.DataFrame,
    labels: Sequence[Label],
    *,
    source: str,
    judge: str,
    rubric: RubricFacts,
    judge_tuned: bool,
    by: str = "",
    repeats: Sequence[Label] = (),
) -> AgreementReport:
    """Compare the judge of a run with the labels, and the raters with each other.

    Args:
        table: The table of letters.
        labels: Labels of all raters.
        source: Name of the run in the document.
        judge: Judge of the run.
        rubric: Rubric of the run.
        judge_tuned: Exclude labels of the tuning half.
        by: ``"candidate"``, ``"stratum"`` or ``"type"``; empty: no groups.
        repeats: Second labels of the same raters.

    Raises:
        DataError: there are no labels, or they contradict each other or the rubric.
    """
    if not labels:
        raise DataError(
            f"{source}: no labels to compare the judge with; label items with `qaeval label`, or name a file with --labels"
        )
    if not any(fits(label, rubric) for label in labels):
        others = numbers.listed(sorted({label.rubric for label in labels}))
        raise DataError(
            f"{source}: all {len(labels):,} labels were given under {others}, and the run was graded under {rubric.label_name}; their letters "
            f"cannot be compared. Label the items anew, or grade the run with that rubric"
        )
    if not set(table["item_id"]) & {label.item_id for label in labels}:
        raise DataError(
            f"{source}: none of the {len(labels):,} labels belongs to an item of this run; check that they are labels of this run and eval"
        )
    agreement = judge_agreement(
        table, labels, judge=judge, rubric=rubric, judge_tuned=judge_tuned, repeats=repeats
    )
    groups = []
    for group in sorted(set(table.loc[table["status"] == GRADED, by])) if by else []:
        in_group = judge_agreement(
            table[table[by] == group], labels, judge=judge, rubric=rubric, judge_tuned=judge_tuned
        )
        groups += [
            GroupAgreement(group=group, agreement=rater)
            for rater in in_group
            if rater.coefficients is not None
        ]
    return AgreementReport(
        source=source,
        judge=judge,
        letters=rubric.letters,
        agreement=agreement,
        raters=rater_agreement(table, labels, rubric, agreement),
        several=all_rater_agreement(labels, rubric, table),
        by=by,
        groups=tuple(groups),
        soft=soft_grades(
            table, comparable_labels(labels, rubric, judge_tuned=judge_tuned), letters=rubric.letters
        ),
    )


def all_rater_agreement(
    labels: Iterable[Label], rubric: RubricFacts, table: pd.DataFrame
) -> MultiRaterAgreement | None:
    """Measure the agreement of all raters of a run together; None with fewer than three.

    Args:
        labels: Of all raters.
        rubric: Rubric of the run.
        table: The table of letters, with the cluster of each item.
    """
    raters = by_rater([label for label in labels if fits(label, rubric)], rubric)
    code = {letter: index for index, letter in enumerate(rubric.letters)}
    ratings = pd.DataFrame(
        {
            rater: pd.Series({label.item_id: code[label.letter] for label in rater_labels})
            for rater, rater_labels in raters.items()
        }
    )
    cluster_of = dict(zip(table["item_id"], table["cluster"], strict=True))
    clusters = np.array([cluster_of.get(item, item) for item in ratings.index], dtype=object)
    return compare_all_raters(tuple(raters), ratings.to_numpy(float), clusters, len(code))


def report_of_columns(table: pd.DataFrame, columns: Columns, *, source: str, scale: Scale) -> AgreementReport:
    """Compare the columns of a table.

    Args:
        table: One row per item, all cells strings; a missing letter is an empty string.
        columns: Roles of the columns.
        source: Name of the file in the document.
        scale: Letters of the table.

    Raises:
        DataError: no item has letters of two raters.
    """
    letters = scale.letters
    rubric = RubricFacts(name="", sha="", scale=tuple(Meaning(name=letter, meaning="") for letter in letters))
    names = table[columns.cluster] if columns.cluster else table.index.astype(str)
    # whole numbers in the order of the names: all statistics below group by them, and strings are slow to sort
    clusters = pd.Series(pd.factorize(names, sort=True)[0], table.index)
    agreement = _against(table, clusters, columns, rubric, is_ordered=scale.is_ordered)
    raters = [name for name in columns.raters if name != columns.judge]
    pairs = [
        rater_pair(a, b, pair, agreement)
        for a, b in combinations(raters, 2)
        if (pair := _paired(table, clusters, a, b, letters, is_ordered=scale.is_ordered)) is not None
    ]
    if not agreement and not pairs:
        raise DataError(f"{source}: no row has letters in two of the columns {', '.join(columns.raters)}")
    groups = [
        GroupAgreement(group=str(group), agreement=rater)
        for group, rows in (table.groupby(columns.by, sort=True) if columns.by else ())
        for rater in _against(rows, clusters.loc[rows.index], columns, rubric, is_ordered=scale.is_ordered)
    ]
    code = {letter: float(index) for index, letter in enumerate(letters)}
    ratings = np.column_stack([table[name].map(code).to_numpy(float) for name in raters])
    return AgreementReport(
        source=source,
        judge=columns.judge,
        letters=tuple(letters),
        agreement=agreement,
        raters=tuple(pairs),
        several=compare_all_raters(
            raters, ratings, clusters.to_numpy(), len(letters), is_ordered=scale.is_ordered
        ),
        by=columns.by,
        groups=tuple(groups),
        n_without_cluster=0 if columns.cluster else len(table),
        order=scale.order,
        is_scale_assumed=scale.order == "numbers",
        merged=scale.merged,
    )


def _against(
    table: pd.DataFrame,
    clusters: "pd.Series[int]",
    columns: Columns,
    rubric: RubricFacts,
    *,
    is_ordered: bool,
) -> tuple[RaterAgreement, ...]:
    """Compare the judge with every other rater that shares an item with it."""
    if not columns.judge:
        return ()
    raters = []
    for rater in columns.raters:
        pair = (
            _paired(table, clusters, rater, columns.judge, rubric.letters, is_ordered=is_ordered)
            if rater != columns.judge
            else None
        )
        if pair is None:
            continue
        n_labels = int((table[rater] != "").sum())
        agreement = RaterAgreement(
            rater=rater,
            rater_kind="unknown",
            n_labels=n_labels,
            n_tuning_excluded=0,
            n_ungraded=n_labels - len(pair.a),
            n_not_in_run=0,
            standing="no labels joined",
            sentences=(),
            coefficients=None,
        )
        agreement = measured(agreement, pair, rubric.letters)
        raters.append(
            agreement.model_copy(
                update={"sentences": messages.sentences(agreement, judge=columns.judge, rubric=rubric)}
            )
        )
    return tuple(raters)


def _paired(
    table: pd.DataFrame,
    clusters: "pd.Series[int]",
    a: str,
    b: str,
    letters: Sequence[str],
    *,
    is_ordered: bool,
) -> Paired | None:
    shared = (table[a] != "") & (table[b] != "")
    if not shared.any():
        return None
    code = {letter: index for index, letter in enumerate(letters)}
    first, second = (table.loc[shared, name].map(code).to_numpy(int) for name in (a, b))
    return Paired(first, second, clusters[shared].to_numpy(), len(letters), is_ordered=is_ordered)
