"""The history of runs as data: the documents of ``qaeval history`` and ``qaeval compare-runs``.

Runs over time: cut where a change of judge, rubric, samples or eval makes numbers incomparable.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator

from qaeval.comparison.model import Difference, Verdict
from qaeval.report.facts import Part
from qaeval.report.measure import Measure

FORMAT: Final = 1
"""Version of the layout of `History`."""


def in_utc(text: str) -> str:
    """Bring a time in ISO 8601 to UTC.

    Raises:
        ValueError: It is no time, or has no offset from UTC.
    """
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() is None:
        raise ValueError(f"expected a time with its offset from UTC, got {text!r}")
    return moment.astimezone(UTC).isoformat(timespec="seconds")


Moment: TypeAlias = Annotated[str, AfterValidator(in_utc)]
"""A time in ISO 8601, brought to UTC, so that the order of texts is that of times."""


class HistoryRate(Part):
    """How many of a candidate's items were usable."""

    candidate: str
    usable: Measure


class HistoryRun(Part):
    """One finished run, with what its numbers hang on."""

    name: str
    """Of the run directory."""
    started: Moment
    eval: str
    eval_digest: str
    samples_digest: str
    n_samples: int
    rubric: str
    """Name and version: ``qa_pair_abc/1``."""
    rubric_digest: str
    judge: str
    judge_digest: str
    """Of its name, its weights and how it samples."""
    rates: tuple[HistoryRate, ...]
    verdict: Verdict | None = None
    """Of the run's report; None of a run with one candidate."""
    gate: str = ""
    """How the run's gate ended; empty where it had none."""


class ComparableSegment(Part):
    """Runs in a row whose numbers can be compared with each other, and with those of no other stretch."""

    changes: tuple[str, ...] = ()
    """What is different from the stretch before, in words; empty for the first one."""
    runs: tuple[HistoryRun, ...]


class EvalHistory(Part):
    """All runs of one eval, the oldest first."""

    eval: str
    stretches: tuple[ComparableSegment, ...]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The candidates of all runs, in the order in which they appear."""
        rates = (rate for segment in self.stretches for run in segment.runs for rate in run.rates)
        return tuple(dict.fromkeys(rate.candidate for rate in rates))


class Unread(Part):
    """A run that could not be taken in, and why."""

    name: str
    reason: str


class History(Part):
    """Runs over time."""

    format: int = FORMAT
    evals: tuple[EvalHistory, ...]
    unread: tuple[Unread, ...] = ()


class RunPair(Part):
    """A candidate in the first run and in a later one."""

    candidate: str
    first: HistoryRate
    other: HistoryRate
    difference: Difference
    """Later run minus first run, paired by chunk."""


class RunComparison(Part):
    """The same candidates in several runs, without a verdict."""

    format: int = FORMAT
    runs: tuple[str, ...]
    """The first one is what the others are compared with."""
    pairs: tuple[RunPair, ...]
    settings: tuple[str, ...]
    """What differs in the settings of the runs, a sentence for each of the others."""
    left_out: tuple[str, ...] = ()
    """Candidates that only some of the runs have."""


def history_of(runs: Iterable[HistoryRun], unread: Sequence[Unread] = ()) -> History:
    """Put runs in order of time, eval by eval, in stretches of what can be compared."""
    ordered = sorted(runs, key=lambda run: (run.eval, run.started, run.name))
    evals = (
        EvalHistory(eval=name, stretches=_segments(list(eval_runs)))
        for name, eval_runs in groupby(ordered, key=attrgetter("eval"))
    )
    return History(evals=tuple(evals), unread=tuple(unread))


def _segments(runs: Sequence[HistoryRun]) -> tuple[ComparableSegment, ...]:
    segments = [ComparableSegment(runs=runs[:1])]
    for run in runs[1:]:
        before = segments[-1].runs
        changes = changes_between(before[-1], run)
        if changes:
            segments.append(ComparableSegment(changes=changes, runs=(run,)))
        else:
            segments[-1] = segments[-1].model_copy(update={"runs": (*before, run)})
    return tuple(segments)


def changes_between(old: HistoryRun, new: HistoryRun) -> tuple[str, ...]:
    """Say in words what makes the numbers of two runs incomparable; nothing where they are comparable."""
    changes = []
    if old.judge_digest != new.judge_digest:
        changes.append(_changed("judge", old.judge, new.judge, "its weights or sampling"))
    if old.rubric_digest != new.rubric_digest:
        changes.append(_changed("rubric", old.rubric, new.rubric, "its text"))
    if old.samples_digest != new.samples_digest:
        changes.append(_changed("samples", f"{old.n_samples:,}", f"{new.n_samples:,}", "other ones"))
    if old.eval_digest != new.eval_digest:
        changes.append("eval: its definition")
    return tuple(changes)


def _changed(aspect: str, old: str, new: str, otherwise: str) -> str:
    return f"{aspect}: {old} → {new}" if old != new else f"{aspect}: {new}, {otherwise}"
