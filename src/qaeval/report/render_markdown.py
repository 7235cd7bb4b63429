"""``report.md``: the report without its items, for reading in a terminal, a pull request or a wiki."""

import re
from collections.abc import Iterator
from typing import Final

from qaeval.report.charts import charts
from qaeval.report.document import Report
from qaeval.report.sections import headline, subtitle, title, write_sections
from qaeval.report.tables import Section, Table

CHARTS: Final = "charts"
"""Folder beside the document with its charts."""

_KINDS: Final = {"finding": "", "caution": "**Caution:** ", "note": "Note: "}
_SPECIAL: Final = re.compile(r"([\\`*|~]|(?<!\w)_|_(?!\w)|<(?=[A-Za-z/!?])|\](?=[(\[:])|^[#+-](?=[\s#])|^>)")
"""What could start markup, an HTML tag or a link; other brackets and signs are left readable."""


def render_markdown(report: Report, *, with_charts: bool = False) -> str:
    """Render a report as GitHub-flavoured markdown; the same report gives the same text.

    Args:
        report: the report.
        with_charts: whether to link its charts; they must then stand in `CHARTS` beside the document.
    """
    lines = [f"# {escape(title(report))}", "", escape(subtitle(report)), ""]
    verdict, *rest = headline(report)
    lines += [f"**{escape(verdict.text)}**", ""]
    lines += [f"- {_KINDS[one.kind]}{escape(one.text)}" for one in rest]
    for one in charts(report) if with_charts else ():
        lines += ["", f"![{escape(f'{one.title}. {one.alt}')}]({CHARTS}/{one.name}.svg)"]
    for section in write_sections(report):
        lines += ["", *section_lines(section)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Make any text safe inside a markdown paragraph or table cell: one line, no markup, no HTML."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.replace("&", "&amp;").split()))


def section_lines(section: Section, heading: str = "##") -> Iterator[str]:
    """Yield the lines of a section, everything in it escaped."""
    yield f"{heading} {escape(section.title)}"
    for paragraph in section.paragraphs:
        yield ""
        yield escape(paragraph)
    for table in section.tables:
        yield ""
        yield from _table(table)
    for part in section.parts:
        yield ""
        yield from section_lines(part, f"{heading}#")


def _table(table: Table) -> Iterator[str]:
    yield f"**{escape(table.caption)}**"
    yield ""
    yield _row(table.header)
    yield _row(
        tuple("---" if table.is_text(column) else "--:" for column in range(len(table.header))), raw=True
    )
    for place, row in enumerate(table.rows):
        cells = [escape(cell) for cell in row]
        cells = [
            f"**{cell}**" if table.is_diagonal(place, column) else cell for column, cell in enumerate(cells)
        ]
        yield _row(tuple(cells), raw=True)
    for note in table.notes:
        yield ""
        yield escape(note)


def _row(cells: tuple[str, ...], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else map(escape, cells))} |"
