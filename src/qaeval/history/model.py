"""Documents of ``qaeval history`` and ``qaeval compare-runs``.

A change of judge, rubric, samples or eval starts a new segment, since rates of different segments are not comparable.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator

from qaeval.comparison.model import Difference, Verdict
from qaeval.report.facts import Part, PromptChange
from qaeval.report.measure import Measure

FORMAT: Final = 1
"""Version of the layout of `History`."""


def in_utc(text: str) -> str:
    """Convert a time in ISO 8601 to UTC.

    Raises:
        ValueError: The text is not a time, or has no offset from UTC.
    """
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() is None:
        raise ValueError(f"expected a time with its offset from UTC, got {text!r}")
    return moment.astimezone(UTC).isoformat(timespec="seconds")


Moment: TypeAlias = Annotated[str, AfterValidator(in_utc)]
"""A time in ISO 8601 and UTC, so that text order equals time order."""


class HistoryRate(Part):
    """Usable rate of a candidate."""

    candidate: str
    usable: Measure


class HistoryRun(Part):
    """A finished run, with everything that its rates depend on."""

    name: str
    """Name of the run directory."""
    started: Moment
    eval: str
    eval_digest: str
    task_digest: str = ""
    """Of the eval without its prompt; empty in runs from before prompts were part of a candidate."""
    samples_digest: str
    n_samples: int
    rubric: str
    """Name and version: ``qa_pair_abc/1``."""
    rubric_digest: str
    judge: str
    judge_digest: str
    """Digest of name, weights and sampling of the judge."""
    rates: tuple[HistoryRate, ...]
    prompts: Mapping[str, str] = {}
    """Hash of each candidate's prompt."""
    verdict: Verdict | None = None
    """Of the run's report; None of a run with one candidate."""
    gate: str = ""
    """Outcome of the run's gate; empty without a gate."""


class ComparableSegment(Part):
    """Consecutive runs that are comparable with each other, and with no run of another segment."""

    changes: tuple[str, ...] = ()
    """Differences from the previous segment; empty for the first one."""
    runs: tuple[HistoryRun, ...]


class EvalHistory(Part):
    """All runs of an eval, oldest first."""

    eval: str
    stretches: tuple[ComparableSegment, ...]

    @property
    def candidates(self) -> tuple[str, ...]:
        """Candidates of all runs, in order of first appearance."""
        rates = (rate for segment in self.stretches for run in segment.runs for rate in run.rates)
        return tuple(dict.fromkeys(rate.candidate for rate in rates))


class Unread(Part):
    """A run that could not be read, with the reason."""

    name: str
    reason: str


class History(Part):
    """The document of ``qaeval history``."""

    format: int = FORMAT
    evals: tuple[EvalHistory, ...]
    unread: tuple[Unread, ...] = ()


class RunPair(Part):
    """A candidate in the first and a later run."""

    candidate: str
    first: HistoryRate
    other: HistoryRate
    difference: Difference
    """Later run minus first run, paired by chunk."""


class RunComparison(Part):
    """The document of ``qaeval compare-runs``; it has no verdict."""

    format: int = FORMAT
    runs: tuple[str, ...]
    """Run names; the first run is the reference."""
    pairs: tuple[RunPair, ...]
    settings: tuple[str, ...]
    """Differences in settings from the first run, one sentence per later run."""
    prompts: tuple[PromptChange, ...] = ()
    """Candidates whose prompt differs from that in the first run."""
    left_out: tuple[str, ...] = ()
    """Candidates without a counterpart."""


def history_of(runs: Iterable[HistoryRun], unread: Sequence[Unread] = ()) -> History:
    """Group runs by eval and sort them by time, in segments of comparable runs."""
    ordered = sorted(runs, key=lambda run: (run.eval, run.started, run.name))
    evals = (
        EvalHistory(eval=name, stretches=_segments(list(eval_runs)))
        for name, eval_runs in groupby(ordered, key=attrgetter("eval"))
    )
    return History(evals=tuple(evals), unread=tuple(unread))


def _segments(runs: Sequence[HistoryRun]) -> tuple[ComparableSegment, ...]:
    segments = [ComparableSegment(runs=runs[:1])]
    for run in runs[1:]:
        earlier = segments[-1].runs
        changes = changes_between(earlier[-1], run)
        if changes:
            segments.append(ComparableSegment(changes=changes, runs=(run,)))
        else:
            segments[-1] = segments[-1].model_copy(update={"runs": (*earlier, run)})
    return tuple(segments)


def changes_between(old: HistoryRun, new: HistoryRun) -> tuple[str, ...]:
    """Describe what makes the rates of two runs incomparable; empty if they are comparable."""
    changes = []
    if old.judge_digest != new.judge_digest:
        changes.append(_changed("judge", old.judge, new.judge, "other weights or sampling"))
    if old.rubric_digest != new.rubric_digest:
        changes.append(_changed("rubric", old.rubric, new.rubric, "another text"))
    if old.samples_digest != new.samples_digest:
        changes.append(_changed("samples", f"{old.n_samples:,}", f"{new.n_samples:,}", "another set"))
    has_same_task = old.task_digest and old.task_digest == new.task_digest
    if old.eval_digest != new.eval_digest and not has_same_task:
        changes.append("eval: another definition")
    return tuple(changes)


def _changed(aspect: str, old: str, new: str, otherwise: str) -> str:
    return f"{aspect}: {old} → {new}" if old != new else f"{aspect}: {new}, {otherwise}"
