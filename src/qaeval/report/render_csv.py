"""The letters of a run as CSV, a row for each expected item: for spreadsheets and for statistics of one's own."""

import csv
from collections.abc import Sequence
from io import StringIO

from qaeval.report.items import ChunkItems

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
    "labels",
    "question",
    "answer",
    "rejected",
    "findings",
    "reason",
)


def render_csv(items: Sequence[ChunkItems]) -> str:
    """Write the items, chunk by chunk; a cell that a spreadsheet would run as a formula gets an apostrophe before it."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for chunk in items:
        for own in chunk.candidates:
            for item in own.items:
                cells = (
                    item.item_id,
                    chunk.chunk_id,
                    chunk.stratum,
                    own.candidate,
                    str(item.position),
                    item.type,
                    item.status,
                    item.letter,
                    " ".join(item.flags),
                    " ".join(f"{rater}:{letter}" for rater, letter in item.labels),
                    item.question,
                    item.answer,
                    item.rejected,
                    "; ".join(f"{check}: {found}" for check, found in item.findings),
                    item.reason,
                )
                writer.writerow([_harmless(cell) for cell in cells])
    return out.getvalue()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell
