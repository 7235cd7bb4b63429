"""First screen of a report for the terminal, as lines of plain text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from qaeval.comparison.headline import stopping_sentence
from qaeval.comparison.overview import CandidateLine, Overview, State, build_overview
from qaeval.comparison.report import Report
from qaeval.comparison.sections import headline
from qaeval.report import numbers

_BAR: Final = 20
"""Width of the bar of letters."""
_NONE, _FAILED = "·", "×"
_MARKS: Final[dict[State, str]] = {"good": "✓ ", "open": "! ", "bad": "✕ "}

LineKind: TypeAlias = Literal["verdict", "text", "good", "open", "bad", "candidate", "detail", "blank"]


@dataclass(frozen=True)
class OverviewLine:
    """A line; a longer one wraps behind its mark."""

    kind: LineKind
    text: str = ""
    mark: str = ""
    """What stands before the text, and its width before further lines."""


def overview_text(report: Report) -> tuple[OverviewLine, ...]:
    """Return the first screen for a terminal: verdict, number, badges, candidates, differences, flaws, cautions, ways on."""
    screen = build_overview(report)
    return (
        OverviewLine("text", screen.context),
        OverviewLine("blank"),
        OverviewLine("verdict", screen.verdict),
        OverviewLine("text", " ".join(text for text in (screen.number, screen.gap) if text)),
        OverviewLine("blank"),
        *(
            OverviewLine(badge.state, f"{badge.title}: {badge.text}", mark=_MARKS[badge.state])
            for badge in screen.badges
        ),
        OverviewLine("blank"),
        *_candidates(screen),
        *_differences(screen),
        *_stopping(report),
        *_flaws(screen),
        *_cautions(report),
        *_ways(screen),
    )


def _candidates(screen: Overview) -> Iterator[OverviewLine]:
    width = max(len(candidate.name) for candidate in screen.candidates)
    for candidate in screen.candidates:
        rate = candidate.rate
        interval = numbers.whole_interval(rate) or "too few chunks for an interval"
        share = numbers.whole_percent(rate.value)
        yield OverviewLine(
            "candidate", f"{candidate.name:<{width}}  {draw_bar(candidate)}  {share} usable, {interval}"
        )
        facts = " · ".join(f"{fact.value} {fact.unit}" for fact in candidate.facts)
        yield OverviewLine("detail", facts, mark=" " * (width + 2))
    counts = [candidate.counts for candidate in screen.candidates]
    legend = [
        f"{mark} {name}"
        for mark, name in ((_NONE, "no letter"), (_FAILED, "failed"))
        if any(n for row in counts for counted, n in row if counted == name)
    ]
    yield OverviewLine("detail", "; ".join([f"usable {screen.rate_source}", *legend]), mark=" " * (width + 2))


def _flaws(screen: Overview) -> Iterator[OverviewLine]:
    if not screen.flaws:
        return
    yield OverviewLine("blank")
    yield OverviewLine("text", f"why items are not {screen.best}, of graded items")
    width = max(len(candidate.name) for candidate in screen.candidates)
    for index, candidate in enumerate(screen.candidates):
        shares = [
            f"{flaw.name} {numbers.percent(flaw.counts[index].share.value)}"
            for flaw in screen.flaws
            if flaw.counts[index].n
        ]
        yield OverviewLine("text", " · ".join(shares) or "none named", mark=f"{candidate.name:<{width}}  ")


def _differences(screen: Overview) -> Iterator[OverviewLine]:
    if not screen.differences:
        return
    yield OverviewLine("blank")
    width = max(len(line.pair) for line in screen.differences)
    sources = max(len(line.source) for line in screen.differences)
    for line in screen.differences:
        pair = line.pair if line.is_deciding else ""
        yield OverviewLine(
            "text", f"{pair:<{width}}  {line.source:<{sources}}  {numbers.difference(line.measure)}"
        )


def _stopping(report: Report) -> Iterator[OverviewLine]:
    if report.stopping is None:
        return
    saved = report.stopping.timing.seconds_saved
    time = f" About {numbers.seconds(saved)} of machine time were saved." if saved > 0 else ""
    yield OverviewLine("blank")
    yield OverviewLine("text", f"{stopping_sentence(report.stopping)}{time}")


def _cautions(report: Report) -> Iterator[OverviewLine]:
    cautions = [remark.text for remark in headline(report) if remark.kind == "caution"]
    if cautions:
        yield OverviewLine("blank")
    for text in cautions:
        yield OverviewLine("open", text, mark="! ")


def _ways(screen: Overview) -> Iterator[OverviewLine]:
    if screen.ways:
        yield OverviewLine("blank")
        ways = [f"{'' if way.n is None else f'{way.n:,} '}{way.text}" for way in screen.ways]
        yield OverviewLine("text", " · ".join(ways), mark="next: ")


def draw_bar(candidate: CandidateLine) -> str:
    """Draw the letters of all expected items as a bar; what occurs at all has at least one place."""
    marks = {"no letter": _NONE, "failed": _FAILED}
    return _bar(
        [(marks.get(name, name[:1]), n) for name, n in candidate.counts if n], candidate.summary.n_expected
    )


def _bar(present: Sequence[tuple[str, int]], n_expected: int) -> str:
    widths = [max(1, round(_BAR * n / n_expected)) for _, n in present]
    while sum(widths) > _BAR:
        widths[widths.index(max(widths))] -= 1
    while sum(widths) < _BAR:
        widths[widths.index(max(widths))] += 1
    return "".join(mark * n for (mark, _), n in zip(present, widths, strict=True))
