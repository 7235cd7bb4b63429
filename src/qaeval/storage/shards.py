"""A run in shards: which samples belong to which shard, attempts, and the record that commits one of them.

::

    LOCATION/shard=0003/attempt-<id>/…  run directories of a shard, one for each process that started anew
             _committed/0003.json       names the attempt that counts, with the sha256 of its files; written
             once

Requests are sent at least once, rows count exactly once: any number of processes may work on one shard. The
rows of the first one that commits are merged; a killed process leaves no commit record.
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
from qaeval.errors import DataError, InUseError, NotComparableError, StoreError, UsageError
from qaeval.files.rows import explained
from qaeval.records import Record, Sample, digest
from qaeval.storage.location import BLOCK, Location
from qaeval.storage.run_directory import (
    COMMITTED,
    CONTROLS,
    GENERATIONS,
    GRADES,
    METRICS,
    SAMPLES,
    SESSIONS,
    SETTINGS,
    RunStore,
    differences,
    model_json,
)
from qaeval.storage.run_settings import Settings, require_keys

FILES: Final = (SETTINGS, SAMPLES, GENERATIONS, GRADES, CONTROLS, SESSIONS, METRICS)
"""Files of an attempt; an empty shard has the first two alone."""

_ARGUMENT: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_COMMIT_RECORD: Final = re.compile(r"[0-9]{4,6}\.json")
_MAX_RECORD_BYTES: Final = 1 << 20
"""A commit record has about a thousand bytes; a larger file is something else."""
_Row = TypeVar("_Row", bound=Record)

_CREATE_ONCE_PROBE: Final = f"{COMMITTED}/first-comes"
"""Created once per location. A location that lets a second writer create it is refused before the first
request."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``of`` parts of a run's samples; ``index`` counts from 0."""

    index: int
    of: int

    @classmethod
    def parse(cls, argument: str) -> Self:
        """Read ``i/N``.

        Raises:
            UsageError: the argument has another form, or there is no such shard.
        """
        match = _ARGUMENT.fullmatch(argument)
        if not match:
            raise UsageError(f"--shard {argument!r}: expected i/N, like 0/4 for the first of four shards")
        index, of = int(match[1]), int(match[2])
        if not of:
            raise UsageError(f"--shard {argument!r}: a run has at least one shard; the whole run is 0/1")
        if index >= of:
            raise UsageError(
                f"--shard {argument!r}: shards are counted from 0; the last of {of} is {of - 1}/{of}"
            )
        return cls(index, of)

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @property
    def folder(self) -> str:
        """The folder of its attempts in a location."""
        return f"shard={self.index:04}"

    @property
    def commit_file(self) -> str:
        """The file that commits it in a location."""
        return f"{COMMITTED}/{self.index:04}.json"

    def settings(self, whole_run: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of its attempts: those of the whole run, and the shard."""
        return {**whole_run, "shard": {"index": self.index, "of": self.of}}

    def samples(self, samples: Iterable[Sample]) -> frozenset[str]:
        """Return the ids of its samples."""
        return frozenset(
            sample_id for sample_id, index in assign_shards(samples, self.of).items() if index == self.index
        )


def assign_shards(samples: Iterable[Sample], of: int) -> dict[str, int]:
    """Deal samples to shards, in the order of stratum and then sample id, which is a hash.

    The sizes of two shards differ by one sample at most, and so do their samples of one stratum. The
    assignment depends on the sample set and ``of`` alone, so that processes need not agree on it.

    Returns:
        The index of the shard, by sample id.
    """
    order = sorted((sample.stratum, sample.sample_id) for sample in samples)
    return {sample_id: position % of for position, (_, sample_id) in enumerate(order)}


def whole_run_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the run that an attempt is part of."""
    return {name: value for name, value in settings.items() if name != "shard"}


class CommitRecord(Record):
    """Commits one attempt of a shard."""

    index: int = Field(ge=0)
    of: int = Field(ge=1)
    attempt: str = Field(pattern=r"^attempt-[0-9a-f]{32}$")
    """Its folder, next to the shard's other attempts."""
    settings: str
    """Digest of the whole run's settings."""
    files: Mapping[str, str]
    """Hex sha256 of each file of the attempt, by name."""
    committed: str
    """UTC, ISO 8601."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.index >= self.of:
            raise ValueError(f"there is no shard {self.index}/{self.of}")
        if missing := {SETTINGS, SAMPLES} - self.files.keys():
            raise ValueError(f"{' and '.join(sorted(missing))} not among the files")
        if unknown := self.files.keys() - set(FILES):
            raise ValueError(f"no attempt has a file {' or '.join(map(repr, sorted(unknown)))}")
        return self

    @property
    def shard(self) -> Shard:
        """The shard that it commits."""
        return Shard(self.index, self.of)

    def file(self, name: str) -> str:
        """Return the path of a file of the attempt in the location."""
        return f"{self.shard.folder}/{self.attempt}/{name}"


@dataclass(frozen=True, slots=True)
class CommittedShard:
    """A commit record, and the location that it was read from."""

    location: Location
    record: CommitRecord

    def blocks(self, name: str) -> Iterator[bytes]:
        """Read a file of the attempt piece by piece; nothing where it has none.

        Raises:
            DataError: the file is missing, or is not the one that was committed.
            StoreError: it cannot be read.
        """
        if name not in self.record.files:
            return
        sha256 = hashlib.sha256()
        try:
            for block in self.location.blocks(self.record.file(name)):
                sha256.update(block)
                yield block
        except DataError as error:
            raise DataError(f"{error}. {self._way_on}") from error
        expected, actual = self.record.files[name], sha256.hexdigest()
        if actual != expected:
            raise DataError(
                f"{self.location.name}/{self.record.file(name)}: expected the sha256 {expected[:12]}… that "
                f"shard {self.record.shard} was committed with, got {actual[:12]}…: the file was changed or "
                f"damaged since. {self._way_on}"
            )

    @property
    def _way_on(self) -> str:
        """The attempt goes with its commit record: it would be resumed, and committed as it is."""
        place, shard = self.location.name, self.record.shard
        return (
            f"Restore it, or delete {place}/{shard.commit_file} and {place}/{shard.folder}/{self.record.attempt}, and run shard "
            f"{shard} again"
        )

    def settings(self) -> dict[str, Any]:
        """Read the settings of the whole run; errors as in `blocks`."""
        name = f"{self.location.name}/{self.record.file(SETTINGS)}"
        try:
            settings = whole_run_settings(json.loads(b"".join(self.blocks(SETTINGS))))
        except (ValueError, AttributeError) as error:
            raise DataError(f"{name}: expected the settings of a run: {error}") from error
        return require_keys(settings, Settings, name)

    def rows(self, name: str, model: type[_Row]) -> Iterator[_Row]:
        """Read the rows of a short file of the attempt; errors as in `blocks`."""
        for number, line in enumerate(b"".join(self.blocks(name)).splitlines(), start=1):
            try:
                yield model.model_validate_json(line)
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                raise DataError(
                    f"{self.location.name}/{self.record.file(name)}:{number}: not a valid row: "
                    f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}; was the shard written by "
                    f"another version of qaeval?"
                ) from error

    def require_part_of(self, settings: Mapping[str, Any], of: int) -> None:
        """Require that the shard belongs to a run.

        Raises:
            NotComparableError: settings or the number of shards differ; the message names the differences.
        """
        where = f"{self.location.name}: shard {self.record.shard}"
        if self.record.of != of:
            raise NotComparableError(
                f"{where} is one of {self.record.of}, and this run is in {of} shards; all shards of a run "
                f"need the same N in i/N. Choose another --out, or run all of them with one N"
            )
        if self.record.settings != digest(_as_json(settings)):
            different = differences(self.settings(), settings)
            raise NotComparableError(
                f"{where} was made with other settings: {different}. All shards of a run need the same "
                f"settings; choose another --out, or run that shard again"
            )


def committed_shards(location: Location) -> dict[int, CommittedShard]:
    """Read the commit records of a location, by the index of their shards.

    Raises:
        DataError: a commit record is not valid.
        StoreError: the location cannot be read.
    """
    names = [name for name in location.names(COMMITTED) if _COMMIT_RECORD.fullmatch(name)]
    shards = [_read_commit_record(location, f"{COMMITTED}/{name}") for name in names]
    return {shard.record.index: shard for shard in shards}


def _read_commit_record(location: Location, name: str) -> CommittedShard:
    content = bytearray()
    for block in location.blocks(name):
        content += block
        if len(content) > _MAX_RECORD_BYTES:
            raise DataError(f"{location.name}/{name}: expected a commit record, got a file of over 1 MiB")
    try:
        record = CommitRecord.model_validate_json(bytes(content))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"]
        raise DataError(f"{location.name}/{name}: expected a commit record: {problem}") from error
    if record.shard.commit_file != name:
        raise DataError(
            f"{location.name}/{name}: expected the commit record of this shard, got that of {record.shard}"
        )
    return CommittedShard(location, record)


def begin(
    location: Location, shard: Shard, settings: Mapping[str, Any], samples: Iterable[Sample]
) -> RunStore | CommittedShard:
    """Resume an attempt of a shard that no process works on, or start a new one.

    Args:
        location: Where the shards are kept.
        shard: The shard.
        settings: Of the whole run.
        samples: The whole sample set.

    Returns:
        The open run directory, or the committed shard where it is done.

    Raises:
        NotComparableError: the location has shards of other settings.
        UsageError: the location is a run without shards.
        StoreError: the location cannot be written, or lets two processes create one file.
    """
    committed = committed_shards(location)
    for other in committed.values():
        other.require_part_of(settings, shard.of)
    if shard.index in committed:
        return committed[shard.index]
    if SETTINGS in location.names(""):
        raise UsageError(f"{location.name}: holds a run without shards; choose another --out")
    _require_create_once(location)
    folder = location.work / shard.folder
    with explained(folder, "reading"):
        attempts = sorted(folder.glob("attempt-*"))
    for path in (*attempts, folder / f"attempt-{uuid.uuid4().hex}"):
        try:
            return RunStore.create(
                path, shard.settings(settings), samples, resume=(path / SETTINGS).is_file()
            )
        except InUseError:
            continue
    raise AssertionError  # pragma: no cover - no other process knows the last name


def commit(location: Location, shard: Shard, attempt: Path) -> CommittedShard:
    """Commit a finished attempt, unless another one was committed first.

    Args:
        location: Where the shards are kept.
        shard: The shard.
        attempt: Its run directory, in the location's ``work``; no process writes it.

    Returns:
        The committed shard: this attempt, or the one that was first.

    Raises:
        NotComparableError: the first attempt was made with other settings.
        StoreError: a file could not be written; nothing is committed then.
    """
    settings = whole_run_settings(json.loads((attempt / SETTINGS).read_bytes()))
    files = {name: sha256_of(attempt / name) for name in FILES if (attempt / name).is_file()}
    record = CommitRecord(
        index=shard.index,
        of=shard.of,
        attempt=attempt.name,
        settings=digest(settings),
        files=files,
        committed=now(),
    )
    # files first: a commit record must never name a file that is not stored yet
    for name in files:
        location.put(attempt / name, record.file(name))
    location.create(shard.commit_file, model_json(record).encode())
    # read back what counts: a put that was sent twice is refused the second time although the first one
    # succeeded
    committed = _read_commit_record(location, shard.commit_file)
    committed.require_part_of(settings, shard.of)
    return committed


def _require_create_once(location: Location) -> None:
    """Check that a location refuses the second of two writers of one file.

    Raises:
        StoreError: the location cannot be written, or accepts both.
    """
    location.create(_CREATE_ONCE_PROBE, b"")
    if location.create(_CREATE_ONCE_PROBE, b""):
        raise StoreError(
            f"{location.name}: the store ignores `If-None-Match: *`, so that two attempts of a shard could "
            f"both be committed; use a store with conditional puts, or a folder"
        )


def _as_json(settings: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a JSON value
    """Return settings as they are read from a file: tuples become lists."""
    return json.loads(json.dumps(settings))


def sha256_of(path: Path) -> str:
    """Hash a file of an attempt into 64 hex digits."""
    sha256 = hashlib.sha256()
    with explained(path, "reading"), path.open("rb") as file:
        while block := file.read(BLOCK):
            sha256.update(block)
    return sha256.hexdigest()
