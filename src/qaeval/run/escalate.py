"""A second judge for the items of which the first is unsure, or which are disputed.

The letters of both together are kept as those of a further judge, so that report, agreement and `--decide-by` know them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from qaeval.agreement.reference import Reference, inclusion_of
from qaeval.analysis.replies import worked_s
from qaeval.calibration.model import Escalation, JudgeShare
from qaeval.errors import UsageError
from qaeval.records import Failure, Generation, Grade, GradeRow
from qaeval.report.facts import MachineFacts
from qaeval.report.measure import Measure
from qaeval.run import grade
from qaeval.run.plan import Judging
from qaeval.run.runner import Runner
from qaeval.stats.calibration import EscalationThreshold, escalation_threshold
from qaeval.stats.reliability import kappa_interval
from qaeval.storage.run_directory import ESCALATION, RunStore, further_files, model_json

KIND: Final = "cascade"
"""Kind of the judge that stands for both."""
ALPHA: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class EscalationRequest:
    """How items are sent on.

    Attributes:
        max_error: Largest share of wrong letters of the first judge among those that are kept, in (0, 1).
        below: Threshold in place of one that labels show; None: by labels.
        reference: Letter of each labelled item.
        machines: Machine of each judge with a known one, by name.
    """

    max_error: float = 0.1
    below: float | None = None
    reference: Mapping[str, Reference] = field(default_factory=dict)
    machines: Mapping[str, MachineFacts] = field(default_factory=dict)


def escalate(
    store: RunStore, runner: Runner, first: Judging, second: Judging, request: EscalationRequest
) -> Escalation:
    """Send the items of which the first judge is unsure to the second, and write the letters of both together.

    Args:
        store: The run, graded by the first judge.
        runner: Its engine.
        first: The first judge.
        second: The second judge.
        request: Threshold, labels and prices.

    Raises:
        UsageError: Both judges are the same.
        DataError, EndpointError, Interrupted: As for `Runner.agrade`.
    """
    names = first.judge.name, second.judge.name
    if names[0] == names[1]:
        raise UsageError(f"escalate: {names[0]} graded the run; name another judge")
    cascade = "+".join(names)
    rows = _rows(store, names[0])
    clusters = _clusters(store)
    threshold = _threshold(rows, clusters, request)
    without_letter = {item for item, row in rows.items() if isinstance(row, Failure)}
    unsure = {
        item
        for item, row in rows.items()
        if isinstance(row, Grade) and not (_confidence(row) or 0.0) >= threshold.threshold
    }
    disputed = _disputed(store, rows, second=names[1]) - unsure - without_letter
    escalated = unsure | disputed | without_letter
    labelled = {item for item in request.reference if item in rows} - escalated
    if escalated | labelled:
        runner.grade(second, items=escalated | labelled)
    second_rows = _rows(store, names[1])
    together = [
        _as_cascade(second_rows.get(item, row) if item in escalated else row, row, cascade)
        for item, row in rows.items()
    ]
    _write(store, cascade, first, second, together)
    is_shown = bool(np.isfinite(threshold.threshold))
    report = Escalation(
        judge=names[0],
        second=names[1],
        cascade=cascade,
        threshold=threshold.threshold if is_shown else None,
        basis="labels" if request.below is None else "given",
        max_error=request.max_error,
        alpha=ALPHA,
        n_labels=len(_labelled_grades(rows, request.reference)),
        n_labels_of_models=sum(
            request.reference[item].kind == "model" for item in _labelled_grades(rows, request.reference)
        ),
        n_kept=threshold.n,
        n_wrong=threshold.n_wrong,
        upper=None if np.isnan(threshold.upper) else threshold.upper,
        n_items=len(rows),
        n_unsure=len(unsure),
        n_disputed=len(disputed),
        n_without_letter=len(without_letter),
        n_labelled_too=len(labelled),
        currency=next((machine.currency for machine in request.machines.values() if machine.currency), ""),
        shares=_shares(
            store,
            names,
            (rows, second_rows, {str(row.item_id): row for row in together}),
            clusters,
            escalated,
            request,
        ),
    )
    store.write_text(ESCALATION, model_json(report))
    return report


def _rows(store: RunStore, judge: str) -> dict[str, GradeRow]:
    is_first = store.settings()["grading"]["judge"]["name"] == judge
    rows = store.grades() if is_first else store.grades_of(judge)
    return {str(row.item_id): row for row in rows}


def _clusters(store: RunStore) -> dict[str, str]:
    """Return the chunk of each item."""
    chunks = {sample.sample_id: sample.chunk.chunk_id for sample in store.samples()}
    return {
        item.item_id: chunks[row.sample_id]
        for row in store.generations()
        if isinstance(row, Generation)
        for item in row.items
    }


def _confidence(row: GradeRow) -> float | None:
    """Return the probability of the letter; None without probabilities."""
    return row.probabilities.get(row.letter, 0.0) if isinstance(row, Grade) and row.probabilities else None


def _labelled_grades(rows: Mapping[str, GradeRow], reference: Mapping[str, Reference]) -> dict[str, Grade]:
    """Return the rows of labelled items that have a probability."""
    return {
        item: row
        for item in reference
        if isinstance(row := rows.get(item), Grade) and _confidence(row) is not None
    }


def _threshold(
    rows: Mapping[str, GradeRow], clusters: Mapping[str, str], request: EscalationRequest
) -> EscalationThreshold:
    """Return the threshold that is given, else the lowest that labels show to keep the promise."""
    graded = _labelled_grades(rows, request.reference)
    confidences = np.array([_confidence(row) for row in graded.values()], dtype=float)
    wrong = np.array(
        [row.letter != request.reference[item].letter for item, row in graded.items()], dtype=int
    )
    if request.below is not None:
        kept = confidences >= request.below
        return EscalationThreshold(request.below, int(kept.sum()), int(wrong[kept].sum()), float("nan"))
    if not graded:
        return EscalationThreshold(float("inf"), 0, 0, float("nan"))
    chunks = np.array([clusters[item] for item in graded], dtype=object)
    return escalation_threshold(
        confidences,
        wrong,
        chunks,
        inclusion=inclusion_of(request.reference[item] for item in graded),
        max_error=request.max_error,
        alpha=ALPHA,
    )


def _disputed(store: RunStore, rows: Mapping[str, GradeRow], *, second: str) -> set[str]:
    """Return the items to which the first judge in a repeat, or a third judge, gave another letter."""
    others: list[Iterable[GradeRow]] = [store.grade_repeats()]
    for name, grading in store.further_judges().items():
        if name != second and grading["judge"].get("kind") != KIND:
            others.append(store.grades_of(name))
    return {
        str(row.item_id)
        for row_set in others
        for row in row_set
        if isinstance(row, Grade)
        and isinstance(own := rows.get(row.item_id), Grade)
        and own.letter != row.letter
    }


def _as_cascade(row: GradeRow, own: GradeRow, cascade: str) -> GradeRow:
    """Return a row as one of the cascade; the sample of a failure is that of the first judge's."""
    task_id = grade.task_id(cascade, str(row.item_id or own.item_id))
    if isinstance(row, Failure):
        return row.model_copy(update={"task_id": task_id, "model": cascade})
    return row.model_copy(update={"task_id": task_id, "judge": cascade})


def _write(store: RunStore, cascade: str, first: Judging, second: Judging, rows: Iterable[GradeRow]) -> None:
    members = [judging.settings()["judge"] for judging in (first, second)]
    tuned: set[str] = {name for member in members for name in member.get("tuned_on") or ()}
    about: dict[str, Any] = {"name": cascade, "kind": KIND, "members": members, "tuned_on": sorted(tuned)}
    store.write_further_judge({"judge": about, "rubric": first.settings()["rubric"]})
    content = "".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows)
    store.write_text(further_files(cascade)[1], content)


# -------------------------------------------------------------------- what it costs, and what it is worth


def _shares(
    store: RunStore,
    names: tuple[str, str],
    rows: tuple[Mapping[str, GradeRow], ...],
    clusters: Mapping[str, str],
    escalated: set[str],
    request: EscalationRequest,
) -> tuple[JudgeShare, ...]:
    """Return work, cost and kappa of each judge alone and of both together."""
    own, second, together = rows
    sessions = store.sessions()
    work = []
    for name, given in zip(names, (own, second), strict=True):
        stages = [session for session in sessions if (session.stage, session.model) == ("grade", name)]
        seconds = worked_s(stages) if stages else None
        machine = request.machines.get(name)
        price = None if machine is None else machine.price_per_hour
        usages = [row.usage for row in given.values()]
        tokens = (
            sum(usage.prompt_tokens + usage.completion_tokens for usage in usages if usage)
            if any(usages)
            else None
        )
        cost = None if price is None or seconds is None else seconds / 3600 * price
        work.append((len(given), tokens, seconds, cost))
    # a comparison is fair on the items that all three graded
    shared = [
        item
        for item in request.reference
        if all(isinstance(by.get(item), Grade) for by in (own, second, together))
    ]
    kappas = [_kappa(by, shared, request.reference, clusters) for by in rows]
    (n_first, *first_work), (n_second, *second_work) = work
    share = n_first / n_second if n_second else 0.0
    part = len(escalated) / n_second if n_second else 0.0
    alone = [_scaled(value, share) for value in second_work]
    both = (
        [
            None if a is None or b is None else a + part * b
            for a, b in zip(first_work, second_work, strict=True)
        ]
        if n_second
        else list(first_work)
    )
    return (
        _share(names[0], n_first, first_work, kappas[0]),
        _share(names[1], n_first, alone, kappas[1], is_extrapolated=n_second != n_first),
        _share("+".join(names), n_first, both, kappas[2]),
    )


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None or not factor else value * factor


def _share(
    judge: str,
    n_items: int,
    work: Iterable[float | None],
    kappa: Measure | None,
    *,
    is_extrapolated: bool = False,
) -> JudgeShare:
    tokens, seconds, cost = work
    return JudgeShare(
        judge=judge,
        n_items=n_items,
        n_tokens=None if tokens is None else round(tokens),
        seconds=seconds,
        cost=cost,
        is_extrapolated=is_extrapolated,
        kappa=kappa,
    )


def _kappa(
    rows: Mapping[str, GradeRow],
    items: list[str],
    reference: Mapping[str, Reference],
    clusters: Mapping[str, str],
) -> Measure | None:
    """Return kappa with the labels on some items; None without one."""
    if not items:
        return None
    letters = [row.letter if isinstance(row := rows[item], Grade) else "" for item in items]
    scale = sorted({*letters, *(reference[item].letter for item in items)})
    if len(scale) < 2:
        return None
    return Measure.of(
        kappa_interval(
            [scale.index(reference[item].letter) for item in items],
            [scale.index(letter) for letter in letters],
            np.array([clusters[item] for item in items], dtype=object),
            n_levels=len(scale),
            inclusion=inclusion_of(reference[item] for item in items),
        )
    )
