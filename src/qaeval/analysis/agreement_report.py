"""The document of ``qaeval agreement``, of a run or of a table with a column of letters per rater."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from qaeval.analysis import agreement_words as words
from qaeval.analysis.agreement import (
    by_rater,
    fits,
    judge_agreement,
    measured,
    rater_agreement,
    rater_pair,
    several,
)
from qaeval.analysis.coefficients import Paired
from qaeval.analysis.letters import GRADED
from qaeval.errors import DataError
from qaeval.records import Label
from qaeval.report.agreement import AgreementReport, GroupAgreement, RaterAgreement, Several
from qaeval.report.facts import Meaning, RubricFacts


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a table hold what."""

    raters: tuple[str, ...]
    """Columns of letters; the first one is the reference where nothing else is said."""
    judge: str = ""
    """The rater that is compared with all others; empty: the raters are compared with each other alone."""
    cluster: str = ""
    """What makes items dependent; empty: every row is taken for independent."""
    by: str = ""
    """Column of groups to look at one by one."""


def report_of_run(
    table: pd.DataFrame,
    labels: Sequence[Label],
    *,
    source: str,
    judge: str,
    rubric: RubricFacts,
    judge_tuned: bool,
    by: str = "",
) -> AgreementReport:
    """Compare a run's judge with the labels, and the raters with each other.

    Args:
        table: The table of letters.
        labels: Labels of all raters.
        source: The run, for the reader.
        judge: Its judge.
        rubric: Its rubric.
        judge_tuned: Whether labels of the tuning half are to be left out.
        by: ``"candidate"``, ``"stratum"`` or ``"type"``; empty: no groups.

    Raises:
        DataError: there are no labels, a rater labelled an item twice, or used a letter off the scale.
    """
    if not labels:
        raise DataError(f"{source}: no labels to compare the judge with; name a file with --labels")
    if not set(table["item_id"]) & {label.item_id for label in labels}:
        raise DataError(
            f"{source}: none of the {len(labels):,} labels is of an item of this run; are they of another run or eval?"
        )
    agreement = judge_agreement(table, labels, judge=judge, rubric=rubric, judge_tuned=judge_tuned)
    groups = []
    for group in sorted(set(table.loc[table["status"] == GRADED, by])) if by else []:
        own = judge_agreement(
            table[table[by] == group], labels, judge=judge, rubric=rubric, judge_tuned=judge_tuned
        )
        groups += [GroupAgreement(group=group, agreement=one) for one in own if one.coefficients is not None]
    return AgreementReport(
        source=source,
        judge=judge,
        letters=rubric.letters,
        agreement=agreement,
        raters=rater_agreement(table, labels, rubric, agreement),
        several=_several_of(labels, rubric, table),
        by=by,
        groups=tuple(groups),
    )


def _several_of(labels: Iterable[Label], rubric: RubricFacts, table: pd.DataFrame) -> Several | None:
    raters = by_rater([label for label in labels if fits(label, rubric)], rubric)
    code = {letter: place for place, letter in enumerate(rubric.letters)}
    given = pd.DataFrame(
        {
            rater: pd.Series({label.item_id: code[label.letter] for label in own})
            for rater, own in raters.items()
        }
    )
    belongs = dict(zip(table["item_id"], table["cluster"], strict=True))
    clusters = np.array([belongs.get(item, item) for item in given.index], dtype=object)
    return several(tuple(raters), given.to_numpy(float), clusters, len(code))


def report_of_columns(
    table: pd.DataFrame, columns: Columns, *, source: str, letters: Sequence[str]
) -> AgreementReport:
    """Compare the columns of a table.

    Args:
        table: A row per item, all cells text, a missing letter the empty text.
        columns: What to compare.
        source: The file, for the reader.
        letters: The scale, best first.

    Raises:
        DataError: no item has letters of two raters.
    """
    rubric = RubricFacts(name="", sha="", scale=tuple(Meaning(name=one, meaning="") for one in letters))
    clusters = table[columns.cluster] if columns.cluster else pd.Series(table.index.astype(str), table.index)
    agreement = _against(table, clusters, columns, rubric)
    raters = [name for name in columns.raters if name != columns.judge]
    pairs = [
        rater_pair(a, b, pair, agreement)
        for a, b in combinations(raters, 2)
        if (pair := _paired(table, clusters, a, b, letters)) is not None
    ]
    if not agreement and not pairs:
        raise DataError(f"{source}: no row has letters in two of the columns {', '.join(columns.raters)}")
    groups = [
        GroupAgreement(group=str(group), agreement=one)
        for group, rows in (table.groupby(columns.by, sort=True) if columns.by else ())
        for one in _against(rows, clusters.loc[rows.index], columns, rubric)
    ]
    code = {letter: float(place) for place, letter in enumerate(letters)}
    ratings = np.column_stack([table[name].map(code).to_numpy(float) for name in raters])
    return AgreementReport(
        source=source,
        judge=columns.judge,
        letters=tuple(letters),
        agreement=agreement,
        raters=tuple(pairs),
        several=several(raters, ratings, clusters.to_numpy(object), len(letters)),
        by=columns.by,
        groups=tuple(groups),
        n_without_cluster=0 if columns.cluster else len(table),
    )


def _against(
    table: pd.DataFrame, clusters: "pd.Series[str]", columns: Columns, rubric: RubricFacts
) -> tuple[RaterAgreement, ...]:
    """Compare the judge with every other rater that shares an item with it."""
    if not columns.judge:
        return ()
    found = []
    for rater in columns.raters:
        pair = (
            _paired(table, clusters, rater, columns.judge, rubric.letters) if rater != columns.judge else None
        )
        if pair is None:
            continue
        n_labels = int((table[rater] != "").sum())
        one = RaterAgreement(
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
        one = measured(one, pair, rubric.letters)
        found.append(
            one.model_copy(update={"sentences": words.sentences(one, judge=columns.judge, rubric=rubric)})
        )
    return tuple(found)


def _paired(
    table: pd.DataFrame, clusters: "pd.Series[str]", a: str, b: str, letters: Sequence[str]
) -> Paired | None:
    both = (table[a] != "") & (table[b] != "")
    if not both.any():
        return None
    code = {letter: place for place, letter in enumerate(letters)}
    first, second = (table.loc[both, name].map(code).to_numpy(int) for name in (a, b))
    return Paired(first, second, clusters[both].to_numpy(object), len(letters))
