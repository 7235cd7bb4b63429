"""The run directories of a folder: which there are, which is the latest, and how far one is."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qaeval.errors import DataError
from qaeval.files.rows import explained
from qaeval.storage.run_directory import AUDIT, GENERATIONS, GRADES, MANIFEST, SETTINGS

RESULTS: Final = Path("results")
"""Folder of the runs of a project."""
LATEST: Final = "latest"
"""Name that stands for the run of `RESULTS` that was worked on last."""
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

    Audits are left out. A folder that cannot be entered is listed, since it may be a run.

    A name whose bytes are not UTF-8 has replacement characters.

    Raises:
        StoreError: the folder cannot be read.
    """
    if not folder.is_dir():
        return {}
    with explained(folder, "reading"):
        paths = [path for path in folder.iterdir() if not path.name.startswith(".") and _may_be_run(path)]
    paths.sort(key=last_change, reverse=True)
    return {os.fsencode(path.name).decode(errors="replace"): path for path in paths}


def _may_be_run(path: Path) -> bool:
    try:
        return (path / SETTINGS).is_file() and not (path / AUDIT).is_file()
    except OSError:
        return True


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
