"""Write a graded run as a folder of training data, a table, or a sheet for labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from qaeval.agreement.label_files import DRAW
from qaeval.comparison.headline import verdict_sentence
from qaeval.comparison.report_file import load_report
from qaeval.errors import DataError, UsageError, closest
from qaeval.export.card import CARD_NAME, CardFacts, ExportFile, ExportFormat, render_card
from qaeval.export.content import (
    Content,
    DataFile,
    TrainingOptions,
    dpo_content,
    sft_content,
    sheet_content,
    table_content,
)
from qaeval.export.folder import require_free
from qaeval.export.select import Filters, Grading, check_filters, require_finished
from qaeval.export.sheets import SPREADSHEETS
from qaeval.export.split import SplitUnit, require_shares
from qaeval.export.training import PAIRS_PER_SAMPLE
from qaeval.files.rows import file_sha256
from qaeval.files.whole import whole_folder
from qaeval.records import Label
from qaeval.storage.run_directory import RunStore


@dataclass(frozen=True)
class ExportResult:
    """The result of an export."""

    paths: tuple[Path, ...]
    """The files, the card last."""
    counts: Mapping[str, int]
    """Rows by split; for tables and sheets, by file name without ``.jsonl``."""
    dropped: Mapping[str, int]
    """Excluded rows by reason, including reasons with zero rows."""
    notes: tuple[str, ...]
    """Notes for the user, one sentence each."""


def write_export(
    store: RunStore,
    to: ExportFormat,
    out: Path,
    *,
    filters: Filters | None = None,
    labels: Sequence[Label] = (),
    split: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    accept: tuple[str, ...] = (),
    by: SplitUnit = "chunk",
    with_context: bool | None = None,
    per_sample: int = PAIRS_PER_SAMPLE,
    n: int | None = None,
    precomputed: bool = False,
    next_: bool = False,
    spreadsheet: str = "",
) -> ExportResult:
    """Write an export to a folder, atomically; the same run and arguments give the same bytes.

    Args:
        store: A graded and finished run.
        to: ``sft`` and ``dpo`` are filtered, deduplicated and split; ``csv`` and ``parquet`` have every
            item and every failure; ``labels`` is a sheet to fill in. The last three use only the filter
            ``candidates``.
        out: The folder: new, empty, or an unchanged earlier export.
        filters: Filters of training data; default: the best letter, no flags.
        labels: Labels of the run's items.
        split: Shares of train, validation and test.
        seed: Seed of the split, or of the draw of ``labels``.
        accept: Models or licences whose terms the user accepted; see `licences.check_licences`.
        by: Unit that is kept in one split.
        with_context: ``sft``: put the chunk before the question; None: only in evals of kind answer.
        per_sample: ``dpo``: maximum number of pairs per sample.
        n: ``labels``: number of items; None: all.
        precomputed: ``labels``: write letters as Inspect's precomputed scores instead of the sheet.
        next_: ``labels``: draw the items whose labels decide most, given ``labels``; see `sheets.next_sheet`.
        spreadsheet: ``labels``: language of the spreadsheet that opens the CSV file, one of `sheets.SPREADSHEETS`: a byte order mark
            and its separator. Empty: commas and no mark.

    Raises:
        UsageError: an argument is invalid, a licence forbids the export, or the folder has other files.
        DataError: the run is not graded or finished, or no item passed a filter, which the message names.
        StoreError: the folder cannot be written.
    """
    _check_arguments(to, split, per_sample)
    if spreadsheet and spreadsheet not in SPREADSHEETS:
        raise UsageError(f"spreadsheet {spreadsheet!r}: expected a language: {', '.join(SPREADSHEETS)}")
    require_free(out)
    require_finished(store)
    grading = Grading.of(store)
    filters = filters or Filters(letters=grading.scale[:1])
    check_filters(filters, grading)
    options = TrainingOptions(labels=labels, filters=filters, accept=accept, shares=split, seed=seed, by=by)
    if to == "sft":
        content = sft_content(store, options, with_context=with_context)
    elif to == "dpo":
        content = dpo_content(store, options, per_sample=per_sample)
    elif to == "labels":
        content = sheet_content(
            store,
            labels,
            filters,
            n=n,
            seed=seed,
            precomputed=precomputed,
            next_=next_,
            spreadsheet=spreadsheet,
        )
    else:
        content = table_content(store, labels, filters, to)
    return _write(store, to, out, grading, content)


def _check_arguments(to: str, split: Sequence[float], per_sample: int) -> None:
    if to not in get_args(ExportFormat):
        raise UsageError(
            f"--to {to!r}: expected one of "
            f"{', '.join(get_args(ExportFormat))}.{closest(to, get_args(ExportFormat))}"
        )
    if per_sample < 1:
        raise UsageError(f"per_sample {per_sample}: expected at least 1")
    require_shares(split)


def _verdict(run: Path) -> str:
    """Return the verdict of a run's report; empty if it has no report, or one that cannot be read."""
    try:
        return verdict_sentence(load_report(run).verdict)
    except DataError:
        return ""


def _hashed(folder: Path, file: DataFile) -> ExportFile:
    return ExportFile(file.name, file.rows, file_sha256(folder / file.name), file.split)


def _write(store: RunStore, to: ExportFormat, out: Path, grading: Grading, content: Content) -> ExportResult:
    require_free(out)
    with whole_folder(out, replaces=True) as folder:
        files = tuple(_hashed(folder, file) for file in content.write(folder))
        card = render_card(
            CardFacts(
                to=to,
                run=store.name,
                settings=grading.settings,
                files=files,
                counts=content.tables,
                dropped=tuple(f"{name}: {count:,}" for name, count in content.dropped.items()),
                letters=content.letters,
                verdict=_verdict(store.path),
                notes=content.notes,
            )
        )
        (folder / CARD_NAME).write_bytes(card.encode())
    counts = {file.name.removesuffix(".jsonl"): file.rows for file in files if file.name != DRAW}
    paths = tuple(out / name for name in (*(file.name for file in files), CARD_NAME))
    return ExportResult(paths, counts, content.dropped, content.notes)
