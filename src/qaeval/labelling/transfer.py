"""Labels from other machines and sheets into a run, and labels of a run as one file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qaeval.agreement.label_files import read_label_rows, read_rater_rows, require_rater_name
from qaeval.agreement.label_rows import FACT_COLUMN, FLAG_COLUMN, LabelRow, replay
from qaeval.comparison.run_data import labels_of_run
from qaeval.errors import DataError, UsageError
from qaeval.evals.rubric import Rubric
from qaeval.export.select import Grading, Replies
from qaeval.export.sheets import SPREADSHEETS
from qaeval.export.tables import as_csv
from qaeval.files.whole import write_file
from qaeval.labelling.question import rubric_of
from qaeval.labelling.rater_file import LABELS, RaterFile
from qaeval.records import Generation, Label, LabelDraw
from qaeval.report.numbers import plural
from qaeval.storage.run_directory import RunStore

_SHOWN: int = 5
"""Conflicts that a message names."""


@dataclass(frozen=True, kw_only=True)
class ImportedLabels:
    """What an import of label files did."""

    added: Mapping[str, int]
    """New labels by rater, also of raters without any."""
    n_present: int
    """Labels that the run had already."""
    n_not_in_run: int
    """Labels of items that the run does not have, which were left out."""
    n_other_rubric: int
    """Labels under another rubric, which were left out."""
    n_without_probability: int
    """Labels in the files whose items have no known probability of being drawn."""
    paths: tuple[Path, ...]
    """Files that were written."""


def import_labels(run: Path, files: Sequence[Path], *, rater: str = "") -> ImportedLabels:
    """Merge label files into a run: rater files of other machines, filled-in sheets, exports.

    Rows that the run has already are left out, so that an import can be repeated. Nothing is written if any label conflicts.

    Args:
        run: A graded run.
        files: Label files, as `read_labels` reads them.
        rater: Name of the rater of all labels; empty: that of each row, else of the file.

    Raises:
        UsageError: No file is given, or a rater's name is not valid.
        DataError: A file is not readable, holds no label of the run, a letter off the scale, or a label that differs from one that the
            rater gave before; the message names the items with both letters.
        StoreError: A rater is labelling at this moment, or the folder cannot be written.
    """
    if not files:
        raise UsageError("labels import needs a file of labels")
    grading, rubric, items = _read_run(run)
    by_rater: dict[str, list[LabelRow]] = {}
    skipped = {"not in run": 0, "other rubric": 0}
    for path in files:
        for name, rows in _by_rater(read_label_rows(path), path, rater).items():
            accepted = [_in_split(row, items) for row in rows if _belongs(row, items, grading, skipped)]
            _require_on_scale(accepted, rubric, path)
            by_rater.setdefault(name, []).extend(row for row in accepted if row not in by_rater.get(name, ()))
    if not any(isinstance(row, Label) for rows in by_rater.values() for row in rows):
        raise DataError(
            f"{', '.join(map(str, files))}: no label of an item of {run} under {grading.rubric}: {skipped['not in run']} of items that "
            f"the run does not have, {skipped['other rubric']} under another rubric"
        )
    opened: dict[str, RaterFile] = {}
    try:
        for name in sorted(by_rater):
            opened[name] = RaterFile(run / LABELS / f"{name}.jsonl")
        elsewhere = [
            label
            for path in labels_of_run(run, grading.settings)
            if path.resolve() not in {file.path.resolve() for file in opened.values()}
            for label in read_rater_rows(path).labels
            if label.rubric in grading.label_rubrics
        ]
        conflicts = [
            line
            for name, rows in by_rater.items()
            for line in _conflicts(opened[name], rows, [label for label in elsewhere if label.rater == name])
        ]
        if conflicts:
            more = f"; and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
            raise DataError(
                f"{plural(len(conflicts), 'item has', 'items have')} two different labels by the same rater: "
                f"{'; '.join(conflicts[:_SHOWN])}{more}. Nothing was imported: keep the right one in the file, or import the second "
                f"reading with --rater under another name"
            )
        added, n_present = {}, 0
        for name, rows in by_rater.items():
            file = opened[name]
            before = {(label.item_id, label.repeat) for label in _labels(file.all_rows)}
            new = file.missing(rows)
            for row in new:
                file.append(row)
            after = {(label.item_id, label.repeat) for label in _labels(file.all_rows)}
            added[name] = len(after - before)
            n_present += len({(label.item_id, label.repeat) for label in _labels(rows)} & before)
    finally:
        for file in opened.values():
            file.close()
    return ImportedLabels(
        added=added,
        n_present=n_present,
        n_not_in_run=skipped["not in run"],
        n_other_rubric=skipped["other rubric"],
        n_without_probability=sum(
            label.inclusion is None for rows in by_rater.values() for label in replay(rows).labels
        ),
        paths=tuple(run / LABELS / f"{name}.jsonl" for name in by_rater),
    )


def _read_run(run: Path) -> tuple[Grading, Rubric, dict[str, str]]:
    """Read the grading of a run, its rubric, and its items with the split of their chunks, empty where there is none."""
    with RunStore.open(run) as store:
        grading = Grading.of(store)
        items: dict[str, str] = {
            item.item_id: sample.chunk.split
            for sample, _, row in Replies(store)
            if isinstance(row, Generation)
            for item in row.items
        }
    return grading, rubric_of(grading)[0], items


def _by_rater(rows: Iterable[LabelRow], path: Path, rater: str) -> dict[str, list[LabelRow]]:
    """Group rows by the rater they belong to; the draw of a sheet belongs to everybody who filled it in."""
    rows = [row.model_copy(update={"rater": rater}) if rater else row for row in rows]
    names = {row.rater for row in rows if isinstance(row, Label)}
    grouped: dict[str, list[LabelRow]] = {}
    for name in sorted(names):
        try:
            require_rater_name(name)
        except UsageError as error:
            raise UsageError(f"{path}: {error}; name the rater with --rater") from None
        grouped[name] = [
            row.model_copy(update={"rater": name}) if isinstance(row, LabelDraw) and not row.rater else row
            for row in rows
            if row.rater in {name, ""}
        ]
    return grouped


def _in_split(row: LabelRow, items: Mapping[str, str]) -> LabelRow:
    """Give a label the split of its chunk: a file without it would measure a judge on labels that tuned it."""
    split = items.get(row.item_id) if isinstance(row, Label) else None
    return row.model_copy(update={"split": split}) if split else row


def _belongs(row: LabelRow, items: Mapping[str, str], grading: Grading, skipped: dict[str, int]) -> bool:
    if isinstance(row, LabelDraw):
        return row.rubric in grading.label_rubrics and bool(items.keys() & set(row.items))
    if not isinstance(row, Label):
        return True
    if row.rubric not in grading.label_rubrics:
        skipped["other rubric"] += 1
        return False
    if row.item_id not in items:
        skipped["not in run"] += 1
        return False
    return True


def _require_on_scale(rows: Iterable[LabelRow], rubric: Rubric, path: Path) -> None:
    flags = {flag.name for flag in rubric.flags}
    for row in rows:
        if isinstance(row, Label) and (row.letter not in rubric.letters or set(row.flags) - flags):
            raise DataError(
                f"{path}: item {row.item_id}: expected a letter of {'/'.join(rubric.letters)} and flags of "
                f"{', '.join(sorted(flags)) or 'none'}, got {row.letter!r} {', '.join(row.flags)}".rstrip()
            )


def _labels(rows: Sequence[LabelRow]) -> list[Label]:
    counted = replay(rows)
    return [*counted.labels, *counted.repeats]


def _conflicts(file: RaterFile, rows: Sequence[LabelRow], elsewhere: Sequence[Label]) -> list[str]:
    """Name the items whose label differs, unless one of the two files goes on where the other one stopped.

    Args:
        file: File of the rater in the run.
        rows: Rows to add.
        elsewhere: Labels of the rater in other files of the run.
    """
    missing = file.missing(rows)
    goes_on = len(missing) == len(rows) - len(file.all_rows) or not missing
    labels = _labels([*file.all_rows, *missing]) if goes_on else [*_labels(file.all_rows), *_labels(rows)]
    first: dict[tuple[str, bool], Label] = {}
    conflicts = {}
    for label in (*elsewhere, *labels):
        before = first.setdefault((label.item_id, label.repeat), label)
        if (before.letter, before.flags) != (label.letter, label.flags):
            flags = (
                "" if before.letter != label.letter else f" ({', '.join({*before.flags} ^ {*label.flags})})"
            )
            conflicts[label.item_id] = (
                f"{label.item_id} by {label.rater}: {before.letter} and {label.letter}{flags}"
            )
    return list(conflicts.values())


def export_labels(
    run: Path, out: Path, *, raters: Sequence[str] = (), spreadsheet: str = ""
) -> dict[str, int]:
    """Write the labels of a run as one file that every reader of labels takes, with their inclusion probabilities.

    Args:
        run: A graded run.
        out: File to write: ``.csv`` or ``.jsonl``.
        raters: Raters to include; empty: all.
        spreadsheet: As in `sheets.LabelSheet.as_csv`.

    Returns:
        Number of labels by rater.

    Raises:
        UsageError: The name of the file, a rater or the language is not known.
        DataError: The run has no labels, or a label file is not readable.
        StoreError: The file cannot be written.
    """
    if out.suffix not in {".csv", ".jsonl"}:
        raise UsageError(f"{out}: expected a name that ends in .csv or .jsonl")
    if spreadsheet and (spreadsheet not in SPREADSHEETS or out.suffix != ".csv"):
        raise UsageError(
            f"--spreadsheet {spreadsheet}: expected a language ({', '.join(SPREADSHEETS)}), for a file that ends in .csv"
        )
    grading, rubric, items = _read_run(run)
    labels = [
        label
        for path in labels_of_run(run, grading.settings)
        for label in read_rater_rows(path).labels
        if label.rubric in grading.label_rubrics and label.item_id in items
    ]
    known = sorted({label.rater for label in labels})
    if unknown := sorted(set(raters) - set(known)):
        raise UsageError(f"unknown rater {unknown[0]!r}; labels are by {', '.join(known) or 'nobody'}")
    chosen = [label for label in labels if not raters or label.rater in raters]
    if not chosen:
        raise DataError(
            f"{run}: no labels under {grading.rubric}; `qaeval label {run} --rater NAME` adds some"
        )
    if out.suffix == ".csv":
        flags, facts = [flag.name for flag in rubric.flags], [fact.name for fact in rubric.facts]
        added = (*(FLAG_COLUMN + flag for flag in flags), *(FACT_COLUMN + fact for fact in facts))
        columns = ("item_id", "label", *added, *_COLUMNS)
        separator = SPREADSHEETS.get(spreadsheet, ",")
        data = as_csv([_csv_row(label, flags, facts) for label in chosen], columns, delimiter=separator)
        data = b"\xef\xbb\xbf" + data if spreadsheet else data
    else:
        data = "".join(label.model_dump_json() + "\n" for label in chosen).encode()
    write_file(out, data)
    return {
        name: sum(label.rater == name for label in chosen) for name in known if not raters or name in raters
    }


_COLUMNS = (
    "note",
    "rater",
    "rater_kind",
    "rubric",
    "chunk_id",
    "seconds",
    "time",
    "inclusion",
    "chunk_inclusion",
    "settles",
    "question",
    "answer",
    "rejected",
)


def _csv_row(label: Label, flags: Sequence[str], facts: Sequence[str]) -> dict[str, Any]:
    row = {name: getattr(label, name) for name in _COLUMNS}
    row |= {name: row[name].replace("\0", "\ufffd") for name in ("note", "question", "answer", "rejected")}
    row |= {FLAG_COLUMN + flag: "x" if flag in label.flags else "" for flag in flags}
    row |= {FACT_COLUMN + fact: label.facts.get(fact, "") for fact in facts}
    return {**row, "item_id": label.item_id, "label": label.letter, "settles": "x" if label.settles else ""}
