"""``report.md``: the report without its items, for a terminal, a pull request or a wiki."""

from typing import Final

from qaeval.comparison.charts import charts
from qaeval.comparison.report import Report
from qaeval.comparison.sections import headline, subtitle, title, write_sections
from qaeval.report.markdown import escape, section_lines, sentence

CHARTS: Final = "charts"
"""Folder beside the document with its charts."""

_KINDS: Final = {"finding": "", "caution": "**Caution:** ", "note": "Note: "}


def render_markdown(report: Report, *, with_charts: bool = False) -> str:
    """Render a report as GitHub-flavoured markdown; the same report gives the same text.

    Args:
        report: the report.
        with_charts: whether to link its charts; they must then stand in `CHARTS` beside the document.
    """
    lines = [f"# {escape(title(report))}", "", escape(subtitle(report)), ""]
    verdict, *rest = headline(report)
    lines += [f"**{escape(verdict.text)}**", ""]
    lines += [f"- {_KINDS[remark.kind]}{sentence(remark.text)}" for remark in rest]
    for chart in charts(report) if with_charts else ():
        lines += ["", f"![{escape(f'{chart.title}. {chart.alt}')}]({CHARTS}/{chart.name}.svg)"]
    for section in write_sections(report):
        lines += ["", *section_lines(section)]
    return "\n".join(lines) + "\n"
