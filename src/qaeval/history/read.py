"""Finished runs over time, and the same candidates in several runs: what ``qaeval history`` and ``compare-runs`` read."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from qaeval.analysis.candidates import rate_by_cluster
from qaeval.comparison.analysis import RunData
from qaeval.comparison.differences import compare_candidates
from qaeval.comparison.run_data import join_runs, read_run
from qaeval.errors import DataError, NotComparableError, UsageError
from qaeval.files.rows import explained
from qaeval.history.model import HistoryRate, HistoryRun, Moment, RunComparison, RunPair, Unread
from qaeval.records import digest
from qaeval.report.measure import Measure
from qaeval.storage.run_directory import MANIFEST, SETTINGS, RunStore, differences

_REPORT: Final = "report.json"
_GATE: Final = "gate.json"


class _Lenient(BaseModel):
    """The parts of a document that a history needs; what other versions of qaeval add is passed over."""

    model_config = ConfigDict(extra="ignore")


class _Run(_Lenient):
    started: Moment


class _Eval(_Lenient):
    name: str
    sha: str
    sample_set_digest: str
    n_samples: int


class _Rubric(_Lenient):
    name: str
    version: int
    sha: str


class _Model(_Lenient):
    name: str
    hf_id: str
    revision: str
    sampling: dict[str, Any]


class _Judge(_Lenient):
    facts: _Model


class _Candidate(_Lenient):
    facts: _Model
    usable: Measure


class _Report(_Lenient):
    run: _Run
    eval: _Eval
    rubric: _Rubric
    judge: _Judge
    candidates: tuple[_Candidate, ...]


class _Gate(_Lenient):
    outcome: str


def read_runs(folder: Path) -> tuple[tuple[HistoryRun, ...], tuple[Unread, ...]]:
    """Read what the finished runs of a folder showed; every other folder in it is named with the reason.

    Raises:
        DataError: there is no such folder, or no folder in it.
        StoreError: it cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; expected the one that holds run directories, such as results"
        )
    with explained(folder, "reading"):
        paths = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not paths:
        raise DataError(f"{folder}: no run directory in it; `qaeval compare` makes one")
    runs, unread = [], []
    for path in paths:
        try:
            runs.append(_read_run(path))
        except DataError as error:
            unread.append(Unread(name=_name(path), reason=str(error)))
        except OSError as error:
            unread.append(Unread(name=_name(path), reason=f"cannot be read: {error.strerror}"))
    return tuple(runs), tuple(unread)


def _name(path: Path) -> str:
    """Return a folder's name as text; bytes that are none become marks."""
    return os.fsencode(path.name).decode(errors="replace")


def _read_run(path: Path) -> HistoryRun:
    if not (path / SETTINGS).is_file():
        raise DataError(f"no run (no {SETTINGS})")
    if not (path / MANIFEST).is_file():
        raise DataError(
            f"not finished (no {MANIFEST}): `qaeval compare --resume` ends it, or `qaeval grade` and then `qaeval report`"
        )
    found = _document(path / _REPORT, _Report)
    judge = found.judge.facts
    return HistoryRun(
        name=_name(path),
        started=found.run.started,
        eval=found.eval.name,
        eval_digest=found.eval.sha,
        samples_digest=found.eval.sample_set_digest,
        n_samples=found.eval.n_samples,
        rubric=f"{found.rubric.name}/{found.rubric.version}",
        rubric_digest=found.rubric.sha,
        judge=judge.name,
        judge_digest=digest(judge.model_dump_json()),
        rates=tuple(HistoryRate(candidate=one.facts.name, usable=one.usable) for one in found.candidates),
        gate=_document(path / _GATE, _Gate).outcome if (path / _GATE).is_file() else "",
    )


_Document = TypeVar("_Document", bound=_Lenient)


def _document(path: Path, model: type[_Document]) -> _Document:
    try:
        return model.model_validate(orjson.loads(path.read_bytes()))
    except OSError as error:
        raise DataError(f"{path.name}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path.name}: not readable as JSON: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path.name}: {where}: {first['msg']}; of another version of qaeval?") from error


def write_page(path: Path, page: str) -> Path:
    """Write a page whole or not at all, with the folder it stands in.

    Raises:
        StoreError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with explained(path, "writing"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8", newline="\n")
        temporary.replace(path)
    return path


def compare_runs(stores: Sequence[RunStore], *, margin: float) -> RunComparison:
    """Compare the candidates that runs have in common, each later run with the first one, paired by chunk.

    Args:
        stores: At least two finished runs.
        margin: Smallest difference that matters, in (0, 1).

    Raises:
        NotComparableError: eval, samples, rubric or judge differ, or no candidate is in the first run and another one.
        UsageError: two of the directories have the same name.
        DataError: a run is not finished.
    """
    runs = {store.path.name: read_run(store, label_paths=()) for store in stores}
    if len(runs) < len(stores):
        raise UsageError("two of the run directories have the same name; rename one, it tells runs apart")
    first_name, *names = runs
    first = {facts.name for facts in runs[first_name].candidates}
    pairs = [
        (f"{facts.name}@{first_name}", f"{facts.name}@{name}")
        for name in names
        for facts in runs[name].candidates
        if facts.name in first
    ]
    joined = join_runs(runs)
    if not pairs:
        raise NotComparableError(
            f"no candidate of {first_name} ({', '.join(sorted(first))}) is in {' or '.join(names)}; "
            f"different candidates are put side by side by `qaeval report {first_name} {' '.join(names)}`"
        )
    table = joined.table()
    table = table.assign(candidate=table["candidate"].map(lambda name: _at(name, first, first_name)))
    best = joined.rubric.best
    wanted = list(dict.fromkeys(name for pair in pairs for name in pair))
    found = compare_candidates(
        table[table["candidate"].isin(wanted)], candidates=wanted, best=best, margin=margin, pairs=pairs
    )
    rates = {
        name: rate_by_cluster(own, own["letter"] == best)
        for name, own in table.groupby("candidate", sort=False)
    }
    settings = {store.path.name: store.settings() for store in stores}
    return RunComparison(
        runs=tuple(runs),
        pairs=tuple(
            RunPair(
                candidate=a.rpartition("@")[0],
                first=HistoryRate(candidate=a, usable=rates[a]),
                other=HistoryRate(candidate=b, usable=rates[b]),
                difference=one,
            )
            for (a, b), one in zip(pairs, found, strict=True)
        ),
        settings=tuple(_settings(first_name, name, settings) for name in names),
        left_out=_left_out(runs, wanted),
    )


def _at(name: str, first: Iterable[str], first_name: str) -> str:
    """Say of which run a candidate is, also of the first one."""
    return f"{name}@{first_name}" if name in first else name


def _left_out(runs: Mapping[str, RunData], wanted: Sequence[str]) -> tuple[str, ...]:
    every = (f"{facts.name}@{name}" for name, run in runs.items() for facts in run.candidates)
    return tuple(name for name in every if name not in wanted)


def _settings(first_name: str, name: str, settings: Mapping[str, Mapping[str, Any]]) -> str:
    found = differences(settings[first_name], settings[name])
    if not found:
        return f"{name} has the settings of {first_name}."
    return f"{name} has other settings than {first_name}: {found}."
