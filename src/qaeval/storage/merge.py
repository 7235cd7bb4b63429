"""Committed shards become one run: each row once, in an order that does not depend on who wrote it or when.

The run's settings and samples are those of every shard. Its rows are copied unchanged, the last one of each
task: generations by sample and then candidate, in the order of the settings; grades by the first position of
their item among them. Two runs whose models reply alike therefore differ in measured times (``latency_s``)
and cache hits (``cached_tokens``) alone. No row is held in memory: each takes 16 bytes, for its position and
its offset in a file.
"""

import os
import re
import shutil
import uuid
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import numpy as np
import orjson

from qaeval.errors import DataError, NotComparableError, UsageError
from qaeval.files.rows import explained, placed_rows, read_rows
from qaeval.files.whole import replaceable
from qaeval.records import Reading, Sample, Session
from qaeval.storage.location import Folder, Location
from qaeval.storage.run_directory import (
    CONTROLS,
    GENERATIONS,
    GRADES,
    METRICS,
    SAMPLES,
    SESSIONS,
    RunStore,
)
from qaeval.storage.shards import (
    FILES,
    CommittedShard,
    Shard,
    assign_shards,
    commit,
    committed_shards,
    sha256_of,
)

_Numbers: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
_Ids: TypeAlias = "np.ndarray[Any, np.dtype[np.uint64]]"

_SHARD_FOLDER: Final = re.compile(r"shard=([0-9]{4,9})")
_MAX_IDS: Final = 3
"""Ids that a message names."""
_MAX_SHARDS: Final = 20
"""Shards that a message names."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """Size of a merged run."""

    n_shards: int
    n_samples: int
    n_generations: int
    n_grades: int
    is_new: bool
    """False where the output held the same run already."""


def merge_shards(locations: Sequence[Location], out: Location) -> MergeResult:
    """Merge the committed shards of a run.

    Args:
        locations: Where the shards are kept, in one location or several.
        out: Takes the run: a folder becomes its run directory; a store gets it as the one shard of a run.

    Raises:
        DataError: a shard is missing, was changed since its commit, or has rows of another shard.
        NotComparableError: shards were made with different settings or samples.
        UsageError: ``out`` holds something else, or is the working directory.
        StoreError: a file cannot be read or written.
    """
    target = out.path if isinstance(out, Folder) else out.work / "merged"
    replaceable(target)
    shards = find_shards(locations)
    with _folder_beside(target) as folder:
        counts = _write(shards, folder)
        is_new = _move(folder, target) if isinstance(out, Folder) else _send(folder, out)
    return MergeResult(len(shards), *counts, is_new=is_new)


def find_shards(locations: Sequence[Location]) -> list[CommittedShard]:
    """Find all shards of a run, in order, each by its only commit record.

    Raises:
        DataError: no shard is committed, some are missing, or a shard has two commit records.
        NotComparableError: they were made with different settings.
    """
    by_index: dict[int, CommittedShard] = {}
    for location in locations:
        for index, shard in committed_shards(location).items():
            earlier = by_index.setdefault(index, shard)
            if earlier.record.attempt != shard.record.attempt:
                raise DataError(
                    f"shard {shard.record.shard} is committed twice: {earlier.record.attempt} in "
                    f"{earlier.location.name} and {shard.record.attempt} in {shard.location.name}; leave one "
                    f"of these locations out"
                )
    if not by_index:
        raise _no_shard(locations)
    shards = [by_index[index] for index in sorted(by_index)]
    _require_one_run(shards)
    n_shards = shards[0].record.of
    if missing := [Shard(index, n_shards) for index in range(n_shards) if index not in by_index]:
        raise DataError(
            f"{_names(locations)}: {len(missing)} of {n_shards} shards "
            f"{'is' if len(missing) == 1 else 'are'} not committed: "
            f"{', '.join(map(str, missing[:_MAX_SHARDS]))}{', …' if missing[_MAX_SHARDS:] else ''}. Run "
            f"them, or run them again: `qaeval compare … --shard {missing[0]}`; nothing was written"
        )
    return shards


def _no_shard(locations: Sequence[Location]) -> DataError:
    names = (name for location in locations for name in location.names(""))
    begun = sorted({int(match[1]) for name in names if (match := _SHARD_FOLDER.fullmatch(name))})
    if begun:
        return DataError(
            f"{_names(locations)}: no shard is committed; begun: {', '.join(map(str, begun[:_MAX_SHARDS]))}. "
            f"Run the same command again to resume one: `qaeval compare … --shard {begun[0]}/N --out PLACE`"
        )
    return DataError(
        f"{_names(locations)}: no committed shard here; `qaeval compare … --shard i/N --out PLACE` makes "
        f"one. A run without shards needs no merge: `qaeval report RUN`"
    )


def _names(locations: Iterable[Location]) -> str:
    return " ".join(location.name for location in locations)


def _require_one_run(shards: Sequence[CommittedShard]) -> None:
    first = shards[0]
    settings = first.settings()
    for shard in shards[1:]:
        shard.require_part_of(settings, first.record.of)
        if shard.record.files[SAMPLES] != first.record.files[SAMPLES]:
            raise NotComparableError(
                f"{shard.location.name}: shard {shard.record.shard} has other samples than shard "
                f"{first.record.shard}: the ids agree, but other fields (title, document, language) differ. "
                f"Run it again on the same chunks"
            )


# ---------------------------------------------------------------- writing


def _write(shards: Sequence[CommittedShard], folder: Path) -> tuple[int, int, int]:
    """Write the run; return the numbers of its samples, generations and grades."""
    store = RunStore(folder)
    settings = shards[0].settings()
    with _synced(folder / SAMPLES) as file:
        file.writelines(shards[0].blocks(SAMPLES))
    samples = list(store.samples())
    n_generations = _write_generations(shards, folder, samples, list(settings["candidates"]))
    n_grades = _write_grades(shards, folder)
    # the first shard alone grades controls
    if CONTROLS in shards[0].record.files:
        with _synced(folder / CONTROLS) as file:
            file.writelines(shards[0].blocks(CONTROLS))
    sessions = list(_sessions(shards))
    _write_rows(folder / SESSIONS, sessions)
    if any(METRICS in shard.record.files for shard in shards):
        _write_rows(folder / METRICS, _readings(shards, _without_overlap(sessions)))
    store.write_settings(settings)  # last: they make the folder a run
    return len(samples), n_generations, n_grades


def _write_generations(
    shards: Sequence[CommittedShard], folder: Path, samples: Sequence[Sample], candidates: Sequence[str]
) -> int:
    row_of = {sample.sample_id: row for row, sample in enumerate(samples)}
    shard_of = assign_shards(samples, len(shards))
    column_of = {name: column for column, name in enumerate(candidates)}
    with _concatenated(shards, GENERATIONS, folder) as (path, shard_at):

        def position_of(start: int, line: bytes) -> int:
            row = orjson.loads(line)
            sample, candidate = row["sample_id"], row.get("candidate") or row["model"]
            if shard_of[sample] != shard_at(start):
                raise ValueError(f"a reply to sample {sample}, which is shard {shard_of[sample]}'s")
            return row_of[sample] * len(candidates) + column_of[candidate]

        positions, starts = _last_of_each(path, position_of)
        n_expected = len(samples) * len(candidates)
        if len(positions) != n_expected:
            present = set(positions.tolist())
            missing = [position for position in range(n_expected) if position not in present]
            examples = ", ".join(
                f"{candidates[position % len(candidates)]} on "
                f"{samples[position // len(candidates)].sample_id}"
                for position in missing[:_MAX_IDS]
            )
            raise DataError(
                f"{len(missing)} replies are in no shard ({examples}); shards were committed unfinished"
            )
        _copy_lines(path, starts, folder / GENERATIONS)
    return n_expected


def _write_grades(shards: Sequence[CommittedShard], folder: Path) -> int:
    items, first = _items(folder / GENERATIONS)
    with _concatenated(shards, GRADES, folder) as (path, _):

        def position_of(_start: int, line: bytes) -> int:
            item = np.uint64(int(orjson.loads(line)["item_id"], 16))
            at = int(np.searchsorted(items, item))
            if at == len(items) or items[at] != item:
                raise ValueError(f"a grade of item {int(item):016x}, which no reply holds")
            return int(first[at])

        positions, starts = _last_of_each(path, position_of)
        if len(positions) != len(items):
            missing = items[~np.isin(first, positions)]
            examples = ", ".join(f"{int(item):016x}" for item in missing[:_MAX_IDS])
            raise DataError(
                f"{len(missing)} items have no grade in any shard ({examples}); shards were committed "
                f"unfinished"
            )
        _copy_lines(path, starts, folder / GRADES)
    return len(positions)


def _items(path: Path) -> tuple[_Ids, _Numbers]:
    """Return the sorted ids of the different items of a file, and the first position of each."""
    ids = array("Q")
    for row in read_rows(path, orjson.loads):
        ids.extend(int(item["item_id"], 16) for item in row.get("items") or ())
    items, first = np.unique(np.asarray(ids, dtype=np.uint64), return_index=True)
    return items, first


def _last_of_each(path: Path, position_of: Callable[[int, bytes], int]) -> tuple[_Numbers, _Numbers]:
    """Find the last line of each position, in the order of the positions.

    Returns:
        The positions, sorted, and the offsets of their lines in the file.
    """
    at = 0

    def parse(line: bytes) -> int:
        nonlocal at
        start, at = at, at + len(line)
        return position_of(start, line)

    starts, positions = array("q"), array("q")
    for start, position in placed_rows(path, parse):
        starts.append(start)
        positions.append(position)
    # np.unique gives the first occurrence: reversed, that is the last one
    unique, reversed_index = np.unique(np.asarray(positions, dtype=np.int64)[::-1], return_index=True)
    return unique, np.asarray(starts, dtype=np.int64)[::-1][reversed_index]


@contextmanager
def _concatenated(
    shards: Sequence[CommittedShard], name: str, folder: Path
) -> Iterator[tuple[Path, Callable[[int], int]]]:
    """Concatenate one file of all shards for the length of a block.

    Yields:
        The file, and a function from an offset in it to the shard that it comes from.
    """
    path = folder / f".{name}.together"
    ends: list[int] = []
    with explained(path, "writing"), path.open("wb") as file:
        for shard in shards:
            file.writelines(shard.blocks(name))
            ends.append(file.tell())
    try:
        yield path, partial(bisect_right, ends)
    finally:
        path.unlink()


def _copy_lines(source: Path, starts: Iterable[int], target: Path) -> None:
    with source.open("rb") as lines, _synced(target) as file:
        for start in starts:
            lines.seek(int(start))
            file.write(lines.readline())


def _write_rows(path: Path, rows: Iterable[Session | Reading]) -> None:
    with _synced(path) as file:
        file.writelines(row.model_dump_json(exclude_none=True).encode() + b"\n" for row in rows)


@contextmanager
def _synced(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing; it is on disk when the block ends."""
    with explained(path, "writing"), path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


# ---------------------------------------------------------------- sessions


def _sessions(shards: Iterable[CommittedShard]) -> Iterator[Session]:
    for shard in shards:
        origin = {"shard": str(shard.record.shard), "stored": shard.location.external}
        for session in shard.rows(SESSIONS, Session):
            yield session.model_copy(update=origin)


def _without_overlap(sessions: Sequence[Session]) -> set[tuple[str, str, str, str]]:
    """Choose sessions whose readings are kept: the longest of those that overlap in one stage.

    A server counts the requests of all its clients. The readings of two sessions that overlap would count
    them twice.
    """
    chosen: list[Session] = []
    for session in sorted(sessions, key=lambda session: -session.seconds):
        same = [other for other in chosen if (other.stage, other.model) == (session.stage, session.model)]
        if not any(_overlap(session, other) for other in same):
            chosen.append(session)
    return {(session.shard, session.stage, session.model, session.started) for session in chosen}


def _readings(shards: Iterable[CommittedShard], chosen: set[tuple[str, str, str, str]]) -> Iterator[Reading]:
    for shard in shards:
        for reading in shard.rows(METRICS, Reading):
            if (str(shard.record.shard), reading.stage, reading.model, reading.session) in chosen:
                yield reading


def _overlap(first: Session, second: Session) -> bool:
    (first_start, first_end), (second_start, second_end) = _span(first), _span(second)
    return first_start <= second_end and second_start <= first_end


def _span(session: Session) -> tuple[float, float]:
    start = datetime.fromisoformat(session.started).timestamp()
    return start, start + session.seconds


# ---------------------------------------------------------------- the merged run


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Create a folder next to a path, and delete it at the end unless it was moved.

    It is on the same file system as the path, so that a rename can move it there.
    """
    folder = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    with explained(folder, "making the directory"):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, target: Path) -> bool:
    """Rename a finished run to its path; return False where the path has the same run already.

    Raises:
        UsageError: the path has something else.
    """
    with explained(target, "writing"):
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            folder.replace(target)
            return True
    differing = [name for name in FILES if _sha256_or_empty(folder / name) != _sha256_or_empty(target / name)]
    if differing:
        raise UsageError(
            f"{target}: holds something else than these shards (other: {', '.join(differing)}); choose "
            f"another --out"
        )
    return False


def _sha256_or_empty(path: Path) -> str:
    return sha256_of(path) if path.is_file() else ""


def _send(folder: Path, out: Location) -> bool:
    """Commit a merged run as the only shard of a run; return False where the same run is there already.

    Raises:
        UsageError: the location has something else.
    """
    attempt = folder.with_name(f"attempt-{uuid.uuid4().hex}")
    folder.rename(attempt)
    try:
        record = commit(out, Shard(0, 1), attempt).record
        same = all(_sha256_or_empty(attempt / name) == sha256 for name, sha256 in record.files.items())
    finally:
        out.tidy(attempt)
    if not same:
        raise UsageError(f"{out.name}: holds something else than these shards; choose another --out")
    return record.attempt == attempt.name
