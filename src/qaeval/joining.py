"""Several runs of the same eval as one: the same samples, rubric and judge, the candidates of all."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from qaeval.analysis.summary import RunRows
from qaeval.errors import DataError, NotComparableError
from qaeval.records import Failure, Generation, GradeRow, Reading, Session
from qaeval.report.numbers import plural
from qaeval.rundata import RunData

_Timed = TypeVar("_Timed", Session, Reading)


def join_runs(runs: Mapping[str, RunData]) -> RunData:
    """Put the candidates of several runs side by side.

    A candidate that two runs have becomes ``name@run`` in the later one. An item that two runs graded differently stays
    two items: each run's letter counts for its own candidates, and none is chosen.

    Args:
        runs: By name, at least one, in the order of the report.

    Raises:
        NotComparableError: eval, samples, rubric or judge differ; the message names what.
        DataError: one of several runs is not graded to its end.
    """
    (first_name, first), *others = runs.items()
    if others:
        _require_graded(runs)
    for name, run in others:
        _require_alike(first_name, first, name, run)
    for name, run in others:
        first = _joined(first, run, name)
    return first


def _require_graded(runs: Mapping[str, RunData]) -> None:
    """Refuse a run that lacks letters: an item that another run has too would take the other's letter."""
    for name, run in runs.items():
        graded = {row.item_id for row in run.rows.grades}
        items = {
            item.item_id for row in run.rows.generations if isinstance(row, Generation) for item in row.items
        }
        if missing := len(items - graded):
            raise DataError(
                f"{name}: {plural(missing, 'item has', 'items have')} no grade; finish it with `qaeval grade`"
            )


def _require_alike(first_name: str, first: RunData, name: str, run: RunData) -> None:
    aspects = {
        "eval": (
            f"{first.eval_facts.name} {first.eval_facts.sha[:8]}",
            f"{run.eval_facts.name} {run.eval_facts.sha[:8]}",
        ),
        "samples": (first.eval_facts.sample_set_digest, run.eval_facts.sample_set_digest),
        "rubric": (first.rubric.sha, run.rubric.sha),
        "judge": (first.judge.name, run.judge.name),
        "judge's model": (
            f"{first.judge.hf_id} {first.judge.revision}".strip(),
            f"{run.judge.hf_id} {run.judge.revision}".strip(),
        ),
        "judge's sampling": (str(dict(first.judge.sampling)), str(dict(run.judge.sampling))),
    }
    different = [f"{what} ({a[:24]} and {b[:24]})" for what, (a, b) in aspects.items() if a != b]
    if different:
        raise NotComparableError(
            f"{first_name} and {name} are not comparable: they differ in {', '.join(different)}. Runs are put side by side "
            f"only when nothing but the candidates differs"
        )


def _joined(first: RunData, run: RunData, name: str) -> RunData:
    taken = {facts.name for facts in first.candidates}
    names = {
        facts.name: f"{facts.name}@{name}" if facts.name in taken else facts.name for facts in run.candidates
    }
    first_grades, own_grades = tuple(first.rows.grades), tuple(run.rows.grades)
    known = {row.item_id: row for row in first_grades}
    ids = {
        str(row.item_id): f"{row.item_id}@{name}"
        for row in own_grades
        if row.item_id in known and not same_letter(row, known[row.item_id])
    }
    grades = [
        row.model_copy(update={"item_id": ids.get(str(row.item_id), row.item_id)})
        for row in own_grades
        if row.item_id in ids or row.item_id not in known
    ]
    labels = {label.item_id: label for label in first.rows.labels}
    rows = RunRows(
        samples=first.rows.samples,
        generations=(*first.rows.generations, *(_renamed(row, names, ids) for row in run.rows.generations)),
        grades=(*first_grades, *grades),
        sessions=(*first.rows.sessions, *(_of(row, names) for row in run.rows.sessions)),
        readings=(*first.rows.readings, *(_of(row, names) for row in run.rows.readings)),
        labels=(*first.rows.labels, *(label for label in run.rows.labels if label.item_id not in labels)),
    )
    candidates = (
        *first.candidates,
        *(facts.model_copy(update={"name": names[facts.name]}) for facts in run.candidates),
    )
    return replace(first, rows=rows, candidates=candidates)


def same_letter(one: GradeRow, other: GradeRow) -> bool:
    """Whether two grades say the same; two failures do."""
    if isinstance(one, Failure) or isinstance(other, Failure):
        return isinstance(one, Failure) and isinstance(other, Failure)
    return (one.letter, one.flags) == (other.letter, other.flags)


def _renamed(
    row: Generation | Failure, names: Mapping[str, str], ids: Mapping[str, str]
) -> Generation | Failure:
    if isinstance(row, Failure):
        return row.model_copy(update={"model": names[row.model]})
    items = tuple(
        item.model_copy(update={"item_id": ids.get(item.item_id, item.item_id)}) for item in row.items
    )
    return row.model_copy(update={"candidate": names[row.candidate], "items": items})


def _of(row: _Timed, names: Mapping[str, str]) -> _Timed:
    return (
        row.model_copy(update={"model": names.get(row.model, row.model)}) if row.stage == "generate" else row
    )
