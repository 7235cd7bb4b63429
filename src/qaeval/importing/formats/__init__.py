"""Files that other evaluation harnesses write: recognised by content, read as rows with an answer and its scores.

A module for each harness; docs/import.md says what is taken. `rows.HarnessRow` is what all of them make.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from qaeval.errors import DataError
from qaeval.importing.formats import deepeval, evalscope, lm_eval, promptfoo, ragas
from qaeval.importing.formats.rows import Rows, SourceRow

READ: Final = (
    "items as JSON Lines, a JSON array, CSV, Parquet or a `datasets` folder of Hugging Face, or a file of Inspect (log), promptfoo "
    "(results.json), DeepEval (test run), Ragas (CSV), lm-eval (samples_*.jsonl) or EvalScope (reviews)"
)
"""What is read, for error messages."""


HARNESS_NAMES: Final = "Inspect, promptfoo, DeepEval, Ragas, lm-eval, EvalScope"


@dataclass(frozen=True)
class Harness:
    """The reader of a harness's files.

    Attributes:
        name: Name of the harness.
        is_row: Whether a row of a file is one of this harness.
        read: Yields the answers of a file's rows; a row is a `HarnessRow`.
        unpack: Returns the rows of a file that is one JSON object; None where it is another one.
    """

    name: str
    is_row: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Rows, Path | None], Iterator[SourceRow]]
    unpack: Callable[[Mapping[str, Any], str], list[Any] | None] | None = None


HARNESSES: Final = (
    Harness("promptfoo", promptfoo.is_row, promptfoo.read, promptfoo.unpack),
    Harness("DeepEval", deepeval.is_row, deepeval.read, deepeval.unpack),
    Harness("lm-eval", lm_eval.is_row, lm_eval.read),
    Harness("EvalScope", evalscope.is_row, evalscope.read),
    Harness("Ragas", ragas.is_row, ragas.read),
)
"""Inspect is not among them: `inspect_log` reads its files, which are no rows."""


def unpacked(document: Mapping[str, Any], where: str) -> list[Any] | None:
    """Return the rows of a JSON object that a harness wrote; None where none of them did.

    Raises:
        DataError: it is of a version that is not read.
    """
    for harness in HARNESSES:
        if harness.unpack is not None and (rows := harness.unpack(document, where)) is not None:
            return rows
    return None


def harness_of(rows: Rows) -> Harness | None:
    """Return the harness that wrote rows, by the first of them."""
    for _, row in islice(rows(), 1):
        return next((harness for harness in HARNESSES if harness.is_row(row)), None)
    return None


def answers(harness: Harness, rows: Rows, path: Path | None) -> Iterator[SourceRow]:
    """Yield the answers of a harness's rows.

    Raises:
        DataError: a row is none of the harness.
    """

    def checked() -> Iterator[SourceRow]:
        for where, row in rows():
            if not harness.is_row(row):
                keys = ", ".join(map(str, islice(row, 8))) or "none"
                raise DataError(
                    f"{where}: expected a row of {harness.name}, as the rows before; its keys are {keys}"
                )
            yield where, row

    return harness.read(checked, path)
