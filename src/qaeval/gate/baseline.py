"""Baseline files: what a gate compares with, small enough for git; and pointers to runs that are kept elsewhere.

From what was typed to evidence: a run directory, a baseline file, or a pointer to a run that is kept elsewhere.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from qaeval import __version__
from qaeval.comparison.run_data import read_run
from qaeval.errors import DataError
from qaeval.evals.find import find_labels
from qaeval.files.rows import explained
from qaeval.files.yaml import read_text, validated
from qaeval.gate.evidence import Evidence, evidence_of, identity_of
from qaeval.gate.model import Side
from qaeval.gate.sequential import with_pending
from qaeval.records import digest
from qaeval.registry.config import Config
from qaeval.registry.find import find_machines
from qaeval.report.facts import Part
from qaeval.storage.location import Location, find_location, is_store
from qaeval.storage.run_directory import GENERATIONS, GRADES, METRICS, SAMPLES, SESSIONS, SETTINGS, RunStore

FOLDER: Final = Path("baselines")
"""Where baselines are kept when nobody says otherwise."""

_OPEN: Final = ("evidence", "side", "identity", "candidates", "spent", "labels")
"""Parts whose keys stand on lines of their own, so that git shows which column changed."""


class BaselineFile(Part):
    """A baseline by its letters and ids; `sha256` is the hash of the evidence."""

    format: Literal[1] = 1
    kind: Literal["baseline"] = "baseline"
    sha256: str
    evidence: Evidence


class Pointer(Part):
    """A baseline that is a run kept elsewhere; `sha256` is the hash of the letters that it must hold."""

    format: Literal[1] = 1
    kind: Literal["pointer"] = "pointer"
    run: str
    """Run directory, from the working directory, or ``s3://BUCKET/PREFIX``."""
    sha256: str


@dataclass(frozen=True)
class Listed:
    """A baseline of a folder, or why it cannot be read."""

    path: Path
    found: BaselineFile | Pointer | None
    problem: str = ""


def write_baseline(evidence: Evidence, path: Path) -> int:
    """Write a baseline, whole or not at all; return its size in bytes.

    Raises:
        StoreError: it cannot be written.
    """
    document = BaselineFile(sha256=evidence.digest, evidence=evidence)
    return _write(path, document.model_dump(mode="json"))


def write_pointer(run: str, evidence: Evidence, path: Path) -> int:
    """Write a pointer to a run; return its size in bytes; errors as in `write_baseline`."""
    return _write(path, Pointer(run=run, sha256=evidence.letters_digest).model_dump(mode="json"))


def read_baseline(path: Path) -> BaselineFile | Pointer:
    """Read a baseline or a pointer.

    Raises:
        DataError: it is neither, or was changed after it was made.
    """
    return parse_baseline(read_text(path), path)


def parse_baseline(text: str | bytes, source: Path | str) -> BaselineFile | Pointer:
    """Read a baseline or a pointer from its text; errors as in `read_baseline`."""
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{source}: not a baseline: not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("kind") not in {"baseline", "pointer"}:
        raise DataError(f"{source}: not a baseline; `qaeval baseline set RUN` writes one")
    if data["kind"] == "pointer":
        return validated(Pointer, data, source)
    found = validated(BaselineFile, data, source)
    if digest(data["evidence"]) != found.sha256:
        raise DataError(
            f"{source}: its content does not match its hash; it was changed after it was made, so set it again from its run"
        )
    return found


def list_baselines(folder: Path) -> list[Listed]:
    """Read all baselines of a folder, by name; one that cannot be read is listed with its problem."""
    made = []
    for path in sorted(folder.glob("*.json")):
        try:
            made.append(Listed(path, read_baseline(path)))
        except DataError as error:
            made.append(Listed(path, None, str(error)))
    return made


def _write(path: Path, document: Mapping[str, Any]) -> int:
    content = (_laid_out(document) + "\n").encode()
    temporary = path.with_name(f".{path.name}.partial")
    with explained(path, "writing"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    return len(content)


def _laid_out(value: Any, name: str = "evidence", depth: int = 0) -> str:  # noqa: ANN401 - JSON
    """Write JSON with a line for each column: no line for each letter, and not all on one line."""
    inner, outer = " " * (depth + 1), " " * depth
    if isinstance(value, Mapping) and name in _OPEN:
        lines = [f"{inner}{json.dumps(key)}: {_laid_out(one, key, depth + 1)}" for key, one in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
    if isinstance(value, list) and name in _OPEN and value:
        lines = [f"{inner}{_laid_out(one, name, depth + 1)}" for one in value]
        return "[\n" + ",\n".join(lines) + f"\n{outer}]"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


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
        data = read_run(store, label_paths=labels, grading=grading)
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

    def _location(self, where: str) -> Location:
        return find_location(where, allow_external=self.config.allow_external)

    def _of_store_file(self, where: str) -> BaselineFile | Pointer:
        folder, _, name = where.rpartition("/")
        return parse_baseline(b"".join(self._location(folder).blocks(name)), where)

    def _fetched(self, where: str) -> Evidence:
        """Read a run that is kept in a store, by a copy that is not kept."""
        location = self._location(where)
        files = set(location.names(""))
        if SETTINGS not in files:
            raise DataError(f"{where}: no run here (no {SETTINGS})")
        with tempfile.TemporaryDirectory() as folder:
            for name in (*_NEEDED, *({METRICS} & files)):
                copy = Path(folder, name)
                with explained(copy, "writing"), copy.open("wb") as file:
                    file.writelines(location.blocks(name))
            with RunStore.open(Path(folder)) as store:
                return self.of_store(store, name=where.rstrip("/").rpartition("/")[2])
