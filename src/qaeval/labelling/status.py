"""What the labels of a run are worth: `qaeval labels status`, and the summary at the end of a sitting."""

from collections.abc import Sequence
from math import ceil, isnan
from pathlib import Path
from typing import Final

import numpy as np

from qaeval.agreement.analysis import all_rater_agreement, fits
from qaeval.agreement.label_files import read_rater_rows
from qaeval.agreement.label_rows import RaterRows
from qaeval.comparison.analysis import Analysis, ReportOptions
from qaeval.comparison.correction import ChunkRates
from qaeval.comparison.headline import verdict_sentence
from qaeval.comparison.model import LabelledRate, RaterKind, Verdict
from qaeval.comparison.run_data import labels_of_run
from qaeval.comparison.write_report import read_report
from qaeval.export.select import require_finished
from qaeval.labelling.adjudication import disputed_items
from qaeval.labelling.model import LabelStatus, MoreLabels, RaterWork, SittingSummary, StoppingDecision
from qaeval.labelling.stopping import ESTIMANDS
from qaeval.report.numbers import coefficient, listed, percent, plural, points, rate
from qaeval.stats.labelling import expected_width
from qaeval.stats.stopping import LabelDecision
from qaeval.storage.run_directory import RunStore

N_MORE: Final = 50
"""Labels more, whose worth is estimated."""


def label_status(run: Path, *, margin: float = 0.05) -> LabelStatus:
    """Say what the labels of a run are worth.

    Args:
        run: A graded and finished run.
        margin: Smallest difference of usable rates that matters, in (0, 1).

    Raises:
        DataError: There is no graded and finished run, or its labels contradict each other.
    """
    analysis, files = _analysed(run, margin)
    report, labels = analysis.report, analysis.rows.labels
    disputed = disputed_items(labels, report.rubric)
    more = _more_labels(analysis)
    raters = tuple(
        work for agreement in report.agreement if (work := _work(agreement.rater, analysis, files))
    )
    settled = {label.item_id for label in labels if label.settles and fits(label, report.rubric)}
    n_settled = len(settled & set(analysis.table["item_id"]))
    people = {work.rater for work in raters if work.rater_kind != "model"}
    return LabelStatus(
        source=str(run),
        judge=report.judge.facts.name,
        letters=report.rubric.letters,
        raters=raters,
        agreement=report.agreement,
        pairs=report.raters,
        several=all_rater_agreement(labels, report.rubric, analysis.table),
        n_disputed=len(disputed),
        n_settled=n_settled,
        more=more,
        verdict=report.verdict,
        sentences=(
            *(_work_sentence(work) for work in raters),
            *(
                (f"{run}: no labels yet; `qaeval label {run} --rater NAME` opens a page to label.",)
                if not raters
                else ()
            ),
            *(pair.sentence for pair in report.raters if {pair.a, pair.b} <= people),
            *(
                (
                    f"People differ on {plural(len(disputed), 'item')}; `qaeval labels adjudicate` settles them.",
                )
                if disputed
                else ()
            ),
            *map(_more_sentence, more),
            verdict_sentence(report.verdict),
        ),
    )


def summarise(
    run: Path, rater: str, *, margin: float = 0.05, decision: StoppingDecision | None = None
) -> SittingSummary:
    """Summarise the labels of one rater, with the verdict of the run's report.

    Args:
        run: A graded and finished run.
        rater: Name of the rater.
        margin: Smallest difference of usable rates that matters, in (0, 1).
        decision: Of a sitting that ends when the verdict is decided.

    Raises:
        DataError: There is no graded and finished run, or its labels contradict each other.
    """
    analysis, files = _analysed(run, margin)
    report = analysis.report
    agreement = next((other for other in report.agreement if other.rater == rater), None)
    work = _work(rater, analysis, files)
    more = tuple(width for width in _more_labels(analysis) if width.rater == rater)
    rates = tuple(
        labelled
        for labelled in report.labelled_rates
        if labelled.rater == rater and labelled.name == "usable"
    )
    kappa = None if agreement is None or agreement.coefficients is None else agreement.coefficients.kappa
    return SittingSummary(
        rater=rater,
        n_labels=work.n_labels if work else 0,
        n_skipped=work.n_skipped if work else 0,
        agreement=agreement,
        differences=report.differences,
        rates=rates,
        verdict=report.verdict,
        is_decided=is_shown(report.verdict),
        more=more,
        decision=decision,
        sentences=(
            *((_work_sentence(work),) if work else ()),
            *(
                (f"Cohen's kappa of {report.judge.facts.name} with {rater}: {coefficient(kappa)}.",)
                if kappa is not None
                else ()
            ),
            *(pair.sentence for pair in report.differences),
            *(_rate_sentence(labelled) for labelled in rates if not report.differences),
            verdict_sentence(report.verdict),
            *((decision.sentence,) if decision else ()),
            *map(_more_sentence, more),
        ),
    )


def is_shown(verdict: Verdict) -> bool:
    """Whether labels show a verdict without a condition."""
    return verdict.kind in {"use", "equal"} and verdict.condition == "shown"


def stopping_decision(decision: LabelDecision, candidates: Sequence[str]) -> StoppingDecision:
    """Say in words whether more labels can change which candidate is best."""
    leaders = tuple(candidates[index] for index in decision.leaders)
    counted = f"{decision.n_labelled} of {plural(decision.n_chunks, 'chunk')} labelled"
    about = ESTIMANDS[decision.estimand]
    if decision.outcome == "best":
        text = f"Decided, {about}: {leaders[0]} is best ({counted})."
    elif decision.outcome == "equal":
        text = f"Decided, {about}: {listed(leaders)} differ by less than the margin ({counted})."
    else:
        text = f"Not decided, {about} ({counted}; a decision can fall at {decision.next_look})."
    return StoppingDecision(
        outcome=decision.outcome,
        leaders=leaders,
        estimand=decision.estimand,
        n_labelled=decision.n_labelled,
        n_chunks=decision.n_chunks,
        sentence=text,
    )


def _analysed(run: Path, margin: float) -> tuple[Analysis, list[RaterRows]]:
    with RunStore.open(run) as store:
        require_finished(store)
        paths = labels_of_run(run, store.settings())
        analysis = read_report([store], ReportOptions(label_paths=paths, margin=margin))
    return analysis, [read_rater_rows(path) for path in paths]


def _work(rater: str, analysis: Analysis, files: Sequence[RaterRows]) -> RaterWork | None:
    """Count what a rater did; None without a label or a sitting."""
    rubric, items = analysis.report.rubric, set(analysis.table["item_id"])
    labels = [
        label
        for file in files
        for label in file.labels
        if label.rater == rater and fits(label, rubric) and not label.settles and label.item_id in items
    ]
    skipped = {row.item_id for file in files for row in file.skipped if row.rater == rater}
    asked = {
        item_id
        for file in files
        for draw in file.draws
        if draw.rater == rater and draw.rubric in rubric.label_names
        for item_id in draw.items
    }
    labelled = {label.item_id for label in labels}
    if not labels and not asked:
        return None
    kinds: set[RaterKind] = {label.rater_kind for label in labels}
    cluster_of = dict(zip(analysis.table["item_id"], analysis.table["cluster"], strict=True))
    return RaterWork(
        rater=rater,
        rater_kind=kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "human",
        n_labels=len(labelled),
        n_chunks=len({cluster_of[item_id] for item_id in labelled}),
        n_skipped=len(skipped - labelled),
        n_open=len(asked & items - labelled - skipped),
    )


def _more_labels(analysis: Analysis) -> tuple[MoreLabels, ...]:
    """Estimate what `N_MORE` labels more would buy, for each pair and each person that labelled a chunk for both."""
    report, table = analysis.report, analysis.table
    by_rater = ChunkRates.by_rater(table, analysis.rows.labels, report.rubric, judge_tuned=report.judge.tuned)
    people = [
        agreement.rater
        for agreement in report.agreement
        if agreement.rater_kind != "model" and agreement.rater in by_rater
    ]
    items = table[table["item_id"] != ""].drop_duplicates("item_id")
    per_chunk = max(1.0, len(items) / max(1, table["cluster"].nunique()))
    more = []
    for rater in people:
        for pair in report.differences:
            rates = by_rater[rater].of_both([pair.a, pair.b])
            labelled = (rates.labelled[pair.b] - rates.labelled[pair.a]).to_numpy(float)
            judged = (rates.judged[pair.b] - rates.judged[pair.a]).to_numpy(float)
            if np.isnan(labelled).all():
                continue
            width = expected_width(
                judged, labelled, ceil(N_MORE / per_chunk), sizes=rates.sizes.to_numpy(float)
            )
            more.append(
                MoreLabels(
                    a=pair.a,
                    b=pair.b,
                    rater=rater,
                    n_more=N_MORE,
                    n_chunks=width.n_now,
                    n_chunks_then=width.n_then,
                    width=None if isnan(width.now) else width.now,
                    # labels that are all alike tell nothing of the width that more would give
                    width_then=None if isnan(width.then) or not width.then else width.then,
                )
            )
    return tuple(more)


def _work_sentence(work: RaterWork) -> str:
    kind = {"human": "", "model": " (a model, not a person)", "mixed": " (partly a model)"}[work.rater_kind]
    text = f"{work.rater}{kind}: {plural(work.n_labels, 'label')} in {plural(work.n_chunks, 'chunk')}"
    if work.n_skipped:
        text += f", {work.n_skipped} skipped"
    return f"{text}, {work.n_open} of the sitting open." if work.n_open else f"{text}."


def _rate_sentence(labelled: LabelledRate) -> str:
    return (
        f"Usable items of {labelled.candidate} by the labels of {plural(labelled.n_chunks, 'chunk')}: {rate(labelled.rate)}; by the "
        f"judge's letters alone {percent(labelled.judged)}."
    )


def _more_sentence(more: MoreLabels) -> str:
    pair = f"{more.b} minus {more.a}, by {more.rater}"
    if more.n_chunks_then == more.n_chunks:
        return f"{pair}: every chunk is labelled."
    now = "no interval yet" if more.width is None else f"interval {_width(more.width)} wide"
    then = "not known yet" if more.width_then is None else f"about {_width(more.width_then)}"
    return (
        f"{pair}: {now} with {plural(more.n_chunks, 'labelled chunk')}; with {more.n_more} more labels "
        f"({plural(more.n_chunks_then, 'chunk')} in all) {then}."
    )


def _width(share: float) -> str:
    return f"{points(share).removeprefix('+')} points"
