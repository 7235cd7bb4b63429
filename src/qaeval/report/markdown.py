"""Markdown of sections and tables; all text is escaped."""

import re
from collections.abc import Iterator
from typing import Final

from qaeval.report.tables import Section, Table
from qaeval.text.visible import visible

_SPECIAL: Final = re.compile(
    r"([\\`*|~]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|\](?=[(\[:])|^[#+-](?=[\s#])|^>)"
)
"""Characters that can start markup, an HTML tag or a link; others stay readable."""
_CODE: Final = re.compile(r"((?<!`)`[^`]+`(?!`))")


def escape(text: str) -> str:
    """Escape untrusted text for a Markdown paragraph or table cell: one line, no markup, no HTML, no control characters."""
    return _escaped(" ".join(visible(text).split()))


def sentence(text: str) -> str:
    """Escape a sentence of qaeval; text between backticks stays code."""
    parts = _CODE.split(" ".join(visible(text).split()))
    return "".join(part if index % 2 else _escaped(part) for index, part in enumerate(parts))


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text.replace("&", "&amp;"))


def section_lines(section: Section, heading: str = "##") -> Iterator[str]:
    """Yield the lines of a section."""
    yield f"{heading} {escape(section.title)}"
    for paragraph in section.paragraphs:
        yield ""
        yield sentence(paragraph)
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
    for index, row in enumerate(table.rows):
        cells = [escape(cell) for cell in row]
        cells = [
            f"**{cell}**" if table.is_diagonal(index, column) else cell for column, cell in enumerate(cells)
        ]
        yield _row(tuple(cells), raw=True)
    for note in table.notes:
        yield ""
        yield sentence(note)


def _row(cells: tuple[str, ...], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else map(escape, cells))} |"
