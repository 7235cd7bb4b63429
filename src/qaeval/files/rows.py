"""Files of rows: appended to, read one row at a time, and looked up without holding them in memory.

A million rows take some bytes each here: an id is 64 bits, a reply is its place in the file.
"""

import errno
import os
import re
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

from qaeval.errors import DataError, StoreError
from qaeval.records import PASSING_REASONS, Generation, Record

_SYNC_S: Final = 0.5
_ID: Final = re.compile(r"[0-9a-f]{1,16}")


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn the operating system's refusal into a sentence with a way on."""
    try:
        yield
    except OSError as error:
        what_to_do = {
            errno.ENOSPC: "free some space, then run the same command again (with --resume for a run: finished rows are kept)",
            errno.EDQUOT: "free some quota, then run the same command again (with --resume for a run: finished rows are kept)",
            errno.EFBIG: "raise the file size limit, then run the same command again (with --resume for a run: finished rows are kept)",
            errno.EACCES: "choose a directory that you may write with --out",
            errno.EROFS: "choose a directory that you may write with --out",
        }.get(error.errno or 0, "look at the path, then run the same command again (with --resume for a run)")
        raise StoreError(f"{path}: {doing} failed: {error.strerror or error}; {what_to_do}") from error


class RowWriter:
    """Appends rows to one file of a run; one write call per row, so that a kill tears one line at most.

    What was written is brought to the disk at least every half second while rows come, so that a machine that loses its
    power loses no more than that.
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
        """Bring what was written to the disk, in a thread; raise what the last time went wrong."""
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


def read_rows(path: Path, parse: Callable[[bytes], Any]) -> Iterator[Any]:
    """Read a file of rows, one at a time; none where there is no file.

    Raises:
        DataError: a line is no such row; path and line are named.
    """
    for _, row in placed_rows(path, parse):
        yield row


def placed_rows(path: Path, parse: Callable[[bytes], Any]) -> Iterator[tuple[int, Any]]:
    """Read a file of rows, each with the offset of its line; empty lines are skipped.

    Raises:
        DataError: as in `read_rows`.
    """
    if not path.is_file():
        return
    at = 0
    with explained(path, "reading"), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            start, at = at, at + len(line)
            if line.isspace():
                continue
            try:
                row = parse(line)
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                where = ".".join(map(str, problem["loc"])) or "the row"
                raise DataError(f"{path}:{number}: not a valid row: {where}: {problem['msg']}") from error
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                raise DataError(
                    f"{path}:{number}: not a valid row: {type(error).__name__}: {error}"
                ) from error
            yield start, row


def end_of_last_line(file: IO[bytes], size: int, block: int = 65536) -> int:
    """Return the offset just behind the last newline (0 when there is none)."""
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
    """The rows of a file, read anew each time they are iterated over.

    Args:
        path: The file.
        parse: Makes a line a row.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], Any]) -> None:
        self._path = path
        self._parse = parse

    def __iter__(self) -> Iterator[Any]:
        return read_rows(self._path, self._parse)

    def __len__(self) -> int:
        return sum(1 for _ in read_rows(self._path, len))


class LastRows(EachRow):
    """The last row of every task of a file, read anew each time they are iterated over; arguments as in `EachRow`."""

    def __iter__(self) -> Iterator[Any]:
        tasks = array("Q", read_rows(self._path, lambda line: _number(orjson.loads(line)["task_id"])))
        kept = _is_last(tasks)
        place = -1

        def parsed(line: bytes) -> Any:  # noqa: ANN401 - a row of the parser's type
            nonlocal place
            place += 1
            return self._parse(line) if kept[place] else None

        for row in read_rows(self._path, parsed):
            if row is not None:
                yield row


class Finished:
    """Ids of tasks that are not asked again: what has a row that is no failure, or a failure that would not pass.

    Args:
        ids: Of 16 hex digits, as numbers.
    """

    def __init__(self, ids: "np.ndarray[Any, np.dtype[np.uint64]]") -> None:
        self._ids = array("Q", np.unique(ids).astype(np.uint64).tobytes())

    @classmethod
    def read(cls, path: Path) -> "Finished":
        """Read the ids from a file of rows; of two rows with one id the last one counts."""
        ids, done = array("Q"), array("b")
        for task, is_done in read_rows(path, _finished_one):
            ids.append(task)
            done.append(is_done)
        return cls(np.asarray(ids, dtype=np.uint64)[_is_last(ids) & np.asarray(done, dtype=bool)])

    def __contains__(self, task_id: object) -> bool:
        wanted = int(str(task_id), 16)
        at = bisect_left(self._ids, wanted)
        return at < len(self._ids) and self._ids[at] == wanted

    def __len__(self) -> int:
        return len(self._ids)


class Replies:
    """The replies that came, by sample, read from the file when they are asked for; a context manager.

    Args:
        path: ``generations.jsonl``.

    Attributes:
        n_items: Different items in all of them.
    """

    def __init__(self, path: Path) -> None:
        tasks, samples, items = array("Q"), array("Q"), array("Q")
        starts, counts, came = array("Q"), array("I"), array("b")
        for start, (task, sample, is_reply, own) in placed_rows(path, _reply_one):
            tasks.append(task)
            samples.append(sample)
            starts.append(start)
            came.append(is_reply)
            items.extend(own)
            counts.append(len(own))
        kept = _is_last(tasks) & np.asarray(came, dtype=bool)
        self.n_items = _distinct(items, np.asarray(counts, dtype=np.uint32), kept)
        sample = np.asarray(samples, dtype=np.uint64)[kept]
        order = np.argsort(sample, kind="stable")
        self._samples, self._starts = sample[order], np.asarray(starts, dtype=np.uint64)[kept][order]
        self._file = path.open("rb") if path.is_file() else None

    def __len__(self) -> int:
        return len(self._samples)

    def of(self, sample_id: str) -> list[Generation]:
        """Read the replies to one sample, in the order in which they came."""
        if self._file is None:
            return []
        wanted = np.uint64(int(sample_id, 16))
        low, high = (int(np.searchsorted(self._samples, wanted, side)) for side in ("left", "right"))
        found = []
        for start in self._starts[low:high]:
            self._file.seek(int(start))
            found.append(Generation.model_validate_json(self._file.readline()))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _number(record_id: object) -> int:
    """Return an id of 16 hex digits as a number."""
    if not isinstance(record_id, str) or not _ID.fullmatch(record_id):
        raise ValueError(f"expected an id of hex digits, 16 at most, got {record_id!r:.40}")
    return int(record_id, 16)


def _finished_one(line: bytes) -> tuple[int, bool]:
    row = orjson.loads(line)
    return _number(row["task_id"]), not (row["kind"] == "failure" and row["reason"] in PASSING_REASONS)


def _reply_one(line: bytes) -> tuple[int, int, bool, list[int]]:
    row = orjson.loads(line)
    items = [_number(item["item_id"]) for item in row.get("items") or ()]
    return _number(row["task_id"]), _number(row["sample_id"]), row["kind"] == "generation", items


def _distinct(
    items: "array[int]",
    counts: "np.ndarray[Any, np.dtype[np.uint32]]",
    kept: "np.ndarray[Any, np.dtype[np.bool_]]",
) -> int:
    """Count the different items of the rows that are kept; sorts in place, so that a million take no more room than they have."""
    ids = np.asarray(items, dtype=np.uint64)
    if not kept.all():
        ids = ids[np.repeat(kept, counts)]
    ids.sort()
    return int(np.count_nonzero(ids[1:] != ids[:-1])) + bool(len(ids))


def _is_last(ids: "array[int]") -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Say of every occurrence of an id whether it is the last one."""
    _, first_from_behind = np.unique(np.asarray(ids, dtype=np.uint64)[::-1], return_index=True)
    found = np.zeros(len(ids), dtype=bool)
    found[len(ids) - 1 - first_from_behind] = True
    return found
