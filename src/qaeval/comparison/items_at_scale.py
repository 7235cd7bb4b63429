"""Candidates compared from exported items of more than fit into memory: rates and differences by the judge's letters alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qaeval.analysis.chunk_counts import LetterCounts, count_letters
from qaeval.comparison.differences import compare_sums
from qaeval.errors import DataError
from qaeval.report import numbers
from qaeval.report.facts import Part
from qaeval.report.measure import Measure
from qaeval.report.tables import Notes, Section, Table

_UNLABELLED: Final = (
    "By the judge's letters alone: no label, control or audit is in these files. A report of a sample of the run says whether the judge "
    "can be trusted, and its labels correct it."
)


class PairDifference(Part):
    """Difference in the usable rate of two candidates, paired by chunk."""

    a: str
    b: str
    difference: Measure
    """Rate of b minus that of a."""
    p: float
    """Of the sign-flip test."""
    p_holm: float
    """The same, corrected for the number of pairs."""
    p_equivalent: float | None
    """Of the hypothesis that the difference is not within the margin; None without an interval."""


class ItemCounts(Part):
    """What the letters of exported items show."""

    n_files: int
    best: str
    margin: float
    candidates: tuple[LetterCounts, ...]
    differences: tuple[PairDifference, ...]


def exported_files(paths: Sequence[Path]) -> list[Path]:
    """Return the Parquet files among files and folders, those of a folder by name.

    Raises:
        DataError: A path does not exist, or a folder has no Parquet file.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.rglob("*.parquet"))
            if not inside:
                raise DataError(
                    f"{path}: no Parquet file in this folder; `qaeval export RUN --to parquet` writes them"
                )
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: no such file or folder")
    return list(dict.fromkeys(files))


def count_items(
    paths: Sequence[Path], letters: Sequence[str], *, items_per_sample: int, margin: float
) -> ItemCounts:
    """Count the letters of exported items, and compare every pair of candidates; exact, as in a report.

    Args:
        paths: Files of ``qaeval export --to parquet``, or folders of them.
        letters: Scale of the rubric, the best letter first.
        items_per_sample: Items that each reply must have.
        margin: Smallest difference that matters, in (0, 1).

    Raises:
        UsageError: pyarrow is not installed.
        DataError: A file is missing, not readable, lacks a column, or has a letter off the scale; or there is no row.
    """
    files = exported_files(paths)
    counts = count_letters(files, letters, items_per_sample=items_per_sample)
    by_candidate = counts.by_candidate()
    if not by_candidate:
        raise DataError(f"{', '.join(map(str, paths))}: no row")
    compared = compare_sums(
        counts.sums(),
        candidates=list(by_candidate),
        margin=margin,
        is_weighted=counts.is_weighted,
    )
    return ItemCounts(
        n_files=len(files),
        best=letters[0],
        margin=margin,
        candidates=tuple(by_candidate.values()),
        differences=tuple(
            PairDifference(
                a=pair.a,
                b=pair.b,
                difference=pair.difference,
                p=pair.p,
                p_holm=pair.p_holm,
                p_equivalent=pair.p_equivalent,
            )
            for pair in compared
        ),
    )


def write_item_counts(counts: ItemCounts) -> tuple[Section, ...]:
    """Return counts, rates and differences as sections."""
    letters = list(counts.candidates[0].letters)
    notes = Notes()
    rates = Table(
        caption=f"Items of {numbers.plural(counts.n_files, 'file')}",
        header=("Candidate", "Usable", f"{counts.best} of graded", "Items", "Chunks"),
        rows=tuple(
            (
                candidate.candidate,
                notes.rate(candidate.usable, f"usable of {candidate.candidate}"),
                notes.rate(candidate.usable_of_graded, f"{counts.best} of graded of {candidate.candidate}"),
                f"{candidate.n_items:,}",
                f"{candidate.n_chunks:,}",
            )
            for candidate in counts.candidates
        ),
        notes=notes.lines(),
    )
    by_letter = Table(
        caption="Items by letter",
        header=("Candidate", *letters, "Failed", "Ungraded"),
        rows=tuple(
            (
                candidate.candidate,
                *(f"{candidate.letters[letter]:,}" for letter in letters),
                f"{candidate.n_failed:,}",
                f"{candidate.n_ungraded:,}",
            )
            for candidate in counts.candidates
        ),
    )
    tables = (rates, by_letter, *_differences(counts))
    return (Section(anchor="items", title="Letters", paragraphs=(_UNLABELLED,), tables=tables),)


def _differences(counts: ItemCounts) -> tuple[Table, ...]:
    if not counts.differences:
        return ()
    notes = Notes()
    is_family = len(counts.differences) > 1
    rows = tuple(
        (
            f"{pair.b} − {pair.a}",
            notes.difference(pair.difference, f"{pair.b} − {pair.a}"),
            numbers.p_value(pair.p),
            *((numbers.p_value(pair.p_holm),) if is_family else ()),
            numbers.UNDEFINED if pair.p_equivalent is None else numbers.p_value(pair.p_equivalent),
        )
        for pair in counts.differences
    )
    header = (
        "Pair",
        "Difference in usable rate",
        "Sign-flip test",
        *(("Holm",) if is_family else ()),
        f"Within ±{numbers.size(counts.margin, unit='')} points (TOST)",
    )
    return (Table(caption="Differences, paired by chunk", header=header, rows=rows, notes=notes.lines()),)
