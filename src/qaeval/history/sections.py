"""Sections of ``qaeval history`` and ``qaeval compare-runs``, and the self-contained page ``history.html``."""

from collections.abc import Iterator, Mapping
from typing import Final

from markupsafe import Markup

from qaeval.comparison.headline import verdict_sentence
from qaeval.comparison.model import Difference
from qaeval.history.chart import trend
from qaeval.history.model import ComparableSegment, EvalHistory, History, RunComparison, Unread
from qaeval.report import numbers
from qaeval.report.page import STYLE, content_policy, data_url, page_environment
from qaeval.report.tables import Notes, Section, Table

_ONE_SEGMENT: Final = "All runs share judge, rubric, samples and eval: their rates are comparable."
_SEGMENTS: Final = "Rates are comparable only within a segment. A change of judge, rubric, samples or eval starts a new segment."
_NO_VERDICT: Final = "Differences are paired by chunk, over the items that both runs graded. `qaeval gate` decides whether a change is a regression."


def write_history(history: History) -> tuple[Section, ...]:
    """Return one section per eval, and one of unread folders."""
    sections = [_eval(eval_history, index) for index, eval_history in enumerate(history.evals)]
    return (*sections, *([_unread(history.unread)] if history.unread else []))


def write_comparison(comparison: RunComparison) -> tuple[Section, ...]:
    """Return the section of a comparison of runs."""
    notes = Notes()
    has_labels = any(pair.difference.deciding for pair in comparison.pairs)
    rows = tuple(
        (
            *pair.difference.b.rpartition("@")[::2],
            notes.rate(pair.first.usable, f"{pair.candidate} in {comparison.runs[0]}"),
            notes.rate(pair.other.usable, pair.difference.b),
            notes.difference(pair.difference.difference, pair.difference.b),
            *_by_labels(pair.difference, notes, has_labels=has_labels),
            f"{pair.difference.n_chunks_b_better} / {pair.difference.n_chunks_equal} / {pair.difference.n_chunks_a_better}",
        )
        for pair in comparison.pairs
    )
    header = (
        "candidate",
        "run",
        f"usable in {comparison.runs[0]}",
        "usable in run",
        "change",
        *(("change by labels",) if has_labels else ()),
        "better / same / worse",
    )
    left_out = (
        f"Excluded, since the other run does not have them: {', '.join(comparison.left_out)}."
        if comparison.left_out
        else ""
    )
    return (
        Section(
            anchor="runs",
            title=f"{numbers.listed(comparison.runs[1:])} against {comparison.runs[0]}",
            paragraphs=(
                *(pair.difference.sentence for pair in comparison.pairs),
                *(change.sentence for change in comparison.prompts),
                *comparison.settings,
                *([left_out] if left_out else []),
                _NO_VERDICT,
            ),
            tables=(
                Table(
                    caption="Usable rates in both runs, and chunks that are better, the same, worse",
                    header=header,
                    rows=rows,
                    notes=notes.lines(),
                    words=frozenset({1}),
                ),
            ),
        ),
    )


def _by_labels(difference: Difference, notes: Notes, *, has_labels: bool) -> tuple[str, ...]:
    if not has_labels:
        return ()
    if difference.deciding is None:
        return ("–",)
    return (
        notes.difference(difference.deciding.difference, f"{difference.b} by {difference.deciding.rater}"),
    )


def _eval(history: EvalHistory, index: int) -> Section:
    notes, rows = Notes(), []
    has_gate = any(run.gate for segment in history.stretches for run in segment.runs)
    for number, segment in enumerate(history.stretches, start=1):
        for run in segment.runs:
            for rate in run.rates:
                usable = notes.rate(rate.usable, f"{rate.candidate} in {run.name}")
                started = numbers.moment(run.started).removesuffix(" UTC")
                cells = (run.name, started, str(number), rate.candidate, usable)
                rows.append((*cells, run.gate or "–") if has_gate else cells)
    header = ("run", "started (UTC)", "segment", "candidate", "usable")
    return Section(
        anchor=f"eval-{index}",
        title=history.eval,
        paragraphs=(_SEGMENTS if len(history.stretches) > 1 else _ONE_SEGMENT, *_segments(history)),
        tables=(
            Table(
                caption=f"Usable rates of {history.eval}, oldest run first",
                header=(*header, "gate") if has_gate else header,
                rows=tuple(rows),
                notes=notes.lines(),
                words=frozenset({1, 3, 5}),
            ),
            *_verdicts(history),
        ),
    )


def _verdicts(history: EvalHistory) -> tuple[Table, ...]:
    rows = tuple(
        (run.name, verdict_sentence(run.verdict))
        for segment in history.stretches
        for run in segment.runs
        if run.verdict
    )
    return (Table(caption="Verdicts", header=("run", "verdict"), rows=rows, kind="text"),) if rows else ()


def _segments(history: EvalHistory) -> Iterator[str]:
    for number, segment in enumerate(history.stretches, start=1):
        first = segment.runs[0]
        if segment.changes:
            yield f"Segment {number} starts with {first.name} ({'; '.join(segment.changes)})."
        else:
            yield f"Segment {number}: judge {first.judge}, rubric {first.rubric}, {first.n_samples:,} samples."
        yield from _prompts(segment)


def _prompts(segment: ComparableSegment) -> Iterator[str]:
    """Yield where the prompt of a candidate changed; its rates stay comparable."""
    last: dict[str, str] = {}
    for run in segment.runs:
        changed = [name for name, sha in run.prompts.items() if last.get(name, sha) != sha]
        if changed:
            yield f"{run.name}: another prompt of {numbers.listed(changed)} than in the run before."
        last |= run.prompts


def _unread(unread: tuple[Unread, ...]) -> Section:
    return Section(
        anchor="unread",
        title="Unread folders",
        tables=(
            Table(
                caption="Folders without a readable finished run",
                header=("folder", "reason"),
                rows=tuple((run.name, run.reason) for run in unread),
                kind="text",
            ),
        ),
    )


def render_history(history: History, *, version: str, links: Mapping[str, str] | None = None) -> str:
    """Render a history as a self-contained page; the same arguments give the same text.

    Args:
        history: The history.
        version: Version of qaeval.
        links: Address of each run on the server that shows the page, by name; None: a file by itself.
    """
    environment = page_environment()
    style = environment.get_template(STYLE).render(widths=[]).strip()
    charts = (trend(eval_history, f"eval-{index}") for index, eval_history in enumerate(history.evals))
    return environment.get_template("history.html.j2").render(
        sections=write_history(history),
        pictures={chart.name: chart for chart in charts},
        image=data_url,
        version=version,
        links=links,
        style=Markup(style),  # noqa: S704 - a template of the package, without user input
        policy=content_policy(style),
    )
