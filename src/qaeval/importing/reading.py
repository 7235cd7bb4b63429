"""Files of items as rows, one at a time: JSON Lines, a JSON array, CSV, Parquet or Arrow, told apart by content.

No line, cell or object above `MAX_ROW_BYTES` is read, and no file is held in memory but logs of Inspect and those that are one JSON
object, as some harnesses write them (`formats`).
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import pandas as pd

from qaeval.errors import DataError, UsageError
from qaeval.export.tables import require_package
from qaeval.files.kinds import hint, refuse_document
from qaeval.files.yaml import readable
from qaeval.importing.formats import READ, answers, harness_of, inspect_log, unpacked
from qaeval.importing.formats.rows import Rows, SourceRow

Format: TypeAlias = Literal["lines", "array", "object", "csv", "parquet", "arrow", "dataset", "inspect"]

MAX_ROW_BYTES: Final = 16 * 2**20
"""Longest line of text, cell or object: 16 MiB are far more than a chunk and its items."""

MAX_DOCUMENT_BYTES: Final = 512 * 2**20
"""Longest file that is one JSON object."""

_HEAD_BYTES: Final = 65536
_BLOCK_CHARS: Final = 2**20
_BATCH_ROWS: Final = 512
_EXCERPT: Final = 60
_MAX_KEYS: Final = 12

_INSPECT_LOG: Final = re.compile(rb'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"status"\s*:')
_FOREIGN: Final = (
    (b"\xff\xfe", "UTF-16 text; save the file as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save the file as UTF-8"),
    (b"\x1f\x8b", "compressed with gzip; decompress it with gunzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; decompress it with unzstd"),
    (b"PK\x03\x04", "an Excel file; save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel file; save the sheet as CSV"),
)


def format_of(path: Path) -> Format:
    """Tell the format of a file by its first bytes, and CSV from JSON by the first character; of a folder by its files.

    Raises:
        DataError: the file is missing, empty, compressed, not UTF-8 text, or a pipe, or the folder is no data set.
    """
    refuse_document(path, READ)
    if path.exists() and not (path.is_file() or path.is_dir()):
        # its format is told first, and its rows are read after that
        raise DataError(
            f"{path}: neither a file nor a folder; a pipe cannot be read twice: save it to a file"
        )
    if path.is_dir():
        if not _tables_of(path):
            raise DataError(f"{path}: a folder without files of a data set; expected {READ}.{hint(path)}")
        return "dataset"
    head = _head(path)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    is_zip = head.startswith(b"PK\x03\x04")
    is_log = (is_zip and b"[Content_Types].xml" not in head) or _INSPECT_LOG.match(head)
    if is_log or path.suffix == ".eval":
        return "inspect"
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise DataError(f"{path}: expected {READ}; got {what}")
    if b"\0" in head:
        raise DataError(
            f"{path}: expected {READ}; got a NUL byte at offset {head.index(0)} (UTF-16, or not "
            "text); save the file as UTF-8"
        )
    return _text_format(path, head)


def _text_format(path: Path, head: bytes) -> Format:
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if not first:
        raise DataError(f"{path}: the file is empty; expected items, one a line")
    if first == b"{":
        return "object" if _is_object(path) else "lines"
    if first == b"[":
        return "array"
    if path.suffix in {".json", ".jsonl", ".ndjson"}:
        excerpt = head[:_EXCERPT].decode("utf-8", "replace").partition("\n")[0]
        raise DataError(f"{path}:1: expected a JSON object or array, got {excerpt!r}")
    return "csv"


def _is_object(path: Path) -> bool:
    """Return whether a file is one JSON object over several lines, or one that a harness wrote on a line."""
    with readable(path), path.open("rb") as file:
        first = next(
            (line for line in iter(partial(file.readline, MAX_DOCUMENT_BYTES), b"") if line.strip()), b""
        )
        is_alone = not file.read(_HEAD_BYTES).strip()
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return not is_alone and _loaded(path) is not None
    try:
        return is_alone and isinstance(value, dict) and unpacked(value, str(path)) is not None
    except DataError:
        return True  # of a version that is not read: reading it says so


def _loaded(path: Path) -> dict[str, Any] | None:
    """Return the JSON object that a file holds; None where it does not hold one.

    Raises:
        DataError: it is too large.
    """
    with readable(path):
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise DataError(
                f"{path}: a JSON object of more than {MAX_DOCUMENT_BYTES // 2**20} MiB; expected JSON Lines, an object a line"
            )
        raw = path.read_bytes()
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _head(path: Path) -> bytes:
    with readable(path), path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def read_source(source: Path | pd.DataFrame) -> Iterator[SourceRow]:
    """Read the rows of a file, a `datasets` folder or a table, one at a time; of another harness's file the answers.

    Raises:
        DataError: the file or one of its rows cannot be read; the message names the line.
    """
    path = None if isinstance(source, pd.DataFrame) else source
    if path is not None and format_of(path) == "inspect":
        return inspect_log.read(path)
    rows = _rows(source)
    harness = harness_of(rows)
    return rows() if harness is None else answers(harness, rows, path)


def is_harness_file(source: Path | pd.DataFrame) -> bool:
    """Return whether a file, folder or table is that of another harness.

    Raises:
        DataError: its first row cannot be read.
    """
    if not isinstance(source, pd.DataFrame) and format_of(source) == "inspect":
        return True
    return harness_of(_rows(source)) is not None


def _rows(source: Path | pd.DataFrame) -> Rows:
    if isinstance(source, pd.DataFrame):
        return partial(_of_frame, source)
    readers = {
        "lines": _of_lines,
        "array": _of_array,
        "csv": _of_csv,
        "parquet": _of_parquet,
        "arrow": _of_arrow,
        "dataset": _of_dataset,
    }
    format_ = format_of(source)
    if format_ == "object":
        return partial(iter, list(_of_object(source)))
    return partial(readers[format_], source)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read lines of bounded length with their numbers.

    Raises:
        DataError: a line is too long, or not UTF-8.
    """
    number = 0
    with path.open("rb") as file:
        while raw := file.readline(MAX_ROW_BYTES + 1):
            number += 1
            if len(raw) > MAX_ROW_BYTES:
                raise DataError(
                    f"{path}:{number}: the line is longer than {MAX_ROW_BYTES // 2**20} MiB; expected one item or "
                    "reply a line"
                )
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: not UTF-8: byte 0x{error.object[error.start]:02x} at position "
                    f"{error.start + 1} of the line; save the file as UTF-8"
                ) from error


# ---------------------------------------------------------------- JSON


def _of_lines(path: Path) -> Iterator[SourceRow]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            advice = "; a JSON object goes on one line" if line.strip() in {"{", "}"} else ""
            raise DataError(f"{path}:{number}:{error.colno}: not JSON: {error.msg}{advice}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{number}: unreadable JSON: nested too deeply, or a number is too long"
            ) from error
        # a list on a line holds several items
        for row in value if isinstance(value, list) else [value]:
            yield where, _object(row, f"{path}:{number}")


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: expected a JSON object of an item or reply, got {json.dumps(value)[:_EXCERPT]}"
        )
    return value


def _of_array(path: Path) -> Iterator[SourceRow]:
    """Read the objects of one array, or of several arrays one after the other, without holding the text."""
    for line, value in _Elements(path):
        yield f"{path.name}:{line}", _object(value, f"{path}:{line}")


def _of_object(path: Path) -> Iterator[SourceRow]:
    """Yield the rows of a file that is one JSON object, which a harness wrote.

    Raises:
        DataError: none of them did, or in a version that is not read.
    """
    document = _loaded(path) or {}
    rows = unpacked(document, str(path))
    if rows is None:
        keys = ", ".join(list(document)[:_MAX_KEYS]) or "none"
        raise DataError(f"{path}: a JSON object with the keys {keys}; expected {READ}")
    for number, row in enumerate(rows, start=1):
        where = f"{path.name}: result {number}"
        yield where, _object(row, where)


class _Elements:
    """The elements of JSON arrays in a file, each with its line."""

    _DECODER: Final = json.JSONDecoder()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._blocks = self._read_blocks()
        self._text = ""
        self._at = 0
        self._line = 1
        self._counted = 0

    def _read_blocks(self) -> Iterator[str]:
        """Join lines into blocks, so that an array on one line is read in parts: lines are not bounded here."""
        with self._path.open("rb") as file:
            rest, offset = b"", 0
            while raw := file.read(_BLOCK_CHARS):
                raw, rest = rest + raw, b""
                # a character may be cut at the end of a block
                for n in range(1, min(4, len(raw)) + 1):
                    if raw[-n] >= 0xC0:
                        raw, rest = raw[:-n], raw[-n:]
                        break
                    if raw[-n] < 0x80:
                        break
                try:
                    yield raw.decode("utf-8-sig" if offset == 0 else "utf-8")
                except UnicodeDecodeError as error:
                    raise self._not_utf8(raw, error.start, offset) from error
                offset += len(raw)
            if rest:
                raise self._not_utf8(rest, 0, offset)

    def _not_utf8(self, raw: bytes, start: int, offset: int) -> DataError:
        return DataError(
            f"{self._path}: not UTF-8: byte 0x{raw[start]:02x} at offset {offset + start:,} of the file; save it as UTF-8"
        )

    def _more(self) -> bool:
        block = next(self._blocks, None)
        if block is None:
            return False
        self._line_at(self._at)
        self._text, self._at, self._counted = self._text[self._at :] + block, 0, 0
        return True

    def _peek(self) -> str:
        """Return the next character that is no white space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _line_at(self, position: int) -> int:
        """Return the line of a position that is not before the last one that was asked for."""
        self._line += self._text.count("\n", self._counted, position)
        self._counted = position
        return self._line

    def _take(self, expected: str, meaning: str) -> str:
        got = self._peek()
        if not got or got not in expected:
            shown = f"{got!r}" if got else "the end of the file"
            raise DataError(
                f"{self._path}:{self._line_at(self._at)}: not JSON: expected {meaning}, got {shown}"
            )
        self._at += 1
        return got

    def _value(self) -> Any:  # noqa: ANN401 - any JSON value
        while True:
            try:
                value, end = self._DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                size = len(self._text) - self._at
                if size <= MAX_ROW_BYTES and self._more():
                    continue
                line = self._line_at(error.pos)
                problem = (
                    f"an object is longer than {MAX_ROW_BYTES // 2**20} MiB or not JSON"
                    if size > MAX_ROW_BYTES
                    else "not JSON"
                )
                raise DataError(f"{self._path}:{line}: {problem}: {error.msg}") from error
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{self._path}:{self._line_at(self._at)}: unreadable JSON: nested too deeply, or a number is too long"
                ) from error
            # a number may go on in the next block; objects and texts end with a mark
            self._at = end
            return value

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        while self._peek():
            if self._peek() == "{":  # lines of lists and of objects
                line = self._line_at(self._at)
                yield line, self._value()
                continue
            self._take("[", "'['")
            if self._peek() == "]":
                self._at += 1
                continue
            while True:
                self._peek()
                line = self._line_at(self._at)
                yield line, self._value()
                if self._take(",]", "',' or ']'") == "]":
                    break


# ---------------------------------------------------------------- tables


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let the csv module read cells up to `MAX_ROW_BYTES`; its limit is one for the process."""
    before = csv.field_size_limit(MAX_ROW_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _of_csv(path: Path) -> Iterator[SourceRow]:
    numbered = _lines(path)
    first = next(numbered, (1, ""))[1]
    skipped = 0
    delimiter = "\t" if path.suffix == ".tsv" else ""
    if first.lower().startswith("sep=") and len(first.strip()) == len("sep=;"):
        delimiter, skipped = first.strip()[-1], 1
        first = next(numbered, (2, ""))[1]
    if not delimiter:
        counts = {mark: first.count(mark) for mark in ",;\t"}
        delimiter = max(counts, key=lambda mark: counts[mark])
    lines = _chain(first, (line for _, line in numbered))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    start = 0
    with _long_cells():
        try:
            for cells in reader:
                line, start = start + 1 + skipped, reader.line_num
                if not any(cell.strip() for cell in cells):
                    continue
                if not header:
                    header = _header([cell.strip() for cell in cells], f"{path}:{line}")
                elif len(cells) != len(header):
                    raise DataError(
                        f"{path}:{line}: expected {len(header)} cells as in the header, got {len(cells)}"
                    )
                else:
                    yield f"{path.name}:{line}", dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num + skipped}: not a CSV row: {error}") from error


def _chain(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _header(names: list[str], where: str) -> list[str]:
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{where}: two columns have the name {duplicates[0]!r}; rename one")
    return names


def _of_arrow(path: Path) -> Iterator[SourceRow]:
    """Yield the rows of an Arrow file, or of a stream, which is what Hugging Face's `datasets` writes."""
    require_package("pyarrow", "parquet")
    import pyarrow as pa  # noqa: PLC0415 - an optional package of 100 MB

    try:
        with pa.memory_map(str(path)) as file:
            is_stream = file.read(6) != b"ARROW1"
            file.seek(0)
            reader = pa.ipc.open_stream(file) if is_stream else pa.ipc.open_file(file)
            _header(list(reader.schema.names), str(path))
            batches = reader if is_stream else map(reader.get_batch, range(reader.num_record_batches))
            number = 0
            for batch in batches:
                # offsets of a damaged file may point anywhere, and end the process
                batch.validate(full=True)
                for start in range(0, batch.num_rows, _BATCH_ROWS):
                    for row in batch.slice(start, _BATCH_ROWS).to_pylist():
                        number += 1
                        yield f"{path.name}: row {number}", row
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not readable as Arrow: {error}") from error


def _of_dataset(folder: Path) -> Iterator[SourceRow]:
    """Yield the rows of all splits of a folder of Hugging Face's `datasets`, one after the other."""
    for path in _tables_of(folder):
        for where, row in _of_parquet(path) if path.suffix == ".parquet" else _of_arrow(path):
            yield f"{path.relative_to(folder).parent / where}", row


def _tables_of(folder: Path) -> list[Path]:
    """Return the files of a data set: those that `save_to_disk` lists, or the Parquet files of a repository of the Hub.

    https://huggingface.co/docs/datasets/package_reference/main_classes (`save_to_disk`): a folder with `state.json`, whose
    `_data_files` are Arrow streams, or with `dataset_dict.json` and such a folder for each of its `splits`.

    Raises:
        DataError: the list is not readable, names other files than those of the folder, or lacks one.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = _listed(folder / "dataset_dict.json", "splits")
        return [file for split in splits for file in _tables_of(folder / split)]
    state = folder / "state.json"
    if not state.is_file():
        return [*sorted(folder.glob("*.parquet")), *sorted(folder.glob("*/*.parquet"))]
    files = [folder / name for name in _listed(state, "_data_files")]
    if missing := [file for file in files if not file.is_file()]:
        raise DataError(
            f"{state}: names {missing[0].name}, which is not in the folder; save the data set again"
        )
    return files


def _listed(path: Path, key: str) -> list[str]:
    """Return the names of files or folders beside a file of `datasets`, which lists them."""
    content = _loaded(path) or {}
    if content.get("_indices_data_files"):
        raise DataError(
            f"{path}: a data set with indices, of a `datasets` before 2.0; `flatten_indices()` and `save_to_disk` write it anew"
        )
    listed = content.get(key)
    names = [
        str(entry.get("filename") or "") if isinstance(entry, dict) else str(entry)
        for entry in (listed if isinstance(listed, list) else ())
    ]
    if not names or any(name in {"", ".."} or Path(name).name != name for name in names):
        raise DataError(
            f"{path}: expected names of files of the folder in {key!r}, as `datasets` writes them"
        )
    return names


def _of_parquet(path: Path) -> Iterator[SourceRow]:
    require_package("pyarrow", "parquet")
    import pyarrow as pa  # noqa: PLC0415 - an optional package of 100 MB
    from pyarrow import parquet  # noqa: PLC0415

    try:
        with parquet.ParquetFile(path) as file:
            _header(list(file.schema_arrow.names), str(path))
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}: row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable as Parquet: {error}") from error


def _of_frame(frame: pd.DataFrame) -> Iterator[SourceRow]:
    names = [str(name) for name in frame.columns]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"the table has two columns {duplicates[0]!r}; rename one")
    for start in range(0, len(frame), _BATCH_ROWS):
        part = frame.iloc[start : start + _BATCH_ROWS].astype(object)
        values = part.where(part.notna(), None)
        for offset, row in enumerate(values.itertuples(index=False, name=None)):
            yield f"the table, row {start + offset + 1}", dict(zip(names, map(_plain, row), strict=True))


def _plain(value: Any) -> Any:  # noqa: ANN401 - a cell of a table
    """Return a cell with lists in place of arrays, which pandas reads lists of Parquet as."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value
