"""Letters of more items than fit into memory: counts by chunk, which every rate with its interval follows from.

`qaeval export --to parquet` writes a row for each item, and one without a position for a reply that failed whole. The rows
are read once, in batches, and only the columns that decide; what stays is a row for each candidate and chunk. The sums of a chunk are
sufficient for a rate clustered by chunk, so that the result is that of the table of letters, not an approximation of it. Where the samples
were drawn with different probabilities (column ``inclusion``), the rates weigh by them, as in a report.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qaeval.analysis.letters import FAILED, UNGRADED
from qaeval.errors import DataError, UsageError, install_command
from qaeval.report.facts import Part
from qaeval.report.measure import Measure
from qaeval.stats.intervals import clustered_rate

if TYPE_CHECKING:
    import pandas as pd

_KEYS: Final = ("candidate", "chunk_id")
_READ: Final = (*_KEYS, "item_id", "position", "letter")
_INCLUSION: Final = "inclusion"
_BATCH: Final = 1 << 18
"""Rows that are read at once."""
_PENDING: Final = 1 << 22
"""Rows of partial counts that are merged at once; the fewer, the less memory and the more merges."""
_TOTAL: Final = "items"
_WEIGHED: Final = ("weight of usable", "weight of items", "weight of graded")
"""Sums of weights that the rates follow from."""


class LetterCounts(Part):
    """Letters of a candidate."""

    candidate: str
    n_items: int
    """Items, those that failed included."""
    n_chunks: int
    """Chunks with an item."""
    letters: dict[str, int]
    """Items with a letter, by letter of the scale; not weighed."""
    n_failed: int
    """Items that do not exist, because the reply failed."""
    n_ungraded: int
    """Items without a letter of the judge."""
    usable: Measure
    """Items with the best letter among all, by weight."""
    usable_of_graded: Measure
    """The same among those with a letter."""


@dataclass(frozen=True)
class ChunkCounts:
    """Counts of each candidate and chunk.

    Attributes:
        letters: Scale of the rubric, the best letter first.
        table: A table of pyarrow, with a row for each candidate and chunk; None without a row.
    """

    letters: tuple[str, ...]
    table: Any

    def by_candidate(self) -> dict[str, LetterCounts]:
        """Return the counts of each candidate, in the order of the first row."""
        if self.table is None:
            return {}
        names = self.table["candidate"].unique().to_pylist()
        return {name: _counts(name, _of(self.table, name), self.letters) for name in names}

    @property
    def is_weighted(self) -> bool:
        """Whether samples were drawn with different probabilities."""
        return self.table is not None and _WEIGHED[0] in self.table.column_names

    def sums(self) -> "pd.DataFrame":
        """Return the sums by chunk that `qaeval.comparison.differences.compare_sums` takes."""
        import pandas as pd  # noqa: PLC0415 - importing pandas takes a second

        chunks = self.table["chunk_id"].combine_chunks().dictionary_encode()
        rows, n_chunks = chunks.indices.to_numpy(), len(chunks.dictionary)
        writers = self.table["candidate"].to_numpy(zero_copy_only=False)
        usable, items = (_WEIGHED[0], _WEIGHED[1]) if self.is_weighted else (self.letters[0], _TOTAL)
        columns = {}
        for measure, name in {
            "n": _TOTAL,
            "hit": self.letters[0],
            "weight": items,
            "counted": usable,
        }.items():
            values = self.table[name].to_numpy().astype(float)
            for candidate in pd.unique(writers):
                column, own = np.full(n_chunks, np.nan), writers == candidate
                column[rows[own]] = values[own]
                columns[measure, candidate] = column
        return pd.DataFrame(columns)


def count_letters(paths: Sequence[Path], letters: Sequence[str], *, items_per_sample: int) -> ChunkCounts:
    """Count the letters of exported items, by candidate and chunk.

    Args:
        paths: Files of ``qaeval export --to parquet``; the rows of a chunk may be anywhere in them.
        letters: Scale of the rubric, the best letter first.
        items_per_sample: Items that each reply must have; so many failed where a reply failed whole.

    Raises:
        UsageError: pyarrow is not installed.
        DataError: a file cannot be read, lacks a column, or has a letter off the scale.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - needs an extra
    except ImportError as error:
        raise UsageError(
            f"counting Parquet files needs pyarrow: {install_command('parquet')} ({error})"
        ) from error
    pending: list[Any] = []
    n_pending = 0
    for batch in _batches(paths, letters, items_per_sample):
        pending.append(batch)
        n_pending += batch.num_rows
        if n_pending >= _PENDING:
            pending = [_merged(pa.concat_tables(pending))]
            # what has been merged stays: count from there, or every batch would be merged alone
            n_pending = 0
    return ChunkCounts(tuple(letters), _merged(pa.concat_tables(pending)) if pending else None)


def _batches(paths: Sequence[Path], letters: Sequence[str], items_per_sample: int) -> Iterator[Any]:
    """Yield the counts of each batch of rows, by candidate and chunk."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    import pyarrow.compute as pc  # noqa: PLC0415 - as above
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    scale = pa.array(letters)
    weighed: dict[bool, Path] = {}
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                if missing := [name for name in _READ if name not in file.schema_arrow.names]:
                    raise DataError(
                        f"{path}: expected the columns of `qaeval export --to parquet`, got none named {', '.join(missing)}"
                    )
                has_weights = _INCLUSION in file.schema_arrow.names
                weighed[has_weights] = path
                if len(weighed) > 1:
                    raise DataError(
                        f"{weighed[False]}: no column {_INCLUSION!r}, which {weighed[True]} has; expected the files of one export"
                    )
                for batch in file.iter_batches(_BATCH, columns=[*_READ, *([_INCLUSION] * has_weights)]):
                    letter = pc.fill_null(batch["letter"].cast(pa.string()), "")
                    has_item = pc.not_equal(pc.fill_null(batch["item_id"].cast(pa.string()), ""), "")
                    blank = pc.equal(letter, "")
                    strange = pc.filter(letter, pc.invert(pc.or_(blank, pc.is_in(letter, scale))))
                    if len(strange):
                        raise DataError(
                            f"{path}: letter off the scale {'/'.join(letters)}: {strange[0].as_py()!r}"
                        )
                    n_items = pc.if_else(pc.is_null(batch["position"]), items_per_sample, 1)
                    n_items = pc.if_else(has_item, 1, n_items).cast(pa.int64())
                    columns = {
                        **{name: batch[name].cast(pa.string()) for name in _KEYS},
                        _TOTAL: n_items,
                        **{name: pc.equal(letter, name).cast(pa.int64()) for name in letters},
                        FAILED: pc.if_else(has_item, 0, n_items).cast(pa.int64()),
                        UNGRADED: pc.and_(has_item, blank).cast(pa.int64()),
                    }
                    if has_weights:
                        weights = pc.divide(1.0, batch[_INCLUSION].cast(pa.float64()))
                        sums = (columns[letters[0]], n_items, pc.invert(blank).cast(pa.int64()))
                        columns |= {
                            name: pc.multiply(weights, each)
                            for name, each in zip(_WEIGHED, sums, strict=True)
                        }
                    yield _merged(pa.table(columns))
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: expected a Parquet file: {error}") from error


def _merged(table: Any) -> Any:  # noqa: ANN401 - a table of pyarrow, which has no types
    """Add up the rows of each candidate and chunk."""
    names = [name for name in table.column_names if name not in _KEYS]
    # in one thread the groups are in the order of their first row
    groups = table.group_by(list(_KEYS), use_threads=False).aggregate([(name, "sum") for name in names])
    return groups.rename_columns([name.removesuffix("_sum") for name in groups.column_names])


def _of(table: Any, candidate: str) -> Any:  # noqa: ANN401 - as above
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    return table.filter(pc.equal(table["candidate"], candidate))


def _counts(candidate: str, table: Any, letters: Sequence[str]) -> LetterCounts:  # noqa: ANN401 - as above
    columns = {name: table[name].to_numpy() for name in table.column_names if name not in _KEYS}
    best, totals = columns[letters[0]], columns[_TOTAL]
    graded = sum(columns[name] for name in letters)
    usable, items, with_letter = (
        (columns[name] for name in _WEIGHED) if _WEIGHED[0] in columns else (best, totals, graded)
    )
    return LetterCounts(
        candidate=candidate,
        n_items=int(totals.sum()),
        n_chunks=len(totals),
        letters={name: int(columns[name].sum()) for name in letters},
        n_failed=int(columns[FAILED].sum()),
        n_ungraded=int(columns[UNGRADED].sum()),
        usable=_rate(usable, items, n=int(totals.sum())),
        usable_of_graded=_rate(usable, with_letter, n=int(graded.sum())),
    )


def _rate(successes: Any, totals: Any, *, n: int) -> Measure:  # noqa: ANN401 - arrays
    return Measure.of(replace(clustered_rate(successes, totals), n=n))
