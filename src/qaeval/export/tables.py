"""A run as a flat table: one row per item, and one per reply without items."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO, StringIO
from typing import Any, Final

import pandas as pd

from qaeval.comparison.csv import escape_formula
from qaeval.errors import UsageError, install_command
from qaeval.export.select import Grading, labels_by_item, replies_of
from qaeval.records import FORM, REJECTED, Failure, Generation, Grade, Item, Label, Sample, author
from qaeval.storage.run_directory import RunStore

COLUMNS: Final = (
    "candidate",
    "sample_id",
    "chunk_id",
    "document",
    "stratum",
    "item_id",
    "type",
    "position",
    "question",
    "answer",
    "rejected",
    "form",
    "letter",
    "flags",
    "flaw",
    "reason",
    "facts",
    "probability",
    "failure",
    "findings",
    "labels",
    "chunk",
)
"""``letter``, ``flags``, ``flaw``, ``reason``, ``facts`` (JSON) and ``probability`` are the judge's; ``failure`` is the reason for a
missing item or letter."""
INCLUSION: Final = "inclusion"
"""Last column, of runs whose samples weigh differently alone: the probability with which the sample was drawn."""

_NUMBERS: Final = {"position": "Int64", "probability": "Float64", INCLUSION: "Float64"}
"""Numeric columns, nullable; all others are text."""


def table_rows(
    store: RunStore, labels: Iterable[Label], *, candidates: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the rows by sample, candidate and position.

    Args:
        store: A graded run.
        labels: Labels of any items; those of other rubrics are ignored.
        candidates: Candidates to include; empty: all.

    Raises:
        DataError: the run is not graded, or the letter of a label is not on its scale.
    """
    grading = Grading.of(store)
    labels_of = labels_by_item(labels, grading)
    grades = {row.item_id: row for row in store.grades()}
    names = [name for name in grading.settings["candidates"] if not candidates or name in candidates]
    replies = {(row.sample_id, author(row)): row for row in replies_of(store)}
    rows: list[dict[str, Any]] = []
    inclusion: dict[str, float] = {}
    for sample in store.samples():
        inclusion[sample.sample_id] = 1 / sample.weight
        for name in names:
            reply = replies.get((sample.sample_id, name))
            if isinstance(reply, Generation):
                rows += [
                    _item_row(sample, name, item, grades.get(item.item_id), labels_of.get(item.item_id, ()))
                    for item in reply.items
                ]
                rows += [
                    {**_failure_row(sample, name, lost.reason), "position": lost.position}
                    for lost in reply.lost or ()
                ]
            else:
                rows.append(_failure_row(sample, name, reply.reason if reply else "not asked"))
    if len(set(inclusion.values())) > 1:
        return [{**row, INCLUSION: inclusion[row["sample_id"]]} for row in rows]
    return rows


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return (*COLUMNS, INCLUSION) if rows and INCLUSION in rows[0] else COLUMNS


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = (), *, delimiter: str = ",") -> bytes:
    """Return rows as CSV; an apostrophe precedes cells that a spreadsheet would run as a formula.

    Args:
        rows: Cells by column.
        columns: Default: those of `table_rows`.
        delimiter: Between two cells.
    """
    columns, out = columns or _columns(rows), StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([escape_formula(row[name]) for name in columns])
    return out.getvalue().encode()


def as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as Parquet.

    Raises:
        UsageError: pyarrow is not installed.
    """
    require_package("pyarrow", "parquet")
    columns = list(_columns(rows))
    frame = pd.DataFrame(list(rows), columns=columns)
    types = {name: _NUMBERS.get(name, "string") for name in columns}
    out = BytesIO()
    frame.astype(types).to_parquet(out, engine="pyarrow", index=False)
    return out.getvalue()


def require_package(package: str, extra: str) -> None:
    """Check that an optional package is installed.

    Raises:
        UsageError: it is not.
    """
    if find_spec(package) is None:
        raise UsageError(
            f"--to {extra} needs the package {package}; install it with {install_command(extra)}"
        )


def _item_row(
    sample: Sample, candidate: str, item: Item, grade: Grade | Failure | None, labels: Sequence[Label]
) -> dict[str, Any]:
    return {
        **_sample_cells(sample, candidate),
        "item_id": item.item_id,
        "type": item.type,
        "position": item.position,
        "question": item.question,
        "answer": item.answer,
        "rejected": item.parts.get(REJECTED, ""),
        "form": item.parts.get(FORM, ""),
        **_grade_cells(grade),
        "findings": _as_json(item.findings),
        "labels": _as_json({label.rater: label.letter for label in labels}),
    }


def _grade_cells(grade: Grade | Failure | None) -> dict[str, Any]:
    if not isinstance(grade, Grade):
        why = grade.reason if grade else "not graded"
        empty = dict.fromkeys(("letter", "flags", "flaw", "reason", "facts"), "")
        return {**empty, "probability": None, "failure": why}
    return {
        "letter": grade.letter,
        "flags": " ".join(grade.flags),
        "flaw": grade.flaw,
        "reason": grade.reason,
        "facts": _as_json(grade.facts),
        "probability": grade.probabilities.get(grade.letter) if grade.probabilities else None,
        "failure": "",
    }


def _failure_row(sample: Sample, candidate: str, reason: str) -> dict[str, Any]:
    """Return the row of a reply without items, or of a lost item."""
    empty = dict.fromkeys(COLUMNS, "")
    cells = {
        "type": sample.type,
        "question": sample.question,
        "position": None,
        "probability": None,
        "failure": reason,
    }
    return {**empty, **_sample_cells(sample, candidate), **cells}


def _sample_cells(sample: Sample, candidate: str) -> dict[str, Any]:
    chunk = sample.chunk
    return {
        "candidate": candidate,
        "sample_id": sample.sample_id,
        "chunk_id": chunk.chunk_id,
        "document": chunk.document,
        "stratum": sample.stratum,
        "chunk": chunk.text,
    }


def _as_json(value: Mapping[str, str]) -> str:
    """Return a mapping as JSON; an empty string for an empty one, so that filters can skip it."""
    return json.dumps(dict(value), ensure_ascii=False, sort_keys=True) if value else ""
