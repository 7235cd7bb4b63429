"""Runs over time: cut where a change of judge, rubric, samples or eval makes numbers incomparable."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from qaeval.report.history import EvalHistory, History, HistoryRun, Stretch, Unread


def history_of(runs: Iterable[HistoryRun], unread: Sequence[Unread] = ()) -> History:
    """Put runs in order of time, eval by eval, in stretches of what can be compared."""
    ordered = sorted(runs, key=lambda run: (run.eval, run.started, run.name))
    evals = (
        EvalHistory(eval=name, stretches=_stretches(list(own)))
        for name, own in groupby(ordered, key=attrgetter("eval"))
    )
    return History(evals=tuple(evals), unread=tuple(unread))


def _stretches(runs: Sequence[HistoryRun]) -> tuple[Stretch, ...]:
    stretches = [Stretch(runs=runs[:1])]
    for run in runs[1:]:
        before = stretches[-1].runs
        changes = changes_between(before[-1], run)
        if changes:
            stretches.append(Stretch(changes=changes, runs=(run,)))
        else:
            stretches[-1] = stretches[-1].model_copy(update={"runs": (*before, run)})
    return tuple(stretches)


def changes_between(old: HistoryRun, new: HistoryRun) -> tuple[str, ...]:
    """Say in words what makes the numbers of two runs incomparable; nothing where they are comparable."""
    found = []
    if old.judge_digest != new.judge_digest:
        found.append(_changed("judge", old.judge, new.judge, "its weights or sampling"))
    if old.rubric_digest != new.rubric_digest:
        found.append(_changed("rubric", old.rubric, new.rubric, "its text"))
    if old.samples_digest != new.samples_digest:
        found.append(_changed("samples", f"{old.n_samples:,}", f"{new.n_samples:,}", "other ones"))
    if old.eval_digest != new.eval_digest:
        found.append("eval: its definition")
    return tuple(found)


def _changed(what: str, old: str, new: str, otherwise: str) -> str:
    return f"{what}: {old} → {new}" if old != new else f"{what}: {new}, {otherwise}"
