"""Read the finished runs of a folder, and write the history page."""

import os
import shlex
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from qaeval.comparison.report_file import REPORT, load_report
from qaeval.errors import DataError
from qaeval.files.rows import explained
from qaeval.history.model import HistoryRate, HistoryRun, Unread, in_utc
from qaeval.records import digest
from qaeval.storage.run_directory import AUDIT, SETTINGS, purpose_of
from qaeval.storage.runs import REGRADED

_GATE: Final = "gate.json"
_IDENTITY: Final = {"name", "hf_id", "revision", "sampling"}
"""Facts of a judge that change its letters. Tracking servers store the digest of exactly these: do not change the set."""


class _Gate(BaseModel):
    """The part of ``gate.json`` that a history uses."""

    model_config = ConfigDict(extra="ignore")

    outcome: str


def read_runs(folder: Path) -> tuple[tuple[HistoryRun, ...], tuple[Unread, ...]]:
    """Read the finished runs of a folder; all other folders but exports and regraded copies are listed with the reason.

    Raises:
        DataError: the folder does not exist, or has no folders.
        StoreError: the folder cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a folder of run directories, such as results")
    with explained(folder, "reading"):
        paths = sorted(
            path for path in folder.iterdir() if not path.name.startswith(".") and _is_folder(path)
        )
    if not paths:
        raise DataError(f"{folder}: no run directory; `qaeval compare` creates one")
    runs, unread = [], []
    # a folder that cannot be entered has no such file here, and gets its reason below
    names = {path.name for path in paths if os.path.isfile(path / SETTINGS)}  # noqa: PTH113 - raises nothing
    for path in paths:
        if path.name not in names and path.name.rpartition("-")[0] in names:
            continue  # `qaeval export` writes RUN-FORMAT beside the run
        if REGRADED in path.name:
            continue  # `qaeval gate --regrade` writes its copy beside the baseline
        try:
            runs.append(_read_run(path))
        except DataError as error:
            unread.append(Unread(name=_name(path), reason=str(error)))
        except OSError as error:
            unread.append(Unread(name=_name(path), reason=f"cannot be read: {error.strerror}"))
    return tuple(runs), tuple(unread)


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder, or a link to where nothing can be read: that is listed too."""
    try:
        return path.is_dir()
    except OSError:
        return True


def _name(path: Path) -> str:
    """Return the name of a folder as text; invalid bytes become replacement characters."""
    return os.fsencode(path.name).decode(errors="replace")


def _read_run(path: Path) -> HistoryRun:
    if not (path / SETTINGS).is_file():
        raise DataError(f"no run (no {SETTINGS})")
    if (path / AUDIT).is_file():
        raise DataError(f"an audit of a judge; `qaeval audit {shlex.quote(str(path))}` shows it")
    if purpose := purpose_of(path):
        raise DataError(f"{purpose}, no run of candidates")
    try:
        report = load_report(path)
    except DataError as error:
        # the table of unread folders has a column for the folder
        raise DataError(str(error).removeprefix(f"{path}/").removeprefix(f"{path}: ")) from error
    try:
        started = in_utc(report.run.started)
    except ValueError as error:
        raise DataError(f"{REPORT}: run.started: {error}") from error
    judge = report.judge.facts
    return HistoryRun(
        name=_name(path),
        started=started,
        eval=report.eval.name,
        eval_digest=report.eval.sha,
        task_digest=report.eval.task_sha,
        samples_digest=report.eval.sample_set_digest,
        n_samples=report.eval.n_samples,
        rubric=report.rubric.label_name,
        rubric_digest=report.rubric.sha,
        judge=judge.name,
        judge_digest=digest(judge.model_dump_json(include=_IDENTITY)),
        rates=tuple(
            HistoryRate(candidate=candidate.facts.name, usable=candidate.usable)
            for candidate in report.candidates
        ),
        prompts={
            candidate.facts.name: candidate.facts.prompt_sha
            for candidate in report.candidates
            if candidate.facts.prompt_sha
        },
        verdict=None if report.verdict.reason("one_candidate") else report.verdict,
        gate=_gate_outcome(path / _GATE),
    )


def _gate_outcome(path: Path) -> str:
    """Return the outcome of a run's gate; empty without a gate."""
    if not path.is_file():
        return ""
    try:
        return _Gate.model_validate_json(path.read_bytes()).outcome
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
