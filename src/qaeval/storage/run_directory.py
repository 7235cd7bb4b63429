"""The run directory: rows, resume, lock, manifest.

::

    results/<run>/settings.json       what the run is; written first, compared on resume
                  samples.jsonl       the sample set, frozen
                  generations.jsonl   Generation and Failure rows, appended as they come
                  grades.jsonl        Grade and Failure rows, appended as they come
                  controls.jsonl      planted controls, drawn, then graded: Control rows
                  audit.jsonl         of an audit alone: what the judge is asked, then graded: AuditItem rows
                  grades/<judge>.json, .jsonl
                                      judge and rubric of a further judge, and its rows, as in grades.jsonl
                  generation_repeats.jsonl, grade_repeats.jsonl
                                      further replies and letters of `--repeat`: no rate and no gate reads them
                  sessions.jsonl      one row per process and stage: time, duration, server
                  order.json          of a sequential gate: the seed of its grading order
                  report.{json,md,html}
                  purpose.txt         of items without a candidate alone, as those of a certificate: what they are
                  manifest.json       written last, by rename: its existence means that the run is complete

A row is one line and one write, so that a killed process loses at most the line it was writing. The last row of a
task wins.

A process that writes a run holds its lock, and cuts off a torn line before it adds rows. A process that reads one
takes no lock and changes nothing: it reads each file up to its last whole row at the moment when it opened the run,
letters before the replies that they belong to, so that it sees every reply of a letter.
"""

import json
import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, Final

import orjson
from pydantic import BaseModel, TypeAdapter

from qaeval.errors import DataError, InUseError, NotComparableError, StoreError, UsageError
from qaeval.files.kinds import hint
from qaeval.files.rows import (
    Closable,
    EachRow,
    Finished,
    LastRows,
    ReplyIndex,
    RowIndex,
    RowWriter,
    end_of_last_line,
    explained,
    file_sha256,
    lock,
    read_rows,
)
from qaeval.files.whole import whole_file, write_file
from qaeval.records import (
    AuditItem,
    Control,
    Failure,
    GenerateRow,
    Generation,
    GradeRow,
    Reading,
    Sample,
    Session,
)
from qaeval.storage.run_settings import Grading, Settings, require_keys

SETTINGS: Final = "settings.json"
SAMPLES: Final = "samples.jsonl"
LOGS: Final = "logs"
"""Folder of the output of servers that qaeval started."""
GENERATIONS: Final = "generations.jsonl"
GRADES: Final = "grades.jsonl"
CONTROLS: Final = "controls.jsonl"
AUDIT: Final = "audit.jsonl"
PURPOSE: Final = "purpose.txt"
"""What the items of a directory are that are no run of candidates, in a few words; a run has no such file."""
ESCALATION: Final = "escalation.json"
GENERATION_REPEATS: Final = "generation_repeats.jsonl"
GRADE_REPEATS: Final = "grade_repeats.jsonl"
SESSIONS: Final = "sessions.jsonl"
JUDGES: Final = "grades"
"""Folder of the letters of further judges."""
METRICS: Final = "metrics.jsonl"
COMMAND: Final = "command.txt"
"""The command lines that wrote rows, one a line, for the report and for those who have to continue the run."""
MANIFEST: Final = "manifest.json"
COMMITTED: Final = "_committed"
"""Folder of the commit records of a run in shards."""

_GENERATE_ROWS: Final[TypeAdapter[GenerateRow]] = TypeAdapter(GenerateRow)
_GRADE_ROWS: Final[TypeAdapter[GradeRow]] = TypeAdapter(GradeRow)


_LOCK: Final = ".lock"
_PROBE_S: Final = 0.1
"""How long a writer waits for the lock: `is_written` takes it for a moment."""
_BEGUN: Final = {SAMPLES, SETTINGS, COMMAND, _LOCK}
"""Files of a run before its first row."""
_MAX_DIFFERENCES: Final = 5
"""Differences that a message names."""


def is_written(path: Path) -> bool:
    """Return whether a process has a run open for writing, by its lock.

    A process on another machine is seen where the file system shares locks, as NFS does.
    """
    try:
        with (path / _LOCK).open("rb") as file:
            return not lock(file, path, shared=True)
    except (OSError, StoreError):  # no lock, or none that can be read
        return False


def purpose_of(path: Path) -> str:
    """Return what the items of a directory are that no candidate wrote for a comparison; empty of a run.

    Raises:
        StoreError: the file cannot be read.
    """
    file = path / PURPOSE
    if not file.is_file():
        return ""
    with explained(file, "reading"):
        return file.read_text("utf-8", errors="replace").strip()


class RunStore(Closable):
    """A run directory: locked while it is open for writing, unchanged and shared while it is open for reading.

    Attributes:
        path: The directory.
        warnings: Incomplete last lines, one sentence each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._lock: IO[bytes] | None = None
        self._ends: dict[str, int] | None = None
        self._made: tuple[Path, ...] = ()
        """Directories that `create` made, the innermost first."""

    @property
    def name(self) -> str:
        """Name of the run: that of its directory, also where the path is ``.``."""
        return self.path.resolve().name

    # ---------------------------------------------------------------- opening

    @classmethod
    def create(
        cls, path: Path, settings: Mapping[str, Any], samples: Iterable[Sample], *, resume: bool
    ) -> "RunStore":
        """Start a run in a new directory, or resume one that was made with the same settings.

        Raises:
            UsageError: the directory has a run and ``resume`` is off, has none and ``resume`` is on, or has
                shards.
            NotComparableError: the directory's settings differ; the message names the differences.
            StoreError: another process writes the directory, or it cannot be written.
        """
        if (path / COMMITTED).is_dir():
            raise UsageError(f"{path}: holds shards of a run; add --shard i/N, or choose another --out")
        if resume and not (path / SETTINGS).is_file():  # before anything is made
            raise UsageError(f"{path}: nothing to resume (no {SETTINGS}); omit --resume to start a run here")
        store = cls(path)
        store._made = tuple(folder for folder in (path, *path.parents) if not folder.exists())
        with explained(path, "making the directory"):
            path.mkdir(parents=True, exist_ok=True)
        store._acquire()
        try:
            store._begin(settings, samples, resume=resume)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, path: Path, *, writable: bool = False, is_audit: bool = False) -> "RunStore":
        """Open an existing run.

        Args:
            path: The directory.
            writable: Lock the directory, and repair it. Otherwise it is read as it is, also while a process writes it.
            is_audit: Open an audit, which has no candidates, and no run.

        Raises:
            DataError: ``path`` is not a run, or no audit where one is expected.
            StoreError: another process writes the directory, or it cannot be written, or not be read.
        """
        with explained(path, "reading"):
            if (path / COMMITTED).is_dir():
                raise DataError(
                    f"{path}: holds shards of a run; merge them first: `qaeval merge {path} --out DIR`"
                )
            if str(path).startswith("s3:"):
                address = f"s3://{str(path).removeprefix('s3:').lstrip('/')}"
                raise DataError(
                    f"{address}: fetch a run from a store first: `qaeval merge {address} --out DIR`"
                )
            if not (path / SETTINGS).is_file():
                raise DataError(
                    f"{path}: no run here (no {SETTINGS}); `qaeval compare`, `generate` or `import` creates one.{hint(path)}"
                )
            if (path / AUDIT).is_file() is not is_audit:
                raise DataError(
                    f"{path}: a run, not an audit; `qaeval audit JUDGE --out DIR` makes one"
                    if is_audit
                    else f"{path}: an audit of a judge, not a run; `qaeval audit {path}` shows it, or how to finish it"
                )
        store = cls(path)
        if not writable:
            store._ends = {name: store._end_of_rows(name) for name in store._row_files()}
            return store
        store._acquire()
        try:
            store._repair()
        except BaseException:
            store.close()
            raise
        return store

    def _acquire(self) -> None:
        lock_path = self.path / _LOCK
        with explained(lock_path, "opening the lock"):
            file = lock_path.open("ab")
        deadline = time.monotonic() + _PROBE_S
        try:
            while not lock(file, self.path):
                if time.monotonic() >= deadline:
                    raise InUseError(
                        f"{self.path}: in use: this or another process is writing the run; wait for it, or choose "
                        f"another --out"
                    )
                time.sleep(_PROBE_S / 10)
        except StoreError:
            file.close()
            raise
        self._lock = file

    def _begin(self, settings: Mapping[str, Any], samples: Iterable[Sample], *, resume: bool) -> None:
        exists = (self.path / SETTINGS).is_file()
        if exists and not resume:
            raise UsageError(
                f"{self.path}: already holds a run; add --resume to continue it, or choose another --out"
            )
        if exists:
            self.require_settings(settings)
        else:
            self.write_samples(samples, settings)
        self._repair()

    def _row_files(self) -> tuple[str, ...]:
        """Return the files that grow while a run is written, each before those that its rows refer to."""
        further = sorted(path.name for path in (self.path / JUDGES).glob("*.jsonl"))
        letters = (CONTROLS, AUDIT, GRADE_REPEATS, GRADES, *(f"{JUDGES}/{file}" for file in further))
        return (*letters, SESSIONS, METRICS, GENERATION_REPEATS, GENERATIONS)

    def _end_of_rows(self, name: str) -> int:
        """Return the offset after the last whole row of a file, 0 where there is none; note an incomplete line."""
        path = self.path / name
        if not path.is_file():
            return 0
        with explained(path, "reading"), path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            end = end_of_last_line(file, size)
        if end < size:
            self.warnings.append(
                f"{path}: dropped an incomplete last line ({size - end} bytes); its task will be asked again"
                if self._lock
                else f"{path}: the last line is incomplete ({size - end} bytes) and is not read; the run is being "
                f"written, or its process was killed"
            )
        return end

    def _repair(self) -> None:
        """Cut off a last line that a killed process did not finish."""
        for name in self._row_files():
            path, end = self.path / name, self._end_of_rows(name)
            if path.is_file() and end < path.stat().st_size:
                with explained(path, "removing the incomplete last line"):
                    os.truncate(path, end)

    def _end(self, name: str) -> int | None:
        """Return how many bytes of a file are read: of a run that is open for reading those of its opening."""
        return None if self._ends is None else self._ends.get(name, 0)

    def discard_unstarted(self) -> bool:
        """Remove a new run without a row, so that the same command can start it; return whether it was one.

        Logs of servers are kept, and directories that existed before.
        """
        names = {file.name for file in self.path.iterdir()}
        if not names <= {*_BEGUN, LOGS}:
            return False
        with suppress(OSError):  # what cannot be removed stays
            for name in names & _BEGUN:
                (self.path / name).unlink()
            for folder in self._made:
                folder.rmdir()
        return True

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # ---------------------------------------------------------------- settings and documents

    def settings(self) -> dict[str, Any]:
        """Read the settings of the run.

        Raises:
            DataError: they are missing or not JSON, or a key is missing.
        """
        path = self.path / SETTINGS
        return require_keys(self._read_object(path), Settings, str(path))

    def commands(self) -> tuple[str, ...]:
        """Return the command lines that wrote rows, in their order; empty of a run that keeps none.

        Raises:
            StoreError: their file cannot be read.
        """
        path = self.path / COMMAND
        if not path.is_file():
            return ()
        with explained(path, "reading"):
            return tuple(path.read_text("utf-8", errors="replace").splitlines())

    def keep_command(self, command: str) -> None:
        """Keep the command line of this process, unless it is kept already."""
        commands = self.commands()
        if command not in commands:
            self.write_text(COMMAND, "".join(f"{line}\n" for line in (*commands, command)))

    def require_run(self) -> None:
        """Require a run of candidates.

        Raises:
            DataError: the directory has items of another purpose, as those of a certificate.
        """
        if purpose := purpose_of(self.path):
            raise DataError(
                f"{self.path}: {purpose}, no run of candidates; name the directory of a run of `qaeval compare`, `grade` or `import`"
            )

    @staticmethod
    def _read_object(path: Path) -> dict[str, Any]:
        try:
            value = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise DataError(f"{path}: not readable as JSON: {error}") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}: expected an object, got {type(value).__name__}")
        return value

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of the run, whole or not at all."""
        self.write_text(SETTINGS, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")

    def write_samples(self, samples: Iterable[Sample], settings: Mapping[str, Any]) -> None:
        """Write the sample set of the run and the settings that describe it."""
        with whole_file(self.path / SAMPLES) as file:
            file.writelines(sample.model_dump_json().encode() + b"\n" for sample in samples)
        self.write_settings(settings)  # last: their existence says that the samples are complete

    def require_settings(self, settings: Mapping[str, Any]) -> None:
        """Require that settings equal those of the run; those of a model without a row yet are replaced.

        Raises:
            NotComparableError: they differ; the message names the differences.
        """
        if different := self.difference_from(settings):
            raise NotComparableError(
                f"{self.path}: made with other settings: {different}. Use the settings of the run, or "
                f"choose another --out"
            )
        recorded = self._read_object(self.path / SETTINGS)
        if differences(recorded, settings):
            self.write_settings(self._with_unused(recorded, settings))

    def difference_from(self, settings: Mapping[str, Any]) -> str:
        """Name what keeps the run from being resumed with settings, as `require_settings` does; empty where nothing does."""
        recorded = self._read_object(self.path / SETTINGS)
        return differences(recorded, settings) and differences(
            self._with_unused(recorded, settings), settings
        )

    def _with_unused(self, recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recorded settings with the new ones of every model that has no row: nothing was asked with the old ones."""
        asked = {
            row.candidate if isinstance(row, Generation) else row.model
            for row in (*self.generations(), *self.generation_repeats())
        }
        new = settings.get("candidates", {})
        candidates = {
            name: own if name in asked else new.get(name, own)
            for name, own in recorded.get("candidates", {}).items()
        }
        result = {**recorded, "candidates": candidates}
        is_graded = any(True for rows in (self.grades(), self.controls(), self.grade_repeats()) for _ in rows)
        if not is_graded and recorded.get("grading") and settings.get("grading"):
            result["grading"] = settings["grading"]
        return result

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the run by rename, whole or not at all."""
        return write_file(self.path / name, text)

    def require_unchanged(self, *, source: str = "", files: Container[str] | None = None) -> None:
        """Require that rows, settings and ``report.json`` are those that the manifest of a finished run was written for.

        Args:
            source: Name of the run in the error; default: its directory.
            files: Files that are compared; None: all.

        Raises:
            DataError: Some of them changed, or are missing.
        """
        if not (self.path / MANIFEST).is_file():
            return
        recorded = self._read_object(self.path / MANIFEST).get("sha256")
        changed = [
            name
            for name, sha256 in (recorded if isinstance(recorded, dict) else {}).items()
            if name.endswith((".json", ".jsonl"))
            and (files is None or name in files)
            and _sha256(self.path / name) != sha256
        ]
        if changed:
            where = source or str(self.path)
            raise DataError(
                f"{where}: {', '.join(changed)} changed after the report was written. Restore the run from a copy; if the change is "
                f"intended, `qaeval report {where}` writes the report anew"
            )

    def drop_manifest(self) -> None:
        """Delete the manifest: while rows are added the run is not complete."""
        (self.path / MANIFEST).unlink(missing_ok=True)

    # ---------------------------------------------------------------- rows

    def samples(self) -> EachRow:
        """Return the sample set in its order, read at every iteration."""
        return EachRow(self.path / SAMPLES, Sample.model_validate_json)

    def some_samples(self, sample_ids: Container[str]) -> list[Sample]:
        """Return the samples with these ids, in the order of the set."""
        rows = read_rows(
            self.path / SAMPLES,
            lambda line: line if orjson.loads(line)["sample_id"] in sample_ids else None,
        )
        return [Sample.model_validate_json(line) for line in rows if line is not None]

    def generations(self) -> LastRows:
        """Return the last row of every generation task, read at every iteration."""
        return LastRows(self.path / GENERATIONS, _GENERATE_ROWS.validate_json, self._end(GENERATIONS))

    def grades(self) -> LastRows:
        """Return the last row of every grading task, read at every iteration."""
        return LastRows(self.path / GRADES, _GRADE_ROWS.validate_json, self._end(GRADES))

    def controls(self) -> tuple[Control, ...]:
        """Return the planted controls in the order of their draw; empty in a run without any."""
        rows = read_rows(self.path / CONTROLS, Control.model_validate_json, self._end(CONTROLS))
        return tuple({row.task_id: row for row in rows}.values())

    def audit_items(self) -> tuple[AuditItem, ...]:
        """Return the items of an audit in their order; empty in a run."""
        rows = read_rows(self.path / AUDIT, AuditItem.model_validate_json, self._end(AUDIT))
        return tuple({row.task_id: row for row in rows}.values())

    def generation_repeats(self) -> LastRows:
        """Return the last row of every further reply, read at every iteration."""
        end = self._end(GENERATION_REPEATS)
        return LastRows(self.path / GENERATION_REPEATS, _GENERATE_ROWS.validate_json, end)

    def grade_repeats(self) -> LastRows:
        """Return the last row of every further letter, read at every iteration."""
        return LastRows(self.path / GRADE_REPEATS, _GRADE_ROWS.validate_json, self._end(GRADE_REPEATS))

    def further_judges(self) -> dict[str, dict[str, Any]]:
        """Read judge and rubric of the judges that graded besides the one in the settings, by name.

        Raises:
            DataError: a file of `JUDGES` is not JSON, or a key is missing.
        """
        paths = sorted((self.path / JUDGES).glob("*.json"))
        return {path.stem: require_keys(self._read_object(path), Grading, str(path)) for path in paths}

    def write_further_judge(self, grading: Mapping[str, Any]) -> None:
        """Write judge and rubric of a further judge, or require that they equal those of its first letters.

        Raises:
            NotComparableError: they differ; the message names the differences.
        """
        name = str(grading["judge"]["name"])
        recorded = self.further_judges().get(name)
        if recorded is None:
            self.write_text(further_files(name)[0], json.dumps(grading, indent=1, ensure_ascii=False) + "\n")
        elif different := differences(recorded, grading):
            raise NotComparableError(
                f"{self.path}: {name} graded with other settings: {different}. Restore them, or name the entry otherwise"
            )

    def grades_of(self, judge: str) -> LastRows:
        """Return the last row of every grading task of a further judge, read at every iteration."""
        name = further_files(judge)[1]
        return LastRows(self.path / name, _GRADE_ROWS.validate_json, self._end(name))

    def failure_without_letters(self, judge: str) -> Failure | None:
        """Return a failure of a judge that gave no item a letter; None where it gave one, or was asked nothing."""
        is_first = self.settings()["grading"]["judge"]["name"] == judge
        failure = None
        # as rows come, not the last of each task: the first letter ends the search
        name = GRADES if is_first else further_files(judge)[1]
        for row in read_rows(self.path / name, _GRADE_ROWS.validate_json, self._end(name)):
            if not isinstance(row, Failure):
                return None
            failure = row
        return failure

    def sample_ids(self) -> Iterator[str]:
        """Read the ids of the sample set in its order."""
        return read_rows(self.path / SAMPLES, lambda line: str(orjson.loads(line)["sample_id"]))

    def finished(self, name: str) -> Finished:
        """Return the ids of the finished tasks of a stage's file."""
        return Finished.read(self.path / name)

    def replies(self, name: str = GENERATIONS) -> ReplyIndex:
        """Index the candidates' replies by sample; holds an open file, to be closed."""
        return ReplyIndex(self.path / name, self._end(name))

    def rows_by_sample(self) -> RowIndex:
        """Index the last row of every generation task by sample; to be closed, as `replies`."""
        return RowIndex(
            self.path / GENERATIONS, "sample_id", _GENERATE_ROWS.validate_json, self._end(GENERATIONS)
        )

    def grades_by_item(self) -> RowIndex:
        """Index the last row of every grading task by item; to be closed, as `replies`."""
        return RowIndex(self.path / GRADES, "item_id", _GRADE_ROWS.validate_json, self._end(GRADES))

    def sessions(self) -> tuple[Session, ...]:
        """Return the sessions of all processes that worked on the run."""
        return tuple(read_rows(self.path / SESSIONS, Session.model_validate_json, self._end(SESSIONS)))

    def readings(self) -> tuple[Reading, ...]:
        """Return the metrics that were read from the servers."""
        return tuple(read_rows(self.path / METRICS, Reading.model_validate_json, self._end(METRICS)))

    def writer(self, name: str) -> RowWriter:
        """Open one of the row files for appending."""
        return RowWriter(self.path / name)


def row_parser(name: str) -> Callable[[bytes], Any]:
    """Return the function that reads a row of one of the files that grow while a run is written."""
    parsers: dict[str, Callable[[bytes], Any]] = {
        GENERATIONS: _GENERATE_ROWS.validate_json,
        GENERATION_REPEATS: _GENERATE_ROWS.validate_json,
        CONTROLS: Control.model_validate_json,
        AUDIT: AuditItem.model_validate_json,
        SESSIONS: Session.model_validate_json,
        METRICS: Reading.model_validate_json,
    }
    return parsers.get(name, _GRADE_ROWS.validate_json)


def _sha256(path: Path) -> str:
    """Hash a file; empty where there is none."""
    if not path.is_file():
        return ""
    with explained(path, "reading"):
        return file_sha256(path)


def further_files(judge: str) -> tuple[str, str]:
    """Return the files of a further judge: its settings and its rows."""
    return f"{JUDGES}/{judge}.json", f"{JUDGES}/{judge}.jsonl"


_OPTIONS: Final = {
    "sample_set.n": "--n",
    "sample_set.seed": "--seed",
    "sample_set.digest": "the sample set",
    "eval.name": "--eval",
    "grading.judge.name": "--judge",
    "grading.rubric.name": "--rubric",
}
"""Settings by the words of the command line."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Name the first five keys in which settings differ; empty where they are equal."""
    different = list(_differences(old, json.loads(json.dumps(new))))
    if any(change.startswith("--n was") for change in different):  # says more than the hash
        different = [change for change in different if not change.startswith("the sample set was")]
    return "; ".join(different[:_MAX_DIFFERENCES]) + ("; …" if different[_MAX_DIFFERENCES:] else "")


def _differences(old: Any, new: Any, where: str = "") -> Iterator[str]:  # noqa: ANN401 - JSON values
    """Name every key in which two JSON values differ: ``candidates.alpha.revision was "a", now "b"``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        before, after = (json.dumps(value, ensure_ascii=False) for value in (old, new))
        n_same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
        yield f"{_OPTIONS.get(where, where)} was {_excerpt(before, n_same)}, now {_excerpt(after, n_same)}"


def _excerpt(text: str, at: int, limit: int = 60) -> str:
    """Cut a long text to the surroundings of a position."""
    if len(text) <= limit:
        return text
    start = max(0, min(at - limit // 4, len(text) - limit))
    return f"{'…' if start else ''}{text[start : start + limit]}{'…' if start + limit < len(text) else ''}"


def model_json(model: BaseModel) -> str:
    """Serialise a document of the run, indented, with a newline at the end."""
    return json.dumps(model.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
