"""Read chunks from a JSON Lines file, or a JSON array, with common field names; problems are reported with their line.

The fields of LangChain, LlamaIndex, Haystack, Unstructured and BEIR are recognised, with those of their metadata.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from qaeval.errors import DataError, UsageError, closest
from qaeval.files.kinds import hint
from qaeval.files.yaml import LONE_SURROGATE, MAX_PROBLEMS, read_lines, readable
from qaeval.records import Chunk, record_id
from qaeval.text.units import count_words

DuplicateIds: TypeAlias = Literal["refuse", "number"]
"""What becomes of two chunks with one id: an error, or the later ones get a number."""

_METADATA: Final = ("metadata", "meta")
"""Keys of an object with the fields of a chunk besides its text."""
_SCALARS: Final = (str, int, float)


def _in_metadata(*names: str) -> tuple[str, ...]:
    return tuple(f"{key}.{name}" for name in names for key in _METADATA)


ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "chunk_id": (
        "chunk_id",
        "id",
        "uid",
        "_id",
        "id_",
        "element_id",
        *_in_metadata("chunk_id", "id", "doc_id"),
    ),
    "text": ("text", "content", "body", "chunk", "page_content"),
    "stratum": (
        *("stratum", "topic", "service", "category", "section"),
        *_in_metadata("stratum", "topic", "service", "category"),
    ),
    "document": (
        *("document", "source", "url", "path"),
        *_in_metadata(
            "document", "source", "source_file", "file_path", "filename", "file_name", "path", "url"
        ),
    ),
    "title": ("title", "heading", *_in_metadata("title", "heading")),
    "language": ("language", "lang", *_in_metadata("language", "lang", "languages")),
}
"""Accepted names of each field; the first name with a value counts. Other fields but `split` and `inclusion` are ignored."""

_SPLITS: Final = ("tuning", "held-out")
"""Other values of a field `split`, like ``train``, have another meaning and are ignored."""

MAX_CHUNK_WORDS: Final = 20_000
"""Longer chunks are whole documents, which do not fit into the context of a model on one small GPU."""

_SHOWN_CHARS: Final = 60
_SHOWN_KEYS: Final = 12


def load_chunks(
    path: Path,
    fields: Mapping[str, str] = MappingProxyType({}),
    *,
    duplicate_ids: DuplicateIds = "refuse",
) -> tuple[Chunk, ...]:
    """Read chunks into memory; arguments and errors as in `each_chunk`."""
    chunks: list[Chunk] = []
    each_chunk(path, chunks.append, fields, duplicate_ids=duplicate_ids)
    return tuple(chunks)


def each_chunk(
    path: Path,
    handle: Callable[[Chunk], object],
    fields: Mapping[str, str] = MappingProxyType({}),
    *,
    duplicate_ids: DuplicateIds = "refuse",
) -> None:
    """Call a function with each chunk of a file: one JSON object per line, or a JSON array of objects.

    A chunk without an id gets the hash of its text.

    Args:
        path: A UTF-8 file; a byte order mark, CRLF line ends and blank lines are allowed.
        handle: Takes a chunk; also of a file with invalid lines, before the error.
        fields: Key in the file by field name, dotted where it is inside an object (``metadata.page``); the only accepted key of
            that field.
        duplicate_ids: What becomes of two chunks with one id: ``refuse``, or ``number`` the later ones, ``faq-2``.

    Raises:
        UsageError: ``fields`` has an unknown field name, or a key that no object of the file has.
        DataError: the file or some lines are invalid; the first problems are listed with their lines.
    """
    names = _names(fields)
    keys: dict[str, None] = {}

    def add(row: dict[str, Any], line: int) -> None:
        flat = _flattened(row, fields.values())
        keys.update(dict.fromkeys(flat))
        chunk = _chunk(flat, names)
        if chunk.chunk_id in lines_of and duplicate_ids == "number":
            chunk = chunk.model_copy(update={"chunk_id": _numbered(chunk.chunk_id, lines_of)})
        if first := lines_of.get(chunk.chunk_id):
            raise LineError(
                f"duplicate id {chunk.chunk_id!r}: line {first} has the same id; ids must be unique: "
                "`--duplicate-ids number` numbers the later ones, `--field chunk_id=NAME` takes another field"
            )
        lines_of[chunk.chunk_id] = line
        handle(chunk)

    lines_of: dict[str, int] = {}
    each_object(path, add)
    for name, key in fields.items():
        if key not in keys:
            raise UsageError(
                f"{path}: no object has the field {key!r} that `--field {name}={key}` names.{closest(key, keys)} "
                f"The fields are {', '.join(map(repr, list(keys)[:_SHOWN_KEYS]))}"
            )


def _numbered(chunk_id: str, taken: Collection[str]) -> str:
    """Return the id with the first free number, from 2."""
    return next(name for n in count(2) if (name := f"{chunk_id}-{n}") not in taken)


def _flattened(row: Mapping[str, Any], named: Iterable[str]) -> dict[str, Any]:
    """Return the fields of an object, those of its metadata with a dotted name, and those that are named.

    Of an object that LangChain dumped, the fields are its arguments.
    """
    if "lc" in row and isinstance(row.get("kwargs"), dict):
        row = row["kwargs"]
    flat = dict(row)
    for key in _METADATA:
        if isinstance(row.get(key), dict):
            for name, value in row[key].items():
                first = value[0] if isinstance(value, list) and value else value
                if isinstance(first, _SCALARS) and not isinstance(first, bool):
                    flat[f"{key}.{name}"] = str(first) if isinstance(first, float) else first
    for path in named:
        inner: Any = row
        for key in path.split("."):
            inner = inner.get(key) if isinstance(inner, dict) else None
        if path not in flat and inner is not None:
            flat[path] = inner
    return flat


def each_object(path: Path, handle: Callable[[dict[str, Any], int], None]) -> None:
    """Call a function with each JSON object of a JSON Lines file and its line number.

    Args:
        path: A UTF-8 file, of which a line at a time is in memory; a byte order mark, CRLF line ends and blank lines are allowed. A
            JSON array of objects is read as well, whole, with the number of the element in place of the line.
        handle: Raises ``LineError`` for an invalid object.

    Raises:
        DataError: the file or some lines are invalid; the first problems are listed with their lines.
    """
    _refuse_other_kinds(path)
    lines = read_lines(path)
    head: list[str] = []
    for line in lines:
        head.append(line)
        if line.strip():
            break
    else:
        raise DataError(f"{path}: the file is empty; expected one JSON object per line")
    is_array = head[-1].lstrip().startswith("[")
    rows: Iterable[Any] = (
        _array(path, "".join([*head, *lines]))
        if is_array
        else (line.removesuffix("\n") for line in chain(head, lines))
    )
    problems = []
    for number, row in enumerate(rows, start=1):
        if isinstance(row, str) and not is_array and not row.strip():
            continue
        try:
            handle(_object(row) if is_array else _object(_parse(row)), number)
        except LineError as error:
            place = f" element {number}" if is_array else f"{number}{error.column}"
            problems.append(f"{path}:{place}: {error}")
    if problems:
        raise DataError(_summary(path, problems))


def _array(path: Path, text: str) -> list[Any]:
    try:
        rows: list[Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}; expected an array of objects, or one object per line"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: unreadable JSON: nested too deeply, or a number is too long") from error
    if not rows:
        raise DataError(f"{path}: the array is empty; expected one JSON object per chunk")
    return rows


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


def _parse(line: str) -> Any:  # noqa: ANN401 - a JSON value
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise LineError(f"not JSON: {error.msg}; expected one JSON object per line", error.colno) from error
    except (ValueError, RecursionError) as error:
        raise LineError("unreadable JSON: nested too deeply, or a number is too long") from error


def _object(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a JSON value
    if not isinstance(row, dict):
        raise LineError(f"expected a JSON object, got {_abbreviated(row)}")
    return row


def _chunk(row: dict[str, Any], names: Mapping[str, tuple[str, ...]]) -> Chunk:
    fields = {name: value for name, keys in names.items() if (value := text_field(row, keys, name))}
    if "text" not in fields:
        raise LineError(_missing(row, "text", names["text"]))
    if "chunk_id" not in fields:
        if blank := [key for key in names["chunk_id"] if isinstance(row.get(key), str)]:
            raise LineError(f"{blank[0]!r} is blank; every chunk needs an id and a text")
        fields["chunk_id"] = record_id("chunk", fields["text"])
    if (n_words := count_words(fields["text"])) > MAX_CHUNK_WORDS:
        raise LineError(
            f"the chunk has {n_words:,} words, more than {MAX_CHUNK_WORDS:,}; cut it with `qaeval chunk`"
        )
    return Chunk(
        **fields, split=row["split"] if row.get("split") in _SPLITS else "", inclusion=inclusion_field(row)
    )


def inclusion_field(row: Mapping[str, Any]) -> float:
    """Return the probability with which an object was drawn (`inclusion`); 1 if it has none.

    Raises:
        LineError: the value is no number above 0 and up to 1.
    """
    value = row.get("inclusion", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise LineError(
            f"'inclusion': expected a probability above 0, at most 1, got {_abbreviated(value)}; `qaeval sample` writes it, and "
            "without it all samples weigh the same"
        )
    return float(value)


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
    if blank_keys := [key for key in keys if key in row]:
        return f"{blank_keys[0]!r} is blank; every chunk needs an id and a text"
    present = ", ".join(map(repr, list(row)[:_SHOWN_KEYS])) or "none"
    hint = next(filter(None, (closest(key, keys) for key in row)), "")
    return (
        f"no {name}: expected one of {', '.join(keys)}; the keys are {present}.{hint} "
        f"`--field {name}=NAME` maps another key"
    )


def _abbreviated(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
