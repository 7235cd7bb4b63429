"""Baseline files: what a gate compares with, small enough for git; and pointers to runs that are kept elsewhere."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from qaeval.documents import read_text, validated
from qaeval.errors import DataError
from qaeval.gate.evidence import Evidence
from qaeval.records import digest
from qaeval.report.facts import Part
from qaeval.rowfiles import explained

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
