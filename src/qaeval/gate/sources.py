"""From what was typed to evidence: a run directory, a baseline file, or a pointer to a run that is kept elsewhere."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from qaeval import __version__
from qaeval.config import Config
from qaeval.errors import DataError
from qaeval.gate.baseline import BaselineFile, Pointer, parse_baseline, read_baseline
from qaeval.gate.evidence import Evidence, evidence_of, identity_of
from qaeval.gate.pending import with_pending
from qaeval.gate.verdict import Side
from qaeval.places import Place, is_store, place_of
from qaeval.prepare import find_labels, find_machines
from qaeval.rowfiles import explained
from qaeval.rundata import RunData
from qaeval.store import GENERATIONS, GRADES, METRICS, SAMPLES, SESSIONS, SETTINGS, RunStore

_NEEDED: Final = (SETTINGS, SAMPLES, GENERATIONS, GRADES, SESSIONS)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What evidence is read with."""

    config: Config
    """The registry: prices of machines, hosts that data may come from."""
    labels: Sequence[Path] = ()
    """Files of labels; the eval's own where there are none."""
    hardware: str | None = None
    """Machine of models whose entry names none."""

    def run(self, path: Path) -> Evidence:
        """Read a graded run.

        Raises:
            DataError: there is no run, or it is not graded to its end.
        """
        with RunStore.open(path) as store:
            return self.of_store(store, name=path.name)

    def of_store(self, store: RunStore, *, name: str, grading: Mapping[str, Any] | None = None) -> Evidence:
        """Read an open run; errors as in `run`.

        Args:
            store: The run.
            name: What it is called.
            grading: Who grades a run that is not graded to its end: what has no letter yet counts as not graded.
        """
        settings = store.settings()
        labels = tuple(self.labels) or find_labels(settings["eval"]["name"])
        data = RunData.read(store, label_paths=labels, grading=grading)
        if grading is not None:
            settings = {**settings, "grading": grading}
            data = replace(data, rows=replace(data.rows, grades=with_pending(data)))
        first = min(store.sessions(), key=lambda one: one.started, default=None)
        side = Side(
            name=name,
            created="" if first is None else first.started,
            identity=identity_of(data, settings),
            qaeval_version=__version__ if first is None else first.qaeval_version,
            git_commit="" if first is None else first.git_commit,
        )
        return evidence_of(data, side, machines=find_machines(self.config, [settings], self.hardware))

    def baseline(self, where: str) -> Evidence:
        """Read a baseline: a run directory, a file, a pointer, or either of them in a store.

        Raises:
            DataError: it is none of these, was changed, or a pointer's run is not what it was.
        """
        if is_store(where):
            found = self._of_store_file(where) if where.endswith(".json") else self._fetched(where)
        elif Path(where).is_dir():
            found = self.run(Path(where))
        else:
            found = read_baseline(Path(where))
        if isinstance(found, BaselineFile):
            return found.evidence
        return self._pointed_to(found, where) if isinstance(found, Pointer) else found

    def _pointed_to(self, pointer: Pointer, where: str) -> Evidence:
        evidence = self._fetched(pointer.run) if is_store(pointer.run) else self.run(Path(pointer.run))
        if evidence.letters_digest != pointer.sha256:
            raise DataError(
                f"{where}: the run {pointer.run} is not what it was when the pointer was made: its letters changed. Set the "
                f"baseline again if that is meant"
            )
        return evidence

    def _place(self, where: str) -> Place:
        return place_of(where, allow_external=self.config.allow_external)

    def _of_store_file(self, where: str) -> BaselineFile | Pointer:
        folder, _, name = where.rpartition("/")
        return parse_baseline(b"".join(self._place(folder).blocks(name)), where)

    def _fetched(self, where: str) -> Evidence:
        """Read a run that is kept in a store, by a copy that is not kept."""
        place = self._place(where)
        files = set(place.names(""))
        if SETTINGS not in files:
            raise DataError(f"{where}: no run here (no {SETTINGS})")
        with tempfile.TemporaryDirectory() as folder:
            for name in (*_NEEDED, *({METRICS} & files)):
                copy = Path(folder, name)
                with explained(copy, "writing"), copy.open("wb") as file:
                    file.writelines(place.blocks(name))
            with RunStore.open(Path(folder)) as store:
                return self.of_store(store, name=where.rstrip("/").rpartition("/")[2])
