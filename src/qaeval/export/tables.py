"""A run as a flat table: one row per item, and one per reply without items."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from io import StringIO
from itertools import chain, islice
from typing import IO, Any, Final, TypeVar

import pandas as pd

from qaeval.comparison.csv import escape_formula
from qaeval.errors import UsageError, install_command
from qaeval.export.select import Grading, Replies, labels_by_item, last_grade
from qaeval.records import FORM, REJECTED, Failure, Generation, Grade, Item, Label, Sample
from qaeval.storage.run_directory import RunStore

_T = TypeVar("_T")

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
_ROW_GROUP: Final = 65_536
"""Rows of a row group of Parquet, which the library writes whole."""
_BATCH: Final = 4_096
"""Rows that are held as Python objects. With a multiple of the 1,024 rows after which the library looks whether a page is full, the
bytes are those of a group that was put together at once."""


def table_columns(store: RunStore) -> tuple[str, ...]:
    """Return the columns of a run's table."""
    weights = {sample.weight for sample in store.samples()}
    return (*COLUMNS, INCLUSION) if len(weights) > 1 else COLUMNS


def table_rows(
    store: RunStore, labels: Iterable[Label], *, candidates: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield the rows by sample, candidate and position, with a cell for each of `table_columns` and the inclusion.

    Args:
        store: A graded run.
        labels: Labels of any items; those of other rubrics are ignored.
        candidates: Candidates to include; empty: all.

    Raises:
        DataError: the run is not graded, or the letter of a label is not on its scale.
    """
    labels_of = labels_by_item(labels, Grading.of(store))
    with store.grades_by_item() as grades:
        for sample, name, reply in Replies(store):
            if candidates and name not in candidates:
                continue
            inclusion = {INCLUSION: 1 / sample.weight}
            if not isinstance(reply, Generation):
                yield _failure_row(sample, name, reply.reason if reply else "not asked") | inclusion
                continue
            for item in reply.items:
                grade, own = last_grade(grades, item.item_id), labels_of.get(item.item_id, ())
                yield _item_row(sample, name, item, grade, own) | inclusion
            for lost in reply.lost or ():
                yield _failure_row(sample, name, lost.reason) | inclusion | {"position": lost.position}


def csv_lines(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, delimiter: str = ","
) -> Iterator[bytes]:
    """Yield the head of a CSV file and its rows; an apostrophe precedes cells that a spreadsheet would run as a formula.

    Args:
        rows: Cells by column.
        columns: Their names.
        delimiter: Between two cells.
    """
    out = StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    for cells in chain([columns], ([escape_formula(row[name]) for name in columns] for row in rows)):
        writer.writerow(cells)
        yield out.getvalue().encode()
        out.seek(0)
        out.truncate()


def write_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], file: IO[bytes]) -> int:
    """Write rows as CSV, and return their number; arguments as in `csv_lines`."""
    n = -1  # the head is no row
    for line in csv_lines(rows, columns):
        file.write(line)
        n += 1
    return n


def as_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, delimiter: str = ",") -> bytes:
    """Return rows as CSV; arguments as in `csv_lines`."""
    return b"".join(csv_lines(rows, columns, delimiter=delimiter))


def write_parquet(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], file: IO[bytes]) -> int:
    """Write rows as Parquet, and return their number; the rows of a row group are held.

    Args:
        rows: Cells by column, at least one row.
        columns: Their names.
        file: Where they are written.

    Raises:
        UsageError: pyarrow is not installed.
    """
    require_package("pyarrow", "parquet")
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    types = {name: _NUMBERS.get(name, "string") for name in columns}
    tables = (
        pa.Table.from_pandas(pd.DataFrame(part, columns=list(columns)).astype(types), preserve_index=False)
        for part in _batches(rows, _BATCH)
    )
    first = next(tables)
    n = 0
    with pq.ParquetWriter(file, first.schema) as writer:
        for group in _batches(chain([first], tables), _ROW_GROUP // _BATCH):
            table = pa.concat_tables(group)
            writer.write_table(table)
            n += table.num_rows
    return n


def require_package(package: str, extra: str) -> None:
    """Check that an optional package is installed.

    Raises:
        UsageError: it is not.
    """
    if find_spec(package) is None:
        raise UsageError(
            f"--to {extra} needs the package {package}; install it with {install_command(extra)}"
        )


def _batches(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(values)
    return iter(lambda: list(islice(iterator, size)), [])


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
