"""Repair of a damaged run: rows that cannot be read are moved aside, so that their tasks run again."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qaeval.errors import DataError
from qaeval.files.rows import BAD_ROW, explained, id_number, problem_of
from qaeval.files.whole import whole_file, write_file
from qaeval.records import Failure, Generation, Grade
from qaeval.storage.run_directory import (
    AUDIT,
    CONTROLS,
    GENERATION_REPEATS,
    GENERATIONS,
    GRADE_REPEATS,
    GRADES,
    JUDGES,
    METRICS,
    SAMPLES,
    SESSIONS,
    RunStore,
    row_parser,
)

REJECTED: Final = "rejected.jsonl"
"""Rows that `repair` moved out of a run, with file, line, reason and text."""
NO_REPLY: Final = "no reply of the run has its item"
"""Reason of a letter that was moved aside although it can be read."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was moved aside.

    Attributes:
        file: Name of the file in the run directory.
        line: Line in the file before the repair, from 1.
        reason: Why the row cannot be used.
        text: The line; bytes that are not UTF-8 are replaced.
    """

    file: str
    line: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Repair:
    """Result of a repair.

    Attributes:
        rejected: The rows that were moved to `REJECTED`.
        warnings: Incomplete last lines that were cut off.
    """

    rejected: tuple[RejectedRow, ...]
    warnings: tuple[str, ...]

    @property
    def by_file(self) -> dict[str, int]:
        """Number of rejected rows by file."""
        return dict(Counter(row.file for row in self.rejected))


def repair(path: Path) -> Repair:
    """Move the unreadable rows of a run to `REJECTED`, with the letters of items whose reply is gone.

    A run without such rows is not changed. A repaired run has no manifest until it is completed and reported.

    Raises:
        DataError: there is no run, or its samples or settings are damaged, which cannot be repaired.
        StoreError: another process writes the run, or it cannot be written.
    """
    with RunStore.open(path, writable=True, is_audit=(path / AUDIT).is_file()) as store:
        _require_samples(store, store.settings()["sample_set"]["n"])
        bad: dict[str, dict[int, str]] = {}
        items: set[str] = set()
        for name in (GENERATIONS, GENERATION_REPEATS):
            bad[name] = _unreadable(store.path / name, name, items)
        further = sorted(f"{JUDGES}/{file.name}" for file in (store.path / JUDGES).glob("*.jsonl"))
        for name in (GRADES, GRADE_REPEATS, *further):
            bad[name] = _orphans(store.path / name, items) | _unreadable(store.path / name, name, None)
        for name in (CONTROLS, AUDIT, SESSIONS, METRICS):
            bad[name] = _unreadable(store.path / name, name, None)
        rejected = tuple(
            row for name, lines in bad.items() if lines for row in _rows(store.path, name, lines)
        )
        if rejected:
            store.drop_manifest()
            _add(store.path / REJECTED, rejected)
            for name, lines in bad.items():
                if lines:
                    _remove(store.path / name, lines)
        return Repair(rejected, tuple(store.warnings))


def _require_samples(store: RunStore, n: int) -> None:
    problem = ""
    try:
        if (n_left := sum(1 for _ in store.samples())) != n:
            problem = f"{store.path / SAMPLES}: expected {n:,} samples, got {n_left:,}"
    except DataError as error:
        problem = str(error)
    if problem:
        raise DataError(
            f"{problem}. Samples cannot be repaired: restore {SAMPLES} from a copy, or start a new run"
        )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    if not path.is_file():
        return
    with explained(path, "reading"), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                yield number, line


def _unreadable(path: Path, name: str, items: set[str] | None) -> dict[int, str]:
    """Return the invalid lines, each with its problem; collect the item ids of the valid ones."""
    parse = row_parser(name)
    problems = {}
    for number, line in _lines(path):
        try:
            row = parse(line)
            _check_ids(row)
        except BAD_ROW as error:
            problems[number] = problem_of(error)
            continue
        if items is not None and isinstance(row, Generation):
            items.update(item.item_id for item in row.items)
    return problems


def _check_ids(row: object) -> None:
    """Check the ids of a reply or letter, by which its rows are looked up.

    Raises:
        ValueError: One is not of hex digits.
    """
    if isinstance(row, Generation | Grade | Failure):
        ids = [getattr(row, name, None) for name in ("task_id", "sample_id", "item_id")]
        for each in (*ids, *(item.item_id for item in getattr(row, "items", ()))):
            if each is not None:
                id_number(each)


def _orphans(path: Path, items: set[str]) -> dict[int, str]:
    """Return the lines with a letter of an item whose reply is gone: the task runs again, and the reply may differ."""
    orphans = {}
    for number, line in _lines(path):
        with suppress(*BAD_ROW):
            if json.loads(line)["item_id"] not in items:
                orphans[number] = NO_REPLY
    return orphans


def _rows(folder: Path, name: str, lines: dict[int, str]) -> Iterator[RejectedRow]:
    for number, line in _lines(folder / name):
        if number in lines:
            yield RejectedRow(name, number, lines[number], line.decode(errors="replace").rstrip("\n"))


def _add(path: Path, rows: Iterable[RejectedRow]) -> None:
    """Add rows to the file, unless a repair that was interrupted did; whole or not at all."""
    known = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    new = [json.dumps(_document(row), ensure_ascii=False).encode() + b"\n" for row in rows]
    write_file(path, b"".join([*known, *(line for line in new if line not in known)]))


def _document(row: RejectedRow) -> dict[str, Any]:
    return {"file": row.file, "line": row.line, "reason": row.reason, "text": row.text}


def _remove(path: Path, lines: dict[int, str]) -> None:
    with path.open("rb") as old, whole_file(path) as new:
        new.writelines(line for number, line in enumerate(old, start=1) if number not in lines)
