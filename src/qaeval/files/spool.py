"""Rows of a command in a temporary file: a corpus is read and drawn from without being held in memory."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import Final, Self, TypeVar, overload
from weakref import finalize

from qaeval.files.rows import explained
from qaeval.records import Record

_IN_MEMORY: Final = 4 << 20
"""Bytes up to which the file is in memory: a small command needs no temporary folder."""
_FOLDER: Final = Path("the temporary folder (TMPDIR)")
"""What messages name: the file itself has no name."""

_Row = TypeVar("_Row", bound=Record)


class SpooledRows(Sequence[_Row]):
    """Rows of one model, parsed each time they are looked up: 8 bytes of memory for each, and 4 MB.

    The file goes with the last sequence of its rows. Threads may share it once all rows are appended.

    Args:
        model: Of the rows.
        rows: The first rows.

    Raises:
        StoreError: the temporary folder is full, or there is none.
    """

    def __init__(self, model: type[_Row], rows: Iterable[_Row] = ()) -> None:
        self._model = model
        self._lines = _Lines()
        self._starts = array("Q")
        for row in rows:
            self.append(row)

    def append(self, row: _Row) -> None:
        """Add a row.

        Raises:
            StoreError: the temporary folder is full, or there is none.
        """
        self._starts.append(self._lines.append(row.model_dump_json().encode()))

    def take(self, indices: Iterable[int]) -> Self:
        """Return the rows at these indices, in their order, in the same file."""
        taken = copy(self)
        taken._starts = array("Q", map(self._starts.__getitem__, indices))  # noqa: SLF001 - of this class
        return taken

    @overload
    def __getitem__(self, index: int) -> _Row: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> _Row | Self:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        return self._row(self._starts[index])

    def __iter__(self) -> Iterator[_Row]:
        return map(self._row, self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def _row(self, start: int) -> _Row:
        return self._model.model_validate_json(self._lines.at(start))


class _Lines:
    """Lines of a temporary file by their offset."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile[bytes](_IN_MEMORY)
        self._size = 0
        self._is_at_end = True
        self._lock = Lock()
        finalize(self, self._file.close)

    def append(self, line: bytes) -> int:
        """Write a line, which must not hold a line feed, and return its offset."""
        start = self._size
        with self._lock:
            try:
                if not self._is_at_end:
                    self._file.seek(0, os.SEEK_END)
                    self._is_at_end = True
                self._size += self._file.write(line + b"\n")
            except OSError:
                with explained(_FOLDER, "writing"):
                    raise
        return start

    def at(self, start: int) -> bytes:
        """Read the line at an offset."""
        with self._lock:
            try:
                self._is_at_end = False
                self._file.seek(start)
                return self._file.readline()
            except OSError:
                with explained(_FOLDER, "reading"):
                    raise
