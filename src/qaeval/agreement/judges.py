"""Further judges of a run, against labels and against the judge that decides, on the same items."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from qaeval.agreement.analysis import by_rater, fits, judge_agreement
from qaeval.agreement.coefficients import Paired
from qaeval.agreement.label_rows import uneven_inclusion, with_settled
from qaeval.agreement.model import FurtherJudge, KappaDifference, UsableByJudge
from qaeval.analysis.letters import GRADED, UNGRADED, fact_column, flag_column
from qaeval.records import Grade, GradeRow, Label
from qaeval.report import numbers
from qaeval.report.facts import RubricFacts
from qaeval.report.measure import Measure
from qaeval.stats.homogeneity import clustered_homogeneity
from qaeval.stats.reliability import cluster_tables, kappa_difference, kappa_interval

_ALPHA: Final = 0.05
"""Error rate of the test for the letters' rates."""


def compare_judges(
    table: pd.DataFrame,
    grades: Mapping[str, Iterable[GradeRow]],
    labels: Sequence[Label],
    *,
    judge: str,
    rubric: RubricFacts,
    tuned: frozenset[str],
) -> tuple[FurtherJudge, ...]:
    """Compare every further judge of a run with labels, and with the judge that decides.

    Args:
        table: Table of letters of the judge that decides.
        grades: Rows of the other judges, by judge.
        labels: Labels of all raters.
        judge: The judge that decides.
        rubric: The rubric of all judges.
        tuned: Judges, that one included, that were tuned on labels of this eval.
    """
    return tuple(
        _compared(table, _lettered(table, rows, rubric), labels, (judge, name), rubric, tuned)
        for name, rows in grades.items()
    )


def _lettered(table: pd.DataFrame, rows: Iterable[GradeRow], rubric: RubricFacts) -> pd.DataFrame:
    """Return the table with the letters and flags of another judge; items without a row have no letter."""
    grades = {row.item_id: row for row in rows if isinstance(row, Grade)}
    letters = table["item_id"].map(lambda item: grades[item].letter if item in grades else "").astype("str")
    status = table["status"].where(table["item_id"] == "", UNGRADED).mask(letters != "", GRADED)
    flags = {
        flag_column(name): table["item_id"].isin({item for item, row in grades.items() if name in row.flags})
        for name in rubric.flag_names
    }
    facts = {
        fact_column(fact.name): table["item_id"].map(
            lambda item, name=fact.name: grades[item].facts.get(name, "") if item in grades else ""
        )
        for fact in rubric.facts
    }
    return table.assign(letter=letters, status=status, **flags, **facts)


def _compared(
    table: pd.DataFrame,
    other: pd.DataFrame,
    labels: Sequence[Label],
    judges: tuple[str, str],
    rubric: RubricFacts,
    tuned: frozenset[str],
) -> FurtherJudge:
    judge, name = judges
    items = table["item_id"] != ""
    first = table[items].drop_duplicates("item_id").set_index("item_id")
    second = other[items].drop_duplicates("item_id").set_index("item_id")
    both = first.index[(first["status"] == GRADED) & (second["status"] == GRADED)]
    first, graded = first.loc[both], second.loc[both]
    codes = {letter: code for code, letter in enumerate(rubric.letters)}
    pair = Paired(
        first["letter"].map(codes).to_numpy(dtype=np.intp),
        graded["letter"].map(codes).to_numpy(dtype=np.intp),
        first["cluster"].to_numpy(),
        len(codes),
    )
    coefficients = pair.coefficients() if len(both) else None
    p_rates = None
    if coefficients is not None:
        test = clustered_homogeneity(
            cluster_tables(pair.a, pair.b, pair.clusters, n_levels=pair.n_levels), method="stuart-maxwell"
        )
        p_rates = None if np.isnan(test.p_value) else test.p_value
    further = FurtherJudge(
        judge=name,
        n_items=len(second),
        n_graded=int((second["status"] == GRADED).sum()),
        agreement=judge_agreement(other, labels, judge=name, rubric=rubric, judge_tuned=name in tuned),
        coefficients=coefficients,
        p_rates=p_rates,
        kappa_differences=tuple(
            _kappa_differences(first, graded, labels, rubric, without_tuning=bool(tuned & {*judges}))
        ),
        candidates=tuple(_usable(table, other, rubric.best)),
    )
    return further.model_copy(update={"sentences": tuple(_sentences(further, judge))})


def _kappa_differences(
    first: pd.DataFrame,
    second: pd.DataFrame,
    labels: Iterable[Label],
    rubric: RubricFacts,
    *,
    without_tuning: bool,
) -> Iterator[KappaDifference]:
    """Yield the difference of both judges' kappas with each rater, on the items that all three graded."""
    codes = {letter: code for code, letter in enumerate(rubric.letters)}
    usable = [
        label
        for label in labels
        if fits(label, rubric)
        and label.item_id in first.index
        and not (without_tuning and label.split == "tuning")
    ]
    for rater, own in by_rater(with_settled(usable), rubric).items():
        reference = {label.item_id: codes[label.letter] for label in own}
        items = list(reference)
        given, clusters = list(reference.values()), first.loc[items, "cluster"].to_numpy()
        letters = [table.loc[items, "letter"].map(codes).to_numpy(dtype=np.intp) for table in (first, second)]
        drawn = uneven_inclusion(own)
        kappas = [
            kappa_interval(given, judged, clusters, n_levels=len(codes), inclusion=drawn)
            for judged in letters
        ]
        difference = kappa_difference(
            given, letters[0], letters[1], clusters, n_levels=len(codes), inclusion=drawn
        )
        yield KappaDifference(
            rater=rater,
            n=len(items),
            kappa=Measure.of(kappas[0]),
            kappa_of_other=Measure.of(kappas[1]),
            difference=Measure.of(difference),
        )


def _usable(table: pd.DataFrame, other: pd.DataFrame, best: str) -> Iterator[UsableByJudge]:
    for candidate, rows in table.groupby("candidate", sort=False):
        others = other.loc[rows.index]
        yield UsableByJudge(
            candidate=str(candidate),
            n=len(rows),
            n_usable=int((rows["letter"] == best).sum()),
            n_usable_by_other=int((others["letter"] == best).sum()),
        )


def _sentences(further: FurtherJudge, judge: str) -> Iterator[str]:
    name = further.judge
    if further.n_graded < further.n_items:
        yield f"{name} graded {further.n_graded:,} of {numbers.plural(further.n_items, 'item')}."
    coefficients = further.coefficients
    if coefficients is None:
        return
    yield (
        f"{judge} and {name} give the same letter to {numbers.rate(coefficients.observed)} of "
        f"{numbers.plural(coefficients.n, 'item')}; kappa {numbers.coefficient(coefficients.kappa)}."
    )
    if further.p_rates is not None:
        rates = "at different rates" if further.p_rates <= _ALPHA else "at rates that are not shown to differ"
        yield f"They use the letters {rates} (Stuart-Maxwell, clustered by chunk: {numbers.p_value(further.p_rates)})."
    for change in further.kappa_differences:
        measure = change.difference
        shown = measure.low is not None and measure.high is not None
        if not shown:
            verdict = "and there are too few chunks for an interval"
        elif measure.low is not None and measure.low > 0:
            verdict = f"so {name} agrees better"
        elif measure.high is not None and measure.high < 0:
            verdict = f"so {judge} agrees better"
        else:
            verdict = "so neither is shown to agree better"
        yield (
            f"Kappa with {change.rater} of {name} minus that of {judge}, on the same {numbers.plural(change.n, 'item')}: "
            f"{numbers.coefficient(measure)}, {verdict}."
        )
