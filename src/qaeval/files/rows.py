"""Files of rows: append, read one row at a time, look up by id without holding rows in memory.

For a million rows some bytes each are held: an id is 64 bits, a reply is its offset in the file.
"""

import errno
import fcntl
import hashlib
import os
import re
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
import orjson
from pydantic import ValidationError

from qaeval.errors import DataError, ReadOnlyError, StoreError
from qaeval.records import TRANSIENT_REASONS, Generation, Record

_SYNC_S: Final = 0.5
"""A machine that loses its power loses the rows of this time; a sync takes milliseconds, writing a row
microseconds."""
_READ_ONLY: Final = {errno.EACCES, errno.EPERM, errno.EROFS}
BAD_ROW: Final = (ValueError, TypeError, LookupError, AttributeError)
"""What parsers raise for a line that is no valid row; pydantic's `ValidationError` is a ValueError."""
_ID: Final = re.compile(r"[0-9a-f]{1,16}")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hex digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Raise errors of the operating system as `StoreError` with what to do.

    Args:
        path: The file or folder.
        doing: What is done with it: "reading", "writing".
    """
    try:
        yield
    except OSError as error:
        is_refused = error.errno in _READ_ONLY
        if doing == "reading" and is_refused:
            raise StoreError(
                f"{path}: reading failed: {error.strerror}; check its permissions and those of its folders"
            ) from error
        advice = {
            errno.ENOSPC: "free some space, then run the same command again (with --resume for a run: "
            "finished rows are kept)",
            errno.EDQUOT: "free some quota, then run the same command again (with --resume for a run: "
            "finished rows are kept)",
            errno.EFBIG: "raise the file size limit, then run the same command again (with --resume for a "
            "run: finished rows are kept)",
            errno.EACCES: "choose a writable directory with --out",
            errno.EROFS: "choose a writable directory with --out",
        }.get(error.errno or 0, "check the path, then run the same command again (with --resume for a run)")
        kind = ReadOnlyError if is_refused else StoreError
        raise kind(f"{path}: {doing} failed: {error.strerror or error}; {advice}") from error


def lock(file: IO[bytes], path: Path, *, shared: bool = False) -> bool:
    """Lock a file for this process, without waiting; the lock ends when the file is closed.

    Args:
        file: The open file.
        path: What it keeps two processes apart for; messages name it.
        shared: Let other processes hold shared locks.

    Returns:
        Whether it is locked; not where another process holds it.

    Raises:
        StoreError: the file system has no locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreError(
            f"{path}: this file system has no locks ({error.strerror}), which keep two processes from writing the same files; "
            "choose a folder on another disk"
        ) from error
    return True


class Closable(ABC):
    """A context manager that is closed at the end of its block."""

    @abstractmethod
    def close(self) -> None:
        """Release what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RowWriter:
    """Appends rows to one file of a run, each in one write call: a kill cuts off one line at most.

    While rows come, the file is synced to disk every half second in a thread, which does not hold the event
    loop up.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with explained(path, "opening"):
            self._file: IO[bytes] = path.open("ab", buffering=0)
        self._synced_at = perf_counter()
        self._sync: Future[None] | None = None
        self._disk = ThreadPoolExecutor(1, "sync")

    def append(self, row: Record) -> None:
        """Write one row.

        Raises:
            StoreError: when the disk is full or the file cannot be written.
        """
        line = row.model_dump_json(exclude_none=True).encode() + b"\n"
        with explained(self.path, "writing"):
            while line:
                line = line[self._file.write(line) :]
            if perf_counter() - self._synced_at >= _SYNC_S:
                self._start_sync()

    def _start_sync(self) -> None:
        """Sync the file in a thread; raise the error of the sync before."""
        if self._sync is not None:
            if not self._sync.done():
                return
            self._sync.result()
        self._synced_at = perf_counter()
        self._sync = self._disk.submit(os.fdatasync, self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disk.shutdown()
        try:
            with explained(self.path, "syncing"):
                os.fsync(self._file.fileno())
        except StoreError:
            if error is None:
                raise
        finally:
            self._file.close()


def read_rows(path: Path, parse: Callable[[bytes], Any], end: int | None = None) -> Iterator[Any]:
    """Read a file of rows, one at a time; none where the file does not exist.

    Args:
        path: The file.
        parse: Reads a row from a line.
        end: Bytes that are read, up to the end of a row; None: all.

    Raises:
        DataError: a line is not a valid row; path and line are named.
    """
    for _, row in placed_rows(path, parse, end):
        yield row


def placed_rows(
    path: Path, parse: Callable[[bytes], Any], end: int | None = None
) -> Iterator[tuple[int, Any]]:
    """Read a file of rows, each with the offset of its line; empty lines are skipped, arguments as in `read_rows`.

    Raises:
        DataError: as in `read_rows`.
    """
    if not path.is_file():
        return
    at = 0
    with explained(path, "reading"), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if at == end:
                return
            start, at = at, at + len(line)
            if line.isspace():
                continue
            try:
                row = parse(line)
            except BAD_ROW as error:
                raise DataError(
                    f"{path}:{number}: not a valid row: {problem_of(error)}{_repair_hint(path)}"
                ) from error
            yield start, row


def problem_of(error: Exception) -> str:
    """Describe why a line is no valid row."""
    if not isinstance(error, ValidationError):
        kind = "invalid JSON" if isinstance(error, orjson.JSONDecodeError) else type(error).__name__
        return f"{kind}: {error}"
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"])) or "the row"
    return f"{where}: {problem['msg']}"


def _repair_hint(path: Path) -> str:
    """Return the way on, where the file belongs to a run."""
    run = next((folder for folder in path.parents[:2] if (folder / "settings.json").is_file()), None)
    return f"; `qaeval repair {run}` moves such rows aside, and their tasks are asked again" if run else ""


def end_of_last_line(file: IO[bytes], size: int, block: int = 65536) -> int:
    """Return the offset after the last newline, 0 when there is none."""
    end = size
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


class EachRow:
    """The rows of a file, read again at every iteration.

    Args:
        path: The file.
        parse: Reads a row from a line.
        end: Bytes that are read; None: all.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], Any], end: int | None = None) -> None:
        self._path = path
        self._parse = parse
        self._end = end

    def __iter__(self) -> Iterator[Any]:
        return read_rows(self._path, self._parse, self._end)

    def __len__(self) -> int:
        return sum(1 for _ in read_rows(self._path, len, self._end))


class LastRows(EachRow):
    """The last row of every task of a file, read again at every iteration; arguments as in `EachRow`."""

    def __iter__(self) -> Iterator[Any]:
        tasks = array(
            "Q", read_rows(self._path, lambda line: id_number(orjson.loads(line)["task_id"]), self._end)
        )
        is_last = _is_last(tasks)
        index = -1

        def parse(line: bytes) -> Any:  # noqa: ANN401 - a row of the parser's type
            nonlocal index
            index += 1
            return self._parse(line) if is_last[index] else None

        for row in read_rows(self._path, parse, self._end):
            if row is not None:
                yield row


class Finished:
    """Ids of finished tasks: those with a result, or with a failure that a retry would not change.

    Args:
        ids: Ids of 16 hex digits, as numbers.
    """

    def __init__(self, ids: "np.ndarray[Any, np.dtype[np.uint64]]") -> None:
        self._ids = array("Q", np.unique(ids).astype(np.uint64).tobytes())

    @classmethod
    def read(cls, path: Path) -> "Finished":
        """Read the ids from a file of rows; of two rows with one id the last one counts."""
        ids, done = array("Q"), array("b")
        for task, is_done in read_rows(path, _is_finished):
            ids.append(task)
            done.append(is_done)
        return cls(np.asarray(ids, dtype=np.uint64)[_is_last(ids) & np.asarray(done, dtype=bool)])

    def __contains__(self, task_id: object) -> bool:
        number = int(str(task_id), 16)
        at = bisect_left(self._ids, number)
        return at < len(self._ids) and self._ids[at] == number

    def __len__(self) -> int:
        return len(self._ids)


class RowIndex(Closable):
    """The last row of every task, read from the file when it is looked up by another id; a context manager.

    The file is opened by the first look-up, and again by one after `close`. 16 bytes a row are held.

    Args:
        path: The file.
        key: Name of the field that rows are looked up by, an id of hex digits; rows without a value are left out.
        parse: Reads a row from a line.
        end: Bytes that are read; None: all.
    """

    def __init__(self, path: Path, key: str, parse: Callable[[bytes], Any], end: int | None = None) -> None:
        tasks, keys, starts = array("Q"), array("Q"), array("Q")

        def ids(line: bytes) -> tuple[int, int] | None:
            row = orjson.loads(line)
            return None if row.get(key) is None else (id_number(row["task_id"]), id_number(row[key]))

        for start, row in placed_rows(path, ids, end):
            if row is not None:
                tasks.append(row[0])
                keys.append(row[1])
                starts.append(start)
        self._index(path, parse, keys, starts, _is_last(tasks))

    def _index(
        self,
        path: Path,
        parse: Callable[[bytes], Any],
        keys: "array[int]",
        starts: "array[int]",
        is_current: "np.ndarray[Any, np.dtype[np.bool_]]",
    ) -> None:
        number = np.asarray(keys, dtype=np.uint64)[is_current]
        order = np.argsort(number, kind="stable")
        self._keys = array("Q", number[order].tobytes())
        self._starts = array("Q", np.asarray(starts, dtype=np.uint64)[is_current][order].tobytes())
        self._path, self._parse = path, parse
        self._file: IO[bytes] | None = None

    def of(self, key: str) -> list[Any]:
        """Read the rows with an id, in the order of the file."""
        if not _ID.fullmatch(key):
            return []  # no row of the index has such an id
        number = int(key, 16)
        first = last = bisect_left(self._keys, number)
        while last < len(self._keys) and self._keys[last] == number:
            last += 1
        if self._file is None and first < last:
            with explained(self._path, "reading"):
                self._file = self._path.open("rb")
        return [self._row(self._file, start) for start in self._starts[first:last] if self._file]

    def _row(self, file: IO[bytes], start: int) -> Any:  # noqa: ANN401 - a row of the parser's type
        file.seek(start)
        try:
            return self._parse(file.readline())
        except BAD_ROW as error:
            raise DataError(
                f"{self._path}: byte {start}: not a valid row: {problem_of(error)}{_repair_hint(self._path)}"
            ) from error

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class ReplyIndex(RowIndex):
    """Candidates' replies by sample, without those that failed; arguments as in `RowIndex`.

    Args:
        path: ``generations.jsonl``.
        end: Bytes that are read; None: all.

    Attributes:
        n_items: Number of different items in all replies.
    """

    def __init__(self, path: Path, end: int | None = None) -> None:
        tasks, samples, items = array("Q"), array("Q"), array("Q")
        starts, counts, replied = array("Q"), array("I"), array("b")
        for start, (task, sample, is_reply, item_ids) in placed_rows(path, _reply_index, end):
            tasks.append(task)
            samples.append(sample)
            starts.append(start)
            replied.append(is_reply)
            items.extend(item_ids)
            counts.append(len(item_ids))
        is_current = _is_last(tasks) & np.asarray(replied, dtype=bool)
        self.n_items = _distinct(items, np.asarray(counts, dtype=np.uint32), is_current)
        self._index(path, Generation.model_validate_json, samples, starts, is_current)

    def __len__(self) -> int:
        return len(self._keys)

    def sample_ids(self, n: int) -> list[str]:
        """Return the lowest n ids of samples with a reply, sorted; ids are hashes, so this is a draw."""
        return [f"{number:016x}" for number in np.unique(np.asarray(self._keys))[:n].tolist()]


def id_number(record_id: object) -> int:
    """Return an id of 16 hex digits as a number.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(record_id, str) or not _ID.fullmatch(record_id):
        raise ValueError(f"expected an id of hex digits, 16 at most, got {record_id!r:.40}")
    return int(record_id, 16)


def _is_finished(line: bytes) -> tuple[int, bool]:
    row = orjson.loads(line)
    return id_number(row["task_id"]), not (row["kind"] == "failure" and row["reason"] in TRANSIENT_REASONS)


def _reply_index(line: bytes) -> tuple[int, int, bool, list[int]]:
    row = orjson.loads(line)
    items = [id_number(item["item_id"]) for item in row.get("items") or ()]
    return id_number(row["task_id"]), id_number(row["sample_id"]), row["kind"] == "generation", items


def _distinct(
    items: "array[int]",
    counts: "np.ndarray[Any, np.dtype[np.uint32]]",
    is_current: "np.ndarray[Any, np.dtype[np.bool_]]",
) -> int:
    """Count the different items of the current rows; sorts in place, without a copy of a million ids."""
    ids = np.asarray(items, dtype=np.uint64)
    if not is_current.all():
        ids = ids[np.repeat(is_current, counts)]
    ids.sort()
    return int(np.count_nonzero(ids[1:] != ids[:-1])) + bool(len(ids))


def _is_last(ids: "array[int]") -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Return for every occurrence of an id whether it is the last one."""
    # np.unique gives the first occurrence: reversed, that is the last one
    _, reversed_index = np.unique(np.asarray(ids, dtype=np.uint64)[::-1], return_index=True)
    is_last = np.zeros(len(ids), dtype=bool)
    is_last[len(ids) - 1 - reversed_index] = True
    return is_last
