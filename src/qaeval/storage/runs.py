"""The run directories of a folder: which there are, which is the latest, and how far one is."""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qaeval.errors import DataError, QaevalError, UsageError
from qaeval.files.rows import explained
from qaeval.storage.run_directory import AUDIT, GENERATIONS, GRADES, MANIFEST, PURPOSE, SETTINGS, RunStore

RESULTS: Final = Path("results")
"""Folder of the runs of a project."""
LATEST: Final = "latest"
"""Name that stands for the run of `RESULTS` that was worked on last."""
REGRADED: Final = ".regraded-"
"""Stands in the name of a baseline's copy between that of the baseline and a hash."""
_BLOCK: Final = 1 << 20


def find_run(name: str) -> Path:
    """Return the directory of a run that a command was given: ``latest`` is the last one of `RESULTS`.

    A directory of that name in the working directory comes first, and any other name is a path.

    Raises:
        DataError: there is no run in `RESULTS`.
    """
    path = Path(name)
    if name != LATEST or path.exists():
        return path
    runs = list_runs(RESULTS)
    if not runs:
        raise DataError(f"{LATEST}: no run in {RESULTS}; `qaeval compare` creates one")
    return next(iter(runs.values()))


def list_runs(folder: Path) -> dict[str, Path]:
    """Return the run directories of a folder by name, those worked on last first; empty where there is no folder.

    Audits, the items of certificates and regraded copies of baselines are left out. A folder that cannot be entered is listed, since it may be a run.

    A name whose bytes are not UTF-8 has replacement characters.

    Raises:
        StoreError: the folder cannot be read.
    """
    return {
        os.fsencode(path.name).decode(errors="replace"): path for path in _newest_first(folder, _may_be_run)
    }


def list_audits(folder: Path) -> list[Path]:
    """Return the directories of audits of a folder, those worked on last first.

    Raises:
        StoreError: the folder cannot be read.
    """
    return _newest_first(folder, lambda path: os.path.isfile(path / AUDIT))  # noqa: PTH113 - raises nothing


def _newest_first(folder: Path, is_kept: Callable[[Path], bool]) -> list[Path]:
    if not folder.is_dir():
        return []
    with explained(folder, "reading"):
        paths = [path for path in folder.iterdir() if not path.name.startswith(".") and is_kept(path)]
    return sorted(paths, key=last_change, reverse=True)


def find_unfinished(
    paths: Sequence[Path], difference: Callable[[Path], str], *, finished: str = MANIFEST
) -> Path:
    """Return the first directory whose work is not finished and was begun with the settings of now.

    Args:
        paths: Runs, or audits, those worked on last first.
        difference: Names what keeps a directory from being resumed with these settings; empty where nothing does.
        finished: File that a finished one has.

    Raises:
        UsageError: there is none; the message names the last one that is not finished, and what differs.
    """
    unfinished = [path for path in paths if not (path / finished).is_file()]
    last = ""
    for path in unfinished:
        try:
            different = difference(path)
        except QaevalError as error:
            different = str(error).removeprefix(f"{path}: ")
        if not different:
            return path
        last = last or f": {path} differs ({different})"
    named = shlex.quote(str(next(iter([*unfinished, *paths]), RESULTS / "RUN")))
    raise UsageError(
        f"--resume: nothing unfinished in {RESULTS} was begun with these settings{last}. To continue a certain one, add its directory, "
        f"`--out {named} --resume`, and use its settings; omit --resume to begin anew"
    )


def resume_command(words: Sequence[str], path: Path) -> str:
    """Return the command line that continues the run in a directory: that of the run, with ``--out`` and ``--resume``.

    The directory may be a copy of the run that the words name.
    """
    kept, rest = [], iter(words)
    for word in rest:
        if word == "--out":
            next(rest, None)
        elif word != "--resume" and not word.startswith("--out="):
            kept.append(word)
    return shlex.join([*kept, "--out", str(path), "--resume"])


def next_command(run: Path) -> str:
    """Return the command line that completes a run or an audit, by those that it keeps; empty where it keeps none.

    A run may come from a stranger: no other command than one of a run is returned.

    Raises:
        StoreError: the commands cannot be read.
    """
    grade = f"qaeval grade {shlex.quote(str(run))}"
    commands = RunStore(run).commands()
    for line in reversed(commands):
        with suppress(ValueError):
            words = shlex.split(line)
            if words[:1] == ["qaeval"] and words[1:2] in (["compare"], ["generate"], ["audit"]):
                command = resume_command(words, run)
                return f"{command} && {grade}" if words[1] == "generate" else command
    is_made_elsewhere = any(line.startswith(("qaeval import ", "qaeval merge ")) for line in commands)
    return grade if is_made_elsewhere else ""


def way_on(run: Path) -> str:
    """Say which command completes a run or an audit; errors as in `next_command`."""
    command = next_command(run)
    return (
        f"`{command}`" if command else f"the command of the run with --out {shlex.quote(str(run))} --resume"
    )


def _may_be_run(path: Path) -> bool:
    try:
        return (path / SETTINGS).is_file() and not is_no_run(path)
    except OSError:
        return True


def is_no_run(path: Path) -> bool:
    """Return whether a directory with settings is an audit, has items of another purpose, or is a regraded copy of a baseline.

    Raises:
        OSError: it cannot be entered.
    """
    return REGRADED in path.name or any((path / name).is_file() for name in (AUDIT, PURPOSE))


def last_change(run: Path) -> float:
    """Return when a run was worked on last, in seconds since the epoch: its settings, rows and manifest; 0 where none can be read."""
    times = [_changed(run / name) for name in (SETTINGS, GENERATIONS, GRADES, MANIFEST)]
    return max(times)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@dataclass(frozen=True)
class StageCount:
    """How far a stage of a run is."""

    stage: str
    """``generate`` or ``grade``."""
    done: int
    """Rows written; a task that was asked again has several."""
    total: int
    """Tasks; of grading the most that there can be."""


class RowCounts:
    """Counts rows of growing files; a file is read on from where the last count ended."""

    def __init__(self) -> None:
        self._counted: dict[Path, tuple[int, int]] = {}

    def progress(self, run: Path, settings: Mapping[str, Any]) -> tuple[StageCount, ...]:
        """Return the progress of both stages of a run.

        Args:
            run: Run directory.
            settings: Its settings.
        """
        n_replies = settings["sample_set"]["n"] * len(settings["candidates"])
        n_items = n_replies * settings["eval"]["items_per_sample"]
        return (
            StageCount("generate", self._count(run / GENERATIONS), n_replies),
            StageCount("grade", self._count(run / GRADES), n_items),
        )

    def _count(self, path: Path) -> int:
        offset, count = self._counted.get(path, (0, 0))
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < offset:  # cut or written anew
                    offset, count = 0, 0
                file.seek(offset)
                while block := file.read(_BLOCK):
                    count += block.count(b"\n")
                    offset += len(block)
        except OSError:
            return count
        self._counted[path] = offset, count
        return count
