"""Chunks from a JSON Lines file: many spellings are understood, and what is wrong is said with its line."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from qaeval.errors import DataError, UsageError, closest
from qaeval.files.yaml import LONE_SURROGATE, read_text
from qaeval.records import Chunk

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "chunk_id": ("chunk_id", "id", "uid"),
    "text": ("text", "content", "body", "chunk"),
    "stratum": ("stratum", "topic", "service", "category", "section"),
    "document": ("document", "source", "url", "path"),
    "title": ("title", "heading"),
    "language": ("language", "lang"),
}
"""Names that a field may have in the file; the first one that stands there counts. Other fields are ignored."""

MAX_CHUNK_WORDS: Final = 20_000
"""Longer chunks are whole documents; no model on one small GPU reads them in one piece."""

_SHOWN: Final = 5
"""Problems that one message lists."""


def load_chunks(path: Path, fields: Mapping[str, str] = MappingProxyType({})) -> tuple[Chunk, ...]:
    """Read chunks, one JSON object per line.

    Args:
        path: a UTF-8 file; a byte order mark, CRLF line ends and blank lines are fine.
        fields: the file's own name of a field, by the field; it is then the only one that counts.

    Raises:
        UsageError: ``fields`` names a field that chunks do not have.
        DataError: the file or some of its lines are not usable; the first problems are listed with their lines.
    """
    names = _names(fields)
    chunks: dict[str, Chunk] = {}

    def take(row: dict[str, Any], _line: int) -> None:
        chunk = _chunk(row, names)
        if first := lines_of.get(chunk.chunk_id):
            raise LineError(
                f"duplicate id {chunk.chunk_id!r}: it stands on line {first} already; ids must be unique"
            )
        lines_of[chunk.chunk_id] = _line
        chunks[chunk.chunk_id] = chunk

    lines_of: dict[str, int] = {}
    each_object(path, take)
    return tuple(chunks.values())


def each_object(path: Path, take: Callable[[dict[str, Any], int], None]) -> None:
    """Hand every JSON object of a file of lines on, with its line's number.

    Args:
        path: a UTF-8 file; a byte order mark, CRLF line ends and blank lines are fine.
        take: raises ``LineError`` for an object that is not usable.

    Raises:
        DataError: the file or some of its lines are not usable; the first problems are listed with their lines.
    """
    lines = read_text(path).split("\n")  # not splitlines(): JSON strings may hold U+2028
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: the file is empty; expected one JSON object per line")
    if lines[0].lstrip().startswith("["):
        raise DataError(
            f"{path}:1: a JSON array starts here; expected one JSON object per line (jq -c '.[]' turns an array into lines)"
        )
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            take(_parse(line), number)
        except LineError as error:
            problems.append(f"{path}:{number}{error.column}: {error}")
    if problems:
        raise DataError(_summary(path, problems))


def _names(fields: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    for name in fields:
        if name not in ALIASES:
            raise UsageError(
                f"chunks have no field {name!r}.{closest(name, ALIASES)} They have {', '.join(ALIASES)}"
            )
    return {**ALIASES, **{name: (own,) for name, own in fields.items()}}


class LineError(Exception):
    """What is wrong with one line."""

    def __init__(self, message: str, column: int | None = None) -> None:
        super().__init__(message)
        self.column = "" if column is None else f":{column}"


def _summary(path: Path, problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    shown = problems[:_SHOWN]
    which = f"the first {_SHOWN}" if len(problems) > _SHOWN else "all of them"
    return "\n  ".join([f"{path}: {len(problems)} lines are not usable; {which}:", *shown])


def _parse(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise LineError(f"not JSON: {error.msg}; expected one JSON object per line", error.colno) from error
    except (ValueError, RecursionError) as error:
        raise LineError("JSON that cannot be read: nested too deeply or a number too long") from error
    if not isinstance(row, dict):
        raise LineError(f"expected a JSON object, got {_shown(row)}")
    return row


def _chunk(row: dict[str, Any], names: Mapping[str, tuple[str, ...]]) -> Chunk:
    fields = {name: value for name, keys in names.items() if (value := text_field(row, keys, name))}
    for name in ("chunk_id", "text"):
        if name not in fields:
            raise LineError(_missing(row, name, names[name]))
    if (n_words := len(fields["text"].split())) > MAX_CHUNK_WORDS:
        raise LineError(
            f"the chunk has {n_words:,} words, more than {MAX_CHUNK_WORDS:,}: this looks like a whole document; "
            f"cut it into passages with `qaeval chunk` first"
        )
    return Chunk(**fields)


def text_field(row: Mapping[str, Any], keys: Iterable[str], name: str = "") -> str:
    """Return the text under the first of some keys that has a value; an empty string where there is none.

    Raises:
        LineError: the value is no text, or holds what no text may hold.
    """
    for key in keys:
        value = row.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise LineError(f"{key!r}: expected text, got {_shown(value)}")
        text = str(value)
        if "\0" in text:
            raise LineError(f"{key!r}: a NUL character at position {text.index(chr(0)) + 1}; remove it")
        if surrogate := LONE_SURROGATE.search(text):
            code = f"\\u{ord(surrogate[0]):04x}"
            raise LineError(f"{key!r}: {code} is half a character (a lone surrogate); export the text again")
        if text.strip():
            return text if name == "text" else text.strip()
    return ""


def _missing(row: Mapping[str, Any], name: str, keys: tuple[str, ...]) -> str:
    accepted = ", ".join(keys)
    if blank := [key for key in keys if key in row]:
        return f"{blank[0]!r} is blank; every chunk needs {'an id' if name == 'chunk_id' else 'text'}"
    found = ", ".join(map(repr, list(row)[:12])) or "none"
    hint = next(filter(None, (closest(key, keys) for key in row)), "")
    return f"no {'id' if name == 'chunk_id' else 'text'}: found the keys {found}; accepted: {accepted}.{hint} `--field {name}=NAME` names it"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:60]}…"  # noqa: PLR2004 - one line of a terminal
