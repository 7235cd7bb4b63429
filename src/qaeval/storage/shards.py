"""A run in shards: which samples are whose, attempts, and the mark that commits one of them.

::

    PLACE/shard=0003/attempt-<id>/…     run directories of a shard, one for each process that began anew
          _committed/0003.json          names the attempt that counts, with the sha256 of its files; written once

Requests are sent at least once, rows count exactly once: any number of processes may work on one shard, the first that
commits is the one whose rows are merged, and a killed one left no mark.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from qaeval.environment import now
from qaeval.errors import DataError, NotComparableError, StoreError, UsageError
from qaeval.files.rows import explained
from qaeval.records import Record, Sample, digest
from qaeval.storage.location import BLOCK, Place
from qaeval.storage.run_directory import (
    COMMITTED,
    GENERATIONS,
    GRADES,
    METRICS,
    SAMPLES,
    SESSIONS,
    SETTINGS,
    InUseError,
    RunStore,
    differences,
    model_json,
)

FILES: Final = (SETTINGS, SAMPLES, GENERATIONS, GRADES, SESSIONS, METRICS)
"""What an attempt consists of; an empty shard has the first two alone."""

_TYPED: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_MARK: Final = re.compile(r"[0-9]{4,6}\.json")
_LONGEST_MARK: Final = 1 << 20
"""Bytes; a mark has about a thousand."""
_Row = TypeVar("_Row", bound=Record)

_FIRST_COMES: Final = f"{COMMITTED}/first-comes"
"""Written once by whoever comes first, so that a place that would let two commit is found out before any request."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``of`` parts of a run's samples; ``index`` counts from 0."""

    index: int
    of: int

    @classmethod
    def parse(cls, typed: str) -> Self:
        """Read ``i/N``.

        Raises:
            UsageError: another form, or no such shard.
        """
        found = _TYPED.fullmatch(typed)
        if not found:
            raise UsageError(f"--shard {typed!r}: expected i/N, like 0/4 for the first of four")
        index, of = int(found[1]), int(found[2])
        if not of:
            raise UsageError(
                f"--shard {typed!r}: a run in no shards is none; the whole run as one shard is 0/1"
            )
        if index >= of:
            raise UsageError(
                f"--shard {typed!r}: shards are counted from 0; the last of {of} is {of - 1}/{of}"
            )
        return cls(index, of)

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @property
    def folder(self) -> str:
        """Where its attempts stand in a place."""
        return f"shard={self.index:04}"

    @property
    def mark(self) -> str:
        """The file that commits it in a place."""
        return f"{COMMITTED}/{self.index:04}.json"

    def settings(self, whole: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of its attempts: those of the whole run, and which shard it is."""
        return {**whole, "shard": {"index": self.index, "of": self.of}}

    def samples(self, samples: Iterable[Sample]) -> frozenset[str]:
        """Return the ids of its samples."""
        return frozenset(name for name, index in owners(samples, self.of).items() if index == self.index)


def owners(samples: Iterable[Sample], of: int) -> dict[str, int]:
    """Deal samples to shards, in the order of stratum and then sample id, which is a hash.

    Sizes of two shards differ by one sample at most, and so do their samples of one stratum. Which samples a shard gets hangs on
    the sample set and ``of`` alone.

    Returns:
        The index of the shard, by sample id.
    """
    order = sorted((sample.stratum, sample.sample_id) for sample in samples)
    return {name: place % of for place, (_, name) in enumerate(order)}


def whole(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the run that an attempt is part of."""
    return {name: value for name, value in settings.items() if name != "shard"}


class Mark(Record):
    """Commits one attempt of a shard."""

    index: int = Field(ge=0)
    of: int = Field(ge=1)
    attempt: str = Field(pattern=r"^attempt-[0-9a-f]{32}$")
    """Its folder beside the shard's other attempts."""
    settings: str
    """Digest of the whole run's settings."""
    files: Mapping[str, str]
    """Hex sha256 of each file of the attempt, by name."""
    committed: str
    """UTC, ISO 8601."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.index >= self.of:
            raise ValueError(f"there is no shard {self.index}/{self.of}")
        if missing := {SETTINGS, SAMPLES} - self.files.keys():
            raise ValueError(f"{' and '.join(sorted(missing))} not among the files")
        if strange := self.files.keys() - set(FILES):
            raise ValueError(
                f"{' and '.join(map(repr, sorted(strange)))} among the files, which no attempt has"
            )
        return self

    @property
    def shard(self) -> Shard:
        """What it commits."""
        return Shard(self.index, self.of)

    def file(self, name: str) -> str:
        """Return where a file of the attempt stands in the place."""
        return f"{self.shard.folder}/{self.attempt}/{name}"


@dataclass(frozen=True, slots=True)
class Committed:
    """A mark, and the place that it was found in."""

    place: Place
    mark: Mark

    def blocks(self, name: str) -> Iterator[bytes]:
        """Read a file of the attempt piece by piece; nothing where it has none.

        Raises:
            DataError: the file is gone, or is not what was committed.
            StoreError: it cannot be read.
        """
        if name not in self.mark.files:
            return
        seen = hashlib.sha256()
        for block in self.place.blocks(self.mark.file(name)):
            seen.update(block)
            yield block
        if seen.hexdigest() != self.mark.files[name]:
            raise DataError(
                f"{self.place.name}/{self.mark.file(name)}: expected the sha256 {self.mark.files[name][:12]}… that shard "
                f"{self.mark.shard} was committed with, got {seen.hexdigest()[:12]}…: the file was changed or damaged since. Put it "
                f"back, or delete {self.place.name}/{self.mark.shard.mark} and run the shard again"
            )

    def settings(self) -> dict[str, Any]:
        """Read the settings of the whole run; errors as in `blocks`."""
        try:
            return whole(json.loads(b"".join(self.blocks(SETTINGS))))
        except (ValueError, AttributeError) as error:
            raise DataError(
                f"{self.place.name}/{self.mark.file(SETTINGS)}: expected the settings of a run: {error}"
            ) from error

    def rows(self, name: str, model: type[_Row]) -> Iterator[_Row]:
        """Read the rows of a short file of the attempt; errors as in `blocks`."""
        for number, line in enumerate(b"".join(self.blocks(name)).splitlines(), start=1):
            try:
                yield model.model_validate_json(line)
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                raise DataError(
                    f"{self.place.name}/{self.mark.file(name)}:{number}: not a valid row: {'.'.join(map(str, problem['loc']))}: "
                    f"{problem['msg']}; was the shard made by another version of qaeval?"
                ) from error

    def require_part_of(self, settings: Mapping[str, Any], of: int) -> None:
        """Refuse to be part of another run.

        Raises:
            NotComparableError: settings or the number of shards differ; the message names how.
        """
        where = f"{self.place.name}: shard {self.mark.shard}"
        if self.mark.of != of:
            raise NotComparableError(
                f"{where} is one of {self.mark.of}, and this run is in {of} shards: the number N of i/N is the same for all of a run. "
                f"Choose another --out, or run all of them with one N"
            )
        if self.mark.settings != digest(_plain(settings)):
            different = differences(self.settings(), settings)
            raise NotComparableError(
                f"{where} was made with other settings: {different}. All shards of a run are made with the same ones; choose another "
                f"--out, or run that shard again"
            )


def committed(place: Place) -> dict[int, Committed]:
    """Read the marks of a place, by the index of their shards.

    Raises:
        DataError: a mark is not readable as one.
        StoreError: the place cannot be read.
    """
    names = [name for name in place.names(COMMITTED) if _MARK.fullmatch(name)]
    found = [_read_mark(place, f"{COMMITTED}/{name}") for name in names]
    return {one.mark.index: one for one in found}


def _read_mark(place: Place, name: str) -> Committed:
    content = bytearray()
    for block in place.blocks(name):
        content += block
        if len(content) > _LONGEST_MARK:
            raise DataError(
                f"{place.name}/{name}: expected the mark of a committed shard, got a file of over 1 MiB"
            )
    try:
        mark = Mark.model_validate_json(bytes(content))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"]
        raise DataError(f"{place.name}/{name}: expected the mark of a committed shard: {problem}") from error
    if mark.shard.mark != name:
        raise DataError(f"{place.name}/{name}: expected the mark of this shard, got that of {mark.shard}")
    return Committed(place, mark)


def begin(
    place: Place, shard: Shard, settings: Mapping[str, Any], samples: Iterable[Sample]
) -> RunStore | Committed:
    """Go on with an attempt of a shard that no process works on, or start another one.

    Args:
        place: Where the shards are kept.
        shard: Which one.
        settings: Of the whole run.
        samples: The whole sample set.

    Returns:
        The open run directory, or what was committed where the shard is done.

    Raises:
        NotComparableError: the place holds shards of other settings.
        UsageError: the place is a run that was made in one.
        StoreError: the place cannot be written, or does not tell who came first.
    """
    marks = committed(place)
    for one in marks.values():
        one.require_part_of(settings, shard.of)
    if shard.index in marks:
        return marks[shard.index]
    if SETTINGS in place.names(""):
        raise UsageError(f"{place.name}: holds a run that was not made in shards; choose another --out")
    _require_order(place)
    folder = place.work / shard.folder
    with explained(folder, "reading"):
        attempts = sorted(folder.glob("attempt-*"))
    for path in (*attempts, folder / f"attempt-{uuid.uuid4().hex}"):
        try:
            return RunStore.create(
                path, shard.settings(settings), samples, resume=(path / SETTINGS).is_file()
            )
        except InUseError:
            continue
    raise AssertionError  # pragma: no cover - nobody else knows the last name


def commit(place: Place, shard: Shard, attempt: Path) -> Committed:
    """Commit a finished attempt, unless another one came first.

    Args:
        place: Where the shards are kept.
        shard: Which one.
        attempt: Its run directory, in the place's ``work``; no process writes it.

    Returns:
        What counts: this attempt, or the one that came first.

    Raises:
        NotComparableError: the one that came first was made with other settings.
        StoreError: something could not be written; nothing is committed then.
    """
    settings = whole(json.loads((attempt / SETTINGS).read_bytes()))
    files = {name: sha256_of(attempt / name) for name in FILES if (attempt / name).is_file()}
    mark = Mark(
        index=shard.index,
        of=shard.of,
        attempt=attempt.name,
        settings=digest(settings),
        files=files,
        committed=now(),
    )
    for name in files:
        place.put(attempt / name, mark.file(name))
    place.create(shard.mark, model_json(mark).encode())
    # whoever wrote it: a put that was sent twice is refused the second time although the first one came through
    stands = _read_mark(place, shard.mark)
    stands.require_part_of(settings, shard.of)
    return stands


def _require_order(place: Place) -> None:
    """Make sure that of two who write one file the second one is refused.

    Raises:
        StoreError: the place cannot be written, or lets both.
    """
    place.create(_FIRST_COMES, b"")
    if place.create(_FIRST_COMES, b""):
        raise StoreError(
            f"{place.name}: the store lets two processes write the same file (it does not know `If-None-Match: *`), so two attempts "
            f"of a shard could both be committed; use a store that knows conditional puts, or a folder"
        )


def _plain(settings: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a JSON value
    """Return settings as they are read from a file."""
    return json.loads(json.dumps(settings))


def sha256_of(path: Path) -> str:
    """Hash a file of an attempt into 64 hex digits."""
    seen = hashlib.sha256()
    with explained(path, "reading"), path.open("rb") as file:
        while block := file.read(BLOCK):
            seen.update(block)
    return seen.hexdigest()
