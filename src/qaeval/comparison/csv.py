"""Items of a run as CSV, one row for each expected item."""

import csv
import re
from collections.abc import Sequence
from io import StringIO
from typing import Final

from qaeval.comparison.items import ChunkItems
from qaeval.text.visible import visible

COLUMNS = (
    "item_id",
    "chunk_id",
    "stratum",
    "candidate",
    "position",
    "type",
    "status",
    "letter",
    "flags",
    "flaw",
    "labels",
    "question",
    "answer",
    "rejected",
    "findings",
    "reason",
)

_FORMULA: Final = re.compile(r"[\t\n]|\s*[=+\-@＝＋－＠]")
"""What a spreadsheet starts a formula with; some trim blanks first, or read the full-width forms."""


def render_csv(items: Sequence[ChunkItems]) -> str:
    """Write the items, chunk by chunk; a cell that a spreadsheet would run as a formula gets an apostrophe before it."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for chunk in items:
        for candidate in chunk.candidates:
            for item in candidate.items:
                cells = (
                    item.item_id,
                    chunk.chunk_id,
                    chunk.stratum,
                    candidate.candidate,
                    str(item.position),
                    item.type,
                    item.status,
                    item.letter,
                    " ".join(item.flags),
                    item.flaw,
                    " ".join(f"{rater}:{letter}" for rater, letter in item.labels),
                    item.question,
                    item.answer,
                    item.rejected,
                    "; ".join(f"{check}: {finding}" for check, finding in item.findings),
                    item.reason,
                )
                writer.writerow([escape_formula(cell) for cell in cells])
    return out.getvalue()


def escape_formula(cell: object) -> str:
    """Write a cell so that no spreadsheet runs it, and without control characters.

    A carriage return, which would start a row unquoted, becomes a line feed.
    """
    if not isinstance(cell, str):
        # a number of our own is no formula, whatever its sign
        return "" if cell is None else str(cell)
    text = visible(re.sub(r"\r\n?", "\n", cell))
    return f"'{text}" if _FORMULA.match(text) else text
