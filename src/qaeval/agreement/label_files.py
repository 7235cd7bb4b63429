"""Read files of labels: qaeval's own, sheets that were filled in, and exports of labelling tools."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import orjson
from pydantic import ValidationError

from qaeval.agreement.label_formats import READ, is_own, rows_of_json, rows_of_table
from qaeval.agreement.label_rows import (
    LabelRow,
    RaterRows,
    answered_facts,
    as_letter,
    parse_row,
    raised_flags,
    replay,
)
from qaeval.errors import DataError, UsageError
from qaeval.files.rows import read_rows
from qaeval.files.yaml import read_csv, read_text, readable, validated
from qaeval.records import Label, LabelDraw

_log: Final = logging.getLogger("qaeval")

DRAW: Final = "draw.json"
"""Beside an exported sheet: its draw, with the probability of every item or chunk."""
_RATER: Final = re.compile(r"\w[\w .@+-]{0,63}")


def require_rater_name(name: str) -> str:
    """Return the name of a rater, without spaces around it.

    Raises:
        UsageError: it cannot be the name of a file.
    """
    stripped = name.strip()
    if not _RATER.fullmatch(stripped) or stripped.endswith("."):
        raise UsageError(
            f"rater {name!r}: expected a letter or digit and then letters, digits, spaces or any of . @ + - _, 64 at most: the name "
            f"is that of the label file"
        )
    return stripped


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read a file of labels: JSONL of labels or of a sheet that was filled in, CSV with ``item_id`` and ``label``, or a labelling tool's.

    A row of CSV or of a sheet may have ``rater`` (else the file's name is it), ``rater_kind`` (else a person), ``rubric`` and
    ``note``; those without a label are skipped. So a sheet of ``qaeval export --to labels``, and the output of ``qaeval
    report --format csv`` with a column more, can be used as they are.

    Raises:
        DataError: the file is not readable, a column is missing, or a row is not a label.
    """
    return read_rater_rows(path).labels


def read_rater_rows(path: Path) -> RaterRows:
    """Read what a file of labels says: also the repeats, skipped items and draws of a sitting.

    Raises:
        DataError: As in `read_labels`.
    """
    return replay(read_label_rows(path))


def read_label_rows(path: Path) -> list[LabelRow]:
    """Read the rows of a file of labels; the draw of an exported sheet, in `DRAW` beside it, comes first.

    An incomplete last line, as a killed process leaves it, is left out with a warning.

    Raises:
        DataError: As in `read_labels`.
    """
    draws: list[LabelRow] = list(read_rows(path.with_name(DRAW), LabelDraw.model_validate_json))
    if path.suffix not in {".csv", ".tsv"}:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if _is_foreign(path):
            return [*draws, *_foreign_labels(path)]
        rows = read_rows(path, lambda line: _label_row(line, path))
        return [*draws, *(row for row in rows if row is not None)]
    cells = read_csv(path)
    sheet = rows_of_table(cells)
    if missing := {"item_id", "label"} - set(sheet[0]):
        raise DataError(
            f"{path}: expected {READ}; the column {' and '.join(sorted(missing))} is missing, it has {', '.join(cells[0])}"
        )
    return [*draws, *(_sheet_label(row, path) for row in sheet if row["label"])]


def _is_foreign(path: Path) -> bool:
    """Return whether a JSON file is that of a labelling tool, by its first row."""
    with readable(path), path.open("rb") as file:
        line = next((line for line in file if line.strip()), b"").removeprefix(b"\xef\xbb\xbf").strip()
    if line.startswith(b"["):
        return True
    try:
        return not is_own(orjson.loads(line))
    except orjson.JSONDecodeError:
        return line == b"{"  # an object over several lines


def _foreign_labels(path: Path) -> Iterator[LabelRow]:
    """Yield the labels of a labelling tool's export.

    Raises:
        DataError: The file is not JSON, or a row has no item_id, or no field of it can be the letter.
    """
    text = read_text(path)
    try:
        # not splitlines(): JSON strings may hold U+2028
        lines = (line for line in text.split("\n") if line.strip())
        whole = json.loads(text) if text.lstrip().startswith("[") else [*map(json.loads, lines)]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}; expected {READ}") from error
    own = [value for value in whole if isinstance(value, dict) and is_own(value)]
    try:
        rows = own if len(own) == len(whole) else [*rows_of_json(whole)]
    except (AttributeError, LookupError, TypeError) as error:
        raise DataError(
            f"{path}: fields in another form than a labelling tool writes; expected {READ}"
        ) from error
    if not rows or not any(row.get("label") or row.get("letter") for row in rows):
        raise DataError(f"{path}: holds no letter; expected {READ}")
    raters = {row["rater"] for row in rows if row.get("rater")}
    for number, row in enumerate(rows, start=1):
        if not row.get("item_id"):
            raise DataError(
                f"{path}: row {number} has no item_id; expected {READ}. `qaeval export --to labels` writes the items with it: import "
                "that file into the tool, which keeps the field"
            )
        # one annotator of a tool is the rater that the file is named after
        named = {
            **row,
            "rater": f"{path.stem}-{row['rater']}" if len(raters) > 1 and row.get("rater") else path.stem,
        }
        try:
            label = parse_row(named if own != rows else row, rater=path.stem)
        except ValidationError as error:
            raise DataError(f"{path}: row {number}: {error.errors()[0]['msg']}; expected {READ}") from error
        except ValueError as error:
            raise DataError(f"{path}: row {number}: {error}") from error
        if label is not None:
            yield label


_SHEET_FIELDS: Final = (
    "rubric",
    "split",
    "note",
    "chunk_id",
    "inclusion",
    "chunk_inclusion",
    "seconds",
    "time",
)


def _sheet_label(row: Mapping[str, str], path: Path) -> Label:
    where = f"{path}: item {row['item_id']}"
    try:
        flags = raised_flags(row)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    fields = {
        "item_id": row["item_id"],
        "letter": as_letter(row["label"]),
        "rater": row.get("rater") or path.stem,
        "rater_kind": row.get("rater_kind") or "human",
        "flags": flags,
        "facts": answered_facts(row),
        "settles": bool(row.get("settles")),
        **{name: row[name] for name in _SHEET_FIELDS if row.get(name)},
    }
    return validated(Label, fields, where)


def _label_row(line: bytes, path: Path) -> LabelRow | None:
    try:
        return parse_row(orjson.loads(line), rater=path.stem)
    except orjson.JSONDecodeError:
        if line.endswith(b"\n"):
            raise
        _log.warning("%s: the last line is incomplete and left out; its item has no label", path)
        return None
