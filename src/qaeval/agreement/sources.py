"""Agreement of a run's judge with labels, or of the columns of any table of letters."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from qaeval.agreement.analysis import Columns, report_of_columns
from qaeval.agreement.model import AgreementReport
from qaeval.agreement.scale import OWN_LETTERS, read_scale
from qaeval.errors import DataError, UsageError, closest
from qaeval.files.yaml import read_csv_cells, read_text

_SHOWN: Final = 5
"""Values of each column that an error message lists."""

_FIRST: Final = 100
"""Cells of a column that are looked at before all of them are."""


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of strings, one row per item: JSON lines (``.jsonl``, ``.ndjson``), TSV (``.tsv``), or CSV.

    Raises:
        DataError: the file cannot be read, or has no row.
    """
    if path.suffix in {".jsonl", ".ndjson"}:
        return _read_json_lines(path)
    header, rows = read_csv_cells(path)
    return pd.DataFrame(rows, columns=header, dtype=object)


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
        scale: Letters, best first; default: the letters of `columns`, whose order is that of numbers, of A, B and C or of
            words such as pass and fail; other letters have none.
        by: Column of groups.

    Raises:
        UsageError: A column is not there, or fewer than two columns are left.
        DataError: The table holds a letter off the scale.
    """
    table = (
        table.astype(object).where(table.notna(), "").map(str)
    )  # objects: pandas' own strings are slow one by one
    for name in (*columns, *(name for name in (judge, cluster, by) if name)):
        if name not in table.columns:
            raise UsageError(
                f"{source}: no column {name!r}.{closest(name, list(table.columns))} It has {', '.join(table.columns)}."
            )
    raters = tuple(columns) or _columns_of_letters(table, tuple(scale) or OWN_LETTERS)
    if judge and judge not in raters:
        raters = (*raters, judge)
    cells = (cell for name in raters for cell in table[name])
    letters = read_scale(cells, tuple(scale) or (() if columns else OWN_LETTERS))
    if len(raters) < 2:
        raise UsageError(
            f"{source}: agreement needs two columns of letters, found {', '.join(raters) or 'none'} on the scale "
            f"{'/'.join(scale or OWN_LETTERS)}. Name them with --columns, and the letters with --scale. It has {_shown(table)}."
        )
    if len(letters.letters) < 2:
        raise DataError(
            f"{source}: all letters are {'/'.join(letters.letters)}; name the scale with --scale, best first"
        )
    for name in raters:
        table[name] = table[name].map(letters.spellings)
    n_missing = sum(int((table[name] == "").sum()) for name in raters)
    _check_letters(source, table, raters, letters.letters)
    if not judge and len(raters) == 2:
        judge = raters[1]
    report = report_of_columns(
        table,
        Columns(raters=raters, judge=judge, cluster=cluster, by=by),
        source=source,
        scale=letters,
    )
    return report.model_copy(update={"n_missing": n_missing})


def _read_json_lines(path: Path) -> pd.DataFrame:
    rows = []
    # not splitlines(): JSON strings may hold U+2028
    for number, line in enumerate(read_text(path).split("\n"), start=1):
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


def _columns_of_letters(table: pd.DataFrame, letters: Sequence[str]) -> tuple[str, ...]:
    allowed = {*letters, ""}

    def given(cells: "pd.Series[str]") -> set[str]:
        return {*read_scale(cells, letters).spellings.values()}

    def holds_letters(name: str) -> bool:
        cells = table[name]
        # mostly the first cells show that a column is none of letters
        return given(cells.head(_FIRST)) <= allowed and {""} != given(cells) <= allowed

    return tuple(filter(holds_letters, table.columns))


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
