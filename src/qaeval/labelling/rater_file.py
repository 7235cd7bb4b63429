"""The label file of a rater: rows appended and synced one by one, locked while it is open, read again when it was edited."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import orjson

from qaeval.agreement.label_rows import (
    LabelRow,
    RaterRows,
    drawn_labels,
    label_content,
    parse_row,
    replay,
    states_inclusion,
)
from qaeval.errors import InUseError, StoreError
from qaeval.files.rows import Closable, end_of_last_line, lock, read_rows
from qaeval.files.whole import sync_folder
from qaeval.records import Label, LabelDraw

LABELS: Final = "labels"
"""Folder of a run with the label files of its raters."""

_Stamp = tuple[int, int, int]


class RaterFile(Closable):
    """A label file that is open for appending; a context manager.

    Args:
        path: ``RUN/labels/RATER.jsonl``; made when the first row is appended.
        sync: Brings a file descriptor's data to the disk.

    Raises:
        InUseError: Another process labels under this name.
        StoreError: The folder cannot be written.
        DataError: The file holds a line that is not a row.
    """

    def __init__(self, path: Path, *, sync: Callable[[int], None] = os.fsync) -> None:
        self.path = path
        self._sync = sync
        self._lock = self._acquire()
        self._stamp: _Stamp | None = None
        self._content = b""
        self._replayed: RaterRows | None = None
        try:
            self._cut_incomplete_line()
            self._rows = self._read()
        except BaseException:
            self.close()
            raise

    def _acquire(self) -> IO[bytes]:
        lock_path = self.path.with_name(f".{self.path.stem}.lock")
        try:
            self.path.parent.mkdir(exist_ok=True)
            file = lock_path.open("ab")
        except OSError as error:
            raise StoreError(
                f"{self.path.parent}: labels cannot be written: {error.strerror}. Labels are stored in the run: copy it to a directory "
                f"that can be written"
            ) from error
        try:
            if not lock(file, self.path):
                raise InUseError(
                    f"{self.path}: in use: another process labels as {self.path.stem}; close it, or choose another rater's name"
                )
        except StoreError:
            file.close()
            raise
        return file

    def _cut_incomplete_line(self) -> None:
        """Cut off a last line that a killed process did not finish; complete one that only lacks its newline."""
        if not self.path.is_file():
            return
        with _explained(self.path, "opening"), self.path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            end = end_of_last_line(file, size)
            if end == size:
                return
            file.seek(end)
            if file.read().rstrip().endswith(b"}"):
                file.write(b"\n")
            else:
                file.truncate(end)
            file.flush()
            self._sync(file.fileno())

    def _read(self) -> list[LabelRow]:
        stamp = self._stamp_now()
        content = self.path.read_bytes() if stamp else b""
        parsed = read_rows(self.path, lambda line: parse_row(orjson.loads(line), rater=self.path.stem))
        rows = [row for row in parsed if row is not None]
        self._stamp, self._content, self._replayed = stamp, content, None
        return rows

    def _stamp_now(self) -> _Stamp | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    @property
    def rows(self) -> RaterRows:
        """What the file says after its last row."""
        if self._replayed is None:
            self._replayed = replay(self._rows)
        return self._replayed

    @property
    def all_rows(self) -> tuple[LabelRow, ...]:
        """Every row in its order."""
        return tuple(self._rows)

    def missing(self, rows: Iterable[LabelRow]) -> list[LabelRow]:
        """Return the rows that the file does not have, in their order.

        A label that counts here already is not missing, unless it only states its probability here and its draw is known now:
        the stated one may be of a time when less of the draw was labelled.
        """
        rows = list(rows)
        counted = self.rows
        present = {*map(_key, self._rows), *map(label_content, (*counted.labels, *counted.repeats))}
        labels = [row for row in self._rows if isinstance(row, Label)]
        stated = {label_content(label) for label in labels if states_inclusion(label)}
        stated -= {label_content(label) for label in labels if not states_inclusion(label)}
        is_drawn = drawn_labels(row for row in (*self._rows, *rows) if isinstance(row, LabelDraw))

        def replaces(label: Label) -> bool:
            return label_content(label) in stated and not states_inclusion(label) and is_drawn(label)

        return [
            row
            for row in rows
            if _key(row) not in present
            and not (isinstance(row, Label) and label_content(row) in present and not replaces(row))
        ]

    def refresh(self) -> bool:
        """Read the file again if something else changed it; return whether it did.

        A file that was deleted is written again from what it held.

        Raises:
            DataError: It holds a line that is not a row now.
            StoreError: It was deleted and cannot be written again.
        """
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return False
        if stamp is None:
            self._write(self._content)
        self._cut_incomplete_line()
        self._rows = self._read()
        return True

    def append(self, row: LabelRow) -> None:
        """Append a row; it is on the disk when this returns.

        Raises:
            StoreError: The disk is full or the file cannot be written; the file is then as before.
        """
        self.refresh()
        line = row.model_dump_json().encode() + b"\n"
        self._write(line)
        self._rows.append(row)
        self._replayed = None
        self._stamp, self._content = self._stamp_now(), self._content + line

    def _write(self, data: bytes) -> None:
        is_new = not self.path.exists()
        with _explained(self.path, "writing"), self.path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                left = data
                while left:
                    left = left[file.write(left) :]
                self._sync(file.fileno())
            except OSError:
                os.truncate(file.fileno(), size)
                raise
        if is_new:
            sync_folder(self.path.parent)

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()


def _key(row: LabelRow) -> str:
    return row.draw_id if isinstance(row, LabelDraw) else row.model_dump_json()


@contextmanager
def _explained(path: Path, doing: str) -> Iterator[None]:
    """Raise errors of the operating system as `StoreError` with what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: {doing} failed: {error.strerror or error}; all earlier labels are stored. Free some space or make the file "
            f"writable, then label this item again"
        ) from error
