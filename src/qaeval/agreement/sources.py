"""Agreement of a run's judge with labels, or of the columns of any table of letters."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from qaeval.agreement.analysis import Columns, report_of_columns
from qaeval.agreement.model import AgreementReport
from qaeval.errors import DataError, UsageError, closest
from qaeval.files.yaml import read_csv, read_text

DEFAULT_SCALE: Final = ("A", "B", "C")
"""Scale if none is given, best first."""

_SHOWN: Final = 5
"""Values of each column that an error message lists."""


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of strings, one row per item: JSON lines (``.jsonl``, ``.ndjson``), TSV (``.tsv``), or CSV.

    Raises:
        DataError: the file cannot be read, or has no row.
    """
    if path.suffix in {".jsonl", ".ndjson"}:
        return _read_json_lines(path)
    return pd.DataFrame(read_csv(path), dtype=str)


def agreement_of_table(
    table: pd.DataFrame,
    *,
    source: str,
    columns: Sequence[str] = (),
    judge: str = "",
    cluster: str = "",
    scale: Sequence[str] = (),
    by: str = "",
) -> AgreementReport:
    """Compare columns of letters in a table; a missing letter is an empty string, None or NaN.

    Args:
        table: One row per item.
        source: Name of the table, for error messages and the report.
        columns: Columns of letters; default: all that hold letters of the scale alone.
        judge: The judge's column; default: the second of two columns.
        cluster: Column of the chunk or document that a row belongs to.
        scale: Letters, best first; default: A, B, C, or the letters of `columns` in their order.
        by: Column of groups.

    Raises:
        UsageError: A column is not there, or fewer than two columns are left.
        DataError: The table holds a letter off the scale.
    """
    table = table.astype(object).where(table.notna(), "").astype(str)
    for name in (*columns, *(name for name in (judge, cluster, by) if name)):
        if name not in table.columns:
            raise UsageError(
                f"{source}: no column {name!r}.{closest(name, list(table.columns))} It has {', '.join(table.columns)}."
            )
    letters = tuple(scale) or (_letters_of(table, columns) if columns else DEFAULT_SCALE)
    raters = tuple(columns) or _columns_of_letters(table, letters)
    if judge and judge not in raters:
        raters = (*raters, judge)
    if len(raters) < 2:
        raise UsageError(
            f"{source}: agreement needs two columns of letters, found {', '.join(raters) or 'none'} on the scale "
            f"{'/'.join(letters)}. Name them with --columns, and the letters with --scale. It has {_shown(table)}."
        )
    if len(letters) < 2:
        raise DataError(
            f"{source}: all letters are {'/'.join(letters)}; name the scale with --scale, best first"
        )
    _check_letters(source, table, raters, letters)
    if not judge and len(raters) == 2:
        judge = raters[1]
    report = report_of_columns(
        table,
        Columns(raters=raters, judge=judge, cluster=cluster, by=by),
        source=source,
        letters=letters,
    )
    return report.model_copy(update={"is_scale_assumed": not scale and all(map(_is_number, letters))})


def _read_json_lines(path: Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected an object with a key per column, got {line[:40]!r}")
        rows.append({key: "" if value is None else str(value).strip() for key, value in row.items()})
    if not rows:
        raise DataError(f"{path}: holds no row")
    return pd.DataFrame(rows).fillna("").astype(str)


def _letters_of(table: pd.DataFrame, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the letters of the columns, best first: numbers from the highest, text in alphabetical order."""
    letters = {letter for name in columns for letter in table[name] if letter}
    return tuple(sorted(letters, key=int, reverse=True) if all(map(_is_number, letters)) else sorted(letters))


def _is_number(letter: str) -> bool:
    return letter.lstrip("-").isdigit()


def _columns_of_letters(table: pd.DataFrame, letters: Sequence[str]) -> tuple[str, ...]:
    allowed = {*letters, ""}
    return tuple(name for name in table.columns if set(table[name]) <= allowed and (table[name] != "").any())


def _check_letters(source: str, table: pd.DataFrame, raters: Sequence[str], letters: Sequence[str]) -> None:
    for name in raters:
        off = table.index[~table[name].isin([*letters, ""])]
        if len(off):
            raise DataError(
                f"{source}: column {name!r} holds {table.loc[off[0], name]!r} (row {off[0] + 1}), which is not on the scale "
                f"{'/'.join(letters)}; name the letters with --scale, best first"
            )


def _shown(table: pd.DataFrame) -> str:
    """Show the columns with their first values."""
    return "; ".join(
        f"{name} ({', '.join(map(repr, list(dict.fromkeys(table[name]))[:_SHOWN]))}…)"[:80]
        for name in table.columns
    )
