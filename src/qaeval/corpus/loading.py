"""Read chunks from a JSON Lines file with common field names; problems are reported with their line."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from qaeval.errors import DataError, UsageError, closest
from qaeval.files.kinds import hint
from qaeval.files.yaml import LONE_SURROGATE, MAX_PROBLEMS, read_text, readable
from qaeval.records import Chunk

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "chunk_id": ("chunk_id", "id", "uid"),
    "text": ("text", "content", "body", "chunk"),
    "stratum": ("stratum", "topic", "service", "category", "section"),
    "document": ("document", "source", "url", "path"),
    "title": ("title", "heading"),
    "language": ("language", "lang"),
}
"""Accepted names of each field; the first name with a value counts. Other fields but `split` are ignored."""

_SPLITS: Final = ("tuning", "held-out")
"""Other values of a field `split`, like ``train``, have another meaning and are ignored."""

MAX_CHUNK_WORDS: Final = 20_000
"""Longer chunks are whole documents, which do not fit into the context of a model on one small GPU."""

_SHOWN_CHARS: Final = 60
_SHOWN_KEYS: Final = 12


def load_chunks(path: Path, fields: Mapping[str, str] = MappingProxyType({})) -> tuple[Chunk, ...]:
    """Read chunks, one JSON object per line.

    Args:
        path: A UTF-8 file; a byte order mark, CRLF line ends and blank lines are allowed.
        fields: Key in the file by field name; the only accepted key of that field.

    Raises:
        UsageError: ``fields`` has an unknown field name.
        DataError: the file or some lines are invalid; the first problems are listed with their lines.
    """
    names = _names(fields)
    chunks: dict[str, Chunk] = {}

    def add(row: dict[str, Any], line: int) -> None:
        chunk = _chunk(row, names)
        if first := lines_of.get(chunk.chunk_id):
            raise LineError(
                f"duplicate id {chunk.chunk_id!r}: line {first} has the same id; ids must be unique"
            )
        lines_of[chunk.chunk_id] = line
        chunks[chunk.chunk_id] = chunk

    lines_of: dict[str, int] = {}
    each_object(path, add)
    return tuple(chunks.values())


def each_object(path: Path, handle: Callable[[dict[str, Any], int], None]) -> None:
    """Call a function with each JSON object of a JSON Lines file and its line number.

    Args:
        path: A UTF-8 file; a byte order mark, CRLF line ends and blank lines are allowed.
        handle: Raises ``LineError`` for an invalid object.

    Raises:
        DataError: the file or some lines are invalid; the first problems are listed with their lines.
    """
    _refuse_other_kinds(path)
    lines = read_text(path).split("\n")  # not splitlines(): JSON strings may hold U+2028
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: the file is empty; expected one JSON object per line")
    if lines[0].lstrip().startswith("["):
        raise DataError(
            f"{path}:1: expected one JSON object per line, found a JSON array (jq -c '.[]' converts it)"
        )
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            handle(_parse(line), number)
        except LineError as error:
            problems.append(f"{path}:{number}{error.column}: {error}")
    if problems:
        raise DataError(_summary(path, problems))


def _refuse_other_kinds(path: Path) -> None:
    """Refuse a folder, and a file that is no JSON by name and first character, with the command that reads it."""
    if path.is_file():
        if path.suffix.lower() in {".json", ".jsonl", ".ndjson"}:
            return
        with readable(path), path.open("rb") as file:
            if file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in {b"{", b"["}:
                return
    if kind := hint(path):
        raise DataError(f"{path}: expected a file of JSON Lines, one object per line.{kind}")


def _names(fields: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    for name in fields:
        if name not in ALIASES:
            raise UsageError(
                f"unknown chunk field {name!r}.{closest(name, ALIASES)} Known: {', '.join(ALIASES)}"
            )
    return {**ALIASES, **{name: (key,) for name, key in fields.items()}}


class LineError(Exception):
    """A line that is invalid."""

    def __init__(self, message: str, column: int | None = None) -> None:
        super().__init__(message)
        self.column = "" if column is None else f":{column}"


def _summary(path: Path, problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    shown = problems[:MAX_PROBLEMS]
    scope = f"the first {MAX_PROBLEMS}" if len(problems) > MAX_PROBLEMS else "all of them"
    return "\n  ".join([f"{path}: {len(problems)} lines are invalid; {scope}:", *shown])


def _parse(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise LineError(f"not JSON: {error.msg}; expected one JSON object per line", error.colno) from error
    except (ValueError, RecursionError) as error:
        raise LineError("unreadable JSON: nested too deeply, or a number is too long") from error
    if not isinstance(row, dict):
        raise LineError(f"expected a JSON object, got {_abbreviated(row)}")
    return row


def _chunk(row: dict[str, Any], names: Mapping[str, tuple[str, ...]]) -> Chunk:
    fields = {name: value for name, keys in names.items() if (value := text_field(row, keys, name))}
    for name in ("chunk_id", "text"):
        if name not in fields:
            raise LineError(_missing(row, name, names[name]))
    if (n_words := len(fields["text"].split())) > MAX_CHUNK_WORDS:
        raise LineError(
            f"the chunk has {n_words:,} words, more than {MAX_CHUNK_WORDS:,}; cut it with `qaeval chunk`"
        )
    return Chunk(**fields, split=row["split"] if row.get("split") in _SPLITS else "")


def text_field(row: Mapping[str, Any], keys: Iterable[str], name: str = "") -> str:
    """Return the text of the first key with a value; an empty string if no key has one.

    Raises:
        LineError: the value is not text, or contains a NUL character or a lone surrogate.
    """
    for key in keys:
        value = row.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise LineError(f"{key!r}: expected text, got {_abbreviated(value)}")
        text = str(value)
        if "\0" in text:
            raise LineError(f"{key!r}: a NUL character at position {text.index(chr(0)) + 1}; remove it")
        if surrogate := LONE_SURROGATE.search(text):
            code = f"\\u{ord(surrogate[0]):04x}"
            raise LineError(f"{key!r}: {code} is a lone surrogate; export the text again as valid UTF-8")
        if text.strip():
            return text if name == "text" else text.strip()
    return ""


def _missing(row: Mapping[str, Any], name: str, keys: tuple[str, ...]) -> str:
    field = "id" if name == "chunk_id" else "text"
    if blank_keys := [key for key in keys if key in row]:
        return f"{blank_keys[0]!r} is blank; every chunk needs an id and a text"
    present = ", ".join(map(repr, list(row)[:_SHOWN_KEYS])) or "none"
    hint = next(filter(None, (closest(key, keys) for key in row)), "")
    return (
        f"no {field}: expected one of {', '.join(keys)}; the keys are {present}.{hint} "
        f"`--field {name}=NAME` maps another key"
    )


def _abbreviated(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
