"""Committed shards become one run: each row once, in one order, whoever made it and when.

The run's settings and samples are those of every shard. Its rows are copied as they are, the last one of each task: generations by
sample and then candidate, in the order of the settings; grades by the item's first place among them. So the files of two runs
whose models reply alike differ in nothing but what a clock measured (``latency_s``) and what a server's cache gave
(``cached_tokens``). No row is held: of each its place in a file is, in 16 bytes.
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
from qaeval.records import Reading, Sample, Session
from qaeval.storage.location import Folder, Place
from qaeval.storage.run_directory import GENERATIONS, GRADES, METRICS, SAMPLES, SESSIONS, RunStore
from qaeval.storage.shards import FILES, Committed, Shard, commit, committed, owners, sha256_of

_Numbers: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
_Ids: TypeAlias = "np.ndarray[Any, np.dtype[np.uint64]]"

_SHARD: Final = re.compile(r"shard=[0-9]{4,9}")
_SHOWN: Final = 3
"""Ids that a message names."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge came to."""

    n_shards: int
    n_samples: int
    n_generations: int
    n_grades: int
    is_new: bool
    """False where the same run was there."""


def merge(places: Sequence[Place], out: Place) -> Merged:
    """Put the committed shards of a run together.

    Args:
        places: Where shards are kept, one place for all or several.
        out: Takes the run: a folder becomes its run directory; a store gets it as the one shard of a run in one.

    Raises:
        DataError: a shard is missing, was changed since, or has rows that are not its own.
        NotComparableError: shards were made with different settings or samples.
        UsageError: ``out`` holds something else.
        StoreError: something cannot be read or written.
    """
    shards = gather(places)
    target = out.path if isinstance(out, Folder) else out.work / "merged"
    with _folder_beside(target) as made:
        counts = _write(shards, made)
        is_new = _take_place(made, target) if isinstance(out, Folder) else _send(made, out)
    return Merged(len(shards), *counts, is_new=is_new)


def gather(places: Sequence[Place]) -> list[Committed]:
    """Find every shard of a run, in order, each by its one mark.

    Raises:
        DataError: none is committed, some are missing, or a shard has two marks.
        NotComparableError: they were made with different settings or samples.
    """
    found: dict[int, Committed] = {}
    for place in places:
        for index, one in committed(place).items():
            other = found.setdefault(index, one)
            if other.mark.attempt != one.mark.attempt:
                raise DataError(
                    f"shard {one.mark.shard} is committed twice: {other.mark.attempt} in {other.place.name} and {one.mark.attempt} in "
                    f"{one.place.name}; name the one place that counts"
                )
    names = " ".join(place.name for place in places)
    if not found:
        begun = sorted(
            {int(name[6:]) for place in places for name in place.names("") if _SHARD.fullmatch(name)}
        )
        if begun:
            raise DataError(
                f"{names}: no shard is committed; begun: {', '.join(map(str, begun[:20]))}. The same command again goes on with one: "
                f"`qaeval compare … --shard {begun[0]}/N --out PLACE`"
            )
        raise DataError(
            f"{names}: no committed shard here; `qaeval compare … --shard i/N --out PLACE` makes one, and a run that was not made in "
            f"shards needs no merge: `qaeval report RUN`"
        )
    shards = [found[index] for index in sorted(found)]
    first, *others = shards
    settings = first.settings()
    for one in others:
        one.require_part_of(settings, first.mark.of)
        if one.mark.files[SAMPLES] != first.mark.files[SAMPLES]:
            raise NotComparableError(
                f"{one.place.name}: shard {one.mark.shard} has other samples than shard {first.mark.shard}: the ids agree, and what the "
                f"data says of them (title, document, language) does not. Run it again on the same chunks"
            )
    if missing := [Shard(index, first.mark.of) for index in range(first.mark.of) if index not in found]:
        raise DataError(
            f"{names}: {len(missing)} of {first.mark.of} shards {'is' if len(missing) == 1 else 'are'} not committed: "
            f"{', '.join(map(str, missing[:20]))}{', …' if missing[20:] else ''}. Run them, or run them again: "
            f"`qaeval compare … --shard {missing[0]}`; nothing was written"
        )
    return shards


# ---------------------------------------------------------------- writing


def _write(shards: Sequence[Committed], folder: Path) -> tuple[int, int, int]:
    """Write the run; return the numbers of its samples, generations and grades."""
    store = RunStore(folder)
    settings = shards[0].settings()
    with _writing(folder / SAMPLES) as file:
        file.writelines(shards[0].blocks(SAMPLES))
    samples = list(store.samples())
    n_generations = _write_generations(shards, folder, samples, list(settings["candidates"]))
    n_grades = _write_grades(shards, folder)
    sessions = list(_sessions(shards))
    kept = _apart(sessions)
    _write_rows(folder / SESSIONS, sessions)
    if any(METRICS in one.mark.files for one in shards):
        _write_rows(folder / METRICS, _readings(shards, kept))
    store.write_settings(settings)
    return len(samples), n_generations, n_grades


def _write_generations(
    shards: Sequence[Committed], folder: Path, samples: Sequence[Sample], candidates: Sequence[str]
) -> int:
    rank = {sample.sample_id: place for place, sample in enumerate(samples)}
    owner = owners(samples, len(shards))
    column = {name: place for place, name in enumerate(candidates)}
    with _together(shards, GENERATIONS, folder) as (path, shard_at):

        def place_of(start: int, line: bytes) -> int:
            row = orjson.loads(line)
            sample, who = row["sample_id"], row.get("candidate") or row["model"]
            if owner[sample] != shard_at(start):
                raise ValueError(f"a reply to sample {sample}, which is shard {owner[sample]}'s")
            return rank[sample] * len(candidates) + column[who]

        places, starts = _last_of_each(path, place_of)
        wanted = len(samples) * len(candidates)
        if len(places) != wanted:
            there = set(places.tolist())
            lost = [place for place in range(wanted) if place not in there]
            named = ", ".join(
                f"{candidates[place % len(candidates)]} on {samples[place // len(candidates)].sample_id}"
                for place in lost[:_SHOWN]
            )
            raise DataError(
                f"{len(lost)} replies are in no shard ({named}); shards were committed unfinished"
            )
        _copy_lines(path, starts, folder / GENERATIONS)
    return wanted


def _write_grades(shards: Sequence[Committed], folder: Path) -> int:
    items, first = _items(folder / GENERATIONS)
    with _together(shards, GRADES, folder) as (path, _):

        def place_of(_start: int, line: bytes) -> int:
            item = np.uint64(int(orjson.loads(line)["item_id"], 16))
            at = int(np.searchsorted(items, item))
            if at == len(items) or items[at] != item:
                raise ValueError(f"a grade of item {int(item):016x}, which no reply holds")
            return int(first[at])

        places, starts = _last_of_each(path, place_of)
        if len(places) != len(items):
            lost = items[~np.isin(first, places)]
            named = ", ".join(f"{int(item):016x}" for item in lost[:_SHOWN])
            raise DataError(
                f"{len(lost)} items have no grade in any shard ({named}); shards were committed unfinished"
            )
        _copy_lines(path, starts, folder / GRADES)
    return len(places)


def _items(path: Path) -> tuple[_Ids, _Numbers]:
    """Return the ids of the different items of a file, sorted, and the place of the first occurrence of each."""
    ids = array("Q")
    for row in read_rows(path, orjson.loads):
        ids.extend(int(item["item_id"], 16) for item in row.get("items") or ())
    items, first = np.unique(np.asarray(ids, dtype=np.uint64), return_index=True)
    return items, first


def _last_of_each(path: Path, place_of: Callable[[int, bytes], int]) -> tuple[_Numbers, _Numbers]:
    """Find the last line of each place, in the order of the places.

    Returns:
        The places, sorted, and where their lines start in the file.
    """
    at = 0

    def placed(line: bytes) -> int:
        nonlocal at
        start, at = at, at + len(line)
        return place_of(start, line)

    starts, found = array("q"), array("q")
    for start, place in placed_rows(path, placed):
        starts.append(start)
        found.append(place)
    places, first_from_behind = np.unique(np.asarray(found, dtype=np.int64)[::-1], return_index=True)
    return places, np.asarray(starts, dtype=np.int64)[::-1][first_from_behind]


@contextmanager
def _together(
    shards: Sequence[Committed], name: str, folder: Path
) -> Iterator[tuple[Path, Callable[[int], int]]]:
    """Put one file of all shards behind each other for a while; also tells which shard a place in it is from."""
    path = folder / f".{name}.together"
    ends: list[int] = []
    with explained(path, "writing"), path.open("wb") as file:
        for one in shards:
            file.writelines(one.blocks(name))
            ends.append(file.tell())
    try:
        yield path, partial(bisect_right, ends)
    finally:
        path.unlink()


def _copy_lines(source: Path, starts: Iterable[int], target: Path) -> None:
    with source.open("rb") as lines, _writing(target) as file:
        for start in starts:
            lines.seek(int(start))
            file.write(lines.readline())


def _write_rows(path: Path, rows: Iterable[Session | Reading]) -> None:
    with _writing(path) as file:
        file.writelines(row.model_dump_json(exclude_none=True).encode() + b"\n" for row in rows)


@contextmanager
def _writing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that is on the disk when the block ends."""
    with explained(path, "writing"), path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


# ---------------------------------------------------------------- sessions


def _sessions(shards: Iterable[Committed]) -> Iterator[Session]:
    for one in shards:
        more = {"shard": str(one.mark.shard), "stored": one.place.external}
        for row in one.rows(SESSIONS, Session):
            yield row.model_copy(update=more)


def _apart(sessions: Sequence[Session]) -> set[tuple[str, str, str, str]]:
    """Choose sessions whose readings are kept: of those of one stage that ran side by side the longest.

    A server's counters are the server's, whoever reads them: added up over shards that ran side by side, they would count it twice.
    """
    kept: list[Session] = []
    for one in sorted(sessions, key=lambda session: -session.seconds):
        same = [other for other in kept if (other.stage, other.model) == (one.stage, one.model)]
        if not any(_overlap(one, other) for other in same):
            kept.append(one)
    return {(one.shard, one.stage, one.model, one.started) for one in kept}


def _readings(shards: Iterable[Committed], kept: set[tuple[str, str, str, str]]) -> Iterator[Reading]:
    for one in shards:
        for row in one.rows(METRICS, Reading):
            if (str(one.mark.shard), row.stage, row.model, row.session) in kept:
                yield row


def _overlap(one: Session, other: Session) -> bool:
    (first, first_end), (second, second_end) = _span(one), _span(other)
    return first <= second_end and second <= first_end


def _span(session: Session) -> tuple[float, float]:
    start = datetime.fromisoformat(session.started).timestamp()
    return start, start + session.seconds


# ---------------------------------------------------------------- the finished run


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Make a folder beside a path, to be renamed to it when it is finished; what is left of it is taken away."""
    made = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    with explained(made, "making the directory"):
        made.mkdir(parents=True)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _take_place(made: Path, target: Path) -> bool:
    """Rename a finished run to its place; say whether it was not there before."""
    with explained(target, "writing"):
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            made.replace(target)
            return True
    differing = [name for name in FILES if _sum(made / name) != _sum(target / name)]
    if differing:
        raise UsageError(
            f"{target}: holds something else than these shards (other: {', '.join(differing)}); choose another --out"
        )
    return False


def _sum(path: Path) -> str:
    return sha256_of(path) if path.is_file() else ""


def _send(made: Path, out: Place) -> bool:
    """Commit a finished run as the one shard of a run in one; say whether it was not there before."""
    attempt = made.with_name(f"attempt-{uuid.uuid4().hex}")
    made.rename(attempt)
    try:
        stands = commit(out, Shard(0, 1), attempt).mark
        same = all(_sum(attempt / name) == known for name, known in stands.files.items())
    finally:
        out.tidy(attempt)
    if not same:
        raise UsageError(f"{out.name}: holds something else than these shards; choose another --out")
    return stands.attempt == attempt.name
