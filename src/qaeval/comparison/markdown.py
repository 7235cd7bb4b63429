"""``report.md``: the report without its items, for a terminal, a pull request or a wiki."""

from collections.abc import Iterator
from typing import Final

from qaeval.comparison.charts import charts
from qaeval.comparison.overview import Overview, build_overview
from qaeval.comparison.report import Report
from qaeval.comparison.sections import headline, subtitle, title, write_sections
from qaeval.report import numbers
from qaeval.report.markdown import escape, section_lines, sentence

CHARTS: Final = "charts"
"""Folder beside the document with its charts."""

_KINDS: Final = {"finding": "", "caution": "**Caution:** ", "note": "Note: "}


_MARKS: Final = {"good": "✓", "open": "!", "bad": "✕"}


def render_markdown(report: Report, *, with_charts: bool = False) -> str:
    """Render a report as GitHub-flavoured markdown; the same report gives the same text.

    Args:
        report: the report.
        with_charts: whether to link its charts; they must then stand in `CHARTS` beside the document.
    """
    lines = [f"# {escape(title(report))}", "", escape(subtitle(report)), ""]
    lines += overview_lines(build_overview(report))
    lines += ["", "## What this rests on", ""]
    remarks = [remark for remark in headline(report) if remark.kind != "verdict"]
    lines += [f"- {_KINDS[remark.kind]}{sentence(remark.text)}" for remark in remarks]
    for chart in charts(report) if with_charts else ():
        lines += ["", f"![{escape(f'{chart.title}. {chart.alt}')}]({CHARTS}/{chart.name}.svg)"]
    for section in write_sections(report):
        lines += ["", *section_lines(section)]
    return "\n".join(lines) + "\n"


def overview_lines(screen: Overview) -> Iterator[str]:
    """Yield the first screen as Markdown: verdict, number, badges, candidates, differences, ways on; also for a comment."""
    yield f"**{escape(screen.verdict)}**"
    yield ""
    yield sentence(" ".join(text for text in (screen.number, screen.gap) if text))
    yield ""
    for badge in screen.badges:
        yield f"- {_MARKS[badge.state]} **{escape(badge.title)}**: {escape(badge.text)}"
    yield ""
    yield f"| Candidate | Usable, {escape(screen.rate_source)} | Facts |"
    yield "| --- | --: | --- |"
    for candidate in screen.candidates:
        facts = " · ".join(f"{fact.value} {fact.unit}" for fact in candidate.facts)
        yield f"| {escape(candidate.name)} | **{escape(numbers.rate(candidate.rate))}** | {escape(facts)} |"
    if screen.differences:
        yield ""
        yield "| Difference | Usable | By |"
        yield "| --- | --: | --- |"
        for line in screen.differences:
            yield f"| {escape(line.pair)} | {escape(numbers.difference(line.measure))} | {escape(line.source)} |"
    if screen.flaws:
        yield ""
        names = " | ".join(escape(candidate.name) for candidate in screen.candidates)
        yield f"| Why items are not {escape(screen.best)}, of graded items | {names} |"
        yield f"| --- |{' --: |' * len(screen.candidates)}"
        for flaw in screen.flaws:
            shares = " | ".join(escape(numbers.rate(count.share)) for count in flaw.counts)
            yield f"| {escape(flaw.name)} | {shares} |"
    if screen.ways:
        yield ""
        ways = [f"{'' if way.n is None else f'{way.n:,} '}{way.text}" for way in screen.ways]
        yield f"Next: {escape(' · '.join(ways))}."
