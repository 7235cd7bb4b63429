"""Kinds of files and folders, and the command that reads each: for the message about one in the wrong place."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Final

from qaeval.errors import DataError

DOCUMENTS: Final[Mapping[str, str]] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".txt": "text",
    ".rst": "text",
    ".pdf": "pdf",
}
"""Kinds of documents by suffix; reStructuredText is read as plain text."""

_TABLES: Final = frozenset({".csv", ".tsv", ".parquet", ".xlsx"})
_LINES: Final = frozenset({".jsonl", ".ndjson"})
_MAX_LISTED: Final = 1000
"""Entries of a folder that are looked at."""


def hint(path: Path) -> str:
    """Return a sentence about what a file or folder is and which command reads it; empty where that is not known."""
    kind = _kind_of_folder(path) if path.is_dir() else _kind_of_file(path) if path.is_file() else ""
    return f" It is {kind}" if kind else ""


def refuse_document(path: Path, expected: str) -> None:
    """Refuse a file of Markdown, HTML or PDF where another kind is read.

    Raises:
        DataError: it is one, by its name; the message names the command that reads it.
    """
    if DOCUMENTS.get(path.suffix.lower(), "text") != "text" and path.is_file():
        raise DataError(f"{path}: expected {expected}.{hint(path)}")


def _kind_of_file(path: Path) -> str:
    suffix, name = path.suffix.lower(), quote(str(path))
    if suffix in DOCUMENTS:
        return f"a document: `qaeval chunk {name}` cuts it into chunks"
    if suffix in _TABLES:
        return f"a table: `qaeval import {name}` reads items, `qaeval agreement {name}` columns of letters"
    if suffix in _LINES:
        return (
            f"a file of rows: `qaeval compare … --chunks {name}` reads chunks, `qaeval import {name}` items"
        )
    if suffix == ".eval":
        return f"a log of Inspect: `qaeval import {name}` reads it"
    return ""


def _kind_of_folder(path: Path) -> str:
    name = quote(str(path))
    if (path / "settings.json").is_file():
        return f"a run: `qaeval report {name}` reads it"
    if (path / "eval.yaml").is_file():
        return f"an eval: `qaeval compare … --eval {name}` reads it"
    if runs := sorted(path.glob("*/settings.json"), key=lambda file: file.stat().st_mtime):
        newest = quote(str(runs[-1].parent))
        n_runs = "1 run" if len(runs) == 1 else f"{len(runs):,} runs"
        return f"a folder of {n_runs}: `qaeval history {name}` reads it; the newest run is {newest}"
    files = islice(path.rglob("*"), _MAX_LISTED)
    if any(file.suffix.lower() in DOCUMENTS for file in files if not file.name.startswith(".")):
        return f"a folder of documents: `qaeval chunk {name}` cuts them into chunks"
    return ""
